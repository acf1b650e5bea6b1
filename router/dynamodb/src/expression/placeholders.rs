//! The placeholders of a request: names and values that its expressions refer to.

use crate::error::ApiError;
use evenkeel_model::AttributeValue;
use evenkeel_model::limits::EXPRESSION_VALUES_BYTES_MAX;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The placeholders of a request, and which of them its expressions have used so far.
#[derive(Debug, Default, Clone)]
pub struct Placeholders {
    /// ExpressionAttributeNames: `#n` to an attribute's name.
    names: BTreeMap<String, String>,
    /// ExpressionAttributeValues: `:v` to a value.
    values: BTreeMap<String, AttributeValue>,
    used: RefCell<BTreeSet<String>>,
}

impl Placeholders {
    /// Checks the placeholders of a request; `expressions` says whether it has any expression, and
    /// `absent` which could have used values, where the service names them.
    ///
    /// # Errors
    /// DynamoDB's texts for placeholders without an expression, empty maps and malformed keys.
    pub fn new(
        names: Option<BTreeMap<String, String>>,
        values: Option<BTreeMap<String, AttributeValue>>,
        expressions: bool,
        absent: &str,
    ) -> Result<Placeholders, ApiError> {
        let keys = [
            ("Names", '#', names.as_ref().map(|map| map.keys().cloned().collect::<Vec<_>>())),
            ("Values", ':', values.as_ref().map(|map| map.keys().cloned().collect())),
        ];
        for (kind, mark, keys) in &keys {
            let Some(keys) = keys else { continue };
            let name = format!("ExpressionAttribute{kind}");
            if !expressions {
                let absent = if *mark == ':' { absent } else { "" };
                let text = format!("{name} can only be specified when using expressions{absent}");
                return Err(ApiError::validation(text));
            }
            if keys.is_empty() {
                return Err(ApiError::validation(format!("{name} must not be empty")));
            }
            if let Some(key) = keys.iter().find(|key| !is_key(key, *mark)) {
                let text = format!("{name} contains invalid key: Syntax error; key: \"{key}\"");
                return Err(ApiError::validation(text));
            }
        }
        let empty = names.iter().flatten().find(|(_, name)| name.is_empty());
        if let Some((key, _)) = empty {
            return Err(ApiError::validation(format!(
                "ExpressionAttributeNames contains invalid value: Empty attribute name for key {key}"
            )));
        }
        let values = values.unwrap_or_default();
        if values.values().map(AttributeValue::size_bytes).sum::<usize>() > EXPRESSION_VALUES_BYTES_MAX {
            return Err(ApiError::validation("ExpressionAttributeValues exceeds max size"));
        }
        Ok(Placeholders { names: names.unwrap_or_default(), values, used: RefCell::default() })
    }

    /// The attribute's name that `#name` stands for.
    pub(super) fn name(&self, key: &str) -> Result<&str, String> {
        self.used.borrow_mut().insert(key.to_owned());
        self.names.get(key).map(String::as_str).ok_or_else(|| {
            format!(
                "An expression attribute name used in the document path is not defined; attribute name: {key}"
            )
        })
    }

    /// The value that `:value` stands for.
    pub(super) fn value(&self, key: &str) -> Result<&AttributeValue, String> {
        self.used.borrow_mut().insert(key.to_owned());
        self.values.get(key).ok_or_else(|| {
            format!("An expression attribute value used in expression is not defined; attribute value: {key}")
        })
    }

    /// Whether every placeholder was used, once all expressions are parsed.
    ///
    /// # Errors
    /// DynamoDB's text, with the keys that were not.
    pub fn check_used(&self) -> Result<(), ApiError> {
        let used = self.used.borrow();
        let given: [(&str, Vec<&String>); 2] =
            [("Names", self.names.keys().collect()), ("Values", self.values.keys().collect())];
        for (kind, keys) in given {
            let unused: Vec<&str> =
                keys.into_iter().filter(|key| !used.contains(*key)).map(String::as_str).collect();
            if !unused.is_empty() {
                return Err(ApiError::validation(format!(
                    "Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{}}}",
                    unused.join(", ")
                )));
            }
        }
        Ok(())
    }
}

fn is_key(key: &str, mark: char) -> bool {
    key.strip_prefix(mark).is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
