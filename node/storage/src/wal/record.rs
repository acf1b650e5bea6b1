//! Records: what a frame holds. One entry of one partition, or the birth or end of a partition.
//!
//! ```text
//! offset  bytes  field
//!      0      8  partition
//!      8      4  generation
//!     12      2  kind                 1 entry, 2 partition created, 3 partition dropped
//!     14      2  flags, 0
//!     16      8  ballot: round
//!     24      4  ballot: replica
//!     28      4  payload bytes
//!     32      8  slot                 0 for a partition just created
//!     40      8  timestamp
//!     48     16  entry checksum
//!     64         payload, then zeros up to a multiple of 16
//! ```
//!
//! The payload of an entry is a list of operations; that of a created partition is its description;
//! that of a dropped one is empty.
//!
//! ```text
//! offset  bytes  field of an entry's payload
//!      0      4  number of operations
//!      4      4  0
//!      8         operations, one behind the other:
//!                   1  kind           1 put, 2 delete
//!                   1  0
//!                   2  key bytes
//!                   4  image bytes    0 for a delete
//!                      key, then image
//! ```
//!
//! The entry checksum is xxh3-128 over partition, generation, kind, slot, timestamp, the previous
//! record's checksum of the same partition (0 for a created one) and the payload. It chains the
//! records of a partition, and leaves out the ballot: an entry accepted again under a newer ballot
//! stays the same entry.

use super::frame::{u16_at, u32_at, u64_at, u128_at};
use crate::engine::Operation;
use evenkeel_model::{Ballot, Generation, PartitionId, Slot, Timestamp};
use std::rc::Rc;
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Records begin at multiples of this.
pub const RECORD_ALIGN_BYTES: usize = 16;
/// Bytes of an entry's payload before its operations.
pub const OPERATIONS_HEADER_BYTES: usize = 8;
/// Bytes of an operation before its key.
pub const OPERATION_HEADER_BYTES: usize = 8;

const CHECKSUM_AT: usize = 48;
const _: () = assert!(CHECKSUM_AT + size_of::<u128>() == RECORD_HEADER_BYTES);
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const _: () = assert!(super::frame::FRAME_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));

const OPERATION_PUT: u8 = 1;
const OPERATION_DELETE: u8 = 2;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An entry of a partition.
    Entry = 1,
    /// A partition was created.
    Created = 2,
    /// A partition was dropped.
    Dropped = 3,
}

/// The header of a record, its checksum and payload length aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The partition.
    pub partition: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// What the record is.
    pub kind: RecordKind,
    /// The ballot of an entry.
    pub ballot: Ballot,
    /// The slot of an entry; of a dropped partition, its last one.
    pub slot: Slot,
    /// The timestamp of an entry.
    pub timestamp: Timestamp,
}

/// A record in the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The header.
    pub header: RecordHeader,
    /// The checksum that chains the records of the partition.
    pub checksum: u128,
    /// The payload, without its padding.
    pub payload: &'a [u8],
}

/// Why bytes are not a record. The frame around them is whole, so a newer program wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// Which field.
    pub what: &'static str,
    /// Its value.
    pub found: u64,
}

/// Bytes of a record with a payload of `payload_bytes`, padding included.
pub const fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes.next_multiple_of(RECORD_ALIGN_BYTES)
}

/// Bytes of the payload of an entry.
pub fn operations_bytes(operations: &[Operation]) -> usize {
    let each = |operation: &Operation| {
        OPERATION_HEADER_BYTES
            + match operation {
                Operation::Put { key, image } => key.len() + image.len(),
                Operation::Delete { key } => key.len(),
            }
    };
    OPERATIONS_HEADER_BYTES + operations.iter().map(each).sum::<usize>()
}

