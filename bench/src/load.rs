//! Load in a closed loop: so many operations in flight, each followed by the next.
//!
//! All run on the calling thread, in tasks of one runtime, without timers: what is measured waits for
//! nothing but answers. It does not know what an operation is.
//!
//! The package of the systems that three copies are compared with compiles this very file too, with `tally` and
//! `machine`, so that all are measured in the same way: they use nothing of the workspace.

use crate::machine;
use crate::tally::{Measured, Tally};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// How one operation ended.
#[derive(Debug)]
pub enum Outcome {
    /// With the right answer.
    Right,
    /// With another answer than what had been put.
    Wrong(String),
    /// Without an answer, or with a refusal.
    Failed(String),
    /// As that, and there is no use in going on.
    Broken(String),
}

/// One of the operations in flight.
pub trait Slot {
    /// Does one operation and says how it ended.
    fn operate(&mut self) -> impl Future<Output = Outcome>;
}

/// How long the load lasts.
#[derive(Clone, Copy, Debug)]
pub enum Lasting {
    /// Until then no operation begins any more.
    Time(Duration),
    /// So many operations of each slot.
    Operations(u32),
}

/// A runtime for load on the calling thread.
///
/// # Errors
/// What the system said.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Runs all slots and measures them.
pub async fn run<S: Slot + 'static>(slots: Vec<S>, lasting: Lasting) -> Measured {
    let tally = Rc::new(RefCell::new(Tally::new()));
    let local = LocalSet::new();
    let before = machine::now();
    let start = Instant::now();
    for slot in slots {
        local.spawn_local(run_slot(slot, start, lasting, Rc::clone(&tally)));
    }
    local.await;
    let took = start.elapsed();
    let busy = before.and_then(machine::Moment::until_now);
    tally.replace(Tally::new()).measure(took, busy)
}

async fn run_slot<S: Slot>(mut slot: S, start: Instant, lasting: Lasting, tally: Rc<RefCell<Tally>>) {
    let mut done = 0;
    loop {
        let is_over = match lasting {
            Lasting::Time(time) => start.elapsed() >= time,
            Lasting::Operations(operations) => done == operations,
        };
        if is_over {
            return;
        }
        done += 1;
        tally.borrow_mut().attempt();
        let began = Instant::now();
        let outcome = slot.operate().await;
        let mut tally = tally.borrow_mut();
        match outcome {
            Outcome::Right => tally.success(began),
            Outcome::Wrong(reason) => tally.wrong(reason),
            Outcome::Failed(reason) => tally.error(reason),
            Outcome::Broken(reason) => return tally.error(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends each operation in another way.
    struct Scripted(Vec<Outcome>);

    impl Slot for Scripted {
        async fn operate(&mut self) -> Outcome {
            tokio::task::yield_now().await;
            self.0.pop().unwrap_or(Outcome::Right)
        }
    }

    #[test]
    fn every_outcome_is_counted_once_and_a_broken_slot_ends() {
        let slots = vec![
            Scripted(vec![Outcome::Right, Outcome::Wrong("w".into()), Outcome::Failed("f".into())]),
            Scripted(vec![Outcome::Right, Outcome::Broken("b".into()), Outcome::Right]),
        ];
        let runtime = runtime().unwrap();
        let measured = runtime.block_on(run(slots, Lasting::Operations(5)));
        let counts = (measured.attempts, measured.successes, measured.errors, measured.wrong);
        assert_eq!(counts, (7, 4, 2, 1));
        assert_eq!(measured.faults().len(), 1, "{:?}", measured.faults());
    }
}
