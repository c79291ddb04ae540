//! One session: connects, publishes the clip in real time, and takes what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use saccade_signaling::OptionsPatch;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::clip::{Clip, Codec, Reader};
use crate::measure::{Found, LONGEST, Outcome, STALL, Session, Timeline};
use crate::peer::{Happening, Peer, PeerError};
use crate::signal::{Link, News, SignalError, Target};
use crate::truth::{self, Detection};

/// Longest time from the answer to a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest wait for what is on its way when the last frame has left.
const LINGER: Duration = Duration::from_secs(1);
/// Longest time for a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Results and returned frames that wait for each other.
const UNJOINED: usize = 256;
/// Units that are left out before a keyframe is asked for once more.
const ASK_AGAIN: u32 = 30;
/// Access units that wait for being read back; above, they are not read.
const UNREAD: usize = 64;

/// What a session does.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) target: Arc<Target>,
    pub(crate) clip: Arc<Clip>,
    /// Names of the classes in the clip's truth, by index.
    pub(crate) classes: Arc<[String]>,
    pub(crate) options: OptionsPatch,
    /// Whether video comes back.
    pub(crate) returned: bool,
    /// Whether returned video is decoded and its numbers read.
    pub(crate) probe: bool,
    /// Share of a frame's time by which the first frame is put off, 0..1, so that sessions don't send in step.
    pub(crate) phase: f64,
    /// RTP timestamp of the first frame.
    pub(crate) first_time: u32,
}

/// A pause of more frames than this may be a stall.
const STALL_FRAMES: u32 = 3;

/// Why a session came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    Signal(SignalError),
    Peer(PeerError),
    NotConnected,
    Lost(String),
}

