//! The parameters from before there were expressions, turned into the same programs.
//!
//! `Expected`, `QueryFilter` and `ScanFilter` become conditions, `AttributeUpdates` an update,
//! `KeyConditions` key conditions, `AttributesToGet` a projection; from there on nothing tells them
//! apart. A request uses either kind of parameter, never both.

use crate::attribute::JsonValue;
use crate::error::ApiError;
use crate::expression::{KeyComparison, KeyCondition, Projection};
use evenkeel_expression::{Action, Comparator, Condition, Logic, Operand, Path, SetOperand, Test, Update};
use evenkeel_model::AttributeValue;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A condition on one attribute.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConditionJson {
    value: Option<JsonValue>,
    exists: Option<bool>,
    comparison_operator: Option<String>,
    attribute_value_list: Option<Vec<JsonValue>>,
}

/// Conditions by attribute.
pub type ConditionsJson = BTreeMap<String, ConditionJson>;

/// What is done with one attribute.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateJson {
    action: Option<String>,
    value: Option<JsonValue>,
}

/// Refuses a request that uses both kinds of parameter; each with its name and whether it is there.
///
/// # Errors
/// DynamoDB's text, with the names.
pub fn check_mixed(legacy: &[(&str, bool)], expressions: &[(&str, bool)]) -> Result<(), ApiError> {
    let given = |list: &[(&str, bool)]| -> Vec<String> {
        list.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned()).collect()
    };
    let (legacy, expressions) = (given(legacy), given(expressions));
    if legacy.is_empty() || expressions.is_empty() {
        return Ok(());
    }
    Err(ApiError::validation(format!(
        "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {{{}}} Expression parameters: {{{}}}",
        legacy.join(", "),
        expressions.join(", ")
    )))
}

/// Whether several conditions are joined by OR.
///
/// # Errors
/// An operator that is none, or with nothing to join.
fn joined_by_or(operator: Option<&str>, conditions: usize) -> Result<bool, ApiError> {
    let text = match (operator, conditions) {
        (None, _) => return Ok(false),
        (Some(_), 0) => "ConditionalOperator cannot be used without Filter or Expected",
        (Some(_), 1) => {
            "ConditionalOperator can only be used when Filter or Expected has two or more elements"
        }
        (Some("AND"), _) => return Ok(false),
        (Some("OR"), _) => return Ok(true),
        _ => {
            "1 validation error detected: Failed to satisfy constraint: Member must satisfy enum value set: [ALL, OR]"
        }
    };
    Err(ApiError::validation(text))
}

/// The condition that `Expected`, `QueryFilter` or `ScanFilter` stands for.
///
/// # Errors
/// DynamoDB's texts for operators and operands that do not fit together.
pub fn condition(
    conditions: Option<ConditionsJson>,
    operator: Option<&str>,
) -> Result<Option<Condition>, ApiError> {
    let conditions = conditions.unwrap_or_default();
    let join = if joined_by_or(operator, conditions.len())? { Logic::Or } else { Logic::And };
    let mut whole = Condition::default();
    for (index, (name, json)) in conditions.into_iter().enumerate() {
        one(&mut whole, &name, json)?;
        if index > 0 {
            whole.combine(join);
        }
    }
    Ok((!whole.tests.is_empty()).then_some(whole))
}

fn one(out: &mut Condition, name: &str, json: ConditionJson) -> Result<(), ApiError> {
    let invalid = |text: &str| Err(ApiError::invalid_values(format_args!("{text} for Attribute: {name}")));
    let path = || Path::attribute(name);
    if json.exists.is_some() && json.comparison_operator.is_some() {
        return invalid("Exists and ComparisonOperator cannot be used together");
    }
    if json.value.is_some() && json.attribute_value_list.is_some() {
        return invalid("Value and AttributeValueList cannot be used together");
    }
    let Some(operator) = &json.comparison_operator else {
        if json.attribute_value_list.is_some() {
            return invalid("AttributeValueList can only be used with a ComparisonOperator");
        }
        match (json.exists, json.value) {
            (Some(false), None) => out.test(Test::NotExists(path())),
            (Some(false), Some(_)) => return invalid("Value cannot be used when Exists is false"),
            (_, Some(value)) => {
                out.test(Test::Compare(Comparator::Equal, Operand::Path(path()), Operand::Value(value.0)));
            }
            (exists, None) => {
                let exists = exists.map_or("null", |_| "true");
                return invalid(&format!("Value must be provided when Exists is {exists}"));
            }
        }
        return Ok(());
    };
    let values = values(operator, name, json.value, json.attribute_value_list)?;
    test(out, operator, name, values)
}

