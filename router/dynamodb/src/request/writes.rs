//! Requests that write one item: PutItem, DeleteItem, UpdateItem.

use super::{Capacity, Outcome};
use crate::attribute::{JsonAttributes, JsonValue};
use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use crate::expression::{Placeholders, Projection, parse_condition, parse_update};
use crate::legacy::{self, ConditionsJson, UpdateJson, check_mixed};
use evenkeel_expression::{Condition, Update};
use evenkeel_model::{Attributes, KeySchema};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What of the item a write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnValues {
    /// Nothing.
    None,
    /// The item before.
    AllOld,
    /// The item afterwards.
    AllNew,
    /// Of the item before, what the update names.
    UpdatedOld,
    /// Of the item afterwards, what the update names.
    UpdatedNew,
}

impl ReturnValues {
    fn parse(constraints: &mut Constraints, text: Option<&str>) -> ReturnValues {
        match text {
            Some("ALL_OLD") => ReturnValues::AllOld,
            Some("ALL_NEW") => ReturnValues::AllNew,
            Some("UPDATED_OLD") => ReturnValues::UpdatedOld,
            Some("UPDATED_NEW") => ReturnValues::UpdatedNew,
            None | Some("NONE") => ReturnValues::None,
            Some(_) => {
                // The service's own spelling of UPDATED_NEW in this text.
                constraints.broken_anywhere(
                    "Member must satisfy enum value set: [ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE]",
                );
                ReturnValues::None
            }
        }
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
    condition_expression: Option<String>,
    update_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<BTreeMap<String, JsonValue>>,
    expected: Option<ConditionsJson>,
    attribute_updates: Option<BTreeMap<String, UpdateJson>>,
    conditional_operator: Option<String>,
}

/// What all writes have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteRequest {
    /// The table's name.
    pub table: String,
    /// What must hold for the item that is there.
    pub condition: Option<Condition>,
    /// What of the item is wanted.
    pub return_values: ReturnValues,
    /// Whether the item is wanted for which the condition does not hold.
    pub return_old_on_failure: bool,
    /// Whether consumed capacity is wanted.
    pub capacity: Capacity,
}

impl WriteJson {
    fn check(&self, constraints: &mut Constraints) -> WriteRequest {
        let metrics = self.return_item_collection_metrics.as_deref();
        constraints.one_of("returnItemCollectionMetrics", metrics, &["SIZE", "NONE"]);
        let on_failure = self.return_values_on_condition_check_failure.as_deref();
        constraints.one_of("returnValuesOnConditionCheckFailure", on_failure, &["ALL_OLD", "NONE"]);
        WriteRequest {
            table: constraints.table_name("tableName", self.table_name.clone()),
            condition: None,
            return_values: ReturnValues::parse(constraints, self.return_values.as_deref()),
            return_old_on_failure: on_failure == Some("ALL_OLD"),
            capacity: Capacity::parse(constraints, self.return_consumed_capacity.as_deref()),
        }
    }

    fn check_mixed(&self) -> Result<(), ApiError> {
        check_mixed(
            &[
                ("AttributeUpdates", self.attribute_updates.is_some()),
                ("Expected", self.expected.is_some()),
                ("ConditionalOperator", self.conditional_operator.is_some()),
            ],
            &[
                ("UpdateExpression", self.update_expression.is_some()),
                ("ConditionExpression", self.condition_expression.is_some()),
            ],
        )
    }

    fn placeholders(&mut self) -> Result<Placeholders, ApiError> {
        let expressions = self.condition_expression.is_some() || self.update_expression.is_some();
        let values = self.expression_attribute_values.take();
        let values = values.map(|values| values.into_iter().map(|(key, value)| (key, value.0)).collect());
        Placeholders::new(self.expression_attribute_names.take(), values, expressions, "")
    }

    fn condition(&mut self, placeholders: &Placeholders) -> Result<Option<Condition>, ApiError> {
        match &self.condition_expression {
            Some(source) => parse_condition("ConditionExpression", source, placeholders).map(Some),
            None => legacy::condition(self.expected.take(), self.conditional_operator.as_deref()),
        }
    }

