//! Splitting partitions, with power cuts at any point: there is the parent or there are both children, and
//! nothing is lost or doubled.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use evenkeel_model::{Generation, PartitionId, Slot};
use evenkeel_storage::{
    BLOCK_BYTES, Child, EngineConfig, PartitionError, Recovery, Refused, Runtime, SplitError,
    engine::inspect::inspect,
    memory::{Faults, MemoryDisk, Random, TestRuntime, seeds},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

const SEEDS: u64 = 150;
const LEFT: PartitionId = PartitionId(21);
const RIGHT: PartitionId = PartitionId(20);
const G2: Generation = Generation(2);

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Outcome = Rc<RefCell<Option<Result<(), SplitError>>>>;

struct World {
    random: Random,
    disk: MemoryDisk,
    runtime: TestRuntime,
    engine: TestEngine,
    model: Model,
    slot: u64,
}

/// Each entry of these tests takes a frame.
fn roomy() -> EngineConfig {
    let mut config = config();
    config.wal.wal_bytes_max = 1024 * config.wal.segment_bytes;
    config
}

fn children() -> [Child<'static>; 2] {
    let child = |id, meta, state| Child { id, generation: G2, meta, state };
    [child(LEFT, &b"left"[..], &b"left knows"[..]), child(RIGHT, b"right", b"")]
}

fn key(number: u64) -> String {
    format!("key {number:05}")
}

impl World {
    fn new(seed: u64) -> World {
        let disk = MemoryDisk::faulty(Faults::crashes_only(seed));
        let runtime = TestRuntime::new(seed);
        let (engine, _) = open(&runtime, &disk, roomy()).unwrap();
        let random = Random::new(seed);
        let world = World { random, disk, runtime, engine, model: Model::new(), slot: 0 };
        world.run(world.engine.create_partition(P1, G1, b"parent")).unwrap();
        world
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(&self.disk, future)
    }

    /// Changes some items of the parent.
    fn change(&mut self, count: u64) {
        for _ in 0..count {
            self.slot += 1;
            let key = key(self.random.below(400));
            if self.random.once_in(5) {
                self.run(self.engine.append_next(P1, delete(self.slot, &key)).unwrap()).unwrap();
                self.model.remove(key.as_bytes());
            } else {
                let bytes = if self.random.once_in(40) { 9000 } else { self.random.below(400) };
                let image = vec![self.random.bits() as u8; bytes as usize];
                self.run(self.engine.append_next(P1, put(self.slot, &key, &image)).unwrap()).unwrap();
                self.model.insert(key.into_bytes(), image);
            }
        }
        self.engine.apply_to(P1, Slot(self.slot));
    }

    fn checkpoint(&self, id: PartitionId) {
        self.run(self.engine.checkpoint(id, b"parent knows")).unwrap();
        self.run(self.engine.flip()).unwrap();
    }

    fn split_key(&mut self) -> Vec<u8> {
        match self.random.below(8) {
            0 => b"a".to_vec(),
            1 => b"z".to_vec(),
            _ => key(self.random.below(400)).into_bytes(),
        }
    }

    /// Begins to split the parent.
    fn split(&self, at: &[u8]) -> Outcome {
        let (engine, at, outcome) = (self.engine.clone(), at.to_vec(), Outcome::default());
        let told = Rc::clone(&outcome);
        self.runtime.spawn(async move {
            let split = engine.split(P1, &at, children()).await;
            *told.borrow_mut() = Some(split);
        });
        outcome
    }

    fn reopen(&mut self) -> Recovery {
        self.disk = self.disk.power_off();
        self.runtime.stop();
        self.runtime = TestRuntime::new(self.random.bits());
        let (engine, recovery) = open(&self.runtime, &self.disk, roomy()).unwrap();
        self.engine = engine;
        recovery
    }

    fn items(&self, id: PartitionId) -> Items {
        items(&self.runtime, &self.disk, &self.engine, id)
    }

    /// Every page is whole and in its place, and no block is used by nothing.
    fn inspect(&self) {
        self.run(self.engine.close()).unwrap();
        let disk = self.disk.power_off();
        let runtime = TestRuntime::new(3);
        let found = runtime.block_on(&disk, inspect(disk.clone(), runtime.clone(), true, |_| ())).unwrap();
        assert_eq!(found.faults, Vec::<String>::new());
        let trees: u64 = found.catalogue.iter().map(|(_, walked)| walked.bytes / BLOCK_BYTES as u64).sum();
        let states = found.catalogue.iter().filter(|(row, _)| row.state.is_some()).count() as u64;
        let used = found.space.used_blocks;
        assert_eq!(used, trees + states + found.catalogue_blocks, "{:?}", found.space);
    }

    /// Both children hold their parts, and go on.
    fn check_children(&mut self, at: &[u8], recovery: &Recovery) {
        let ids: Vec<_> = recovery.partitions.iter().map(|found| found.id).collect();
        assert_eq!(ids, [RIGHT, LEFT]);
        for (child, found) in children().iter().rev().zip(&recovery.partitions) {
            assert_eq!((found.generation, &found.meta[..]), (child.generation, child.meta));
            assert_eq!(found.begun.as_deref().unwrap_or_default(), child.state);
            assert_eq!((found.last_slot, found.applied.slot), (Slot(self.slot), Slot(self.slot)));
        }
        let below = |key: &Vec<u8>| &key[..] < at;
        let (left, right): (Model, Model) = self.model.clone().into_iter().partition(|(key, _)| below(key));
        for (id, model) in [(LEFT, left), (RIGHT, right)] {
            assert_eq!(self.items(id), model.clone().into_iter().collect::<Items>());
            let count = self.engine.counts(id);
            assert_eq!(count.items, model.len() as u64, "the trees know what is below them");
        }
        // Each goes on in a log of its own.
        for (id, name) in [(LEFT, "b new"), (RIGHT, "y new")] {
            for slot in self.slot + 1..=self.slot + 3 {
                self.run(self.engine.append_next(id, put(slot, name, b"new")).unwrap()).unwrap();
            }
            self.engine.apply_to(id, Slot(self.slot + 3));
            assert_eq!(self.items(id).iter().filter(|(key, _)| key == name.as_bytes()).count(), 1);
        }
        let (left, right) = (self.items(LEFT), self.items(RIGHT));
        if self.random.once_in(2) {
            self.checkpoint(LEFT);
            self.checkpoint(RIGHT);
        }
        let recovery = self.reopen();
        assert_eq!(recovery.partitions.len(), 2);
        for id in [LEFT, RIGHT] {
            self.engine.apply_to(id, Slot(self.slot + 3));
        }
        assert_eq!((self.items(LEFT), self.items(RIGHT)), (left, right));
    }
}

#[test]
fn a_crash_leaves_the_parent_or_both_children() {
    let (mut parents, mut children) = (0, 0);
    let seeds = seeds(SEEDS);
    for seed in seeds.clone() {
        println!("seed={seed}");
        let mut world = World::new(seed);
        let count = world.random.below(500);
        world.change(count);
        world.checkpoint(P1);
        let more = [0, 10, 200][world.random.below(3) as usize];
        world.change(more);
        let at = world.split_key();
        let outcome = world.split(&at);
        for _ in 0..world.random.below(90) {
            world.runtime.run_ready();
            world.runtime.move_on(&world.disk);
        }
        let done = outcome.borrow().clone();
        assert!(done.is_none() || done == Some(Ok(())), "{done:?}");
        let recovery = world.reopen();
        if recovery.partitions.iter().any(|found| found.id == P1) {
            assert_eq!((recovery.partitions.len(), done), (1, None), "what was acknowledged stays");
            world.engine.apply_to(P1, Slot(world.slot));
            assert_eq!(world.items(P1), world.model.clone().into_iter().collect::<Items>());
            parents += 1;
            world.checkpoint(P1);
            let outcome = world.split(&at);
            while outcome.borrow().is_none() {
                world.runtime.run_ready();
                world.runtime.move_on(&world.disk);
            }
            assert_eq!(outcome.take(), Some(Ok(())));
            let recovery = world.reopen();
            world.check_children(&at, &recovery);
        } else {
            children += 1;
            world.check_children(&at, &recovery);
        }
        world.inspect();
    }
    if seeds.end - seeds.start >= SEEDS {
        assert!(parents > 20 && children > 20, "{parents} crashes before, {children} behind");
    }
}

#[test]
fn only_the_pages_on_the_way_to_the_key_are_written() {
    let mut world = World::new(1);
    world.change(3000);
    world.checkpoint(P1);
    let inspected = |world: &World| {
        let disk = world.disk.power_off();
        let runtime = TestRuntime::new(3);
        let found = runtime.block_on(&disk, inspect(disk.clone(), runtime.clone(), true, |_| ())).unwrap();
        let (row, walked) = found.catalogue[0].clone();
        (u64::from(row.root.unwrap().height) + 1, walked.leaves)
    };
    let (levels, leaves) = inspected(&world);
    assert!(levels > 1 && leaves > 20, "{levels} levels, {leaves} leaves");
    let before = world.engine.pages().write_counts().pages;
    let at = key(200).into_bytes();
    world.run(world.engine.split(P1, &at, children())).unwrap();
    // One of them is the state of a child.
    let written = world.engine.pages().write_counts().pages - before - 1;
    assert!(written <= 2 * levels, "{written} pages of {levels} levels");
    let recovery = world.reopen();
    world.check_children(&at, &recovery);
    world.inspect();
}

#[test]
fn what_is_not_settled_is_not_split_and_children_wait_for_the_flip() {
    let mut world = World::new(2);
    world.change(50);
    let at = key(100).into_bytes();
    let split = |world: &World| world.run(world.engine.split(P1, &at, children()));
    assert_eq!(split(&world), Err(SplitError::Unsettled { id: P1 }), "no flip has it");
    world.checkpoint(P1);
    let slot = world.slot + 1;
    world.run(world.engine.append_next(P1, put(slot, "pending", b"x")).unwrap()).unwrap();
    assert_eq!(split(&world), Err(SplitError::Unsettled { id: P1 }), "an entry is not applied");
    world.engine.apply_to(P1, Slot(slot));
    world.model.insert(b"pending".to_vec(), b"x".to_vec());
    world.slot = slot;
    world.run(world.engine.create_partition(LEFT, G1, b"")).unwrap();
    assert_eq!(split(&world), Err(SplitError::Exists { id: LEFT }));
    world.run(world.engine.drop_partition(LEFT, G1)).unwrap();
    let outcome = world.split(&at);
    let mut was_sealed = false;
    while outcome.borrow().is_none() {
        world.runtime.run_ready();
        if world.engine.generation(LEFT).is_some() && outcome.borrow().is_none() {
            was_sealed = true;
            let refused = world.engine.append_next(RIGHT, put(slot + 1, "z", b"x")).err();
            assert_eq!(refused, Some(Refused::Busy));
            let created = world.run(world.engine.create_partition(P1, G2, b""));
            assert_eq!(created, Err(PartitionError::Refused(Refused::Busy)));
        }
        world.runtime.move_on(&world.disk);
    }
    assert!(was_sealed, "the children were there before the flip was durable");
    assert_eq!(outcome.take(), Some(Ok(())));
    let recovery = world.reopen();
    world.check_children(&at, &recovery);
    world.inspect();
}

#[test]
fn a_partition_that_is_written_to_meanwhile_stays_whole() {
    let mut world = World::new(3);
    world.change(200);
    world.checkpoint(P1);
    let at = key(150).into_bytes();
    let outcome = world.split(&at);
    world.runtime.run_ready();
    world.slot += 1;
    let written = world.engine.append_next(P1, put(world.slot, "late", b"x")).unwrap();
    world.run(written).unwrap();
    world.model.insert(b"late".to_vec(), b"x".to_vec());
    while outcome.borrow().is_none() {
        world.runtime.run_ready();
        world.runtime.move_on(&world.disk);
    }
    assert_eq!(outcome.take(), Some(Err(SplitError::Changed { id: P1 })));
    let recovery = world.reopen();
    assert_eq!(recovery.partitions.len(), 1);
    world.engine.apply_to(P1, Slot(world.slot));
    assert_eq!(world.items(P1), world.model.clone().into_iter().collect::<Items>());
    world.checkpoint(P1);
    world.inspect();
}
