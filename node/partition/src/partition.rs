//! One member of one partition's group: its state, what it is, and who waits for what.
//!
//! `write.rs` is its write path, `read.rs` its read path; what consensus asks is done in `group.rs`.

mod read;
mod write;

pub use read::{Counts, Page, RangeRequest};
pub use write::{Change, Outcome, Terms, Written};

use crate::copy::Fetch;
use crate::error::{Redirect, Stopped, WriteError};
use crate::group::Group;
use crate::hub::Hub;
use crate::journal::Journal;
use crate::latch::Latches;
use crate::mistakes;
use crate::place::Seat;
use crate::snapshot::Pins;
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{Ballot, HybridClock, Slot, Timestamp};
use evenkeel_paxos::{self as paxos, Facts, Input, Member, MemberId, MemberKind, Standing};
use evenkeel_storage::{self as storage, Disk, Engine, Mark, Mistake, Runtime};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A stored item's bytes.
type Image = Rc<[u8]>;

/// What a member is and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Which one.
    pub member: MemberId,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it is sure to, so that it answers reads.
    pub leased: bool,
    /// The greatest ballot it has promised.
    pub ballot: Ballot,
    /// The last slot that is applied.
    pub applied: Slot,
    /// The last slot of its log.
    pub end: Slot,
    /// The greatest timestamp in its log.
    pub timestamp: Timestamp,
    /// The last mark at which a merge has ended here, since the start.
    pub mark: Option<Mark>,
}

/// One member of one partition's group. Its methods may be under way many times at once, on one core.
pub struct Partition<D: Disk, R: Runtime> {
    row: PartitionRow,
    pub(crate) engine: Engine<D, R>,
    pub(crate) hub: Rc<Hub<R>>,
    pub(crate) journal: Rc<Journal<Partition<D, R>>>,
    this: Weak<Partition<D, R>>,
    pub(crate) group: RefCell<Group>,
    clock: Cell<HybridClock>,
    applied_slot: Cell<Slot>,
    closed: Cell<bool>,
    /// Nothing more is written; why.
    pub(crate) halted: Cell<bool>,
    halted_by: RefCell<Option<WriteError>>,
    /// Others reach the leader and this member does not, for too long.
    pub(crate) blocked: Cell<bool>,
    /// A chosen swap has removed this member.
    pub(crate) removed: Cell<bool>,
    leading: Cell<bool>,
    /// Counts how often leadership was lost.
    reign: Cell<u64>,
    /// What was applied when it was lost last.
    reign_ended_at: Cell<Slot>,
    latches: Latches,
    /// Writes that wait for their slots to be chosen.
    waiting: RefCell<Vec<(Slot, Waker)>>,
    /// Reads that wait for the lease.
    readers: RefCell<Vec<Waker>>,
    watching: RefCell<Vec<Waker>>,
    pub(crate) fetching: RefCell<Option<Fetch>>,
    pub(crate) pins: Pins<D, R>,
}

impl<D: Disk, R: Runtime> Partition<D, R> {
    /// A member of a group, as its log describes it.
    pub(crate) fn open(
        row: PartitionRow,
        engine: Engine<D, R>,
        hub: Rc<Hub<R>>,
        journal: Rc<Journal<Partition<D, R>>>,
        group: Group,
        last_timestamp: Timestamp,
    ) -> Rc<Partition<D, R>> {
        let applied = group.replica.chosen().slot;
        let sole = group.replica.configuration().ids() == [group.replica.member().id];
        if !sole {
            engine.keep(row.id, hub.config.tail_bytes_max);
        }
        let partition = Rc::new_cyclic(|this| Partition {
            row,
            engine,
            hub,
            journal,
            this: this.clone(),
            group: RefCell::new(group),
            clock: Cell::new(HybridClock::after(last_timestamp)),
            applied_slot: Cell::new(applied),
            closed: Cell::new(false),
            halted: Cell::new(false),
            halted_by: RefCell::default(),
            blocked: Cell::new(false),
            removed: Cell::new(false),
            leading: Cell::new(false),
            reign: Cell::new(0),
            reign_ended_at: Cell::new(Slot(0)),
            latches: Latches::default(),
            waiting: RefCell::default(),
            readers: RefCell::default(),
            watching: RefCell::default(),
            fetching: RefCell::default(),
            pins: Pins::default(),
        });
        // A group with one member elects itself at once.
        partition.tell(if sole { Input::Campaign } else { Input::Tick });
        partition
    }

