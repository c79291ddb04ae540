//! Live video through the whole server, driven by a WebRTC peer over the WebSocket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use saccade::media::{Codec, ColorInfo, ColorMatrix, ColorRange, I420};
use saccade_signaling::{
    ClientMessage, OfferResponse, OptionsPatch, OverlayPatch, ReturnMode, ServerMessage, SessionResult, SessionView,
    TransportView, close_code,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::{LIMIT, Peer, Socket, connect};
use crate::publisher::{FPS, Publisher, Viewer, iou};
use crate::server::Server;

/// What came back while some frames were sent.
#[derive(Default)]
pub struct Returned {
    pub results: Vec<SessionResult>,
    pub pictures: HashMap<u32, Arc<I420>>,
    /// RTP timestamps of pictures that came before the result of their frame.
    pub ahead: HashSet<u32>,
    pub events: Vec<saccade_signaling::Event>,
    pub keyframes: u64,
}

/// Sends frames in real time and collects what comes back, until `enough`.
pub async fn exchange(
    peer: &mut Peer,
    publisher: &mut Publisher,
    viewer: &mut Viewer,
    mut enough: impl FnMut(&Returned) -> bool,
) -> Returned {
    let mut returned = Returned::default();
    let mut pace = interval(Duration::from_secs(1) / FPS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exchange = async {
        while !enough(&returned) {
            tokio::select! {
                _ = pace.tick() => {
                    let (time, payloads) = publisher.next();
                    peer.send(time, payloads).await;
                }
                Some(result) = peer.results.recv() => returned.results.push(result),
                Some(event) = peer.events.recv() => returned.events.push(event),
                Some(packet) = peer.packets.recv() => {
                    for (time, picture, _) in viewer.take(packet) {
                        if !returned.results.iter().rev().take(64).any(|result| result.rtp_timestamp_in == time.0) {
                            returned.ahead.insert(time.0);
                        }
                        returned.pictures.insert(time.0, picture);
                    }
                    returned.keyframes = viewer.keyframes;
                }
            }
        }
    };
    timeout(LIMIT * 2, exchange).await.expect("enough in time");
    returned
}

async fn annotated_video_and_results_come_back(codec: Codec) {
    annotated_video_and_results_come_from(Server::start(&[]).await, codec).await;
}

pub async fn annotated_video_and_results_come_from(server: Server, codec: Codec) {
    let (socket, mut peer, session_id, options) = connect(server.http, codec, OptionsPatch::default()).await;
    assert_eq!(options.return_mode, ReturnMode::Exact);
    let (mut publisher, mut viewer) = (Publisher::new(codec), Viewer::new(codec));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.len() >= 40 && returned.pictures.len() >= 30
    })
    .await;

    let (mut truths, mut found) = (0, 0);
    for result in &returned.results {
        assert_eq!((result.session_id.as_str(), result.width, result.height), (session_id.as_str(), 640, 480));
        assert_eq!(result.model, "scene-blobs@1");
        assert_eq!(result.budget_ms, 1000);
        let total = result.timing_ms.total;
        assert!(total > 0.0 && result.timing_ms.inference > 0.0 && result.timing_ms.decode > 0.0);
        assert!(result.timing_ms.inference + result.timing_ms.preprocess <= total);
        for head in publisher.scene.truth(publisher.number(result.rtp_timestamp_in)) {
            truths += 1;
            found += usize::from(
                result.detections.iter().any(|d| d.class_id == head.class_id && iou(d.bbox, head.bbox) > 0.5),
            );
        }
    }
    assert!(truths > 40, "the scene has people in it: {truths}");
    assert!(found * 100 >= truths * 95, "found {found} of {truths}");

    let announced: HashSet<u32> = returned.results.iter().filter_map(|result| result.rtp_timestamp_out).collect();
    let joined = returned.pictures.keys().filter(|time| announced.contains(time)).count();
    assert!(joined * 10 >= returned.pictures.len() * 9, "{joined} of {} frames joined", returned.pictures.len());

    // On a box's edge the picture differs from the one sent; where nothing is drawn it does not.
    let mut checked = 0;
    for result in &returned.results {
        let Some(picture) = result.rtp_timestamp_out.and_then(|time| returned.pictures.get(&time)) else { continue };
        let sent = publisher.scene.frame(publisher.number(result.rtp_timestamp_in));
        let Some(detection) = result.detections.first() else { continue };
        let [x1, y1, x2, _] = detection.bbox;
        let middle = (((x1 + x2) / 2.0) as usize, y1.max(1.0) as usize);
        assert!(luma_difference(&sent, picture, middle) > 12, "no box in {}", result.frame_id);
        checked += 1;
    }
    assert!(checked >= 10, "{checked} boxes were checked");
    finish(socket, peer, server).await;
}

