use super::window::{Device, Memory, Model, Packets, Path, Room, Window, Work, sane};
use super::{Code, Finding, Severity};

/// Seconds of a window that say something: in less, a single long run looks like a busy instance.
const SHORTEST: f64 = 1.5;
/// Share of frames and pictures that may be lost to load, or late, before anything is said.
const LOST: f64 = 0.02;
const LATE: f64 = 0.05;
/// The same, from which on it is critical.
const LOST_CRITICALLY: f64 = 0.3;
/// Share of its threads or instances that a stage keeps busy, from which on it has no more to give.
const SATURATED: f64 = 0.8;
/// Share of the processors that is busy, from which on stages take them from each other.
const FULL: f64 = 0.9;
/// Of what stages take of full processors, the share from which on a stage is one that limits.
const MAJOR: f64 = 0.4;
/// Of all processors, the share that a stage has to take for that.
const SUBSTANTIAL: f64 = 0.15;
/// Frames, pictures or packets that a window needs for shares of them to say something.
const ENOUGH: f64 = 30.0;
/// Share of packets that is lost, from which on video suffers, and from which on it is seldom whole.
const LOSS: f64 = 0.01;
const LOSS_CRITICAL: f64 = 0.05;
/// Share of frames that the path has no room for, likewise.
const CONGESTED: f64 = 0.05;
const CONGESTED_CRITICAL: f64 = 0.3;
/// Mean seconds for which frames wait for a model or for those they are run with, from which on it matters.
const WAIT: f64 = 0.005;
/// Frames in a run, as a mean, from which on they have company.
const COMPANY: f64 = 1.5;
/// Frames that are of no use after one with gaps: two seconds, within which a keyframe comes that was asked for.
const AFTER_A_GAP: f64 = 60.0;
/// Of what is lost, the share from which on a cause within this machine is worth a setting.
const OURS: f64 = 0.1;
/// Share of requests that a useful cache answers at the least, and requests from which on it is judged.
const USEFUL: f64 = 0.05;
const ASKED: f64 = 50.0;
/// Share of the time in which a GPU that is idle has something to do at most.
const IDLE: f64 = 0.3;
/// How many times as much something is at most, so that numbers stay finite.
const MOST: f64 = 1e9;
/// Shares of memory, where the server does not say what it makes of them by bounds of its own.
const MEMORY: (f64, f64) = (0.8, 0.95);

/// What limits a server in which this happened: the most severe first, of like severity what is nearest its limit. None
/// where nothing does, and where the window says too little.
#[must_use]
pub fn findings(window: &Window) -> Vec<Finding> {
    let seen = Seen::new(window);
    let mut found: Vec<(f64, Finding)> =
        window.memory.iter().filter_map(|one| memory(one, window.refused_for_memory)).collect();
    if sane(window.seconds) >= SHORTEST {
        let rules = [inference, decode, encode, network, gpu_idle, batch_wait, cache].into_iter();
        found.extend(rules.filter_map(|rule| rule(&seen)));
    }
    found.sort_by(|(a_weight, a), (b_weight, b)| {
        let by_severity = b.severity.cmp(&a.severity);
        by_severity.then(b_weight.total_cmp(a_weight)).then(a.code.cmp(&b.code))
    });
    found.into_iter().map(|(_, finding)| finding).collect()
}

/// A finding with what orders it among those of the same severity: how near its limit that is, about 0 to 1.
type Weighed = Option<(f64, Finding)>;

/// A window with what several rules look at, all of it finite and not below zero.
struct Seen<'a> {
    window: &'a Window,
    /// Frames and pictures that came.
    offered: f64,
    /// Share of them that was given up because there was too much to do.
    lost: f64,
    /// Share that was late.
    late: f64,
    /// Processors that stages keep busy; where the server does not tell, threads that they keep busy.
    decode: f64,
    inference: f64,
    encode: f64,
    /// Shares of threads and instances that are at work.
    codecs_busy: f64,
    instances_busy: f64,
    /// All batches of all models.
    batches: Work,
    /// Seconds between two frames of a session, as a mean, where there are any.
    interval: Option<f64>,
    /// The model whose instances are at work most.
    busiest: Option<&'a Model>,
    is_full: bool,
}

