//! Files in the place of peers, paced as cameras are, and what comes back to them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use saccade::clock;
use saccade::egress::packetize::Packetizer;
use saccade::media::{Codec, MediaTime, RtpPacket};
use saccade::rtc::{
    Accepted, Answer, Candidate, Channel, EVENT_QUEUE, Error, Event, OutgoingPacket, PACKET_QUEUE, Peer, PeerConfig,
    Stats, Transport,
};
use saccade_load::Latencies;
use saccade_signaling::SessionResult;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::clips::Clip;

/// Pictures a second of each session.
const FPS: u32 = 30;
/// Share of the frames below which it is said first that not all were answered.
const ANSWERED: f64 = 0.95;
/// Milliseconds that only frames without a result take.
const NEVER: f64 = 119_000.0;

/// Peers that are files.
pub struct Files {
    clip: Arc<Clip>,
    codec: Codec,
    count: usize,
    next: AtomicUsize,
    start: Instant,
    /// Whether what is sent counts.
    pub measuring: Arc<AtomicBool>,
    tallies: Mutex<Vec<Arc<Tally>>>,
    /// Sent each time that a result came.
    news: Arc<watch::Sender<()>>,
}

/// What came of one session.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    keyframes_asked: AtomicU64,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// All of its results, and those that count.
    ever: u64,
    results: u64,
    met: u64,
    boxes: u64,
    batches: u64,
    /// From decoding, its queue included, to the result.
    worked: Latencies,
    /// From when the last packet was due to the data channel.
    whole: Latencies,
    /// How late packets were handed over.
    fed_late: Latencies,
    /// When the last packet of a picture was due, and whether its result counts, by its RTP timestamp.
    handed: HashMap<u32, (Instant, bool)>,
    /// Where the time went, in milliseconds: decode, queue, preprocess, inference, postprocess.
    stages: [f64; 5],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// So many that send this clip as this codec.
    pub fn new((clip, codec): (&Clip, Codec), count: usize) -> Self {
        Self {
            clip: Arc::new(clip.clone()),
            codec,
            count,
            next: AtomicUsize::new(0),
            start: clock::now(),
            measuring: Arc::default(),
            tallies: Mutex::default(),
            news: Arc::new(watch::Sender::new(())),
        }
    }

    /// Sessions that have had so many results.
    pub fn settled(&self, results: u64) -> usize {
        lock(&self.tallies).iter().filter(|tally| lock(&tally.heard).ever >= results).count()
    }

    /// Whether all sessions had so many results in time.
    pub async fn wait_until_settled(&self, limit: Duration, results: u64) -> bool {
        self.wait(limit, || self.settled(results) >= self.count).await
    }

    /// Whether so many results that count came in time, of all sessions together.
    pub async fn wait_for_results(&self, limit: Duration, results: u64) -> bool {
        let counted = || lock(&self.tallies).iter().map(|tally| lock(&tally.heard).results).sum::<u64>();
        self.wait(limit, || counted() >= results).await
    }

    async fn wait(&self, limit: Duration, is_done: impl Fn() -> bool) -> bool {
        let mut news = self.news.subscribe();
        tokio::time::timeout(limit, news.wait_for(|()| is_done())).await.is_ok()
    }

    /// What came of all that was sent while it counted.
    pub fn summary(&self, took: Duration, usage: &str) -> String {
        let (mut all, mut sent, mut asked) = (Heard::default(), 0, 0);
        for tally in &*lock(&self.tallies) {
            sent += tally.sent.load(Ordering::Relaxed);
            asked += tally.keyframes_asked.load(Ordering::Relaxed);
            let heard = lock(&tally.heard);
            all.results += heard.results;
            all.met += heard.met;
            all.boxes += heard.boxes;
            all.batches += heard.batches;
            all.worked.merge(&heard.worked);
            all.whole.merge(&heard.whole);
            all.fed_late.merge(&heard.fed_late);
            all.stages.iter_mut().zip(heard.stages).for_each(|(sum, stage)| *sum += stage);
        }
        // A frame without a result is one whose result takes for ever.
        for _ in all.results..sent {
            all.worked.record(Duration::MAX);
            all.whole.record(Duration::MAX);
        }
        let each = |sum: f64| sum / (all.results.max(1)) as f64;
        let of_sent = |frames: u64| frames as f64 / sent.max(1) as f64;
        let time = |ms: f64| if ms < NEVER { format!("{ms:.1} ms") } else { "never".to_owned() };
        let times = |times: &Latencies| {
            let three = times.percentiles().map(|it| [it.p50, it.p95, it.p99].map(time).join(" / "));
            three.unwrap_or_else(|| "none".to_owned())
        };
        let fed_late = all.fed_late.percentiles().map_or(0.0, |it| it.p95);
        let few = if of_sent(all.results) < ANSWERED { "NOT ALL ANSWERED: " } else { "" };
        let [decode, queue, preprocess, inference, postprocess] = all.stages.map(each);
        format!(
            "{few}{:.1} of {:.1} frames/s with results ({:.1} %), {:.1} % of those sent in time; of those sent, decode to \
             result p50 / p95 / p99 {}, last packet to channel {}, fed {fed_late:.1} ms late at p95; means of results: decode {decode:.1}, queue {queue:.1}, preprocess {preprocess:.1}, inference {inference:.1}, \
             postprocess {postprocess:.1} ms, batch {:.1}, boxes {:.1}; keyframes asked for {asked}; {usage}",
            all.results as f64 / took.as_secs_f64(),
            sent as f64 / took.as_secs_f64(),
            100.0 * of_sent(all.results),
            100.0 * of_sent(all.met),
            times(&all.worked),
            times(&all.whole),
            each(all.batches as f64),
            each(all.boxes as f64),
        )
    }
}

