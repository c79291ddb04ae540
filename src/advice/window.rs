use super::sample::{One, Part, Sample};

/// What happened in a while. Numbers of what happened are of that time alone; a counter that was less at the end than at the
/// beginning began anew in between. What the server does not tell, or tells no number for, is zero or `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// The samples are of several processes: the server was started anew, or several share an address. Nothing but memory is
    /// told then, since counters of two processes have no difference.
    pub is_mixed: bool,
    /// Sessions that were open at its end.
    pub sessions: f64,
    /// Frames of sessions.
    pub frames: Frames,
    /// Still pictures.
    pub stills: Stills,
    /// Decoding for sessions, on codec threads.
    pub decode: Work,
    /// Models that ran, by their names.
    pub models: Vec<Model>,
    /// Drawing and encoding, on codec threads.
    pub encode: Work,
    /// What there is to work with.
    pub room: Room,
    /// How long frames waited for a model.
    pub model_wait: Work,
    /// How frames were taken together.
    pub batches: Batches,
    /// The paths to peers.
    pub path: Path,
    /// The result cache.
    pub cache: Cache,
    /// Host first, then devices.
    pub memory: Vec<Memory>,
    /// GPUs, by their number.
    pub devices: Vec<Device>,
    /// Sessions and viewers that were refused for want of processors.
    pub refused_for_load: f64,
    /// Sessions, viewers, cameras, still pictures and requests with tensors that were refused for want of memory.
    pub refused_for_memory: f64,
}

/// Frames of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Frames {
    /// That came in whole.
    pub offered: f64,
    /// That were dropped before they were decoded because decoding was behind.
    pub undecoded: f64,
    /// That no model saw because it was busy, or because the load is high.
    pub unseen: f64,
    /// That did not go back because drawing and encoding were behind, or because the load is high.
    pub unreturned: f64,
    /// That did not go back because the path had no room for them.
    pub congested: f64,
    /// That came in with gaps.
    pub broken: f64,
    /// That came in whole and were of no use, since a keyframe was awaited: after gaps, and where a stream is joined.
    pub keyless: f64,
    /// That were processed, and left after their session's latency budget.
    pub late: f64,
}

/// Still pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stills {
    /// That were received whole.
    pub received: f64,
    /// That were refused because there was too much to do.
    pub refused: f64,
    /// Seconds of threads that decoded them.
    pub decode_seconds: f64,
}

/// What a stage did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Seconds that it took, all threads together.
    pub seconds: f64,
    /// How often.
    pub count: f64,
}

/// What there is to work with.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Room {
    /// Processors that the server may use.
    pub processors: Option<f64>,
    /// Share of them that was busy, with whatever, 0 to 1: the mean.
    pub busy: Option<f64>,
    /// Threads for decoding, drawing and encoding.
    pub codec_threads: Option<f64>,
    /// Processors that these kept busy: the mean.
    pub codecs_use: Option<f64>,
    /// Those that models' threads did.
    pub models_use: Option<f64>,
    /// Those that threads for still pictures did.
    pub stills_use: Option<f64>,
}

/// A model that ran.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// As `NAME@VERSION`.
    pub name: String,
    /// Its batches, with what is done to pictures before and to outputs after.
    pub work: Work,
    /// Instances that can run at a time, where the server tells.
    pub instances: Option<f64>,
    /// Seconds that a frame alone takes, likewise.
    pub alone: Option<f64>,
}

/// How frames were taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Batches {
    /// Runs of models.
    pub runs: f64,
    /// Frames and pictures in them.
    pub frames: f64,
}

/// The paths to peers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Path {
    /// Of video from peers.
    pub inward: Packets,
    /// Of video to peers.
    pub outward: Packets,
    /// Datagrams that found no room in the queue of their session, which did not read them in time.
    pub unread: f64,
    /// Datagrams that the kernel had no room for on their way out.
    pub unsent: f64,
    /// RTP packets from peers that were dropped because there were more than `limits.bitrate_kbps` lets in.
    pub over_bitrate: f64,
    /// Round trips that were looked at.
    pub round_trip: Work,
}

