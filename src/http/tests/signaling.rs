use super::*;

#[tokio::test]
async fn a_whole_conversation() {
    let ice = ice_server(&["stun:stun.example"], ice::Access::Open);
    let mut site = site(Settings { ice_servers: vec![ice], ..Settings::default() }, None);
    let mut socket = Socket::connect(site.listen().await).await;
    let expected = json!({
        "type": "welcome", "protocol": 1, "server": concat!("saccade/", env!("CARGO_PKG_VERSION")),
        "ice_servers": [{"urls": ["stun:stun.example"]}], "models": ["ppe", "other"],
        "limits": {"width": 1920, "height": 1920, "fps": 60, "message_bytes": 65536, "sdp_bytes": 65536},
    });
    assert_eq!(socket.read().await, expected);

    let answer = socket.ask(json!({"type": "offer", "sdp": "v=0", "options": {"return": "results"}})).await;
    assert_eq!(answer["options"]["return"], "results");
    let id = answer["session_id"].as_str().unwrap();
    assert!(site.registry.get(id).is_some());
    site.saw("open v=0 trickle").await;

    assert_eq!(socket.ask(candidate(1)).await, candidate(1));
    for end in [json!(null), json!({"candidate": ""})] {
        let echo = socket.ask(json!({"type": "candidate", "candidate": end})).await;
        assert_eq!(echo, json!({"type": "candidate", "candidate": null}));
    }
    let configured = socket.ask(json!({"type": "configure", "options": {"score_threshold": 0.5}})).await;
    assert_eq!((&configured["type"], &configured["options"]["score_threshold"]), (&json!("configured"), &json!(0.5)));
    socket.send(json!({"type": "configure", "options": {"classes": ["hat"]}})).await;
    assert!(socket.is_error(ErrorCode::BadOptions, false).await["message"].as_str().unwrap().contains("`hat`"));

    let again = socket.ask(json!({"type": "offer", "sdp": "v=1", "session_id": id})).await;
    assert_eq!((&again["sdp"], &again["session_id"]), (&json!("answer to v=1"), &answer["session_id"]));
    socket.send(json!({"type": "auth", "token": "needless"})).await;
    assert_eq!(socket.ask(json!({"type": "bye"})).await, json!({"type": "closed", "reason": "bye"}));
    socket.is_closed(1000).await;
    assert!(site.registry.wait_empty(crate::clock::now() + PATIENCE).await);
}

#[tokio::test]
async fn the_door_takes_sockets_of_this_protocol_only() {
    let site = plain();
    let address = site.listen().await;
    let http = client().get(format!("http://{address}/v1/signal")).send().await.unwrap();
    assert_eq!(http.headers()["upgrade"], "websocket");
    let head = (http.status(), http.headers().clone());
    is_problem(426, ErrorCode::BadRequest, &head, &http.json().await.unwrap());
    for protocol in [None, Some("saccade.v2")] {
        let headers: Vec<_> = protocol.map(|name| ("sec-websocket-protocol", name)).into_iter().collect();
        let Err(tungstenite::Error::Http(refusal)) = Socket::try_connect(address, &headers).await else {
            panic!("the socket opened");
        };
        let text: Value = serde_json::from_slice(refusal.body().as_deref().unwrap()).unwrap();
        let detail = is_problem(400, ErrorCode::BadRequest, &(refusal.status(), refusal.headers().clone()), &text);
        assert!(detail.contains("saccade.v1"));
    }
}

