//! The write path: a condition held against the newest proposed image, a proposal, and the wait until it is
//! chosen.
//!
//! Nothing is awaited between what a write read under its key's latch and its proposal, and leadership is
//! asked again there. An answer that reveals a write which is not chosen waits for it. It knows nothing
//! of messages or of the log's records.

use super::{Image, Partition};
use crate::error::WriteError;
use crate::group::{Group, pending_slot};
use crate::mistakes;
use crate::sessions::{Known, Recorded, RequestToken, TokenNote};
use evenkeel_expression::{ConditionView, UpdateView};
use evenkeel_model::limits::ENCODED_KEY_BYTES_MAX;
use evenkeel_model::{ItemError, ItemView, Slot, StoredHeader, Timestamp, encode_item, stamp_item};
use evenkeel_paxos as paxos;
use evenkeel_storage::{self as storage, Disk, Entry, Newest, Operation, Runtime};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

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

/// Why an entry was not proposed; nothing was done.
pub(crate) enum NotProposed {
    /// The engine does not take it.
    Engine(storage::Refused),
    /// Consensus does not.
    Group(paxos::Refused),
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
    /// The reign in which it must be made ([`Partition::reign`]): what was read in it still holds then.
    pub reign: Option<u64>,
}

impl<D: Disk, R: Runtime> Partition<D, R> {
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
        // By what is asked, never by what is in memory: equal requests do equal work.
        let reads = terms.return_old || terms.condition.is_some() || matches!(change, Change::Update { .. });
        let (old, new, proposal) = if reads || terms.token.is_some() {
            let mut latch = Some(self.latches.hold(&key).await);
            if self.errs(mistakes::LATCH_NOT_HELD) {
                latch = None;
            }
            let reign = terms.reign.unwrap_or(self.reign.get());
            let before = match self.start(&key, terms.token, reads).await? {
                Start::Known(outcome) => return Ok(outcome),
                Start::Before(newest) => newest,
            };
            if !holds(terms.condition, &before)? {
                drop(latch);
                if !self.errs(mistakes::UNCHOSEN_REVEALED) {
                    self.settled(before.pending, reign).await?;
                }
                let old = before.image.filter(|_| terms.return_old_on_failure);
                return Ok(Outcome::ConditionFailed { old });
            }
            let old = before.image;
            let (new, proposal) = self.propose_change(&key, change, old.as_ref(), terms, reign)?;
            (old, new, proposal)
        } else {
            self.latches.wait_free(&key).await;
            let reign = terms.reign.unwrap_or(self.reign.get());
            let (new, proposal) = self.propose_change(&key, change, None, terms, reign)?;
            (None, new, proposal)
        };
        if !self.errs(mistakes::ANSWERED_BEFORE_CHOSEN) {
            self.chosen(proposal).await?;
        }
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
    /// it changes, if it `reads` that.
    async fn start(
        &self,
        key: &Rc<[u8]>,
        token: Option<RequestToken>,
        reads: bool,
    ) -> Result<Start, WriteError> {
        let Some(token) = token else { return Ok(Start::Before(self.newest(key).await?)) };
        let twice = self.errs(mistakes::DUPLICATE_APPLIED_TWICE);
        if let Some(slot) = pending_slot(&self.group, token).filter(|_| !twice) {
            self.chosen(Proposal { slot, reign: self.reign.get() }).await?;
        }
        let known = if twice { Known::Fresh } else { self.group.borrow().sessions.known(token) };
        match known {
            Known::Fresh if reads => Ok(Start::Before(self.newest(key).await?)),
            Known::Fresh => Ok(Start::Before(Newest::default())),
            Known::Stale => Err(WriteError::Stale),
            Known::Done(Recorded { slot, old, new }) => {
                // Only who leads knows that there is no newer state.
                self.readable().await.map_err(WriteError::from_read)?;
                Ok(Start::Known(Outcome::Written(Written { slot, old, new })))
            }
        }
    }

    async fn newest(&self, key: &Rc<[u8]>) -> Result<Newest, storage::ReadError> {
        if self.errs(mistakes::CONDITION_ON_APPLIED) {
            let image = self.engine.get(self.row.id, key).await?;
            return Ok(Newest { image, pending: None });
        }
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
        let mut image = None;
        let token = note.as_ref().map(|note| note.token);
        let proposed = self.propose_next(&mut group, |slot, timestamp| {
            image = item.map(|(bytes, header)| {
                let mut image: Image = Rc::from(bytes);
                let unique = Rc::get_mut(&mut image).expect("made on the line above");
                stamp_item(unique, StoredHeader { timestamp, slot, ..header });
                image
            });
            let operation = match &image {
                Some(image) => Operation::Put { key: key.clone(), image: image.clone() },
                None => Operation::Delete { key: key.clone() },
            };
            let note = note.map_or_else(Vec::new, |note| note.encode());
            Entry { slot, timestamp, operations: vec![operation], note, ..Entry::default() }
        });
        let slot = match proposed {
            Ok(slot) => slot,
            Err(NotProposed::Engine(refused)) => return Err(refused.into()),
            Err(NotProposed::Group(paxos::Refused::SwapPending | paxos::Refused::Full)) => {
                return Err(storage::Refused::Busy.into());
            }
            Err(NotProposed::Group(paxos::Refused::NotLeader(_) | paxos::Refused::BadSwap)) => {
                drop(group);
                return Err(self.redirect().into());
            }
        };
        if let Some(token) = token.filter(|_| self.applied() < slot) {
            group.pending_tokens.insert((token.session, token.sequence), slot);
        }
        Ok((image, Proposal { slot, reign }))
    }

    /// Gives an entry its slot and timestamp and hands it to consensus.
    pub(crate) fn propose_next(
        &self,
        group: &mut Group,
        make: impl FnOnce(Slot, Timestamp) -> Entry,
    ) -> Result<Slot, NotProposed> {
        let end = group.replica.end();
        let slot = end.slot.next();
        let mut clock = self.clock.get();
        let entry = make(slot, clock.tick(self.hub.runtime.wall_ns()));
        self.engine.admits(self.row.id, [&entry]).map_err(NotProposed::Engine)?;
        let checksum = entry.checksum(self.row.id, self.row.generation, end.checksum);
        self.propose_entry(group, entry, checksum).map_err(NotProposed::Group)?;
        self.clock.set(clock);
        Ok(slot)
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
