//! Operations on items: each is one call of the native client, whatever the item.

use super::{ANSWER_BYTES, active_table, consistency};
use crate::answer::{Answer, api_error, malformed};
use crate::beside::{parsed, sized};
use bytes::Bytes;
use evenkeel_client::{Change, Client, Error, RangeRequest, Terms};
use evenkeel_dynamodb::ApiError;
use evenkeel_dynamodb::key::{KeyRange, exact_key, item_key, query_range, scan_range};
use evenkeel_dynamodb::reply::{self, ItemWritten, PageReply};
use evenkeel_dynamodb::request::{self, Capacity, ReadPage, ReturnValues, WriteRequest};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::encode_item;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::limits::PAGE_BYTES_MAX;
use std::sync::Arc;

/// GetItem.
pub async fn get(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::GetItem::parse).await?;
    let table = active_table(client, &request.table).await?;
    let key = exact_key(&table.schema, &request.key)?;
    let stored =
        client.get_encoded(&table, &key, consistency(request.consistent)).await.map_err(api_error)?;
    let stored_bytes = stored.as_ref().map_or(0, |stored| stored.len());
    let answer = move || {
        let mut out = Vec::with_capacity(2 * stored_bytes + 64);
        reply::write_get(&mut out, &request, stored.as_deref()).map_err(malformed)?;
        Ok(Answer::done(out))
    };
    sized(stored_bytes, answer).await
}

/// PutItem.
pub async fn put(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let read = |body: &[u8]| {
        let request = request::PutItem::parse(body)?;
        let item = encode_item(&request.item);
        Ok((request, item))
    };
    let (request, item) = parsed(body, read).await?;
    let table = active_table(client, &request.write.table).await?;
    let key = item_key(&table.schema, &request.item)?;
    let written = ItemWritten { old: None, new: None, new_bytes: stored_item_bytes(&item), named: None };
    write(client, &table, &request.write, &key, Change::Put(&item), written).await
}

/// DeleteItem.
pub async fn delete(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::DeleteItem::parse).await?;
    let table = active_table(client, &request.write.table).await?;
    let key = exact_key(&table.schema, &request.key)?;
    let written = ItemWritten { old: None, new: None, new_bytes: 0, named: None };
    write(client, &table, &request.write, &key, Change::Delete, written).await
}

/// UpdateItem.
pub async fn update(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::UpdateItem::parse).await?;
    let table = active_table(client, &request.write.table).await?;
    let key = exact_key(&table.schema, &request.key)?;
    request.check_key(&table.schema)?;
    let (program, key_item) = (request.update.encode(), encode_item(&request.key));
    let named = request.named();
    let written = ItemWritten { old: None, new: None, new_bytes: 0, named: Some(&named) };
    let change = Change::Update { program: &program, key_item: &key_item };
    write(client, &table, &request.write, &key, change, written).await
}

/// Carries out a write and answers with what it has done, of which `known` is known beforehand.
async fn write(
    client: &Client,
    table: &TableRow,
    request: &WriteRequest,
    key: &[u8],
    change: Change<'_>,
    known: ItemWritten<'_>,
) -> Result<Answer, ApiError> {
    // What is charged depends on both items.
    let charged = request.capacity != Capacity::None;
    let values = request.return_values;
    let is_update = matches!(change, Change::Update { .. });
    let condition = request.condition.as_ref().map(evenkeel_dynamodb::Condition::encode);
    let terms = Terms {
        return_old: charged || matches!(values, ReturnValues::AllOld | ReturnValues::UpdatedOld),
        return_new: (charged && is_update)
            || matches!(values, ReturnValues::AllNew | ReturnValues::UpdatedNew),
        return_old_on_failure: request.return_old_on_failure,
        condition: condition.as_deref(),
        token: None,
    };
    let done = match client.write_encoded(table, key, change, terms).await {
        Ok(done) => done,
        Err(Error::ConditionFailed { old }) => {
            return Err(reply::condition_failed(old.as_deref()).map_err(malformed)?);
        }
        Err(error) => return Err(api_error(error)),
    };
    let written = ItemWritten { old: done.old.as_deref(), new: done.new.as_deref(), ..known };
    let mut out = Vec::with_capacity(64);
    reply::write_written(&mut out, request, &written).map_err(malformed)?;
    Ok(Answer::done(out))
}

/// Query.
pub async fn query(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::Query::parse).await?;
    let table = active_table(client, &request.page.table).await?;
    request.page.check_index()?;
    let range = query_range(&table.schema, &request)?;
    request.check_filter(&table.schema)?;
    page(client, table, request.page, range).await
}

/// Scan.
pub async fn scan(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::Scan::parse).await?;
    let table = active_table(client, &request.page.table).await?;
    request.page.check_index()?;
    let range = scan_range(&table.schema, &request)?;
    page(client, table, request.page, range).await
}

async fn page(
    client: &Client,
    table: Arc<TableRow>,
    asked: ReadPage,
    range: KeyRange,
) -> Result<Answer, ApiError> {
    let request = RangeRequest {
        lower: range.lower,
        upper: range.upper,
        consistency: consistency(asked.consistent),
        reverse: range.reverse,
        items_max: asked.limit.unwrap_or(u32::MAX),
        bytes_max: PAGE_BYTES_MAX as u32,
        filter: asked.filter.as_ref().map(evenkeel_dynamodb::Condition::encode),
    };
    let found = client.range_encoded(&table, &request).await.map_err(api_error)?;
    let found_bytes = usize::try_from(found.scanned_bytes()).unwrap_or(usize::MAX);
    // A page that its limit ended names a last key even where nothing follows, as DynamoDB's do.
    let limited = asked.limit.is_some_and(|limit| found.scanned() >= limit.into());
    let answer = move || {
        let reply = PageReply {
            request: &asked,
            schema: &table.schema,
            scanned: found.scanned(),
            scanned_bytes: found.scanned_bytes(),
            last: found.last_key().filter(|_| found.more || limited),
        };
        let mut out = Vec::with_capacity(ANSWER_BYTES);
        reply::write_page(&mut out, &reply, found.rows().map(|(_, item)| item)).map_err(malformed)?;
        Ok(Answer::done(out))
    };
    sized(found_bytes, answer).await
}
