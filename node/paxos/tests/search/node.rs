//! One simulated core with one replica: its disk, its clock, its support, and what waits for the disk.

use evenkeel_model::{Ballot, Generation, Slot};
use evenkeel_paxos::{
    Anchor, Configuration, Durable, Entry, EntryKind, Facts, Grant, Member, MemberId, Message, Record,
    Replica, Settings, SupportSettings, Supports, Time, Token, Trap,
};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Most members of one world.
pub const NODES_MAX: usize = 6;

pub const SUPPORT: SupportSettings = SupportSettings { lease_ns: 6, drift_ns: 2, period_ns: 2, trap: None };

/// What a group asks its surroundings, answered from one core's support.
pub struct Surroundings<'a> {
    pub settings: &'a Settings,
    pub supports: &'a Supports,
}

impl Facts for Surroundings<'_> {
    fn settings(&self) -> &Settings {
        self.settings
    }

    fn received(&self, member: MemberId) -> Grant {
        place(member).map(|at| self.supports.received(at)).unwrap_or_default()
    }

    fn given(&self, member: MemberId) -> Grant {
        place(member).map(|at| self.supports.given(at)).unwrap_or_default()
    }

    fn seal(&self, previous: Anchor, kind: &EntryKind) -> u128 {
        checksum(previous.checksum, &(previous.slot, kind))
    }
}

fn place(member: MemberId) -> Option<usize> {
    (member.0 as usize).checked_sub(1).filter(|&at| at < NODES_MAX)
}

/// A chained checksum; stands in for the log's xxh3-128.
pub fn checksum(previous: u128, content: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, previous).hash(&mut hasher);
        content.hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(1)) << 64 | u128::from(half(2))
}

/// A write that the disk has not finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    pub token: Token,
    pub record: Record,
    pub entries: Vec<Entry>,
}

/// A message that waits for a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub after: Token,
    pub to: MemberId,
    pub message: Message,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub replica: Replica,
    pub supports: Supports,
    pub incarnation: u32,
    /// The local clock; it began anywhere.
    pub clock: u64,
    /// How often the clock ran ahead.
    pub drifts: u8,
    /// What is on the device.
    pub disk: Durable,
    /// What will be, when all writes are done.
    pub view: Durable,
    pub queue: VecDeque<Write>,
    pub durable: Token,
    pub held: Vec<Held>,
    /// The last slot said to be chosen, in this life.
    pub committed: Slot,
    /// The disk is gone, and with it the member.
    pub lost: bool,
    /// Messages from and to it do not arrive.
    pub cut: bool,
    /// Promises before the last one, for the mistake that forgets it.
    pub promises: Vec<Ballot>,
}

impl Node {
    pub fn new(member: Member, founders: Configuration, clock: u64) -> Node {
        let disk = Durable::new(founders);
        let replica = if founders.contains(member.id) {
            Replica::first(member.id, Generation(1), founders)
        } else {
            Replica::joining(member, Generation(1), founders)
        };
        Node {
            replica,
            supports: Supports::new(SUPPORT, 1, NODES_MAX, Time::default()),
            incarnation: 1,
            clock,
            drifts: 0,
            view: disk.clone(),
            disk,
            queue: VecDeque::new(),
            durable: Token(0),
            held: Vec::new(),
            committed: Slot(0),
            lost: false,
            cut: false,
            promises: vec![Ballot::default()],
        }
    }

    pub fn id(&self) -> MemberId {
        self.replica.member().id
    }

    pub fn now(&self) -> Time {
        Time(self.clock)
    }

    /// Stops at once and starts again. Of the writes under way the first `records` are found on the device,
    /// and `entries` entries of the next one.
    pub fn crash(&mut self, records: usize, entries: usize, trap: Option<Trap>, unclean: bool) {
        for write in self.queue.drain(..).take(records + 1).enumerate() {
            let (at, write) = write;
            let cut = if at < records { write.entries.len() } else { entries.min(write.entries.len()) };
            // A record whose entries are all cut away is not there either, unless it has none.
            if at < records || cut > 0 {
                self.disk.apply(&write.record, &write.entries[..cut]);
            }
        }
        if trap == Some(Trap::PromiseComesBackOlder) {
            let older = self.promises.iter().rev().copied().find(|&ballot| ballot < self.disk.promised());
            self.disk.lose_promise(older.unwrap_or_default());
        }
        self.view = self.disk.clone();
        self.incarnation += 1;
        self.held.clear();
        self.durable = Token(0);
        let settings = SupportSettings { trap, ..SUPPORT };
        let votes_from = if unclean {
            self.now().after(Supports::restart_wait_ns(&settings))
        } else {
            self.supports.given_until()
        };
        self.supports = Supports::new(settings, self.incarnation, NODES_MAX, votes_from);
        let member = self.replica.member();
        self.replica = Replica::recover(member, Generation(1), &self.disk, votes_from);
        self.committed = self.replica.chosen().slot;
    }
}
