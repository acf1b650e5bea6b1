//! A recording of block writes in the format of dm-log-writes, and disks made from it: as they would be after a
//! power cut.
//!
//! | offset | bytes | field of the head, in the first sector |
//! |---:|---:|---|
//! | 0 | 8 | magic `0x6A736677736872` |
//! | 8 | 8 | version, 1 |
//! | 16 | 8 | number of entries |
//! | 24 | 4 | bytes of a sector |
//!
//! | offset | bytes | field of an entry, in a sector of its own; what it wrote follows |
//! |---:|---:|---|
//! | 0 | 8 | first sector on the disk |
//! | 8 | 8 | how many |
//! | 16 | 8 | flags: 1 a flush comes first, 2 durable by itself, 4 discarded: no data follows, 8 a mark |
//! | 24 | 8 | bytes of data of a mark |
//!
//! It knows nothing of file systems, nor of who wrote.

use evenkeel_cluster_tests::Random;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006A_7366_7773_6872;
const SECTOR_BYTES: u64 = 512;
const FLUSH: u64 = 1;
const DURABLE: u64 = 2;
const DISCARD: u64 = 4;

/// One write of the recording.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data is in the recording.
    data_at: u64,
}

/// A whole recording.
pub struct Recording {
    file: File,
    entries: Vec<Entry>,
}

