//! Requests about tables.

use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use crate::request::resources::{TagJson, tags};
use evenkeel_model::catalogue::Throughput;
use evenkeel_model::limits::KEY_ATTRIBUTE_NAME_BYTES_MAX;
use evenkeel_model::{KeyAttribute, KeySchema, KeyType};
use serde::Deserialize;
use serde::de::IgnoredAny;

const LIST_DEFAULT: usize = 100;

/// The ways to pay for a table's use.
pub(super) const BILLING_MODES: [&str; 2] = ["PROVISIONED", "PAY_PER_REQUEST"];

/// Most capacity units that may be set aside.
const UNITS_MAX: i64 = 1_000_000_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateJson {
    table_name: Option<String>,
    attribute_definitions: Option<Vec<DefinitionJson>>,
    key_schema: Option<Vec<ElementJson>>,
    billing_mode: Option<String>,
    provisioned_throughput: Option<ThroughputJson>,
    deletion_protection_enabled: Option<bool>,
    local_secondary_indexes: Option<Vec<IgnoredAny>>,
    global_secondary_indexes: Option<Vec<IgnoredAny>>,
    stream_specification: Option<StreamJson>,
    table_class: Option<String>,
    tags: Option<Vec<TagJson>>,
    resource_policy: Option<IgnoredAny>,
    on_demand_throughput: Option<IgnoredAny>,
    warm_throughput: Option<IgnoredAny>,
    #[serde(rename = "SSESpecification")]
    encryption: Option<EncryptionJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DefinitionJson {
    attribute_name: Option<String>,
    attribute_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ElementJson {
    attribute_name: Option<String>,
    key_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ThroughputJson {
    read_capacity_units: Option<i64>,
    write_capacity_units: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StreamJson {
    pub(super) stream_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptionJson {
    enabled: Option<bool>,
}

/// Creates a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTable {
    /// The table's name.
    pub table: String,
    /// What identifies its items.
    pub schema: KeySchema,
    /// Provisioned throughput, or nothing for on demand.
    pub throughput: Option<Throughput>,
    /// Whether DeleteTable shall be refused.
    pub deletion_protection: bool,
    /// Keys and values of its tags.
    pub tags: Vec<(String, String)>,
}

impl CreateTable {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`]; the texts are DynamoDB's.
    pub fn parse(body: &[u8]) -> Result<CreateTable, ApiError> {
        let json: CreateJson = decode(body)?;
        let mut constraints = Constraints::default();
        let table = match json.table_name.clone() {
            Some(name) if !name.is_empty() => constraints.table_name("tableName", Some(name)),
            name => constraints.name_of_table(name)?,
        };
        let classes = ["STANDARD", "STANDARD_INFREQUENT_ACCESS"];
        constraints.one_of("tableClass", json.table_class.as_deref(), &classes);
        constraints.one_of("billingMode", json.billing_mode.as_deref(), &BILLING_MODES);
        let elements = elements(&mut constraints, json.key_schema.as_deref());
        let definitions = definitions(&mut constraints, json.attribute_definitions.as_deref());
        check_units(&mut constraints, json.provisioned_throughput.as_ref());
        constraints.check()?;
        refuse_unsupported(&json)?;
        let schema = schema(&elements, &definitions)?;
        let throughput = throughput(json.billing_mode.as_deref(), json.provisioned_throughput.as_ref())?;
        let deletion_protection = json.deletion_protection_enabled.unwrap_or(false);
        let tags = tags(&json.tags.unwrap_or_default())?;
        Ok(CreateTable { table, schema, throughput, deletion_protection, tags })
    }
}

fn refuse_unsupported(json: &CreateJson) -> Result<(), ApiError> {
    ApiError::refuse(&[
        ("LocalSecondaryIndexes", json.local_secondary_indexes.as_ref().is_some_and(|list| !list.is_empty())),
        (
            "GlobalSecondaryIndexes",
            json.global_secondary_indexes.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        (
            "StreamSpecification",
            json.stream_specification.as_ref().is_some_and(|s| s.stream_enabled == Some(true)),
        ),
        ("TableClass", json.table_class.as_deref().is_some_and(|class| class != "STANDARD")),
        ("ResourcePolicy", json.resource_policy.is_some()),
        ("OnDemandThroughput", json.on_demand_throughput.is_some()),
        ("WarmThroughput", json.warm_throughput.is_some()),
        ("SSESpecification", json.encryption.as_ref().is_some_and(|e| e.enabled == Some(true))),
    ])
}

/// Names and types of the attribute definitions.
fn definitions(constraints: &mut Constraints, list: Option<&[DefinitionJson]>) -> Vec<(String, String)> {
    let list = constraints.required("attributeDefinitions", list).unwrap_or_default();
    let mut definitions = Vec::new();
    for (index, definition) in list.iter().enumerate() {
        let member = |field: &str| format!("attributeDefinitions.{}.member.{field}", index + 1);
        let name = constraints.required(&member("attributeName"), definition.attribute_name.clone());
        let kind = constraints.required(&member("attributeType"), definition.attribute_type.clone());
        constraints.one_of(&member("attributeType"), kind.as_deref(), &["B", "N", "S"]);
        definitions.push((name.unwrap_or_default(), kind.unwrap_or_default()));
    }
    definitions
}

/// Names and kinds of the key schema's elements.
fn elements(constraints: &mut Constraints, list: Option<&[ElementJson]>) -> Vec<(String, String)> {
    let list = constraints.required("keySchema", list);
    let empty = list.is_some_and(<[ElementJson]>::is_empty);
    if empty {
        constraints.broken("'[]'", "keySchema", "Member must have length greater than or equal to 1");
    }
    let list = list.unwrap_or_default();
    if list.len() > 2 {
        let text = |text: &Option<String>| text.as_deref().unwrap_or("null").to_owned();
        let each = |e: &ElementJson| {
            format!(
                "KeySchemaElement(attributeName={}, keyType={})",
                text(&e.attribute_name),
                text(&e.key_type)
            )
        };
        let printed = list.iter().map(each).collect::<Vec<_>>().join(", ");
        let limit = "Member must have length less than or equal to 2";
        constraints.broken(&format!("'[{printed}]'"), "keySchema", limit);
    }
    let mut elements = Vec::new();
    for (index, element) in list.iter().enumerate() {
        let member = |field: &str| format!("keySchema.{}.member.{field}", index + 1);
        let name = constraints.required(&member("attributeName"), element.attribute_name.clone());
        if name.as_ref().is_some_and(|name| name.len() > KEY_ATTRIBUTE_NAME_BYTES_MAX) {
            let text =
                format!("Member must have length less than or equal to {KEY_ATTRIBUTE_NAME_BYTES_MAX}");
            constraints.broken("'...'", &member("attributeName"), &text);
        }
        let kind = constraints.required(&member("keyType"), element.key_type.clone());
        constraints.one_of(&member("keyType"), kind.as_deref(), &["HASH", "RANGE"]);
        elements.push((name.unwrap_or_default(), kind.unwrap_or_default()));
    }
    elements
}

pub(super) fn check_units(constraints: &mut Constraints, units: Option<&ThroughputJson>) {
    let Some(units) = units else { return };
    for (member, value) in [
        ("provisionedThroughput.writeCapacityUnits", units.write_capacity_units),
        ("provisionedThroughput.readCapacityUnits", units.read_capacity_units),
    ] {
        let value = constraints.required(member, value);
        constraints.within(member, value, 1, i64::MAX);
    }
}

fn schema(elements: &[(String, String)], definitions: &[(String, String)]) -> Result<KeySchema, ApiError> {
    let invalid = |text: &str| ApiError::validation(text);
    if elements[0].1 != "HASH" {
        return Err(invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type"));
    }
    if elements.get(1).is_some_and(|(_, kind)| kind != "RANGE") {
        return Err(invalid("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"));
    }
    let find = |name: &str| definitions.iter().find(|(defined, _)| defined == name);
    if definitions.len() < elements.len() {
        return Err(invalid("Invalid KeySchema: Some index key attribute have no definition"));
    }
    if elements.iter().any(|(name, _)| find(name).is_none()) {
        let names = |list: &[(String, String)]| {
            list.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        return Err(ApiError::invalid_values(format_args!(
            "Some index key attributes are not defined in AttributeDefinitions. Keys: [{}], AttributeDefinitions: [{}]",
            names(elements),
            names(definitions)
        )));
    }
    if elements.get(1).is_some_and(|(name, _)| *name == elements[0].0) {
        return Err(invalid(
            "Both the Hash Key and the Range Key element in the KeySchema have the same name",
        ));
    }
    if definitions.len() != elements.len() {
        return Err(ApiError::invalid_values(
            "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions",
        ));
    }
    let attribute = |(name, _): &(String, String)| {
        let kind = find(name).and_then(|(_, kind)| KeyType::from_name(kind));
        KeyAttribute {
            name: name.clone(),
            key_type: kind.expect("defined, and its type is one of the three"),
        }
    };
    Ok(KeySchema { partition: attribute(&elements[0]), sort: elements.get(1).map(attribute) })
}

fn throughput(
    mode: Option<&str>,
    set_aside: Option<&ThroughputJson>,
) -> Result<Option<Throughput>, ApiError> {
    let invalid = |text: &str| ApiError::invalid_values(text);
    match (mode, set_aside) {
        (Some("PAY_PER_REQUEST"), None) => Ok(None),
        (Some("PAY_PER_REQUEST"), Some(_)) => Err(invalid(
            "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST",
        )),
        (_, None) => Err(invalid(
            "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED",
        )),
        (_, Some(set_aside)) => units(set_aside).map(Some),
    }
}

/// The capacity units of a request whose constraints were checked.
pub(super) fn units(json: &ThroughputJson) -> Result<Throughput, ApiError> {
    let within = |name: &str, value: Option<i64>| match value {
        Some(value) if value > UNITS_MAX => {
            Err(ApiError::validation(format!("Given value {value} for {name} is out of bounds")))
        }
        value => Ok(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(1)),
    };
    Ok(Throughput {
        read_units: within("ReadCapacityUnits", json.read_capacity_units)?,
        write_units: within("WriteCapacityUnits", json.write_capacity_units)?,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NameJson {
    table_name: Option<String>,
}

fn parse_name(body: &[u8]) -> Result<String, ApiError> {
    let json: NameJson = decode(body)?;
    let mut constraints = Constraints::default();
    let table = constraints.name_of_table(json.table_name)?;
    constraints.check().map(|()| table)
}

/// Describes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeTable {
    /// The table's name.
    pub table: String,
}

impl DescribeTable {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<DescribeTable, ApiError> {
        Ok(DescribeTable { table: parse_name(body)? })
    }
}

/// Deletes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTable {
    /// The table's name.
    pub table: String,
}

impl DeleteTable {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<DeleteTable, ApiError> {
        Ok(DeleteTable { table: parse_name(body)? })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListJson {
    exclusive_start_table_name: Option<String>,
    limit: Option<i64>,
}

/// Lists tables by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTables {
    /// The name that the list begins behind.
    pub after: Option<String>,
    /// Most names wanted.
    pub limit: usize,
}

impl ListTables {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`].
    pub fn parse(body: &[u8]) -> Result<ListTables, ApiError> {
        let json: ListJson = decode(body)?;
        let mut constraints = Constraints::default();
        let after = json
            .exclusive_start_table_name
            .map(|name| constraints.table_name("exclusiveStartTableName", Some(name)));
        constraints.within("limit", json.limit, 1, LIST_DEFAULT as i64);
        constraints.check()?;
        let limit = json.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIST_DEFAULT);
        Ok(ListTables { after, limit })
    }
}
