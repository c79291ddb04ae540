//! More frames than the model can take: what is dropped is counted, what is answered stays fresh, and the sessions say
//! what they give up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use saccade::media::{Codec, MediaTime, RtpPacket};
use saccade_signaling::{ClientMessage, Dropped, OptionsPatch, ReturnMode, SessionResult, SessionView, close_code};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::accuracy::model_folder;
use crate::assets::asset;
use crate::client::{LIMIT, Peer, connect};
use crate::publisher::{Publisher, Viewer};
use crate::server::Server;

const SESSIONS: usize = 6;
/// As many as `limits.fps` lets through; together several times what the model can do.
const FPS: u32 = 60;
const SECONDS: u32 = 6;
const FRAMES: u32 = FPS * SECONDS;
/// RTP clock ticks from a frame to the next.
const TICKS: u32 = 90_000 / FPS;

/// The model sees at least one in so many frames.
const MOST_SKIPPED: u32 = 6;

/// What one session saw.
struct Seen {
    /// Results of frames that the model saw.
    results: usize,
    /// Results of frames that it did not see, each saying that this was on purpose.
    carried: usize,
    dropped: Dropped,
    /// At each frame sent: by how many frames the newest result was behind.
    lags: Vec<u32>,
    view: SessionView,
}

async fn publish(server: &Server) -> Seen {
    let patch = OptionsPatch {
        return_mode: Some(ReturnMode::Results),
        // So long that hardly a frame is dropped for being late: nothing but the mailboxes bounds the age.
        budget_ms: Some(5000),
        ..OptionsPatch::default()
    };
    let (mut socket, mut peer, id, _) = connect(server.http, Codec::Vp8, patch).await;
    // Encoding is done before the first frame is sent, and one second of it repeated.
    let mut publisher = Publisher::with_bitrate(Codec::Vp8, 600_000);
    let second: Vec<Vec<(Bytes, bool)>> = (0..30).map(|_| publisher.next().1).collect();
    let mut seen = Seen {
        results: 0,
        carried: 0,
        dropped: Dropped::default(),
        lags: Vec::new(),
        view: server.app.registry().get(&id).unwrap().view(),
    };
    let mut newest = 0;
    let mut pace = interval(Duration::from_secs(1) / FPS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exchange = async {
        let mut sent = 0;
        while sent < FRAMES || newest + MOST_SKIPPED < FRAMES {
            tokio::select! {
                _ = pace.tick(), if sent < FRAMES => {
                    // A second of 30 frames is shown in half a second, keyframe to keyframe.
                    let payloads = second[sent as usize % second.len()].clone();
                    peer.send(saccade::media::MediaTime(sent * TICKS), payloads).await;
                    seen.lags.push(sent - newest.min(sent));
                    sent += 1;
                }
                Some(result) = peer.results.recv() => {
                    seen.dropped = result.dropped;
                    if result.batch_size == 0 {
                        assert_eq!(result.degraded, ["skip_inference"]);
                        seen.carried += 1;
                    } else {
                        newest = newest.max(result.rtp_timestamp_in / TICKS);
                        seen.results += 1;
                    }
                }
            }
        }
    };
    timeout(LIMIT + Duration::from_secs(SECONDS.into()), exchange).await.expect("a result of the last frame in time");
    seen.view = server.app.registry().get(&id).unwrap().view();
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    seen
}

fn median(values: &[u32]) -> u32 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn results_stay_fresh_when_more_frames_come_than_the_model_can_take() {
    let Some(graph) = asset("overload", "models/yolox_nano_416.onnx") else { return };
    let models = tempfile::tempdir().unwrap();
    model_folder(models.path(), "yolox-nano", &graph);
    let dir = models.path().to_str().unwrap();
    let server = Server::start(&[
        ("models.dir", dir),
        ("models.default", "yolox-nano"),
        ("hw.infer", "off"),
        ("degradation.mode", "auto"),
    ])
    .await;
    let seen = futures_util::future::join_all((0..SESSIONS).map(|_| publish(&server))).await;
    for (index, seen) in seen.iter().enumerate() {
        let Seen { results, carried, dropped, lags, view } = seen;
        assert!(*results * 2 < FRAMES as usize, "session {index}: {results} of {FRAMES}: this is no overload");
        assert!(*results >= SECONDS as usize / 2, "session {index} starved: {results} results");
        assert!(dropped.superseded + dropped.skipped > u64::from(FRAMES) / 4, "session {index}: {dropped:?}");
        assert!(*carried > FRAMES as usize / 8, "session {index}: the tracker filled in {carried} times");
        // Every decoded frame is accounted for, but for one that is in the model and one that waits for it.
        let counters = &view.counters;
        let Dropped { superseded, late, skipped } = counters.dropped;
        let answered = counters.inferred + superseded + late + skipped;
        let known = answered..=answered + 2;
        assert!(known.contains(&counters.decoded), "session {index}: {counters:?}");
        // A queue would fall behind by at least half of the frames of each third.
        let third = lags.len() / 3;
        let (before, after) = (median(&lags[third..2 * third]), median(&lags[2 * third..]));
        println!("session {index}: {results} results of {FRAMES} frames, behind by {before}, then {after}");
        assert!(after < before + FRAMES / 12, "session {index} falls behind: {before}, then {after} frames");
    }
    server.app.shut_down().await;
}

/// What happens at a client.
enum Happening {
    /// Another frame was sent.
    Sent,
    Result(Box<SessionResult>),
    Packet(RtpPacket),
}

/// Sends the same second of frames again and again, and tells of what happens until `enough`.
async fn play(peer: &mut Peer, fps: u32, mut enough: impl FnMut(Happening) -> bool) {
    let mut publisher = Publisher::with_bitrate(Codec::H264, 600_000);
    let second: Vec<Vec<(Bytes, bool)>> = (0..30).map(|_| publisher.next().1).collect();
    let mut pace = interval(Duration::from_secs(1) / fps);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let play = async {
        let mut sent = 0;
        loop {
            let happening = tokio::select! {
                _ = pace.tick() => {
                    peer.send(MediaTime(sent * (90_000 / fps)), second[sent as usize % second.len()].clone()).await;
                    sent += 1;
                    Happening::Sent
                }
                Some(result) = peer.results.recv() => Happening::Result(Box::new(result)),
                Some(packet) = peer.packets.recv() => Happening::Packet(packet),
            };
            if enough(happening) {
                return;
            }
        }
    };
    timeout(LIMIT * 4, play).await.expect("enough in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_load_that_stays_everything_is_given_up_in_order_and_some_of_it_taken_back_after() {
    let server = Server::start(&[
        ("models.default", "ppe-nano"),
        ("degradation.mode", "auto"),
        ("admission.mode", "fixed"),
        ("admission.max_sessions", "1000"),
        ("session.budget_ms", "40"),
    ])
    .await;
    let (mut socket, mut peer, ..) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    // What is too much differs from machine to machine: more come as long as it is not.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (others, over) = (watch::Sender::new(6 * cores), AtomicBool::new(false));
    let other = async |index: usize| {
        let _ = others.subscribe().wait_for(|others| *others > index).await;
        if over.load(Ordering::Relaxed) {
            return;
        }
        let track = index > 0;
        let patch = OptionsPatch { track: Some(track), ..OptionsPatch::default() };
        let (mut socket, mut peer, ..) = connect(server.http, Codec::H264, patch).await;
        let played = play(&mut peer, FPS, |happening| {
            if let Happening::Result(result) = &happening {
                assert!(track || result.batch_size > 0, "nobody can say what is in it: {result:?}");
            }
            matches!(happening, Happening::Sent) && over.load(Ordering::Relaxed)
        });
        // A socket that answers no pings is lost after half a minute.
        tokio::select! {
            () = played => {}
            never = socket.stay() => match never {},
        }
        socket.send(&ClientMessage::Bye).await;
        assert_eq!(socket.close_code().await, close_code::BYE);
        peer.close().await;
    };
    let (mut small, mut halves, mut last, mut number, mut sent) = (0, 0, None, None, 0);
    let mut steps: Vec<Vec<String>> = Vec::new();
    let mut viewer = Viewer::new(Codec::H264);
    let watched = async {
        play(&mut peer, 30, |happening| {
            match happening {
                Happening::Sent => {
                    sent += 1;
                    if sent % 90 == 0 && steps.last().is_none_or(|steps| steps.len() < 4) {
                        others.send_modify(|others| *others = (*others + cores).min(20 * cores));
                    }
                }
                Happening::Result(result) => {
                    if steps.last() != Some(&result.degraded) {
                        steps.push(result.degraded.clone());
                    }
                    assert_eq!((result.width, result.height), (640, 480), "boxes are those of the frame as it came");
                    let before = number.replace(result.frame_id);
                    assert!(before < number, "results come in order: {before:?}, {number:?}");
                    if result.degraded.iter().any(|step| step == "smaller_input") && result.batch_size > 0 {
                        small += usize::from(result.model == "ppe-nano-small@2");
                    }
                }
                Happening::Packet(packet) => {
                    for (time, picture, _) in viewer.take(packet) {
                        if (picture.width(), picture.height()) == (320, 240) {
                            halves += 1;
                            let apart = last.replace(time.0).map(|last: u32| time.0.wrapping_sub(last));
                            assert!(apart.is_none_or(|ticks| ticks >= 3 * 3_000), "one in three comes back: {apart:?}");
                        }
                    }
                }
            }
            let top = steps.last().is_some_and(|steps| steps.len() == 4);
            top && small >= 3 && halves >= 3
        })
        .await;
        over.store(true, Ordering::Relaxed);
        others.send_replace(usize::MAX);
        // Frames under way may still be as they were; what is taken back first is what was given up last.
        let top = steps.len();
        play(&mut peer, 30, |happening| {
            if let Happening::Result(result) = happening
                && steps.last() != Some(&result.degraded)
            {
                steps.push(result.degraded);
            }
            steps[top..].iter().any(|steps| !steps.iter().any(|step| step == "lower_resolution"))
        })
        .await;
    };
    let load = futures_util::future::join_all((0..20 * cores).map(other));
    tokio::select! {
        _ = futures_util::future::join(watched, load) => {}
        never = socket.stay() => match never {},
    }
    println!("{steps:?}");
    let all = ["skip_inference", "smaller_input", "lower_fps", "lower_resolution"];
    assert!(steps.iter().all(|steps| *steps == all[..steps.len()]), "each step keeps the ones before it: {steps:?}");
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_an_idle_machine_cannot_keep_makes_nobody_give_anything_up() {
    let Some(graph) = asset("a budget", "models/yolox_nano_416.onnx") else { return };
    let models = tempfile::tempdir().unwrap();
    model_folder(models.path(), "yolox-nano", &graph);
    let dir = models.path().to_str().unwrap();
    let settings = [("models.dir", dir), ("models.default", "yolox-nano"), ("degradation.mode", "auto")];
    let server = Server::start(&settings).await;
    let patch = OptionsPatch { budget_ms: Some(10), ..OptionsPatch::default() };
    let (mut socket, mut peer, ..) = connect(server.http, Codec::H264, patch.clone()).await;
    let mut results = Vec::new();
    play(&mut peer, 30, |happening| {
        if let Happening::Result(result) = happening {
            results.push(*result);
        }
        // One in a second is run all the same.
        results.len() >= 6
    })
    .await;
    assert!(results.iter().all(|result| result.degraded.is_empty()), "{results:?}");
    assert!(results.iter().any(|result| result.timing_ms.total > 10.0), "{results:?}");
    // And so nobody is kept out.
    let (mut second, other, ..) = connect(server.http, Codec::H264, patch).await;
    for socket in [&mut socket, &mut second] {
        socket.send(&ClientMessage::Bye).await;
        assert_eq!(socket.close_code().await, close_code::BYE);
    }
    peer.close().await;
    other.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_beyond_the_limit_are_no_frames_of_the_session() {
    let server = Server::start(&[("limits.fps", "15")]).await;
    let patch = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    let (mut socket, mut peer, ..) = connect(server.http, Codec::H264, patch).await;
    let mut ids = Vec::new();
    play(&mut peer, 30, |happening| {
        if let Happening::Result(result) = happening {
            ids.push((result.frame_id, result.rtp_timestamp_in));
        }
        ids.len() >= 20
    })
    .await;
    // Their numbers do not skip what was left out, or rungs that go by numbers would see even ones only.
    let pairs = ids.windows(2).filter(|pair| pair[1].0 == pair[0].0 + 1);
    let spaced = pairs.clone().all(|pair| pair[1].1.wrapping_sub(pair[0].1) >= 6_000);
    assert!(pairs.count() > 10 && spaced, "{ids:?}");
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    server.app.shut_down().await;
}
