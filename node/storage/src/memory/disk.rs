//! The disk: files in memory, whose writes complete when the test says so, and that can be made to
//! fail in every way a device does.
//!
//! An append is *in flight* from its call until [`MemoryDisk::complete`]; only then is it durable. A
//! plain write is *cached* until the file is synced. [`MemoryDisk::cut_power`] makes the disk that a
//! machine finds after a power cut, sector by sector as the test chooses; [`MemoryDisk::kill_process`]
//! the one that a new process finds, which sees what is only cached. A disk made with
//! [`MemoryDisk::faulty`] chooses all this itself, from a seed, and adds [`Faults`].

use super::{
    faults::{Damage, DamageKind, Fate, FaultCounts, FaultState, Faults, Landing},
    media::{File, SECTOR_BYTES},
    operations::{State, Work, failure},
};
use crate::disk::{BLOCK_BYTES, Disk, DiskError, FileId};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, ready},
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

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

/// An append as it was submitted, or another write that a power cut met. Times count submissions and
/// completions of this disk.
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

/// A disk in memory. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Rc<RefCell<State>>,
}

impl MemoryDisk {
    /// An empty disk whose appends complete by themselves.
    pub fn automatic() -> Self {
        let disk = MemoryDisk::held();
        disk.state.borrow_mut().automatic = true;
        disk
    }

    /// An empty disk whose appends complete when [`complete`](Self::complete) is called.
    pub fn held() -> Self {
        MemoryDisk { state: Rc::new(RefCell::new(State::new(FaultState::new(Faults::default())))) }
    }

    /// An empty disk with faults, on which every operation takes its time: one completes whenever the
    /// executor has nothing else to do, or when [`complete_oldest`](Self::complete_oldest) is called.
    pub fn faulty(faults: Faults) -> Self {
        let mut state = State::new(FaultState::new(faults));
        state.holds_all = true;
        MemoryDisk { state: Rc::new(RefCell::new(state)) }
    }

    /// Makes appends complete by themselves, or not any longer.
    pub fn set_automatic(&self, automatic: bool) {
        self.state.borrow_mut().automatic = automatic;
    }

    /// Makes appends resolve before they are durable, and syncs do nothing: a device that lies about its
    /// flushes.
    pub fn set_lying(&self, lying: bool) {
        self.state.borrow_mut().lying = lying;
    }

    /// Makes the creation and growth of files fail, or work again.
    pub fn set_full(&self, full: bool) {
        self.state.borrow_mut().full = full;
    }

    /// Makes every append and sync from now on fail.
    pub fn break_down(&self) {
        let mut state = self.state.borrow_mut();
        state.broken = true;
        for operation in state.operations.values_mut() {
            if let (Work::Append { .. }, Some(waker)) = (&operation.work, operation.waker.take()) {
                waker.wake();
            }
        }
    }

