//! A path back that narrows and gets wide again: the server sends what it carries, and says what it gives up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use saccade::media::Codec;
use saccade_signaling::{ClientMessage, OptionsPatch, close_code};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::client::{LIMIT, Socket, join_by};
use crate::publisher::{FPS, Publisher};
use crate::relay::Relay;
use crate::server::Server;

/// Bits a second.
const WIDE: u64 = 4_000_000;
const NARROW: u64 = 300_000;
/// Longest wait for the server to notice.
const NOTICED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrow_path_cannot_carry_is_given_up_and_comes_back() {
    let server = Server::start(&[]).await;
    let relay = Relay::start(server.media(), WIDE, |_| true).await;
    let options = OptionsPatch { budget_ms: Some(1_000), ..OptionsPatch::default() };
    let socket = Socket::connect(server.http).await;
    let (mut socket, mut peer, id, _) = join_by(socket, Codec::H264, options, |answer| relay.lead(&answer)).await;
    let mut publisher = Publisher::new(Codec::H264);
    let mut pace = interval(Duration::from_secs(1) / FPS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut arrived, mut since) = (0, Instant::now());
    // Wide until something comes back in full, narrow until that is given up, wide until all of it is back.
    let mut stages = vec![("in full", WIDE, false), ("less", NARROW, true), ("in full again", WIDE, false)].into_iter();
    let mut stage = stages.next();
    let mut last_rate = 0;
    while let Some((name, carries, lower)) = stage {
        relay.carries.store(carries, Ordering::Relaxed);
        let reached = async {
            loop {
                tokio::select! {
                    _ = pace.tick() => {
                        let (time, payloads) = publisher.next();
                        peer.send(time, payloads).await;
                    }
                    Some(packet) = peer.packets.recv() => arrived += packet.payload.len() as u64 * 8,
                    Some(result) = peer.results.recv() => {
                        let took = since.elapsed();
                        if took < Duration::from_secs(1) {
                            continue;
                        }
                        last_rate = (arrived as f64 / took.as_secs_f64()) as u64;
                        (arrived, since) = (0, Instant::now());
                        let gives_up = result.degraded.iter().any(|step| step == "lower_fps");
                        // What comes is what the path carries, or more than that where the path is wide.
                        if gives_up == lower && (last_rate > NARROW) != lower {
                            return;
                        }
                    }
                }
            }
        };
        timeout(NOTICED, reached).await.unwrap_or_else(|_| panic!("{name}: {last_rate} bits a second"));
        stage = stages.next();
    }
    let view = server.app.registry().get(&id).unwrap().view();
    assert!(view.counters.returned > 0 && view.counters.returned < view.counters.results, "{:?}", view.counters);
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    timeout(LIMIT, peer.close()).await.expect("an end in time");
}
