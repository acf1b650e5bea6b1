//! What the pages of a shard promise, one thing at a time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::{ClusterId, NodeId, ShardId};
use evenkeel_storage::{
    BLOCK_BYTES, FileId, OpenError, Runtime,
    memory::{CERTAIN_PPM, Faults, MemoryDisk, TestRuntime},
    space::{Batch, Catalogue, OpenedPages, PageKind, Pages, PagesConfig, SpaceError},
};
use std::{future::Future, time::Duration};

type TestPages = Pages<MemoryDisk, TestRuntime>;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn config() -> PagesConfig {
    PagesConfig {
        cluster: ClusterId(0xC1),
        node: NodeId(3),
        shard: ShardId(1),
        first_bytes: 256 * BLOCK,
        step_bytes: 256 * BLOCK,
        bytes_max: 1024 * BLOCK,
        cache_bytes: 64 * BLOCK,
    }
}

fn open(disk: &MemoryDisk, config: PagesConfig) -> Result<(TestRuntime, TestPages, OpenedPages), OpenError> {
    let runtime = TestRuntime::new(1);
    let opening = Pages::open(disk.clone(), runtime.clone(), config);
    runtime.block_on(disk, opening).map(|(pages, opened)| (runtime, pages, opened))
}

fn new() -> (MemoryDisk, TestRuntime, TestPages) {
    let disk = MemoryDisk::faulty(Faults::default());
    let (runtime, pages, _) = open(&disk, config()).unwrap();
    (disk, runtime, pages)
}

fn page(byte: u8, blocks: usize) -> Vec<u8> {
    vec![byte; blocks * BLOCK_BYTES]
}

async fn flip(pages: &TestPages, batch: Batch<MemoryDisk, TestRuntime>) -> Result<u64, SpaceError> {
    let mut finished = vec![batch.finish().await?];
    pages.flip(&Catalogue::default(), &mut finished).await
}

#[test]
fn a_page_is_read_back_after_a_flush_and_its_blocks_are_kept_by_a_flip() {
    let (disk, runtime, pages) = new();
    let large = runtime.block_on(&disk, async {
        let mut batch = pages.batch();
        let small = batch.write(&page(1, 2), PageKind::Leaf).await.unwrap();
        let inner = batch.write(&page(2, 1), PageKind::Inner).await.unwrap();
        // The largest item, in an extent of its own.
        let large = batch.write(&page(3, 101), PageKind::Leaf).await.unwrap();
        batch.flush().await.unwrap();
        let read = |reference, kind| pages.read(reference, kind);
        assert_eq!(read(small, PageKind::Leaf).await.unwrap()[..], page(1, 2));
        assert_eq!(pages.cache_counts().device_reads, 1);
        assert_eq!(read(inner, PageKind::Inner).await.unwrap()[..], page(2, 1));
        assert_eq!(pages.cache_counts().device_reads, 1, "inner pages are kept when they are written");
        assert_eq!(flip(&pages, batch).await, Ok(1));
        large
    });
    let disk = disk.cut_power(|_, _, _| false);
    let (runtime, pages, opened) = open(&disk, config()).unwrap();
    assert_eq!((opened.sequence, opened.copies_healed), (1, 0));
    assert_eq!(pages.used().used_blocks, 104 + pages.catalogue_blocks());
    let read = runtime.block_on(&disk, pages.read_from_device(large)).unwrap();
    assert_eq!(read[..], page(3, 101));
}

#[test]
fn bursts_are_at_most_256_kib_and_each_is_flushed() {
    let (disk, runtime, pages) = new();
    runtime.block_on(&disk, async {
        let mut batch = pages.batch();
        for byte in 0..65 {
            batch.write(&page(byte, 1), PageKind::Leaf).await.unwrap();
        }
        batch.flush().await.unwrap();
        assert_eq!(pages.write_counts().bursts, 2);
        batch.write(&page(7, 101), PageKind::Leaf).await.unwrap();
        batch.flush().await.unwrap();
        let counts = pages.write_counts();
        assert_eq!((counts.pages, counts.bursts, counts.bytes), (66, 4, 166 * BLOCK));
    });
}

