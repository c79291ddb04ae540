//! Sessions whose scene stands still get the last result again, where that is configured.

use saccade::media::Codec;
use saccade_signaling::{OptionsPatch, SessionResult};

use crate::client::connect;
use crate::live::exchange;
use crate::publisher::{Publisher, Viewer, iou};
use crate::server::{Server, metrics};

const GATE: [(&str, &str); 3] =
    [("session.still_gate", "true"), ("session.still_reuse_ms", "60000"), ("session.still_check_every", "5")];

fn is_reused(result: &SessionResult) -> bool {
    result.degraded.iter().any(|step| step == "reused")
}

/// What comes back of so many results, of a scene that stands still if `still` names its frame.
async fn results(settings: &[(&str, &str)], still: Option<u64>, enough: usize) -> (Vec<SessionResult>, Publisher) {
    let server = Server::start(settings).await;
    let (_socket, mut peer, ..) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    publisher.frozen = still;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.len() >= enough && returned.pictures.len() >= enough / 3
    });
    let results = returned.await.results;
    peer.close().await;
    server.app.shut_down().await;
    (results, publisher)
}

/// Share of the scene's objects that results have where they are.
fn recall(results: &[SessionResult], publisher: &Publisher) -> f64 {
    let (mut truths, mut found) = (0, 0);
    for result in results {
        let number = publisher.frozen.unwrap_or_else(|| publisher.number(result.rtp_timestamp_in));
        for head in publisher.scene.truth(number) {
            let is_it = |d: &saccade_signaling::Detection| d.class_id == head.class_id && iou(d.bbox, head.bbox) > 0.5;
            truths += 1;
            found += usize::from(result.detections.iter().any(is_it));
        }
    }
    assert!(truths >= 20, "the scene has people in it: {truths}");
    f64::from(found as u32) / f64::from(truths)
}

fn metric(line: &str) -> f64 {
    let text = metrics().render();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_still_scene_gets_the_last_result_again_and_says_so() {
    let (results, publisher) = results(&GATE, Some(30), 60).await;
    let reused: Vec<_> = results.iter().filter(|result| is_reused(result)).collect();
    assert!(reused.len() * 2 > results.len(), "{} of {} are reused", reused.len(), results.len());
    for result in &reused {
        assert_eq!((result.batch_size, result.timing_ms.inference), (0, 0.0));
        assert_eq!(result.model, "scene-blobs@1");
    }
    let inferred: Vec<_> = results.iter().filter(|result| !is_reused(result)).collect();
    assert!(inferred.len() * 10 > results.len(), "{} of {} are inferred", inferred.len(), results.len());
    assert!(inferred.iter().all(|result| result.timing_ms.inference > 0.0));
    assert!(recall(&results, &publisher) >= 0.95);
    // The same object keeps its id.
    let ids = |result: &SessionResult| {
        let mut ids: Vec<_> = result.detections.iter().filter_map(|detection| detection.object_id).collect();
        ids.sort_unstable();
        ids
    };
    let last = results.last().unwrap();
    assert!(!ids(last).is_empty());
    assert!(results[results.len() / 2..].iter().all(|result| ids(result) == ids(last)));

    let reported = metric("saccade_still_gate_frames_total{outcome=\"reused\"}");
    assert!(reported >= reused.len() as f64, "{reported}");
    let checked = metric("saccade_still_gate_agreement_ratio_count");
    let agreement = metric("saccade_still_gate_agreement_ratio_sum") / checked;
    assert!(checked >= 3.0 && agreement > 0.9, "{agreement} in {checked} frames");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scene_that_moves_is_found_as_without_the_gate() {
    let (results, publisher) = results(&GATE, None, 60).await;
    assert!(recall(&results, &publisher) >= 0.95);
    let inferred = results.iter().filter(|result| !is_reused(result)).count();
    assert!(inferred * 2 > results.len(), "{inferred} of {} are inferred", results.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_again_by_default() {
    let (results, _) = results(&[], Some(30), 30).await;
    assert!(results.iter().all(|result| !is_reused(result)));
}
