//! The core's own io_uring ring: operations in, completions out, wakers woken.
//!
//! What is true of it:
//! - an operation is submitted by the call that makes it; its future only waits;
//! - memory and file of an operation live in its slot until the kernel's last completion for it has
//!   been seen, even if the future was dropped long before;
//! - nothing is retried: a result is handed over as the kernel gave it;
//! - in steady state nothing is allocated per operation.
//!
//! Completions that arrive while the core sleeps ring an eventfd, on which one task per core waits
//! through glommio ([`Ring::run`]). The ring knows nothing of what its operations mean.
#![expect(unsafe_code, reason = "io_uring's submission queue takes raw memory")]

use crate::{
    awake::Reads,
    buffer::{BufferPool, RingBuffer},
    limits::{RING_COMPLETIONS, RING_ENTRIES, RING_FILES_MAX},
    slots::Slots,
};
use glommio::io::BufferedFile;
use io_uring::{IoUring, opcode, squeue, types};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    io, mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How long tasks may keep coming before glommio looks at its rings and timers in between.
const LOOK_AFTER: Duration = Duration::from_millis(1);
const ENTER_GETEVENTS: u32 = 1;
/// Bits of an operation's user data that number its completions.
const PART_BITS: u32 = 1;
/// User data of completions that nobody waits for.
const UNHEARD: u64 = u64::MAX;

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Not before a later sync.
    Plain,
    /// A write linked to an fdatasync: two operations, the second only after a complete first.
    Linked,
    /// One write with `RWF_DSYNC`.
    Dsync,
}

/// An open file, registered with the ring if its table had room.
#[derive(Debug)]
pub struct RingFile {
    fd: OwnedFd,
    registered: Option<u32>,
    ring: Weak<Ring>,
}

impl Drop for RingFile {
    fn drop(&mut self) {
        if let (Some(index), Some(ring)) = (self.registered, self.ring.upgrade()) {
            ring.unregister_file(index);
        }
    }
}

/// What an operation owns while the kernel works on it.
#[derive(Debug, Default)]
struct Owned {
    buffer: Option<RingBuffer>,
    /// Only held: the kernel looks up the file of a linked operation when that operation starts.
    _file: Option<Rc<RingFile>>,
}

#[derive(Debug)]
struct Slot {
    /// Completions that the kernel still owes.
    outstanding: u8,
    results: [i32; 2],
    abandoned: bool,
    waker: Option<Waker>,
    owned: Owned,
}

/// The ring of one core.
pub struct Ring {
    uring: RefCell<IoUring>,
    slots: RefCell<Slots<Slot>>,
    woken: RefCell<Vec<Waker>>,
    free_files: RefCell<Vec<u32>>,
    /// The kernel can leave the completion out of an operation that succeeds (Linux 5.17).
    skips: bool,
    pool: RefCell<Option<Rc<BufferPool>>>,
    event: OwnedFd,
    stopped: Cell<bool>,
    /// Tasks that wait for the executor to look at its rings.
    paused: RefCell<Vec<Waker>>,
    /// When it last did.
    looked: Cell<Instant>,
    reads: Rc<Reads>,
}

impl Ring {
    /// A ring for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// What the kernel answered; see [`crate::CoreError`] for what that means.
    pub fn new() -> io::Result<Rc<Ring>> {
        let uring = build_uring()?;
        // SAFETY: eventfd takes no pointers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        // Without a table of files, operations name descriptors: a little slower, nothing else.
        let files =
            if uring.submitter().register_files_sparse(RING_FILES_MAX).is_ok() { RING_FILES_MAX } else { 0 };
        let skips = uring.params().is_feature_skip_cqe_on_success();
        Ok(Rc::new(Ring {
            skips,
            uring: RefCell::new(uring),
            slots: RefCell::new(Slots::with_capacity(RING_COMPLETIONS as usize)),
            woken: RefCell::new(Vec::with_capacity(RING_COMPLETIONS as usize)),
            free_files: RefCell::new((0..files).rev().collect()),
            pool: RefCell::new(None),
            event,
            stopped: Cell::new(false),
            paused: RefCell::default(),
            looked: Cell::new(Instant::now()),
            reads: Rc::default(),
        }))
    }

