//! Who may do what, and for how long.

use sha2::{Digest, Sha256};

use super::*;
use crate::secret::Secret;
use crate::session::Claims;

/// A server whose tokens end when they say.
fn to_the_second() -> Site {
    let auth = auth::Settings { leeway: Duration::ZERO, ..auth::tests::settings() };
    site(Settings { auth: Some(auth), ..Settings::default() }, None)
}

async fn opened(site: &Site, token: &str) -> String {
    let answer = site.ask("POST", "/v1/offer", token).await;
    assert_eq!(answer.status(), StatusCode::OK);
    body(answer).await["session_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_for_a_session_knows_no_other() {
    let site = site(with_auth(), None);
    let camera = bearer(&json!({"can_publish": true}));
    let [own, other] = [opened(&site, &camera).await, opened(&site, &camera).await];
    let bound = bearer(&json!({"session": own, "can_publish": true, "can_view": true, "can_configure": true}));
    let listed = body(site.ask("GET", "/v1/sessions", &bound).await).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["session_id"], own);
    assert_eq!(site.ask("GET", &format!("/v1/sessions/{own}"), &bound).await.status(), StatusCode::OK);
    for (method, path) in [("GET", ""), ("DELETE", ""), ("GET", "/results"), ("GET", "/events")] {
        let path = format!("/v1/sessions/{other}{path}");
        problem(site.ask(method, &path, &bound).await, 404, ErrorCode::NotFound).await;
    }
    problem(site.ask("POST", "/v1/offer", &bound).await, 403, ErrorCode::Forbidden).await;
    let mut socket = Socket::connect(site.listen().await).await;
    assert_eq!(socket.ask(json!({"type": "auth", "token": bound})).await["type"], "welcome");
    socket.send(json!({"type": "offer", "sdp": "v=0"})).await;
    socket.is_error(ErrorCode::Forbidden, false).await;
    socket.send(json!({"type": "offer", "sdp": "v=0", "session_id": other})).await;
    socket.is_error(ErrorCode::NotFound, false).await;
    assert_eq!(socket.ask(json!({"type": "offer", "sdp": "v=1", "session_id": own})).await["type"], "answer");
    assert_eq!(site.ask("DELETE", &format!("/v1/sessions/{own}"), &bound).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn who_has_no_token_learns_nothing_of_sessions() {
    let site = site(with_auth(), None);
    let id = opened(&site, &bearer(&json!({"can_publish": true}))).await;
    let ask = async |method: &str, id: &str, more: &str| {
        let request = Request::builder().method(method).uri(format!("/v1/sessions/{id}{more}"));
        let response = site.request(request.body(Body::empty()).unwrap()).await;
        (response.status(), response.headers().clone(), body(response).await)
    };
    for (method, more) in [("GET", ""), ("DELETE", ""), ("GET", "/results"), ("GET", "/events?access_token=x")] {
        let there = ask(method, &id, more).await;
        assert_eq!(there.0, StatusCode::UNAUTHORIZED, "{method} {more}");
        assert_eq!(there.1["www-authenticate"], "Bearer");
        assert_eq!(there, ask(method, "none", more).await);
    }
}

#[tokio::test]
async fn a_query_carries_a_token_for_streams_only() {
    let site = site(with_auth(), None);
    let id = opened(&site, &bearer(&json!({"can_publish": true}))).await;
    let viewer = bearer(&json!({"can_view": true, "can_publish": true}));
    for stream in ["results", "events"] {
        let path = format!("/v1/sessions/{id}/{stream}");
        assert_eq!(site.get(&format!("{path}?access_token={viewer}")).await.status(), StatusCode::OK);
        let publisher = bearer(&json!({"can_publish": true}));
        problem(site.get(&format!("{path}?access_token={publisher}")).await, 403, ErrorCode::Forbidden).await;
        for wrong in ["", "?access_token=x", "?access_token=", "?token=x"] {
            problem(site.get(&format!("{path}{wrong}")).await, 401, ErrorCode::Unauthorized).await;
        }
        // A header counts for what it is, whatever the query says.
        problem(site.ask("GET", &format!("{path}?access_token={viewer}"), "x").await, 401, ErrorCode::Unauthorized)
            .await;
    }
    for path in ["/v1/sessions".to_owned(), format!("/v1/sessions/{id}"), "/v1/models".to_owned()] {
        problem(site.get(&format!("{path}?access_token={viewer}")).await, 401, ErrorCode::Unauthorized).await;
    }
    let offer = Request::post(format!("/v1/offer?access_token={viewer}")).header("content-type", "application/json");
    problem(site.request(offer.body("{}".into()).unwrap()).await, 401, ErrorCode::Unauthorized).await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_of_its_reader() {
    let site = to_the_second();
    let id = opened(&site, &bearer(&json!({"can_publish": true}))).await;
    let viewer = bearer_for(2, &json!({"can_view": true}));
    let stream = site.get(&format!("/v1/sessions/{id}/results?access_token={viewer}")).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let end = axum::body::to_bytes(stream.into_body(), usize::MAX);
    timeout(PATIENCE, end).await.expect("an end").unwrap();
    assert!(site.registry.get(&id).is_some(), "the session goes on");
    problem(site.ask("GET", "/v1/sessions", &viewer).await, 401, ErrorCode::Unauthorized).await;
}

#[tokio::test]
async fn a_socket_without_a_session_closes_with_its_token() {
    let site = to_the_second();
    let mut socket = Socket::connect(site.listen().await).await;
    let token = bearer_for(2, &json!({"can_publish": true}));
    assert_eq!(socket.ask(json!({"type": "auth", "token": token})).await["type"], "welcome");
    socket.is_error(ErrorCode::Unauthorized, true).await;
    socket.is_closed(4401).await;
}

#[tokio::test]
async fn a_session_that_outlives_its_token_is_told_and_its_socket_closed() {
    let site = plain();
    let mut socket = Socket::welcomed(site.listen().await).await;
    let id = socket.offer("v=0").await;
    site.registry.get(&id).unwrap().close(EndReason::TokenExpired).await;
    assert_eq!(socket.read().await, json!({"type": "closed", "reason": "token_expired"}));
    socket.is_closed(4401).await;
}

#[tokio::test]
async fn a_further_token_of_the_same_subject_takes_over() {
    let mut site = site(with_auth(), None);
    let mut socket = Socket::connect(site.listen().await).await;
    let token = |sub: &str, more: Value| {
        let mut claims = json!({"sub": sub, "can_publish": true});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": "auth", "token": bearer(&claims)})
    };
    assert_eq!(socket.ask(token("cam", json!({}))).await["type"], "welcome");
    socket.offer("v=0").await;
    site.saw("open v=0 trickle bound").await;
    socket.send(json!({"type": "configure", "options": {}})).await;
    socket.is_error(ErrorCode::Forbidden, false).await;

    socket.send(json!({"type": "auth", "token": "x"})).await;
    socket.is_error(ErrorCode::Unauthorized, false).await;
    for other in [
        token("eve", json!({"can_configure": true})),
        token("cam", json!({"can_configure": true, "can_publish": false})),
        token("cam", json!({"can_configure": true, "session": "another"})),
    ] {
        socket.send(other).await;
        socket.is_error(ErrorCode::Forbidden, false).await;
        socket.send(json!({"type": "configure", "options": {}})).await;
        socket.is_error(ErrorCode::Forbidden, false).await;
    }
    socket.send(token("cam", json!({"can_configure": true}))).await;
    site.saw("authorize cam ends").await;
    assert_eq!(socket.ask(json!({"type": "configure", "options": {}})).await["type"], "configured");
}

#[tokio::test]
async fn an_api_key_counts_like_a_token() {
    let key = "sk_of_the_dashboard";
    let claims = Claims { sub: Some("dashboard".into()), can_view: true, ..Claims::default() };
    let api_keys = vec![auth::ApiKey { hash: Sha256::digest(key).into(), claims }];
    let auth = auth::Settings { api_keys, ..auth::Settings::default() };
    let site = site(Settings { auth: Some(auth), ..Settings::default() }, None);
    assert_eq!(site.ask("GET", "/v1/sessions", key).await.status(), StatusCode::OK);
    problem(site.ask("POST", "/v1/offer", key).await, 403, ErrorCode::Forbidden).await;
    problem(site.ask("GET", "/v1/sessions", "sk_of_somebody").await, 401, ErrorCode::Unauthorized).await;
    // There is no secret, so that no token can be good.
    let token = bearer(&json!({"can_view": true}));
    problem(site.ask("GET", "/v1/sessions", &token).await, 401, ErrorCode::Unauthorized).await;
    let mut socket = Socket::connect(site.listen().await).await;
    assert_eq!(socket.ask(json!({"type": "auth", "token": key})).await["type"], "welcome");
}

#[tokio::test]
async fn a_token_for_models_shows_and_manages_those_only() {
    let site = site(with_auth(), None);
    let bound = bearer(&json!({"models": ["ppe", "mine"], "can_manage_models": true, "can_publish": true}));
    let free = bearer(&json!({"can_manage_models": true}));
    let put = async |token: &str, name: &str, route: Value| {
        let request = Request::put(format!("/v1/routes/{name}")).header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {token}"));
        site.request(request.body(route.to_string().into()).unwrap()).await
    };
    let split = |model: &str| json!({"split": [{"model": model, "weight": 1}]});
    assert_eq!(put(&free, "theirs", split("other")).await.status(), StatusCode::CREATED);
    assert_eq!(put(&bound, "mine", split("ppe@1")).await.status(), StatusCode::CREATED);
    for (name, route) in [
        ("theirs", split("ppe")),
        ("mine", split("other")),
        ("mine", json!({"split": [{"model": "ppe", "weight": 1}], "shadow": "other"})),
        ("mine", json!({"ensemble": ["ppe", "other"]})),
    ] {
        problem(put(&bound, name, route).await, 403, ErrorCode::Forbidden).await;
    }
    problem(site.ask("DELETE", "/v1/routes/theirs", &bound).await, 403, ErrorCode::Forbidden).await;
    problem(site.ask("GET", "/v1/routes/theirs", &bound).await, 404, ErrorCode::NotFound).await;
    for (path, token, names) in [
        ("/v1/models", &bound, vec!["ppe"]),
        ("/v1/models", &free, vec!["other", "ppe"]),
        ("/v1/routes", &bound, vec!["mine"]),
        ("/v1/routes", &free, vec!["mine", "theirs"]),
    ] {
        let listed = body(site.ask("GET", path, token).await).await;
        let listed: Vec<_> = listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(listed, names, "{path}");
    }
    let mut socket = Socket::connect(site.listen().await).await;
    let welcome = socket.ask(json!({"type": "auth", "token": bound})).await;
    assert_eq!(welcome["models"], json!(["ppe", "mine"]));
}

#[tokio::test]
async fn a_bad_token_is_refused_before_anything_else_is_said() {
    let site = site(with_auth(), None);
    let address = site.listen().await;
    site.registry.drain(Drain { deadline: crate::clock::now(), reconnect_after: Duration::from_secs(1) });
    let headers = [("sec-websocket-protocol", "saccade.v1"), ("authorization", "Bearer x")];
    let Err(tungstenite::Error::Http(refusal)) = Socket::try_connect(address, &headers).await else {
        panic!("the socket opened");
    };
    assert_eq!(refusal.status(), 401);
    problem(site.ask("GET", "/v1/signal", "x").await, 401, ErrorCode::Unauthorized).await;
}

#[tokio::test]
async fn turn_credentials_are_each_clients_own_and_nobodys_who_was_not_asked() {
    let access = ice::Access::Signed { secret: Secret::new("north".into()), ttl: Duration::from_secs(600) };
    let ice_servers = vec![ice_server(&["turn:t.example", "turns:t.example"], access)];
    let site = site(Settings { ice_servers, ..with_auth() }, None);
    let send = async |token: Option<&str>| {
        let offer = super::whip::offer("/v1/whip");
        let offer = match token {
            Some(token) => offer.header("authorization", format!("Bearer {token}")),
            None => offer,
        };
        site.request(super::whip::send(offer, super::whip::OFFER)).await
    };
    let refused = send(None).await;
    assert_eq!((refused.status(), refused.headers().get("link")), (StatusCode::UNAUTHORIZED, None));

    let alice = bearer(&json!({"sub": "alice", "can_publish": true}));
    let response = send(Some(&alice)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let links: Vec<_> = response.headers().get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    let [one, other] = links[..] else { panic!("{links:?}") };
    assert!(one.starts_with("<turn:t.example>; rel=\"ice-server\"; username=\""), "{one}");
    assert_eq!(one.replace("<turn:", "<turns:"), other, "one pair of credentials for all ways to a server");
    assert!(!format!("{:?}", response.headers()).contains("credential"), "headers that show are hidden");

    let address = site.listen().await;
    let welcome = async |token: &str| {
        let mut socket = Socket::connect(address).await;
        let welcome = socket.ask(json!({"type": "auth", "token": token})).await;
        let server = &welcome["ice_servers"][0];
        assert_eq!(server["urls"], json!(["turn:t.example", "turns:t.example"]));
        [&server["username"], &server["credential"]].map(|text| text.as_str().unwrap().to_owned())
    };
    let nobody = bearer(&json!({"can_publish": true}));
    let [told, first, second] = [welcome(&alice).await, welcome(&nobody).await, welcome(&nobody).await];
    let (expiry, subject) = told[0].split_once(':').unwrap();
    let left = expiry.parse::<i64>().unwrap().abs_diff(in_seconds(600));
    assert!(left < 60 && subject == "alice", "{told:?}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &told[1]).unwrap();
    assert!(ring::hmac::verify(&key, told[0].as_bytes(), &signature).is_ok());
    assert_ne!(first, second, "whoever has no name still has credentials of its own");
}

#[tokio::test]
async fn cameras_are_there_for_viewers_and_for_tokens_of_their_own_alone() {
    let site = site(with_auth(), None);
    let viewer = bearer(&json!({"can_view": true}));
    let listed = body(site.ask("GET", "/v1/cameras", &viewer).await).await;
    assert_eq!((&listed[0]["name"], &listed[0]["reason"]["code"]), (&json!("entrance"), &json!("unreachable")));
    assert_eq!(body(site.ask("GET", "/v1/cameras/entrance", &viewer).await).await, listed[0]);
    for path in ["/v1/cameras/exit", "/v1/cameras/%ff"] {
        problem(site.ask("GET", path, &viewer).await, 404, ErrorCode::NotFound).await;
    }
    let bound = |name: &str| bearer(&json!({"can_view": true, "session": name}));
    assert_eq!(body(site.ask("GET", "/v1/cameras", &bound("entrance")).await).await, listed);
    assert_eq!(body(site.ask("GET", "/v1/cameras", &bound("exit")).await).await, json!([]));
    problem(site.ask("GET", "/v1/cameras/entrance", &bound("exit")).await, 404, ErrorCode::NotFound).await;
    for path in ["/v1/cameras", "/v1/cameras/entrance"] {
        problem(site.get(path).await, 401, ErrorCode::Unauthorized).await;
        problem(site.ask("GET", path, &bearer(&json!({"can_publish": true}))).await, 403, ErrorCode::Forbidden).await;
    }
}

#[tokio::test]
async fn a_cameras_session_is_nobodys_to_take_over_or_to_end_but_who_configures() {
    let site = site(with_auth(), None);
    let publisher = bearer(&json!({"can_publish": true}));
    let offer = Request::post("/v1/whip").header("content-type", "application/sdp");
    let offer = offer.header("authorization", format!("Bearer {publisher}")).body("camera".into()).unwrap();
    let opened = site.request(offer).await;
    let path = opened.headers()["location"].to_str().unwrap().split_once("/v1/").unwrap().1.to_owned();
    let (path, id) = (format!("/v1/{path}"), path.rsplit_once('/').unwrap().1.to_owned());
    problem(site.ask("DELETE", &path, &publisher).await, 403, ErrorCode::Forbidden).await;
    let mut socket = Socket::connect(site.listen().await).await;
    assert_eq!(socket.ask(json!({"type": "auth", "token": publisher})).await["type"], "welcome");
    socket.send(json!({"type": "offer", "sdp": "v=0", "session_id": id})).await;
    socket.is_error(ErrorCode::NotFound, false).await;
    let operator = bearer(&json!({"can_configure": true}));
    problem(site.ask("PATCH", &path, &operator).await, 409, ErrorCode::Conflict).await;
    assert_eq!(site.ask("DELETE", &path, &operator).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn models_are_loaded_by_whoever_may_manage_them() {
    let site = site(with_auth(), None);
    let manager = bearer(&json!({"can_manage_models": true}));
    let ask = async |path: &str, token: &str| {
        let request = Request::post(format!("/v1/models/{path}")).header("authorization", format!("Bearer {token}"));
        site.request(request.body(Body::empty()).unwrap()).await
    };
    for path in ["ppe/load", "ppe/unload"] {
        problem(ask(path, "x").await, 401, ErrorCode::Unauthorized).await;
        problem(ask(path, &bearer(&json!({"can_configure": true}))).await, 403, ErrorCode::Forbidden).await;
        let bound = bearer(&json!({"can_manage_models": true, "models": ["other"]}));
        problem(ask(path, &bound).await, 403, ErrorCode::Forbidden).await;
    }
    let loaded = ask("other/load", &manager).await;
    assert_eq!(loaded.status(), StatusCode::OK);
    assert_eq!(body(loaded).await["state"], "ready");
    let pending = ask("slow@3/load", &manager).await;
    assert_eq!(pending.status(), StatusCode::ACCEPTED);
    assert_eq!(body(pending).await["state"], "loading");
    let unloaded = ask("other/unload", &manager).await;
    assert_eq!((unloaded.status(), &body(unloaded).await["state"]), (StatusCode::OK, &json!("unloaded")));
    problem(ask("nobody/load", &manager).await, 404, ErrorCode::NotFound).await;
    problem(ask("ppe/unload", &manager).await, 409, ErrorCode::Conflict).await;
    let reason = problem(ask("bad/load", &manager).await, 422, ErrorCode::ModelFailed).await;
    assert_eq!(reason, "It is bad.");
    problem(ask("%ff/load", &manager).await, 400, ErrorCode::BadRequest).await;
    let asked = site.models.asked.lock().unwrap().clone();
    assert_eq!(asked, ["load other", "load slow@3", "unload other", "load nobody", "unload ppe", "load bad"]);
}

#[tokio::test]
async fn a_load_takes_no_options_yet_and_lists_show_what_is_asked_for() {
    let site = plain();
    let send = async |kind: &str, text: &str| {
        let request = Request::post("/v1/models/other/load").header("content-type", kind);
        site.request(request.body(text.to_owned().into()).unwrap()).await
    };
    assert_eq!(send("application/json", "{}").await.status(), StatusCode::OK);
    let unknown = problem(send("application/json", "{\"warm\": 1}").await, 400, ErrorCode::BadRequest).await;
    assert!(unknown.contains("`warm`"), "{unknown}");
    problem(send("application/json", "[]").await, 400, ErrorCode::BadRequest).await;
    problem(send("text/plain", "{}").await, 415, ErrorCode::UnsupportedType).await;
    problem(send("application/json", &" ".repeat(9000)).await, 413, ErrorCode::TooLarge).await;
    let names = async |query: &str| {
        let listed = body(site.get(&format!("/v1/models{query}")).await).await;
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for query in ["", "?all=false"] {
        assert_eq!(names(query).await, ["other", "ppe"], "{query}");
    }
    assert_eq!(names("?all=true").await, ["bad", "other", "ppe"]);
    problem(site.get("/v1/models?state=all").await, 400, ErrorCode::BadRequest).await;
}

#[tokio::test]
async fn advice_is_there_for_viewers_of_everything_alone() {
    let site = site(with_auth(), None);
    let answer = site.ask("GET", "/v1/advice", &bearer(&json!({"can_view": true}))).await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(body(answer).await, json!({"window_s": 0.0, "findings": []}));
    let bound = bearer(&json!({"can_view": true, "session": "entrance"}));
    problem(site.ask("GET", "/v1/advice", &bound).await, 403, ErrorCode::Forbidden).await;
    problem(site.ask("GET", "/v1/advice", &bearer(&json!({"can_publish": true}))).await, 403, ErrorCode::Forbidden)
        .await;
}

#[tokio::test]
async fn sinks_are_there_for_viewers_of_everything_alone() {
    let site = site(with_auth(), None);
    let viewer = bearer(&json!({"can_view": true}));
    let listed = body(site.ask("GET", "/v1/sinks", &viewer).await).await;
    assert_eq!(
        (&listed[0]["name"], &listed[0]["type"], &listed[0]["queued"]),
        (&json!("hooks"), &json!("webhook"), &json!(1))
    );
    let bound = bearer(&json!({"can_view": true, "session": "entrance"}));
    problem(site.ask("GET", "/v1/sinks", &bound).await, 403, ErrorCode::Forbidden).await;
    problem(site.ask("GET", "/v1/sinks", &bearer(&json!({"can_publish": true}))).await, 403, ErrorCode::Forbidden)
        .await;
}
