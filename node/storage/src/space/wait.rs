//! Work that goes on when nobody waits for it any more, and any number of tasks that wait for it.
//!
//! What is written to or read from a device must be seen through even if its caller was cancelled:
//! blocks may not be given away, nor a flip be begun, while an older write is under way.

use crate::runtime::Runtime;
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Poll, Waker},
};

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    wakers: Vec<Waker>,
}

/// A task that runs by itself. A clone waits for the same one.
#[derive(Debug)]
pub(crate) struct Detached<T> {
    state: Rc<RefCell<State<T>>>,
}

impl<T> Clone for Detached<T> {
    fn clone(&self) -> Self {
        Detached { state: Rc::clone(&self.state) }
    }
}

/// Runs `work` to its end, whoever waits.
pub(crate) fn detach<R: Runtime, T: 'static>(
    runtime: &R,
    work: impl Future<Output = T> + 'static,
) -> Detached<T> {
    let state = Rc::new(RefCell::new(State { value: None, wakers: Vec::new() }));
    let detached = Detached { state: Rc::clone(&state) };
    runtime.spawn(async move {
        let value = work.await;
        let wakers = {
            let mut state = state.borrow_mut();
            state.value = Some(value);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    });
    detached
}

impl<T: Clone> Detached<T> {
    /// Resolves with what the work came to.
    pub(crate) async fn done(&self) -> T {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if let Some(value) = &state.value {
                return Poll::Ready(value.clone());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