    /// The core's pool of buffers, registered with the ring when first asked for.
    pub fn pool(&self) -> Rc<BufferPool> {
        if let Some(pool) = &*self.pool.borrow() {
            return Rc::clone(pool);
        }
        let pool = BufferPool::new();
        let regions = pool.regions();
        let uring = self.uring.borrow();
        // SAFETY: the regions are the pool's pages, which live as long as the pool; the ring holds the
        // pool until the ring itself is gone.
        match unsafe { uring.submitter().register_buffers(&regions) } {
            Ok(()) => pool.set_registered(),
            Err(error) => tracing::warn!(
                %error,
                "log buffers could not be registered with io_uring, writes cost a little more CPU; \
                 raise the memlock limit (ulimit -l)"
            ),
        }
        *self.pool.borrow_mut() = Some(Rc::clone(&pool));
        pool
    }

    /// Takes an open file into the ring's table, if there is room.
    pub fn file(self: &Rc<Self>, fd: OwnedFd) -> Rc<RingFile> {
        let mut registered = self.free_files.borrow_mut().pop();
        if let Some(index) = registered {
            let updated = self.uring.borrow().submitter().register_files_update(index, &[fd.as_raw_fd()]);
            if updated.is_err() {
                self.free_files.borrow_mut().push(index);
                registered = None;
            }
        }
        Rc::new(RingFile { fd, registered, ring: Rc::downgrade(self) })
    }

    fn unregister_file(&self, index: u32) {
        // An entry that could not be cleared is not used again: it keeps a descriptor open, no more.
        if self.uring.borrow().submitter().register_files_update(index, &[-1]).is_ok() {
            self.free_files.borrow_mut().push(index);
        }
    }

    /// Writes the first `bytes` of `buffer`.
    pub fn write(
        self: &Rc<Self>,
        file: &Rc<RingFile>,
        offset: u64,
        buffer: RingBuffer,
        bytes: usize,
        mode: WriteMode,
    ) -> BufferOperation {
        assert!(bytes <= buffer.len(), "{bytes} bytes of a buffer of {}", buffer.len());
        let length = u32::try_from(bytes).expect("a buffer is smaller than 4 GiB");
        let flags = if mode == WriteMode::Dsync { libc::RWF_DSYNC } else { 0 };
        let address = buffer.address().cast_const();
        let write = match (file.registered, buffer.registered_index()) {
            (Some(index), Some(memory)) => {
                let write = opcode::WriteFixed::new(types::Fixed(index), address, length, memory);
                write.offset(offset).rw_flags(flags).build()
            }
            (None, Some(memory)) => {
                let write = opcode::WriteFixed::new(types::Fd(file.fd.as_raw_fd()), address, length, memory);
                write.offset(offset).rw_flags(flags).build()
            }
            (Some(index), None) => {
                let write = opcode::Write::new(types::Fixed(index), address, length);
                write.offset(offset).rw_flags(flags).build()
            }
            (None, None) => {
                let write = opcode::Write::new(types::Fd(file.fd.as_raw_fd()), address, length);
                write.offset(offset).rw_flags(flags).build()
            }
        };
        let owned = Owned { buffer: Some(buffer), _file: Some(Rc::clone(file)) };
        let link = squeue::Flags::IO_LINK;
        let operation = match mode {
            // The core is woken once: a write that fails says so, and then its sync says nothing.
            WriteMode::Linked if self.skips => {
                let entries = [write.flags(link | squeue::Flags::SKIP_SUCCESS), datasync(file)];
                self.submit_expecting(entries, owned, 1, [length.cast_signed(), 0])
            }
            WriteMode::Linked => self.submit([write.flags(link), datasync(file)], owned),
            WriteMode::Plain | WriteMode::Dsync => self.submit([write], owned),
        };
        BufferOperation { operation, bytes, linked: mode == WriteMode::Linked }
    }

