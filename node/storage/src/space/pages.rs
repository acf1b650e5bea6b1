//! The pages of one shard: read by reference, written in batches, and made to last by flips.
//!
//! ```text
//! batch ── write … write ── flush ── finish ──┐
//! batch ── write ── release … ─────── finish ─┼──► flip(catalogue) ──► durable, all or nothing
//! ```
//!
//! - What a batch writes and releases counts only from the flip that its end is handed to. A batch that
//!   is dropped leaves nothing behind, and neither does a crash.
//! - Whoever reads takes a [`Pin`] first and a root then. A root is replaced in memory before the flip
//!   that makes it durable is begun: then a pin keeps every page that a root taken behind it leads to.
//! - After a failed write or sync nothing more is written, for good: what the device holds is not known.
//!   Pages can still be read.
//!
//! It knows nothing of trees.

pub use super::batch::{Batch, Finished};
use super::{
    Extent, PageKind, PageReference, SpaceUsed,
    cache::{CacheCounts, Page, PageCache, PageError},
    extents::Extents,
    superblock::Superblock,
    wait::{Detached, detach},
};
use crate::{
    disk::{BLOCK_BYTES, Disk, DiskError, FileId},
    runtime::Runtime,
};
use evenkeel_model::{ClusterId, NodeId, ShardId};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
};

/// How the page file of a shard is set up.
#[derive(Clone, Copy, Debug)]
pub struct PagesConfig {
    /// The cluster; a file of another one is refused.
    pub cluster: ClusterId,
    /// The node; a file of another one is refused.
    pub node: NodeId,
    /// The shard; a file of another one is refused.
    pub shard: ShardId,
    /// How long a new file is, a multiple of 4096.
    pub first_bytes: u64,
    /// The file grows by this much, a multiple of 4096, when less than half of it is free.
    pub step_bytes: u64,
    /// The file grows to at most this.
    pub bytes_max: u64,
    /// Memory of the page cache.
    pub cache_bytes: u64,
}

/// Nothing more can be written, for now or for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// There is no room, and the file cannot grow. Passes when pages are released or space is found.
    #[error("the page file is full: {used} of {max} bytes are in use")]
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes that the file may have, if the file system has room for them.
        max: u64,
    },
    /// A write failed: no page is written any more.
    #[error("the page file has stopped: {0}")]
    Failed(DiskError),
}

/// What was written, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Pages written.
    pub pages: u64,
    /// Bytes of pages and catalogues written.
    pub bytes: u64,
    /// Flushed bursts.
    pub bursts: u64,
    /// Flips made durable.
    pub flips: u64,
    /// Bytes of their catalogues.
    pub catalogue_bytes: u64,
    /// Times the file grew.
    pub growths: u64,
}

/// The pages of one shard. A clone is the same one.
pub struct Pages<D: Disk, R: Runtime> {
    pub(super) inner: Rc<Inner<D, R>>,
}

impl<D: Disk, R: Runtime> Clone for Pages<D, R> {
    fn clone(&self) -> Self {
        Pages { inner: Rc::clone(&self.inner) }
    }
}

pub(super) struct Inner<D: Disk, R: Runtime> {
    pub(super) disk: D,
    pub(super) runtime: R,
    pub(super) config: PagesConfig,
    pub(super) cache: PageCache<D>,
    pub(super) space: RefCell<Space>,
    pub(super) counts: Cell<WriteCounts>,
}

#[derive(Debug)]
pub(super) struct Space {
    pub(super) extents: Extents,
    /// Where the catalogue of the last flip is.
    pub(super) catalogue: Vec<Extent>,
    /// Why nothing is written any more.
    pub(super) failed: Option<DiskError>,
    /// The flip under way.
    pub(super) flipping: Option<Detached<Result<(), SpaceError>>>,
    growing: Option<Detached<Result<(), SpaceError>>>,
    /// The sync under way.
    syncing: Option<Detached<Result<(), DiskError>>>,
    /// The last attempt to grow found no space: the next one waits until it is needed.
    starved: bool,
}

