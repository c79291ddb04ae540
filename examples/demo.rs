//! The whole of Saccade in one terminal: a server, a client that publishes the drawn sample scene over WebRTC, and what
//! comes back.
//!
//! ```text
//! make demo
//! cargo run --release --example demo -- --seconds 10 --codec vp8
//! ```
//!
//! Each line tells of one second: frames sent, results and frames that came back, the time from sending a frame to its
//! result, and the last detections. It ends with Ctrl-C or after `--seconds`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use saccade::app::{App, Devices, StartError, reachable};
use saccade::calibration::Calibration;
use saccade::clock;
use saccade::config::{Config, File, Sources};
use saccade::media::Codec;
use saccade::telemetry;
use saccade::tuning::Tuning;
use saccade_signaling::{OptionsPatch, SessionResult};
use tokio::time::{MissedTickBehavior, interval, sleep};

#[path = "../tests/it/client.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the tests' client")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "the tests' client")]
mod client;
#[path = "../tests/it/publisher.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the tests' client")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the tests' client")]
mod publisher;

/// Server, publisher and live results in one terminal.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the server listens; if that is taken, any free port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Ends after this time.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// h264, vp8 or vp9.
    #[arg(long, default_value = "h264")]
    codec: Codec,
    /// Folder of models.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/models"))]
    models_dir: String,
    /// Model; scene-blobs is made for the drawn scene.
    #[arg(long, default_value = "scene-blobs")]
    model: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    telemetry::init_logs("warn", telemetry::LogFormat::Text)?;
    let app = start(&arguments).await?;
    println!("Saccade is ready: http://{}/", reachable(app.http_address()));
    println!("Publishing the drawn scene as {}; Ctrl-C ends.\n", arguments.codec);
    Box::pin(publish(app.http_address(), &arguments)).await;
    app.shut_down().await;
    Ok(())
}

async fn start(arguments: &Arguments) -> Result<App> {
    let metrics = telemetry::metrics::install().context("metrics cannot be collected")?;
    let any = SocketAddr::new(arguments.listen.ip(), 0);
    let config = |listen| config(arguments, listen);
    let wanted = config(arguments.listen)?;
    let tuning = Tuning::find(&wanted, &Calibration::standard(true));
    let hardware = || Devices::none("the demo runs on processors alone");
    match App::start(&wanted, &tuning, hardware(), metrics.clone()).await {
        Err(StartError::Listen { .. }) => Ok(App::start(&config(any)?, &tuning, hardware(), metrics).await?),
        started => Ok(started?),
    }
}

fn config(arguments: &Arguments, listen: SocketAddr) -> Result<Config> {
    let mut sources = Sources { file: File::None, ..Sources::default() };
    for (key, value) in [
        ("http.listen", listen.to_string().as_str()),
        ("ops.listen", "127.0.0.1:0"),
        ("models.dir", &arguments.models_dir),
        ("models.default", &arguments.model),
        ("shutdown.grace_ms", "1000"),
    ] {
        sources.flag(key, key, value);
    }
    Ok(Config::load(&sources)?)
}

/// Sends frames in real time, and prints a line a second.
async fn publish(server: SocketAddr, arguments: &Arguments) {
    let connecting = client::connect(reachable(server), arguments.codec, OptionsPatch::default());
    let (_socket, mut peer, ..) = Box::pin(connecting).await;
    let mut publisher = publisher::Publisher::new(arguments.codec);
    let mut pace = interval(Duration::from_secs(1) / publisher::FPS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lines = interval(Duration::from_secs(1));
    lines.tick().await;
    let mut end = pin!(sleep(arguments.seconds.map_or(Duration::MAX, Duration::from_secs)));
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut second = Second::default();
    loop {
        tokio::select! {
            _ = pace.tick() => {
                let (time, payloads) = publisher.next();
                second.on_the_way.insert(time.0, clock::now());
                second.sent += 1;
                peer.send(time, payloads).await;
            }
            Some(result) = peer.results.recv() => second.take(result),
            Some(packet) = peer.packets.recv() => second.returned += u32::from(packet.marker),
            _ = lines.tick() => println!("{}", second.line()),
            _ = &mut interrupt => break,
            () = &mut end => break,
        }
    }
    peer.close().await;
}

/// What happened since the last line.
#[derive(Default)]
struct Second {
    sent: u32,
    returned: u32,
    latencies: Vec<Duration>,
    last: Option<SessionResult>,
    /// When the frames left whose results have not come.
    on_the_way: HashMap<u32, Instant>,
}

impl Second {
    fn take(&mut self, result: SessionResult) {
        if let Some(sent) = self.on_the_way.remove(&result.rtp_timestamp_in) {
            self.latencies.push(clock::now() - sent);
        }
        self.last = Some(result);
    }

    /// The line; the next second begins.
    fn line(&mut self) -> String {
        let now = clock::now();
        self.on_the_way.retain(|_, sent| now.duration_since(*sent) < Duration::from_secs(5));
        let Self { sent, returned, mut latencies, last, on_the_way } = std::mem::take(self);
        self.on_the_way = on_the_way;
        latencies.sort_unstable();
        let percentile = |hundredths: usize| {
            let at = latencies.len() * hundredths / 100;
            latencies
                .get(at)
                .map_or_else(|| "   -".to_owned(), |latency| format!("{:4.0}", latency.as_secs_f64() * 1e3))
        };
        let found = last.map(|result| result.detections).unwrap_or_default();
        let found = found.iter().map(|detection| {
            let [x1, y1, x2, y2] = detection.bbox;
            format!("{} {:.2} at {:.0},{:.0}", detection.class, detection.score, (x1 + x2) / 2.0, (y1 + y2) / 2.0)
        });
        format!(
            "sent {sent:2}  results {:2}  frames back {returned:2}  latency p50 {} ms  p95 {} ms  {}",
            latencies.len(),
            percentile(50),
            percentile(95),
            found.collect::<Vec<_>>().join(", ")
        )
    }
}
