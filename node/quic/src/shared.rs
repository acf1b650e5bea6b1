//! What the endpoint's task shares with everyone who holds a connection or a lane.

use crate::connection::ConnectionState;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

/// Connections with something to do, and the task that does it.
///
/// However many answers are produced while the task waits, it is woken once; while it works, not at
/// all.
#[derive(Default)]
pub struct Work {
    connections: RefCell<Vec<Rc<ConnectionState>>>,
    waker: Cell<Option<Waker>>,
    pub counters: Counters,
}

impl Work {
    /// Has the task look at a connection.
    pub fn add(&self, connection: &Rc<ConnectionState>) {
        if !connection.queued.replace(true) {
            self.connections.borrow_mut().push(Rc::clone(connection));
            self.wake();
        }
    }

    /// Has the task look around.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The connections to look at, in exchange for an empty list whose memory is used again. They stay
    /// marked as queued until the caller is done with them.
    pub fn take(&self, empty: &mut Vec<Rc<ConnectionState>>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut *self.connections.borrow_mut(), empty);
    }

    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Wakes `waker` at the next piece of work.
    pub fn register(&self, waker: Waker) {
        self.waker.set(Some(waker));
    }

    /// The task works: no need to wake it.
    pub fn unregister(&self) {
        self.waker.take();
    }
}

/// Counts of the endpoint since it was bound.
#[derive(Default)]
pub struct Counters {
    pub turns: Cell<u64>,
    pub datagrams_received: Cell<u64>,
    pub bytes_received: Cell<u64>,
    pub datagrams_sent: Cell<u64>,
    pub bytes_sent: Cell<u64>,
    pub frames_received: Cell<u64>,
    pub frames_sent: Cell<u64>,
    pub frames_malformed: Cell<u64>,
    pub connections_opened: Cell<u64>,
    pub connections_lost: Cell<u64>,
    pub connections_refused: Cell<u64>,
}

/// Adds to a counter.
pub fn count(counter: &Cell<u64>, by: usize) {
    counter.set(counter.get() + by as u64);
}

/// What an endpoint has done since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointStatistics {
    /// Turns of the endpoint's task.
    pub turns: u64,
    /// Datagrams received, each of a joined run by itself.
    pub datagrams_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Datagrams sent, each of a joined run by itself.
    pub datagrams_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames handed to the handler.
    pub frames_received: u64,
    /// Frames handed over to be sent.
    pub frames_sent: u64,
    /// Connections closed because of a malformed frame.
    pub frames_malformed: u64,
    /// Connections established, either way.
    pub connections_opened: u64,
    /// Of these, the ones that have ended.
    pub connections_lost: u64,
    /// Connections refused because there were too many.
    pub connections_refused: u64,
}

impl Counters {
    pub fn snapshot(&self) -> EndpointStatistics {
        EndpointStatistics {
            turns: self.turns.get(),
            datagrams_received: self.datagrams_received.get(),
            bytes_received: self.bytes_received.get(),
            datagrams_sent: self.datagrams_sent.get(),
            bytes_sent: self.bytes_sent.get(),
            frames_received: self.frames_received.get(),
            frames_sent: self.frames_sent.get(),
            frames_malformed: self.frames_malformed.get(),
            connections_opened: self.connections_opened.get(),
            connections_lost: self.connections_lost.get(),
            connections_refused: self.connections_refused.get(),
        }
    }
}
