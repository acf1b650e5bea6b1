//! The files of a shard, opened for reading only: what is written through this is lost.
//!
//! Reads block, one after another; an offline look has nothing else to do.

use evenkeel_storage::{BLOCK_BYTES, Disk, DiskError, FileId, Runtime};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

const PAGES: &str = "pages.dat";
const SEGMENTS: &str = "wal";

/// The directory of one shard.
#[derive(Clone)]
pub struct ReadOnlyDisk {
    directory: Rc<Path>,
}

impl ReadOnlyDisk {
    /// The shard of this directory.
    pub fn new(directory: &Path) -> ReadOnlyDisk {
        ReadOnlyDisk { directory: directory.into() }
    }

    /// Where a file is.
    pub fn path(&self, file: FileId) -> PathBuf {
        match file {
            FileId::Pages => self.directory.join(PAGES),
            FileId::Segment(number) => self.directory.join(SEGMENTS).join(format!("segment-{number:08}.log")),
        }
    }

    fn list(&self) -> io::Result<Vec<(FileId, u64)>> {
        let mut found = Vec::new();
        let pages = self.path(FileId::Pages);
        if pages.exists() {
            found.push((FileId::Pages, whole_blocks(pages.metadata()?.len())));
        }
        for entry in std::fs::read_dir(self.directory.join(SEGMENTS))? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".log"));
            // What is being made has another name.
            let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
            found.push((FileId::Segment(number), entry.metadata()?.len()));
        }
        Ok(found)
    }
}

/// A page file that is being made longer may end anywhere.
fn whole_blocks(bytes: u64) -> u64 {
    bytes - bytes % BLOCK_BYTES as u64
}

impl Disk for ReadOnlyDisk {
    type Buffer = Vec<u8>;

    fn buffer(&self, bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    fn page_buffer(&self, bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    async fn files(&self) -> Result<Vec<(FileId, u64)>, DiskError> {
        self.list().map_err(|error| DiskError::new("list", None, 0, &error))
    }

    async fn create(&self, _: FileId, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    async fn extend(&self, _: FileId, _: u64, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    async fn read(&self, file: FileId, offset: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>, DiskError> {
        let failed = |error: io::Error| DiskError::new("read", Some(file), offset, &error);
        let opened = File::open(self.path(file)).map_err(failed)?;
        opened.read_exact_at(&mut buffer, offset).map_err(failed)?;
        Ok(buffer)
    }

    async fn append(&self, _: FileId, _: u64, buffer: Vec<u8>, _: usize) -> Result<Vec<u8>, DiskError> {
        Ok(buffer)
    }

    async fn write(&self, _: FileId, _: u64, buffer: Vec<u8>) -> Result<Vec<u8>, DiskError> {
        Ok(buffer)
    }

    async fn sync(&self, _: FileId) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Tokio's tasks and timers, on one thread.
#[derive(Clone)]
pub struct LocalRuntime(pub Instant);

impl Runtime for LocalRuntime {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wall_ns(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(duration)
    }

    fn random(&self) -> u64 {
        // Of a look only the name of a run is drawn, and none is begun.
        0
    }
}
