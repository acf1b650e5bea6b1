//! The disk: files in memory, whose writes complete when the test says so.
//!
//! An append is *in flight* from its call until [`MemoryDisk::complete`]; only then is it durable. A
//! plain write is *cached* until the file is synced. [`MemoryDisk::cut_power`] makes the disk that a
//! machine finds after a power cut, sector by sector as the test chooses; [`MemoryDisk::kill_process`]
//! the one that a new process finds, which sees what is only cached.

use crate::disk::{BLOCK_BYTES, Disk, DiskError, FileId};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, ready},
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Memory handed to the disk.
#[derive(Debug)]
pub struct MemoryBuffer(Box<[u8]>);

impl Deref for MemoryBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for MemoryBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// An append as it was submitted. Times count submissions and completions of this disk.
#[derive(Clone, Debug)]
pub struct Append {
    /// The file.
    pub file: FileId,
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub bytes: Rc<[u8]>,
    /// When it was submitted.
    pub submitted: u64,
    /// When it completed.
    pub completed: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Sectors written and not synced, by their number in the file.
    cached: BTreeMap<usize, Rc<[u8]>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileId, File>,
    /// All appends since the disk was made.
    history: Vec<Append>,
    wakers: BTreeMap<usize, Waker>,
    clock: u64,
    /// Appends complete by themselves, in order, each when it is waited for.
    automatic: bool,
    /// Appends resolve before they are durable.
    lying: bool,
    /// No file is made any more.
    full: bool,
    /// Every append and sync fails.
    broken: bool,
}

/// A disk in memory. A clone is the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Rc<RefCell<State>>,
}

impl MemoryDisk {
    /// An empty disk whose appends complete by themselves.
    pub fn automatic() -> Self {
        let disk = MemoryDisk::default();
        disk.state.borrow_mut().automatic = true;
        disk
    }

    /// An empty disk whose appends complete when [`complete`](Self::complete) is called.
    pub fn held() -> Self {
        MemoryDisk::default()
    }

    /// Makes appends complete by themselves, or not any longer.
    pub fn set_automatic(&self, automatic: bool) {
        self.state.borrow_mut().automatic = automatic;
    }

    /// Makes appends resolve before they are durable: a device that lies about its flushes.
    pub fn set_lying(&self, lying: bool) {
        self.state.borrow_mut().lying = lying;
    }

    /// Makes the creation of files fail, or work again.
    pub fn set_full(&self, full: bool) {
        self.state.borrow_mut().full = full;
    }

    /// Makes every append and sync from now on fail.
    pub fn break_down(&self) {
        let mut state = self.state.borrow_mut();
        state.broken = true;
        for waker in std::mem::take(&mut state.wakers).into_values() {
            waker.wake();
        }
    }

    /// The number of submissions and completions so far.
    pub fn clock(&self) -> u64 {
        self.state.borrow().clock
    }

    /// Every append so far.
    pub fn history(&self) -> Vec<Append> {
        self.state.borrow().history.clone()
    }

    /// How many appends there were so far.
    pub fn append_count(&self) -> usize {
        self.state.borrow().history.len()
    }

    /// Indexes in the [`history`](Self::history) of the appends in flight.
    pub fn in_flight(&self) -> Vec<usize> {
        let state = self.state.borrow();
        let open = |(index, append): (usize, &Append)| append.completed.is_none().then_some(index);
        state.history.iter().enumerate().filter_map(open).collect()
    }

    /// Completes one append in flight.
    pub fn complete(&self, index: usize) {
        let mut state = self.state.borrow_mut();
        state.finish(index);
        if let Some(waker) = state.wakers.remove(&index) {
            waker.wake();
        }
    }

    /// Completes the oldest append in flight, if there is one.
    pub fn complete_oldest(&self) -> bool {
        let oldest = self.in_flight().first().copied();
        oldest.inspect(|&index| self.complete(index)).is_some()
    }

    /// The bytes of a file as they would be read now.
    pub fn content(&self, file: FileId) -> Vec<u8> {
        self.state.borrow().files.get(&file).map(File::visible).unwrap_or_default()
    }

    /// Replaces the content of a file, durably; makes it if it is not there.
    pub fn set_content(&self, file: FileId, bytes: Vec<u8>) {
        self.state.borrow_mut().files.insert(file, File { durable: bytes, cached: BTreeMap::new() });
    }

