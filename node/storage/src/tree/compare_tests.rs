//! Trees of different shapes against each other, and against the difference of their models.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use super::*;
use crate::{
    memory::{MemoryDisk, TestRuntime, seeds},
    tree::{Limits, tests::World},
};
use std::{cell::Cell, collections::BTreeSet};

const SEEDS: u64 = 40;

/// Counts what is read.
struct Counted<'a> {
    pages: &'a Pages<MemoryDisk, TestRuntime>,
    reads: Cell<u64>,
}

impl PageSource for Counted<'_> {
    type Page = <Pages<MemoryDisk, TestRuntime> as PageSource>::Page;

    async fn page(&self, reference: PageReference, kind: PageKind) -> Result<Self::Page, TreeError> {
        self.reads.set(self.reads.get() + 1);
        self.pages.page(reference, kind).await
    }
}

/// The ranges found, and how many pages were read for them.
fn compare(one: &World, other: &World) -> (Vec<KeyRange>, u64) {
    let (a, b) = (counted(one), counted(other));
    let (a_side, b_side) = (Side { pages: &a, root: one.root }, Side { pages: &b, root: other.root });
    let found = one.runtime.block_on(&one.disk, differences(&a_side, &b_side)).unwrap();
    (found, a.reads.get() + b.reads.get())
}

fn counted(world: &World) -> Counted<'_> {
    Counted { pages: &world.pages, reads: Cell::new(0) }
}

fn holds(range: &KeyRange, key: &[u8]) -> bool {
    key >= &range.lower[..] && range.upper.as_deref().is_none_or(|upper| key < upper)
}

/// A tree of the same content as another, merged in another order into pages of another size.
fn twin(of: &World, seed: u64) -> World {
    let mut twin = World::on(of.runtime.clone(), seed + 1000);
    twin.place.limits = Limits { leaf_bytes: 8192, inner_bytes: 4096 };
    let all: Vec<_> = of.model.iter().map(|(key, image)| (key.clone(), Some(image.clone()))).collect();
    for part in 0..3 {
        let part: Vec<_> = all.iter().skip(part).step_by(3).cloned().collect();
        twin.merge(&part);
    }
    twin
}

/// Changes some keys; yields those whose item is another one after it.
fn change(world: &mut World, count: u64) -> BTreeSet<Vec<u8>> {
    let before = world.model.clone();
    let changes: Vec<_> = (0..count)
        .map(|_| {
            let key = world.key();
            let image = (!world.random.once_in(3)).then(|| vec![world.random.bits() as u8; 50]);
            (key, image)
        })
        .collect();
    world.merge(&changes);
    let keys: BTreeSet<_> = changes.into_iter().map(|(key, _)| key).collect();
    keys.into_iter().filter(|key| before.get(key) != world.model.get(key)).collect()
}

#[test]
fn the_ranges_found_hold_all_differences_and_none_without() {
    let mut seen = 0;
    for seed in seeds(SEEDS) {
        println!("seed={seed}");
        let mut world = World::new(seed);
        for _ in 0..4 {
            let changes = world.changes();
            world.merge(&changes);
        }
        let mut twin = twin(&world, seed);
        assert_eq!(compare(&world, &twin), (Vec::new(), 0), "equal content has equal sums");
        let count = [1, 3, 30][world.random.below(3) as usize];
        let changed = change(&mut twin, count);
        for (one, other) in [(&world, &twin), (&twin, &world)] {
            let (found, reads) = compare(one, other);
            for key in &changed {
                assert!(found.iter().any(|range| holds(range, key)), "{}", key.escape_ascii());
            }
            for range in &found {
                assert!(changed.iter().any(|key| holds(range, key)), "{range:?} is alike");
            }
            assert!(found.windows(2).all(|pair| pair[0].upper.as_ref().unwrap() < &pair[1].lower));
            seen += found.len();
            let height = |world: &World| world.root.map_or(0, |root| u64::from(root.height) + 1);
            let leaves = 1 + (world.model.len() as u64).max(twin.model.len() as u64);
            let halvings = u64::from(leaves.ilog2()) + 2 * height(one).max(height(other));
            let most = changed.len() as u64 * halvings * (height(one) + height(other));
            assert!(reads <= most, "{reads} reads for {} differences, of {leaves} items", changed.len());
        }
    }
    assert!(seen > 100, "{seen} ranges");
}

#[test]
fn few_differences_in_a_large_tree_cost_few_reads() {
    let mut world = World::new(7);
    let all: Vec<_> =
        (0..20_000).map(|number| (format!("user-{number:06}").into_bytes(), Some(vec![7; 100]))).collect();
    world.merge(&all);
    let mut twin = twin(&world, 7);
    let one = (b"user-000777".to_vec(), None);
    twin.merge(std::slice::from_ref(&one));
    let (found, reads) = compare(&world, &twin);
    assert!(found.len() == 1 && holds(&found[0], &one.0), "{found:?}");
    let pages = 20_000 * 100 / 4096;
    assert!(reads < 40, "{reads} reads of {pages} pages");
}

#[test]
fn a_tree_that_is_not_there_differs_everywhere() {
    let empty = World::new(1);
    let mut world = World::on(empty.runtime.clone(), 2);
    assert_eq!(compare(&empty, &empty), (Vec::new(), 0));
    let all: Vec<_> = (0..500).map(|number| (format!("{number}").into_bytes(), Some(vec![1; 90]))).collect();
    world.merge(&all);
    let everything = vec![KeyRange { lower: Vec::new(), upper: None }];
    assert_eq!(compare(&empty, &world).0, everything);
    assert_eq!(compare(&world, &empty).0, everything);
}
