//! The generator against a small server on another stack thread: it sends every frame back, with one result each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a server in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use saccade_load::{
    Bounds, Capacity, Clip, Codec, Dialect, Encoding, Footage, Kind, Load, Object, Outcome, Picture, Report, Run,
    Setting, Step, Target, Usage, Wanted, html, run, search, table,
};
use saccade_signaling::{OptionsPatch, ReturnMode};
use serde_json::{Value, json};
use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaData, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

const FPS: u32 = 30;
const FRAMES: u32 = 60;

/// What the server does beside echoing.
#[derive(Debug, Clone, Copy, Default)]
struct Manners {
    /// Refuses every offer from this one on.
    refuse_from: Option<usize>,
    /// Is gone for good after so many offers.
    gone_after: Option<usize>,
    /// Results come this much later than their frames.
    delay: Duration,
    /// Asks for a keyframe when this many frames have come.
    keyframe_at: Option<usize>,
    /// Falls silent and closes when this many frames have come.
    end_at: Option<usize>,
    /// Says how many frames it dropped.
    superseded: u64,
    /// Answers what is no SDP.
    nonsense: bool,
    /// Every so-manieth packet of video that comes is lost.
    lose_each: Option<usize>,
    /// Takes no RTX: what is missing is wanted as it was.
    plain: bool,
    /// Results have their frame's timestamp relative to the first one's.
    from_first: bool,
}

/// A server on free ports.
struct Server {
    address: SocketAddr,
    /// Sessions that were deleted.
    deleted: Arc<AtomicUsize>,
}

impl Server {
    fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deleted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&deleted);
        thread::spawn(move || {
            for (number, connection) in listener.incoming().enumerate().take(manners.gone_after.unwrap_or(usize::MAX)) {
                answer(connection.unwrap(), number, manners, &counter);
            }
        });
        Self { address, deleted }
    }

    fn target(&self) -> Target {
        Target::new(format!("http://{}/offer", self.address), Dialect::Offer, None).unwrap()
    }

    fn whip(&self) -> Target {
        Target::new(format!("http://{}/whip", self.address), Dialect::Whip, Some("secret".to_owned())).unwrap()
    }
}

fn answer(mut connection: TcpStream, number: usize, manners: Manners, deleted: &AtomicUsize) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let head: Vec<_> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header =
        |name: &str| head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
    let mut body = vec![0; header("content-length: ").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let refuse = manners.refuse_from.is_some_and(|from| number >= from);
    let authorized = header("authorization: ").as_deref() == Some("bearer secret");
    let (status, body) = match head[0].as_str() {
        _ if refuse => ("503 Service Unavailable", json!({ "code": "capacity", "detail": "full" }).to_string()),
        "POST /offer HTTP/1.1" => {
            let offer: Value = serde_json::from_str(&body).unwrap();
            let answer = accept(offer["sdp"].as_str().unwrap(), manners);
            ("200 OK", json!({ "sdp": answer, "type": "answer" }).to_string())
        }
        "POST /whip?return=exact HTTP/1.1" if authorized && header("content-type: ").unwrap() == "application/sdp" => {
            ("201 Created\r\nLocation: whip/7", accept(&body, manners))
        }
        "DELETE /whip/7 HTTP/1.1" if authorized => {
            deleted.fetch_add(1, Ordering::SeqCst);
            ("200 OK", String::new())
        }
        other => panic!("{other}"),
    };
    write!(connection, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .unwrap();
}

fn accept(offer: &str, manners: Manners) -> String {
    if manners.nonsense {
        return "nonsense".to_owned();
    }
    // Where the generator is: whatever reaches it, reaches this, too.
    let line = offer.lines().find(|line| line.starts_with("a=candidate")).unwrap();
    let ip = line.split(' ').nth(4).unwrap();
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let mut rtc = Rtc::builder().build(Instant::now());
    rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
    let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(offer).unwrap()).unwrap();
    thread::spawn(move || {
        Echo { rtc, socket, manners, frames: 0, packets: 0, first: None, due: Vec::new(), channel: None }.run()
    });
    let answer = answer.to_sdp_string();
    if manners.plain { without_rtx(&answer) } else { answer }
}

