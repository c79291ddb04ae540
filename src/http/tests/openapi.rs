//! What the description says is so.

use std::collections::BTreeSet;

use super::*;

const METHODS: [&str; 5] = ["DELETE", "GET", "PATCH", "POST", "PUT"];

/// Every path with what it stands for here, and its operations by method.
fn paths() -> Vec<(String, serde_json::Map<String, Value>)> {
    let document = super::super::openapi::document();
    let paths = document["paths"].as_object().unwrap().iter();
    paths.map(|(path, item)| (path.replace(['{', '}'], ""), item.as_object().unwrap().clone())).collect()
}

async fn answer(site: &Site, method: &str, path: &str, token: Option<&str>) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    site.request(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn paths_take_the_methods_that_are_described_and_no_other() {
    let site = plain();
    for (path, item) in paths() {
        for method in METHODS {
            let response = answer(&site, method, &path, None).await;
            let status = response.status();
            if item.contains_key(&method.to_lowercase()) {
                assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
                let text = String::from_utf8_lossy(&text);
                assert!(!text.contains("There is nothing at this path"), "{method} {path}");
            } else {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                let allowed = response.headers()["allow"].to_str().unwrap().split(',');
                let allowed: BTreeSet<_> = allowed.filter(|it| *it != "HEAD").map(str::to_lowercase).collect();
                assert_eq!(allowed, item.keys().cloned().collect(), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_are_asked_for_where_it_is_described() {
    let site = site(with_auth(), None);
    let nothing = bearer(&json!({}));
    for (path, item) in paths() {
        for (method, operation) in item {
            let name = format!("{method} {path}");
            let ways = operation["security"].as_array().unwrap();
            let is_open = ways.iter().any(|way| way.as_object().unwrap().is_empty());
            let method = method.to_uppercase();
            let status = answer(&site, &method, &path, None).await.status();
            assert_eq!(status == StatusCode::UNAUTHORIZED, !is_open, "{name}: {status}");
            let needs = ways.iter().any(|way| way["token"].as_array().is_some_and(|claims| !claims.is_empty()));
            let status = answer(&site, &method, &path, Some(&nothing)).await.status();
            // What the caller may not know of is not there.
            let is_kept = matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
            assert!(is_kept || !needs, "{name}: {status}");
            assert!(operation["responses"].get(status.as_str()).is_some(), "{name}: {status} is not described");
        }
    }
}

#[tokio::test]
async fn the_description_is_for_everybody_and_sent_once() {
    let allowed_origins = vec!["https://shop.example".to_owned()];
    let site = site(Settings { allowed_origins, ..with_auth() }, None);
    let request = || Request::get("/v1/openapi.json").header("origin", "https://shop.example");
    let response = site.request(request().body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
    let document = body(response).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let again = request().header("if-none-match", &headers["etag"]).body(Body::empty()).unwrap();
    let again = site.request(again).await;
    assert_eq!((again.status(), &again.headers()["etag"]), (StatusCode::NOT_MODIFIED, &headers["etag"]));
    let other = request().header("if-none-match", "\"other\"").body(Body::empty()).unwrap();
    assert_eq!(site.request(other).await.status(), StatusCode::OK);
}
