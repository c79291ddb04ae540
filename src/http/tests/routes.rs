use super::*;

fn request(method: &str, name: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("/v1/routes/{name}"));
    request.header("content-type", "application/json").body(body.into()).unwrap()
}

fn split() -> Value {
    json!({"split": [{"model": "a@1", "weight": 90}, {"model": "a@2", "weight": 10}], "shadow": "a@3"})
}

#[tokio::test]
async fn routes_are_put_shown_listed_and_deleted() {
    let site = plain();
    assert_eq!(body(site.get("/v1/routes").await).await, json!([]));
    problem(site.get("/v1/routes/canary").await, 404, ErrorCode::NotFound).await;
    let put = site.request(request("PUT", "canary", split().to_string())).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(body(put).await, split());

    let ensemble = json!({"ensemble": ["a", "b"], "fusion": "wbf"});
    let put = site.request(request("PUT", "canary", json!({"ensemble": ["a", "b"]}).to_string())).await;
    assert_eq!(put.status(), StatusCode::OK);
    assert_eq!(body(put).await, ensemble);
    assert_eq!(body(site.get("/v1/routes/canary").await).await, ensemble);
    let listed = json!([{"name": "canary", "default": false, "classes": [], "route": ensemble}]);
    assert_eq!(body(site.get("/v1/routes").await).await, listed);

    assert_eq!(site.request(request("DELETE", "canary", "")).await.status(), StatusCode::OK);
    problem(site.request(request("DELETE", "canary", "")).await, 404, ErrorCode::NotFound).await;
    problem(site.request(request("POST", "canary", split().to_string())).await, 405, ErrorCode::BadRequest).await;
}

#[tokio::test]
async fn a_bad_route_is_refused_with_its_code() {
    let site = plain();
    for (name, text, status, code, part) in [
        ("r", "{".to_owned(), 400, ErrorCode::BadRequest, "no route"),
        ("r", "[]".to_owned(), 400, ErrorCode::BadRequest, "no route"),
        ("r", "{}".to_owned(), 400, ErrorCode::BadRequest, "`split` or `ensemble`"),
        ("r", json!({"split": [], "shadwo": "a"}).to_string(), 400, ErrorCode::BadRequest, "`shadwo`"),
        ("r", json!({"ensemble": ["a", "b"], "fusion": "nms"}).to_string(), 400, ErrorCode::BadRequest, "`wbf`"),
        ("r", json!({"ensemble": ["a".repeat(9_000)]}).to_string(), 413, ErrorCode::TooLarge, "8192"),
        ("%ff", split().to_string(), 400, ErrorCode::BadRequest, "UTF-8"),
        ("ppe", split().to_string(), 409, ErrorCode::Conflict, "model"),
    ] {
        let detail = problem(site.request(request("PUT", name, text)).await, status, code).await;
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
    for method in ["GET", "DELETE"] {
        problem(site.request(request(method, "%ff", "")).await, 404, ErrorCode::NotFound).await;
    }
    let form = Request::put("/v1/routes/r").header("content-type", "text/plain").body(split().to_string().into());
    problem(site.request(form.unwrap()).await, 415, ErrorCode::UnsupportedType).await;
    assert_eq!(body(site.get("/v1/routes").await).await, json!([]));
}

#[tokio::test]
async fn only_who_manages_models_changes_routes() {
    let site = site(with_auth(), None);
    let ask = async |method: &str, token: Option<&str>| {
        let mut request = request(method, "canary", split().to_string());
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        site.request(request).await
    };
    let everything_else = bearer(&json!({"can_publish": true, "can_view": true, "can_configure": true}));
    let manager = bearer(&json!({"can_manage_models": true}));
    for method in ["GET", "PUT", "DELETE"] {
        problem(ask(method, None).await, 401, ErrorCode::Unauthorized).await;
    }
    problem(site.get("/v1/routes").await, 401, ErrorCode::Unauthorized).await;
    for method in ["PUT", "DELETE"] {
        let detail = problem(ask(method, Some(&everything_else)).await, 403, ErrorCode::Forbidden).await;
        assert!(detail.contains("`can_manage_models`"));
    }
    assert_eq!(ask("PUT", Some(&manager)).await.status(), StatusCode::CREATED);
    assert_eq!(ask("GET", Some(&everything_else)).await.status(), StatusCode::OK);
    assert_eq!(ask("DELETE", Some(&manager)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn foreign_pages_change_no_routes_and_listed_ones_may_ask_to() {
    let allowed_origins = vec!["https://shop.example".to_owned()];
    let site = site(Settings { allowed_origins, ..Settings::default() }, None);
    let mut foreign = request("PUT", "canary", split().to_string());
    foreign.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    problem(site.request(foreign).await, 403, ErrorCode::Forbidden).await;
    let preflight = Request::options("/v1/routes/canary").header("origin", "https://shop.example");
    let preflight = preflight.header("access-control-request-method", "PUT").body(Body::empty()).unwrap();
    let allowed = site.request(preflight).await;
    assert!(allowed.headers()["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
}

#[tokio::test]
async fn the_welcome_names_models_then_routes_and_each_once() {
    let site = plain();
    for name in ["canary", "other"] {
        site.request(request("PUT", name, split().to_string())).await;
    }
    let mut socket = Socket::connect(site.listen().await).await;
    assert_eq!(socket.read().await["models"], json!(["ppe", "other", "canary"]));
}
