//! The seam to the device: a handful of functions over owned, aligned buffers.
//!
//! Production implements it with io_uring; tests and the simulator with memory that tears, loses and
//! rots what was written. A buffer is owned by the operation while it runs and comes back with its
//! result, so no operation ever borrows memory that its caller could free.
//!
//! An implementation must make sure that no write of an earlier process is still under way when it
//! is opened (a lock that the kernel releases with the last operation does): recovery reads what is
//! there, and decides from it once.
//!
//! This module knows nothing of what is written.

use std::{fmt, future::Future, io, ops::DerefMut};

/// The unit of every offset and length: direct IO works on whole blocks.
pub const BLOCK_BYTES: usize = 4096;

/// A file of one shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileId {
    /// A file of the log, by its number on disk. Files are recycled: the number says nothing about
    /// the place of its content in the log.
    Segment(u32),
    /// The pages of all partitions, behind the four copies of the superblock. It grows and never
    /// shrinks.
    Pages,
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileId::Segment(number) => write!(f, "segment-{number:08}"),
            FileId::Pages => f.write_str("pages"),
        }
    }
}

/// The files of one shard. Offsets and lengths are bytes and multiples of [`BLOCK_BYTES`].
pub trait Disk: Clone + 'static {
    /// Owned memory, aligned to [`BLOCK_BYTES`].
    type Buffer: DerefMut<Target = [u8]> + 'static;

    /// Zeroed memory of exactly `bytes`, a multiple of [`BLOCK_BYTES`].
    fn buffer(&self, bytes: usize) -> Self::Buffer;

    /// Like [`buffer`](Disk::buffer), for memory that is kept for long or comes in great numbers: it is
    /// never taken from what an implementation holds ready for the log, and may hold what it held before.
    fn page_buffer(&self, bytes: usize) -> Self::Buffer;

    /// Every complete file, with its length, in no particular order.
    fn files(&self) -> impl Future<Output = Result<Vec<(FileId, u64)>, DiskError>>;

    /// Makes a file of `bytes` zeros, by real writes in paced slices. File and directory entry are
    /// durable when it resolves; until then the file is not among [`files`](Disk::files).
    fn create(&self, file: FileId, bytes: u64) -> impl Future<Output = Result<(), DiskError>>;

    /// Fills `file` with zeros from byte `from` to byte `to`, by real writes in paced slices, and makes
    /// it longer if it ends before `to`. Zeros and length are durable when it resolves; a crash before
    /// that leaves any length in between, and the same call again completes it.
    fn extend(&self, file: FileId, from: u64, to: u64) -> impl Future<Output = Result<(), DiskError>>;

    /// Fills `buffer` from `offset`. Reading past the end of a file is an error.
    fn read(
        &self,
        file: FileId,
        offset: u64,
        buffer: Self::Buffer,
    ) -> impl Future<Output = Result<Self::Buffer, DiskError>>;

    /// Writes the first `bytes` of `buffer`; durable when it resolves. The write is submitted by the
    /// call itself, in the order of calls; the future only waits. Dropping it does not cancel.
    fn append(
        &self,
        file: FileId,
        offset: u64,
        buffer: Self::Buffer,
        bytes: usize,
    ) -> impl Future<Output = Result<Self::Buffer, DiskError>>;

    /// Writes all of `buffer`, durable only after a [`sync`](Disk::sync) of the file that begins when
    /// this has resolved. Submitted by the call itself; dropping the future does not cancel.
    fn write(
        &self,
        file: FileId,
        offset: u64,
        buffer: Self::Buffer,
    ) -> impl Future<Output = Result<Self::Buffer, DiskError>>;

    /// Makes durable everything whose write to `file` has resolved, by this process or an earlier one,
    /// a volatile cache of the device included. After an error nobody knows what is durable.
    fn sync(&self, file: FileId) -> impl Future<Output = Result<(), DiskError>>;
}

/// The device or its file system failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} of {} at offset {offset} failed: {source}", FileName(*file))]
pub struct DiskError {
    /// What was attempted: `create`, `read`, `append`, ...
    pub operation: &'static str,
    /// The file, or none for the directory.
    pub file: Option<FileId>,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What the system said.
    pub source: SystemError,
}

impl DiskError {
    /// The failure of `operation`, from what the system reported.
    pub fn new(operation: &'static str, file: Option<FileId>, offset: u64, source: &io::Error) -> Self {
        DiskError {
            operation,
            file,
            offset,
            source: SystemError { kind: source.kind(), text: source.to_string() },
        }
    }
}

/// A system error in a form that can be handed to every waiter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SystemError {
    /// The class of the error.
    pub kind: io::ErrorKind,
    /// The system's own words.
    pub text: String,
}

struct FileName(Option<FileId>);

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(file) => fmt::Display::fmt(&file, f),
            None => f.write_str("the directory"),
        }
    }
}
