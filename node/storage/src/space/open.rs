//! Opening the page file: made if it is not there, else found as the last durable flip left it.

use super::{
    HEAD_BLOCKS, PageReference,
    anchor::{self, COPY_BLOCKS},
    catalogue::{Catalogue, DecodedCatalogue},
    checksum,
    extents::Extents,
    free::ExtentSet,
    pages::{Pages, PagesConfig},
    superblock::Superblock,
};
use crate::{
    disk::{BLOCK_BYTES, Disk, FileId},
    error::OpenError,
    limits::RECOVERY_READ_BYTES,
    runtime::Runtime,
};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedPages {
    /// The partitions of the last durable flip.
    pub catalogue: Catalogue,
    /// Its sequence; 0 for a new file.
    pub sequence: u64,
    /// Copies of the superblock that had to be written again.
    pub copies_healed: usize,
}

impl PagesConfig {
    fn check(&self) -> Result<(), OpenError> {
        for (holds, reason) in [
            (
                self.step_bytes > HEAD_BLOCKS * BLOCK && self.step_bytes.is_multiple_of(BLOCK),
                "a step of the page file is more than 256 KiB and a multiple of 4096",
            ),
            (
                self.first_bytes > HEAD_BLOCKS * BLOCK
                    && self.first_bytes <= self.bytes_max
                    && self.first_bytes.is_multiple_of(BLOCK),
                "a new page file is more than 256 KiB and a multiple of 4096",
            ),
            (
                self.bytes_max >= self.step_bytes && self.bytes_max.is_multiple_of(BLOCK),
                "the page file may have at least one step, and a multiple of 4096",
            ),
        ] {
            if !holds {
                return Err(OpenError::Config { reason });
            }
        }
        Ok(())
    }
}

impl<D: Disk, R: Runtime> Pages<D, R> {
    /// Opens the pages of a shard. Nothing is written before the file is known to be its own and whole.
    pub async fn open(
        disk: D,
        runtime: R,
        config: PagesConfig,
    ) -> Result<(Pages<D, R>, OpenedPages), OpenError> {
        config.check()?;
        let files = disk.files().await?;
        let length = files.iter().find(|(file, _)| *file == FileId::Pages).map(|(_, bytes)| *bytes);
        let length = match length {
            Some(length) => length,
            None => {
                disk.create(FileId::Pages, config.first_bytes).await?;
                config.first_bytes
            }
        };
        if length < (HEAD_BLOCKS + 1) * BLOCK {
            return Err(corrupt(0, "a page file with a superblock", format!("{length} bytes")));
        }
        let Some(anchored) = anchor::read(&disk).await? else {
            return format(disk, runtime, config, length).await;
        };
        let superblock = anchored.superblock;
        check_owner(&superblock, &config)?;
        if superblock.blocks_total * BLOCK > length {
            let expected = format!("{} blocks", superblock.blocks_total);
            return Err(corrupt(0, expected, format!("a file of {length} bytes")));
        }
        let DecodedCatalogue { catalogue, free } = read_catalogue(&disk, &superblock).await?;
        // What was read may be only in a volatile cache, if a process was killed rather than a machine.
        disk.sync(FileId::Pages).await?;
        if !anchored.stale.is_empty() {
            anchor::write_copies(&disk, &superblock, &anchored.stale).await?;
        }
        let extents = Extents::new(superblock.blocks_total, free, superblock.sequence);
        let opened =
            OpenedPages { catalogue, sequence: superblock.sequence, copies_healed: anchored.stale.len() };
        Ok((Pages::new(disk, runtime, config, extents, &superblock), opened))
    }
}

/// Writes the first superblock of a file that never had one.
async fn format<D: Disk, R: Runtime>(
    disk: D,
    runtime: R,
    config: PagesConfig,
    length: u64,
) -> Result<(Pages<D, R>, OpenedPages), OpenError> {
    check_empty(&disk, length).await?;
    let superblock = Superblock {
        cluster: config.cluster,
        node: config.node,
        shard: config.shard.0.into(),
        sequence: 0,
        blocks_total: length / BLOCK,
        catalogue_bytes: 0,
        pieces: Vec::new(),
    };
    anchor::write(&disk, &superblock).await?;
    let opened = OpenedPages { catalogue: Catalogue::default(), sequence: 0, copies_healed: 0 };
    let extents = Extents::new(superblock.blocks_total, all_free(&superblock), 0);
    Ok((Pages::new(disk, runtime, config, extents, &superblock), opened))
}

