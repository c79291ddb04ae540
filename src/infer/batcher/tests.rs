use super::*;
use crate::clock;

const MS: Duration = Duration::from_millis(1);

fn batcher(buckets: &[(usize, u32)], instances: usize) -> Batcher {
    let buckets: Vec<_> = buckets.iter().map(|(size, time)| (*size, *time * MS)).collect();
    let mut batcher = Batcher::new(Costs::new(&buckets), Duration::from_secs(1));
    (0..instances).for_each(|_| batcher.add_instance());
    batcher
}

/// A batcher of one instance, and what waits: for each slot, how long it has.
fn waiting(buckets: &[(usize, u32)], lefts: &[u32]) -> (Batcher, Instant) {
    let (mut batcher, now) = (batcher(buckets, 1), clock::now());
    for (key, left) in lefts.iter().enumerate() {
        batcher.join(key, Priority::Normal);
        batcher.submit(now, key, now + *left * MS);
    }
    (batcher, now)
}

/// The bucket and the slots of the next batch.
fn run(batcher: &mut Batcher, now: Instant, instance: usize) -> (usize, Vec<Key>) {
    let Some(Choice::Run { bucket }) = batcher.next(now, instance) else { panic!("no batch") };
    let keys = batcher.members().iter().map(|member| match member {
        Member::Slot(key) => *key,
        Member::Call => Key::MAX,
    });
    (bucket, keys.collect())
}

#[test]
fn the_earliest_deadline_goes_first_whatever_the_order() {
    let (mut batcher, now) = waiting(&[(1, 10)], &[50, 20, 90]);
    let order: Vec<_> = (0..3)
        .map(|_| {
            let (bucket, keys) = run(&mut batcher, now, 0);
            batcher.finish_run(0, None);
            (bucket, keys[0])
        })
        .collect();
    assert_eq!(order, [(1, 1), (1, 0), (1, 2)]);
    assert_eq!(batcher.next(now, 0), None);
}

#[test]
fn pictures_overflow_only_while_no_instance_is_idle_and_teach_nothing() {
    let (mut batcher, now) = waiting(&[(1, 10)], &[50]);
    batcher.call(now);
    assert_eq!(batcher.next_overflow(now), None, "an instance is idle");
    assert_eq!(run(&mut batcher, now, 0), (1, vec![0]));
    batcher.submit(now, 0, now + 90 * MS);
    assert_eq!(batcher.next_overflow(now), Some(Choice::Run { bucket: 1 }));
    assert_eq!(batcher.members(), [Member::Call]);
    assert_eq!(batcher.next_overflow(now), None, "frames are the instances'");
    batcher.finish_run(1, Some((1, 500 * MS)));
    assert_eq!(batcher.costs().single(), 10 * MS, "it ran with what was left of the processors");
}

#[test]
fn a_frame_that_cannot_make_it_is_late_and_one_that_just_can_is_not() {
    let (mut batcher, now) = waiting(&[(1, 20)], &[20]);
    assert_eq!(run(&mut batcher, now, 0), (1, vec![0]));
    let (mut batcher, now) = waiting(&[(1, 20)], &[19]);
    assert_eq!(batcher.next(now, 0), Some(Choice::Late(0)));
    assert_eq!(batcher.next(now, 0), None, "it is gone");
}

#[test]
fn a_slot_without_results_for_a_second_is_served_late() {
    let (mut batcher, start) = (batcher(&[(1, 500)], 1), clock::now());
    batcher.join(0, Priority::Normal);
    for lost in [start, start + STARVATION - MS] {
        batcher.submit(lost, 0, lost + 10 * MS);
        assert_eq!(batcher.next(lost, 0), Some(Choice::Late(0)));
    }
    let then = start + STARVATION;
    batcher.submit(then, 0, then + 10 * MS);
    assert_eq!(run(&mut batcher, then, 0), (1, vec![0]));
    // A frame that fails is no result.
    batcher.finish_run(0, None);
    batcher.finish_frame(then, 0, false);
    batcher.submit(then, 0, then + 10 * MS);
    assert_eq!(run(&mut batcher, then, 0), (1, vec![0]));
    batcher.finish_run(0, None);
    batcher.finish_frame(then, 0, true);
    batcher.submit(then, 0, then + 10 * MS);
    assert_eq!(batcher.next(then, 0), Some(Choice::Late(0)));
}