#[async_trait]
impl Transport for Files {
    async fn accept(&self, _: &str, _: PeerConfig) -> Result<Accepted, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (event_queue, events) = mpsc::channel(EVENT_QUEUE);
        let (packet_queue, packets) = mpsc::channel(PACKET_QUEUE);
        for event in [Event::IceConnected, Event::Connected, Event::ChannelOpen(Channel::Results)] {
            let _ = event_queue.try_send(event);
        }
        let tally = Arc::new(Tally::default());
        lock(&self.tallies).push(Arc::clone(&tally));
        let wanted = Arc::new(AtomicBool::new(false));
        // Cameras are not in step: each begins at another place of the file, and of an interval.
        let interval = Duration::from_secs(1) / FPS;
        let start = self.start + interval.mul_f64(number as f64 / self.count as f64);
        let feed = Feed {
            clip: Arc::clone(&self.clip),
            codec: self.codec,
            first: number * self.clip.units.len() / self.count,
            start,
            packets: packet_queue,
            wanted: Arc::clone(&wanted),
            measuring: Arc::clone(&self.measuring),
            tally: Arc::clone(&tally),
        };
        let feeding = tokio::spawn(feed.run()).abort_handle();
        let news = Arc::clone(&self.news);
        let peer = File { feeding, wanted, tally, news, _events: event_queue };
        let (codec, mid) = (self.codec, "0".to_owned());
        let answer = Answer { sdp: String::new(), codec, returns_video: false, data_channels: true, mid };
        Ok(Accepted { peer: Arc::new(peer), answer, events, packets })
    }
}

