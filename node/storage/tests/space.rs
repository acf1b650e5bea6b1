//! The pages of a shard on a disk that fails, against a model of what every flip refers to.
//!
//! Merges of several partitions, a flipper and pinned readers run at the same time; the power goes, or
//! the process is killed, at any step. Whatever a durable flip refers to must be read back, whatever a
//! pin keeps must stay, and after reopening nothing may be used that the catalogue does not refer to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/mutant.rs"]
mod mutant;

use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp};
use evenkeel_storage::{
    BLOCK_BYTES, OpenError, Runtime,
    memory::{CERTAIN_PPM, DamageKind, FaultCounts, Faults, MemoryDisk, Random, TestRuntime, seeds},
    space::{
        Catalogue, CataloguedPartition, Extent, Finished, HEAD_BLOCKS, LogPosition, PageError, PageKind,
        PageReference, Pages, PagesConfig, RootReference, SpaceError,
    },
};
use mutant::{Mutant, Mutation};
use std::{cell::RefCell, collections::BTreeMap, ops::AddAssign, rc::Rc, time::Duration};

type TestPages = Pages<Mutant, TestRuntime>;

const PARTITIONS: u64 = 4;
const STEP_BYTES: u64 = 96 * BLOCK_BYTES as u64;

fn config() -> PagesConfig {
    PagesConfig {
        cluster: ClusterId(0xC1),
        node: NodeId(3),
        shard: ShardId(1),
        first_bytes: STEP_BYTES,
        step_bytes: STEP_BYTES,
        bytes_max: 8 * STEP_BYTES,
        cache_bytes: 24 * BLOCK_BYTES as u64,
    }
}

/// A tree of two levels: a root page that lists its leaves, each filled from its own number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree {
    root: PageReference,
    leaves: Vec<(PageReference, u64)>,
}

type Trees = BTreeMap<u64, Tree>;

