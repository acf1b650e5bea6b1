//! The expression language from text to effect: parsed, sent as bytes, run on a stored item.

use super::{Placeholders, parse_condition, parse_projection, parse_update};
use crate::attribute::JsonAttributes;
use crate::decode::decode;
use evenkeel_expression::{ConditionView, UpdateView};
use evenkeel_model::{AttributeValue, Attributes, ItemView, encode_item};
use std::collections::BTreeMap;

fn attributes(json: &str) -> Attributes {
    decode::<JsonAttributes>(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}")).0
}

fn item() -> Attributes {
    attributes(
        r#"{"pk":{"S":"a"},"n":{"N":"5"},"s":{"S":"hello"},"b":{"B":"AQID"},"t":{"BOOL":true},"z":{"NULL":true},
            "l":{"L":[{"N":"1"},{"S":"two"},{"M":{"x":{"N":"3"}}}]},"m":{"M":{"a":{"N":"1"},"b":{"M":{"c":{"S":"d"}}}}},
            "ss":{"SS":["a","b"]},"ns":{"NS":["1","2"]},"bs":{"BS":["AQ=="]},"name":{"S":"reserved"}}"#,
    )
}

fn placeholders() -> Placeholders {
    let values = attributes(
        r#"{":one":{"N":"1"},":five":{"N":"5.0"},":nine":{"N":"9"},":he":{"S":"he"},":ll":{"S":"ll"},":hello":{"S":"hello"},
            ":bin":{"B":"AQI="},":true":{"BOOL":true},":null":{"NULL":true},":list":{"L":[{"S":"new"}]},":empty":{"L":[]},
            ":map":{"M":{"a":{"N":"1"},"b":{"M":{"c":{"S":"d"}}}}},":a":{"S":"a"},":ss":{"SS":["b","c"]},":sa":{"SS":["a","b"]},
            ":ns":{"NS":["2","3"]},":N":{"S":"N"},":X":{"S":"X"},":max":{"N":"99999999999999999999999999999999999999"}}"#,
    );
    let values = values.iter().map(|a| (a.name.clone(), a.value.clone())).collect();
    let names = [("#name", "name"), ("#m", "m"), ("#dot", "a.b")];
    let names = names.map(|(key, name)| (key.to_owned(), name.to_owned())).into();
    Placeholders::new(Some(names), Some(values), true, "").unwrap()
}

fn holds(source: &str, item: Option<&Attributes>) -> Result<bool, String> {
    let parsed = parse_condition("ConditionExpression", source, &placeholders());
    let bytes = parsed.map_err(|error| error.message)?.encode();
    let stored = item.map(encode_item);
    let view = stored.as_deref().map(|stored| ItemView::check(stored).unwrap());
    Ok(ConditionView::check(&bytes).unwrap().holds(view.as_ref()))
}

#[test]
fn conditions_hold_as_dynamodb_has_it() {
    let cases = [
        ("n = :five", true),
        ("n <> :five", false),
        ("n < :nine AND n > :one", true),
        ("n >= :five and n <= :five", true),
        ("s = :five", false),
        ("s <> :five", true),
        ("s < :nine", false),
        ("gone = :five", false),
        ("gone <> :five", true),
        ("gone < :five", false),
        ("n BETWEEN :one AND :nine", true),
        ("n BETWEEN :one AND :one", false),
        ("n IN (:one, :five)", true),
        ("n IN (:one)", false),
        ("attribute_exists(m.b.c) AND attribute_not_exists(m.b.x)", true),
        ("attribute_exists(l[2].x)", true),
        ("attribute_exists(l[3])", false),
        ("attribute_exists(#dot)", false),
        ("attribute_type(n, :N)", true),
        ("attribute_type(s, :N)", false),
        ("begins_with(s, :he)", true),
        ("begins_with(b, :bin)", true),
        ("begins_with(n, :he)", false),
        ("contains(s, :ll)", true),
        ("contains(ss, :a)", true),
        ("contains(ns, :one)", true),
        ("contains(l, :one)", true),
        ("contains(n, :one)", false),
        ("size(s) = :five", true),
        ("size(ss) > :one", true),
        ("size(n) = :one", false),
        ("size(gone) = :one", false),
        ("m = :map", true),
        ("ss = :sa", true),
        ("t = :true AND z = :null", true),
        ("NOT n = :one", true),
        ("NOT NOT n = :one", false),
        ("n = :one OR n = :five AND s = :hello", true),
        ("(n = :one OR n = :five) AND s = :he", false),
        ("#name = :hello OR #m.a = :one", true),
        ("n = l[0]", false),
        ("m.a = l[0]", true),
        (":five = n", true),
    ];
    for (source, expected) in cases {
        assert_eq!(holds(source, Some(&item())), Ok(expected), "{source}");
    }
    assert_eq!(holds("attribute_not_exists(pk)", None), Ok(true));
    assert_eq!(holds("n = :five", None), Ok(false));
}

