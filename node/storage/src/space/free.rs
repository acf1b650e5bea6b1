//! Sets of blocks as runs: coalesced when they touch, split when a part is taken, and their encoding.
//!
//! [`ExtentSet`] is the set; `FreeMap` finds room in one by size. Neither knows why a block is in it.

use super::{
    Extent,
    codec::{DecodeFault, Reader, put_variable, variable_bytes},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// A set of blocks, kept as runs that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    /// First block and number of blocks.
    runs: BTreeMap<u64, u64>,
    blocks: u64,
}

impl ExtentSet {
    /// An empty set.
    pub fn new() -> Self {
        ExtentSet::default()
    }

    /// Number of blocks in the set.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of runs.
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is no block in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs in order, as ranges of blocks.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(&first, &blocks)| first..first + blocks)
    }

    /// The first run.
    pub fn first(&self) -> Option<Range<u64>> {
        self.iter().next()
    }

    /// The last run.
    pub fn last(&self) -> Option<Range<u64>> {
        self.runs.last_key_value().map(|(&first, &blocks)| first..first + blocks)
    }

    /// Whether all of `range` is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        self.run_at(range.start).is_some_and(|run| run.end >= range.end)
    }

    /// Whether any block of `range` is in the set.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        let before = self.runs.range(..range.end).next_back();
        before.is_some_and(|(&first, &blocks)| first + blocks > range.start)
    }

    fn run_at(&self, block: u64) -> Option<Range<u64>> {
        let (&first, &blocks) = self.runs.range(..=block).next_back()?;
        (block < first + blocks).then_some(first..first + blocks)
    }

    /// Adds blocks, and returns the run that they are part of now.
    ///
    /// # Panics
    /// If any of them is in the set already: a block cannot become free twice.
    pub fn insert(&mut self, range: Range<u64>) -> Range<u64> {
        self.join(range).0
    }

    /// Like [`insert`](Self::insert); also the runs before and behind that were joined to it.
    fn join(&mut self, range: Range<u64>) -> (Range<u64>, Option<u64>, Option<u64>) {
        assert!(range.start < range.end, "a run has blocks");
        let mut whole = range.clone();
        let (mut before, mut behind) = (None, None);
        if let Some((&first, &blocks)) = self.runs.range(..range.end).next_back() {
            assert!(first + blocks <= range.start, "blocks {range:?} are in the set already");
            if first + blocks == range.start {
                whole.start = first;
                before = Some(blocks);
            }
        }
        if let Some(&blocks) = self.runs.get(&range.end) {
            self.runs.remove(&range.end);
            whole.end += blocks;
            behind = Some(blocks);
        }
        self.blocks += range.end - range.start;
        self.runs.insert(whole.start, whole.end - whole.start);
        (whole, before, behind)
    }

    /// Takes blocks out of the run that they are part of.
    ///
    /// # Panics
    /// If any of them is not in the set.
    pub fn remove(&mut self, range: Range<u64>) {
        let run = self.run_at(range.start).filter(|run| run.end >= range.end && range.start < range.end);
        let run = run.unwrap_or_else(|| panic!("blocks {range:?} are not in the set"));
        self.runs.remove(&run.start);
        if run.start < range.start {
            self.runs.insert(run.start, range.start - run.start);
        }
        if range.end < run.end {
            self.runs.insert(range.end, run.end - range.end);
        }
        self.blocks -= range.end - range.start;
    }
}

impl From<Extent> for Range<u64> {
    fn from(extent: Extent) -> Range<u64> {
        extent.first_block..extent.first_block + u64::from(extent.blocks)
    }
}

/// Runs of up to this many blocks have a size class each; above it a class is a power of two.
const EXACT_CLASSES: u64 = 16;
const CLASSES: usize = EXACT_CLASSES as usize + (u64::BITS - EXACT_CLASSES.ilog2()) as usize;

/// Free blocks, found by how many are needed.
#[derive(Clone, Debug)]
pub(super) struct FreeMap {
    set: ExtentSet,
    /// First blocks of the runs of each size class.
    classes: [BTreeSet<u64>; CLASSES],
}

