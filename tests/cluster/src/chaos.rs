//! Chaos: five nodes and a router, each on a machine of its own, while processes are killed and stopped, links cut,
//! disks slowed down and emptied; and whether clients ever saw what a correct store cannot show.
//!
//! The faults come from a seed; what they do to real processes is never twice the same. When they end, everything
//! must become whole by itself: every partition takes writes, every key can be read, no copy lags. Then the
//! history of all clients is judged. Times are reported, never judged.
//!
//! It runs inside namespaces that `tests/cluster/chaos/run.sh` makes.

pub mod availability;
mod disk;
pub mod faults;
pub mod judge;
mod machines;
pub mod network;
mod run;
pub mod workload;

pub use run::{Options, run};

use std::time::{Duration, Instant};

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// It could not be run at all.
    #[error("NOT RUN: {0}")]
    NotRun(String),
    /// The system refused something in the middle of it.
    #[error("NOT RUN to its end: {what}: {reason}")]
    System {
        /// What was done.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// A process does not end as it should.
    #[error("{what}: {reason}")]
    Stuck {
        /// Which.
        what: String,
        /// What it did instead.
        reason: String,
    },
    /// The cluster did not become whole.
    #[error("everything was healed, and after {after:?} {what}")]
    NoRecovery {
        /// What is still wrong.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// What clients or processes saw is wrong; it was printed.
    #[error("{count} {}", if *.count == 1 { "violation" } else { "violations" })]
    Violations {
        /// How many.
        count: usize,
    },
}

/// The time since a run began, the same for everything in it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A run begins.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Now.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
