//! The status codes and headers of WHIP (RFC 9725), one by one.

use super::*;
use crate::secret::Secret;

/// An offer that the sessions without media answer with the user fragment [`TAG`].
pub(super) const OFFER: &str = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

pub(super) fn offer(uri: &str) -> axum::http::request::Builder {
    Request::post(uri).header("content-type", "application/sdp").header("host", "127.0.0.1:8080")
}

pub(super) fn send(request: axum::http::request::Builder, body: impl Into<Body>) -> Request<Body> {
    request.body(body.into()).unwrap()
}

pub(super) fn patch(path: &str, if_match: Option<&str>, body: &str) -> Request<Body> {
    let request = Request::patch(path).header("content-type", FRAGMENT);
    let request = if let Some(tag) = if_match { request.header("if-match", tag) } else { request };
    send(request, body.to_owned())
}

pub(super) async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Publishes; gives the path of the session's resource.
pub(super) async fn publish(site: &Site) -> String {
    let response = site.request(send(offer("/v1/whip"), OFFER)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap();
    location.strip_prefix("http://127.0.0.1:8080").unwrap().to_owned()
}

#[tokio::test]
async fn an_offer_makes_a_session_and_says_where_it_is() {
    let ice_servers = vec![
        ice_server(&["stun:a.example", "stun:b.example"], ice::Access::Open),
        ice_server(
            &["turn:c.example?transport=tcp"],
            ice::Access::Fixed { username: "me".into(), credential: Secret::new("secret".into()) },
        ),
    ];
    let mut site = site(Settings { ice_servers, ..Settings::default() }, None);
    let response = site.request(send(offer("/v1/whip?return=results&budget_ms=90&classes=head"), OFFER)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/sdp");
    assert_eq!(headers["etag"], "\"abcd\"");
    let links: Vec<_> = headers.get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    assert_eq!(
        links,
        [
            "<stun:a.example>; rel=\"ice-server\"",
            "<stun:b.example>; rel=\"ice-server\"",
            "<turn:c.example?transport=tcp>; rel=\"ice-server\"; username=\"me\"; credential=\"secret\"; \
             credential-type=\"password\"",
        ]
    );
    let location = headers["location"].to_str().unwrap();
    let id = location.strip_prefix("http://127.0.0.1:8080/v1/sessions/").unwrap();
    let options = site.registry.get(id).unwrap().view().options;
    assert_eq!((options.return_mode, options.budget_ms), (saccade_signaling::ReturnMode::Results, 90));
    assert_eq!(options.classes.unwrap(), ["head"]);
    assert_eq!(text(response).await, format!("answer to {OFFER}"));
    site.saw(&format!("open {OFFER} complete")).await;
}

#[tokio::test]
async fn the_location_is_of_the_public_url_where_there_is_one() {
    let public_url = Some("https://eye.example/saccade/".to_owned());
    let site = site(Settings { public_url, ..Settings::default() }, None);
    let response = site.request(send(offer("/v1/whip"), OFFER)).await;
    let location = response.headers()["location"].to_str().unwrap();
    assert!(location.starts_with("https://eye.example/saccade/v1/sessions/"), "{location}");
}

#[tokio::test]
async fn an_offer_that_cannot_be_taken_is_refused_with_its_status() {
    let site = plain();
    let other = |kind: &str| send(Request::post("/v1/whip").header("content-type", kind), OFFER);
    let unknown = site.request(other("application/json")).await;
    assert_eq!(unknown.headers()["accept-post"], "application/sdp");
    problem(unknown, 415, ErrorCode::UnsupportedType).await;
    problem(site.request(send(Request::post("/v1/whip"), OFFER)).await, 415, ErrorCode::UnsupportedType).await;
    let html = offer("/v1/whip").header("accept", "text/html");
    problem(site.request(send(html, OFFER)).await, 406, ErrorCode::UnsupportedType).await;
    let cases = [
        ("/v1/whip", "bad".to_owned(), 400, ErrorCode::BadSdp, "no media"),
        ("/v1/whip", "v".repeat(65_537), 413, ErrorCode::TooLarge, "65536"),
        ("/v1/whip?colour=red", OFFER.to_owned(), 422, ErrorCode::BadOptions, "`colour`"),
        ("/v1/whip?budget_ms=1", OFFER.to_owned(), 422, ErrorCode::BadOptions, "`budget_ms`"),
        ("/v1/whip?track=true&track=true", OFFER.to_owned(), 422, ErrorCode::BadOptions, "twice"),
        ("/v1/whip?model=x", OFFER.to_owned(), 422, ErrorCode::UnknownModel, "`ppe`"),
    ];
    for (uri, sdp, status, code, part) in cases {
        let detail = problem(site.request(send(offer(uri), sdp)).await, status, code).await;
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
    let binary = site.request(send(offer("/v1/whip"), vec![0xFF_u8, 0xFE])).await;
    problem(binary, 400, ErrorCode::BadSdp).await;
    assert!(site.registry.is_empty());
    // No redirect, whatever the path looks like.
    for path in ["/v1/whip/", "/v1//whip", "/v1/whip/x"] {
        assert_eq!(site.request(send(offer(path), OFFER)).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
        let request = Request::builder().method(method).uri("/v1/whip").body(Body::empty()).unwrap();
        assert_eq!(site.request(request).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn a_full_server_says_when_to_publish_again() {
    let site = site(Settings::default(), Some(1));
    let resource = publish(&site).await;
    let full = site.request(send(offer("/v1/whip"), OFFER)).await;
    assert_eq!(full.headers()["retry-after"], "5");
    problem(full, 503, ErrorCode::Capacity).await;
    let delete = || Request::delete(&resource).body(Body::empty()).unwrap();
    assert_eq!(site.request(delete()).await.status(), StatusCode::OK);
    problem(site.request(delete()).await, 404, ErrorCode::NotFound).await;
    publish(&site).await;
}

#[tokio::test]
async fn anyone_may_ask_what_is_taken_and_pages_may_read_the_headers() {
    let site = site(Settings { allowed_origins: vec!["https://shop.example".into()], ..with_auth() }, None);
    for path in ["/v1/whip", "/v1/whep/any"] {
        let options = Request::options(path)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type");
        let response = site.request(options.body(Body::empty()).unwrap()).await;
        assert!(response.status().is_success());
        let headers = response.headers();
        assert_eq!(headers["accept-post"], "application/sdp", "{path}");
        assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
        for method in ["POST", "PATCH", "DELETE"] {
            assert!(headers["access-control-allow-methods"].to_str().unwrap().contains(method));
        }
        for name in ["authorization", "content-type", "if-match"] {
            assert!(headers["access-control-allow-headers"].to_str().unwrap().contains(name), "{name}");
        }
    }
    let plain = Request::options("/v1/whip").body(Body::empty()).unwrap();
    assert_eq!(site.request(plain).await.headers()["accept-post"], "application/sdp");

    let token = bearer(&json!({"can_publish": true, "sub": "cam"}));
    let posted = offer("/v1/whip").header("origin", "https://shop.example");
    let posted = posted.header("authorization", format!("Bearer {token}"));
    let response = site.request(send(posted, OFFER)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap().to_ascii_lowercase();
    for name in ["location", "etag", "link"] {
        assert!(exposed.split(',').any(|one| one.trim() == name), "{name} is not in {exposed}");
    }
}

#[tokio::test]
async fn who_lacks_a_token_learns_how_to_send_one() {
    let site = site(with_auth(), None);
    let with = |request: axum::http::request::Builder, claims: &Value| {
        request.header("authorization", format!("Bearer {}", bearer(claims)))
    };
    let refused = site.request(send(offer("/v1/whip"), OFFER)).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    problem(refused, 401, ErrorCode::Unauthorized).await;
    let viewer = with(offer("/v1/whip"), &json!({"can_view": true}));
    problem(site.request(send(viewer, OFFER)).await, 403, ErrorCode::Forbidden).await;

    let camera = json!({"can_publish": true, "sub": "cam"});
    let opened = site.request(send(with(offer("/v1/whip"), &camera), OFFER)).await;
    let location = opened.headers()["location"].to_str().unwrap();
    let path = location.strip_prefix("http://127.0.0.1:8080").unwrap().to_owned();
    let builder = || Request::patch(&path).header("content-type", FRAGMENT).header("if-match", "\"abcd\"");
    let refused = site.request(send(builder(), "x")).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    problem(refused, 401, ErrorCode::Unauthorized).await;
    let other = with(builder(), &json!({"can_publish": true, "sub": "other"}));
    problem(site.request(send(other, "x")).await, 403, ErrorCode::Forbidden).await;
    assert_eq!(site.request(send(with(builder(), &camera), "x")).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_patch_trickles_or_restarts_ice() {
    let mut site = plain();
    let path = publish(&site).await;
    site.saw(&format!("open {OFFER} complete")).await;
    for tag in ["\"abcd\"", "*", "\"*\"", "\"other\", \"abcd\""] {
        let trickled = site.request(patch(&path, Some(tag), "candidate")).await;
        assert_eq!(trickled.status(), StatusCode::NO_CONTENT, "{tag}");
        assert!(trickled.headers().get("etag").is_none());
        assert!(text(trickled).await.is_empty());
        site.saw("patch true candidate").await;
    }
    let restarted = site.request(patch(&path, Some("*"), "restart")).await;
    assert_eq!(restarted.status(), StatusCode::OK);
    assert_eq!(restarted.headers()["etag"], "\"efgh\"");
    assert_eq!(restarted.headers()["content-type"], FRAGMENT);
    assert_eq!(text(restarted).await, "a=ice-ufrag:efgh\r\n");
}

#[tokio::test]
async fn a_patch_that_cannot_be_taken_is_refused_in_a_fixed_order() {
    let site = plain();
    let path = publish(&site).await;
    // All of it is wrong; what is put right first is told first.
    let wrong = |path: &str| send(Request::patch(path).header("content-type", "application/sdp"), "nonsense");
    problem(site.request(wrong("/v1/sessions/none")).await, 404, ErrorCode::NotFound).await;
    let unknown = site.request(wrong(&path)).await;
    assert_eq!(unknown.headers()["accept-patch"], FRAGMENT);
    problem(unknown, 415, ErrorCode::UnsupportedType).await;
    problem(site.request(patch(&path, None, "nonsense")).await, 428, ErrorCode::PreconditionRequired).await;
    for tag in ["\"other\"", "W/\"abcd\"", "abcd", ""] {
        problem(site.request(patch(&path, Some(tag), "nonsense")).await, 412, ErrorCode::PreconditionFailed).await;
    }
    problem(site.request(patch(&path, Some("\"abcd\""), "nonsense")).await, 400, ErrorCode::BadRequest).await;
    problem(site.request(patch(&path, Some("*"), "impossible")).await, 422, ErrorCode::BadSdp).await;
    let large = "x".repeat(65_537);
    problem(site.request(patch(&path, Some("*"), &large)).await, 413, ErrorCode::TooLarge).await;
    assert_eq!(site.request(patch(&path, Some("*"), "candidate")).await.status(), StatusCode::NO_CONTENT);
}
