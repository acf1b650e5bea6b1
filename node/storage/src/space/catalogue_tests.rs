//! The catalogue's bytes: frozen, read back as written, and refused when they are anything else.

use super::*;
use proptest::prelude::*;

const BLOCKS: u64 = 4096;

fn partition(id: u64, meta: &[u8], root: bool) -> CataloguedPartition {
    let root = root.then_some(RootReference {
        page: PageReference {
            extent: Extent { first_block: 64 + id, blocks: 1 },
            checksum: 0x7172_7374_7576_7778,
        },
        height: 2,
        item_count: 0x8182_8384,
        item_bytes: 0x9192_9394_9596,
        content_hash: 0xA0A1_A2A3_A4A5_A6A7_A8A9_AAAB_ACAD_AEAF,
    });
    let state = root.map(|_| StateReference {
        page: PageReference {
            extent: Extent { first_block: 200 + id, blocks: 2 },
            checksum: 0xB1B2_B3B4_B5B6_B7B8,
        },
        bytes: 5000,
    });
    CataloguedPartition {
        id: PartitionId(id),
        generation: Generation(0x2122_2324),
        meta: Rc::from(meta),
        applied: Slot(0x3132_3334_3536_3738),
        state,
        promised: Ballot { round: 0x4142_4344_4546_4748, replica: 0x4950_5152 },
        timestamp: Timestamp(0x5152_5354_5556_5758),
        checksum: 0x6061_6263_6465_6667_6869_6A6B_6C6D_6E6F,
        log: LogPosition { segment: 0x1112_1314, frame: 0x0102_0304 },
        root,
    }
}

/// An allocator with a flip under way and three free runs.
fn extents() -> Extents {
    let mut free = ExtentSet::new();
    for run in [100..110, 300..700, 4000..BLOCKS] {
        free.insert(run);
    }
    let mut extents = Extents::new(BLOCKS, free, 6);
    extents.begin_flip();
    extents
}

fn catalogue() -> Catalogue {
    Catalogue {
        log_frame: 0xD8D7_D6D5_D4D3_D2D1,
        partitions: vec![partition(7, b"meta", true), partition(9, b"", false)],
    }
}

#[test]
fn the_bytes_of_version_2_are_frozen() {
    let bytes = catalogue().encode(7, &extents());
    let golden = "54434b45020000000700000000000000\
                  00100000000000000200000000000000\
                  d1d2d3d4d5d6d7d8\
                  07000000000000002423222104000000\
                  38373635343332314847464544434241\
                  52515049141312110403020100000000\
                  58575655545352516f6e6d6c6b6a6968\
                  67666564636261604700000000000000\
                  01000000000000007877767574737271\
                  02000000000000008483828100000000\
                  9695949392910000afaeadacabaaa9a8\
                  a7a6a5a4a3a2a1a0cf00000000000000\
                  0200000000000000b8b7b6b5b4b3b2b1\
                  8813000000000000\
                  6d657461\
                  09000000000000002423222100000000\
                  38373635343332314847464544434241\
                  52515049141312110403020100000000\
                  58575655545352516f6e6d6c6b6a6968\
                  6766656463626160\
                  00000000000000000000000000000000\
                  00000000000000000000000000000000\
                  00000000000000000000000000000000\
                  00000000000000000000000000000000\
                  00000000000000000000000000000000\
                  00000000000000000000000000000000\
                  03640abe019003e41960";
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
}

#[test]
fn a_catalogue_is_read_as_it_was_written_with_zeros_behind_it() {
    let mut bytes = catalogue().encode(7, &extents());
    bytes.resize(bytes.len() + 5000, 0);
    let decoded = Catalogue::decode(&bytes, 7, BLOCKS).unwrap();
    assert_eq!(decoded.catalogue, catalogue());
    assert_eq!(decoded.free.iter().collect::<Vec<_>>(), [100..110, 300..700, 4000..BLOCKS]);
    for (sequence, blocks) in [(8, BLOCKS), (7, BLOCKS + 1)] {
        assert!(Catalogue::decode(&bytes, sequence, blocks).is_err());
    }
    let last = bytes.len() - 1;
    bytes[last] = 1;
    assert_eq!(Catalogue::decode(&bytes, 7, BLOCKS).unwrap_err().what, "rest of the catalogue");
}

#[test]
fn a_catalogue_that_contradicts_itself_is_refused() {
    let good = catalogue().encode(7, &extents());
    let twice = {
        let mut bytes = good.clone();
        bytes[212] = 7;
        bytes
    };
    assert_eq!(Catalogue::decode(&twice, 7, BLOCKS).unwrap_err().what, "order of partitions");
    let mut rooted = partition(100, b"", true);
    rooted.root.as_mut().unwrap().page.extent.first_block = 105;
    let free_root = Catalogue { log_frame: 0, partitions: vec![rooted] }.encode(7, &extents());
    assert_eq!(Catalogue::decode(&free_root, 7, BLOCKS).unwrap_err().what, "free run");
    for length in 0..good.len() {
        assert!(Catalogue::decode(&good[..length], 7, BLOCKS).is_err(), "{length} bytes of it");
    }
}

prop_compose! {
    fn partitions()(
        partitions in prop::collection::vec((0u64..3000, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..12),
        log_frame in any::<u64>(),
    ) -> Catalogue {
        let by_id: std::collections::BTreeMap<_, _> = partitions
            .into_iter()
            .map(|(id, meta, root)| (id, partition(id, &meta, root)))
            .collect();
        Catalogue { log_frame, partitions: by_id.into_values().collect() }
    }
}

proptest! {
    #[test]
    fn any_catalogue_survives_the_round_trip(catalogue in partitions()) {
        let free = { let mut free = ExtentSet::new(); free.insert(3500..3600); free };
        let mut extents = Extents::new(BLOCKS, free.clone(), 6);
        extents.begin_flip();
        let bytes = catalogue.encode(7, &extents);
        prop_assert!(bytes.len() <= catalogue.encoded_bytes_max(extents.encoded_free_bytes_max(0)));
        prop_assert_eq!(Catalogue::decode(&bytes, 7, BLOCKS), Ok(DecodedCatalogue { catalogue, free }));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, head in any::<bool>()) {
        let mut all = if head { catalogue().encode(7, &extents())[..32].to_vec() } else { Vec::new() };
        all.extend(bytes);
        let _ = Catalogue::decode(&all, 7, BLOCKS);
    }

    #[test]
    fn flipped_bits_never_panic_and_what_is_still_read_is_what_is_written(
        flips in prop::collection::vec((0usize..320, 0u32..8), 1..4),
    ) {
        let mut bytes = catalogue().encode(7, &extents());
        for (at, bit) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        if let Ok(decoded) = Catalogue::decode(&bytes, 7, BLOCKS) {
            // Nothing is ignored: another reading has another writing.
            let mut extents = Extents::new(BLOCKS, decoded.free, 6);
            extents.begin_flip();
            prop_assert_eq!(decoded.catalogue.encode(7, &extents), bytes);
        }
    }
}
