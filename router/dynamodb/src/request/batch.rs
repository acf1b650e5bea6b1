//! Requests about many items, each for itself.

use super::Capacity;
use crate::attribute::JsonAttributes;
use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use crate::expression::{Placeholders, Projection, parse_projection};
use crate::legacy::{self, check_mixed};
use evenkeel_model::Attributes;
use evenkeel_model::limits::{BATCH_GET_KEYS_MAX, BATCH_WRITE_ITEMS_MAX};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchJson {
    request_items: Option<BTreeMap<String, Vec<BatchEntryJson>>>,
    return_consumed_capacity: Option<String>,
    return_item_collection_metrics: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchEntryJson {
    put_request: Option<PutRequestJson>,
    delete_request: Option<DeleteRequestJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRequestJson {
    item: Option<JsonAttributes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteRequestJson {
    key: Option<JsonAttributes>,
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchWrite {
    /// Replaces an item.
    Put(Attributes),
    /// Deletes the item of a key.
    Delete(Attributes),
}

/// Up to 25 writes, each for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchWriteItem {
    /// The writes, by table.
    pub writes: Vec<(String, Vec<BatchWrite>)>,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
}

impl BatchWriteItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<BatchWriteItem, ApiError> {
        let json: BatchJson = decode(body)?;
        let mut constraints = Constraints::default();
        let capacity = Capacity::parse(&mut constraints, json.return_consumed_capacity.as_deref());
        let metrics = json.return_item_collection_metrics.as_deref();
        constraints.one_of("returnItemCollectionMetrics", metrics, &["SIZE", "NONE"]);
        let items = constraints.required("requestItems", json.request_items).unwrap_or_default();
        let items: Vec<_> = items
            .into_iter()
            .map(|(name, writes)| (constraints.table_name("requestItems", Some(name)), writes))
            .collect();
        constraints.check()?;
        let count: usize = items.iter().map(|(_, writes)| writes.len()).sum();
        if items.is_empty() {
            return Err(ApiError::validation("The requestItems parameter is required for BatchWriteItem"));
        }
        if items.iter().any(|(_, writes)| !(1..=BATCH_WRITE_ITEMS_MAX).contains(&writes.len())) {
            return Err(writes_of_a_table(
                items.iter().map(|(table, writes)| (table.as_str(), writes.len())),
            ));
        }
        if count > BATCH_WRITE_ITEMS_MAX {
            return Err(ApiError::validation("Too many items requested for the BatchWriteItem call"));
        }
        let mut writes = Vec::with_capacity(items.len());
        for (table, entries) in items {
            let each: Result<Vec<BatchWrite>, ApiError> = entries.into_iter().map(batch_write).collect();
            writes.push((table, each?));
        }
        Ok(BatchWriteItem { writes, capacity })
    }
}

/// The fault that a table has no writes, or too many. The service prints them all; how many there are says
/// as much.
fn writes_of_a_table<'a>(counts: impl Iterator<Item = (&'a str, usize)>) -> ApiError {
    let writes = |count| if count == 0 { String::new() } else { format!("{count} writes") };
    let tables: Vec<String> = counts.map(|(table, count)| format!("{table}=[{}]", writes(count))).collect();
    ApiError::validation(format!(
        "1 validation error detected: Value '{{{}}}' at 'requestItems' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to {BATCH_WRITE_ITEMS_MAX}, Member must have length greater than or equal to 1]",
        tables.join(", ")
    ))
}

