//! `evenkeel import` in a process of its own: every notation, bad lines, a rerun, and what it says.

use evenkeel_cluster_tests::data::{random_item, typed};
use evenkeel_cluster_tests::{Dev, Http, Random, binary, data_directory};
use evenkeel_model::AttributeValue;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const CREATE: [&str; 5] = ["--create", "--partition-key", "pk", "--sort-key", "sk"];

fn import(dev: &Dev, table: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(binary::evenkeel())
        .args(["import", "--table", table, "--cluster"])
        .arg(dev.client_file())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // An import that reads no standard input may have ended before.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it is our child")
}

fn assert_imported(output: &Output, items: usize) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with(&format!("imported {items} items, ")), "{said}");
    assert_eq!(said.lines().count(), 1, "one line of summary: {said}");
    assert!(output.stderr.is_empty(), "silent where no terminal is: {output:?}");
}

/// DynamoDB's JSON of items by their keys.
type Items = BTreeMap<(String, String), Value>;

fn key_of(item: &Value) -> (String, String) {
    let text = |name: &str| item[name]["S"].as_str().unwrap_or_else(|| panic!("{item}")).to_owned();
    (text("pk"), text("sk"))
}

async fn scan(http: &mut Http, table: &str) -> Items {
    let (items, _) = http.pages("Scan", json!({ "TableName": table })).await;
    items.into_iter().map(|item| (key_of(&item), item)).collect()
}

fn generated(count: usize, random: &mut Random) -> Items {
    let item = |n: usize| typed(&random_item(&format!("p{}", n % 97), &format!("s{n}"), random));
    (0..count).map(item).map(|item| (key_of(&item), item)).collect()
}

