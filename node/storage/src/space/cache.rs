//! Clean pages in memory, within a budget of bytes.
//!
//! - Inner pages are kept ahead of leaves: they may take nearly all of the budget, and leaves get what
//!   is left. Within each kind a scan-resistant policy (Clock-PRO, from `quick_cache`) decides.
//! - Reads of one page that overlap share one device read, which goes on even if all who wait leave.
//! - A page is checked against its reference whenever it comes from the device. One that fails is an
//!   error with all there is to know, is counted, and is never kept.
//! - A page is handed out by reference: what is evicted lives on while someone reads it.
//!
//! It knows nothing of what is in a page, nor of which pages are in use.

use super::{
    PageKind, PageReference, checksum,
    wait::{Detached, detach},
};
use crate::{
    disk::{Disk, DiskError, FileId},
    heads::Heads,
    mistakes,
    runtime::Runtime,
};
use quick_cache::{Lifecycle, Weighter, unsync};
use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::{Deref, Range},
    rc::Rc,
};

/// What a page costs besides its bytes and the heads of its keys: its buffer's header, its entry and its place in the
/// table.
const PAGE_OVERHEAD_BYTES: u64 = 192;
/// How many times a page is larger than the heads of its keys may be.
const PAGE_TO_HEADS: usize = 32;
/// Leaves always get one part in so many.
const LEAF_SHARE: u64 = 16;
/// What inner pages take from leaves, they take in so many steps: each change of a capacity costs the
/// policy some of its memory of pages that it evicted.
const STEPS: u64 = 32;

/// A page in memory, aligned for direct IO and shared.
#[derive(Debug)]
pub struct Page<B>(Rc<Shared<B>>);

#[derive(Debug)]
struct Shared<B> {
    buffer: B,
    sound: OnceCell<(PageKind, Heads)>,
}

impl<B> Page<B> {
    pub(super) fn new(buffer: B) -> Self {
        Page(Rc::new(Shared { buffer, sound: OnceCell::new() }))
    }

    /// The heads of its keys, if it was found to be a sound page of a kind: then it is not looked through again.
    pub(crate) fn sound(&self, kind: PageKind) -> Option<&Heads> {
        self.0.sound.get().filter(|(of, _)| *of == kind).map(|(_, heads)| heads)
    }
}

impl<B: Deref<Target = [u8]>> Page<B> {
    /// It was looked through, and has so many keys.
    pub(crate) fn set_sound<'a>(&'a self, kind: PageKind, count: usize, key: impl Fn(usize) -> &'a [u8]) {
        let heads = || Heads::of(count, key, self.len() / PAGE_TO_HEADS);
        self.0.sound.get_or_init(|| (kind, heads()));
    }
}

impl<B> Clone for Page<B> {
    fn clone(&self) -> Self {
        Page(Rc::clone(&self.0))
    }
}

impl<B: Deref<Target = [u8]>> Deref for Page<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.buffer
    }
}

/// A page could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The device failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The page is not what its parent says it is.
    #[error(
        "{file} at block {block} ({blocks} blocks) is corrupt: expected checksum {expected:016x}, found {found:016x}"
    )]
    Corrupt {
        /// The file.
        file: FileId,
        /// Its first block.
        block: u64,
        /// How many.
        blocks: u32,
        /// The checksum in the reference.
        expected: u64,
        /// The checksum of what was read.
        found: u64,
    },
}

/// What the cache has done, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Reads of inner pages answered from memory.
    pub inner_hits: u64,
    /// Reads of inner pages that were not in memory.
    pub inner_misses: u64,
    /// Reads of leaves answered from memory.
    pub leaf_hits: u64,
    /// Reads of leaves that were not in memory.
    pub leaf_misses: u64,
    /// Misses that waited for a device read already under way.
    pub shared_reads: u64,
    /// Device reads.
    pub device_reads: u64,
    /// Bytes read from the device.
    pub device_read_bytes: u64,
    /// Pages that made room for others.
    pub evictions: u64,
    /// Pages whose checksum was wrong.
    pub corrupt_pages: u64,
    /// Bytes held now.
    pub bytes: u64,
    /// Inner pages held now.
    pub inner_pages: u64,
    /// Leaves held now.
    pub leaf_pages: u64,
}

