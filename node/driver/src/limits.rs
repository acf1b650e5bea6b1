//! Every limit of the driver, with its unit, and the relations between them.

use evenkeel_storage::BLOCK_BYTES;

/// Memory that glommio pins per executor. Nothing here uses it; its least is all we pay.
pub const EXECUTOR_MEMORY_BYTES: usize = 64 * 1024;
/// Entries of each of glommio's three rings.
pub const EXECUTOR_RING_ENTRIES: usize = 128;
/// Soft memlock limit below which glommio refuses to start an executor.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Submission entries of a core's own ring. Every operation is submitted at once, so this bounds a
/// single call, not what is under way.
pub const RING_ENTRIES: u32 = 64;
/// Completion entries of a core's own ring; beyond it the kernel keeps completions in a list.
pub const RING_COMPLETIONS: u32 = 512;
/// Files a core registers with its ring; further files are used by descriptor.
pub const RING_FILES_MAX: u32 = 256;
/// Buffers a core registers with its ring: one frame being built, two under way.
pub const RING_BUFFERS: usize = 3;
/// Size of a registered buffer: the largest frame of the log.
pub const RING_BUFFER_BYTES: usize = 256 * 1024;

/// One write of zeros when a file is made.
pub const ZERO_SLICE_BYTES: usize = 256 * 1024;
/// Writes of zeros under way for the first file of a directory, which a starting node waits for.
pub const ZERO_SLICES_IN_FLIGHT: usize = 4;

/// Appends that the self-test makes with each strategy.
pub const SELF_TEST_APPENDS: usize = 50;
/// Time after which the self-test decides from what it has.
pub const SELF_TEST_TIME_MS: u64 = 45;

/// Datagrams (or runs of datagrams joined by GRO) taken from the socket by one system call.
pub const RECEIVE_BATCH: usize = 8;
/// Room for one of them: the largest run that the kernel joins.
pub const RECEIVE_BYTES: usize = 64 * 1024;
/// Socket buffers asked for; the kernel may grant less to ordinary users.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(RING_BUFFER_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(ZERO_SLICE_BYTES.is_multiple_of(BLOCK_BYTES));
// All pinned memory of three cores and the executors fits a memlock limit of 8 MiB, with room for the rings.
const _: () = assert!(3 * (RING_BUFFERS * RING_BUFFER_BYTES + EXECUTOR_MEMORY_BYTES) <= 4 * 1024 * 1024);
const _: () = assert!(RING_COMPLETIONS.is_power_of_two() && RING_COMPLETIONS >= 2 * RING_ENTRIES);