impl<D: Disk, R: Runtime> Pages<D, R> {
    pub(super) fn new(
        disk: D,
        runtime: R,
        config: PagesConfig,
        extents: Extents,
        superblock: &Superblock,
    ) -> Self {
        let catalogue = superblock.pieces.iter().map(|piece| piece.extent).collect();
        let space = Space {
            extents,
            catalogue,
            failed: None,
            flipping: None,
            growing: None,
            syncing: None,
            starved: false,
        };
        let cache = PageCache::new(disk.clone(), config.cache_bytes);
        let (space, counts) = (RefCell::new(space), Cell::default());
        Pages { inner: Rc::new(Inner { disk, runtime, config, cache, space, counts }) }
    }

    /// The page, from memory or by one device read. It must have been flushed, and be kept by a pin or
    /// by the caller's own knowledge.
    pub async fn read(&self, reference: PageReference, kind: PageKind) -> Result<Page<D::Buffer>, PageError> {
        self.inner.cache.read(&self.inner.runtime, reference, kind).await
    }

    /// The page as the device has it now: what a scrub wants to see.
    pub async fn read_from_device(&self, reference: PageReference) -> Result<Page<D::Buffer>, PageError> {
        self.inner.cache.read_from_device(&self.inner.runtime, reference).await
    }

    /// The device.
    pub(crate) fn disk(&self) -> &D {
        &self.inner.disk
    }

    /// Begins to write pages.
    pub fn batch(&self) -> Batch<D, R> {
        Batch::new(self.clone())
    }

    /// Keeps every page that roots taken from now on lead to, until it is dropped.
    pub fn pin(&self) -> Pin<D, R> {
        let sequence = self.inner.space.borrow_mut().extents.pin();
        Pin { inner: Rc::clone(&self.inner), sequence }
    }

    /// Resolves when nothing is under way in the background: a growth or a flip whose caller left. Batches
    /// and reads are their callers' own.
    pub async fn close(&self) {
        self.inner.end_of_flip().await;
        let growing = self.inner.space.borrow().growing.clone();
        if let Some(growing) = growing {
            // That the file did not grow concerns nobody any more.
            let _ = growing.done().await;
        }
    }

    /// The last durable flip.
    pub fn durable(&self) -> u64 {
        self.inner.space.borrow().extents.durable()
    }

    /// How the file is used.
    pub fn used(&self) -> SpaceUsed {
        self.inner.space.borrow().extents.used()
    }

    /// Blocks of the catalogue of the last flip begun; they count as used.
    pub fn catalogue_blocks(&self) -> u64 {
        self.inner.space.borrow().catalogue.iter().map(|piece| u64::from(piece.blocks)).sum()
    }

    /// What the cache has done.
    pub fn cache_counts(&self) -> CacheCounts {
        self.inner.cache.counts()
    }

    /// What was written.
    pub fn write_counts(&self) -> WriteCounts {
        self.inner.counts.get()
    }

    /// Why nothing is written any more, if so.
    pub fn failed(&self) -> Option<SpaceError> {
        self.inner.space.borrow().failed.clone().map(SpaceError::Failed)
    }
}

