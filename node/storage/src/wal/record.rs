//! Records: what a frame holds. An entry of a partition, what consensus promised about its log, or the birth or
//! end of a partition.
//!
//! ```text
//! offset  bytes  field
//!      0      8  partition
//!      8      4  generation
//!     12      1  kind                 1 entry, 2 partition created, 3 partition dropped, 4 promise,
//!                                     5 accepted again, 7 begin, 8 split
//!     13      1  flags                bit 0: the entry's note is the partition's state from here on;
//!                                    bit 1: the entry is written once more, so that its first record need not
//!                                    be kept
//!     14      2  lag                  of 1 and 5: how far behind its slot the log was known to be chosen;
//!                                     65535 for that far or farther. Else 0.
//!     16      8  ballot: round
//!     24      4  ballot: replica
//!     28      4  payload bytes
//!     32      8  slot                 0 for 2 and 4
//!     40      8  timestamp            of 7: the greatest before the slot
//!     48     16  entry checksum       0 for 4
//!     64         payload, then zeros up to a multiple of 16
//! ```
//!
//! The payload of an entry is a list of operations and a note; that of a created partition is its
//! description. A begin carries the partition's state: the log goes on behind its slot, and the partition is
//! without content there. The others carry nothing.
//!
//! A ballot is promised by every record that names it. *Accepted again* says that everything up to its
//! slot is accepted under its ballot; an entry says the same of all before it.
//!
//! ```text
//! offset  bytes  field of an entry's payload
//!      0      4  number of operations
//!      4      4  bytes of the note
//!      8         operations, one behind the other:
//!                   1  kind           1 put, 2 delete
//!                   1  0
//!                   2  key bytes
//!                   4  image bytes    0 for a delete
//!                      key, then image
//!                then the note
//! ```
//!
//! The entry checksum is xxh3-128 over partition, generation, bit 0 of the flags, slot, timestamp, the checksum of the
//! entry before (0 for the first) and the payload. It chains the entries of a partition, and leaves out
//! the ballot: an entry accepted again under a newer ballot stays the same entry.

use crate::bytes::{u16_at, u32_at, u64_at, u128_at};
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

/// The lag of a record that does not say up to where the log was chosen.
const LAG_UNKNOWN: u16 = u16::MAX;

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
    /// Nothing below the ballot is accepted from here on.
    Promise = 4,
    /// Everything up to the slot is accepted under the ballot.
    Accepted = 5,
    /// The log goes on behind the slot, without content.
    Begin = 7,
    /// A partition is split: with no catalogue that has it, everything before about it is of the past.
    Split = 8,
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
    /// Whether the note of an entry is the partition's state from here on.
    pub lasting: bool,
    /// Whether the entry is written once more.
    pub again: bool,
    /// The ballot of an entry or a promise.
    pub ballot: Ballot,
    /// The slot of an entry; of a partition that is dropped or split, its last one.
    pub slot: Slot,
    /// Up to where the log was known to be chosen, in an entry or an acceptance. A record may say less.
    pub chosen: Slot,
    /// The timestamp of an entry.
    pub timestamp: Timestamp,
}

/// A record in the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The header.
    pub header: RecordHeader,
    /// The checksum that chains the entries of the partition.
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
pub fn payload_bytes(operations: &[Operation], note: &[u8]) -> usize {
    let each = |operation: &Operation| {
        let (_, key, image) = operation_parts(operation);
        OPERATION_HEADER_BYTES + key.len() + image.len()
    };
    OPERATIONS_HEADER_BYTES + operations.iter().map(each).sum::<usize>() + note.len()
}

/// The checksum that chains an entry to the one before it. The payload is hashed as it will be written.
pub fn entry_checksum(header: &RecordHeader, previous: u128, operations: &[Operation], note: &[u8]) -> u128 {
    let mut hasher = chained(header, previous);
    hasher.update(&operations_header(operations, note));
    for operation in operations {
        let (_, key, image) = operation_parts(operation);
        hasher.update(&operation_header(operation));
        hasher.update(key);
        hasher.update(image);
    }
    hasher.update(note);
    hasher.digest128()
}