/// The checksum that chains `payload` to the partition's previous record.
pub fn entry_checksum(header: &RecordHeader, previous: u128, payload: &[u8]) -> u128 {
    let mut fields = [0; 48];
    fields[0..8].copy_from_slice(&header.partition.0.to_le_bytes());
    fields[8..12].copy_from_slice(&header.generation.0.to_le_bytes());
    fields[12..14].copy_from_slice(&(header.kind as u16).to_le_bytes());
    fields[16..24].copy_from_slice(&header.slot.0.to_le_bytes());
    fields[24..32].copy_from_slice(&header.timestamp.0.to_le_bytes());
    fields[32..48].copy_from_slice(&previous.to_le_bytes());
    let mut hasher = Xxh3::new();
    hasher.update(&fields);
    hasher.update(payload);
    hasher.digest128()
}

/// Writes a record into `bytes`, which is exactly as long as [`record_bytes`] says, and returns its
/// checksum. `fill` writes the payload.
pub fn write_record(
    bytes: &mut [u8],
    header: &RecordHeader,
    previous: u128,
    payload_bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> u128 {
    assert_eq!(bytes.len(), record_bytes(payload_bytes), "a record fills the space made for it");
    let (head, rest) = bytes.split_at_mut(RECORD_HEADER_BYTES);
    let (payload, padding) = rest.split_at_mut(payload_bytes);
    fill(payload);
    padding.fill(0);
    let checksum = entry_checksum(header, previous, payload);
    let length = u32::try_from(payload_bytes).expect("a record fits into a frame, whose length is 32 bits");
    head[0..8].copy_from_slice(&header.partition.0.to_le_bytes());
    head[8..12].copy_from_slice(&header.generation.0.to_le_bytes());
    head[12..14].copy_from_slice(&(header.kind as u16).to_le_bytes());
    head[14..16].fill(0);
    head[16..24].copy_from_slice(&header.ballot.round.to_le_bytes());
    head[24..28].copy_from_slice(&header.ballot.replica.to_le_bytes());
    head[28..32].copy_from_slice(&length.to_le_bytes());
    head[32..40].copy_from_slice(&header.slot.0.to_le_bytes());
    head[40..48].copy_from_slice(&header.timestamp.0.to_le_bytes());
    head[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// Writes the payload of an entry into `bytes`, which is exactly as long as [`operations_bytes`] says.
pub fn write_operations(bytes: &mut [u8], operations: &[Operation]) {
    let count = u32::try_from(operations.len()).expect("an entry fits into a frame");
    bytes[0..4].copy_from_slice(&count.to_le_bytes());
    bytes[4..8].fill(0);
    let mut rest = &mut bytes[OPERATIONS_HEADER_BYTES..];
    for operation in operations {
        let (kind, key, image): (u8, &[u8], &[u8]) = match operation {
            Operation::Put { key, image } => (OPERATION_PUT, key, image),
            Operation::Delete { key } => (OPERATION_DELETE, key, &[]),
        };
        let key_bytes = u16::try_from(key.len()).expect("the engine refuses keys above the model's limit");
        let image_bytes = u32::try_from(image.len()).expect("an entry fits into a frame");
        let (head, behind) = rest.split_at_mut(OPERATION_HEADER_BYTES);
        head[0..2].copy_from_slice(&[kind, 0]);
        head[2..4].copy_from_slice(&key_bytes.to_le_bytes());
        head[4..8].copy_from_slice(&image_bytes.to_le_bytes());
        let (key_at, behind) = behind.split_at_mut(key.len());
        key_at.copy_from_slice(key);
        let (image_at, behind) = behind.split_at_mut(image.len());
        image_at.copy_from_slice(image);
        rest = behind;
    }
    assert!(rest.is_empty(), "an entry fills the space made for it");
}

/// The record at the beginning of `bytes`, and how many bytes it takes with its padding.
pub fn read_record(bytes: &[u8]) -> Result<(RecordView<'_>, usize), RecordFault> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(RecordFault { what: "record length", found: bytes.len() as u64 });
    }
    let kind = match u16_at(bytes, 12) {
        1 => RecordKind::Entry,
        2 => RecordKind::Created,
        3 => RecordKind::Dropped,
        other => return Err(RecordFault { what: "record kind", found: other.into() }),
    };
    let flags = u16_at(bytes, 14);
    if flags != 0 {
        return Err(RecordFault { what: "record flag", found: flags.into() });
    }
    let payload_bytes = u32_at(bytes, 28) as usize;
    let total = record_bytes(payload_bytes);
    if total > bytes.len() {
        return Err(RecordFault { what: "payload length", found: payload_bytes as u64 });
    }
    let header = RecordHeader {
        partition: PartitionId(u64_at(bytes, 0)),
        generation: Generation(u32_at(bytes, 8)),
        kind,
        ballot: Ballot { round: u64_at(bytes, 16), replica: u32_at(bytes, 24) },
        slot: Slot(u64_at(bytes, 32)),
        timestamp: Timestamp(u64_at(bytes, 40)),
    };
    let payload = &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes];
    Ok((RecordView { header, checksum: u128_at(bytes, CHECKSUM_AT), payload }, total))
}

/// The operations in the payload of an entry.
pub fn read_operations(payload: &[u8]) -> Result<Vec<Operation>, RecordFault> {
    if payload.len() < OPERATIONS_HEADER_BYTES {
        return Err(RecordFault { what: "entry length", found: payload.len() as u64 });
    }
    let count = u32_at(payload, 0) as usize;
    let mut rest = &payload[OPERATIONS_HEADER_BYTES..];
    if count > rest.len() / OPERATION_HEADER_BYTES {
        return Err(RecordFault { what: "operation count", found: count as u64 });
    }
    let mut operations = Vec::with_capacity(count);
    for _ in 0..count {
        if rest.len() < OPERATION_HEADER_BYTES {
            return Err(RecordFault { what: "operation length", found: rest.len() as u64 });
        }
        let (head, behind) = rest.split_at(OPERATION_HEADER_BYTES);
        let key_bytes = usize::from(u16_at(head, 2));
        let image_bytes = u32_at(head, 4) as usize;
        if key_bytes + image_bytes > behind.len() {
            return Err(RecordFault { what: "operation length", found: (key_bytes + image_bytes) as u64 });
        }
        let (key, behind) = behind.split_at(key_bytes);
        let (image, behind) = behind.split_at(image_bytes);
        operations.push(match head[0] {
            OPERATION_PUT => Operation::Put { key: Rc::from(key), image: Rc::from(image) },
            OPERATION_DELETE => Operation::Delete { key: Rc::from(key) },
            other => return Err(RecordFault { what: "operation kind", found: other.into() }),
        });
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(RecordFault { what: "bytes behind the operations", found: rest.len() as u64 });
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: RecordKind) -> RecordHeader {
        RecordHeader {
            partition: PartitionId(0x0102030405060708),
            generation: Generation(0x11121314),
            kind,
            ballot: Ballot { round: 0x2122232425262728, replica: 0x31323334 },
            slot: Slot(0x4142434445464748),
            timestamp: Timestamp(0x5152535455565758),
        }
    }

    fn operations() -> Vec<Operation> {
        vec![
            Operation::Put { key: Rc::from(*b"key"), image: Rc::from(*b"image") },
            Operation::Delete { key: Rc::from(*b"gone") },
        ]
    }

    fn written(header: &RecordHeader, previous: u128, operations: &[Operation]) -> Vec<u8> {
        let payload_bytes = operations_bytes(operations);
        let mut bytes = vec![0xEE; record_bytes(payload_bytes)];
        write_record(&mut bytes, header, previous, payload_bytes, |payload| {
            write_operations(payload, operations)
        });
        bytes
    }

    #[test]
    fn the_bytes_of_an_entry_are_frozen() {
        let bytes = written(&header(RecordKind::Entry), 7, &operations());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0807060504030201141312110100000028272625242322213433323124000000\
             484746454443424158575655545352517a0800759f90f7b55a7d6783bff6beb6\
             02000000000000000100030005000000\
             6b6579696d6167650200040000000000\
             676f6e65000000000000000000000000"
        );
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let bytes = written(&header(RecordKind::Entry), 7, &operations());
        let (record, taken) = read_record(&bytes).unwrap();
        assert_eq!(taken, bytes.len());
        assert_eq!(record.header, header(RecordKind::Entry));
        assert_eq!(record.checksum, entry_checksum(&record.header, 7, record.payload));
        assert_eq!(read_operations(record.payload), Ok(operations()));
    }

    #[test]
    fn the_entry_checksum_covers_everything_but_the_ballot() {
        let base = entry_checksum(&header(RecordKind::Entry), 7, b"payload");
        let same = RecordHeader { ballot: Ballot { round: 1, replica: 1 }, ..header(RecordKind::Entry) };
        assert_eq!(entry_checksum(&same, 7, b"payload"), base);
        let entry = header(RecordKind::Entry);
        for (what, sum) in [
            (
                "partition",
                entry_checksum(&RecordHeader { partition: PartitionId(1), ..entry }, 7, b"payload"),
            ),
            (
                "generation",
                entry_checksum(&RecordHeader { generation: Generation(1), ..entry }, 7, b"payload"),
            ),
            ("kind", entry_checksum(&RecordHeader { kind: RecordKind::Created, ..entry }, 7, b"payload")),
            ("slot", entry_checksum(&RecordHeader { slot: Slot(1), ..entry }, 7, b"payload")),
            ("timestamp", entry_checksum(&RecordHeader { timestamp: Timestamp(1), ..entry }, 7, b"payload")),
            ("previous", entry_checksum(&entry, 8, b"payload")),
            ("payload", entry_checksum(&entry, 7, b"payloae")),
        ] {
            assert_ne!(sum, base, "{what}");
        }
    }

    #[test]
    fn an_unknown_kind_or_flag_is_named() {
        for (at, what) in [(12, "record kind"), (14, "record flag")] {
            let mut bytes = written(&header(RecordKind::Entry), 0, &operations());
            bytes[at] = 99;
            assert_eq!(read_record(&bytes), Err(RecordFault { what, found: 99 }));
        }
        let bytes = written(&header(RecordKind::Entry), 0, &operations());
        let mut payload = read_record(&bytes).unwrap().0.payload.to_vec();
        payload[OPERATIONS_HEADER_BYTES] = 77;
        assert_eq!(read_operations(&payload), Err(RecordFault { what: "operation kind", found: 77 }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_record(&bytes);
            let _ = read_operations(&bytes);
        }

        #[test]
        fn damaged_entries_never_panic(at in 0usize..112, value in any::<u8>(), cut in 0usize..112) {
            let mut bytes = written(&header(RecordKind::Entry), 0, &operations());
            bytes[at] = value;
            if let Ok((record, _)) = read_record(&bytes) {
                let _ = read_operations(record.payload);
            }
            let _ = read_record(&bytes[..cut]);
        }

        #[test]
        fn any_entry_survives_the_round_trip(
            list in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..40), prop::option::of(prop::collection::vec(any::<u8>(), 0..60))),
                0..8,
            )
        ) {
            let operations: Vec<Operation> = list
                .into_iter()
                .map(|(key, image)| match image {
                    Some(image) => Operation::Put { key: key.into(), image: image.into() },
                    None => Operation::Delete { key: key.into() },
                })
                .collect();
            let bytes = written(&header(RecordKind::Entry), 3, &operations);
            let (record, taken) = read_record(&bytes).unwrap();
            prop_assert_eq!(taken, bytes.len());
            prop_assert_eq!(read_operations(record.payload).unwrap(), operations);
        }
    }
}
