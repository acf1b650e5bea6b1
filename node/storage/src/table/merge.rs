//! Generations of a table read as one: in key order, what the newest one holds of each key.

use super::{generation::Held, key::HeldKey};
use std::{collections::btree_map, rc::Rc};

/// A part of one generation.
pub(super) type Slice<'a> = btree_map::Range<'a, HeldKey, Held>;

type Item<'a> = (&'a HeldKey, &'a Held);

/// The merged items of slices.
pub(super) struct Merge<'a> {
    /// Newest first, each with its next item.
    sources: Vec<(Slice<'a>, Option<Item<'a>>)>,
    reverse: bool,
}

impl<'a> Merge<'a> {
    /// Merges `slices`, the newest first.
    pub(super) fn new(slices: impl Iterator<Item = Slice<'a>>, reverse: bool) -> Self {
        let with_next = |mut slice: Slice<'a>| {
            let next = advance(&mut slice, reverse);
            (slice, next)
        };
        Merge { sources: slices.map(with_next).collect(), reverse }
    }
}

fn advance<'a>(slice: &mut Slice<'a>, reverse: bool) -> Option<Item<'a>> {
    if reverse { slice.next_back() } else { slice.next() }
}

impl<'a> Iterator for Merge<'a> {
    type Item = (&'a Rc<[u8]>, &'a Held);

    /// The first item in order; of equal keys the newest.
    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.sources.iter().filter_map(|(_, next)| *next);
        // Both pick the first of equal keys, which is the newest.
        let first = if self.reverse {
            heads.reduce(|best, other| if other.0 > best.0 { other } else { best })
        } else {
            heads.reduce(|best, other| if other.0 < best.0 { other } else { best })
        }?;
        for (slice, next) in &mut self.sources {
            if next.is_some_and(|(key, _)| key == first.0) {
                *next = advance(slice, self.reverse);
            }
        }
        Some((first.0.bytes(), first.1))
    }
}
