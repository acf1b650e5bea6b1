//! The operations: a checked request becomes calls of the native client, their results an answer.

use crate::answer::{Answer, api_error, malformed};
use evenkeel_client::{Client, CreateTable, Error, RangeRequest};
use evenkeel_dynamodb::key::{KeyRange, exact_key, item_key, query_range, scan_range};
use evenkeel_dynamodb::reply::{self, PageReply};
use evenkeel_dynamodb::request::{self, BatchWrite, BatchWriteItem, Capacity, ReadPage};
use evenkeel_dynamodb::{ApiError, ErrorKind, Operation};
use evenkeel_model::catalogue::{TableRow, TableStatus};
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::limits::PAGE_BYTES_MAX;
use evenkeel_model::{KeySchema, encode_item};
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Room for most answers, so that their buffer is made once.
const ANSWER_BYTES: usize = 2048;

/// Carries out an operation.
///
/// # Errors
/// See [`ApiError`].
pub async fn run(
    client: &Client,
    operation: Operation,
    region: &str,
    body: &[u8],
) -> Result<Answer, ApiError> {
    match operation {
        Operation::GetItem => get_item(client, body).await,
        Operation::PutItem => put_item(client, body).await,
        Operation::DeleteItem => delete_item(client, body).await,
        Operation::BatchWriteItem => batch_write_item(client, body).await,
        Operation::Query => query(client, body).await,
        Operation::Scan => scan(client, body).await,
        Operation::CreateTable => create_table(client, region, body).await,
        Operation::DescribeTable => describe_table(client, region, body).await,
        Operation::ListTables => list_tables(client, body).await,
        Operation::DeleteTable => delete_table(client, region, body).await,
    }
}

/// The row of a table that is open to requests. The cached row may be a moment old, so one that is not
/// ACTIVE is read again before the request is refused.
async fn active_table(client: &Client, name: &str) -> Result<Arc<TableRow>, ApiError> {
    let cached = client.table(name).await.map_err(api_error)?;
    if cached.status == TableStatus::Active {
        return Ok(cached);
    }
    let row = client.describe_table(name).await.map_err(api_error)?;
    match row.status {
        TableStatus::Active => Ok(Arc::new(row)),
        TableStatus::Creating | TableStatus::Deleting => Err(ApiError::table_not_found()),
    }
}

async fn get_item(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::GetItem::parse(body)?;
    let table = active_table(client, &request.table).await?;
    let key = exact_key(&table.schema, &request.key)?;
    let stored = client.get_encoded(&table, &key).await.map_err(api_error)?;
    let mut out = Vec::with_capacity(stored.as_ref().map_or(0, |stored| 2 * stored.len()) + 64);
    reply::write_get(&mut out, &request.table, request.capacity, request.consistent, stored.as_deref())
        .map_err(malformed)?;
    Ok(Answer::done(out))
}

async fn put_item(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::PutItem::parse(body)?;
    let table = active_table(client, &request.table).await?;
    let key = item_key(&table.schema, &request.item)?;
    let item = encode_item(&request.item);
    let want_old = request.return_old || request.capacity != Capacity::None;
    let old = client.put_encoded(&table, &key, &item, want_old).await.map_err(api_error)?;
    written(&request.table, request.capacity, stored_item_bytes(&item), old.as_deref(), request.return_old)
}

async fn delete_item(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::DeleteItem::parse(body)?;
    let table = active_table(client, &request.table).await?;
    let key = exact_key(&table.schema, &request.key)?;
    let want_old = request.return_old || request.capacity != Capacity::None;
    let old = client.delete_encoded(&table, &key, want_old).await.map_err(api_error)?;
    written(&request.table, request.capacity, 0, old.as_deref(), request.return_old)
}

fn written(
    table: &str,
    capacity: Capacity,
    new_bytes: u64,
    old: Option<&[u8]>,
    return_old: bool,
) -> Result<Answer, ApiError> {
    let mut out = Vec::with_capacity(64);
    reply::write_written(&mut out, table, capacity, new_bytes, old, return_old).map_err(malformed)?;
    Ok(Answer::done(out))
}

async fn query(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::Query::parse(body)?;
    let table = active_table(client, &request.page.table).await?;
    let range = query_range(&table.schema, &request)?;
    page(client, &table, &request.page, range).await
}

async fn scan(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::Scan::parse(body)?;
    let table = active_table(client, &request.page.table).await?;
    let range = scan_range(&table.schema, &request)?;
    page(client, &table, &request.page, range).await
}

async fn page(
    client: &Client,
    table: &TableRow,
    asked: &ReadPage,
    range: KeyRange,
) -> Result<Answer, ApiError> {
    let request = RangeRequest {
        lower: range.lower,
        upper: range.upper,
        reverse: range.reverse,
        items_max: asked.limit.unwrap_or(u32::MAX),
        bytes_max: PAGE_BYTES_MAX as u32,
    };
    let found = client.range_encoded(table, &request).await.map_err(api_error)?;
    // A page that its limit ended names a last key even where nothing follows, as DynamoDB's do.
    let limited = asked.limit.is_some_and(|limit| found.len() >= limit as usize);
    let reply = PageReply {
        table: &asked.table,
        schema: &table.schema,
        capacity: asked.capacity,
        consistent: asked.consistent,
        count_only: asked.count_only,
        more: found.more || limited,
    };
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_page(&mut out, &reply, found.rows().map(|(_, item)| item)).map_err(malformed)?;
    Ok(Answer::done(out))
}

