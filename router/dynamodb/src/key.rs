//! Requests against a table's key schema: encoded keys and ranges, with DynamoDB's checks and texts.

use crate::error::ApiError;
use crate::expression::{KeyComparison, KeyCondition, bounds_out_of_order};
use crate::request::{Query, Scan, Segment};
use evenkeel_model::key::{collection_prefix, encode_key, even_bound, sort_prefix, successor};
use evenkeel_model::limits::{
    ITEM_BYTES_MAX, NESTING_LEVELS_MAX, PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX,
};
use evenkeel_model::{AttributeValue, Attributes, KeyAttribute, KeySchema, KeyValue};

/// A range of encoded keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The least key wanted.
    pub lower: Vec<u8>,
    /// The least key behind the range; nothing for no end.
    pub upper: Option<Vec<u8>>,
    /// Whether it is read from the end.
    pub reverse: bool,
}

/// The encoded key of an item to be written, after checks of the item as a whole.
///
/// # Errors
/// A key attribute that is absent, of another type, empty or too long; an item that is too large.
pub fn item_key(schema: &KeySchema, item: &Attributes) -> Result<Vec<u8>, ApiError> {
    checked_item_key(schema, item, |attribute, value| {
        let name = &attribute.name;
        match value {
            None => ApiError::invalid_values(format_args!("Missing the key {name} in the item")),
            Some(value) => ApiError::invalid_values(format_args!(
                "Type mismatch for key {name} expected: {} actual: {}",
                attribute.key_type.name(),
                value.type_name()
            )),
        }
    })
}

/// As [`item_key`], for an item of a batch, of which other words are used for keys that do not fit.
///
/// # Errors
/// As [`item_key`].
pub fn batch_item_key(schema: &KeySchema, item: &Attributes) -> Result<Vec<u8>, ApiError> {
    checked_item_key(schema, item, |_, _| {
        ApiError::validation("The provided key element does not match the schema")
    })
}

/// `misfit` tells of a key attribute that is absent or of another type.
fn checked_item_key(
    schema: &KeySchema,
    item: &Attributes,
    misfit: impl Fn(&KeyAttribute, Option<&AttributeValue>) -> ApiError,
) -> Result<Vec<u8>, ApiError> {
    let value = |attribute: &KeyAttribute, sort: bool| -> Result<KeyValue, ApiError> {
        let value = item.get(&attribute.name);
        let key = value.and_then(|value| KeyValue::from_attribute(value, attribute.key_type));
        let key = key.ok_or_else(|| misfit(attribute, value))?;
        check_key_bytes(&attribute.name, &key, sort)?;
        Ok(key)
    };
    let partition = value(&schema.partition, false)?;
    let sort = schema.sort.as_ref().map(|attribute| value(attribute, true)).transpose()?;
    if item.iter().any(|attribute| attribute.name.is_empty()) {
        return Err(ApiError::validation("1 validation error detected: Empty attribute name"));
    }
    if item.size_bytes() > ITEM_BYTES_MAX {
        return Err(ApiError::validation("Item size has exceeded the maximum allowed size"));
    }
    debug_assert!(
        item.iter().all(|a| a.value.nesting_is_allowed()),
        "decoding stops at {NESTING_LEVELS_MAX}"
    );
    Ok(encode_key(&partition, sort.as_ref()))
}

/// The encoded key that a request names by exactly the key attributes.
///
/// # Errors
/// Attributes that are not exactly the key's, an empty value, or one that is too long.
pub fn exact_key(schema: &KeySchema, key: &Attributes) -> Result<Vec<u8>, ApiError> {
    let mismatch = || ApiError::validation("The provided key element does not match the schema");
    let (partition, sort) = exact_values(schema, key).ok_or_else(mismatch)?;
    check_key_bytes(&schema.partition.name, &partition, false)?;
    if let (Some(attribute), Some(sort)) = (&schema.sort, &sort) {
        check_key_bytes(&attribute.name, sort, true)?;
    }
    Ok(encode_key(&partition, sort.as_ref()))
}

fn exact_values(schema: &KeySchema, key: &Attributes) -> Option<(KeyValue, Option<KeyValue>)> {
    let value = |of: &KeyAttribute| KeyValue::from_attribute(key.get(&of.name)?, of.key_type);
    if key.as_slice().len() != 1 + usize::from(schema.sort.is_some()) {
        return None;
    }
    let partition = value(&schema.partition)?;
    match &schema.sort {
        None => Some((partition, None)),
        Some(sort) => Some((partition, Some(value(sort)?))),
    }
}

