//! How background work shares its core: slices, with pauses between them; in a hurry the pauses are no longer
//! than it takes to let others run.

use crate::runtime::Runtime;
use std::{cell::Cell, rc::Rc, time::Duration};

/// How long others wait at most for a slice to end.
const SLICE_NS: u64 = 300_000;
/// A pause is as long as the slice was, but not longer than this.
const PAUSE_NS_MAX: u64 = 10 * SLICE_NS;

/// Enough for others to run.
const PAUSE_NS_MIN: u64 = 20_000;

/// The pace of one piece of background work.
pub(crate) struct Pace<R> {
    runtime: R,
    since_ns: Cell<u64>,
    hurries: Rc<dyn Fn() -> bool>,
}

impl<R: Runtime> Pace<R> {
    /// A piece of work that begins now, and is in a hurry when `hurries` says so.
    pub(crate) fn new(runtime: R, hurries: Rc<dyn Fn() -> bool>) -> Self {
        let since_ns = Cell::new(runtime.now_ns());
        Pace { runtime, since_ns, hurries }
    }

    /// Lets others run if the slice is used up. To be called often: between two calls nobody else runs.
    pub(crate) async fn breathe(&self) {
        let worked_ns = self.runtime.now_ns().saturating_sub(self.since_ns.get());
        if worked_ns >= SLICE_NS {
            let pause_ns = if (self.hurries)() { PAUSE_NS_MIN } else { worked_ns.min(PAUSE_NS_MAX) };
            self.runtime.sleep(Duration::from_nanos(pause_ns)).await;
            self.since_ns.set(self.runtime.now_ns());
        }
    }
}
