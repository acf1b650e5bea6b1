//! The frame: what every message travels in, on a stream or a datagram.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic, `EVKQ` |
//! | 4 | 2 | protocol version |
//! | 6 | 2 | kind of message |
//! | 8 | 8 | request id, chosen by the asker, unique on its stream |
//! | 16 | 8 | time left for the request in microseconds; 0 = none given |
//! | 24 | 4 | bytes of the body |
//! | 28 | 4 | flags, 0 |
//! | 32 | 8 | xxh3-64 over the header, this field as zero, seeding that over the body |
//! | 40 | 8 | reserved, 0 |
//! | 48 | … | body: an rkyv archive, its root at the end |
//!
//! All integers are little-endian. Time left is a span, not an instant: clocks of two machines differ.
//! Nothing of a body is read before its checksum was found right.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 48;
/// Largest body: a page of items at DynamoDB's page limit, in its worst archive, with keys.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The only protocol version so far; a handshake settles on one that both sides speak.
pub const PROTOCOL_VERSION: u16 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"EVKQ");
const CHECKSUM_AT: usize = 32;

const _: () = assert!(BODY_BYTES_MAX > evenkeel_model::limits::STORED_ITEM_BYTES_MAX + 64 * 1024);

/// What a frame says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Kind of message; see [`crate::Kind`].
    pub kind: u16,
    /// Chosen by the asker; the answer carries it back.
    pub request_id: u64,
    /// Time left for the request in microseconds; 0 if none was given.
    pub timeout_us: u64,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Checksum of header and body.
    pub checksum: u64,
}

/// A frame whose checksum was found right.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub header: FrameHeader,
    /// Its body, to be validated before it is read.
    pub body: Bytes,
}

/// Why bytes are not a frame. The stream they came on cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else than this protocol.
    #[error("frame begins with {found:#010x}, not with the magic {MAGIC:#010x}")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// A version this program does not speak.
    #[error("frame of protocol version {found}; this program speaks version {PROTOCOL_VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// A body over the limit.
    #[error("frame body of {found} bytes exceeds {BODY_BYTES_MAX} bytes")]
    TooLarge {
        /// The size found.
        found: u32,
    },
    /// A reserved field that is not zero.
    #[error("frame with reserved bits set; the sender speaks a later version")]
    Reserved,
    /// Bits changed on the way.
    #[error("frame checksum is {found:#018x}, expected {expected:#018x}")]
    Checksum {
        /// The checksum in the header.
        found: u64,
        /// The checksum of what arrived.
        expected: u64,
    },
}

fn checksum(header: &[u8; HEADER_BYTES], body: &[u8]) -> u64 {
    let mut cleared = *header;
    cleared[CHECKSUM_AT..CHECKSUM_AT + 8].fill(0);
    xxh3_64_with_seed(body, xxh3_64(&cleared))
}

/// Writes the header into the first [`HEADER_BYTES`] of `frame`, whose rest is the body.
///
/// # Panics
/// If the body exceeds [`BODY_BYTES_MAX`]: senders keep their own limits.
pub fn seal(frame: &mut [u8], kind: u16, request_id: u64, timeout_us: u64) {
    let (head, body) = frame.split_at_mut(HEADER_BYTES);
    assert!(body.len() <= BODY_BYTES_MAX, "a body of {} bytes exceeds the limit", body.len());
    let mut header = [0u8; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    header[6..8].copy_from_slice(&kind.to_le_bytes());
    header[8..16].copy_from_slice(&request_id.to_le_bytes());
    header[16..24].copy_from_slice(&timeout_us.to_le_bytes());
    header[24..28].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = checksum(&header, body);
    header[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
    head.copy_from_slice(&header);
}

/// Reads a header, so that a reader knows how many bytes of body follow. The checksum is checked by
/// [`open`], when the body is there.
///
/// # Errors
/// Everything that can be told without the body.
pub fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if u32_at(0) != MAGIC {
        return Err(FrameError::Magic { found: u32_at(0) });
    }
    if u16_at(4) != PROTOCOL_VERSION {
        return Err(FrameError::Version { found: u16_at(4) });
    }
    if u32_at(24) as usize > BODY_BYTES_MAX {
        return Err(FrameError::TooLarge { found: u32_at(24) });
    }
    if u32_at(28) != 0 || u64_at(40) != 0 {
        return Err(FrameError::Reserved);
    }
    Ok(FrameHeader {
        kind: u16_at(6),
        request_id: u64_at(8),
        timeout_us: u64_at(16),
        body_bytes: u32_at(24),
        checksum: u64_at(CHECKSUM_AT),
    })
}

/// Opens a whole frame, header and body, and checks it.
///
/// # Errors
/// See [`FrameError`].
///
/// # Panics
/// If `bytes` is not exactly the header and the body it announces; the reader of the stream cut it.
pub fn open(bytes: Bytes) -> Result<Frame, FrameError> {
    let head: &[u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().expect("as many bytes as a header has");
    let header = parse_header(head)?;
    let body = bytes.slice(HEADER_BYTES..);
    assert_eq!(body.len(), header.body_bytes as usize, "the reader cut the frame by its header");
    let expected = checksum(head, &body);
    if header.checksum != expected {
        return Err(FrameError::Checksum { found: header.checksum, expected });
    }
    Ok(Frame { header, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::hex::Hex;

    fn sealed() -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(b"body");
        seal(&mut frame, 3, 77, 1_000_000);
        frame
    }

    #[test]
    fn the_frame_of_version_1_is_frozen() {
        assert_eq!(
            Hex(&sealed()).to_string(),
            "45564b51010003004d0000000000000040420f0000000000040000000000000057ea43f4c083635f0000000000000000626f6479"
        );
        let frame = open(sealed().into()).unwrap();
        assert_eq!((frame.header.kind, frame.header.request_id, frame.header.timeout_us), (3, 77, 1_000_000));
        assert_eq!(&frame.body[..], b"body");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = sealed();
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut flipped = frame.clone();
                flipped[at] ^= 1 << bit;
                let head: &[u8; HEADER_BYTES] = flipped[..HEADER_BYTES].try_into().unwrap();
                match parse_header(head) {
                    Ok(header) if header.body_bytes == 4 => {
                        assert!(open(flipped.into()).is_err(), "byte {at}")
                    }
                    Ok(_) => assert!((24..28).contains(&at), "byte {at}"),
                    Err(_) => {}
                }
            }
        }
    }
}