fn check_key_bytes(name: &str, key: &KeyValue, sort: bool) -> Result<(), ApiError> {
    let kind = match key {
        KeyValue::N(_) => return Ok(()),
        KeyValue::S(_) => "string",
        KeyValue::B(_) => "binary",
    };
    if key.size_bytes() == 0 {
        return Err(ApiError::validation(format!(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty {kind} value. Key: {name}"
        )));
    }
    let (limit, which) = match sort {
        true => (SORT_KEY_BYTES_MAX, "rangekey"),
        false => (PARTITION_KEY_BYTES_MAX, "hashkey"),
    };
    if key.size_bytes() > limit {
        return Err(ApiError::invalid_values(format_args!(
            "Size of {which} has exceeded the maximum size limit of{limit} bytes"
        )));
    }
    Ok(())
}

/// The range of a query.
///
/// # Errors
/// Conditions that are not on the key as they must be, values of other types, a start key outside the range.
pub fn query_range(schema: &KeySchema, query: &Query) -> Result<KeyRange, ApiError> {
    let conditions = &query.conditions;
    let twice = |at: usize| conditions[..at].iter().any(|before| before.name == conditions[at].name);
    if (1..conditions.len()).any(twice) {
        return Err(ApiError::validation(
            "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key",
        ));
    }
    if conditions.len() > 2 {
        return Err(ApiError::validation("Conditions can be of length 1 or 2 only"));
    }
    let missed =
        |name: &str| ApiError::validation(format!("Query condition missed key schema element: {name}"));
    let on = |name: &str| conditions.iter().find(|condition| condition.name == name);
    let partition = on(&schema.partition.name).ok_or_else(|| missed(&schema.partition.name))?;
    let KeyComparison::Equal(value) = &partition.comparison else {
        return Err(ApiError::validation("Query key condition not supported"));
    };
    let partition = key_value(&schema.partition, value, false)?;
    let (mut lower, mut upper) = match (&schema.sort, conditions.len()) {
        (_, 1) => everything(&partition),
        (Some(sort), _) => {
            let condition = on(&sort.name).ok_or_else(|| missed(&sort.name))?;
            sort_range(&partition, sort, condition)?
        }
        (None, _) => return Err(ApiError::validation("Query key condition not supported")),
    };
    if let Some(start) = &query.page.start {
        let invalid = || ApiError::validation("The provided starting key is invalid");
        let (start_partition, start_sort) = exact_values(schema, start).ok_or_else(invalid)?;
        let start = encode_key(&start_partition, start_sort.as_ref());
        if start_partition != partition || start < lower || start >= upper {
            return Err(ApiError::validation(
                "The provided starting key is outside query boundaries based on provided conditions",
            ));
        }
        match query.reverse {
            true => upper = start,
            false => lower = after(start),
        }
    }
    Ok(KeyRange { lower, upper: Some(upper), reverse: query.reverse })
}

/// The range of a scan.
///
/// # Errors
/// A start key that is not exactly the table's key.
pub fn scan_range(schema: &KeySchema, scan: &Scan) -> Result<KeyRange, ApiError> {
    let invalid = || {
        ApiError::validation(
            "The provided starting key is invalid: The provided key element does not match the schema",
        )
    };
    let (mut lower, upper) = match scan.segment {
        None => (Vec::new(), None),
        Some(Segment { number, total }) => {
            let bound = |index: u32| even_bound(index.into(), total.into());
            (bound(number), (number + 1 < total).then(|| bound(number + 1)))
        }
    };
    if let Some(start) = &scan.page.start {
        let (partition, sort) = exact_values(schema, start).ok_or_else(invalid)?;
        let key = encode_key(&partition, sort.as_ref());
        if key < lower || upper.as_ref().is_some_and(|upper| key >= *upper) {
            return Err(ApiError::validation(
                "The provided Exclusive start key does not map to the provided Segment and TotalSegments values.",
            ));
        }
        lower = after(key);
    }
    Ok(KeyRange { lower, upper, reverse: false })
}

