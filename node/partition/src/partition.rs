//! One partition: its write path and its read path, on whichever member of its group this is.

use crate::error::{ReadError, Redirect, WriteError};
use crate::group::{Group, pending_slot};
use crate::hub::Hub;
use crate::journal::Journal;
use crate::latch::Latches;
use crate::place::Seat;
use crate::sessions::{Known, Recorded, RequestToken, TokenNote};
use crate::snapshot::{Fetch, Pins};
use evenkeel_expression::{ConditionView, UpdateView};
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::limits::ENCODED_KEY_BYTES_MAX;
use evenkeel_model::{
    HybridClock, ItemError, ItemView, Slot, StoredHeader, Timestamp, encode_item, stamp_item,
};
use evenkeel_paxos::{self as paxos, Input, MemberId, MemberKind, Standing};
use evenkeel_storage::{self as storage, Disk, Engine, Entry, Newest, Operation, Runtime};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a read waits for a leader to be sure that it leads.
const LEASE_PATIENCE: Duration = Duration::from_secs(1);

/// A stored item's bytes.
type Image = Rc<[u8]>;

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
    pub(crate) pins: Pins,
}

/// A write that is proposed: its slot, and the reign it belongs to.
#[derive(Clone, Copy)]
struct Proposal {
    slot: Slot,
    reign: u64,
}

/// How a write begins, once its key's latch is held.
enum Start {
    /// It has been made before.
    Known(Outcome),
    /// It is to be proposed behind this.
    Before(Newest),
}

/// A durable write.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where it stands in the partition's log.
    pub slot: Slot,
    /// The stored item it replaced, if that was asked for and there was one.
    pub old: Option<Image>,
    /// The stored item that is there now, if that was asked for and there is one.
    pub new: Option<Image>,
}

/// How a write on terms went.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is durable.
    Written(Written),
    /// The condition does not hold; nothing was written.
    ConditionFailed {
        /// The stored item it was held against, if that was asked for and there is one.
        old: Option<Image>,
    },
}

/// What a write makes of an item.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// The item, as `model::encode_item` made it, takes the place of the one before.
    Put(&'a [u8]),
    /// The item goes; there need not be one.
    Delete,
    /// The item is changed, or made from its key attributes.
    Update {
        /// What is changed.
        program: UpdateView<'a>,
        /// The key attributes, as `model::encode_item` made them.
        key_item: &'a [u8],
    },
}

/// On what terms an item is written, and what is wanted of it.
#[derive(Clone, Copy, Default)]
pub struct Terms<'a> {
    /// What must hold for the item that is there.
    pub condition: Option<ConditionView<'a>>,
    /// Whether the item before is wanted.
    pub return_old: bool,
    /// Whether the item that is there afterwards is wanted.
    pub return_new: bool,
    /// Whether the item is wanted for which the condition does not hold.
    pub return_old_on_failure: bool,
    /// Names the write, so that repeating it applies it once and gives the first outcome.
    pub token: Option<RequestToken>,
}

/// A range of encoded keys to be read.
#[derive(Clone)]
pub struct RangeRequest<'a> {
    /// The least key wanted.
    pub lower: &'a [u8],
    /// The least key behind the range; nothing for no end.
    pub upper: Option<&'a [u8]>,
    /// Whether to begin at the upper end.
    pub reverse: bool,
    /// Most items wanted.
    pub items_max: usize,
    /// Most data wanted, by DynamoDB's item sizes; the item that reaches it is the last one.
    pub bytes_max: usize,
    /// What must hold for an item to be in the page; limits count items whether it holds or not.
    pub filter: Option<ConditionView<'a>>,
}

