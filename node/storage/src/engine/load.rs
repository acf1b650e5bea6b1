//! Bulk load: content that comes in key order, straight into pages.
//!
//! Neither log nor tables see the items. Content becomes that of a new partition ([`Engine::load`]) or takes the
//! place of another one's ([`Prepared::install`](super::Prepared::install)), each by a flip: with all of it or not at all.
//! Before that nobody can see it, and a crash leaves free blocks.

use super::{Engine, KeyAndImage, Position, checkpoint::CheckpointError, checkpoint::write_state};
use crate::{
    disk::Disk,
    pace::Pace,
    runtime::Runtime,
    space::{Batch, CataloguedPartition, LogPosition, RootReference},
    tree::{self, LoadFault, Place},
};
use evenkeel_model::{Ballot, Generation, PartitionId, Timestamp};
use std::rc::Rc;

/// How much a load is needed at least, as [`Pace`] has it: it pauses for half of the time.
const LOAD_PRESSURE: f64 = 2.0 / 3.0;

/// A partition to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct NewPartition<'a> {
    /// Which one.
    pub id: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// What its owner wants to know of it.
    pub meta: &'a [u8],
    /// What its owner knows as of the base, handed back by recovery.
    pub state: &'a [u8],
    /// The entry that its content is as of: its log goes on behind that.
    pub base: Position,
    /// The greatest timestamp up to there.
    pub timestamp: Timestamp,
    /// The greatest ballot promised.
    pub promised: Ballot,
}

/// Items in a tree that is nobody's yet. Dropping it gives its pages back.
pub struct Content<D: Disk, R: Runtime> {
    pub(super) batch: Batch<D, R>,
    pub(super) root: Option<RootReference>,
}

/// A partition was not loaded. Unless a variant says otherwise nothing of it is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is a partition with this id.
    #[error("partition {id} exists already")]
    Exists {
        /// The id.
        id: PartitionId,
    },
    /// A key does not follow the one before it.
    #[error("key {} is not behind the one before it", key.escape_ascii())]
    OutOfOrder {
        /// The key.
        key: Rc<[u8]>,
    },
    /// The page file takes nothing.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It is there, and sealed until the next flip is durable: this one was not.
    #[error("partition {id} is loaded, which is not durable yet: {reason}")]
    NotDurable {
        /// The partition.
        id: PartitionId,
        /// What became of the flip.
        reason: CheckpointError,
    },
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Makes a partition of the items that `next` yields, whose keys rise. Durable when it returns; dropping the
    /// future leaves nothing behind. It pauses as merges do.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(
        &self,
        partition: NewPartition<'_>,
        next: impl AsyncFnMut() -> Option<KeyAndImage>,
    ) -> Result<(), LoadError> {
        let NewPartition { id, generation, meta, state, base, timestamp, promised } = partition;
        self.check_absent(id)?;
        let Content { mut batch, root } = self.load_content(id, next).await?;
        let state = write_state(&mut batch, state).await.map_err(CheckpointError::from)?;
        let finished = batch.finish().await.map_err(CheckpointError::from)?;
        self.check_absent(id)?;
        // Nothing in the log is its own yet.
        let log = {
            let log = self.inner.log.borrow();
            LogPosition { segment: log.ring.current(), frame: log.newest_frame() }
        };
        let row = CataloguedPartition {
            id,
            generation,
            meta: meta.into(),
            state,
            applied: base.slot,
            promised,
            timestamp,
            checksum: base.checksum,
            log,
            root,
        };
        self.inner.partitions.borrow_mut().insert_sealed(row, id);
        self.inner.upkeep.add_finished(finished);
        self.flip().await.map_err(|reason| LoadError::NotDurable { id, reason })
    }

    /// Writes the items that `next` yields, whose keys rise, for a partition. It pauses as merges do, but half of the time
    /// at most: somebody waits for it.
    ///
    /// # Errors
    /// A key out of order, or the page file takes nothing.
    pub async fn load_content(
        &self,
        id: PartitionId,
        next: impl AsyncFnMut() -> Option<KeyAndImage>,
    ) -> Result<Content<D, R>, LoadError> {
        let mut batch = self.inner.pages.batch();
        let place = Place { partition: id, limits: self.inner.limits };
        let engine = self.clone();
        let pace =
            Pace::new(self.inner.runtime.clone(), Rc::new(move || engine.pressure().max(LOAD_PRESSURE)));
        let root = tree::load(&mut batch, place, &pace, next).await.map_err(|fault| match fault {
            LoadFault::OutOfOrder(key) => LoadError::OutOfOrder { key },
            LoadFault::Space(error) => CheckpointError::from(error).into(),
        })?;
        Ok(Content { batch, root })
    }

    fn check_absent(&self, id: PartitionId) -> Result<(), LoadError> {
        let partitions = self.inner.partitions.borrow();
        let is_here = partitions.get(id).is_some() || partitions.is_being_split(id);
        if is_here { Err(LoadError::Exists { id }) } else { Ok(()) }
    }
}
