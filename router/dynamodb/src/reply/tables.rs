//! Answers of the operations on tables.

use super::{ACCOUNT, member, push, write_list, write_string};
use evenkeel_model::catalogue::TableRow;

/// Writes the answer of ListTables.
pub fn write_list_tables(out: &mut Vec<u8>, names: &[String], more: bool) {
    out.extend_from_slice(b"{\"TableNames\":");
    write_list(out, *b"[]", names, |out, name| write_string(out, name));
    if let Some(last) = names.last().filter(|_| more) {
        member(out, "LastEvaluatedTableName");
        write_string(out, last);
    }
    out.push(b'}');
}

/// Writes a table's description as the member `name`: `Table` of DescribeTable, `TableDescription` of the others.
pub fn write_table(out: &mut Vec<u8>, name: &str, region: &str, table: &TableRow, items: u64, bytes: u64) {
    push(out, format_args!("{{\"{name}\":{{\"AttributeDefinitions\":"));
    let keys = || {
        std::iter::once((&table.schema.partition, "HASH"))
            .chain(table.schema.sort.iter().map(|s| (s, "RANGE")))
    };
    write_list(out, *b"[]", keys(), |out, (key, _)| {
        out.extend_from_slice(b"{\"AttributeName\":");
        write_string(out, &key.name);
        push(out, format_args!(",\"AttributeType\":\"{}\"}}", key.key_type.name()));
    });
    out.extend_from_slice(b",\"TableName\":");
    write_string(out, &table.name);
    out.extend_from_slice(b",\"KeySchema\":");
    write_list(out, *b"[]", keys(), |out, (key, kind)| {
        out.extend_from_slice(b"{\"AttributeName\":");
        write_string(out, &key.name);
        push(out, format_args!(",\"KeyType\":\"{kind}\"}}"));
    });
    let (seconds, milliseconds) = (table.created_ms / 1000, table.created_ms % 1000);
    push(out, format_args!(",\"TableStatus\":\"{}\"", table.status.name()));
    push(out, format_args!(",\"CreationDateTime\":{seconds}.{milliseconds:03}"));
    let units = table.throughput.map_or((0, 0), |units| (units.read_units, units.write_units));
    push(
        out,
        format_args!(
            ",\"ProvisionedThroughput\":{{\"NumberOfDecreasesToday\":0,\"ReadCapacityUnits\":{},\"WriteCapacityUnits\":{}}}",
            units.0, units.1
        ),
    );
    push(out, format_args!(",\"TableSizeBytes\":{bytes},\"ItemCount\":{items}"));
    push(out, format_args!(",\"TableArn\":\"{}\"", table_arn(region, &table.name)));
    let id = table_uuid(table);
    push(out, format_args!(",\"TableId\":\"{id}\""));
    if let Some(since) = table.on_demand_since_ms {
        let mode = if table.throughput.is_none() { "PAY_PER_REQUEST" } else { "PROVISIONED" };
        push(
            out,
            format_args!(
                ",\"BillingModeSummary\":{{\"BillingMode\":\"{mode}\",\"LastUpdateToPayPerRequestDateTime\":{}.{:03}}}",
                since / 1000,
                since % 1000
            ),
        );
    }
    push(out, format_args!(",\"DeletionProtectionEnabled\":{}}}}}", table.deletion_protection));
}

/// The table's id in the form of a UUID: its number, and when it was made.
fn table_uuid(table: &TableRow) -> String {
    let made = table.created_ms;
    format!(
        "{:08x}-{:04x}-8{:03x}-8{:03x}-{:012x}",
        made >> 16 & 0xFFFF_FFFF,
        made & 0xFFFF,
        table.id.0 >> 60 & 0xFFF,
        table.id.0 >> 48 & 0xFFF,
        table.id.0 & 0xFFFF_FFFF_FFFF
    )
}

/// The ARN of a table.
pub fn table_arn(region: &str, table: &str) -> String {
    format!("arn:aws:dynamodb:{region}:{ACCOUNT}:table/{table}")
}

/// Writes the answer of ListTagsOfResource.
pub fn write_tags(out: &mut Vec<u8>, table: &TableRow) {
    out.extend_from_slice(b"{\"Tags\":");
    write_list(out, *b"[]", &table.tags, |out, (key, value)| {
        out.extend_from_slice(b"{\"Key\":");
        write_string(out, key);
        out.extend_from_slice(b",\"Value\":");
        write_string(out, value);
        out.push(b'}');
    });
    out.push(b'}');
}

/// Writes the answer of DescribeLimits: what the service grants a new account.
pub fn write_limits(out: &mut Vec<u8>) {
    push(
        out,
        format_args!(
            "{{\"AccountMaxReadCapacityUnits\":80000,\"AccountMaxWriteCapacityUnits\":80000,\"TableMaxReadCapacityUnits\":40000,\"TableMaxWriteCapacityUnits\":40000}}"
        ),
    );
}

/// Writes the answer of DescribeEndpoints: the address that this request was sent to.
pub fn write_endpoints(out: &mut Vec<u8>, address: &str) {
    out.extend_from_slice(b"{\"Endpoints\":[{\"Address\":");
    write_string(out, address);
    out.extend_from_slice(b",\"CachePeriodInMinutes\":1440}]}");
}

/// Writes the answer of DescribeTimeToLive: items do not expire.
pub fn write_time_to_live(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"TimeToLiveDescription\":{\"TimeToLiveStatus\":\"DISABLED\"}}");
}

/// Writes the answer of DescribeContinuousBackups: there are none.
pub fn write_continuous_backups(out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"{\"ContinuousBackupsDescription\":{\"ContinuousBackupsStatus\":\"DISABLED\",\"PointInTimeRecoveryDescription\":{\"PointInTimeRecoveryStatus\":\"DISABLED\"}}}",
    );
}
