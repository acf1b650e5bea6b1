//! Where the pages of a shard live: extents of blocks in one page file, a catalogue of what they hold,
//! and the superblock that the catalogue hangs on.
//!
//! ```text
//! superblock (4 copies) ──► catalogue (some extents) ──► root references ──► pages (an extent each)
//!                                      └──► free extents
//! ```
//!
//! - [`extents`] hands out and takes back blocks, and never gives away what a snapshot still sees.
//! - [`superblock`] and [`catalogue`] are the formats; [`anchor`] reads and writes the four copies.
//! - [`cache`] keeps clean pages within a budget.
//! - [`pages`] ties them together: [`Pages`] is what the tree stands on.
//!
//! Everything is copy-on-write: a block is written once between two times that it is free, and a flip
//! of the superblock makes a whole catalogue the present one, or none of it. This module knows
//! nothing of what is in a page, but for its checksum.

pub mod anchor;
mod batch;
pub mod cache;
pub mod catalogue;
mod codec;
pub mod extents;
mod flip;
mod free;
mod open;
pub mod pages;
pub mod superblock;
mod wait;

pub use cache::{CacheCounts, Page, PageCache, PageError};
pub use catalogue::{Catalogue, CataloguedPartition, LogPosition, RootReference, StateReference};
pub use codec::DecodeFault;
pub use extents::{Extents, SpaceUsed};
pub use free::ExtentSet;
pub use open::{OpenedPages, read_catalogue};
pub use pages::{Batch, Finished, Pages, PagesConfig, Pin, SpaceError, WriteCounts};

pub(crate) use wait::{Detached, detach};

use crate::disk::BLOCK_BYTES;
use std::fmt;

/// Blocks at the head of the page file that are the superblock's.
pub const HEAD_BLOCKS: u64 = 64;

/// A run of blocks of the page file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The first block, counted from the beginning of the file.
    pub first_block: u64,
    /// How many blocks, at least one.
    pub blocks: u32,
}

impl Extent {
    /// Offset in the file, in bytes.
    pub fn offset(self) -> u64 {
        self.first_block * BLOCK_BYTES as u64
    }

    /// Length in bytes.
    pub fn bytes(self) -> usize {
        self.blocks as usize * BLOCK_BYTES
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks at block {}", self.blocks, self.first_block)
    }
}

/// Where a page is, and what its bytes must sum up to: kept outside of the page, so that a page that
/// was lost or written elsewhere is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageReference {
    /// The page's blocks.
    pub extent: Extent,
    /// xxh3-64 of all bytes of the extent.
    pub checksum: u64,
}

/// What kind of page it is; the cache keeps inner ones ahead of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// Points to other pages.
    Inner,
    /// Holds items.
    Leaf,
}

/// The checksum of a page's bytes, as its reference carries it.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}
