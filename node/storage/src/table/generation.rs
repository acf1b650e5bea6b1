//! One generation of a table: a sorted map that knows what it costs and what it changes below.

use super::{
    key::{HeldKey, Keyed, Probe},
    merge,
};
use crate::{
    engine::Counts,
    limits::{SHARED_OVERHEAD_BYTES, TABLE_ITEM_OVERHEAD_BYTES},
};
use evenkeel_model::item::stored_item_bytes;
use std::{collections::BTreeMap, ops::Bound, rc::Rc};

/// What is held of a key: its image, or none as the mark of a deletion.
pub(crate) type Held = Option<Rc<[u8]>>;

/// A change of what is below, in items and bytes of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CountsChange {
    items: i64,
    bytes: i64,
}

/// Keys with what is held of them.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    items: BTreeMap<HeldKey, Held>,
    bytes: u64,
    change: CountsChange,
}

impl Counts {
    /// What it changes that a key is now `image`, of which `known` was held so far.
    pub(crate) fn change(known: Option<&Held>, image: Option<&Rc<[u8]>>, has_tree: bool) -> CountsChange {
        let bytes = |image: &Rc<[u8]>| stored_item_bytes(image).cast_signed();
        let (items_before, bytes_before) = match known {
            Some(Some(before)) => (1, bytes(before)),
            // A deletion of what nobody here knows is taken for one of something.
            None if has_tree && image.is_none() => (1, 0),
            Some(None) | None => (0, 0),
        };
        let (items, bytes) = image.map_or((0, 0), |image| (1, bytes(image)));
        CountsChange { items: items - items_before, bytes: bytes - bytes_before }
    }
}

impl Generation {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Held> {
        self.items.get(&Probe::of(key) as &dyn Keyed)
    }

    /// What was held of the key so far, if anything was.
    pub(super) fn insert(&mut self, key: Rc<[u8]>, image: Held) -> Option<Held> {
        let without_image = held_bytes(&key, None);
        self.bytes += without_image + image_bytes(image.as_deref());
        let before = self.items.insert(HeldKey::from(key), image);
        if let Some(before) = &before {
            self.bytes -= without_image + image_bytes(before.as_deref());
        }
        before
    }

    /// What was held of the key, if anything was.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Held> {
        let before = self.items.remove(&Probe::of(key) as &dyn Keyed)?;
        self.bytes -= held_bytes(key, before.as_deref());
        Some(before)
    }

    pub(super) fn pop_first(&mut self) -> Option<(Rc<[u8]>, Held)> {
        let (key, image) = self.items.pop_first()?;
        let key = key.into_bytes();
        self.bytes -= held_bytes(&key, image.as_deref());
        Some((key, image))
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn count(&mut self, change: CountsChange) {
        self.change.items += change.items;
        self.change.bytes += change.bytes;
    }

    pub(super) fn take_counts(&mut self, other: &Generation) {
        self.count(other.change);
    }

    pub(super) fn counts_over(&self, below: Counts) -> Counts {
        Counts {
            items: below.items.saturating_add_signed(self.change.items),
            bytes: below.bytes.saturating_add_signed(self.change.bytes),
        }
    }

    /// The part in a range, unless the range is empty.
    pub(super) fn slice<'a>(&'a self, lower: &[u8], upper: Option<&[u8]>) -> Option<merge::Slice<'a>> {
        let (first, end) = (Probe::of(lower), upper.map(Probe::of));
        let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end as &dyn Keyed));
        let empty = upper.is_some_and(|upper| upper <= lower);
        (!empty).then(|| self.items.range::<dyn Keyed, _>((Bound::Included(&first as &dyn Keyed), end)))
    }
}

/// Memory that a table takes for what is held of a key.
pub(crate) fn held_bytes(key: &[u8], image: Option<&[u8]>) -> u64 {
    shared_bytes(key) + image_bytes(image) + TABLE_ITEM_OVERHEAD_BYTES
}

fn image_bytes(image: Option<&[u8]>) -> u64 {
    image.map_or(0, shared_bytes)
}

/// What an allocator with four sizes between two powers of two gives for these bytes and their reference counts.
fn shared_bytes(bytes: &[u8]) -> u64 {
    let bytes = bytes.len() + SHARED_OVERHEAD_BYTES;
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(16)) as u64
}