/// What became of the writes behind the last flush, at one cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Landed as a whole.
    pub kept: u64,
    /// Landed in some of their sectors.
    pub torn: u64,
    /// Did not land.
    pub dropped: u64,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Recording {
    /// Reads where everything is.
    pub fn open(path: &Path) -> io::Result<Recording> {
        let file = File::open(path)?;
        let mut sector = [0; SECTOR_BYTES as usize];
        file.read_exact_at(&mut sector, 0)?;
        let sector_bytes = u32::from_le_bytes(sector[24..28].try_into().expect("four bytes"));
        if u64_at(&sector, 0) != MAGIC || u64_at(&sector, 8) != 1 || u64::from(sector_bytes) != SECTOR_BYTES {
            return Err(invalid(format!("{} is no recording with sectors of 512 bytes", path.display())));
        }
        let count = u64_at(&sector, 16);
        let mut entries = Vec::new();
        let mut at = SECTOR_BYTES;
        for _ in 0..count {
            file.read_exact_at(&mut sector, at)?;
            let [first, sectors, flags] = [0, 8, 16].map(|field| u64_at(&sector, field));
            at += SECTOR_BYTES;
            entries.push(Entry { sector: first, sectors, flags, data_at: at });
            if flags & DISCARD == 0 {
                at += sectors * SECTOR_BYTES;
            }
        }
        Ok(Recording { file, entries })
    }

    /// How many writes and flushes it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn data(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let bytes = if entry.flags & DISCARD == 0 { entry.sectors * SECTOR_BYTES } else { 0 };
        let mut data = vec![0; usize::try_from(bytes).expect("a write fits into memory")];
        self.file.read_exact_at(&mut data, entry.data_at)?;
        Ok(data)
    }

    /// The entries that wrote one block that begins with `magic`, with that block.
    pub fn marked(&self, magic: &[u8]) -> io::Result<Vec<(usize, Vec<u8>)>> {
        let mut found = Vec::new();
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.sectors == 8) {
            let data = self.data(entry)?;
            if data.starts_with(magic) {
                found.push((index, data));
            }
        }
        Ok(found)
    }

    /// How many entries are flushed when the first `count` are recorded.
    pub fn flushed(&self, count: usize) -> usize {
        self.entries[..count].iter().rposition(|entry| entry.flags & FLUSH != 0).map_or(0, |last| last + 1)
    }

    /// Writes some of the entries to `disk`, as they were written.
    pub fn replay(&self, entries: std::ops::Range<usize>, disk: &File) -> io::Result<()> {
        for entry in &self.entries[entries] {
            disk.write_all_at(&self.data(entry)?, entry.sector * SECTOR_BYTES)?;
        }
        Ok(())
    }

    /// Lets entries land on `disk` that were not flushed when the power went: each does, does not, or does in
    /// some of its sectors.
    pub fn tear(
        &self,
        entries: std::ops::Range<usize>,
        disk: &File,
        random: &mut Random,
    ) -> io::Result<Fates> {
        let mut fates = Fates::default();
        for entry in &self.entries[entries] {
            let data = self.data(entry)?;
            if data.is_empty() {
                continue;
            }
            let fate = if entry.flags & DURABLE != 0 { 0 } else { random.below(10) };
            match fate {
                0..4 => {
                    fates.kept += 1;
                    disk.write_all_at(&data, entry.sector * SECTOR_BYTES)?;
                }
                4..7 if entry.sectors > 1 => {
                    fates.torn += 1;
                    for (sector, bytes) in (entry.sector..).zip(data.chunks(SECTOR_BYTES as usize)) {
                        if random.below(2) == 0 {
                            disk.write_all_at(bytes, sector * SECTOR_BYTES)?;
                        }
                    }
                }
                _ => fates.dropped += 1,
            }
        }
        Ok(fates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording of writes: where, the byte of each sector, flags.
    fn recording(writes: &[(u64, &[u8], u64)]) -> Recording {
        let mut bytes = vec![0; 512];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&1u64.to_le_bytes());
        bytes[16..24].copy_from_slice(&(writes.len() as u64).to_le_bytes());
        bytes[24..28].copy_from_slice(&512u32.to_le_bytes());
        for (sector, content, flags) in writes {
            let head = [*sector, content.len() as u64, *flags, 0].map(u64::to_le_bytes).concat();
            bytes.extend(head);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            content.iter().for_each(|byte| bytes.extend([*byte; 512]));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        Recording::open(&path).unwrap()
    }

    fn disk() -> File {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(16 * 512).unwrap();
        disk
    }

    fn sectors(disk: &File) -> Vec<u8> {
        (0..16)
            .map(|sector| {
                let mut bytes = [0; 512];
                disk.read_exact_at(&mut bytes, sector * 512).unwrap();
                assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                bytes[0]
            })
            .collect()
    }

    #[test]
    fn what_was_flushed_lands_in_the_order_it_was_written() {
        let recording =
            recording(&[(0, &[1, 1], 0), (1, &[2], 0), (0, &[], FLUSH), (3, &[3], 0), (2, &[4], FLUSH)]);
        assert_eq!(recording.len(), 5);
        assert_eq!([0, 2, 3, 4, 5].map(|count| recording.flushed(count)), [0, 0, 3, 3, 5]);
        let disk = disk();
        recording.replay(0..3, &disk).unwrap();
        assert_eq!(sectors(&disk)[..4], [1, 2, 0, 0]);
    }

    #[test]
    fn what_was_not_flushed_lands_wholly_in_part_or_not_at_all() {
        let recording = recording(&[(4, &[7; 8], 0)]);
        let mut seen = Fates::default();
        for seed in 0..40 {
            let disk = disk();
            let fates = recording.tear(0..1, &disk, &mut Random::from_seed(seed)).unwrap();
            let landed = sectors(&disk)[4..12].iter().filter(|byte| **byte == 7).count();
            assert!(fates.kept == 0 || landed == 8);
            assert!(fates.dropped == 0 || landed == 0);
            seen.kept += fates.kept;
            seen.torn += fates.torn;
            seen.dropped += fates.dropped;
        }
        assert!(seen.kept > 5 && seen.torn > 5 && seen.dropped > 5, "{seen:?}");
    }

    #[test]
    fn what_is_durable_by_itself_is_never_lost_and_what_is_no_recording_is_refused() {
        let recording = recording(&[(0, &[5], DURABLE)]);
        for seed in 0..20 {
            let disk = disk();
            recording.tear(0..1, &disk, &mut Random::from_seed(seed)).unwrap();
            assert_eq!(sectors(&disk)[0], 5);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, [0; 512]).unwrap();
        assert!(Recording::open(&path).is_err());
    }
}
