//! `evenkeel dev --demo`: the whole path on a temporary cluster, each step with its time.
//!
//! Every step checks what it got; the first that is wrong ends the demonstration with its reason.

use crate::client_config::{self, ClientConfigError};
use crate::dev::DevArguments;
use crate::dynamodb_http::{DynamoDb, HttpError};
use crate::telemetry::Renderer;
use evenkeel_bench::local::{LocalCluster, LocalError};
use evenkeel_client::Client;
use evenkeel_model::{AttributeValue, Attributes, Number};
use serde_json::{Value, json};
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

const TABLE: &str = "voyages";
const SHIP: &str = "Evenkeel";
const ITEMS: u64 = 50;
/// How long a table may take from CREATING to ACTIVE.
const ACTIVE_WITHIN: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No temporary directory.
    #[error("temporary directory: {0}")]
    Directory(#[from] std::io::Error),
    /// The cluster did not start or stop.
    #[error(transparent)]
    Cluster(#[from] LocalError),
    /// The HTTP API did not answer as it should.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The native client is not configured.
    #[error(transparent)]
    ClientConfig(#[from] ClientConfigError),
    /// The native client was refused.
    #[error("native client: {0}")]
    Client(#[from] evenkeel_client::Error),
    /// An answer is not what was written.
    #[error("{what}: expected {expected}, found {found}")]
    Wrong {
        /// Which step.
        what: &'static str,
        /// What should have come.
        expected: String,
        /// What came.
        found: String,
    },
}

/// Prints each step when it is done, with its time.
struct Steps {
    last: Instant,
}

impl Steps {
    fn done(&mut self, text: impl Display) {
        let took = self.last.elapsed();
        println!("{:>9.2} ms  {text}", took.as_secs_f64() * 1000.0);
        self.last = Instant::now();
    }
}

/// Runs the demonstration.
///
/// # Errors
/// See [`DemoError`].
pub fn run(arguments: &DevArguments, metrics: &Renderer) -> Result<(), DemoError> {
    let began = Instant::now();
    let directory = temporary_directory()?;
    let data = directory.path();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut steps = Steps { last: began };
    println!("a cluster in {}", data.display());

    let start = || LocalCluster::start(arguments.cluster(data.to_owned(), 0, metrics.clone()));
    let cluster = start()?;
    steps.done(format_args!(
        "{} nodes and a router started; the DynamoDB API listens on http://{}",
        cluster.node_count(),
        cluster.endpoint()
    ));
    runtime.block_on(write_and_read(&cluster, &mut steps))?;
    cluster.stop()?;
    steps.done("everything stopped");
    let cluster = start()?;
    steps.done("everything started again from its logs");
    runtime.block_on(read_again(&cluster, &mut steps))?;
    cluster.stop()?;
    steps.done("everything stopped");
    println!("done in {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// One on a file system that direct IO works on: the system's, unless that is in memory.
fn temporary_directory() -> Result<tempfile::TempDir, std::io::Error> {
    let prefix = "evenkeel-demo-";
    let system = std::env::temp_dir();
    if evenkeel_node::is_memory_backed(&system) {
        return tempfile::Builder::new().prefix(prefix).tempdir_in(std::env::current_dir()?);
    }
    tempfile::Builder::new().prefix(prefix).tempdir_in(system)
}

async fn native_client(file: &Path) -> Result<Client, DemoError> {
    Ok(Client::connect(client_config::load(file)?).await?)
}

async fn write_and_read(cluster: &LocalCluster, steps: &mut Steps) -> Result<(), DemoError> {
    let mut http = DynamoDb::connect(cluster.endpoint()).await?;
    let created = http.call("CreateTable", &create_table()).await?;
    let status = &created["TableDescription"]["TableStatus"];
    check("CreateTable", &json!("CREATING"), status)?;
    wait_until_active(&mut http).await?;
    steps.done(format_args!("HTTP: table {TABLE} created: CREATING, then ACTIVE"));

    for leg in 0..ITEMS {
        http.call("PutItem", &json!({"TableName": TABLE, "Item": http_item(leg)})).await?;
    }
    steps.done(format_args!("HTTP: {ITEMS} items put one after another, each durable when answered"));
    read_over_http(&mut http, ITEMS, steps).await?;

    let client = native_client(&cluster.client_file()).await?;
    steps.done("native client connected over QUIC");
    for leg in ITEMS..2 * ITEMS {
        client.put(TABLE, native_item(leg)).await?;
    }
    steps.done(format_args!("native: {ITEMS} items put one after another, each durable when answered"));
    read_natively(&client, 2 * ITEMS, steps).await?;
    client.close().await;
    Ok(())
}

async fn read_again(cluster: &LocalCluster, steps: &mut Steps) -> Result<(), DemoError> {
    let mut http = DynamoDb::connect(cluster.endpoint()).await?;
    read_over_http(&mut http, 2 * ITEMS, steps).await?;
    let client = native_client(&cluster.client_file()).await?;
    read_natively(&client, 2 * ITEMS, steps).await?;
    client.close().await;
    Ok(())
}

fn create_table() -> Value {
    json!({
        "TableName": TABLE,
        "AttributeDefinitions": [
            {"AttributeName": "ship", "AttributeType": "S"},
            {"AttributeName": "leg", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "ship", "KeyType": "HASH"},
            {"AttributeName": "leg", "KeyType": "RANGE"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
    })
}

async fn wait_until_active(http: &mut DynamoDb) -> Result<(), DemoError> {
    let deadline = Instant::now() + ACTIVE_WITHIN;
    loop {
        let described = http.call("DescribeTable", &json!({"TableName": TABLE})).await?;
        let status = &described["Table"]["TableStatus"];
        if status == "ACTIVE" || Instant::now() > deadline {
            return check("DescribeTable", &json!("ACTIVE"), status);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn cargo(leg: u64) -> String {
    format!("cargo of leg {leg}")
}

fn http_item(leg: u64) -> Value {
    json!({"ship": {"S": SHIP}, "leg": {"N": leg.to_string()}, "cargo": {"S": cargo(leg)}})
}

fn native_key(leg: u64) -> Attributes {
    let number = AttributeValue::N(Number::from(leg));
    Attributes::from_iter([("ship", AttributeValue::S(SHIP.to_owned())), ("leg", number)])
}

fn native_item(leg: u64) -> Attributes {
    let attributes = native_key(leg);
    let own = attributes.iter().map(|attribute| (attribute.name.clone(), attribute.value.clone()));
    own.chain([("cargo".to_owned(), AttributeValue::S(cargo(leg)))]).collect()
}

async fn read_over_http(http: &mut DynamoDb, legs: u64, steps: &mut Steps) -> Result<(), DemoError> {
    let leg = legs / 2;
    let key = json!({"ship": {"S": SHIP}, "leg": {"N": leg.to_string()}});
    let got = http.call("GetItem", &json!({"TableName": TABLE, "Key": key, "ConsistentRead": true})).await?;
    check("GetItem", &http_item(leg), &got["Item"])?;
    steps.done(format_args!("HTTP: item {leg} read back"));
    let query = json!({
        "TableName": TABLE,
        "KeyConditionExpression": "ship = :ship AND leg >= :first",
        "ExpressionAttributeValues": {":ship": {"S": SHIP}, ":first": {"N": "10"}},
        "ScanIndexForward": false,
    });
    let got = http.call("Query", &query).await?;
    let expected: Vec<Value> = (10..legs).rev().map(http_item).collect();
    check("Query", &Value::Array(expected), &got["Items"])?;
    steps
        .done(format_args!("HTTP: {} items queried from the last to the first, in numeric order", legs - 10));
    Ok(())
}

async fn read_natively(client: &Client, legs: u64, steps: &mut Steps) -> Result<(), DemoError> {
    let leg = legs - 1;
    let got = client.get(TABLE, native_key(leg)).await?;
    check_native("native get", Some(&native_item(leg)), got.as_ref())?;
    steps.done(format_args!("native: item {leg} read back"));
    let mut seen = 0;
    let mut after = None;
    loop {
        let page = client.scan(TABLE, None, after.as_ref()).await?;
        seen += page.items.len() as u64;
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    check("native scan", &json!(legs), &json!(seen))?;
    steps.done(format_args!("native: {seen} items scanned"));
    Ok(())
}

fn check(what: &'static str, expected: &Value, found: &Value) -> Result<(), DemoError> {
    if expected == found {
        return Ok(());
    }
    Err(DemoError::Wrong { what, expected: expected.to_string(), found: found.to_string() })
}

fn check_native(
    what: &'static str,
    expected: Option<&Attributes>,
    found: Option<&Attributes>,
) -> Result<(), DemoError> {
    if expected == found {
        return Ok(());
    }
    Err(DemoError::Wrong { what, expected: format!("{expected:?}"), found: format!("{found:?}") })
}
