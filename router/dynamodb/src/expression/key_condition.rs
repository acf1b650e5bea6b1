//! Key conditions: what of the language Query may ask of keys.
//!
//! They have the grammar of conditions; what is not a comparison of a key attribute with a value, or is
//! combined by anything but AND, is refused by name.

use super::parser::{Fault, parse};
use super::placeholders::Placeholders;
use crate::error::ApiError;
use evenkeel_expression::{Comparator, Condition, Logic, Operand, Path, Test};
use evenkeel_model::AttributeValue;

/// How a key attribute is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyComparison {
    /// Equal.
    Equal(AttributeValue),
    /// Less.
    Less(AttributeValue),
    /// Less or equal.
    LessOrEqual(AttributeValue),
    /// Greater.
    Greater(AttributeValue),
    /// Greater or equal.
    GreaterOrEqual(AttributeValue),
    /// Between two values, both included.
    Between(AttributeValue, AttributeValue),
    /// Begins with.
    BeginsWith(AttributeValue),
}

/// One condition on a key attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyCondition {
    /// The attribute.
    pub name: String,
    /// How it is compared.
    pub comparison: KeyComparison,
}

/// Parses a key condition and resolves its placeholders.
///
/// # Errors
/// DynamoDB's texts.
pub fn parse_key_condition(source: &str, placeholders: &Placeholders) -> Result<Vec<KeyCondition>, ApiError> {
    parse("KeyConditionExpression", source, placeholders, |parser| {
        let condition = super::condition::whole(parser)?;
        match key_conditions(condition) {
            Ok(conditions) => Ok(conditions),
            Err(fault) => {
                parser.note(fault);
                Ok(Vec::new())
            }
        }
    })
}

fn key_conditions(condition: Condition) -> Result<Vec<KeyCondition>, Fault> {
    for logic in &condition.logic {
        match logic {
            Logic::Or => return Err(unsupported("OR")),
            Logic::Not => return Err(unsupported("NOT")),
            Logic::And | Logic::Test(_) => {}
        }
    }
    condition.tests.into_iter().map(key_condition).collect()
}

fn unsupported(operator: &str) -> Fault {
    format!("Invalid operator used in KeyConditionExpression: {operator}")
}

fn key_condition(test: Test) -> Result<KeyCondition, Fault> {
    let (operand, comparison) = match test {
        Test::Compare(comparator, Operand::Value(value), path @ Operand::Path(_)) => {
            (path, compare(flipped(comparator), value)?)
        }
        Test::Compare(comparator, operand, other) => (operand, compare(comparator, constant(other)?)?),
        Test::Between(operand, low, high) => {
            (operand, KeyComparison::Between(constant(low)?, constant(high)?))
        }
        Test::BeginsWith(operand, prefix) => (operand, KeyComparison::BeginsWith(constant(prefix)?)),
        Test::In(..) => return Err(unsupported("IN")),
        Test::Exists(_) => return Err(unsupported("attribute_exists")),
        Test::NotExists(_) => return Err(unsupported("attribute_not_exists")),
        Test::Type(..) => return Err(unsupported("attribute_type")),
        Test::Contains(..) => return Err(unsupported("contains")),
    };
    match operand {
        Operand::Path(path) => Ok(KeyCondition { name: attribute(path)?, comparison }),
        Operand::Size(_) => Err(unsupported("size")),
        Operand::Value(_) => {
            Err("Invalid condition in KeyConditionExpression: No key attribute specified".to_owned())
        }
    }
}

fn attribute(path: Path) -> Result<String, Fault> {
    match path.steps().len() {
        1 => Ok(path.root().to_owned()),
        _ => Err("KeyConditionExpressions cannot have conditions on nested attributes".to_owned()),
    }
}

fn constant(operand: Operand) -> Result<AttributeValue, Fault> {
    match operand {
        Operand::Value(value) => Ok(value),
        Operand::Path(_) => {
            Err("Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"
                .to_owned())
        }
        Operand::Size(_) => Err(unsupported("size")),
    }
}

fn flipped(comparator: Comparator) -> Comparator {
    match comparator {
        Comparator::Less => Comparator::Greater,
        Comparator::LessOrEqual => Comparator::GreaterOrEqual,
        Comparator::Greater => Comparator::Less,
        Comparator::GreaterOrEqual => Comparator::LessOrEqual,
        Comparator::Equal | Comparator::NotEqual => comparator,
    }
}

