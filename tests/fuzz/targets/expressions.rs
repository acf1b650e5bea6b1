//! Expressions: refused with an error or parsed, and what is parsed passes the check of whoever runs it.

#![no_main]

use evenkeel_dynamodb::expression::{
    Placeholders, parse_condition, parse_key_condition, parse_projection, parse_update,
};
use evenkeel_expression::{ConditionView, UpdateView};
use evenkeel_model::{AttributeValue, Attributes, ItemView, Number, encode_item};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fn placeholders() -> Placeholders {
    let names =
        [("#a", "a"), ("#b", "b c"), ("#s", "status")].map(|(key, name)| (key.to_owned(), name.to_owned()));
    let values = [
        (":s", AttributeValue::S("text".to_owned())),
        (":n", AttributeValue::N(Number::from(7u64))),
        (":b", AttributeValue::B(vec![0, 255])),
        (":l", AttributeValue::L(vec![AttributeValue::Null])),
        (":t", AttributeValue::Ss(vec!["x".to_owned()])),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    Placeholders::new(Some(BTreeMap::from(names)), Some(BTreeMap::from(values)), true, "")
        .expect("well-formed")
}

fn item() -> Vec<u8> {
    let number = |value: u64| AttributeValue::N(Number::from(value));
    encode_item(&Attributes::from_iter([
        ("a", AttributeValue::S("text".to_owned())),
        ("b", AttributeValue::L(vec![number(1), AttributeValue::Null])),
        ("c", number(3)),
    ]))
}

fuzz_target!(|data: &[u8]| {
    let Some((which, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let placeholders = placeholders();
    let item = item();
    let view = ItemView::parse(&item).expect("encoded above");
    match which % 4 {
        0 => {
            if let Ok(condition) = parse_condition("ConditionExpression", text, &placeholders) {
                let program = condition.encode();
                let checked = ConditionView::check(&program).expect("what is parsed can be run");
                checked.holds(Some(&view));
                checked.holds(None);
            }
        }
        1 => {
            if let Ok(update) = parse_update(text, &placeholders) {
                let program = update.encode();
                let checked = UpdateView::check(&program).expect("what is parsed can be run");
                for before in [Some(&view), None] {
                    if let Ok(after) = checked.apply(before, &Attributes::default()) {
                        ItemView::check(&encode_item(&after)).expect("what is made can be stored");
                    }
                }
            }
        }
        2 => drop(parse_projection(text, &placeholders)),
        _ => drop(parse_key_condition(text, &placeholders)),
    }
});
