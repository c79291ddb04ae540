//! The status codes and headers of WHEP (draft-ietf-wish-whep), as far as they differ from WHIP's.

use super::whip::{FRAGMENT, OFFER, offer, patch, publish, send, text};
use super::*;

/// Where viewers of a session post their offers.
fn endpoint(session: &str) -> String {
    session.replace("/v1/sessions/", "/v1/whep/")
}

/// Watches; gives the path of the viewer's resource.
async fn watch(site: &Site, session: &str) -> String {
    let response = site.request(send(offer(&endpoint(session)), OFFER)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap();
    let path = location.strip_prefix("http://127.0.0.1:8080").unwrap();
    assert!(path.starts_with(&format!("{session}/viewers/")), "{path}");
    path.to_owned()
}

#[tokio::test]
async fn viewers_join_change_and_leave_one_by_one() {
    let ice_servers = vec![ice_server(&["stun:a.example"], ice::Access::Open)];
    let site = site(Settings { ice_servers, ..Settings::default() }, None);
    let session = publish(&site).await;
    let response = site.request(send(offer(&endpoint(&session)), OFFER)).await;
    assert_eq!(response.headers()["content-type"], "application/sdp");
    assert_eq!(response.headers()["etag"], "\"abcd\"");
    assert_eq!(response.headers()["link"], "<stun:a.example>; rel=\"ice-server\"");
    assert_eq!(text(response).await, format!("answer to {OFFER}"));
    let (one, other) = (watch(&site, &session).await, watch(&site, &session).await);
    assert_ne!(one, other);

    let trickled = site.request(patch(&one, Some("\"abcd\""), "candidate")).await;
    assert_eq!(trickled.status(), StatusCode::NO_CONTENT);
    let restarted = site.request(patch(&one, Some("*"), "restart")).await;
    assert_eq!(
        (restarted.status(), &restarted.headers()["etag"]),
        (StatusCode::OK, &HeaderValue::from_static("\"efgh\""))
    );

    let delete = |path: &str| Request::delete(path).body(Body::empty()).unwrap();
    assert_eq!(site.request(delete(&one)).await.status(), StatusCode::OK);
    problem(site.request(delete(&one)).await, 404, ErrorCode::NotFound).await;
    problem(site.request(patch(&one, Some("*"), "candidate")).await, 404, ErrorCode::NotFound).await;
    assert_eq!(site.request(patch(&other, Some("*"), "candidate")).await.status(), StatusCode::NO_CONTENT);
    assert!(site.registry.len() == 1, "the session goes on");
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_with_its_status() {
    let site = plain();
    problem(site.request(send(offer("/v1/whep/none"), OFFER)).await, 404, ErrorCode::NotFound).await;
    let session = publish(&site).await;
    let endpoint = endpoint(&session);
    let json = Request::post(&endpoint).header("content-type", "application/json");
    problem(site.request(send(json, OFFER)).await, 415, ErrorCode::UnsupportedType).await;
    let html = offer(&endpoint).header("accept", "text/html");
    problem(site.request(send(html, OFFER)).await, 406, ErrorCode::UnsupportedType).await;
    let cases = [
        ("early", 409, ErrorCode::Conflict, Some("2")),
        ("full", 503, ErrorCode::Capacity, Some("2")),
        ("codec", 406, ErrorCode::NoCommonCodec, Some("2")),
        ("bad", 400, ErrorCode::BadSdp, Some("2")),
    ];
    for (sdp, status, code, retry) in cases {
        let refused = site.request(send(offer(&endpoint), sdp)).await;
        assert_eq!(refused.headers().get("retry-after").map(|value| value.to_str().unwrap()), retry, "{sdp}");
        problem(refused, status, code).await;
    }
    let large = "v".repeat(65_537);
    problem(site.request(send(offer(&endpoint), large)).await, 413, ErrorCode::TooLarge).await;

    let viewer = watch(&site, &session).await;
    let wrong = |path: &str| send(Request::patch(path).header("content-type", "application/sdp"), "nonsense");
    for gone in [
        format!("{session}/viewers/none"),
        viewer.replace("/v1/sessions/", "/v1/sessions/x"),
        "/v1/sessions/%ff/viewers/x".into(),
    ] {
        problem(site.request(wrong(&gone)).await, 404, ErrorCode::NotFound).await;
    }
    problem(site.request(wrong(&viewer)).await, 415, ErrorCode::UnsupportedType).await;
    problem(site.request(patch(&viewer, None, "nonsense")).await, 428, ErrorCode::PreconditionRequired).await;
    problem(site.request(patch(&viewer, Some("\"x\""), "nonsense")).await, 412, ErrorCode::PreconditionFailed).await;
    problem(site.request(patch(&viewer, Some("*"), "nonsense")).await, 400, ErrorCode::BadRequest).await;
    problem(site.request(patch(&viewer, Some("*"), "impossible")).await, 422, ErrorCode::BadSdp).await;
}

#[tokio::test]
async fn who_may_view_may_watch_and_ends_its_own_viewers_only() {
    let site = site(with_auth(), None);
    let with = |request: axum::http::request::Builder, claims: &Value| {
        request.header("authorization", format!("Bearer {}", bearer(claims)))
    };
    let camera = json!({"can_publish": true, "sub": "cam"});
    let opened = site.request(send(with(offer("/v1/whip"), &camera), OFFER)).await;
    let location = opened.headers()["location"].to_str().unwrap();
    let session = location.strip_prefix("http://127.0.0.1:8080").unwrap().to_owned();
    let endpoint = endpoint(&session);
    let refused = site.request(send(offer(&endpoint), OFFER)).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    problem(refused, 401, ErrorCode::Unauthorized).await;
    problem(site.request(send(with(offer(&endpoint), &camera), OFFER)).await, 403, ErrorCode::Forbidden).await;

    let ann = json!({"can_view": true, "sub": "ann"});
    let joined = site.request(send(with(offer(&endpoint), &ann), OFFER)).await;
    assert_eq!(joined.status(), StatusCode::CREATED);
    let viewer = joined.headers()["location"].to_str().unwrap();
    let viewer = viewer.strip_prefix("http://127.0.0.1:8080").unwrap().to_owned();
    let bob = json!({"can_view": true, "sub": "bob"});
    let builder = || Request::patch(&viewer).header("content-type", FRAGMENT).header("if-match", "*");
    let refused = site.request(send(builder(), "x")).await;
    problem(refused, 401, ErrorCode::Unauthorized).await;
    problem(site.request(send(with(builder(), &bob), "x")).await, 403, ErrorCode::Forbidden).await;
    assert_eq!(site.request(send(with(builder(), &ann), "x")).await.status(), StatusCode::NO_CONTENT);
    let delete = |claims: &Value| with(Request::delete(&viewer), claims).body(Body::empty()).unwrap();
    problem(site.request(delete(&bob)).await, 403, ErrorCode::Forbidden).await;
    assert_eq!(site.request(delete(&json!({"can_configure": true}))).await.status(), StatusCode::OK);
}
