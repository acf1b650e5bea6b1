//! One line of JSON to the attributes of one item, and to its key.
//!
//! Two notations are read: plain JSON, whose types become S, N, BOOL, NULL, L and M, and DynamoDB's typed
//! JSON, bare or under `Item` as its exports have it. Numbers are taken from their text, so no digit is
//! lost. Everything that a cluster would refuse of an item is refused here first, so that the reason can
//! name the attribute.
//!
//! This module knows nothing of files, line numbers or sockets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evenkeel_model::key::encode_item_key;
use evenkeel_model::{Attribute, AttributeValue, Attributes, KeySchema, KeyType, Number, NumberError};
use evenkeel_model::{limits, value};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// How items are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON's own types.
    Plain,
    /// DynamoDB's typed JSON: `{"pk":{"S":"…"}}` or `{"Item":{"pk":{"S":"…"}}}`.
    Dynamodb,
}

/// Why a line is no item of the table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not JSON.
    #[error("malformed JSON: {0}")]
    Json(String),
    /// JSON, but no object.
    #[error("the line is not a JSON object")]
    NotAnObject,
    /// A value that cannot be stored.
    #[error("attribute {name:?}: {reason}")]
    Attribute {
        /// The outermost attribute that holds it.
        name: String,
        /// What is wrong with it.
        reason: ValueError,
    },
    /// A key attribute is absent.
    #[error("key attribute {name:?} is missing")]
    KeyMissing {
        /// Its name.
        name: String,
    },
    /// A key attribute has another type than the table wants.
    #[error("key attribute {name:?} has type {found}, the table wants {wanted}")]
    KeyType {
        /// Its name.
        name: String,
        /// The type on the line.
        found: &'static str,
        /// The type of the table's schema.
        wanted: &'static str,
    },
    /// A key attribute is outside the limits.
    #[error("key attribute {name:?} has {bytes} bytes, allowed are 1 to {bytes_max}")]
    KeySize {
        /// Its name.
        name: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The item is over the limit.
    #[error("the item has {bytes} bytes, allowed are {max}", max = limits::ITEM_BYTES_MAX)]
    ItemSize {
        /// Its size by DynamoDB's rules.
        bytes: usize,
    },
}

/// What is wrong with one value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a number that can be stored.
    #[error("{0}")]
    Number(#[from] NumberError),
    /// Not base64.
    #[error("binary values are written in base64: {0}")]
    Base64(String),
    /// Not text, for instance half of a surrogate pair.
    #[error("malformed string: {0}")]
    Text(String),
    /// Not one of the ten types.
    #[error("expected an object with one member named S, N, B, BOOL, NULL, M, L, SS, NS or BS")]
    Untyped,
    /// The type's name is right, its value is not.
    #[error("the value of type {type_name} must be {wanted}")]
    Shape {
        /// The type.
        type_name: &'static str,
        /// What its value must be.
        wanted: &'static str,
    },
    /// A set without members.
    #[error("a set has at least one member")]
    EmptySet,
    /// A set with one member twice.
    #[error("a set has no member twice")]
    RepeatedMember,
    /// Too deep.
    #[error("lists and maps nest at most {max} levels deep", max = limits::NESTING_LEVELS_MAX)]
    Nesting,
    /// A name that is empty or too long.
    #[error("an attribute name has 1 to {max} bytes", max = limits::ATTRIBUTE_NAME_BYTES_MAX)]
    Name,
}

/// An item of a table, ready to be put.
#[derive(Debug, PartialEq)]
pub struct Converted {
    /// The encoded key.
    pub key: Vec<u8>,
    /// The attributes, key attributes included.
    pub attributes: Attributes,
}

/// The notation that a line is written in; nothing if it is not a JSON object.
pub fn detect(line: &str) -> Option<Format> {
    let Members(members) = serde_json::from_str(line).ok()?;
    let typed = !members.is_empty() && members.iter().all(|(_, raw)| type_of(raw).is_some());
    let wrapped = || exported_item(&members).is_some();
    Some(if typed || wrapped() { Format::Dynamodb } else { Format::Plain })
}

