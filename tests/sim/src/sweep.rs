//! Many seeds, on as many threads as there are cores: each seed in one of them.

use crate::cluster::Core;
use crate::run::{Plan, Report, run};
use crate::seen::Counts;
use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// What a range of seeds showed.
#[derive(Clone, Default, Debug)]
pub struct Sweep {
    /// Seeds that passed.
    pub passed: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Steps of the simulation.
    pub steps: u64,
    /// Virtual time that passed.
    pub virtual_ns: u64,
    /// What happened, by name.
    pub seen: Counts,
    /// The least seed that failed, and why. No seed begins after one has failed.
    pub failure: Option<(u64, String)>,
}

/// Runs a range of seeds, each by this plan but for its seed.
pub fn sweep<C: Core>(seeds: Range<u64>, threads: usize, plan: &Plan) -> Sweep {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (results, received) = mpsc::channel();
    let mut sweep = Sweep::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (results, next, failed, end) = (results.clone(), &next, &failed, seeds.end);
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let plan = Plan { seed, ..plan.clone() };
                    let result = run::<C>(&plan).map_err(|failure| failure.to_string());
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    // The receiver waits for all threads, so it is there.
                    let _ = results.send((seed, result));
                }
            });
        }
        drop(results);
        for (seed, result) in received {
            sweep.add(seed, result);
        }
    });
    sweep
}

impl Sweep {
    fn add(&mut self, seed: u64, result: Result<Report, String>) {
        match result {
            Ok(report) => {
                self.passed += 1;
                self.operations += report.operations;
                self.crashes += report.crashes;
                self.steps += report.steps;
                self.virtual_ns += report.virtual_ns;
                self.seen.add(&report.seen);
            }
            Err(failure) => {
                let least = self.failure.take().filter(|(other, _)| *other < seed);
                self.failure = Some(least.unwrap_or((seed, failure)));
            }
        }
    }

    /// Whether no seed failed, and nothing required was missing.
    pub fn is_good(&self) -> bool {
        self.failure.is_none() && self.seen.missing().is_empty()
    }

    /// For a person to read; what is wrong comes last. What never happened is of interest in a range only.
    pub fn summary(&self, taken: Duration, is_range: bool) -> String {
        let Sweep { passed, operations, crashes, steps, .. } = self;
        let virtual_s = self.virtual_ns / 1_000_000_000;
        let per_second = *passed as f64 / taken.as_secs_f64().max(1e-9);
        let mut text = format!(
            "{passed} seeds passed, {per_second:.1} a second: {operations} operations, {crashes} crashes, \
             {steps} steps, {virtual_s} virtual seconds\n{}",
            self.seen
        );
        let missing = self.seen.missing();
        if is_range && !missing.is_empty() {
            let _ = writeln!(text, "never happened: {}", missing.join(", "));
        }
        if let Some((_, failure)) = &self.failure {
            let _ = writeln!(text, "{failure}");
        }
        text
    }
}
