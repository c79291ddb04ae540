//! Sessions of a server that has a GPU, on one that is none.

use std::collections::HashSet;
use std::sync::Arc;

use saccade::app::Devices;
use saccade::device::Status;
use saccade::hardware::{Finding, Piece, Stage, Table};
use saccade::media::Codec;
use saccade::pipeline::{Gpu, Libraries};
use saccade_signaling::OptionsPatch;

use crate::client::connect;
use crate::fake_cuda::Fake;
use crate::live::{Returned, exchange, finish};
use crate::publisher::{Publisher, Viewer};
use crate::server::{Server, metrics};

/// A table in which these pieces work.
fn table(pieces: &[Piece]) -> Table {
    let finding = |piece: &Piece| Finding { piece: *piece, works: true, found: "a fake".to_owned() };
    Table::new([Piece::Driver, Piece::Device, Piece::Kernels].iter().chain(pieces).map(finding).collect())
}

/// The fake's GPU as the server opens it.
fn devices(fake: &Fake, pieces: &[Piece], stages: &[Stage]) -> Devices {
    let (table, libraries) = (table(pieces), Libraries { driver: fake.driver(), decoder: Some(fake.api()) });
    let gpu = Gpu::open(libraries, &table, stages).unwrap();
    Devices { table, gpu: Some(Arc::new(gpu)) }
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
    assert!(page.contains("saccade_decode_takeovers_total{reason=\"lost\"} 1"), "{page}");
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
