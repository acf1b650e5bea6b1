//! One run of the engine against a model that is a list.
//!
//! The model is the order in which records were appended. After a crash the engine must hold exactly
//! what the first `m` of them make, for some `m` that covers all that was acknowledged. `m` is looked
//! for; what does not match any `m` is a loss, a hole or an invention.

use crate::{
    common::*,
    facts::{Fact, Model, ModelPartition, learn, meta},
    sightings::Sightings,
    weather::{Weather, is_excused},
};
use evenkeel_model::{Generation, PartitionId, Slot};
use evenkeel_storage::{
    CheckpointError, EngineConfig, FileId, Mark, Mistake, OpenError, Operation, PartitionError, ReadError,
    RecoveredPartition, Recovery, Refused, Runtime, TreeError,
    memory::{Append, MemoryDisk, Random, TestRuntime},
    space::PageError,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

/// Operations of a run.
const STEPS: u64 = 500;
/// Crashes of a run, at least.
const CRASHES: u64 = 5;
/// Longer than an idle log takes to cover its last frame, and to write the covering one once more: the disk may have lost
/// both.
const COVERED_WITHIN: Duration = Duration::from_millis(1_100);
/// Those that are there now and then; two have room for what splits make.
pub const PARTITIONS: [PartitionId; 5] =
    [PartitionId(0), PartitionId(4), PartitionId(9), PartitionId(12), PartitionId(17)];

/// Why a run ended before its last step.
#[derive(Debug)]
pub enum End {
    /// Damage was found and reported, at opening: nothing can go on from there.
    Reported,
    /// What was promised does not hold.
    Broken(String),
}

pub fn broken(error: impl std::fmt::Display) -> End {
    End::Broken(error.to_string())
}

pub struct World {
    pub weather: Weather,
    mistakes: &'static [Mistake],
    seed: u64,
    pub random: Random,
    pub disk: MemoryDisk,
    pub runtime: TestRuntime,
    engine: Option<TestEngine>,
    /// What the log held when it was opened.
    base: Model,
    /// Everything appended since, in order.
    pub facts: Vec<Fact>,
    /// What all of it makes.
    pub newest: Model,
    /// How many of `facts` are acknowledged.
    pub acknowledged: Rc<RefCell<usize>>,
    pub applied: BTreeMap<PartitionId, Slot>,
    pins: Vec<(TestPinned, ModelPartition)>,
    /// Partitions that may have a tree.
    pub checkpointed: BTreeSet<PartitionId>,
    /// The log was full before its last frames were covered: damage to those is not noticed.
    is_uncovered: bool,
    /// The newest mark of each partition, with its life, until a merge has ended there.
    pub marks: BTreeMap<PartitionId, (Generation, Mark)>,
    /// Merges and flips that have ended well.
    merges: Rc<RefCell<(u64, u64)>>,
    generation: u32,
    pub sightings: Sightings,
}

fn configured(random: &mut Random) -> EngineConfig {
    let mut config = config();
    config.wal.wal_bytes_max = 7 * config.wal.segment_bytes;
    config.pages.cache_bytes = 16 * 1024;
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
    fn new(seed: u64, weather: Weather, mistakes: &'static [Mistake]) -> Self {
        let is_lying = weather == Weather::Lies;
        let calm = Weather::Calm.faults(seed);
        let disk = if is_lying { MemoryDisk::held() } else { MemoryDisk::faulty(calm) };
        World {
            weather,
            mistakes,
            seed,
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
            is_uncovered: false,
            marks: BTreeMap::new(),
            merges: Rc::default(),
            generation: 0,
            sightings: Sightings::default(),
        }
    }

    /// A failure that this weather explains; in any other it breaks the run.
    fn excuse(&mut self, error: &TreeError) -> Result<(), End> {
        let is_explained = match error {
            TreeError::Page(PageError::Disk(_)) => self.weather == Weather::Errors,
            TreeError::Page(PageError::Corrupt { .. }) => !self.disk.damage().is_empty(),
            _ => false,
        };
        if !is_explained {
            return Err(broken(error));
        }
        self.sightings.reads_refused += 1;
        Ok(())
    }

    /// Ends the run if damage is why the engine does not open, or cannot be read.
    fn end(&mut self, error: OpenError) -> End {
        match error {
            OpenError::Corrupt { .. } if !self.disk.damage().is_empty() => End::Reported,
            error => broken(error),
        }
    }

    pub fn engine(&self) -> TestEngine {
        self.engine.clone().expect("the engine is open")
    }

    fn open(&mut self) -> Result<(), End> {
        let config = configured(&mut self.random);
        self.disk.set_lying(self.weather == Weather::Lies);
        self.disk.set_faults(Weather::Calm.faults(self.seed));
        self.runtime.set_mistakes(self.mistakes);
        let opened = open(&self.runtime, &self.disk, config.clone());
        let (engine, recovery) = opened.map_err(|error| self.end(error))?;
        self.sightings.cuts += u64::from(recovery.cut.is_some());
        self.sightings.cuts_with_whole_frames +=
            u64::from(recovery.cut.as_ref().is_some_and(|cut| cut.frames_whole > 0));
        let found = match found(&self.runtime, &self.disk, &engine, &recovery) {
            Ok(found) => found,
            Err(ReadError::Tree(error)) => {
                self.excuse(&error)?;
                return Err(End::Reported);
            }
            Err(error) => return Err(broken(error)),
        };
        let mut model = self.base.clone();
        let is_lost = self.is_uncovered && !self.disk.damage().is_empty();
        let least = if is_lost { 0 } else { *self.acknowledged.borrow() };
        let (mut matching, mut lesser) = (None, None);
        for count in 0..=self.facts.len() {
            if model == found {
                let known = if count >= least { &mut matching } else { &mut lesser };
                *known = Some((count, model.clone()));
            }
            if let Some(fact) = self.facts.get(count) {
                learn(&mut model, fact);
            }
        }
        let Some((count, model)) = matching else {
            let lives = recovery.partitions.iter().map(|one| (one.id.0, one.generation.0, one.last_slot.0));
            return Err(End::Broken(format!(
                "what was found is not what any {least} to {} records make, but of {:?}: {:?} (id, generation, slot), \
                 cut {:?}, damage {:?}",
                self.facts.len(),
                lesser.map(|(count, _)| count),
                lives.collect::<Vec<_>>(),
                recovery.cut,
                self.disk.damage(),
            )));
        };
        self.sightings.lost_tail += u64::from(count < self.facts.len());
        self.applied = model.iter().map(|(id, partition)| (*id, partition.last_slot)).collect();
        self.newest = model.clone();
        self.base = model;
        self.is_uncovered = false;
        self.facts.clear();
        self.marks.clear();
        self.acknowledged = Rc::default();
        self.engine = Some(engine);
        self.disk.set_faults(self.weather.faults(self.seed));
        Ok(())
    }

    /// Takes note of a record in the log, and of its acknowledgement when that comes.
    pub fn learned<E: std::fmt::Debug>(
        &mut self,
        fact: Fact,
        durable: impl Future<Output = Result<(), E>> + 'static,
    ) {
        learn(&mut self.newest, &fact);
        self.facts.push(fact);
        let (count, acknowledged) = (self.facts.len(), Rc::clone(&self.acknowledged));
        let may_fail = self.weather == Weather::Errors;
        self.runtime.spawn(async move {
            match durable.await {
                Ok(()) => {
                    let mut known = acknowledged.borrow_mut();
                    *known = count.max(*known);
                }
                Err(error) => assert!(may_fail, "{error:?}"),
            }
        });
    }

    fn append(&mut self, id: PartitionId) {
        if self.is_stopped() {
            return;
        }
        let Some(partition) = self.newest.get(&id) else { return };
        let slot = partition.last_slot.next();
        let mut changes = Vec::new();
        for _ in 0..=self.random.below(3) {
            let key = format!("k{}", self.random.below(40)).into_bytes();
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
        if self.is_stopped() {
            return;
        }
        let present = self.newest.get(&id).map(|partition| partition.generation);
        let engine = self.engine();
        match present {
            None => {
                let generation = self.next_generation();
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

    /// No partition had this one before.
    pub fn next_generation(&mut self) -> Generation {
        self.generation += 1;
        Generation(self.generation)
    }

    /// What a partition holds, in its present life, once `slot` is applied.
    pub fn at_slot(&self, id: PartitionId, slot: Slot) -> ModelPartition {
        let generation = self.newest[&id].generation;
        let mut partition = self.base.get(&id).filter(|known| known.generation == generation).cloned();
        for fact in &self.facts {
            match (fact, &mut partition) {
                (Fact::Created(of, started), _) if *of == id && *started == generation => {
                    partition = Some(ModelPartition::new(generation));
                }
                (Fact::Made(_, made), _) => {
                    let this = made.iter().find(|(of, made)| *of == id && made.generation == generation);
                    partition = this.map(|(_, made)| made.clone()).or(partition);
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
    fn apply_and_compare(&mut self, id: PartitionId) -> Result<(), End> {
        self.compare_marks()?;
        let Some(partition) = self.newest.get(&id) else { return Ok(()) };
        let from = self.applied[&id];
        let to = Slot(from.0 + self.random.below(partition.last_slot.0 - from.0 + 1));
        let engine = self.engine();
        engine.apply_to(id, to);
        self.applied.insert(id, to);
        let model = self.at_slot(id, to);
        let expected: Items = model.items.clone().into_iter().collect();
        match try_items(&self.runtime, &self.disk, &engine, id) {
            Ok(items) if items == expected => {}
            Ok(_) => return Err(End::Broken(format!("partition {id} is not what was appended up to {to}"))),
            Err(ReadError::Tree(error)) => self.excuse(&error)?,
            Err(error) => return Err(broken(error)),
        }
        if !self.checkpointed.contains(&id) {
            // How much a table changes what a tree holds is an estimate.
            let sizes = expected.iter().map(|(_, image)| evenkeel_model::item::stored_item_bytes(image));
            let counts = engine.counts(id);
            assert_eq!((counts.items, counts.bytes), (expected.len() as u64, sizes.sum::<u64>()));
        }
        self.pin(id, model);
        Ok(())
    }

    fn pin(&mut self, id: PartitionId, model: ModelPartition) {
        if self.random.once_in(3)
            && let Ok(pinned) = self.engine().pin(id)
        {
            self.pins.push((pinned, model));
        }
    }

    /// What its owner knows of a partition at this moment.
    pub fn state(&self, id: PartitionId, generation: Generation) -> Vec<u8> {
        let mut state = meta(id, generation);
        state.extend(format!(" slot {}", self.applied[&id]).bytes());
        state
    }

    /// Begins a checkpoint, which goes on while other things happen.
    fn checkpoint(&mut self, id: PartitionId) {
        let Some(generation) = self.newest.get(&id).map(|partition| partition.generation) else { return };
        let state = self.state(id, generation);
        let merge = self.engine().checkpoint(id, &state);
        self.checkpointed.insert(id);
        let (merges, weather) = (Rc::clone(&self.merges), self.weather);
        self.runtime.spawn(async move {
            match merge.await {
                Ok(()) => merges.borrow_mut().0 += 1,
                Err(
                    CheckpointError::Gone { .. }
                    | CheckpointError::UnderWay { .. }
                    | CheckpointError::Pinned(_),
                ) => {}
                Err(error) => assert!(is_excused(weather, &error), "{error}"),
            }
        });
    }

    fn flip(&mut self) {
        let (engine, merges, weather) = (self.engine(), Rc::clone(&self.merges), self.weather);
        self.runtime.spawn(async move {
            match engine.flip().await {
                Ok(()) => merges.borrow_mut().1 += 1,
                Err(error) => assert!(is_excused(weather, &error), "{error}"),
            }
        });
    }

    fn unpin(&mut self) -> Result<(), End> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let index = self.random.below(self.pins.len() as u64) as usize;
        let (pinned, model) = self.pins.swap_remove(index);
        let page = match self.runtime.block_on(&self.disk, pinned.items_from(&[], usize::MAX)) {
            Ok(page) => page,
            Err(ReadError::Tree(error)) => return self.excuse(&error),
            Err(error) => return Err(broken(error)),
        };
        let found: Items = page.items.iter().map(|(key, image)| (key.to_vec(), image.to_vec())).collect();
        if found == model.items.into_iter().collect::<Items>() {
            return Ok(());
        }
        Err(End::Broken("what is pinned has changed".to_owned()))
    }

    /// Whether nothing can be written any more before the engine is opened again.
    pub fn is_stopped(&self) -> bool {
        let engine = self.engine();
        engine.log_failure().is_some() || engine.pages().failed().is_some()
    }

    fn complete_one(&mut self) {
        let flying = self.disk.in_flight();
        if !flying.is_empty() {
            self.disk.complete(flying[self.random.below(flying.len() as u64) as usize]);
        }
    }

    pub fn crash(&mut self) -> Result<(), End> {
        self.before_the_end();
        let manner = self.random.below(5);
        let mut random = self.random.clone();
        self.random.bits();
        let mut lands = |append: &Append, index: usize, count: usize| match manner {
            0 => false,
            1 => random.once_in(2),
            2 => index < append.submitted as usize * 7 % (count + 1),
            _ => append.submitted.is_multiple_of(2),
        };
        let is_killed = self.random.once_in(4);
        self.sightings.kills += u64::from(is_killed);
        self.sightings.crashes += 1;
        self.disk = match manner {
            _ if is_killed => self.disk.kill_process(&mut lands),
            4 => self.disk.power_off(),
            _ => self.disk.cut_power(&mut lands),
        };
        self.restart()
    }

    /// What is to be seen of an engine before it goes.
    fn before_the_end(&mut self) {
        if self.weather == Weather::Damage {
            // The last frame cannot be told from one that was never acknowledged; the one behind it says so.
            self.disk.set_faults(Weather::Calm.faults(self.seed));
            self.runtime.pass(&self.disk, COVERED_WITHIN);
        }
        let engine = self.engine();
        let statistics = engine.statistics();
        self.is_uncovered = statistics.frames_uncovered + statistics.writes_in_flight > 0;
        self.sightings.stopped += u64::from(self.is_stopped());
        self.sightings.all_files += u64::from(self.disk.file_ids().len() == 8);
        self.sightings.wraps += engine.statistics().segments_recycled;
        self.sightings.evictions += engine.pages().cache_counts().evictions;
        self.pins.clear();
    }

    fn restart(&mut self) -> Result<(), End> {
        self.engine = None;
        self.runtime.stop();
        self.runtime = TestRuntime::new(self.random.bits());
        self.open()
    }

    fn close(&mut self) -> Result<(), End> {
        self.before_the_end();
        let engine = self.engine();
        if self.is_stopped() || self.runtime.block_on(&self.disk, engine.close()).is_err() {
            if self.weather == Weather::Errors {
                return self.crash();
            }
            return Err(End::Broken("the log has stopped".to_owned()));
        }
        assert_eq!(*self.acknowledged.borrow(), self.facts.len(), "closing writes everything");
        let is_covered = engine.statistics().frames_uncovered == 0;
        drop(engine);
        self.disk = self.disk.cut_power(|_, _, _| false);
        self.sightings.clean_stops += 1;
        // On a disk that is damaged already nothing says which of the two was found.
        let is_to_be_damaged = is_covered && self.disk.damage().is_empty();
        for _ in 0..if is_to_be_damaged { 4 } else { 0 } {
            self.damage_one_byte()?;
        }
        self.restart()
    }

    /// Changes one byte of a log that was closed, on a copy: either it is reported, or nothing is lost.
    fn damage_one_byte(&mut self) -> Result<(), End> {
        let disk = self.disk.cut_power(|_, _, _| false);
        let files = disk.file_ids();
        let is_of_pages = self.random.once_in(2) && files.contains(&FileId::Pages);
        let file =
            if is_of_pages { FileId::Pages } else { files[self.random.below(files.len() as u64) as usize] };
        let mut bytes = disk.content(file);
        let mut at = 0;
        // Most of a file is zero and of no meaning.
        for _ in 0..16 {
            at = self.random.below(bytes.len() as u64) as usize;
            if bytes[at] != 0 {
                break;
            }
        }
        bytes[at] ^= 1 << self.random.below(8);
        disk.set_content(file, bytes);
        disk.set_faults(Weather::Calm.faults(self.seed));
        disk.set_lying(self.weather == Weather::Lies);
        let runtime = TestRuntime::new(1);
        runtime.set_mistakes(self.mistakes);
        match open(&runtime, &disk, config_of_recovery()) {
            Err(OpenError::Corrupt { .. }) => self.sightings.damage_reported += 1,
            Ok((engine, recovery)) => match found(&runtime, &disk, &engine, &recovery) {
                Ok(found) if found == self.newest => self.sightings.damage_harmless += 1,
                Err(ReadError::Tree(_)) => self.sightings.damage_reported += 1,
                _ => {
                    let gone = format!("byte {at} of {file} changed and what was acknowledged is gone");
                    return Err(End::Broken(gone));
                }
            },
            Err(error) => return Err(broken(error)),
        }
        runtime.stop();
        Ok(())
    }

    fn step(&mut self) -> Result<(), End> {
        if self.is_stopped() && self.random.once_in(8) {
            return self.crash();
        }
        if self.weather == Weather::Storm {
            let id = PARTITIONS[self.random.below(3) as usize];
            return self.step_in_storm(id);
        }
        let id = PARTITIONS[self.random.below(PARTITIONS.len() as u64) as usize];
        match self.random.below(52) {
            0 => (0..self.random.below(60)).for_each(|_| self.append(id)),
            1..=17 => self.append(id),
            18..=19 => self.create_or_drop(id),
            20..=23 => self.apply_and_compare(id)?,
            24 => self.unpin()?,
            25..=29 => self.runtime.run_ready(),
            30..=36 => self.complete_one(),
            37 => self.runtime.pass(&self.disk, Duration::from_millis(self.random.below(30))),
            38 => self.crash()?,
            39 => self.checkpoint(id),
            40 => self.flip(),
            45 if self.random.once_in(2) => self.split(id)?,
            45 if self.random.once_in(2) => self.load(id)?,
            45 => self.install(id)?,
            48..=50 => self.mark(id),
            46 => self.checkpoint(id),
            47 => self.flip(),
            41..=44 => drop(self.disk.complete_oldest()),
            _ if self.random.once_in(4) => self.close()?,
            _ => {}
        }
        Ok(())
    }

    fn step_in_storm(&mut self, id: PartitionId) -> Result<(), End> {
        match self.random.below(16) {
            0 if !self.newest.contains_key(&id) => self.create_or_drop(id),
            0..=7 => self.append(id),
            8..=11 => self.runtime.run_ready(),
            12..=14 => self.complete_one(),
            _ => {
                self.crash()?;
                if self.random.once_in(2) {
                    self.crash()?;
                }
            }
        }
        Ok(())
    }

    /// All steps, and as many crashes as there must be.
    fn play(&mut self) -> Result<(), End> {
        self.open()?;
        for _ in 0..STEPS {
            self.step()?;
        }
        while self.sightings.crashes < CRASHES {
            (0..20).try_for_each(|_| self.step())?;
            self.crash()?;
        }
        self.close()
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

/// One run; what it saw, unless what was promised does not hold.
pub fn run(seed: u64, weather: Weather, mistakes: &'static [Mistake]) -> Result<Sightings, String> {
    let mut world = World::new(seed, weather, mistakes);
    match world.play() {
        Ok(()) => {}
        Err(End::Reported) => world.sightings.reported += 1,
        Err(End::Broken(what)) => return Err(what),
    }
    world.runtime.stop();
    (world.sightings.merges, world.sightings.flips) = *world.merges.borrow();
    world.sightings.faults = world.disk.fault_counts();
    Ok(world.sightings)
}
