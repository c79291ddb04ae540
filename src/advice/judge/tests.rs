use proptest::prelude::*;

use super::super::window::{Batches, Cache, Frames, Path, Stills};
use super::*;

/// A model with one instance, which takes as long for each frame as for a run.
fn model(seconds: f64, count: f64) -> Model {
    let alone = Some(share_of(seconds, count));
    Model { name: "yolo@1".to_owned(), work: Work { seconds, count }, instances: Some(1.0), alone }
}

/// Ten seconds of six sessions on two processors with everything in order.
fn calm() -> Window {
    let work = |seconds, count| Work { seconds, count };
    Window {
        seconds: 10.0,
        sessions: 6.0,
        frames: Frames { offered: 1800.0, ..Frames::default() },
        decode: work(1.8, 1800.0),
        models: vec![model(5.0, 1800.0)],
        encode: work(2.0, 600.0),
        room: Room { processors: Some(2.0), busy: Some(0.5), codec_threads: Some(2.0), ..Room::default() },
        model_wait: work(1.8, 1800.0),
        batches: Batches { runs: 1800.0, frames: 1800.0 },
        path: Path {
            inward: Packets { all: 9000.0, lost: 0.0 },
            outward: Packets { all: 3000.0, lost: 0.0 },
            round_trip: work(1.2, 120.0),
            ..Path::default()
        },
        cache: Cache { hits: 40.0, misses: 60.0 },
        memory: vec![Memory { kind: "host".to_owned(), used: 0.4, level: Some(0.0) }],
        ..Window::default()
    }
}

fn host(used: f64, level: Option<f64>) -> Memory {
    Memory { kind: "host".to_owned(), used, level }
}

fn codes(window: &Window) -> Vec<(Code, Severity)> {
    findings(window).iter().map(|finding| (finding.code, finding.severity)).collect()
}

fn with(change: impl FnOnce(&mut Window)) -> Window {
    let mut window = calm();
    change(&mut window);
    window
}

#[test]
fn nothing_is_found_where_nothing_limits() {
    assert_eq!(codes(&calm()), []);
    assert_eq!(codes(&Window::default()), []);
    for (name, window) in [
        // They take 12 ms each, one after the other, and no run has two.
        ("frames of all sessions that come at once", with(|window| window.model_wait.seconds = 30.0)),
        (
            "runs that take no longer with company",
            with(|window| {
                window.batches = Batches { runs: 450.0, frames: 1800.0 };
                window.models = vec![Model { alone: Some(0.01), ..model(5.4, 450.0) }];
            }),
        ),
        ("a camera that is joined long before its keyframe", with(|window| window.frames.keyless = 300.0)),
        (
            "the same, and a frame with a gap",
            with(|window| (window.frames.keyless, window.frames.broken) = (300.0, 0.5)),
        ),
        ("memory that its bounds allow", with(|window| window.memory[0] = host(0.97, Some(0.0)))),
        (
            "a GPU that does not tell what it does",
            with(|window| {
                window.devices = vec![Device::default()];
                window.model_wait.seconds = 20.0;
            }),
        ),
        (
            "a few frames given up by a quick model",
            with(|window| {
                window.sessions = 1.0;
                window.frames = Frames { offered: 300.0, unseen: 30.0, ..Frames::default() };
                window.models = vec![model(2.7, 270.0)];
            }),
        ),
        (
            "a second in which an instance was busy with what began before",
            with(|window| {
                window.seconds = 1.0;
                window.models = vec![model(5.0, 40.0)];
                window.frames.unseen = 100.0;
            }),
        ),
    ] {
        assert_eq!(codes(&window), [], "{name}");
    }
}

#[test]
fn batches_are_not_blamed_where_smaller_ones_would_lose_frames() {
    let overloaded = with(|window| {
        window.batches = Batches { runs: 200.0, frames: 1600.0 };
        window.models = vec![Model { alone: Some(0.008), ..model(9.9, 200.0) }];
        window.frames.unseen = 200.0;
    });
    assert_eq!(codes(&overloaded), [(Code::InferenceBound, Severity::Warning)]);
}

