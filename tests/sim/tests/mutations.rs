//! The mutation score of the simulator: each known mistake is switched on, and must be found.
//!
//! The usual run tries the seed first that is known to find it. `EVENKEEL_LONG=1` looks from seed 0 on and
//! prints how many each one took, which is the table in `docs/internals/consensus.md`; `EVENKEEL_MISTAKE=n`
//! looks for one mistake only.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use evenkeel_sim::mutation::{Row, TABLE};
use evenkeel_sim::replicas::Replicas;
use evenkeel_sim::{Plan, run};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

/// More than any of them takes.
const SEEDS_MAX: u64 = 1_000;

/// The first seed that finds a mistake, and what it says.
fn find(row: &'static Row, long: bool) -> Option<(u64, String)> {
    let known = (!long).then_some(row.seed);
    known.into_iter().chain(0..SEEDS_MAX).find_map(|seed| {
        let plan = Plan { mistakes: &row.mistake, ..Plan::of(seed) };
        Some((seed, run::<Replicas>(&plan).err()?.violation.to_string()))
    })
}

#[test]
fn every_mistake_is_found() {
    let long = std::env::var_os("EVENKEEL_LONG").is_some();
    let only: Option<usize> = std::env::var("EVENKEEL_MISTAKE").ok().map(|text| text.parse().unwrap());
    let rows: Vec<usize> = (0..TABLE.len()).filter(|at| only.is_none_or(|only| only == *at)).collect();
    let threads = std::thread::available_parallelism().unwrap().get();
    let (next, (results, received)) = (AtomicUsize::new(0), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (results, next, rows) = (results.clone(), &next, &rows);
            scope.spawn(move || {
                while let Some(&at) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let found = find(&TABLE[at], long);
                    let mistake = TABLE[at].mistake[0].0;
                    match &found {
                        Some((seed, said)) => {
                            println!("{at} {mistake}: seed {seed}, {:?}: {said}", start.elapsed());
                        }
                        None => println!("{at} {mistake}: not found, {:?}", start.elapsed()),
                    }
                    results.send((mistake, found.is_some())).unwrap();
                }
            });
        }
    });
    drop(results);
    let missed: Vec<&str> = received.into_iter().filter(|found| !found.1).map(|found| found.0).collect();
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}
