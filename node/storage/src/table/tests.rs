//! The table against an ordered map, with pins and folding in between.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn bytes(text: &str) -> Rc<[u8]> {
    Rc::from(text.as_bytes())
}

fn put(table: &mut Table, key: &str, image: &str) {
    table.change(bytes(key), Some(bytes(image)));
}

fn delete(table: &mut Table, key: &str) {
    table.change(bytes(key), None);
}

type Items = Vec<(Vec<u8>, Vec<u8>)>;

/// What is left of a range when deletions have hidden what they hide.
fn items<'a>(range: impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)>) -> Items {
    range.filter_map(|(key, held)| Some((key.to_vec(), held.as_ref()?.to_vec()))).collect()
}

fn pinned_items(pinned: &Pinned) -> Items {
    items(pinned.range(&[], None))
}

#[test]
fn a_pinned_state_does_not_see_later_changes() {
    let mut table = Table::default();
    put(&mut table, "a", "1");
    put(&mut table, "b", "2");
    let pinned = table.pin(Slot(2)).unwrap();
    put(&mut table, "a", "3");
    delete(&mut table, "b");
    assert_eq!(pinned_items(&pinned), [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
    assert_eq!(pinned.slot(), Slot(2));
    assert_eq!(table.get(b"a"), Some(&Some(bytes("3"))));
    assert_eq!(table.get(b"b"), Some(&None), "the tree need not be asked");
    assert_eq!(table.get(b"c"), None);
}

#[test]
fn frozen_generations_are_limited_and_shared_by_pins_of_the_same_state() {
    let mut table = Table::default();
    let mut pins = Vec::new();
    for round in 0..FROZEN_GENERATIONS_MAX {
        put(&mut table, "a", &round.to_string());
        pins.push(table.pin(Slot(round as u64)).unwrap());
        pins.push(table.pin(Slot(round as u64)).unwrap());
    }
    put(&mut table, "b", "2");
    assert_eq!(table.pin(Slot(9)).unwrap_err(), TooManyFrozen { max: FROZEN_GENERATIONS_MAX });
    drop(pins);
    put(&mut table, "c", "2");
    assert!(table.pin(Slot(10)).is_ok());
}

#[test]
fn released_generations_fold_into_one_without_marks() {
    let mut table = Table::default();
    for index in 0..100 {
        put(&mut table, &format!("{index:03}"), "x");
    }
    let pinned = table.pin(Slot(100)).unwrap();
    for index in 0..90 {
        delete(&mut table, &format!("{index:03}"));
    }
    assert_eq!(table.len(), 190);
    drop(pinned);
    for _ in 0..40 {
        put(&mut table, "zzz", "y");
    }
    assert_eq!(table.len(), 11);
    assert!(table.frozen.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Pin,
    Unpin(usize),
    Merge(usize),
    Range(u8, Option<u8>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..40, any::<u8>()).prop_map(|(key, image)| Step::Put(key, image)),
        4 => (0u8..40).prop_map(Step::Delete),
        1 => Just(Step::Pin),
        2 => any::<usize>().prop_map(Step::Unpin),
        1 => any::<usize>().prop_map(Step::Merge),
        2 => (0u8..45, prop::option::of(0u8..45), any::<bool>()).prop_map(|(a, b, r)| Step::Range(a, b, r)),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is held, over the part of a tree in the same range.
fn over<'a>(
    tree: &Model,
    held: impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)>,
    lower: &[u8],
    upper: Option<&[u8]>,
    reverse: bool,
) -> Items {
    let inside = |key: &[u8]| key >= lower && upper.is_none_or(|upper| key < upper);
    let mut all: Model =
        tree.iter().filter(|(key, _)| inside(key)).map(|(key, image)| (key.clone(), image.clone())).collect();
    for (key, held) in held {
        match held {
            Some(image) => drop(all.insert(key.to_vec(), image.to_vec())),
            None => drop(all.remove(&key[..])),
        }
    }
    let all = all.into_iter();
    if reverse { all.rev().collect() } else { all.collect() }
}

fn generations(table: &Table) -> impl Iterator<Item = &Generation> {
    table.frozen.iter().map(Rc::as_ref).chain([&table.active])
}

proptest! {
    #[test]
    fn a_table_behaves_like_a_map(steps in prop::collection::vec(step(), 1..300)) {
        let mut table = Table::default();
        let mut model = Model::new();
        let mut tree = Model::new();
        let mut pins: Vec<(Pinned, Model)> = Vec::new();
        for step in steps {
            match step {
                Step::Put(key, image) => {
                    table.change(Rc::from([key]), Some(Rc::from([image])));
                    model.insert(vec![key], vec![image]);
                }
                Step::Delete(key) => {
                    table.change(Rc::from([key]), None);
                    model.remove(&vec![key]);
                }
                Step::Merge(index) => {
                    if !pins.is_empty() {
                        let (pinned, _) = pins.swap_remove(index % pins.len());
                        if table.holds(&pinned) {
                            for (key, held) in pinned.range(&[], None) {
                                match held {
                                    Some(image) => drop(tree.insert(key.to_vec(), image.to_vec())),
                                    None => drop(tree.remove(&key[..])),
                                }
                            }
                            table.merged(pinned);
                            // A pin of before would need the tree of before.
                            pins.clear();
                        }
                    }
                }
                Step::Pin => {
                    if let Ok(pinned) = table.pin(Slot(0)) {
                        pins.push((pinned, model.clone()));
                    }
                }
                Step::Unpin(index) => {
                    if !pins.is_empty() {
                        pins.swap_remove(index % pins.len());
                    }
                }
                Step::Range(lower, upper, reverse) => {
                    let (lower, upper) = ([lower], upper.map(|upper| [upper]));
                    let end = upper.as_ref().map(|upper| upper.as_slice());
                    let found = over(&tree, table.range(&lower, end, reverse), &lower, end, reverse);
                    let inside = |key: &Vec<u8>| key.as_slice() >= &lower[..] && end.is_none_or(|end| key.as_slice() < end);
                    let mut expected: Items =
                        model.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
                    if reverse {
                        expected.reverse();
                    }
                    prop_assert_eq!(found, expected);
                }
            }
            for key in 0..40u8 {
                let found = match table.get(&[key]) {
                    Some(held) => held.as_ref().map(|image| image.to_vec()),
                    None => tree.get(&vec![key]).cloned(),
                };
                prop_assert_eq!(found, model.get(&vec![key]).cloned());
            }
            let taken: u64 = generations(&table)
                .flat_map(|generation| generation.slice(&[], None).expect("a range"))
                .map(|(key, held)| held_bytes(key.bytes(), held.as_deref()))
                .sum();
            prop_assert_eq!(table.bytes(), taken);
        }
        for (pinned, at_pin) in pins {
            let found = over(&tree, pinned.range(&[], None), &[], None, false);
            prop_assert_eq!(found, at_pin.into_iter().collect::<Items>());
        }
    }
}
