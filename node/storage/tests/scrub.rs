//! A scrub finds what has gone bad, wherever it is; everything else goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::*;
use evenkeel_model::{PartitionId, Slot};
use evenkeel_storage::{
    BLOCK_BYTES, CheckpointError, FileId, ReadError, Runtime, ScrubFault, TreeError,
    memory::{MemoryDisk, TestRuntime},
    space::PageError,
    tree::{inner::InnerView, leaf::LeafView, page::PAGE_MAGIC, verify::Fault},
    wal::frame::{self, FrameHeader},
};
use std::{collections::BTreeSet, time::Duration};

const ITEMS: u64 = 120;
const PACE: u64 = 1 << 20;

struct World {
    disk: MemoryDisk,
    runtime: TestRuntime,
    engine: TestEngine,
}

fn key(number: u64) -> String {
    format!("key {number:04}")
}

impl World {
    /// A partition with a tree of many leaves, and one that is only in the log.
    fn new() -> World {
        let disk = MemoryDisk::automatic();
        let runtime = TestRuntime::new(1);
        let (engine, _) = open(&runtime, &disk, config()).unwrap();
        let world = World { disk, runtime, engine };
        world.run(world.engine.create_partition(P1, G1, b"one")).unwrap();
        for number in 1..=ITEMS {
            let image = vec![number as u8; 300];
            world.run(world.engine.append_next(P1, put(number, &key(number), &image)).unwrap()).unwrap();
        }
        world.engine.apply_to(P1, Slot(ITEMS));
        world.run(world.engine.checkpoint(P1, &[])).unwrap();
        world.run(world.engine.flip()).unwrap();
        world.run(world.engine.create_partition(P2, G1, b"two")).unwrap();
        for number in 1..=40 {
            let entry = put(number, &key(number), &[7; 2000]);
            world.run(world.engine.append_next(P2, entry).unwrap()).unwrap();
        }
        world.engine.apply_to(P2, Slot(40));
        world
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(&self.disk, future)
    }

    /// Starts anew on what is there: nothing is cached.
    fn reopened(mut self) -> World {
        self.run(self.engine.close()).unwrap();
        self.runtime = TestRuntime::new(2);
        self.engine = open(&self.runtime, &self.disk, config()).unwrap().0;
        self.engine.apply_to(P2, Slot(40));
        self
    }

    /// Looks at everything once; yields what is told.
    fn scrub(&self) -> Vec<ScrubFault> {
        let mut told = Vec::new();
        self.run(self.engine.scrub_once(PACE, |fault| told.push(fault.clone())));
        told
    }

    /// Where the leaves are, and their keys.
    fn leaves(&self) -> Vec<(u64, BTreeSet<String>)> {
        let content = self.disk.content(FileId::Pages);
        let is_page = |block: &&[u8]| block[..4] == PAGE_MAGIC.to_le_bytes() && block[6] == 1;
        let text = |view: &LeafView<'_>, index| {
            let (prefix, rest, _) = view.item(index);
            String::from_utf8([prefix, rest].concat()).unwrap()
        };
        let keys = |view: LeafView<'_>| (0..view.count()).map(|index| text(&view, index)).collect();
        let blocks = content.chunks(BLOCK_BYTES).enumerate().filter(|(_, block)| is_page(block));
        blocks.map(|(at, block)| (at as u64, keys(LeafView::open(block).unwrap().1))).collect()
    }

    /// The frames of the log, with their places: of each file those of the life that it is in.
    fn frames(&self) -> Vec<(FileId, u64, FrameHeader)> {
        let mut frames = Vec::new();
        for file in self.disk.file_ids() {
            let FileId::Segment(_) = file else { continue };
            let content = self.disk.content(file);
            let (mut at, mut segment) = (0, None);
            while let Some(claim) = content.get(at..).and_then(|rest| frame::claim(rest, rest.len())) {
                if *segment.get_or_insert(claim.segment) != claim.segment {
                    break;
                }
                let header = frame::open(&content[at..at + claim.frame_bytes]).unwrap().0;
                frames.push((file, (at / BLOCK_BYTES) as u64, header));
                at += claim.frame_bytes;
            }
        }
        frames
    }

    fn get(&self, id: PartitionId, key: &str) -> Result<bool, ReadError> {
        Ok(self.run(self.engine.get(id, key.as_bytes()))?.is_some())
    }

    fn rot(&self, file: FileId, block: u64) {
        self.disk.rot(file, block * BLOCK_BYTES as u64 + 77, 3);
    }
}

#[test]
fn what_is_whole_is_looked_at_and_nothing_is_told() {
    let world = World::new();
    let before_ns = world.runtime.now_ns();
    assert_eq!(world.scrub(), []);
    let counts = world.engine.scrub_counts();
    assert_eq!((counts.rounds, counts.bad_pages, counts.bad_frames), (1, 0, 0));
    let leaves = world.leaves().len() as u64;
    assert!(leaves > 5 && counts.pages > leaves && counts.frames > 40, "{leaves} leaves, {counts:?}");
    let least_ns = (counts.bytes - 4096) * 1_000_000_000 / PACE;
    assert!(world.runtime.now_ns() - before_ns >= least_ns, "it keeps to its pace");
}

