//! Inner pages: where the pages of the next level are, and what is below each.
//!
//! ```text
//! behind the rest of an entry's key:
//!      0      8  first block
//!      8      4  blocks
//!     12      4  reserved, zero
//!     16      8  checksum             xxh3-64 of all bytes of the page
//!     24      8  item count           below it
//!     32      8  item bytes
//!     40     16  content hash         sum of the items' hashes, modulo 2^128
//! ```
//!
//! The key of an entry separates what is below it from what is below the entry before: it is the shortest
//! one that does, not the key of an item. The first entry's is empty and not counted in the prefix: all
//! keys before the second separator are below it.

use super::{
    View,
    page::{KEY_LENGTH_BYTES, KIND_INNER, OFFSET_BYTES, PageHeader, PageView, PageWriter, common_bytes},
};
use crate::{
    bytes::{u32_at, u64_at, u128_at},
    heads::Heads,
    space::{DecodeFault, Extent, HEAD_BLOCKS, PageKind, PageReference},
};

/// Bytes of a child reference.
pub const CHILD_BYTES: usize = 56;
/// Bytes that a child takes in an inner page beside its separator.
pub const CHILD_OVERHEAD_BYTES: usize = OFFSET_BYTES + KEY_LENGTH_BYTES + CHILD_BYTES;

/// What is below a page, or in a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Items.
    pub items: u64,
    /// Their sizes, as stored items name them in their headers.
    pub bytes: u64,
    /// The sum of their hashes.
    pub hash: u128,
}

impl Sums {
    /// Both together.
    pub fn plus(self, other: Sums) -> Sums {
        Sums {
            items: self.items.wrapping_add(other.items),
            bytes: self.bytes.wrapping_add(other.bytes),
            hash: self.hash.wrapping_add(other.hash),
        }
    }
}

/// A page of the next level, and what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Where it is.
    pub page: PageReference,
    /// What is below it.
    pub sums: Sums,
}

/// An inner page.
#[derive(Clone, Copy, Debug)]
pub struct InnerView<'a>(PageView<'a>);

impl<'a> InnerView<'a> {
    /// Checks that `bytes` are an inner page, but for the order of its keys.
    ///
    /// # Errors
    /// The first field that cannot be.
    pub fn open(bytes: &'a [u8]) -> Result<(PageHeader, Self), DecodeFault> {
        let (header, view) = PageView::open(bytes, KIND_INNER, CHILD_BYTES)?;
        if header.level == 0 || view.count() == 0 || !view.entry(0).0.is_empty() {
            return Err(DecodeFault { what: "level of an inner page", at: 7, found: header.level.into() });
        }
        for index in 0..view.count() {
            let (_, child) = view.entry(index);
            let blocks = u32_at(child, 8);
            let fits = child.len() == CHILD_BYTES && u64_at(child, 0).checked_add(blocks.into()).is_some();
            if !fits || u64_at(child, 0) < HEAD_BLOCKS || blocks == 0 || u32_at(child, 12) != 0 {
                return Err(DecodeFault { what: "place of a page", at: index, found: u64_at(child, 0) });
            }
        }
        Ok((header, InnerView(view)))
    }

    /// How many children there are, at least one.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// A child.
    pub fn child(&self, index: usize) -> Child {
        let (_, child) = self.0.entry(index);
        Child {
            page: PageReference {
                extent: Extent { first_block: u64_at(child, 0), blocks: u32_at(child, 8) },
                checksum: u64_at(child, 16),
            },
            sums: Sums { items: u64_at(child, 24), bytes: u64_at(child, 32), hash: u128_at(child, 40) },
        }
    }

    /// What separates a child from the one before; none for the first.
    pub fn separator(&self, index: usize) -> Option<Vec<u8>> {
        (index > 0).then(|| [self.0.prefix(), self.0.entry(index).0].concat())
    }

    /// The child that `key` is below.
    pub fn find(&self, key: &[u8]) -> usize {
        self.0.count_to(key).saturating_sub(1)
    }

    /// The child that the greatest key before `key` is below, if there is such a key.
    pub fn find_before(&self, key: &[u8]) -> usize {
        self.0.count_before(key).saturating_sub(1)
    }
}

impl<'a> View<'a> for InnerView<'a> {
    const KIND: PageKind = PageKind::Inner;

    fn open(bytes: &'a [u8]) -> Result<(PageHeader, Self), DecodeFault> {
        InnerView::open(bytes)
    }

    fn reopen(bytes: &'a [u8], heads: &'a Heads) -> Self {
        InnerView(PageView::reopen(bytes, heads))
    }

    fn page(&self) -> &PageView<'a> {
        &self.0
    }
}

/// The bytes of an inner page of these children, which are not none. The first separator does not count.
pub fn encode<'a>(
    header: PageHeader,
    children: impl ExactSizeIterator<Item = (&'a [u8], Child)> + Clone,
) -> Vec<u8> {
    let second = children.clone().nth(1).map_or(&[][..], |(separator, _)| separator);
    let last = children.clone().skip(1).last().map_or(&[][..], |(separator, _)| separator);
    let prefix = &second[..common_bytes(second, last)];
    let mut writer = PageWriter::new(KIND_INNER, header, children.len(), prefix);
    for (index, (separator, child)) in children.enumerate() {
        let rest = if index == 0 { &[][..] } else { &separator[prefix.len()..] };
        writer.entry(rest, |bytes| {
            bytes.extend(child.page.extent.first_block.to_le_bytes());
            bytes.extend(child.page.extent.blocks.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(child.page.checksum.to_le_bytes());
            bytes.extend(child.sums.items.to_le_bytes());
            bytes.extend(child.sums.bytes.to_le_bytes());
            bytes.extend(child.sums.hash.to_le_bytes());
        });
    }
    writer.finish()
}