/// The item on a line, checked against the table's schema and the limits of an item.
///
/// # Errors
/// The first thing that keeps the line from being an item of the table.
pub fn item(line: &str, format: Format, schema: &KeySchema) -> Result<Converted, LineError> {
    if !line.trim_start().starts_with('{') {
        // What is not even JSON is reported as that.
        let _: &RawValue = serde_json::from_str(line).map_err(malformed)?;
        return Err(LineError::NotAnObject);
    }
    let Members(members) = serde_json::from_str(line).map_err(malformed)?;
    let attributes = match format {
        Format::Plain => plain_attributes(members, schema)?,
        Format::Dynamodb => {
            let members = exported_item(&members).unwrap_or(members);
            attributes(members, |_, raw| typed_value(raw, limits::NESTING_LEVELS_MAX))?
        }
    };
    let key = checked_key(&attributes, schema)?;
    let bytes = attributes.size_bytes();
    if bytes > limits::ITEM_BYTES_MAX {
        return Err(LineError::ItemSize { bytes });
    }
    Ok(Converted { key, attributes })
}

/// Members of a JSON object in their order, values unread.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The message without its line, which is always 1 here.
fn malformed(error: serde_json::Error) -> LineError {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    LineError::Json(format!("{reason} at column {}", error.column()))
}

/// Reads one JSON value of known syntax; what can still fail is its text.
fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, ValueError> {
    serde_json::from_str(raw.get()).map_err(|error| match malformed(error) {
        LineError::Json(reason) => ValueError::Text(reason),
        _ => unreachable!("malformed() makes no other"),
    })
}

fn first_byte(raw: &RawValue) -> u8 {
    raw.get().as_bytes()[0]
}

fn attributes(
    members: Vec<(String, &RawValue)>,
    mut value_of: impl FnMut(&str, &RawValue) -> Result<AttributeValue, ValueError>,
) -> Result<Attributes, LineError> {
    let mut attributes = Vec::with_capacity(members.len());
    for (name, raw) in members {
        let allowed = (1..=limits::ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len());
        let value = if allowed { value_of(&name, raw) } else { Err(ValueError::Name) };
        match value {
            Ok(value) => attributes.push(Attribute { name, value }),
            Err(reason) => {
                return Err(LineError::Attribute { name: name.chars().take(255).collect(), reason });
            }
        }
    }
    Ok(Attributes::new(attributes))
}

fn plain_attributes(members: Vec<(String, &RawValue)>, schema: &KeySchema) -> Result<Attributes, LineError> {
    let keys = std::iter::once(&schema.partition).chain(&schema.sort);
    let binary: Vec<&str> =
        keys.filter(|key| key.key_type == KeyType::B).map(|key| key.name.as_str()).collect();
    attributes(members, |name, raw| {
        if binary.contains(&name) && first_byte(raw) == b'"' {
            return Ok(AttributeValue::B(base64(raw)?));
        }
        plain_value(raw, limits::NESTING_LEVELS_MAX)
    })
}

fn plain_value(raw: &RawValue, levels: usize) -> Result<AttributeValue, ValueError> {
    match first_byte(raw) {
        b'"' => read(raw).map(AttributeValue::S),
        b'{' => map(raw, levels, plain_value),
        b'[' => list(raw, levels, plain_value),
        b't' => Ok(AttributeValue::Bool(true)),
        b'f' => Ok(AttributeValue::Bool(false)),
        b'n' => Ok(AttributeValue::Null),
        _ => Ok(AttributeValue::N(Number::parse(raw.get())?)),
    }
}

type ReadValue = fn(&RawValue, usize) -> Result<AttributeValue, ValueError>;

fn map(raw: &RawValue, levels: usize, value_of: ReadValue) -> Result<AttributeValue, ValueError> {
    let levels = levels.checked_sub(1).ok_or(ValueError::Nesting)?;
    let Members(members) = read(raw)?;
    let entry = |(name, raw): (String, &RawValue)| Ok(Attribute { name, value: value_of(raw, levels)? });
    let entries: Result<Vec<Attribute>, ValueError> = members.into_iter().map(entry).collect();
    Ok(AttributeValue::M(value::sorted_by_name(entries?)))
}

fn list(raw: &RawValue, levels: usize, value_of: ReadValue) -> Result<AttributeValue, ValueError> {
    let levels = levels.checked_sub(1).ok_or(ValueError::Nesting)?;
    let elements: Vec<&RawValue> = read(raw)?;
    let values: Result<_, ValueError> = elements.into_iter().map(|raw| value_of(raw, levels)).collect();
    Ok(AttributeValue::L(values?))
}

/// The ten types, the first byte of their values in JSON, and the words for those.
const TYPES: [(&str, &[u8], &str); 10] = [
    ("S", b"\"", "a string"),
    ("N", b"\"", "a string of digits"),
    ("B", b"\"", "a string in base64"),
    ("BOOL", b"tf", "true or false"),
    ("NULL", b"t", "true"),
    ("M", b"{", "an object"),
    ("L", b"[", "an array"),
    ("SS", b"[", "an array of strings"),
    ("NS", b"[", "an array of strings of digits"),
    ("BS", b"[", "an array of strings in base64"),
];