#[test]
fn a_rotten_page_is_told_once_and_only_its_keys_are_refused() {
    let mut world = World::new();
    for (block, keys) in world.leaves() {
        world.rot(FileId::Pages, block);
        world = world.reopened();
        let told = world.scrub();
        let [ScrubFault::Page { partition: P1, block: found, fault }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(*found, block);
        let Fault::Unreadable(TreeError::Page(PageError::Corrupt { expected, found, .. })) = fault else {
            panic!("{fault:?}")
        };
        assert_ne!(expected, found);
        assert_eq!(world.scrub(), [], "it is told once");
        assert_eq!((world.engine.scrub_counts().bad_pages, world.engine.scrub_faults()), (1, told));
        for number in 1..=ITEMS {
            let read = world.get(P1, &key(number));
            if keys.contains(&key(number)) {
                let refused = matches!(&read, Err(ReadError::Tree(TreeError::Page(PageError::Corrupt { block: at, .. }))) if *at == block);
                assert!(refused, "{read:?}");
            } else {
                assert_eq!(read, Ok(true));
            }
        }
        assert_eq!(world.get(P2, &key(3)), Ok(true));
        world.rot(FileId::Pages, block);
        assert_eq!(world.scrub(), []);
        assert_eq!(world.engine.scrub_counts().bad_pages, 0, "it is whole again");
    }
}

#[test]
fn a_rotten_frame_is_told_with_its_place() {
    let world = World::new();
    let newest = world.engine.statistics().frame_durable;
    let frames = world.frames();
    let oldest_segment = frames.iter().map(|(.., header)| header.oldest_segment).max().unwrap();
    let mut looked = 0;
    for (file, block, header) in frames {
        if header.segment < oldest_segment || header.sequence >= newest {
            continue;
        }
        world.rot(file, block);
        let told = world.scrub();
        let place = |fault: &ScrubFault| match fault {
            ScrubFault::Frame { file, block, .. } => (*file, *block),
            ScrubFault::Page { .. } => panic!("{fault}"),
        };
        assert_eq!(told.iter().map(place).collect::<Vec<_>>(), [(file, block)], "{told:?}");
        assert_eq!(world.engine.scrub_counts().bad_frames, 1);
        world.rot(file, block);
        looked += 1;
    }
    assert!(looked > 10, "{looked} frames");
    assert_eq!(world.scrub(), []);
}

#[test]
fn a_merge_that_meets_a_bad_page_fails_alone_and_loses_nothing() {
    let world = World::new();
    let (block, keys) = world.leaves().swap_remove(2);
    world.rot(FileId::Pages, block);
    let world = world.reopened();
    let touched = keys.first().unwrap().clone();
    let (changed, other) = (format!("{touched}+"), key(ITEMS + 1));
    for (slot, key) in [(ITEMS + 1, &changed), (ITEMS + 2, &other)] {
        world.run(world.engine.append_next(P1, put(slot, key, b"new")).unwrap()).unwrap();
    }
    world.engine.apply_to(P1, Slot(ITEMS + 2));
    let merged = world.run(world.engine.checkpoint(P1, &[]));
    let met = |at: &u64| *at == block;
    assert!(
        matches!(&merged, Err(CheckpointError::Tree(TreeError::Page(PageError::Corrupt { block, .. }))) if met(block)),
        "{merged:?}"
    );
    assert_eq!(world.run(world.engine.checkpoint(P2, &[])), Ok(()), "others are merged");
    assert_eq!(world.run(world.engine.flip()), Ok(()));
    assert_eq!((world.get(P1, &changed), world.get(P1, &other)), (Ok(true), Ok(true)));
    assert!(world.get(P1, &touched).is_err());
    // What could not be merged is still in the log.
    let world = world.reopened();
    world.engine.apply_to(P1, Slot(ITEMS + 2));
    assert_eq!((world.get(P1, &changed), world.get(P1, &other)), (Ok(true), Ok(true)));
    world.rot(FileId::Pages, block);
    world.run(world.runtime.sleep(Duration::from_secs(60)));
    assert_eq!(world.run(world.engine.checkpoint(P1, &[])), Ok(()));
    assert_eq!(world.run(world.engine.flip()), Ok(()));
    let world = world.reopened();
    assert_eq!((world.get(P1, &changed), world.get(P1, &other)), (Ok(true), Ok(true)));
    assert_eq!(world.scrub(), []);
}

#[test]
fn a_partition_whose_pages_are_bad_is_dropped_and_keeps_nobody_from_merging() {
    let world = World::new();
    let leaves: Vec<u64> = world.leaves().into_iter().map(|(block, _)| block).collect();
    let blocks = world.disk.content(FileId::Pages).len() / BLOCK_BYTES;
    let inner = |block: &u64| {
        let content = world.disk.content(FileId::Pages);
        InnerView::open(&content[*block as usize * BLOCK_BYTES..][..BLOCK_BYTES]).is_ok()
    };
    let inner: Vec<u64> = (0..blocks as u64).filter(inner).collect();
    assert!(!inner.is_empty() && leaves.len() > 5);
    inner.iter().for_each(|&block| world.rot(FileId::Pages, block));
    let world = world.reopened();
    world.run(world.engine.drop_partition(P1, G1)).unwrap();
    world.run(world.engine.checkpoint(P2, &[])).unwrap();
    world.run(world.engine.flip()).unwrap();
    assert!(world.engine.merge_counts().unreleased > 0);
    let world = world.reopened();
    assert_eq!(world.get(P1, &key(3)), Err(ReadError::Unknown { id: P1 }));
    assert_eq!(world.get(P2, &key(3)), Ok(true));
}
