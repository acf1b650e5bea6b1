//! The read path: strongly consistent under the lease, eventually consistent from what is applied.
//!
//! Whether this member may answer is asked before the data is read and again just before the answer
//! leaves.

use super::{Image, Partition};
use crate::error::ReadError;
use crate::mistakes;
use evenkeel_expression::ConditionView;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::{ItemView, Slot};
use evenkeel_paxos::MemberKind;
use evenkeel_storage::{self as storage, Disk, Runtime};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// How long a read waits for a leader to be sure that it leads.
const LEASE_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Whether a strongly consistent read would be answered at this moment.
    pub fn serves(&self) -> bool {
        self.may_read().is_some()
    }

    /// Whether this member may answer strongly consistent reads now; if so, in which reign.
    pub(super) fn may_read(&self) -> Option<u64> {
        let group = self.group.borrow();
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        group.replica.may_read(now, &facts).then(|| self.reign.get())
    }

    /// Waits, if this member leads, until it is sure of it; not for long.
    pub(super) async fn readable(&self) -> Result<u64, ReadError> {
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
        let unchecked = self.errs(mistakes::LEASE_NOT_CHECKED_AGAIN);
        if unchecked || self.may_read() == Some(reign) { Ok(()) } else { Err(self.redirect().into()) }
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
        if self.errs(mistakes::EVENTUAL_READ_OF_ACCEPTED) {
            return Ok(self.engine.newest(self.row.id, &Rc::from(key)).await?.image);
        }
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
}