impl From<SignalError> for Failure {
    fn from(error: SignalError) -> Self {
        Self::Signal(error)
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

/// Runs a session until `stop` says so or it fails; `live` hears when it is connected.
pub(crate) async fn run(
    assignment: Assignment,
    timeline: Arc<Timeline>,
    mut stop: watch::Receiver<bool>,
    live: impl FnOnce() + Send,
) -> (Session, Option<SignalError>) {
    let began = Instant::now();
    let (peer, link) = match connect(&assignment, &mut stop).await {
        Ok(connected) => connected,
        Err(Failure::Signal(SignalError::Refused { code, message })) => {
            let refusal = SignalError::Refused { code: code.clone(), message };
            return (Session::new(Outcome::Refused { code }), Some(refusal));
        }
        Err(Failure::Signal(error)) => {
            return (Session::new(Outcome::Failed { reason: error.to_string() }), Some(error));
        }
        Err(Failure::Peer(error)) => return (Session::new(Outcome::Failed { reason: error.to_string() }), None),
        Err(Failure::NotConnected | Failure::Lost(_)) => {
            return (Session::new(Outcome::Failed { reason: "no connection".to_owned() }), None);
        }
    };
    live();
    let mut running = Running::new(&assignment, timeline, began, peer);
    let ended = running.publish(link, stop).await;
    (running.finish(ended), None)
}

/// A connected peer, unless `stop` comes first. What the server made for a session that comes to nothing is ended.
async fn connect(assignment: &Assignment, stop: &mut watch::Receiver<bool>) -> Result<(Peer, Link), Failure> {
    let (mut peer, offer) =
        Peer::offer(assignment.target.address, assignment.clip.encoding.codec, assignment.returned)?;
    let answer = assignment.target.negotiate(offer, &assignment.options).await?;
    let mut link = answer.link;
    let connected = tokio::select! {
        connected = timeout(CONNECT, establish(&mut peer, &mut link, &answer.sdp)) => {
            connected.unwrap_or(Err(Failure::NotConnected))
        }
        _ = stop.wait_for(|stop| *stop) => Err(Failure::NotConnected),
    };
    match connected {
        Ok(()) => Ok((peer, link)),
        Err(failure) => {
            let _ = timeout(GOODBYE, link.bye()).await;
            Err(failure)
        }
    }
}

async fn establish(peer: &mut Peer, link: &mut Link, answer: &str) -> Result<(), Failure> {
    peer.answer(answer)?;
    loop {
        tokio::select! {
            happening = peer.next() => match happening? {
                Happening::Connected => return Ok(()),
                Happening::Lost => return Err(Failure::NotConnected),
                _ => {}
            },
            news = link.next() => match news {
                News::Candidate(candidate) => peer.add_candidate(&candidate)?,
                News::Closed(message) => {
                    return Err(Failure::Signal(SignalError::Refused { code: "closed".to_owned(), message }));
                }
            },
        }
    }
}

/// A result of ours or of another server, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct AnyResult {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(alias = "rtp_timestamp")]
    rtp_timestamp_in: Option<u64>,
    rtp_timestamp_out: Option<u32>,
    #[serde(default)]
    detections: Vec<AnyDetection>,
    #[serde(alias = "timing")]
    timing_ms: Option<AnyTiming>,
    met: Option<bool>,
    /// 0: no model ran.
    batch_size: Option<u32>,
    #[serde(default)]
    degraded: Vec<String>,
    dropped: Option<AnyDropped>,
}

#[derive(Debug, Deserialize)]
struct AnyDetection {
    #[serde(rename = "box")]
    bbox: [f32; 4],
    class: Option<String>,
    class_id: Option<u32>,
    #[serde(default)]
    score: f32,
}

#[derive(Debug, Deserialize)]
struct AnyTiming {
    #[serde(alias = "total_ms")]
    total: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct AnyDropped {
    #[serde(default)]
    superseded: u64,
    #[serde(default)]
    late: u64,
    #[serde(default)]
    skipped: u64,
}

/// A frame that was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    time: u32,
    /// Its number in the clip.
    number: usize,
    at: Instant,
}

/// A connected session.
struct Running<'a> {
    assignment: &'a Assignment,
    timeline: Arc<Timeline>,
    began: Instant,
    peer: Peer,
    seen: Session,
    /// The frames sent in the last two minutes, the newest last: what comes later than that is not told apart.
    sent: VecDeque<Sent>,
    /// Frames sent before them.
    forgotten: u32,
    /// The last frame whose picture came back, counted from the first one sent: the next one is newer.
    last_seen: Option<u32>,
    /// Shortest pause that is a stall.
    stall: Duration,
    /// Number of the next frame in the clip.
    position: usize,
    /// RTP timestamps of returned frames that no result has named yet, and of results whose frame has not come.
    returned: VecDeque<u32>,
    promised: VecDeque<u32>,
    last_result: Instant,
    /// Whether the server's timestamps are relative to the first frame's.
    counts_from_first: bool,
    probe: Option<Probe>,
}

impl<'a> Running<'a> {
    fn new(assignment: &'a Assignment, timeline: Arc<Timeline>, began: Instant, peer: Peer) -> Self {
        Self {
            assignment,
            timeline,
            began,
            peer,
            seen: Session::new(Outcome::Completed),
            sent: VecDeque::new(),
            forgotten: 0,
            last_seen: None,
            stall: STALL.max(Duration::from_secs(1) * STALL_FRAMES / assignment.clip.encoding.fps.max(1)),
            position: 0,
            returned: VecDeque::new(),
            promised: VecDeque::new(),
            last_result: Instant::now(),
            counts_from_first: false,
            probe: assignment.probe.then(|| Probe::start(assignment.clip.encoding.codec)).flatten(),
        }
    }

