//! One file of the disk in memory: what is durable, and what is only cached, by sectors.

use super::faults::Landing;
use std::{collections::BTreeMap, ops::Range, rc::Rc};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Sectors by their number in the file.
pub(super) type Sectors = BTreeMap<usize, Rc<[u8]>>;

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) durable: Vec<u8>,
    /// Written and not synced.
    pub(super) cached: Sectors,
}

impl File {
    pub(super) fn durable(bytes: Vec<u8>) -> File {
        File { durable: bytes, cached: Sectors::new() }
    }

    /// All of the file as it would be read now.
    pub(super) fn visible(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.read(0, &mut bytes);
        bytes
    }

    /// Fills `buffer`, whole sectors, from `offset`.
    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.durable[offset..offset + buffer.len()]);
        for (sector, written) in self.cached.range(sectors(offset as u64, buffer.len())) {
            buffer[sector * SECTOR_BYTES - offset..][..SECTOR_BYTES].copy_from_slice(written);
        }
    }

    /// Writes sectors into the volatile cache.
    pub(super) fn cache(&mut self, offset: u64, bytes: &[u8]) {
        for (sector, bytes) in sectors(offset, bytes.len()).zip(bytes.chunks(SECTOR_BYTES)) {
            self.cached.insert(sector, Rc::from(bytes));
        }
    }

    /// Writes through to the medium.
    pub(super) fn write_through(&mut self, offset: u64, bytes: &[u8]) {
        let start = position(offset);
        self.durable[start..start + bytes.len()].copy_from_slice(bytes);
        for sector in sectors(offset, bytes.len()) {
            self.cached.remove(&sector);
        }
    }

    /// Makes durable what was cached when `flushed` was taken; what was written since stays cached.
    pub(super) fn flush(&mut self, flushed: &Sectors) {
        for (sector, bytes) in flushed {
            // Not cached any more: a later write-through or sync was faster, with newer bytes.
            let Some(now) = self.cached.get(sector) else { continue };
            if Rc::ptr_eq(now, bytes) {
                self.cached.remove(sector);
            }
            self.durable[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(bytes);
        }
    }

    /// Zeros from `from` to `to`, on the medium, growing the file if need be.
    pub(super) fn extend(&mut self, from: u64, to: u64) {
        let (from, to) = (position(from), position(to));
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].fill(0);
        for sector in from / SECTOR_BYTES..to / SECTOR_BYTES {
            self.cached.remove(&sector);
        }
    }

    /// Changes one bit wherever the byte is.
    pub(super) fn flip(&mut self, at: u64, bit: u32) {
        let at = position(at);
        self.durable[at] ^= 1 << (bit % 8);
        if let Some(cached) = self.cached.get_mut(&(at / SECTOR_BYTES)) {
            let mut bytes = cached.to_vec();
            bytes[at % SECTOR_BYTES] ^= 1 << (bit % 8);
            *cached = Rc::from(bytes);
        }
    }
}

/// Lets the sectors of a write land in `bytes`, the whole file.
pub(super) fn land(bytes: &mut [u8], offset: u64, written: &[u8], landings: &[Landing]) {
    let start = position(offset);
    for (index, landing) in landings.iter().enumerate() {
        let count = match landing {
            Landing::Nothing => 0,
            Landing::Whole => SECTOR_BYTES,
            Landing::Beginning(count) => *count,
        };
        let sector = index * SECTOR_BYTES..index * SECTOR_BYTES + count;
        bytes[start + sector.start..start + sector.end].copy_from_slice(&written[sector]);
    }
}

pub(super) fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("files are memory")
}

pub(super) fn sectors(offset: u64, bytes: usize) -> Range<usize> {
    let first = position(offset) / SECTOR_BYTES;
    first..first + bytes / SECTOR_BYTES
}
