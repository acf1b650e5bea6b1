//! How background work shares its core: slices, with pauses between them.

use crate::runtime::Runtime;
use std::{cell::Cell, time::Duration};

/// How long others wait at most for a slice to end.
const SLICE_NS: u64 = 300_000;
/// A pause is as long as the slice was, but not longer than this.
const PAUSE_NS_MAX: u64 = 10 * SLICE_NS;

/// The pace of one piece of background work.
pub(crate) struct Pace<R> {
    runtime: R,
    since_ns: Cell<u64>,
}

impl<R: Runtime> Pace<R> {
    /// A piece of work that begins now.
    pub(crate) fn new(runtime: R) -> Self {
        let since_ns = Cell::new(runtime.now_ns());
        Pace { runtime, since_ns }
    }

    /// Lets others run if the slice is used up. To be called often: between two calls nobody else runs.
    pub(crate) async fn breathe(&self) {
        let worked_ns = self.runtime.now_ns().saturating_sub(self.since_ns.get());
        if worked_ns >= SLICE_NS {
            self.runtime.sleep(Duration::from_nanos(worked_ns.min(PAUSE_NS_MAX))).await;
            self.since_ns.set(self.runtime.now_ns());
        }
    }
}
