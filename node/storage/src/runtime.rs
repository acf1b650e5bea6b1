//! The seam to the executor: tasks, time and randomness of one core.
//!
//! Everything here is local to a thread; nothing is `Send`. The simulator implements it with virtual
//! time and a seed, so that a whole cluster runs again exactly as before.

use std::{future::Future, time::Duration};

/// The executor that a shard runs on.
pub trait Runtime: Clone + 'static {
    /// Runs `task` on this core until it ends or the executor does.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Nanoseconds of a clock that never goes back, from an arbitrary origin.
    fn now_ns(&self) -> u64;

    /// Nanoseconds since the Unix epoch by the wall clock, which may jump.
    fn wall_ns(&self) -> u64;

    /// Resolves when `duration` has passed.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// 64 unpredictable bits.
    fn random(&self) -> u64;

    /// Whether to make `mistake` here. Production keeps this answer, and the compiler removes what hangs on it;
    /// tests make one at a time, to see that they would notice.
    #[inline]
    fn errs(&self, mistake: Mistake) -> bool {
        let _ = mistake;
        false
    }
}

/// A mistake that has been made in systems like this one, named by the crate that could make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mistake(pub &'static str);