/// The least key behind `key`.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The least key behind all that begin with `prefix`.
fn behind(prefix: &[u8]) -> Vec<u8> {
    successor(prefix).expect("a key's prefix holds an index id or a type tag, which can rise")
}

fn everything(partition: &KeyValue) -> (Vec<u8>, Vec<u8>) {
    let prefix = collection_prefix(partition);
    let end = behind(&prefix);
    (prefix, end)
}

fn key_value(attribute: &KeyAttribute, value: &AttributeValue, sort: bool) -> Result<KeyValue, ApiError> {
    let key = KeyValue::from_attribute(value, attribute.key_type)
        .ok_or_else(|| ApiError::invalid_values("Condition parameter type does not match schema type"))?;
    check_key_bytes(&attribute.name, &key, sort)?;
    Ok(key)
}

fn sort_range(
    partition: &KeyValue,
    sort: &KeyAttribute,
    condition: &KeyCondition,
) -> Result<(Vec<u8>, Vec<u8>), ApiError> {
    let (first, end) = everything(partition);
    let at = |value: &AttributeValue| -> Result<Vec<u8>, ApiError> {
        Ok(encode_key(partition, Some(&key_value(sort, value, true)?)))
    };
    Ok(match &condition.comparison {
        KeyComparison::Equal(value) => {
            let key = at(value)?;
            (key.clone(), after(key))
        }
        KeyComparison::Less(value) => (first, at(value)?),
        KeyComparison::LessOrEqual(value) => (first, after(at(value)?)),
        KeyComparison::Greater(value) => (after(at(value)?), end),
        KeyComparison::GreaterOrEqual(value) => (at(value)?, end),
        KeyComparison::Between(low, high) => {
            let (least, greatest) = (at(low)?, at(high)?);
            if least > greatest {
                let fault = bounds_out_of_order(low, high);
                return Err(ApiError::validation(format!("Invalid KeyConditionExpression: {fault}")));
            }
            (least, after(greatest))
        }
        KeyComparison::BeginsWith(value) => {
            let start = key_value(sort, value, true)?;
            if matches!(start, KeyValue::N(_)) {
                return Err(ApiError::validation(
                    "Invalid KeyConditionExpression: Incorrect operand type for operator or function; operator or function: begins_with, operand type: N",
                ));
            }
            let prefix = sort_prefix(partition, &start);
            let end = behind(&prefix);
            (prefix, end)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::KeyType;

    fn schema() -> KeySchema {
        let attribute = |name: &str, key_type| KeyAttribute { name: name.to_owned(), key_type };
        KeySchema { partition: attribute("pk", KeyType::S), sort: Some(attribute("sk", KeyType::N)) }
    }

    fn attributes(json: &str) -> Attributes {
        crate::decode::decode::<crate::attribute::JsonAttributes>(json.as_bytes()).unwrap().0
    }

    #[test]
    fn wrong_keys_are_refused_with_dynamodbs_texts() {
        let cases = [
            (
                r#"{"sk":{"N":"1"}}"#,
                "One or more parameter values were invalid: Missing the key pk in the item",
            ),
            (
                r#"{"pk":{"N":"1"},"sk":{"N":"1"}}"#,
                "One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N",
            ),
            (
                r#"{"pk":{"S":""},"sk":{"N":"1"}}"#,
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk",
            ),
        ];
        for (json, text) in cases {
            assert_eq!(item_key(&schema(), &attributes(json)).unwrap_err().message, text, "{json}");
        }
        for json in [
            r#"{"pk":{"S":"a"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"S":"b"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"N":"1"},"x":{"N":"1"}}"#,
        ] {
            let error = exact_key(&schema(), &attributes(json)).unwrap_err();
            assert_eq!(error.message, "The provided key element does not match the schema", "{json}");
        }
        let long = format!(r#"{{"pk":{{"S":"{}"}},"sk":{{"N":"1"}}}}"#, "x".repeat(2049));
        assert!(item_key(&schema(), &attributes(&long)).unwrap_err().message.contains("2048 bytes"));
        let large =
            format!(r#"{{"pk":{{"S":"a"}},"sk":{{"N":"1"}},"x":{{"S":"{}"}}}}"#, "x".repeat(400 * 1024));
        let error = item_key(&schema(), &attributes(&large)).unwrap_err();
        assert_eq!(error.message, "Item size has exceeded the maximum allowed size");
    }

    fn query(condition: &str, values: &str, more: &str) -> Result<KeyRange, String> {
        let body = format!(
            r#"{{"TableName":"abc","KeyConditionExpression":"{condition}","ExpressionAttributeValues":{values}{more}}}"#
        );
        let query = Query::parse(body.as_bytes()).map_err(|error| error.message)?;
        query_range(&schema(), &query).map_err(|error| error.message)
    }

    #[test]
    fn a_condition_covers_exactly_the_keys_it_says() {
        let key = |sort: u64| {
            encode_key(&KeyValue::S("a".to_owned()), Some(&KeyValue::N(evenkeel_model::Number::from(sort))))
        };
        let cases = [
            ("pk = :p", r#"{":p":{"S":"a"}}"#, vec![1, 2, 3, 4]),
            ("pk = :p AND sk = :s", r#"{":p":{"S":"a"},":s":{"N":"2"}}"#, vec![2]),
            ("pk = :p AND sk < :s", r#"{":p":{"S":"a"},":s":{"N":"2"}}"#, vec![1]),
            ("sk <= :s AND pk = :p", r#"{":p":{"S":"a"},":s":{"N":"2"}}"#, vec![1, 2]),
            ("pk = :p AND sk > :s", r#"{":p":{"S":"a"},":s":{"N":"2"}}"#, vec![3, 4]),
            ("pk = :p AND sk >= :s", r#"{":p":{"S":"a"},":s":{"N":"2"}}"#, vec![2, 3, 4]),
            (
                "pk = :p AND sk BETWEEN :s AND :t",
                r#"{":p":{"S":"a"},":s":{"N":"2"},":t":{"N":"3"}}"#,
                vec![2, 3],
            ),
        ];
        for (condition, values, expected) in cases {
            let range = query(condition, values, "").unwrap();
            let upper = range.upper.unwrap();
            let inside: Vec<u64> =
                (1..=4).filter(|sort| (range.lower.clone()..upper.clone()).contains(&key(*sort))).collect();
            assert_eq!(inside, expected, "{condition}");
        }
    }

    #[test]
    fn conditions_that_are_not_on_the_key_are_refused() {
        let cases = [
            ("sk = :s", r#"{":s":{"N":"2"}}"#, "Query condition missed key schema element: pk"),
            ("pk > :p", r#"{":p":{"S":"a"}}"#, "Query key condition not supported"),
            ("pk = :p AND x = :p", r#"{":p":{"S":"a"}}"#, "Query condition missed key schema element: sk"),
            (
                "pk = :p",
                r#"{":p":{"N":"1"}}"#,
                "One or more parameter values were invalid: Condition parameter type does not match schema type",
            ),
            (
                "pk = :p AND pk = :p",
                r#"{":p":{"S":"a"}}"#,
                "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key",
            ),
            (
                "pk = :p AND sk BETWEEN :s AND :t",
                r#"{":p":{"S":"a"},":s":{"N":"3"},":t":{"N":"2"}}"#,
                "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:3}, upper bound operand: AttributeValue: {N:2}",
            ),
        ];
        for (condition, values, text) in cases {
            assert_eq!(query(condition, values, "").unwrap_err(), text, "{condition}");
        }
        let start = r#","ExclusiveStartKey":{"pk":{"S":"b"},"sk":{"N":"1"}}"#;
        let outside = query("pk = :p", r#"{":p":{"S":"a"}}"#, start).unwrap_err();
        assert!(outside.contains("outside query boundaries"), "{outside}");
    }

    #[test]
    fn a_page_begins_behind_its_start_key_in_either_direction() {
        let values = r#"{":p":{"S":"a"}}"#;
        let start = r#","ExclusiveStartKey":{"pk":{"S":"a"},"sk":{"N":"2"}}"#;
        let key =
            encode_key(&KeyValue::S("a".to_owned()), Some(&KeyValue::N(evenkeel_model::Number::from(2))));
        let forward = query("pk = :p", values, start).unwrap();
        assert_eq!(forward.lower, after(key.clone()));
        let backward = query("pk = :p", values, &format!("{start},\"ScanIndexForward\":false")).unwrap();
        assert_eq!((backward.upper, backward.reverse), (Some(key), true));
    }
}
