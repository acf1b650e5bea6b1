//! Requests about single items, and about pages of them.

use crate::attribute::{JsonAttributes, JsonValue};
use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use crate::expression::{KeyCondition, Placeholders, parse_key_condition};
use evenkeel_model::Attributes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// Whether and how consumed capacity is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Not at all.
    None,
    /// In total.
    Total,
    /// In total and for the table by itself.
    Indexes,
}

impl Capacity {
    pub(super) fn parse(constraints: &mut Constraints, text: Option<&str>) -> Capacity {
        constraints.one_of("returnConsumedCapacity", text, &["INDEXES", "TOTAL", "NONE"]);
        match text {
            Some("TOTAL") => Capacity::Total,
            Some("INDEXES") => Capacity::Indexes,
            _ => Capacity::None,
        }
    }
}

const RETURN_VALUES: [&str; 5] = ["ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"];

fn return_old(constraints: &mut Constraints, text: Option<&str>) -> bool {
    constraints.one_of("returnValues", text, &RETURN_VALUES);
    text == Some("ALL_OLD")
}

fn check_return_values(text: Option<&str>) -> Result<(), ApiError> {
    match text {
        None | Some("NONE" | "ALL_OLD") => Ok(()),
        Some(_) => Err(ApiError::validation("Return values set to invalid value")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WriteJson {
    table_name: Option<String>,
    item: Option<JsonAttributes>,
    key: Option<JsonAttributes>,
    return_values: Option<String>,
    return_consumed_capacity: Option<String>,
    return_item_collection_metrics: Option<String>,
    return_values_on_condition_check_failure: Option<String>,
    condition_expression: Option<IgnoredAny>,
    expression_attribute_names: Option<IgnoredAny>,
    expression_attribute_values: Option<IgnoredAny>,
    expected: Option<IgnoredAny>,
    conditional_operator: Option<IgnoredAny>,
}

impl WriteJson {
    fn check(&self, constraints: &mut Constraints) -> Result<(String, bool, Capacity), ApiError> {
        let table = constraints.table_name("tableName", self.table_name.clone());
        let old = return_old(constraints, self.return_values.as_deref());
        let capacity = Capacity::parse(constraints, self.return_consumed_capacity.as_deref());
        let metrics = self.return_item_collection_metrics.as_deref();
        constraints.one_of("returnItemCollectionMetrics", metrics, &["SIZE", "NONE"]);
        let on_failure = self.return_values_on_condition_check_failure.as_deref();
        constraints.one_of("returnValuesOnConditionCheckFailure", on_failure, &["ALL_OLD", "NONE"]);
        Ok((table, old, capacity))
    }

    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        check_return_values(self.return_values.as_deref())?;
        ApiError::refuse(&[
            ("ConditionExpression", self.condition_expression.is_some()),
            ("Expected", self.expected.is_some()),
            ("ConditionalOperator", self.conditional_operator.is_some()),
        ])?;
        let without =
            |kind: &str| format!("ExpressionAttribute{kind} can only be specified when using expressions");
        if self.expression_attribute_names.is_some() {
            return Err(ApiError::validation(without("Names")));
        }
        if self.expression_attribute_values.is_some() {
            return Err(ApiError::validation(without("Values")));
        }
        Ok(())
    }
}

/// Replaces an item.
#[derive(Clone, Debug, PartialEq)]
pub struct PutItem {
    /// The table's name.
    pub table: String,
    /// The new item.
    pub item: Attributes,
    /// Whether the replaced item is wanted.
    pub return_old: bool,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
}

impl PutItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<PutItem, ApiError> {
        let json: WriteJson = decode(body)?;
        let mut constraints = Constraints::default();
        let item = constraints.required("item", json.item.clone()).unwrap_or_default();
        let (table, return_old, capacity) = json.check(&mut constraints)?;
        constraints.check()?;
        json.refuse_unsupported()?;
        Ok(PutItem { table, item: item.0, return_old, capacity })
    }
}

/// Deletes an item.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteItem {
    /// The table's name.
    pub table: String,
    /// The item's key.
    pub key: Attributes,
    /// Whether the deleted item is wanted.
    pub return_old: bool,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
}

