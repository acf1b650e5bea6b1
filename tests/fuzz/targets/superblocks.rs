//! Copies of the superblock as bytes whose checksum is right: refused, or written again to the last bit.

#![no_main]

use evenkeel_storage::space::superblock::{SUPERBLOCK_MAGIC, SUPERBLOCK_VERSION, Superblock};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_128;

const BLOCK_BYTES: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = 80..96;

fuzz_target!(|data: &[u8]| {
    let mut copy = data.to_vec();
    copy.resize(BLOCK_BYTES, 0);
    let _ = Superblock::decode(&copy);
    copy[0..4].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
    copy[4..6].copy_from_slice(&SUPERBLOCK_VERSION.to_le_bytes());
    copy[CHECKSUM].fill(0);
    let checksum = xxh3_128(&copy);
    copy[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    if let Ok(read) = Superblock::decode(&copy) {
        let mut again = vec![0; BLOCK_BYTES];
        read.encode(&mut again);
        assert!(copy == again);
    }
});