    /// Fills all of `buffer`.
    pub fn read(self: &Rc<Self>, file: &Rc<RingFile>, offset: u64, buffer: RingBuffer) -> BufferOperation {
        let bytes = buffer.len();
        let length = u32::try_from(bytes).expect("a buffer is smaller than 4 GiB");
        let address = buffer.address();
        let read = match file.registered {
            Some(index) => opcode::Read::new(types::Fixed(index), address, length).offset(offset).build(),
            None => opcode::Read::new(types::Fd(file.fd.as_raw_fd()), address, length).offset(offset).build(),
        };
        let owned = Owned { buffer: Some(buffer), _file: Some(Rc::clone(file)) };
        BufferOperation { operation: self.submit([read], owned), bytes, linked: false }
    }

    /// Makes durable what was written to `file`.
    pub async fn sync(self: &Rc<Self>, file: &Rc<RingFile>) -> io::Result<()> {
        let owned = Owned { buffer: None, _file: Some(Rc::clone(file)) };
        let (results, _) = self.submit([datasync(file)], owned).await;
        check(results[0], 0)
    }

    /// Resolves when `fd` is ready for one of `events` (of `poll(2)`), or in error.
    pub fn poll(self: &Rc<Self>, fd: &impl AsFd, events: i16) -> Operation {
        let poll = opcode::PollAdd::new(types::Fd(fd.as_fd().as_raw_fd()), events as u32).build();
        self.submit([poll], Owned::default())
    }

    /// Hands operations to the kernel, at once.
    fn submit<const N: usize>(self: &Rc<Self>, entries: [squeue::Entry; N], owned: Owned) -> Operation {
        self.submit_expecting(entries, owned, N as u8, [0; 2])
    }

    /// The same where not every operation has a completion; `results` are those of the others.
    fn submit_expecting<const N: usize>(
        self: &Rc<Self>,
        entries: [squeue::Entry; N],
        owned: Owned,
        outstanding: u8,
        results: [i32; 2],
    ) -> Operation {
        const { assert!(N >= 1 && N <= 1 << PART_BITS) };
        let slot = Slot { outstanding, results, abandoned: false, waker: None, owned };
        let index = self.slots.borrow_mut().insert(slot);
        let mut part = 0;
        let entries = entries.map(|entry| {
            let data = u64::from(index) << PART_BITS | part;
            part += 1;
            entry.user_data(data)
        });
        {
            let mut uring = self.uring.borrow_mut();
            let mut queue = uring.submission();
            // SAFETY: the entries name memory and files that `owned` holds in the slot, which is freed
            // only after the kernel's last completion; polls name a descriptor and no memory.
            unsafe { queue.push_multiple(&entries) }.expect("every call empties the submission queue");
        }
        self.enter();
        self.reap();
        Operation { ring: Rc::clone(self), index: Some(index) }
    }

