//! Splitting a partition at a key: two children take its place, each with its part of the tree and a log of its
//! own from there on.
//!
//! ```text
//! split ── record in the log ── freeze ── merge what is left ── cut ── children in memory ── flip ── durable
//!                                                                          (sealed until then)
//! ```
//!
//! A flip is what makes it so: its catalogue has the children and not the parent. The record before it is durable
//! first, and says what becomes of a parent's records once no catalogue has the parent any more; with the
//! parent still in the catalogue it says nothing. So a crash leaves the parent or both children. The children
//! take no records before that flip: a log must not speak of partitions that may never have been.
//!
//! What is left in the table when a split begins is merged within it. Whoever wants it to take milliseconds makes
//! a checkpoint just before.

use super::{
    Engine, Position,
    checkpoint::{CheckpointError, write_state},
    control_record,
};
use crate::{
    disk::Disk,
    error::{Refused, WalFailed},
    pace::Pace,
    partition::Partition,
    runtime::Runtime,
    space::{CataloguedPartition, Finished, LogPosition, Pin, RootReference},
    table,
    tree::{self, Place},
    wal::{log::Class, record::RecordKind, recovery::RecordPlace},
};
use evenkeel_model::{Generation, PartitionId};
use std::rc::Rc;

/// A partition that a split makes.
#[derive(Clone, Copy, Debug)]
pub struct Child<'a> {
    /// Which one.
    pub id: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// What its owner wants to know of it.
    pub meta: &'a [u8],
    /// What its owner knows as of the slot of the split, handed back by recovery.
    pub state: &'a [u8],
}

/// A partition was not split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// It has entries that are not applied, or no flip has written it down yet: a checkpoint and a flip come first.
    #[error("partition {id} is not settled: apply what it has and make a checkpoint of it first")]
    Unsettled {
        /// The partition.
        id: PartitionId,
    },
    /// It was written to meanwhile; everything is as it was.
    #[error("partition {id} was written to while it was split")]
    Changed {
        /// The partition.
        id: PartitionId,
    },
    /// There is a partition with the id of a child.
    #[error("partition {id} exists already")]
    Exists {
        /// The id.
        id: PartitionId,
    },
    /// The log does not take more now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is not here, is being merged, or its tree could not be read or written; everything is as it was.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The children have taken its place and are sealed until the next flip is durable: this one was not.
    #[error("partition {id} is split, which is not durable yet: {reason}")]
    NotDurable {
        /// The partition that was split.
        id: PartitionId,
        /// What became of the flip.
        reason: CheckpointError,
    },
}

impl From<WalFailed> for SplitError {
    fn from(failed: WalFailed) -> Self {
        SplitError::Checkpoint(failed.into())
    }
}