fn leaf_bytes(number: u64, blocks: u32) -> Vec<u8> {
    let mut random = Random::new(number);
    (0..blocks as usize * BLOCK_BYTES / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

fn root_bytes(leaves: &[(PageReference, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (reference, number) in leaves {
        bytes.extend(reference.extent.first_block.to_le_bytes());
        bytes.extend(reference.checksum.to_le_bytes());
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    bytes
}

impl Tree {
    fn blocks(&self) -> u64 {
        let leaves = self.leaves.iter().map(|(reference, _)| u64::from(reference.extent.blocks));
        u64::from(self.root.extent.blocks) + leaves.sum::<u64>()
    }

    fn extents(&self) -> impl Iterator<Item = Extent> {
        self.leaves.iter().map(|(reference, _)| reference.extent).chain([self.root.extent])
    }
}

/// What happened, over all seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    flips: u64,
    crashes: u64,
    kept: u64,
    advanced: u64,
    healed: u64,
    aborted: u64,
    pinned_reads: u64,
    pinned_blocks: u64,
    full: u64,
    growths: u64,
    evictions: u64,
    shared_reads: u64,
    blocks_written: u64,
    refused_opens: u64,
    corrupt_reads: u64,
    failed: u64,
    stale_opens: u64,
}

#[derive(Default)]
struct Model {
    /// What readers see.
    current: Trees,
    /// What each flip that was begun refers to.
    flips: BTreeMap<u64, Trees>,
    durable: u64,
    finished: Vec<Finished<Mutant, TestRuntime>>,
    tally: Tally,
}

#[derive(Clone)]
struct World {
    pages: TestPages,
    mutant: Mutant,
    runtime: TestRuntime,
    random: Rc<RefCell<Random>>,
    model: Rc<RefCell<Model>>,
    rules: Rules,
}

/// How a run differs from what production does on a device that only crashes.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Without silent damage every read and every open must succeed.
    honest: bool,
    /// What the disk leaves out.
    mutation: Mutation,
    /// Readers take pins.
    pins: bool,
}

const CRASHES_ONLY: Rules = Rules { honest: true, mutation: Mutation::Nothing, pins: true };

impl World {
    fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().below(end)
    }

    async fn nap(&self) {
        let nap = self.below(30);
        self.runtime.sleep(Duration::from_micros(nap)).await;
    }

    /// Rewrites a part of one partition's tree, again and again; sometimes gives up half-way.
    async fn merge_for_ever(self, partition: u64) {
        loop {
            self.nap().await;
            match self.merge(partition).await {
                Ok(()) => {}
                Err(SpaceError::Full { .. }) => {
                    self.model.borrow_mut().tally.full += 1;
                    self.runtime.sleep(Duration::from_micros(300)).await;
                }
                Err(SpaceError::Failed(_)) => return,
            }
        }
    }

    async fn merge(&self, partition: u64) -> Result<(), SpaceError> {
        let before = self.model.borrow().current.get(&partition).cloned();
        let mut leaves = before.as_ref().map(|tree| tree.leaves.clone()).unwrap_or_default();
        let mut batch = self.pages.batch();
        for _ in 0..self.below(5) {
            if leaves.len() > 6 || (!leaves.is_empty() && self.below(3) == 0) {
                let index = self.below(leaves.len() as u64) as usize;
                batch.release(leaves.swap_remove(index).0.extent);
            }
            let number = self.random.borrow_mut().bits();
            let blocks = if self.below(12) == 0 { 20 + self.below(60) } else { 1 + self.below(4) } as u32;
            leaves.push((batch.write(&leaf_bytes(number, blocks), PageKind::Leaf).await?, number));
            if self.below(4) == 0 {
                self.nap().await;
            }
        }
        let root = batch.write(&root_bytes(&leaves), PageKind::Inner).await?;
        if let Some(before) = before {
            batch.release(before.root.extent);
        }
        if self.below(6) == 0 {
            self.model.borrow_mut().tally.aborted += 1;
            return Ok(());
        }
        let finished = batch.finish().await?;
        let model = &mut *self.model.borrow_mut();
        model.tally.blocks_written += leaves.len() as u64;
        // The root is replaced before the flip that makes it durable is begun.
        model.current.insert(partition, Tree { root, leaves });
        model.finished.push(finished);
        Ok(())
    }

    async fn flip_for_ever(self) {
        loop {
            self.nap().await;
            self.nap().await;
            let (trees, mut finished) = {
                let mut model = self.model.borrow_mut();
                (model.current.clone(), std::mem::take(&mut model.finished))
            };
            self.model.borrow_mut().flips.insert(self.pages.durable() + 1, trees.clone());
            match self.pages.flip(&catalogue(&trees), &mut finished).await {
                Ok(sequence) => {
                    let mut model = self.model.borrow_mut();
                    assert_eq!(sequence, model.durable + 1);
                    model.durable = sequence;
                    model.tally.flips += 1;
                    assert!(finished.is_empty());
                }
                Err(SpaceError::Full { .. }) => {
                    // Nothing was begun: the batches wait for the next attempt.
                    let mut model = self.model.borrow_mut();
                    model.tally.full += 1;
                    finished.append(&mut model.finished);
                    model.finished = finished;
                }
                Err(SpaceError::Failed(_)) => return,
            }
        }
    }

    async fn read_for_ever(self) {
        loop {
            self.nap().await;
            let pin = self.rules.pins.then(|| self.pages.pin());
            let trees = self.model.borrow().current.clone();
            for _ in 0..self.below(12) {
                let Some(tree) = trees.get(&self.below(PARTITIONS)) else { continue };
                self.read(tree).await;
                let pinned = self.pages.used().pinned_blocks;
                let tally = &mut self.model.borrow_mut().tally;
                tally.pinned_reads += 1;
                tally.pinned_blocks = tally.pinned_blocks.max(pinned);
            }
            drop(pin);
        }
    }

    /// Reads the root and one leaf.
    async fn read(&self, tree: &Tree) {
        self.check_page(tree.root, PageKind::Inner, &root_bytes(&tree.leaves)).await;
        if !tree.leaves.is_empty() {
            let (leaf, number) = tree.leaves[self.below(tree.leaves.len() as u64) as usize];
            self.nap().await;
            self.check_page(leaf, PageKind::Leaf, &leaf_bytes(number, leaf.extent.blocks)).await;
        }
    }

    async fn check_page(&self, reference: PageReference, kind: PageKind, expected: &[u8]) {
        match self.pages.read(reference, kind).await {
            Ok(page) => assert!(&page[..] == expected, "{} is another page", reference.extent),
            Err(error) if self.rules.honest => panic!("{error}"),
            Err(PageError::Corrupt { .. } | PageError::Disk(_)) => {
                self.model.borrow_mut().tally.corrupt_reads += 1;
            }
        }
    }

    fn start(&self) {
        for partition in 0..PARTITIONS {
            self.runtime.spawn(self.clone().merge_for_ever(partition));
        }
        self.runtime.spawn(self.clone().flip_for_ever());
        for _ in 0..3 {
            self.runtime.spawn(self.clone().read_for_ever());
        }
    }
}

fn catalogue(trees: &Trees) -> Catalogue {
    let partition = |(&id, tree): (&u64, &Tree)| CataloguedPartition {
        id: PartitionId(id),
        generation: Generation(1),
        meta: Rc::from(&b"meta"[..]),
        applied: Slot(tree.leaves.len() as u64),
        state: None,
        promised: Ballot { round: 1, replica: 3 },
        timestamp: Timestamp(1000),
        checksum: 7,
        log: LogPosition { segment: 1, frame: 40 },
        root: Some(RootReference {
            page: tree.root,
            height: 1,
            item_count: tree.leaves.len() as u64,
            item_bytes: tree.blocks(),
            content_hash: 9,
        }),
    };
    Catalogue { log_frame: 0, partitions: trees.iter().map(partition).collect() }
}

/// Opens the pages and checks everything that is found against the flips of the model; the world to
/// go on with, if the pages can be opened.
fn reopen(
    disk: &MemoryDisk,
    seed: u64,
    mut model: Model,
    rules: Rules,
) -> Result<World, Box<(OpenError, Tally)>> {
    let runtime = TestRuntime::new(seed);
    let mutant = Mutant::new(disk.clone(), rules.mutation);
    let (pages, opened) = match runtime.block_on(disk, Pages::open(mutant.clone(), runtime.clone(), config()))
    {
        Ok(opened) => opened,
        Err(error) => return Err(Box::new((error, model.tally))),
    };
    let trees = model.flips.remove(&opened.sequence).unwrap_or_default();
    assert_eq!(opened.catalogue, catalogue(&trees), "flip {}", opened.sequence);
    if opened.sequence == model.durable {
        model.tally.kept += 1;
    } else if opened.sequence > model.durable {
        assert_eq!(opened.sequence, model.durable + 1);
        model.tally.advanced += 1;
    } else {
        // Only three lost or overwritten copies of the superblock can bring an older one back.
        let head = HEAD_BLOCKS * BLOCK_BYTES as u64;
        let silent = |kind| kind == DamageKind::Lost || kind == DamageKind::Misdirected;
        let copies = disk.damage().iter().filter(|one| one.offset < head && silent(one.kind)).count();
        assert!(!rules.honest && copies >= 3, "flip {} of {}", opened.sequence, model.durable);
        model.tally.stale_opens += 1;
    }
    model.tally.healed += opened.copies_healed as u64;
    let used = pages.used();
    let blocks: u64 = trees.values().map(Tree::blocks).sum();
    assert_eq!(used.used_blocks, blocks + pages.catalogue_blocks(), "no block leaks");
    assert_eq!((used.unpublished_blocks, used.pending_blocks, used.pinned_blocks), (0, 0, 0));
    model.durable = opened.sequence;
    model.flips = BTreeMap::from([(opened.sequence, trees.clone())]);
    model.current = trees.clone();
    let world = World {
        pages,
        mutant,
        runtime: runtime.clone(),
        random: Rc::new(RefCell::new(Random::new(seed))),
        model: Rc::new(RefCell::new(model)),
        rules,
    };
    for tree in trees.values() {
        runtime.block_on(disk, world.check_page(tree.root, PageKind::Inner, &root_bytes(&tree.leaves)));
        for (leaf, number) in &tree.leaves {
            let expected = leaf_bytes(*number, leaf.extent.blocks);
            runtime.block_on(disk, world.check_page(*leaf, PageKind::Leaf, &expected));
        }
    }
    Ok(world)
}

/// One life after another on one disk, until `crashes` of them have ended.
fn run(seed: u64, faults: Faults, crashes: u64, rules: Rules) -> (Tally, FaultCounts) {
    let mut disk = MemoryDisk::faulty(faults);
    let mut random = Random::new(seed ^ 0x5EED);
    let mut model = Model::default();
    for crash in 0..=crashes {
        let world = match reopen(&disk, random.bits(), model, rules) {
            Ok(world) => world,
            Err(refused) => {
                let (error, mut tally) = *refused;
                assert!(!rules.honest, "{error}");
                tally.refused_opens += 1;
                return (tally, disk.fault_counts());
            }
        };
        if crash == crashes {
            if rules.honest {
                release_all(&world, &disk);
            }
            let tally = world.model.borrow().tally;
            return (tally, disk.fault_counts());
        }
        world.start();
        let step = || {
            world.runtime.run_ready();
            assert!(world.runtime.move_on(&disk));
        };
        (0..random.below(1000)).for_each(|_| step());
        // Half of the crashes hit a superblock that is being written.
        if random.once_in(2) {
            let in_time = (0..1000).find(|_| {
                step();
                world.mutant.is_at_superblock()
            });
            (0..in_time.map_or(0, |_| random.below(6))).for_each(|_| step());
        }
        let next =
            if random.once_in(4) { disk.kill_process(|_, _, _| random.once_in(2)) } else { disk.power_off() };
        world.runtime.stop();
        model = std::mem::take(&mut *world.model.borrow_mut());
        model.finished.clear();
        model.tally.crashes += 1;
        model.tally.growths += world.pages.write_counts().growths;
        model.tally.evictions += world.pages.cache_counts().evictions;
        model.tally.shared_reads += world.pages.cache_counts().shared_reads;
        model.tally.failed += u64::from(world.pages.failed().is_some());
        disk = next;
    }
    unreachable!("the last round returns")
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.flips += other.flips;
        self.crashes += other.crashes;
        self.kept += other.kept;
        self.advanced += other.advanced;
        self.healed += other.healed;
        self.aborted += other.aborted;
        self.pinned_reads += other.pinned_reads;
        self.pinned_blocks = self.pinned_blocks.max(other.pinned_blocks);
        self.full += other.full;
        self.growths += other.growths;
        self.evictions += other.evictions;
        self.shared_reads += other.shared_reads;
        self.blocks_written += other.blocks_written;
        self.refused_opens += other.refused_opens;
        self.corrupt_reads += other.corrupt_reads;
        self.failed += other.failed;
        self.stale_opens += other.stale_opens;
    }
}

/// Gives everything up and checks that everything is free again.
fn release_all(world: &World, disk: &MemoryDisk) {
    let trees = world.model.borrow().current.clone();
    let pages = &world.pages;
    world.runtime.block_on(disk, async {
        let mut batch = pages.batch();
        trees.values().flat_map(Tree::extents).for_each(|extent| batch.release(extent));
        let mut finished = vec![batch.finish().await.unwrap()];
        pages.flip(&Catalogue::default(), &mut finished).await.unwrap();
    });
    let used = pages.used();
    assert_eq!(used.used_blocks, pages.catalogue_blocks());
}

#[test]
fn whatever_a_durable_flip_refers_to_survives_every_crash_and_nothing_leaks() {
    let (mut tally, mut torn) = (Tally::default(), 0);
    for seed in seeds(50) {
        println!("seed={seed}");
        let (of_seed, faults) = run(seed, Faults::crashes_only(seed), 5, CRASHES_ONLY);
        tally += of_seed;
        torn += faults.torn_writes;
    }
    println!("{tally:?}, {torn} writes torn");
    if std::env::var("EVENKEEL_SEED").is_ok() {
        return;
    }
    let happened = [
        tally.flips > 1000,
        tally.kept > 100,
        tally.advanced > 15,
        tally.healed > 15,
        tally.aborted > 100,
        tally.pinned_reads > 1000,
        tally.pinned_blocks > 0,
        tally.full > 0,
        tally.growths > 100,
        tally.evictions > 1000,
        tally.shared_reads > 0,
        torn > 10,
    ];
    assert!(happened.iter().all(|happened| *happened), "{happened:?}: {tally:?}");
}

#[test]
fn no_damage_is_ever_returned_as_data() {
    let (mut tally, mut counts) = (Tally::default(), [0; 7]);
    for seed in seeds(50) {
        println!("seed={seed}");
        let mut random = Random::new(seed);
        let mut ppm = || if random.once_in(3) { (random.below(8000)) as u32 } else { 0 };
        let faults = Faults {
            lost_write_ppm: ppm(),
            misdirected_write_ppm: ppm(),
            rot_ppm: ppm(),
            read_error_ppm: ppm(),
            write_error_ppm: ppm() / 4,
            sync_error_ppm: ppm(),
            no_space_ppm: CERTAIN_PPM / 4,
            ..Faults::crashes_only(seed)
        };
        let (of_seed, faults) = run(seed, faults, 4, Rules { honest: false, ..CRASHES_ONLY });
        tally += of_seed;
        for (sum, count) in counts.iter_mut().zip([
            faults.lost_writes,
            faults.misdirected_writes,
            faults.rotten_bits,
            faults.read_errors,
            faults.write_errors,
            faults.sync_errors,
            faults.no_space,
        ]) {
            *sum += count;
        }
    }
    println!("{tally:?} {counts:?}");
    if std::env::var("EVENKEEL_SEED").is_ok() {
        return;
    }
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
    assert!(tally.corrupt_reads > 20 && tally.refused_opens > 3 && tally.failed > 3, "{tally:?}");
}

/// How many seeds it takes until the first test above fails under `rules`.
fn seeds_until_noticed(rules: Rules) -> u64 {
    let fails = |seed: &u64| {
        // Old and new copies alone always leave two equal ones; torn ones do not.
        let faults = Faults { torn_sector_ppm: CERTAIN_PPM / 2, ..Faults::crashes_only(*seed) };
        let run = || run(*seed, faults, 5, rules);
        std::panic::catch_unwind(run).is_err()
    };
    (0..60).find(fails).map_or(u64::MAX, |seed| seed + 1)
}

#[test]
fn leaving_out_any_step_that_durability_rests_on_is_noticed() {
    let with = |mutation| Rules { mutation, ..CRASHES_ONLY };
    for rules in [
        with(Mutation::CatalogueFlush),
        with(Mutation::SecondPair),
        with(Mutation::EveryFlush),
        Rules { pins: false, ..CRASHES_ONLY },
    ] {
        let seeds = seeds_until_noticed(rules);
        println!("mutation: {:?}, pins: {}, noticed with {seeds} seeds", rules.mutation, rules.pins);
        assert!(seeds <= 60, "{rules:?} is not noticed");
    }
}