/// One write of a batch, ready to be sent.
struct EncodedWrite {
    key: Vec<u8>,
    /// Nothing for a delete.
    item: Option<Vec<u8>>,
}

type Outcome = Result<u64, Error>;

async fn batch_write_item(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = BatchWriteItem::parse(body)?;
    let mut tables = Vec::with_capacity(request.writes.len());
    let mut encoded = Vec::with_capacity(request.writes.len());
    for (name, writes) in &request.writes {
        let table = active_table(client, name).await?;
        encoded.push(encode_writes(&table.schema, writes)?);
        tables.push(table);
    }
    let want_old = request.capacity != Capacity::None;
    let sent = tables
        .iter()
        .zip(&encoded)
        .flat_map(|(table, writes)| writes.iter().map(move |write| (table, write)));
    let mut outcomes =
        all(sent.map(|(table, write)| write_one(client, table, write, want_old))).await.into_iter();
    let mut unprocessed = Vec::new();
    let mut units = Vec::new();
    for (name, writes) in &request.writes {
        let mut left = Vec::new();
        let mut half_units = 0;
        for write in writes {
            match outcomes.next().expect("one outcome a write") {
                Ok(bytes) => half_units += reply::write_half_units(bytes),
                Err(Error::Overloaded { .. }) => left.push(write),
                Err(error) => return Err(api_error(error)),
            }
        }
        units.push((name.as_str(), half_units));
        if !left.is_empty() {
            unprocessed.push((name.as_str(), left));
        }
    }
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_batch(&mut out, &unprocessed, request.capacity, &units);
    Ok(Answer::done(out))
}

fn encode_writes(schema: &KeySchema, writes: &[BatchWrite]) -> Result<Vec<EncodedWrite>, ApiError> {
    let mut keys = HashSet::new();
    let mut encoded = Vec::with_capacity(writes.len());
    for write in writes {
        let (key, item) = match write {
            BatchWrite::Put(item) => (item_key(schema, item)?, Some(encode_item(item))),
            BatchWrite::Delete(key) => (exact_key(schema, key)?, None),
        };
        if !keys.insert(key.clone()) {
            return Err(ApiError::validation("Provided list of item keys contains duplicates"));
        }
        encoded.push(EncodedWrite { key, item });
    }
    Ok(encoded)
}

/// Writes one item of a batch; yields the size that is charged.
async fn write_one(client: &Client, table: &TableRow, write: &EncodedWrite, want_old: bool) -> Outcome {
    let old = match &write.item {
        Some(item) => client.put_encoded(table, &write.key, item, want_old).await?,
        None => client.delete_encoded(table, &write.key, want_old).await?,
    };
    let size = |stored: &[u8]| stored_item_bytes(stored);
    Ok(write.item.as_deref().map_or(0, size).max(old.as_deref().map_or(0, size)))
}

/// A future, and its result once it has one.
type Running<F> = (Pin<Box<F>>, Option<<F as Future>::Output>);

/// Runs futures side by side and yields their results in order.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Running<F>> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, result) in running.iter_mut().filter(|(_, result)| result.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(output) => *result = Some(output),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().map(|(_, result)| result.expect("all have ended")).collect()
}

async fn create_table(client: &Client, region: &str, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::CreateTable::parse(body)?;
    let name = request.table.clone();
    let table = CreateTable {
        name: request.table,
        schema: request.schema,
        throughput: request.throughput,
        deletion_protection: request.deletion_protection,
    };
    let row = client.create_table(table).await.map_err(|error| match error {
        Error::TableExists { .. } => in_use(format!("Table already exists: {name}")),
        Error::TableInUse { .. } => in_use(format!(
            "Attempt to change a resource which is still in use: Table is being changed: {name}"
        )),
        other => api_error(other),
    })?;
    Ok(table_answer("TableDescription", region, &row, (0, 0)))
}

async fn delete_table(client: &Client, region: &str, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::DeleteTable::parse(body)?;
    let name = &request.table;
    let row = client.delete_table(name).await.map_err(|error| match error {
        Error::TableNotFound { .. } => not_found(name),
        Error::TableInUse { .. } => in_use(format!("Attempt to change a resource which is still in use: Table is being changed: {name}")),
        Error::Protected { .. } => ApiError::validation(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.",
        ),
        other => api_error(other),
    })?;
    Ok(table_answer("TableDescription", region, &row, (0, 0)))
}

async fn describe_table(client: &Client, region: &str, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::DescribeTable::parse(body)?;
    let row = client.describe_table(&request.table).await.map_err(|error| match error {
        Error::TableNotFound { .. } => not_found(&request.table),
        other => api_error(other),
    })?;
    let counts = match row.status {
        TableStatus::Active => client.table_counts(&row).await.map_err(api_error)?,
        TableStatus::Creating | TableStatus::Deleting => (0, 0),
    };
    Ok(table_answer("Table", region, &row, counts))
}

async fn list_tables(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::ListTables::parse(body)?;
    let (names, more) =
        client.list_tables(request.after.as_deref(), request.limit).await.map_err(api_error)?;
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_list_tables(&mut out, &names, more);
    Ok(Answer::done(out))
}

fn table_answer(member: &str, region: &str, row: &TableRow, counts: (u64, u64)) -> Answer {
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_table(&mut out, member, region, row, counts.0, counts.1);
    Answer::done(out)
}

fn in_use(message: String) -> ApiError {
    ApiError::new(ErrorKind::ResourceInUse, message)
}

fn not_found(name: &str) -> ApiError {
    ApiError::new(
        ErrorKind::ResourceNotFound,
        format!("Requested resource not found: Table: {name} not found"),
    )
}
