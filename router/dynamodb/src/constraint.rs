//! The multi-constraint form of validation errors: "N validation errors detected: …".

use crate::error::ApiError;
use evenkeel_model::limits::{TABLE_NAME_BYTES_MAX, TABLE_NAME_BYTES_MIN};

/// Collects broken constraints of one request.
#[derive(Default)]
pub struct Constraints(Vec<String>);

impl Constraints {
    /// Notes that a member's value breaks a constraint; `value` as DynamoDB prints it.
    pub fn broken(&mut self, value: &str, member: &str, constraint: &str) {
        self.0.push(format!("Value {value} at '{member}' failed to satisfy constraint: {constraint}"));
    }

    /// Notes that a number is below the least one, without the number.
    pub fn too_small(&mut self, member: &str, least: i64) {
        self.0.push(format!(
            "Value at '{member}' failed to satisfy constraint: Member must have value greater than or equal to {least}"
        ));
    }

    /// Notes that some member's value breaks a constraint, where the service does not say which.
    pub fn broken_anywhere(&mut self, constraint: &str) {
        self.0.push(format!("Failed to satisfy constraint: {constraint}"));
    }

    /// A member that must be there.
    pub fn required<T>(&mut self, member: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.broken("null", member, "Member must not be null");
        }
        value
    }

    /// A member with a smallest and a largest value.
    pub fn within(&mut self, member: &str, value: Option<i64>, least: i64, most: i64) {
        let Some(value) = value else { return };
        let printed = format!("'{value}'");
        if value < least {
            self.broken(
                &printed,
                member,
                &format!("Member must have value greater than or equal to {least}"),
            );
        }
        if value > most {
            self.broken(&printed, member, &format!("Member must have value less than or equal to {most}"));
        }
    }

    /// A member that is one of a set of words.
    pub fn one_of(&mut self, member: &str, value: Option<&str>, words: &[&str]) {
        if let Some(value) = value.filter(|value| !words.contains(value)) {
            let set = words.join(", ");
            self.broken(
                &format!("'{value}'"),
                member,
                &format!("Member must satisfy enum value set: [{set}]"),
            );
        }
    }

    /// A table's name in a request about items, required; an ARN yields the name in it.
    pub fn table_name(&mut self, member: &str, value: Option<String>) -> String {
        let Some(name) = self.required(member, value).map(name_of) else { return String::new() };
        let printed = format!("'{name}'");
        if name.is_empty() {
            let text = "Value at 'TableName' failed to satisfy constraint: Member must have length greater than or equal to 1";
            self.0.push(text.to_owned());
        } else if name.len() < TABLE_NAME_BYTES_MIN {
            let text = format!("Member must have length greater than or equal to {TABLE_NAME_BYTES_MIN}");
            self.broken(&printed, member, &text);
        } else if name.len() > TABLE_NAME_BYTES_MAX {
            let text = format!("Member must have length less than or equal to {TABLE_NAME_BYTES_MAX}");
            self.broken(&printed, member, &text);
        } else {
            self.name_pattern(member, &name);
        }
        name
    }

    /// A table's name in a request about tables, which are told of its length in words of their own.
    ///
    /// # Errors
    /// A name that is absent, too short or too long.
    pub fn name_of_table(&mut self, value: Option<String>) -> Result<String, ApiError> {
        let missing = "The parameter 'TableName' is required but was not present in the request";
        let name = name_of(value.ok_or_else(|| ApiError::validation(missing))?);
        if !(TABLE_NAME_BYTES_MIN..=TABLE_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(ApiError::validation(format!(
                "TableName must be at least {TABLE_NAME_BYTES_MIN} characters long and at most {TABLE_NAME_BYTES_MAX} characters long"
            )));
        }
        self.name_pattern("tableName", &name);
        Ok(name)
    }

    fn name_pattern(&mut self, member: &str, name: &str) {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            let pattern = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+";
            self.broken(&format!("'{name}'"), member, pattern);
        }
    }

    /// All that was broken, as one error.
    pub fn check(self) -> Result<(), ApiError> {
        let count = self.0.len();
        match count {
            0 => Ok(()),
            1 => Err(ApiError::validation(format!("1 validation error detected: {}", self.0[0]))),
            _ => {
                let all = self.0.join("; ");
                Err(ApiError::validation(format!("{count} validation errors detected: {all}")))
            }
        }
    }
}

/// The table's name, which may be given as an ARN.
fn name_of(value: String) -> String {
    match value.strip_prefix("arn:").and_then(|arn| arn.split_once(":table/")) {
        Some((_, name)) => name.to_owned(),
        None => value,
    }
}
