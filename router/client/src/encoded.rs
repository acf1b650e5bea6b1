//! Operations on encoded keys and items, as routers and importers use them.

use crate::call::{NoRoute, Request, not_ready, routes};
use crate::catalogue::View;
use crate::client::Client;
use crate::connection::LaneChoice;
use crate::error::Error;
use crate::page::{ItemPage, Part, StoredItem};
use bytes::Bytes;
use evenkeel_caller::{Effect, Replicas};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::{Generation, PartitionId};
pub use evenkeel_wire::message::Terms;
use evenkeel_wire::message::{self, ConditionFailed, Delete, Found, Get, Put, Range, Update};
use evenkeel_wire::{DecodeError, Frame, Kind, decode, encode};

/// Of which moment what is read is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Of this moment: everything acknowledged before is in it.
    Strong,
    /// Of some moment not long ago, as the replica in the reader's zone has it; of this moment where the
    /// configuration names no zone.
    Eventual,
}

/// A range of encoded keys of a table, and how much of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The least encoded key wanted.
    pub lower: Vec<u8>,
    /// The least encoded key behind the range; nothing for no end.
    pub upper: Option<Vec<u8>>,
    /// Of which moment the items are to be.
    pub consistency: Consistency,
    /// Whether to begin at the upper end.
    pub reverse: bool,
    /// Most items wanted; at least 1.
    pub items_max: u32,
    /// Most data wanted, by DynamoDB's item sizes; the item that reaches it is the last one.
    pub bytes_max: u32,
    /// What must hold for an item to be in the page, as `evenkeel_expression::Condition::encode` made it.
    /// Limits count items whether it holds for them or not.
    pub filter: Option<Vec<u8>>,
}

/// What a write makes of an item.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The item, as `evenkeel_model::encode_item` made it, takes the place of the one before.
    Put(&'a [u8]),
    /// The item goes; there need not be one.
    Delete,
    /// The item is changed, or made.
    Update {
        /// What is changed, as `evenkeel_expression::Update::encode` made it.
        program: &'a [u8],
        /// The key attributes, as `evenkeel_model::encode_item` made them.
        key_item: &'a [u8],
    },
}

/// What a write has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The item before, if it was asked for and there was one.
    pub old: Option<StoredItem>,
    /// The item now, if it was asked for and there is one.
    pub new: Option<StoredItem>,
}

impl Client {
    /// Reads one item.
    ///
    /// # Errors
    /// See [`Error`]; nothing was changed.
    pub async fn get_encoded(
        &self,
        table: &TableRow,
        key: &[u8],
        consistency: Consistency,
    ) -> Result<Option<StoredItem>, Error> {
        let consistency = self.inner().offered(consistency);
        self.inner().call(&GetItem { table, key, consistency }, self.inner().deadline()).await
    }

    /// Replaces one item by one that `evenkeel_model::encode_item` made; returns the one before if
    /// `return_old`. It is durable when this returns.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::OutcomeUnknown`] the write may have happened or not.
    pub async fn put_encoded(
        &self,
        table: &TableRow,
        key: &[u8],
        item: &[u8],
        return_old: bool,
    ) -> Result<Option<StoredItem>, Error> {
        let terms = Terms { return_old, ..Terms::default() };
        Ok(self.write_encoded(table, key, Change::Put(item), terms).await?.old)
    }

    /// Deletes one item, if it is there; returns it if `return_old`. It is durable when this returns.
    ///
    /// # Errors
    /// As for [`Client::put_encoded`].
    pub async fn delete_encoded(
        &self,
        table: &TableRow,
        key: &[u8],
        return_old: bool,
    ) -> Result<Option<StoredItem>, Error> {
        let terms = Terms { return_old, ..Terms::default() };
        Ok(self.write_encoded(table, key, Change::Delete, terms).await?.old)
    }

    /// Writes one item on terms. It is durable when this returns. A write without a token is given one, so that it
    /// is made once however often it must be repeated until the deadline.
    ///
    /// # Errors
    /// As for [`Client::put_encoded`]; [`Error::ConditionFailed`] if the condition does not hold.
    pub async fn write_encoded(
        &self,
        table: &TableRow,
        key: &[u8],
        change: Change<'_>,
        terms: Terms<'_>,
    ) -> Result<Written, Error> {
        let named = terms.token.is_none().then(|| self.inner().tokens.begin());
        let token = terms.token.or(named.as_ref().map(|named| named.token()));
        let write = WriteItem { table, key, change, terms: Terms { token, ..terms } };
        match self.inner().call(&write, self.inner().deadline()).await? {
            WriteAnswer::Written(written) => Ok(written),
            WriteAnswer::ConditionFailed(old) => Err(Error::ConditionFailed { old }),
        }
    }