    /// Changes the faults from now on; the seed stays what it was.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults.config = faults;
    }

    /// How often each fault happened, on this disk and those it came from by power cuts.
    pub fn fault_counts(&self) -> FaultCounts {
        self.state.borrow().faults.counts
    }

    /// All damage that nobody was told of, in the order it was done.
    pub fn damage(&self) -> Vec<Damage> {
        self.state.borrow().faults.damage.clone()
    }

    /// Changes one bit on the medium.
    pub fn rot(&self, file: FileId, offset: u64, bit: u32) {
        self.state.borrow_mut().rot(file, offset, bit);
    }

    /// Lets the next append, or the next other write, be lost or go elsewhere, and nobody be told; `random`
    /// says where it goes. Rot does not come with a write: see [`rot`](Self::rot).
    pub fn damage_next(&self, append: bool, kind: DamageKind, random: u64) {
        let fate = match kind {
            DamageKind::Lost => Fate::Lost,
            DamageKind::Misdirected => Fate::Misdirected(random),
            DamageKind::Rot => return,
        };
        let faults = &mut self.state.borrow_mut().faults;
        *(if append { &mut faults.next_append } else { &mut faults.next_write }) = Some(fate);
    }

    /// Lets the next append fail, with any of its sectors written.
    pub fn fail_next_append(&self) {
        self.state.borrow_mut().faults.next_append = Some(Fate::Failed);
    }

    /// Lets every operation, of whatever kind, wait for [`complete_operation`](Self::complete_operation).
    pub fn hold_everything(&self) {
        self.state.borrow_mut().holds_all = true;
    }

    /// Operations of every kind that were submitted from number `first` on, and are under way.
    pub fn operations_since(&self, first: u64) -> Vec<u64> {
        let state = self.state.borrow();
        let open = state.operations.range(first..).filter(|(_, operation)| operation.outcome.is_none());
        open.map(|(&id, _)| id).collect()
    }

    /// Completes an operation under way, by its number.
    pub fn complete_operation(&self, id: u64) {
        self.state.borrow_mut().finish(id);
    }

    /// Whether the appends up to this index in the [`history`](Self::history), and two behind it, are done.
    pub fn is_covered(&self, index: usize) -> bool {
        let state = self.state.borrow();
        let appends = state.history.get(..=index + 2);
        appends.is_some_and(|appends| appends.iter().all(|append| append.completed.is_some()))
    }

    /// The number of submissions and completions of appends so far.
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

    /// Operations of every kind that have not completed.
    pub fn operations_in_flight(&self) -> usize {
        self.state.borrow().ready(true).len()
    }

    /// Completes one append in flight, by its index in the [`history`](Self::history).
    pub fn complete(&self, index: usize) {
        let mut state = self.state.borrow_mut();
        let found = state.operations.iter().find_map(|(&id, operation)| match operation.work {
            Work::Append { index: of, .. } if of == index && operation.outcome.is_none() => Some(id),
            _ => None,
        });
        state.finish(found.expect("the append is in flight"));
    }

    /// Completes the oldest operation in flight, if there is one. With faults it may be another one,
    /// and slow ones are left out.
    pub fn complete_oldest(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let ready = state.ready(false);
        let Some(&oldest) = ready.first() else { return false };
        let mut chosen = oldest;
        let reordered_ppm = state.faults.config.reordered_ppm;
        if ready.len() > 1 && state.faults.happens(reordered_ppm) {
            chosen = ready[1 + state.faults.random.below(ready.len() as u64 - 1) as usize];
            state.faults.counts.reordered += 1;
        }
        state.finish(chosen);
        true
    }

    /// Completes the oldest operation in flight, however slow it is.
    pub(super) fn complete_slow(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let oldest = state.ready(true).first().copied();
        oldest.inspect(|&id| state.finish(id)).is_some()
    }

    /// A timer has fired: slow operations get on.
    pub(super) fn time_passed(&self) {
        for operation in self.state.borrow_mut().operations.values_mut() {
            operation.slow = operation.slow.saturating_sub(1);
        }
    }

    /// The bytes of a file as they would be read now.
    pub fn content(&self, file: FileId) -> Vec<u8> {
        self.state.borrow().files.get(&file).map(File::visible).unwrap_or_default()
    }

    /// Replaces the content of a file, durably; makes it if it is not there.
    pub fn set_content(&self, file: FileId, bytes: Vec<u8>) {
        self.state.borrow_mut().files.insert(file, File::durable(bytes));
    }

    /// The files.
    pub fn file_ids(&self) -> Vec<FileId> {
        self.state.borrow().files.keys().copied().collect()
    }

    /// The disk after a power cut: what is durable, and of each write that is in flight or cached the
    /// sectors that `lands` picks by the write's offset, the sector's index in it and their number.
    pub fn cut_power(&self, mut lands: impl FnMut(&Append, usize, usize) -> bool) -> MemoryDisk {
        let state = self.state.borrow();
        self.successor(state.files_after_power_off(|write, _| picked(write, &mut lands)), &state)
    }

    /// The disk that a new process finds after this one was killed: of each write in flight the
    /// sectors that `lands` picks are written, but only cached.
    pub fn kill_process(&self, mut lands: impl FnMut(&Append, usize, usize) -> bool) -> MemoryDisk {
        let state = self.state.borrow();
        self.successor(state.files_after_kill(|write| picked(write, &mut lands)), &state)
    }

    /// The disk after a power cut that this disk draws from its seed.
    pub fn power_off(&self) -> MemoryDisk {
        let state = &mut *self.state.borrow_mut();
        let mut faults = state.faults.clone();
        faults.counts.power_offs += 1;
        let mood = faults.mood();
        let mut files = state.files_after_power_off(|write, cached| {
            let landings = faults.landings(mood, write.bytes.len() / SECTOR_BYTES, SECTOR_BYTES);
            let lost = landings.iter().filter(|landing| **landing == Landing::Nothing).count() as u64;
            faults.counts.cache_sectors_lost += if cached { lost } else { 0 };
            landings
        });
        for (file, from, to) in state.growth_in_flight() {
            let blocks = (to - from) / BLOCK_BYTES as u64;
            let grown = from + faults.random.below(blocks + 1) * BLOCK_BYTES as u64;
            if let Some(file) = files.get_mut(&file) {
                file.extend(from.min(file.durable.len() as u64), grown);
            }
        }
        state.faults = faults;
        self.successor(files, state)
    }

    fn successor(&self, files: BTreeMap<FileId, File>, before: &State) -> MemoryDisk {
        let mut state = State::new(before.faults.clone());
        (state.files, state.automatic, state.holds_all) = (files, before.automatic, before.holds_all);
        MemoryDisk { state: Rc::new(RefCell::new(state)) }
    }

    fn submit(&self, work: Work, buffer: Option<MemoryBuffer>) -> Running {
        let id = self.state.borrow_mut().submit(work);
        Running { state: Rc::clone(&self.state), id, polled: false, buffer }
    }
}

