//! Attribute values in DynamoDB's JSON, decoded straight into the model.

use crate::decode::VALIDATION_MARK;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_model::limits::NESTING_LEVELS_MAX;
use evenkeel_model::{Attribute, AttributeValue, Attributes, Number};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

const EMPTY: &str = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes";
const SEVERAL: &str = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes";
const TOO_DEEP: &str = "Nesting Levels have exceeded supported limits";

fn invalid<E: Error>(text: impl fmt::Display) -> E {
    E::custom(format_args!("{VALIDATION_MARK}{text}"))
}

fn invalid_values<E: Error>(text: impl fmt::Display) -> E {
    invalid(format_args!("One or more parameter values were invalid: {text}"))
}

/// Attributes as a JSON object of typed values.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct JsonAttributes(pub Attributes);

impl<'de> Deserialize<'de> for JsonAttributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(EntriesVisitor { levels: NESTING_LEVELS_MAX })
            .map(|a| JsonAttributes(Attributes::new(a)))
    }
}

/// One typed value.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonValue(pub AttributeValue);

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ValueSeed { levels: NESTING_LEVELS_MAX }.deserialize(deserializer).map(JsonValue)
    }
}

/// Decodes a value in which lists and maps may nest `levels` deep.
#[derive(Clone, Copy)]
struct ValueSeed {
    levels: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = AttributeValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<AttributeValue, D::Error> {
        // Not only maps: of what is none the service has something to say.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = AttributeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute value")
    }

    fn visit_unit<E: Error>(self) -> Result<AttributeValue, E> {
        Err(invalid(EMPTY))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AttributeValue, A::Error> {
        let mut value = None;
        while let Some(kind) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let found = match &*kind {
                "S" => map.next_value::<Option<String>>()?.map(AttributeValue::S),
                "N" => map
                    .next_value::<Option<String>>()?
                    .map(|text| number(&text))
                    .transpose()?
                    .map(AttributeValue::N),
                "B" => map
                    .next_value::<Option<String>>()?
                    .map(|text| binary(&text))
                    .transpose()?
                    .map(AttributeValue::B),
                "BOOL" => map.next_value::<Option<bool>>()?.map(AttributeValue::Bool),
                "NULL" => map.next_value::<Option<bool>>()?.map(null).transpose()?,
                "M" => map.next_value_seed(EntriesSeed { levels: self.inner()? })?,
                "L" => map.next_value_seed(ElementsSeed { levels: self.inner()? })?,
                "SS" => map.next_value::<Option<Vec<String>>>()?.map(string_set).transpose()?,
                "NS" => {
                    map.next_value::<Option<Vec<String>>>()?.map(|texts| number_set(&texts)).transpose()?
                }
                "BS" => {
                    map.next_value::<Option<Vec<String>>>()?.map(|texts| binary_set(&texts)).transpose()?
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            if found.is_some() && value.is_some() {
                return Err(invalid(SEVERAL));
            }
            value = found.or(value);
        }
        value.ok_or_else(|| invalid(EMPTY))
    }
}

impl ValueSeed {
    fn inner<E: Error>(self) -> Result<usize, E> {
        self.levels.checked_sub(1).ok_or_else(|| invalid(TOO_DEEP))
    }
}

#[derive(Clone, Copy)]
struct EntriesSeed {
    levels: usize,
}

impl<'de> DeserializeSeed<'de> for EntriesSeed {
    type Value = Option<AttributeValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let entries = deserializer.deserialize_map(EntriesVisitor { levels: self.levels })?;
        Ok(Some(AttributeValue::M(evenkeel_model::value::sorted_by_name(entries))))
    }
}

struct EntriesVisitor {
    levels: usize,
}

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<Attribute>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attribute values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Attribute>, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.is_empty() {
                return Err(invalid("Empty attribute name"));
            }
            let value = map.next_value_seed(ValueSeed { levels: self.levels })?;
            entries.push(Attribute { name, value });
        }
        Ok(entries)
    }
}

#[derive(Clone, Copy)]
struct ElementsSeed {
    levels: usize,
}

impl<'de> DeserializeSeed<'de> for ElementsSeed {
    type Value = Option<AttributeValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self).map(Some)
    }
}

impl<'de> Visitor<'de> for ElementsSeed {
    type Value = AttributeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of attribute values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AttributeValue, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(ValueSeed { levels: self.levels })? {
            elements.push(element);
        }
        Ok(AttributeValue::L(elements))
    }
}

fn number<E: Error>(text: &str) -> Result<Number, E> {
    Number::parse(text).map_err(invalid)
}

fn binary<E: Error>(text: &str) -> Result<Vec<u8>, E> {
    let fault = |error| E::custom(format_args!("invalid base64: {error}"));
    STANDARD.decode(text).map_err(fault)
}

fn null<E: Error>(value: bool) -> Result<AttributeValue, E> {
    match value {
        true => Ok(AttributeValue::Null),
        false => Err(invalid_values("Null attribute value types must have the value of true")),
    }
}

fn string_set<E: Error>(texts: Vec<String>) -> Result<AttributeValue, E> {
    if texts.is_empty() {
        return Err(invalid_values("An string set  may not be empty"));
    }
    let printed = format!("Input collection [{}] contains", texts.join(", "));
    sorted_set(texts, &printed).map(AttributeValue::Ss)
}

fn number_set<E: Error>(texts: &[String]) -> Result<AttributeValue, E> {
    if texts.is_empty() {
        return Err(invalid_values("An number set  may not be empty"));
    }
    let numbers = texts.iter().map(|text| number(text)).collect::<Result<Vec<Number>, E>>()?;
    sorted_set(numbers, "Input collection contains").map(AttributeValue::Ns)
}

fn binary_set<E: Error>(texts: &[String]) -> Result<AttributeValue, E> {
    if texts.is_empty() {
        return Err(invalid_values("Binary sets should not be empty"));
    }
    let blobs = texts.iter().map(|text| binary(text)).collect::<Result<Vec<Vec<u8>>, E>>()?;
    let printed = format!("Input collection [{}]of type BS contains", texts.join(", "));
    sorted_set(blobs, &printed).map(AttributeValue::Bs)
}

fn sorted_set<T: Ord, E: Error>(mut members: Vec<T>, printed: &str) -> Result<Vec<T>, E> {
    members.sort_unstable();
    if members.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(invalid_values(format_args!("{printed} duplicates.")));
    }
    Ok(members)
}