#[tokio::test]
async fn foreign_pages_are_refused_unless_listed() {
    let allowed_origins = vec!["https://shop.example".to_owned()];
    let site = site(Settings { allowed_origins, ..Settings::default() }, None);
    let address = site.listen().await;
    let own = format!("http://{address}");
    for (origin, opens) in [(own.as_str(), true), ("https://shop.example", true), ("https://evil.example", false)] {
        let headers = [("sec-websocket-protocol", "saccade.v1"), ("origin", origin)];
        match Socket::try_connect(address, &headers).await {
            Ok(_) => assert!(opens, "{origin}"),
            Err(tungstenite::Error::Http(refusal)) => assert!(!opens && refusal.status() == 403, "{origin}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn candidates_that_come_early_are_kept_up_to_a_number() {
    let mut site = plain();
    let mut socket = Socket::welcomed(site.listen().await).await;
    for number in 0..33 {
        socket.send(candidate(number)).await;
    }
    socket.is_error(ErrorCode::BadRequest, false).await;
    socket.offer("v=0").await;
    site.saw("open v=0 trickle").await;
    for number in 0..32 {
        site.saw(&format!("candidate candidate:{number}")).await;
    }
    for number in 0..32 {
        assert_eq!(socket.read().await, candidate(number));
    }
}

#[tokio::test]
async fn each_breach_has_its_close_code() {
    let site = plain();
    let address = site.listen().await;
    let broken: [(Message, ErrorCode, u16); 8] = [
        (Message::text("{"), ErrorCode::BadRequest, 1007),
        (Message::text(r#"{"type":"hello"}"#), ErrorCode::BadRequest, 1007),
        (Message::text(r#"{"type":"candidate","candidate":null,"now":true}"#), ErrorCode::BadRequest, 1007),
        (Message::Binary(Bytes::from_static(b"{}")), ErrorCode::BadRequest, 1003),
        (Message::text("x".repeat(65_537)), ErrorCode::TooLarge, 1009),
        (Message::text("x".repeat(1024 * 1024 + 1)), ErrorCode::TooLarge, 1009),
        (Message::text("x".repeat(12 * 1024 * 1024)), ErrorCode::TooLarge, 1009),
        (Message::binary(vec![0; 12 * 1024 * 1024]), ErrorCode::TooLarge, 1009),
    ];
    for (message, code, close) in broken {
        let mut socket = Socket::welcomed(address).await;
        socket.0.send(message).await.unwrap();
        socket.is_error(code, true).await;
        socket.is_closed(close).await;
    }
    let padding = 65_536 - json!({"type": "bye"}).to_string().len();
    let mut socket = Socket::welcomed(address).await;
    socket.0.send(Message::text(r#"{"type":"bye"}"#.to_owned() + &" ".repeat(padding))).await.unwrap();
    assert_eq!(socket.read().await["reason"], "bye");
    socket.is_closed(1000).await;
}

#[tokio::test]
async fn a_breach_on_one_socket_leaves_the_others_alone() {
    let mut site = plain();
    let address = site.listen().await;
    let mut good = Socket::welcomed(address).await;
    good.offer("good").await;
    site.saw("open good trickle").await;
    let mut bad = Socket::welcomed(address).await;
    bad.offer("other").await;
    site.saw("open other trickle").await;
    bad.0.send(Message::Binary(Bytes::from_static(b"\0"))).await.unwrap();
    bad.is_error(ErrorCode::BadRequest, true).await;
    bad.is_closed(1003).await;
    // Its media goes on for the resume time, like after any loss.
    site.saw("detach").await;
    assert_eq!(good.ask(candidate(1)).await, candidate(1));
}

#[tokio::test]
async fn what_can_be_mended_leaves_the_socket_open() {
    let site = plain();
    let mut socket = Socket::welcomed(site.listen().await).await;
    socket.send(json!({"type": "offer", "sdp": "v=0", "options": {"modle": "ppe", "budget_ms": "fast"}})).await;
    let error = socket.is_error(ErrorCode::BadOptions, false).await;
    assert!(error["message"].as_str().unwrap().contains("`modle`"));
    socket.send(json!({"type": "offer", "sdp": "v=0", "options": {"model": "nobody"}})).await;
    socket.is_error(ErrorCode::UnknownModel, false).await;
    socket.send(json!({"type": "offer", "sdp": "bad"})).await;
    socket.is_error(ErrorCode::BadSdp, false).await;
    socket.send(json!({"type": "configure", "options": {}})).await;
    socket.is_error(ErrorCode::Conflict, false).await;
    socket.send(json!({"type": "offer", "sdp": "v=0", "session_id": "no-such"})).await;
    socket.is_error(ErrorCode::NotFound, false).await;
    socket.offer("v=0").await;
    socket.send(json!({"type": "offer", "sdp": "v=0", "session_id": "no-such"})).await;
    socket.is_error(ErrorCode::Conflict, false).await;
}

#[tokio::test]
async fn a_flood_is_cut_off() {
    let site = site(Settings { rate: Rate { per_second: 1, burst: 3 }, ..Settings::default() }, None);
    let mut socket = Socket::welcomed(site.listen().await).await;
    for number in 0..4 {
        socket.send(candidate(number)).await;
    }
    socket.is_error(ErrorCode::RateLimited, true).await;
    socket.is_closed(4429).await;
}

#[tokio::test]
async fn a_lost_socket_is_replaced_by_the_next() {
    let mut site = plain();
    let address = site.listen().await;
    let mut first = Socket::welcomed(address).await;
    let id = first.offer("v=0").await;
    site.saw("open v=0 trickle").await;
    drop(first);
    site.saw("detach").await;

    let mut second = Socket::welcomed(address).await;
    let resume = |sdp: &str| json!({"type": "offer", "sdp": sdp, "session_id": id});
    assert_eq!(second.ask(resume("v=1")).await["session_id"], id.as_str());
    site.saw("attach").await;
    site.saw("authorize  lasts").await;
    site.saw("offer v=1").await;

    // A third takes over while the second is still there.
    let mut third = Socket::welcomed(address).await;
    assert_eq!(third.ask(resume("v=2")).await["sdp"], "answer to v=2");
    second.is_closed(1008).await;
    site.saw("attach").await;
    site.saw("authorize  lasts").await;
    site.saw("offer v=2").await;
    assert_eq!(third.ask(candidate(3)).await, candidate(3));
    site.saw("candidate candidate:3").await;
}

#[tokio::test]
async fn a_silent_client_is_lost() {
    let mut site = site(Settings { ping_interval: Duration::from_millis(50), ..Settings::default() }, None);
    let mut socket = Socket::welcomed(site.listen().await).await;
    socket.offer("v=0").await;
    site.saw("open v=0 trickle").await;
    // Nobody reads the socket, so nobody answers the pings.
    site.saw("detach").await;
    drop(socket);
}

#[tokio::test]
async fn a_client_without_an_offer_has_to_leave() {
    let site = site(Settings { offer_timeout: Duration::from_millis(20), ..Settings::default() }, None);
    let mut socket = Socket::welcomed(site.listen().await).await;
    socket.is_error(ErrorCode::BadRequest, true).await;
    socket.is_closed(1008).await;
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let site = site(Settings::default(), Some(1));
    let address = site.listen().await;
    let mut first = Socket::welcomed(address).await;
    first.offer("v=0").await;
    let mut second = Socket::welcomed(address).await;
    second.send(json!({"type": "offer", "sdp": "v=0"})).await;
    assert_eq!(second.is_error(ErrorCode::Capacity, true).await["retry_after_ms"], 5000);
    second.is_closed(1013).await;
}

#[tokio::test]
async fn a_session_that_fails_is_told() {
    let site = plain();
    let address = site.listen().await;
    let mut socket = Socket::welcomed(address).await;
    socket.send(json!({"type": "offer", "sdp": "panic"})).await;
    socket.is_error(ErrorCode::Internal, true).await;
    socket.is_closed(1011).await;

    let mut socket = Socket::welcomed(address).await;
    socket.offer("v=0").await;
    socket.send(json!({"type": "offer", "sdp": "die"})).await;
    socket.is_error(ErrorCode::NotFound, false).await;
    socket.is_error(ErrorCode::Internal, true).await;
    socket.is_closed(1011).await;
}

#[tokio::test]
async fn the_end_of_a_session_closes_its_socket() {
    let site = plain();
    let mut socket = Socket::welcomed(site.listen().await).await;
    let id = socket.offer("v=0").await;
    let delete = Request::delete(format!("/v1/sessions/{id}")).body(Body::empty()).unwrap();
    assert_eq!(site.request(delete).await.status(), StatusCode::OK);
    assert_eq!(socket.read().await, json!({"type": "closed", "reason": "deleted"}));
    socket.is_closed(1000).await;
}

#[tokio::test]
async fn a_drain_sends_everybody_away() {
    let mut site = plain();
    let address = site.listen().await;
    let mut idle = Socket::welcomed(address).await;
    let mut busy = Socket::welcomed(address).await;
    let id = busy.offer("v=0").await;
    let drain = Drain { deadline: crate::clock::now() + PATIENCE, reconnect_after: Duration::from_millis(1500) };
    site.registry.drain(drain);
    let told = json!({"type": "draining", "reconnect_after_ms": 1500});
    assert_eq!(idle.read().await, told);
    idle.is_closed(1001).await;
    assert_eq!(busy.read().await, told);
    assert_eq!(busy.ask(candidate(1)).await, candidate(1));

    let headers = [("sec-websocket-protocol", "saccade.v1")];
    let Err(tungstenite::Error::Http(refusal)) = Socket::try_connect(address, &headers).await else {
        panic!("the socket opened");
    };
    assert_eq!((refusal.status().as_u16(), refusal.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    let offered = site.post_offer(json!({"sdp": "v=0", "type": "offer"}).to_string()).await;
    assert_eq!(offered.headers()["retry-after"], "2");
    problem(offered, 503, ErrorCode::Draining).await;

    site.registry.get(&id).unwrap().close(EndReason::Draining).await;
    assert_eq!(busy.read().await, json!({"type": "closed", "reason": "draining"}));
    busy.is_closed(1001).await;
    assert!(site.registry.wait_empty(drain.deadline).await);
    site.saw("open v=0 trickle").await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_tokens() {
    let site = site(with_auth(), None);
    let mut socket = Socket::connect(site.listen().await).await;
    let drain = Drain { deadline: crate::clock::now() + PATIENCE, reconnect_after: Duration::from_millis(1500) };
    site.registry.drain(drain);
    assert_eq!(socket.read().await["type"], "draining");
    socket.is_closed(1001).await;
}

#[tokio::test]
async fn tokens_open_the_socket() {
    let site = site(with_auth(), None);
    let address = site.listen().await;
    let good = bearer(&json!({"sub": "cam", "can_publish": true}));

    let mut socket = Socket::connect(address).await;
    assert_eq!(socket.ask(json!({"type": "auth", "token": good})).await["type"], "welcome");
    let id = socket.offer("v=0").await;
    socket.send(json!({"type": "configure", "options": {}})).await;
    socket.is_error(ErrorCode::Forbidden, false).await;
    // A further offer is no way around it.
    socket.send(json!({"type": "offer", "sdp": "v=1", "options": {"budget_ms": 100}})).await;
    socket.is_error(ErrorCode::Forbidden, false).await;
    assert_eq!(socket.ask(json!({"type": "offer", "sdp": "v=1", "options": {}})).await["type"], "answer");

    for first in [json!({"type": "auth", "token": "x"}), json!({"type": "offer", "sdp": "v=0"})] {
        let mut socket = Socket::connect(address).await;
        socket.send(first).await;
        socket.is_error(ErrorCode::Unauthorized, true).await;
        socket.is_closed(4401).await;
    }

    let header = |token: &str| format!("Bearer {token}");
    let protocol = ("sec-websocket-protocol", "saccade.v1");
    let viewer = header(&bearer(&json!({"can_view": true})));
    let mut socket = Socket::try_connect(address, &[protocol, ("authorization", &viewer)]).await.unwrap();
    assert_eq!(socket.read().await["type"], "welcome");
    socket.send(json!({"type": "offer", "sdp": "v=0"})).await;
    socket.is_error(ErrorCode::Forbidden, true).await;
    socket.is_closed(4403).await;

    let other = header(&bearer(&json!({"sub": "eve", "can_publish": true, "can_configure": true})));
    let mut socket = Socket::try_connect(address, &[protocol, ("authorization", &other)]).await.unwrap();
    assert_eq!(socket.read().await["type"], "welcome");
    socket.send(json!({"type": "offer", "sdp": "v=0", "session_id": id})).await;
    socket.is_error(ErrorCode::NotFound, false).await;

    let Err(tungstenite::Error::Http(refusal)) =
        Socket::try_connect(address, &[protocol, ("authorization", "Bearer x")]).await
    else {
        panic!("the socket opened");
    };
    assert_eq!((refusal.status().as_u16(), &refusal.headers()["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
}

#[tokio::test]
async fn the_session_knows_whether_its_publisher_may_configure() {
    for (can_configure, bound) in [(false, " bound"), (true, "")] {
        let mut site = site(with_auth(), None);
        let token = bearer(&json!({"sub": "cam", "can_publish": true, "can_configure": can_configure}));
        let mut socket = Socket::connect(site.listen().await).await;
        socket.ask(json!({"type": "auth", "token": token})).await;
        socket.offer("v=0").await;
        site.saw(&format!("open v=0 trickle{bound}")).await;
        let body = json!({"type": "offer", "sdp": "v=0"}).to_string();
        let request = Request::post("/v1/offer").header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {token}")).body(body.into()).unwrap();
        assert_eq!(site.request(request).await.status(), StatusCode::OK);
        site.saw(&format!("open v=0 complete{bound}")).await;
    }
}

#[tokio::test]
async fn the_session_has_the_priority_of_its_token() {
    for (claims, said) in
        [(json!({"priority": "low"}), " low"), (json!({}), ""), (json!({"priority": "high"}), " high")]
    {
        let mut site = site(with_auth(), None);
        let mut all = json!({"can_publish": true, "can_configure": true});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let mut socket = Socket::connect(site.listen().await).await;
        socket.ask(json!({"type": "auth", "token": bearer(&all)})).await;
        socket.offer("v=0").await;
        site.saw(&format!("open v=0 trickle{said}")).await;
    }
}

#[tokio::test]
async fn an_opening_that_takes_too_long_is_given_up_and_closed() {
    let mut site = site(Settings { open_timeout: Duration::from_millis(20), ..Settings::default() }, None);
    let mut socket = Socket::welcomed(site.listen().await).await;
    socket.send(json!({"type": "offer", "sdp": "hold"})).await;
    assert!(socket.is_error(ErrorCode::Internal, true).await["message"].as_str().unwrap().contains("too long"));
    socket.is_closed(1011).await;
    site.fake.hold.add_permits(1);
    site.saw("open hold trickle").await;
    site.saw("close socket_lost").await;
}

#[tokio::test]
async fn a_token_has_to_come_in_time() {
    let site = site(Settings { auth_timeout: Duration::from_millis(20), ..with_auth() }, None);
    let mut socket = Socket::connect(site.listen().await).await;
    socket.is_error(ErrorCode::Unauthorized, true).await;
    socket.is_closed(4401).await;
}

#[tokio::test]
async fn sockets_are_limited() {
    let site = site(Settings { max_sockets: 1, ..Settings::default() }, None);
    let address = site.listen().await;
    let mut socket = Socket::welcomed(address).await;
    let headers = [("sec-websocket-protocol", "saccade.v1")];
    let Err(tungstenite::Error::Http(refusal)) = Socket::try_connect(address, &headers).await else {
        panic!("the socket opened");
    };
    assert_eq!(refusal.status(), 503);
    socket.send(json!({"type": "bye"})).await;
    assert_eq!(socket.read().await["type"], "closed");
    socket.is_closed(1000).await;
}
