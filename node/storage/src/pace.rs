//! How background work shares its core: slices, with pauses between them that are the shorter the more what it
//! relieves is in need of it; in a hurry they are no longer than it takes to let others run.

use crate::runtime::Runtime;
use std::{cell::Cell, rc::Rc, time::Duration};

/// How long others wait at most for a slice to end.
const SLICE_NS: u64 = 300_000;
/// Where nothing presses a pause is so many times as long as the slice was.
const PAUSE_TO_SLICE: f64 = 3.0;
/// It is not longer than this.
const PAUSE_NS_MAX: u64 = 10 * SLICE_NS;
/// Enough for others to run.
const PAUSE_NS_MIN: u64 = 20_000;

/// The pace of one piece of background work.
pub(crate) struct Pace<R> {
    runtime: R,
    since_ns: Cell<u64>,
    pressure: Pressure,
}

/// Above this part of a budget merges are due.
pub(crate) fn due(budget: u64) -> u64 {
    budget / 2
}

/// Above this part of it they hurry, and the rest is given out as they go on.
pub(crate) fn hurried(budget: u64) -> u64 {
    budget - budget / 4
}

/// How much merges are needed that relieve this budget.
pub(crate) fn pressure(used: u64, budget: u64) -> f64 {
    let (due, hurried) = (due(budget), hurried(budget));
    used.saturating_sub(due) as f64 / (hurried - due).max(1) as f64
}

/// How much background work is needed at the moment: 0 where nothing presses, 1 where it is in a hurry.
pub(crate) type Pressure = Rc<dyn Fn() -> f64>;

impl<R: Runtime> Pace<R> {
    /// A piece of work that begins now.
    pub(crate) fn new(runtime: R, pressure: Pressure) -> Self {
        let since_ns = Cell::new(runtime.now_ns());
        Pace { runtime, since_ns, pressure }
    }

    /// Lets others run if the slice is used up. To be called often: between two calls nobody else runs.
    pub(crate) async fn breathe(&self) {
        let worked_ns = self.runtime.now_ns().saturating_sub(self.since_ns.get());
        if worked_ns >= SLICE_NS {
            let pause_ns = worked_ns as f64 * PAUSE_TO_SLICE * (1.0 - (self.pressure)()).max(0.0);
            let pause_ns = (pause_ns as u64).clamp(PAUSE_NS_MIN, PAUSE_NS_MAX);
            self.runtime.sleep(Duration::from_nanos(pause_ns)).await;
            self.since_ns.set(self.runtime.now_ns());
        }
    }
}
