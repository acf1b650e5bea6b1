//! Checkpoints: what tables hold goes into trees, flips make that durable, and the log lets go of it.
//!
//! ```text
//! checkpoint(partition) ── freeze ── merge ── new root in memory ──┐
//! checkpoint(partition) ── freeze ── merge ── new root in memory ──┼──► flip ── durable ──► segments free
//! drop ──────────────────────────────────────────────────────────-┘
//! ```
//!
//! Who owns the partitions asks what is [due](Engine::checkpoints_due), checkpoints each with what it knows of
//! it at that moment, and flips. The log keeps a record until a durable flip stands in for it, and a flip
//! waits until the log holds what its catalogue speaks of: each of the two can be read after the other.

use super::{
    Engine,
    freeze::{Frozen, Mark},
    logging::can_move,
};
use crate::{
    disk::{BLOCK_BYTES, Disk},
    error::{TooManyFrozen, WalFailed},
    limits::STUCK_AGAIN_NS,
    pace::{self, Pace},
    partition::Partition,
    partitions::{Gone, Progress},
    runtime::Runtime,
    space::{
        Batch, CataloguedPartition, Detached, Finished, PageKind, Pin, RootReference, SpaceError,
        StateReference, detach,
    },
    table,
    tree::{self, Place, TreeError},
};
use evenkeel_model::PartitionId;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Poll, Waker},
};

/// A checkpoint could not be made; everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The partition is not here, or was dropped or replaced meanwhile.
    #[error("partition {id} is not here any more")]
    Gone {
        /// The partition.
        id: PartitionId,
    },
    /// One is under way.
    #[error("partition {id} is being checkpointed already")]
    UnderWay {
        /// The partition.
        id: PartitionId,
    },
    /// Too many states of the table are pinned.
    #[error(transparent)]
    Pinned(#[from] TooManyFrozen),
    /// The old tree could not be read, or the new one not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The page file takes nothing, for now or for good.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The log has stopped.
    #[error(transparent)]
    Log(#[from] WalFailed),
}

/// What checkpoints have done, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// Merges whose tree took the place of the one before.
    pub merges: u64,
    /// Bytes of tables that they took up.
    pub table_bytes: u64,
    /// Flips that were made durable.
    pub flips: u64,
    /// Checkpoints and flips that failed; they are tried again.
    pub failed: u64,
    /// Merges that have ended at a mark.
    pub marks: u64,
    /// Marks at which none has or will.
    pub marks_passed: u64,
    /// Inner pages that could not be read when their tree was given up: what is below them stays taken.
    pub unreleased: u64,
}

/// Work of checkpoints that is under way.
pub(super) struct Upkeep<D: Disk, R: Runtime> {
    /// Merges that wait for a flip: their pages, and what of the log they stand in for.
    finished: RefCell<Vec<Finished<D, R>>>,
    /// What the log need not hold once the next flip is durable.
    trims: RefCell<Vec<Trim>>,
    /// The flip under way: one at a time, or an older catalogue could become the present one.
    flipping: RefCell<Option<Detached<Result<(), CheckpointError>>>>,
    /// Partitions with a mark that is to be merged.
    marked: RefCell<VecDeque<PartitionId>>,
    owner: RefCell<Option<Waker>>,
    counts: Cell<MergeCounts>,
    is_closed: Cell<bool>,
}

impl<D: Disk, R: Runtime> Default for Upkeep<D, R> {
    fn default() -> Self {
        Upkeep {
            finished: RefCell::default(),
            trims: RefCell::default(),
            flipping: RefCell::default(),
            marked: RefCell::default(),
            owner: RefCell::default(),
            counts: Cell::default(),
            is_closed: Cell::new(false),
        }
    }
}

/// What the log need not hold of a partition any more.
#[derive(Clone, Copy)]
pub(super) struct Trim {
    pub(super) id: PartitionId,
    pub(super) life: u64,
    /// The oldest segment that is still needed.
    pub(super) segment: u32,
    /// Once this frame is durable.
    pub(super) moved_frame: u64,
    /// Bytes of the entries that it stands in for.
    pub(super) logged_bytes: u64,
}