#[test]
fn each_bottleneck_alone_is_named() {
    use Severity::{Critical, Info, Warning};
    let overload = |window: &mut Window| {
        window.room.busy = Some(0.98);
        window.frames.unseen = 300.0;
    };
    for (name, window, expected) in [
        (
            "a heavy model keeps its instance busy",
            with(|window| {
                overload(window);
                window.models = vec![model(9.8, 700.0), model(0.0, 0.0)];
            }),
            (Code::InferenceBound, Warning),
        ),
        (
            "one instance of a machine with many processors",
            with(|window| {
                window.frames.unseen = 900.0;
                window.models[0].work.seconds = 9.9;
                window.decode.seconds = 20.0;
                window.room =
                    Room { processors: Some(16.0), busy: Some(0.25), codec_threads: Some(8.0), ..Room::default() };
            }),
            (Code::InferenceBound, Critical),
        ),
        (
            "big pictures",
            with(|window| {
                overload(window);
                window.decode.seconds = 17.0;
                window.models[0].work.seconds = 1.0;
                window.encode = Work::default();
            }),
            (Code::DecodeBound, Warning),
        ),
        (
            "big pictures that come back",
            with(|window| {
                overload(window);
                window.decode.seconds = 4.0;
                window.models[0].work.seconds = 1.0;
                window.encode.seconds = 13.0;
            }),
            (Code::EncodeBound, Warning),
        ),
        (
            "big pictures, for which models wait",
            with(|window| {
                overload(window);
                window.decode.seconds = 6.5;
                window.encode = Work::default();
                window.models = vec![model(9.0, 300.0)];
                window.room.codec_threads = Some(1.0);
                (window.room.codecs_use, window.room.models_use) = (Some(0.6), Some(0.2));
            }),
            (Code::DecodeBound, Warning),
        ),
        (
            "codec threads near their limit",
            with(|window| {
                window.encode.seconds = 15.0;
                window.models[0].work.seconds = 1.0;
            }),
            (Code::EncodeBound, Info),
        ),
        ("a bad path in", with(|window| window.path.inward.lost = 300.0), (Code::NetworkLoss, Warning)),
        ("a worse path out", with(|window| window.path.outward.lost = 300.0), (Code::NetworkLoss, Critical)),
        ("frames with gaps", with(|window| window.frames.broken = 90.0), (Code::NetworkLoss, Warning)),
        ("a narrow path", with(|window| window.frames.congested = 200.0), (Code::NetworkLoss, Warning)),
        (
            "long runs of many frames",
            with(|window| {
                window.batches = Batches { runs: 300.0, frames: 1800.0 };
                window.models = vec![Model { alone: Some(0.008), ..model(7.0, 300.0) }];
            }),
            (Code::BatchWait, Info),
        ),
        (
            "long runs of many frames, which are late",
            with(|window| {
                window.batches = Batches { runs: 300.0, frames: 1800.0 };
                window.models = vec![Model { alone: Some(0.008), ..model(7.0, 300.0) }];
                window.frames.late = 400.0;
            }),
            (Code::BatchWait, Warning),
        ),
        ("memory", with(|window| window.memory[0] = host(0.85, None)), (Code::MemoryNearLimit, Warning)),
        (
            "memory by bounds of its own",
            with(|window| window.memory[0] = host(0.5, Some(1.0))),
            (Code::MemoryNearLimit, Warning),
        ),
        (
            "no memory",
            with(|window| {
                window.memory[0].level = Some(2.0);
                window.memory[0].used = 0.93;
            }),
            (Code::MemoryNearLimit, Critical),
        ),
        (
            "a cache of pictures that never come again",
            with(|window| window.cache = Cache { hits: 1.0, misses: 400.0 }),
            (Code::CacheUseless, Info),
        ),
        (
            "a model that is too slow for one session, with many instances",
            with(|window| {
                window.sessions = 1.0;
                window.frames = Frames { offered: 300.0, unseen: 150.0, ..Frames::default() };
                window.decode = Work { seconds: 0.3, count: 300.0 };
                window.models = vec![Model { instances: Some(8.0), ..model(9.0, 150.0) }];
                window.room =
                    Room { processors: Some(16.0), busy: Some(0.1), codec_threads: Some(8.0), ..Room::default() };
            }),
            (Code::InferenceBound, Critical),
        ),
        (
            "one session of pictures that a thread cannot decode in time",
            with(|window| {
                window.sessions = 1.0;
                window.frames = Frames { offered: 600.0, undecoded: 60.0, ..Frames::default() };
                window.decode = Work { seconds: 9.5, count: 540.0 };
                window.room =
                    Room { processors: Some(16.0), busy: Some(0.2), codec_threads: Some(8.0), ..Room::default() };
            }),
            (Code::DecodeBound, Warning),
        ),
        (
            "one session of pictures that a thread cannot encode in time",
            with(|window| {
                window.sessions = 1.0;
                window.frames = Frames { offered: 600.0, unreturned: 240.0, ..Frames::default() };
                window.encode = Work { seconds: 9.5, count: 360.0 };
                window.room =
                    Room { processors: Some(16.0), busy: Some(0.2), codec_threads: Some(16.0), ..Room::default() };
            }),
            (Code::EncodeBound, Critical),
        ),
        (
            "a GPU that nobody feeds",
            with(|window| {
                window.devices = vec![Device { sm: Some(0.1), ..Device::default() }];
                window.model_wait.seconds = 20.0;
            }),
            (Code::GpuIdle, Info),
        ),
        (
            "a GPU that has too much to do",
            with(|window| {
                window.devices = vec![Device { sm: Some(0.97), ..Device::default() }];
                window.frames.unseen = 700.0;
            }),
            (Code::InferenceBound, Critical),
        ),
        (
            "a GPU whose decoders have too much to do",
            with(|window| {
                window.devices = vec![Device { sm: Some(0.5), decoder: Some(0.97), encoder: Some(0.1) }];
                window.frames.undecoded = 100.0;
            }),
            (Code::DecodeBound, Warning),
        ),
        (
            "still pictures beyond what a model can do",
            with(|window| {
                window.frames = Frames::default();
                window.stills = Stills { received: 500.0, refused: 60.0, decode_seconds: 1.0 };
                window.models[0].work.seconds = 9.9;
            }),
            (Code::InferenceBound, Warning),
        ),
    ] {
        assert_eq!(codes(&window), [expected], "{name}");
    }
}