fn without_rtx(sdp: &str) -> String {
    let rtx =
        sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")?.strip_suffix(" rtx/90000")).collect::<Vec<_>>();
    let lines = sdp.lines().filter(|line| !line.ends_with(" rtx/90000") && !line.contains(" apt="));
    let cleaned = lines.map(|line| match line.strip_prefix("m=video ") {
        Some(rest) => {
            format!("m=video {}", rest.split(' ').filter(|word| !rtx.contains(word)).collect::<Vec<_>>().join(" "))
        }
        None => line.to_owned(),
    });
    cleaned.map(|line| line + "\r\n").collect()
}

struct Echo {
    rtc: Rtc,
    socket: UdpSocket,
    manners: Manners,
    frames: usize,
    packets: usize,
    /// RTP timestamp of the first frame.
    first: Option<u32>,
    /// Results that are not to be sent yet.
    due: Vec<(Instant, String)>,
    channel: Option<str0m::channel::ChannelId>,
}

impl Echo {
    fn run(mut self) {
        let mut buffer = vec![0; 2_000];
        loop {
            let Some(wakeup) = self.drain() else { return };
            let wakeup = self.due.iter().map(|(at, _)| *at).fold(wakeup, Instant::min);
            let wait = wakeup.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            let input = match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => {
                    // Video, not its RTCP (RFC 5761).
                    if (128..192).contains(&buffer[0]) && !(64..96).contains(&(buffer[1] & 0x7f)) {
                        self.packets += 1;
                        if self.manners.lose_each.is_some_and(|each| self.packets.is_multiple_of(each)) {
                            continue;
                        }
                    }
                    let destination = self.socket.local_addr().unwrap();
                    let Ok(contents) = buffer[..length].try_into() else { continue };
                    Input::Receive(Instant::now(), Receive { proto: Protocol::Udp, source, destination, contents })
                }
                Err(_) => Input::Timeout(Instant::now()),
            };
            if self.rtc.handle_input(input).is_err() {
                return;
            }
            let now = Instant::now();
            while let Some(at) = self.due.iter().position(|(at, _)| *at <= now) {
                let (_, text) = self.due.remove(at);
                if self.drain().is_none() {
                    return;
                }
                if let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) {
                    channel.write(false, text.as_bytes()).unwrap();
                }
            }
        }
    }

    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.rtc.poll_output().ok()? {
                Output::Timeout(at) => return self.rtc.is_alive().then_some(at),
                Output::Transmit(transmit) => {
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::ChannelOpen(id, _)) => self.channel = Some(id),
                Output::Event(Event::MediaData(data)) => self.take(&data),
                Output::Event(Event::Closed) => return None,
                Output::Event(_) => {}
            }
        }
    }

    fn take(&mut self, data: &MediaData) {
        self.frames += 1;
        if self.manners.end_at == Some(self.frames) {
            let _ = self.rtc.close();
            return;
        }
        let time = data.time.numer() as u32;
        let writer = self.rtc.writer(data.mid).unwrap();
        let pt = writer.match_params(data.params).unwrap();
        writer.write(pt, Instant::now(), data.time, data.data.clone()).unwrap();
        if self.manners.keyframe_at == Some(self.frames) {
            self.request_keyframe(data.mid);
        }
        let first = *self.first.get_or_insert(time);
        let result = json!({
            "rtp_timestamp_in": if self.manners.from_first { time.wrapping_sub(first) } else { time },
            "rtp_timestamp_out": time,
            // One of the two objects, and one that is not there.
            "detections": [
                { "box": [10, 10, 30, 30], "class": "head", "class_id": 0, "score": 0.9 },
                { "box": [100, 10, 120, 30], "class": "helmet", "class_id": 1, "score": 0.8 },
            ],
            "timing_ms": { "total": 2.5 },
            "met": false,
            "dropped": { "superseded": self.manners.superseded, "late": 1 },
        });
        self.due.push((Instant::now() + self.manners.delay, result.to_string()));
    }

    fn request_keyframe(&mut self, mid: Mid) {
        self.rtc.writer(mid).unwrap().request_keyframe(None, KeyframeRequestKind::Pli).unwrap();
    }
}

