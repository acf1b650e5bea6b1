//! Conversion as data: a line, its notation, and what becomes of it.

use super::*;
use AttributeValue as Value;
use evenkeel_model::{KeyAttribute, KeyValue};

fn schema(partition: KeyType, sort: Option<KeyType>) -> KeySchema {
    let attribute = |name: &str, key_type| KeyAttribute { name: name.to_owned(), key_type };
    KeySchema { partition: attribute("pk", partition), sort: sort.map(|of| attribute("sk", of)) }
}

fn text(value: &str) -> Value {
    Value::S(value.to_owned())
}

fn decimal(value: &str) -> Value {
    Value::N(Number::parse(value).unwrap())
}

fn of_value(line: &str, format: Format) -> Result<Value, LineError> {
    let converted = item(line, format, &schema(KeyType::S, None))?;
    Ok(converted.attributes.get("v").expect("each case has a v").clone())
}

#[test]
fn plain_values_become_the_types_that_json_has() {
    let entry = |name: &str, value| Attribute { name: name.to_owned(), value };
    let cases = [
        (r#""text""#, text("text")),
        (r#""""#, text("")),
        (r#""\u00e4\n\ud83d\ude00""#, text("ä\n😀")),
        ("1", decimal("1")),
        ("-0.5e3", decimal("-500")),
        ("1234567890123456789012345678901234567.8", decimal("1234567890123456789012345678901234567.8")),
        ("true", Value::Bool(true)),
        ("false", Value::Bool(false)),
        ("null", Value::Null),
        (r#"[1, "a", []]"#, Value::L(vec![decimal("1"), text("a"), Value::L(vec![])])),
        (r#"{"b":1, "a":{}}"#, Value::M(vec![entry("a", Value::M(vec![])), entry("b", decimal("1"))])),
        (r#"{"S":"not a type here"}"#, Value::M(vec![entry("S", text("not a type here"))])),
    ];
    for (json, expected) in cases {
        let line = format!(r#" {{"pk": "k", "v": {json} }} "#);
        assert_eq!(of_value(&line, Format::Plain), Ok(expected), "{json}");
    }
}

#[test]
fn typed_values_are_taken_as_they_are_bare_or_under_item() {
    let entry = |name: &str, value| Attribute { name: name.to_owned(), value };
    let numbers = |texts: &[&str]| texts.iter().map(|text| Number::parse(text).unwrap()).collect();
    let cases = [
        (r#"{"S":"text"}"#, text("text")),
        (r#"{"N":"-1.50"}"#, decimal("-1.5")),
        (r#"{"B":"AAH/"}"#, Value::B(vec![0, 1, 255])),
        (r#"{"BOOL":false}"#, Value::Bool(false)),
        (r#"{"NULL":true}"#, Value::Null),
        (
            r#"{"M":{"b":{"NULL":true},"a":{"S":""}}}"#,
            Value::M(vec![entry("a", text("")), entry("b", Value::Null)]),
        ),
        (r#"{"L":[{"S":"x"},{"N":"7"}]}"#, Value::L(vec![text("x"), decimal("7")])),
        (r#"{"SS":["b","a"]}"#, Value::Ss(vec!["a".into(), "b".into()])),
        (r#"{"NS":["10","9"]}"#, Value::Ns(numbers(&["9", "10"]))),
        (r#"{"BS":["/w==","AA=="]}"#, Value::Bs(vec![vec![0], vec![255]])),
    ];
    for (json, expected) in cases {
        let bare = format!(r#"{{"pk":{{"S":"k"}},"v":{json}}}"#);
        let wrapped = format!(r#"{{"Item":{bare}}}"#);
        assert_eq!(of_value(&bare, Format::Dynamodb).as_ref(), Ok(&expected), "{bare}");
        assert_eq!(of_value(&wrapped, Format::Dynamodb).as_ref(), Ok(&expected), "{wrapped}");
    }
}

#[test]
fn the_notation_is_told_by_one_line() {
    let cases = [
        (r#"{"pk":"k"}"#, Some(Format::Plain)),
        (r#"{"pk":{"S":"k"},"n":{"N":"1"}}"#, Some(Format::Dynamodb)),
        (r#"{"Item":{"pk":{"S":"k"}}}"#, Some(Format::Dynamodb)),
        (r#"{"Item":{"S":"an attribute named Item"}}"#, Some(Format::Dynamodb)),
        (r#"{"Item":{"pk":"k"}}"#, Some(Format::Plain)),
        (r#"{"Item":{}}"#, Some(Format::Plain)),
        (r#"{"pk":{"S":"k"},"n":1}"#, Some(Format::Plain)),
        (r#"{"pk":{"S":7}}"#, Some(Format::Plain)),
        ("{}", Some(Format::Plain)),
        (r#"["pk"]"#, None),
        (r#"{"pk":"#, None),
        ("", None),
    ];
    for (line, expected) in cases {
        assert_eq!(detect(line), expected, "{line}");
    }
}

#[test]
fn a_value_that_cannot_be_stored_is_refused_with_its_attribute_and_reason() {
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let cases = [
        (Format::Plain, "1e126", "Number overflow."),
        (Format::Plain, "123456789012345678901234567890123456789", "more than 38 significant digits"),
        (Format::Plain, r#""\ud800""#, "malformed string"),
        (Format::Plain, deep.as_str(), "nest at most 32 levels"),
        (Format::Dynamodb, r#""bare""#, "expected an object with one member"),
        (Format::Dynamodb, r#"{"S":"a","N":"1"}"#, "expected an object with one member"),
        (Format::Dynamodb, r#"{"X":"a"}"#, "expected an object with one member"),
        (Format::Dynamodb, r#"{"N":1}"#, "the value of type N must be a string of digits"),
        (Format::Dynamodb, r#"{"NULL":false}"#, "the value of type NULL must be true"),
        (Format::Dynamodb, r#"{"B":"%"}"#, "binary values are written in base64"),
        (Format::Dynamodb, r#"{"SS":[]}"#, "a set has at least one member"),
        (Format::Dynamodb, r#"{"NS":["1","1.0"]}"#, "a set has no member twice"),
        (Format::Dynamodb, r#"{"NS":[1]}"#, "the value of type NS must be"),
    ];
    for (format, json, reason) in cases {
        let line = match format {
            Format::Plain => format!(r#"{{"pk":"k","v":{json}}}"#),
            Format::Dynamodb => format!(r#"{{"pk":{{"S":"k"}},"v":{json}}}"#),
        };
        let error = of_value(&line, format).unwrap_err().to_string();
        assert!(error.starts_with(r#"attribute "v": "#) && error.contains(reason), "{line}: {error}");
    }
}

#[test]
fn a_line_that_is_no_object_says_so() {
    let keys = schema(KeyType::S, None);
    let error = |line: &str| item(line, Format::Plain, &keys).unwrap_err().to_string();
    assert_eq!(error(r#"{"pk":"#), "malformed JSON: EOF while parsing a value at column 6");
    assert_eq!(error("pk,sk"), "malformed JSON: expected value at column 1");
    assert_eq!(error("[1]"), "the line is not a JSON object");
    assert_eq!(error(r#"{"pk":"a"} {"pk":"b"}"#), "malformed JSON: trailing characters at column 12");
    assert_eq!(error(r#"{"pk":"a","":1}"#), r#"attribute "": an attribute name has 1 to 65535 bytes"#);
}

#[test]
fn key_attributes_must_be_there_with_their_type_and_size() {
    let keys = schema(KeyType::S, Some(KeyType::N));
    let long = "k".repeat(limits::PARTITION_KEY_BYTES_MAX + 1);
    let cases = [
        (r#"{"sk":1}"#.to_owned(), r#"key attribute "pk" is missing"#),
        (r#"{"pk":"a"}"#.to_owned(), r#"key attribute "sk" is missing"#),
        (r#"{"pk":"a","sk":"1"}"#.to_owned(), r#"key attribute "sk" has type S, the table wants N"#),
        (r#"{"pk":"","sk":1}"#.to_owned(), r#"key attribute "pk" has 0 bytes, allowed are 1 to 2048"#),
        (
            format!(r#"{{"pk":"{long}","sk":1}}"#),
            r#"key attribute "pk" has 2049 bytes, allowed are 1 to 2048"#,
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(item(&line, Format::Plain, &keys).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_binary_key_is_base64_in_plain_json_and_other_strings_stay_strings() {
    let keys = schema(KeyType::B, None);
    let converted = item(r#"{"pk":"AAE=","v":"AAE="}"#, Format::Plain, &keys).unwrap();
    assert_eq!(converted.attributes.get("pk"), Some(&Value::B(vec![0, 1])));
    assert_eq!(converted.attributes.get("v"), Some(&text("AAE=")));
    assert_eq!(converted.key, evenkeel_model::key::encode_key(&KeyValue::B(vec![0, 1]), None));
    assert!(item(r#"{"pk":"no base64"}"#, Format::Plain, &keys).is_err());
}

#[test]
fn an_item_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let keys = schema(KeyType::S, None);
    let line = |bytes: usize| format!(r#"{{"pk":"k","v":"{}"}}"#, "x".repeat(bytes - "pkkv".len()));
    assert!(item(&line(limits::ITEM_BYTES_MAX), Format::Plain, &keys).is_ok());
    assert_eq!(
        item(&line(limits::ITEM_BYTES_MAX + 1), Format::Plain, &keys),
        Err(LineError::ItemSize { bytes: limits::ITEM_BYTES_MAX + 1 })
    );
}

#[test]
fn of_a_name_given_twice_the_last_value_stays() {
    assert_eq!(of_value(r#"{"pk":"k","v":1,"v":2}"#, Format::Plain), Ok(decimal("2")));
}
