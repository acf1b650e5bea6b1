//! What is kept, what is read again, and what is refused.

use super::*;
use crate::{
    disk::BLOCK_BYTES,
    memory::{CERTAIN_PPM, Faults, MemoryDisk, TestRuntime},
    space::Extent,
};
use std::{cell::Cell, future::Future};

const BLOCKS: u64 = 4096;
const PAGE_BYTES: u64 = page_cost(BLOCK_BYTES);

/// A disk with a different page in each block, and an empty cache for `pages` of them.
fn cache(pages: u64) -> (TestRuntime, MemoryDisk, PageCache<MemoryDisk>) {
    let disk = MemoryDisk::faulty(Faults::default());
    let content = (0..BLOCKS).flat_map(|block| block.to_le_bytes().repeat(BLOCK_BYTES / 8)).collect();
    disk.set_content(FileId::Pages, content);
    let cache = PageCache::new(disk.clone(), pages * PAGE_BYTES);
    (TestRuntime::new(1), disk, cache)
}

fn reference(block: u64) -> PageReference {
    PageReference {
        extent: Extent { first_block: block, blocks: 1 },
        checksum: checksum(&block.to_le_bytes().repeat(BLOCK_BYTES / 8)),
    }
}

fn read(
    (runtime, disk, cache): &(TestRuntime, MemoryDisk, PageCache<MemoryDisk>),
    block: u64,
    kind: PageKind,
) -> bool {
    let before = cache.counts().device_reads;
    let page = runtime.block_on(disk, cache.read(runtime, reference(block), kind)).unwrap();
    assert_eq!(page[..8], block.to_le_bytes());
    cache.counts().device_reads == before
}

#[test]
fn a_page_is_read_once_and_then_found_in_memory() {
    let world = cache(64);
    for kind in [PageKind::Inner, PageKind::Leaf] {
        let block = if kind == PageKind::Inner { 1 } else { 2 };
        assert!(!read(&world, block, kind));
        assert!(read(&world, block, kind));
    }
    let counts = world.2.counts();
    assert_eq!((counts.inner_hits, counts.inner_misses), (1, 1));
    assert_eq!((counts.leaf_hits, counts.leaf_misses), (1, 1));
    assert_eq!((counts.device_reads, counts.device_read_bytes), (2, 2 * BLOCK_BYTES as u64));
    assert_eq!((counts.inner_pages, counts.leaf_pages, counts.bytes), (1, 1, 2 * PAGE_BYTES));
    world.2.forget(0..10);
    assert!(!read(&world, 1, PageKind::Inner));
}

#[test]
fn reads_of_one_page_that_overlap_share_one_device_read_even_if_the_first_reader_leaves() {
    let (runtime, disk, cache) = cache(64);
    let done = Rc::new(Cell::new(0));
    let mut first = Box::pin(cache.read(&runtime, reference(5), PageKind::Leaf));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    for _ in 0..10 {
        let (runtime, cache, done) = (runtime.clone(), cache.clone(), Rc::clone(&done));
        runtime.clone().spawn(async move {
            cache.read(&runtime, reference(5), PageKind::Leaf).await.unwrap();
            done.set(done.get() + 1);
        });
    }
    runtime.run_ready();
    drop(first);
    assert_eq!((disk.operations_in_flight(), done.get()), (1, 0));
    assert!(disk.complete_oldest());
    runtime.run_ready();
    let counts = cache.counts();
    assert_eq!((done.get(), counts.device_reads, counts.shared_reads), (10, 1, 10));
    assert_eq!(counts.leaf_misses, 11);
}

#[test]
fn the_budget_holds_whatever_is_read() {
    let world = cache(100);
    for round in 0..3 {
        for block in 0..600 {
            let kind = if (block + round) % 3 == 0 { PageKind::Inner } else { PageKind::Leaf };
            read(&world, block * 3 + u64::from(kind == PageKind::Inner), kind);
            let counts = world.2.counts();
            assert!(counts.bytes <= 100 * PAGE_BYTES, "{counts:?}");
        }
    }
    assert!(world.2.counts().evictions > 1000);
}

#[test]
fn inner_pages_stay_while_leaves_come_and_go() {
    let world = cache(100);
    for block in 0..60 {
        read(&world, block, PageKind::Inner);
    }
    for block in 1000..3000 {
        read(&world, block, PageKind::Leaf);
    }
    assert!((0..60).all(|block| read(&world, block, PageKind::Inner)));
    let counts = world.2.counts();
    assert!(counts.inner_pages == 60 && counts.leaf_pages > 25, "{counts:?}");
    for block in 100..200 {
        read(&world, block, PageKind::Inner);
    }
    let counts = world.2.counts();
    assert!(counts.inner_pages > 85 && counts.leaf_pages >= 4, "leaves keep a little: {counts:?}");
}

#[test]
fn a_scan_does_not_push_out_the_leaves_that_are_read_again_and_again() {
    let world = cache(128);
    for _ in 0..5 {
        for block in 0..60 {
            read(&world, block, PageKind::Leaf);
        }
    }
    for block in 1000..3000 {
        read(&world, block, PageKind::Leaf);
    }
    let kept = (0..60).filter(|block| read(&world, *block, PageKind::Leaf)).count();
    assert!(kept >= 55, "{kept} of 60 were kept");
}

#[test]
fn a_page_of_the_same_blocks_that_was_replaced_is_not_mistaken_for_the_new_one() {
    let (runtime, disk, cache) = cache(64);
    runtime.block_on(&disk, cache.read(&runtime, reference(9), PageKind::Leaf)).unwrap();
    let mut content = disk.content(FileId::Pages);
    content[9 * BLOCK_BYTES..10 * BLOCK_BYTES].fill(7);
    disk.set_content(FileId::Pages, content);
    let new = PageReference { checksum: checksum(&[7; BLOCK_BYTES]), ..reference(9) };
    let page = runtime.block_on(&disk, cache.read(&runtime, new, PageKind::Leaf)).unwrap();
    assert!(page.iter().all(|byte| *byte == 7));
    let old = runtime.block_on(&disk, cache.read(&runtime, reference(9), PageKind::Leaf));
    assert!(matches!(old, Err(PageError::Corrupt { block: 9, .. })));
}

#[test]
fn a_bad_page_is_reported_with_place_and_checksums_counted_and_never_kept() {
    let (runtime, disk, cache) = cache(64);
    let good = reference(9);
    disk.rot(FileId::Pages, 9 * BLOCK_BYTES as u64 + 77, 3);
    let found = checksum(&disk.content(FileId::Pages)[9 * BLOCK_BYTES..10 * BLOCK_BYTES]);
    let expected =
        PageError::Corrupt { file: FileId::Pages, block: 9, blocks: 1, expected: good.checksum, found };
    for _ in 0..2 {
        let read = runtime.block_on(&disk, cache.read(&runtime, good, PageKind::Leaf));
        assert_eq!(read.err(), Some(expected.clone()));
    }
    assert_eq!((cache.counts().corrupt_pages, cache.counts().leaf_pages), (2, 0));
    assert!(runtime.block_on(&disk, cache.read(&runtime, reference(10), PageKind::Leaf)).is_ok());
    disk.set_faults(Faults { read_error_ppm: CERTAIN_PPM, ..Faults::default() });
    let failed = runtime.block_on(&disk, cache.read(&runtime, reference(11), PageKind::Leaf));
    assert!(matches!(failed, Err(PageError::Disk(error)) if error.operation == "read"));
    disk.set_faults(Faults::default());
    assert!(runtime.block_on(&disk, cache.read(&runtime, reference(11), PageKind::Leaf)).is_ok());
}
