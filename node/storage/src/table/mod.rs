//! The in-memory table of one partition: the newest image of each item, in key order.
//!
//! It consists of generations: one *active*, that changes are applied to, over at most a few *frozen*
//! ones that never change. A newer generation hides an older one; a deletion is kept as a mark only
//! while there is something below that it may hide. Pinning freezes the active generation and shares
//! the frozen ones, so a pinned state costs nothing until items change. When nobody holds a frozen
//! generation any more, the active one is folded into it, a few items with each apply, until there is
//! one generation again: no moment pays for all.
//!
//! It knows nothing of slots, of the log or of budgets.

mod merge;

use crate::{error::TooManyFrozen, limits::FROZEN_GENERATIONS_MAX};
use evenkeel_model::Slot;
use merge::Merge;
use std::{collections::BTreeMap, ops::Bound, rc::Rc};

/// Items folded with each change that is applied. More than one, so that folding ends.
const FOLDED_PER_CHANGE: usize = 4;
/// How often as many items are folded by a pin that would be refused.
const FOLDS_PER_PIN: usize = 1024;

/// Keys and images; none marks a deletion that may hide an item in an older generation.
type Generation = BTreeMap<Rc<[u8]>, Option<Rc<[u8]>>>;

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    active: Generation,
    /// Oldest first. The oldest holds no marks of deletions.
    frozen: Vec<Rc<Generation>>,
}

impl Table {
    /// The image of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Rc<[u8]>> {
        let frozen = self.frozen.iter().rev().map(Rc::as_ref);
        std::iter::once(&self.active).chain(frozen).find_map(|generation| generation.get(key))?.as_ref()
    }

    /// Makes `image` the image of `key`; returns the one it replaces.
    pub(crate) fn put(&mut self, key: Rc<[u8]>, image: Rc<[u8]>) -> Option<Rc<[u8]>> {
        let hidden = self.frozen_image(&key);
        let replaced = self.active.insert(key, Some(image)).unwrap_or(hidden);
        self.fold();
        replaced
    }

    /// Removes `key`; returns the image it had.
    pub(crate) fn delete(&mut self, key: Rc<[u8]>) -> Option<Rc<[u8]>> {
        if self.frozen.is_empty() {
            return self.active.remove(&key).flatten();
        }
        let hidden = self.frozen_image(&key);
        let replaced = self.active.insert(key, None).unwrap_or(hidden);
        self.fold();
        replaced
    }

    /// The image of `key` below the active generation.
    fn frozen_image(&self, key: &[u8]) -> Option<Rc<[u8]>> {
        self.frozen.iter().rev().find_map(|generation| generation.get(key))?.clone()
    }

    /// The items of a range, in order or in reverse order.
    pub(crate) fn range<'a>(
        &'a self,
        lower: &'a [u8],
        upper: Option<&'a [u8]>,
        reverse: bool,
    ) -> impl Iterator<Item = (&'a Rc<[u8]>, &'a Rc<[u8]>)> {
        let frozen = self.frozen.iter().rev().map(Rc::as_ref);
        let generations = std::iter::once(&self.active).chain(frozen);
        Merge::new(generations.filter_map(|generation| slice(generation, lower, upper)), reverse)
    }

    /// The present state, which was applied up to `slot`. With too many frozen generations it folds a part
    /// of what may be folded: asking again gets there, also when nothing is written.
    pub(crate) fn pin(&mut self, slot: Slot) -> Result<Pinned, TooManyFrozen> {
        for _ in 0..FOLDS_PER_PIN {
            if self.frozen.len() < FROZEN_GENERATIONS_MAX {
                break;
            }
            self.fold();
        }
        if !self.active.is_empty() {
            if self.frozen.len() >= FROZEN_GENERATIONS_MAX {
                return Err(TooManyFrozen { max: FROZEN_GENERATIONS_MAX });
            }
            self.frozen.push(Rc::new(std::mem::take(&mut self.active)));
        }
        Ok(Pinned { generations: self.frozen.clone(), slot })
    }

    /// Items and marks of deletions held.
    pub(crate) fn len(&self) -> usize {
        self.active.len() + self.frozen.iter().map(|generation| generation.len()).sum::<usize>()
    }

    /// Moves a few items into the newest frozen generation, if nobody else holds it.
    fn fold(&mut self) {
        let bottom = self.frozen.len() == 1;
        let Some(below) = self.frozen.last_mut().and_then(Rc::get_mut) else { return };
        for _ in 0..FOLDED_PER_CHANGE {
            match self.active.pop_first() {
                Some((key, None)) if bottom => drop(below.remove(&key)),
                Some((key, image)) => drop(below.insert(key, image)),
                None => break,
            }
        }
        if self.active.is_empty() {
            let below = self.frozen.pop().expect("there is one");
            self.active = Rc::into_inner(below).expect("nobody else holds it");
        }
    }
}

/// A state of a table that later changes do not touch.
#[derive(Clone, Debug)]
pub struct Pinned {
    generations: Vec<Rc<Generation>>,
    slot: Slot,
}

impl Pinned {
    /// The last slot applied to it.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The items in key order from `lower` (inclusive) on.
    pub fn iter_from<'a>(&'a self, lower: &'a [u8]) -> impl Iterator<Item = (&'a Rc<[u8]>, &'a Rc<[u8]>)> {
        let generations = self.generations.iter().rev();
        Merge::new(generations.filter_map(|generation| slice(generation, lower, None)), false)
    }
}

/// The part of a generation in a range, unless the range is empty.
fn slice<'a>(generation: &'a Generation, lower: &[u8], upper: Option<&[u8]>) -> Option<merge::Slice<'a>> {
    let end = upper.map_or(Bound::Unbounded, Bound::Excluded);
    let empty = upper.is_some_and(|upper| upper <= lower);
    (!empty).then(|| generation.range::<[u8], _>((Bound::Included(lower), end)))
}

#[cfg(test)]
mod tests;
