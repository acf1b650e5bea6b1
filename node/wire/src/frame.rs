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
//!
//! The two sides of a connection greet each other in frames of [`GREETING_VERSION`], whose bytes never
//! change, and settle on the highest version that both speak. So a program of any version can tell one of
//! any other what is wrong.

use bytes::Bytes;
use std::ops::RangeInclusive;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 48;
/// Largest body: a page of items at DynamoDB's page limit, in its worst archive, with keys.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The highest protocol version that this program speaks, and the one it writes.
pub const PROTOCOL_VERSION: u16 = 2;
/// The lowest one.
pub const PROTOCOL_VERSION_MIN: u16 = 2;
/// The version of the frames in which two programs find out which one they share, for ever.
pub const GREETING_VERSION: u16 = 1;

/// The kinds of those frames: hello, welcome and refusal.
const GREETINGS: [u16; 3] = [0x0001, 0x8001, 0xFFFF];

const MAGIC: u32 = u32::from_le_bytes(*b"EVKQ");
const CHECKSUM_AT: usize = 32;

const _: () = assert!(PROTOCOL_VERSION_MIN <= PROTOCOL_VERSION);
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
    #[error(
        "frame of protocol version {found}; \
         this program speaks versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}"
    )]
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
    /// Something else than one whole frame.
    #[error("{found} bytes are not one whole frame")]
    Length {
        /// Bytes found.
        found: usize,
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

/// The highest version that both sides speak, if there is one.
pub fn common_version(own: RangeInclusive<u16>, theirs: RangeInclusive<u16>) -> Option<u16> {
    let highest = *own.end().min(theirs.end());
    (highest >= *own.start().max(theirs.start())).then_some(highest)
}

/// The versions that this program speaks.
pub fn versions() -> RangeInclusive<u16> {
    PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION
}

/// The versions in which a frame of this kind may come.
fn versions_of(kind: u16) -> RangeInclusive<u16> {
    if GREETINGS.contains(&kind) { GREETING_VERSION..=GREETING_VERSION } else { versions() }
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
    header[4..6].copy_from_slice(&versions_of(kind).end().to_le_bytes());
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
    if !versions_of(u16_at(6)).contains(&u16_at(4)) {
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

/// Opens a frame that came by itself, and not on a stream, from which it would have been cut.
///
/// # Errors
/// See [`FrameError`].
pub fn open_whole(bytes: Bytes) -> Result<Frame, FrameError> {
    let length = FrameError::Length { found: bytes.len() };
    let head = bytes.first_chunk::<HEADER_BYTES>().ok_or(length)?;
    if parse_header(head)?.body_bytes as usize != bytes.len() - HEADER_BYTES {
        return Err(length);
    }
    open(bytes)
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
    fn the_frame_of_version_2_is_frozen() {
        assert_eq!(
            Hex(&sealed()).to_string(),
            "45564b51020003004d0000000000000040420f00000000000400000000000000bd8612eef76a59b00000000000000000626f6479"
        );
        let frame = open(sealed().into()).unwrap();
        assert_eq!((frame.header.kind, frame.header.request_id, frame.header.timeout_us), (3, 77, 1_000_000));
        assert_eq!(&frame.body[..], b"body");
    }

    #[test]
    fn greetings_keep_their_version_and_nothing_else_comes_in_it() {
        for kind in GREETINGS {
            let mut frame = vec![0; HEADER_BYTES];
            seal(&mut frame, kind, 1, 0);
            assert_eq!(frame[4..6], GREETING_VERSION.to_le_bytes(), "{kind:#x}");
            assert!(open(frame.into()).is_ok(), "{kind:#x}");
        }
        let mut frame = sealed();
        for (version, understood) in [(0, false), (1, false), (2, true), (3, false)] {
            frame[4..6].copy_from_slice(&u16::to_le_bytes(version));
            let header = parse_header(frame[..HEADER_BYTES].try_into().unwrap());
            assert_eq!(header.is_ok(), understood, "{version}");
            let error = header.err().map(|error| error.to_string()).unwrap_or_default();
            let expected =
                format!("frame of protocol version {version}; this program speaks versions 2 to 2");
            assert!(understood || error == expected, "{error}");
        }
    }

    #[test]
    fn two_programs_settle_on_the_highest_version_both_speak() {
        let cases =
            [(2..=2, 2..=2, Some(2)), (2..=4, 1..=3, Some(3)), (2..=4, 4..=9, Some(4)), (5..=6, 2..=4, None)];
        for (own, theirs, common) in cases {
            assert_eq!(common_version(own.clone(), theirs.clone()), common, "{own:?} {theirs:?}");
            assert_eq!(common_version(theirs.clone(), own.clone()), common, "{theirs:?} {own:?}");
        }
    }

    #[test]
    fn what_comes_by_itself_is_one_whole_frame() {
        let frame = sealed();
        assert_eq!(&open_whole(frame.clone().into()).unwrap().body[..], b"body");
        let longer = [&frame[..], b"x"].concat();
        for bytes in [&frame[..0], &frame[..HEADER_BYTES - 1], &frame[..frame.len() - 1], &longer[..]] {
            let refused = open_whole(Bytes::copy_from_slice(bytes)).err();
            assert_eq!(refused, Some(FrameError::Length { found: bytes.len() }));
        }
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
