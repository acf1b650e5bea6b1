//! Put and get through the native client, on encoded keys and items.

use crate::error::BenchError;
use crate::items::{self, Numbers, Template, Versions};
use crate::load::{self, Lasting, Outcome, Slot};
use crate::local::ClientFile;
use crate::tally::Measured;
use evenkeel_client::{Client, ClientConfig, Consistency, CreateTable, tls};
use evenkeel_model::catalogue::{TableRow, TableStatus};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PHASE: &str = "native client";
/// How long the table may take to become active, and how often that is looked at.
const ACTIVE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// What is done to the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Replaces an item by its next version.
    Put,
    /// Reads an item and compares it with what was put.
    Get,
    /// Reads an item as some replica has it; any version will do.
    GetAny,
}

/// How to reach the cluster whose client file this is.
///
/// # Errors
/// A file that cannot be read or used.
pub fn config(file: &Path) -> Result<ClientConfig, BenchError> {
    let read =
        |path: &Path| fs::read(path).map_err(|source| BenchError::File { path: path.to_owned(), source });
    let fault = BenchError::in_phase(PHASE);
    let text = String::from_utf8_lossy(&read(file)?).into_owned();
    let client: ClientFile = toml::from_str(&text).map_err(BenchError::in_phase(PHASE))?;
    let directory = file.parent().unwrap_or(Path::new("."));
    let [ca, certificate, key] =
        [client.tls.ca, client.tls.certificate, client.tls.key].map(|path| directory.join(path));
    let tls = tls::client_config(&read(&ca)?, &read(&certificate)?, &read(&key)?)
        .map_err(|error| fault(error.to_string()))?;
    Ok(ClientConfig::new(client.seeds, tls))
}

/// Makes the table and waits until it is active, then puts every item once.
///
/// # Errors
/// The cluster refused.
pub fn prepare(config: &ClientConfig, versions: &Arc<Versions>) -> Result<(), BenchError> {
    load::runtime().map_err(BenchError::in_phase(PHASE))?.block_on(async {
        let client = connect(config).await?;
        let table = CreateTable::new(items::TABLE, items::schema());
        client.create_table(table).await.map_err(BenchError::in_phase(PHASE))?;
        wait_until_active(&client).await?;
        client.close().await;
        Ok::<(), BenchError>(())
    })?;
    const SLOTS: u32 = 64;
    let each = Lasting::Operations(items::ITEMS / SLOTS);
    let filled = measure(config, Operation::Put, SLOTS, each, versions)?;
    match filled.faults().into_iter().next() {
        None => Ok(()),
        Some(reason) => Err(BenchError::Phase { phase: "filling the table", reason }),
    }
}

async fn connect(config: &ClientConfig) -> Result<Client, BenchError> {
    Client::connect(config.clone()).await.map_err(BenchError::in_phase(PHASE))
}

async fn wait_until_active(client: &Client) -> Result<(), BenchError> {
    let start = Instant::now();
    loop {
        let row = client.describe_table(items::TABLE).await.map_err(BenchError::in_phase(PHASE))?;
        if row.status == TableStatus::Active {
            return Ok(());
        }
        if start.elapsed() > ACTIVE_WITHIN {
            let reason = format!("table {} is not active after {ACTIVE_WITHIN:?}", items::TABLE);
            return Err(BenchError::Phase { phase: PHASE, reason });
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Measures one operation with so many in flight.
///
/// # Errors
/// The cluster cannot be reached.
pub fn measure(
    config: &ClientConfig,
    operation: Operation,
    in_flight: u32,
    lasting: Lasting,
    versions: &Arc<Versions>,
) -> Result<Measured, BenchError> {
    load::runtime().map_err(BenchError::in_phase(PHASE))?.block_on(async {
        let client = connect(config).await?;
        let table = client.table(items::TABLE).await.map_err(BenchError::in_phase(PHASE))?;
        let keys: Rc<[Vec<u8>]> = (0..items::ITEMS).map(items::encoded_key).collect();
        let slots = (0..in_flight).map(|slot| NativeSlot {
            client: client.clone(),
            table: Arc::clone(&table),
            keys: Rc::clone(&keys),
            operation,
            numbers: Numbers::of(slot, in_flight),
            item: Template::encoded_item(),
            versions: Arc::clone(versions),
        });
        let slots: Vec<NativeSlot> = slots.collect();
        let measured = load::run(slots, lasting).await;
        client.close().await;
        Ok(measured)
    })
}

struct NativeSlot {
    client: Client,
    table: Arc<TableRow>,
    keys: Rc<[Vec<u8>]>,
    operation: Operation,
    numbers: Numbers,
    item: Template,
    versions: Arc<Versions>,
}

impl Slot for NativeSlot {
    async fn operate(&mut self) -> Outcome {
        let number = self.numbers.take();
        let key = &self.keys[number as usize];
        let consistency = match self.operation {
            Operation::GetAny => Consistency::Eventual,
            Operation::Put | Operation::Get => Consistency::Strong,
        };
        match self.operation {
            Operation::Put => {
                let version = self.versions.next(number);
                let item = self.item.fill(number, version);
                match self.client.put_encoded(&self.table, key, item, false).await {
                    Ok(_) => {
                        self.versions.acknowledged(number, version);
                        Outcome::Right
                    }
                    Err(error) => {
                        self.versions.doubtful(number);
                        Outcome::Failed(format!("put: {error}"))
                    }
                }
            }
            Operation::Get | Operation::GetAny => {
                match self.client.get_encoded(&self.table, key, consistency).await {
                    Err(error) => Outcome::Failed(format!("get: {error}")),
                    Ok(None) => Outcome::Wrong(format!("get: item {number} is not there")),
                    Ok(Some(_)) if self.operation == Operation::GetAny => Outcome::Right,
                    Ok(Some(got)) => match self.versions.current(number) {
                        Some(version) if !items::is_same(self.item.fill(number, version), &got) => {
                            Outcome::Wrong(format!("get: item {number} is not its version {version}"))
                        }
                        _ => Outcome::Right,
                    },
                }
            }
        }
    }
}