    /// Sends frames until told to stop, and waits for what is on its way then.
    async fn publish(&mut self, mut link: Link, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let fps = self.assignment.clip.encoding.fps;
        let begin = Instant::now() + Duration::from_secs_f64(self.assignment.phase / f64::from(fps));
        let (mut count, mut linger, mut goodbye) = (0_u32, None, false);
        self.last_result = begin;
        let ended = loop {
            let next = linger.unwrap_or_else(|| begin + Duration::from_secs(1) * count / fps);
            tokio::select! {
                () = sleep_until(next.into()) => {
                    if linger.is_some() {
                        break Ok(());
                    }
                    if let Err(error) = self.send(count, next) {
                        break Err(error.into());
                    }
                    count += 1;
                }
                happening = self.peer.next() => match happening {
                    Ok(Happening::Lost) => break Err(Failure::Lost("the connection broke".to_owned())),
                    Ok(happening) => self.take(happening),
                    Err(error) => break Err(error.into()),
                },
                Some(read) = read_back(&mut self.probe) => self.take_number(read),
                news = link.next(), if !goodbye => match news {
                    News::Candidate(candidate) => {
                        if let Err(error) = self.peer.add_candidate(&candidate) {
                            break Err(error.into());
                        }
                    }
                    News::Closed(reason) => break Err(Failure::Lost(reason)),
                },
                _ = stop.wait_for(|stop| *stop), if linger.is_none() => {
                    linger = Some(Instant::now() + LINGER);
                    goodbye = true;
                }
            }
            let dropped = self.seen.superseded + self.seen.late + self.seen.skipped;
            let answered = self.seen.results + dropped;
            if linger.is_some() && answered >= self.seen.sent {
                break Ok(());
            }
        };
        let until = linger.map_or_else(Instant::now, |linger| linger - LINGER);
        self.seen.stalls += u64::from(until.saturating_duration_since(self.last_result) > self.stall);
        let _ = timeout(GOODBYE, link.bye()).await;
        ended
    }

    fn finish(mut self, ended: Result<(), Failure>) -> Session {
        self.seen.unsent = self.peer.unsent;
        self.seen.nacked = self.peer.nacked;
        self.seen.outcome = match ended {
            Ok(()) => Outcome::Completed,
            Err(Failure::Lost(reason)) => Outcome::Lost { reason },
            Err(Failure::Peer(error)) => Outcome::Lost { reason: error.to_string() },
            Err(Failure::Signal(error)) => Outcome::Lost { reason: error.to_string() },
            Err(Failure::NotConnected) => Outcome::Lost { reason: "no connection".to_owned() },
        };
        self.peer.close();
        self.seen
    }

