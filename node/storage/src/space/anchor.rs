//! The four copies of the superblock: how a flip becomes the present state all at once, or not at all.
//!
//! A flip writes copies 1 and 2, flushes, then writes copies 3 and 4 and flushes. At every moment one
//! of the two pairs is whole. Two equal copies, wherever they are, make a superblock, and of several
//! such the one with the higher sequence counts: a single copy may be one that should have been
//! overwritten, and proves nothing.
//!
//! The copies are 64 KiB apart, so that no page of flash holds two of them. Opening rewrites copies
//! that are not equal to the one that counts, before anything else is written.
//!
//! This module knows nothing of the catalogue.

use super::superblock::{Superblock, SuperblockFault};
use crate::{
    disk::{BLOCK_BYTES, Disk, DiskError, FileId},
    error::OpenError,
};

/// The blocks of the copies: one pair, then the other.
pub const COPY_BLOCKS: [u64; 4] = [0, 16, 32, 48];

const _: () = assert!(COPY_BLOCKS[3] < super::HEAD_BLOCKS);

/// What the copies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// The superblock that counts.
    pub superblock: Superblock,
    /// Copies that are not equal to it, by index.
    pub stale: Vec<usize>,
}

/// Reads the copies. None if no two are equal and nothing shows that there ever was a flip: the file
/// is new, or its first superblock was being written.
pub async fn read<D: Disk>(disk: &D) -> Result<Option<Anchored>, OpenError> {
    let mut copies = Vec::with_capacity(COPY_BLOCKS.len());
    for block in COPY_BLOCKS {
        copies
            .push(disk.read(FileId::Pages, block * BLOCK_BYTES as u64, disk.page_buffer(BLOCK_BYTES)).await?);
    }
    let decoded: Vec<_> = copies.iter().map(|copy| Superblock::decode(copy)).collect();
    let mut best: Option<&Superblock> = None;
    for (index, one) in decoded.iter().enumerate() {
        let Ok(one) = one else { continue };
        let has_equal = decoded[index + 1..].iter().any(|other| other.as_ref() == Ok(one));
        if has_equal && best.is_none_or(|best| best.sequence < one.sequence) {
            best = Some(one);
        }
    }
    if let Some(best) = best {
        let is_stale = |index: &usize| decoded[*index].as_ref() != Ok(best);
        let stale = (0..COPY_BLOCKS.len()).filter(is_stale).collect();
        return Ok(Some(Anchored { superblock: best.clone(), stale }));
    }
    no_pair(&decoded)
}

fn no_pair(decoded: &[Result<Superblock, SuperblockFault>]) -> Result<Option<Anchored>, OpenError> {
    for (copy, block) in decoded.iter().zip(COPY_BLOCKS) {
        if let Err(SuperblockFault::Unsupported { what, found }) = *copy {
            let offset = block * BLOCK_BYTES as u64;
            return Err(OpenError::Unsupported { file: FileId::Pages, offset, what, found });
        }
    }
    let flipped = decoded.iter().flatten().any(|copy| copy.sequence > 0);
    if !flipped {
        return Ok(None);
    }
    let said = |copy: &Result<Superblock, SuperblockFault>| match copy {
        Ok(superblock) => format!("sequence {}", superblock.sequence),
        Err(SuperblockFault::Broken { expected, found }) => {
            format!("checksum {found:032x} instead of {expected:032x}")
        }
        Err(_) => "no superblock".to_owned(),
    };
    Err(OpenError::Corrupt {
        file: FileId::Pages,
        offset: 0,
        expected: "two equal copies of the superblock".into(),
        found: decoded.iter().map(said).collect::<Vec<_>>().join(", "),
    })
}

/// Makes `superblock` the one that counts. What it refers to is durable already.
pub async fn write<D: Disk>(disk: &D, superblock: &Superblock) -> Result<(), DiskError> {
    write_copies(disk, superblock, &[0, 1]).await?;
    write_copies(disk, superblock, &[2, 3]).await
}

/// Writes some of the copies, durably.
pub async fn write_copies<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    copies: &[usize],
) -> Result<(), DiskError> {
    let mut writes = Vec::with_capacity(copies.len());
    for &copy in copies {
        let mut buffer = disk.page_buffer(BLOCK_BYTES);
        superblock.encode(&mut buffer);
        // Submitted now; both are under way before either is waited for.
        writes.push(disk.write(FileId::Pages, COPY_BLOCKS[copy] * BLOCK_BYTES as u64, buffer));
    }
    for write in writes {
        write.await?;
    }
    disk.sync(FileId::Pages).await
}

#[cfg(test)]
#[path = "anchor_tests.rs"]
mod tests;