    /// The files.
    pub fn file_ids(&self) -> Vec<FileId> {
        self.state.borrow().files.keys().copied().collect()
    }

    /// The disk after a power cut: what is durable, and of each write that is in flight or cached the
    /// sectors that `lands` picks by the write's offset, the sector's index in it and their number.
    pub fn cut_power(&self, mut lands: impl FnMut(&Append, usize, usize) -> bool) -> MemoryDisk {
        let state = self.state.borrow();
        let mut files = state.files.clone();
        for (&id, file) in &mut files {
            for (sector, bytes) in std::mem::take(&mut file.cached) {
                let offset = (sector * SECTOR_BYTES) as u64;
                let write = Append { file: id, offset, bytes, submitted: 0, completed: None };
                land(&mut file.durable, &write, |index, count| lands(&write, index, count));
            }
        }
        for append in state.history.iter().filter(|append| append.completed.is_none()) {
            if let Some(file) = files.get_mut(&append.file) {
                land(&mut file.durable, append, |index, count| lands(append, index, count));
            }
        }
        MemoryDisk::from_files(files, state.automatic)
    }

    /// The disk that a new process finds after this one was killed: of each append in flight the
    /// sectors that `lands` picks are written, but only cached.
    pub fn kill_process(&self, mut lands: impl FnMut(&Append, usize, usize) -> bool) -> MemoryDisk {
        let state = self.state.borrow();
        let mut files = state.files.clone();
        for append in state.history.iter().filter(|append| append.completed.is_none()) {
            let Some(file) = files.get_mut(&append.file) else { continue };
            let mut visible = file.visible();
            land(&mut visible, append, |index, count| lands(append, index, count));
            file.cache(append.offset, &visible, append.bytes.len());
        }
        MemoryDisk::from_files(files, state.automatic)
    }

    fn from_files(files: BTreeMap<FileId, File>, automatic: bool) -> MemoryDisk {
        MemoryDisk { state: Rc::new(RefCell::new(State { files, automatic, ..State::default() })) }
    }
}

/// Writes the sectors of `append` that `lands` picks.
fn land(bytes: &mut [u8], append: &Append, mut lands: impl FnMut(usize, usize) -> bool) {
    let start = usize::try_from(append.offset).expect("files are memory");
    let count = append.bytes.len() / SECTOR_BYTES;
    for index in 0..count {
        if lands(index, count) {
            let sector = index * SECTOR_BYTES..(index + 1) * SECTOR_BYTES;
            bytes[start + sector.start..start + sector.end].copy_from_slice(&append.bytes[sector]);
        }
    }
}

impl File {
    fn visible(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (sector, written) in &self.cached {
            bytes[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(written);
        }
        bytes
    }

    /// Caches `bytes` bytes at `offset` of what the whole file now looks like.
    fn cache(&mut self, offset: u64, file: &[u8], bytes: usize) {
        for sector in sectors(offset, bytes) {
            self.cached.insert(sector, Rc::from(&file[sector * SECTOR_BYTES..][..SECTOR_BYTES]));
        }
    }
}

impl State {
    fn finish(&mut self, index: usize) {
        self.clock += 1;
        let append = &mut self.history[index];
        assert!(append.completed.replace(self.clock).is_none(), "an append completes once");
        let append = append.clone();
        let file = self.files.get_mut(&append.file).expect("appends go to files that exist");
        land(&mut file.durable, &append, |_, _| true);
        for sector in sectors(append.offset, append.bytes.len()) {
            file.cached.remove(&sector);
        }
    }