    fn send(&mut self, count: u32, due: Instant) -> Result<(), PeerError> {
        let clip = &self.assignment.clip;
        let ticks = u64::from(count) * 90_000 / u64::from(clip.encoding.fps);
        let time = u64::from(self.assignment.first_time) + ticks;
        self.seen.pacing.record(due.elapsed());
        let at = self.peer.send(time, &clip.frames[self.position].data)?;
        if self.sent.front().is_some_and(|first| at.duration_since(first.at) > LONGEST) {
            self.sent.pop_front();
            self.forgotten += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "what goes into the packet's 32 bits")]
        self.sent.push_back(Sent { time: time as u32, number: self.position, at });
        self.position = (self.position + 1) % clip.frames.len();
        self.seen.sent += 1;
        self.timeline.sent();
        Ok(())
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::KeyframeWanted => {
                self.seen.keyframe_requests += 1;
                self.position = self.assignment.clip.keyframe_from(self.position);
            }
            Happening::Result(text) => match serde_json::from_slice::<AnyResult>(&text) {
                Ok(result) if result.kind.as_deref().is_none_or(|kind| kind == "result") => self.take_result(&result),
                _ => self.seen.strange += 1,
            },
            Happening::Returned { time, at, whole, unit } => {
                self.seen.returned += 1;
                self.timeline.returned(unit.len());
                if self.seen.results == 0 {
                    if self.seen.connect.is_some() {
                        self.seen.stalls += u64::from(at.saturating_duration_since(self.last_result) > self.stall);
                    }
                    self.seen.connect.get_or_insert_with(|| self.began.elapsed());
                    self.last_result = at;
                }
                join(time, &mut self.promised, &mut self.returned, &mut self.seen.joined);
                if self.probe.as_mut().is_some_and(|probe| !probe.read(at, whole, unit)) {
                    self.peer.request_keyframe();
                }
            }
            Happening::Connected | Happening::Lost => {}
        }
    }

    fn take_result(&mut self, result: &AnyResult) {
        let now = Instant::now();
        if let Some(dropped) = &result.dropped {
            self.seen.superseded = self.seen.superseded.max(dropped.superseded);
            self.seen.late = self.seen.late.max(dropped.late);
            self.seen.skipped = self.seen.skipped.max(dropped.skipped);
        }
        if let Some(time) = result.rtp_timestamp_out {
            join(time, &mut self.returned, &mut self.promised, &mut self.seen.joined);
        }
        if !result.degraded.is_empty() {
            self.seen.degraded += 1;
            self.timeline.degraded();
        }
        if result.batch_size == Some(0) {
            self.take_carried(result);
            return;
        }
        if self.seen.results == 0 {
            self.seen.connect = Some(self.began.elapsed());
        } else if now.duration_since(self.last_result) > self.stall {
            self.seen.stalls += 1;
        }
        self.last_result = now;
        self.seen.results += 1;
        self.seen.budget_missed += u64::from(result.met == Some(false));
        if let Some(total) = result.timing_ms.as_ref().and_then(|timing| timing.total) {
            self.seen.server_latency.record(Duration::try_from_secs_f64(total / 1e3).unwrap_or_default());
        }
        let sent = self.frame_of_result(result);
        let latency = sent.map(|sent| now.duration_since(sent.at));
        self.timeline.result(latency);
        match latency {
            Some(latency) => self.seen.result_latency.record(latency),
            None => self.seen.strange += 1,
        }
        let found = self.compare(sent, result);
        self.seen.found.add(found);
    }

    /// A result of a frame that the model did not see.
    fn take_carried(&mut self, result: &AnyResult) {
        self.seen.carried += 1;
        self.timeline.carried();
        let sent = self.frame_of_result(result);
        let found = self.compare(sent, result);
        self.seen.carried_found.add(found);
    }

    fn frame_of_result(&mut self, result: &AnyResult) -> Option<Sent> {
        #[expect(clippy::cast_possible_truncation, reason = "some servers count on beyond the packet's 32 bits")]
        let time = result.rtp_timestamp_in.map(|time| time as u32);
        time.and_then(|time| self.frame_of(time))
    }

    /// Detections against the truth of their frame, where it is known.
    fn compare(&self, sent: Option<Sent>, result: &AnyResult) -> Found {
        let Some(truth) = sent.and_then(|sent| self.assignment.clip.truth.get(sent.number)) else {
            return Found::default();
        };
        let classes = &self.assignment.classes;
        let detections = result.detections.iter().map(|found| Detection {
            bbox: found.bbox,
            class_id: match &found.class {
                Some(name) => classes.iter().position(|class| class == name).and_then(|at| u32::try_from(at).ok()),
                None => found.class_id,
            },
            score: found.score,
        });
        truth::compare(detections.collect(), truth)
    }

    /// The frame that a result means. Some servers, aiortc's among them, count timestamps from the first frame on.
    fn frame_of(&mut self, time: u32) -> Option<Sent> {
        let first = self.assignment.first_time;
        let found = self.sent_at(time).filter(|_| !self.counts_from_first);
        found.or_else(|| {
            let found = self.sent_at(time.wrapping_add(first));
            self.counts_from_first |= found.is_some();
            found
        })
    }

    /// The frame with this RTP timestamp.
    fn sent_at(&self, time: u32) -> Option<Sent> {
        let ticks = u64::from(time.wrapping_sub(self.assignment.first_time));
        // Timestamps are rounded down.
        let count = (ticks * u64::from(self.assignment.clip.encoding.fps)).div_ceil(90_000);
        let at = usize::try_from(count).ok()?.checked_sub(self.forgotten as usize)?;
        self.sent.get(at).filter(|sent| sent.time == time).copied()
    }

    fn take_number(&mut self, (at, number): (Instant, Option<u32>)) {
        // Pictures come back in order; the number alone comes again each time the clip begins anew.
        let from = self.last_seen.map_or(0, |last| (last + 1).saturating_sub(self.forgotten)) as usize;
        let number = number.and_then(|number| usize::try_from(number).ok());
        let found = number.and_then(|number| self.sent.iter().skip(from).position(|sent| sent.number == number));
        match found.and_then(|found| Some((from + found, self.sent.get(from + found)?))) {
            Some((index, sent)) if sent.at <= at => {
                self.last_seen = u32::try_from(index).ok().map(|index| index + self.forgotten);
                self.seen.video_latency.record(at.duration_since(sent.at));
                self.timeline.shown(at.duration_since(sent.at));
            }
            _ => self.seen.unreadable += 1,
        }
    }
}

