#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::clock;

const CONFIG: Config = Config { instances: 1, smaller_input: true };
const MS: Duration = Duration::from_millis(1);

const GOOD: Sample = Sample::Inferred { service: Duration::from_millis(5), slack: 0.8 };
const LATE: Sample = Sample::Inferred { service: Duration::from_millis(5), slack: -0.1 };

/// Gives a ladder one sample each 30 ms until it changes, for at most `limit`. Says when that was.
fn feed(ladder: &mut Ladder, start: Instant, limit: Duration, samples: &[Sample]) -> Option<Instant> {
    let mut now = start;
    for sample in samples.iter().cycle() {
        now += 30 * MS;
        if now > start + limit {
            return None;
        }
        let before = ladder.at;
        ladder.handle(now, *sample);
        if ladder.at != before {
            return Some(now);
        }
    }
    None
}

#[test]
fn rungs_are_in_order_and_give_up_more_and_more() {
    let all = rungs(true);
    assert_eq!(all[0], Rung::NONE);
    let given_up = |rung: &Rung| rung.names().count();
    assert!(all.windows(2).all(|pair| given_up(&pair[0]) <= given_up(&pair[1]) && pair[0] != pair[1]));
    let top = all.last().unwrap();
    assert!(top.names().eq(STEPS));
    assert_eq!(
        top.within(Can { skip_inference: false, fill_in: false, return_less: false }).steps(),
        [false, true, false, false]
    );
    assert!(rungs(false).iter().all(|rung| !rung.smaller_input));
}

#[test]
fn lost_and_late_frames_take_it_up_and_calm_brings_it_down() {
    let start = clock::now();
    for bad in [LATE, Sample::Superseded, Sample::Late, Sample::NotReturned] {
        let mut ladder = Ladder::new(start, CONFIG);
        let up = feed(&mut ladder, start, Duration::from_secs(1), &[bad]).expect("goes up within a second");
        assert!(ladder.rung().fill_in);
        let soon = up + SETTLE + PATIENCE - 100 * MS;
        assert_eq!(feed(&mut ladder, up, soon - up, &[GOOD]), None, "it comes down too soon");
        assert!(feed(&mut ladder, soon, 4 * WINDOW, &[GOOD]).is_some(), "{bad:?}");
    }
}

#[test]
fn a_hiccup_of_a_few_frames_changes_nothing() {
    let start = clock::now();
    let (mut ladder, mut now) = (Ladder::new(start, CONFIG), start);
    for frame in 0..3_000 {
        now += 33 * MS;
        // Four frames in a row, once in three seconds.
        let sample = if frame % 90 < 4 { Sample::Superseded } else { GOOD };
        assert!(!ladder.handle(now, sample), "after {:?}", now - start);
    }
}

#[test]
fn the_tracker_fills_in_first_and_then_the_model_is_asked_less_often() {
    let start = clock::now();
    let mut ladder = Ladder::new(start, CONFIG);
    let busy = [GOOD, Sample::Superseded, Sample::Superseded];
    let up = feed(&mut ladder, start, Duration::from_secs(1), &busy).unwrap();
    let fills_in = Rung { fill_in: true, ..Rung::NONE };
    assert_eq!(ladder.rung(), fills_in);
    assert_eq!(feed(&mut ladder, up, Duration::from_secs(60), &busy), None, "what is filled in is not lost");
    // Where one in three is in time, one in three is asked.
    let mut ladder = Ladder::new(start, CONFIG);
    let later = feed(&mut ladder, start, Duration::from_secs(2), &[GOOD, Sample::Late, Sample::Late]);
    assert_eq!(ladder.rung(), Rung { infer_every: 3, ..fills_in });
    feed(&mut ladder, later.unwrap(), Duration::from_secs(2), &[Sample::Late]).unwrap();
    assert_eq!(ladder.rung(), Rung { infer_every: 6, ..fills_in }, "other steps are taken one at a time");
}