#[test]
fn every_code_has_a_name_of_its_own_and_a_runbook() {
    let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(Code::DecodeBound.runbook(), "deploy/runbooks/decode_bound.md");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
}

#[test]
fn the_setting_fits_the_machine() {
    let busy = with(|window| {
        window.frames.unseen = 900.0;
        window.models[0].work.seconds = 9.9;
        window.room.busy = Some(0.99);
    });
    assert_eq!(findings(&busy)[0].setting, "models.default", "all processors have an instance or a codec thread");
    let free = with(|window| {
        window.frames.unseen = 900.0;
        window.models[0].work.seconds = 9.9;
        window.room.processors = Some(16.0);
        window.room.busy = Some(0.2);
    });
    assert_eq!(findings(&free)[0].setting, "manifest: run.instances");
    let alone = with(|window| {
        window.sessions = 1.0;
        window.frames = Frames { offered: 300.0, unseen: 200.0, ..Frames::default() };
        window.decode.seconds = 0.3;
        window.models = vec![model(9.9, 100.0)];
        window.room.processors = Some(16.0);
        window.room.busy = Some(0.2);
    });
    let found = &findings(&alone)[0];
    assert_eq!((found.code, found.setting), (Code::InferenceBound, "models.default"), "one session has one instance");
    assert!(found.evidence.iter().any(|(name, value)| *name == "frame_interval_ms" && (value - 33.3).abs() < 0.1));
}