    fn file(&mut self, operation: &'static str, id: FileId, offset: u64) -> Result<&mut File, DiskError> {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        self.files.get_mut(&id).ok_or_else(|| DiskError::new(operation, Some(id), offset, &missing))
    }
}

fn sectors(offset: u64, bytes: usize) -> std::ops::Range<usize> {
    let first = usize::try_from(offset).expect("files are memory") / SECTOR_BYTES;
    first..first + bytes / SECTOR_BYTES
}

fn failure(operation: &'static str, file: FileId, offset: u64, kind: io::ErrorKind) -> DiskError {
    DiskError::new(operation, Some(file), offset, &io::Error::from(kind))
}

/// Waits for an append.
struct Appending {
    state: Rc<RefCell<State>>,
    index: usize,
    polled: bool,
    buffer: Option<MemoryBuffer>,
}

impl Future for Appending {
    type Output = Result<MemoryBuffer, DiskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.state.borrow_mut();
        let append = &state.history[this.index];
        if state.broken && append.completed.is_none() {
            return Poll::Ready(Err(failure("append", append.file, append.offset, io::ErrorKind::Other)));
        }
        let due = this.polled && state.automatic;
        if due && append.completed.is_none() {
            state.finish(this.index);
        }
        if state.lying && this.polled || state.history[this.index].completed.is_some() {
            return Poll::Ready(Ok(this.buffer.take().expect("polled once after it is ready")));
        }
        this.polled = true;
        if state.automatic || state.lying {
            context.waker().wake_by_ref();
        } else {
            state.wakers.insert(this.index, context.waker().clone());
        }
        Poll::Pending
    }
}

impl Disk for MemoryDisk {
    type Buffer = MemoryBuffer;

    fn buffer(&self, bytes: usize) -> MemoryBuffer {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks");
        MemoryBuffer(vec![0; bytes].into_boxed_slice())
    }

    fn files(&self) -> impl Future<Output = Result<Vec<(FileId, u64)>, DiskError>> {
        let state = self.state.borrow();
        ready(Ok(state.files.iter().map(|(&id, file)| (id, file.durable.len() as u64)).collect()))
    }

    async fn create(&self, file: FileId, bytes: u64) -> Result<(), DiskError> {
        let mut state = self.state.borrow_mut();
        if state.full {
            return Err(failure("create", file, 0, io::ErrorKind::StorageFull));
        }
        let zeros = vec![0; usize::try_from(bytes).expect("files are memory")];
        let before = state.files.insert(file, File { durable: zeros, cached: BTreeMap::new() });
        assert!(before.is_none(), "a file is made once");
        Ok(())
    }

    async fn read(
        &self,
        file: FileId,
        offset: u64,
        mut buffer: MemoryBuffer,
    ) -> Result<MemoryBuffer, DiskError> {
        let mut state = self.state.borrow_mut();
        let found = state.file("read", file, offset)?;
        let start = usize::try_from(offset).expect("files are memory");
        let end = start + buffer.len();
        if end > found.durable.len() {
            return Err(failure("read", file, offset, io::ErrorKind::UnexpectedEof));
        }
        buffer.copy_from_slice(&found.durable[start..end]);
        for (sector, written) in found.cached.range(start / SECTOR_BYTES..end / SECTOR_BYTES) {
            buffer[sector * SECTOR_BYTES - start..][..SECTOR_BYTES].copy_from_slice(written);
        }
        Ok(buffer)
    }

    fn append(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
        bytes: usize,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        assert!(
            bytes.is_multiple_of(BLOCK_BYTES) && offset.is_multiple_of(BLOCK_BYTES as u64),
            "whole blocks"
        );
        let mut state = self.state.borrow_mut();
        let length = state.files.get(&file).map(|file| file.durable.len() as u64);
        assert!(
            length.is_some_and(|length| offset + bytes as u64 <= length),
            "appends stay inside their file"
        );
        state.clock += 1;
        let submitted = state.clock;
        let append = Append { file, offset, bytes: Rc::from(&buffer[..bytes]), submitted, completed: None };
        state.history.push(append);
        let index = state.history.len() - 1;
        Appending { state: Rc::clone(&self.state), index, polled: false, buffer: Some(buffer) }
    }

    async fn write(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
    ) -> Result<MemoryBuffer, DiskError> {
        let mut state = self.state.borrow_mut();
        let found = state.file("write", file, offset)?;
        for (sector, bytes) in sectors(offset, buffer.len()).zip(buffer.chunks(SECTOR_BYTES)) {
            found.cached.insert(sector, Rc::from(bytes));
        }
        Ok(buffer)
    }

    async fn sync(&self, file: FileId) -> Result<(), DiskError> {
        let mut state = self.state.borrow_mut();
        if state.broken {
            return Err(failure("sync", file, 0, io::ErrorKind::Other));
        }
        let file = state.file("sync", file, 0)?;
        file.durable = file.visible();
        file.cached.clear();
        Ok(())
    }
}
