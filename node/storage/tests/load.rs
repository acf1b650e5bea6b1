//! Bulk load: all of a partition is there, or nothing, whenever the power goes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use evenkeel_model::{Ballot, Slot, Timestamp};
use evenkeel_storage::{
    BLOCK_BYTES, KeyAndImage, LoadError, NewPartition, Position, Runtime,
    engine::inspect::inspect,
    memory::{Faults, MemoryDisk, Random, TestRuntime, seeds},
};
use std::{cell::RefCell, rc::Rc};

const SEEDS: u64 = 100;
const BASE: Position = Position { slot: Slot(700), checksum: 0xABCD };

fn partition() -> NewPartition<'static> {
    NewPartition {
        id: P1,
        generation: G1,
        meta: b"loaded",
        state: b"knows",
        base: BASE,
        timestamp: Timestamp(9000),
        promised: Ballot { round: 4, replica: 2 },
    }
}

fn content(random: &mut Random) -> Items {
    let count = [0, 1, 40, 900][random.below(4) as usize];
    let image = |random: &mut Random| {
        let bytes = if random.once_in(50) { 20_000 } else { random.below(300) };
        vec![random.bits() as u8; bytes as usize]
    };
    (0..count).map(|number| (format!("key {number:06}").into_bytes(), image(random))).collect()
}

/// Yields the items, giving others their turn now and then.
async fn load(engine: TestEngine, items: Items) -> Result<(), LoadError> {
    let mut items = items.into_iter();
    engine
        .load(partition(), async || -> Option<KeyAndImage> {
            let (key, image) = items.next()?;
            Some((Rc::from(key), Rc::from(image)))
        })
        .await
}

#[test]
fn a_crash_while_it_is_loaded_leaves_nothing_and_behind_it_all() {
    let (mut absent, mut present) = (0, 0);
    let seeds = seeds(SEEDS);
    for seed in seeds.clone() {
        println!("seed={seed}");
        let mut random = Random::new(seed);
        let disk = MemoryDisk::faulty(Faults::crashes_only(seed));
        let runtime = TestRuntime::new(seed);
        let (engine, _) = open(&runtime, &disk, config()).unwrap();
        runtime.block_on(&disk, engine.create_partition(P2, G1, b"other")).unwrap();
        let items_loaded = content(&mut random);
        let outcome = Rc::new(RefCell::new(None));
        let (told, loading) = (Rc::clone(&outcome), load(engine.clone(), items_loaded.clone()));
        runtime.spawn(async move { *told.borrow_mut() = Some(loading.await) });
        for _ in 0..random.below(50) {
            runtime.run_ready();
            runtime.move_on(&disk);
        }
        let done = outcome.borrow().clone();
        assert!(done.is_none() || done == Some(Ok(())), "{done:?}");
        drop(engine);
        runtime.stop();
        let (disk, runtime) = (disk.power_off(), TestRuntime::new(seed + 1));
        let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
        let found = recovery.partitions.iter().find(|found| found.id == P1);
        if let Some(found) = found {
            present += 1;
            assert_eq!((&found.meta[..], found.begun.as_deref()), (&b"loaded"[..], Some(&b"knows"[..])));
            assert_eq!((found.applied, found.last_timestamp), (BASE, Timestamp(9000)));
            assert_eq!(found.promised, Ballot { round: 4, replica: 2 });
            assert_eq!(items(&runtime, &disk, &engine, P1), items_loaded);
        } else {
            absent += 1;
            assert_eq!(done, None, "what was acknowledged stays");
            runtime.block_on(&disk, load(engine.clone(), items_loaded.clone())).unwrap();
        }
        // Its log goes on behind its base.
        let next = BASE.slot.0 + 1;
        let written = engine.append_next(P1, put(next, "later", b"x")).unwrap();
        runtime.block_on(&disk, written).unwrap();
        runtime.block_on(&disk, engine.close()).unwrap();
        let (disk, runtime) = (disk.power_off(), TestRuntime::new(seed + 2));
        let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
        assert_eq!(recovery.partitions.len(), 2);
        engine.apply_to(P1, Slot(next));
        let all = items(&runtime, &disk, &engine, P1);
        assert!(all.len() == items_loaded.len() + 1 && all.ends_with(&[(b"later".to_vec(), b"x".to_vec())]));
        runtime.block_on(&disk, engine.close()).unwrap();
        check_files(&disk.power_off());
    }
    if seeds.end - seeds.start >= SEEDS {
        assert!(absent > 20 && present > 20, "{absent} crashes before, {present} behind");
    }
}

/// Every page is whole and in its place, and no block is used by nothing.
fn check_files(disk: &MemoryDisk) {
    let runtime = TestRuntime::new(3);
    let found = runtime.block_on(disk, inspect(disk.clone(), runtime.clone(), true, |_| ())).unwrap();
    assert_eq!(found.faults, Vec::<String>::new());
    let trees: u64 = found.catalogue.iter().map(|(_, walked)| walked.bytes / BLOCK_BYTES as u64).sum();
    let states = found.catalogue.iter().filter(|(row, _)| row.state.is_some()).count() as u64;
    assert_eq!(found.space.used_blocks, trees + states + found.catalogue_blocks);
}

#[test]
fn keys_out_of_order_and_ids_that_are_taken_are_refused_and_leave_nothing() {
    let (disk, runtime) = (MemoryDisk::automatic(), TestRuntime::new(1));
    let (engine, _) = open(&runtime, &disk, config()).unwrap();
    let pair = |key: &str| (key.as_bytes().to_vec(), vec![1; 9000]);
    for second in ["b", "a"] {
        let refused = runtime.block_on(&disk, load(engine.clone(), vec![pair("b"), pair(second)]));
        assert_eq!(refused, Err(LoadError::OutOfOrder { key: Rc::from(second.as_bytes()) }));
    }
    runtime.block_on(&disk, runtime.sleep(std::time::Duration::from_secs(1)));
    assert_eq!(engine.pages().used().used_blocks, engine.pages().catalogue_blocks());
    runtime.block_on(&disk, load(engine.clone(), vec![pair("a"), pair("b")])).unwrap();
    let again = runtime.block_on(&disk, load(engine.clone(), vec![pair("a")]));
    assert_eq!(again, Err(LoadError::Exists { id: P1 }));
}
