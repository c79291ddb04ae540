//! Sessions of a server that has a GPU, on one that is none.

use std::collections::HashSet;
use std::sync::Arc;

use saccade::app::Devices;
use saccade::device::Status;
use saccade::encode::nvenc;
use saccade::hardware::{Finding, Piece, Stage, Table};
use saccade::infer::device::Tensors;
use saccade::media::Codec;
use saccade::pipeline::{Gpu, Libraries};
use saccade_signaling::{Detection, OptionsPatch, ReturnMode};

use crate::client::{LIMIT, connect};
use crate::fake_cuda::Fake;
use crate::live::{Returned, annotated_video_and_results_come_from, exchange, finish};
use crate::publisher::{Publisher, Viewer, iou};
use crate::server::{Server, metrics};

/// A table in which these pieces work.
fn table(pieces: &[Piece]) -> Table {
    let finding = |piece: &Piece| Finding { piece: *piece, works: true, found: "a fake".to_owned() };
    Table::new([Piece::Driver, Piece::Device, Piece::Kernels].iter().chain(pieces).map(finding).collect())
}

/// The fake's GPU as the server opens it.
fn devices(fake: &Fake, pieces: &[Piece], stages: &[Stage]) -> Devices {
    fake.share_host();
    let (driver, decoder, encoder) = (fake.driver(), Some(fake.api()), nvenc::Api::of(&fake.entries()).ok());
    let (table, libraries) = (table(pieces), Libraries { driver, decoder, encoder, tensors: Tensors::Host });
    let gpu = Gpu::open(libraries, &table, stages).unwrap();
    Devices { table, gpu: Some(Arc::new(gpu)) }
}

/// Decodes H.264 and runs models.
fn in_place(fake: &Fake) -> Devices {
    devices(fake, &[Piece::DecodeH264, Piece::Cuda], &[Stage::Decode, Stage::Infer])
}

/// Does everything.
fn whole_path(fake: &Fake) -> Devices {
    let stages = [Stage::Decode, Stage::Infer, Stage::Encode];
    let pieces = [Piece::DecodeH264, Piece::DecodeVp8, Piece::Cuda, Piece::CudaGraphs, Piece::EncodeH264];
    devices(fake, &pieces, &stages)
}

/// Frames that came back with their results, and those that had people in them.
fn whole(returned: &Returned) -> bool {
    returned.results.len() >= 20 && returned.pictures.len() >= 15
}

#[tokio::test]
async fn a_session_is_decoded_by_the_gpu_and_by_software_once_that_is_lost() {
    let fake = Fake::new();
    let server = Server::with(&[], devices(&fake, &[Piece::DecodeH264], &[Stage::Decode])).await;
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, whole).await;
    let ids = returned.results.iter().map(|result| result.frame_id).collect::<HashSet<_>>();
    assert!(fake.calls("cuvidDecodePicture") >= ids.len(), "each of {} frames is decoded there", ids.len());
    let found = returned.results.iter().filter(|result| !result.detections.is_empty()).count();
    assert!(found * 10 >= returned.results.len() * 9, "{found} of {} have people in them", returned.results.len());

    fake.fail("cuvidDecodePicture", Status::ILLEGAL_ADDRESS);
    let last = publisher.next;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, whole).await;
    let later = returned.results.iter().filter(|result| publisher.number(result.rtp_timestamp_in) > last).count();
    assert!(later >= 10, "{later} frames were decoded after the GPU was lost");
    let page = metrics().render();
    assert!(page.lines().any(|line| line == "saccade_decode_takeovers_total{reason=\"lost\"} 1"), "{page}");
    finish(socket, peer, server).await;
}

#[tokio::test]
async fn a_codec_that_the_gpu_failed_to_decode_when_it_was_tried_is_left_to_software() {
    let fake = Fake::new();
    let server = Server::with(&[], devices(&fake, &[Piece::DecodeVp8], &[Stage::Decode])).await;
    for (codec, decoded) in [(Codec::H264, false), (Codec::Vp8, true)] {
        let (socket, mut peer, _, _) = connect(server.http, codec, OptionsPatch::default()).await;
        let (mut publisher, mut viewer) = (Publisher::new(codec), Viewer::new(codec));
        exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 5).await;
        assert_eq!(fake.calls("cuvidDecodePicture") > 0, decoded, "{codec}");
        drop((socket, peer));
    }
    server.app.shut_down().await;
}

