//! More frames than the model can take: what is dropped is counted, what is answered stays fresh, and the sessions say
//! what they give up.

use std::time::Duration;

use bytes::Bytes;
use saccade::media::Codec;
use saccade_signaling::{ClientMessage, Dropped, OptionsPatch, ReturnMode, SessionView, close_code};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::accuracy::model_folder;
use crate::assets::asset;
use crate::client::{LIMIT, connect};
use crate::publisher::Publisher;
use crate::server::Server;

const SESSIONS: usize = 4;
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
        // Every decoded frame is accounted for, but for the last one that the model was asked about.
        let counters = &view.counters;
        let Dropped { superseded, late, skipped } = counters.dropped;
        let answered = counters.inferred + superseded + late + skipped;
        let known = answered..=answered + 1;
        assert!(known.contains(&counters.decoded), "session {index}: {counters:?}");
        // A queue would fall behind by at least half of the frames of each third.
        let third = lags.len() / 3;
        let (before, after) = (median(&lags[third..2 * third]), median(&lags[2 * third..]));
        println!("session {index}: {results} results of {FRAMES} frames, behind by {before}, then {after}");
        assert!(after < before + FRAMES / 12, "session {index} falls behind: {before}, then {after} frames");
    }
    server.app.shut_down().await;
}
