//! What a read costs the device.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use evenkeel_model::{Slot, limits::STORED_ITEM_BYTES_MAX};
use evenkeel_storage::{
    EngineConfig, Runtime,
    limits::{FRAME_BYTES_MAX, SEGMENT_BYTES_MIN},
    memory::{Faults, MemoryDisk, TestRuntime},
};
use std::{cell::Cell, rc::Rc};

const ITEMS: u64 = 400;

fn key(number: u64) -> String {
    format!("key {number:05}")
}

/// An engine with a tree of some levels, freshly opened: nothing is in its cache.
fn opened(
    config: &EngineConfig,
    images: impl Iterator<Item = Vec<u8>>,
) -> (TestRuntime, MemoryDisk, TestEngine) {
    let (runtime, disk) = (TestRuntime::new(1), MemoryDisk::faulty(Faults::default()));
    let (engine, _) = open(&runtime, &disk, config.clone()).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"")).unwrap();
    let mut slot = 0;
    for image in images {
        slot += 1;
        let durable = engine.append_next(P1, put(slot, &key(slot), &image)).unwrap();
        runtime.block_on(&disk, durable).unwrap();
    }
    engine.apply_to(P1, Slot(slot));
    runtime.block_on(&disk, engine.checkpoint(P1, &[])).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    runtime.block_on(&disk, engine.close()).unwrap();
    drop(engine);
    runtime.stop();
    let runtime = TestRuntime::new(2);
    let (engine, _) = open(&runtime, &disk, config.clone()).unwrap();
    (runtime, disk, engine)
}

#[test]
fn a_point_read_is_one_device_read_once_inner_pages_are_in_memory_and_shared_if_it_overlaps() {
    let mut config = config();
    // A few leaves at most: each read of another one goes to the device.
    config.pages.cache_bytes = 96 * 1024;
    let (runtime, disk, engine) = opened(&config, (0..ITEMS).map(|number| vec![number as u8; 1200]));
    let reads = || engine.pages().cache_counts().device_reads;
    let get = |number| {
        let found = runtime.block_on(&disk, engine.get(P1, key(number).as_bytes())).unwrap();
        assert!(found.is_some());
    };
    (1..=ITEMS).for_each(get);
    assert!(engine.pages().cache_counts().inner_pages > 2, "there are inner pages");
    let mut cold = 0;
    for number in (1..=ITEMS).map(|number| 1 + number * 173 % ITEMS) {
        let before = reads();
        get(number);
        assert!(reads() - before <= 1, "{} reads for item {number}", reads() - before);
        cold += reads() - before;
    }
    assert!(cold > ITEMS / 2, "{cold} reads went to the device");
    // Readers of one leaf at the same time.
    let before = reads();
    let found = Rc::new(Cell::new(0));
    for _ in 0..20 {
        let (engine, found) = (engine.clone(), Rc::clone(&found));
        runtime.spawn(async move {
            assert!(engine.get(P1, key(7).as_bytes()).await.unwrap().is_some());
            found.set(found.get() + 1);
        });
    }
    while found.get() < 20 {
        runtime.run_ready();
        runtime.move_on(&disk);
    }
    assert_eq!(reads() - before, 1);
    assert!(engine.pages().cache_counts().shared_reads >= 19);
}

#[test]
fn items_of_the_largest_size_go_through_log_table_and_tree() {
    let mut config = config();
    config.wal.segment_bytes = SEGMENT_BYTES_MIN;
    config.wal.wal_bytes_max = 8 * SEGMENT_BYTES_MIN;
    config.wal.frame_bytes_max = FRAME_BYTES_MAX;
    let sizes = [STORED_ITEM_BYTES_MAX, 10, STORED_ITEM_BYTES_MAX - 1, 400 * 1024];
    let (runtime, disk, engine) =
        opened(&config, sizes.iter().enumerate().map(|(at, bytes)| vec![at as u8; *bytes]));
    for (at, bytes) in sizes.iter().enumerate() {
        let key = key(at as u64 + 1);
        let found = runtime.block_on(&disk, engine.get(P1, key.as_bytes())).unwrap();
        assert_eq!(found.as_deref(), Some(&vec![at as u8; *bytes][..]));
    }
    let found = items(&runtime, &disk, &engine, P1);
    assert_eq!(found.iter().map(|(_, image)| image.len()).collect::<Vec<_>>(), sizes);
}
