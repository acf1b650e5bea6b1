//! Items and programs as bytes from outside: refused by their check, or run without harm.
//!
//! The fuzzer's bytes are taken as they are, and as changes of a valid archive: most of what can go wrong
//! is a reference or a length inside one.

#![no_main]

use evenkeel_expression::{
    Action, Comparator, Condition, ConditionView, Logic, Operand, Path, SetOperand, Step, Test, Update,
    UpdateView,
};
use evenkeel_model::{AttributeValue, Attributes, ItemView, Number, encode_item};
use libfuzzer_sys::fuzz_target;

fn item() -> Vec<u8> {
    encode_item(&Attributes::from_iter([
        ("a", AttributeValue::S("text".to_owned())),
        ("b", AttributeValue::L(vec![AttributeValue::N(Number::from(1u64)), AttributeValue::Null])),
        ("c", AttributeValue::Ss(vec!["x".to_owned(), "y".to_owned()])),
    ]))
}

fn condition() -> Vec<u8> {
    let path = || Path::attribute("b").then(Step::Index(0));
    let number = || Operand::Value(AttributeValue::N(Number::from(7u64)));
    let mut condition = Condition::default();
    condition.test(Test::Compare(Comparator::Less, Operand::Path(path()), number()));
    condition.test(Test::In(Operand::Size(Path::attribute("a")), vec![number(), number()]));
    condition.combine(Logic::Or);
    condition.test(Test::Exists(Path::attribute("c")));
    condition.combine(Logic::And);
    condition.encode()
}

fn update() -> Vec<u8> {
    let mut update = Update::default();
    let one = update.operand(SetOperand::Value(AttributeValue::N(Number::from(1u64))));
    let before = update.operand(SetOperand::IfNotExists(Path::attribute("n"), one));
    let sum = update.operand(SetOperand::Plus(before, one));
    update.actions.push(Action::Set(Path::attribute("n"), sum));
    update.actions.push(Action::Remove(Path::attribute("b").then(Step::Index(1))));
    update.actions.push(Action::Delete(Path::attribute("c"), AttributeValue::Ss(vec!["x".to_owned()])));
    update.encode()
}

/// A valid archive with changes: each is a place and what is mixed into the byte there.
fn changed(mut valid: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % valid.len();
        valid[at] ^= change[2];
    }
    valid
}

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    let stored = item();
    let view = ItemView::parse(&stored).expect("encoded above");
    let bytes = match which % 6 {
        0..3 => rest.to_vec(),
        3 => changed(condition(), rest),
        4 => changed(update(), rest),
        _ => changed(item(), rest),
    };
    match which % 3 {
        0 => {
            if let Ok(condition) = ConditionView::check(&bytes) {
                condition.holds(Some(&view));
                condition.holds(None);
            }
        }
        1 => {
            if let Ok(update) = UpdateView::check(&bytes) {
                let _ = update.apply(Some(&view), &Attributes::default());
            }
        }
        _ => {
            if let Ok(item) = ItemView::check(&bytes) {
                let again = encode_item(&item.to_attributes());
                ItemView::check(&again).expect("what was read can be stored");
            }
        }
    }
});