#[tokio::test]
async fn a_gpu_that_is_not_to_decode_does_not() {
    let fake = Fake::new();
    let server = Server::with(&[], devices(&fake, &[Piece::DecodeH264], &[Stage::Infer])).await;
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 5).await;
    assert_eq!(fake.calls("cuvidCreateDecoder"), 0);
    finish(socket, peer, server).await;
}

#[tokio::test]
async fn where_results_alone_are_wanted_no_picture_leaves_the_gpu() {
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], in_place(&fake)).await;
    let options = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, options).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let enough = |returned: &Returned| returned.results.len() >= 30;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, enough).await;
    let (mut truths, mut found) = (0, 0);
    for result in &returned.results {
        for truth in publisher.scene.truth(publisher.number(result.rtp_timestamp_in)) {
            truths += 1;
            let is_it = |one: &Detection| one.class_id == truth.class_id && iou(one.bbox, truth.bbox) > 0.5;
            found += usize::from(result.detections.iter().any(is_it));
        }
    }
    assert!(truths > 30 && found * 100 >= truths * 95, "found {found} of {truths}");
    let launches = fake.take_launches();
    let launched = |name: &str| launches.iter().filter(|launched| *launched == name).count();
    let frames = returned.results.len();
    assert!(launched("nv12_to_tensor") >= frames && launched("detections_keep") >= frames, "{launches:?}");
    assert_eq!(fake.pictures_brought(), 0);

    // Whoever wants video has each picture brought once, after it was drawn on.
    peer.order(r#"{"type":"configure","options":{"return":"exact"}}"#).await;
    let enough = |returned: &Returned| returned.pictures.len() >= 10;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, enough).await;
    let brought = fake.pictures_brought();
    assert!(brought >= returned.pictures.len(), "{brought}");
    let tensors = fake.take_launches().iter().filter(|name| *name == "nv12_to_tensor").count();
    // One was with the model and one came from there when the launches before were taken.
    assert!(brought <= tensors + 2, "{brought} of {tensors}");
    finish(socket, peer, server).await;
}

#[tokio::test]
async fn models_fail_with_the_gpu_that_they_run_on_and_say_so() {
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], in_place(&fake)).await;
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 3).await;
    fake.fail("cuLaunchKernel", Status::LAUNCH_FAILED);
    let ready = format!("http://{}/readyz", server.app.ops_address());
    let mut said = String::new();
    let unready = async {
        while !said.contains("failed repeatedly") {
            let (time, payloads) = publisher.next();
            let _ = peer.try_send(time, payloads).await;
            said = reqwest::get(&ready).await.unwrap().text().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, unready).await.expect("the process is not ready");
    drop((socket, peer));
    server.app.shut_down().await;
}

#[tokio::test]
async fn frames_stay_on_the_gpu_from_decode_to_encode() {
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], whole_path(&fake)).await;
    annotated_video_and_results_come_from(server, Codec::H264).await;
    assert!(fake.calls("NvEncEncodePicture") >= 30);
    assert!(fake.take_launches().iter().filter(|name| *name == "overlay_paint").count() >= 10);
    assert_eq!(fake.pictures_brought(), 0);
}

#[tokio::test]
async fn what_the_gpu_does_not_encode_is_brought_once_with_everything_drawn_on_it() {
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], whole_path(&fake)).await;
    annotated_video_and_results_come_from(server, Codec::Vp8).await;
    assert_eq!(fake.calls("NvEncEncodePicture"), 0);
    let launches = fake.take_launches();
    let inferred = launches.iter().filter(|name| *name == "nv12_to_tensor").count();
    assert!(launches.iter().any(|name| name == "overlay_paint"));
    assert!((10..=inferred).contains(&fake.pictures_brought()), "{} of {inferred}", fake.pictures_brought());
}