    /// Submits what is queued and lets the kernel finish what it has deferred to this thread.
    fn enter(&self) {
        loop {
            let result = {
                let mut uring = self.uring.borrow_mut();
                let queued = uring.submission().len() as u32;
                // SAFETY: no argument is passed, so there is no memory for the kernel to read.
                unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
            };
            match result {
                Ok(_) if self.uring.borrow_mut().submission().is_empty() => return,
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The kernel is short of memory or of room for completions: make room, try again.
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        self.reap();
                        std::thread::yield_now();
                    }
                    _ => panic!("io_uring refuses to work: {error}"),
                },
            }
        }
    }

    /// Hands completions that are already there to their operations; true if there were any. Costs
    /// no system call unless the kernel has deferred work to this thread.
    pub fn turn(&self) -> bool {
        let pending = {
            let mut uring = self.uring.borrow_mut();
            let queue = uring.submission();
            queue.taskrun() || queue.cq_overflow()
        };
        if pending {
            self.enter();
        }
        self.reap()
    }

    fn reap(&self) -> bool {
        let mut woken = mem::take(&mut *self.woken.borrow_mut());
        let mut released = Vec::new();
        let mut any = false;
        {
            let mut uring = self.uring.borrow_mut();
            let mut slots = self.slots.borrow_mut();
            for completion in uring.completion() {
                if completion.user_data() == UNHEARD {
                    continue;
                }
                any = true;
                let index = (completion.user_data() >> PART_BITS) as u32;
                let slot = slots.get_mut(index);
                slot.results[(completion.user_data() & ((1 << PART_BITS) - 1)) as usize] =
                    completion.result();
                slot.outstanding -= 1;
                if slot.outstanding == 0 {
                    match slot.abandoned {
                        true => released.push(slots.remove(index)),
                        false => woken.extend(slot.waker.take()),
                    }
                }
            }
        }
        // Wakers run other people's code, and a file's last reference comes back into the ring:
        // outside every borrow.
        for waker in woken.drain(..) {
            waker.wake();
        }
        *self.woken.borrow_mut() = woken;
        drop(released);
        any
    }

    /// Delivers completions until [`stop`](Self::stop); the core's one task that does so.
    pub async fn run(self: Rc<Self>) {
        let Ok(event) = self.event.try_clone() else {
            panic!("no file descriptor left for the core's ring; raise the nofile limit (ulimit -n)")
        };
        // SAFETY: the descriptor was just duplicated and ownership goes to the file.
        let event = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
        while !self.has_stopped() {
            let read = event.read_at(0, size_of::<u64>()).await;
            assert!(read.is_ok(), "the core's eventfd cannot be read: {:?}", read.err());
            self.looked.set(Instant::now());
            self.turn();
            for waker in self.paused.take() {
                waker.wake();
            }
        }
        // A file that is dropped unclosed at the end of the executor leaks its descriptor.
        drop(event.close().await);
    }

    /// Ends [`run`](Self::run).
    pub fn stop(&self) {
        self.stopped.set(true);
        self.reads.wake();
        self.ring_event();
    }

    /// Whether [`run`](Self::run) ends.
    pub fn has_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// The reads that the core stays awake for.
    pub fn reads(&self) -> Rc<Reads> {
        Rc::clone(&self.reads)
    }

    /// Gives every other ready task of the same queue its turn, and now and then the executor's timers and the
    /// other queues.
    pub async fn yield_now(&self) {
        if self.looked.get().elapsed() > LOOK_AFTER {
            self.let_executor_look().await;
        } else {
            glommio::executor().yield_now().await;
        }
    }

    /// Gives all other queues their turn, and now and then the executor's timers.
    pub async fn yield_queue_now(&self) {
        if self.looked.get().elapsed() > LOOK_AFTER {
            self.let_executor_look().await;
        } else {
            glommio::executor().yield_task_queue_now().await;
        }
    }

    /// Waits until all ready tasks have run and the executor has looked at its rings and timers.
    async fn let_executor_look(&self) {
        let mut asked = false;
        poll_fn(|context| {
            // Once it is stopped nobody looks for who asks.
            if mem::replace(&mut asked, true) || self.has_stopped() {
                return Poll::Ready(());
            }
            self.paused.borrow_mut().push(context.waker().clone());
            self.ring_event();
            Poll::Pending
        })
        .await;
    }

    /// Has [`run`](Self::run) woken as by a completion.
    fn ring_event(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes are read from an array of eight.
        let written = unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "an eventfd takes a count of one");
    }

    fn forget(&self, index: u32) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(index);
        slot.abandoned = true;
        let waker = slot.waker.take();
        let done = (slot.outstanding == 0).then(|| slots.remove(index));
        // Dropping a waker or a file's last reference may come back into the ring.
        drop(slots);
        drop((waker, done));
    }

    /// Cancels what can be cancelled and waits for all that cannot.
    fn drain(&mut self) {
        let uring = self.uring.get_mut();
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build().user_data(UNHEARD);
        // SAFETY: a cancellation names no memory.
        let pushed = unsafe { uring.submission().push(&cancel) };
        let mut cancelled = pushed.is_ok();
        while cancelled && !self.slots.get_mut().is_empty() {
            cancelled = self.uring.get_mut().submit_and_wait(1).is_ok();
            self.reap();
        }
        if !cancelled {
            // The kernel may still touch the memory of what is under way: leak it.
            mem::forget(mem::replace(self.slots.get_mut(), Slots::with_capacity(0)));
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("under_way", &self.slots.borrow().len()).finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.slots.get_mut().is_empty() {
            self.drain();
        }
    }
}

