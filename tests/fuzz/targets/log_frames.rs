//! A frame of the log, and the records in it, as a damaged or foreign segment could hold them: refused, or read
//! to the end without harm.

#![no_main]

use evenkeel_storage::wal::{
    frame::{self, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION},
    record::{read_payload, read_record},
};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_128_with_seed;

const BLOCK_BYTES: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = 112..128;

/// The bytes as whole blocks that begin like a frame and have its checksum: that hides nothing from the fuzzer.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    bytes[4..6].copy_from_slice(&FRAME_VERSION.to_le_bytes());
    let length = bytes.len() as u32;
    bytes[44..48].copy_from_slice(&length.to_le_bytes());
    bytes[CHECKSUM].fill(0);
    let run = u64::from_le_bytes(bytes[32..40].try_into().expect("eight bytes"));
    let segment = u32::from_le_bytes(bytes[40..44].try_into().expect("four bytes"));
    let checksum = xxh3_128_with_seed(&bytes, frame::seed(run, segment));
    bytes[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fuzz_target!(|data: &[u8]| {
    let _ = frame::claim(data, usize::MAX);
    let _ = frame::open(data);
    let bytes = sealed(data);
    let Ok((header, _)) = frame::open(&bytes) else { return };
    let mut rest = &bytes[FRAME_HEADER_BYTES..][..header.records_bytes as usize];
    while let Ok((record, taken)) = read_record(rest) {
        let _ = read_payload(record.payload);
        rest = &rest[taken..];
    }
});
