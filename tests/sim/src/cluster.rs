//! The seam between the simulator and what it simulates: one core of one node, for one life.
//!
//! A core keeps what must last on its disk, and everything else in itself: after a crash the simulator
//! drops it, with all its tasks, and starts another on the disk that the crash left behind.

use crate::seen::Seen;
use evenkeel_history::{Outcome, Request};
use evenkeel_storage::memory::{MemoryDisk, TestRuntime};
use evenkeel_wire::RefusalCode;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// A core of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The node; each is a failure domain of its own.
    pub node: usize,
    /// The core in it.
    pub core: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.core)
    }
}

/// Copies of a partition.
pub const REPLICAS: usize = 3;

/// How large a cluster is, and where partitions are when it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Nodes, at least as many as there are copies.
    pub nodes: usize,
    /// Cores of each node.
    pub cores: usize,
    /// Partitions.
    pub partitions: usize,
    /// Keys of each partition.
    pub keys: usize,
}

impl Shape {
    /// Every core.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let cores = self.cores;
        (0..self.nodes).flat_map(move |node| (0..cores).map(move |core| Place { node, core }))
    }

    /// The cores that hold a partition at first, each in another node.
    pub fn members(&self, partition: usize) -> [Place; REPLICAS] {
        let core = partition / self.nodes % self.cores;
        std::array::from_fn(|copy| Place { node: (partition + copy) % self.nodes, core })
    }

    /// The name of a key; keys are numbered through all partitions.
    pub fn key(&self, key: usize) -> String {
        format!("{}/{}", key / self.keys, key % self.keys)
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: usize) -> usize {
        key / self.keys
    }
}

/// Names a client's operation; the same through all its attempts, so that it is applied once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallToken {
    /// The session.
    pub client: u64,
    /// Its operations are counted from 1.
    pub sequence: u64,
}

/// An attempt of a client's operation, as it arrives at a core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The operation.
    pub token: CallToken,
    /// The session's oldest operation whose outcome the client still wants to know.
    pub lowest_unanswered: u64,
    /// Which attempt of it.
    pub attempt: u32,
    /// The partition of the key.
    pub partition: usize,
    /// The key, by its number.
    pub key: usize,
    /// What is asked.
    pub request: Request,
}

/// What a core says to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is settled: done, or its condition failed.
    Settled(Outcome),
    /// This attempt did nothing.
    Refused {
        /// Why.
        code: RefusalCode,
        /// Who may do it.
        leader: Option<Place>,
    },
}

/// What the control plane asks of a core; whoever does not lead the partition does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Hand leadership over to another member.
    Transfer {
        /// The partition.
        partition: usize,
    },
    /// Replace a member by a new one.
    Swap {
        /// The partition.
        partition: usize,
        /// Where the member is that goes.
        remove: Place,
        /// Where the new one is to be, which holds nothing of the partition.
        add: Place,
        /// Tells this order from all others, so that the new member can have an id that nobody had.
        number: u32,
    },
}

/// What a core holds of a partition, for checkers to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// The partition.
    pub partition: usize,
    /// The slot up to which it is applied.
    pub applied: u64,
    /// A hash of the content at that slot.
    pub content: u128,
    /// Whether it would serve a strong read at this moment.
    pub serves: bool,
    /// Where the members are, as of that slot.
    pub members: Vec<Place>,
}

/// What a core starts with.
pub struct Start<M> {
    /// Where it is.
    pub place: Place,
    /// The cluster.
    pub shape: Rc<Shape>,
    /// Which life of this core it is, from 1.
    pub life: u32,
    /// Its disk, as the last life left it; empty in the first one.
    pub disk: MemoryDisk,
    /// What its tasks run on.
    pub runtime: TestRuntime,
    /// How it speaks to others.
    pub outbox: Outbox<M>,
}

/// One life of one core.
pub trait Core: Sized + 'static {
    /// What cores say to each other.
    type Message: Clone + fmt::Debug + 'static;

    /// Starts; what takes time (recovery, elections) runs as tasks on the runtime.
    fn start(start: Start<Self::Message>) -> Self;

    /// A message of another core arrives. Messages are lost, repeated and reordered.
    fn receive(&self, from: Place, message: Self::Message);

    /// A call of a client arrives; it is answered through the outbox, sometime or never. Clients that do not
    /// know better ask cores that hold nothing of the partition.
    fn serve(&self, call: Call);

    /// The control plane asks for something.
    fn obey(&self, order: Order);

    /// Whether it can go on no more, so that its process ends and is started again.
    fn has_stopped(&self) -> bool;

    /// What it holds; a copy that is not complete yet is none. One that has been removed and does not know it
    /// may be among them.
    fn replicas(&self) -> Vec<ReplicaState>;
}

/// Something a core wants to get out.
#[derive(Clone, Debug)]
pub enum Outgoing<M> {
    /// To another core.
    Message {
        /// Which.
        to: Place,
        /// What.
        message: M,
    },
    /// To a client.
    Answer {
        /// The operation.
        token: CallToken,
        /// The attempt.
        attempt: u32,
        /// What.
        answer: Answer,
    },
}

/// Where a core puts what it says. A clone is the same one.
#[derive(Debug)]
pub struct Outbox<M> {
    outgoing: Rc<RefCell<Vec<Outgoing<M>>>>,
    seen: Seen,
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        Outbox { outgoing: Rc::clone(&self.outgoing), seen: self.seen.clone() }
    }
}

impl<M> Outbox<M> {
    pub(crate) fn new(seen: Seen) -> Outbox<M> {
        Outbox { outgoing: Rc::default(), seen }
    }

    /// Sends a message to another core.
    pub fn send(&self, to: Place, message: M) {
        self.outgoing.borrow_mut().push(Outgoing::Message { to, message });
    }

    /// Answers a call.
    pub fn answer(&self, call: &Call, answer: Answer) {
        let (token, attempt) = (call.token, call.attempt);
        self.outgoing.borrow_mut().push(Outgoing::Answer { token, attempt, answer });
    }

    /// Notes that something worth counting happened; see [`crate::seen`].
    pub fn note(&self, event: &'static str) {
        self.seen.note(event);
    }

    pub(crate) fn take(&self) -> Vec<Outgoing<M>> {
        self.outgoing.take()
    }
}
