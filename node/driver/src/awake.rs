//! Keeping a core from sleeping while a page is read.
//!
//! A core that sleeps is woken through glommio's rings and an eventfd, which takes about as long as a fast device
//! takes to read a page, and as much processor time as looking for the completion all the while. So while a page is
//! read a task of the least share looks; all others go first. A read that takes longer than it would on a fast
//! device is waited for asleep.
//!
//! It knows nothing of what is read.

use crate::ring::Ring;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// How long a core stays awake for a read.
const AWAKE_FOR: Duration = Duration::from_micros(100);

/// The reads of one core that are under way.
#[derive(Debug, Default)]
pub struct Reads {
    begun: Cell<u64>,
    under_way: Cell<u32>,
    watcher: RefCell<Option<Waker>>,
}

/// A read, until this is dropped.
#[derive(Debug)]
pub struct Awake(Rc<Reads>);

impl Reads {
    /// A read begins.
    pub fn begin(self: &Rc<Self>) -> Awake {
        self.begun.set(self.begun.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        self.wake();
        Awake(Rc::clone(self))
    }

    /// Has [`watch`] look whether there is anything to watch.
    pub fn wake(&self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// Resolves when a read begins behind the `seen` first ones; with nothing when the ring has stopped.
async fn next(ring: &Ring, reads: &Reads, seen: u64) -> Option<u64> {
    poll_fn(|context| {
        if ring.has_stopped() {
            return Poll::Ready(None);
        }
        if reads.begun.get() > seen {
            return Poll::Ready(Some(reads.begun.get()));
        }
        *reads.watcher.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    })
    .await
}

/// Looks for completions while reads are under way, until the ring is stopped.
pub async fn watch(ring: Rc<Ring>) {
    let reads = ring.reads();
    let mut seen = 0;
    while let Some(begun) = next(&ring, &reads, seen).await {
        seen = begun;
        let since = Instant::now();
        while reads.under_way.get() > 0 && reads.begun.get() == seen && since.elapsed() < AWAKE_FOR {
            ring.turn();
            ring.yield_queue_now().await;
        }
    }
}