/// A file without a superblock is new only if nothing was ever written behind it.
async fn check_empty<D: Disk>(disk: &D, length: u64) -> Result<(), OpenError> {
    let mut offset = HEAD_BLOCKS * BLOCK;
    while offset < length {
        let bytes = (length - offset).min(RECOVERY_READ_BYTES as u64);
        let read = disk.read(FileId::Pages, offset, disk.page_buffer(bytes as usize)).await?;
        if let Some(at) = read.iter().position(|byte| *byte != 0) {
            let found = format!("pages, the first at offset {}", offset + at as u64);
            return Err(corrupt(0, "two equal copies of the superblock", found));
        }
        offset += bytes;
    }
    Ok(())
}

fn check_owner(superblock: &Superblock, config: &PagesConfig) -> Result<(), OpenError> {
    let file = FileId::Pages;
    if superblock.cluster != config.cluster {
        return Err(OpenError::WrongCluster { file, expected: config.cluster, found: superblock.cluster });
    }
    if superblock.node != config.node {
        return Err(OpenError::WrongNode { file, expected: config.node, found: superblock.node });
    }
    if superblock.shard != u32::from(config.shard.0) {
        return Err(OpenError::WrongShard { file, expected: config.shard, found: superblock.shard });
    }
    Ok(())
}

/// Reads and checks the catalogue of a superblock: also what an offline look at the file begins with.
pub async fn read_catalogue<D: Disk>(
    disk: &D,
    superblock: &Superblock,
) -> Result<DecodedCatalogue, OpenError> {
    if superblock.pieces.is_empty() {
        return Ok(DecodedCatalogue { catalogue: Catalogue::default(), free: all_free(superblock) });
    }
    let mut bytes = Vec::new();
    for piece in &superblock.pieces {
        bytes.extend_from_slice(&read_piece(disk, piece).await?);
    }
    // The sum of the pieces was checked when the superblock was decoded.
    let (body, rest) = bytes.split_at(superblock.catalogue_bytes as usize);
    let first = superblock.pieces[0].extent.offset();
    let unsupported = |what: &'static str, found| OpenError::Unsupported {
        file: FileId::Pages,
        offset: first,
        what,
        found,
    };
    if let Some(byte) = rest.iter().find(|byte| **byte != 0) {
        return Err(unsupported("rest of the catalogue", u64::from(*byte)));
    }
    let decoded = Catalogue::decode(body, superblock.sequence, superblock.blocks_total)
        .map_err(|fault| unsupported(fault.what, fault.found))?;
    for piece in &superblock.pieces {
        if decoded.free.overlaps(&piece.extent.into()) {
            return Err(unsupported("free run", piece.extent.first_block));
        }
    }
    Ok(decoded)
}

async fn read_piece<D: Disk>(disk: &D, piece: &PageReference) -> Result<D::Buffer, OpenError> {
    let extent = piece.extent;
    let read = disk.read(FileId::Pages, extent.offset(), disk.page_buffer(extent.bytes())).await?;
    let found = checksum(&read);
    if found != piece.checksum {
        let expected = format!("a piece of the catalogue with checksum {:016x}", piece.checksum);
        return Err(corrupt(extent.offset(), expected, format!("checksum {found:016x}")));
    }
    Ok(read)
}

fn all_free(superblock: &Superblock) -> ExtentSet {
    let mut free = ExtentSet::new();
    free.insert(HEAD_BLOCKS..superblock.blocks_total);
    free
}

fn corrupt(offset: u64, expected: impl Into<String>, found: impl Into<String>) -> OpenError {
    OpenError::Corrupt { file: FileId::Pages, offset, expected: expected.into(), found: found.into() }
}

const _: () = assert!(COPY_BLOCKS[0] == 0, "errors about the superblock name the beginning of the file");