#[test]
fn a_step_down_that_fails_makes_the_next_one_wait_longer() {
    let start = clock::now();
    let mut ladder = Ladder::new(start, CONFIG);
    let mut now = feed(&mut ladder, start, Duration::from_secs(1), &[LATE]).unwrap();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let down = feed(&mut ladder, now, Duration::from_secs(200), &[GOOD]).unwrap();
        waits.push(down - now);
        now = feed(&mut ladder, down, Duration::from_secs(3), &[LATE]).unwrap();
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0].mul_f64(1.6)), "{waits:?}");
}

#[test]
fn it_stays_where_the_model_would_not_keep_up_below() {
    let start = clock::now();
    let mut ladder = Ladder::new(start, CONFIG);
    let up = feed(&mut ladder, start, Duration::from_secs(1), &[GOOD, Sample::Late, Sample::Late]).unwrap();
    assert_eq!(ladder.rung().infer_every, 3);
    // One frame each 30 ms: half as many again would keep it busy for all of the time.
    let busy = Sample::Inferred { service: 20 * MS, slack: 0.8 };
    assert_eq!(feed(&mut ladder, up, Duration::from_secs(60), &[busy]), None);
    assert!(feed(&mut ladder, up + Duration::from_secs(60), Duration::from_secs(60), &[GOOD]).is_some());
}

#[test]
fn it_ends_at_the_top() {
    let start = clock::now();
    let (mut ladder, mut now) = (Ladder::new(start, CONFIG), start);
    while ladder.at + 1 < ladder.rungs.len() {
        now = feed(&mut ladder, now, Duration::from_secs(3), &[LATE]).unwrap();
    }
    assert_eq!((ladder.height(), feed(&mut ladder, now, Duration::from_secs(3), &[LATE])), (1.0, None));
}

/// One session of a simulated server.
#[derive(Clone)]
struct Session {
    /// Offset of its frames.
    phase: u32,
    frames: u32,
    /// Arrival of the frame that waits for the model, and for the encoder.
    waiting: [Option<u32>; 2],
}

/// A server with one model and one encoder, both shared by sessions of 30 frames a second with a budget of 200 ms, in
/// steps of one millisecond.
struct World {
    start: Instant,
    now: u32,
    ladder: Ladder,
    /// When the ladder changed, and to which rung.
    changes: Vec<(u32, usize)>,
    sessions: Vec<Session>,
    /// What model and encoder do: until when, and since when that frame waits.
    busy: [Option<(f32, u32)>; 2],
    answered: u32,
    late: u32,
}

impl World {
    const BUDGET: u32 = 200;

    fn new(sessions: u32) -> Self {
        let start = clock::now();
        let session = |index| Session { phase: index * 7 % 33, frames: 0, waiting: [None; 2] };
        Self {
            start,
            now: 0,
            ladder: Ladder::new(start, Config { smaller_input: false, ..CONFIG }),
            changes: Vec::new(),
            sessions: (0..sessions).map(session).collect(),
            busy: [None; 2],
            answered: 0,
            late: 0,
        }
    }

    fn sample(&mut self, sample: Sample) {
        let before = self.ladder.at;
        self.ladder.handle(self.start + self.now * MS, sample);
        if self.ladder.at != before {
            self.changes.push((self.now, self.ladder.at));
        }
    }

    /// A millisecond passes; `service` is how many the model and the encoder need for a frame.
    fn tick(&mut self, active: usize, service: [f32; 2]) {
        self.now += 1;
        for index in 0..active {
            let session = &mut self.sessions[index];
            if !(self.now + session.phase).is_multiple_of(33) {
                continue;
            }
            session.frames += 1;
            let rung = self.ladder.rung();
            for (stage, every) in [rung.infer_every, rung.return_every].into_iter().enumerate() {
                let session = &mut self.sessions[index];
                if session.frames.is_multiple_of(every) && session.waiting[stage].replace(self.now).is_some() {
                    self.sample([Sample::Superseded, Sample::NotReturned][stage]);
                }
            }
        }
        for stage in 0..2 {
            if let Some((until, since)) = self.busy[stage]
                && until <= self.now as f32
            {
                self.busy[stage] = None;
                let age = self.now - since;
                let slack = 1.0 - age as f32 / Self::BUDGET as f32;
                self.answered += 1;
                self.late += u32::from(slack < 0.0);
                let service = Duration::from_secs_f32(service[stage] / 1000.0);
                self.sample([Sample::Inferred { service, slack }, Sample::Returned][stage]);
            }
            if self.busy[stage].is_none() {
                let oldest =
                    (0..self.sessions.len()).filter_map(|index| Some((self.sessions[index].waiting[stage]?, index)));
                if let Some((since, index)) = oldest.min() {
                    self.sessions[index].waiting[stage] = None;
                    self.busy[stage] = Some((self.now as f32 + service[stage], since));
                }
            }
        }
    }

