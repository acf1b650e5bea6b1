//! Frames: what one device write carries. The byte layout, its checksum, and nothing of its meaning.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic                0x45_4B_57_46, "FWKE" on disk
//!      4      2  format version       2
//!      6      2  flags                bit 0: first frame of a run; all others 0
//!      8      4  key id               0: plain; any other is refused
//!     12      4  shard
//!     16     16  cluster
//!     32      8  run                  drawn at random by each start
//!     40      4  segment              place of the segment in the log's order, never used twice
//!     44      4  frame bytes          all of the frame, a multiple of 4096
//!     48      8  frame sequence       rises by one from frame to frame, over runs too
//!     56      8  durable              highest sequence known durable when this frame was built
//!     64     16  previous checksum    of the frame with the sequence before; 0 before the first
//!     80      4  records bytes        behind the header; the rest of the frame is zero
//!     84      4  record count
//!     88      4  offset               of the frame in its segment
//!     92      4  oldest segment       those before it are released
//!     96      4  node
//!    100      4  reserved, zero
//!    104      8  flip                 last flip of the page file known durable
//!    112     16  checksum             xxh3-128 of the whole frame with this field zero
//!    128         records
//! ```
//!
//! All integers are little-endian. The checksum is seeded with [`seed`] of run and segment, so that
//! no frame of a segment's earlier life passes for one of its present life. A later version may
//! change everything but magic, version, run, segment, frame bytes and checksum: they let this
//! version tell a frame it does not know from a torn one.

use crate::{
    bytes::{u16_at, u32_at, u64_at, u128_at},
    disk::BLOCK_BYTES,
};
use evenkeel_model::{ClusterId, NodeId};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes of a frame before its records.
pub const FRAME_HEADER_BYTES: usize = 128;
/// The first four bytes of a frame.
pub const FRAME_MAGIC: u32 = 0x454B_5746;
/// The version that this program writes and reads.
pub const FRAME_VERSION: u16 = 2;
/// Flag of the first frame of a run.
pub const FLAG_RUN_START: u16 = 1;

const CHECKSUM_AT: usize = 112;
const _: () = assert!(CHECKSUM_AT + size_of::<u128>() == FRAME_HEADER_BYTES);
const _: () = assert!(FRAME_HEADER_BYTES < BLOCK_BYTES && BLOCK_BYTES.is_multiple_of(FRAME_HEADER_BYTES));

/// What the header of a frame says, magic, version and checksum aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// First frame of a run: the previous checksum names the last frame that recovery found whole.
    pub run_start: bool,
    /// The shard.
    pub shard: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The run, drawn at random by each start.
    pub run: u64,
    /// Place of the segment in the log's order.
    pub segment: u32,
    /// Bytes of the frame, padding included.
    pub frame_bytes: u32,
    /// Number of the frame in the log.
    pub sequence: u64,
    /// Highest sequence known durable when the frame was built.
    pub durable: u64,
    /// Checksum of the frame before.
    pub previous: u128,
    /// Bytes of records.
    pub records_bytes: u32,
    /// Number of records.
    pub record_count: u32,
    /// Offset of the frame in its segment.
    pub offset: u32,
    /// Oldest segment that is needed.
    pub oldest_segment: u32,
    /// The node.
    pub node: NodeId,
    /// The last flip of the page file known durable when the frame was built: a page file that holds an
    /// older one was lost.
    pub flip: u64,
}

/// Why bytes are not a frame of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// They do not begin like a frame, or its length is impossible.
    Absent,
    /// They begin like a frame and fail its checksum: torn, damaged, or left over.
    Broken {
        /// The checksum in the header.
        expected: u128,
        /// The checksum of the bytes.
        found: u128,
    },
    /// A whole frame, in a format this program does not know.
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
}

/// The seed of a frame's checksum.
pub fn seed(run: u64, segment: u32) -> u64 {
    run ^ u64::from(segment).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17)
}