    /// A write of which only the old item can be returned.
    fn plain(mut self, mut request: WriteRequest) -> Result<WriteRequest, ApiError> {
        if !matches!(request.return_values, ReturnValues::None | ReturnValues::AllOld) {
            return Err(ApiError::validation("ReturnValues can only be ALL_OLD or NONE"));
        }
        self.update_expression = None;
        self.attribute_updates = None;
        self.check_mixed()?;
        let placeholders = self.placeholders()?;
        request.condition = self.condition(&placeholders)?;
        placeholders.check_used()?;
        Ok(request)
    }
}

/// Replaces an item.
#[derive(Clone, Debug, PartialEq)]
pub struct PutItem {
    /// What all writes have.
    pub write: WriteRequest,
    /// The new item.
    pub item: Attributes,
}

impl PutItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`] and [`parse_condition`].
    pub fn parse(body: &[u8]) -> Outcome<PutItem> {
        PutItem::parse_plain(body).map_err(ApiError::enveloped)
    }

    fn parse_plain(body: &[u8]) -> Outcome<PutItem> {
        let mut json: WriteJson = decode(body)?;
        let mut constraints = Constraints::default();
        let request = json.check(&mut constraints);
        let item = constraints.required("item", json.item.take()).unwrap_or_default().0;
        constraints.check()?;
        Ok(PutItem { write: json.plain(request)?, item })
    }
}

/// Deletes an item.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteItem {
    /// What all writes have.
    pub write: WriteRequest,
    /// The item's key.
    pub key: Attributes,
}

impl DeleteItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`] and [`parse_condition`].
    pub fn parse(body: &[u8]) -> Outcome<DeleteItem> {
        DeleteItem::parse_plain(body).map_err(ApiError::enveloped)
    }

    fn parse_plain(body: &[u8]) -> Outcome<DeleteItem> {
        let mut json: WriteJson = decode(body)?;
        let mut constraints = Constraints::default();
        let request = json.check(&mut constraints);
        let key = constraints.required("key", json.key.take()).unwrap_or_default().0;
        constraints.check()?;
        Ok(DeleteItem { write: json.plain(request)?, key })
    }
}

/// Changes an item, or makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateItem {
    /// What all writes have.
    pub write: WriteRequest,
    /// The item's key.
    pub key: Attributes,
    /// What is changed.
    pub update: Update,
}

impl UpdateItem {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`], [`parse_update`] and [`parse_condition`].
    pub fn parse(body: &[u8]) -> Outcome<UpdateItem> {
        UpdateItem::parse_plain(body).map_err(ApiError::enveloped)
    }

    fn parse_plain(body: &[u8]) -> Outcome<UpdateItem> {
        let mut json: WriteJson = decode(body)?;
        let mut constraints = Constraints::default();
        let mut write = json.check(&mut constraints);
        let key = constraints.required("key", json.key.take()).unwrap_or_default().0;
        constraints.check()?;
        json.check_mixed()?;
        let placeholders = json.placeholders()?;
        let update = match &json.update_expression {
            Some(source) => parse_update(source, &placeholders)?,
            None => legacy::update(json.attribute_updates.take().unwrap_or_default())?,
        };
        write.condition = json.condition(&placeholders)?;
        placeholders.check_used()?;
        Ok(UpdateItem { write, key, update })
    }

    /// What the update names.
    pub fn named(&self) -> Projection {
        Projection::new(self.update.targets())
    }

    /// Whether the update leaves the key alone.
    ///
    /// # Errors
    /// DynamoDB's text, with the attribute.
    pub fn check_key(&self, schema: &KeySchema) -> Result<(), ApiError> {
        let key = |name: &str| {
            schema.partition.name == name || schema.sort.as_ref().is_some_and(|sort| sort.name == name)
        };
        match self.update.targets().map(|path| path.root()).find(|name| key(name)) {
            None => Ok(()),
            Some(name) => Err(ApiError::invalid_values(format_args!(
                "Cannot update attribute {name}. This attribute is part of the key"
            ))),
        }
    }
}
