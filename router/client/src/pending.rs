//! The requests of one connection that wait for their answers.
//!
//! A slab behind a lock that is held for nanoseconds. A request id is the slot's index and the number of
//! its turn, so an answer that comes after its request was abandoned finds another turn and is dropped.

use evenkeel_wire::Frame;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lost(pub(crate) Arc<str>);

/// Locks a mutex whose data is valid whenever it is unlocked, whoever panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All waiting requests of a connection.
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
    /// Follows `Table::lost`, to be looked at without the lock.
    is_lost: AtomicBool,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    lost: Option<Lost>,
}

struct Slot {
    turn: u32,
    state: State,
}

enum State {
    Free,
    Waiting(Option<Waker>),
    Answered(Frame),
}

/// A request that waits; dropping it abandons the answer.
pub(crate) struct Waiter<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Pending {
    /// Takes a slot for a request.
    pub(crate) fn wait(&self) -> Result<Waiter<'_>, Lost> {
        let mut table = lock(&self.table);
        if let Some(lost) = &table.lost {
            return Err(lost.clone());
        }
        let index = match table.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(table.slots.len()).expect("requests in flight are bounded");
                table.slots.push(Slot { turn: 0, state: State::Free });
                index
            }
        };
        let slot = &mut table.slots[index as usize];
        slot.state = State::Waiting(None);
        Ok(Waiter { pending: self, id: u64::from(slot.turn) << 32 | u64::from(index) })
    }

    /// Whether anybody waits.
    pub(crate) fn is_waiting(&self) -> bool {
        let table = lock(&self.table);
        table.free.len() < table.slots.len()
    }

    /// Hands answers to those that wait for them; `wakers` is working space. Returns how many answers
    /// nobody waited for.
    pub(crate) fn answer(&self, frames: impl Iterator<Item = Frame>, wakers: &mut Vec<Waker>) -> u64 {
        let mut late = 0;
        {
            let mut table = lock(&self.table);
            for frame in frames {
                match table.slot(frame.header.request_id) {
                    Some(slot) if matches!(slot.state, State::Waiting(_)) => {
                        if let State::Waiting(Some(waker)) =
                            std::mem::replace(&mut slot.state, State::Answered(frame))
                        {
                            wakers.push(waker);
                        }
                    }
                    _ => late += 1,
                }
            }
        }
        wakers.drain(..).for_each(Waker::wake);
        late
    }

    /// Fails every request that waits, and every one to come. Returns whether this was the first time.
    pub(crate) fn lose(&self, reason: &str) -> bool {
        let mut wakers = Vec::new();
        {
            let mut table = lock(&self.table);
            if table.lost.is_some() {
                return false;
            }
            table.lost = Some(Lost(reason.into()));
            self.is_lost.store(true, Ordering::Release);
            for slot in &mut table.slots {
                if let State::Waiting(waker) = &mut slot.state {
                    wakers.extend(waker.take());
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    /// Whether the connection is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}

impl Table {
    /// The slot of a request, if its turn is still on.
    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let (turn, index) = ((id >> 32) as u32, id as u32);
        self.slots.get_mut(index as usize).filter(|slot| slot.turn == turn)
    }
}

impl Waiter<'_> {
    /// The id that the request must carry.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Future for Waiter<'_> {
    type Output = Result<Frame, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut table = lock(&self.pending.table);
        let lost = table.lost.clone();
        let slot = table.slot(self.id).expect("a slot's turn lasts as long as its waiter");
        if matches!(slot.state, State::Answered(_)) {
            let State::Answered(frame) = std::mem::replace(&mut slot.state, State::Free) else {
                unreachable!("looked at just now, under the lock")
            };
            return Poll::Ready(Ok(frame));
        }
        match (lost, &mut slot.state) {
            (Some(lost), _) => Poll::Ready(Err(lost)),
            (None, State::Waiting(waker)) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            (None, _) => panic!("a waiter was polled after its answer"),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut table = lock(&self.pending.table);
        let slot = table.slot(self.id).expect("a slot's turn lasts as long as its waiter");
        slot.turn = slot.turn.wrapping_add(1);
        let abandoned = std::mem::replace(&mut slot.state, State::Free);
        table.free.push(self.id as u32);
        drop(table);
        // An answer that nobody read is freed outside the lock.
        drop(abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::message::Done;
    use evenkeel_wire::{encode, frame};
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn answer_to(id: u64) -> Frame {
        frame::open(encode(&Done {}, id, 0)).unwrap()
    }

    fn poll(waiter: &mut Waiter<'_>, woken: &Arc<Woken>) -> Poll<Result<u64, Lost>> {
        let waker = Waker::from(woken.clone());
        let polled = Pin::new(waiter).poll(&mut Context::from_waker(&waker));
        polled.map(|result| result.map(|frame| frame.header.request_id))
    }

    #[test]
    fn answers_in_any_order_reach_those_that_asked() {
        let (pending, woken) = (Pending::default(), Arc::new(Woken::default()));
        let mut waiters: Vec<_> = (0..10).map(|_| pending.wait().unwrap()).collect();
        assert!(waiters.iter_mut().all(|waiter| poll(waiter, &woken).is_pending()));
        let ids: Vec<u64> = waiters.iter().map(Waiter::id).collect();
        let late = pending.answer(ids.iter().rev().map(|id| answer_to(*id)), &mut Vec::new());
        assert_eq!((late, woken.0.load(Ordering::SeqCst)), (0, 10));
        for (waiter, id) in waiters.iter_mut().zip(ids) {
            assert_eq!(poll(waiter, &woken), Poll::Ready(Ok(id)));
        }
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_request_in_its_slot() {
        let (pending, woken) = (Pending::default(), Arc::new(Woken::default()));
        let abandoned = pending.wait().unwrap().id();
        let mut next = pending.wait().unwrap();
        assert_eq!(next.id() as u32, abandoned as u32);
        assert_eq!(
            pending.answer([answer_to(abandoned), answer_to(7 << 32)].into_iter(), &mut Vec::new()),
            2
        );
        assert!(poll(&mut next, &woken).is_pending());
        let twice = [answer_to(next.id()), answer_to(next.id())];
        assert_eq!(pending.answer(twice.into_iter(), &mut Vec::new()), 1);
        assert_eq!(poll(&mut next, &woken), Poll::Ready(Ok(next.id())));
    }

    #[test]
    fn a_lost_connection_fails_those_that_wait_and_those_to_come_but_not_the_answered() {
        let (pending, woken) = (Pending::default(), Arc::new(Woken::default()));
        let (mut answered, mut waiting) = (pending.wait().unwrap(), pending.wait().unwrap());
        assert!(poll(&mut waiting, &woken).is_pending());
        pending.answer([answer_to(answered.id())].into_iter(), &mut Vec::new());
        assert!(pending.lose("gone") && !pending.lose("again"));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        let lost = Lost("gone".into());
        assert!(matches!(poll(&mut answered, &woken), Poll::Ready(Ok(_))));
        assert_eq!(poll(&mut waiting, &woken), Poll::Ready(Err(lost.clone())));
        assert_eq!(pending.wait().err(), Some(lost));
        assert!(pending.is_lost());
    }
}
