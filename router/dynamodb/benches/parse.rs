//! What it costs to parse an expression, next to what a cache of parsed programs would still cost: finding
//! the text, and putting this request's names and values into a copy. `cargo bench -p evenkeel-dynamodb`.

use evenkeel_dynamodb::expression::{Placeholders, parse_condition, parse_update};
use evenkeel_expression::{Condition, Update};
use evenkeel_model::{AttributeValue, Number};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 50_000;

fn placeholders() -> Placeholders {
    let names = [("#s", "status"), ("#n", "count")].map(|(key, name)| (key.to_owned(), name.to_owned()));
    let number = |value: u64| AttributeValue::N(Number::from(value));
    let values = [(":v", number(7)), (":one", number(1)), (":open", AttributeValue::S("open".to_owned()))]
        .map(|(key, value)| (key.to_owned(), value));
    Placeholders::new(Some(BTreeMap::from(names)), Some(BTreeMap::from(values)), true, "")
        .expect("well-formed placeholders")
}

/// Nanoseconds of one call, the least of several rounds.
fn measure<T>(mut call: impl FnMut() -> T) -> f64 {
    let round = |call: &mut dyn FnMut() -> T| {
        let began = Instant::now();
        for _ in 0..ROUNDS / 10 {
            black_box(call());
        }
        began.elapsed().as_nanos() as f64 / f64::from(ROUNDS / 10)
    };
    (0..10).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let placeholders = placeholders();
    let long = vec!["#s = :open"; 150].join(" OR ");
    let conditions = [
        ("one function", "attribute_not_exists(pk)"),
        ("version check", "version = :v AND #s = :open"),
        ("several terms", "(attribute_exists(pk) AND #n BETWEEN :one AND :v) OR NOT begins_with(#s, :open)"),
        ("299 operators", long.as_str()),
    ];
    for (name, text) in conditions {
        let parse = || parse_condition("ConditionExpression", black_box(text), &placeholders);
        let program = parse().expect("a well-formed condition");
        let cache: HashMap<String, Condition> = HashMap::from([(text.to_owned(), program)]);
        report(name, measure(parse), measure(|| cache.get(black_box(text)).cloned()));
    }
    let updates = [
        ("SET one", "SET #s = :open"),
        (
            "several actions",
            "SET #s = :open, a.b[1] = if_not_exists(a.b[1], :v) + :one ADD #n :one REMOVE stale",
        ),
    ];
    for (name, text) in updates {
        let parse = || parse_update(black_box(text), &placeholders);
        let program = parse().expect("a well-formed update");
        let cache: HashMap<String, Update> = HashMap::from([(text.to_owned(), program)]);
        report(name, measure(parse), measure(|| cache.get(black_box(text)).cloned()));
    }
}

fn report(name: &str, parsed_ns: f64, cached_ns: f64) {
    println!("{name:<16} parsed {parsed_ns:>8.0} ns, found and copied {cached_ns:>8.0} ns");
}
