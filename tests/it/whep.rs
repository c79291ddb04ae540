//! Viewers of live video, by WHEP.

use reqwest::StatusCode;
use rtc::peer_connection::configuration::RTCOfferOptions;
use saccade::media::Codec;
use saccade::session::fragment::{self, Credentials};
use saccade_signaling::{ClientMessage, OptionsPatch, ReturnMode, SessionView};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{LIMIT, Peer, Socket, connect};
use crate::lifecycle::{back_to, settled};
use crate::publisher::{Publisher, Viewer};
use crate::server::Server;
use crate::whip::{Resource, restarted};

/// A session whose publisher sends in the background.
struct Live {
    id: String,
    socket: Socket,
    stop: oneshot::Sender<()>,
    publisher: JoinHandle<Peer>,
}

impl Live {
    /// Returns when the session has results, so that it can be watched.
    async fn start(server: &Server, return_mode: ReturnMode) -> Self {
        let options = OptionsPatch { return_mode: Some(return_mode), ..OptionsPatch::default() };
        let (socket, mut peer, id, _) = connect(server.http, Codec::Vp8, options).await;
        let (stop, mut stopped) = oneshot::channel();
        let (live, started) = oneshot::channel();
        let publisher = tokio::spawn(async move {
            let (mut publisher, mut live) = (Publisher::new(Codec::Vp8), Some(live));
            let mut pace = tokio::time::interval(Duration::from_millis(33));
            loop {
                tokio::select! {
                    _ = pace.tick() => {
                        let (time, payloads) = publisher.next();
                        peer.send(time, payloads).await;
                    }
                    Some(_) = peer.results.recv() => drop(live.take().map(|live| live.send(()))),
                    Some(_) = peer.packets.recv() => {}
                    _ = &mut stopped => return peer,
                }
            }
        });
        timeout(LIMIT, started).await.expect("a result in time").unwrap();
        Self { id, socket, stop, publisher }
    }

    async fn end(mut self) {
        self.socket.send(&ClientMessage::Bye).await;
        self.socket.close_code().await;
        self.stop.send(()).unwrap();
        self.publisher.await.unwrap().close().await;
    }
}

pub async fn watch(server: &Server, session: &str, codec: Codec) -> (Peer, Resource, String) {
    let mut peer = Peer::new(codec).await;
    let (resource, answer) = Resource::post(server.url(&format!("/v1/whep/{session}")), &mut peer).await;
    assert!(answer.contains("a=sendonly") && !answer.contains("a=sendrecv\r\na=candidate"), "{answer}");
    peer.answer(answer.clone()).await;
    (peer, resource, answer)
}

/// Decodes so many pictures.
pub async fn sees(peer: &mut Peer, codec: Codec, pictures: usize) {
    let mut viewer = Viewer::new(codec);
    let mut seen = 0;
    let looking = async {
        while seen < pictures {
            seen += viewer.take(peer.packets.recv().await.expect("an open connection")).len();
        }
    };
    timeout(LIMIT, looking).await.expect("pictures in time");
}

async fn viewers(server: &Server, session: &str) -> u32 {
    let url = server.url(&format!("/v1/sessions/{session}"));
    reqwest::get(url).await.unwrap().json::<SessionView>().await.unwrap().viewers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_restarts_ice_and_goes_on_watching() {
    let server = Server::start(&[]).await;
    let live = Live::start(&server, ReturnMode::Results).await;
    let (mut peer, resource, answer) = watch(&server, &live.id, Codec::Vp8).await;
    let local = peer.connection.local_description().await.unwrap().sdp;
    let trickled = resource.patch(&resource.tag, fragment::describe(&local)).await;
    assert_eq!(trickled.status(), StatusCode::NO_CONTENT);
    sees(&mut peer, Codec::Vp8, 5).await;
    assert_eq!(viewers(&server, &live.id).await, 1);

    let offer = peer.connection.create_offer(Some(RTCOfferOptions { ice_restart: true })).await.unwrap();
    let ours = fragment::describe(&offer.sdp);
    peer.connection.set_local_description(offer).await.unwrap();
    let restart = resource.patch(&resource.tag, ours).await;
    assert_eq!(restart.status(), StatusCode::OK);
    assert_ne!(restart.headers()["etag"].to_str().unwrap(), resource.tag);
    let theirs = restart.text().await.unwrap();
    assert_ne!(Credentials::of(&theirs).unwrap(), Credentials::of(&answer).unwrap());
    while peer.packets.try_recv().is_ok() {}
    peer.answer(restarted(&answer, &theirs)).await;
    let late = resource.patch(&resource.tag, "a=end-of-candidates\r\n".to_owned()).await;
    assert_eq!(late.status(), StatusCode::PRECONDITION_FAILED);
    let mut seen = peer.packets.recv().await.expect("an open connection").time;
    let goes_on = async {
        let mut frames = 0;
        while frames < 30 {
            let time = peer.packets.recv().await.expect("an open connection").time;
            frames += u32::from(time != seen);
            seen = time;
        }
    };
    timeout(LIMIT, goes_on).await.expect("video after the restart");

    live.end().await;
    // The viewer ended with the session, which the socket is told of first.
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let ended = async {
        while !server.app.registry().is_empty() {
            look.tick().await;
        }
    };
    timeout(LIMIT, ended).await.expect("the end of the session");
    assert_eq!(resource.delete().await, StatusCode::NOT_FOUND);
    peer.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_come_and_go_and_leave_nothing_behind() {
    let server = Server::start(&[("admission.mode", "off"), ("session.ice_timeout_ms", "1000")]).await;
    // One of each first, so that what is made once has been made.
    come_and_go(&server, 1).await;
    let before = settled(&server).await;
    come_and_go(&server, 8).await;
    back_to(before, &server, LIMIT).await;
    server.app.shut_down().await;
}

/// Viewers of one session leave in every way there is; the session's end is the last.
async fn come_and_go(server: &Server, rounds: usize) {
    let live = Live::start(server, ReturnMode::Exact).await;
    for _ in 0..rounds {
        let (mut peer, resource, _) = watch(server, &live.id, Codec::Vp8).await;
        sees(&mut peer, Codec::Vp8, 1).await;
        assert_eq!(resource.delete().await, StatusCode::OK);
        assert_eq!(resource.delete().await, StatusCode::NOT_FOUND);
        peer.close().await;

        let (mut peer, _, _) = watch(server, &live.id, Codec::Vp8).await;
        sees(&mut peer, Codec::Vp8, 1).await;
        peer.close().await;

        // One that never connects, and one that has another codec.
        let mut absent = Peer::new(Codec::Vp8).await;
        let url = server.url(&format!("/v1/whep/{}", live.id));
        Resource::post(url.clone(), &mut absent).await;
        absent.close().await;
        let mut other = Peer::new(Codec::H264).await;
        let request = reqwest::Client::new().post(url).header("content-type", "application/sdp");
        let refused = request.body(other.offer().await).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
        other.close().await;
    }
    // Who only closed, or never came, is noticed.
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let gone = async {
        while viewers(server, &live.id).await > 0 {
            look.tick().await;
        }
    };
    timeout(LIMIT, gone).await.expect("no viewer in time");
    let (mut last, _, _) = watch(server, &live.id, Codec::Vp8).await;
    sees(&mut last, Codec::Vp8, 1).await;
    live.end().await;
    last.close().await;
}
