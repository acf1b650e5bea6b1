//! What leaves and inner pages have in common: a header, a directory of entries, and the part that all
//! their keys begin with, stored once.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic                0x45_4B_50_47, "GPKE" on disk
//!      4      2  format version       1
//!      6      1  kind                 1: leaf, 2: inner page
//!      7      1  level                0 for leaves
//!      8      8  partition
//!     16      4  key id               0: plain; any other is refused
//!     20      4  entry count
//!     24      4  bytes used           of the page; the rest is zero
//!     28      2  prefix bytes
//!     30      2  reserved, zero
//!     32      4  offset of entry 0, counted from the beginning of the page; and so on, rising
//!            ..  prefix
//!            ..  entries, one behind the other
//! ```
//!
//! An entry begins with the length of the rest of its key (2 bytes); what follows is the kind's own. Its end
//! is the beginning of the next one, or the end of the bytes used.
//!
//! Whether a page is the one that was written is its reference's checksum to say. What is checked here is
//! that nothing in it leads outside of it.

use crate::{
    bytes::{u16_at, u32_at, u64_at},
    disk::BLOCK_BYTES,
    heads::Heads,
    space::DecodeFault,
};
use evenkeel_model::PartitionId;
use std::{cmp::Ordering, ops::Range};

/// The first four bytes of a page.
pub const PAGE_MAGIC: u32 = 0x454B_5047;
/// The version that this program writes and reads.
pub const PAGE_VERSION: u16 = 1;
/// Bytes of a page before its directory.
pub const PAGE_HEADER_BYTES: usize = 32;
/// Bytes of an entry's place in the directory.
pub const OFFSET_BYTES: usize = 4;
/// Bytes of an entry before its key.
pub const KEY_LENGTH_BYTES: usize = 2;

/// The kind of a page that holds items.
pub const KIND_LEAF: u8 = 1;
/// The kind of a page that refers to others.
pub const KIND_INNER: u8 = 2;

/// A page whose directory is sound.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    bytes: &'a [u8],
    count: usize,
    used: usize,
    prefix: &'a [u8],
    /// Once it was looked through.
    heads: Option<&'a Heads>,
}

/// What the header of a page says beside its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// Whose tree it belongs to.
    pub partition: PartitionId,
    /// How many levels of pages are below it.
    pub level: u8,
}

fn fault(what: &'static str, at: usize, found: u64) -> DecodeFault {
    DecodeFault { what, at, found }
}

impl<'a> PageView<'a> {
    /// Checks header and directory of a page of `kind`, whose entries have `fixed_bytes` at least beside the
    /// rest of their key.
    pub fn open(bytes: &'a [u8], kind: u8, fixed_bytes: usize) -> Result<(PageHeader, Self), DecodeFault> {
        if bytes.len() < BLOCK_BYTES {
            return Err(fault("page length", 0, bytes.len() as u64));
        }
        for (what, at, found, expected) in [
            ("magic", 0, u32_at(bytes, 0), PAGE_MAGIC),
            ("format version", 4, u16_at(bytes, 4).into(), PAGE_VERSION.into()),
            ("page kind", 6, bytes[6].into(), kind.into()),
            ("key id", 16, u32_at(bytes, 16), 0),
            ("reserved field", 30, u16_at(bytes, 30).into(), 0),
        ] {
            if found != expected {
                return Err(fault(what, at, found.into()));
            }
        }
        let (count, used) = (u32_at(bytes, 20) as usize, u32_at(bytes, 24) as usize);
        let prefix_bytes = usize::from(u16_at(bytes, 28));
        if used > bytes.len() {
            return Err(fault("bytes used", 24, used as u64));
        }
        let directory =
            count.checked_mul(OFFSET_BYTES).and_then(|bytes| bytes.checked_add(PAGE_HEADER_BYTES));
        let entries = directory.map(|end| end + prefix_bytes).filter(|entries| *entries <= used);
        let (Some(directory), Some(entries)) = (directory, entries) else {
            return Err(fault("entry count", 20, count as u64));
        };
        let prefix = &bytes[directory..directory + prefix_bytes];
        let view = PageView { bytes, count, used, prefix, heads: None };
        view.check_entries(entries, KEY_LENGTH_BYTES + fixed_bytes)?;
        let header = PageHeader { partition: PartitionId(u64_at(bytes, 8)), level: bytes[7] };
        Ok((header, view))
    }

