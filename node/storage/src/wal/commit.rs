//! Who waits for which frame. Waiters are released in the order of frames, all of a frame at once.
//!
//! One list of wakers a frame, in vectors that are used again: in steady state waiting allocates
//! nothing. It knows nothing of frames but their sequence.

use crate::error::WalFailed;
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Which frames are durable, and the tasks that wait for the others.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    waits: RefCell<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    /// Highest sequence such that it and all before it are durable.
    durable: u64,
    failed: Option<WalFailed>,
    /// Tasks waiting for the frames behind `durable`, one list a frame.
    lists: VecDeque<Vec<Waker>>,
    spare: Vec<Vec<Waker>>,
}

impl Commits {
    /// Everything up to `durable` is.
    pub(crate) fn new(durable: u64) -> Rc<Self> {
        Rc::new(Commits { waits: RefCell::new(Waits { durable, ..Waits::default() }) })
    }

    pub(crate) fn durable(&self) -> u64 {
        self.waits.borrow().durable
    }

    pub(crate) fn failed(&self) -> Option<WalFailed> {
        self.waits.borrow().failed.clone()
    }

    /// A future of `sequence` being durable.
    pub(crate) fn wait(self: &Rc<Self>, sequence: u64) -> Durable {
        Durable { commits: Rc::clone(self), sequence, place: None, refused: None }
    }

    /// A future of something that was not appended, because the log has stopped.
    pub(crate) fn refused(self: &Rc<Self>, reason: WalFailed) -> Durable {
        Durable { commits: Rc::clone(self), sequence: u64::MAX, place: None, refused: Some(reason) }
    }

    /// Takes note that everything up to `durable` is, and moves those who waited for it to `woken`.
    pub(crate) fn advance(&self, durable: u64, woken: &mut Vec<Waker>) {
        let mut waits = self.waits.borrow_mut();
        assert!(waits.failed.is_none(), "a log that failed acknowledges nothing more");
        assert!(durable >= waits.durable, "what is durable stays so");
        while waits.durable < durable {
            waits.durable += 1;
            if let Some(mut list) = waits.lists.pop_front() {
                woken.append(&mut list);
                waits.spare.push(list);
            }
        }
    }

    /// Takes note that nothing more will be durable, and moves everyone who waits to `woken`.
    pub(crate) fn fail(&self, reason: WalFailed, woken: &mut Vec<Waker>) {
        let mut waits = self.waits.borrow_mut();
        waits.failed.get_or_insert(reason);
        for mut list in waits.lists.drain(..) {
            woken.append(&mut list);
        }
    }
}

impl Waits {
    /// Remembers the task that waits for `sequence`, in the place it had before if it had one.
    fn register(&mut self, sequence: u64, place: &mut Option<usize>, waker: &Waker) {
        let ahead = usize::try_from(sequence - self.durable - 1).expect("few frames wait to be durable");
        while self.lists.len() <= ahead {
            let list = self.spare.pop().unwrap_or_default();
            self.lists.push_back(list);
        }
        let list = &mut self.lists[ahead];
        match *place {
            Some(index) => list[index].clone_from(waker),
            None => {
                *place = Some(list.len());
                list.push(waker.clone());
            }
        }
    }
}

/// Resolves when what was appended is durable, or the log has stopped for good.
#[derive(Debug)]
#[must_use = "what was appended is acknowledged only when this has resolved"]
pub struct Durable {
    commits: Rc<Commits>,
    sequence: u64,
    /// Index of this future's waker in its frame's list; lists are emptied only as a whole.
    place: Option<usize>,
    refused: Option<WalFailed>,
}

impl Future for Durable {
    type Output = Result<(), WalFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut waits = this.commits.waits.borrow_mut();
        if waits.durable >= this.sequence {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = this.refused.as_ref().or(waits.failed.as_ref()) {
            return Poll::Ready(Err(reason.clone()));
        }
        waits.register(this.sequence, &mut this.place, context.waker());
        Poll::Pending
    }
}