/// Takes a timestamp out of those that wait on the other side, or puts it among those that wait on this one.
fn join(time: u32, waiting: &mut VecDeque<u32>, other: &mut VecDeque<u32>, joined: &mut u64) {
    if let Some(at) = waiting.iter().position(|&waiting| waiting == time) {
        waiting.remove(at);
        *joined += 1;
        return;
    }
    if other.len() == UNJOINED {
        other.pop_front();
    }
    other.push_back(time);
}

/// A thread that decodes returned video and reads its numbers.
struct Probe {
    codec: Codec,
    units: SyncSender<(Instant, Arc<[u8]>)>,
    numbers: mpsc::Receiver<(Instant, Option<u32>)>,
    /// Units left out since something was missing: nothing can be decoded before the next keyframe.
    left_out: u32,
}

impl Probe {
    fn start(codec: Codec) -> Option<Self> {
        let mut reader = Reader::new(codec).ok()?;
        let (units, work) = sync_channel::<(Instant, Arc<[u8]>)>(UNREAD);
        let (done, numbers) = mpsc::channel(UNREAD);
        thread::spawn(move || {
            for (at, unit) in work {
                for number in reader.take(&unit) {
                    if done.blocking_send((at, number)).is_err() {
                        return;
                    }
                }
            }
        });
        Some(Self { codec, units, numbers, left_out: 0 })
    }

    /// Takes a unit; `whole` says that none is missing before it. Without room, and after a loss, units are left out up
    /// to the next keyframe. Returns false when one should be asked for.
    fn read(&mut self, at: Instant, whole: bool, unit: Arc<[u8]>) -> bool {
        let intact = (whole && self.left_out == 0) || self.codec.is_keyframe(&unit);
        if intact && self.units.try_send((at, unit)).is_ok() {
            self.left_out = 0;
            return true;
        }
        self.left_out += 1;
        self.left_out % ASK_AGAIN != 1
    }
}

async fn read_back(probe: &mut Option<Probe>) -> Option<(Instant, Option<u32>)> {
    match probe {
        Some(probe) => probe.numbers.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_ours_and_of_others_are_understood() {
        let ours = r#"{"type":"result","rtp_timestamp_in":7,"rtp_timestamp_out":null,"detections":[{"box":[1,2,3,4],
            "class_id":1,"class":"helmet","score":0.9,"object_id":null}],"timing_ms":{"total":11.5},"met":true,
            "dropped":{"superseded":4,"late":1},"unknown":[]}"#;
        let ours: AnyResult = serde_json::from_str(ours).unwrap();
        assert_eq!((ours.rtp_timestamp_in, ours.rtp_timestamp_out, ours.met), (Some(7), None, Some(true)));
        assert_eq!((ours.detections[0].class.as_deref(), ours.dropped.unwrap().superseded), (Some("helmet"), 4));
        let other = r#"{"rtp_timestamp":8589934599,"timing":{"total_ms":5},"detections":[{"box":[1,2,3,4],"score":0.5,
            "class_id":0}]}"#;
        let other: AnyResult = serde_json::from_str(other).unwrap();
        assert_eq!((other.rtp_timestamp_in, other.timing_ms.unwrap().total), (Some(8_589_934_599), Some(5.0)));
    }

    #[test]
    fn results_and_frames_join_in_either_order() {
        let (mut returned, mut promised, mut joined) = (VecDeque::new(), VecDeque::new(), 0);
        join(1, &mut promised, &mut returned, &mut joined);
        join(1, &mut returned, &mut promised, &mut joined);
        join(2, &mut returned, &mut promised, &mut joined);
        join(2, &mut promised, &mut returned, &mut joined);
        join(3, &mut promised, &mut returned, &mut joined);
        assert_eq!((joined, returned.len(), promised.len()), (2, 1, 0));
        for time in 10..10_000 {
            join(time, &mut promised, &mut returned, &mut joined);
        }
        assert_eq!(returned.len(), UNJOINED);
    }
}