    /// Changes of the rung between two seconds.
    fn changes(&self, from: u32, to: u32) -> usize {
        self.changes.iter().filter(|(at, _)| (from * 1000..to * 1000).contains(at)).count()
    }
}

#[test]
fn a_step_of_load_is_followed_without_oscillation() {
    // Four sessions keep the model busy for 80 % of the time.
    let mut world = World::new(12);
    let service = [6.6, 2.0];
    while world.now < 30_000 {
        world.tick(4, service);
    }
    assert_eq!(world.changes(0, 30), 0, "it gives nothing up where there is room");
    while world.now < 150_000 {
        world.tick(12, service);
    }
    println!("{:?}", world.changes);
    assert!(world.ladder.at > 0);
    assert!(world.changes(33, 60) <= 2 && world.changes(60, 150) <= 2, "{:?}", world.changes);
    while world.now < 210_000 {
        world.tick(4, service);
    }
    println!("{:?}", world.changes);
    assert_eq!(world.ladder.at, 0, "it recovers within a minute");
    assert_eq!(world.changes(180, 210), 0);
    assert!(world.late * 100 < world.answered, "{} of {} late", world.late, world.answered);
}

#[test]
fn a_wave_of_load_is_followed_once_a_wave() {
    for period in [10_000.0_f32, 60_000.0] {
        let (mut world, waves) = (World::new(8), 5);
        while (world.now as f32) < period * waves as f32 {
            // From half of what the model bears to twice as much.
            let load = 1.25 - 0.75 * (world.now as f32 / period * std::f32::consts::TAU).cos();
            world.tick(8, [33.0 / 8.0 * load, 1.0]);
        }
        let reversals = reversals(&world.changes);
        println!("period {period}: {reversals}, {:?}, late {} of {}", world.changes, world.late, world.answered);
        assert!(reversals <= 2 * waves, "more than up and down once a wave: {:?}", world.changes);
        assert!(world.late * 50 < world.answered, "{} of {} late", world.late, world.answered);
    }
}

/// How often a ladder turned round.
fn reversals(changes: &[(u32, usize)]) -> usize {
    let rungs: Vec<usize> = std::iter::once(0).chain(changes.iter().map(|(_, at)| *at)).collect();
    let ups: Vec<bool> = rungs.windows(2).map(|pair| pair[1] > pair[0]).collect();
    ups.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

proptest! {
    #[test]
    fn it_never_leaves_the_ladder_and_moves_down_by_one(
        samples in prop::collection::vec((0u8..5, 0u64..200, -2.0f32..2.0, 1u32..120), 1..2_000),
    ) {
        let start = clock::now();
        let (mut ladder, mut now) = (Ladder::new(start, CONFIG), start);
        for (kind, service, slack, gap) in samples {
            now += gap * MS;
            let before = ladder.at;
            let sample = match kind {
                0 => Sample::Inferred { service: Duration::from_millis(service), slack },
                1 => Sample::Superseded,
                2 => Sample::Returned,
                3 => Sample::Late,
                _ => Sample::NotReturned,
            };
            let changed = ladder.handle(now, sample);
            prop_assert!(changed || ladder.at == before);
            prop_assert!(ladder.at < ladder.rungs.len() && ladder.at + 1 >= before);
        }
    }
}
