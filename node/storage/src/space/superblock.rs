//! The superblock: what the whole page file hangs on. The bytes of one copy, and nothing of where the
//! copies are.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic                0x45_4B_53_42, "BSKE" on disk
//!      4      2  format version       1
//!      6      2  flags                0
//!      8      4  key id               0: plain; any other is refused
//!     12      4  shard
//!     16     16  cluster
//!     32      4  node
//!     36      4  piece count          of the catalogue
//!     40      8  sequence             rises by one with each flip
//!     48      8  blocks total         length of the page file that the catalogue speaks of
//!     56      8  catalogue bytes      the rest of its last piece is zero
//!     64     16  reserved, zero
//!     80     16  checksum             xxh3-128 of the whole copy with this field zero
//!     96         pieces               of the catalogue, 24 bytes each; the rest is zero
//!                  0  8  first block
//!                  8  4  blocks
//!                 12  4  reserved, zero
//!                 16  8  checksum     xxh3-64 of the piece's blocks
//! ```
//!
//! All integers are little-endian. A copy is one block of 4096 bytes; the four copies of a flip are
//! equal to the last bit. A later version may change everything but magic, version and checksum.

use super::{
    Extent, HEAD_BLOCKS, PageReference,
    codec::{DecodeFault, Reader},
};
use crate::disk::BLOCK_BYTES;
use evenkeel_model::{ClusterId, NodeId};
use xxhash_rust::xxh3::xxh3_128;

/// The first four bytes of a copy.
pub const SUPERBLOCK_MAGIC: u32 = 0x454B_5342;
/// The version that this program writes and reads.
pub const SUPERBLOCK_VERSION: u16 = 1;
/// Most pieces that a catalogue may be in.
pub const PIECES_MAX: usize = 160;

const CHECKSUM_AT: usize = 80;
const PIECES_AT: usize = 96;
const PIECE_BYTES: usize = 24;
const _: () = assert!(CHECKSUM_AT + size_of::<u128>() == PIECES_AT);
const _: () = assert!(PIECES_AT + PIECES_MAX * PIECE_BYTES <= BLOCK_BYTES);

/// What a superblock says, magic, version and checksum aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The shard.
    pub shard: u32,
    /// Number of the flip.
    pub sequence: u64,
    /// Length of the page file in blocks.
    pub blocks_total: u64,
    /// Bytes of the catalogue.
    pub catalogue_bytes: u64,
    /// Where the catalogue is; empty only before the first flip.
    pub pieces: Vec<PageReference>,
}

/// Why bytes are not a copy of a superblock of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockFault {
    /// They do not begin like one.
    Absent,
    /// They begin like one and fail its checksum.
    Broken {
        /// The checksum in the copy.
        expected: u128,
        /// The checksum of its bytes.
        found: u128,
    },
    /// A whole copy in a format this program does not know.
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
}

impl From<DecodeFault> for SuperblockFault {
    fn from(fault: DecodeFault) -> Self {
        SuperblockFault::Unsupported { what: fault.what, found: fault.found }
    }
}

impl Superblock {
    /// Writes a copy into `copy`, one block.
    pub fn encode(&self, copy: &mut [u8]) {
        assert_eq!(copy.len(), BLOCK_BYTES, "a copy is one block");
        assert!(self.pieces.len() <= PIECES_MAX, "the pieces fit into a copy");
        copy.fill(0);
        let piece_count = self.pieces.len() as u32;
        put(copy, 0, SUPERBLOCK_MAGIC.to_le_bytes());
        put(copy, 4, SUPERBLOCK_VERSION.to_le_bytes());
        put(copy, 12, self.shard.to_le_bytes());
        put(copy, 16, self.cluster.0.to_le_bytes());
        put(copy, 32, self.node.0.to_le_bytes());
        put(copy, 36, piece_count.to_le_bytes());
        put(copy, 40, self.sequence.to_le_bytes());
        put(copy, 48, self.blocks_total.to_le_bytes());
        put(copy, 56, self.catalogue_bytes.to_le_bytes());
        for (piece, at) in self.pieces.iter().zip((PIECES_AT..).step_by(PIECE_BYTES)) {
            put(copy, at, piece.extent.first_block.to_le_bytes());
            put(copy, at + 8, piece.extent.blocks.to_le_bytes());
            put(copy, at + 16, piece.checksum.to_le_bytes());
        }
        let checksum = xxh3_128(copy);
        put(copy, CHECKSUM_AT, checksum.to_le_bytes());
    }

    /// Checks that `copy` is a whole superblock of this version and reads it.
    pub fn decode(copy: &[u8]) -> Result<Superblock, SuperblockFault> {
        assert_eq!(copy.len(), BLOCK_BYTES, "a copy is one block");
        if copy[..4] != SUPERBLOCK_MAGIC.to_le_bytes() {
            return Err(SuperblockFault::Absent);
        }
        let mut reader = Reader::new(&copy[CHECKSUM_AT..PIECES_AT]);
        let expected = reader.u128("checksum")?;
        let mut blank = [0; BLOCK_BYTES];
        blank.copy_from_slice(copy);
        blank[CHECKSUM_AT..PIECES_AT].fill(0);
        let found = xxh3_128(&blank);
        if expected != found {
            return Err(SuperblockFault::Broken { expected, found });
        }
        Ok(Superblock::fields(&mut Reader::new(&copy[4..]))?)
    }

