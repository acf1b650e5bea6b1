//! The in-memory table of one partition: what was applied since the last merge into its tree, in key
//! order.
//!
//! It consists of generations: one *active*, that changes are applied to, over at most a few *frozen*
//! ones that never change. A newer generation hides an older one, and all hide the tree; a deletion is
//! kept as a mark while there is something below that it may hide. Pinning freezes the active generation
//! and shares the frozen ones, so a pinned state costs nothing until items change; a merge reads pinned
//! generations and, when the tree has them, takes them off the bottom. A frozen generation that nobody
//! holds any more has the active one folded into it, a few items with each apply, until they are one
//! again: no moment pays for all.
//!
//! It knows nothing of slots, of the log, of budgets or of what the tree holds.

mod generation;
mod key;
mod merge;

pub(crate) use generation::{Held, held_bytes};

use crate::{engine::Counts, error::TooManyFrozen, limits::FROZEN_GENERATIONS_MAX};
use evenkeel_model::Slot;
use generation::Generation;
use merge::Merge;
use std::rc::Rc;

/// Items folded with each change that is applied. More than one, so that folding ends.
const FOLDED_PER_CHANGE: usize = 4;
/// How often as many items are folded by a pin that would be refused.
const FOLDS_PER_PIN: usize = 1024;

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    active: Generation,
    /// Oldest first. Without a tree below, the oldest holds no marks of deletions.
    frozen: Vec<Rc<Generation>>,
    /// Whether there is a tree below.
    has_tree: bool,
}

impl Table {
    /// What the generations say of `key`; none if they say nothing, and the tree is to be asked.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Held> {
        let frozen = self.frozen.iter().rev().map(Rc::as_ref);
        std::iter::once(&self.active).chain(frozen).find_map(|generation| generation.get(key))
    }

    /// What a change of `key` would give back: what is frozen stays.
    pub(crate) fn replaceable_bytes(&self, key: &[u8]) -> u64 {
        self.active.get(key).map_or(0, |held| held_bytes(key, held.as_deref()))
    }

    /// Whether a deletion leaves a mark.
    pub(crate) fn keeps_marks(&self) -> bool {
        self.has_tree || !self.frozen.is_empty()
    }

    /// Makes `image` what is held of `key`.
    pub(crate) fn change(&mut self, key: Rc<[u8]>, image: Held) {
        let keeps = image.is_some() || self.keeps_marks();
        let before = match keeps {
            true => self.active.insert(Rc::clone(&key), image.clone()),
            false => self.active.remove(&key),
        };
        let below = || self.frozen.iter().rev().find_map(|generation| generation.get(&key));
        let known = before.as_ref().or_else(below);
        let change = Counts::change(known, image.as_ref(), self.has_tree);
        self.active.count(change);
        self.fold();
    }

    /// What is held of a range, in order or in reverse order, marks of deletions included.
    pub(crate) fn range<'a>(
        &'a self,
        lower: &'a [u8],
        upper: Option<&'a [u8]>,
        reverse: bool,
    ) -> impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)> {
        let frozen = self.frozen.iter().rev().map(Rc::as_ref);
        let generations = std::iter::once(&self.active).chain(frozen);
        Merge::new(generations.filter_map(|generation| generation.slice(lower, upper)), reverse)
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

    /// Whether the generations of `pinned` are the bottom of the table.
    pub(crate) fn holds(&self, pinned: &Pinned) -> bool {
        let same = |(ours, theirs): (&Rc<Generation>, &Rc<Generation>)| Rc::ptr_eq(ours, theirs);
        let count = pinned.generations.len();
        count <= self.frozen.len() && self.frozen.iter().zip(&pinned.generations).all(same)
    }

    /// Of a state that was pinned before, what is not in the tree yet.
    pub(crate) fn unmerged(&self, mut pinned: Pinned) -> Pinned {
        pinned.generations.retain(|theirs| self.frozen.iter().any(|ours| Rc::ptr_eq(ours, theirs)));
        pinned
    }

    /// Drops what a merge has put into the tree: exactly the generations of `pinned`.
    pub(crate) fn merged(&mut self, pinned: Pinned) {
        assert!(self.holds(&pinned), "what was merged is the bottom of the table");
        self.frozen.drain(..pinned.generations.len());
        self.has_tree = true;
    }

    /// From here on there is a tree below.
    pub(crate) fn put_over_tree(&mut self) {
        self.has_tree = true;
    }

    /// Items and marks of deletions held.
    pub(crate) fn len(&self) -> usize {
        self.active.len() + self.frozen.iter().map(|generation| generation.len()).sum::<usize>()
    }

    /// Memory that the generations take, as budgets count it.
    pub(crate) fn bytes(&self) -> u64 {
        self.active.bytes() + self.frozen.iter().map(|generation| generation.bytes()).sum::<u64>()
    }

    /// What the table adds to the tree: an estimate as long as a key may or may not be in the tree.
    pub(crate) fn counts_over(&self, tree: Counts) -> Counts {
        let frozen = self.frozen.iter().map(Rc::as_ref);
        frozen.chain([&self.active]).fold(tree, |counts, generation| generation.counts_over(counts))
    }

    /// Moves a few items into the newest frozen generation, if nobody else holds it.
    fn fold(&mut self) {
        let bottom = self.frozen.len() == 1 && !self.has_tree;
        let Some(below) = self.frozen.last_mut().and_then(Rc::get_mut) else { return };
        for _ in 0..FOLDED_PER_CHANGE {
            let Some((key, image)) = self.active.pop_first() else { break };
            match image {
                None if bottom => below.remove(&key),
                image => below.insert(key, image),
            };
        }
        if self.active.is_empty() {
            below.take_counts(&self.active);
            let below = self.frozen.pop().expect("there is one");
            self.active = Rc::into_inner(below).expect("nobody else holds it");
        }
    }
}

/// A state of a table that later changes do not touch.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    generations: Vec<Rc<Generation>>,
    slot: Slot,
}

impl Pinned {
    /// The last slot applied to it.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// How many changes there are, those of a key in several generations counted each.
    pub(crate) fn len(&self) -> u64 {
        self.generations.iter().map(|generation| generation.len() as u64).sum()
    }

    /// Whether nothing was held.
    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// What is held of a range in key order, marks of deletions included.
    pub(crate) fn range<'a>(
        &'a self,
        lower: &'a [u8],
        upper: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)> {
        let generations = self.generations.iter().rev();
        Merge::new(generations.filter_map(|generation| generation.slice(lower, upper)), false)
    }
}

#[cfg(test)]
mod tests;