impl DeleteItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<DeleteItem, ApiError> {
        let json: WriteJson = decode(body)?;
        let mut constraints = Constraints::default();
        let key = constraints.required("key", json.key.clone()).unwrap_or_default();
        let (table, return_old, capacity) = json.check(&mut constraints)?;
        constraints.check()?;
        json.refuse_unsupported()?;
        Ok(DeleteItem { table, key: key.0, return_old, capacity })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReadJson {
    table_name: Option<String>,
    key: Option<JsonAttributes>,
    consistent_read: Option<bool>,
    return_consumed_capacity: Option<String>,
    projection_expression: Option<IgnoredAny>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<BTreeMap<String, JsonValue>>,
    attributes_to_get: Option<IgnoredAny>,
    key_condition_expression: Option<String>,
    filter_expression: Option<IgnoredAny>,
    index_name: Option<IgnoredAny>,
    key_conditions: Option<IgnoredAny>,
    query_filter: Option<IgnoredAny>,
    scan_filter: Option<IgnoredAny>,
    conditional_operator: Option<IgnoredAny>,
    segment: Option<IgnoredAny>,
    total_segments: Option<IgnoredAny>,
    select: Option<String>,
    limit: Option<i64>,
    scan_index_forward: Option<bool>,
    exclusive_start_key: Option<JsonAttributes>,
}

impl ReadJson {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        ApiError::refuse(&[
            ("ProjectionExpression", self.projection_expression.is_some()),
            ("AttributesToGet", self.attributes_to_get.is_some()),
            ("IndexName", self.index_name.is_some()),
            ("FilterExpression", self.filter_expression.is_some()),
            ("KeyConditions", self.key_conditions.is_some()),
            ("QueryFilter", self.query_filter.is_some()),
            ("ScanFilter", self.scan_filter.is_some()),
            ("ConditionalOperator", self.conditional_operator.is_some()),
            ("Segment", self.segment.is_some()),
            ("TotalSegments", self.total_segments.is_some()),
            (
                "Select",
                self.select
                    .as_deref()
                    .is_some_and(|s| s == "SPECIFIC_ATTRIBUTES" || s == "ALL_PROJECTED_ATTRIBUTES"),
            ),
        ])
    }

    fn refuse_placeholders(&self) -> Result<(), ApiError> {
        let given = [
            ("Names", self.expression_attribute_names.is_some()),
            ("Values", self.expression_attribute_values.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((kind, _)) => Err(ApiError::validation(format!(
                "ExpressionAttribute{kind} can only be specified when using expressions"
            ))),
            None => Ok(()),
        }
    }

    fn page(&self, constraints: &mut Constraints) -> ReadPage {
        let table = constraints.table_name("tableName", self.table_name.clone());
        constraints.within("limit", self.limit, 1, i64::from(i32::MAX));
        let select = self.select.as_deref();
        let words = ["SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"];
        constraints.one_of("select", select, &words);
        ReadPage {
            table,
            consistent: self.consistent_read.unwrap_or(false),
            capacity: Capacity::parse(constraints, self.return_consumed_capacity.as_deref()),
            count_only: select == Some("COUNT"),
            limit: self.limit.and_then(|limit| u32::try_from(limit).ok()),
            start: self.exclusive_start_key.clone().map(|key| key.0),
        }
    }
}

/// Reads an item.
#[derive(Clone, Debug, PartialEq)]
pub struct GetItem {
    /// The table's name.
    pub table: String,
    /// The item's key.
    pub key: Attributes,
    /// Whether everything acknowledged must be seen.
    pub consistent: bool,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
}

impl GetItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<GetItem, ApiError> {
        let json: ReadJson = decode(body)?;
        let mut constraints = Constraints::default();
        let table = constraints.table_name("tableName", json.table_name.clone());
        let key = constraints.required("key", json.key.clone()).unwrap_or_default();
        let capacity = Capacity::parse(&mut constraints, json.return_consumed_capacity.as_deref());
        constraints.check()?;
        json.refuse_unsupported()?;
        json.refuse_placeholders()?;
        Ok(GetItem { table, key: key.0, consistent: json.consistent_read.unwrap_or(false), capacity })
    }
}

/// What Query and Scan have in common: one page of many items.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadPage {
    /// The table's name.
    pub table: String,
    /// Whether everything acknowledged must be seen.
    pub consistent: bool,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
    /// Whether only the number of items is wanted.
    pub count_only: bool,
    /// Most items of the page.
    pub limit: Option<u32>,
    /// The key that the page begins behind.
    pub start: Option<Attributes>,
}

/// Reads consecutive items of one partition key.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The page.
    pub page: ReadPage,
    /// The conditions on key attributes.
    pub conditions: Vec<KeyCondition>,
    /// Whether the page is read from the end.
    pub reverse: bool,
}

impl Query {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`] and [`parse_key_condition`].
    pub fn parse(body: &[u8]) -> Result<Query, ApiError> {
        let mut json: ReadJson = decode(body)?;
        let mut constraints = Constraints::default();
        let page = json.page(&mut constraints);
        constraints.check()?;
        json.refuse_unsupported()?;
        let Some(text) = json.key_condition_expression.take() else {
            let text = "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.";
            return Err(ApiError::validation(text));
        };
        let values = json.expression_attribute_values.take();
        let values = values.map(|values| values.into_iter().map(|(key, value)| (key, value.0)).collect());
        let placeholders = Placeholders::new(json.expression_attribute_names.take(), values, true)?;
        let conditions = parse_key_condition(&text, &placeholders)?;
        placeholders.check_used()?;
        Ok(Query { page, conditions, reverse: json.scan_index_forward == Some(false) })
    }
}

/// Reads all items.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The page.
    pub page: ReadPage,
}

impl Scan {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<Scan, ApiError> {
        let json: ReadJson = decode(body)?;
        let mut constraints = Constraints::default();
        let page = json.page(&mut constraints);
        constraints.check()?;
        json.refuse_unsupported()?;
        json.refuse_placeholders()?;
        Ok(Scan { page })
    }
}
