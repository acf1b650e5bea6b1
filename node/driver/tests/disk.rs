//! The disk on a real file system: what is appended is there after opening again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_driver::{
    Core, CoreConfig, DiskConfig, OpenError, Placement, SyncStrategy, UringDisk, limits::RING_BUFFER_BYTES,
    run_core,
};
use evenkeel_storage::{BLOCK_BYTES, Disk, FileId};
use std::{future::Future, path::Path, time::Instant};

const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
const SEGMENT: FileId = FileId::Segment(1);

/// A directory on the disk that holds the build, which the default temporary directory may not be on.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn on_a_core<T, Run>(test: impl FnOnce(Core) -> Run + Send + 'static) -> T
where
    T: Send + 'static,
    Run: Future<Output = T> + 'static,
{
    let config = CoreConfig { name: "test".to_owned(), placement: Placement::Unbound };
    run_core(config, test).unwrap().join().unwrap()
}

async fn open(core: &Core, path: &Path, strategy: Option<SyncStrategy>) -> UringDisk {
    core.open_disk(path, DiskConfig { strategy }).await.unwrap()
}

fn block(number: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_BYTES).map(|at| number.wrapping_mul(31).wrapping_add(at as u8)).collect()
}

#[test]
fn what_was_appended_is_read_back_after_opening_again() {
    for strategy in [SyncStrategy::Linked, SyncStrategy::Dsync] {
        let directory = directory();
        let path = directory.path().join("shard");
        on_a_core({
            let path = path.clone();
            move |core| async move {
                let disk = open(&core, &path, Some(strategy)).await;
                assert_eq!(disk.strategy(), strategy);
                disk.create(SEGMENT, SEGMENT_BYTES).await.unwrap();
                let mut offset = 0;
                for (number, blocks) in [(1u8, 1), (2, 2), (3, 63), (4, 64)] {
                    let mut buffer = disk.buffer(RING_BUFFER_BYTES);
                    buffer[..blocks * BLOCK_BYTES].copy_from_slice(&block(number, blocks));
                    let back = disk.append(SEGMENT, offset, buffer, blocks * BLOCK_BYTES).await.unwrap();
                    assert_eq!(back.len(), RING_BUFFER_BYTES);
                    offset += (blocks * BLOCK_BYTES) as u64;
                }
            }
        });
        on_a_core(move |core| async move {
            let disk = open(&core, &path, Some(strategy)).await;
            assert_eq!(disk.files().await.unwrap(), [(SEGMENT, SEGMENT_BYTES)]);
            let whole = disk.read(SEGMENT, 0, disk.buffer(SEGMENT_BYTES as usize)).await.unwrap();
            let written: Vec<u8> = [(1u8, 1), (2, 2), (3, 63), (4, 64)]
                .iter()
                .flat_map(|(n, blocks)| block(*n, *blocks))
                .collect();
            assert_eq!(whole[..written.len()], written);
            assert!(whole[written.len()..].iter().all(|byte| *byte == 0));
        });
    }
}

#[test]
fn appends_are_under_way_before_anyone_waits_and_when_nobody_does() {
    let directory = directory();
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let disk = open(&core, &path, None).await;
        disk.create(SEGMENT, SEGMENT_BYTES).await.unwrap();
        let mut waiting = Vec::new();
        for number in 0..16u8 {
            let mut buffer = disk.buffer(BLOCK_BYTES);
            buffer.copy_from_slice(&block(number, 1));
            let append = disk.append(SEGMENT, u64::from(number) * BLOCK_BYTES as u64, buffer, BLOCK_BYTES);
            // Every other one is dropped at once: it is written all the same.
            if number % 2 == 0 {
                waiting.push(append);
            }
        }
        for append in waiting {
            append.await.unwrap();
        }
        disk.sync(SEGMENT).await.unwrap();
        drop((disk, core));
    });
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        let read = disk.read(SEGMENT, 0, disk.buffer(16 * BLOCK_BYTES)).await.unwrap();
        for number in 0..16u8 {
            let at = usize::from(number) * BLOCK_BYTES;
            assert_eq!(read[at..at + BLOCK_BYTES], block(number, 1), "block {number}");
        }
    });
}