#[test]
fn what_to_do_about_loss_depends_on_where_it_comes_about() {
    let lossy = |change: fn(&mut Path)| {
        let window = with(|window| {
            window.path.inward.lost = 300.0;
            change(&mut window.path);
        });
        let found = findings(&window);
        assert_eq!((found.len(), found[0].code), (1, Code::NetworkLoss));
        found[0].setting
    };
    assert_eq!(lossy(|path| path.unread = 250.0), "admission.max_sessions");
    assert_eq!(lossy(|path| path.unsent = 250.0), "net.core.wmem_max");
    assert_eq!(lossy(|path| path.over_bitrate = 250.0), "limits.bitrate_kbps");
    assert_eq!(
        lossy(|path| (path.unread, path.unsent, path.over_bitrate) = (1.0, 1.0, 1.0)),
        "ice_servers",
        "a trifle"
    );
    let outward = with(|window| (window.path.outward.lost, window.path.inward.lost) = (300.0, 0.0));
    assert_eq!(findings(&outward)[0].setting, "admission.bandwidth_mbps");
    let dropped = with(|window| (window.frames.broken, window.path.over_bitrate) = (90.0, 400.0));
    assert_eq!(findings(&dropped)[0].setting, "limits.bitrate_kbps");
}

/// Anything that could stand in a page of metrics.
fn any_number() -> BoxedStrategy<f64> {
    prop_oneof![
        4 => 0.0..2000.0_f64,
        2 => 0.0..1.0_f64,
        1 => Just(0.0),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-1.0), Just(f64::MAX), Just(f64::MIN_POSITIVE)],
    ]
    .boxed()
}

fn any_gauge() -> BoxedStrategy<Option<f64>> {
    prop_oneof![1 => Just(None), 3 => any_number().prop_map(Some)].boxed()
}

fn any_work() -> BoxedStrategy<Work> {
    (any_number(), any_number()).prop_map(|(seconds, count)| Work { seconds, count }).boxed()
}

fn any_load() -> BoxedStrategy<(Frames, Stills, [Work; 3], Room)> {
    let frames = prop::array::uniform8(any_number()).prop_map(
        |[offered, undecoded, unseen, unreturned, congested, broken, keyless, late]| Frames {
            offered,
            undecoded,
            unseen,
            unreturned,
            congested,
            broken,
            keyless,
            late,
        },
    );
    let stills = prop::array::uniform3(any_number()).prop_map(|[received, refused, decode_seconds]| Stills {
        received,
        refused,
        decode_seconds,
    });
    let room = prop::array::uniform6(any_gauge()).prop_map(
        |[processors, busy, codec_threads, codecs_use, models_use, stills_use]| Room {
            processors,
            busy,
            codec_threads,
            codecs_use,
            models_use,
            stills_use,
        },
    );
    (frames, stills, prop::array::uniform3(any_work()), room).boxed()
}

fn any_window() -> BoxedStrategy<Window> {
    let path = (prop::array::uniform7(any_number()), any_work()).prop_map(
        |([a, b, c, d, unread, unsent, over_bitrate], round_trip)| Path {
            inward: Packets { all: a, lost: b },
            outward: Packets { all: c, lost: d },
            unread,
            unsent,
            over_bitrate,
            round_trip,
        },
    );
    let memory =
        prop::collection::vec((prop::sample::select(vec!["host", "device", ""]), any_number(), any_gauge()), 0..3)
            .prop_map(|all| {
                all.into_iter().map(|(kind, used, level)| Memory { kind: kind.to_owned(), used, level }).collect()
            });
    let devices = prop::collection::vec(
        prop::array::uniform3(any_gauge()).prop_map(|[sm, decoder, encoder]| Device { sm, decoder, encoder }),
        0..3,
    );
    let models = (any_work(), any_gauge(), any_gauge()).prop_map(|(work, instances, alone)| Model {
        name: "yolo@1".to_owned(),
        work,
        instances,
        alone,
    });
    let models = prop::collection::vec(models, 0..3);
    let rest = (path, prop::array::uniform4(any_number()), memory, devices, models);
    (any_load(), [any_number(), any_number()], rest)
        .prop_map(
            |(
                (frames, stills, [decode, encode, model_wait], room),
                [seconds, sessions],
                (path, four, memory, devices, models),
            )| {
                let [runs, batched, hits, misses] = four;
                Window {
                    seconds,
                    is_mixed: false,
                    sessions,
                    frames,
                    stills,
                    decode,
                    models,
                    encode,
                    room,
                    model_wait,
                    batches: Batches { runs, frames: batched },
                    path,
                    cache: Cache { hits, misses },
                    memory,
                    devices,
                    refused_for_load: 0.0,
                    refused_for_memory: 0.0,
                }
            },
        )
        .boxed()
}

