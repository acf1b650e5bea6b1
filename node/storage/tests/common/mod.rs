//! What the tests of the log share: a small configuration, entries, and reading everything back.

#![allow(dead_code, reason = "each test file uses its part")]

use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp};
use evenkeel_storage::{
    Durable, Engine, EngineConfig, Entry, Limits, OpenError, Operation, PageSettings, RangeQuery, ReadError,
    Recovery, Refused, WalConfig,
    memory::{MemoryDisk, TestRuntime},
};
use std::{ops::ControlFlow, rc::Rc, time::Duration};

pub type TestEngine = Engine<MemoryDisk, TestRuntime>;
pub type TestPinned = evenkeel_storage::Pinned<MemoryDisk, TestRuntime>;
pub type Items = Vec<(Vec<u8>, Vec<u8>)>;

pub const P1: PartitionId = PartitionId(7);
pub const P2: PartitionId = PartitionId(8);
pub const G1: Generation = Generation(1);

/// Segments of 32 KiB, frames of 8 KiB, entries up to 16 KiB.
pub fn config() -> EngineConfig {
    EngineConfig {
        cluster: ClusterId(0xC1),
        node: NodeId(3),
        shard: ShardId(1),
        wal: WalConfig {
            segment_bytes: 32 * 1024,
            frame_bytes: 8 * 1024,
            frame_bytes_max: 20 * 1024,
            writes_in_flight_max: 2,
            frames_queued_max: 4,
            wal_bytes_max: 64 * 32 * 1024,
            idle_frame_after: Duration::from_millis(10),
            idle_frame_every: Duration::from_secs(1),
        },
        table_bytes_max: 1 << 30,
        pages: PageSettings {
            step_bytes: 66 * 4096,
            bytes_max: 1 << 30,
            cache_bytes: 64 * 1024,
            limits: Limits { leaf_bytes: 4096, inner_bytes: 4096 },
        },
        notes_ns: 1_000,
    }
}

pub fn put(slot: u64, key: &str, image: &[u8]) -> Entry {
    entry(slot, vec![Operation::Put { key: Rc::from(key.as_bytes()), image: Rc::from(image) }])
}

pub fn delete(slot: u64, key: &str) -> Entry {
    entry(slot, vec![Operation::Delete { key: Rc::from(key.as_bytes()) }])
}

pub fn entry(slot: u64, operations: Vec<Operation>) -> Entry {
    Entry {
        slot: Slot(slot),
        ballot: Ballot { round: 1, replica: 3 },
        timestamp: Timestamp(1000 + slot),
        operations,
        ..Entry::default()
    }
}

/// What the tests do with an engine, in one call.
pub trait Appends {
    /// Appends an entry behind the last one, if it is let in.
    fn append_next(&self, id: PartitionId, entry: Entry) -> Result<Durable, Refused>;

    /// Applies up to a slot.
    fn apply_to(&self, id: PartitionId, slot: Slot);
}

impl Appends for TestEngine {
    fn append_next(&self, id: PartitionId, entry: Entry) -> Result<Durable, Refused> {
        self.admits(id, [&entry])?;
        let checksum =
            entry.checksum(id, self.generation(id).expect("the partition is here"), self.end(id).checksum);
        self.append(id, entry, checksum)
    }

    fn apply_to(&self, id: PartitionId, slot: Slot) {
        self.apply(id, slot, |_| ControlFlow::Continue(()));
    }
}

pub fn open(
    runtime: &TestRuntime,
    disk: &MemoryDisk,
    config: EngineConfig,
) -> Result<(TestEngine, Recovery), OpenError> {
    runtime.block_on(disk, Engine::open(disk.clone(), runtime.clone(), config))
}

/// Everything in a partition, through pages of three.
pub fn items(runtime: &TestRuntime, disk: &MemoryDisk, engine: &TestEngine, id: PartitionId) -> Items {
    try_items(runtime, disk, engine, id).expect("the partition is there, and its pages are whole")
}

/// Everything in a partition, unless something of it cannot be read.
pub fn try_items(
    runtime: &TestRuntime,
    disk: &MemoryDisk,
    engine: &TestEngine,
    id: PartitionId,
) -> Result<Items, ReadError> {
    let mut found = Items::new();
    let mut lower = Vec::new();
    loop {
        let query = RangeQuery { lower, upper: None, reverse: false, items_max: 3, bytes_max: usize::MAX };
        let page = runtime.block_on(disk, engine.range(id, query))?;
        found.extend(page.items.iter().map(|(key, image)| (key.to_vec(), image.to_vec())));
        if !page.more {
            return Ok(found);
        }
        lower = found.last().expect("more items follow some").0.clone();
        lower.push(0);
    }
}
