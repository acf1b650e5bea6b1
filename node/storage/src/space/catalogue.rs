//! The catalogue: which partitions a shard holds, where their trees are, and which blocks are free.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic                0x45_4B_43_54, "TCKE" on disk
//!      4      4  format version       2
//!      8      8  sequence             of the flip
//!     16      8  blocks total         length of the page file
//!     24      4  partition count
//!     28      4  reserved, zero
//!     32      8  log frame            all frames up to it were durable before the flip
//!     40         partitions, by rising id
//!                  0   8  id
//!                  8   4  generation
//!                 12   4  meta bytes
//!                 16   8  applied slot
//!                 24   8  round, and
//!                 32   4    replica of the greatest ballot promised
//!                 36   4  oldest log segment that is read for it
//!                 40   8  sequence of the log frame from which on it is read
//!                 48   8  timestamp of the applied entry
//!                 56  16  checksum of the applied entry, which chains the log
//!                 72   8  root: first block; all of the root is 0 while there is no tree
//!                 80   4    blocks
//!                 84   4    reserved, zero
//!                 88   8    checksum of the page
//!                 96   4    height
//!                100   4    reserved, zero
//!                104   8    item count
//!                112   8    item bytes
//!                120  16    content hash
//!                136   8  state: first block; all of it is 0 while there is none
//!                144   4    blocks
//!                148   4    reserved, zero
//!                152   8    checksum of the blocks
//!                160   4    bytes; the rest of the blocks is zero
//!                164   4    reserved, zero
//!                168      meta
//!                free runs: their number, then of each the distance from the end of the one before
//!                and the length, as variable integers of 7 bits a byte
//!                zeros
//! ```
//!
//! All integers are little-endian. The bytes are cut into pieces, an extent each; the superblock refers
//! to every piece with its checksum, so that a piece that was lost or written elsewhere is noticed.
//!
//! This module knows nothing of the pieces, and of a root only that it is a page.

use super::{
    Extent, PageReference,
    codec::{DecodeFault, Reader},
    extents::Extents,
    free::ExtentSet,
    superblock::read_reference,
};
use crate::limits::META_BYTES_MAX;
use evenkeel_model::{Ballot, Generation, PartitionId, Slot, Timestamp};
use std::rc::Rc;

/// The first four bytes of a catalogue.
pub const CATALOGUE_MAGIC: u32 = 0x454B_4354;
/// The version that this program writes and reads.
pub const CATALOGUE_VERSION: u32 = 2;

const HEADER_BYTES: usize = 40;
const PARTITION_BYTES: usize = 168;
const ROOT_BYTES: usize = 64;
const STATE_BYTES: usize = 32;
const STATE_AT: usize = PARTITION_BYTES - STATE_BYTES;

/// Where a partition stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The oldest segment that holds records which the tree does not.
    pub segment: u32,
    /// The frame with the first record behind the applied entry's, or with that one; while nothing is applied, with
    /// the creation. Entries before it are of no use, even those of later slots: they were written over, or once
    /// more, or are of a life of the partition that has ended.
    pub frame: u64,
}

/// A partition's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootReference {
    /// The root page.
    pub page: PageReference,
    /// Levels of pages below the root; 0 if it is a leaf.
    pub height: u32,
    /// Items in the tree.
    pub item_count: u64,
    /// Bytes of the items.
    pub item_bytes: u64,
    /// Sum of the items' hashes.
    pub content_hash: u128,
}

/// What a partition's owner knew at a slot, in blocks of its own: no flip writes it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateReference {
    /// The blocks.
    pub page: PageReference,
    /// How many bytes of them it is.
    pub bytes: u32,
}

