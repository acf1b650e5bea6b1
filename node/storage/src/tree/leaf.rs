//! Leaves: items in key order.
//!
//! Behind the rest of its key an entry holds the stored item, up to its end. An item larger than a leaf
//! is a leaf of its own, in an extent of its own size.

use super::{
    View,
    page::{
        KEY_LENGTH_BYTES, KIND_LEAF, OFFSET_BYTES, PAGE_HEADER_BYTES, PageHeader, PageView, PageWriter,
        common_bytes,
    },
};
use crate::{
    heads::Heads,
    space::{DecodeFault, PageKind},
};

/// Bytes that an item takes in a leaf beside its key and image.
pub const ITEM_OVERHEAD_BYTES: usize = OFFSET_BYTES + KEY_LENGTH_BYTES;

/// A leaf.
#[derive(Clone, Copy, Debug)]
pub struct LeafView<'a>(PageView<'a>);

impl<'a> LeafView<'a> {
    /// Checks that `bytes` are a leaf, but for the order of its keys.
    ///
    /// # Errors
    /// The first field that cannot be.
    pub fn open(bytes: &'a [u8]) -> Result<(PageHeader, Self), DecodeFault> {
        let (header, view) = PageView::open(bytes, KIND_LEAF, 0)?;
        if header.level != 0 || view.count() == 0 {
            return Err(DecodeFault { what: "level of a leaf", at: 7, found: header.level.into() });
        }
        Ok((header, LeafView(view)))
    }

    /// How many items there are, at least one.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// An item: what all keys begin with, the rest of its key, its image.
    pub fn item(&self, index: usize) -> (&'a [u8], &'a [u8], &'a [u8]) {
        let (rest, image) = self.0.entry(index);
        (self.0.prefix(), rest, image)
    }

    /// The image of a key.
    pub fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        let at = self.first_at(key);
        let (prefix, rest, image) = (at < self.count()).then(|| self.item(at))?;
        (key.strip_prefix(prefix) == Some(rest)).then_some(image)
    }

    /// The first item whose key is `key` or behind it.
    pub fn first_at(&self, key: &[u8]) -> usize {
        self.0.count_before(key)
    }
}

impl<'a> View<'a> for LeafView<'a> {
    const KIND: PageKind = PageKind::Leaf;

    fn open(bytes: &'a [u8]) -> Result<(PageHeader, Self), DecodeFault> {
        LeafView::open(bytes)
    }

    fn reopen(bytes: &'a [u8], heads: &'a Heads) -> Self {
        LeafView(PageView::reopen(bytes, heads))
    }

    fn page(&self) -> &PageView<'a> {
        &self.0
    }
}

/// The bytes of a leaf of these items, which are in order and not none.
pub fn encode<'a>(
    header: PageHeader,
    items: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Vec<u8> {
    let first = items.clone().next().map_or(&[][..], |(key, _)| key);
    let last = items.clone().last().map_or(&[][..], |(key, _)| key);
    let prefix = &first[..common_bytes(first, last)];
    let mut writer = PageWriter::new(KIND_LEAF, header, items.len(), prefix);
    for (key, image) in items {
        writer.entry(&key[prefix.len()..], |bytes| bytes.extend(image));
    }
    writer.finish()
}

const _: () = assert!(PAGE_HEADER_BYTES + ITEM_OVERHEAD_BYTES < crate::disk::BLOCK_BYTES);
