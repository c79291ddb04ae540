//! WHIP over real media: publish, trickle, restart ICE, leave.

use reqwest::{Client, Response, StatusCode};
use rtc::peer_connection::configuration::RTCOfferOptions;
use saccade::media::Codec;
use saccade::session::fragment::{self, Credentials};
use saccade_signaling::{Problem, SessionView};

use crate::client::Peer;
use crate::live::exchange;
use crate::publisher::{Publisher, Viewer};
use crate::server::Server;

/// What a `POST` of WHIP or WHEP made.
pub struct Resource {
    pub url: String,
    pub tag: String,
}

impl Resource {
    /// Offers without candidates; gives the answer.
    pub async fn post(url: String, peer: &mut Peer) -> (Self, String) {
        let offer = peer.offer().await;
        let request = Client::new().post(url);
        let response = request.header("content-type", "application/sdp").body(offer).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let resource = Self { url: header("location"), tag: header("etag") };
        (resource, response.text().await.unwrap())
    }

    pub async fn patch(&self, tag: &str, fragment: String) -> Response {
        let request = Client::new().patch(&self.url).header("if-match", tag);
        request.header("content-type", "application/trickle-ice-sdpfrag").body(fragment).send().await.unwrap()
    }

    pub async fn delete(&self) -> StatusCode {
        Client::new().delete(&self.url).send().await.unwrap().status()
    }

    async fn view(&self) -> SessionView {
        reqwest::get(&self.url).await.unwrap().json().await.unwrap()
    }
}

/// The answer as it is after a restart, for a client that thinks in whole descriptions.
pub fn restarted(answer: &str, fragment: &str) -> String {
    let mut answer = Credentials::of(fragment).unwrap().restart(answer);
    for line in fragment.lines().filter(|line| line.starts_with("a=candidate:")) {
        answer += &format!("{line}\r\n");
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_publishes_restarts_ice_and_leaves() {
    let server = Server::start(&[]).await;
    let mut peer = Peer::new(Codec::H264).await;
    let (resource, answer) = Resource::post(server.url("/v1/whip?budget_ms=900&return=exact"), &mut peer).await;
    assert!(resource.url.starts_with(&server.url("/v1/sessions/")), "{}", resource.url);
    // FFmpeg's WHIP muxer reads no more, and only the first candidate.
    assert!(answer.len() < 8_192, "{}", answer.len());
    let first = answer.lines().find(|line| line.starts_with("a=candidate:")).expect("a complete answer");
    assert!(first.to_ascii_lowercase().contains(" udp ") && first.contains(" typ host"), "{first}");
    peer.answer(answer.clone()).await;
    let local = peer.connection.local_description().await.unwrap().sdp;
    let trickled = resource.patch(&resource.tag, fragment::describe(&local)).await;
    assert_eq!(trickled.status(), StatusCode::NO_CONTENT);
    peer.connected().await;

    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let enough = |returned: &crate::live::Returned| returned.results.len() >= 10 && !returned.pictures.is_empty();
    exchange(&mut peer, &mut publisher, &mut viewer, enough).await;
    let before = resource.view().await;
    assert_eq!((before.options.budget_ms, before.state.as_str()), (900, "connected"));

    let offer = peer.connection.create_offer(Some(RTCOfferOptions { ice_restart: true })).await.unwrap();
    let ours = fragment::describe(&offer.sdp);
    peer.connection.set_local_description(offer).await.unwrap();
    let restart = resource.patch("*", ours).await;
    assert_eq!(restart.status(), StatusCode::OK);
    let tag = restart.headers()["etag"].to_str().unwrap().to_owned();
    assert_ne!(tag, resource.tag);
    let theirs = restart.text().await.unwrap();
    assert!(theirs.contains("a=candidate:"), "{theirs}");
    assert_ne!(Credentials::of(&theirs).unwrap(), Credentials::of(&answer).unwrap());
    peer.answer(restarted(&answer, &theirs)).await;
    let after = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.len() >= 30 && returned.pictures.len() >= 10
    })
    .await;
    assert!(after.results.iter().all(|result| result.session_id == before.session_id));

    let late = resource.patch(&resource.tag, "a=end-of-candidates\r\n".to_owned()).await;
    assert_eq!(late.status(), StatusCode::PRECONDITION_FAILED);
    let ends = resource.patch(&tag, "a=end-of-candidates\r\n".to_owned()).await;
    assert_eq!(ends.status(), StatusCode::NO_CONTENT);

    assert_eq!(resource.delete().await, StatusCode::OK);
    assert_eq!(resource.delete().await, StatusCode::NOT_FOUND);
    assert!(server.app.registry().is_empty());
    peer.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fragment_asks_in_vain_is_refused_and_changes_nothing() {
    let server = Server::start(&[]).await;
    let mut peer = Peer::new(Codec::Vp8).await;
    let (resource, answer) = Resource::post(server.url("/v1/whip"), &mut peer).await;
    let local = peer.connection.local_description().await.unwrap().sdp;
    let ours = Credentials::of(&local).unwrap();
    let cases = [
        ("nonsense".to_owned(), 400),
        (String::new(), 400),
        ("a=candidate:1 1 udp 1 192.0.2.1 9\r\n".to_owned(), 400),
        ("a=ice-ufrag:abcd\r\na=ice-ufrag:efgh\r\n".to_owned(), 422),
        // A restart takes both.
        ("a=ice-ufrag:abcd\r\n".to_owned(), 422),
        (format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ours.ufrag, "p".repeat(24)), 422),
        ("m=video 9 X 96\r\na=mid:other\r\na=end-of-candidates\r\n".to_owned(), 422),
    ];
    for (fragment, status) in cases {
        let response = resource.patch("*", fragment.clone()).await;
        assert_eq!(response.status(), status, "{fragment}");
        assert_eq!(response.json::<Problem>().await.unwrap().status, status);
    }
    assert_eq!(resource.patch("*", "x".repeat(70_000)).await.status(), 413);
    peer.answer(answer).await;
    let trickled = resource.patch(&resource.tag, fragment::describe(&local)).await;
    assert_eq!(trickled.status(), StatusCode::NO_CONTENT);
    peer.connected().await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 3).await;
    peer.close().await;
    server.app.shut_down().await;
}
