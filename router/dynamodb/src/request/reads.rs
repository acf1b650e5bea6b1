//! Requests that read: one item by its key, and pages of many.

use super::{Capacity, Outcome};
use crate::attribute::{JsonAttributes, JsonValue};
use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use crate::expression::{
    KeyCondition, Placeholders, Projection, parse_condition, parse_key_condition, parse_projection,
};
use crate::legacy::{self, ConditionsJson, check_mixed};
use evenkeel_expression::Condition;
use evenkeel_model::limits::SCAN_SEGMENTS_MAX;
use evenkeel_model::{Attributes, KeySchema};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReadJson {
    table_name: Option<String>,
    key: Option<JsonAttributes>,
    consistent_read: Option<bool>,
    return_consumed_capacity: Option<String>,
    projection_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<BTreeMap<String, JsonValue>>,
    attributes_to_get: Option<Vec<String>>,
    key_condition_expression: Option<String>,
    filter_expression: Option<String>,
    index_name: Option<String>,
    key_conditions: Option<ConditionsJson>,
    query_filter: Option<ConditionsJson>,
    scan_filter: Option<ConditionsJson>,
    conditional_operator: Option<String>,
    segment: Option<i64>,
    total_segments: Option<i64>,
    select: Option<String>,
    limit: Option<i64>,
    scan_index_forward: Option<bool>,
    exclusive_start_key: Option<JsonAttributes>,
}

impl ReadJson {
    /// Forgets what is no parameter of GetItem: the service ignores it.
    fn keep_of_get(&mut self) {
        (self.filter_expression, self.key_condition_expression) = (None, None);
        (self.query_filter, self.scan_filter, self.key_conditions) = (None, None, None);
        (self.expression_attribute_values, self.conditional_operator, self.index_name) = (None, None, None);
    }

    /// Refuses what is not there yet, and the two kinds of parameter side by side.
    fn check_parameters(&self) -> Result<(), ApiError> {
        check_mixed(
            &[
                ("AttributesToGet", self.attributes_to_get.is_some()),
                ("QueryFilter", self.query_filter.is_some()),
                ("ScanFilter", self.scan_filter.is_some()),
                ("ConditionalOperator", self.conditional_operator.is_some()),
                ("KeyConditions", self.key_conditions.is_some()),
            ],
            &[
                ("ProjectionExpression", self.projection_expression.is_some()),
                ("FilterExpression", self.filter_expression.is_some()),
                ("KeyConditionExpression", self.key_condition_expression.is_some()),
            ],
        )
    }

    /// The placeholders of the expressions; `absent` is said if there are values and none of those that
    /// could use them.
    fn placeholders(&mut self, absent: &str) -> Result<Placeholders, ApiError> {
        let expressions = self.projection_expression.is_some()
            || self.filter_expression.is_some()
            || self.key_condition_expression.is_some();
        let values = self.expression_attribute_values.take();
        let values = values.map(|values| values.into_iter().map(|(key, value)| (key, value.0)).collect());
        Placeholders::new(self.expression_attribute_names.take(), values, expressions, absent)
    }

    fn projection(&self, placeholders: &Placeholders) -> Result<Option<Projection>, ApiError> {
        match &self.projection_expression {
            Some(source) => parse_projection(source, placeholders).map(Some),
            None => legacy::projection(self.attributes_to_get.as_deref()),
        }
    }

    fn page(&self, constraints: &mut Constraints) -> ReadPage {
        let table = constraints.table_name("tableName", self.table_name.clone());
        if self.limit.is_some_and(|limit| limit < 1) {
            constraints.too_small("Limit", 1);
        }
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
            filter: None,
            projection: None,
            index: self.index_name.clone(),
        }
    }

    /// Whether what is selected fits the projection.
    fn check_select(&self) -> Result<(), ApiError> {
        let projected = match (&self.attributes_to_get, &self.projection_expression) {
            (Some(_), _) => Some("AttributesToGet"),
            (None, Some(_)) => Some("ProjectionExpression"),
            (None, None) => None,
        };
        let text = match (self.select.as_deref(), projected) {
            (Some("SPECIFIC_ATTRIBUTES"), None) => {
                "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES".to_owned()
            }
            (Some("COUNT"), Some(projected)) => {
                format!("Cannot specify the {projected} when choosing to get only the Count")
            }
            (Some(select), Some(projected)) if select != "SPECIFIC_ATTRIBUTES" => {
                format!("Cannot specify the {projected} when choosing to get {select}")
            }
            (Some("ALL_PROJECTED_ATTRIBUTES"), None) => {
                "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName".to_owned()
            }
            _ => return Ok(()),
        };
        Err(ApiError::validation(text).enveloped())
    }

    fn expressions(
        &mut self,
        page: &mut ReadPage,
        legacy_filter: Option<ConditionsJson>,
        placeholders: &Placeholders,
    ) -> Result<(), ApiError> {
        page.filter = match &self.filter_expression {
            Some(source) => Some(parse_condition("FilterExpression", source, placeholders)?),
            None => legacy::condition(legacy_filter, self.conditional_operator.as_deref())?,
        };
        page.projection = self.projection(placeholders)?;
        Ok(())
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
    /// The parts of the item that are wanted, or all of it.
    pub projection: Option<Projection>,
}