#[test]
fn a_batch_that_is_dropped_leaves_nothing_behind_once_its_writes_are_done() {
    let (disk, runtime, pages) = new();
    let mut batch = pages.batch();
    runtime.block_on(&disk, async {
        for byte in 0..70 {
            batch.write(&page(byte, 1), PageKind::Leaf).await.unwrap();
        }
    });
    runtime.run_ready();
    assert!(disk.operations_in_flight() > 0);
    drop(batch);
    assert_eq!(pages.used().unpublished_blocks, 70, "a write under way would hit the next owner");
    runtime.block_on(&disk, runtime.sleep(Duration::from_secs(1)));
    assert_eq!((pages.used().used_blocks, pages.used().unpublished_blocks), (0, 0));
    runtime.block_on(&disk, async {
        let mut batch = pages.batch();
        batch.write(&page(1, 5), PageKind::Leaf).await.unwrap();
        drop(batch.finish().await.unwrap());
    });
    assert_eq!((pages.used().used_blocks, pages.used().unpublished_blocks), (0, 0));
}

#[test]
fn released_blocks_are_free_after_the_flip_and_the_pins_before_it() {
    let (disk, runtime, pages) = new();
    runtime.block_on(&disk, async {
        let mut batch = pages.batch();
        let reference = batch.write(&page(1, 50), PageKind::Leaf).await.unwrap();
        flip(&pages, batch).await.unwrap();
        let pin = pages.pin();
        let also = pin.clone();
        let mut batch = pages.batch();
        batch.release(reference.extent);
        assert_eq!(pages.used().pending_blocks, 0, "a batch counts when it is flipped");
        flip(&pages, batch).await.unwrap();
        assert!(pages.used().pinned_blocks >= 50);
        assert_eq!(pages.read_from_device(reference).await.unwrap()[..], page(1, 50));
        drop(pin);
        flip(&pages, pages.batch()).await.unwrap();
        assert!(pages.used().pinned_blocks >= 50, "the other pin keeps it");
        drop(also);
        flip(&pages, pages.batch()).await.unwrap();
        assert!(pages.used().pinned_blocks < 50);
    });
}

#[test]
fn a_full_file_refuses_and_a_flip_that_was_refused_can_be_repeated() {
    let (disk, runtime, pages) = new();
    runtime.block_on(&disk, async {
        let mut keep = pages.batch();
        let kept = keep.write(&page(9, 3), PageKind::Leaf).await.unwrap();
        let mut finished = vec![keep.finish().await.unwrap()];
        let mut filler = pages.batch();
        let error = loop {
            if let Err(error) = filler.write(&page(1, 1), PageKind::Leaf).await {
                break error;
            }
        };
        let max = config().bytes_max;
        assert_eq!(error, SpaceError::Full { used: max, max });
        let flipped = pages.flip(&Catalogue::default(), &mut finished).await;
        assert!(matches!(flipped, Err(SpaceError::Full { .. })) && finished.len() == 1);
        drop(filler);
        runtime.sleep(Duration::from_millis(1)).await;
        assert_eq!(pages.flip(&Catalogue::default(), &mut finished).await, Ok(1));
        assert!(finished.is_empty());
        assert_eq!(pages.read_from_device(kept).await.unwrap()[..], page(9, 3));
        assert_eq!(pages.write_counts().growths, 3);
    });
}