fn class(blocks: u64) -> usize {
    if blocks <= EXACT_CLASSES {
        (blocks - 1) as usize
    } else {
        (EXACT_CLASSES + u64::from(blocks.ilog2() - EXACT_CLASSES.ilog2())) as usize
    }
}

impl FreeMap {
    pub(super) fn new(set: ExtentSet) -> Self {
        let mut classes = [const { Vec::new() }; CLASSES];
        for run in set.iter() {
            classes[class(run.end - run.start)].push(run.start);
        }
        FreeMap { set, classes: classes.map(|firsts| firsts.into_iter().collect()) }
    }

    pub(super) fn set(&self) -> &ExtentSet {
        &self.set
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        let (whole, before, behind) = self.set.join(range.clone());
        if let Some(blocks) = before {
            self.classes[class(blocks)].remove(&whole.start);
        }
        if let Some(blocks) = behind {
            self.classes[class(blocks)].remove(&range.end);
        }
        self.classes[class(whole.end - whole.start)].insert(whole.start);
    }

    /// Takes out a whole run of at least `blocks`: the first one in the smallest class that has one.
    pub(super) fn take(&mut self, blocks: u64) -> Option<Range<u64>> {
        let lowest = class(blocks);
        // In a class of several sizes a run may be too short.
        let fits = |first: &&u64| self.set.runs[*first] >= blocks;
        let in_lowest = self.classes[lowest].iter().find(fits).copied();
        let above = || self.classes[lowest + 1..].iter().find_map(|class| class.first().copied());
        let first = in_lowest.or_else(above)?;
        let run = first..first + self.set.runs[&first];
        self.classes[class(run.end - run.start)].remove(&first);
        self.set.remove(run.clone());
        Some(run)
    }
}

/// Most bytes that [`encode_sets`] makes of so many runs of a file of `blocks_total`.
pub(super) fn encoded_bytes_max(runs: usize, blocks_total: u64) -> usize {
    variable_bytes(runs as u64) + runs * 2 * variable_bytes(blocks_total)
}

/// Appends the union of disjoint sets: the number of runs, then the distance of each from the end of
/// the one before and its length.
pub(super) fn encode_sets<'a>(sets: impl IntoIterator<Item = &'a ExtentSet>, bytes: &mut Vec<u8>) {
    let runs = union(sets);
    put_variable(bytes, runs.len() as u64);
    let mut end = 0;
    for run in runs {
        put_variable(bytes, run.start - end);
        put_variable(bytes, run.end - run.start);
        end = run.end;
    }
}

/// The runs of the union of disjoint sets, in order and coalesced.
fn union<'a>(sets: impl IntoIterator<Item = &'a ExtentSet>) -> Vec<Range<u64>> {
    let mut union: Vec<Range<u64>> = sets.into_iter().flat_map(ExtentSet::iter).collect();
    // Each set is in order already, which this sort makes use of.
    union.sort_by_key(|run| run.start);
    union.dedup_by(|run, before| {
        assert!(before.end <= run.start, "the sets are disjoint");
        let follows = before.end == run.start;
        if follows {
            before.end = run.end;
        }
        follows
    });
    union
}

/// Reads what [`encode_sets`] wrote; all runs must lie in `within`.
pub(super) fn decode_set(reader: &mut Reader<'_>, within: Range<u64>) -> Result<ExtentSet, DecodeFault> {
    let count = reader.variable("number of free runs")?;
    let mut runs = Vec::new();
    let (mut blocks_of_all, mut end) = (0, 0u64);
    for index in 0..count {
        let gap = reader.variable("distance of a free run")?;
        let blocks = reader.variable("length of a free run")?;
        let first = end.checked_add(gap).filter(|first| *first >= within.start && (index == 0 || gap > 0));
        let first = first.ok_or_else(|| reader.fault("distance of a free run", gap))?;
        let run_end = first.checked_add(blocks).filter(|end| blocks > 0 && *end <= within.end);
        end = run_end.ok_or_else(|| reader.fault("length of a free run", blocks))?;
        runs.push((first, blocks));
        blocks_of_all += blocks;
    }
    // They rise and do not touch: a sorted list makes the map without a search for each.
    Ok(ExtentSet { runs: runs.into_iter().collect(), blocks: blocks_of_all })
}