    pub(crate) fn this(&self) -> Rc<Partition<D, R>> {
        self.this.upgrade().expect("whoever calls a method holds it")
    }

    /// What the partition is: its table, range and generation.
    pub fn row(&self) -> &PartitionRow {
        &self.row
    }

    /// Takes no more writes, and lets every watcher go: the partition is about to be dropped, or the
    /// shard to stop.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.wake_all();
    }

    /// Nothing more is written: the log is full to its last block, or the partition has been dropped.
    pub(crate) fn halt(&self, refused: &storage::Refused) {
        self.halt_with(WriteError::Refused(refused.clone()));
    }

    pub(crate) fn halt_because(&self, reason: &storage::WalFailed) {
        self.halt_with(WriteError::Log(reason.clone()));
    }

    fn halt_with(&self, error: WriteError) {
        self.halted.set(true);
        self.halted_by.borrow_mut().get_or_insert(error);
        self.wake_all();
    }

    /// Whether it has stopped because the engine refused what its group had decided.
    pub(crate) fn refused(&self) -> Option<Stopped> {
        match self.halted_by.borrow().as_ref() {
            Some(WriteError::Refused(refused)) => {
                Some(Stopped::Refused { partition: self.row.id, refused: refused.clone() })
            }
            _ => None,
        }
    }

    fn wake_all(&self) {
        self.watching.borrow_mut().drain(..).for_each(Waker::wake);
        self.waiting.borrow_mut().drain(..).for_each(|(_, waker)| waker.wake());
        self.wake_readers();
    }

    pub(crate) fn wake_readers(&self) {
        self.readers.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Leadership was won, or it was not, or is no longer.
    pub(crate) fn leadership_changed(&self, leads: bool) {
        if self.leading.replace(leads) && !leads {
            self.reign.set(self.reign.get() + 1);
            self.reign_ended_at.set(self.applied());
        }
        self.wake_all();
    }

    /// Takes note that the log is applied up to a slot.
    pub(crate) fn set_applied(&self, slot: Slot) {
        self.applied_slot.set(slot);
        self.watching.borrow_mut().drain(..).for_each(Waker::wake);
        self.waiting.borrow_mut().retain(|(waits_for, waker)| {
            let over = *waits_for <= slot;
            if over {
                waker.wake_by_ref();
            }
            !over
        });
    }

    /// Takes note of a timestamp in the log: the next one made here is greater.
    pub(crate) fn observe(&self, timestamp: Timestamp) {
        let mut clock = self.clock.get();
        clock.observe(timestamp);
        self.clock.set(clock);
    }

    /// What this member is at the moment.
    pub fn standing(&self) -> Standing {
        self.group.borrow().replica.standing()
    }

    /// Which member this is.
    pub fn member(&self) -> MemberId {
        self.group.borrow().replica.member().id
    }

    /// What is to be known of it beside its items, as of what is applied.
    pub(crate) fn state(&self) -> Rc<[u8]> {
        self.group.borrow().state(!self.errs(mistakes::TOKENS_LOST_IN_CHECKPOINT))
    }

    /// Whether to make a mistake here, for a test.
    pub(crate) fn errs(&self, mistake: Mistake) -> bool {
        self.hub.runtime.errs(mistake)
    }

    /// Hands leadership over, if this member has it.
    pub fn transfer(&self, to: Option<MemberId>) {
        self.tell(Input::Transfer { to });
    }

    /// Hands leadership over to a member that this core hears of, if this one has it and there is one; returns
    /// whether it did.
    pub fn hand_over(&self) -> bool {
        let to = {
            let group = self.group.borrow();
            let facts = self.surroundings(&group.places);
            let (own, now) = (group.replica.member().id, self.hub.now());
            let able = |member: &Member| member.id != own && member.kind == MemberKind::Storage;
            let live = |member: &Member| facts.received(member.id).live(now);
            let members = group.replica.configuration().members();
            members.filter(able).find(live).filter(|_| group.leads()).map(|member| member.id)
        };
        if to.is_some() {
            self.transfer(to);
        }
        to.is_some()
    }

    /// Stands for election.
    pub fn campaign(&self) {
        self.tell(Input::Campaign);
    }

    /// Begins to put a new member in the place of another. Its replica must have been created
    /// ([`Shard::create_member`](crate::Shard::create_member)).
    ///
    /// # Errors
    /// See [`paxos::Refused`].
    pub fn swap(&self, remove: MemberId, add: Seat) -> Result<(), paxos::Refused> {
        self.swap_member(remove, add)
    }

    /// Whether others have said for too long that they reach a leader whom this member does not reach.
    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether a chosen swap has removed this member: it may be dropped.
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Who leads, as far as this member knows, and who the members are.
    pub fn redirect(&self) -> Redirect {
        let group = self.group.borrow();
        let facts = self.surroundings(&group.places);
        let leader = match group.replica.standing() {
            // One that this core has not heard of for a lease is probably gone.
            Standing::Follower(leader) => leader.filter(|&id| facts.given(id).live(self.hub.now())),
            Standing::Candidate => None,
            Standing::Leader => Some(group.replica.member().id),
        };
        Redirect { leader, members: group.places.membership(group.replica.configuration()) }
    }

    /// The stretch of uninterrupted leadership that this member is in, if it leads.
    pub fn reign(&self) -> Option<u64> {
        self.leading.get().then(|| self.reign.get())
    }

    /// Waits until this member leads, or does not; true unless the partition closes before.
    pub async fn until_leading(&self, leads: bool) -> bool {
        poll_fn(|context| {
            if self.is_closed() {
                return Poll::Ready(false);
            }
            if self.leading.get() == leads {
                return Poll::Ready(true);
            }
            self.watching.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until this member leads or knows who does, not longer than `patience`.
    pub async fn until_led(&self, patience: Duration) -> Redirect {
        let mut sleep = pin!(self.hub.runtime.sleep(patience));
        poll_fn(|context| {
            let redirect = self.redirect();
            let over = sleep.as_mut().poll(context).is_ready() || self.is_closed() || self.halted.get();
            if over || redirect.leader.is_some() {
                return Poll::Ready(redirect);
            }
            self.readers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What this member is and how far it is.
    pub fn report(&self) -> State {
        let leased = self.may_read().is_some();
        let group = self.group.borrow();
        State {
            member: group.replica.member().id,
            leads: group.leads(),
            leased,
            ballot: group.replica.promised(),
            applied: self.applied(),
            end: group.replica.end().slot,
            timestamp: self.last_timestamp(),
            mark: self.engine.last_mark(self.row.id),
        }
    }

    /// Its records are gone from the engine: nothing more is written, and what was written ends as it may.
    pub(crate) fn retire(&self) {
        self.halted.set(true);
        let sole = self.redirect().members.places.len() == 1;
        if !sole {
            self.halt_with(WriteError::Unknown);
        }
    }

    /// The greatest timestamp in its log.
    pub(crate) fn last_timestamp(&self) -> Timestamp {
        self.engine.last_timestamp(self.row.id)
    }

    /// Whether the partition is about to be dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The slot applied last.
    pub fn applied(&self) -> Slot {
        self.applied_slot.get()
    }
}
