//! The allocator of blocks: who may write where, and when a block that was given up may be used again.
//!
//! A block is in exactly one of these states:
//!
//! ```text
//! free ──allocate──► unpublished ──publish──► used ──release──► pending ──durable──► pinned ──► free
//!                        └── abandon ──► free
//! ```
//!
//! - *unpublished*: allocated, and no flip refers to it yet. A crash makes it free, so the map that a
//!   flip persists counts it as free.
//! - *pending*: released by the next flip or by the one under way, which is not durable yet: a crash
//!   would bring back the catalogue that still refers to it.
//! - *pinned*: that flip, number s, is durable, but a snapshot pinned at or before s may still read it.
//!
//! A pure state machine: it knows nothing of disks or of what the blocks hold.

use super::{
    Extent, HEAD_BLOCKS,
    codec::{DecodeFault, Reader},
    free::{ExtentSet, FreeMap, decode_set, encode_sets, encoded_bytes_max},
};
use std::{collections::VecDeque, ops::Range};

/// Room that allocations are looked for in first: whole bursts go to one place.
const RUN_BLOCKS: u64 = 64;
/// Blocks that become free at most in one step, so that no step takes long.
const RECLAIM_BLOCKS: u64 = 1024;

/// How the blocks of the page file are used; the sum is the length of the file but for its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceUsed {
    /// Referred to by the last flip or the one under way, or allocated for the next one.
    pub used_blocks: u64,
    /// Of these, allocated and not in any flip yet.
    pub unpublished_blocks: u64,
    /// May be allocated.
    pub free_blocks: u64,
    /// Released, and the flip that says so is not durable yet.
    pub pending_blocks: u64,
    /// Released durably, and kept for a snapshot or not yet collected.
    pub pinned_blocks: u64,
}

/// The blocks of one page file.
#[derive(Debug)]
pub struct Extents {
    blocks_total: u64,
    free: FreeMap,
    /// Free blocks that the next allocations are cut from, one behind the other.
    run: Range<u64>,
    unpublished: ExtentSet,
    /// Released, for the next flip. They are not joined to one: that would be as much work as there are runs, at once.
    released: Vec<ExtentSet>,
    /// Released by the flip under way, with its sequence.
    flipping: Option<(u64, Vec<ExtentSet>)>,
    /// Released by durable flips, with their sequences, not falling.
    waiting: VecDeque<(u64, ExtentSet)>,
    /// Sequences at which snapshots were taken that are still held, rising, with their number.
    pins: VecDeque<(u64, u64)>,
    /// The last durable flip.
    durable: u64,
    /// What became free since it was last asked for.
    freed: Vec<Range<u64>>,
}

impl Extents {
    /// An allocator over the blocks of a file of `blocks_total`, of which `free` are free, after flip
    /// `durable`.
    pub fn new(blocks_total: u64, free: ExtentSet, durable: u64) -> Self {
        assert!(blocks_total >= HEAD_BLOCKS, "the head is there");
        assert!(free.first().is_none_or(|run| run.start >= HEAD_BLOCKS), "the head is never free");
        Extents {
            blocks_total,
            free: FreeMap::new(free),
            run: 0..0,
            unpublished: ExtentSet::new(),
            released: Vec::new(),
            flipping: None,
            waiting: VecDeque::new(),
            pins: VecDeque::new(),
            durable,
            freed: Vec::new(),
        }
    }

    /// The file has grown to `blocks_total` blocks.
    pub fn grow(&mut self, blocks_total: u64) {
        assert!(blocks_total > self.blocks_total, "a file grows");
        self.free.insert(self.blocks_total..blocks_total);
        self.blocks_total = blocks_total;
    }

    /// Length of the file.
    pub fn blocks_total(&self) -> u64 {
        self.blocks_total
    }

    /// The last durable flip.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Finds room: behind the last allocation if it fits there, else where a whole burst fits, else
    /// where it fits best. None if nothing free is long enough.
    pub fn allocate(&mut self, blocks: u32) -> Option<Extent> {
        assert!(blocks > 0, "an extent has blocks");
        self.reclaim();
        let needed = u64::from(blocks);
        while self.run.end - self.run.start < needed {
            if !self.run.is_empty() {
                self.free.insert(self.run.clone());
                self.run = 0..0;
            }
            if let Some(run) = self.free.take(needed.max(RUN_BLOCKS)).or_else(|| self.free.take(needed)) {
                self.run = run;
            } else if !self.reclaim() {
                return None;
            }
        }
        let first_block = self.run.start;
        self.run.start += needed;
        self.unpublished.insert(first_block..self.run.start);
        Some(Extent { first_block, blocks })
    }

    /// Blocks that no flip refers to are free again at once. The caller makes sure that no write to
    /// them is still under way.
    pub fn abandon(&mut self, unpublished: &ExtentSet) {
        for run in unpublished.iter() {
            self.unpublished.remove(run.clone());
            self.free.insert(run.clone());
            self.freed.push(run);
        }
    }

    /// The next flip refers to these blocks.
    pub fn publish(&mut self, blocks: &ExtentSet) {
        blocks.iter().for_each(|run| self.unpublished.remove(run));
    }

