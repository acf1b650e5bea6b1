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

    /// A table's name, required; an ARN yields the name in it.
    pub fn table_name(&mut self, member: &str, value: Option<String>) -> String {
        let Some(value) = self.required(member, value) else { return String::new() };
        let name = match value.strip_prefix("arn:").and_then(|arn| arn.split_once(":table/")) {
            Some((_, name)) => name.to_owned(),
            None => value,
        };
        let printed = format!("'{name}'");
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            let pattern = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+";
            self.broken(&printed, member, pattern);
        }
        if name.len() < TABLE_NAME_BYTES_MIN {
            let text = format!("Member must have length greater than or equal to {TABLE_NAME_BYTES_MIN}");
            self.broken(&printed, member, &text);
        }
        if name.len() > TABLE_NAME_BYTES_MAX {
            let text = format!("Member must have length less than or equal to {TABLE_NAME_BYTES_MAX}");
            self.broken(&printed, member, &text);
        }
        name
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
