//! Writes of a shard's partitions that are under way, in the order of the log: one task waits for them all.
//!
//! Frames become durable in order, so only the oldest write has to be waited for, and one wake-up tells
//! every partition of a frame. It knows nothing of what was written.

use evenkeel_paxos::Token;
use evenkeel_storage::{Durable, WalFailed};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Who hears that writes are durable.
pub(crate) trait Writes {
    /// All writes up to this one are durable.
    fn persisted(&self, token: Token);

    /// Nothing more will be.
    fn failed(&self, reason: &WalFailed);
}

/// The writes under way.
pub(crate) struct Journal<P> {
    waiting: RefCell<VecDeque<(Rc<P>, Token, Durable)>>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl<P: Writes> Journal<P> {
    pub fn new() -> Rc<Journal<P>> {
        Rc::new(Journal { waiting: RefCell::default(), waker: RefCell::default(), closed: Cell::new(false) })
    }

    /// Adds the newest write. Once the shard is gone, nobody waits for it.
    pub fn push(&self, partition: Rc<P>, token: Token, durable: Durable) {
        if self.closed.get() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back((partition, token, durable));
        if waiting.len() == 1 {
            self.wake();
        }
    }

    /// The shard is gone: nobody is told any more.
    pub fn close(&self) {
        self.closed.set(true);
        drop(std::mem::take(&mut *self.waiting.borrow_mut()));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Waits for the writes until the journal is closed.
    pub async fn run(self: Rc<Self>) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.waker.borrow_mut() {
            Some(present) => present.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        let mut news: Option<(Rc<P>, Token)> = None;
        while let Some((partition, token, result)) = self.next_done(context) {
            if let Some((before, upto)) = news.take_if(|(before, _)| !Rc::ptr_eq(before, &partition)) {
                before.persisted(upto);
            }
            match result {
                Ok(()) => news = Some((partition, token)),
                Err(reason) => partition.failed(&reason),
            }
        }
        if let Some((partition, upto)) = news {
            partition.persisted(upto);
        }
        if self.closed.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The oldest write, if it is done.
    fn next_done(&self, context: &mut Context<'_>) -> Option<(Rc<P>, Token, Result<(), WalFailed>)> {
        let mut waiting = self.waiting.borrow_mut();
        let (_, _, durable) = waiting.front_mut()?;
        let Poll::Ready(result) = Pin::new(durable).poll(context) else { return None };
        let (partition, token, _) = waiting.pop_front().expect("looked at on the line above");
        Some((partition, token, result))
    }
}