/// The type's name and the value's text, if `raw` is an object of one member named like a type.
fn type_member<'a>(raw: &'a RawValue) -> Option<(usize, &'a RawValue)> {
    if first_byte(raw) != b'{' {
        return None;
    }
    let Members(members) = read::<Members<'a>>(raw).ok()?;
    let [(name, inner)] = members.as_slice() else { return None };
    let at = TYPES.iter().position(|(type_name, ..)| type_name == name)?;
    Some((at, inner))
}

/// The type of a typed value of the right shape.
fn type_of(raw: &RawValue) -> Option<&'static str> {
    let (at, inner) = type_member(raw)?;
    TYPES[at].1.contains(&first_byte(inner)).then_some(TYPES[at].0)
}

/// The members under `Item`, where they are typed and `Item` itself is not an attribute.
fn exported_item<'a>(members: &[(String, &'a RawValue)]) -> Option<Vec<(String, &'a RawValue)>> {
    let [(name, raw)] = members else { return None };
    if name != "Item" || first_byte(raw) != b'{' || type_of(raw).is_some() {
        return None;
    }
    let Members(inner) = read::<Members<'a>>(raw).ok()?;
    inner.iter().any(|(_, raw)| type_of(raw).is_some()).then_some(inner)
}

fn typed_value(raw: &RawValue, levels: usize) -> Result<AttributeValue, ValueError> {
    let (at, inner) = type_member(raw).ok_or(ValueError::Untyped)?;
    let (type_name, first_bytes, wanted) = TYPES[at];
    if !first_bytes.contains(&first_byte(inner)) {
        return Err(ValueError::Shape { type_name, wanted });
    }
    Ok(match type_name {
        "S" => AttributeValue::S(read(inner)?),
        "N" => AttributeValue::N(number(inner)?),
        "B" => AttributeValue::B(base64(inner)?),
        "BOOL" => AttributeValue::Bool(first_byte(inner) == b't'),
        "NULL" => AttributeValue::Null,
        "M" => map(inner, levels, typed_value)?,
        "L" => list(inner, levels, typed_value)?,
        "SS" => AttributeValue::Ss(set(inner, type_name, wanted, |raw| read(raw))?),
        "NS" => AttributeValue::Ns(set(inner, type_name, wanted, number)?),
        "BS" => AttributeValue::Bs(set(inner, type_name, wanted, base64)?),
        _ => unreachable!("TYPES lists no other"),
    })
}

fn set<T: Ord>(
    raw: &RawValue,
    type_name: &'static str,
    wanted: &'static str,
    member: impl Fn(&RawValue) -> Result<T, ValueError>,
) -> Result<Vec<T>, ValueError> {
    let elements: Vec<&RawValue> = read(raw)?;
    if elements.iter().any(|raw| first_byte(raw) != b'"') {
        return Err(ValueError::Shape { type_name, wanted });
    }
    let mut members = elements.into_iter().map(member).collect::<Result<Vec<T>, ValueError>>()?;
    members.sort();
    if members.is_empty() {
        return Err(ValueError::EmptySet);
    }
    if members.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ValueError::RepeatedMember);
    }
    Ok(members)
}

fn number(raw: &RawValue) -> Result<Number, ValueError> {
    Ok(Number::parse(&read::<String>(raw)?)?)
}

fn base64(raw: &RawValue) -> Result<Vec<u8>, ValueError> {
    BASE64.decode(read::<String>(raw)?).map_err(|error| ValueError::Base64(error.to_string()))
}

fn checked_key(attributes: &Attributes, schema: &KeySchema) -> Result<Vec<u8>, LineError> {
    let keys = [
        (Some(&schema.partition), limits::PARTITION_KEY_BYTES_MAX),
        (schema.sort.as_ref(), limits::SORT_KEY_BYTES_MAX),
    ];
    for (key, bytes_max) in keys {
        let Some(key) = key else { continue };
        let name = key.name.clone();
        let Some(value) = attributes.get(&key.name) else { return Err(LineError::KeyMissing { name }) };
        if value.type_name() != key.key_type.name() {
            let (found, wanted) = (value.type_name(), key.key_type.name());
            return Err(LineError::KeyType { name, found, wanted });
        }
        let bytes = value.size_bytes();
        if !(1..=bytes_max).contains(&bytes) {
            return Err(LineError::KeySize { name, bytes, bytes_max });
        }
    }
    Ok(encode_item_key(schema, attributes).expect("both key attributes are there, of the right types"))
}

#[cfg(test)]
mod tests;
