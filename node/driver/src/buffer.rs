//! Memory for direct IO: owned, aligned to a block, some of it registered with the ring.
//!
//! A [`RingBuffer`] is memory of its own, a slot of the core's [`Slabs`], or one of the few buffers that the core
//! registered with its ring at start; the last two go back to where they came from when dropped. The operation that
//! reads or fills a buffer owns it, so there is never a reference to memory that the kernel writes.
#![expect(unsafe_code, reason = "aligned allocation, and slices over it")]

use crate::{
    limits::{RING_BUFFER_BYTES, RING_BUFFERS},
    slabs::{Slabs, Slot},
};
use evenkeel_storage::BLOCK_BYTES;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
    ptr::NonNull,
    rc::Rc,
};

/// Zeroed pages from the allocator.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    fn layout(bytes: usize) -> Layout {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "{bytes} bytes are not whole blocks");
        Layout::from_size_align(bytes, BLOCK_BYTES).expect("a buffer is far smaller than the address space")
    }

    fn zeroed(bytes: usize) -> Self {
        let layout = Pages::layout(bytes);
        // SAFETY: the layout's size is not zero, checked just before.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Pages { start, bytes }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), Pages::layout(self.bytes)) }
    }
}

/// The buffers of one core that are registered with its ring.
#[derive(Debug)]
pub struct BufferPool {
    pages: Vec<Pages>,
    free: RefCell<Vec<u16>>,
    registered: Cell<bool>,
}

impl BufferPool {
    pub fn new() -> Rc<BufferPool> {
        Rc::new(BufferPool {
            pages: (0..RING_BUFFERS).map(|_| Pages::zeroed(RING_BUFFER_BYTES)).collect(),
            free: RefCell::new((0..RING_BUFFERS as u16).collect()),
            registered: Cell::new(false),
        })
    }

    /// What the kernel is to pin.
    pub fn regions(&self) -> Vec<libc::iovec> {
        let region =
            |pages: &Pages| libc::iovec { iov_base: pages.start.as_ptr().cast(), iov_len: pages.bytes };
        self.pages.iter().map(region).collect()
    }

    /// Notes that the kernel has taken [`regions`](Self::regions) under their indices.
    pub fn set_registered(&self) {
        self.registered.set(true);
    }

    /// A zeroed buffer of `bytes`, one of the pool's if it fits and one is free.
    pub fn buffer(self: &Rc<Self>, bytes: usize) -> RingBuffer {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "{bytes} bytes are not whole blocks");
        // A small buffer would keep a whole registered one from the log.
        let fits = bytes <= RING_BUFFER_BYTES && bytes > RING_BUFFER_BYTES / 8;
        let index = if fits { self.free.borrow_mut().pop() } else { None };
        match index {
            Some(index) => {
                let memory = Memory::Pooled { pool: Rc::clone(self), index };
                let mut buffer = RingBuffer { memory, bytes };
                buffer.fill(0);
                buffer
            }
            None => RingBuffer::owned(bytes),
        }
    }
}

#[derive(Debug)]
enum Memory {
    Owned(Pages),
    Slot(Slot),
    Pooled { pool: Rc<BufferPool>, index: u16 },
}

/// Memory aligned to a block, whole blocks long.
#[derive(Debug)]
pub struct RingBuffer {
    memory: Memory,
    bytes: usize,
}

impl RingBuffer {
    /// A zeroed buffer with memory of its own.
    pub fn owned(bytes: usize) -> RingBuffer {
        RingBuffer { memory: Memory::Owned(Pages::zeroed(bytes)), bytes }
    }

    /// A buffer for a page, which is kept for long, with whatever it held before.
    pub fn page(slabs: &Rc<Slabs>, bytes: usize) -> RingBuffer {
        match slabs.slot(bytes) {
            Some(slot) => RingBuffer { memory: Memory::Slot(slot), bytes },
            None => RingBuffer::owned(bytes),
        }
    }

    fn start(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::Owned(pages) => pages.start,
            Memory::Slot(slot) => slot.start(),
            Memory::Pooled { pool, index } => pool.pages[usize::from(*index)].start,
        }
    }

    /// Where the kernel finds the memory. It stays there until the buffer is dropped, wherever the
    /// buffer itself is moved.
    pub(crate) fn address(&self) -> *mut u8 {
        self.start().as_ptr()
    }

    /// The index under which the ring knows this memory, if it does.
    pub(crate) fn registered_index(&self) -> Option<u16> {
        match &self.memory {
            Memory::Pooled { pool, index } if pool.registered.get() => Some(*index),
            _ => None,
        }
    }
}

impl Drop for RingBuffer {
    fn drop(&mut self) {
        if let Memory::Pooled { pool, index } = &self.memory {
            pool.free.borrow_mut().push(*index);
        }
    }
}

impl Deref for RingBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pages behind `start` are at least `bytes` long, initialised (zeroed when they were
        // allocated), and only this buffer refers to them while it lives.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.bytes) }
    }
}

impl DerefMut for RingBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_zeroed_however_often_it_was_used() {
        let pool = BufferPool::new();
        for bytes in [BLOCK_BYTES, RING_BUFFER_BYTES, 2 * RING_BUFFER_BYTES] {
            for _ in 0..2 * RING_BUFFERS {
                let mut buffer = pool.buffer(bytes);
                assert_eq!((buffer.len(), buffer.address() as usize % BLOCK_BYTES), (bytes, 0));
                assert!(buffer.iter().all(|byte| *byte == 0));
                buffer.fill(0xA5);
            }
        }
    }

    #[test]
    fn buffers_beyond_the_pool_have_memory_of_their_own() {
        let pool = BufferPool::new();
        pool.set_registered();
        let buffers: Vec<_> = (0..=RING_BUFFERS).map(|_| pool.buffer(RING_BUFFER_BYTES)).collect();
        let registered = buffers.iter().filter(|buffer| buffer.registered_index().is_some()).count();
        assert_eq!(registered, RING_BUFFERS);
        drop(buffers);
        assert!(pool.buffer(RING_BUFFER_BYTES).registered_index().is_some());
    }
}