    fn fields(reader: &mut Reader<'_>) -> Result<Superblock, DecodeFault> {
        reader.expect_u32(SUPERBLOCK_VERSION.into(), "format version or flag")?;
        reader.expect_u32(0, "key id")?;
        let shard = reader.u32("shard")?;
        let cluster = ClusterId(reader.u128("cluster")?);
        let node = NodeId(reader.u32("node")?);
        let piece_count = reader.u32("piece count")?;
        let sequence = reader.u64("sequence")?;
        let blocks_total = reader.u64("blocks total")?;
        let catalogue_bytes = reader.u64("catalogue bytes")?;
        if reader.u128("reserved field")? != 0 {
            return Err(reader.fault("reserved field", 1));
        }
        reader.u128("checksum")?;
        if piece_count as usize > PIECES_MAX {
            return Err(reader.fault("piece count", piece_count.into()));
        }
        let mut pieces = Vec::with_capacity(piece_count as usize);
        for _ in 0..piece_count {
            pieces.push(read_reference(reader, blocks_total)?);
        }
        reader.rest_is_zero("rest of the superblock")?;
        let room: u64 = pieces.iter().map(|piece| piece.extent.bytes() as u64).sum();
        if catalogue_bytes > room || (pieces.is_empty() && sequence > 0) {
            return Err(reader.fault("catalogue bytes", catalogue_bytes));
        }
        Ok(Superblock { cluster, node, shard, sequence, blocks_total, catalogue_bytes, pieces })
    }
}

/// Reads a reference of 24 bytes into a file of `blocks_total`.
pub(super) fn read_reference(
    reader: &mut Reader<'_>,
    blocks_total: u64,
) -> Result<PageReference, DecodeFault> {
    let first_block = reader.u64("first block")?;
    let blocks = reader.u32("block count")?;
    let end = first_block.checked_add(blocks.into()).filter(|end| *end <= blocks_total);
    if first_block < HEAD_BLOCKS || blocks == 0 || end.is_none() {
        return Err(reader.fault("place of a page", first_block));
    }
    reader.expect_u32(0, "reserved field")?;
    let checksum = reader.u64("checksum of a page")?;
    Ok(PageReference { extent: Extent { first_block, blocks }, checksum })
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn superblock(sequence: u64, pieces: usize) -> Superblock {
        let piece = |index| PageReference {
            extent: Extent { first_block: 0x1000 + index, blocks: 3 },
            checksum: 0x5152_5354_5556_5758 + index,
        };
        Superblock {
            cluster: ClusterId(0x000102030405060708090A0B0C0D0E0F),
            node: NodeId(0x61626364),
            shard: 0x0102,
            sequence,
            blocks_total: 0x4142_4344_4546,
            catalogue_bytes: pieces as u64 * 8192,
            pieces: (0..pieces as u64).map(piece).collect(),
        }
    }

    fn copy(superblock: &Superblock) -> Vec<u8> {
        let mut copy = vec![0xFF; BLOCK_BYTES];
        superblock.encode(&mut copy);
        copy
    }

    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let copy = copy(&superblock(0x3132333435363738, 2));
        let golden = "42534b45010000000000000002010000\
                      0f0e0d0c0b0a09080706050403020100\
                      64636261020000003837363534333231\
                      46454443424100000040000000000000\
                      00000000000000000000000000000000\
                      af596818f54686e7fe072a51bdcbaaa8\
                      00100000000000000300000000000000\
                      58575655545352510110000000000000\
                      03000000000000005957565554535251";
        let hex: String = copy[..144].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert!(copy[144..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_copy_is_read_as_it_was_written() {
        for pieces in [1, 2, PIECES_MAX] {
            let superblock = superblock(7, pieces);
            assert_eq!(Superblock::decode(&copy(&superblock)), Ok(superblock));
        }
        let first = Superblock { catalogue_bytes: 0, ..superblock(0, 0) };
        assert_eq!(Superblock::decode(&copy(&first)), Ok(first));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = copy(&superblock(7, 3));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_whole_copy_of_another_format_is_unsupported_not_broken() {
        for (at, value, what) in [
            (4, 2, "format version or flag"),
            (6, 1, "format version or flag"),
            (8, 1, "key id"),
            (36, 161, "piece count"),
            (36, 1, "rest of the superblock"),
            (64, 1, "reserved field"),
            (96, 0, "place of a page"),
            (108, 1, "reserved field"),
            (4000, 1, "rest of the superblock"),
        ] {
            let mut copy = copy(&superblock(7, 2));
            let width = if at == 96 { 8 } else { 1 };
            copy[at..at + width].fill(value);
            copy[CHECKSUM_AT..PIECES_AT].fill(0);
            let checksum = xxh3_128(&copy);
            put(&mut copy, CHECKSUM_AT, checksum.to_le_bytes());
            let fault = Superblock::decode(&copy).unwrap_err();
            assert!(
                matches!(fault, SuperblockFault::Unsupported { what: found, .. } if found == what),
                "{fault:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_fields_behind_a_right_checksum_never_panic(
            fields in prop::collection::vec(any::<u8>(), 1..200),
            at in 4usize..300,
        ) {
            let mut copy = copy(&superblock(7, 2));
            copy[at..at + fields.len()].copy_from_slice(&fields);
            copy[CHECKSUM_AT..PIECES_AT].fill(0);
            let checksum = xxh3_128(&copy);
            put(&mut copy, CHECKSUM_AT, checksum.to_le_bytes());
            if let Ok(read) = Superblock::decode(&copy) {
                let mut again = vec![0; BLOCK_BYTES];
                read.encode(&mut again);
                prop_assert_eq!(copy, again);
            }
        }
    }
}
