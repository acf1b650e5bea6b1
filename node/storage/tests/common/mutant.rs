//! A disk that leaves out one step that durability rests on: a test that does not notice proves nothing.
//!
//! The flush between the pairs of the superblock is left out where its copies are tested; the one behind
//! the second pair guards against damage, not against crashes: the next flip's first flush covers it.

use evenkeel_storage::{
    BLOCK_BYTES, Disk, DiskError, FileId,
    memory::{MemoryBuffer, MemoryDisk},
    space::{anchor::COPY_BLOCKS, catalogue::CATALOGUE_MAGIC},
};
use std::{cell::Cell, future::Future, pin::Pin, rc::Rc};

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    Nothing,
    /// The flushes behind pages and behind the catalogue. Those behind pages alone only pace the device:
    /// the catalogue's covers them.
    CatalogueFlush,
    /// The second pair itself.
    SecondPair,
    /// All flushes.
    EveryFlush,
}

/// What was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Pages,
    Catalogue,
    FirstPair,
    SecondPair,
}

/// A disk with a mutation. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct Mutant {
    disk: MemoryDisk,
    mutation: Mutation,
    last: Rc<Cell<Written>>,
}

impl Mutant {
    pub fn new(disk: MemoryDisk, mutation: Mutation) -> Self {
        Mutant { disk, mutation, last: Rc::new(Cell::new(Written::Pages)) }
    }
}

impl Mutant {
    /// Whether the last write was of a superblock.
    pub fn is_at_superblock(&self) -> bool {
        matches!(self.last.get(), Written::FirstPair | Written::SecondPair)
    }
}

impl Disk for Mutant {
    type Buffer = MemoryBuffer;

    fn buffer(&self, bytes: usize) -> MemoryBuffer {
        self.disk.buffer(bytes)
    }

    fn page_buffer(&self, bytes: usize) -> MemoryBuffer {
        self.disk.page_buffer(bytes)
    }

    fn files(&self) -> impl Future<Output = Result<Vec<(FileId, u64)>, DiskError>> {
        self.disk.files()
    }

    fn create(&self, file: FileId, bytes: u64) -> impl Future<Output = Result<(), DiskError>> {
        self.disk.create(file, bytes)
    }

    fn extend(&self, file: FileId, from: u64, to: u64) -> impl Future<Output = Result<(), DiskError>> {
        self.disk.extend(file, from, to)
    }

    fn read(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        self.disk.read(file, offset, buffer)
    }

    fn append(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
        bytes: usize,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        self.disk.append(file, offset, buffer, bytes)
    }

    fn write(
        &self,
        file: FileId,
        offset: u64,
        buffer: MemoryBuffer,
    ) -> impl Future<Output = Result<MemoryBuffer, DiskError>> {
        let copy = COPY_BLOCKS.iter().position(|block| block * BLOCK_BYTES as u64 == offset);
        self.last.set(match copy {
            Some(0 | 1) => Written::FirstPair,
            Some(_) => Written::SecondPair,
            None if buffer[..4] == CATALOGUE_MAGIC.to_le_bytes() => Written::Catalogue,
            None => Written::Pages,
        });
        let skipped = self.mutation == Mutation::SecondPair && self.last.get() == Written::SecondPair;
        let write: Pin<Box<dyn Future<Output = Result<MemoryBuffer, DiskError>>>> = if skipped {
            Box::pin(std::future::ready(Ok(buffer)))
        } else {
            Box::pin(self.disk.write(file, offset, buffer))
        };
        write
    }

    async fn sync(&self, file: FileId) -> Result<(), DiskError> {
        let skipped = match self.mutation {
            Mutation::Nothing | Mutation::SecondPair => false,
            Mutation::CatalogueFlush => matches!(self.last.get(), Written::Pages | Written::Catalogue),
            Mutation::EveryFlush => true,
        };
        if skipped { Ok(()) } else { self.disk.sync(file).await }
    }
}
