//! What is asked of tables, held against what a table can be.

use super::ControlError;
use evenkeel_model::catalogue::Throughput;
use evenkeel_model::limits::{
    KEY_ATTRIBUTE_NAME_BYTES_MAX, TABLE_NAME_BYTES_MAX, TABLE_NAME_BYTES_MIN, TAG_KEY_CHARACTERS_MAX,
    TAG_VALUE_CHARACTERS_MAX, TAGS_MAX,
};
use evenkeel_model::{KeyAttribute, KeySchema, KeyType, key};
use evenkeel_wire::message::{ArchivedBilling, ArchivedCreateTable};
use std::collections::BTreeMap;

pub(super) fn throughput(billing: &ArchivedBilling) -> Option<Throughput> {
    match billing {
        ArchivedBilling::OnDemand => None,
        ArchivedBilling::Provisioned(read_units, write_units) => {
            Some(Throughput { read_units: (*read_units).into(), write_units: (*write_units).into() })
        }
    }
}

pub(super) fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ControlError> {
    if tags.len() > TAGS_MAX {
        return Err(ControlError::Invalid(format!("a table has at most {TAGS_MAX} tags")));
    }
    let allowed = |(key, value): (&String, &String)| {
        (1..=TAG_KEY_CHARACTERS_MAX).contains(&key.chars().count())
            && value.chars().count() <= TAG_VALUE_CHARACTERS_MAX
    };
    if tags.iter().all(allowed) {
        return Ok(());
    }
    Err(ControlError::Invalid(format!(
        "the key of a tag has 1 to {TAG_KEY_CHARACTERS_MAX} characters, its value at most {TAG_VALUE_CHARACTERS_MAX}"
    )))
}

pub(super) fn table_name(name: &str) -> Result<String, ControlError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let length = (TABLE_NAME_BYTES_MIN..=TABLE_NAME_BYTES_MAX).contains(&name.len());
    if length && name.bytes().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(ControlError::Invalid(format!(
        "a table's name has {TABLE_NAME_BYTES_MIN} to {TABLE_NAME_BYTES_MAX} of a-z, A-Z, 0-9, _, . and -"
    )))
}

pub(super) fn read_schema(asked: &ArchivedCreateTable) -> Result<KeySchema, ControlError> {
    let attribute = |archived: &key::ArchivedKeyAttribute| {
        let name = archived.name.to_string();
        if name.is_empty() || name.len() > KEY_ATTRIBUTE_NAME_BYTES_MAX {
            let text = format!("the name of a key attribute has 1 to {KEY_ATTRIBUTE_NAME_BYTES_MAX} bytes");
            return Err(ControlError::Invalid(text));
        }
        Ok(KeyAttribute { name, key_type: KeyType::from(&archived.key_type) })
    };
    let partition = attribute(&asked.schema.partition)?;
    let sort = asked.schema.sort.as_ref().map(attribute).transpose()?;
    if sort.as_ref().is_some_and(|sort| sort.name == partition.name) {
        return Err(ControlError::Invalid("partition key and sort key have the same name".to_owned()));
    }
    Ok(KeySchema { partition, sort })
}