    /// The next flip does not refer to these blocks any more. One that is free already, or released twice, stops the node
    /// when the flip's map is put together.
    pub fn release(&mut self, blocks: ExtentSet) {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return };
        assert!(first.start >= HEAD_BLOCKS && last.end <= self.blocks_total, "only what is used is released");
        self.released.push(blocks);
    }

    /// Begins a flip and returns its sequence: what was released so far is free once it is durable.
    pub fn begin_flip(&mut self) -> u64 {
        assert!(self.flipping.is_none(), "one flip at a time");
        let sequence = self.durable + 1;
        self.flipping = Some((sequence, std::mem::take(&mut self.released)));
        sequence
    }

    /// The flip under way is durable.
    pub fn flip_durable(&mut self, sequence: u64) {
        let (begun, released) = self.flipping.take().expect("a flip was begun");
        assert_eq!(begun, sequence, "flips become durable in order");
        self.durable = sequence;
        self.waiting.extend(released.into_iter().map(|blocks| (sequence, blocks)));
    }

    /// Keeps everything that the last durable flip and later ones refer to, until
    /// [`unpin`](Self::unpin) with the sequence returned. What was released by the last durable flip is
    /// kept as well if it is not free yet.
    pub fn pin(&mut self) -> u64 {
        match self.pins.back_mut() {
            Some((sequence, count)) if *sequence == self.durable => *count += 1,
            _ => self.pins.push_back((self.durable, 1)),
        }
        self.durable
    }

    /// One more pin at a sequence that is pinned.
    pub fn pin_at(&mut self, sequence: u64) {
        let index = self.pins.binary_search_by_key(&sequence, |(sequence, _)| *sequence);
        self.pins[index.expect("only what is pinned is pinned again")].1 += 1;
    }

    /// Takes one pin back.
    pub fn unpin(&mut self, sequence: u64) {
        let index = self.pins.binary_search_by_key(&sequence, |(sequence, _)| *sequence);
        let (_, count) = &mut self.pins[index.expect("only what was pinned is unpinned")];
        *count -= 1;
        while self.pins.front().is_some_and(|(_, count)| *count == 0) {
            self.pins.pop_front();
        }
    }

    /// Moves some blocks that nobody sees any more to the free ones; whether there were any.
    pub fn reclaim(&mut self) -> bool {
        let mut left = RECLAIM_BLOCKS;
        while left > 0 {
            let oldest_pin = self.pins.front().map(|(sequence, _)| *sequence);
            let Some((sequence, released)) = self.waiting.front_mut() else { break };
            if oldest_pin.is_some_and(|pin| pin <= *sequence) {
                break;
            }
            let Some(mut run) = released.first() else {
                self.waiting.pop_front();
                continue;
            };
            run.end = run.end.min(run.start + left);
            released.remove(run.clone());
            left -= run.end - run.start;
            self.free.insert(run.clone());
            self.freed.push(run);
        }
        left < RECLAIM_BLOCKS
    }

    /// The blocks that became free since the last call: what was cached of them is of no use any more.
    pub fn take_freed(&mut self) -> impl Iterator<Item = Range<u64>> {
        self.freed.drain(..)
    }

    fn flipping(&self) -> impl Iterator<Item = &ExtentSet> {
        self.flipping.iter().flat_map(|(_, released)| released)
    }

    /// The accounts.
    pub fn used(&self) -> SpaceUsed {
        let free_blocks = self.free.set().blocks() + (self.run.end - self.run.start);
        let pending = self.released.iter().chain(self.flipping());
        let pending_blocks = pending.map(ExtentSet::blocks).sum();
        let pinned_blocks = self.waiting.iter().map(|(_, released)| released.blocks()).sum();
        let all = self.blocks_total - HEAD_BLOCKS;
        SpaceUsed {
            used_blocks: all - free_blocks - pending_blocks - pinned_blocks,
            unpublished_blocks: self.unpublished.blocks(),
            free_blocks,
            pending_blocks,
            pinned_blocks,
        }
    }

    /// Most bytes that [`encode_free`](Self::encode_free) will need, even if `more` extents are
    /// allocated before.
    pub fn encoded_free_bytes_max(&self, more: usize) -> usize {
        let waiting: usize = self.waiting.iter().map(|(_, released)| released.run_count()).sum();
        let flipping: usize = self.flipping().map(ExtentSet::run_count).sum();
        let runs = self.free.set().run_count() + 2 + self.unpublished.run_count() + flipping + waiting + more;
        encoded_bytes_max(runs, self.blocks_total)
    }

    /// Appends the blocks that are free after a crash right behind the flip under way: all but those
    /// that its catalogue refers to. Everything in that catalogue is published.
    pub fn encode_free(&self, bytes: &mut Vec<u8>) {
        assert!(self.flipping.is_some(), "a free map belongs to a flip");
        let mut run = ExtentSet::new();
        if !self.run.is_empty() {
            run.insert(self.run.clone());
        }
        let waiting = self.waiting.iter().map(|(_, released)| released);
        let free = [self.free.set(), &run, &self.unpublished];
        encode_sets(free.into_iter().chain(self.flipping()).chain(waiting), bytes);
    }

    /// Reads a free map of a file of `blocks_total` from the front of `bytes`.
    pub(super) fn decode_free(reader: &mut Reader<'_>, blocks_total: u64) -> Result<ExtentSet, DecodeFault> {
        decode_set(reader, HEAD_BLOCKS..blocks_total)
    }
}

#[cfg(test)]
#[path = "extents_tests.rs"]
mod tests;
