//! One partition: its write path and its read path.

use crate::error::{ReadError, WriteError};
use crate::latch::Latches;
use evenkeel_expression::{ConditionView, UpdateView};
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::limits::ENCODED_KEY_BYTES_MAX;
use evenkeel_model::{
    Ballot, HybridClock, ItemError, ItemView, Slot, StoredHeader, Timestamp, encode_item, stamp_item,
};
use evenkeel_storage::{self as storage, Disk, Engine, Entry, Operation, Runtime};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The single copy leads for ever; replication gives ballots their meaning.
const SOLE_BALLOT: Ballot = Ballot { round: 1, replica: 0 };

/// How often it is looked whether the log has failed, while a write of it is waited for.
const SETTLE_PATIENCE: Duration = Duration::from_millis(100);

/// A stored item's bytes.
type Image = Rc<[u8]>;

/// One copy of one partition. Its methods may be under way many times at once, on one core.
pub struct Partition<D: Disk, R: Runtime> {
    row: PartitionRow,
    engine: Engine<D, R>,
    runtime: R,
    clock: Cell<HybridClock>,
    proposed_slot: Cell<Slot>,
    applied_slot: Cell<Slot>,
    closed: Cell<bool>,
    /// The newest image proposed for each key that has a write under way.
    proposed: RefCell<HashMap<Rc<[u8]>, Proposed>>,
    latches: Latches,
    watching: RefCell<Vec<Waker>>,
}

struct Proposed {
    slot: Slot,
    image: Option<Image>,
}

/// The newest image of a key, durable or not.
struct Newest {
    image: Option<Image>,
    /// The slot that put it there, if that is not applied yet.
    pending: Option<Slot>,
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
    /// Takes up a partition whose log ends at `last_slot`, all of it durable and so applied now.
    pub(crate) fn open(
        row: PartitionRow,
        engine: Engine<D, R>,
        runtime: R,
        last_slot: Slot,
        last_timestamp: Timestamp,
    ) -> Partition<D, R> {
        engine.apply(row.id, last_slot);
        Partition {
            row,
            engine,
            runtime,
            clock: Cell::new(HybridClock::after(last_timestamp)),
            proposed_slot: Cell::new(last_slot),
            applied_slot: Cell::new(last_slot),
            closed: Cell::new(false),
            proposed: RefCell::default(),
            latches: Latches::default(),
            watching: RefCell::default(),
        }
    }

    /// What the partition is: its table, range and generation.
    pub fn row(&self) -> &PartitionRow {
        &self.row
    }

    /// Takes no more writes, and lets every watcher go: the partition is about to be dropped, or the
    /// shard to stop.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.watching.borrow_mut().drain(..).for_each(Waker::wake);
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

    /// Writes the item of a key. Durable when it returns; that a condition has failed is told only when
    /// what it was held against is durable.
    ///
    /// # Errors
    /// As [`Partition::put`].
    pub async fn write(
        &self,
        key: &[u8],
        change: Change<'_>,
        terms: Terms<'_>,
    ) -> Result<Outcome, WriteError> {
        self.check_key(key)?;
        let key: Rc<[u8]> = Rc::from(key);
        let reads = terms.return_old || terms.condition.is_some() || matches!(change, Change::Update { .. });
        let (old, new, (durable, slot)) = if reads {
            let latch = self.latches.hold(&key).await;
            let before = self.newest(&key).await?;
            if !holds(terms.condition, &before)? {
                drop(latch);
                self.settled(before.pending).await?;
                let old = before.image.filter(|_| terms.return_old_on_failure);
                return Ok(Outcome::ConditionFailed { old });
            }
            let (new, proposed) = self.propose_change(&key, change, before.image.as_deref())?;
            (before.image, new, proposed)
        } else {
            self.latches.wait_free(&key).await;
            let (new, proposed) = self.propose_change(&key, change, None)?;
            (None, new, proposed)
        };
        durable.await?;
        self.chosen(&key, slot);
        let (old, new) = (old.filter(|_| terms.return_old), new.filter(|_| terms.return_new));
        Ok(Outcome::Written(Written { slot, old, new }))
    }

    /// Waits until what was proposed for a slot is applied. An answer that reveals it waits for this: it
    /// may still be lost.
    async fn settled(&self, pending: Option<Slot>) -> Result<(), WriteError> {
        while pending.is_some_and(|slot| self.applied() < slot) {
            if let Some(failure) = self.engine.log_failure() {
                return Err(failure.into());
            }
            if self.is_closed() {
                return Err(WriteError::NotOwned(self.row.id));
            }
            self.changed(self.applied(), SETTLE_PATIENCE).await;
        }
        Ok(())
    }

    /// Makes the new image from the change and proposes it.
    fn propose_change(
        &self,
        key: &Rc<[u8]>,
        change: Change<'_>,
        before: Option<&[u8]>,
    ) -> Result<(Option<Image>, (storage::Durable, Slot)), WriteError> {
        let made;
        let item = match change {
            Change::Delete => None,
            Change::Put(item) => Some((item, ItemView::check(item)?.header())),
            Change::Update { program, key_item } => {
                let view = before.map(ItemView::parse).transpose()?;
                let key_attributes = ItemView::check(key_item)?.to_attributes();
                made = encode_item(&program.apply(view.as_ref(), &key_attributes)?);
                Some((made.as_slice(), ItemView::parse(&made)?.header()))
            }
        };
        self.propose(key, item)
    }

    /// Gives the write its slot and hands it to the log. Nothing is awaited here: what was read under a
    /// latch still holds.
    fn propose(
        &self,
        key: &Rc<[u8]>,
        item: Option<(&[u8], StoredHeader)>,
    ) -> Result<(Option<Image>, (storage::Durable, Slot)), WriteError> {
        if self.is_closed() {
            return Err(WriteError::NotOwned(self.row.id));
        }
        let slot = self.proposed_slot.get().next();
        let mut clock = self.clock.get();
        let timestamp = clock.tick(self.runtime.wall_ns());
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
        let entry = Entry { slot, ballot: SOLE_BALLOT, timestamp, operations: vec![operation] };
        let durable = self.engine.append(self.row.id, entry)?;
        self.proposed_slot.set(slot);
        self.clock.set(clock);
        self.proposed.borrow_mut().insert(key.clone(), Proposed { slot, image: image.clone() });
        Ok((image, (durable, slot)))
    }

    /// Applies everything up to a slot that is durable, and with a single copy thereby chosen.
    fn chosen(&self, key: &Rc<[u8]>, slot: Slot) {
        if slot > self.applied_slot.get() {
            self.engine.apply(self.row.id, slot);
            self.applied_slot.set(slot);
            self.watching.borrow_mut().drain(..).for_each(Waker::wake);
        }
        let mut proposed = self.proposed.borrow_mut();
        if proposed.get(key).is_some_and(|newest| newest.slot == slot) {
            proposed.remove(key);
        }
    }

    async fn newest(&self, key: &Rc<[u8]>) -> Result<Newest, storage::ReadError> {
        if let Some(newest) = self.proposed.borrow().get(key) {
            return Ok(Newest { image: newest.image.clone(), pending: Some(newest.slot) });
        }
        Ok(Newest { image: self.engine.get(self.row.id, key).await?, pending: None })
    }

    /// The stored item of a key, strongly consistent.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Image>, ReadError> {
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
        let mut sleep = pin!(self.runtime.sleep(patience));
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