/// The operands of an operator, of which there must be as many as it takes.
fn values(
    operator: &str,
    name: &str,
    value: Option<JsonValue>,
    list: Option<Vec<JsonValue>>,
) -> Result<Vec<AttributeValue>, ApiError> {
    let given = value.is_some() || list.is_some();
    let values: Vec<AttributeValue> =
        list.unwrap_or_else(|| value.into_iter().collect()).into_iter().map(|value| value.0).collect();
    let fits = match operator {
        "NULL" | "NOT_NULL" => values.is_empty(),
        "BETWEEN" => values.len() == 2,
        "IN" => !values.is_empty(),
        "EQ" | "NE" | "LE" | "LT" | "GE" | "GT" | "CONTAINS" | "NOT_CONTAINS" | "BEGINS_WITH" => {
            values.len() == 1
        }
        _ => return Err(ApiError::invalid_values("Invalid comparison operator")),
    };
    if !fits && !given {
        return Err(ApiError::invalid_values(format_args!(
            "Value or AttributeValueList must be used with ComparisonOperator: {operator} for Attribute: {name}"
        )));
    }
    if !fits {
        return Err(ApiError::invalid_values(format_args!(
            "Invalid number of argument(s) for the {operator} ComparisonOperator"
        )));
    }
    let takes = |value: &AttributeValue| match operator {
        "LE" | "LT" | "GE" | "GT" | "BETWEEN" | "IN" => {
            matches!(value, AttributeValue::S(_) | AttributeValue::N(_) | AttributeValue::B(_))
        }
        "BEGINS_WITH" => matches!(value, AttributeValue::S(_) | AttributeValue::B(_)),
        "CONTAINS" | "NOT_CONTAINS" => !matches!(
            value,
            AttributeValue::M(_)
                | AttributeValue::L(_)
                | AttributeValue::Ss(_)
                | AttributeValue::Ns(_)
                | AttributeValue::Bs(_)
        ),
        _ => true,
    };
    match values.iter().find(|value| !takes(value)) {
        Some(value) => Err(ApiError::invalid_values(format_args!(
            "ComparisonOperator {operator} is not valid for {} AttributeValue type",
            value.type_name()
        ))),
        None => Ok(values),
    }
}

fn test(
    out: &mut Condition,
    operator: &str,
    name: &str,
    values: Vec<AttributeValue>,
) -> Result<(), ApiError> {
    let path = || Path::attribute(name);
    let attribute = || Operand::Path(path());
    let mut operands = values.into_iter().map(Operand::Value);
    let mut next = || operands.next().expect("counted against the operator");
    let compare = |comparator, operand| Test::Compare(comparator, attribute(), operand);
    match operator {
        "NULL" => out.test(Test::NotExists(path())),
        "NOT_NULL" => out.test(Test::Exists(path())),
        "EQ" => out.test(compare(Comparator::Equal, next())),
        "NE" => out.test(compare(Comparator::NotEqual, next())),
        "LT" => out.test(compare(Comparator::Less, next())),
        "LE" => out.test(compare(Comparator::LessOrEqual, next())),
        "GT" => out.test(compare(Comparator::Greater, next())),
        "GE" => out.test(compare(Comparator::GreaterOrEqual, next())),
        "BEGINS_WITH" => out.test(Test::BeginsWith(attribute(), next())),
        "CONTAINS" => out.test(Test::Contains(attribute(), next())),
        "NOT_CONTAINS" => {
            out.test(Test::Contains(attribute(), next()));
            out.combine(Logic::Not);
        }
        "BETWEEN" => {
            let low = next();
            out.test(Test::Between(attribute(), low, next()));
        }
        _ => out.test(Test::In(attribute(), operands.collect())),
    }
    Ok(())
}

