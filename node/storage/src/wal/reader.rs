//! Reads segment files through a bounded window: large reads, each byte about once.
//!
//! It knows nothing of frames but how to hand out their bytes.

use crate::disk::{Disk, DiskError, FileId};
use std::ops::Deref;

/// A window over the files of a log.
pub(crate) struct Reader<D: Disk> {
    disk: D,
    file_bytes: u64,
    window_bytes: usize,
    window: Option<Window<D::Buffer>>,
}

struct Window<B> {
    file: FileId,
    start: u64,
    buffer: B,
}

impl<B: Deref<Target = [u8]>> Window<B> {
    fn covers(&self, file: FileId, offset: u64, bytes: usize) -> bool {
        let end = self.start + self.buffer.len() as u64;
        self.file == file && self.start <= offset && offset + bytes as u64 <= end
    }
}

impl<D: Disk> Reader<D> {
    /// Reads files of `file_bytes` through `window_bytes` of memory, or as much as one piece needs.
    pub(crate) fn new(disk: D, file_bytes: u64, window_bytes: usize) -> Self {
        let window_bytes = usize::try_from(file_bytes).unwrap_or(usize::MAX).min(window_bytes);
        Reader { disk, file_bytes, window_bytes, window: None }
    }

    /// The `bytes` at `offset`, which lie inside the file.
    pub(crate) async fn piece(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: usize,
    ) -> Result<&[u8], DiskError> {
        assert!(offset + bytes as u64 <= self.file_bytes, "pieces lie inside the file");
        let window = match self.window.take() {
            Some(window) if window.covers(file, offset, bytes) => window,
            other => self.load(file, offset, bytes, other.map(|window| window.buffer)).await?,
        };
        let at = usize::try_from(offset - window.start).expect("the window covers the piece");
        Ok(&self.window.insert(window).buffer[at..at + bytes])
    }

    async fn load(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: usize,
        used: Option<D::Buffer>,
    ) -> Result<Window<D::Buffer>, DiskError> {
        let length = bytes.max(self.window_bytes);
        let buffer =
            used.filter(|used| used.len() == length).unwrap_or_else(|| self.disk.page_buffer(length));
        // At the end of the file the window begins earlier, so that it stays as long.
        let start = offset.min(self.file_bytes - length as u64);
        let buffer = self.disk.read(file, start, buffer).await?;
        Ok(Window { file, start, buffer })
    }
}
