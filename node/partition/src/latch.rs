//! Latches on keys: between reading the image that a write replaces and proposing the write, no other
//! write of the same key may be proposed.
//!
//! A latch is held over one read of the engine, never until the write is durable, so writes of one hot
//! key still share a frame of the log. Waiters are served in no particular order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The keys that are latched now, and who waits for them.
#[derive(Default)]
pub(crate) struct Latches {
    held: RefCell<HashMap<Rc<[u8]>, Vec<Waker>>>,
}

/// A latched key; dropping it releases the latch.
pub(crate) struct Latch<'a> {
    latches: &'a Latches,
    key: Rc<[u8]>,
}

impl Latches {
    /// Waits until nobody holds the key; the caller must act before it awaits again.
    pub async fn wait_free(&self, key: &[u8]) {
        poll_fn(|context| match self.held.borrow_mut().get_mut(key) {
            None => Poll::Ready(()),
            Some(waiting) => {
                waiting.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }

    /// Waits until nobody holds the key, then holds it.
    pub async fn hold(&self, key: &Rc<[u8]>) -> Latch<'_> {
        self.wait_free(key).await;
        self.held.borrow_mut().insert(key.clone(), Vec::new());
        Latch { latches: self, key: key.clone() }
    }
}

impl Drop for Latch<'_> {
    fn drop(&mut self) {
        let waiting = self.latches.held.borrow_mut().remove(&self.key);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}