fn compare(comparator: Comparator, value: AttributeValue) -> Result<KeyComparison, Fault> {
    Ok(match comparator {
        Comparator::Equal => KeyComparison::Equal(value),
        Comparator::Less => KeyComparison::Less(value),
        Comparator::LessOrEqual => KeyComparison::LessOrEqual(value),
        Comparator::Greater => KeyComparison::Greater(value),
        Comparator::GreaterOrEqual => KeyComparison::GreaterOrEqual(value),
        Comparator::NotEqual => return Err("Unsupported operator on KeyCondition: operator: <>".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<KeyCondition>, String> {
        let names = [("#k".to_owned(), "key".to_owned())].into();
        let text_value = AttributeValue::S("x".to_owned());
        let values =
            [(":a".to_owned(), number(1)), (":b".to_owned(), number(2)), (":s".to_owned(), text_value)]
                .into();
        let placeholders = Placeholders::new(Some(names), Some(values), true, "").unwrap();
        parse_key_condition(text, &placeholders).map_err(|error| error.message)
    }

    fn number(n: u64) -> AttributeValue {
        AttributeValue::N(n.into())
    }

    #[test]
    fn conditions_are_parsed_with_their_placeholders() {
        let (a, b) = (number(1), number(2));
        let text = AttributeValue::S("x".to_owned());
        let on = |name: &str, comparison: KeyComparison| KeyCondition { name: name.to_owned(), comparison };
        let cases = [
            ("pk=:a", vec![on("pk", KeyComparison::Equal(a.clone()))]),
            (
                "(#k = :a) and (sk BETWEEN :a AND :b)",
                vec![
                    on("key", KeyComparison::Equal(a.clone())),
                    on("sk", KeyComparison::Between(a.clone(), b.clone())),
                ],
            ),
            (
                " begins_with ( sk , :s ) AND pk = :a ",
                vec![on("sk", KeyComparison::BeginsWith(text)), on("pk", KeyComparison::Equal(a.clone()))],
            ),
            ("pk <= :a", vec![on("pk", KeyComparison::LessOrEqual(a.clone()))]),
            ("pk < :a", vec![on("pk", KeyComparison::Less(a.clone()))]),
            ("pk >= :a", vec![on("pk", KeyComparison::GreaterOrEqual(a.clone()))]),
            ("pk > :a", vec![on("pk", KeyComparison::Greater(a.clone()))]),
            (":a > pk", vec![on("pk", KeyComparison::Less(a))]),
        ];
        for (source, conditions) in cases {
            assert_eq!(parse(source), Ok(conditions), "{source}");
        }
    }

    #[test]
    fn what_is_no_key_condition_is_refused_with_its_reason() {
        let cases = [
            ("", "The expression can not be empty;"),
            ("pk", "Syntax error; token: \"<EOF>\", near: \"pk\""),
            ("pk = ", "Syntax error; token: \"<EOF>\""),
            ("pk = 5", "Syntax error; token: \"5\""),
            ("pk == :a", "Syntax error; token: \"=\""),
            ("pk ! :a", "Syntax error; token: \"!\""),
            ("(pk = :a", "Syntax error; token: \"<EOF>\""),
            ("pk = :a)", "Syntax error; token: \")\""),
            ("pk = :c", "attribute value: :c"),
            ("#z = :a", "attribute name: #z"),
            ("pk = :a OR sk = :b", "Invalid operator used in KeyConditionExpression: OR"),
            ("pk <> :a", "Unsupported operator on KeyCondition: operator: <>"),
            ("size(pk) = :a", "Invalid operator used in KeyConditionExpression: size"),
            ("nonsense(pk, :a)", "Invalid function name; function: nonsense"),
            ("pk.x = :a", "nested attributes"),
        ];
        for (text, reason) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let deep = format!("{}pk = :a{}", "(".repeat(1000), ")".repeat(1000));
        assert!(parse(&deep).unwrap_err().contains("redundant parentheses"));
    }

    proptest::proptest! {
        #[test]
        fn parsing_any_text_never_panics(text in "[a-z#:()=<>, .\\[\\]ANDBETWEENé0-9]{0,60}") {
            let _ = parse(&text);
        }
    }
}
