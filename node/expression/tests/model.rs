//! Updates and conditions against a model: a few attributes that hold integers or sets of strings.
//!
//! Operands and conditions see the item as it was before the update, whatever the order of the actions.

use evenkeel_expression::{
    Action, Comparator, Condition, ConditionView, Logic, Operand, Path, SetOperand, Test, Update, UpdateView,
};
use evenkeel_model::{AttributeValue, Attributes, ItemView, Number, encode_item};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Integer(i64),
    Strings(BTreeSet<String>),
}

type Model = BTreeMap<&'static str, Held>;

/// What is done to one attribute.
#[derive(Clone, Debug)]
enum Change {
    Set(Source),
    Remove,
    AddNumber(i64),
    AddStrings(BTreeSet<String>),
    DeleteStrings(BTreeSet<String>),
}

#[derive(Clone, Debug)]
enum Source {
    Constant(i64),
    Attribute(&'static str),
    Or(&'static str, i64),
    Sum(Box<Source>, Box<Source>),
    Difference(Box<Source>, Box<Source>),
}

fn number(value: i64) -> AttributeValue {
    let magnitude = Number::from(value.unsigned_abs());
    let zero = Number::from(0u64);
    AttributeValue::N(if value < 0 {
        zero.checked_sub(&magnitude).expect("small integers")
    } else {
        magnitude
    })
}

fn strings(set: &BTreeSet<String>) -> AttributeValue {
    AttributeValue::Ss(set.iter().cloned().collect())
}

fn value(held: &Held) -> AttributeValue {
    match held {
        Held::Integer(integer) => number(*integer),
        Held::Strings(set) => strings(set),
    }
}

fn attributes(model: &Model) -> Attributes {
    model.iter().map(|(name, held)| (*name, value(held))).collect()
}

/// An item with its sets in order, for they have none.
fn in_order(attributes: &Attributes) -> Attributes {
    let each = |attribute: &evenkeel_model::value::Attribute| {
        let mut value = attribute.value.clone();
        if let AttributeValue::Ss(members) = &mut value {
            members.sort();
        }
        (attribute.name.clone(), value)
    };
    let pairs: Vec<(String, AttributeValue)> = attributes.iter().map(each).collect();
    pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
}

impl Source {
    /// The value, if there is one and it is of the type that is wanted of it.
    fn eval(&self, model: &Model) -> Option<Held> {
        let integer = |source: &Source| match source.eval(model)? {
            Held::Integer(integer) => Some(integer),
            Held::Strings(_) => None,
        };
        Some(match self {
            Source::Constant(constant) => Held::Integer(*constant),
            Source::Attribute(name) => model.get(name)?.clone(),
            Source::Or(name, constant) => model.get(name).cloned().unwrap_or(Held::Integer(*constant)),
            Source::Sum(a, b) => Held::Integer(integer(a)? + integer(b)?),
            Source::Difference(a, b) => Held::Integer(integer(a)? - integer(b)?),
        })
    }

    fn compile(&self, out: &mut Update) -> u16 {
        match self {
            Source::Constant(constant) => out.operand(SetOperand::Value(number(*constant))),
            Source::Attribute(name) => out.operand(SetOperand::Path(Path::attribute(*name))),
            Source::Or(name, constant) => {
                let or = out.operand(SetOperand::Value(number(*constant)));
                out.operand(SetOperand::IfNotExists(Path::attribute(*name), or))
            }
            Source::Sum(a, b) => {
                let (a, b) = (a.compile(out), b.compile(out));
                out.operand(SetOperand::Plus(a, b))
            }
            Source::Difference(a, b) => {
                let (a, b) = (a.compile(out), b.compile(out));
                out.operand(SetOperand::Minus(a, b))
            }
        }
    }
}

/// The model after the changes; nothing if one of them cannot be made.
fn changed(before: &Model, changes: &BTreeMap<&'static str, Change>) -> Option<Model> {
    let mut after = before.clone();
    for (name, change) in changes {
        let there = before.get(name);
        let new = match (change, there) {
            (Change::Set(source), _) => Some(source.eval(before)?),
            (Change::Remove, _) => None,
            (Change::AddNumber(more), None) => Some(Held::Integer(*more)),
            (Change::AddNumber(more), Some(Held::Integer(integer))) => Some(Held::Integer(integer + more)),
            (Change::AddStrings(more), None) => Some(Held::Strings(more.clone())),
            (Change::AddStrings(more), Some(Held::Strings(set))) => Some(Held::Strings(set | more)),
            (Change::DeleteStrings(_), None) => None,
            (Change::DeleteStrings(less), Some(Held::Strings(set))) => {
                Some(set - less).filter(|left| !left.is_empty()).map(Held::Strings)
            }
            (Change::AddNumber(_), Some(Held::Strings(_)))
            | (Change::AddStrings(_) | Change::DeleteStrings(_), Some(Held::Integer(_))) => return None,
        };
        match new {
            Some(held) => after.insert(name, held),
            None => after.remove(name),
        };
    }
    Some(after)
}

fn compile(changes: &[(&'static str, Change)]) -> Update {
    let mut update = Update::default();
    for (name, change) in changes {
        let path = Path::attribute(*name);
        let action = match change {
            Change::Set(source) => {
                let operand = source.compile(&mut update);
                Action::Set(path, operand)
            }
            Change::Remove => Action::Remove(path),
            Change::AddNumber(more) => Action::Add(path, number(*more)),
            Change::AddStrings(more) => Action::Add(path, strings(more)),
            Change::DeleteStrings(less) => Action::Delete(path, strings(less)),
        };
        update.actions.push(action);
    }
    update
}

fn integers() -> impl Strategy<Value = i64> {
    -50i64..50
}

fn sets() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set("[x-z]{1}", 1..3)
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NAMES.to_vec())
}

fn models() -> impl Strategy<Value = Model> {
    let held = prop_oneof![integers().prop_map(Held::Integer), sets().prop_map(Held::Strings)];
    prop::collection::btree_map(names(), held, 0..5)
}

fn sources() -> impl Strategy<Value = Source> {
    let leaf = prop_oneof![
        integers().prop_map(Source::Constant),
        names().prop_map(Source::Attribute),
        (names(), integers()).prop_map(|(name, constant)| Source::Or(name, constant)),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            (boxed(), boxed()).prop_map(|(a, b)| Source::Sum(a, b)),
            (boxed(), boxed()).prop_map(|(a, b)| Source::Difference(a, b)),
        ]
    })
}