    /// Reads consecutive items, over as many partitions as it takes, up to a limit of the request or to
    /// the end of its range. Each partition is read at a moment of its own.
    ///
    /// # Errors
    /// See [`Error`]; nothing was changed.
    pub async fn range_encoded(&self, table: &TableRow, request: &RangeRequest) -> Result<ItemPage, Error> {
        if request.items_max == 0 || request.bytes_max == 0 {
            return Err(Error::invalid("a range without items or bytes was asked for"));
        }
        let deadline = self.inner().deadline();
        let mut page = ItemPage::default();
        let mut rest = request.clone();
        rest.consistency = self.inner().offered(request.consistency);
        loop {
            if rest.upper.as_ref().is_some_and(|upper| *upper <= rest.lower) {
                return Ok(page);
            }
            let step = self.inner().call(&RangeStep { table, range: &rest }, deadline).await?;
            let bytes = u32::try_from(step.part.scanned_bytes).unwrap_or(u32::MAX);
            rest.items_max = rest.items_max.saturating_sub(step.part.scanned);
            rest.bytes_max = rest.bytes_max.saturating_sub(bytes);
            let is_last = !step.shrink(&mut rest)?;
            page.push(step.part);
            if rest.items_max == 0 || rest.bytes_max == 0 {
                page.more = true;
                return Ok(page);
            }
            if is_last {
                return Ok(page);
            }
        }
    }
}

/// A partition as a request names it.
pub(crate) struct Owner {
    partition: PartitionId,
    generation: Generation,
}

fn owner<'a>(view: &'a View, table: &TableRow, key: &[u8]) -> Result<(&'a Replicas, Owner), NoRoute> {
    let route = routes(view, table)?.floor(key).map_err(|fault| not_ready(table, fault))?;
    Ok((&route.replicas, Owner { partition: route.partition, generation: route.generation }))
}

/// An item that is part of a frame.
fn stored(frame: &Frame, item: Option<&[u8]>) -> Option<StoredItem> {
    item.map(|item| StoredItem::new(frame.body.slice_ref(item)))
}

struct GetItem<'a> {
    table: &'a TableRow,
    key: &'a [u8],
    consistency: Consistency,
}

impl Request for GetItem<'_> {
    type Route = Owner;
    type Answer = Option<StoredItem>;
    const EFFECT: Effect = Effect::Read;
    const LANE: LaneChoice = LaneChoice::BySize;

    fn is_eventual(&self) -> bool {
        self.consistency == Consistency::Eventual
    }

    fn route<'a>(&self, view: &'a View) -> Result<(&'a Replicas, Owner), NoRoute> {
        owner(view, self.table, self.key)
    }

    fn encode(&self, route: &Owner, request_id: u64, timeout_us: u64) -> Bytes {
        let Owner { partition, generation } = *route;
        let get = Get { partition, generation, consistent: !self.is_eventual(), key: self.key };
        encode(&get, request_id, timeout_us)
    }

    fn read(&self, _: &Owner, frame: &Frame) -> Result<Option<StoredItem>, DecodeError> {
        Ok(stored(frame, decode::<Found>(frame)?.item.as_deref()))
    }
}

struct WriteItem<'a> {
    table: &'a TableRow,
    key: &'a [u8],
    change: Change<'a>,
    terms: Terms<'a>,
}

enum WriteAnswer {
    Written(Written),
    ConditionFailed(Option<StoredItem>),
}

