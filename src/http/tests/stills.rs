//! Requests with still pictures, whose answers are their sizes.

use std::convert::Infallible;

use futures_util::stream;

use super::*;

/// Tells how many bytes each picture has; `slow` ones take until the others are done, `bad` ones are refused, and of `wide`
/// ones 1000 bytes are told.
pub(super) struct Sizes;

#[async_trait]
impl Stills for Sizes {
    fn options(&self, patch: &saccade_signaling::OptionsPatch, claims: &Claims) -> Result<Options, Refusal> {
        match &patch.model {
            Some(model) if !claims.may_use(model) => Err(Refusal::may_not_use(model)),
            _ => options::open(&OneModel, 5_000, patch),
        }
    }

    async fn detect(&self, picture: Picture, order: Arc<Order>) -> Result<Tell, Refusal> {
        let name = picture.name.as_deref();
        if picture.bytes.starts_with(b"bad") {
            let message = "It is neither a JPEG, a PNG nor a WebP.";
            return Err(Refusal::new(ErrorCode::UnsupportedType, message));
        }
        if picture.bytes.starts_with(b"full") {
            return Err(Refusal::new(ErrorCode::Capacity, "Later.").retry_after(Duration::from_secs(3)));
        }
        if picture.bytes.starts_with(b"slow") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if picture.bytes.starts_with(b"wide") {
            return Ok(Tell { body: vec![b' '; 1_000].into(), content_type: "application/json", origin: None });
        }
        if let Some(annotate) = order.annotate.filter(|_| !order.inline) {
            return Ok(Tell { body: picture.bytes, content_type: annotate.content_type(), origin: None });
        }
        let told = json!({"image": picture.place, "name": name, "bytes": picture.bytes.len(), "key": order.key});
        Ok(Tell { body: told.to_string().into(), content_type: "application/json", origin: None })
    }
}

fn post(path: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", content_type).body(body.into()).unwrap()
}

