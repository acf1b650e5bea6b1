//! Operations on many items: each item for itself, all side by side.

use super::{ANSWER_BYTES, active_table, consistency};
use crate::answer::{Answer, api_error, malformed};
use crate::beside::{parsed, sized};
use bytes::Bytes;
use evenkeel_client::{Client, Error, StoredItem};
use evenkeel_dynamodb::ApiError;
use evenkeel_dynamodb::key::{batch_item_key, exact_key};
use evenkeel_dynamodb::reply::{self, GotOfTable};
use evenkeel_dynamodb::request::{BatchGetItem, BatchKeys, BatchWrite, BatchWriteItem, Capacity};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::limits::BATCH_GET_BYTES_MAX;
use evenkeel_model::{KeySchema, encode_item};
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Reads of one batch that are under way at once: bounds what waits in memory for its place in the answer.
const READS_AT_ONCE: usize = 25;

/// One write of a batch, ready to be sent.
struct EncodedWrite {
    key: Vec<u8>,
    /// Nothing for a delete.
    item: Option<Vec<u8>>,
}

type Outcome = Result<u64, Error>;

/// BatchWriteItem.
pub async fn write(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, BatchWriteItem::parse).await?;
    let mut tables = Vec::with_capacity(request.writes.len());
    for (name, _) in &request.writes {
        tables.push(active_table(client, name).await?);
    }
    let ReadyBatch { request, tables, encoded } =
        sized(body.len(), move || encode_all(request, tables)).await?;
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

/// A batch with all its writes ready, by table.
struct ReadyBatch {
    request: BatchWriteItem,
    tables: Vec<Arc<TableRow>>,
    encoded: Vec<Vec<EncodedWrite>>,
}

/// Makes the writes of all tables ready.
fn encode_all(request: BatchWriteItem, tables: Vec<Arc<TableRow>>) -> Result<ReadyBatch, ApiError> {
    let each = |((_, writes), table): (&(String, Vec<BatchWrite>), &Arc<TableRow>)| {
        encode_writes(&table.schema, writes)
    };
    let encoded = request.writes.iter().zip(&tables).map(each).collect::<Result<_, _>>()?;
    Ok(ReadyBatch { request, tables, encoded })
}

fn encode_writes(schema: &KeySchema, writes: &[BatchWrite]) -> Result<Vec<EncodedWrite>, ApiError> {
    let mut keys = HashSet::new();
    let mut encoded = Vec::with_capacity(writes.len());
    for write in writes {
        let (key, item) = match write {
            BatchWrite::Put(item) => (batch_item_key(schema, item)?, Some(encode_item(item))),
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

/// BatchGetItem.
pub async fn get(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, BatchGetItem::parse).await?;
    let mut wanted = Vec::with_capacity(request.tables.len());
    for asked in &request.tables {
        let table = active_table(client, &asked.table).await?;
        let keys =
            asked.keys.iter().map(|key| exact_key(&table.schema, key)).collect::<Result<Vec<_>, _>>()?;
        if keys.iter().collect::<HashSet<_>>().len() < keys.len() {
            return Err(ApiError::validation("Provided list of item keys contains duplicates"));
        }
        wanted.push((table, keys));
    }
    let mut bytes = 0;
    let mut found = Vec::with_capacity(wanted.len());
    for ((table, keys), asked) in wanted.iter().zip(&request.tables) {
        found.push(get_of_table(client, table, keys, asked, &mut bytes).await?);
    }
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let answer = move || {
        let mut out = Vec::with_capacity(ANSWER_BYTES + bytes);
        reply::write_batch_get(&mut out, request.capacity, &request.tables, &found).map_err(malformed)?;
        Ok(Answer::done(out))
    };
    sized(bytes, answer).await
}

/// Reads the items of one table, some at a time, until the answer is full; `bytes` counts what is in it.
async fn get_of_table(
    client: &Client,
    table: &TableRow,
    keys: &[Vec<u8>],
    asked: &BatchKeys,
    bytes: &mut u64,
) -> Result<GotOfTable<StoredItem>, ApiError> {
    let mut got = GotOfTable { items: Vec::with_capacity(keys.len()), half_units: 0, left: Vec::new() };
    for (chunk, keys) in keys.chunks(READS_AT_ONCE).enumerate() {
        let places = chunk * READS_AT_ONCE..;
        if *bytes >= BATCH_GET_BYTES_MAX {
            got.left.extend(places.take(keys.len()));
            continue;
        }
        let consistency = consistency(asked.consistent);
        let outcomes = all(keys.iter().map(|key| client.get_encoded(table, key, consistency))).await;
        for (outcome, place) in outcomes.into_iter().zip(places) {
            let item = match outcome {
                Ok(item) => item,
                Err(Error::Overloaded { .. }) => {
                    got.left.push(place);
                    continue;
                }
                Err(error) => return Err(api_error(error)),
            };
            let size = item.as_deref().map_or(0, stored_item_bytes);
            if *bytes + size > BATCH_GET_BYTES_MAX {
                got.left.push(place);
                continue;
            }
            *bytes += size;
            got.half_units += reply::read_half_units(size, asked.consistent);
            got.items.extend(item);
        }
    }
    Ok(got)
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