#[test]
fn a_file_system_without_space_refuses_until_there_is_some() {
    let (disk, runtime, pages) = new();
    disk.set_faults(Faults { capacity_bytes: Some(256 * BLOCK), ..Faults::default() });
    runtime.block_on(&disk, async {
        let mut batch = pages.batch();
        let large = page(1, 150);
        batch.write(&large, PageKind::Leaf).await.unwrap();
        let full = batch.write(&large, PageKind::Leaf).await.unwrap_err();
        assert!(matches!(full, SpaceError::Full { .. }), "{full}");
        disk.set_faults(Faults::default());
        batch.write(&large, PageKind::Leaf).await.unwrap();
        flip(&pages, batch).await.unwrap();
    });
    assert_eq!(pages.used().used_blocks, 300 + pages.catalogue_blocks());
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_written_any_more_and_pages_are_still_read() {
    for faults in [
        Faults { write_error_ppm: CERTAIN_PPM, ..Faults::default() },
        Faults { sync_error_ppm: CERTAIN_PPM, ..Faults::default() },
    ] {
        let (disk, runtime, pages) = new();
        runtime.block_on(&disk, async {
            let mut batch = pages.batch();
            let reference = batch.write(&page(1, 1), PageKind::Leaf).await.unwrap();
            flip(&pages, batch).await.unwrap();
            disk.set_faults(faults);
            let mut batch = pages.batch();
            batch.write(&page(2, 1), PageKind::Leaf).await.unwrap();
            assert!(matches!(batch.finish().await, Err(SpaceError::Failed(_))));
            disk.set_faults(Faults::default());
            let mut batch = pages.batch();
            let refused = batch.write(&page(2, 1), PageKind::Leaf).await.unwrap_err();
            assert_eq!(Some(refused.clone()), pages.failed());
            assert_eq!(pages.flip(&Catalogue::default(), &mut Vec::new()).await, Err(refused));
            assert_eq!(pages.read_from_device(reference).await.unwrap()[..], page(1, 1));
        });
    }
}

#[test]
fn a_flip_whose_caller_left_is_finished_before_the_next_one() {
    let (disk, runtime, pages) = new();
    let catalogue = Catalogue::default();
    let mut finished = Vec::new();
    {
        let mut flip = std::pin::pin!(pages.flip(&catalogue, &mut finished));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(flip.as_mut().poll(&mut context).is_pending());
        runtime.run_ready();
        assert!(disk.operations_in_flight() > 0);
    }
    assert_eq!(runtime.block_on(&disk, pages.flip(&catalogue, &mut Vec::new())), Ok(2));
    assert_eq!((pages.durable(), pages.write_counts().flips), (2, 2));
}

#[test]
fn a_file_of_another_cluster_node_or_shard_or_a_short_one_is_refused() {
    let (disk, runtime, pages) = new();
    runtime.block_on(&disk, flip(&pages, pages.batch())).unwrap();
    let refused = |config| open(&disk, config).err();
    let file = FileId::Pages;
    assert_eq!(
        refused(PagesConfig { cluster: ClusterId(9), ..config() }),
        Some(OpenError::WrongCluster { file, expected: ClusterId(9), found: ClusterId(0xC1) })
    );
    assert_eq!(
        refused(PagesConfig { node: NodeId(9), ..config() }),
        Some(OpenError::WrongNode { file, expected: NodeId(9), found: NodeId(3) })
    );
    assert_eq!(
        refused(PagesConfig { shard: ShardId(9), ..config() }),
        Some(OpenError::WrongShard { file, expected: ShardId(9), found: 1 })
    );
    assert!(matches!(refused(PagesConfig { step_bytes: 4096, ..config() }), Some(OpenError::Config { .. })));
    let content = disk.content(file);
    disk.set_content(file, content[..content.len() - BLOCK_BYTES].to_vec());
    assert!(matches!(refused(config()), Some(OpenError::Corrupt { .. })));
    disk.set_content(file, content);
    assert_eq!(refused(config()), None);
}

#[test]
fn a_superblock_that_is_gone_is_damage_if_there_are_pages_and_a_new_file_if_there_are_none() {
    let (disk, runtime, pages) = new();
    let mut content = disk.content(FileId::Pages);
    content[..64 * BLOCK_BYTES].fill(0);
    disk.set_content(FileId::Pages, content);
    assert_eq!(open(&disk, config()).unwrap().2.sequence, 0);
    runtime.block_on(&disk, flip(&pages, pages.batch())).unwrap();
    let mut content = disk.content(FileId::Pages);
    content[..64 * BLOCK_BYTES].fill(0);
    disk.set_content(FileId::Pages, content);
    assert!(matches!(open(&disk, config()), Err(OpenError::Corrupt { offset: 0, .. })));
}

#[test]
fn a_catalogue_with_any_flipped_bit_is_reported_with_its_place() {
    let (disk, runtime, pages) = new();
    runtime.block_on(&disk, flip(&pages, pages.batch())).unwrap();
    let content = disk.content(FileId::Pages);
    let magic = 0x454B_4354u32.to_le_bytes();
    let at = content.chunks(BLOCK_BYTES).position(|block| block[..4] == magic).unwrap() as u64 * BLOCK;
    for bit in (0..pages.catalogue_blocks() * BLOCK * 8).step_by(1001) {
        let damaged = MemoryDisk::automatic();
        damaged.set_content(FileId::Pages, content.clone());
        damaged.rot(FileId::Pages, at + bit / 8, (bit % 8) as u32);
        let error = open(&damaged, config()).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { offset, .. } if offset == at), "{error}");
    }
}
