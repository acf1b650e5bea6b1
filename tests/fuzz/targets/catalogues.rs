//! Catalogues of a page file as bytes whose checksum is right: refused, or of one mind about every block.

#![no_main]

use evenkeel_storage::space::catalogue::{CATALOGUE_MAGIC, CATALOGUE_VERSION, Catalogue};
use libfuzzer_sys::fuzz_target;

const SEQUENCE: u64 = 7;

fuzz_target!(|data: &[u8]| {
    let _ = Catalogue::decode(data, SEQUENCE, 1 << 20);
    let Some((blocks_total, rest)) = data.split_first_chunk::<3>() else { return };
    let blocks_total = u64::from(blocks_total[0]) | u64::from(blocks_total[1]) << 8 | u64::from(blocks_total[2]) << 16;
    let mut bytes = Vec::new();
    bytes.extend(CATALOGUE_MAGIC.to_le_bytes());
    bytes.extend(CATALOGUE_VERSION.to_le_bytes());
    bytes.extend(SEQUENCE.to_le_bytes());
    bytes.extend(blocks_total.to_le_bytes());
    bytes.extend(rest);
    let Ok(decoded) = Catalogue::decode(&bytes, SEQUENCE, blocks_total) else { return };
    assert!(decoded.catalogue.partitions.windows(2).all(|pair| pair[0].id < pair[1].id));
    for root in decoded.catalogue.partitions.iter().filter_map(|partition| partition.root) {
        let extent = root.page.extent;
        assert!(extent.first_block + u64::from(extent.blocks) <= blocks_total);
        assert!(!decoded.free.overlaps(&extent.into()));
    }
});