#[tokio::test]
async fn the_host_draws_what_the_gpu_has_no_room_to_draw_on() {
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], whole_path(&fake)).await;
    let options = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, options).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 30).await;
    // What decodes and infers has its memory.
    fake.set_memory(fake.memory_in_use());
    peer.order(r#"{"type":"configure","options":{"return":"exact"}}"#).await;
    exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.pictures.len() >= 10).await;
    assert!(!fake.take_launches().iter().any(|name| name == "overlay_paint"));
    let page = metrics().render();
    let drawn = page.lines().find_map(|line| line.strip_prefix("saccade_draw_takeovers_total "));
    assert!(drawn.is_some_and(|count| count.parse::<u64>().unwrap() >= 10), "{drawn:?}");
    finish(socket, peer, server).await;
}

/// What a line of the metrics says.
fn counted(line: &str) -> u64 {
    let page = metrics().render();
    let found = page.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn while_the_gpu_is_full_video_comes_back_without_results_and_the_session_goes_on() {
    const NO_ROOM: &str = "saccade_frames_dropped_total{stage=\"infer\",reason=\"no_room\"}";
    const FAILED: &str = "saccade_frames_dropped_total{stage=\"infer\",reason=\"error\"}";
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], devices(&fake, &[Piece::Cuda], &[Stage::Infer])).await;
    // The model has its memory; there is none for pictures.
    fake.set_memory(fake.memory_in_use());
    let (before, failed) = (counted(NO_ROOM), counted(FAILED));
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    // More than a model may fail on in a row.
    let enough = |returned: &Returned| returned.pictures.len() >= 20 && counted(NO_ROOM) >= before + 40;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, enough).await;
    assert_eq!(returned.results.len(), 0, "nobody says that there is nothing in them");
    assert_eq!(counted(FAILED), failed, "the model is not to blame");

    fake.set_memory(1 << 30);
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, whole).await;
    assert!(returned.results.iter().filter(|result| !result.detections.is_empty()).count() >= 10);
    finish(socket, peer, server).await;
}

#[tokio::test]
async fn zones_stay_on_the_gpu_until_others_are_drawn() {
    let fake = Fake::new();
    let server = Server::with(&[("hw.infer", "on")], whole_path(&fake)).await;
    let square = |[left, top]: [f32; 2]| {
        let (right, bottom) = (left + 0.2, top + 0.2);
        serde_json::json!({
            "zones": [{"name": "work", "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]]}],
            "overlay": {"zones": true, "boxes": false, "labels": false},
        })
    };
    let options: OptionsPatch = serde_json::from_value(square([0.4, 0.25])).unwrap();
    let (socket, mut peer, _, _) = connect(server.http, Codec::H264, options).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let some = |returned: &Returned| returned.pictures.len() >= 15;
    exchange(&mut peer, &mut publisher, &mut viewer, some).await;

    // How much of the upper side of either square is seen.
    let seen = |publisher: &Publisher, returned: &Returned| {
        let (time, picture) = returned.pictures.iter().max_by_key(|(time, _)| publisher.number(**time)).unwrap();
        let sent = publisher.scene.frame(publisher.number(*time));
        [[320, 120], [128, 288]].map(|[x, y]: [usize; 2]| {
            // Luma and Cb, since what is behind may be as light as a zone.
            let changed =
                |plane: usize, at: usize| u32::from(sent.planes()[plane][at].abs_diff(picture.planes()[plane][at]));
            (x - 10..x + 10).map(|x| changed(0, y * 640 + x) + changed(1, y / 2 * 320 + x / 2)).sum::<u32>() / 20
        })
    };
    let copies = || fake.calls("cuMemcpyHtoDAsync");
    let (before, _) = (copies(), fake.take_launches());
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, some).await;
    let (copied, launches) = (copies() - before, fake.take_launches());
    let launched = |name: &str| launches.iter().filter(|launched| *launched == name).count();
    let (painted, inferred) = (launched("overlay_paint"), launched("detections_keep"));
    // What is wanted of each frame, and a frame more or less between two questions.
    assert!(painted >= 10 && copied <= inferred + 3, "{copied} copies for {painted} pictures, {inferred} inferred");
    let [first, second] = seen(&publisher, &returned);
    assert!(first > 12 && second < 8, "{first} {second}");

    let other = serde_json::json!({"type": "configure", "options": square([0.1, 0.6])});
    peer.order(&other.to_string()).await;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, some).await;
    let [first, second] = seen(&publisher, &returned);
    assert!(first < 8 && second > 12, "{first} {second}");
    finish(socket, peer, server).await;
}