/// What a finding names as if it were a key of the configuration, and is none.
fn unknown_keys(finding: &Finding) -> Vec<&str> {
    const MANIFEST: [&str; 2] = ["run.instances", "batching.max_delay_ms"];
    const ELSEWHERE: [&str; 4] = ["net.core.rmem_max", "net.core.wmem_max", "ice_servers", "options: return"];
    let mut known: Vec<String> = [&MANIFEST[..], &ELSEWHERE].concat().into_iter().map(str::to_owned).collect();
    let mut section = "";
    for line in include_str!("../../../saccade.example.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ") {
            known.push(format!("{section}.{key}"));
        }
    }
    let setting = finding.setting.strip_prefix("manifest: ").unwrap_or(finding.setting);
    let words = finding.advice.split(|one: char| !(one.is_ascii_alphanumeric() || one == '_' || one == '.'));
    let words = words.map(|word| word.trim_end_matches('.')).filter(|word| word.contains('.'));
    words.chain([setting]).filter(|word| !known.iter().any(|key| key == word)).collect()
}

/// What is found of a code, and how bad it is.
fn severity(window: &Window, code: Code) -> Option<Severity> {
    findings(window).into_iter().find(|finding| finding.code == code).map(|finding| finding.severity)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_comes_findings_are_in_order_and_their_numbers_are_numbers(window in any_window()) {
        let found = findings(&window);
        prop_assert!(found.is_sorted_by(|a, b| a.severity >= b.severity));
        for finding in &found {
            prop_assert!(finding.evidence.iter().all(|(_, value)| value.is_finite() && *value >= 0.0), "{finding:?}");
            prop_assert!(!finding.evidence.is_empty() && !finding.setting.is_empty() && finding.message.ends_with('.'));
            prop_assert!(finding.advice.ends_with('.'));
            let unknown = unknown_keys(finding);
            prop_assert!(unknown.is_empty(), "no key of the configuration: {unknown:?}");
        }
        let mut codes: Vec<_> = found.iter().map(|finding| finding.code).filter(|code| *code != Code::MemoryNearLimit).collect();
        codes.sort_unstable();
        let all = codes.len();
        codes.dedup();
        prop_assert_eq!(codes.len(), all, "each is said once");
    }

    #[test]
    fn more_work_for_a_stage_never_takes_its_finding_away(window in any_window(), more in 0.0..500.0_f64, lost in 0.0..500.0_f64) {
        for code in [Code::DecodeBound, Code::InferenceBound, Code::EncodeBound] {
            let before = severity(&window, code);
            let mut loaded = window.clone();
            let (stage, drops) = match code {
                Code::DecodeBound => (&mut loaded.decode, &mut loaded.frames.undecoded),
                Code::InferenceBound => match loaded.models.first_mut() {
                    Some(model) => {
                        // Or else the other models would wait longer for a processor.
                        let used = &mut loaded.room.models_use;
                        *used = used.map(|used| sane(used) + share_of(more, sane(window.seconds)));
                        (&mut model.work, &mut loaded.frames.unseen)
                    }
                    None => continue,
                },
                _ => (&mut loaded.encode, &mut loaded.frames.unreturned),
            };
            stage.seconds = sane(stage.seconds) + more;
            *drops = sane(*drops) + lost;
            prop_assert!(severity(&loaded, code) >= before, "{code}: {before:?}, then {:?}", severity(&loaded, code));
        }
    }

    #[test]
    fn more_loss_or_less_memory_never_takes_a_finding_away(window in any_window(), more in 0.0..1000.0_f64) {
        let mut worse = window.clone();
        worse.path.inward.lost = sane(worse.path.inward.lost) + more;
        prop_assert!(severity(&worse, Code::NetworkLoss) >= severity(&window, Code::NetworkLoss));
        let mut worse = window.clone();
        for memory in &mut worse.memory {
            memory.used = sane(memory.used) + more;
        }
        prop_assert!(severity(&worse, Code::MemoryNearLimit) >= severity(&window, Code::MemoryNearLimit));
        let mut worse = window.clone();
        for memory in &mut worse.memory {
            memory.level = memory.level.map(|level| sane(level) + more);
        }
        prop_assert!(severity(&worse, Code::MemoryNearLimit) >= severity(&window, Code::MemoryNearLimit));
        let mut worse = window.clone();
        worse.cache.misses = sane(worse.cache.misses) + more;
        prop_assert!(severity(&worse, Code::CacheUseless) >= severity(&window, Code::CacheUseless));
    }

    #[test]
    fn nothing_is_named_whose_evidence_is_absent(window in any_window()) {
        let absent = |code: Code| severity(&without(&window, code), code).is_none();
        for code in Code::ALL {
            prop_assert!(absent(code), "{code} in {:?}", without(&window, code));
        }
    }

    #[test]
    fn a_load_that_is_served_is_no_bottleneck(load in 0.0..0.7_f64, fps in 1.0..60.0_f64, sessions in 1.0..100.0_f64, seconds in 2.0..60.0_f64, company in 1.0..8.0_f64) {
        let (offered, busy) = (fps * sessions * seconds, load * seconds);
        let window = Window {
            seconds,
            sessions,
            frames: Frames { offered, ..Frames::default() },
            decode: Work { seconds: busy, count: offered },
            encode: Work { seconds: busy, count: offered },
            models: vec![Model {
                name: "yolo@1".to_owned(),
                work: Work { seconds: busy, count: offered / company },
                instances: Some(1.0),
                alone: Some(busy * company / offered),
            }],
            batches: Batches { runs: offered / company, frames: offered },
            room: Room { processors: Some(4.0), busy: Some(load), codec_threads: Some(4.0), ..Room::default() },
            model_wait: Work { seconds: busy, count: offered },
            path: Path {
                inward: Packets { all: 10.0 * offered, lost: 0.0 },
                outward: Packets { all: 10.0 * offered, lost: offered * 0.01 },
                ..Path::default()
            },
            memory: vec![host(load, Some(0.0))],
            ..Window::default()
        };
        prop_assert_eq!(codes(&window), []);
    }
}

/// A window in which nothing speaks for this bottleneck.
fn without(window: &Window, code: Code) -> Window {
    let mut window = window.clone();
    match code {
        Code::MemoryNearLimit => {
            for memory in &mut window.memory {
                (memory.used, memory.level) = (memory.used.min(0.79), Some(0.0));
            }
        }
        Code::InferenceBound => {
            window.models.clear();
            window.room.models_use = None;
            window.devices.iter_mut().for_each(|device| device.sm = None);
        }
        Code::DecodeBound => {
            (window.decode, window.stills.decode_seconds, window.room.stills_use) = (Work::default(), 0.0, None);
            window.devices.iter_mut().for_each(|device| device.decoder = None);
        }
        Code::EncodeBound => {
            window.encode = Work::default();
            window.devices.iter_mut().for_each(|device| device.encoder = None);
        }
        Code::NetworkLoss => {
            (window.path.inward.lost, window.path.outward.lost) = (0.0, 0.0);
            (window.frames.broken, window.frames.congested) = (0.0, 0.0);
        }
        Code::GpuIdle => window.devices.clear(),
        Code::BatchWait => window.batches.frames = window.batches.runs,
        Code::CacheUseless => window.cache.misses = 0.0,
    }
    window
}