impl<'a> Seen<'a> {
    fn new(window: &'a Window) -> Self {
        let Window { frames, stills, .. } = window;
        let offered = sane(frames.offered) + sane(stills.received);
        let lost = sane(frames.undecoded) + sane(frames.unseen) + sane(frames.unreturned) + sane(stills.refused);
        // Those that are refused were received, too.
        let lost = share(lost, offered);
        let late = share(sane(frames.late), sane(frames.offered));
        let rate = |work: Work| share_of(sane(work.seconds), sane(window.seconds));
        let total = |of: fn(&Work) -> f64| window.models.iter().map(|model| sane(of(&model.work))).sum();
        let batches = Work { seconds: total(|work| work.seconds), count: total(|work| work.count) };
        let (decode, inference, encode) = (rate(window.decode), rate(batches), rate(window.encode));
        let is_full = window.room.busy.is_some_and(|busy| busy >= FULL);
        // Threads that wait for a processor are no more at work than it lets them.
        let at_work = |busy: f64, takes: f64, used: Option<f64>| match used {
            Some(used) if is_full => busy * share(sane(used), takes),
            _ => busy,
        };
        let Room { codec_threads, codecs_use, models_use, stills_use, .. } = window.room;
        let codecs = decode + encode;
        let of_codecs = |takes: f64| codecs_use.map_or(takes, |used| sane(used) * share_of(takes, codecs));
        let stills_decode = share_of(sane(stills.decode_seconds), sane(window.seconds));
        let busy = |model: &Model| share_of(rate(model.work), sane(model.instances.unwrap_or_default()));
        let busiest = window.models.iter().max_by(|a, b| busy(a).total_cmp(&busy(b)));
        let of = |used: f64, all: Option<f64>| all.map_or(0.0, |all| share_of(used, sane(all)));
        Self {
            window,
            offered,
            lost,
            late,
            decode: of_codecs(decode) + stills_use.map_or(stills_decode, sane),
            inference: models_use.map_or(inference, sane),
            encode: of_codecs(encode),
            // Pictures are decoded on threads of their own.
            codecs_busy: at_work(of(codecs, codec_threads), codecs, codecs_use),
            instances_busy: at_work(busiest.map_or(0.0, busy), inference, models_use),
            batches,
            interval: Some(share_of(sane(window.sessions) * sane(window.seconds), sane(frames.offered)))
                .filter(|interval| *interval > 0.0),
            busiest,
            is_full,
        }
    }

    /// How much of the time between two frames of a session its stage takes for one, where that is all of it and frames are
    /// given up for it: a session's frames go through a stage one after the other, so that no thread beside helps.
    fn serial(&self, seconds: f64, dropped: f64) -> Option<f64> {
        let interval = self.interval.filter(|_| !self.is_full && sane(self.window.frames.offered) >= ENOUGH)?;
        let takes = share_of(seconds, interval);
        let gives_up = share(sane(dropped), sane(self.window.frames.offered)) >= LOST;
        (takes >= FULL && gives_up).then(|| takes.min(1.0))
    }

    /// Whether frames or pictures suffer.
    fn suffers(&self) -> bool {
        self.offered >= ENOUGH && (self.lost >= LOST || self.late >= LATE)
    }

    /// How bad it is that a stage has too much to do.
    fn severity(&self) -> Severity {
        if !self.suffers() {
            Severity::Info
        } else if self.lost >= LOST_CRITICALLY || self.late >= LOST_CRITICALLY {
            Severity::Critical
        } else {
            Severity::Warning
        }
    }

    /// Whether what takes so much is one of those that full processors work for, and its share of that.
    fn major(&self, takes: f64) -> Option<f64> {
        let of_all = share_of(takes, self.decode + self.inference + self.encode);
        let processors = sane(self.window.room.processors.unwrap_or_default());
        let is_major = self.is_full && of_all >= MAJOR && share_of(takes, processors) >= SUBSTANTIAL;
        is_major.then_some(of_all)
    }

