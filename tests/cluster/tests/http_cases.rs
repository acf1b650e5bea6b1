//! The HTTP API against tables of cases: `cases/*.json`, one file a subject.
//!
//! A file is a list of steps, carried out in order on one cluster:
//!
//! ```json
//! { "call": "PutItem", "with": { "TableName": "t", "Item": {} }, "gives": {} }
//! { "call": "PutItem", "with": {}, "refuses": ["ValidationException", "its exact text"] }
//! ```
//!
//! `gives` is the whole answer; a string `"*"` in it stands for anything, and `"...": "*"` as a member
//! for members that are not named. `create` makes a table and waits for it: `{ "create": "t", "keys":
//! [["pk", "S"]] }`; `wait` only waits: `{ "wait": "t" }`.
//!
//! The files `agreed_*.json` are requests that the random comparison with another implementation
//! answered alike, kept here so that they stay so without it.

use evenkeel_cluster_tests::{Dev, Http, data_directory};
use serde_json::Value;
use std::path::Path;

#[tokio::test]
async fn every_case_is_answered_as_it_says() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    let mut files: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"))
        .expect("the cases are there")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in &files {
        let text = std::fs::read(file).expect("a readable file");
        let steps: Vec<Value> =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for (index, step) in steps.iter().enumerate() {
            count += 1;
            if let Err(what) = carry_out(http, step).await {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                wrong.push(format!("{name}, step {}: {what}\n  {step}", index + 1));
            }
        }
    }
    println!("{count} steps of {} files", files.len());
    assert!(count > 0, "no case was found");
    assert!(wrong.is_empty(), "{} of {count} steps:\n{}", wrong.len(), wrong.join("\n"));
}

async fn carry_out(http: &mut Http, step: &Value) -> Result<(), String> {
    if let Some(table) = step["create"].as_str() {
        let keys: Vec<(String, String)> =
            serde_json::from_value(step["keys"].clone()).map_err(|error| error.to_string())?;
        let keys: Vec<(&str, &str)> =
            keys.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        http.create_table(table, &keys).await;
        return Ok(());
    }
    if let Some(table) = step["wait"].as_str() {
        http.wait_until_active(table).await;
        return Ok(());
    }
    let operation = step["call"].as_str().ok_or("a step calls or creates")?;
    let answer = http.try_call(operation, &step["with"]).await.map_err(|error| error.to_string())?;
    if let Some(expected) = step["refuses"].as_array() {
        if answer.status.is_success() {
            return Err(format!("answered {}", answer.text()));
        }
        let (kind, message) = answer.error();
        let kind = kind.rsplit_once('#').map_or(kind.as_str(), |(_, kind)| kind);
        let found = [Value::from(kind), Value::from(message)];
        return if expected == &found { Ok(()) } else { Err(format!("refused with {found:?}")) };
    }
    if !answer.status.is_success() {
        return Err(format!("refused with {}", answer.text()));
    }
    let found = if answer.body.is_empty() { Value::Null } else { answer.json() };
    match matches(&step["gives"], &found) {
        true => Ok(()),
        false => Err(format!("answered {found}")),
    }
}

/// Whether an answer is what is expected, where `"*"` is anything.
fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(found)) => {
            let open = expected.contains_key("...");
            let named = expected.iter().filter(|(name, _)| *name != "...");
            let mut count = 0;
            let all = named.into_iter().all(|(name, value)| {
                count += 1;
                found.get(name).is_some_and(|found| matches(value, found))
            });
            all && (open || count == found.len())
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(expected, found)| matches(expected, found))
        }
        _ => expected == found,
    }
}

#[test]
fn an_answer_that_differs_does_not_match() {
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("valid JSON");
    let cases = [
        (r#"{"a":1}"#, r#"{"a":1}"#, true),
        (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false),
        (r#"{"a":1,"...":"*"}"#, r#"{"a":1,"b":2}"#, true),
        (r#"{"a":"*"}"#, r#"{"b":1}"#, false),
        (r#"[{"a":"*"}]"#, r#"[{"a":[1]}]"#, true),
        ("[1]", "[1,2]", false),
    ];
    for (expected, found, same) in cases {
        assert_eq!(matches(&parse(expected), &parse(found)), same, "{expected} {found}");
    }
}
