//! Writing pages: gathered into bursts, each flushed before the next one leaves.
//!
//! A burst is at most [`BURST_BYTES`]: the log shares the device, and its flushes would otherwise pay
//! for everything written since the last one. While a burst is under way the next one is gathered, so
//! a batch holds at most two in memory.
//!
//! It knows nothing of catalogues, and of a page only its bytes.

use super::{
    Extent, PageKind, PageReference,
    cache::Page,
    checksum,
    free::ExtentSet,
    pages::{Inner, Pages, SpaceError},
    wait::{Detached, detach},
};
use crate::{
    disk::{BLOCK_BYTES, Disk, DiskError, FileId},
    limits::BURST_BYTES,
    mistakes,
    runtime::Runtime,
};
use std::{cell::RefCell, rc::Rc};

/// Pages that are written together, and released together with what they replace.
///
/// Dropping it takes back what was written.
pub struct Batch<D: Disk, R: Runtime> {
    pages: Pages<D, R>,
    blocks: Rc<RefCell<Blocks>>,
    burst: Burst,
    writing: Option<Detached<Result<(), SpaceError>>>,
    /// Handed on by [`finish`](Batch::finish).
    is_finished: bool,
}

/// Blocks of a batch.
#[derive(Debug, Default)]
struct Blocks {
    allocated: ExtentSet,
    released: ExtentSet,
}

/// A finished batch, whose pages are durable and wait for a flip. Dropping it takes them back.
pub struct Finished<D: Disk, R: Runtime> {
    inner: Rc<Inner<D, R>>,
    pub(super) allocated: ExtentSet,
    pub(super) released: ExtentSet,
}

impl<D: Disk, R: Runtime> Batch<D, R> {
    pub(super) fn new(pages: Pages<D, R>) -> Self {
        Batch { pages, blocks: Rc::default(), burst: Burst::default(), writing: None, is_finished: false }
    }

    /// Writes a page, whole blocks, and returns its reference. It may be read once a
    /// [`flush`](Self::flush) behind it has resolved; an inner page is kept in the cache.
    pub async fn write(&mut self, bytes: &[u8], kind: PageKind) -> Result<PageReference, SpaceError> {
        assert!(!bytes.is_empty() && bytes.len().is_multiple_of(BLOCK_BYTES), "a page is whole blocks");
        if self.burst.bytes.len() + bytes.len() > BURST_BYTES {
            self.send().await?;
        }
        let blocks = u32::try_from(bytes.len() / BLOCK_BYTES).expect("a page is far smaller than that");
        let inner = &self.pages.inner;
        let mut take = |extent: Extent| {
            self.blocks.borrow_mut().allocated.insert(extent.into());
        };
        let extent = inner.allocate(blocks, &mut take).await?;
        self.burst.push(extent, bytes);
        let reference = PageReference { extent, checksum: checksum(bytes) };
        if kind == PageKind::Inner {
            let mut buffer = inner.disk.page_buffer(bytes.len());
            buffer.copy_from_slice(bytes);
            inner.cache.insert(reference, kind, Page::new(buffer));
        }
        inner.count(|counts| counts.pages += 1);
        Ok(reference)
    }

    /// Gives up a page: once a flip with this batch is durable and no older pin is held, its blocks are
    /// free. It may be one that this batch wrote.
    pub fn release(&mut self, extent: Extent) {
        self.blocks.borrow_mut().released.insert(extent.into());
    }

    /// Makes everything written durable.
    pub async fn flush(&mut self) -> Result<(), SpaceError> {
        self.send().await?;
        self.wait().await
    }

    /// Flushes, and hands the batch on to a flip.
    pub async fn finish(mut self) -> Result<Finished<D, R>, SpaceError> {
        self.flush().await?;
        // A sync of somebody else that has failed meanwhile may have taken with it what was written here.
        self.pages.inner.check()?;
        self.is_finished = true;
        let Blocks { allocated, released } = self.blocks.take();
        Ok(Finished { inner: Rc::clone(&self.pages.inner), allocated, released })
    }