/// The update that `AttributeUpdates` stands for.
///
/// # Errors
/// DynamoDB's texts for actions and values that do not fit together.
pub fn update(updates: BTreeMap<String, UpdateJson>) -> Result<Update, ApiError> {
    let mut update = Update::default();
    for (name, UpdateJson { action, value }) in updates {
        let path = Path::attribute(&name);
        let action = action.as_deref().unwrap_or("PUT");
        let action = match (action, value.map(|value| value.0)) {
            ("PUT", Some(value)) => {
                let operand = update.operand(SetOperand::Value(value));
                Action::Set(path, operand)
            }
            ("ADD", Some(AttributeValue::L(elements))) => {
                let empty = update.operand(SetOperand::Value(AttributeValue::L(Vec::new())));
                let before = update.operand(SetOperand::IfNotExists(path.clone(), empty));
                let more = update.operand(SetOperand::Value(AttributeValue::L(elements)));
                let joined = update.operand(SetOperand::ListAppend(before, more));
                Action::Set(path, joined)
            }
            ("ADD", Some(value)) if is_set(&value) || matches!(value, AttributeValue::N(_)) => {
                Action::Add(path, value)
            }
            ("DELETE", None) => Action::Remove(path),
            ("DELETE", Some(value)) if is_set(&value) => Action::Delete(path, value),
            ("ADD" | "DELETE", Some(value)) => {
                let kind = value.type_name();
                let action = if action == "DELETE" { "DELETE action with value" } else { "ADD action" };
                return Err(ApiError::invalid_values(format_args!(
                    "{action} is not supported for the type {kind}"
                )));
            }
            ("PUT" | "ADD", None) => {
                return Err(ApiError::invalid_values(
                    "Only DELETE action is allowed when no attribute value is specified",
                ));
            }
            (other, _) => {
                return Err(ApiError::validation(format!(
                    "1 validation error detected: Value '{other}' at 'attributeUpdates.{name}.member.action' failed to satisfy constraint: Member must satisfy enum value set: [ADD, PUT, DELETE]"
                )));
            }
        };
        update.actions.push(action);
    }
    Ok(update)
}

fn is_set(value: &AttributeValue) -> bool {
    matches!(value, AttributeValue::Ss(_) | AttributeValue::Ns(_) | AttributeValue::Bs(_))
}

/// The key conditions that `KeyConditions` stands for.
///
/// # Errors
/// DynamoDB's texts for operators that no key takes.
pub fn key_conditions(conditions: ConditionsJson) -> Result<Vec<KeyCondition>, ApiError> {
    let one = |(name, json): (String, ConditionJson)| {
        let Some(operator) = json.comparison_operator else {
            return Err(ApiError::validation(format!(
                "1 validation error detected: Value null at 'keyConditions.{name}.member.comparisonOperator' failed to satisfy constraint: Member must not be null"
            )));
        };
        if ["NE", "IN", "NULL", "NOT_NULL", "CONTAINS", "NOT_CONTAINS"].contains(&operator.as_str()) {
            let text = format!("Unsupported KeyConditions ComparisonOperator: {operator}");
            return Err(ApiError::validation(text));
        }
        let list = json.attribute_value_list.unwrap_or_default();
        let mut values = values(&operator, &name, None, Some(list))?.into_iter();
        let mut next = || values.next().expect("counted against the operator");
        let comparison = match operator.as_str() {
            "EQ" => KeyComparison::Equal(next()),
            "LT" => KeyComparison::Less(next()),
            "LE" => KeyComparison::LessOrEqual(next()),
            "GT" => KeyComparison::Greater(next()),
            "GE" => KeyComparison::GreaterOrEqual(next()),
            "BEGINS_WITH" => KeyComparison::BeginsWith(next()),
            _ => {
                let low = next();
                KeyComparison::Between(low, next())
            }
        };
        Ok(KeyCondition { name, comparison })
    };
    conditions.into_iter().map(one).collect()
}

/// The projection that `AttributesToGet` stands for.
///
/// # Errors
/// An empty list, and a name that is there twice.
pub fn projection(names: Option<&[String]>) -> Result<Option<Projection>, ApiError> {
    let Some(names) = names else { return Ok(None) };
    if names.is_empty() {
        return Err(ApiError::validation(
            "1 validation error detected: Value '[]' at 'attributesToGet' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(ApiError::invalid_values(format_args!("Duplicate value in attribute name: {twice}")));
    }
    let paths: Vec<Path> = names.iter().map(Path::attribute).collect();
    Ok(Some(Projection::new(&paths)))
}
