use super::*;

#[tokio::test]
async fn an_offer_by_post_gets_a_complete_answer() {
    let mut site = plain();
    for path in ["/v1/offer", "/offer"] {
        let offer = json!({"sdp": "v=0", "type": "offer", "options": {"return": "results"}, "video_transform": "none"});
        let request = Request::post(path).header("content-type", "application/json");
        let response = site.request(request.body(offer.to_string().into()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let answer = body(response).await;
        let id = answer["session_id"].as_str().unwrap();
        assert_eq!(answer, json!({"sdp": "answer to v=0", "type": "answer", "session_id": id}));
        assert_eq!(site.registry.get(id).unwrap().view().options.return_mode, saccade_signaling::ReturnMode::Results);
        site.saw("open v=0 complete").await;
    }
}

#[tokio::test]
async fn a_bad_offer_is_refused_with_its_code() {
    let site = plain();
    let cases = [
        ("{".to_owned(), 400, ErrorCode::BadRequest, "not JSON"),
        ("[]".to_owned(), 400, ErrorCode::BadRequest, "no offer"),
        (json!({"type": "offer"}).to_string(), 400, ErrorCode::BadRequest, "`sdp`"),
        (json!({"sdp": "v=0", "type": "answer"}).to_string(), 400, ErrorCode::BadRequest, "`offer`"),
        (json!({"sdp": "bad", "type": "offer"}).to_string(), 400, ErrorCode::BadSdp, "no media"),
        (json!({"sdp": "v=0", "type": "offer", "options": {"x": 1}}).to_string(), 422, ErrorCode::BadOptions, "`x`"),
        (
            json!({"sdp": "v=0", "type": "offer", "options": {"model": "x"}}).to_string(),
            422,
            ErrorCode::UnknownModel,
            "`ppe`",
        ),
        (json!({"sdp": "v".repeat(65_537), "type": "offer"}).to_string(), 413, ErrorCode::TooLarge, "65536"),
        ("x".repeat(300_000), 413, ErrorCode::TooLarge, "65536"),
        (json!({"sdp": "panic", "type": "offer"}).to_string(), 500, ErrorCode::Internal, "try again"),
    ];
    for (text, status, code, part) in cases {
        let detail = problem(site.post_offer(text).await, status, code).await;
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
    let form = Request::post("/v1/offer").header("content-type", "text/plain").body("{}".into()).unwrap();
    problem(site.request(form).await, 415, ErrorCode::UnsupportedType).await;
    assert!(site.registry.is_empty());
}

#[tokio::test]
async fn a_client_with_a_huge_body_reads_why_it_is_refused() {
    let site = plain();
    let address = site.listen().await;
    let request = client().post(format!("http://{address}/v1/offer"));
    let response =
        request.header("content-type", "application/json").body("x".repeat(12_000_000)).send().await.unwrap();
    let head = (response.status(), response.headers().clone());
    is_problem(413, ErrorCode::TooLarge, &head, &response.json().await.unwrap());
}

#[tokio::test]
async fn a_client_that_leaves_early_leaves_no_session() {
    let mut site = plain();
    let offer = site.post_offer(json!({"sdp": "hold", "type": "offer"}).to_string());
    assert!(timeout(Duration::from_millis(20), offer).await.is_err());
    site.fake.hold.add_permits(1);
    site.saw("open hold complete").await;
    site.saw("close socket_lost").await;
    assert!(site.registry.wait_empty(crate::clock::now() + PATIENCE).await);
}

#[tokio::test]
async fn a_slow_answer_is_given_up() {
    let site = site(Settings { request_timeout: Duration::from_millis(20), ..Settings::default() }, None);
    let response = site.post_offer(json!({"sdp": "hold", "type": "offer"}).to_string()).await;
    problem(response, 503, ErrorCode::Internal).await;
}

#[tokio::test]
async fn sessions_are_listed_shown_and_deleted() {
    let site = site(Settings::default(), Some(2));
    assert_eq!(body(site.get("/v1/sessions").await).await, json!([]));
    let (first, second) = (site.open().await, site.open().await);
    let full = site.post_offer(json!({"sdp": "v=0", "type": "offer"}).to_string()).await;
    assert_eq!(full.headers()["retry-after"], "5");
    problem(full, 503, ErrorCode::Capacity).await;

    let list = body(site.get("/v1/sessions").await).await;
    let mut ids: Vec<_> = list.as_array().unwrap().iter().map(|view| view["session_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut expected = [first.as_str(), second.as_str()];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let shown = site.get(&format!("/v1/sessions/{first}")).await;
    assert_eq!(shown.headers()["cache-control"], "no-store");
    assert_eq!(body(shown).await["resolution"], json!([640, 480]));

    let delete = || Request::delete(format!("/v1/sessions/{first}")).body(Body::empty()).unwrap();
    assert_eq!(site.request(delete()).await.status(), StatusCode::OK);
    problem(site.request(delete()).await, 404, ErrorCode::NotFound).await;
    problem(site.get(&format!("/v1/sessions/{first}")).await, 404, ErrorCode::NotFound).await;
    problem(site.get("/v1/sessions/%ff").await, 404, ErrorCode::NotFound).await;
    assert_eq!(site.registry.len(), 1);
}

#[tokio::test]
async fn results_stream_until_the_session_ends() {
    let site = plain();
    let id = site.open().await;
    let response = site.get(&format!("/v1/sessions/{id}/results")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let results = site.fake.results.lock().unwrap().clone().unwrap();
    for number in 0..3 {
        results.send(format!(r#"{{"frame_id":{number}}}"#).into()).unwrap();
    }
    let mut events = response.into_body().into_data_stream();
    for number in 0..3 {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(event, format!("data: {{\"frame_id\":{number}}}\n\n"));
    }
    drop(results);
    site.registry.get(&id).unwrap().close(EndReason::Deleted).await;
    assert!(timeout(PATIENCE, events.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_slow_reader_loses_the_oldest_results() {
    let site = plain();
    let id = site.open().await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut events = site.get(&format!("/v1/sessions/{id}/results")).await.into_body().into_data_stream();
    let results = site.fake.results.lock().unwrap().clone().unwrap();
    for number in 0..RESULTS_CAPACITY + 6 {
        results.send(number.to_string().into()).unwrap();
    }
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap(), "data: 6\n\n");
    let dropped = r#"saccade_frames_dropped_total{stage="results",reason="slow_reader"} 6"#;
    assert!(recorder.handle().render().contains(dropped), "{}", recorder.handle().render());
}

#[tokio::test]
async fn requests_are_counted_by_route_template() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let site = plain();
    site.get("/v1/sessions/secret-id").await;
    site.get("/nowhere/secret-path").await;
    site.request(Request::builder().method("BREW").uri("/v1/models").body(Body::empty()).unwrap()).await;
    let text = recorder.handle().render();
    for line in [
        r#"saccade_http_requests_total{route="/v1/sessions/{id}",method="GET",status="404"} 1"#,
        r#"saccade_http_requests_total{route="static",method="GET",status="404"} 1"#,
        r#"saccade_http_requests_total{route="/v1/models",method="other",status="405"} 1"#,
        r#"saccade_http_request_seconds_count{route="/v1/models"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("secret"));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let site = plain();
    for path in ["/v1/nothing", "/v1/sessions/a/b/c", "/nothing.js", "/../Cargo.toml"] {
        problem(site.get(path).await, 404, ErrorCode::NotFound).await;
    }
    for (method, path, allow) in
        [("DELETE", "/v1/models", "GET,HEAD"), ("GET", "/offer", "POST"), ("POST", "/", "GET,HEAD")]
    {
        let response = site.request(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()["allow"], allow, "{path}");
        problem(response, 405, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn the_page_is_served_from_the_binary() {
    let site = plain();
    let page = site.get("/").await;
    assert_eq!(
        (page.status(), page.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    let etag = page.headers()["etag"].clone();
    let again = Request::get("/index.html").header("if-none-match", etag).body(Body::empty()).unwrap();
    assert_eq!(site.request(again).await.status(), StatusCode::NOT_MODIFIED);

    let script = Request::get("/saccade.js").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let script = site.request(script).await;
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(script.headers()["content-encoding"], "gzip");

    let head = site.request(Request::head("/saccade.js").body(Body::empty()).unwrap()).await;
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 1_000);
    assert!(axum::body::to_bytes(head.into_body(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let site = plain();
    let secure = super::site(Settings { is_secure: true, ..Settings::default() }, None);
    assert!(secure.get("/").await.headers()["strict-transport-security"].to_str().unwrap().starts_with("max-age="));
    for path in ["/", "/v1/models", "/nothing"] {
        let response = site.get(path).await;
        let headers = response.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self'; connect-src 'self';"));
        assert!(!policy.contains("unsafe") && !policy.contains('*'));
        assert!(headers["permissions-policy"].to_str().unwrap().contains("camera=(self)"));
        assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
        assert!(!headers.contains_key("strict-transport-security"), "it is not over TLS");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
    }
    let models = body(site.get("/v1/models").await).await;
    assert_eq!((&models[1]["name"], &models[1]["default"]), (&json!("ppe"), &json!(true)));
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_problem() {
    let Site { registry, fake, .. } = plain();
    let models = Arc::new(FakeModels { broken: true, ..FakeModels::default() });
    let router = routers(Settings::default(), services(&registry, fake, &models)).unwrap().public;
    let response = router.oneshot(Request::get("/v1/models").body(Body::empty()).unwrap()).await.unwrap();
    problem(response, 500, ErrorCode::Internal).await;
}

#[tokio::test]
async fn listed_pages_may_use_the_api() {
    let allowed_origins = vec!["https://shop.example".to_owned()];
    let site = site(Settings { allowed_origins, ..Settings::default() }, None);
    let preflight = |origin: &str| {
        let request =
            Request::options("/v1/offer").header("origin", origin).header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "content-type").body(Body::empty()).unwrap()
    };
    let allowed = site.request(preflight("https://shop.example")).await;
    assert_eq!(allowed.status(), StatusCode::OK);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://shop.example");
    assert!(allowed.headers()["access-control-allow-headers"].to_str().unwrap().contains("content-type"));
    let refused = site.request(preflight("https://evil.example")).await;
    assert!(!refused.headers().contains_key("access-control-allow-origin"));

    for (origin, status) in [("https://shop.example", 200), ("https://evil.example", 403)] {
        let request = Request::post("/v1/offer").header("origin", origin).header("host", "eye.example");
        let request = request.header("content-type", "application/json");
        let offer = json!({"sdp": "v=0", "type": "offer"}).to_string();
        let response = site.request(request.body(offer.into()).unwrap()).await;
        assert_eq!(response.status(), status);
        assert!(response.headers().contains_key("access-control-expose-headers"));
    }
}

#[tokio::test]
async fn a_loopback_server_is_not_called_by_other_names() {
    let site = site(Settings { loopback_only: true, ..Settings::default() }, None);
    let by = |host: &str| Request::get("/v1/sessions").header("host", host).body(Body::empty()).unwrap();
    assert_eq!(site.request(by("localhost:8080")).await.status(), StatusCode::OK);
    let detail = problem(site.request(by("evil.example")).await, 421, ErrorCode::Forbidden).await;
    assert!(detail.contains("http.public_url"));
}

#[tokio::test]
async fn tokens_open_the_api() {
    let site = site(with_auth(), None);
    let ask = async |method: &str, path: &str, token: Option<&str>| {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("bearer {token}"));
        }
        let body = json!({"sdp": "v=0", "type": "offer"}).to_string();
        site.request(request.body(body.into()).unwrap()).await
    };
    let viewer = bearer(&json!({"can_view": true}));
    let camera = bearer(&json!({"sub": "cam", "can_publish": true}));
    let stranger = bearer(&json!({"sub": "eve", "can_publish": true}));

    let refused = ask("GET", "/v1/sessions", None).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    problem(refused, 401, ErrorCode::Unauthorized).await;
    problem(ask("GET", "/v1/models", Some("x")).await, 401, ErrorCode::Unauthorized).await;
    let detail = problem(ask("POST", "/v1/offer", Some(&viewer)).await, 403, ErrorCode::Forbidden).await;
    assert!(detail.contains("`can_publish`"));
    let opened = body(ask("POST", "/v1/offer", Some(&camera)).await).await;
    let path = format!("/v1/sessions/{}", opened["session_id"].as_str().unwrap());
    problem(ask("GET", &path, Some(&camera)).await, 403, ErrorCode::Forbidden).await;
    assert_eq!(ask("GET", &path, Some(&viewer)).await.status(), StatusCode::OK);
    for nosy in [&viewer, &stranger] {
        problem(ask("DELETE", &path, Some(nosy)).await, 403, ErrorCode::Forbidden).await;
    }
    assert_eq!(ask("DELETE", &path, Some(&camera)).await.status(), StatusCode::OK);
}