/// The checksum that chains the entry with this payload to the one before it.
pub fn stored_checksum(header: &RecordHeader, previous: u128, payload: &[u8]) -> u128 {
    let mut hasher = chained(header, previous);
    hasher.update(payload);
    hasher.digest128()
}

fn chained(header: &RecordHeader, previous: u128) -> Xxh3 {
    let mut fields = [0; 48];
    fields[0..8].copy_from_slice(&header.partition.0.to_le_bytes());
    fields[8..12].copy_from_slice(&header.generation.0.to_le_bytes());
    fields[12] = header.lasting.into();
    fields[16..24].copy_from_slice(&header.slot.0.to_le_bytes());
    fields[24..32].copy_from_slice(&header.timestamp.0.to_le_bytes());
    fields[32..48].copy_from_slice(&previous.to_le_bytes());
    let mut hasher = Xxh3::new();
    hasher.update(&fields);
    hasher
}

/// Writes a record into `bytes`, which is exactly as long as [`record_bytes`] says. `fill` writes the
/// payload.
pub fn write_record(
    bytes: &mut [u8],
    header: &RecordHeader,
    checksum: u128,
    payload_bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    assert_eq!(bytes.len(), record_bytes(payload_bytes), "a record fills the space made for it");
    let (head, rest) = bytes.split_at_mut(RECORD_HEADER_BYTES);
    let (payload, padding) = rest.split_at_mut(payload_bytes);
    fill(payload);
    padding.fill(0);
    let length = u32::try_from(payload_bytes).expect("a record fits into a frame, whose length is 32 bits");
    head[0..8].copy_from_slice(&header.partition.0.to_le_bytes());
    head[8..12].copy_from_slice(&header.generation.0.to_le_bytes());
    head[12] = header.kind as u8;
    head[13] = u8::from(header.lasting) | u8::from(header.again) << 1;
    head[14..16].copy_from_slice(&lag(header).to_le_bytes());
    head[16..24].copy_from_slice(&header.ballot.round.to_le_bytes());
    head[24..28].copy_from_slice(&header.ballot.replica.to_le_bytes());
    head[28..32].copy_from_slice(&length.to_le_bytes());
    head[32..40].copy_from_slice(&header.slot.0.to_le_bytes());
    head[40..48].copy_from_slice(&header.timestamp.0.to_le_bytes());
    head[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
}

fn lag(header: &RecordHeader) -> u16 {
    if !matches!(header.kind, RecordKind::Entry | RecordKind::Accepted) {
        return 0;
    }
    let lag = header.slot.0.checked_sub(header.chosen.0).expect("a record speaks of its slot and before");
    u16::try_from(lag).unwrap_or(LAG_UNKNOWN)
}

/// Writes the payload of an entry into `bytes`, which is exactly as long as [`payload_bytes`] says.
pub fn write_payload(bytes: &mut [u8], operations: &[Operation], note: &[u8]) {
    let mut rest = place(bytes, &operations_header(operations, note));
    for operation in operations {
        let (_, key, image) = operation_parts(operation);
        rest = place(rest, &operation_header(operation));
        rest = place(rest, key);
        rest = place(rest, image);
    }
    rest = place(rest, note);
    assert!(rest.is_empty(), "an entry fills the space made for it");
}

/// Copies `content` to the beginning of `bytes`; returns what is behind it.
fn place<'a>(bytes: &'a mut [u8], content: &[u8]) -> &'a mut [u8] {
    let (at, behind) = bytes.split_at_mut(content.len());
    at.copy_from_slice(content);
    behind
}

fn operations_header(operations: &[Operation], note: &[u8]) -> [u8; OPERATIONS_HEADER_BYTES] {
    let length = |of: usize| u32::try_from(of).expect("an entry fits into a frame").to_le_bytes();
    let mut header = [0; OPERATIONS_HEADER_BYTES];
    header[0..4].copy_from_slice(&length(operations.len()));
    header[4..8].copy_from_slice(&length(note.len()));
    header
}