/// Writes the header into `frame`, whose records and zeroed padding are in place, and returns the
/// frame's checksum. `frame` is exactly the frame.
pub fn seal(header: &FrameHeader, frame: &mut [u8]) -> u128 {
    assert_eq!(frame.len(), header.frame_bytes as usize, "a frame is sealed as it is written");
    assert!(frame.len().is_multiple_of(BLOCK_BYTES), "frames are whole blocks");
    assert!(
        FRAME_HEADER_BYTES + header.records_bytes as usize <= frame.len(),
        "records lie inside the frame"
    );
    put(frame, 0, FRAME_MAGIC.to_le_bytes());
    put(frame, 4, FRAME_VERSION.to_le_bytes());
    put(frame, 6, if header.run_start { FLAG_RUN_START } else { 0 }.to_le_bytes());
    put(frame, 8, 0u32.to_le_bytes());
    put(frame, 12, header.shard.to_le_bytes());
    put(frame, 16, header.cluster.0.to_le_bytes());
    put(frame, 32, header.run.to_le_bytes());
    put(frame, 40, header.segment.to_le_bytes());
    put(frame, 44, header.frame_bytes.to_le_bytes());
    put(frame, 48, header.sequence.to_le_bytes());
    put(frame, 56, header.durable.to_le_bytes());
    put(frame, 64, header.previous.to_le_bytes());
    put(frame, 80, header.records_bytes.to_le_bytes());
    put(frame, 84, header.record_count.to_le_bytes());
    put(frame, 88, header.offset.to_le_bytes());
    put(frame, 92, header.oldest_segment.to_le_bytes());
    put(frame, 96, header.node.0.to_le_bytes());
    put(frame, 100, [0; 4]);
    put(frame, 104, header.flip.to_le_bytes());
    put(frame, CHECKSUM_AT, [0; 16]);
    let checksum = xxh3_128_with_seed(frame, seed(header.run, header.segment));
    put(frame, CHECKSUM_AT, checksum.to_le_bytes());
    checksum
}

/// What the first block of a frame claims, before anything is checked: enough to read all of it, and
/// to tell cheaply that it cannot be the frame looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Bytes of the whole frame.
    pub frame_bytes: usize,
    /// The run.
    pub run: u64,
    /// The segment.
    pub segment: u32,
    /// Number of the frame in the log.
    pub sequence: u64,
    /// Highest sequence known durable.
    pub durable: u64,
    /// Offset in the segment.
    pub offset: u32,
}

/// Reads the claim of the frame that `block` begins with, if it begins with one that is at most
/// `frame_bytes_max` long. Nothing in it can be trusted before [`open`].
pub fn claim(block: &[u8], frame_bytes_max: usize) -> Option<Claim> {
    if block.len() < FRAME_HEADER_BYTES || u32_at(block, 0) != FRAME_MAGIC {
        return None;
    }
    let frame_bytes = u32_at(block, 44) as usize;
    let possible =
        frame_bytes != 0 && frame_bytes.is_multiple_of(BLOCK_BYTES) && frame_bytes <= frame_bytes_max;
    possible.then(|| Claim {
        frame_bytes,
        run: u64_at(block, 32),
        segment: u32_at(block, 40),
        sequence: u64_at(block, 48),
        durable: u64_at(block, 56),
        offset: u32_at(block, 88),
    })
}

/// Checks that `frame` is exactly one whole frame of this version, and returns its header and checksum.
pub fn open(frame: &[u8]) -> Result<(FrameHeader, u128), FrameFault> {
    let claimed = claim(frame, frame.len()).ok_or(FrameFault::Absent)?;
    if claimed.frame_bytes != frame.len() {
        return Err(FrameFault::Absent);
    }
    let expected = u128_at(frame, CHECKSUM_AT);
    let found = checksum(frame, seed(claimed.run, claimed.segment));
    if expected != found {
        return Err(FrameFault::Broken { expected, found });
    }
    let flags = u16_at(frame, 6);
    let records_bytes = u32_at(frame, 80);
    let room = (frame.len() - FRAME_HEADER_BYTES) as u64;
    for (what, value, known) in [
        ("format version", u64::from(u16_at(frame, 4)), u64::from(FRAME_VERSION)),
        ("key id", u64::from(u32_at(frame, 8)), 0),
        ("flag", u64::from(flags & !FLAG_RUN_START), 0),
        ("records length", u64::from(records_bytes), u64::from(records_bytes).min(room)),
    ] {
        if value != known {
            return Err(FrameFault::Unsupported { what, found: value });
        }
    }
    let header = FrameHeader {
        run_start: flags & FLAG_RUN_START != 0,
        shard: u32_at(frame, 12),
        cluster: ClusterId(u128_at(frame, 16)),
        run: claimed.run,
        segment: claimed.segment,
        frame_bytes: u32_at(frame, 44),
        sequence: claimed.sequence,
        durable: claimed.durable,
        previous: u128_at(frame, 64),
        records_bytes,
        record_count: u32_at(frame, 84),
        offset: claimed.offset,
        oldest_segment: u32_at(frame, 92),
        node: NodeId(u32_at(frame, 96)),
        flip: u64_at(frame, 104),
    };
    Ok((header, found))
}

