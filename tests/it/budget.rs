//! The latency budget: video that waits for no result, objects that are followed, zones, and admission by load.

use std::collections::{BTreeMap, BTreeSet};

use saccade::media::Codec;
use saccade_signaling::{
    Anchor, ErrorCode, Event, OfferRequest, Options, OptionsPatch, OverlayPatch, ReturnMode, Rule, ServerMessage, Zone,
};

use crate::accuracy::model_folder;
use crate::assets::asset;
use crate::client::{Peer, Socket, connect};
use crate::live::{exchange, finish};
use crate::publisher::{Publisher, Viewer, iou};
use crate::server::Server;

fn returns(mode: ReturnMode) -> OptionsPatch {
    OptionsPatch { return_mode: Some(mode), ..OptionsPatch::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn predicted_video_comes_back_before_its_results_and_results_name_it() {
    let Some(graph) = asset("predicted", "models/yolox_nano_416.onnx") else { return };
    let models = tempfile::tempdir().unwrap();
    model_folder(models.path(), "yolox-nano", &graph);
    let dir = models.path().to_str().unwrap();
    let server = Server::start(&[("models.dir", dir), ("models.default", "yolox-nano"), ("hw.infer", "off")]).await;
    let (socket, mut peer, ..) = connect(server.http, Codec::H264, returns(ReturnMode::Predicted)).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.len() >= 20 && returned.pictures.len() >= 60
    })
    .await;
    let answered: Vec<u32> = returned.results.iter().filter_map(|result| result.rtp_timestamp_out).collect();
    assert!(answered.len() * 10 >= returned.results.len() * 9, "{} of {}", answered.len(), returned.results.len());
    let ahead = answered.iter().filter(|time| returned.ahead.contains(time)).count();
    assert!(ahead * 2 > answered.len(), "{ahead} of {} pictures came before their results", answered.len());
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_are_drawn_where_the_tracker_expects_them_when_video_does_not_wait() {
    let server = Server::start(&[]).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let labels = OverlayPatch { labels: Some(false), ..OverlayPatch::default() };
    let patch = OptionsPatch { overlay: Some(labels), ..returns(ReturnMode::Predicted) };
    let (socket, mut peer, ..) = connect(server.http, Codec::H264, patch).await;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 60).await;
    let (mut heads, mut drawn) = (0, 0);
    for (time, picture) in &returned.pictures {
        let number = publisher.number(*time);
        let sent = publisher.scene.frame(number);
        // Before the first result there is nothing to draw.
        for head in publisher.scene.truth(number).iter().filter(|head| number > 15 && head.visible > 0.9) {
            let [x1, y1, x2, y2] = head.bbox.map(|side| side as usize);
            // Away from the box nothing is drawn; on its edges something is, a few pixels off at most.
            let near = |x: usize, y: usize| {
                let (left, top) = (x.saturating_sub(4), y.saturating_sub(4));
                let rows = (top..(y + 5).min(480)).flat_map(|row| (left..(x + 5).min(640)).map(move |at| (at, row)));
                rows.map(|(at, row)| {
                    let at = row * 640 + at;
                    sent.planes()[0][at].abs_diff(picture.planes()[0][at])
                })
                .max()
            };
            heads += 1;
            let (middle, centre) = (x1.midpoint(x2), y1.midpoint(y2));
            let edges = [near(middle, y1), near(middle, y2), near(x1, centre), near(x2, centre)];
            drawn += usize::from(edges.iter().filter(|difference| **difference > Some(30)).count() >= 3);
        }
    }
    assert!(heads > 50 && drawn * 10 >= heads * 9, "{drawn} of {heads} heads have a box");
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_keep_their_ids_and_lose_them_when_nothing_tracks() {
    let server = Server::start(&[]).await;
    let (socket, mut peer, ..) = connect(server.http, Codec::Vp8, returns(ReturnMode::Results)).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 60).await;
    let mut people: BTreeMap<u32, BTreeMap<u64, usize>> = BTreeMap::new();
    for result in &returned.results {
        let ids: BTreeSet<_> = result.detections.iter().map(|found| found.object_id.expect("an id")).collect();
        assert_eq!(ids.len(), result.detections.len(), "an id names one object of a frame");
        for head in publisher.scene.truth(publisher.number(result.rtp_timestamp_in)) {
            if let Some(found) = result.detections.iter().find(|found| iou(found.bbox, head.bbox) > 0.5) {
                *people.entry(head.person_id).or_default().entry(found.object_id.unwrap()).or_default() += 1;
            }
        }
    }
    let sightings: usize = people.values().flat_map(BTreeMap::values).sum();
    let main: usize = people.values().map(|ids| ids.values().max().unwrap()).sum();
    assert!(sightings > 100 && main * 100 >= sightings * 95, "{people:?}");

    peer.order(r#"{"type":"configure","options":{"track":false}}"#).await;
    assert!(matches!(peer.control_replies.recv().await, Some(ServerMessage::Configured { .. })));
    let after = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 20).await;
    let last = &after.results[after.results.len() - 5..];
    assert!(last.iter().any(|result| !result.detections.is_empty()));
    assert!(last.iter().flat_map(|result| &result.detections).all(|found| found.object_id.is_none()));
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_head_that_stays_in_the_zone_raises_an_alert_on_the_channel_and_on_the_stream() {
    let server = Server::start(&[]).await;
    let whole = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    let zone = Zone { name: "work".to_owned(), polygon: whole, anchor: Anchor::Center, dwell_s: None };
    let rule = Rule {
        name: "bare head".to_owned(),
        zone: "work".to_owned(),
        classes: Some(vec!["head".to_owned()]),
        longer_than_s: 0.5,
        more_than: None,
    };
    let zones = OptionsPatch { zones: Some(vec![zone]), rules: Some(vec![rule]), ..returns(ReturnMode::Results) };
    let (socket, mut peer, id, _) = connect(server.http, Codec::Vp8, zones).await;
    let mut stream = reqwest::get(server.url(&format!("/v1/sessions/{id}/events"))).await.unwrap();
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let is_alert = |event: &Event| matches!(event, Event::AlertStarted { .. });
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.events.iter().any(is_alert) && returned.results.len() >= 30
    })
    .await;
    let Some(Event::AlertStarted { rule, zone, object_id: Some(object), class, rtp_timestamp, .. }) =
        returned.events.iter().find(|event| is_alert(event))
    else {
        panic!("{:?}", returned.events)
    };
    assert_eq!((rule.as_str(), zone.as_str(), class.as_deref()), ("bare head", "work", Some("head")));
    let result = returned.results.iter().find(|result| result.rtp_timestamp_in == *rtp_timestamp).expect("its frame");
    let found = result.detections.iter().find(|found| found.object_id == Some(*object)).expect("its object");
    assert_eq!(found.class, "head");
    let entered = |event: &Event| matches!(event, Event::ZoneEntered { object_id, .. } if object_id == object);
    assert!(returned.events.iter().any(entered));

    // Without the zone the alert is over.
    peer.order(r#"{"type":"configure","options":{"zones":[],"rules":[]}}"#).await;
    let after = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        let ended = |event: &Event| matches!(event, Event::AlertEnded { object_id, .. } if *object_id == Some(*object));
        returned.events.iter().any(ended)
    })
    .await;
    assert!(after.events.iter().any(|event| matches!(event, Event::ZoneLeft { .. })));

    let mut text = String::new();
    while !text.contains("\"type\":\"alert_ended\"") {
        text.push_str(str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap());
    }
    assert!(text.contains("\"type\":\"alert_started\"") && text.contains("\"rule\":\"bare head\""), "{text}");
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_drawn_when_asked_for_and_wrong_ones_are_refused() {
    let server = Server::start(&[]).await;
    let mut socket = Socket::connect(server.http).await;
    assert!(matches!(socket.next().await, ServerMessage::Welcome { .. }));
    let mut bad = Peer::new(Codec::Vp8).await;
    let line = serde_json::json!({"zones": [{"name": "a", "polygon": [[0, 0], [1, 1]]}], "track": false});
    let options = Some(serde_json::from_value(line).unwrap());
    socket.offer(bad.offer().await, options, None).await;
    let (code, message) = socket
        .find(|message| match message {
            ServerMessage::Error { code, message, .. } => Some((code, message)),
            _ => None,
        })
        .await;
    assert_eq!(code, ErrorCode::BadOptions);
    assert!(message.contains("zones") && message.contains("track"), "{message}");
    bad.close().await;

    let zone = serde_json::json!({
        "zones": [{"name": "work", "polygon": [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]}],
        "overlay": {"zones": true, "boxes": false, "labels": false},
    });
    let (socket, mut peer, _, options): (_, _, _, Options) =
        connect(server.http, Codec::H264, serde_json::from_value(zone).unwrap()).await;
    assert!(options.overlay.zones);
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 10).await;
    let (time, picture) = returned.pictures.iter().next().unwrap();
    let sent = publisher.scene.frame(publisher.number(*time));
    let changed = |x: usize, y: usize| {
        let samples = (x - 10..x + 10).map(|x| y * 640 + x);
        samples.map(|at| u32::from(sent.planes()[0][at].abs_diff(picture.planes()[0][at]))).sum::<u32>() / 20
    };
    // Its upper side, and not what is beyond it.
    assert!(changed(320, 120) > 12, "{}", changed(320, 120));
    assert!(changed(60, 400) < 8 && changed(600, 400) < 8, "{} {}", changed(60, 400), changed(600, 400));
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_processors_have_no_time_for_is_refused_until_others_have_left() {
    let server = Server::start(&[("admission.mode", "measured"), ("admission.max_sessions", "10000")]).await;
    let mut peer = Peer::new(Codec::H264).await;
    let offer = OfferRequest { sdp: peer.complete_offer().await, kind: "offer".to_owned(), options: None };
    let client = reqwest::Client::new();
    let post = async || client.post(server.url("/v1/offer")).json(&offer).send().await.unwrap();
    let mut ids = Vec::new();
    let refused = loop {
        let answer = post().await;
        if !answer.status().is_success() {
            break answer;
        }
        let answer: serde_json::Value = answer.json().await.unwrap();
        ids.push(answer["session_id"].as_str().unwrap().to_owned());
        assert!(ids.len() < 2_000, "nobody is refused");
    };
    assert!(!ids.is_empty());
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "capacity");
    let rejected = reqwest::get(format!("http://{}/metrics", server.app.ops_address())).await.unwrap();
    assert!(rejected.text().await.unwrap().contains("saccade_admission_rejected_total{reason=\"overload\"}"));

    // A place for one is not enough: it would be taken and given back for ever.
    let end = async |id: &str| {
        let url = server.url(&format!("/v1/sessions/{id}"));
        assert!(client.delete(url).send().await.unwrap().status().is_success());
    };
    for id in &ids[ids.len() / 3..] {
        end(id).await;
    }
    assert!(post().await.status().is_success());
    peer.close().await;
    server.app.shut_down().await;
}
