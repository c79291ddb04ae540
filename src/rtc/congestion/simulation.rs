//! A sender of video over a path with a queue, in steps of a millisecond.

use std::collections::VecDeque;

use super::*;

const FPS: u64 = 30;
/// Milliseconds from one feedback message to the next, as Chromium has it.
const FEEDBACK: u64 = 50;
const PACKET: usize = 1_200;
/// Share of the rate that video takes, as of `encode::rate`.
const SHARE: f64 = 0.85;

/// What the path is like at a time.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// Bits a second that it carries.
    carries: f64,
    /// Share of packets that it loses whatever is sent.
    loses: f64,
    /// One way.
    delay: Duration,
    /// Bytes that its queue holds.
    holds: usize,
}

impl Path {
    const fn of(carries: f64) -> Self {
        Self { carries, loses: 0.0, delay: Duration::from_millis(25), holds: 200_000 }
    }
}

/// What is seen of each second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Bits that arrived.
    arrived: f64,
    /// Frames that were sent.
    frames: u64,
    /// Longest time from a frame's making to its last packet's arrival, in seconds.
    latency: f64,
    /// Bits a second that the controller gives, at the end.
    rate: f64,
}

struct InFlight {
    id: u64,
    sent: Instant,
    arrives: Duration,
    bytes: usize,
    lost: bool,
    made: Duration,
}

/// Sends for so many seconds at most `wanted` bits a second of video over a path that changes.
fn send(seconds: u64, wanted: f64, path: impl Fn(u64) -> Path) -> Vec<Second> {
    let start = crate::clock::now();
    let mut controller = Controller::new(Config { start: 1.5e6, min: 1e5, max: 12e6 });
    let mut flight = Flight::default();
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut uniform = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut seen = vec![Second::default(); seconds as usize];
    let mut under_way: VecDeque<InFlight> = VecDeque::new();
    let mut free_at = Duration::ZERO;
    let mut sequence = 0u16;
    let mut id = 0;
    let mut next_frame = 0;
    let mut feedback: VecDeque<(Duration, Vec<(u64, Report)>)> = VecDeque::new();
    let mut gathered: Vec<(u64, Report)> = Vec::new();
    for millisecond in 0..seconds * 1_000 {
        let at = Duration::from_millis(millisecond);
        let now = start + at;
        let second = &mut seen[(millisecond / 1_000) as usize];
        if millisecond * FPS / 1_000 >= next_frame {
            next_frame += 1;
            let first = next_frame == 1;
            if flight.has_room(now) {
                second.frames += 1;
                let bits = (controller.rate() * SHARE).min(wanted) / FPS as f64;
                let bits = bits * uniform().mul_add(0.6, 0.7) * if first { 8.0 } else { 1.0 };
                let mut left = (bits / 8.0) as usize + 50;
                while left > 0 {
                    let bytes = left.min(PACKET) + 40;
                    left -= left.min(PACKET);
                    sequence = sequence.wrapping_add(1);
                    id += 1;
                    flight.handle_sent(now, sequence, bytes);
                    let Path { carries, loses, delay, holds } = path(millisecond / 1_000);
                    let from = free_at.max(at);
                    let waits = (from - at).as_secs_f64() * carries / 8.0;
                    let lost = uniform() < loses || waits as usize + bytes > holds;
                    let arrives = from + Duration::from_secs_f64(bytes as f64 * 8.0 / carries);
                    if !lost {
                        free_at = arrives;
                    }
                    let jitter = Duration::from_secs_f64(uniform() * 0.004);
                    under_way.push_back(InFlight {
                        id,
                        sent: now,
                        arrives: arrives + delay + jitter,
                        bytes,
                        lost,
                        made: at,
                    });
                }
            }
        }
        while let Some(first) = under_way.front()
            && first.arrives <= at
        {
            let packet = under_way.pop_front().unwrap();
            if !packet.lost {
                second.arrived += packet.bytes as f64 * 8.0;
                second.latency = second.latency.max((packet.arrives - packet.made).as_secs_f64());
            }
            let arrival = (!packet.lost).then_some(packet.arrives + Duration::from_secs(77));
            gathered
                .push((packet.id, Report { sent: packet.sent, arrival, bytes: packet.bytes, is_lost: packet.lost }));
        }
        if millisecond % FEEDBACK == FEEDBACK - 1 && gathered.iter().any(|(_, report)| report.arrival.is_some()) {
            let back = at + path(millisecond / 1_000).delay;
            feedback.push_back((back, std::mem::take(&mut gathered)));
        }
        while feedback.front().is_some_and(|(due, _)| *due <= at) {
            let (_, reports) = feedback.pop_front().unwrap();
            let newest = reports.last().unwrap().0 as u16;
            let reports: Vec<Report> = reports.into_iter().map(|(_, report)| report).collect();
            controller.handle_reports(now, &reports);
            flight.handle_reports(
                [newest].into_iter(),
                controller.rate(),
                controller.round_trip().unwrap(),
                controller.queue(),
            );
        }
        second.rate = controller.rate();
    }
    seen
}