impl<D: Disk, R: Runtime> Inner<D, R> {
    pub(super) fn count(&self, change: impl FnOnce(&mut WriteCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// The device failed a write: nothing more is written. Returns what to tell the caller.
    pub(super) fn fail(&self, error: DiskError) -> SpaceError {
        let mut space = self.space.borrow_mut();
        SpaceError::Failed(space.failed.get_or_insert(error).clone())
    }

    pub(super) fn check(&self) -> Result<(), SpaceError> {
        self.space.borrow().failed.clone().map_or(Ok(()), |error| Err(SpaceError::Failed(error)))
    }

    /// Makes durable what was written, one sync at a time: one that fails may take with it what others wrote, and
    /// theirs would then succeed with nothing left to do.
    pub(super) async fn sync(self: &Rc<Self>) -> Result<(), DiskError> {
        loop {
            let syncing = self.space.borrow().syncing.clone();
            let Some(syncing) = syncing else { break };
            // Its own caller is told; whether it failed is asked below.
            let _ = syncing.done().await;
        }
        if let Some(failed) = &self.space.borrow().failed {
            return Err(failed.clone());
        }
        let inner = Rc::clone(self);
        let syncing = detach(&self.runtime, async move {
            let synced = inner.disk.sync(FileId::Pages).await;
            let mut space = inner.space.borrow_mut();
            space.syncing = None;
            if let Err(error) = &synced {
                space.failed.get_or_insert_with(|| error.clone());
            }
            synced
        });
        self.space.borrow_mut().syncing = Some(syncing.clone());
        syncing.done().await
    }

    /// Finds room for `blocks`, growing the file if there is none. What the caller is to do with the
    /// blocks, it does without waiting: `take` is called with them.
    pub(super) async fn allocate(
        self: &Rc<Self>,
        blocks: u32,
        take: &mut impl FnMut(Extent),
    ) -> Result<Extent, SpaceError> {
        loop {
            self.check()?;
            let extent = self.space.borrow_mut().extents.allocate(blocks);
            self.forget_freed();
            if let Some(extent) = extent {
                take(extent);
                self.grow_ahead();
                return Ok(extent);
            }
            self.grow(u64::from(blocks)).done().await?;
        }
    }

    /// What is free is of no use in the cache any more.
    pub(super) fn forget_freed(&self) {
        for run in self.space.borrow_mut().extents.take_freed() {
            self.cache.forget(run);
        }
    }

    /// Grows the file in the background before it is full.
    fn grow_ahead(self: &Rc<Self>) {
        let wanted = {
            let space = self.space.borrow();
            let free = space.extents.used().free_blocks * BLOCK_BYTES as u64;
            let below_max = space.extents.blocks_total() * (BLOCK_BYTES as u64) < self.config.bytes_max;
            free < self.config.step_bytes / 2 && below_max && !space.starved && space.growing.is_none()
        };
        if wanted {
            self.grow(1);
        }
    }

    /// The growth under way, or a new one by as many steps as hold `blocks`.
    fn grow(self: &Rc<Self>, blocks: u64) -> Detached<Result<(), SpaceError>> {
        if let Some(growing) = &self.space.borrow().growing {
            return growing.clone();
        }
        let inner = Rc::clone(self);
        let growing = detach(&self.runtime, async move {
            let grown = inner.grow_now(blocks).await;
            let mut space = inner.space.borrow_mut();
            space.growing = None;
            space.starved = grown.is_err();
            grown
        });
        self.space.borrow_mut().growing = Some(growing.clone());
        growing
    }

    /// What a caller is told when there is no room.
    pub(super) fn full(&self) -> SpaceError {
        let space = self.space.borrow();
        let used = space.extents.blocks_total() - space.extents.used().free_blocks;
        SpaceError::Full { used: used * BLOCK_BYTES as u64, max: self.config.bytes_max }
    }

    async fn grow_now(&self, blocks: u64) -> Result<(), SpaceError> {
        let block_bytes = BLOCK_BYTES as u64;
        let from = self.space.borrow().extents.blocks_total() * block_bytes;
        let steps = (blocks * block_bytes).div_ceil(self.config.step_bytes);
        let to = (from + steps * self.config.step_bytes).min(self.config.bytes_max);
        if to < from + blocks * block_bytes {
            return Err(self.full());
        }
        match self.disk.extend(FileId::Pages, from, to).await {
            Ok(()) => {
                self.space.borrow_mut().extents.grow(to / block_bytes);
                self.count(|counts| counts.growths += 1);
                Ok(())
            }
            Err(error) if error.source.kind == io::ErrorKind::StorageFull => Err(self.full()),
            Err(error) => Err(self.fail(error)),
        }
    }
}

/// Keeps pages: those of the last durable flip when it was taken, and of all later ones.
pub struct Pin<D: Disk, R: Runtime> {
    inner: Rc<Inner<D, R>>,
    sequence: u64,
}

impl<D: Disk, R: Runtime> Pin<D, R> {
    /// The flip that was the last durable one.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl<D: Disk, R: Runtime> Clone for Pin<D, R> {
    fn clone(&self) -> Self {
        self.inner.space.borrow_mut().extents.pin_at(self.sequence);
        Pin { inner: Rc::clone(&self.inner), sequence: self.sequence }
    }
}

impl<D: Disk, R: Runtime> Drop for Pin<D, R> {
    fn drop(&mut self) {
        self.inner.space.borrow_mut().extents.unpin(self.sequence);
    }
}