fn clip(codec: Codec) -> Clip {
    let picture = |number: u32| {
        let mut picture = Picture::grey(320, 240);
        for (at, code) in picture.y.iter_mut().enumerate() {
            *code = u8::try_from((at as u32 / 320 * 2 + at as u32 % 320 + number * 3) % 160 + 40).unwrap();
        }
        picture
    };
    let object = |x: f32, class_id| Object { bbox: [x, 10.0, x + 20.0, 30.0], class_id, optional: false };
    let footage = Footage {
        identity: "waves".to_owned(),
        size: (320, 240),
        pictures: Box::new((0..FRAMES).map(move |number| Ok(picture(number)))),
        truth: vec![vec![object(10.0, 0), object(200.0, 1)]; FRAMES as usize],
    };
    let encoding = Encoding { codec, fps: FPS, bitrate_bps: 500_000, size: (320, 240) };
    Clip::make(footage, encoding, None).unwrap()
}

fn load(target: Target, codec: Codec, sessions: u32, seconds: u64) -> Load {
    Load {
        target,
        kinds: vec![Kind { weight: 1, clip: Arc::new(clip(codec)), options: OptionsPatch::default(), returned: true }],
        classes: vec!["head".to_owned(), "helmet".to_owned()],
        steps: vec![Step { time: Duration::from_secs(seconds), sessions }],
        ramp_per_s: 50.0,
        lifetime: None,
        probes: 1,
        server_pid: Some(std::process::id()),
    }
}

fn measure(load: &Load) -> Run {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(run(load, &AtomicBool::new(false), &mut |_| {})))
}

fn setting() -> Setting {
    Setting {
        url: "http://x/?<script>".to_owned(),
        signaling: "offer".to_owned(),
        scenario: "steady".to_owned(),
        clip: "waves".to_owned(),
        kinds: vec!["h264 320x240 at 30/s, return exact".to_owned()],
        budget_ms: None,
        generator: "test".to_owned(),
    }
}

#[test]
fn what_a_server_does_is_seen() {
    for codec in [Codec::H264, Codec::Vp8] {
        let delay = Duration::from_millis(40);
        let manners = Manners { delay, superseded: 3, keyframe_at: Some(10), ..Manners::default() };
        let server = Server::start(manners);
        let run = measure(&load(server.target(), codec, 2, 3));
        assert_eq!((run.connected(), run.rejected(), run.failed(), run.lost()), (2, 0, 0, 0), "{codec}: {run:?}");
        let total = &run.total;
        // Frames that come before the data channel is open have no result.
        let most = |part: u64, of: u64| part * 4 >= of * 3 && part <= of;
        assert!(total.sent > 100 && most(total.results, total.sent), "{codec}: {} of {}", total.results, total.sent);
        assert!(most(total.returned, total.sent) && most(total.joined, total.returned), "{codec}: {total:?}");
        assert_eq!((total.superseded, total.late, total.keyframe_requests), (6, 2, 2));
        assert_eq!(total.budget_missed, total.results);
        let latency = total.result_latency.percentiles().unwrap();
        assert!(latency.p50 >= 40.0, "{codec}: {latency:?}");
        // Video does not wait for the result.
        assert!(total.video_latency.percentiles().unwrap().p50 < latency.p50);
        assert!(total.video_latency.count() * 2 > total.returned / 2 && total.unreadable == 0);
        assert!((total.server_latency.percentiles().unwrap().max - 2.5).abs() < 0.01);
        assert_eq!((total.found.recall(), total.found.precision()), (Some(0.5), Some(0.5)));
        assert!(run.connect.count() == 2 && run.server_rss_bytes().unwrap() > 0);
        assert!(run.server_cpu_ms_per_result().unwrap() > 0.0);

        let report = Report::new(setting(), &run);
        let json = serde_json::to_value(&report).unwrap();
        for key in [
            "sessions",
            "connected",
            "rejected",
            "duration_s",
            "frames_sent",
            "results",
            "connect_ms",
            "result_latency_ms",
            "video_latency_ms",
            "per_session",
            "timeline",
            "server_cpu_ms_per_result",
            "server_rss_bytes",
            "dropped",
            "recall",
            "precision",
        ] {
            assert!(!json[key].is_null(), "{key}");
        }
        let one = |at: usize| &json["per_session"][at];
        assert!(one(1)["result_latency_ms"]["p95"].as_f64().unwrap() >= 40.0);
        assert_eq!(
            (&one(0)["dropped"], &one(1)["dropped"]),
            (&json!({ "superseded": 3, "late": 1, "skipped": 0 }), &one(0)["dropped"])
        );
        assert_eq!(one(0)["keyframe_requests"], 1);
        assert!(one(0)["connect_ms"].as_f64().unwrap() > 0.0 && one(0)["joined"].as_u64().unwrap() > 50);
        // One of the two is probed.
        assert_ne!(one(0)["video_latency_ms"].is_null(), one(1)["video_latency_ms"].is_null());
        let seconds = json["timeline"].as_array().unwrap();
        let results: u64 = seconds.iter().map(|second| second["results"].as_u64().unwrap()).sum();
        assert_eq!(results, total.results);
        assert!(table(&report).contains("result latency"));
        let page = html(&report);
        assert!(page.contains("<polyline") && !page.contains("<script") && !page.contains("src="));
    }
}