#[test]
fn conditions_that_are_none_are_refused_with_dynamodbs_texts() {
    let deep = format!("{}n = :one{}", "(n = :one AND ".repeat(200), ")".repeat(200));
    let long = format!("n = :one{}", " ".repeat(4096));
    let cases = [
        ("", "The expression can not be empty;"),
        ("n = ", "Syntax error; token: \"<EOF>\", near: \"=\""),
        ("n = :one n = :one", "Syntax error; token: \"n\", near: \":one n =\""),
        ("name = :one", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("m.name = :one", "Attribute name is a reserved keyword; reserved keyword: name"),
        (
            "n = :nope",
            "An expression attribute value used in expression is not defined; attribute value: :nope",
        ),
        (
            "#nope = :one",
            "An expression attribute name used in the document path is not defined; attribute name: #nope",
        ),
        ("n = :nope AND", "Syntax error; token: \"<EOF>\", near: \"AND\""),
        ("((n = :one))", "The expression has redundant parentheses;"),
        ("nope(n)", "Invalid function name; function: nope"),
        (
            "attribute_exists(n, n)",
            "Incorrect number of operands for operator or function; operator or function: attribute_exists, number of operands: 2",
        ),
        (
            "attribute_exists(:one)",
            "Operator or function requires a document path; operator or function: attribute_exists",
        ),
        (
            "begins_with(s, :one)",
            "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N",
        ),
        ("n < :true", "Incorrect operand type for operator or function; operator: <, operand type: BOOL"),
        (
            "contains(s, s)",
            "The first operand must be distinct from the remaining operands for this operator or function; operator: contains, first operand: [s]",
        ),
        (
            "attribute_type(n, :X)",
            "Invalid attribute type name found; type: X, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
        ),
        (
            "n BETWEEN :nine AND :one",
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:9}, upper bound operand: AttributeValue: {N:1}",
        ),
        (
            "n BETWEEN :one AND :he",
            "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {N:1}, upper bound operand: AttributeValue: {S:he}",
        ),
        (deep.as_str(), "The expression contains too many operators; operator count: 301"),
        (long.as_str(), "Expression size has exceeded the maximum allowed size; expression size: 4104"),
    ];
    for (source, fault) in cases {
        assert_eq!(holds(source, None), Err(format!("Invalid ConditionExpression: {fault}")), "{source}");
    }
}

