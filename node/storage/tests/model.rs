//! Random operations, power cuts, kills and restarts against a model that is a list.
//!
//! The model is the order in which records were appended. After a crash the engine must hold exactly
//! what the first `m` of them make, for some `m` that covers all that was acknowledged. `m` is looked
//! for; what does not match any `m` is a loss, a hole or an invention.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::*;
use evenkeel_model::{Generation, PartitionId, Slot};
use evenkeel_storage::{
    CheckpointError, EngineConfig, OpenError, Operation, PartitionError, ReadError, RecoveredPartition,
    Recovery, Refused, Runtime,
    memory::{Append, Faults, MemoryDisk, Random, TestRuntime, seeds},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

const SEEDS: u64 = 2000;
const STEPS: u64 = 220;
const PARTITIONS: [PartitionId; 3] = [PartitionId(0), PartitionId(4), PartitionId(9)];

/// One record of the log.
#[derive(Clone, Debug)]
enum Fact {
    Created(PartitionId, Generation),
    Dropped(PartitionId),
    Appended(PartitionId, Vec<(Vec<u8>, Option<Vec<u8>>)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelPartition {
    generation: Generation,
    last_slot: Slot,
    items: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl ModelPartition {
    fn new(generation: Generation) -> Self {
        ModelPartition { generation, last_slot: Slot(0), items: BTreeMap::new() }
    }

    fn change(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        self.last_slot = self.last_slot.next();
        for (key, image) in changes {
            match image {
                Some(image) => drop(self.items.insert(key.clone(), image.clone())),
                None => drop(self.items.remove(key)),
            }
        }
    }
}

type Model = BTreeMap<PartitionId, ModelPartition>;

fn learn(model: &mut Model, fact: &Fact) {
    match fact {
        Fact::Created(id, generation) => {
            assert!(model.insert(*id, ModelPartition::new(*generation)).is_none());
        }
        Fact::Dropped(id) => assert!(model.remove(id).is_some()),
        Fact::Appended(id, changes) => model.get_mut(id).expect("the partition exists").change(changes),
    }
}

/// How often things happened; a test that never saw one of them proves little.
#[derive(Debug, Default)]
struct Sightings {
    cuts: u64,
    cuts_with_whole_frames: u64,
    kills: u64,
    recycled: u64,
    table_full: u64,
    log_full: u64,
    busy: u64,
    too_large: u64,
    above_share: u64,
    lost_tail: u64,
    clean: u64,
    damage_reported: u64,
    damage_harmless: u64,
    merges: u64,
    flips: u64,
}

struct World {
    random: Random,
    disk: MemoryDisk,
    runtime: TestRuntime,
    engine: Option<TestEngine>,
    /// What the log held when it was opened.
    base: Model,
    /// Everything appended since, in order.
    facts: Vec<Fact>,
    /// What all of it makes.
    newest: Model,
    /// How many of `facts` are acknowledged.
    acknowledged: Rc<RefCell<usize>>,
    applied: BTreeMap<PartitionId, Slot>,
    pins: Vec<(TestPinned, ModelPartition)>,
    /// Partitions that may have a tree.
    checkpointed: BTreeSet<PartitionId>,
    /// Merges and flips that have ended well.
    merges: Rc<RefCell<(u64, u64)>>,
    generation: u32,
    frames_seen: u64,
    sightings: Sightings,
}

fn configured(random: &mut Random) -> EngineConfig {
    let mut config = config();
    config.wal.wal_bytes_max = 7 * config.wal.segment_bytes;
    config.wal.writes_in_flight_max = if random.once_in(8) { 1 } else { 2 };
    config.table_bytes_max = if random.once_in(3) { 12_000 } else { 200_000 };
    config
}

/// Recovered entries are applied; budgets do not matter.
fn config_of_recovery() -> EngineConfig {
    let mut config = config();
    config.wal.wal_bytes_max = 7 * config.wal.segment_bytes;
    config
}

impl World {
    fn new(seed: u64, lying: bool) -> Self {
        let disk = if lying { MemoryDisk::held() } else { MemoryDisk::faulty(Faults::default()) };
        disk.set_lying(lying);
        World {
            random: Random::new(seed),
            disk,
            runtime: TestRuntime::new(seed),
            engine: None,
            base: Model::new(),
            facts: Vec::new(),
            newest: Model::new(),
            acknowledged: Rc::default(),
            applied: BTreeMap::new(),
            pins: Vec::new(),
            checkpointed: BTreeSet::new(),
            merges: Rc::default(),
            generation: 0,
            frames_seen: 0,
            sightings: Sightings::default(),
        }
    }

    fn engine(&self) -> TestEngine {
        self.engine.clone().expect("the engine is open")
    }

    fn open(&mut self, lying: bool) -> Result<(), String> {
        let config = configured(&mut self.random);
        self.disk.set_lying(lying);
        let (engine, recovery) =
            open(&self.runtime, &self.disk, config.clone()).map_err(|error| error.to_string())?;
        self.sightings.cuts += u64::from(recovery.cut.is_some());
        self.sightings.cuts_with_whole_frames +=
            u64::from(recovery.cut.as_ref().is_some_and(|cut| cut.frames_whole > 0));
        let found =
            found(&self.runtime, &self.disk, &engine, &recovery).map_err(|error| error.to_string())?;
        let mut model = self.base.clone();
        let least = *self.acknowledged.borrow();
        let mut matching = None;
        for count in 0..=self.facts.len() {
            if count >= least && model == found {
                matching = Some((count, model.clone()));
            }
            if let Some(fact) = self.facts.get(count) {
                learn(&mut model, fact);
            }
        }
        let Some((count, model)) = matching else {
            return Err(format!(
                "what was found is not what any {least} to {} records make: {:?}",
                self.facts.len(),
                recovery.partitions
            ));
        };
        self.sightings.lost_tail += u64::from(count < self.facts.len());
        self.applied = model.iter().map(|(id, partition)| (*id, partition.last_slot)).collect();
        self.newest = model.clone();
        self.base = model;
        self.facts.clear();
        self.acknowledged = Rc::default();
        self.frames_seen = 0;
        self.engine = Some(engine);
        Ok(())
    }

    /// Takes note of a record in the log, and of its acknowledgement when that comes.
    fn learned<E: std::fmt::Debug>(
        &mut self,
        fact: Fact,
        durable: impl Future<Output = Result<(), E>> + 'static,
    ) {
        learn(&mut self.newest, &fact);
        self.facts.push(fact);
        let (count, acknowledged) = (self.facts.len(), Rc::clone(&self.acknowledged));
        self.runtime.spawn(async move {
            durable.await.expect("this disk does not fail");
            let mut known = acknowledged.borrow_mut();
            *known = count.max(*known);
        });
    }

    fn append(&mut self, id: PartitionId) {
        let Some(partition) = self.newest.get(&id) else { return };
        let slot = partition.last_slot.next();
        let mut changes = Vec::new();
        for _ in 0..=self.random.below(3) {
            let key = format!("k{}", self.random.below(25)).into_bytes();
            let bytes = if self.random.once_in(15) { 9000 } else { self.random.below(600) };
            let image = (!self.random.once_in(4)).then(|| vec![self.random.bits() as u8; bytes as usize]);
            changes.push((key, image));
        }
        let operation = |(key, image): &(Vec<u8>, Option<Vec<u8>>)| match image {
            Some(image) => Operation::Put { key: Rc::from(&key[..]), image: Rc::from(&image[..]) },
            None => Operation::Delete { key: Rc::from(&key[..]) },
        };
        let mut entry = entry(slot.0, changes.iter().map(operation).collect());
        // What is applied while the log is read, and what later, makes no difference.
        entry.chosen = Slot(self.random.below(slot.0 + 1));
        match self.engine().append_next(id, entry) {
            Ok(durable) => self.learned(Fact::Appended(id, changes), durable),
            Err(Refused::Busy) => self.sightings.busy += 1,
            Err(Refused::LogFull { .. }) => self.sightings.log_full += 1,
            Err(Refused::TableFull { .. }) => {
                assert!(changes.iter().any(|(_, image)| image.is_some()), "deletes are always admitted");
                self.sightings.table_full += 1;
            }
            Err(Refused::AboveShare { .. }) => self.sightings.above_share += 1,
            Err(Refused::TooLarge { .. }) => self.sightings.too_large += 1,
        }
    }

    fn create_or_drop(&mut self, id: PartitionId) {
        let present = self.newest.get(&id).map(|partition| partition.generation);
        let engine = self.engine();
        match present {
            None => {
                self.generation += 1;
                let generation = Generation(self.generation);
                let future = engine.create_partition(id, generation, &meta(id, generation));
                if let Some(future) = not_refused(future) {
                    self.applied.insert(id, Slot(0));
                    self.learned(Fact::Created(id, generation), future);
                }
            }
            Some(generation) => {
                if let Some(future) = not_refused(engine.drop_partition(id, generation)) {
                    self.applied.remove(&id);
                    self.learned(Fact::Dropped(id), future);
                }
            }
        }
    }

    /// What a partition holds, in its present life, once `slot` is applied.
    fn at_slot(&self, id: PartitionId, slot: Slot) -> ModelPartition {
        let generation = self.newest[&id].generation;
        let mut partition = self.base.get(&id).filter(|known| known.generation == generation).cloned();
        for fact in &self.facts {
            match (fact, &mut partition) {
                (Fact::Created(of, started), _) if *of == id && *started == generation => {
                    partition = Some(ModelPartition::new(generation));
                }
                (Fact::Appended(of, changes), Some(partition)) if *of == id && partition.last_slot < slot => {
                    partition.change(changes);
                }
                _ => {}
            }
        }
        partition.expect("the partition exists")
    }

    /// Applies part of what was appended and compares everything that can be read.
    fn apply_and_compare(&mut self, id: PartitionId) {
        let Some(partition) = self.newest.get(&id) else { return };
        let from = self.applied[&id];
        let to = Slot(from.0 + self.random.below(partition.last_slot.0 - from.0 + 1));
        let engine = self.engine();
        engine.apply_to(id, to);
        self.applied.insert(id, to);
        let model = self.at_slot(id, to);
        let expected: Items = model.items.clone().into_iter().collect();
        assert_eq!(items(&self.runtime, &self.disk, &engine, id), expected);
        if self.checkpointed.contains(&id) {
            // How much a table changes what a tree holds is an estimate.
            return self.pin(id, model);
        }
        let bytes =
            expected.iter().map(|(_, image)| evenkeel_model::item::stored_item_bytes(image)).sum::<u64>();
        assert_eq!((engine.counts(id).items, engine.counts(id).bytes), (expected.len() as u64, bytes));
        self.pin(id, model);
    }

    fn pin(&mut self, id: PartitionId, model: ModelPartition) {
        if self.random.once_in(3)
            && let Ok(pinned) = self.engine().pin(id)
        {
            self.pins.push((pinned, model));
        }
    }

    /// Begins a checkpoint, which goes on while other things happen.
    fn checkpoint(&mut self, id: PartitionId) {
        let Some(generation) = self.newest.get(&id).map(|partition| partition.generation) else { return };
        let mut state = meta(id, generation);
        state.extend(format!(" slot {}", self.applied[&id]).bytes());
        let merge = self.engine().checkpoint(id, &state);
        self.checkpointed.insert(id);
        let merges = Rc::clone(&self.merges);
        self.runtime.spawn(async move {
            match merge.await {
                Ok(()) => merges.borrow_mut().0 += 1,
                Err(
                    CheckpointError::Gone { .. }
                    | CheckpointError::UnderWay { .. }
                    | CheckpointError::Pinned(_),
                ) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }

    fn flip(&mut self) {
        let (engine, merges) = (self.engine(), Rc::clone(&self.merges));
        self.runtime.spawn(async move {
            engine.flip().await.expect("this disk does not fail");
            merges.borrow_mut().1 += 1;
        });
    }

    fn unpin(&mut self) {
        if self.pins.is_empty() {
            return;
        }
        let index = self.random.below(self.pins.len() as u64) as usize;
        let (pinned, model) = self.pins.swap_remove(index);
        let page =
            self.runtime.block_on(&self.disk, pinned.items_from(&[], usize::MAX)).expect("pages are whole");
        let found: Items = page.items.iter().map(|(key, image)| (key.to_vec(), image.to_vec())).collect();
        assert_eq!(found, model.items.clone().into_iter().collect::<Items>());
    }

    fn complete_one(&mut self) {
        let flying = self.disk.in_flight();
        if !flying.is_empty() {
            self.disk.complete(flying[self.random.below(flying.len() as u64) as usize]);
        }
    }

    fn crash(&mut self, lying: bool) -> Result<(), String> {
        self.sightings.recycled += u64::from(self.disk.file_ids().len() == 7);
        self.pins.clear();
        let manner = self.random.below(4);
        let mut random = self.random.clone();
        self.random.bits();
        let mut lands = |append: &Append, index: usize, count: usize| match manner {
            0 => false,
            1 => random.once_in(2),
            2 => index < append.submitted as usize * 7 % (count + 1),
            _ => append.submitted.is_multiple_of(2),
        };
        let kill = self.random.once_in(4);
        self.sightings.kills += u64::from(kill);
        self.disk = if kill { self.disk.kill_process(&mut lands) } else { self.disk.cut_power(&mut lands) };
        self.restart(lying)
    }

    fn restart(&mut self, lying: bool) -> Result<(), String> {
        self.engine = None;
        self.runtime.stop();
        self.runtime = TestRuntime::new(self.random.bits());
        self.open(lying)
    }

    fn close(&mut self, lying: bool) -> Result<(), String> {
        let engine = self.engine();
        self.runtime.block_on(&self.disk, engine.close()).map_err(|error| error.to_string())?;
        assert_eq!(*self.acknowledged.borrow(), self.facts.len(), "closing writes everything");
        drop(engine);
        self.pins.clear();
        self.disk = self.disk.cut_power(|_, _, _| false);
        self.sightings.clean += 1;
        for _ in 0..4 {
            self.damage_one_byte(lying)?;
        }
        self.restart(lying)
    }

    /// Changes one byte of a log that was closed, on a copy: either it is reported, or nothing is lost.
    fn damage_one_byte(&mut self, lying: bool) -> Result<(), String> {
        let disk = self.disk.cut_power(|_, _, _| false);
        let files = disk.file_ids();
        let file = files[self.random.below(files.len() as u64) as usize];
        let mut bytes = disk.content(file);
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.random.below(8);
        disk.set_content(file, bytes);
        disk.set_lying(lying);
        let runtime = TestRuntime::new(1);
        match open(&runtime, &disk, config_of_recovery()) {
            Err(OpenError::Corrupt { .. }) => self.sightings.damage_reported += 1,
            Ok((engine, recovery)) => match found(&runtime, &disk, &engine, &recovery) {
                Ok(found) if found == self.newest => self.sightings.damage_harmless += 1,
                Err(ReadError::Tree(_)) => self.sightings.damage_reported += 1,
                _ => return Err(format!("byte {at} of {file} changed and what was acknowledged is gone")),
            },
            Err(error) => return Err(error.to_string()),
        }
        runtime.stop();
        Ok(())
    }

    fn step(&mut self, lying: bool) -> Result<(), String> {
        let id = PARTITIONS[self.random.below(3) as usize];
        match self.random.below(46) {
            0 => (0..self.random.below(60)).for_each(|_| self.append(id)),
            1..=17 => self.append(id),
            18..=19 => self.create_or_drop(id),
            20..=23 => self.apply_and_compare(id),
            24 => self.unpin(),
            25..=29 => self.runtime.run_ready(),
            30..=36 => self.complete_one(),
            37 => self.runtime.pass(&self.disk, Duration::from_millis(self.random.below(30))),
            38 => self.crash(lying)?,
            39 => self.checkpoint(id),
            40 => self.flip(),
            41..=44 => drop(self.disk.complete_oldest()),
            _ if self.random.once_in(4) => self.close(lying)?,
            _ => {}
        }
        Ok(())
    }
}

/// Everything an engine recovered.
fn found(
    runtime: &TestRuntime,
    disk: &MemoryDisk,
    engine: &TestEngine,
    recovery: &Recovery,
) -> Result<Model, ReadError> {
    let each = |partition: &RecoveredPartition| {
        let RecoveredPartition { id, generation, last_slot, .. } = *partition;
        assert_eq!(partition.meta, meta(id, generation));
        if let Some(state) = &partition.begun {
            assert!(state.starts_with(&meta(id, generation)), "a state of another partition");
        }
        engine.apply_to(id, last_slot);
        let items = try_items(runtime, disk, engine, id)?.into_iter().collect();
        Ok((id, ModelPartition { generation, last_slot, items }))
    };
    recovery.partitions.iter().map(each).collect()
}

fn meta(id: PartitionId, generation: Generation) -> Vec<u8> {
    format!("partition {id} generation {generation}").into_bytes()
}

/// The future of a record in the log, unless it was refused at once.
fn not_refused<F: Future<Output = Result<(), PartitionError>>>(
    future: F,
) -> Option<impl Future<Output = Result<(), PartitionError>>> {
    let mut future = Box::pin(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(Err(PartitionError::Refused(_))) => None,
        std::task::Poll::Ready(other) => panic!("{other:?}"),
        std::task::Poll::Pending => Some(future),
    }
}

fn run(seed: u64, lying: bool) -> Result<Sightings, String> {
    let mut world = World::new(seed, lying);
    world.open(lying)?;
    for _ in 0..STEPS {
        world.step(lying)?;
    }
    world.crash(lying)?;
    world.close(lying)?;
    (world.sightings.merges, world.sightings.flips) = *world.merges.borrow();
    Ok(world.sightings)
}

#[test]
fn random_operations_crashes_and_restarts_keep_to_the_model() {
    let mut all = Sightings::default();
    let seeds = seeds(SEEDS);
    for seed in seeds.clone() {
        println!("seed={seed}");
        let seen = run(seed, false).unwrap_or_else(|error| panic!("seed={seed}: {error}"));
        all.cuts += seen.cuts;
        all.cuts_with_whole_frames += seen.cuts_with_whole_frames;
        all.kills += seen.kills;
        all.recycled += seen.recycled;
        all.table_full += seen.table_full;
        all.log_full += seen.log_full;
        all.busy += seen.busy;
        all.too_large += seen.too_large;
        all.above_share += seen.above_share;
        all.lost_tail += seen.lost_tail;
        all.clean += seen.clean;
        all.damage_reported += seen.damage_reported;
        all.damage_harmless += seen.damage_harmless;
        all.merges += seen.merges;
        all.flips += seen.flips;
    }
    println!("{all:?}");
    if seeds.end - seeds.start >= SEEDS {
        for (what, count) in [
            ("cut", all.cuts),
            ("cut with whole frames behind it", all.cuts_with_whole_frames),
            ("kill", all.kills),
            ("all files in use", all.recycled),
            ("table full", all.table_full),
            ("log full", all.log_full),
            ("busy", all.busy),
            ("too large", all.too_large),
            ("above its share", all.above_share),
            ("lost tail", all.lost_tail),
            ("clean stop", all.clean),
            ("damage reported", all.damage_reported),
            ("damage harmless", all.damage_harmless),
            ("merge", all.merges),
            ("flip", all.flips),
        ] {
            assert!(count > 0, "no run saw: {what}");
        }
    }
}

#[test]
fn a_device_that_lies_about_its_flushes_is_caught_by_the_model() {
    let caught = (0..60).filter(|&seed| run(seed, true).is_err()).count();
    assert!(caught > 20, "{caught} of 60 seeds noticed");
}