#[test]
fn refused_sessions_do_not_spoil_the_others() {
    let server = Server::start(Manners { refuse_from: Some(1), ..Manners::default() });
    let run = measure(&load(server.target(), Codec::H264, 3, 2));
    assert_eq!((run.connected(), run.rejected(), run.lost()), (1, 2, 0));
    assert!(run.broken_off.is_none() && run.total.results > 20);
    let refused = run.sessions.iter().find(|session| session.outcome != Outcome::Completed).unwrap();
    assert_eq!(refused.outcome, Outcome::Refused { code: "capacity".to_owned() });
}

#[test]
fn without_any_session_there_is_no_use_in_waiting() {
    let server = Server::start(Manners { refuse_from: Some(0), ..Manners::default() });
    let run = measure(&load(server.target(), Codec::H264, 2, 60));
    assert_eq!((run.connected(), run.rejected()), (0, 2));
    assert!(run.duration < Duration::from_secs(30));
    assert!(run.broken_off.unwrap().contains("refused with capacity"));

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = Target::new(format!("http://{nobody}/offer"), Dialect::Offer, None).unwrap();
    let run = measure(&load(target, Codec::H264, 2, 60));
    assert_eq!((run.connected(), run.failed()), (0, run.sessions.len()));
    assert!(run.broken_off.unwrap().contains(&nobody.to_string()));
}

#[test]
fn a_server_that_stops_ends_the_run_and_what_was_measured_is_kept() {
    let server = Server::start(Manners { end_at: Some(20), ..Manners::default() });
    let run = measure(&load(server.target(), Codec::H264, 2, 60));
    assert_eq!((run.connected(), run.lost()), (2, 2), "{run:?}");
    assert!(run.duration < Duration::from_secs(30));
    assert!(run.total.results >= 20 && run.broken_off.unwrap().contains("all sessions ended: "));
}

#[test]
fn an_interruption_ends_a_run() {
    let server = Server::start(Manners::default());
    let load = load(server.target(), Codec::H264, 1, 60);
    let interrupted = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut watch = |status: &saccade_load::Status| {
        if status.results > 0 {
            interrupted.store(true, Ordering::Relaxed);
        }
    };
    let run = runtime.block_on(Box::pin(run(&load, &interrupted, &mut watch)));
    assert!(run.duration < Duration::from_secs(30) && run.total.results > 0);
    assert_eq!(run.broken_off.as_deref(), Some("interrupted"));
    assert!(Usage::of(std::process::id()).is_some());
}

#[test]
fn sessions_come_and_go() {
    let server = Server::start(Manners::default());
    let mut load = load(server.target(), Codec::H264, 2, 4);
    load.lifetime = Some((Duration::from_millis(300), Duration::from_millis(600)));
    let run = measure(&load);
    assert!(run.connected() > 6 && run.lost() == 0 && run.failed() <= 2, "{run:?}");
}

