//! The table against an ordered map, with pins and folding in between.

use super::*;
use proptest::prelude::*;

fn bytes(text: &str) -> Rc<[u8]> {
    Rc::from(text.as_bytes())
}

fn items(pinned: &Pinned) -> Vec<(Vec<u8>, Vec<u8>)> {
    pinned.iter_from(&[]).map(|(key, image)| (key.to_vec(), image.to_vec())).collect()
}

#[test]
fn a_pinned_state_does_not_see_later_changes() {
    let mut table = Table::default();
    table.put(bytes("a"), bytes("1"));
    table.put(bytes("b"), bytes("2"));
    let pinned = table.pin(Slot(2)).unwrap();
    table.put(bytes("a"), bytes("3"));
    table.delete(bytes("b"));
    assert_eq!(items(&pinned), [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
    assert_eq!(pinned.slot(), Slot(2));
    assert_eq!(table.get(b"a"), Some(&bytes("3")));
    assert_eq!(table.get(b"b"), None);
}

#[test]
fn frozen_generations_are_limited_and_shared_by_pins_of_the_same_state() {
    let mut table = Table::default();
    let mut pins = Vec::new();
    for round in 0..FROZEN_GENERATIONS_MAX {
        table.put(bytes("a"), bytes(&round.to_string()));
        pins.push(table.pin(Slot(round as u64)).unwrap());
        pins.push(table.pin(Slot(round as u64)).unwrap());
    }
    table.put(bytes("b"), bytes("2"));
    assert_eq!(table.pin(Slot(9)).unwrap_err(), TooManyFrozen { max: FROZEN_GENERATIONS_MAX });
    drop(pins);
    table.put(bytes("c"), bytes("2"));
    assert!(table.pin(Slot(10)).is_ok());
}

#[test]
fn released_generations_fold_into_one_without_marks() {
    let mut table = Table::default();
    for index in 0..100 {
        table.put(bytes(&format!("{index:03}")), bytes("x"));
    }
    let pinned = table.pin(Slot(100)).unwrap();
    for index in 0..90 {
        table.delete(bytes(&format!("{index:03}")));
    }
    assert_eq!(table.len(), 190);
    drop(pinned);
    for _ in 0..40 {
        table.put(bytes("zzz"), bytes("y"));
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
    Range(u8, Option<u8>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..40, any::<u8>()).prop_map(|(key, image)| Step::Put(key, image)),
        4 => (0u8..40).prop_map(Step::Delete),
        1 => Just(Step::Pin),
        2 => any::<usize>().prop_map(Step::Unpin),
        2 => (0u8..45, prop::option::of(0u8..45), any::<bool>()).prop_map(|(a, b, r)| Step::Range(a, b, r)),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

proptest! {
    #[test]
    fn a_table_behaves_like_a_map(steps in prop::collection::vec(step(), 1..300)) {
        let mut table = Table::default();
        let mut model = Model::new();
        let mut pins: Vec<(Pinned, Model)> = Vec::new();
        for step in steps {
            match step {
                Step::Put(key, image) => {
                    let replaced = table.put(Rc::from([key]), Rc::from([image]));
                    prop_assert_eq!(replaced.map(|image| image.to_vec()), model.insert(vec![key], vec![image]));
                }
                Step::Delete(key) => {
                    let replaced = table.delete(Rc::from([key]));
                    prop_assert_eq!(replaced.map(|image| image.to_vec()), model.remove(&vec![key]));
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
                    let found: Vec<(Vec<u8>, Vec<u8>)> = table
                        .range(&lower, end, reverse)
                        .map(|(key, image)| (key.to_vec(), image.to_vec()))
                        .collect();
                    let inside = |key: &Vec<u8>| key.as_slice() >= &lower[..] && end.is_none_or(|end| key.as_slice() < end);
                    let mut expected: Vec<(Vec<u8>, Vec<u8>)> =
                        model.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
                    if reverse {
                        expected.reverse();
                    }
                    prop_assert_eq!(found, expected);
                }
            }
            for key in 0..40u8 {
                prop_assert_eq!(table.get(&[key]).map(|image| image.to_vec()), model.get(&vec![key]).cloned());
            }
        }
        for (pinned, at_pin) in pins {
            prop_assert_eq!(items(&pinned), at_pin.into_iter().collect::<Vec<_>>());
        }
    }
}