/// RTP packets in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Packets {
    /// That arrived, or were sent.
    pub all: f64,
    /// That were lost.
    pub lost: f64,
}

/// What became of requests that the result cache was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cache {
    /// That got an answer without computing.
    pub hits: f64,
    /// That had it computed.
    pub misses: f64,
}

/// A kind of memory at the end of the window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// `host` or `device`.
    pub kind: String,
    /// Share that is in use, 0 to 1.
    pub used: f64,
    /// What the server makes of it by its own bounds, where it tells. 0: enough, 1: warned of, 2: so little that nothing new
    /// is begun.
    pub level: Option<f64>,
}

/// A GPU: means of the shares of time in which its engines had something to do, 0 to 1, where it tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Device {
    /// What computes.
    pub sm: Option<f64>,
    /// What decodes.
    pub decoder: Option<f64>,
    /// What encodes.
    pub encoder: Option<f64>,
}

/// Reasons for which a stage dropped frames because there was too much to do.
const BEHIND: [&str; 8] =
    ["queue_full", "no_surface", "superseded", "late", "skipped", "no_room", "overtaken", "no_host_buffer"];

impl Window {
    /// What happened from the first to the last of these samples, which are `seconds` apart. Gauges that jump are means over
    /// all of them.
    #[must_use]
    pub fn over(seconds: f64, samples: &[&Sample]) -> Self {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Self::default() };
        if samples.len() < 2 {
            return Self::default();
        }
        let between = Between { first, last, samples };
        if between.is_mixed() {
            return Self { is_mixed: true, memory: between.memory(), ..Self::default() };
        }
        let dropped = |stage: &str, reasons: &[&str]| {
            between.grown("saccade_frames_dropped_total", Part::Value, |one| {
                one.label("stage") == stage && reasons.contains(&one.label("reason"))
            })
        };
        let done = |stage: &str| {
            between.grown("saccade_frames_total", Part::Value, |one| {
                one.label("stage") == stage && one.label("outcome") == "done"
            })
        };
        let stages = |stages: &[&str]| {
            between.work("saccade_stage_duration_seconds", |one| stages.contains(&one.label("stage")))
        };
        let batches = between.work("saccade_batch_size", |_| true);
        let batches = Batches { runs: batches.count, frames: batches.seconds };
        // Each frame of a batch has the time of the whole.
        let around = stages(&["preprocess", "postprocess"]).seconds;
        let around = around / (batches.frames / batches.runs.max(1.0)).max(1.0);
        let stills_decoded = between.work("saccade_stills_decode_seconds", |_| true).seconds;
        let used = |threads: &str| between.mean("saccade_busy_processors", |one| one.label("threads") == threads);
        let packets = |direction: &str| Packets {
            all: between.grown("saccade_rtc_packets_total", Part::Value, |one| one.label("direction") == direction),
            lost: between
                .grown("saccade_rtc_packets_lost_total", Part::Value, |one| one.label("direction") == direction),
        };
        let datagrams = |reason: &str| {
            between.grown("saccade_rtc_datagrams_dropped_total", Part::Value, |one| one.label("reason") == reason)
        };
        let asked = |outcomes: &[&str]| {
            between.grown("saccade_cache_requests_total", Part::Value, |one| {
                one.label("tier") == "all" && outcomes.contains(&one.label("outcome"))
            })
        };
        Self {
            seconds: sane(seconds),
            is_mixed: false,
            sessions: between.gauge("saccade_sessions_active").unwrap_or_default(),
            frames: Frames {
                offered: done("ingest").max(done("decode")),
                undecoded: dropped("decode", &BEHIND),
                unseen: dropped("infer", &BEHIND),
                unreturned: dropped("encode", &BEHIND) + dropped("egress", &BEHIND) + dropped("annotate", &BEHIND),
                congested: dropped("encode", &["congested"]),
                broken: dropped("ingest", &["incomplete"]),
                keyless: dropped("ingest", &["awaiting_keyframe"]),
                late: between.grown("saccade_budget_missed_total", Part::Value, |_| true),
            },
            stills: Stills {
                received: between.grown("saccade_stills_received_total", Part::Value, |_| true),
                refused: between
                    .grown("saccade_stills_refused_total", Part::Value, |one| one.label("reason") == "capacity"),
                decode_seconds: stills_decoded,
            },
            decode: stages(&["decode"]),
            models: between.models(around),
            encode: Work { count: stages(&["encode"]).count, ..stages(&["annotate", "encode"]) },
            room: Room {
                processors: between.gauge("saccade_processors"),
                busy: between.mean("saccade_processors_busy_ratio", |_| true),
                codec_threads: between.gauge("saccade_codec_threads"),
                codecs_use: used("codec"),
                models_use: used("models"),
                stills_use: used("stills"),
            },
            model_wait: between.work("saccade_queue_wait_seconds", |one| one.label("queue") == "infer"),
            batches,
            path: Path {
                inward: packets("in"),
                outward: packets("out"),
                unread: datagrams("session_queue"),
                unsent: datagrams("send_buffer"),
                over_bitrate: dropped("rtc", &["over_bitrate"]),
                round_trip: between.work("saccade_rtc_round_trip_seconds", |_| true),
            },
            cache: Cache { hits: asked(&["hit", "stale", "joined"]), misses: asked(&["miss"]) },
            memory: between.memory(),
            devices: between.devices(),
            refused_for_load: between
                .grown("saccade_admission_rejected_total", Part::Value, |one| one.label("reason") == "overload"),
            refused_for_memory: between.grown("saccade_memory_refused_total", Part::Value, |_| true),
        }
    }
}

