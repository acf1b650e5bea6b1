//! Trees against an ordered map: random merges on a disk in memory, every page looked at after each.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use super::*;
use crate::{
    memory::{MemoryDisk, Random, TestRuntime},
    pace::Pace,
    space::{Catalogue, CataloguedPartition, LogPosition, PagesConfig, RootReference},
    table::Table,
};
use evenkeel_model::{
    Ballot, ClusterId, Generation, NodeId, ShardId, Slot, Timestamp, item::stored_item_bytes,
};
use std::{collections::BTreeMap, rc::Rc};
use verify::Walk;

const ID: PartitionId = PartitionId(7);
const SEEDS: u64 = 60;

pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) struct World {
    pub(super) random: Random,
    pub(super) disk: MemoryDisk,
    pub(super) runtime: TestRuntime,
    pub(super) pages: Pages<MemoryDisk, TestRuntime>,
    pub(super) place: Place,
    pub(super) root: Option<RootReference>,
    pub(super) model: Model,
}

fn small() -> Limits {
    Limits { leaf_bytes: 4096, inner_bytes: 4096 }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        World::on(TestRuntime::new(seed), seed)
    }

    pub(super) fn on(runtime: TestRuntime, seed: u64) -> Self {
        let disk = MemoryDisk::automatic();
        let config = PagesConfig {
            cluster: ClusterId(1),
            node: NodeId(1),
            shard: ShardId(0),
            first_bytes: 1 << 20,
            step_bytes: 1 << 20,
            bytes_max: 1 << 30,
            cache_bytes: 256 * 1024,
        };
        let opened = Pages::open(disk.clone(), runtime.clone(), config);
        let (pages, _) = runtime.block_on(&disk, opened).unwrap();
        let place = Place { partition: ID, limits: small() };
        World { random: Random::new(seed), disk, runtime, pages, place, root: None, model: Model::new() }
    }

    pub(super) fn merge(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut table = Table::default();
        table.put_over_tree();
        for (key, image) in changes {
            table.change(Rc::from(&key[..]), image.as_deref().map(Rc::from));
            match image {
                Some(image) => drop(self.model.insert(key.clone(), image.clone())),
                None => drop(self.model.remove(key)),
            }
            // Several generations, the newer hiding the older.
            if self.random.once_in(changes.len() as u64) {
                drop(table.pin(Slot(1)));
            }
        }
        let pinned = table.pin(Slot(1)).unwrap();
        let (pages, place, root) = (&self.pages, self.place, self.root);
        let pace = Pace::new(self.runtime.clone(), Rc::new(|| 0.0));
        self.root = self.runtime.block_on(&self.disk, async {
            let mut batch = pages.batch();
            let root = merge(pages, &mut batch, place, root, &pinned, &pace, &|| ()).await.unwrap();
            let finished = batch.finish().await.unwrap();
            pages.flip(&catalogue(root), &mut vec![finished]).await.unwrap();
            root
        });
    }

    /// Walks over all pages; none may be unsound, lost or forgotten.
    pub(super) fn check(&self) {
        let Some(root) = self.root else {
            assert!(self.model.is_empty());
            return self.check_space(0);
        };
        let mut walk = Walk::new(self.pages.clone(), &root);
        self.runtime.block_on(&self.disk, async {
            while let Some((_, looked)) = walk.step().await {
                looked.unwrap();
            }
        });
        let bytes: usize = self.model.values().map(Vec::len).sum();
        let item_bytes: u64 = self.model.values().map(|image| stored_item_bytes(image)).sum();
        assert_eq!((root.item_count, root.item_bytes), (self.model.len() as u64, item_bytes));
        assert_eq!(walk.walked().items, self.model.len() as u64);
        self.check_space(walk.walked().bytes / BLOCK_BYTES as u64);
        let pages = walk.walked().leaves;
        let least = (bytes + self.model.len() * 20) as u64 / 4096;
        assert!(pages <= 5 * least + 5, "{pages} leaves for {least} full ones");
    }

    fn check_space(&self, blocks: u64) {
        let used = self.pages.used();
        assert_eq!(used.used_blocks, blocks + self.pages.catalogue_blocks(), "{used:?}");
    }

    fn read_back(&mut self) {
        let Some(root) = self.root else { return };
        let (disk, pages) = (&self.disk.clone(), &self.pages.clone());
        let mut forward = Model::new();
        let mut lower = Vec::new();
        loop {
            let leaf = self.runtime.block_on(disk, leaf_from(pages, &root, &lower)).unwrap();
            forward.extend(leaf.items.iter().map(|(key, image)| (key.to_vec(), image.to_vec())));
            let Some(upper) = leaf.upper else { break };
            assert!(upper > lower);
            lower = upper;
        }
        assert!(forward == self.model, "the leaves from the left are the model");
        let mut backward = Model::new();
        let mut upper = None;
        loop {
            let leaf = self.runtime.block_on(disk, leaf_before(pages, &root, upper.as_deref())).unwrap();
            backward.extend(leaf.items.iter().map(|(key, image)| (key.to_vec(), image.to_vec())));
            let Some(lower) = leaf.lower else { break };
            upper = Some(lower);
        }
        assert!(backward == self.model, "the leaves from the right are the model");
        for _ in 0..50 {
            let key = self.key();
            let found = self.runtime.block_on(disk, get(pages, &root, &key)).unwrap();
            assert_eq!(found.as_deref(), self.model.get(&key).map(|image| &image[..]));
        }
    }

    pub(super) fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(3000);
        match number % 3 {
            0 => format!("user-{number:06}"),
            1 => format!("user-{:06}-{}", number - 1, "x".repeat((number % 90) as usize)),
            _ => format!("{number}"),
        }
        .into_bytes()
    }

    pub(super) fn changes(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let manner = self.random.below(6);
        let count = [1, 10, 300, 1500][self.random.below(4) as usize];
        let start = self.random.below(3000);
        (0..count)
            .map(|index| {
                let key =
                    if manner == 5 { format!("user-{:06}", start + index).into_bytes() } else { self.key() };
                let bytes = if self.random.once_in(300) { 30_000 } else { self.random.below(300) };
                let deleted = [0, 20, 50, 95, 100, 0][manner as usize];
                let kept = self.random.below(100) >= deleted;
                (key, kept.then(|| vec![self.random.bits() as u8; bytes as usize]))
            })
            .collect()
    }
}

fn catalogue(root: Option<RootReference>) -> Catalogue {
    let partition = CataloguedPartition {
        id: ID,
        generation: Generation(1),
        meta: Rc::from([]),
        state: None,
        applied: Slot(1),
        promised: Ballot::default(),
        timestamp: Timestamp(1),
        checksum: 1,
        log: LogPosition::default(),
        root,
    };
    Catalogue { log_frame: 0, partitions: vec![partition] }
}

#[test]
fn random_merges_keep_to_the_model_and_lose_no_page() {
    for seed in crate::memory::seeds(SEEDS) {
        println!("seed={seed}");
        let mut world = World::new(seed);
        for _ in 0..12 {
            let changes = world.changes();
            world.merge(&changes);
            world.check();
            world.read_back();
        }
        let all: Vec<_> = world.model.keys().map(|key| (key.clone(), None)).collect();
        world.merge(&all);
        world.check();
        assert_eq!(world.root, None);
    }
}
