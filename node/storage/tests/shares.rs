//! At the limits those partitions are refused first that take more than their share.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use evenkeel_model::{PartitionId, Slot};
use evenkeel_storage::{
    EngineConfig, Refused, Shared,
    limits::{KEPT_PART, TABLE_ITEM_OVERHEAD_BYTES},
    memory::{MemoryDisk, Random, TestRuntime, seeds},
};
use std::collections::BTreeMap;

const SEEDS: u64 = 60;
const TABLE_BYTES_MAX: u64 = 400_000;
const HOG: PartitionId = PartitionId(1);

struct World {
    disk: MemoryDisk,
    runtime: TestRuntime,
    engine: TestEngine,
    /// Entries, and bytes of the table.
    partitions: BTreeMap<PartitionId, (u64, u64)>,
}

impl World {
    fn new(count: u64, config: EngineConfig) -> World {
        let (disk, runtime) = (MemoryDisk::automatic(), TestRuntime::new(1));
        let (engine, _) = open(&runtime, &disk, config).unwrap();
        let ids = (1..=count).map(PartitionId);
        for id in ids.clone() {
            runtime.block_on(&disk, engine.create_partition(id, G1, b"")).unwrap();
        }
        World { disk, runtime, engine, partitions: ids.map(|id| (id, (0, 0))).collect() }
    }

    /// Writes a new item of `bytes`; yields what it takes in the table.
    fn write(&mut self, id: PartitionId, bytes: usize) -> Result<u64, Refused> {
        let (entries, used) = self.partitions.get_mut(&id).unwrap();
        let slot = *entries + 1;
        let key = format!("key {slot:06}");
        let taken = allocated(key.len()) + allocated(bytes) + TABLE_ITEM_OVERHEAD_BYTES;
        let durable = self.engine.append_next(id, put(slot, &key, &vec![7; bytes]))?;
        self.runtime.block_on(&self.disk, durable).unwrap();
        self.engine.apply_to(id, Slot(slot));
        (*entries, *used) = (slot, *used + taken);
        Ok(taken)
    }

    fn checkpoint(&mut self, id: PartitionId) {
        self.runtime.block_on(&self.disk, self.engine.checkpoint(id, &[])).unwrap();
        self.runtime.block_on(&self.disk, self.engine.flip()).unwrap();
        self.partitions.get_mut(&id).unwrap().1 = 0;
    }
}

/// What an allocator with steps of an eighth of the next power of two, and of 16 bytes at least, gives for this and two
/// reference counts.
fn allocated(bytes: usize) -> u64 {
    let (bytes, mut step) = (bytes as u64 + 16, 16);
    while 8 * step < bytes {
        step *= 2;
    }
    bytes.div_ceil(step) * step
}

#[test]
fn nobody_is_refused_below_his_share_whatever_one_takes() {
    let mut refused = 0;
    for seed in seeds(SEEDS) {
        println!("seed={seed}");
        let mut random = Random::new(seed);
        let count = 2 + random.below(12);
        let mut config = EngineConfig { table_bytes_max: TABLE_BYTES_MAX, ..config() };
        config.wal.wal_bytes_max = 1024 * config.wal.segment_bytes;
        let mut world = World::new(count, config);
        let share = TABLE_BYTES_MAX / KEPT_PART / count;
        for _ in 0..1500 {
            let id = if random.once_in(2) { HOG } else { PartitionId(1 + random.below(count)) };
            let bytes = random.below(900) as usize;
            let used = world.partitions[&id].1;
            match world.write(id, bytes) {
                Ok(_) => {}
                Err(error) => {
                    let Refused::AboveShare { of: Shared::Tables, used: said, share: its } = error else {
                        panic!("{error}")
                    };
                    assert!(its == share && said > share, "{error}");
                    assert!(used + 2000 > share, "{used} of {share}");
                    assert!(error.retry_after().is_some());
                    refused += u64::from(id == HOG);
                }
            }
            let all: u64 = world.partitions.values().map(|(_, used)| used).sum();
            assert_eq!(world.engine.statistics().table_bytes, all);
            assert!(all <= TABLE_BYTES_MAX);
        }
        assert!(world.engine.statistics().refused_above_share > 0);
        world.checkpoint(HOG);
        assert!(world.write(HOG, 500).is_ok(), "a merge has made room");
    }
    assert!(refused > 100, "{refused} refusals");
}

#[test]
fn the_last_of_the_log_is_kept_for_those_who_take_little() {
    let mut config = config();
    config.wal.wal_bytes_max = 32 * config.wal.segment_bytes;
    let mut world = World::new(4, config);
    let error = loop {
        if let Err(error) = world.write(HOG, 3000) {
            break error;
        }
    };
    assert!(matches!(error, Refused::AboveShare { of: Shared::Log, .. }), "{error}");
    for id in 2..=4 {
        assert!(world.write(PartitionId(id), 3000).is_ok());
    }
    world.checkpoint(HOG);
    for id in 2..=4 {
        world.checkpoint(PartitionId(id));
    }
    assert!(world.write(HOG, 3000).is_ok(), "a flip has made room");
}