/// The samples of a window.
struct Between<'a> {
    first: &'a Sample,
    last: &'a Sample,
    samples: &'a [&'a Sample],
}

impl Between<'_> {
    /// Whether the samples are of more than one process.
    fn is_mixed(&self) -> bool {
        let started = |sample: &Sample| {
            sample.of("process_start_time_seconds", Part::Value).map(One::value).find(|at| at.is_finite())
        };
        let mut known = self.samples.iter().filter_map(|sample| started(sample));
        known.next().is_some_and(|first| known.any(|other| (other - first).abs() >= 1.0))
    }

    /// By how much the series of a counter that are `wanted` grew, all together.
    fn grown(&self, name: &'static str, part: Part, wanted: impl Fn(One<'_>) -> bool) -> f64 {
        let grown = |now: One<'_>| {
            let before = self.first.of(name, part).find(|before| before.is_like(now)).map_or(0.0, One::value);
            let (before, now) = (sane(before), sane(now.value()));
            if now >= before { now - before } else { now }
        };
        sane(self.last.of(name, part).filter(|one| wanted(*one)).map(grown).sum())
    }

    fn work(&self, name: &'static str, wanted: impl Fn(One<'_>) -> bool) -> Work {
        Work { seconds: self.grown(name, Part::Sum, &wanted), count: self.grown(name, Part::Count, &wanted) }
    }

    /// A gauge at the end, all of its series together.
    fn gauge(&self, name: &'static str) -> Option<f64> {
        let values = self.last.of(name, Part::Value).map(One::value).filter(|value| value.is_finite());
        let values: Vec<f64> = values.map(sane).collect();
        (!values.is_empty()).then(|| sane(values.iter().sum()))
    }

    /// The mean of what a gauge was; none where it never was a number.
    fn mean(&self, name: &'static str, wanted: impl Fn(One<'_>) -> bool) -> Option<f64> {
        let values = self.samples.iter().flat_map(|sample| sample.of(name, Part::Value));
        let values = values.filter(|one| wanted(*one)).map(One::value).filter(|value| value.is_finite());
        let values: Vec<f64> = values.map(sane).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (!values.is_empty()).then(|| sane(mean))
    }

    /// The models that ran; what was done `around` them is shared among them by the time that they took.
    fn models(&self, around: f64) -> Vec<Model> {
        const NAME: &str = "saccade_inference_seconds";
        let is_of = |name: &str| {
            let name = name.to_owned();
            move |one: One<'_>| one.label("model") == name
        };
        let told = |metric: &'static str, name: &str| {
            let one = self.last.of(metric, Part::Value).find(|one| one.label("model") == name)?;
            one.value().is_finite().then(|| sane(one.value()))
        };
        let ran = self.last.of(NAME, Part::Count).map(|one| one.label("model"));
        let mut models: Vec<Model> = ran
            .map(|name| Model {
                name: name.to_owned(),
                work: self.work(NAME, is_of(name)),
                instances: told("saccade_model_instances", name),
                alone: told("saccade_model_frame_seconds", name),
            })
            .filter(|model| model.work.count > 0.0)
            .collect();
        let all: f64 = models.iter().map(|model| model.work.seconds).sum();
        for model in &mut models {
            model.work.seconds += if all > 0.0 { around * model.work.seconds / all } else { 0.0 };
        }
        models
    }

    fn memory(&self) -> Vec<Memory> {
        let level = |kind: &str| {
            let level = self.last.of("saccade_memory_level", Part::Value).find(|one| one.label("kind") == kind);
            level.map(One::value).filter(|level| level.is_finite()).map(sane)
        };
        let used = self.last.of("saccade_memory_used_ratio", Part::Value);
        let mut memory: Vec<Memory> = used
            .map(|one| (one.label("kind"), sane(one.value())))
            .map(|(kind, used)| Memory { kind: kind.to_owned(), used, level: level(kind) })
            .collect();
        memory.sort_by(|a, b| b.kind.cmp(&a.kind));
        memory
    }

    fn devices(&self) -> Vec<Device> {
        const NAME: &str = "saccade_device_utilization_ratio";
        let mut names: Vec<&str> = self.last.of(NAME, Part::Value).map(|one| one.label("device")).collect();
        names.sort_unstable();
        names.dedup();
        let engine =
            |device, engine| self.mean(NAME, |one| one.label("device") == device && one.label("engine") == engine);
        names
            .into_iter()
            .map(|name| Device {
                sm: engine(name, "sm"),
                decoder: engine(name, "decoder"),
                encoder: engine(name, "encoder"),
            })
            .collect()
    }
}