#[test]
fn what_is_lost_is_sent_again_with_rtx_and_without() {
    for plain in [false, true] {
        let server = Server::start(Manners { lose_each: Some(20), plain, ..Manners::default() });
        let run = measure(&load(server.target(), Codec::H264, 1, 4));
        let total = &run.total;
        assert!(total.nacked > 3, "{plain}: {} asked for", total.nacked);
        assert!(
            total.sent > 80 && total.returned * 10 >= total.sent * 9,
            "{plain}: {} of {}",
            total.returned,
            total.sent
        );
    }
}

#[test]
fn whip_is_spoken_and_timestamps_may_begin_with_the_first_frame() {
    let server = Server::start(Manners { from_first: true, ..Manners::default() });
    let mut load = load(server.whip(), Codec::H264, 1, 2);
    load.kinds[0].options.return_mode = Some(ReturnMode::Exact);
    let run = measure(&load);
    assert_eq!((run.connected(), run.lost()), (1, 0), "{run:?}");
    assert!(run.total.results > 20 && run.total.result_latency.count() == run.total.results);
    assert_eq!(server.deleted.load(Ordering::SeqCst), 1);
}

#[test]
fn a_step_up_brings_sessions_again() {
    let server = Server::start(Manners::default());
    let mut load = load(server.target(), Codec::H264, 2, 1);
    let step = |milliseconds, sessions| Step { time: Duration::from_millis(milliseconds), sessions };
    load.steps = vec![step(1_500, 2), step(2_500, 1), step(1_500, 2)];
    let run = measure(&load);
    assert_eq!((run.sessions.len(), run.connected(), run.lost()), (3, 3, 0), "{run:?}");
}

fn capacity(manners: Manners) -> Capacity {
    let server = Server::start(manners);
    let load = load(server.target(), Codec::H264, 1, 1);
    let bounds = Bounds { most: 8, trial: Duration::from_secs(1), whole: Duration::from_secs(60) };
    let wanted = Wanted { latency_p95: 1_000.0, processed: 0.5 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(search(&load, bounds, wanted, &AtomicBool::new(false), &mut |_, _| {})))
}

#[test]
fn a_search_finds_how_many_a_server_takes() {
    // One session, two, two of four, none of three.
    let found = capacity(Manners { refuse_from: Some(5), ..Manners::default() });
    let trials: Vec<_> = found.trials.iter().map(|trial| (trial.sessions, trial.good)).collect();
    assert_eq!((found.sessions, trials), (2, vec![(1, true), (2, true), (4, false), (3, false)]));
    assert!(found.best.broken_off.is_none() && found.best.connected() == 2);
}

#[test]
fn a_server_that_is_gone_is_not_taken_for_a_full_one() {
    let found = capacity(Manners { gone_after: Some(3), ..Manners::default() });
    assert_eq!((found.sessions, found.trials.len(), found.best.connected()), (2, 2, 2));
    assert!(found.best.broken_off.is_some());

    let server = Server::start(Manners { gone_after: Some(3), ..Manners::default() });
    let mut load = load(server.target(), Codec::H264, 2, 60);
    load.lifetime = Some((Duration::from_millis(300), Duration::from_millis(600)));
    let run = measure(&load);
    assert!(run.duration < Duration::from_secs(30) && run.connected() == 3, "{run:?}");
    assert!(run.broken_off.unwrap().contains("no session connects any more"));
}

#[test]
fn a_session_whose_answer_is_of_no_use_is_ended() {
    let server = Server::start(Manners { nonsense: true, ..Manners::default() });
    let mut load = load(server.whip(), Codec::H264, 1, 60);
    load.kinds[0].options.return_mode = Some(ReturnMode::Exact);
    let run = measure(&load);
    assert_eq!((run.connected(), run.failed()), (0, 1), "{run:?}");
    assert!(run.broken_off.unwrap().contains("the answer is not SDP"));
    assert_eq!(server.deleted.load(Ordering::SeqCst), 1);
}
