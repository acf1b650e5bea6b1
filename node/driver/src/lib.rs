//! The kernel's side of a storage node: threads, io_uring, direct-IO files, UDP, timers.
//!
//! Everything that a core asks of Linux goes through here, and this is the only crate with unsafe
//! code, with `io-uring` and with glommio. One core is one thread ([`run_core`]) with a glommio
//! executor for its tasks and timers, and one io_uring ring of its own for everything else: log
//! writes, reads, and the readiness of its socket. What it lends out is safe to misuse: memory that
//! the kernel may still touch is owned by the ring until the kernel has answered.
//!
//! Of glommio only tasks, task queues, timers, the blocking helper thread and one buffered read (on
//! the ring's eventfd) are used. No `DmaFile` is ever opened, so glommio's probe of block devices,
//! which takes an empty file for a device that can be polled, never runs.
//!
//! This crate knows nothing of what is stored or sent.

mod awake;
mod buffer;
mod core;
mod disk;
mod durable;
mod files;
pub mod limits;
mod ring;
mod runtime;
mod self_test;
mod slabs;
mod slots;
mod system;
mod timer;
mod udp;

pub use buffer::RingBuffer;
pub use core::{Core, CoreConfig, CoreError, CoreHandle, Placement, run_core};
pub use disk::{DiskConfig, OpenError, SyncStrategy, UringDisk};
pub use durable::{make_directory, write_file};
pub use quinn_udp::{EcnCodepoint, Transmit};
pub use runtime::GlommioRuntime;
pub use self_test::SelfTest;
pub use system::{Limits, is_memory_backed, raise_limits};
pub use timer::Timer;
pub use udp::{Readiness, ReceiveBatch, Received, UdpSocket};