/// The plain notation, of items without binary values.
fn plain(typed: &Value) -> Value {
    let Value::Object(members) = typed else { panic!("{typed}") };
    let (name, value) = members.iter().next().expect("one member");
    match (name.as_str(), value) {
        ("N", Value::String(digits)) => serde_json::from_str(digits).unwrap_or(Value::Null),
        ("M", Value::Object(entries)) => {
            Value::Object(entries.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        ("L", Value::Array(elements)) => elements.iter().map(plain).collect(),
        ("NULL", _) => Value::Null,
        (_, value) => value.clone(),
    }
}

fn lines(items: &Items, line: impl Fn(&Value) -> String) -> Vec<u8> {
    items.values().map(|item| line(item) + "\n").collect::<String>().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all")
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, bytes).expect("a directory of our own");
    path.display().to_string()
}

#[tokio::test]
async fn every_notation_is_read_back_equal_and_a_rerun_changes_nothing() {
    let directory = data_directory();
    let dev = Dev::start(&directory.path().join("data"));
    let http = &mut dev.http().await;
    let mut random = Random::from_environment();
    let items = generated(2_000, &mut random);
    let bare = lines(&items, Value::to_string);
    let exported = lines(&items, |item| json!({ "Item": item }).to_string());
    let file = |name: &str, bytes: &[u8]| write(directory.path(), name, bytes);
    let half = bare.len() / 2 + bare[bare.len() / 2..].iter().position(|&b| b == b'\n').expect("lines") + 1;
    let halves = [file("first.json", &bare[..half]), file("second.json.gz", &gzip(&bare[half..]))];
    let cases: [(&str, Vec<String>, &[u8]); 4] = [
        ("bare", vec![file("bare.json", &bare)], b""),
        ("exported", vec![file("exported.json.gz", &gzip(&exported))], b""),
        ("piped", vec!["-".to_owned()], &bare),
        ("halves", halves.to_vec(), b""),
    ];
    for (table, files, input) in &cases {
        for _ in ["first run", "rerun"] {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let output = import(&dev, table, &[&CREATE[..], &files].concat(), input);
            assert_imported(&output, items.len());
            assert_eq!(http.count(table).await, items.len() as u64);
        }
        assert!(scan(http, table).await == items, "table {table} reads back equal");
    }
}

#[tokio::test]
async fn plain_json_becomes_the_types_that_json_has_and_keeps_38_digits() {
    let directory = data_directory();
    let dev = Dev::start(&directory.path().join("data"));
    let http = &mut dev.http().await;
    let digits = "1234567890123456789012345678901234567.8";
    let line = format!(
        r#"{{"pk":"a","sk":"b","n":{digits},"m":{{"l":[1,"x",null,true]}},"e":"","S":{{"S":"kept as a map"}}}}"#
    );
    let output = import(&dev, "plain", &[&CREATE[..], &["-"]].concat(), line.as_bytes());
    assert_imported(&output, 1);
    let expected = json!({
        "pk": { "S": "a" }, "sk": { "S": "b" }, "n": { "N": digits }, "e": { "S": "" },
        "m": { "M": { "l": { "L": [{ "N": "1" }, { "S": "x" }, { "NULL": true }, { "BOOL": true }] } } },
        "S": { "M": { "S": { "S": "kept as a map" } } },
    });
    assert_eq!(scan(http, "plain").await.into_values().collect::<Vec<_>>(), [expected]);

    let mut random = Random::from_environment();
    let texts: Items = generated(500, &mut random)
        .into_iter()
        .map(|(key, mut item)| {
            let Value::Object(members) = &mut item else { panic!("{item}") };
            members.retain(|_, value| value.get("B").is_none() && !value.to_string().contains("\"N\""));
            (key, item)
        })
        .collect();
    let as_plain = |item: &Value| {
        let Value::Object(members) = item else { panic!("{item}") };
        let members: Map<_, _> = members.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
        Value::Object(members).to_string()
    };
    let output = import(&dev, "texts", &[&CREATE[..], &["-"]].concat(), &lines(&texts, as_plain));
    assert_imported(&output, texts.len());
    assert!(scan(http, "texts").await == texts, "reads back equal");
}

#[tokio::test]
async fn bad_lines_are_named_one_by_one_and_the_others_are_written() {
    let directory = data_directory();
    let dev = Dev::start(&directory.path().join("data"));
    let http = &mut dev.http().await;
    let long = "x".repeat(9 * 1024 * 1024);
    let bad = [
        (r#"{"pk":"bad","sk":"#.to_owned(), "malformed JSON"),
        (r#"{"pk":"bad"}"#.to_owned(), r#"key attribute "sk" is missing"#),
        (r#"{"pk":"bad","sk":7}"#.to_owned(), r#"key attribute "sk" has type N, the table wants S"#),
        (r#"["bad"]"#.to_owned(), "not a JSON object"),
        (r#"{"pk":"bad","sk":"1","n":1e999}"#.to_owned(), r#"attribute "n": Number overflow"#),
        (format!(r#"{{"pk":"bad","sk":"{long}"}}"#), "longer than"),
        (format!(r#"{{"pk":"bad","sk":"1","v":"{}"}}"#, &long[..410_000]), "allowed are 409600"),
    ];
    let mut input = String::new();
    for (n, (line, _)) in bad.iter().enumerate() {
        input += &format!("{{\"pk\":\"good\",\"sk\":\"{n}\"}}\n{line}\n\n");
    }
    let file = write(directory.path(), "mixed.json", input.as_bytes());
    let output = import(&dev, "mixed", &[&CREATE[..], &[&file]].concat(), b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for (n, (_, reason)) in bad.iter().enumerate() {
        let place = format!("{file}:{}: ", 3 * n + 2);
        let told = said.lines().find(|line| line.starts_with(&place));
        assert!(told.is_some_and(|line| line.contains(reason)), "{place}{reason} in {said}");
    }
    assert!(said.contains("7 bad lines"), "{said}");
    let found: Vec<_> = scan(http, "mixed").await.into_keys().collect();
    let expected: Vec<_> = (0..bad.len()).map(|n| ("good".to_owned(), n.to_string())).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn of_lines_with_one_key_the_last_one_stays() {
    let directory = data_directory();
    let dev = Dev::start(&directory.path().join("data"));
    let http = &mut dev.http().await;
    let mut input = String::new();
    for version in 0..50 {
        for n in 0..40 {
            input += &format!("{{\"pk\":\"p\",\"sk\":\"{n}\",\"version\":{version}}}\n");
        }
    }
    let output = import(&dev, "versions", &[&CREATE[..], &["-"]].concat(), input.as_bytes());
    assert_imported(&output, 2_000);
    let items = scan(http, "versions").await;
    assert_eq!(items.len(), 40);
    for (key, item) in items {
        assert_eq!(item["version"], json!({ "N": "49" }), "{key:?}");
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_before_anything_is_written() {
    let directory = data_directory();
    let dev = Dev::start(&directory.path().join("data"));
    let http = &mut dev.http().await;
    http.create_table("other", &[("id", "N")]).await;
    let line = br#"{"pk":"a","sk":"b"}"#;
    let cases: [(&str, &[&str], i32, &str); 5] = [
        ("nowhere", &["-"], 1, "table nowhere does not exist"),
        (
            "other",
            &["--create", "--partition-key", "pk", "-"],
            1,
            "exists with other keys: partition key id:N",
        ),
        ("other", &["/nowhere.json"], 1, "/nowhere.json"),
        ("other", &["--create", "-"], 2, "--partition-key"),
        ("other", &[], 2, "FILE"),
    ];
    for (table, arguments, code, reason) in cases {
        let output = import(&dev, table, arguments, line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(said.contains(reason), "{reason} in {said}");
    }
    assert_eq!(http.count("other").await, 0);
    let exit = dev.stop();
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
}

#[tokio::test]
async fn keys_of_type_binary_are_base64_in_plain_json() {
    let directory = data_directory();
    let dev = Dev::start(&directory.path().join("data"));
    let http = &mut dev.http().await;
    let create = ["--create", "--partition-key", "id:B", "--sort-key", "at:N", "-"];
    let output = import(&dev, "binary", &create, br#"{"id":"AAH/","at":-2.50}"#);
    assert_imported(&output, 1);
    let (items, _) = http.pages("Scan", json!({ "TableName": "binary" })).await;
    assert_eq!(items, [json!({ "id": { "B": "AAH/" }, "at": { "N": "-2.5" } })]);
    let value = AttributeValue::B(vec![0, 1, 255]);
    assert_eq!(items[0]["id"], evenkeel_cluster_tests::data::typed_value(&value));
}
