//! The storage engine's disk: direct IO through the core's ring.
//!
//! Appends leave with the call, from registered memory to a registered file where the kernel allowed
//! that, and are durable when they resolve. An error, a short write included, is final: nothing here
//! tries again, because after a failed flush the kernel may have dropped what it could not write.
//!
//! It knows nothing of what is in the files.

use crate::{
    buffer::{BufferPool, RingBuffer},
    files,
    limits::{ZERO_SLICE_BYTES, ZERO_SLICES_IN_FLIGHT},
    ring::{Ring, RingFile, WriteMode},
    runtime::GlommioRuntime,
    self_test::{self, SelfTest},
    slabs::Slabs,
};
use evenkeel_storage::{BLOCK_BYTES, Disk, DiskError, FileId, Runtime};
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fs::File,
    future::Future,
    io,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

/// How an append becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStrategy {
    /// A write linked to an fdatasync.
    Linked,
    /// One write with `RWF_DSYNC`.
    Dsync,
}

/// How to open a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskConfig {
    /// The strategy to use; by default the self-test chooses.
    pub strategy: Option<SyncStrategy>,
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be made, read or written.
    #[error("data directory {} cannot be opened: {source}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another core of this one, has it open.
    #[error("data directory {} is in use{}", directory.display(), holder(*process))]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The process that says it holds the lock.
        process: Option<u32>,
    },
    /// The file system cannot do direct IO.
    #[error(
        "the file system of data directory {} refuses direct IO ({source}); choose a directory on ext4 or xfs",
        directory.display()
    )]
    DirectIo {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The self-test's writes failed.
    #[error("data directory {} cannot be written durably: {source}", directory.display())]
    SelfTest {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(String::new, |process| format!(" by process {process}"))
}

/// The files of one shard, opened by one core.
#[derive(Clone, Debug)]
pub struct UringDisk {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    ring: Rc<Ring>,
    pool: Rc<BufferPool>,
    slabs: Rc<Slabs>,
    background: GlommioRuntime,
    files: RefCell<HashMap<FileId, Rc<RingFile>>>,
    append_mode: WriteMode,
    self_test: Option<SelfTest>,
    /// Only held.
    _lock: File,
}

impl UringDisk {
    pub(crate) async fn open(
        ring: Rc<Ring>,
        background: GlommioRuntime,
        directory: &Path,
        config: DiskConfig,
    ) -> Result<UringDisk, OpenError> {
        let owned = directory.to_owned();
        let opened = blocking(move || {
            let lock = files::open_directory(&owned)?;
            let path = files::wal(&owned).join("self-test.tmp");
            let scratch = files::create_scratch(&path, ZERO_SLICE_BYTES as u64);
            // The name is not needed, only the file.
            let removed = std::fs::remove_file(&path);
            match (scratch, removed) {
                (Ok(scratch), Ok(())) => Ok((lock, scratch)),
                (Err(source), _) if source.kind() == io::ErrorKind::InvalidInput => {
                    Err(OpenError::DirectIo { directory: owned, source })
                }
                (Err(source), _) | (_, Err(source)) => Err(OpenError::Directory { directory: owned, source }),
            }
        });
        let (lock, scratch) = opened.await?;
        let pool = ring.pool();
        let self_test = match config.strategy {
            Some(_) => None,
            None => Some(
                self_test::run(&ring, &ring.file(scratch.into()))
                    .await
                    .map_err(|source| OpenError::SelfTest { directory: directory.to_owned(), source })?,
            ),
        };
        let strategy = config.strategy.or(self_test.map(|test| test.chosen)).unwrap_or(SyncStrategy::Linked);
        tracing::debug!(directory = %directory.display(), ?strategy, ?self_test, "disk opened");
        let append_mode = match strategy {
            _ if cfg!(feature = "unflushed") => {
                tracing::warn!("built without flushes: what is acknowledged is lost with the power");
                WriteMode::Plain
            }
            SyncStrategy::Linked => WriteMode::Linked,
            SyncStrategy::Dsync => WriteMode::Dsync,
        };
        let directory = directory.to_owned();
        let (slabs, files) = Default::default();
        let inner =
            Inner { directory, ring, pool, slabs, background, files, append_mode, self_test, _lock: lock };
        Ok(UringDisk { inner: Rc::new(inner) })
    }

    /// The strategy in use.
    pub fn strategy(&self) -> SyncStrategy {
        match self.inner.append_mode {
            WriteMode::Dsync => SyncStrategy::Dsync,
            WriteMode::Linked | WriteMode::Plain => SyncStrategy::Linked,
        }
    }

    /// What the self-test saw, if the strategy was not given.
    pub fn self_test(&self) -> Option<SelfTest> {
        self.inner.self_test
    }
}

impl Inner {
    /// The file, opened now if this process has not used it yet.
    fn file(&self, file: FileId) -> io::Result<Rc<RingFile>> {
        if let Some(open) = self.files.borrow().get(&file) {
            return Ok(Rc::clone(open));
        }
        let opened = self.ring.file(files::open(&self.directory, file)?);
        self.files.borrow_mut().insert(file, Rc::clone(&opened));
        Ok(opened)
    }

    async fn create(&self, file: FileId, bytes: u64) -> io::Result<()> {
        let directory = self.directory.clone();
        // A starting node waits for its first file; later ones are made ahead of need, behind requests.
        let first = self.files.borrow().is_empty();
        let created = blocking(move || files::create_temporary(&directory, file, bytes)).await?;
        let created = self.ring.file(created);
        self.fill_with_zeros(&created, 0..bytes, if first { ZERO_SLICES_IN_FLIGHT } else { 1 }).await?;
        self.ring.sync(&created).await?;
        let directory = self.directory.clone();
        blocking(move || files::publish(&directory, file)).await?;
        self.files.borrow_mut().insert(file, created);
        Ok(())
    }

    async fn extend(&self, file: FileId, bytes: Range<u64>) -> io::Result<()> {
        let open = self.file(file)?;
        let (directory, end) = (self.directory.clone(), bytes.end);
        blocking(move || files::reserve(&directory, file, end)).await?;
        self.fill_with_zeros(&open, bytes, 1).await?;
        // The length is what the file system needs to read the blocks back: the sync covers it.
        self.ring.sync(&open).await
    }

    /// Writes every block, so that later writes change data only and no metadata. With one slice in
    /// flight it pauses for as long as it writes: at most half of the device's time.
    async fn fill_with_zeros(
        &self,
        file: &Rc<RingFile>,
        bytes: Range<u64>,
        in_flight_max: usize,
    ) -> io::Result<()> {
        let mut buffers: Vec<_> = (0..in_flight_max).map(|_| RingBuffer::owned(ZERO_SLICE_BYTES)).collect();
        let mut in_flight = VecDeque::with_capacity(in_flight_max);
        let mut offset = bytes.start;
        loop {
            while offset < bytes.end
                && let Some(buffer) = buffers.pop()
            {
                let slice = (bytes.end - offset).min(ZERO_SLICE_BYTES as u64) as usize;
                in_flight.push_back(self.ring.write(file, offset, buffer, slice, WriteMode::Plain));
                offset += slice as u64;
            }
            let Some(write) = in_flight.pop_front() else { return Ok(()) };
            let start_ns = self.background.now_ns();
            let (written, buffer) = write.await;
            written?;
            buffers.push(buffer);
            if in_flight_max == 1 {
                let took = Duration::from_nanos(self.background.now_ns() - start_ns);
                self.background.sleep(took).await;
            }
        }
    }

    /// Begins a write at once.
    fn write(
        &self,
        operation: &'static str,
        file: FileId,
        offset: u64,
        buffer: RingBuffer,
        bytes: usize,
        mode: WriteMode,
    ) -> impl Future<Output = Result<RingBuffer, DiskError>> + use<> {
        check_whole_blocks(offset, bytes);
        let write = self.file(file).map(|open| self.ring.write(&open, offset, buffer, bytes, mode));
        let failed = move |error: &io::Error| DiskError::new(operation, Some(file), offset, error);
        async move {
            let (written, buffer) = write.map_err(|error| failed(&error))?.await;
            written.map_err(|error| failed(&error))?;
            Ok(buffer)
        }
    }
}

impl Disk for UringDisk {
    type Buffer = RingBuffer;

    fn buffer(&self, bytes: usize) -> RingBuffer {
        self.inner.pool.buffer(bytes)
    }

    fn page_buffer(&self, bytes: usize) -> RingBuffer {
        RingBuffer::page(&self.inner.slabs, bytes)
    }

    async fn files(&self) -> Result<Vec<(FileId, u64)>, DiskError> {
        let directory = self.inner.directory.clone();
        let listed = blocking(move || files::list(&directory)).await;
        listed.map_err(|error| DiskError::new("list", None, 0, &error))
    }

    async fn create(&self, file: FileId, bytes: u64) -> Result<(), DiskError> {
        check_whole_blocks(bytes, 0);
        let created = self.inner.create(file, bytes).await;
        created.map_err(|error| DiskError::new("create", Some(file), 0, &error))
    }

    async fn extend(&self, file: FileId, from: u64, to: u64) -> Result<(), DiskError> {
        check_whole_blocks(from, 0);
        check_whole_blocks(to, 0);
        assert!(from <= to, "a file grows");
        let extended = self.inner.extend(file, from..to).await;
        extended.map_err(|error| DiskError::new("extend", Some(file), from, &error))
    }

    async fn read(&self, file: FileId, offset: u64, buffer: RingBuffer) -> Result<RingBuffer, DiskError> {
        check_whole_blocks(offset, buffer.len());
        let failed = |error: &io::Error| DiskError::new("read", Some(file), offset, error);
        let open = self.inner.file(file).map_err(|error| failed(&error))?;
        let awake = self.inner.ring.reads().begin();
        let (read, buffer) = self.inner.ring.read(&open, offset, buffer).await;
        drop(awake);
        read.map_err(|error| failed(&error))?;
        Ok(buffer)
    }

    fn append(
        &self,
        file: FileId,
        offset: u64,
        buffer: RingBuffer,
        bytes: usize,
    ) -> impl Future<Output = Result<RingBuffer, DiskError>> {
        self.inner.write("append", file, offset, buffer, bytes, self.inner.append_mode)
    }

    fn write(
        &self,
        file: FileId,
        offset: u64,
        buffer: RingBuffer,
    ) -> impl Future<Output = Result<RingBuffer, DiskError>> {
        let bytes = buffer.len();
        self.inner.write("write", file, offset, buffer, bytes, WriteMode::Plain)
    }

    async fn sync(&self, file: FileId) -> Result<(), DiskError> {
        if cfg!(feature = "unflushed") {
            return Ok(());
        }
        let failed = |error: &io::Error| DiskError::new("sync", Some(file), 0, error);
        let open = self.inner.file(file).map_err(|error| failed(&error))?;
        self.inner.ring.sync(&open).await.map_err(|error| failed(&error))
    }
}

fn check_whole_blocks(offset: u64, bytes: usize) {
    let whole = offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES);
    assert!(whole, "{bytes} bytes at {offset} are not whole blocks");
}

/// Runs what blocks on the executor's helper thread.
async fn blocking<R: Send + 'static>(function: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(function).await
}