#[test]
fn a_slot_is_not_starving_while_its_frames_come_seldom_or_one_is_in_work() {
    let (mut batcher, start) = (batcher(&[(1, 50)], 1), clock::now());
    batcher.join(0, Priority::Normal);
    for second in [0, 5, 10] {
        let now = start + second * STARVATION;
        batcher.submit(now, 0, now + 40 * MS);
        assert_eq!(batcher.next(now, 0), Some(Choice::Late(0)), "after {second} s");
        batcher.submit(now, 0, now + 50 * MS);
        assert_eq!(run(&mut batcher, now, 0), (1, vec![0]));
        batcher.submit(now, 0, now + 100 * MS);
        batcher.submit(now, 0, now + 100 * MS);
        batcher.finish_run(0, None);
        batcher.finish_frame(now, 0, true);
        assert_eq!(batcher.next(now + 2 * STARVATION, 0), Some(Choice::Late(0)), "replaced while one was in work");
        batcher.submit(now, 0, now + 100 * MS);
        run(&mut batcher, now, 0);
        batcher.finish_run(0, None);
        batcher.finish_frame(now, 0, true);
    }
}

#[test]
fn the_next_frame_of_a_slot_waits_until_the_one_in_work_is_done() {
    let (mut batcher, now) = waiting(&[(1, 10)], &[100]);
    run(&mut batcher, now, 0);
    batcher.submit(now, 0, now + 100 * MS);
    batcher.finish_run(0, None);
    assert_eq!(batcher.next(now, 0), None);
    batcher.finish_frame(now, 0, true);
    assert_eq!(run(&mut batcher, now, 0), (1, vec![0]));
    batcher.leave(0);
    batcher.finish_frame(now, 0, true);
    assert_eq!(batcher.next(now, 0), None);
}

#[test]
fn what_waits_is_shared_between_idle_instances() {
    let now = clock::now();
    let mut batcher = batcher(&[(1, 10), (2, 12), (4, 16)], 2);
    for key in 0..4 {
        batcher.join(key, Priority::Normal);
        batcher.submit(now, key, now + 200 * MS);
    }
    assert_eq!(run(&mut batcher, now, 0), (2, vec![0, 1]));
    assert!(batcher.has_more());
    assert_eq!(run(&mut batcher, now, 1), (2, vec![2, 3]));
    assert!(!batcher.has_more());
}

#[test]
fn padding_is_used_only_where_it_is_cheaper() {
    let next = |buckets: &[(usize, u32)], waiting_now: usize| {
        let (mut batcher, now) = waiting(buckets, &vec![500; waiting_now]);
        let (bucket, keys) = run(&mut batcher, now, 0);
        (bucket, keys.len())
    };
    assert_eq!(next(&[(1, 10), (2, 18), (4, 20)], 3), (4, 3));
    assert_eq!(next(&[(1, 10), (2, 15), (4, 28)], 3), (2, 2), "9.3 ms a frame against 7.5");
    assert_eq!(next(&[(1, 10), (2, 15), (4, 28)], 1), (1, 1));
    assert_eq!(next(&[(1, 10), (2, 19), (4, 40)], 4), (1, 1), "less than a twentieth is no gain");
}

#[test]
fn a_batch_takes_no_longer_than_its_tightest_member_and_the_delay_allow() {
    let buckets = [(1, 10), (2, 14), (4, 20), (8, 30)];
    let (mut tight, now) = waiting(&buckets, &[20, 500, 500, 500, 500, 500, 500, 500]);
    assert_eq!(run(&mut tight, now, 0), (4, vec![0, 1, 2, 3]));
    let (mut batcher, now) = waiting(&buckets, &[500; 8]);
    batcher.max_delay = 9 * MS;
    assert_eq!(run(&mut batcher, now, 0).0, 2);
    let (mut alone, now) = waiting(&buckets, &[500; 8]);
    alone.max_delay = Duration::ZERO;
    assert_eq!(run(&mut alone, now, 0).0, 1);
}

#[test]
fn a_bucket_that_fails_is_not_used_again() {
    let (mut batcher, now) = waiting(&[(1, 10), (2, 12), (4, 14), (8, 16)], &[500; 8]);
    batcher.give_up(4);
    assert_eq!(run(&mut batcher, now, 0).0, 2);
    batcher.give_up(1);
    assert_eq!(run(&mut batcher, now, 1).0, 1);
}

#[test]
fn buckets_that_are_not_run_follow_those_that_are() {
    let mut costs = Costs::new(&[(1, 10 * MS), (4, 30 * MS)]);
    (0..200).for_each(|_| costs.update(1, 20 * MS));
    assert!(costs.of(4).abs_diff(60 * MS) < 2 * MS, "{costs:?}");
    // A bucket that is slower than it was measured is found to be so, and not for ever.
    (0..20).for_each(|_| costs.update(4, 200 * MS));
    assert!(costs.of(4) > 150 * MS, "{costs:?}");
    (0..200).for_each(|_| costs.update(1, 20 * MS));
    assert!(costs.of(4) < 70 * MS, "{costs:?}");
}