    /// A page that was opened before, without looking at its entries again, and the heads of what follows the
    /// prefix in its keys.
    ///
    /// # Panics
    /// There, or later, if the bytes are not those of a page that could be opened.
    pub(crate) fn reopen(bytes: &'a [u8], heads: &'a Heads) -> Self {
        let (count, used) = (u32_at(bytes, 20) as usize, u32_at(bytes, 24) as usize);
        let prefix = PAGE_HEADER_BYTES + count * OFFSET_BYTES;
        let prefix = &bytes[prefix..prefix + usize::from(u16_at(bytes, 28))];
        PageView { bytes, count, used, prefix, heads: Some(heads) }
    }

    /// Every entry begins where the one before ends, and holds its key and `least_bytes`.
    fn check_entries(&self, first: usize, least_bytes: usize) -> Result<(), DecodeFault> {
        let mut next = first;
        for index in 0..self.count {
            let (start, end) = (self.start(index), self.end(index));
            if start != next || end < start + least_bytes || end > self.used {
                return Err(fault(
                    "offset of an entry",
                    PAGE_HEADER_BYTES + index * OFFSET_BYTES,
                    start as u64,
                ));
            }
            let rest = usize::from(u16_at(self.bytes, start));
            if start + least_bytes + rest > end {
                return Err(fault("key length", start, rest as u64));
            }
            next = end;
        }
        if next == self.used { Ok(()) } else { Err(fault("bytes used", 24, self.used as u64)) }
    }

    fn start(&self, index: usize) -> usize {
        u32_at(self.bytes, PAGE_HEADER_BYTES + index * OFFSET_BYTES) as usize
    }

    fn end(&self, index: usize) -> usize {
        if index + 1 < self.count { self.start(index + 1) } else { self.used }
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// The rest of an entry's key, and what follows it.
    pub fn entry(&self, index: usize) -> (&'a [u8], &'a [u8]) {
        let entry = &self.bytes[self.start(index)..self.end(index)];
        entry[KEY_LENGTH_BYTES..].split_at(usize::from(u16_at(entry, 0)))
    }

    /// How many of the first entries have keys before `key`; these must be in order. The key of entry 0 may be
    /// missing: it is before all others.
    pub fn count_before(&self, key: &[u8]) -> usize {
        self.count_while(key, |entry, rest| entry < rest)
    }

    /// How many have keys up to `key`, itself included.
    pub fn count_to(&self, key: &[u8]) -> usize {
        self.count_while(key, |entry, rest| entry <= rest)
    }

    fn count_while(&self, key: &[u8], goes_before: impl Fn(&[u8], &[u8]) -> bool) -> usize {
        let common = &key[..key.len().min(self.prefix.len())];
        match common.cmp(self.prefix) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.count,
            Ordering::Equal => {}
        }
        let rest = &key[self.prefix.len()..];
        let Range { start: mut low, end: mut high } =
            self.heads.map_or(0..self.count, |heads| heads.around(rest, self.count));
        while low < high {
            let middle = low + (high - low) / 2;
            if goes_before(self.entry(middle).0, rest) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// Puts a page together.
pub struct PageWriter {
    bytes: Vec<u8>,
    count: usize,
    written: usize,
}

impl PageWriter {
    /// Begins a page of `count` entries whose keys have `prefix` in common.
    pub fn new(kind: u8, header: PageHeader, count: usize, prefix: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(2 * BLOCK_BYTES);
        bytes.extend(PAGE_MAGIC.to_le_bytes());
        bytes.extend(PAGE_VERSION.to_le_bytes());
        bytes.extend([kind, header.level]);
        bytes.extend(header.partition.0.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(u32::try_from(count).expect("entries of a page are few").to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(u16::try_from(prefix.len()).expect("keys are limited").to_le_bytes());
        bytes.resize(PAGE_HEADER_BYTES + count * OFFSET_BYTES, 0);
        bytes.extend(prefix);
        PageWriter { bytes, count, written: 0 }
    }

    /// Adds an entry; `rest` is its key behind the prefix, and `write` writes what follows.
    pub fn entry(&mut self, rest: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let offset = u32::try_from(self.bytes.len()).expect("pages are small").to_le_bytes();
        let at = PAGE_HEADER_BYTES + self.written * OFFSET_BYTES;
        self.bytes[at..at + OFFSET_BYTES].copy_from_slice(&offset);
        self.bytes.extend(u16::try_from(rest.len()).expect("keys are limited").to_le_bytes());
        self.bytes.extend(rest);
        write(&mut self.bytes);
        self.written += 1;
    }

    /// The page, as whole blocks.
    pub fn finish(mut self) -> Vec<u8> {
        assert_eq!(self.written, self.count, "all entries announced are there");
        let used = u32::try_from(self.bytes.len()).expect("pages are small").to_le_bytes();
        self.bytes[24..28].copy_from_slice(&used);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        self.bytes
    }
}

/// How many bytes two keys have in common at their beginning.
pub fn common_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
