//! Keys of a table's map, with their first bytes beside them.
//!
//! A map that holds pointers to keys would follow one with each comparison.

use crate::heads::head_of;
use std::{borrow::Borrow, cmp::Ordering, rc::Rc};

/// A key that is held.
#[derive(Clone, Debug)]
pub(super) struct HeldKey {
    head: u64,
    bytes: Rc<[u8]>,
}

/// A key that is looked for.
pub(super) struct Probe<'a> {
    head: u64,
    bytes: &'a [u8],
}

/// What a held key and one that is looked for have in common.
pub(super) trait Keyed {
    /// The first bytes, as a number of the same order; zeros are behind a shorter key.
    fn head(&self) -> u64;
    /// All bytes.
    fn bytes(&self) -> &[u8];
}

impl HeldKey {
    pub(super) fn bytes(&self) -> &Rc<[u8]> {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Rc<[u8]> {
        self.bytes
    }
}

impl From<Rc<[u8]>> for HeldKey {
    fn from(bytes: Rc<[u8]>) -> Self {
        HeldKey { head: head_of(&bytes), bytes }
    }
}

impl<'a> Probe<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Probe { head: head_of(bytes), bytes }
    }
}

impl Keyed for HeldKey {
    fn head(&self) -> u64 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Keyed for Probe<'_> {
    fn head(&self) -> u64 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

fn order(one: &(impl Keyed + ?Sized), other: &(impl Keyed + ?Sized)) -> Ordering {
    one.head().cmp(&other.head()).then_with(|| one.bytes().cmp(other.bytes()))
}

impl PartialEq for HeldKey {
    fn eq(&self, other: &Self) -> bool {
        order(self, other).is_eq()
    }
}

impl Eq for HeldKey {}

impl PartialOrd for HeldKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HeldKey {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self, other)
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for HeldKey {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        order(self, other).is_eq()
    }
}

impl Eq for dyn Keyed + '_ {}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_their_bytes(
            one in prop::collection::vec(0u8..3, 0..12),
            other in prop::collection::vec(0u8..3, 0..12),
        ) {
            let held = |bytes: &[u8]| HeldKey::from(Rc::from(bytes));
            prop_assert_eq!(held(&one).cmp(&held(&other)), one.cmp(&other));
            let (held, probe) = (held(&one), Probe::of(&other));
            let (held, probe): (&dyn Keyed, &dyn Keyed) = (&held, &probe);
            prop_assert_eq!(held.cmp(probe), one.cmp(&other));
        }
    }
}