/// Sends a file as a camera would, again and again.
struct Feed {
    clip: Arc<Clip>,
    codec: Codec,
    first: usize,
    start: Instant,
    packets: mpsc::Sender<RtpPacket>,
    wanted: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

impl Feed {
    async fn run(self) {
        let mut packetizer = Packetizer::new(self.codec, Packetizer::MAX_PAYLOAD);
        let mut at = self.keyframe_from(self.first);
        let mut sequence = 0u16;
        // What would have been due before the session was there is not sent in a heap.
        let passed = clock::now().saturating_duration_since(self.start);
        let skipped = (passed.as_secs_f64() * f64::from(FPS)).ceil() as u32;
        for number in skipped.. {
            let due = self.start + Duration::from_secs(1) * number / FPS;
            tokio::time::sleep_until(due.into()).await;
            if self.wanted.swap(false, Ordering::Relaxed) {
                at = self.keyframe_from(at);
            }
            let unit = &self.clip.units[at];
            at = if at + 1 == self.clip.units.len() { self.keyframe_from(0) } else { at + 1 };
            let time = MediaTime(number.wrapping_mul(MediaTime::CLOCK_RATE / FPS));
            let payloads: Vec<_> = packetizer.packetize(&unit.data, unit.keyframe).collect();
            // From when it was due: that the feed is late makes no frame younger.
            let (late, counts) = (clock::now().saturating_duration_since(due), self.measuring.load(Ordering::Relaxed));
            lock(&self.tally.heard).hand(time, due, counts, late);
            if counts {
                self.tally.sent.fetch_add(1, Ordering::Relaxed);
            }
            for payload in payloads {
                let packet = RtpPacket {
                    sequence,
                    time,
                    marker: payload.marker,
                    rotation: None,
                    color: None,
                    payload: payload.data,
                    arrival: due,
                };
                sequence = sequence.wrapping_add(1);
                if self.packets.send(packet).await.is_err() {
                    return;
                }
            }
        }
    }

    fn keyframe_from(&self, at: usize) -> usize {
        (at..self.clip.units.len()).find(|at| self.clip.units[*at].keyframe).unwrap_or(0)
    }
}

impl Heard {
    fn hand(&mut self, time: MediaTime, due: Instant, counts: bool, late: Duration) {
        // Those without a result are forgotten together.
        if self.handed.len() > 1_000 {
            self.handed.clear();
        }
        self.handed.insert(time.0, (due, counts));
        if counts {
            self.fed_late.record(late);
        }
    }

    fn take(&mut self, result: &SessionResult, now: Instant) {
        self.ever += 1;
        let handed = self.handed.remove(&result.rtp_timestamp_in).filter(|(_, counts)| *counts);
        let Some((due, _)) = handed else { return };
        let timing = result.timing_ms;
        let worked = Duration::from_secs_f64((timing.total - timing.reorder).max(0.0) / 1e3);
        self.results += 1;
        self.met += u64::from(result.met);
        self.boxes += result.detections.len() as u64;
        self.batches += u64::from(result.batch_size);
        self.worked.record(worked);
        self.whole.record(now.saturating_duration_since(due));
        let stages = [timing.decode, timing.queue, timing.preprocess, timing.inference, timing.postprocess];
        self.stages.iter_mut().zip(stages).for_each(|(sum, stage)| *sum += stage);
    }
}

/// A file in a peer's place: it takes results and nothing else.
struct File {
    feeding: AbortHandle,
    wanted: Arc<AtomicBool>,
    tally: Arc<Tally>,
    news: Arc<watch::Sender<()>>,
    /// Without it the session would take its peer for gone.
    _events: mpsc::Sender<Event>,
}

#[async_trait]
impl Peer for File {
    async fn renegotiate(&self, _: &str) -> Result<Answer, Error> {
        Err(Error::NotNegotiated)
    }

    async fn complete_answer(&self) -> Result<String, Error> {
        Err(Error::NotNegotiated)
    }

    async fn add_candidate(&self, _: Option<Candidate>) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn send_packet(&self, _: OutgoingPacket) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn request_keyframe(&self) -> Result<(), Error> {
        self.wanted.store(true, Ordering::Relaxed);
        self.tally.keyframes_asked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn send_text(&self, channel: Channel, text: &str) -> Result<(), Error> {
        let now = clock::now();
        if channel == Channel::Results
            && let Ok(result) = serde_json::from_str(text)
        {
            lock(&self.tally.heard).take(&result, now);
            self.news.send_replace(());
        }
        Ok(())
    }

    async fn open_channel(&self, _: Channel) -> Result<(), Error> {
        Ok(())
    }

    async fn remote_closed(&self) -> bool {
        false
    }

    fn bandwidth(&self) -> Option<u32> {
        None
    }

    fn has_room(&self, _: Instant) -> bool {
        true
    }

    async fn stats(&self, _: Instant) -> Option<Stats> {
        None
    }

    fn packets_dropped(&self) -> u64 {
        0
    }

    async fn close(&self) {
        self.feeding.abort();
    }
}