/// A form with these parts: name, media type, bytes.
fn form(parts: &[(&str, &str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, kind, bytes) in parts {
        body.extend(format!("--frontier\r\nContent-Disposition: form-data; {name}\r\n").bytes());
        body.extend(format!("Content-Type: {kind}\r\n\r\n").bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--frontier--\r\n");
    ("multipart/form-data; boundary=frontier".to_owned(), body)
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn refused(site: &Site, request: Request<Body>, status: u16, code: ErrorCode) -> String {
    let response = site.request(request).await;
    let head = (response.status(), response.headers().clone());
    is_problem(status, code, &head, &body(response).await)
}

#[tokio::test]
async fn a_picture_is_a_body_whose_header_only_has_to_be_of_a_type_that_is_taken() {
    let site = plain();
    for kind in ["image/jpeg", "image/png", "IMAGE/WEBP; q=1", "application/octet-stream"] {
        let response = site.request(post("/v1/detect?key=k", kind, "12345")).await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"application/json".parse().unwrap())
        );
        assert_eq!(body(response).await, json!({"image": 0, "name": null, "bytes": 5, "key": "k"}));
    }
    let untyped = Request::post("/v1/detect").body("12345".into()).unwrap();
    assert_eq!(site.request(untyped).await.status(), StatusCode::OK);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "image/gif", ""] {
        refused(&site, post("/v1/detect", kind, "12345"), 415, ErrorCode::UnsupportedType).await;
    }
    refused(&site, post("/v1/detect", "image/png", "bad"), 415, ErrorCode::UnsupportedType).await;
    let annotated = site.request(post("/v1/detect?annotate=png", "image/jpeg", "pixels")).await;
    assert_eq!(annotated.headers()["content-type"], "image/png");
    assert_eq!(text(annotated).await, "pixels");
    let busy = site.request(post("/v1/detect", "image/png", "full")).await;
    assert_eq!(
        (busy.status(), &busy.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"3".parse().unwrap())
    );
}

#[tokio::test]
async fn a_picture_has_a_bound_whether_its_size_is_announced_or_not() {
    let stills = Bounds { picture_bytes: 1_000, received_bytes: 1_500, ..Bounds::default() };
    let site = site(Settings { stills, ..Settings::default() }, None);
    let announced = Request::post("/v1/detect").header("content-type", "image/png").header("content-length", "1001");
    refused(&site, announced.body(vec![0; 1_001].into()).unwrap(), 413, ErrorCode::TooLarge).await;
    let chunks =
        |count| Body::from_stream(stream::iter((0..count).map(|_| Ok::<_, Infallible>(Bytes::from_static(&[0; 100])))));
    refused(&site, post("/v1/detect", "image/png", chunks(11)), 413, ErrorCode::TooLarge).await;
    assert_eq!(body(site.request(post("/v1/detect", "image/png", chunks(10))).await).await["bytes"], 1_000);
    // Of all requests together, too: one holds its room until it is answered.
    let slow = site.request(post("/v1/detect", "image/png", [b"slow".to_vec(), vec![0; 900]].concat()));
    let mut slow = Box::pin(slow);
    assert!(futures_util::poll!(&mut slow).is_pending());
    refused(&site, post("/v1/detect", "image/png", chunks(10)), 503, ErrorCode::Capacity).await;
    assert_eq!(slow.await.status(), StatusCode::OK);
    assert_eq!(site.request(post("/v1/detect", "image/png", chunks(10))).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn answers_hold_room_until_they_are_sent() {
    let stills = Bounds { picture_bytes: 1_000, received_bytes: 1_500, ..Bounds::default() };
    let site = site(Settings { stills, ..Settings::default() }, None);
    let (kind, parts) = form(&[("name=\"a\"", "image/png", b"wide")]);
    let asked = |kind: &str, body: Vec<u8>, accept: &str| {
        let mut request = post("/v1/detect", kind, body);
        request.headers_mut().insert("accept", accept.parse().unwrap());
        site.request(request)
    };
    let large = || post("/v1/detect", "image/png", vec![0; 600]);
    for (kind, body) in [("image/png", b"wide".to_vec()), (&kind, parts)] {
        let unread = asked(kind, body.clone(), "*/*").await;
        refused(&site, large(), 503, ErrorCode::Capacity).await;
        // There is room for a picture, and none for its answer.
        if kind == "image/png" {
            let detail = refused(&site, post("/v1/detect", kind, "wide"), 503, ErrorCode::Capacity).await;
            assert!(detail.contains("answers are being sent"), "{detail}");
        }
        assert!(text(unread).await.len() >= 1_000);
        assert_eq!(site.request(large()).await.status(), StatusCode::OK);

        let mut events = asked(kind, body, "text/event-stream").await.into_body().into_data_stream();
        let mut held = Vec::new();
        while held.iter().map(Bytes::len).sum::<usize>() < 1_000 {
            held.push(events.next().await.unwrap().unwrap());
        }
        refused(&site, large(), 503, ErrorCode::Capacity).await;
        held.clear();
        assert_eq!(site.request(large()).await.status(), StatusCode::OK);
    }
    // One that is larger than all there is goes alone.
    let stills = Bounds { picture_bytes: 100, received_bytes: 500, ..Bounds::default() };
    let site = super::site(Settings { stills, ..Settings::default() }, None);
    let unread = site.request(post("/v1/detect", "image/png", "wide")).await;
    assert_eq!(unread.status(), StatusCode::OK);
    refused(&site, post("/v1/detect", "image/png", "1"), 503, ErrorCode::Capacity).await;
    drop(unread);
    assert_eq!(site.request(post("/v1/detect", "image/png", "1")).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_alive_while_no_picture_is_done() {
    let site = plain();
    let (kind, bytes) = form(&[("name=\"a\"", "image/png", b"1234")]);
    // What comes last comes late.
    let late = stream::once(async move {
        tokio::time::sleep(Duration::from_secs(16)).await;
        Ok::<_, Infallible>(Bytes::from(bytes))
    });
    let mut request = post("/v1/detect", &kind, Body::from_stream(late));
    request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let response = site.request(request).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    let told = text(response).await;
    let data = told.strip_prefix(":\n\ndata: ").and_then(|told| told.strip_suffix("\n\n"));
    assert_eq!(serde_json::from_str::<Value>(data.unwrap()).unwrap()["bytes"], 4, "{told}");
}

#[tokio::test]
async fn several_pictures_are_answered_in_their_order_and_a_bad_one_loses_no_other() {
    let stills = Bounds { picture_bytes: 1_000, pictures: 6, ..Bounds::default() };
    let site = site(Settings { stills, ..Settings::default() }, None);
    let large = vec![0; 1_001];
    let (kind, bytes) = form(&[
        ("name=\"a\"; filename=\"a.jpg\"", "image/jpeg", b"slow"),
        ("name=\"b\"", "image/png", b"12"),
        ("name=\"c\"; filename=\"c.txt\"", "text/plain", b"a note"),
        ("name=\"d\"", "image/webp", &large),
        ("name=\"e\"", "image/webp", b"bad"),
        ("name=\"f\"", "application/octet-stream", b"full"),
        ("name=\"g\"", "image/png", b"one too many"),
        ("name=\"h\"", "image/png", b"is not looked at"),
    ]);
    let response = site.request(post("/v1/detect", &kind, bytes)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let told = body(response).await;
    let told = told.as_array().unwrap();
    assert_eq!(
        told[..2],
        [
            json!({"image": 0, "name": "a.jpg", "bytes": 4, "key": null}),
            json!({"image": 1, "name": "b", "bytes": 2, "key": null})
        ]
    );
    let errors: Vec<_> = told[2..]
        .iter()
        .map(|told| {
            assert_eq!(told["type"], "error");
            (
                told["image"].as_u64().unwrap(),
                told["name"].as_str().unwrap(),
                told["code"].as_str().unwrap(),
                told["status"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        errors,
        [
            (2, "c.txt", "unsupported_type", 415),
            (3, "d", "too_large", 413),
            (4, "e", "unsupported_type", 415),
            (5, "f", "capacity", 503),
            (6, "g", "too_large", 413),
        ]
    );
    assert_eq!(told[5]["retry_after_ms"], 3_000);
    for entry in &told[2..] {
        serde_json::from_value::<saccade_signaling::ImageError>(entry.clone()).unwrap();
    }
}

#[tokio::test]
async fn what_is_no_form_is_refused_and_one_that_breaks_off_tells_what_it_had() {
    let site = plain();
    refused(&site, post("/v1/detect", "multipart/form-data", "12"), 400, ErrorCode::BadRequest).await;
    let (kind, bytes) = form(&[]);
    refused(&site, post("/v1/detect", &kind, bytes), 400, ErrorCode::BadRequest).await;
    refused(&site, post("/v1/detect", &kind, "something else"), 400, ErrorCode::BadRequest).await;
    let (kind, bytes) = form(&[("name=\"a\"", "image/png", b"1"), ("name=\"b\"", "image/png", b"22")]);
    let told = body(site.request(post("/v1/detect", &kind, bytes[..bytes.len() - 20].to_vec())).await).await;
    assert_eq!((told[0]["bytes"].as_u64(), told[1]["code"].as_str()), (Some(1), Some("bad_request")), "{told}");
}

#[tokio::test(start_paused = true)]
async fn events_come_as_pictures_are_done() {
    let site = plain();
    let (kind, bytes) = form(&[
        ("name=\"a\"", "image/png", b"slow"),
        ("name=\"b\"", "image/png", b"22"),
        ("name=\"c\"", "image/png", b"bad"),
    ]);
    let mut request = post("/v1/detect?annotate=jpeg", &kind, bytes);
    request.headers_mut().insert("accept", "application/json;q=0.1, text/event-stream".parse().unwrap());
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let response = site.request(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("content-encoding"));
    let told = text(response).await;
    let order: Vec<_> = told
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|json| {
            let told: Value = serde_json::from_str(json).unwrap();
            (told["image"].as_u64().unwrap(), told["code"].as_str().map(str::to_owned))
        })
        .collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [(0, None), (1, None), (2, Some("unsupported_type".to_owned()))]);
    assert_eq!(order[2].0, 0, "the slow one comes last: {told}");
    let mut request = post("/v1/detect", "image/png", "1234");
    request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let told = text(site.request(request).await).await;
    assert!(told.contains("\"bytes\":4"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_too_long_is_given_up() {
    let site = plain();
    let silent = || {
        Body::from_stream(
            stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"--frontier\r\n")) }).chain(stream::pending()),
        )
    };
    refused(&site, post("/v1/detect", "image/png", silent()), 408, ErrorCode::BadRequest).await;
    let kind = "multipart/form-data; boundary=frontier";
    refused(&site, post("/v1/detect", kind, silent()), 408, ErrorCode::BadRequest).await;
}

#[tokio::test]
async fn options_and_tokens_are_looked_at_before_the_body() {
    let site = site(with_auth(), None);
    let ask = |path: &str, token: Option<String>| {
        let mut request = post(path, "image/png", "1");
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request
    };
    refused(&site, ask("/v1/detect", None), 401, ErrorCode::Unauthorized).await;
    let viewer = bearer(&json!({"can_view": true}));
    refused(&site, ask("/v1/detect", Some(viewer)), 403, ErrorCode::Forbidden).await;
    let bound = bearer(&json!({"can_publish": true, "session": "s"}));
    refused(&site, ask("/v1/detect", Some(bound)), 403, ErrorCode::Forbidden).await;
    let publisher = || Some(bearer(&json!({"can_publish": true, "models": ["ppe"]})));
    assert_eq!(site.request(ask("/v1/detect?model=ppe", publisher())).await.status(), StatusCode::OK);
    refused(&site, ask("/v1/detect?model=other", publisher()), 403, ErrorCode::Forbidden).await;
    let detail =
        refused(&site, ask("/v1/detect?budget_ms=1&colour=red", publisher()), 422, ErrorCode::BadOptions).await;
    assert!(detail.contains("`colour` is not an option"), "{detail}");
    let detail =
        refused(&site, ask("/v1/detect?budget_ms=1&max_detections=0", publisher()), 422, ErrorCode::BadOptions).await;
    assert!(detail.contains("`budget_ms`") && detail.contains("`max_detections`"), "{detail}");
    let drain = Drain { deadline: clock::now() + PATIENCE, reconnect_after: Duration::from_secs(1) };
    site.registry.drain(drain);
    refused(&site, ask("/v1/detect", publisher()), 503, ErrorCode::Draining).await;
}

#[tokio::test]
async fn answers_are_compressed_as_the_client_takes_them_but_pictures_are_not() {
    let site = plain();
    for encoding in ["gzip", "br", "zstd"] {
        let mut request = post(&format!("/v1/detect?key={}", "k".repeat(100)), "image/png", "1");
        request.headers_mut().insert("accept-encoding", encoding.parse().unwrap());
        let response = site.request(request).await;
        assert_eq!(response.headers()["content-encoding"], encoding);
        let mut request = post("/v1/detect?annotate=png", "image/png", vec![b'a'; 1_000]);
        request.headers_mut().insert("accept-encoding", encoding.parse().unwrap());
        assert!(!site.request(request).await.headers().contains_key("content-encoding"));
    }
}