fn updated(source: &str, item: Option<&Attributes>) -> Result<Attributes, String> {
    let parsed = parse_update(source, &placeholders());
    let bytes = parsed.map_err(|error| error.message)?.encode();
    let stored = item.map(encode_item);
    let view = stored.as_deref().map(|stored| ItemView::check(stored).unwrap());
    let key = attributes(r#"{"pk":{"S":"a"}}"#);
    UpdateView::check(&bytes).unwrap().apply(view.as_ref(), &key).map_err(|error| error.to_string())
}

#[test]
fn updates_change_what_they_say_and_nothing_else() {
    let cases = [
        ("SET n = :one", r#"{"n":{"N":"1"}}"#),
        ("set n = n + :one, q = n - :one", r#"{"n":{"N":"6"},"q":{"N":"4"}}"#),
        ("SET n = (n + :one) - :nine", r#"{"n":{"N":"-3"}}"#),
        ("SET q = n, n = :nine", r#"{"q":{"N":"5"},"n":{"N":"9"}}"#),
        ("SET q = if_not_exists(q, :one), n = if_not_exists(n, :one)", r#"{"q":{"N":"1"}}"#),
        ("SET q = if_not_exists(q, :one) + :one", r#"{"q":{"N":"2"}}"#),
        (
            "SET l = list_append(l, :list)",
            r#"{"l":{"L":[{"N":"1"},{"S":"two"},{"M":{"x":{"N":"3"}}},{"S":"new"}]}}"#,
        ),
        ("SET q = list_append(if_not_exists(q, :empty), :list)", r#"{"q":{"L":[{"S":"new"}]}}"#),
        (
            "SET l[1] = :one, l[9] = :five, l[7] = :nine",
            r#"{"l":{"L":[{"N":"1"},{"N":"1"},{"M":{"x":{"N":"3"}}},{"N":"9"},{"N":"5"}]}}"#,
        ),
        ("SET l[2].y = :one", r#"{"l":{"L":[{"N":"1"},{"S":"two"},{"M":{"x":{"N":"3"},"y":{"N":"1"}}}]}}"#),
        ("SET #dot = :one", r#"{"a.b":{"N":"1"}}"#),
        ("REMOVE l[0], l[2]", r#"{"l":{"L":[{"S":"two"}]}}"#),
        ("REMOVE l[9], gone", "{}"),
        ("SET l[0] = :nine REMOVE l[1]", r#"{"l":{"L":[{"N":"9"},{"M":{"x":{"N":"3"}}}]}}"#),
        ("ADD n :one, q :one, ss :ss", r#"{"n":{"N":"6"},"q":{"N":"1"},"ss":{"SS":["a","b","c"]}}"#),
        ("ADD m.a :nine", r#"{"m":{"M":{"a":{"N":"10"},"b":{"M":{"c":{"S":"d"}}}}}}"#),
        ("DELETE ns :ns, gone :ss", r#"{"ns":{"NS":["1"]}}"#),
    ];
    for (source, changes) in cases {
        let mut expected: BTreeMap<String, AttributeValue> =
            item().iter().map(|a| (a.name.clone(), a.value.clone())).collect();
        expected.extend(attributes(changes).iter().map(|a| (a.name.clone(), a.value.clone())));
        assert_eq!(updated(source, Some(&item())), Ok(expected.into_iter().collect()), "{source}");
    }
    let emptied = updated("DELETE ss :sa REMOVE m.b", Some(&item())).unwrap();
    assert_eq!(
        (emptied.get("ss"), emptied.get("m")),
        (None, attributes(r#"{"m":{"M":{"a":{"N":"1"}}}}"#).get("m"))
    );
    let made = updated("SET n = :one ADD q :one", None).unwrap();
    assert_eq!(made, attributes(r#"{"pk":{"S":"a"},"n":{"N":"1"},"q":{"N":"1"}}"#));
}

#[test]
fn updates_that_cannot_be_made_are_refused_with_dynamodbs_texts() {
    let path = "The document path provided in the update expression is invalid for update";
    let missing = "The provided expression refers to an attribute that does not exist in the item";
    let kind = "An operand in the update expression has an incorrect data type";
    let cases = [
        ("SET gone.x = :one", path),
        ("SET s.x = :one", path),
        ("SET m[0] = :one", path),
        ("SET l.x = :one", path),
        ("REMOVE gone.x", path),
        ("SET q = gone", missing),
        ("SET q = gone + :one", missing),
        ("SET n = s + :one", kind),
        ("SET l = list_append(n, :list)", kind),
        ("ADD s :one", kind),
        ("ADD ss :ns", kind),
        ("DELETE n :ns", kind),
        (
            "SET n = n + :max, q = :max + :max",
            "Attempting to store more than 38 significant digits in a Number",
        ),
        ("SET n", "Invalid UpdateExpression: Syntax error; token: \"<EOF>\", near: \"n\""),
        ("n = :one", "Invalid UpdateExpression: Syntax error; token: \"n\", near: \"n =\""),
        (
            "SET n = :one SET s = :one",
            "Invalid UpdateExpression: The \"SET\" section can only be used once in an update expression;",
        ),
        (
            "SET m = :map, m.a = :one",
            "Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [m], path two: [m, a]",
        ),
        (
            "SET m.a = :one, m[0] = :one",
            "Invalid UpdateExpression: Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [m, a], path two: [m, [0]]",
        ),
        (
            "ADD n :he",
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND",
        ),
        (
            "SET n = n + :he",
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: +, operand type: S",
        ),
        (
            "SET q = if_not_exists(:one, :one)",
            "Invalid UpdateExpression: Operator or function requires a document path; operator or function: if_not_exists",
        ),
        ("SET q = nope(n)", "Invalid UpdateExpression: Invalid function name; function: nope"),
    ];
    for (source, fault) in cases {
        assert_eq!(updated(source, Some(&item())), Err(fault.to_owned()), "{source}");
    }
}

#[test]
fn projections_share_their_beginnings() {
    let parsed = parse_projection("m.b.c, n, m.a, l[2].x, l[0]", &placeholders()).unwrap();
    assert_eq!(parsed.parts.len(), 3);
    let error = parse_projection("m.b, m", &placeholders()).unwrap_err();
    assert_eq!(
        error.message,
        "Invalid ProjectionExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [m, b], path two: [m]"
    );
}

#[test]
fn placeholders_are_checked_and_must_be_used() {
    let names = |key: &str| Some(BTreeMap::from([(key.to_owned(), "x".to_owned())]));
    let cases = [
        (names("#a"), false, "ExpressionAttributeNames can only be specified when using expressions"),
        (Some(BTreeMap::new()), true, "ExpressionAttributeNames must not be empty"),
        (names("a"), true, "ExpressionAttributeNames contains invalid key: Syntax error; key: \"a\""),
    ];
    for (names, expressions, text) in cases {
        assert_eq!(Placeholders::new(names, None, expressions, "").unwrap_err().message, text);
    }
    let placeholders = Placeholders::new(names("#a"), None, true, "").unwrap();
    assert_eq!(
        placeholders.check_used().unwrap_err().message,
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#a}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_parser_or_a_program_panic(
        source in "((SET|REMOVE|ADD|DELETE|AND|NOT|size|n|l\\[[0-9]\\]|m\\.a|:one|:list|#m|=|<|\\(|\\)|,|\\+|-|contains|list_append|if_not_exists|é) ?){0,20}"
    ) {
        let _ = holds(&source, Some(&item()));
        let _ = updated(&source, Some(&item()));
        let _ = parse_projection(&source, &placeholders());
    }

    #[test]
    fn no_bytes_make_a_program_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let stored = encode_item(&item());
        let view = ItemView::check(&stored).unwrap();
        if let Ok(condition) = ConditionView::check(&bytes) {
            condition.holds(Some(&view));
        }
        if let Ok(update) = UpdateView::check(&bytes) {
            let _ = update.apply(Some(&view), &item());
        }
    }

    #[test]
    fn no_flipped_byte_makes_a_program_panic(at in 0usize..2000, flip in 1u8..) {
        let stored = encode_item(&item());
        let view = ItemView::check(&stored).unwrap();
        let condition = "NOT (n = :five AND contains(l, :one)) OR size(m.b) IN (:one, :nine) AND m = :map";
        let mut bytes = parse_condition("ConditionExpression", condition, &placeholders()).unwrap().encode();
        let place = at % bytes.len();
        bytes[place] ^= flip;
        if let Ok(condition) = ConditionView::check(&bytes) {
            condition.holds(Some(&view));
        }
        let update = "SET l[4] = list_append(if_not_exists(q, :empty), :list), n = n + :one ADD ss :ss REMOVE m.b";
        let mut bytes = parse_update(update, &placeholders()).unwrap().encode();
        let place = at % bytes.len();
        bytes[place] ^= flip;
        if let Ok(update) = UpdateView::check(&bytes) {
            let _ = update.apply(Some(&view), &item());
        }
    }
}
