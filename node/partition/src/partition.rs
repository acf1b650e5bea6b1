//! One partition: its write path and its read path.

use crate::error::{ReadError, WriteError};
use crate::latch::Latches;
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::limits::ENCODED_KEY_BYTES_MAX;
use evenkeel_model::{Ballot, HybridClock, ItemView, Slot, StoredHeader, Timestamp, stamp_item};
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

/// A durable write.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where it stands in the partition's log.
    pub slot: Slot,
    /// The stored item it replaced, if that was asked for and there was one.
    pub old: Option<Image>,
}

/// A range of encoded keys to be read.
#[derive(Clone, Debug)]
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
}

/// Consecutive items of a range.
#[derive(Clone, Debug)]
pub struct Page {
    /// The slot up to which the log was applied when the page was read.
    pub applied: Slot,
    /// Keys and stored items, in the order asked for.
    pub items: Vec<(Rc<[u8]>, Image)>,
    /// Whether the range holds more behind the last item.
    pub more: bool,
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
    pub async fn put(&self, key: &[u8], item: &[u8], return_old: bool) -> Result<Written, WriteError> {
        self.check_key(key)?;
        let header = ItemView::check(item)?.header();
        self.write(key, Some((item, header)), return_old).await
    }

    /// Deletes the item of a key; there need not be one. Durable when it returns.
    ///
    /// # Errors
    /// As [`Partition::put`].
    pub async fn delete(&self, key: &[u8], return_old: bool) -> Result<Written, WriteError> {
        self.check_key(key)?;
        self.write(key, None, return_old).await
    }

    async fn write(
        &self,
        key: &[u8],
        item: Option<(&[u8], StoredHeader)>,
        return_old: bool,
    ) -> Result<Written, WriteError> {
        let key: Rc<[u8]> = Rc::from(key);
        let (old, durable, slot) = if return_old {
            let _latch = self.latches.hold(&key).await;
            let old = self.newest_image(&key).await?;
            let (durable, slot) = self.propose(&key, item)?;
            (old, durable, slot)
        } else {
            self.latches.wait_free(&key).await;
            let (durable, slot) = self.propose(&key, item)?;
            (None, durable, slot)
        };
        durable.await?;
        self.chosen(&key, slot);
        Ok(Written { slot, old })
    }

    /// Gives the write its slot and hands it to the log. Nothing is awaited here: what was read under a
    /// latch still holds.
    fn propose(
        &self,
        key: &Rc<[u8]>,
        item: Option<(&[u8], StoredHeader)>,
    ) -> Result<(storage::Durable, Slot), WriteError> {
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
        self.proposed.borrow_mut().insert(key.clone(), Proposed { slot, image });
        Ok((durable, slot))
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

    async fn newest_image(&self, key: &Rc<[u8]>) -> Result<Option<Image>, storage::ReadError> {
        if let Some(newest) = self.proposed.borrow().get(key) {
            return Ok(newest.image.clone());
        }
        self.engine.get(self.row.id, key).await
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
        let page = self.engine.range(self.row.id, query).await?;
        Ok(Page { applied, items: page.items, more: page.more })
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