/// The checksum of a frame as it is stored, its checksum field taken as zero. The first block is
/// copied to blank the field; frames of one block are the only ones hashed in one piece.
fn checksum(frame: &[u8], seed: u64) -> u128 {
    let mut first = [0; BLOCK_BYTES];
    first.copy_from_slice(&frame[..BLOCK_BYTES]);
    first[CHECKSUM_AT..FRAME_HEADER_BYTES].fill(0);
    if frame.len() == BLOCK_BYTES {
        return xxh3_128_with_seed(&first, seed);
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(seed);
    hasher.update(&first);
    hasher.update(&frame[BLOCK_BYTES..]);
    hasher.digest128()
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(frame_bytes: u32) -> FrameHeader {
        FrameHeader {
            run_start: true,
            shard: 0x0102,
            cluster: ClusterId(0x000102030405060708090A0B0C0D0E0F),
            run: 0x1112131415161718,
            segment: 0x21222324,
            frame_bytes,
            sequence: 0x3132333435363738,
            durable: 0x3132333435363736,
            previous: 0x404142434445464748494A4B4C4D4E4F,
            records_bytes: 16,
            record_count: 1,
            offset: 0x5000,
            oldest_segment: 7,
            node: NodeId(0x61626364),
            flip: 0x7172737475767778,
        }
    }

    #[test]
    fn the_bytes_of_version_2_are_frozen() {
        let mut frame = vec![0; BLOCK_BYTES];
        frame[128..144].copy_from_slice(b"sixteen bytes of");
        let checksum = seal(&header(4096), &mut frame);
        let golden = "46574b45020001000000000002010000\
                      0f0e0d0c0b0a09080706050403020100\
                      18171615141312112423222100100000\
                      38373635343332313637363534333231\
                      4f4e4d4c4b4a49484746454443424140\
                      10000000010000000050000007000000\
                      64636261000000007877767574737271";
        let hex: String = frame[..CHECKSUM_AT].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(format!("{checksum:032x}"), "69175dd278de5ba7eaee5a2585686840");
        assert_eq!(u128_at(&frame, CHECKSUM_AT), checksum);
        assert_eq!(open(&frame), Ok((header(4096), checksum)));
    }

    #[test]
    fn a_frame_of_many_blocks_opens_as_it_was_sealed() {
        let mut frame = vec![0xAB; 9 * BLOCK_BYTES];
        let checksum = seal(&header(9 * 4096), &mut frame);
        assert_eq!(open(&frame), Ok((header(9 * 4096), checksum)));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let mut frame = vec![0; BLOCK_BYTES];
        seal(&header(4096), &mut frame);
        for at in 0..frame.len() {
            frame[at] ^= 0x40;
            assert!(matches!(open(&frame), Err(FrameFault::Absent | FrameFault::Broken { .. })), "byte {at}");
            frame[at] ^= 0x40;
        }
    }

    #[test]
    fn a_whole_frame_of_another_format_is_unsupported_not_broken() {
        for (at, value, what) in
            [(4, 1, "format version"), (6, 2, "flag"), (8, 9, "key id"), (82, 1, "records length")]
        {
            let mut frame = vec![0; BLOCK_BYTES];
            seal(&header(4096), &mut frame);
            frame[at] = value;
            let checksum = checksum(&frame, seed(header(4096).run, header(4096).segment));
            put(&mut frame, CHECKSUM_AT, checksum.to_le_bytes());
            assert!(
                matches!(open(&frame), Err(FrameFault::Unsupported { what: found, .. }) if found == what)
            );
        }
    }

    #[test]
    fn a_frame_of_another_run_or_segment_has_another_checksum() {
        let sums = [(1, 1), (1, 2), (2, 1), (2, 2)]
            .map(|(run, segment)| checksum(&[0; BLOCK_BYTES], seed(run, segment)));
        for (index, sum) in sums.iter().enumerate() {
            assert!(!sums[..index].contains(sum));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000), length in any::<u32>()) {
            let _ = open(&bytes);
            let mut like = bytes;
            if like.len() >= FRAME_HEADER_BYTES {
                like[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
                like[44..48].copy_from_slice(&length.to_le_bytes());
                let _ = open(&like);
                let whole = like.len() / BLOCK_BYTES * BLOCK_BYTES;
                like[44..48].copy_from_slice(&(whole as u32).to_le_bytes());
                let _ = open(&like[..whole]);
            }
        }
    }
}