fn operation_header(operation: &Operation) -> [u8; OPERATION_HEADER_BYTES] {
    let (kind, key, image) = operation_parts(operation);
    let key_bytes = u16::try_from(key.len()).expect("the engine refuses keys above the model's limit");
    let image_bytes = u32::try_from(image.len()).expect("an entry fits into a frame");
    let mut header = [0; OPERATION_HEADER_BYTES];
    header[0] = kind;
    header[2..4].copy_from_slice(&key_bytes.to_le_bytes());
    header[4..8].copy_from_slice(&image_bytes.to_le_bytes());
    header
}

fn operation_parts(operation: &Operation) -> (u8, &[u8], &[u8]) {
    match operation {
        Operation::Put { key, image } => (OPERATION_PUT, key, image),
        Operation::Delete { key } => (OPERATION_DELETE, key, &[]),
    }
}

/// The record at the beginning of `bytes`, and how many bytes it takes with its padding.
pub fn read_record(bytes: &[u8]) -> Result<(RecordView<'_>, usize), RecordFault> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(RecordFault { what: "record length", found: bytes.len() as u64 });
    }
    let kind = match bytes[12] {
        1 => RecordKind::Entry,
        2 => RecordKind::Created,
        3 => RecordKind::Dropped,
        4 => RecordKind::Promise,
        5 => RecordKind::Accepted,
        7 => RecordKind::Begin,
        8 => RecordKind::Split,
        other => return Err(RecordFault { what: "record kind", found: other.into() }),
    };
    let flags = bytes[13];
    if flags > 3 {
        return Err(RecordFault { what: "record flag", found: flags.into() });
    }
    let slot = Slot(u64_at(bytes, 32));
    let chosen = match (kind, u16_at(bytes, 14)) {
        (RecordKind::Entry | RecordKind::Accepted, lag) if lag != LAG_UNKNOWN => {
            Slot(slot.0.saturating_sub(lag.into()))
        }
        _ => Slot(0),
    };
    let payload_bytes = u32_at(bytes, 28) as usize;
    let total = record_bytes(payload_bytes);
    if total > bytes.len() {
        return Err(RecordFault { what: "payload length", found: payload_bytes as u64 });
    }
    let header = RecordHeader {
        partition: PartitionId(u64_at(bytes, 0)),
        generation: Generation(u32_at(bytes, 8)),
        kind,
        lasting: flags & 1 != 0,
        again: flags & 2 != 0,
        ballot: Ballot { round: u64_at(bytes, 16), replica: u32_at(bytes, 24) },
        slot,
        chosen,
        timestamp: Timestamp(u64_at(bytes, 40)),
    };
    let payload = &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes];
    Ok((RecordView { header, checksum: u128_at(bytes, CHECKSUM_AT), payload }, total))
}

