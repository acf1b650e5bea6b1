//! Operations on items: each is one call of the native client, whatever the item.

use super::{ANSWER_BYTES, active_table};
use crate::answer::{Answer, api_error, malformed};
use evenkeel_client::{Client, RangeRequest};
use evenkeel_dynamodb::ApiError;
use evenkeel_dynamodb::key::{KeyRange, exact_key, item_key, query_range, scan_range};
use evenkeel_dynamodb::reply::{self, PageReply};
use evenkeel_dynamodb::request::{self, Capacity, ReadPage};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::encode_item;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::limits::PAGE_BYTES_MAX;

/// GetItem.
pub async fn get(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::GetItem::parse(body)?;
    let table = active_table(client, &request.table).await?;
    let key = exact_key(&table.schema, &request.key)?;
    let stored = client.get_encoded(&table, &key).await.map_err(api_error)?;
    let mut out = Vec::with_capacity(stored.as_ref().map_or(0, |stored| 2 * stored.len()) + 64);
    reply::write_get(&mut out, &request.table, request.capacity, request.consistent, stored.as_deref())
        .map_err(malformed)?;
    Ok(Answer::done(out))
}

/// PutItem.
pub async fn put(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::PutItem::parse(body)?;
    let table = active_table(client, &request.table).await?;
    let key = item_key(&table.schema, &request.item)?;
    let item = encode_item(&request.item);
    let want_old = request.return_old || request.capacity != Capacity::None;
    let old = client.put_encoded(&table, &key, &item, want_old).await.map_err(api_error)?;
    written(&request.table, request.capacity, stored_item_bytes(&item), old.as_deref(), request.return_old)
}

/// DeleteItem.
pub async fn delete(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
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

/// Query.
pub async fn query(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
    let request = request::Query::parse(body)?;
    let table = active_table(client, &request.page.table).await?;
    let range = query_range(&table.schema, &request)?;
    page(client, &table, &request.page, range).await
}

/// Scan.
pub async fn scan(client: &Client, body: &[u8]) -> Result<Answer, ApiError> {
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
