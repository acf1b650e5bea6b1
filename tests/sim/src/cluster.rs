//! The seam between the simulator and what it simulates: one core of one node, for one life.
//!
//! A core keeps what must last on its disk, and everything else in itself: after a crash the simulator
//! drops it, with all its tasks, and starts another on the disk that the crash left behind.

use crate::seen::Seen;
use crate::watch::{Ballot, Watch};
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

/// A member of a partition's group, and where it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Its number, never used twice in its group.
    pub member: u32,
    /// Its core.
    pub place: Place,
    /// Which node it was there: the one at first is 0, and each that takes its place with empty disks counts
    /// one more.
    pub incarnation: u32,
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
    /// Bytes of a segment of a log, and how many segments there are.
    pub segments: (u64, u64),
    /// Memory for pages.
    pub cache_bytes: u64,
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
    /// Make a member that a swap is to bring in.
    Join {
        /// The partition.
        partition: usize,
        /// The member, and where it is to be.
        add: Seat,
    },
    /// Replace a member by a new one.
    Swap {
        /// The partition.
        partition: usize,
        /// The number of the member that goes.
        remove: u32,
        /// The new one.
        add: Seat,
    },
    /// Drop a member that a swap has passed over.
    Drop {
        /// The partition.
        partition: usize,
        /// The member.
        at: Seat,
    },
}

/// What a core holds of a partition, for checkers to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// The partition.
    pub partition: usize,
    /// The slot up to which it is applied.
    pub applied: u64,
    /// A hash of the content, and the slot that it is as of, if that could be read yet.
    pub content: Option<(u64, u128)>,
    /// The last mark at which a merge has ended, and the content's hash there by its tree.
    pub mark: Option<(u64, u128)>,
    /// Which member it is.
    pub member: u32,
    /// The last slot of its log.
    pub end: u64,
    /// The greatest ballot that it has promised.
    pub promised: Ballot,
    /// Whether it would serve a strong read at this moment.
    pub serves: bool,
    /// The members, as of that slot.
    pub members: Vec<Seat>,
    /// The greatest number that a member ever had, as of that slot.
    pub member_max: u32,
}

/// What a core starts with.
pub struct Start<M> {
    /// Where it is.
    pub place: Place,
    /// The cluster.
    pub shape: Rc<Shape>,
    /// Which life of this core it is, from 1, since its disk was empty.
    pub life: u32,
    /// How many nodes were here before, whose disks are gone.
    pub incarnation: u32,
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

    /// Whether it keeps its promises when any one disk is damaged or emptied.
    const OUTLIVES_A_DISK: bool;

    /// A message in few words.
    fn describe(message: &Self::Message) -> String {
        format!("{message:?}")
    }

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

    /// What damage of its disk it has found, if so: then it is of no use any more.
    fn damage(&self) -> Option<String> {
        None
    }

    /// The number of the member of a partition that is here, if there is one, whether its copy is complete or
    /// not.
    fn member(&self, partition: usize) -> Option<u32> {
        let _ = partition;
        None
    }

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
    watch: Watch,
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        let (seen, watch) = (self.seen.clone(), self.watch.clone());
        Outbox { outgoing: Rc::clone(&self.outgoing), seen, watch }
    }
}

impl<M> Outbox<M> {
    pub(crate) fn new(seen: Seen, watch: Watch) -> Outbox<M> {
        Outbox { outgoing: Rc::default(), seen, watch }
    }

    /// Where it puts what it has promised, and what it sees to be wrong.
    pub fn watch(&self) -> &Watch {
        &self.watch
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