pub async fn finish(mut socket: Socket, peer: Peer, server: Server) {
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    server.app.shut_down().await;
}

/// Largest luma difference within two pixels of a point.
fn luma_difference(a: &I420, b: &I420, (x, y): (usize, usize)) -> u8 {
    let width = a.width() as usize;
    let rows = y.saturating_sub(2)..(y + 3).min(a.height() as usize);
    rows.map(|row| {
        let at = row * width + x;
        a.planes()[0][at].abs_diff(b.planes()[0][at])
    })
    .max()
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_comes_back_annotated_with_exact_results() {
    annotated_video_and_results_come_back(Codec::H264).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vp8_comes_back_annotated_with_exact_results() {
    annotated_video_and_results_come_back(Codec::Vp8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_overlay_the_picture_comes_back_as_it_was_sent() {
    let server = Server::start(&[]).await;
    let nothing = OverlayPatch { boxes: Some(false), labels: Some(false), ..OverlayPatch::default() };
    let patch = OptionsPatch { overlay: Some(nothing), ..OptionsPatch::default() };
    let (socket, mut peer, ..) = connect(server.http, Codec::H264, patch).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 20).await;
    for (time, picture) in &returned.pictures {
        let sent = publisher.scene.frame(publisher.number(*time));
        let (ours, theirs) = (sent.planes()[0], picture.planes()[0]);
        let error: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        let psnr = 10.0 * (255.0_f64.powi(2) * ours.len() as f64 / error).log10();
        assert!(psnr > 26.0, "PSNR {psnr:.1} dB");
    }
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vp8_that_is_announced_as_full_range_comes_back_looking_the_same() {
    let server = Server::start(&[]).await;
    let nothing = OverlayPatch { boxes: Some(false), labels: Some(false), ..OverlayPatch::default() };
    let patch = OptionsPatch { overlay: Some(nothing), ..OptionsPatch::default() };
    let (socket, mut peer, ..) = connect(server.http, Codec::Vp8, patch).await;
    // What Chromium sends with a canvas: BT.709 primaries, sRGB transfer function, BT.709 matrix, full range.
    peer.color_space = Some([1, 13, 1, 0x20]);
    let meant = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 20).await;

    let mut changed = Vec::new();
    for (time, picture) in &returned.pictures {
        let sent = publisher.scene.frame(publisher.number(*time));
        for (x, y) in (1..30).flat_map(|y| (1..40).map(move |x| (16 * x, 16 * y))) {
            let codes = |picture: &I420| {
                let ([luma, cb, cr], [stride, chroma, _]) = (picture.planes(), picture.strides());
                let at = y / 2 * chroma + x / 2;
                [luma[y * stride + x], cb[at], cr[at]]
            };
            let (before, after) = (meant.to_rgb(codes(&sent)), ColorInfo::default().to_rgb(codes(picture)));
            changed.push(before.iter().zip(after).map(|(a, b)| a.abs_diff(b)).max().unwrap());
        }
    }
    changed.sort_unstable();
    let median = changed[changed.len() / 2];
    assert!(median <= 8, "colours changed by {median}");

    // Returned VP8 is limited-range BT.601, and says so in its keyframes.
    let spaces = peer.returned_color_spaces.lock().unwrap().clone();
    let announced: HashSet<&[u8]> = spaces.values().flatten().map(|bytes| &bytes[..]).collect();
    assert_eq!(announced, HashSet::from([&[2, 2, 6, 0x10][..]]));
    assert!(spaces.values().any(Option::is_none), "frames between keyframes announce nothing");
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_results_session_gets_no_video_and_may_ask_for_it_later() {
    let server = Server::start(&[]).await;
    let patch = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    let (mut socket, mut peer, ..) = connect(server.http, Codec::Vp8, patch).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 20).await;
    assert!(returned.results.iter().all(|result| result.rtp_timestamp_out.is_none()));
    assert!(returned.pictures.is_empty());

    let patch = OptionsPatch { return_mode: Some(ReturnMode::Exact), budget_ms: Some(900), ..OptionsPatch::default() };
    socket.send(&ClientMessage::Configure { options: patch }).await;
    let configured = socket
        .find(|message| match message {
            ServerMessage::Configured { options } => Some(options),
            _ => None,
        })
        .await;
    assert_eq!((configured.return_mode, configured.budget_ms), (ReturnMode::Exact, 900));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.pictures.len() >= 5 && returned.results.iter().any(|result| result.budget_ms == 900)
    })
    .await;
    assert!(returned.keyframes >= 1);
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyframe_request_reaches_the_encoder() {
    let server = Server::start(&[]).await;
    let (socket, mut peer, ..) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let before = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 10).await;
    peer.request_keyframe(peer.returned_ssrc().await).await;
    let wanted = before.keyframes + 1;
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.keyframes >= wanted).await;
    let sessions = server.app.registry().list();
    assert!(sessions[0].view().counters.keyframe_requests_in >= 1);
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_change_over_the_control_channel() {
    let server = Server::start(&[]).await;
    let (socket, mut peer, ..) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| !returned.results.is_empty()).await;

    peer.order(r#"{"type":"configure","options":{"classes":["helmet"]}}"#).await;
    let reply = timeout(LIMIT, peer.control_replies.recv()).await.expect("a reply in time").unwrap();
    assert!(matches!(reply, ServerMessage::Configured { options } if options.classes == Some(vec!["helmet".into()])));
    peer.order(r#"{"type":"configure","options":{"classes":["dragon"]}}"#).await;
    let reply = timeout(LIMIT, peer.control_replies.recv()).await.expect("a reply in time").unwrap();
    assert!(matches!(reply, ServerMessage::Error { fatal: false, .. }), "{reply:?}");

    let mut after = 0;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        after = returned.results.iter().filter(|result| !result.detections.is_empty()).count();
        after >= 20
    })
    .await;
    let last = returned.results.last().unwrap();
    assert!(last.detections.iter().all(|detection| detection.class == "helmet"));
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ice_lite_server_connects() {
    let server = Server::start(&[("media.ice_lite", "true")]).await;
    let (socket, mut peer, ..) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 3).await;
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_offered_alone_and_in_no_bundle_is_answered() {
    let server = Server::start(&[]).await;
    let mut peer = Peer::new(Codec::H264).await;
    let offer = peer.complete_offer().await;
    let alone = offer.split("m=application").next().unwrap();
    let lines = alone.lines().filter(|line| !line.starts_with("a=group:"));
    let sdp: String = lines.flat_map(|line| [line, "\r\n"]).collect();
    let body = serde_json::json!({"type": "offer", "sdp": sdp});
    let answer = reqwest::Client::new().post(server.url("/v1/offer")).json(&body).send().await.unwrap();
    let answer: OfferResponse = answer.json().await.unwrap();
    assert!(answer.sdp.contains("\r\nm=video 9 "), "{}", answer.sdp);
    assert!(!answer.sdp.contains("a=group:"), "{}", answer.sdp);
    peer.close().await;
    server.app.shut_down().await;
}

/// Exchanges video until the API shows a path of which this holds; every tenth frame, this many packets are lost.
async fn path(
    server: &Server,
    session_id: &str,
    peer: &mut Peer,
    lost: u16,
    enough: impl Fn(&TransportView) -> bool,
) -> TransportView {
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let url = server.url(&format!("/v1/sessions/{session_id}"));
    let look = async {
        loop {
            let until = publisher.next + 10;
            let mut pace = interval(Duration::from_secs(1) / FPS);
            while publisher.next < until {
                pace.tick().await;
                let (time, payloads) = publisher.next();
                peer.send(time, payloads).await;
                while let Ok(packet) = peer.packets.try_recv() {
                    viewer.take(packet);
                }
            }
            peer.lose(lost);
            let view: SessionView = reqwest::get(&url).await.unwrap().json().await.unwrap();
            if let Some(path) = view.transport.filter(|path| enough(path)) {
                return path;
            }
        }
    };
    timeout(LIMIT, look).await.expect("such a path in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_shows_the_path_to_the_peer() {
    let server = Server::start(&[]).await;
    let (socket, mut peer, session_id, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let reported = |path: &TransportView| {
        let outbound = path.outbound.expect("the peer takes video");
        path.round_trip_ms.is_some() && path.inbound.loss_ratio.is_some() && outbound.packets_lost.is_some()
    };
    let path = path(&server, &session_id, &mut peer, 0, reported).await;
    assert!(path.round_trip_ms.is_some_and(|ms| 0.0 < ms && ms < 500.0), "{path:?}");
    assert_eq!((path.local_candidate.as_str(), path.remote_candidate.as_str()), ("host", "prflx"));
    assert_eq!(path.protocol, "udp");
    assert!(path.available_out_bps >= 100_000, "{path:?}");
    let outbound = path.outbound.unwrap();
    assert!(path.inbound.packets >= 10 && outbound.packets >= 10, "{path:?}");
    assert!(path.bytes_in > path.inbound.packets * 100 && path.bytes_out > outbound.packets * 100, "{path:?}");
    assert_eq!((path.inbound.packets_lost, path.inbound.loss_ratio), (0, Some(0.0)));
    assert_eq!((outbound.packets_lost, outbound.loss_ratio), (Some(0), Some(0.0)));
    assert!(path.inbound.jitter_ms.is_some_and(|ms| ms < 200.0), "{path:?}");
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_shows_what_is_lost_on_the_way() {
    let server = Server::start(&[]).await;
    let (socket, mut peer, session_id, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let path = path(&server, &session_id, &mut peer, 2, |path| path.inbound.packets_lost >= 4).await;
    assert!(path.inbound.loss_ratio.is_some_and(|ratio| 0.0 < ratio && ratio < 0.5), "{path:?}");
    assert!(path.inbound.nacks_sent > 0, "{path:?}");
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_stream_disturbs_no_other_session_and_recovers_itself() {
    let server = Server::start(&[]).await;
    let (good_socket, mut good, ..) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut bad_socket, mut bad, bad_id, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let mut damaged = Publisher::new(Codec::H264);
    for number in 0..45_u64 {
        let (time, payloads) = damaged.next();
        let broken = payloads.into_iter().enumerate().map(|(index, (payload, marker))| {
            let mut bytes = payload.to_vec();
            // A different bit in every packet, past the headers of RTP and of the NAL unit.
            let at = (2 + number as usize * 7 + index * 13) % bytes.len();
            bytes[at] ^= 1 << (number % 8);
            (bytes.into(), marker)
        });
        bad.send(time, broken).await;
    }
    let returned = exchange(&mut good, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 20).await;
    assert!(returned.results.iter().any(|result| !result.detections.is_empty()));

    let mut viewer = Viewer::new(Codec::H264);
    exchange(&mut bad, &mut damaged, &mut viewer, |returned| returned.results.len() >= 10).await;
    let view = server.app.registry().get(&bad_id).expect("the session goes on").view();
    assert!(view.counters.keyframe_requests_out >= 1, "{:?}", view.counters);
    bad_socket.send(&ClientMessage::Bye).await;
    bad.close().await;
    finish(good_socket, good, server).await;
}