fn change_sets() -> impl Strategy<Value = BTreeMap<&'static str, Change>> {
    let change = prop_oneof![
        sources().prop_map(Change::Set),
        Just(Change::Remove),
        integers().prop_map(Change::AddNumber),
        sets().prop_map(Change::AddStrings),
        sets().prop_map(Change::DeleteStrings),
    ];
    prop::collection::btree_map(names(), change, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_update_makes_of_an_item_what_the_model_says(
        before in models(),
        changes in change_sets(),
        backwards in any::<bool>(),
    ) {
        let mut in_some_order: Vec<(&str, Change)> = changes.clone().into_iter().collect();
        if backwards {
            in_some_order.reverse();
        }
        let program = compile(&in_some_order).encode();
        let stored = encode_item(&attributes(&before));
        let view = ItemView::check(&stored).unwrap();
        let after = UpdateView::check(&program).unwrap().apply(Some(&view), &Attributes::default());
        match changed(&before, &changes) {
            Some(expected) => {
                prop_assert_eq!(after.map(|after| in_order(&after)), Ok(in_order(&attributes(&expected))));
            }
            None => prop_assert!(after.is_err(), "{after:?}"),
        }
    }

    #[test]
    fn a_condition_holds_exactly_when_the_model_says(
        item in models(),
        terms in prop::collection::vec((names(), 0u8..4, integers(), any::<bool>()), 1..6),
    ) {
        let mut condition = Condition::default();
        let mut expected = true;
        for (index, (name, kind, bound, negated)) in terms.iter().enumerate() {
            let path = Path::attribute(*name);
            let constant = Operand::Value(number(*bound));
            let integer = match item.get(name) {
                Some(Held::Integer(integer)) => Some(*integer),
                _ => None,
            };
            let (test, holds) = match kind {
                0 => (Test::Exists(path), item.contains_key(name)),
                1 => (
                    Test::Compare(Comparator::LessOrEqual, Operand::Path(path), constant),
                    integer.is_some_and(|integer| integer <= *bound),
                ),
                2 => (
                    Test::Compare(Comparator::Equal, Operand::Path(path), constant),
                    integer == Some(*bound),
                ),
                _ => (
                    Test::Between(Operand::Path(path), constant, Operand::Value(number(*bound + 10))),
                    integer.is_some_and(|integer| (*bound..=*bound + 10).contains(&integer)),
                ),
            };
            condition.test(test);
            if *negated {
                condition.combine(Logic::Not);
            }
            if index > 0 {
                condition.combine(Logic::And);
            }
            expected &= holds != *negated;
        }
        let program = condition.encode();
        let stored = encode_item(&attributes(&item));
        let view = ItemView::check(&stored).unwrap();
        prop_assert_eq!(ConditionView::check(&program).unwrap().holds(Some(&view)), expected);
    }
}
