//! What conditions ask of values, answered on archives in place.

use evenkeel_model::number::ArchivedNumber;
use evenkeel_model::{ArchivedAttribute, ArchivedAttributeValue, Number};
use std::cmp::Ordering;

type Value = ArchivedAttributeValue;

/// Whether two values are of one type and equal; sets and maps are sorted, so order does not matter.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::S(a), Value::S(b)) => a == b,
        (Value::N(a), Value::N(b)) => number(a) == number(b),
        (Value::B(a), Value::B(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Null, Value::Null) => true,
        (Value::M(a), Value::M(b)) => {
            let same = |(a, b): (&ArchivedAttribute, &ArchivedAttribute)| {
                a.name == b.name && equal(&a.value, &b.value)
            };
            a.len() == b.len() && a.iter().zip(b.iter()).all(same)
        }
        (Value::L(a), Value::L(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b)),
        (Value::Ss(a), Value::Ss(b)) => a == b,
        (Value::Ns(a), Value::Ns(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| number(a) == number(b))
        }
        (Value::Bs(a), Value::Bs(b)) => a == b,
        _ => false,
    }
}

/// How two strings, numbers or binaries compare; nothing for values of other or of different types.
pub fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::S(a), Value::S(b)) => Some(a.as_str().cmp(b.as_str())),
        (Value::N(a), Value::N(b)) => Some(number(a).cmp(&number(b))),
        (Value::B(a), Value::B(b)) => Some(a.as_slice().cmp(b.as_slice())),
        _ => None,
    }
}

/// Whether a string or binary begins with another.
pub fn begins_with(value: &Value, prefix: &Value) -> bool {
    match (value, prefix) {
        (Value::S(value), Value::S(prefix)) => value.starts_with(prefix.as_str()),
        (Value::B(value), Value::B(prefix)) => value.starts_with(prefix),
        _ => false,
    }
}

/// Whether a string or binary holds another, or a set or list an element.
pub fn contains(value: &Value, element: &Value) -> bool {
    match (value, element) {
        (Value::S(value), Value::S(part)) => value.contains(part.as_str()),
        (Value::B(value), Value::B(part)) => {
            part.is_empty() || value.windows(part.len()).any(|window| window == part.as_slice())
        }
        (Value::Ss(set), Value::S(text)) => set.iter().any(|member| member == text),
        (Value::Ns(set), Value::N(wanted)) => set.iter().any(|member| number(member) == number(wanted)),
        (Value::Bs(set), Value::B(bytes)) => set.iter().any(|member| member == bytes),
        (Value::L(list), element) => list.iter().any(|member| equal(member, element)),
        _ => false,
    }
}

/// What the function `size` yields: characters of a string, bytes of a binary, members of the others;
/// nothing for types that have no size.
pub fn size(value: &Value) -> Option<Number> {
    let size = match value {
        Value::S(text) => text.chars().count(),
        Value::B(bytes) => bytes.len(),
        Value::M(entries) => entries.len(),
        Value::L(elements) => elements.len(),
        Value::Ss(set) => set.len(),
        Value::Ns(set) => set.len(),
        Value::Bs(set) => set.len(),
        Value::N(_) | Value::Bool(_) | Value::Null => return None,
    };
    Some(Number::from(size as u64))
}

/// The type's name in DynamoDB's JSON.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::S(_) => "S",
        Value::N(_) => "N",
        Value::B(_) => "B",
        Value::Bool(_) => "BOOL",
        Value::Null => "NULL",
        Value::M(_) => "M",
        Value::L(_) => "L",
        Value::Ss(_) => "SS",
        Value::Ns(_) => "NS",
        Value::Bs(_) => "BS",
    }
}

/// The number of an archive. Items and programs are checked when they arrive, so it is normal.
pub fn number(archived: &ArchivedNumber) -> Number {
    Number::from_archived(archived).unwrap_or(Number::ZERO)
}
