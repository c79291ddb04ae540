//! The `control` data channel: who may change options over it, and how often.

use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use saccade::media::Codec;
use saccade_signaling::{ClientMessage, ErrorCode, OptionsPatch, ServerMessage, SessionView};
use serde_json::json;
use tokio::time::timeout;

use crate::client::{LIMIT, Peer, Socket, connect, join};
use crate::server::Server;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn token(can_configure: bool) -> String {
    let end = saccade::clock::wall() + Duration::from_secs(600);
    let claims = json!({
        "exp": end.duration_since(UNIX_EPOCH).unwrap().as_secs(), "sub": "cam",
        "can_publish": true, "can_view": true, "can_configure": can_configure,
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn configure(peer: &mut Peer, budget_ms: u32) -> ServerMessage {
    order(peer, budget_ms).await;
    reply(peer).await
}

async fn order(peer: &mut Peer, budget_ms: u32) {
    let order = json!({"type": "configure", "options": {"budget_ms": budget_ms}}).to_string();
    peer.order(&order).await;
}

async fn reply(peer: &mut Peer) -> ServerMessage {
    timeout(LIMIT, peer.control_replies.recv()).await.expect("a reply in time").unwrap()
}

async fn budget(server: &Server, id: &str, token: &str) -> u32 {
    let request = reqwest::Client::new().get(server.url(&format!("/v1/sessions/{id}"))).bearer_auth(token);
    request.send().await.unwrap().json::<SessionView>().await.unwrap().options.budget_ms
}

fn is_refused(message: &ServerMessage, expected: ErrorCode) -> bool {
    matches!(message, ServerMessage::Error { code, fatal: false, .. } if *code == expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_publish_changes_nothing_on_any_way() {
    let server = Server::start(&[("auth.secret", SECRET)]).await;
    for may in [false, true] {
        let token = token(may);
        let mut socket = Socket::connect(server.http).await;
        socket.send(&ClientMessage::Auth { token: token.clone() }).await;
        let first = OptionsPatch { budget_ms: Some(900), ..OptionsPatch::default() };
        let (mut socket, mut peer, id, options) = join(socket, Codec::Vp8, first).await;
        assert_eq!(options.budget_ms, 900, "a publisher chooses what its session begins with");

        let on_channel = configure(&mut peer, 800).await;
        let patch = OptionsPatch { budget_ms: Some(700), ..OptionsPatch::default() };
        socket.send(&ClientMessage::Configure { options: patch.clone() }).await;
        let on_socket = socket.next().await;
        let sdp = peer.offer().await;
        socket.offer(sdp, Some(patch), None).await;
        let by_offer = socket.next().await;
        if may {
            assert!(matches!(on_channel, ServerMessage::Configured { options } if options.budget_ms == 800));
            assert!(matches!(on_socket, ServerMessage::Configured { options } if options.budget_ms == 700));
            assert!(matches!(by_offer, ServerMessage::Answer { options, .. } if options.budget_ms == 700));
        } else {
            for refused in [on_channel, on_socket, by_offer] {
                assert!(is_refused(&refused, ErrorCode::Forbidden), "{refused:?}");
            }
        }
        assert_eq!(budget(&server, &id, &token).await, if may { 700 } else { 900 });
        socket.send(&ClientMessage::Bye).await;
        peer.close().await;
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_fast_is_refused_and_not_acted_upon() {
    const BURST: u32 = 3;
    let server = Server::start(&[("rate.messages_per_s", "1"), ("rate.message_burst", "3")]).await;
    let (mut socket, mut peer, id, _) = connect(server.http, Codec::Vp8, OptionsPatch::default()).await;
    for number in 0..30 {
        order(&mut peer, 500 + number).await;
    }
    let (mut last, mut refused) = (0, 0);
    for number in 0..30 {
        match reply(&mut peer).await {
            ServerMessage::Configured { options } => last = options.budget_ms,
            message => {
                assert!(number >= BURST && is_refused(&message, ErrorCode::RateLimited), "{number}: {message:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    // The last that was taken counts, and the session goes on.
    assert_eq!(budget(&server, &id, "").await, last);
    let metrics = reqwest::get(format!("http://{}/metrics", server.app.ops_address())).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let name = "saccade_messages_refused_total{channel=\"control\",reason=\"rate_limited\"} ";
    let counted = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    assert_eq!(counted.parse::<u32>().unwrap(), refused);
    socket.send(&ClientMessage::Bye).await;
    peer.close().await;
    server.app.shut_down().await;
}