impl Request for WriteItem<'_> {
    type Route = Owner;
    type Answer = WriteAnswer;
    const EFFECT: Effect = Effect::RepeatableWrite;
    const LANE: LaneChoice = LaneChoice::BySize;

    fn route<'a>(&self, view: &'a View) -> Result<(&'a Replicas, Owner), NoRoute> {
        owner(view, self.table, self.key)
    }

    fn encode(&self, route: &Owner, request_id: u64, timeout_us: u64) -> Bytes {
        let Owner { partition, generation } = *route;
        let WriteItem { key, terms, .. } = *self;
        match self.change {
            Change::Put(item) => {
                encode(&Put { partition, generation, terms, key, item }, request_id, timeout_us)
            }
            Change::Delete => encode(&Delete { partition, generation, terms, key }, request_id, timeout_us),
            Change::Update { program, key_item } => {
                let update = Update { partition, generation, terms, key, key_item, program };
                encode(&update, request_id, timeout_us)
            }
        }
    }

    fn read(&self, _: &Owner, frame: &Frame) -> Result<WriteAnswer, DecodeError> {
        if frame.header.kind == Kind::ConditionFailed as u16 {
            let failed = decode::<ConditionFailed>(frame)?;
            return Ok(WriteAnswer::ConditionFailed(stored(frame, failed.old.as_deref())));
        }
        let written = decode::<message::Written>(frame)?;
        Ok(WriteAnswer::Written(Written {
            old: stored(frame, written.old.as_deref()),
            new: stored(frame, written.new.as_deref()),
        }))
    }
}

/// The part of a range that lies in the partition where it begins.
struct RangeStep<'a> {
    table: &'a TableRow,
    range: &'a RangeRequest,
}

/// The partition, and the part of its range that is wanted.
struct Span {
    owner: Owner,
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
}

/// What a step has read.
struct Step {
    part: Part,
    /// Whether the partition holds more of the range.
    more: bool,
    /// The range that was asked of the partition.
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
}

impl Request for RangeStep<'_> {
    type Route = Span;
    type Answer = Step;
    const EFFECT: Effect = Effect::Read;
    const LANE: LaneChoice = LaneChoice::Bulk;

    fn is_eventual(&self) -> bool {
        self.range.consistency == Consistency::Eventual
    }

    fn route<'a>(&self, view: &'a View) -> Result<(&'a Replicas, Span), NoRoute> {
        let RangeRequest { lower, upper, reverse, .. } = self.range;
        let routes = routes(view, self.table)?;
        let route = match reverse {
            false => routes.floor(lower),
            true => routes.below(upper.as_deref()).map(|route| route.expect("the range is not empty")),
        };
        let route = route.map_err(|fault| not_ready(self.table, fault))?;
        let upper = match (&route.upper, upper) {
            (Some(own), Some(wanted)) => Some(own.min(wanted).clone()),
            (own, wanted) => own.as_ref().or(wanted.as_ref()).cloned(),
        };
        let owner = Owner { partition: route.partition, generation: route.generation };
        Ok((&route.replicas, Span { owner, lower: lower.max(&route.lower).clone(), upper }))
    }

    fn encode(&self, span: &Span, request_id: u64, timeout_us: u64) -> Bytes {
        let range = Range {
            partition: span.owner.partition,
            generation: span.owner.generation,
            consistent: !self.is_eventual(),
            reverse: self.range.reverse,
            items_max: self.range.items_max,
            bytes_max: self.range.bytes_max,
            lower: &span.lower,
            upper: span.upper.as_deref(),
            filter: self.range.filter.as_deref(),
        };
        encode(&range, request_id, timeout_us)
    }

    fn read(&self, span: &Span, frame: &Frame) -> Result<Step, DecodeError> {
        let (part, more) = Part::read(frame)?;
        Ok(Step { part, more, lower: span.lower.clone(), upper: span.upper.clone() })
    }
}

impl Step {
    /// Takes what was read off the range; false if nothing of it is left.
    fn shrink(&self, rest: &mut RangeRequest) -> Result<bool, Error> {
        if self.more {
            let Some(last) = self.part.last() else {
                return Err(Error::internal("a page is empty but says that there is more"));
            };
            match rest.reverse {
                false => rest.lower = [last, &[0]].concat(),
                true => rest.upper = Some(last.to_vec()),
            }
            return Ok(true);
        }
        if rest.reverse {
            rest.upper = Some(self.lower.clone());
            return Ok(rest.lower < self.lower);
        }
        if self.upper == rest.upper {
            return Ok(false);
        }
        rest.lower
            .clone_from(self.upper.as_ref().expect("a partition before the end of the range has an end"));
        Ok(true)
    }
}