    async fn send(&mut self) -> Result<(), SpaceError> {
        self.wait().await?;
        self.pages.inner.check()?;
        if !self.burst.bytes.is_empty() {
            let chunks = self.burst.chunks(&self.pages.inner.disk);
            let inner = Rc::clone(&self.pages.inner);
            let writing = async move { inner.write_chunks(chunks).await.map_err(|error| inner.fail(error)) };
            self.writing = Some(detach(&self.pages.inner.runtime, writing));
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), SpaceError> {
        if let Some(writing) = &self.writing {
            writing.done().await?;
            self.writing = None;
        }
        Ok(())
    }
}

impl<D: Disk, R: Runtime> Drop for Batch<D, R> {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let (inner, allocated) = (Rc::clone(&self.pages.inner), self.blocks.take().allocated);
        let Some(writing) = self.writing.take() else {
            inner.space.borrow_mut().extents.abandon(&allocated);
            return;
        };
        // A write under way would hit whoever gets the blocks next.
        self.pages.inner.runtime.spawn(async move {
            let _ = writing.done().await;
            inner.space.borrow_mut().extents.abandon(&allocated);
        });
    }
}

impl<D: Disk, R: Runtime> Finished<D, R> {
    /// What it allocated and what it released; it has nothing to take back any more.
    pub(super) fn into_blocks(mut self) -> (ExtentSet, ExtentSet) {
        (std::mem::take(&mut self.allocated), std::mem::take(&mut self.released))
    }
}

impl<D: Disk, R: Runtime> Drop for Finished<D, R> {
    fn drop(&mut self) {
        let allocated = std::mem::take(&mut self.allocated);
        self.inner.space.borrow_mut().extents.abandon(&allocated);
    }
}

/// Pages gathered for one burst.
#[derive(Debug, Default)]
struct Burst {
    bytes: Vec<u8>,
    /// Places of the bytes, those that follow each other joined.
    extents: Vec<Extent>,
}

impl Burst {
    fn push(&mut self, extent: Extent, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BURST_BYTES.max(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
        match self.extents.last_mut() {
            Some(last) if last.first_block + u64::from(last.blocks) == extent.first_block => {
                last.blocks += extent.blocks;
            }
            _ => self.extents.push(extent),
        }
    }

    /// Empties the burst into buffers of the disk, none larger than a burst.
    fn chunks<D: Disk>(&mut self, disk: &D) -> Vec<Chunk<D>> {
        let mut chunks = Vec::with_capacity(self.extents.len());
        let mut bytes = &self.bytes[..];
        for extent in self.extents.drain(..) {
            let (of_extent, rest) = bytes.split_at(extent.bytes());
            bytes = rest;
            cut(disk, extent, of_extent, &mut chunks);
        }
        self.bytes.clear();
        chunks
    }
}

/// One device write.
pub(super) struct Chunk<D: Disk> {
    offset: u64,
    buffer: D::Buffer,
}

/// Copies the bytes of an extent into device writes of a burst, or of at most half of one: for these a disk has
/// memory that was used before.
pub(super) fn cut<D: Disk>(disk: &D, extent: Extent, mut bytes: &[u8], chunks: &mut Vec<Chunk<D>>) {
    let mut offset = extent.offset();
    while !bytes.is_empty() {
        let whole = if bytes.len() < BURST_BYTES { BURST_BYTES / 2 } else { BURST_BYTES };
        let (piece, rest) = bytes.split_at(whole.min(bytes.len()));
        bytes = rest;
        let mut buffer = disk.page_buffer(piece.len());
        buffer.copy_from_slice(piece);
        chunks.push(Chunk { offset, buffer });
        offset += piece.len() as u64;
    }
}

impl<D: Disk, R: Runtime> Inner<D, R> {
    /// Writes the chunks in bursts, each flushed.
    pub(super) async fn write_chunks(self: &Rc<Self>, chunks: Vec<Chunk<D>>) -> Result<(), DiskError> {
        let mut chunks = chunks.into_iter().peekable();
        let mut writes = Vec::with_capacity(chunks.len());
        while chunks.peek().is_some() {
            let mut bytes = 0;
            while let Some(chunk) =
                chunks.next_if(|chunk| bytes == 0 || bytes + chunk.buffer.len() <= BURST_BYTES)
            {
                bytes += chunk.buffer.len();
                // Submitted by the call: all writes of a burst are under way together.
                writes.push(self.disk.write(FileId::Pages, chunk.offset, chunk.buffer));
            }
            // Every write is waited for, even behind one that failed: none may be under way later.
            let mut written = Ok(());
            for write in writes.drain(..) {
                written = written.and(write.await.map(drop));
            }
            written?;
            if !self.runtime.errs(mistakes::SUPERBLOCK_FIRST) {
                self.sync().await?;
            }
            self.count(|counts| {
                counts.bursts += 1;
                counts.bytes += bytes as u64;
            });
        }
        Ok(())
    }
}
