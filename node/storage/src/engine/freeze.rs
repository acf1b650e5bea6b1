//! Freezing: the state of a partition that its next merge ends with.
//!
//! ```text
//! apply … ── mark ── freeze ── apply … ──────────────► the next merge ends at the mark
//! apply …                            ── checkpoint ──► or, without one, where the partition is
//! ```
//!
//! A merge ends where its partition is when it begins, unless its owner has said before where the next one must end.
//! Replicas that mark the same slots have, merge by merge, trees of the same content there, whatever their memory
//! has them merge beside that: the hash of one is then compared with the others' for nothing. A mark freezes at
//! once, also while a merge is under way, and is merged next; one that comes before that is passed over, and so is
//! one that a restart finds in the log.
//!
//! It knows nothing of why a slot is marked, nor who compares.

use super::{Engine, checkpoint::CheckpointError, logging::move_pending};
use crate::{
    disk::Disk, mistakes, partition::Partition, runtime::Runtime, space::CataloguedPartition, table::Pinned,
    wal::log::Log,
};
use evenkeel_model::{PartitionId, Slot};
use std::rc::Rc;

/// Where a merge has ended because it had to, and what the partition held there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last slot in the tree.
    pub slot: Slot,
    /// The sum of the items' hashes, modulo 2^128; equal for equal content, whatever the tree's shape.
    pub content_hash: u128,
}

/// A state that a merge begins with.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(super) table: Pinned,
    pub(super) table_bytes: u64,
    /// What the catalogue will say, but for tree and state.
    pub(super) checkpoint: CataloguedPartition,
    /// What was written once more must be durable first.
    pub(super) moved_frame: u64,
    pub(super) logged_bytes: u64,
    /// What the owner knew.
    pub(super) state: Rc<[u8]>,
    pub(super) is_mark: bool,
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Has the next merge of a partition end with what is applied now, and with what its owner knows of it now; it is
    /// due at once.
    ///
    /// # Errors
    /// It is passed over: another mark has not been merged yet, the partition is being made, or too many states of its
    /// table are pinned.
    pub fn mark(&self, id: PartitionId, state: &[u8]) -> Result<(), CheckpointError> {
        let marked = self.freeze_at_mark(id, state);
        match &marked {
            Ok(()) => self.inner.upkeep.add_marked(id),
            Err(_) => self.pass_mark(),
        }
        self.wake_upkeep();
        marked
    }

    fn freeze_at_mark(&self, id: PartitionId, state: &[u8]) -> Result<(), CheckpointError> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let mut log = self.inner.log.borrow_mut();
        let partition = partitions.get_mut(id).ok_or(CheckpointError::Gone { id })?;
        if partition.marked.is_some() || partition.sealed_by.is_some() {
            return Err(CheckpointError::UnderWay { id });
        }
        partition.marked = Some(Frozen { is_mark: true, ..freeze(&mut log, id, partition, state)? });
        Ok(())
    }

    /// Counts a mark that its owner has passed over.
    pub fn pass_mark(&self) {
        self.inner.upkeep.count(|counts| counts.marks_passed += 1);
    }

    /// The last mark at which a merge of the partition has ended, since the start.
    pub fn last_mark(&self, id: PartitionId) -> Option<Mark> {
        self.inner.partitions.borrow().get(id)?.last_mark
    }

    /// What a merge of a partition that begins now ends with: its mark, if there is one that was not merged.
    pub(super) fn frozen(
        &self,
        log: &mut Log<D>,
        id: PartitionId,
        partition: &mut Partition,
        state: &[u8],
    ) -> Result<Frozen, CheckpointError> {
        let Some(mut marked) = partition.marked.take() else { return freeze(log, id, partition, state) };
        marked.table = partition.table.unmerged(marked.table);
        if self.inner.runtime.errs(mistakes::MARK_OVERRUN) {
            marked.table = partition.table.pin(partition.applied.slot)?;
        }
        Ok(marked)
    }
}

fn freeze<D: Disk>(
    log: &mut Log<D>,
    id: PartitionId,
    partition: &mut Partition,
    state: &[u8],
) -> Result<Frozen, CheckpointError> {
    let table = partition.table.pin(partition.applied.slot)?;
    move_pending(log, id, partition);
    Ok(Frozen {
        table,
        table_bytes: partition.table.bytes(),
        checkpoint: partition.row(id, log.ring.current()),
        moved_frame: partition.moved_frame,
        logged_bytes: partition.logged_bytes,
        state: Rc::from(state),
        is_mark: false,
    })
}