#[derive(Debug)]
struct Entry<B> {
    reference: PageReference,
    page: Page<B>,
}

/// Memory that a page takes at most.
const fn page_cost(page_bytes: usize) -> u64 {
    (page_bytes + page_bytes / PAGE_TO_HEADS) as u64 + PAGE_OVERHEAD_BYTES
}

#[derive(Clone, Copy, Debug, Default)]
struct Bytes;

impl<B> Weighter<u64, Entry<B>> for Bytes {
    fn weight(&self, _first_block: &u64, entry: &Entry<B>) -> u64 {
        page_cost(entry.reference.extent.bytes())
    }
}

/// Counts evictions.
#[derive(Clone, Copy, Debug, Default)]
struct Evictions;

impl<B> Lifecycle<u64, Entry<B>> for Evictions {
    type RequestState = u64;

    fn on_evict(&self, count: &mut u64, _first_block: u64, _entry: Entry<B>) {
        *count += 1;
    }
}

/// Spreads block numbers (the finaliser of SplitMix64); the same in every run.
#[derive(Clone, Copy, Debug, Default)]
struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let mut bits = (self.0 ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = bits ^ (bits >> 31);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type BlockHash = BuildHasherDefault<BlockHasher>;
type Pages<B> = unsync::Cache<u64, Entry<B>, Bytes, BlockHash, Evictions>;
type Reading<B> = Detached<Result<Page<B>, PageError>>;

#[derive(Debug)]
struct State<B> {
    inner: Pages<B>,
    leaves: Pages<B>,
    bytes_max: u64,
    /// Steps of the budget that leaves do without, for inner pages.
    steps_reserved: u64,
    reading: HashMap<PageReference, Reading<B>, BlockHash>,
    counts: CacheCounts,
}

impl<B> State<B> {
    fn new(bytes_max: u64) -> Self {
        // The number of pages only sizes the memory of what was evicted: 8 KiB is a usual leaf.
        let pages = usize::try_from(bytes_max / 8192).unwrap_or(usize::MAX).max(8);
        let cache = |bytes| Pages::with(pages, bytes, Bytes, BlockHash::default(), Evictions);
        State {
            inner: cache(bytes_max - bytes_max / LEAF_SHARE),
            leaves: cache(bytes_max),
            bytes_max,
            steps_reserved: 0,
            reading: HashMap::default(),
            counts: CacheCounts::default(),
        }
    }

    fn pages(&mut self, kind: PageKind) -> &mut Pages<B> {
        match kind {
            PageKind::Inner => &mut self.inner,
            PageKind::Leaf => &mut self.leaves,
        }
    }

    /// The page if it is here. An older page of the same blocks is as good as none.
    fn find(&mut self, reference: &PageReference, kind: PageKind) -> Option<Page<B>> {
        let entry = self.pages(kind).get(&reference.extent.first_block);
        let page = entry.filter(|entry| entry.reference == *reference).map(|entry| entry.page.clone());
        let counts = &mut self.counts;
        let count = match (kind, page.is_some()) {
            (PageKind::Inner, true) => &mut counts.inner_hits,
            (PageKind::Inner, false) => &mut counts.inner_misses,
            (PageKind::Leaf, true) => &mut counts.leaf_hits,
            (PageKind::Leaf, false) => &mut counts.leaf_misses,
        };
        *count += 1;
        page
    }

    fn insert(&mut self, reference: PageReference, kind: PageKind, page: Page<B>) {
        let mut evicted = 0;
        let entry = Entry { reference, page };
        self.pages(kind).insert_with_lifecycle(reference.extent.first_block, entry, &mut evicted);
        let before = self.leaves.len() as u64;
        self.share_budget();
        self.counts.evictions += evicted + before - self.leaves.len() as u64;
    }

    /// Leaves get what inner pages do not use.
    fn share_budget(&mut self) {
        let step_bytes = (self.bytes_max / STEPS).max(1);
        let steps = self.inner.weight().div_ceil(step_bytes);
        if steps > self.steps_reserved || steps + 2 <= self.steps_reserved {
            self.steps_reserved = steps;
            let left = self.bytes_max.saturating_sub(steps * step_bytes);
            self.leaves.set_capacity(left.max(self.bytes_max / LEAF_SHARE));
        }
    }
}

/// The pages of one shard that are in memory. A clone is the same cache.
pub struct PageCache<D: Disk> {
    disk: D,
    state: Rc<RefCell<State<D::Buffer>>>,
}

impl<D: Disk> Clone for PageCache<D> {
    fn clone(&self) -> Self {
        PageCache { disk: self.disk.clone(), state: Rc::clone(&self.state) }
    }
}

impl<D: Disk> PageCache<D> {
    /// An empty cache of at most `bytes_max`, over the page file of `disk`.
    pub fn new(disk: D, bytes_max: u64) -> Self {
        PageCache { disk, state: Rc::new(RefCell::new(State::new(bytes_max))) }
    }

    /// The page, from memory or by a device read.
    pub async fn read<R: Runtime>(
        &self,
        runtime: &R,
        reference: PageReference,
        kind: PageKind,
    ) -> Result<Page<D::Buffer>, PageError> {
        let reading = {
            let state = &mut *self.state.borrow_mut();
            if let Some(page) = state.find(&reference, kind) {
                return Ok(page);
            }
            if let Some(reading) = state.reading.get(&reference) {
                state.counts.shared_reads += 1;
                reading.clone()
            } else {
                let cache = self.clone();
                let owned = runtime.clone();
                let read = detach(runtime, async move { cache.read_and_keep(&owned, reference, kind).await });
                state.reading.insert(reference, read.clone());
                read
            }
        };
        reading.done().await
    }

    async fn read_and_keep<R: Runtime>(
        &self,
        runtime: &R,
        reference: PageReference,
        kind: PageKind,
    ) -> Result<Page<D::Buffer>, PageError> {
        let read = self.read_from_device(runtime, reference).await;
        let mut state = self.state.borrow_mut();
        state.reading.remove(&reference);
        if let Ok(page) = &read {
            state.insert(reference, kind, page.clone());
        }
        read
    }

    /// The page as the device has it, whatever is in memory; it is not kept.
    pub async fn read_from_device<R: Runtime>(
        &self,
        runtime: &R,
        reference: PageReference,
    ) -> Result<Page<D::Buffer>, PageError> {
        let extent = reference.extent;
        let buffer = self.disk.page_buffer(extent.bytes());
        {
            let counts = &mut self.state.borrow_mut().counts;
            counts.device_reads += 1;
            counts.device_read_bytes += extent.bytes() as u64;
        }
        let buffer = self.disk.read(FileId::Pages, extent.offset(), buffer).await?;
        let found = checksum(&buffer);
        if found != reference.checksum && !runtime.errs(mistakes::PAGE_UNCHECKED) {
            self.state.borrow_mut().counts.corrupt_pages += 1;
            return Err(PageError::Corrupt {
                file: FileId::Pages,
                block: extent.first_block,
                blocks: extent.blocks,
                expected: reference.checksum,
                found,
            });
        }
        Ok(Page::new(buffer))
    }

    /// Keeps a page that was just written.
    pub fn insert(&self, reference: PageReference, kind: PageKind, page: Page<D::Buffer>) {
        self.state.borrow_mut().insert(reference, kind, page);
    }

    /// Forgets the pages that begin in these blocks: they are free now.
    pub fn forget(&self, blocks: Range<u64>) {
        let state = &mut *self.state.borrow_mut();
        for first_block in blocks {
            state.leaves.remove(&first_block);
            state.inner.remove(&first_block);
        }
        state.share_budget();
    }

    /// What it has done, and what it holds.
    pub fn counts(&self) -> CacheCounts {
        let state = self.state.borrow();
        CacheCounts {
            bytes: state.inner.weight() + state.leaves.weight(),
            inner_pages: state.inner.len() as u64,
            leaf_pages: state.leaves.len() as u64,
            ..state.counts
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