/// A merge under way: what it began with.
struct Merging<D: Disk, R: Runtime> {
    id: PartitionId,
    life: u64,
    content: u64,
    frozen: Frozen,
    tree: Option<RootReference>,
    /// What the last merge has made, if there was one.
    replaced: Option<CataloguedPartition>,
    /// Keeps the pages that it reads, also those of a partition that is dropped meanwhile.
    pin: Pin<D, R>,
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Resolves with the partitions whose checkpoint would relieve tables or log, those first that would do so
    /// most; with none if only a flip is due, and with nothing once the engine is closed.
    pub async fn checkpoints_due(&self) -> Option<Vec<PartitionId>> {
        poll_fn(|context| {
            if self.inner.upkeep.is_closed.get() {
                return Poll::Ready(None);
            }
            if let Some(due) = self.due() {
                return Poll::Ready(Some(due));
            }
            *self.inner.upkeep.owner.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether tables or log are fuller than half.
    fn pressed(&self) -> (bool, bool) {
        let partitions = self.inner.partitions.borrow();
        let log = self.inner.log.borrow();
        let table = partitions.bytes() > pace::due(partitions.bytes_max());
        (table, log.ring.live_count() > pace::due(log.ring.files_max() as u64) as usize)
    }

    /// How much merges are needed, by the fuller of tables and log.
    pub(super) fn pressure(&self) -> f64 {
        let (partitions, log) = (self.inner.partitions.borrow(), self.inner.log.borrow());
        let of_log = pace::pressure(log.ring.live_count() as u64, log.ring.files_max() as u64);
        of_log.max(pace::pressure(partitions.bytes(), partitions.bytes_max()))
    }

    fn due(&self) -> Option<Vec<PartitionId>> {
        let (tables, segments) = self.pressed();
        let partitions = self.inner.partitions.borrow();
        let log = self.inner.log.borrow();
        let current = log.ring.current();
        let now_ns = self.inner.runtime.now_ns();
        let may_be_merged = |partition: &Partition| partition.stuck_until_ns <= now_ns;
        let mut due: Vec<(u64, PartitionId)> = Vec::new();
        if tables {
            let each = partitions.ids().filter(|(_, partition)| may_be_merged(partition));
            let each = each.map(|(id, partition)| (partition.table.bytes(), id));
            due.extend(each.filter(|(bytes, _)| *bytes > 0));
            due.sort_by(|one, other| other.cmp(one));
            let mut excess = partitions.bytes() - partitions.bytes_max() / 4;
            let enough = due.iter().position(|(bytes, _)| {
                excess = excess.saturating_sub(*bytes);
                excess == 0
            });
            due.truncate(enough.map_or(due.len(), |last| last + 1));
        }
        if segments {
            let middle = log.ring.oldest().map_or(current, |oldest| oldest + (current - oldest) / 2);
            let holds = |partition: &Partition| {
                let oldest = partition.oldest_segment().filter(|oldest| *oldest <= middle)?;
                let needed = match can_move(partition) {
                    true => current,
                    false => partition.needed_behind_applied(current),
                };
                (needed > oldest).then_some(oldest)
            };
            let each = partitions.ids().filter(|(_, partition)| may_be_merged(partition));
            let each = each.filter_map(|(id, partition)| Some((holds(partition)?.into(), id)));
            let mut holding: Vec<(u64, PartitionId)> = each.collect();
            holding.sort_unstable();
            holding.retain(|(_, id)| due.iter().all(|(_, other)| other != id));
            due.append(&mut holding);
        }
        let mut marked = self.inner.upkeep.marked.borrow_mut();
        marked.retain(|id| partitions.get(*id).is_some_and(|partition| partition.marked.is_some()));
        let is_new = |id: &&PartitionId| due.iter().all(|(_, other)| other != *id);
        let may_be_merged = |id: &&PartitionId| partitions.get(**id).is_some_and(may_be_merged);
        let mut marks: Vec<_> =
            marked.iter().filter(is_new).filter(may_be_merged).map(|id| (0, *id)).collect();
        due.append(&mut marks);
        let flip = !partitions.gone.is_empty() || !self.inner.upkeep.trims.borrow().is_empty();
        (flip || !due.is_empty()).then(|| due.into_iter().map(|(_, id)| id).collect())
    }

    /// Has the owner look whether anything is due, if it waits for that and it may be so.
    pub(super) fn wake_upkeep(&self) {
        let mut owner = self.inner.upkeep.owner.borrow_mut();
        if owner.is_none() {
            return;
        }
        let dropped = !self.inner.partitions.borrow().gone.is_empty();
        let marked = !self.inner.upkeep.marked.borrow().is_empty();
        if (dropped || marked || matches!(self.pressed(), (true, _) | (_, true)))
            && let Some(waker) = owner.take()
        {
            waker.wake();
        }
    }

    /// Has whoever waits for [checkpoints to be due](Self::checkpoints_due) end; those under way go on.
    pub fn stop_checkpoints(&self) {
        self.inner.upkeep.is_closed.set(true);
        if let Some(waker) = self.inner.upkeep.owner.take() {
            waker.wake();
        }
    }

    /// Merges what is applied into the tree, as of the moment of the call, together with what the owner knows
    /// of the partition then; or as of a [mark](Self::mark) that has not been merged. It counts once a [`flip`](Self::flip) is durable.
    pub fn checkpoint(
        &self,
        id: PartitionId,
        state: &[u8],
    ) -> impl Future<Output = Result<(), CheckpointError>> + use<D, R> {
        let begun = self.begin_merge(id, state).map(|merging| {
            let life = merging.life;
            (merging, UnderWay { engine: self.clone(), id, life })
        });
        async move {
            let (merging, under_way) = begun?;
            let merged = under_way.engine.merge(merging).await;
            under_way.engine.count_failure(&merged);
            if let Err(CheckpointError::Tree(TreeError::Page(_) | TreeError::Malformed { .. })) = &merged {
                under_way.hold_back();
            }
            merged
        }
    }

    fn begin_merge(&self, id: PartitionId, state: &[u8]) -> Result<Merging<D, R>, CheckpointError> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let mut log = self.inner.log.borrow_mut();
        let partition = partitions.get_mut(id).ok_or(CheckpointError::Gone { id })?;
        if partition.is_merging || partition.sealed_by.is_some() {
            return Err(CheckpointError::UnderWay { id });
        }
        let frozen = self.frozen(&mut log, id, partition, state)?;
        partition.is_merging = true;
        Ok(Merging {
            id,
            life: partition.life,
            content: partition.content,
            frozen,
            tree: partition.tree,
            replaced: partition.checkpoint.clone(),
            pin: self.inner.pages.pin(),
        })
    }

    async fn merge(&self, mut merging: Merging<D, R>) -> Result<(), CheckpointError> {
        let pages = &self.inner.pages;
        let mut batch = pages.batch();
        let root = if merging.frozen.table.is_empty() {
            merging.tree
        } else {
            {
                let engine = self.clone();
                let pace = Pace::new(self.inner.runtime.clone(), Rc::new(move || engine.pressure()));
                let place = Place { partition: merging.id, limits: self.inner.limits };
                let table = &merging.frozen.table;
                let room = MakingRoom::begin(self, table);
                let passed = || room.progress.pass();
                tree::merge(pages, &mut batch, place, merging.tree, table, &pace, &passed).await?
            }
        };
        let replaced = merging.replaced.as_ref();
        if let Some(old) = replaced.and_then(|replaced| replaced.root).filter(|_| merging.is_replacing()) {
            self.release_tree(&mut batch, &old).await;
        }
        if let Some(old) = replaced.and_then(|replaced| replaced.state) {
            batch.release(old.page.extent);
        }
        let Frozen { checkpoint, state, .. } = &mut merging.frozen;
        (checkpoint.root, checkpoint.state) = (root, write_state(&mut batch, state).await?);
        let finished = batch.finish().await?;
        self.end_merge(merging, finished)
    }

    /// The tree takes the place of the one before, all at once.
    fn end_merge(&self, merging: Merging<D, R>, finished: Finished<D, R>) -> Result<(), CheckpointError> {
        let Merging { id, life, content, frozen, pin, .. } = merging;
        drop(pin);
        let Frozen { table, table_bytes, checkpoint, moved_frame, logged_bytes, is_mark, .. } = frozen;
        let mut partitions = self.inner.partitions.borrow_mut();
        let same = |partition: &Partition| partition.life == life && partition.content == content;
        if !partitions.get(id).is_some_and(same) {
            return Err(CheckpointError::Gone { id });
        }
        let upkeep = &self.inner.upkeep;
        let segment = checkpoint.log.segment;
        upkeep.add_trim(Trim { id, life, segment, moved_frame, logged_bytes });
        upkeep.add_finished(finished);
        partitions.counted(id, |partition| {
            partition.table.merged(table);
            partition.tree = checkpoint.root;
            if is_mark {
                let content_hash = checkpoint.root.map_or(0, |root| root.content_hash);
                partition.last_mark = Some(Mark { slot: checkpoint.applied, content_hash });
            }
            partition.checkpoint = Some(checkpoint);
        });
        upkeep.count(|counts| {
            counts.merges += 1;
            counts.marks += u64::from(is_mark);
            counts.table_bytes += table_bytes;
        });
        Ok(())
    }

    /// Makes everything durable that merges have made so far, and lets go of what the log holds of it. Dropping
    /// the future does not stop it.
    ///
    /// # Errors
    /// Nothing was done, and it may be called again; but after [`SpaceError::Failed`] and a failure of the log
    /// to no avail.
    pub async fn flip(&self) -> Result<(), CheckpointError> {
        self.flip_unless(|| false).await
    }

    /// The same, unless those under way have done what is wanted: many who wait for one flip make no more of them.
    pub(super) async fn flip_unless(&self, is_done: impl Fn() -> bool) -> Result<(), CheckpointError> {
        let upkeep = &self.inner.upkeep;
        while !is_done() {
            let before = upkeep.flipping.borrow().clone();
            let Some(before) = before else { return self.begin_flip().await };
            // How it went concerns its caller.
            let _ = before.done().await;
        }
        Ok(())
    }

    async fn begin_flip(&self) -> Result<(), CheckpointError> {
        let upkeep = &self.inner.upkeep;
        let engine = self.clone();
        let flipping = detach(&self.inner.runtime, async move {
            let flipped = engine.flip_now().await;
            engine.count_failure(&flipped);
            *engine.inner.upkeep.flipping.borrow_mut() = None;
            flipped
        });
        *upkeep.flipping.borrow_mut() = Some(flipping.clone());
        flipping.done().await
    }

    async fn flip_now(&self) -> Result<(), CheckpointError> {
        let upkeep = &self.inner.upkeep;
        self.release_gone().await?;
        // Nothing is awaited until all of one moment is in hand.
        let (mut catalogue, frame, lives, gone) = self.inner.partitions.borrow_mut().catalogue();
        let (trims, mut finished) = (upkeep.trims.take(), upkeep.finished.take());
        let frame = trims.iter().map(|trim| trim.moved_frame).fold(frame, u64::max);
        let durable = self.inner.log.borrow().commits.wait(frame);
        let flipped = match durable.await {
            Ok(()) => {
                catalogue.log_frame = self.inner.log.borrow().commits.durable();
                self.inner.pages.flip(&catalogue, &mut finished).await.map_err(CheckpointError::from)
            }
            Err(failed) => Err(failed.into()),
        };
        match flipped {
            Ok(sequence) => {
                self.let_go(sequence, &trims, &gone);
                self.inner.partitions.borrow_mut().set_catalogued(&lives);
                Ok(())
            }
            Err(error) => {
                // What came meanwhile stays behind what was there before.
                finished.append(&mut upkeep.finished.borrow_mut());
                *upkeep.finished.borrow_mut() = finished;
                upkeep.trims.borrow_mut().extend(trims);
                self.inner.partitions.borrow_mut().gone.extend(gone);
                Err(error)
            }
        }
    }

    /// Gives up the pages of partitions that were dropped.
    async fn release_gone(&self) -> Result<(), CheckpointError> {
        loop {
            let next = self.inner.partitions.borrow_mut().next_unreleased();
            let Some(checkpoint) = next else { return Ok(()) };
            let mut batch = self.inner.pages.batch();
            if let Some(root) = &checkpoint.root {
                self.release_tree(&mut batch, root).await;
            }
            if let Some(state) = checkpoint.state {
                batch.release(state.page.extent);
            }
            let finished = batch.finish().await?;
            self.inner.upkeep.finished.borrow_mut().push(finished);
            self.inner.partitions.borrow_mut().set_released(&checkpoint);
        }
    }

    /// Gives up the pages of a tree, as far as they are found.
    pub(super) async fn release_tree(&self, batch: &mut Batch<D, R>, root: &RootReference) {
        let unread = tree::release(&self.inner.pages, batch, root).await;
        self.inner.upkeep.count(|counts| counts.unreleased += unread);
    }

    /// The log need not hold any more what flip `sequence` has made durable.
    fn let_go(&self, sequence: u64, trims: &[Trim], gone: &[Gone]) {
        let mut partitions = self.inner.partitions.borrow_mut();
        let mut log = self.inner.log.borrow_mut();
        for &Trim { id, life, segment, logged_bytes, .. } in trims {
            let same = |partition: &&mut Partition| partition.life == life;
            let Some(partition) = partitions.get_mut(id).filter(same) else { continue };
            let before = partition.oldest_records_in();
            partition.trim(segment);
            partition.logged_bytes = partition.logged_bytes.saturating_sub(logged_bytes);
            partition.oldest_records_in().into_iter().for_each(|segment| log.ring.pin(segment));
            before.into_iter().chain(partition.created_in.take()).for_each(|segment| log.ring.unpin(segment));
        }
        gone.iter().flat_map(|gone| &gone.segments).for_each(|&segment| log.ring.unpin(segment));
        log.flipped(sequence);
        self.inner.upkeep.count(|counts| counts.flips += 1);
    }

    fn count_failure(&self, result: &Result<(), CheckpointError>) {
        // That a partition went away is nobody's failure.
        let failed = !matches!(result, Ok(()) | Err(CheckpointError::Gone { .. }));
        self.inner.upkeep.count(|counts| counts.failed += u64::from(failed));
    }

    /// What checkpoints have done.
    pub fn merge_counts(&self) -> MergeCounts {
        self.inner.upkeep.counts.get()
    }
}

impl<D: Disk, R: Runtime> Merging<D, R> {
    /// Whether the content was replaced as a whole since the last merge: then nothing of its tree is left.
    fn is_replacing(&self) -> bool {
        let old = self.replaced.as_ref().and_then(|replaced| replaced.root);
        old.is_some() && old != self.tree
    }
}

impl<D: Disk, R: Runtime> Upkeep<D, R> {
    /// The log may let go of records once a flip is durable.
    pub(super) fn add_trim(&self, trim: Trim) {
        self.trims.borrow_mut().push(trim);
    }

    /// A batch waits for a flip.
    pub(super) fn add_finished(&self, finished: Finished<D, R>) {
        self.finished.borrow_mut().push(finished);
    }

    /// A mark of a partition is to be merged.
    pub(super) fn add_marked(&self, id: PartitionId) {
        self.marked.borrow_mut().push_back(id);
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut MergeCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

/// A merge that makes room, until it is dropped.
struct MakingRoom<D: Disk, R: Runtime> {
    engine: Engine<D, R>,
    progress: Rc<Progress>,
}

impl<D: Disk, R: Runtime> MakingRoom<D, R> {
    fn begin(engine: &Engine<D, R>, table: &table::Pinned) -> Self {
        let progress = Progress::of(table.len());
        engine.inner.partitions.borrow_mut().begin_progress(&progress);
        MakingRoom { engine: engine.clone(), progress }
    }
}

impl<D: Disk, R: Runtime> Drop for MakingRoom<D, R> {
    fn drop(&mut self) {
        self.engine.inner.partitions.borrow_mut().end_progress(&self.progress);
    }
}

/// Marks a partition as not being merged any more, however the merge ends.
pub(super) struct UnderWay<D: Disk, R: Runtime> {
    pub(super) engine: Engine<D, R>,
    pub(super) id: PartitionId,
    pub(super) life: u64,
}

impl<D: Disk, R: Runtime> UnderWay<D, R> {
    /// A page could not be read: others are merged first, and this one is tried again later.
    fn hold_back(&self) {
        let until_ns = self.engine.inner.runtime.now_ns().saturating_add(STUCK_AGAIN_NS);
        let mut partitions = self.engine.inner.partitions.borrow_mut();
        let same = |partition: &&mut Partition| partition.life == self.life;
        if let Some(partition) = partitions.get_mut(self.id).filter(same) {
            partition.stuck_until_ns = until_ns;
        }
    }
}

impl<D: Disk, R: Runtime> Drop for UnderWay<D, R> {
    fn drop(&mut self) {
        let mut partitions = self.engine.inner.partitions.borrow_mut();
        let same = |partition: &&mut Partition| partition.life == self.life;
        if let Some(partition) = partitions.get_mut(self.id).filter(same) {
            partition.is_merging = false;
        }
    }
}

/// Writes what an owner knew, in blocks of its own.
pub(super) async fn write_state<D: Disk, R: Runtime>(
    batch: &mut Batch<D, R>,
    state: &[u8],
) -> Result<Option<StateReference>, SpaceError> {
    let Ok(bytes) = u32::try_from(state.len()) else { panic!("what an owner knows fits into a frame") };
    if bytes == 0 {
        return Ok(None);
    }
    let mut blocks = state.to_vec();
    blocks.resize(state.len().next_multiple_of(BLOCK_BYTES), 0);
    let page = batch.write(&blocks, PageKind::Leaf).await?;
    Ok(Some(StateReference { page, bytes }))
}