fn picked(write: &Append, lands: &mut impl FnMut(&Append, usize, usize) -> bool) -> Vec<Landing> {
    let count = write.bytes.len() / SECTOR_BYTES;
    let landing = |index| if lands(write, index, count) { Landing::Whole } else { Landing::Nothing };
    (0..count).map(landing).collect()
}

/// Waits for an operation. Dropping it does not cancel.
struct Running {
    state: Rc<RefCell<State>>,
    id: u64,
    polled: bool,
    buffer: Option<MemoryBuffer>,
}

impl Future for Running {
    type Output = Result<MemoryBuffer, DiskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.state.borrow_mut();
        let operation = &state.operations[&this.id];
        let done = operation.outcome.is_some();
        if let (Work::Append { index, .. }, false) = (&operation.work, done) {
            let append = &state.history[*index];
            if state.broken {
                return Poll::Ready(Err(failure("append", append.file, append.offset, io::ErrorKind::Other)));
            }
            if state.lying && this.polled {
                return Poll::Ready(Ok(this.buffer.take().expect("polled once after it is ready")));
            }
        }
        if this.polled && state.automatic && !done {
            state.finish(this.id);
        }
        let (automatic, lying) = (state.automatic, state.lying);
        let operation = state.operations.get_mut(&this.id).expect("kept until its waiter is gone");
        if let Some(outcome) = operation.outcome.take() {
            operation.abandoned = true;
            let mut buffer = this.buffer.take().unwrap_or(MemoryBuffer(Box::default()));
            return Poll::Ready(outcome.map(|bytes| {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                buffer
            }));
        }
        this.polled = true;
        operation.waker = Some(context.waker().clone());
        if automatic || lying {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        let Some(operation) = state.operations.get_mut(&self.id) else { return };
        // Taken or not, an outcome that was there is of no use to anyone now.
        if operation.abandoned || operation.outcome.is_some() {
            state.operations.remove(&self.id);
        } else {
            operation.abandoned = true;
            operation.waker = None;
        }
    }
}

impl Disk for MemoryDisk {
    type Buffer = MemoryBuffer;

    fn buffer(&self, bytes: usize) -> MemoryBuffer {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks");
        MemoryBuffer(vec![0; bytes].into_boxed_slice())
    }

    fn page_buffer(&self, bytes: usize) -> MemoryBuffer {
        self.buffer(bytes)
    }

    fn files(&self) -> impl Future<Output = Result<Vec<(FileId, u64)>, DiskError>> {
        let state = self.state.borrow();
        ready(Ok(state.files.iter().map(|(&id, file)| (id, file.durable.len() as u64)).collect()))
    }

    async fn create(&self, file: FileId, bytes: u64) -> Result<(), DiskError> {
        self.submit(Work::Create { file, bytes }, None).await.map(drop)
    }

    async fn extend(&self, file: FileId, from: u64, to: u64) -> Result<(), DiskError> {
        check_whole_blocks(from, 0);
        check_whole_blocks(to, 0);
        self.submit(Work::Extend { file, from, to }, None).await.map(drop)
    }

    fn read(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        check_whole_blocks(offset, buffer.len());
        let bytes = buffer.len();
        self.submit(Work::Read { file, offset, bytes }, Some(buffer))
    }

    fn append(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
        bytes: usize,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        let work = {
            let state = &mut *self.state.borrow_mut();
            state.check_inside(file, offset, bytes);
            state.clock += 1;
            let submitted = state.clock;
            let bytes = Rc::from(&buffer[..bytes]);
            state.history.push(Append { file, offset, bytes, submitted, completed: None });
            Work::Append { index: state.history.len() - 1, fate: state.faults.fate(true) }
        };
        self.submit(work, Some(buffer))
    }

    fn write(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        let fate = {
            let state = &mut *self.state.borrow_mut();
            state.check_inside(file, offset, buffer.len());
            state.faults.fate(false)
        };
        let bytes = Rc::from(&buffer[..]);
        self.submit(Work::Write { file, offset, bytes, fate }, Some(buffer))
    }

    async fn sync(&self, file: FileId) -> Result<(), DiskError> {
        let flushed =
            self.state.borrow().files.get(&file).map(|file| file.cached.clone()).unwrap_or_default();
        self.submit(Work::Sync { file, flushed }, None).await.map(drop)
    }
}

impl State {
    fn check_inside(&self, file: FileId, offset: u64, bytes: usize) {
        check_whole_blocks(offset, bytes);
        let length = self.files.get(&file).map(|file| file.durable.len() as u64);
        let inside = length.is_some_and(|length| offset + bytes as u64 <= length);
        assert!(inside, "writes stay inside their file");
    }
}

fn check_whole_blocks(offset: u64, bytes: usize) {
    let whole = bytes.is_multiple_of(BLOCK_BYTES) && offset.is_multiple_of(BLOCK_BYTES as u64);
    assert!(whole, "{bytes} bytes at {offset} are not whole blocks");
}
