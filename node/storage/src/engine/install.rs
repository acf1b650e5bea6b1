//! Putting content in the place of a partition's own: a copy of what other replicas hold, as of a later slot.
//!
//! ```text
//! load_content ── prepare ── install: tree and log in memory, sealed ── flip ── durable ── the owner is told
//!                (no merges from here on ──────────────────────────────────────────────────────────────►)
//! ```
//!
//! The copy goes straight into pages, so it takes neither memory nor log whatever its size. A flip makes it the
//! content: its catalogue has the new tree and slot, and passes over what the log says of before. A crash leaves
//! what was there, or all of the new. The partition takes no records until the flip is durable, and nobody makes a
//! checkpoint of it until its owner has heard of it: the two must not speak of different slots.
//!
//! It knows nothing of where the content comes from, nor of why the slot is chosen.

use super::{
    Content, Engine, Position,
    checkpoint::{CheckpointError, Trim, UnderWay, write_state},
    logging::move_pending,
};
use crate::{
    disk::Disk,
    limits::MERGE_LOOKED_AFTER,
    mistakes,
    runtime::Runtime,
    space::{CataloguedPartition, Finished, RootReference, StateReference},
};
use evenkeel_model::{PartitionId, Slot, Timestamp};

/// Content that is durable and may take the place of a partition's own. No merge of the partition is begun before it
/// is dropped, which gives its pages back.
pub struct Prepared<D: Disk, R: Runtime> {
    root: Option<RootReference>,
    state: Option<StateReference>,
    finished: Finished<D, R>,
    under_way: UnderWay<D, R>,
}

/// Content that has taken a partition's place. No checkpoint of the partition is made before it is dropped.
pub struct Installed<D: Disk, R: Runtime> {
    under_way: UnderWay<D, R>,
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Makes content ready for a partition, with what its owner will know then: all that takes long. It waits for a
    /// merge that is under way.
    ///
    /// # Errors
    /// The partition is not here, or the page file takes nothing. Nothing has changed.
    pub async fn prepare(
        &self,
        id: PartitionId,
        content: Content<D, R>,
        state: &[u8],
    ) -> Result<Prepared<D, R>, CheckpointError> {
        let Content { mut batch, root } = content;
        let (under_way, replaced) = self.hold_merges(id).await?;
        // The partition may be dropped meanwhile.
        let _pin = self.inner.pages.pin();
        if let Some(old) = replaced.as_ref().and_then(|replaced| replaced.root) {
            self.release_tree(&mut batch, &old).await;
        }
        if let Some(old) = replaced.and_then(|replaced| replaced.state) {
            batch.release(old.page.extent);
        }
        let state = write_state(&mut batch, state).await?;
        let finished = batch.finish().await?;
        Ok(Prepared { root, state, finished, under_way })
    }

    /// Waits until no merge of a partition is under way, and lets none begin; yields what the last one has made.
    async fn hold_merges(
        &self,
        id: PartitionId,
    ) -> Result<(UnderWay<D, R>, Option<CataloguedPartition>), CheckpointError> {
        loop {
            if let Some(partition) = self.inner.partitions.borrow_mut().get_mut(id) {
                if !partition.is_merging && partition.sealed_by.is_none() {
                    partition.is_merging = true;
                    let under_way = UnderWay { engine: self.clone(), id, life: partition.life };
                    return Ok((under_way, partition.checkpoint.clone()));
                }
            } else {
                return Err(CheckpointError::Gone { id });
            }
            self.inner.runtime.sleep(MERGE_LOOKED_AFTER).await;
        }
    }
}

impl<D: Disk, R: Runtime> Prepared<D, R> {
    /// Puts the content in the partition's place at once, as of `base`: it is applied up to there, and of the log only
    /// what continues `base` stays. `timestamp` is the greatest up to there. The partition takes no records before
    /// it is [durable](Installed::until_durable).
    ///
    /// # Errors
    /// The partition was dropped meanwhile, or the log has stopped. Nothing has changed.
    ///
    /// # Panics
    /// If what is applied is behind `base`, or `base` is the beginning of all logs.
    pub fn install(self, base: Position, timestamp: Timestamp) -> Result<Installed<D, R>, CheckpointError> {
        let Prepared { root, state, finished, mut under_way } = self;
        let (engine, id) = (under_way.engine.clone(), under_way.id);
        let mut partitions = engine.inner.partitions.borrow_mut();
        let mut log = engine.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Err(reason.into());
        }
        let present = partitions.get(id).filter(|present| present.life == under_way.life);
        let present = present.ok_or(CheckpointError::Gone { id })?;
        assert!(base.slot >= present.applied.slot.max(Slot(1)), "content never goes back");
        let logged_bytes = present.logged_bytes;
        // Unless its records continue the base, all that there are come before the next frame.
        log.end_frame();
        let frame = log.newest_frame();
        let (mut segment, mut moved_frame) = (0, 0);
        let life = partitions.renew(id, |partition| {
            partition.begin(base, timestamp, frame, root);
            move_pending(&mut log, id, partition);
            moved_frame = partition.moved_frame;
            let row = CataloguedPartition { root, state, ..partition.row(id, log.ring.current()) };
            segment = row.log.segment;
            partition.checkpoint = Some(row);
        });
        under_way.life = life;
        drop((partitions, log));
        let upkeep = &engine.inner.upkeep;
        upkeep.add_trim(Trim { id, life, segment, moved_frame, logged_bytes });
        upkeep.add_finished(finished);
        Ok(Installed { under_way })
    }
}

impl<D: Disk, R: Runtime> Installed<D, R> {
    /// Resolves when a flip has made it durable, or the partition was dropped.
    ///
    /// # Errors
    /// A flip failed: the content is in its place and sealed, and this may be called again.
    pub async fn until_durable(&self) -> Result<(), CheckpointError> {
        let UnderWay { engine, id, life } = &self.under_way;
        if engine.inner.runtime.errs(mistakes::INSTALLED_UNFLIPPED) {
            engine.inner.partitions.borrow_mut().set_catalogued(&[*life]);
            return Ok(());
        }
        let is_sealed = || engine.inner.partitions.borrow().is_sealed(*id, *life);
        while is_sealed() {
            engine.flip_unless(|| !is_sealed()).await?;
        }
        Ok(())
    }
}