fn mean(seconds: &[Second], what: impl Fn(&Second) -> f64) -> f64 {
    seconds.iter().map(what).sum::<f64>() / seconds.len() as f64
}

fn worst(seconds: &[Second]) -> f64 {
    seconds.iter().map(|second| second.latency).fold(0.0, f64::max)
}

#[test]
fn a_path_that_narrows_keeps_latency_under_a_second_and_is_used_again() {
    let seen = send(75, 1.5e6, |second| Path::of(if (15..45).contains(&second) { 3e5 } else { 2e6 }));
    let (before, dip, after) = (&seen[5..15], &seen[15..46], &seen[46..]);
    assert!(mean(before, |second| second.arrived) > 1.3e6, "{before:?}");
    assert!(worst(dip) < 1.0, "{dip:?}");
    assert!(worst(&dip[3..]) < 0.5, "{dip:?}");
    assert!(mean(&dip[5..30], |second| second.arrived) > 2.1e5, "{dip:?}");
    let back = after.iter().position(|second| second.arrived > 1.35e6).unwrap();
    assert!(back <= 13, "{back} s: {after:?}");
    assert!(mean(&after[back..], |second| second.arrived) > 1.3e6, "{after:?}");
}

#[test]
fn a_wide_path_is_used_within_seconds() {
    let seen = send(10, 6e6, |_| Path::of(20e6));
    assert!(seen[3].arrived > 5e6, "{seen:?}");
    assert!(seen.iter().all(|second| second.frames >= 29), "{seen:?}");
}

#[test]
fn a_narrow_path_is_filled_with_little_in_its_queue() {
    let seen = send(60, 6e6, |_| Path::of(1e6));
    assert!(mean(&seen[5..], |second| second.arrived) > 7e5, "{seen:?}");
    assert!(worst(&seen[5..]) < 0.4, "{seen:?}");
}

#[test]
fn what_a_radio_link_loses_is_not_taken_for_congestion() {
    for (loss, least) in [(0.01, 1.3e6), (0.04, 1.2e6), (0.2, 2.5e5)] {
        let seen = send(30, 1.5e6, |_| Path { loses: loss, ..Path::of(5e6) });
        assert!(mean(&seen[10..], |second| second.arrived) > least, "{loss}: {seen:?}");
    }
}

#[test]
fn a_queue_that_holds_little_is_noticed_by_its_loss() {
    let seen = send(60, 3e6, |_| Path { holds: 6_000, ..Path::of(1e6) });
    assert!(mean(&seen[10..], |second| second.rate) < 1.5e6, "{seen:?}");
    assert!(mean(&seen[10..], |second| second.arrived) > 6e5, "{seen:?}");
}

#[test]
fn a_longer_way_lowers_the_rate_for_moments_only() {
    let longer = Duration::from_millis(140);
    let seen = send(40, 1.5e6, |second| Path {
        delay: if second < 15 { Path::of(0.0).delay } else { longer },
        ..Path::of(4e6)
    });
    assert!(mean(&seen[28..], |second| second.arrived) > 1.3e6, "{seen:?}");
}

#[test]
fn simple_pictures_do_not_let_the_rate_run_away() {
    let seen = send(30, 2e5, |_| Path::of(5e6));
    assert!(seen[29].rate < 1.6e6, "{seen:?}");
}
