//! The request that changes what a table is like.

use super::tables::{BILLING_MODES, StreamJson, ThroughputJson, check_units, units};
use crate::constraint::Constraints;
use crate::decode::decode;
use crate::error::ApiError;
use evenkeel_model::catalogue::{TableRow, Throughput};
use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateJson {
    table_name: Option<String>,
    billing_mode: Option<String>,
    provisioned_throughput: Option<ThroughputJson>,
    deletion_protection_enabled: Option<bool>,
    global_secondary_index_updates: Option<Vec<IgnoredAny>>,
    stream_specification: Option<StreamJson>,
    replica_updates: Option<Vec<IgnoredAny>>,
    table_class: Option<String>,
    on_demand_throughput: Option<IgnoredAny>,
    warm_throughput: Option<IgnoredAny>,
    #[serde(rename = "SSESpecification")]
    encryption: Option<IgnoredAny>,
    multi_region_consistency: Option<IgnoredAny>,
}

/// Changes what a table is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateTable {
    /// The table's name.
    pub table: String,
    /// Whether its use is to be paid for by what is set aside, if that was named.
    pub provisioned: Option<bool>,
    /// Throughput to be set aside.
    pub throughput: Option<Throughput>,
    /// Whether DeleteTable shall be refused.
    pub deletion_protection: Option<bool>,
}

const NOTHING_TO_CHANGE: &str = "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required";
const ON_DEMAND_HAS_NO_UNITS: &str =
    "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST";

impl UpdateTable {
    /// Decodes and checks a body.
    ///
    /// # Errors
    /// See [`decode`]; the texts are DynamoDB's.
    pub fn parse(body: &[u8]) -> Result<UpdateTable, ApiError> {
        let json: UpdateJson = decode(body)?;
        let mut constraints = Constraints::default();
        let table = constraints.name_of_table(json.table_name.clone())?;
        constraints.one_of("billingMode", json.billing_mode.as_deref(), &BILLING_MODES);
        check_units(&mut constraints, json.provisioned_throughput.as_ref());
        constraints.check()?;
        let provisioned = json.billing_mode.as_deref().map(|mode| mode == "PROVISIONED");
        if provisioned == Some(false) && json.provisioned_throughput.is_some() {
            return Err(ApiError::invalid_values(ON_DEMAND_HAS_NO_UNITS));
        }
        let throughput = json.provisioned_throughput.as_ref().map(units).transpose()?;
        refuse_unsupported(&json)?;
        let deletion_protection = json.deletion_protection_enabled;
        if provisioned.is_none()
            && throughput.is_none()
            && deletion_protection.is_none()
            && json.stream_specification.is_none()
            && json.table_class.is_none()
        {
            return Err(ApiError::validation(NOTHING_TO_CHANGE));
        }
        Ok(UpdateTable { table, provisioned, throughput, deletion_protection })
    }

    /// The throughput that the table is to have, if the request changes it.
    ///
    /// # Errors
    /// What does not fit how the table is paid for now, and a change to what it has already.
    pub fn throughput_of(&self, row: &TableRow) -> Result<Option<Option<Throughput>>, ApiError> {
        match (self.provisioned, self.throughput) {
            (None, None) => Ok(None),
            (Some(false), _) => Ok(Some(None)),
            (Some(true), None) => Err(ApiError::invalid_values(
                "ProvisionedThroughput must be specified when BillingMode is PROVISIONED",
            )),
            (None, Some(_)) if row.throughput.is_none() => {
                Err(ApiError::invalid_values(ON_DEMAND_HAS_NO_UNITS))
            }
            (_, Some(wanted)) if row.throughput == Some(wanted) => Err(unchanged(wanted)),
            (_, Some(wanted)) => Ok(Some(Some(wanted))),
        }
    }
}

fn unchanged(Throughput { read_units, write_units }: Throughput) -> ApiError {
    ApiError::validation(format!(
        "The provisioned throughput for the table will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for the table: {read_units}. Requested ReadCapacityUnits: {read_units}. Current WriteCapacityUnits provisioned for the table: {write_units}. Requested WriteCapacityUnits: {write_units}. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."
    ))
}

fn refuse_unsupported(json: &UpdateJson) -> Result<(), ApiError> {
    let any = |list: &Option<Vec<IgnoredAny>>| list.as_ref().is_some_and(|list| !list.is_empty());
    ApiError::refuse(&[
        ("GlobalSecondaryIndexUpdates", any(&json.global_secondary_index_updates)),
        ("ReplicaUpdates", any(&json.replica_updates)),
        (
            "StreamSpecification",
            json.stream_specification.as_ref().is_some_and(|stream| stream.stream_enabled == Some(true)),
        ),
        ("TableClass", json.table_class.as_deref().is_some_and(|class| class != "STANDARD")),
        ("OnDemandThroughput", json.on_demand_throughput.is_some()),
        ("WarmThroughput", json.warm_throughput.is_some()),
        ("SSESpecification", json.encryption.is_some()),
        ("MultiRegionConsistency", json.multi_region_consistency.is_some()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::TableId;
    use evenkeel_model::catalogue::TableStatus;
    use evenkeel_model::{KeyAttribute, KeySchema, KeyType};

    fn table(throughput: Option<Throughput>) -> TableRow {
        let partition = KeyAttribute { name: "pk".into(), key_type: KeyType::S };
        TableRow {
            id: TableId(1),
            name: "abc".into(),
            schema: KeySchema { partition, sort: None },
            status: TableStatus::Active,
            created_ms: 0,
            throughput,
            on_demand_since_ms: None,
            deletion_protection: false,
            tags: Default::default(),
        }
    }

    #[test]
    fn a_change_fits_what_the_table_is() {
        let five = Some(Throughput { read_units: 5, write_units: 6 });
        let units = r#""ProvisionedThroughput":{"ReadCapacityUnits":5,"WriteCapacityUnits":6}"#;
        let mode = |mode: &str| format!(r#""BillingMode":"{mode}""#);
        let both = format!("{},{units}", mode("PROVISIONED"));
        let cases = [
            (units.to_owned(), table(None), Err("One or more parameter values were invalid: Neither")),
            (units.to_owned(), table(five), Err("The provisioned throughput for the table will not change.")),
            (both.clone(), table(None), Ok(Some(five))),
            (mode("PAY_PER_REQUEST"), table(five), Ok(Some(None))),
            (mode("PROVISIONED"), table(None), Err("One or more parameter values were invalid: Provisioned")),
            (r#""DeletionProtectionEnabled":true"#.to_owned(), table(five), Ok(None)),
        ];
        for (members, row, expected) in cases {
            let request =
                UpdateTable::parse(format!(r#"{{"TableName":"abc",{members}}}"#).as_bytes()).unwrap();
            match (request.throughput_of(&row), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{members}"),
                (Err(error), Err(start)) => assert!(error.message.starts_with(start), "{members}: {error}"),
                (found, expected) => panic!("{members}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_request_without_a_change_is_refused() {
        let error = UpdateTable::parse(br#"{"TableName":"abc"}"#).unwrap_err();
        assert_eq!(error.message, NOTHING_TO_CHANGE);
        let index = br#"{"TableName":"abc","GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"x"}}]}"#;
        let error = UpdateTable::parse(index).unwrap_err();
        assert_eq!(error.message, "The parameter GlobalSecondaryIndexUpdates is not supported yet");
    }
}