/// A partition as a flip makes it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CataloguedPartition {
    /// Which one.
    pub id: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// What its owner wants to know of it.
    pub meta: Rc<[u8]>,
    /// What its owner knew when that slot was applied, beside the items.
    pub state: Option<StateReference>,
    /// The last slot that is in the tree.
    pub applied: Slot,
    /// The greatest ballot promised.
    pub promised: Ballot,
    /// The timestamp of that slot's entry.
    pub timestamp: Timestamp,
    /// The checksum of that slot's entry, which chains the log behind it.
    pub checksum: u128,
    /// Where the log must be read from.
    pub log: LogPosition,
    /// The tree; none while it is empty.
    pub root: Option<RootReference>,
}

/// All partitions of a shard at one flip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The log is durable up to this frame: what a partition that is not here any more was dropped in, too.
    pub log_frame: u64,
    /// By rising id.
    pub partitions: Vec<CataloguedPartition>,
}

/// A catalogue as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedCatalogue {
    /// The partitions.
    pub catalogue: Catalogue,
    /// Blocks that nothing in the catalogue, nor the catalogue itself, is in.
    pub free: ExtentSet,
}

impl Catalogue {
    /// Most bytes that [`encode`](Self::encode) makes of it if the free map needs `free_bytes_max`.
    pub fn encoded_bytes_max(&self, free_bytes_max: usize) -> usize {
        let partitions = self.partitions.iter().map(|partition| PARTITION_BYTES + partition.meta.len());
        HEADER_BYTES + partitions.sum::<usize>() + free_bytes_max
    }

    /// The bytes of the catalogue of flip `sequence`, with the free map of `extents`.
    pub fn encode(&self, sequence: u64, extents: &Extents) -> Vec<u8> {
        let rising = self.partitions.windows(2).all(|pair| pair[0].id < pair[1].id);
        assert!(rising, "partitions come by rising id, each once");
        let mut bytes = Vec::with_capacity(self.encoded_bytes_max(extents.encoded_free_bytes_max(0)));
        let partition_count = u32::try_from(self.partitions.len()).expect("partitions are counted in u32");
        bytes.extend(CATALOGUE_MAGIC.to_le_bytes());
        bytes.extend(CATALOGUE_VERSION.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(extents.blocks_total().to_le_bytes());
        bytes.extend(partition_count.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.log_frame.to_le_bytes());
        self.partitions.iter().for_each(|partition| partition.encode(&mut bytes));
        extents.encode_free(&mut bytes);
        bytes
    }

    /// Reads a catalogue that must be of flip `sequence` and of a file of `blocks_total`.
    pub fn decode(bytes: &[u8], sequence: u64, blocks_total: u64) -> Result<DecodedCatalogue, DecodeFault> {
        let reader = &mut Reader::new(bytes);
        reader.expect_u32(CATALOGUE_MAGIC, "magic")?;
        reader.expect_u32(CATALOGUE_VERSION, "format version")?;
        for (what, expected) in [("sequence", sequence), ("blocks total", blocks_total)] {
            let found = reader.u64(what)?;
            if found != expected {
                return Err(reader.fault(what, found));
            }
        }
        let partition_count = reader.u32("partition count")?;
        reader.expect_u32(0, "reserved field")?;
        let log_frame = reader.u64("log frame")?;
        let mut partitions: Vec<CataloguedPartition> = Vec::new();
        for _ in 0..partition_count {
            let partition = CataloguedPartition::decode(reader, blocks_total)?;
            if partitions.last().is_some_and(|last| last.id >= partition.id) {
                return Err(reader.fault("order of partitions", partition.id.0));
            }
            partitions.push(partition);
        }
        let free = Extents::decode_free(reader, blocks_total)?;
        let root = |partition: &CataloguedPartition| partition.root.map(|root| root.page.extent);
        let state = |partition: &CataloguedPartition| partition.state.map(|state| state.page.extent);
        for extent in partitions.iter().flat_map(|one| [root(one), state(one)]).flatten() {
            if free.overlaps(&extent.into()) {
                return Err(reader.fault("free run", extent.first_block));
            }
        }
        reader.rest_is_zero("rest of the catalogue")?;
        Ok(DecodedCatalogue { catalogue: Catalogue { log_frame, partitions }, free })
    }
}

impl CataloguedPartition {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        let meta_bytes =
            u32::try_from(self.meta.len()).ok().filter(|count| *count as usize <= META_BYTES_MAX);
        let meta_bytes = meta_bytes.expect("descriptions are limited where they come in");
        bytes.extend(self.id.0.to_le_bytes());
        bytes.extend(self.generation.0.to_le_bytes());
        bytes.extend(meta_bytes.to_le_bytes());
        bytes.extend(self.applied.0.to_le_bytes());
        bytes.extend(self.promised.round.to_le_bytes());
        bytes.extend(self.promised.replica.to_le_bytes());
        bytes.extend(self.log.segment.to_le_bytes());
        bytes.extend(self.log.frame.to_le_bytes());
        bytes.extend(self.timestamp.0.to_le_bytes());
        bytes.extend(self.checksum.to_le_bytes());
        if let Some(root) = &self.root {
            encode_page(root.page, bytes);
            bytes.extend(root.height.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(root.item_count.to_le_bytes());
            bytes.extend(root.item_bytes.to_le_bytes());
            bytes.extend(root.content_hash.to_le_bytes());
        }
        bytes.resize(start + STATE_AT, 0);
        if let Some(state) = &self.state {
            encode_page(state.page, bytes);
            bytes.extend(state.bytes.to_le_bytes());
        }
        bytes.resize(start + PARTITION_BYTES, 0);
        bytes.extend(&self.meta[..]);
    }

