//! Requests about a table as a resource: what it is called by, and what is kept of it.

use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use evenkeel_model::limits::{TAG_KEY_CHARACTERS_MAX, TAG_VALUE_CHARACTERS_MAX};
use serde::Deserialize;

const ARN: &str = "arn:aws:dynamodb:";

/// A tag as it stands in requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagJson {
    key: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResourceJson {
    resource_arn: Option<String>,
    tags: Option<Vec<TagJson>>,
    tag_keys: Option<Vec<String>>,
    next_token: Option<String>,
}

/// The name of the table that an ARN names.
fn table_of(arn: Option<&str>) -> Result<String, ApiError> {
    let arn = arn.filter(|arn| !arn.is_empty()).ok_or_else(|| ApiError::validation("Invalid TableArn"))?;
    let name = arn
        .strip_prefix(ARN)
        .and_then(|rest| rest.splitn(3, ':').nth(2))
        .and_then(|resource| resource.strip_prefix("table/"))
        .and_then(|path| path.split('/').next())
        .filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| {
        ApiError::validation(format!("Invalid TableArn: Invalid ResourceArn provided as input {arn}"))
    })
}

/// Checks tags and turns them into pairs of key and value.
pub(super) fn tags(list: &[TagJson]) -> Result<Vec<(String, String)>, ApiError> {
    let mut tags = Vec::with_capacity(list.len());
    for tag in list {
        let key = tag.key.clone().unwrap_or_default();
        let value = tag.value.clone().unwrap_or_default();
        if !(1..=TAG_KEY_CHARACTERS_MAX).contains(&key.chars().count()) {
            return Err(ApiError::invalid_values(format_args!(
                "Tag key must be between 1 and {TAG_KEY_CHARACTERS_MAX} characters"
            )));
        }
        if value.chars().count() > TAG_VALUE_CHARACTERS_MAX {
            return Err(ApiError::invalid_values(format_args!(
                "Tag value must be between 0 and {TAG_VALUE_CHARACTERS_MAX} characters"
            )));
        }
        if tags.iter().any(|(known, _)| *known == key) {
            return Err(ApiError::validation(format!("Duplicate tag keys: {key}")));
        }
        tags.push((key, value));
    }
    Ok(tags)
}

/// Sets tags of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagResource {
    /// The table's ARN as it was given.
    pub arn: String,
    /// The table's name.
    pub table: String,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

impl TagResource {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<TagResource, ApiError> {
        let json: ResourceJson = decode(body)?;
        let table = table_of(json.resource_arn.as_deref())?;
        let list = json.tags.unwrap_or_default();
        if list.is_empty() {
            return Err(ApiError::validation("Atleast one Tag needs to be provided as Input."));
        }
        Ok(TagResource { arn: json.resource_arn.unwrap_or_default(), table, tags: tags(&list)? })
    }
}

/// Removes tags of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntagResource {
    /// The table's ARN as it was given.
    pub arn: String,
    /// The table's name.
    pub table: String,
    /// Keys of the tags.
    pub keys: Vec<String>,
}

impl UntagResource {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<UntagResource, ApiError> {
        let json: ResourceJson = decode(body)?;
        let table = table_of(json.resource_arn.as_deref())?;
        let keys = json.tag_keys.unwrap_or_default();
        if keys.is_empty() {
            return Err(ApiError::validation("Atleast one Tag Key needs to be provided as Input."));
        }
        Ok(UntagResource { arn: json.resource_arn.unwrap_or_default(), table, keys })
    }
}

/// Lists tags of a table; all of them fit one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTagsOfResource {
    /// The table's ARN as it was given.
    pub arn: String,
    /// The table's name.
    pub table: String,
}

impl ListTagsOfResource {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<ListTagsOfResource, ApiError> {
        let json: ResourceJson = decode(body)?;
        let table = table_of(json.resource_arn.as_deref())?;
        if json.next_token.is_some() {
            return Err(ApiError::validation("Invalid NextToken: no answer has given one"));
        }
        Ok(ListTagsOfResource { arn: json.resource_arn.unwrap_or_default(), table })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NameJson {
    table_name: Option<String>,
}

/// Asks for one of the things that are kept of a table: its time to live, its backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeOfTable {
    /// The table's name.
    pub table: String,
}

impl DescribeOfTable {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<DescribeOfTable, ApiError> {
        let json: NameJson = decode(body)?;
        let mut constraints = Constraints::default();
        let table = constraints.name_of_table(json.table_name)?;
        constraints.check().map(|()| DescribeOfTable { table })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_in_its_arn_only() {
        let cases = [
            ("arn:aws:dynamodb:eu-west-1:000000000000:table/orders", Ok("orders")),
            ("arn:aws:dynamodb:eu-west-1:000000000000:table/orders/index/x", Ok("orders")),
            ("", Err("Invalid TableArn")),
            ("orders", Err("Invalid TableArn: Invalid ResourceArn provided as input orders")),
            (
                "arn:aws:dynamodb:eu-west-1:0:stream/x",
                Err(
                    "Invalid TableArn: Invalid ResourceArn provided as input arn:aws:dynamodb:eu-west-1:0:stream/x",
                ),
            ),
        ];
        for (arn, expected) in cases {
            let found = table_of(Some(arn)).map_err(|error| error.message);
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{arn}");
        }
    }

    #[test]
    fn tags_are_checked_before_anything_is_done() {
        let body =
            |tags: &str| format!(r#"{{"ResourceArn":"arn:aws:dynamodb:r:0:table/abc","Tags":{tags}}}"#);
        let long = format!(r#"[{{"Key":"{}","Value":"v"}}]"#, "k".repeat(129));
        let cases = [
            ("[]", "Atleast one Tag needs to be provided as Input."),
            (
                r#"[{"Key":"","Value":"v"}]"#,
                "One or more parameter values were invalid: Tag key must be between 1 and 128 characters",
            ),
            (
                long.as_str(),
                "One or more parameter values were invalid: Tag key must be between 1 and 128 characters",
            ),
            (r#"[{"Key":"a","Value":"v"},{"Key":"a","Value":"w"}]"#, "Duplicate tag keys: a"),
        ];
        for (tags, text) in cases {
            assert_eq!(TagResource::parse(body(tags).as_bytes()).unwrap_err().message, text, "{tags}");
        }
        let good = TagResource::parse(body(r#"[{"Key":"a","Value":""}]"#).as_bytes()).unwrap();
        assert_eq!((good.table.as_str(), good.tags), ("abc", vec![("a".to_owned(), String::new())]));
    }
}