impl GetItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`] and [`parse_projection`].
    pub fn parse(body: &[u8]) -> Outcome<GetItem> {
        let mut json: ReadJson = decode(body)?;
        let mut constraints = Constraints::default();
        let key = constraints.required("key", json.key.take()).unwrap_or_default().0;
        let table = constraints.table_name("tableName", json.table_name.take());
        let capacity = Capacity::parse(&mut constraints, json.return_consumed_capacity.as_deref());
        constraints.check()?;
        json.keep_of_get();
        json.check_parameters()?;
        let placeholders = json.placeholders("")?;
        let projection = json.projection(&placeholders)?;
        placeholders.check_used()?;
        let consistent = json.consistent_read.unwrap_or(false);
        Ok(GetItem { table, key, consistent, capacity, projection })
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
    /// Most items of the page, whether the filter holds for them or not.
    pub limit: Option<u32>,
    /// The key that the page begins behind.
    pub start: Option<Attributes>,
    /// What must hold for an item to be in the answer.
    pub filter: Option<Condition>,
    /// The parts of the items that are wanted, or all of them.
    pub projection: Option<Projection>,
    /// The index that is to be read.
    pub index: Option<String>,
}

impl ReadPage {
    /// Refuses an index: tables have none yet.
    ///
    /// # Errors
    /// DynamoDB's text for an index that the table does not have.
    pub fn check_index(&self) -> Result<(), ApiError> {
        match &self.index {
            None => Ok(()),
            Some(index) => {
                let text = format!("The table does not have the specified index: {index}");
                Err(ApiError::validation(text))
            }
        }
    }
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
    /// Whether the filter is a QueryFilter.
    pub legacy_filter: bool,
}

impl Query {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`] and [`parse_key_condition`].
    pub fn parse(body: &[u8]) -> Outcome<Query> {
        let mut json: ReadJson = decode(body)?;
        let mut constraints = Constraints::default();
        let mut page = json.page(&mut constraints);
        constraints.check()?;
        json.scan_filter = None;
        json.check_parameters()?;
        json.check_select()?;
        let placeholders =
            json.placeholders(": FilterExpression is null and KeyConditionExpression is null")?;
        let conditions = match (&json.key_condition_expression, json.key_conditions.take()) {
            (Some(source), _) => parse_key_condition(source, &placeholders)?,
            (None, Some(conditions)) if !conditions.is_empty() => legacy::key_conditions(conditions)?,
            (None, _) => {
                let text = "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.";
                return Err(ApiError::validation(text));
            }
        };
        let filter = json.query_filter.take();
        let legacy_filter = filter.is_some();
        json.expressions(&mut page, filter, &placeholders)?;
        placeholders.check_used()?;
        Ok(Query { page, conditions, reverse: json.scan_index_forward == Some(false), legacy_filter })
    }

    /// Whether the filter leaves the key to the key condition.
    ///
    /// # Errors
    /// DynamoDB's text, with the attribute.
    pub fn check_filter(&self, schema: &KeySchema) -> Result<(), ApiError> {
        let key = |name: &str| {
            schema.partition.name == name || schema.sort.as_ref().is_some_and(|sort| sort.name == name)
        };
        let paths = self.page.filter.iter().flat_map(Condition::paths);
        match paths.map(|path| path.root()).find(|name| key(name)) {
            None => Ok(()),
            Some(name) => {
                let what = if self.legacy_filter { "QueryFilter" } else { "Filter Expression" };
                Err(ApiError::validation(format!(
                    "{what} can only contain non-primary key attributes: Primary key attribute: {name}"
                )))
            }
        }
    }
}

/// One of the parts that a table is scanned in side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which part, counted from zero.
    pub number: u32,
    /// How many parts there are.
    pub total: u32,
}

/// Reads all items.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The page.
    pub page: ReadPage,
    /// The part of the table that is read, or all of it.
    pub segment: Option<Segment>,
}

impl Scan {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`] and [`parse_condition`].
    pub fn parse(body: &[u8]) -> Outcome<Scan> {
        let mut json: ReadJson = decode(body)?;
        let mut constraints = Constraints::default();
        let mut page = json.page(&mut constraints);
        let most = i64::from(SCAN_SEGMENTS_MAX);
        constraints.within("segment", json.segment, 0, most - 1);
        constraints.within("totalSegments", json.total_segments, 1, most);
        constraints.check()?;
        (json.query_filter, json.key_conditions, json.key_condition_expression) = (None, None, None);
        json.check_parameters()?;
        json.check_select()?;
        let segment = segment(json.segment, json.total_segments)?;
        let placeholders = json.placeholders(": FilterExpression is null")?;
        let legacy_filter = json.scan_filter.take();
        json.expressions(&mut page, legacy_filter, &placeholders)?;
        placeholders.check_used()?;
        Ok(Scan { page, segment })
    }
}

fn segment(number: Option<i64>, total: Option<i64>) -> Result<Option<Segment>, ApiError> {
    let missing = |text: &str| Err(ApiError::validation(text));
    match (number, total) {
        (None, None) => Ok(None),
        (Some(_), None) => missing(
            "The TotalSegments parameter is required but was not present in the request when Segment parameter is present",
        ),
        (None, Some(_)) => missing(
            "The Segment parameter is required but was not present in the request when parameter TotalSegments is present",
        ),
        (Some(number), Some(total)) if number >= total => Err(ApiError::validation(format!(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: {number} is not less than TotalSegments: {total}"
        ))),
        (Some(number), Some(total)) => {
            let small = |value: i64| u32::try_from(value).expect("within its constraint");
            Ok(Some(Segment { number: small(number), total: small(total) }))
        }
    }
}