fn build_uring() -> io::Result<IoUring> {
    let modern = IoUring::builder()
        .setup_cqsize(RING_COMPLETIONS)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(RING_ENTRIES);
    match modern {
        // Kernels before 6.1 know neither flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_cqsize(RING_COMPLETIONS).build(RING_ENTRIES)
        }
        built => built,
    }
}

fn datasync(file: &RingFile) -> squeue::Entry {
    let flags = types::FsyncFlags::DATASYNC;
    match file.registered {
        Some(index) => opcode::Fsync::new(types::Fixed(index)).flags(flags).build(),
        None => opcode::Fsync::new(types::Fd(file.fd.as_raw_fd())).flags(flags).build(),
    }
}

/// The kernel's result against what a whole operation returns.
fn check(result: i32, expected: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Ok(done) if done == expected => Ok(()),
        Ok(done) => Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("only {done} of {expected} bytes were transferred"),
        )),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}

/// An operation under way. Dropping it leaves the operation to run to its end.
#[derive(Debug)]
#[must_use = "an operation's result must be looked at"]
pub struct Operation {
    ring: Rc<Ring>,
    index: Option<u32>,
}

impl Operation {
    /// Whether the result is there.
    pub fn is_done(&self) -> bool {
        self.index.is_none_or(|index| self.ring.slots.borrow_mut().get_mut(index).outstanding == 0)
    }
}

impl Future for Operation {
    type Output = ([i32; 2], Option<RingBuffer>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.index.expect("an operation is not polled after it was done");
        let slot = {
            let mut slots = self.ring.slots.borrow_mut();
            let slot = slots.get_mut(index);
            if slot.outstanding > 0 {
                if slot.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                    let old = slot.waker.replace(context.waker().clone());
                    drop(slots);
                    drop(old);
                }
                return Poll::Pending;
            }
            slots.remove(index)
        };
        self.index = None;
        Poll::Ready((slot.results, slot.owned.buffer))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.ring.forget(index);
        }
    }
}

/// A read or write under way; gives the buffer back.
#[derive(Debug)]
#[must_use = "an operation's result must be looked at"]
pub struct BufferOperation {
    operation: Operation,
    bytes: usize,
    linked: bool,
}

impl Future for BufferOperation {
    type Output = (io::Result<()>, RingBuffer);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (results, buffer) = std::task::ready!(Pin::new(&mut self.operation).poll(context));
        let mut outcome = check(results[0], self.bytes);
        if self.linked && outcome.is_ok() {
            outcome = check(results[1], 0);
        }
        Poll::Ready((outcome, buffer.expect("an operation on a buffer gives it back")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{CoreConfig, Placement, run_core};
    use std::fs::OpenOptions;

    /// Writes a block durably to a file opened so, again and again; yields how that went at last.
    fn write_linked(options: &OpenOptions, skips: bool) -> io::Result<()> {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let fd = OwnedFd::from(options.open(&path).unwrap());
        let config = CoreConfig { name: "ring".to_owned(), placement: Placement::Unbound };
        let core = run_core(config, move |_| async move {
            let mut ring = Ring::new().unwrap();
            let own = Rc::get_mut(&mut ring).expect("it is new");
            own.skips &= skips;
            let runner = glommio::spawn_local(ring.clone().run());
            let file = ring.file(fd);
            let mut last = Ok(());
            for _ in 0..100 {
                let written = ring.write(&file, 0, ring.pool().buffer(4096), 4096, WriteMode::Linked).await;
                last = written.0;
            }
            ring.stop();
            runner.await;
            last.map_err(|error| error.raw_os_error())
        });
        core.unwrap().join().unwrap().map_err(|code| io::Error::from_raw_os_error(code.unwrap()))
    }

    #[test]
    fn a_linked_write_says_once_how_it_went() {
        for skips in [false, true] {
            write_linked(OpenOptions::new().write(true), skips).unwrap();
            let error = write_linked(OpenOptions::new().read(true), skips).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
    }
}