/// The operations and the note in the payload of an entry.
pub fn read_payload(payload: &[u8]) -> Result<(Vec<Operation>, &[u8]), RecordFault> {
    if payload.len() < OPERATIONS_HEADER_BYTES {
        return Err(RecordFault { what: "entry length", found: payload.len() as u64 });
    }
    let count = u32_at(payload, 0) as usize;
    let note_bytes = u32_at(payload, 4) as usize;
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
    if rest.len() != note_bytes {
        return Err(RecordFault { what: "bytes behind the operations", found: rest.len() as u64 });
    }
    Ok((operations, rest))
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
            lasting: false,
            again: false,
            ballot: Ballot { round: 0x2122232425262728, replica: 0x31323334 },
            slot: Slot(0x4142434445464748),
            chosen: if kind == RecordKind::Entry { Slot(0x4142434445464743) } else { Slot(0) },
            timestamp: Timestamp(0x5152535455565758),
        }
    }

    fn operations() -> Vec<Operation> {
        vec![
            Operation::Put { key: Rc::from(*b"key"), image: Rc::from(*b"image") },
            Operation::Delete { key: Rc::from(*b"gone") },
        ]
    }

    const NOTE: &[u8] = b"note";

    fn written(header: &RecordHeader, previous: u128, operations: &[Operation]) -> Vec<u8> {
        let payload_bytes = payload_bytes(operations, NOTE);
        let mut bytes = vec![0xEE; record_bytes(payload_bytes)];
        let checksum = entry_checksum(header, previous, operations, NOTE);
        write_record(&mut bytes, header, checksum, payload_bytes, |payload| {
            write_payload(payload, operations, NOTE)
        });
        bytes
    }

    #[test]
    fn the_bytes_of_an_entry_are_frozen() {
        let bytes = written(&header(RecordKind::Entry), 7, &operations());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0807060504030201141312110100050028272625242322213433323128000000\
             48474645444342415857565554535251\
             255087a95be5a3071b5b7a15f4e1c1ae\
             02000000040000000100030005000000\
             6b6579696d6167650200040000000000\
             676f6e656e6f74650000000000000000"
        );
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let bytes = written(&header(RecordKind::Entry), 7, &operations());
        let (record, taken) = read_record(&bytes).unwrap();
        assert_eq!(taken, bytes.len());
        assert_eq!(record.header, header(RecordKind::Entry));
        assert_eq!(record.checksum, stored_checksum(&record.header, 7, record.payload));
        assert_eq!(read_payload(record.payload), Ok((operations(), NOTE)));
    }

    #[test]
    fn the_entry_checksum_covers_everything_but_the_ballot_and_what_was_chosen() {
        let base = stored_checksum(&header(RecordKind::Entry), 7, b"payload");
        let other = Ballot { round: 1, replica: 1 };
        let same = RecordHeader { ballot: other, chosen: Slot(0), again: true, ..header(RecordKind::Entry) };
        assert_eq!(stored_checksum(&same, 7, b"payload"), base);
        let entry = header(RecordKind::Entry);
        for (what, sum) in [
            (
                "partition",
                stored_checksum(&RecordHeader { partition: PartitionId(1), ..entry }, 7, b"payload"),
            ),
            (
                "generation",
                stored_checksum(&RecordHeader { generation: Generation(1), ..entry }, 7, b"payload"),
            ),
            ("lasting", stored_checksum(&RecordHeader { lasting: true, ..entry }, 7, b"payload")),
            ("slot", stored_checksum(&RecordHeader { slot: Slot(1), ..entry }, 7, b"payload")),
            ("timestamp", stored_checksum(&RecordHeader { timestamp: Timestamp(1), ..entry }, 7, b"payload")),
            ("previous", stored_checksum(&entry, 8, b"payload")),
            ("payload", stored_checksum(&entry, 7, b"payloae")),
        ] {
            assert_ne!(sum, base, "{what}");
        }
    }

    #[test]
    fn an_unknown_kind_or_flag_is_named() {
        for (at, what) in [(12, "record kind"), (13, "record flag")] {
            let mut bytes = written(&header(RecordKind::Entry), 0, &operations());
            bytes[at] = 99;
            assert_eq!(read_record(&bytes), Err(RecordFault { what, found: 99 }));
        }
        let bytes = written(&header(RecordKind::Entry), 0, &operations());
        let mut payload = read_record(&bytes).unwrap().0.payload.to_vec();
        payload[OPERATIONS_HEADER_BYTES] = 77;
        assert_eq!(read_payload(&payload), Err(RecordFault { what: "operation kind", found: 77 }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_record(&bytes);
            let _ = read_payload(&bytes);
        }

        #[test]
        fn damaged_entries_never_panic(at in 0usize..112, value in any::<u8>(), cut in 0usize..112) {
            let mut bytes = written(&header(RecordKind::Entry), 0, &operations());
            bytes[at] = value;
            if let Ok((record, _)) = read_record(&bytes) {
                let _ = read_payload(record.payload);
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
            prop_assert_eq!(read_payload(record.payload).unwrap(), (operations, NOTE));
        }
    }
}