    fn decode(reader: &mut Reader<'_>, blocks_total: u64) -> Result<Self, DecodeFault> {
        let id = PartitionId(reader.u64("partition")?);
        let generation = Generation(reader.u32("generation")?);
        let meta_bytes = reader.u32("meta bytes")? as usize;
        if meta_bytes > META_BYTES_MAX {
            return Err(reader.fault("meta bytes", meta_bytes as u64));
        }
        let applied = Slot(reader.u64("applied slot")?);
        let promised = Ballot { round: reader.u64("ballot")?, replica: reader.u32("ballot")? };
        let log = LogPosition { segment: reader.u32("segment")?, frame: reader.u64("log frame")? };
        let timestamp = Timestamp(reader.u64("timestamp")?);
        let checksum = reader.u128("checksum")?;
        let root = decode_root(reader, blocks_total)?;
        let state = decode_state(reader, blocks_total)?;
        let meta = Rc::from(reader.take(meta_bytes, "meta")?);
        Ok(CataloguedPartition {
            id,
            generation,
            meta,
            state,
            applied,
            promised,
            timestamp,
            checksum,
            log,
            root,
        })
    }
}

fn encode_page(page: PageReference, bytes: &mut Vec<u8>) {
    let Extent { first_block, blocks } = page.extent;
    bytes.extend(first_block.to_le_bytes());
    bytes.extend(blocks.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(page.checksum.to_le_bytes());
}

fn decode_state(reader: &mut Reader<'_>, blocks_total: u64) -> Result<Option<StateReference>, DecodeFault> {
    let bytes = reader.take(STATE_BYTES, "state")?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let state = &mut Reader::new(bytes);
    let page = read_reference(state, blocks_total)?;
    let bytes = state.u32("state bytes")?;
    state.expect_u32(0, "reserved field")?;
    if bytes as usize > page.extent.bytes() {
        return Err(state.fault("state bytes", bytes.into()));
    }
    Ok(Some(StateReference { page, bytes }))
}

fn decode_root(reader: &mut Reader<'_>, blocks_total: u64) -> Result<Option<RootReference>, DecodeFault> {
    let bytes = reader.take(ROOT_BYTES, "root")?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let root = &mut Reader::new(bytes);
    let page = read_reference(root, blocks_total)?;
    let height = root.u32("height")?;
    root.expect_u32(0, "reserved field")?;
    let (item_count, item_bytes) = (root.u64("item count")?, root.u64("item bytes")?);
    let content_hash = root.u128("content hash")?;
    Ok(Some(RootReference { page, height, item_count, item_bytes, content_hash }))
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