/// More than any server counts, so that sums of what is told stay finite.
const MOST: f64 = 1e15;

/// What cannot be so, such as a number of frames below zero, is none.
pub(super) const fn sane(value: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value.min(MOST) } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    fn sample(lines: &str) -> Sample {
        Sample::read(&format!("saccade_build_info{{version=\"1\"}} 1\n{lines}")).unwrap()
    }

    #[test]
    fn counters_are_differences_and_gauges_are_means_or_last_values() {
        let first = sample(
            "saccade_frames_total{stage=\"ingest\",outcome=\"done\"} 100\nsaccade_processors_busy_ratio 0.2\n\
             saccade_frames_dropped_total{stage=\"infer\",reason=\"superseded\"} 5\nsaccade_processors 2\n\
             saccade_stage_duration_seconds_sum{stage=\"decode\"} 1\nsaccade_stage_duration_seconds_count{stage=\"decode\"} 10\n",
        );
        let second = sample(
            "saccade_frames_total{stage=\"ingest\",outcome=\"done\"} 400\nsaccade_processors_busy_ratio 0.6\n\
             saccade_frames_dropped_total{stage=\"infer\",reason=\"superseded\"} 25\nsaccade_processors 2\n\
             saccade_frames_dropped_total{stage=\"infer\",reason=\"late\"} 7\n\
             saccade_frames_dropped_total{stage=\"infer\",reason=\"error\"} 9\n\
             saccade_stage_duration_seconds_sum{stage=\"decode\"} 1.5\nsaccade_stage_duration_seconds_count{stage=\"decode\"} 310\n",
        );
        let window = Window::over(10.0, &[&first, &second]);
        assert_eq!((window.seconds, window.frames.offered, window.frames.unseen), (10.0, 300.0, 27.0));
        assert_eq!((window.decode.seconds, window.decode.count), (0.5, 300.0));
        assert_eq!((window.room.processors, window.room.busy), (Some(2.0), Some(0.4)));
        assert_eq!(window.room.codec_threads, None);
        assert_eq!(Window::over(10.0, &[&first]), Window::default());
    }

    #[test]
    fn a_server_that_began_anew_counts_from_nothing() {
        let [before, after] = [900, 40]
            .map(|frames| sample(&format!("saccade_frames_total{{stage=\"decode\",outcome=\"done\"}} {frames}\n")));
        assert_eq!(Window::over(5.0, &[&before, &after]).frames.offered, 40.0);
    }

    #[test]
    fn two_processes_have_no_window_in_common() {
        let of = |started: u32, frames: u32| {
            sample(&format!(
                "process_start_time_seconds {started}\nsaccade_frames_total{{stage=\"decode\",outcome=\"done\"}} {frames}\n\
                 saccade_memory_used_ratio{{kind=\"host\"}} 0.9\n"
            ))
        };
        // More than before, as the one that runs for longer has it.
        let window = Window::over(5.0, &[&of(1_700_000_000, 40), &of(1_600_000_000, 9_000_000)]);
        assert!(window.is_mixed);
        assert_eq!((window.seconds, window.frames.offered, window.memory.len()), (0.0, 0.0, 1));
        let window = Window::over(5.0, &[&of(1_700_000_000, 40), &of(1_700_000_000, 90)]);
        assert!(!window.is_mixed);
        assert_eq!(window.frames.offered, 50.0);
    }

    #[test]
    fn gauges_that_are_no_numbers_are_not_told() {
        let page = "saccade_processors NaN\nsaccade_processors_busy_ratio NaN\nsaccade_memory_level{kind=\"host\"} NaN\n\
                    saccade_memory_used_ratio{kind=\"host\"} 0.5\n";
        let known = sample("saccade_processors_busy_ratio 0.5\n");
        let unknown = sample(page);
        let window = Window::over(2.0, &[&unknown, &unknown]);
        assert_eq!((window.room, window.memory[0].level), (Room::default(), None));
        assert_eq!(Window::over(2.0, &[&known, &unknown]).room.busy, Some(0.5), "the mean of what is known");
    }

    #[test]
    fn the_time_of_a_batch_counts_once() {
        let none = sample("");
        let some = sample(
            "saccade_batch_size_sum 40\nsaccade_batch_size_count 10\nsaccade_inference_seconds_sum{model=\"a@1\"} 1\n\
             saccade_model_instances{model=\"a@1\"} 2\nsaccade_model_instances{model=\"b@1\"} 1\n\
             saccade_inference_seconds_count{model=\"a@1\"} 10\nsaccade_model_frame_seconds{model=\"a@1\"} 0.04\nsaccade_stage_duration_seconds_sum{stage=\"preprocess\"} 0.4\n",
        );
        let window = Window::over(1.0, &[&none, &some]);
        let work = Work { seconds: 1.1, count: 10.0 };
        assert_eq!(window.models, [Model { name: "a@1".to_owned(), work, instances: Some(2.0), alone: Some(0.04) }]);
    }

    #[test]
    fn devices_and_memory_are_told_apart() {
        let page = "saccade_device_utilization_ratio{device=\"0\",engine=\"sm\"} 0.9\n\
                    saccade_device_utilization_ratio{device=\"1\",engine=\"decoder\"} NaN\n\
                    saccade_memory_used_ratio{kind=\"device\"} 0.5\nsaccade_memory_used_ratio{kind=\"host\"} 0.97\n\
                    saccade_memory_level{kind=\"host\"} 2\n";
        let samples = [sample(page), sample(page)];
        let window = Window::over(1.0, &[&samples[0], &samples[1]]);
        assert_eq!(window.devices[0], Device { sm: Some(0.9), ..Device::default() });
        assert_eq!(window.devices[1], Device::default(), "what is no number is not told");
        let kinds: Vec<_> =
            window.memory.iter().map(|memory| (memory.kind.as_str(), memory.used, memory.level)).collect();
        assert_eq!(kinds, [("host", 0.97, Some(2.0)), ("device", 0.5, None)]);
    }
}