    /// What all findings about load have for evidence.
    fn evidence(&self, mut own: Vec<(&'static str, f64)>) -> Vec<(&'static str, f64)> {
        let Room { processors, busy, .. } = self.window.room;
        own.extend([("frames_lost_ratio", self.lost), ("frames_late_ratio", self.late)]);
        own.extend(busy.map(|busy| ("processors_busy_ratio", sane(busy))));
        own.extend(processors.map(|processors| ("processors", sane(processors))));
        own
    }
}

fn decode(seen: &Seen<'_>) -> Weighed {
    let device = busiest(&seen.window.devices, |device| device.decoder);
    let codecs = (seen.codecs_busy >= SATURATED && share_of(seen.decode, seen.decode + seen.encode) >= MAJOR)
        .then_some(seen.codecs_busy);
    let serial = seen.serial(mean(seen.window.decode), seen.window.frames.undecoded);
    let weight = limited(seen, seen.decode, codecs, device, serial)?;
    let mut evidence = vec![
        ("decode_processors", seen.decode),
        ("decode_ms", milliseconds(seen.window.decode)),
        ("codec_threads_busy_ratio", seen.codecs_busy),
    ];
    evidence.extend(seen.apart(serial));
    let (setting, advice) = if serial.is_none() && wants_threads(seen) {
        ("threads.codec", "Codec threads are all at work while processors are free: raise threads.codec.".to_owned())
    } else if sane(seen.window.stills.decode_seconds) > sane(seen.window.decode.seconds) {
        (
            "limits.image_pixels",
            "Most decoding is of still pictures: have clients send smaller JPEGs (limits.image_pixels), or spread them \
             over more servers."
                .to_owned(),
        )
    } else {
        (
            "limits.width",
            "Have publishers send smaller pictures or fewer frames (limits.width, limits.height, limits.fps), let a GPU \
             decode (hw.decode), or admit fewer sessions here (admission.max_sessions)."
                .to_owned(),
        )
    };
    let message = told("Decoding has more to do than there is time for", "Decoding is near its limit", seen);
    Some((weight, seen.finding(Code::DecodeBound, message, evidence, setting, advice)))
}

fn encode(seen: &Seen<'_>) -> Weighed {
    let device = busiest(&seen.window.devices, |device| device.encoder);
    let codecs = (seen.codecs_busy >= SATURATED && share_of(seen.encode, seen.decode + seen.encode) >= MAJOR)
        .then_some(seen.codecs_busy);
    let serial = seen.serial(mean(seen.window.encode), seen.window.frames.unreturned);
    let weight = limited(seen, seen.encode, codecs, device, serial)?;
    let mut evidence = vec![
        ("encode_processors", seen.encode),
        ("encode_ms", milliseconds(seen.window.encode)),
        ("codec_threads_busy_ratio", seen.codecs_busy),
    ];
    evidence.extend(seen.apart(serial));
    let (setting, advice) = if serial.is_none() && wants_threads(seen) {
        ("threads.codec", "Codec threads are all at work while processors are free: raise threads.codec.")
    } else {
        (
            "options: return",
            "Let sessions that show no video ask for `return: results`, have publishers send smaller pictures \
             (limits.width, limits.height, limits.fps), or let a GPU encode (hw.encode).",
        )
    };
    let message = told(
        "Drawing and encoding have more to do than there is time for",
        "Drawing and encoding are near their limit",
        seen,
    );
    Some((weight, seen.finding(Code::EncodeBound, message, evidence, setting, advice.to_owned())))
}

fn inference(seen: &Seen<'_>) -> Weighed {
    let device = busiest(&seen.window.devices, |device| device.sm);
    let instances = (seen.instances_busy >= SATURATED).then_some(seen.instances_busy);
    let slowest = seen.window.models.iter().max_by(|a, b| mean(a.work).total_cmp(&mean(b.work)));
    let serial = slowest.and_then(|model| seen.serial(mean(model.work), seen.window.frames.unseen));
    let weight = limited(seen, seen.inference, instances, device, serial)?;
    let batches = seen.window.batches;
    let mut evidence = vec![
        ("inference_processors", seen.inference),
        ("batch_ms", milliseconds(seen.batches)),
        ("batch_frames", share_of(sane(batches.frames), sane(batches.runs))),
        ("instances_busy_ratio", seen.instances_busy),
        ("model_wait_ms", milliseconds(seen.window.model_wait)),
    ];
    evidence.extend(seen.apart(serial));
    let Room { processors, busy, .. } = seen.window.room;
    let instances = seen.busiest.and_then(|model| model.instances);
    let spare = busy.is_some_and(|busy| busy < SATURATED)
        && instances.zip(processors).is_some_and(|(instances, processors)| instances < processors);
    let (setting, advice) = if serial.is_some() {
        (
            "models.default",
            "A session's frames go through the model one after the other, and it takes longer than there is between two of \
             them: take a smaller model (models.default), make an int8 variant of this one (`saccade models quantize`), let \
             a GPU run it (hw.infer), or have publishers send fewer frames (limits.fps).",
        )
    } else if spare && device.is_none() {
        (
            "manifest: run.instances",
            "All instances of models are at work while processors are free: raise run.instances in the model's manifest.",
        )
    } else {
        (
            "models.default",
            "Take a smaller model (models.default), make an int8 variant of this one (`saccade models quantize`), let a \
             GPU run it (hw.infer) or other servers ([remote] in its manifest), or admit fewer sessions here \
             (admission.max_sessions).",
        )
    };
    let named = if serial.is_some() { slowest } else { seen.busiest };
    let name = named.map_or("The model", |model| &model.name);
    let suffers = format!("{name} has more to do than there is time for");
    let message = told(&suffers, &format!("{name} is near its limit"), seen);
    Some((weight, seen.finding(Code::InferenceBound, message, evidence, setting, advice.to_owned())))
}

impl Seen<'_> {
    /// For the evidence of a stage that is too slow for one session.
    fn apart(&self, serial: Option<f64>) -> Option<(&'static str, f64)> {
        serial.and(self.interval).map(|interval| ("frame_interval_ms", interval * 1e3))
    }