/// Consecutive items of a range.
#[derive(Clone, Debug)]
pub struct Page {
    /// The slot up to which the log was applied when the page was read.
    pub applied: Slot,
    /// Keys and stored items, in the order asked for.
    pub items: Vec<(Rc<[u8]>, Image)>,
    /// Whether the range holds more behind what was looked at.
    pub more: bool,
    /// How many items were looked at.
    pub scanned: usize,
    /// Their size by DynamoDB's rules.
    pub scanned_bytes: u64,
    /// The key of the item looked at last.
    pub last: Option<Rc<[u8]>>,
}

/// How much a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items.
    pub items: u64,
    /// Their size by DynamoDB's rules, in bytes.
    pub bytes: u64,
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

    /// Hands leadership over, if this member has it.
    pub fn transfer(&self, to: Option<MemberId>) {
        self.tell(Input::Transfer { to });
    }

    /// Stands for election.
    pub fn campaign(&self) {
        self.tell(Input::Campaign);
    }

    /// Begins to put a new member in the place of another. Its replica must have been created
    /// ([`Shard::join`](crate::Shard::join)).
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
        let leader = match group.replica.standing() {
            Standing::Follower(leader) => leader,
            Standing::Candidate => None,
            Standing::Leader => Some(group.replica.member().id),
        };
        Redirect { leader, members: group.places.membership(group.replica.configuration()) }
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

    /// Replaces the item of a key; `item` is as `model::encode_item` made it. Durable when it returns.
    ///
    /// # Errors
    /// See [`WriteError`]; only [`WriteError::Log`] leaves the outcome unknown.
    pub async fn put(&self, key: &[u8], item: &[u8]) -> Result<(), WriteError> {
        self.write(key, Change::Put(item), Terms::default()).await.map(drop)
    }

    /// Deletes the item of a key; there need not be one. Durable when it returns.
    ///
    /// # Errors
    /// As [`Partition::put`].
    pub async fn delete(&self, key: &[u8]) -> Result<(), WriteError> {
        self.write(key, Change::Delete, Terms::default()).await.map(drop)
    }

    /// Writes the item of a key. Chosen when it returns; that a condition has failed is told only when
    /// what it was held against is chosen.
    ///
    /// # Errors
    /// See [`WriteError`]; after [`WriteError::Unknown`] and [`WriteError::Log`] the write may be chosen or not.
    pub async fn write(
        &self,
        key: &[u8],
        change: Change<'_>,
        terms: Terms<'_>,
    ) -> Result<Outcome, WriteError> {
        self.check_key(key)?;
        self.lead().await?;
        let key: Rc<[u8]> = Rc::from(key);
        let reads = terms.return_old
            || terms.condition.is_some()
            || terms.token.is_some()
            || matches!(change, Change::Update { .. });
        let (old, new, proposal) = if reads {
            let latch = self.latches.hold(&key).await;
            let reign = self.reign.get();
            let before = match self.start(&key, terms).await? {
                Start::Known(outcome) => return Ok(outcome),
                Start::Before(newest) => newest,
            };
            if !holds(terms.condition, &before)? {
                drop(latch);
                self.settled(before.pending, reign).await?;
                let old = before.image.filter(|_| terms.return_old_on_failure);
                return Ok(Outcome::ConditionFailed { old });
            }
            let old = before.image;
            let (new, proposal) = self.propose_change(&key, change, old.as_ref(), terms, reign)?;
            (old, new, proposal)
        } else {
            self.latches.wait_free(&key).await;
            let (new, proposal) = self.propose_change(&key, change, None, terms, self.reign.get())?;
            (None, new, proposal)
        };
        self.chosen(proposal).await?;
        let (old, new) = (old.filter(|_| terms.return_old), new.filter(|_| terms.return_new));
        Ok(Outcome::Written(Written { slot: proposal.slot, old, new }))
    }

    /// Waits until this member leads, if nobody else can.
    async fn lead(&self) -> Result<(), WriteError> {
        poll_fn(|context| {
            let group = self.group.borrow();
            if group.leads() {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.halted_by.borrow().as_ref() {
                return Poll::Ready(Err(error.clone()));
            }
            if self.is_closed() {
                return Poll::Ready(Err(WriteError::NotOwned(self.row.id)));
            }
            if group.replica.configuration().ids() != [group.replica.member().id] {
                drop(group);
                return Poll::Ready(Err(self.redirect().into()));
            }
            self.watching.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What a write finds when its key's latch is held: its own outcome, if it has been made before, or what
    /// it changes.
    async fn start(&self, key: &Rc<[u8]>, terms: Terms<'_>) -> Result<Start, WriteError> {
        let Some(token) = terms.token else { return Ok(Start::Before(self.newest(key).await?)) };
        if let Some(slot) = pending_slot(&self.group, token) {
            self.chosen(Proposal { slot, reign: self.reign.get() }).await?;
        }
        let known = self.group.borrow().sessions.known(token);
        match known {
            Known::Fresh => Ok(Start::Before(self.newest(key).await?)),
            Known::Stale => Err(WriteError::Stale),
            Known::Done(Recorded { slot, old, new }) => {
                // Only who leads knows that there is no newer state.
                self.readable().await.map_err(WriteError::from_read)?;
                Ok(Start::Known(Outcome::Written(Written { slot, old, new })))
            }
        }
    }

    async fn newest(&self, key: &Rc<[u8]>) -> Result<Newest, storage::ReadError> {
        self.engine.newest(self.row.id, key).await
    }

    /// Waits until what was proposed in this reign for a slot is applied, and until this member is sure to
    /// lead. An answer that reveals it waits for this: it may still be lost, or may be old already.
    async fn settled(&self, pending: Option<Slot>, reign: u64) -> Result<(), WriteError> {
        if let Some(slot) = pending {
            self.chosen(Proposal { slot, reign }).await?;
        }
        self.readable().await.map_err(WriteError::from_read)?;
        if self.reign.get() == reign { Ok(()) } else { Err(self.redirect().into()) }
    }

    /// Waits until a proposal is chosen; that it never will be is not known to anybody.
    async fn chosen(&self, Proposal { slot, reign }: Proposal) -> Result<(), WriteError> {
        poll_fn(|context| {
            let now = self.reign.get();
            let lost_at = (now == reign + 1).then(|| self.reign_ended_at.get());
            if now == reign && self.applied() >= slot || lost_at.is_some_and(|ended| ended >= slot) {
                return Poll::Ready(Ok(()));
            }
            if now != reign {
                return Poll::Ready(Err(WriteError::Unknown));
            }
            if let Some(error) = self.halted_by.borrow().as_ref() {
                let known = matches!(error, WriteError::Log(_));
                return Poll::Ready(Err(if known { error.clone() } else { WriteError::Unknown }));
            }
            self.waiting.borrow_mut().push((slot, context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Makes the new image from the change and proposes it.
    fn propose_change(
        &self,
        key: &Rc<[u8]>,
        change: Change<'_>,
        before: Option<&Image>,
        terms: Terms<'_>,
        reign: u64,
    ) -> Result<(Option<Image>, Proposal), WriteError> {
        let made;
        let item = match change {
            Change::Delete => None,
            Change::Put(item) => Some((item, ItemView::check(item)?.header())),
            Change::Update { program, key_item } => {
                let view = before.map(|image| ItemView::parse(image)).transpose()?;
                let key_attributes = ItemView::check(key_item)?.to_attributes();
                made = encode_item(&program.apply(view.as_ref(), &key_attributes)?);
                Some((made.as_slice(), ItemView::parse(&made)?.header()))
            }
        };
        let note = terms.token.map(|token| TokenNote {
            token,
            wants_new: terms.return_new,
            old: before.filter(|_| terms.return_old).map(|image| &image[..]),
        });
        self.propose(key, item, note, reign)
    }

    /// Gives the write its slot and hands it to consensus, which writes it and sends it at the same moment.
    /// Nothing is awaited here: what was read under a latch still holds, if the reign is the same.
    fn propose(
        &self,
        key: &Rc<[u8]>,
        item: Option<(&[u8], StoredHeader)>,
        note: Option<TokenNote<'_>>,
        reign: u64,
    ) -> Result<(Option<Image>, Proposal), WriteError> {
        if self.is_closed() {
            return Err(WriteError::NotOwned(self.row.id));
        }
        if let Some(error) = self.halted_by.borrow().as_ref() {
            return Err(error.clone());
        }
        let mut group = self.group.borrow_mut();
        if !group.leads() || self.reign.get() != reign {
            drop(group);
            return Err(self.redirect().into());
        }
        let end = group.replica.end();
        let slot = end.slot.next();
        let mut clock = self.clock.get();
        let timestamp = clock.tick(self.hub.runtime.wall_ns());
        let image = item.map(|(bytes, header)| {
            let mut image: Image = Rc::from(bytes);
            let unique = Rc::get_mut(&mut image).expect("made on the line above");
            stamp_item(unique, StoredHeader { timestamp, slot, ..header });
            image
        });
        let operation = match &image {
            Some(image) => Operation::Put { key: key.clone(), image: image.clone() },
            None => Operation::Delete { key: key.clone() },
        };
        let token = note.as_ref().map(|note| note.token);
        let entry = Entry {
            slot,
            timestamp,
            operations: vec![operation],
            note: note.map_or_else(Vec::new, |note| note.encode()),
            ..Entry::default()
        };
        self.engine.admits(self.row.id, [&entry])?;
        let checksum = entry.checksum(self.row.id, self.row.generation, end.checksum);
        if let Err(refused) = self.propose_entry(&mut group, entry, checksum) {
            drop(group);
            return Err(match refused {
                paxos::Refused::NotLeader(_) | paxos::Refused::BadSwap => self.redirect().into(),
                paxos::Refused::SwapPending | paxos::Refused::Full => storage::Refused::Busy.into(),
            });
        }
        if let Some(token) = token.filter(|_| self.applied() < slot) {
            group.pending_tokens.insert((token.session, token.sequence), slot);
        }
        self.clock.set(clock);
        Ok((image, Proposal { slot, reign }))
    }

    /// Whether this member may answer strongly consistent reads now; if so, in which reign.
    fn may_read(&self) -> Option<u64> {
        let group = self.group.borrow();
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        group.replica.may_read(now, &facts).then(|| self.reign.get())
    }

    /// Waits, if this member leads, until it is sure of it; not for long.
    async fn readable(&self) -> Result<u64, ReadError> {
        if let Some(reign) = self.may_read() {
            return Ok(reign);
        }
        let mut sleep = pin!(self.hub.runtime.sleep(LEASE_PATIENCE));
        poll_fn(|context| {
            if let Some(reign) = self.may_read() {
                return Poll::Ready(Ok(reign));
            }
            let over = sleep.as_mut().poll(context).is_ready() || self.halted.get() || self.is_closed();
            let group = self.group.borrow();
            let sole = group.replica.configuration().ids() == [group.replica.member().id];
            if over || !(group.leads() || sole) {
                drop(group);
                return Poll::Ready(Err(self.redirect().into()));
            }
            self.readers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether a read that began in `reign` may be answered, now that the data is read.
    fn still_readable(&self, reign: u64) -> Result<(), ReadError> {
        if self.may_read() == Some(reign) { Ok(()) } else { Err(self.redirect().into()) }
    }

    /// Whether this member has what eventually consistent reads are answered from.
    fn has_content(&self) -> Result<(), ReadError> {
        let group = self.group.borrow();
        let kind = group.replica.configuration().kind(group.replica.member().id);
        if kind == Some(MemberKind::Storage) {
            return Ok(());
        }
        drop(group);
        Err(self.redirect().into())
    }

    /// The stored item of a key, strongly consistent.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Image>, ReadError> {
        let reign = self.readable().await?;
        let image = self.read(key).await?;
        self.still_readable(reign)?;
        Ok(image)
    }

    /// The stored item of a key as of some moment not long ago: what is applied here.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get_eventual(&self, key: &[u8]) -> Result<Option<Image>, ReadError> {
        self.has_content()?;
        self.read(key).await
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Image>, ReadError> {
        if !self.row.owns(key) {
            return Err(ReadError::NotOwned(self.row.id));
        }
        Ok(self.engine.get(self.row.id, key).await?)
    }

    /// A page of a range, strongly consistent. The range may reach beyond the partition's own; what is
    /// beyond is another partition's to answer, and `more` does not count it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn range(&self, request: RangeRequest<'_>) -> Result<Page, ReadError> {
        let reign = self.readable().await?;
        let page = self.page(request).await?;
        self.still_readable(reign)?;
        Ok(page)
    }

    /// A page of a range as of some moment not long ago: what is applied here.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn range_eventual(&self, request: RangeRequest<'_>) -> Result<Page, ReadError> {
        self.has_content()?;
        self.page(request).await
    }

    async fn page(&self, request: RangeRequest<'_>) -> Result<Page, ReadError> {
        let lower = request.lower.max(&self.row.lower).to_vec();
        let upper = match (request.upper, self.row.upper.as_deref()) {
            (Some(asked), Some(own)) => Some(asked.min(own).to_vec()),
            (asked, own) => asked.or(own).map(<[u8]>::to_vec),
        };
        let applied = self.applied();
        let query = storage::RangeQuery {
            lower,
            upper,
            reverse: request.reverse,
            items_max: request.items_max,
            bytes_max: request.bytes_max,
        };
        let storage::Page { mut items, more } = self.engine.range(self.row.id, query).await?;
        let scanned = items.len();
        let scanned_bytes = items.iter().map(|(_, image)| stored_item_bytes(image)).sum();
        let last = items.last().map(|(key, _)| key.clone());
        if let Some(filter) = request.filter {
            let mut malformed = None;
            items.retain(|(_, image)| match ItemView::parse(image) {
                Ok(item) => filter.holds(Some(&item)),
                Err(error) => {
                    malformed.get_or_insert(error);
                    false
                }
            });
            if let Some(error) = malformed {
                return Err(error.into());
            }
        }
        Ok(Page { applied, items, more, scanned, scanned_bytes, last })
    }

    /// Waits until more than `after` is applied, `patience` has passed, or the partition closes; yields
    /// the slot applied last.
    pub async fn changed(&self, after: Slot, patience: Duration) -> Slot {
        let mut sleep = pin!(self.hub.runtime.sleep(patience));
        poll_fn(|context| {
            let over = sleep.as_mut().poll(context).is_ready();
            if over || self.is_closed() || self.applied() > after {
                return Poll::Ready(self.applied());
            }
            self.watching.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// How much the partition holds.
    pub fn counts(&self) -> Counts {
        let counts = self.engine.counts(self.row.id);
        Counts { items: counts.items, bytes: counts.bytes }
    }

    fn check_key(&self, key: &[u8]) -> Result<(), WriteError> {
        if key.is_empty() || key.len() > ENCODED_KEY_BYTES_MAX {
            return Err(WriteError::KeyBytes(key.len()));
        }
        if !self.row.owns(key) {
            return Err(WriteError::NotOwned(self.row.id));
        }
        Ok(())
    }
}

/// Whether there is no condition, or it holds for the newest image.
fn holds(condition: Option<ConditionView<'_>>, newest: &Newest) -> Result<bool, ItemError> {
    let Some(condition) = condition else { return Ok(true) };
    let item = newest.image.as_deref().map(ItemView::parse).transpose()?;
    Ok(condition.holds(item.as_ref()))
}