/// A split under way: what it began with.
struct Splitting<D: Disk, R: Runtime> {
    id: PartitionId,
    life: u64,
    content: u64,
    at: Position,
    table: table::Pinned,
    tree: Option<RootReference>,
    replaced: CataloguedPartition,
    /// Where the log says so.
    written_at: RecordPlace,
    /// Keeps the pages that it reads, also if the partition is dropped meanwhile.
    _pin: Pin<D, R>,
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Puts two partitions in the place of one: `left` gets the items before `key`, `right` the others. Durable
    /// when it returns. Everything the partition has is applied, and nothing is appended to it meanwhile.
    ///
    /// # Errors
    /// See [`SplitError`].
    pub async fn split(
        &self,
        id: PartitionId,
        key: &[u8],
        children: [Child<'_>; 2],
    ) -> Result<(), SplitError> {
        let splitting = self.begin_split(id, &children)?;
        let under_way = UnderWay { engine: self, id, segment: Some(splitting.written_at.segment) };
        let (rows, finished) = self.cut(&splitting, key, &children).await?;
        self.end_split(splitting, rows, finished)?;
        under_way.done();
        self.flip().await.map_err(|reason| SplitError::NotDurable { id, reason })
    }

    fn begin_split(&self, id: PartitionId, children: &[Child<'_>; 2]) -> Result<Splitting<D, R>, SplitError> {
        let mut partitions = self.inner.partitions.borrow_mut();
        for child in children {
            if partitions.get(child.id).is_some() || children[0].id == children[1].id {
                return Err(SplitError::Exists { id: child.id });
            }
        }
        let partition = partitions.get_mut(id).ok_or(CheckpointError::Gone { id })?;
        if partition.is_merging || partition.sealed_by.is_some() {
            return Err(CheckpointError::UnderWay { id }.into());
        }
        let settled = partition.end == partition.applied && partition.is_catalogued;
        let Some(replaced) = partition.checkpoint.clone().filter(|_| settled) else {
            return Err(SplitError::Unsettled { id });
        };
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Err(reason.into());
        }
        let table = partition.table.pin(partition.applied.slot).map_err(CheckpointError::from)?;
        let header = control_record(id, partition.generation, RecordKind::Split, partition.end.slot);
        let segment = log.ring.current();
        let frame = log
            .append(Class::Control, &header, partition.end.checksum, 0, |_| ())
            .map_err(|refused| self.refuse(refused))?;
        log.ring.pin(segment);
        partition.is_merging = true;
        Ok(Splitting {
            id,
            life: partition.life,
            content: partition.content,
            at: partition.applied,
            table,
            tree: partition.tree,
            replaced,
            written_at: RecordPlace { segment, frame },
            _pin: self.inner.pages.pin(),
        })
    }

    /// Writes the children's trees and states; yields what the catalogue will say of them.
    async fn cut(
        &self,
        splitting: &Splitting<D, R>,
        key: &[u8],
        children: &[Child<'_>; 2],
    ) -> Result<([CataloguedPartition; 2], Finished<D, R>), CheckpointError> {
        let (pages, limits) = (&self.inner.pages, self.inner.limits);
        let mut batch = pages.batch();
        let place = Place { partition: splitting.id, limits };
        let mut root = splitting.tree;
        if !splitting.table.is_empty() {
            // The owner waits for this: no pauses.
            let pace = Pace::new(self.inner.runtime.clone(), Rc::new(|| 1.0));
            root = tree::merge(pages, &mut batch, place, root, &splitting.table, &pace, &|| ()).await?;
            batch.flush().await?;
        }
        let mut roots = [None, None];
        if let Some(root) = &root {
            let ids = children.map(|child| child.id);
            roots = tree::split(pages, &mut batch, place, ids, root, key).await?;
        }
        let replaced = &splitting.replaced;
        if let Some(old) = replaced.root.filter(|old| Some(*old) != splitting.tree) {
            self.release_tree(&mut batch, &old).await;
        }
        if let Some(old) = replaced.state {
            batch.release(old.page.extent);
        }
        let [left, right] = children;
        let states =
            [write_state(&mut batch, left.state).await?, write_state(&mut batch, right.state).await?];
        let finished = batch.finish().await?;
        let partitions = self.inner.partitions.borrow();
        let parent = partitions.get(splitting.id).ok_or(CheckpointError::Gone { id: splitting.id })?;
        let row = |index: usize| CataloguedPartition {
            id: children[index].id,
            generation: children[index].generation,
            meta: children[index].meta.into(),
            state: states[index],
            applied: splitting.at.slot,
            promised: parent.promised(),
            timestamp: parent.last_timestamp,
            checksum: splitting.at.checksum,
            // Nothing up to here is theirs.
            log: LogPosition { segment: splitting.written_at.segment, frame: splitting.written_at.frame },
            root: roots[index],
        };
        Ok(([row(0), row(1)], finished))
    }

    /// The children take the parent's place, all at once.
    fn end_split(
        &self,
        splitting: Splitting<D, R>,
        rows: [CataloguedPartition; 2],
        finished: Finished<D, R>,
    ) -> Result<(), SplitError> {
        let Splitting { id, life, content, at, written_at, .. } = splitting;
        let mut partitions = self.inner.partitions.borrow_mut();
        let same = |partition: &&Partition| partition.life == life && partition.content == content;
        let parent = partitions.get(id).filter(same).ok_or(CheckpointError::Gone { id })?;
        if parent.end != at {
            return Err(SplitError::Changed { id });
        }
        if let Some(row) = rows.iter().find(|row| partitions.get(row.id).is_some()) {
            return Err(SplitError::Exists { id: row.id });
        }
        partitions.split(id, written_at, rows);
        self.inner.upkeep.add_finished(finished);
        Ok(())
    }
}

/// Takes back what a split has begun, unless it is done.
struct UnderWay<'a, D: Disk, R: Runtime> {
    engine: &'a Engine<D, R>,
    id: PartitionId,
    /// Kept for the record in it.
    segment: Option<u32>,
}

impl<D: Disk, R: Runtime> UnderWay<'_, D, R> {
    /// What it keeps belongs to the parent that is gone.
    fn done(mut self) {
        self.segment = None;
    }
}

impl<D: Disk, R: Runtime> Drop for UnderWay<'_, D, R> {
    fn drop(&mut self) {
        let Some(segment) = self.segment else { return };
        self.engine.inner.log.borrow_mut().ring.unpin(segment);
        if let Some(parent) = self.engine.inner.partitions.borrow_mut().get_mut(self.id) {
            parent.is_merging = false;
        }
    }
}
