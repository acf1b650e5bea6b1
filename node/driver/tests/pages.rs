//! The pages of a shard on a real file system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_driver::{Core, CoreConfig, DiskConfig, Placement, SyncStrategy, run_core};
use evenkeel_model::{ClusterId, NodeId, ShardId};
use evenkeel_storage::{
    BLOCK_BYTES,
    space::{Catalogue, PageKind, PageReference, Pages, PagesConfig},
};
use std::{path::PathBuf, time::Instant};

const PAGES: usize = 400;

fn config() -> PagesConfig {
    PagesConfig {
        cluster: ClusterId(7),
        node: NodeId(1),
        shard: ShardId(0),
        first_bytes: 2 * 1024 * 1024,
        step_bytes: 2 * 1024 * 1024,
        bytes_max: 64 * 1024 * 1024,
        cache_bytes: 1024 * 1024,
    }
}

fn bytes(number: usize) -> Vec<u8> {
    (0..2 * BLOCK_BYTES).map(|at| (at * 31 + number) as u8).collect()
}

async fn write_and_flip(core: Core, path: PathBuf) -> Vec<PageReference> {
    let disk = core.open_disk(&path, DiskConfig { strategy: Some(SyncStrategy::Linked) }).await.unwrap();
    let (pages, opened) = Pages::open(disk, core.runtime(), config()).await.unwrap();
    assert_eq!(opened.sequence, 0);
    let start = Instant::now();
    let mut batch = pages.batch();
    let mut references = Vec::new();
    for number in 0..PAGES {
        references.push(batch.write(&bytes(number), PageKind::Leaf).await.unwrap());
    }
    let mut finished = vec![batch.finish().await.unwrap()];
    let written = start.elapsed();
    let start = Instant::now();
    assert_eq!(pages.flip(&Catalogue::default(), &mut finished).await, Ok(1));
    println!(
        "{PAGES} pages written in {written:?}, flip in {:?}: {:?}",
        start.elapsed(),
        pages.write_counts()
    );
    assert!(pages.write_counts().growths > 0);
    pages.close().await;
    references
}

async fn read_back(core: Core, path: PathBuf, references: Vec<PageReference>) {
    let disk = core.open_disk(&path, DiskConfig { strategy: Some(SyncStrategy::Linked) }).await.unwrap();
    let (pages, opened) = Pages::open(disk, core.runtime(), config()).await.unwrap();
    assert_eq!((opened.sequence, opened.copies_healed), (1, 0));
    assert_eq!(pages.used().used_blocks, 2 * PAGES as u64 + pages.catalogue_blocks());
    let start = Instant::now();
    for (number, reference) in references.iter().enumerate() {
        let page = pages.read(*reference, PageKind::Leaf).await.unwrap();
        assert_eq!(page[..], bytes(number));
        assert_eq!(page.as_ptr() as usize % BLOCK_BYTES, 0, "handed out as the device wrote it");
    }
    println!("{PAGES} pages read in {:?}", start.elapsed());
    let counts = pages.cache_counts();
    assert_eq!(counts.device_reads, PAGES as u64);
    pages.close().await;
    assert!(counts.evictions > 0 && counts.bytes <= config().cache_bytes);
}

#[test]
fn pages_that_a_flip_refers_to_are_read_after_opening_again() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("shard");
    let core = || CoreConfig { name: "test".to_owned(), placement: Placement::Unbound };
    let of_first = path.clone();
    let written = run_core(core(), move |core| write_and_flip(core, of_first)).unwrap();
    let references = written.join().unwrap();
    run_core(core(), move |core| read_back(core, path, references)).unwrap().join().unwrap();
}
