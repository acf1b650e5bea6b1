//! Random operations, power cuts, kills, errors, damage and restarts against a model, from a seed.
//!
//! A thousand seeds run with all tests, and a hundred thousand with `EVENKEEL_LONG=1`; `EVENKEEL_SEED` and
//! `EVENKEEL_SEEDS` choose others.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod facts;
mod loads;
mod making;
mod marks;
mod mutations;
mod sightings;
mod splits;
mod weather;
mod world;

use evenkeel_storage::{Mistake, memory::seeds};
use sightings::Sightings;
use std::{
    ops::Range,
    panic,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use weather::Weather;
use world::run;

const SEEDS: u64 = 1_000;
const SEEDS_LONG: u64 = 100_000;

/// A run whose panics are failures like others.
fn caught(seed: u64, weather: Weather, mistakes: &'static [Mistake]) -> Result<Sightings, String> {
    panic::catch_unwind(|| run(seed, weather, mistakes)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

/// Plays the seeds on all cores: what they saw, and those that failed.
fn play(seeds: Range<u64>) -> (Sightings, Vec<String>) {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new((Sightings::default(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let seen = caught(seed, Weather::of(seed), &[]);
            let mut all = all.lock().expect("nothing panics with it");
            match seen {
                Ok(mut seen) => {
                    seen.runs_with_everything = seen.saw_everything().into();
                    all.0 += seen;
                }
                Err(error) => all.1.push(format!("seed={seed}: {error}")),
            }
            if seed % 10_000 == 9_999 {
                println!("seed={seed} done, {} failed", all.1.len());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    all.into_inner().expect("nothing panics with it")
}

#[test]
fn random_operations_crashes_errors_and_damage_keep_to_the_model() {
    let is_long = std::env::var_os("EVENKEEL_LONG").is_some_and(|value| value == "1");
    let seeds = seeds(if is_long { SEEDS_LONG } else { SEEDS });
    let (seen, failed) = play(seeds.clone());
    println!("seeds {seeds:?}: {seen:?}");
    assert!(failed.is_empty(), "{} of {seeds:?} failed: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
    if seeds.end - seeds.start >= 1_000 {
        assert_eq!(seen.missing(), [""; 0], "no run saw these");
    }
}