fn batch_write(entry: BatchEntryJson) -> Result<BatchWrite, ApiError> {
    let missing = |member: &str| {
        ApiError::validation(format!(
            "1 validation error detected: Value null at 'requestItems.member.{member}' failed to satisfy constraint: Member must not be null"
        ))
    };
    match (entry.put_request, entry.delete_request) {
        (Some(put), None) => match put.item {
            Some(item) => Ok(BatchWrite::Put(item.0)),
            None => Err(missing("putRequest.item")),
        },
        (None, Some(delete)) => match delete.key {
            Some(key) => Ok(BatchWrite::Delete(key.0)),
            None => Err(missing("deleteRequest.key")),
        },
        _ => Err(ApiError::validation(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes",
        )),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetJson {
    request_items: Option<BTreeMap<String, KeysJson>>,
    return_consumed_capacity: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeysJson {
    keys: Option<Vec<JsonAttributes>>,
    consistent_read: Option<bool>,
    projection_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    attributes_to_get: Option<Vec<String>>,
}

impl KeysJson {
    fn projection(&self) -> Result<Option<Projection>, ApiError> {
        check_mixed(
            &[("AttributesToGet", self.attributes_to_get.is_some())],
            &[("ProjectionExpression", self.projection_expression.is_some())],
        )?;
        let names = self.expression_attribute_names.clone();
        let placeholders = Placeholders::new(names, None, self.projection_expression.is_some(), "")?;
        let projection = match &self.projection_expression {
            Some(source) => Some(parse_projection(source, &placeholders)?),
            None => legacy::projection(self.attributes_to_get.as_deref())?,
        };
        placeholders.check_used()?;
        Ok(projection)
    }
}

/// The items wanted of one table.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchKeys {
    /// The table's name.
    pub table: String,
    /// Keys of the items.
    pub keys: Vec<Attributes>,
    /// Whether everything acknowledged must be seen.
    pub consistent: bool,
    /// The parts of the items that are wanted, or all of them.
    pub projection: Option<Projection>,
    /// The projection as it was asked for, to be given back with keys that were not read.
    pub asked: AskedProjection,
}

/// A projection as a request has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedProjection {
    /// ProjectionExpression.
    pub expression: Option<String>,
    /// ExpressionAttributeNames.
    pub names: BTreeMap<String, String>,
    /// AttributesToGet.
    pub attributes: Option<Vec<String>>,
}

/// Reads up to a hundred items.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchGetItem {
    /// What is wanted, by table.
    pub tables: Vec<BatchKeys>,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
}

impl BatchGetItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<BatchGetItem, ApiError> {
        let json: BatchGetJson = decode(body)?;
        let mut constraints = Constraints::default();
        let capacity = Capacity::parse(&mut constraints, json.return_consumed_capacity.as_deref());
        let items = constraints.required("requestItems", json.request_items).unwrap_or_default();
        let items: Vec<(String, KeysJson)> = items
            .into_iter()
            .map(|(name, keys)| (constraints.table_name("requestItems", Some(name)), keys))
            .collect();
        constraints.check()?;
        let broken = |path: &str, constraint: &str| {
            ApiError::validation(format!(
                "1 validation error detected: Value at '{path}' failed to satisfy constraint: {constraint}"
            ))
        };
        if items.is_empty() {
            return Err(broken("RequestItems", "Member must have length greater than or equal to 1"));
        }
        let mut tables = Vec::with_capacity(items.len());
        let mut count = 0;
        for (table, mut json) in items {
            let path = format!("RequestItems.{table}.member.Keys");
            let keys = json.keys.take().unwrap_or_default();
            count += keys.len();
            if keys.is_empty() {
                return Err(broken(&path, "Member must have length greater than or equal to 1"));
            }
            if count > BATCH_GET_KEYS_MAX {
                let text = format!("Member must have length less than or equal to {BATCH_GET_KEYS_MAX}");
                return Err(broken(&path, &text));
            }
            let projection = json.projection()?;
            tables.push(BatchKeys {
                table,
                keys: keys.into_iter().map(|key| key.0).collect(),
                consistent: json.consistent_read.unwrap_or(false),
                projection,
                asked: AskedProjection {
                    expression: json.projection_expression,
                    names: json.expression_attribute_names.unwrap_or_default(),
                    attributes: json.attributes_to_get,
                },
            });
        }
        Ok(BatchGetItem { tables, capacity })
    }
}
