//! The simulator on model clusters: one that keeps its promises, and the same with one mistake each, which
//! must be found. What is tested here is the simulator; the models are no store.
//!
//! `EVENKEEL_SEED=n` runs one seed of the right model and prints what happens.

mod model;

use evenkeel_sim::sweep::sweep;
use evenkeel_sim::{Plan, Violation, run};
use model::{Mistake, Model};

const SEEDS: u64 = 48;

type Right = Model<{ Mistake::NONE }>;

#[test]
fn a_right_model_passes_every_seed_and_each_seed_counts() {
    let one = std::env::var("EVENKEEL_SEED").ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let start = std::time::Instant::now();
    let plan = Plan { tracing: one.is_some(), ..Plan::default() };
    let sweep = sweep::<Right>(seeds.clone(), 2, &plan);
    println!("{seeds:?}: {}", sweep.summary(start.elapsed(), true));
    assert_eq!(sweep.failure, None);
    assert_eq!(sweep.passed, seeds.end - seeds.start);
    assert!(sweep.operations >= 1_000 * sweep.passed && sweep.crashes >= 3 * sweep.passed);
    if one.is_some() {
        return;
    }
    for event in [
        "fault: killed process",
        "fault: power cut",
        "fault: several nodes crash",
        "fault: one-way cut",
        "fault: isolated node",
        "fault: stalled core",
        "fault: slow disk",
        "fault: stuck disk",
        "fault: full disk",
        "fault: clock changes its rate",
        "fault: wall clock is set",
        "order: transfer",
        "order: swap",
        "message lost",
        "message twice",
        "write landed in a crash",
        "write lost in a crash",
        "write cut in a crash",
        "write torn in a crash",
        "cut tail",
        "operation done",
        "operation whose condition failed",
        "operation of unknown outcome",
    ] {
        assert!(sweep.seen.of(event) > 0, "{event} never happened in\n{}", sweep.seen);
    }
}

#[test]
fn the_same_seed_runs_the_same_way_and_another_does_not() {
    let digest = |seed| {
        let report = run::<Right>(&Plan::of(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        (report.digest, report.steps, report.virtual_ns, report.seen)
    };
    assert_eq!(digest(5), digest(5));
    assert_ne!(digest(5), digest(6));
}

/// The first violation that a model shows, and how many seeds it took.
fn found<const MISTAKE: u8>() -> (u64, Violation) {
    for seed in 0..10 * SEEDS {
        if let Err(failure) = run::<Model<MISTAKE>>(&Plan::of(seed)) {
            println!("mistake {MISTAKE}, after {} seeds: {failure}", seed + 1);
            return (seed + 1, failure.violation);
        }
    }
    panic!("mistake {MISTAKE} is not found in {} seeds", 10 * SEEDS);
}

#[test]
fn an_answer_before_the_write_is_durable_is_found() {
    let (_, violation) = found::<{ Mistake::ANSWER_BEFORE_DURABLE }>();
    assert!(matches!(violation, Violation::Lost(_) | Violation::NotLinearizable(_)), "{violation}");
}

#[test]
fn a_read_of_what_is_not_durable_is_found() {
    let (_, violation) = found::<{ Mistake::READ_BEFORE_DURABLE }>();
    assert!(
        matches!(violation, Violation::NotLinearizable(_) | Violation::CopiesDiffer { .. }),
        "{violation}"
    );
}

#[test]
fn a_repeated_attempt_that_is_applied_again_is_found() {
    let (_, violation) = found::<{ Mistake::NO_TOKENS }>();
    assert!(matches!(violation, Violation::NotLinearizable(_) | Violation::Unchosen(_)), "{violation}");
}

#[test]
fn a_strong_read_from_a_copy_is_found() {
    let (_, violation) = found::<{ Mistake::STRONG_READ_FROM_COPY }>();
    assert!(matches!(violation, Violation::NotLinearizable(_)), "{violation}");
}

#[test]
fn a_copy_that_differs_is_found() {
    let (_, violation) = found::<{ Mistake::COPY_DIFFERS }>();
    assert!(matches!(violation, Violation::CopiesDiffer { .. } | Violation::Unchosen(_)), "{violation}");
}

#[test]
fn a_core_that_does_not_come_back_is_found() {
    let (_, violation) = found::<{ Mistake::NO_RECOVERY }>();
    assert!(matches!(violation, Violation::NoRecovery { .. }), "{violation}");
}

#[test]
fn an_assertion_that_fails_is_a_violation_of_its_seed() {
    let (_, violation) = found::<{ Mistake::PANIC }>();
    assert!(matches!(&violation, Violation::Panic(said) if said == "slot 40 is too much"), "{violation}");
}

#[test]
fn two_cores_that_serve_at_once_are_found() {
    let (_, violation) = found::<{ Mistake::ALL_SERVE }>();
    assert!(matches!(violation, Violation::TwoServe { .. }), "{violation}");
}

#[test]
fn a_log_that_is_believed_before_it_is_synced_is_found() {
    let (_, violation) = found::<{ Mistake::NO_SYNC_AT_START }>();
    let lost = matches!(violation, Violation::Lost(_) | Violation::NotLinearizable(_));
    assert!(lost || matches!(violation, Violation::CopiesDiffer { .. }), "{violation}");
}

#[test]
fn a_sweep_names_what_failed_last_and_what_never_happened() {
    let wrong = sweep::<Model<{ Mistake::ALL_SERVE }>>(7..100, 2, &Plan::default());
    let summary = wrong.summary(std::time::Duration::from_secs(1), true);
    let last = summary.lines().last().unwrap();
    assert!(last.starts_with("seed=7: lease exclusion"), "{summary}");
    assert!(summary.contains("never happened: ") && summary.contains("snapshot install"), "{summary}");
    assert!(!wrong.is_good());
    let right = sweep::<Right>(0..1, 1, &Plan::default());
    assert!(right.failure.is_none() && !right.is_good(), "a model swaps no members");
}