#[test]
fn an_executor_may_end_with_appends_under_way() {
    let directory = directory();
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        disk.create(SEGMENT, SEGMENT_BYTES).await.unwrap();
        for number in 0..8 {
            let mut buffer = disk.buffer(RING_BUFFER_BYTES);
            buffer.fill(7);
            drop(disk.append(SEGMENT, number * RING_BUFFER_BYTES as u64, buffer, RING_BUFFER_BYTES));
        }
    });
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        let bytes = 8 * RING_BUFFER_BYTES;
        let read = disk.read(SEGMENT, 0, disk.buffer(bytes)).await.unwrap();
        assert!(read.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn a_directory_is_opened_once_and_its_unfinished_files_are_removed() {
    let directory = directory();
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        let refused = core.open_disk(&path, DiskConfig::default()).await.unwrap_err();
        let OpenError::Locked { process, .. } = refused else { panic!("{refused}") };
        assert_eq!(process, Some(std::process::id()));
        std::fs::write(path.join("wal/segment-00000009.log.tmp"), b"half").unwrap();
        std::fs::write(path.join("wal/notes.txt"), b"not ours").unwrap();
        assert_eq!(disk.files().await.unwrap(), []);
        drop(disk);
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        assert_eq!(disk.files().await.unwrap(), []);
        assert!(!path.join("wal/segment-00000009.log.tmp").exists());
        assert!(path.join("wal/notes.txt").exists());
    });
}

#[test]
fn errors_say_what_was_attempted_and_where() {
    let directory = directory();
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        let missing = disk.read(SEGMENT, 0, disk.buffer(BLOCK_BYTES)).await.unwrap_err();
        assert_eq!((missing.operation, missing.source.kind), ("read", std::io::ErrorKind::NotFound));
        disk.create(SEGMENT, 2 * BLOCK_BYTES as u64).await.unwrap();
        let past_the_end =
            disk.read(SEGMENT, BLOCK_BYTES as u64, disk.buffer(2 * BLOCK_BYTES)).await.unwrap_err();
        assert_eq!((past_the_end.file, past_the_end.offset), (Some(SEGMENT), BLOCK_BYTES as u64));
        let again = disk.create(SEGMENT, BLOCK_BYTES as u64).await.unwrap_err();
        assert_eq!((again.operation, again.source.kind), ("create", std::io::ErrorKind::AlreadyExists));
    });
}

#[test]
fn the_self_test_chooses_a_strategy_and_reports_what_it_saw() {
    let directory = directory();
    let path = directory.path().to_owned();
    on_a_core(move |core| async move {
        let start = Instant::now();
        let disk = open(&core, &path, None).await;
        let test = disk.self_test().unwrap();
        println!("opened in {:?}: {test:?}", start.elapsed());
        assert_eq!(test.chosen, disk.strategy());
        assert!(test.appends > 0 && test.linked.p50_ns > 0 && test.dsync.tail_ns >= test.dsync.p50_ns);
        let start = Instant::now();
        disk.create(SEGMENT, SEGMENT_BYTES).await.unwrap();
        let first = start.elapsed();
        let start = Instant::now();
        disk.create(FileId::Segment(2), SEGMENT_BYTES).await.unwrap();
        println!("first file of 8 MiB made in {first:?}, second, paced, in {:?}", start.elapsed());
    });
}

#[test]
fn the_page_file_is_made_grows_by_zeros_and_is_found_again() {
    let directory = directory();
    let path = directory.path().to_owned();
    let step = 64 * BLOCK_BYTES as u64;
    on_a_core(move |core| async move {
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        disk.create(SEGMENT, SEGMENT_BYTES).await.unwrap();
        disk.create(FileId::Pages, step).await.unwrap();
        let mut buffer = disk.page_buffer(BLOCK_BYTES);
        buffer.fill(7);
        disk.write(FileId::Pages, step - BLOCK_BYTES as u64, buffer).await.unwrap();
        disk.extend(FileId::Pages, step, 3 * step).await.unwrap();
        // What an interrupted growth left is made zeros again.
        let mut buffer = disk.page_buffer(BLOCK_BYTES);
        buffer.fill(8);
        disk.write(FileId::Pages, 2 * step, buffer).await.unwrap();
        disk.extend(FileId::Pages, 2 * step, 3 * step).await.unwrap();
        drop(disk);
        let disk = open(&core, &path, Some(SyncStrategy::Linked)).await;
        let mut files = disk.files().await.unwrap();
        files.sort_unstable();
        assert_eq!(files, [(SEGMENT, SEGMENT_BYTES), (FileId::Pages, 3 * step)]);
        let whole = disk.page_buffer(3 * step as usize);
        let whole = disk.read(FileId::Pages, 0, whole).await.unwrap();
        let written = step as usize - BLOCK_BYTES..step as usize;
        assert!(
            whole.iter().enumerate().all(|(at, byte)| *byte == if written.contains(&at) { 7 } else { 0 })
        );
        std::fs::write(path.join("pages.dat.tmp"), b"half").unwrap();
        drop(disk);
        drop(open(&core, &path, Some(SyncStrategy::Linked)).await);
        assert!(!path.join("pages.dat.tmp").exists());
    });
}
