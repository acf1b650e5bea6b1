//! The simulator on the real thing: partitions over consensus, on engines, logs and trees.
//!
//! `EVENKEEL_LONG=1` runs 20,000 seeds; `EVENKEEL_SEEDS=a..b` and `EVENKEEL_SEED=n` choose others. The same
//! seeds run in the binary, which can also print what happens: `evenkeel-sim --seed N --trace`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use evenkeel_sim::replicas::Replicas;
use evenkeel_sim::sweep::sweep;
use evenkeel_sim::{Plan, run};
use evenkeel_storage::memory::seeds;
use std::time::Instant;

const SEEDS: u64 = 300;
const SEEDS_LONG: u64 = 20_000;

#[test]
fn seeds_that_failed_once_pass() {
    let list = include_str!("../failing-seeds.txt");
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seeds: Vec<u64> = lines.map(|line| line.parse().unwrap()).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        println!("seed={seed}");
        run::<Replicas>(&Plan::of(seed)).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn many_seeds_keep_every_promise_and_see_every_event() {
    let long = std::env::var_os("EVENKEEL_LONG").is_some();
    let seeds = seeds(if long { SEEDS_LONG } else { SEEDS });
    let threads = std::thread::available_parallelism().unwrap().get();
    let (count, start) = (seeds.end - seeds.start, Instant::now());
    let sweep = sweep::<Replicas>(seeds, threads, &Plan::default());
    println!("{}", sweep.summary(start.elapsed(), true));
    assert_eq!(sweep.failure, None);
    assert_eq!(sweep.passed, count);
    if count >= SEEDS {
        assert!(sweep.is_good(), "what is named last never happened");
    }
}

#[test]
fn a_seed_runs_the_same_way_again() {
    let digest = || run::<Replicas>(&Plan::of(3)).unwrap().digest;
    assert_eq!(digest(), digest());
}
