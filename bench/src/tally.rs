//! What a phase counts: latencies of what succeeded, and everything that did not.
//!
//! Every attempt is counted before it is made and ends as exactly one of a success, an error or a wrong
//! answer; [`Tally::faults`] holds a phase to that.

use crate::machine::Busy;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Slowest latency that is told apart; slower ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Counts of one phase.
#[derive(Debug)]
pub struct Tally {
    latencies: Histogram<u64>,
    attempts: u64,
    errors: u64,
    wrong: u64,
    first_fault: Option<String>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Tally {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Tally {
            latencies: latencies.expect("the bounds are in order and three digits are supported"),
            attempts: 0,
            errors: 0,
            wrong: 0,
            first_fault: None,
        }
    }

    /// An operation begins.
    pub fn attempt(&mut self) {
        self.attempts += 1;
    }

    /// An operation that began then was answered, and rightly.
    pub fn success(&mut self, began: Instant) {
        let ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(ns);
    }

    /// An operation failed.
    pub fn error(&mut self, reason: impl Display) {
        self.errors += 1;
        self.first_fault.get_or_insert_with(|| reason.to_string());
    }

    /// An operation was answered, with something else than what had been put.
    pub fn wrong(&mut self, reason: impl Display) {
        self.wrong += 1;
        self.first_fault.get_or_insert_with(|| reason.to_string());
    }

    /// Operations that succeeded.
    pub fn successes(&self) -> u64 {
        self.latencies.len()
    }

    /// What all operations of a phase together come to.
    pub fn measure(self, took: Duration, busy: Option<Busy>) -> Measured {
        let percentile = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Measured {
            p50_us: percentile(0.50),
            p99_us: percentile(0.99),
            max_us: self.latencies.max() as f64 / 1000.0,
            per_second: self.successes() as f64 / took.as_secs_f64(),
            successes: self.successes(),
            errors: self.errors,
            wrong: self.wrong,
            attempts: self.attempts,
            first_fault: self.first_fault,
            busy,
        }
    }
}

/// The figures of one phase of one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency in microseconds.
    pub p99_us: f64,
    /// Longest latency in microseconds.
    pub max_us: f64,
    /// Successes by the time from the first operation's begin to the last one's end.
    pub per_second: f64,
    /// Operations that succeeded.
    pub successes: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Operations with a wrong answer.
    pub wrong: u64,
    /// Operations begun.
    pub attempts: u64,
    /// The first failure or wrong answer.
    pub first_fault: Option<String>,
    /// How busy the machine was meanwhile.
    pub busy: Option<Busy>,
}

impl Measured {
    /// What makes the figures untrustworthy.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.successes == 0 {
            faults.push("no operation succeeded".to_owned());
        }
        if self.errors + self.wrong > 0 {
            let first = self.first_fault.as_deref().unwrap_or_default();
            faults.push(format!("{} errors, {} wrong answers, first: {first}", self.errors, self.wrong));
        }
        if self.attempts != self.successes + self.errors + self.wrong {
            faults.push(format!("{} operations began, {} ended", self.attempts, self.ended()));
        }
        if !(self.per_second.is_finite() && self.p50_us > 0.0 && self.p50_us <= self.p99_us) {
            faults.push(format!("figures out of order: {self:?}"));
        }
        faults
    }

    fn ended(&self) -> u64 {
        self.successes + self.errors + self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(change: impl FnOnce(&mut Tally)) -> Measured {
        let mut tally = Tally::new();
        for _ in 0..10 {
            tally.attempt();
            tally.success(Instant::now());
        }
        change(&mut tally);
        tally.measure(Duration::from_secs(2), None)
    }

    #[test]
    fn successes_only_are_measured_and_every_attempt_must_end() {
        let sound = measured(|_| {});
        assert_eq!((sound.per_second, sound.faults()), (5.0, Vec::new()));
        let failed = measured(|tally| {
            tally.attempt();
            tally.error("refused");
        });
        assert_eq!((failed.successes, failed.errors), (10, 1));
        assert!(failed.faults()[0].contains("first: refused"), "{:?}", failed.faults());
        let wrong = measured(|tally| {
            tally.attempt();
            tally.wrong("another item");
        });
        assert_eq!((wrong.wrong, wrong.faults().len()), (1, 1));
        let lost = measured(Tally::attempt);
        assert_eq!(lost.faults(), ["11 operations began, 10 ended"]);
        let nothing = Tally::new().measure(Duration::from_secs(1), None);
        assert_eq!(nothing.faults()[0], "no operation succeeded");
    }
}