    fn finding(
        &self,
        code: Code,
        message: String,
        evidence: Vec<(&'static str, f64)>,
        setting: &'static str,
        advice: String,
    ) -> Finding {
        let evidence = self.evidence(evidence);
        Finding { code, severity: self.severity(), message, evidence, setting, advice }
    }
}

/// Whether a stage limits the server, and how near its limit it is: one whose threads or device have no more to give, one
/// that is too slow for each session alone, and, where frames suffer, one that takes much of full processors.
fn limited(seen: &Seen<'_>, takes: f64, threads: Option<f64>, device: Option<f64>, serial: Option<f64>) -> Option<f64> {
    let device = device.filter(|busy| *busy >= FULL);
    let major = seen.major(takes).filter(|_| seen.suffers());
    // A few frames that take long by themselves are no load.
    let threads = threads.filter(|_| seen.offered >= ENOUGH);
    [threads, device, major, serial].into_iter().flatten().max_by(f64::total_cmp)
}

/// Whether there are fewer codec threads than processors, and some of those have nothing to do.
fn wants_threads(seen: &Seen<'_>) -> bool {
    let Room { processors, busy, codec_threads, .. } = seen.window.room;
    seen.codecs_busy >= SATURATED
        && busy.is_some_and(|busy| busy < SATURATED)
        && codec_threads.zip(processors).is_some_and(|(threads, processors)| threads < processors)
}

fn told(suffers: &str, near: &str, seen: &Seen<'_>) -> String {
    if seen.suffers() {
        format!("{suffers}: {:.0} % of frames are given up, {:.0} % are late.", seen.lost * 100.0, seen.late * 100.0)
    } else {
        format!("{near}; no frames suffer yet.")
    }
}

fn network(seen: &Seen<'_>) -> Weighed {
    let Window { path, frames, .. } = seen.window;
    let loss = |Packets { all, lost }| {
        let (all, lost) = (sane(all), sane(lost));
        if all + lost >= 10.0 * ENOUGH { share(lost, all + lost) } else { 0.0 }
    };
    let (inward, outward) = (loss(path.inward), loss(path.outward));
    let congested =
        if sane(frames.offered) >= ENOUGH { share(sane(frames.congested), sane(frames.offered)) } else { 0.0 };
    let worst = inward.max(outward);
    // Where decoding drops frames, those that follow are of no use without a packet lost.
    let is_behind = share(sane(frames.undecoded), sane(frames.offered)) >= LOST / 2.0;
    // Who joins a stream waits for a keyframe without a packet lost, too.
    let after = sane(frames.keyless).min(AFTER_A_GAP * sane(frames.broken));
    let broken = sane(frames.broken) + after;
    let broken = share(broken, sane(frames.offered) + broken);
    let broken = if is_behind || sane(frames.offered) < ENOUGH { 0.0 } else { broken };
    if worst < LOSS && congested < CONGESTED && broken < LOST {
        return None;
    }
    let critical = worst >= LOSS_CRITICAL || congested >= CONGESTED_CRITICAL || broken >= LOST_CRITICALLY;
    let evidence = vec![
        ("inward_loss_ratio", inward),
        ("outward_loss_ratio", outward),
        ("frames_congested_ratio", congested),
        ("frames_broken_ratio", broken),
        ("datagrams_without_room", sane(path.unread) + sane(path.unsent)),
        ("packets_over_bitrate", sane(path.over_bitrate)),
        ("round_trip_ms", milliseconds(path.round_trip)),
    ];
    let (setting, advice) = remedy(path, inward >= LOSS || broken >= LOST);
    let message = if congested >= CONGESTED && worst < LOSS && broken < LOST {
        format!("The paths to peers have no room for {:.0} % of frames.", congested * 100.0)
    } else {
        format!(
            "{:.1} % of packets from peers and {:.1} % of packets to peers are lost for good; {:.0} % of frames from peers \
             are of no use for that.",
            inward * 100.0,
            outward * 100.0,
            broken * 100.0
        )
    };
    let severity = if critical { Severity::Critical } else { Severity::Warning };
    let finding = Finding { code: Code::NetworkLoss, severity, message, evidence, setting, advice: advice.to_owned() };
    let weight = (worst / LOSS_CRITICAL).max(congested / CONGESTED_CRITICAL).max(broken / LOST_CRITICALLY);
    Some((weight.min(1.0), finding))
}

/// What to do about loss, by where it comes about.
fn remedy(path: &Path, is_inward: bool) -> (&'static str, &'static str) {
    let lost = sane(path.inward.lost) + sane(path.outward.lost);
    let much = |ours: f64| sane(ours) > 0.0 && sane(ours) >= OURS * lost;
    if much(path.over_bitrate) {
        (
            "limits.bitrate_kbps",
            "Publishers send more than is let in, and what is beyond is dropped: raise limits.bitrate_kbps, or have them \
             send fewer bits a second.",
        )
    } else if much(path.unsent) {
        (
            "net.core.wmem_max",
            "The kernel has no room for what is sent: raise net.core.wmem_max and net.core.rmem_max; see by `saccade \
             doctor` what the media socket has.",
        )
    } else if much(path.unread) {
        (
            "admission.max_sessions",
            "Sessions do not read in time what comes for them: admit fewer (admission.max_sessions), or leave processors \
             to the network (threads.codec).",
        )
    } else if is_inward {
        (
            "ice_servers",
            "Offer publishers behind bad paths a TURN server over TCP (ice_servers), have them send fewer bits a second, \
             and see by `saccade doctor` whether the media socket has room for bursts.",
        )
    } else {
        (
            "admission.bandwidth_mbps",
            "What goes back is more than the paths carry: say what the network really carries \
             (admission.bandwidth_mbps), or let sessions ask for `return: results`.",
        )
    }
}

/// No frame waits for others while an instance is idle. What sharing runs costs a frame is that its run takes longer than it
/// would alone.
fn batch_wait(seen: &Seen<'_>) -> Weighed {
    let batches = seen.window.batches;
    let company = share_of(sane(batches.frames), sane(batches.runs));
    // Where frames are given up for want of time, smaller batches would make it worse.
    if company < COMPANY || sane(batches.frames) < ENOUGH || seen.lost >= LOST {
        return None;
    }
    let runs = seen.window.models.iter().filter_map(|model| {
        let (run, alone) = (mean(model.work), sane(model.alone?));
        (alone > 0.0).then(|| (run, alone, (run - alone).max(0.0)))
    });
    let (run, alone, more) = runs.max_by(|(_, _, a), (_, _, b)| a.total_cmp(b))?;
    if more < WAIT || more < alone / 2.0 {
        return None;
    }
    let evidence = vec![
        ("batch_ms", run * 1e3),
        ("alone_ms", alone * 1e3),
        ("batch_frames", company),
        ("model_wait_ms", milliseconds(seen.window.model_wait)),
        ("instances_busy_ratio", seen.instances_busy),
        ("frames_late_ratio", seen.late),
    ];
    let severity = if seen.late >= LATE { Severity::Warning } else { Severity::Info };
    let message = format!(
        "Frames are run {company:.1} at a time, which takes {:.1} ms; alone, each would take {:.1} ms.",
        run * 1e3,
        alone * 1e3
    );
    let advice =
        "Lower max_delay_ms in [batching] of the model's manifest, which is by how much longer than alone a frame may \
                  take, or max_batch; fewer frames a second are done then."
            .to_owned();
    let setting = "manifest: batching.max_delay_ms";
    Some((share(more, run), Finding { code: Code::BatchWait, severity, message, evidence, setting, advice }))
}

fn gpu_idle(seen: &Seen<'_>) -> Weighed {
    let busy = busiest(&seen.window.devices, |device| device.sm)?;
    let wait = mean(seen.window.model_wait);
    let waits = wait >= WAIT && sane(seen.window.model_wait.count) >= ENOUGH;
    if busy > IDLE || !(waits || seen.suffers()) {
        return None;
    }
    let evidence = vec![
        ("device_busy_ratio", busy),
        ("model_wait_ms", wait * 1e3),
        ("instances_busy_ratio", seen.instances_busy),
        ("frames_lost_ratio", seen.lost),
    ];
    let severity = if seen.suffers() { Severity::Warning } else { Severity::Info };
    let message = format!("The busiest GPU works {:.0} % of the time while frames wait.", busy * 100.0);
    let (setting, advice) = if seen.instances_busy >= SATURATED {
        (
            "manifest: run.instances",
            "Instances are at work without the GPU being so: see by `saccade doctor` whether models run on it (hw.infer), \
             and raise run.instances in the manifest.",
        )
    } else {
        (
            "hw.infer",
            "See by `saccade doctor` what of the GPU works, and let it run models (hw.infer), decode (hw.decode) and \
             encode (hw.encode), so that processors are free to feed it.",
        )
    };
    let finding = Finding { code: Code::GpuIdle, severity, message, evidence, setting, advice: advice.to_owned() };
    Some((1.0 - busy, finding))
}

fn memory(memory: &Memory, refused: f64) -> Weighed {
    let used = sane(memory.used);
    // Its own bounds are memory.warn_ratio and memory.shed_ratio, which may be others.
    let by_share = || if used >= MEMORY.1 { 2.0 } else { f64::from(u8::from(used >= MEMORY.0)) };
    let level = memory.level.map_or_else(by_share, sane);
    let severity = match level {
        2.0.. => Severity::Critical,
        1.0.. => Severity::Warning,
        _ => return None,
    };
    let is_device = memory.kind == "device";
    let (what, ratio) =
        if is_device { ("a GPU", "device_memory_used_ratio") } else { ("the host", "host_memory_used_ratio") };
    let is_short = memory.level.is_some_and(|level| level >= 2.0);
    let consequence = if is_short { "; new sessions, viewers, still pictures and tensors are refused" } else { "" };
    let message = format!("{:.0} % of the memory of {what} is in use{consequence}.", used * 100.0);
    let (setting, advice) = if is_device {
        (
            "manifest: run.instances",
            "Load fewer models (models.load), run fewer instances of them (run.instances in their manifests), or admit \
             fewer sessions (admission.max_sessions).",
        )
    } else {
        (
            "admission.max_sessions",
            "Give the server more memory, admit fewer sessions (admission.max_sessions), load fewer models (models.load), \
             or let the result cache have less (cache.max_bytes).",
        )
    };
    let mut evidence = vec![(ratio, used)];
    if is_short {
        evidence.push(("refused_for_memory", sane(refused)));
    }
    let finding =
        Finding { code: Code::MemoryNearLimit, severity, message, evidence, setting, advice: advice.to_owned() };
    Some((used.min(1.0), finding))
}

fn cache(seen: &Seen<'_>) -> Weighed {
    let (hits, misses) = (sane(seen.window.cache.hits), sane(seen.window.cache.misses));
    let hit = share_of(hits, hits + misses);
    if hits + misses < ASKED || hit >= USEFUL {
        return None;
    }
    let is_short =
        seen.window.memory.iter().any(|memory| memory.kind == "host" && memory.level.is_some_and(|level| level >= 1.0));
    let severity = if is_short { Severity::Warning } else { Severity::Info };
    let message = format!("The result cache answers {:.1} % of {:.0} requests.", hit * 100.0, hits + misses);
    let advice =
        "If no picture is ever sent twice, turn it off (cache.enabled); if some are after a longer while, keep \
                  results longer (cache.ttl_s) and more of them (cache.max_bytes)."
            .to_owned();
    let evidence = vec![("cache_hit_ratio", hit), ("cache_misses", misses)];
    let setting = "cache.enabled";
    Some((1.0 - hit, Finding { code: Code::CacheUseless, severity, message, evidence, setting, advice }))
}

/// The greatest share of the time in which an engine of a device is busy, where any tells.
fn busiest(devices: &[Device], engine: impl Fn(&Device) -> Option<f64>) -> Option<f64> {
    devices.iter().filter_map(engine).map(sane).max_by(f64::total_cmp)
}

fn mean(work: Work) -> f64 {
    share_of(sane(work.seconds), sane(work.count))
}

fn milliseconds(work: Work) -> f64 {
    mean(work) * 1e3
}

/// How many times as much it is; none of nothing is none.
fn share_of(part: f64, all: f64) -> f64 {
    if all > 0.0 { (part / all).clamp(0.0, MOST) } else { 0.0 }
}

/// The same for what cannot be more than all.
fn share(part: f64, all: f64) -> f64 {
    share_of(part, all).min(1.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
