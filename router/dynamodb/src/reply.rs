//! Answers, written straight into the buffer that is sent, from stored items that are read in place.

use crate::error::{ApiError, ErrorKind};
use crate::expression::Projection;
use crate::request::{
    AskedProjection, BatchKeys, BatchWrite, Capacity, GetItem, ReadPage, ReturnValues, WriteRequest,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_model::item::stored_item_bytes;
use evenkeel_model::key::decode_key;
use evenkeel_model::{
    ArchivedAttribute, ArchivedAttributeValue, Attributes, ItemError, ItemView, KeySchema, Number,
    encode_item,
};
use std::io::Write as _;

mod projected;
mod tables;

pub use tables::*;

/// The account in every ARN.
pub(crate) const ACCOUNT: &str = "000000000000";
/// Bytes of one read capacity unit.
const READ_UNIT_BYTES: u64 = 4096;
/// Bytes of one write capacity unit.
const WRITE_UNIT_BYTES: u64 = 1024;

/// Writes a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut clean = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[clean..at]);
        clean = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => push(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.extend_from_slice(&text.as_bytes()[clean..]);
    out.push(b'"');
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}

/// Writes a comma-separated list between two brackets.
fn write_list<T>(
    out: &mut Vec<u8>,
    [open, close]: [u8; 2],
    list: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.push(open);
    for (index, element) in list.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(close);
}

/// Writes attributes as a JSON object.
pub fn write_attributes(out: &mut Vec<u8>, attributes: &[ArchivedAttribute]) {
    write_list(out, *b"{}", attributes, write_attribute);
}

fn write_attribute(out: &mut Vec<u8>, attribute: &ArchivedAttribute) {
    write_string(out, &attribute.name);
    out.push(b':');
    write_value(out, &attribute.value);
}

fn write_number(out: &mut Vec<u8>, number: &evenkeel_model::number::ArchivedNumber) {
    // Checked when the item was written.
    let number = Number::from_archived(number).unwrap_or(Number::ZERO);
    push(out, format_args!("\"{number}\""));
}

fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the room was measured above");
    out.push(b'"');
}

fn write_value(out: &mut Vec<u8>, value: &ArchivedAttributeValue) {
    match value {
        ArchivedAttributeValue::S(text) => {
            out.extend_from_slice(b"{\"S\":");
            write_string(out, text);
        }
        ArchivedAttributeValue::N(number) => {
            out.extend_from_slice(b"{\"N\":");
            write_number(out, number);
        }
        ArchivedAttributeValue::B(bytes) => {
            out.extend_from_slice(b"{\"B\":");
            write_binary(out, bytes);
        }
        ArchivedAttributeValue::Bool(flag) => push(out, format_args!("{{\"BOOL\":{flag}")),
        ArchivedAttributeValue::Null => out.extend_from_slice(b"{\"NULL\":true"),
        ArchivedAttributeValue::M(entries) => {
            out.extend_from_slice(b"{\"M\":");
            write_attributes(out, entries);
        }
        ArchivedAttributeValue::L(elements) => {
            out.extend_from_slice(b"{\"L\":");
            write_list(out, *b"[]", elements.iter(), write_value);
        }
        ArchivedAttributeValue::Ss(texts) => {
            out.extend_from_slice(b"{\"SS\":");
            write_list(out, *b"[]", texts.iter(), |out, text| write_string(out, text));
        }
        ArchivedAttributeValue::Ns(numbers) => {
            out.extend_from_slice(b"{\"NS\":");
            write_list(out, *b"[]", numbers.iter(), write_number);
        }
        ArchivedAttributeValue::Bs(blobs) => {
            out.extend_from_slice(b"{\"BS\":");
            write_list(out, *b"[]", blobs.iter(), |out, bytes| write_binary(out, bytes));
        }
    }
    out.push(b'}');
}

/// Capacity units that a read of this many bytes consumes, in halves.
pub fn read_half_units(bytes: u64, consistent: bool) -> u64 {
    bytes.div_ceil(READ_UNIT_BYTES).max(1) * if consistent { 2 } else { 1 }
}

/// Capacity units that a write consumes, in halves: it is charged on the larger of old and new item.
pub fn write_half_units(bytes: u64) -> u64 {
    bytes.div_ceil(WRITE_UNIT_BYTES).max(1) * 2
}

fn write_capacity(out: &mut Vec<u8>, table: &str, capacity: Capacity, half_units: u64) {
    let units = half_units as f64 / 2.0;
    out.extend_from_slice(b"{\"TableName\":");
    write_string(out, table);
    push(out, format_args!(",\"CapacityUnits\":{units:?}"));
    if capacity == Capacity::Indexes {
        push(out, format_args!(",\"Table\":{{\"CapacityUnits\":{units:?}}}"));
    }
    out.push(b'}');
}

/// Begins a member of the answer's object.
fn member(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    push(out, format_args!("\"{name}\":"));
}

fn consumed(out: &mut Vec<u8>, table: &str, capacity: Capacity, half_units: u64) {
    if capacity != Capacity::None {
        member(out, "ConsumedCapacity");
        write_capacity(out, table, capacity, half_units);
    }
}

/// Writes the parts of an item that are wanted.
fn write_item(out: &mut Vec<u8>, item: &ItemView<'_>, projection: Option<&Projection>) {
    match projection {
        None => write_attributes(out, item.attributes()),
        Some(projection) => projected::write_entries(out, item.attributes(), projection),
    }
}

/// Writes the answer of GetItem.
///
/// # Errors
/// A stored item that is malformed.
pub fn write_get(out: &mut Vec<u8>, request: &GetItem, stored: Option<&[u8]>) -> Result<(), ItemError> {
    out.push(b'{');
    let mut bytes = 0;
    if let Some(stored) = stored {
        let view = ItemView::parse(stored)?;
        bytes = u64::from(view.header().item_bytes);
        member(out, "Item");
        write_item(out, &view, request.projection.as_ref());
    }
    consumed(out, &request.table, request.capacity, read_half_units(bytes, request.consistent));
    out.push(b'}');
    Ok(())
}

/// What a write has done to its item.
pub struct ItemWritten<'a> {
    /// The item before, if it was asked for and there was one.
    pub old: Option<&'a [u8]>,
    /// The item afterwards, if it was asked for and there is one.
    pub new: Option<&'a [u8]>,
    /// The size of the item afterwards, where that is known without it.
    pub new_bytes: u64,
    /// What an update names.
    pub named: Option<&'a Projection>,
}

/// Writes the answer of PutItem, DeleteItem and UpdateItem.
///
/// # Errors
/// A stored item that is malformed.
pub fn write_written(
    out: &mut Vec<u8>,
    request: &WriteRequest,
    written: &ItemWritten<'_>,
) -> Result<(), ItemError> {
    out.push(b'{');
    let (returned, projection) = match request.return_values {
        ReturnValues::None => (None, None),
        ReturnValues::AllOld => (written.old, None),
        ReturnValues::AllNew => (written.new, None),
        ReturnValues::UpdatedOld => (written.old, written.named),
        ReturnValues::UpdatedNew => (written.new, written.named),
    };
    if let Some(stored) = returned {
        let view = ItemView::parse(stored)?;
        if projection.is_none_or(|projection| projected::any(view.attributes(), projection)) {
            member(out, "Attributes");
            write_item(out, &view, projection);
        }
    }
    let sizes = [written.old, written.new].map(|stored| stored.map_or(0, stored_item_bytes));
    let bytes = written.new_bytes.max(sizes[0]).max(sizes[1]);
    consumed(out, &request.table, request.capacity, write_half_units(bytes));
    out.push(b'}');
    Ok(())
}

/// The error that a condition does not hold; carries the item where that was asked for.
///
/// # Errors
/// A stored item that is malformed.
pub fn condition_failed(stored: Option<&[u8]>) -> Result<ApiError, ItemError> {
    let mut error = ApiError::new(ErrorKind::ConditionalCheckFailed, "The conditional request failed");
    if let Some(stored) = stored {
        let mut json = Vec::new();
        write_attributes(&mut json, ItemView::parse(stored)?.attributes());
        error.item = Some(String::from_utf8(json).expect("JSON is UTF-8"));
    }
    Ok(error)
}

/// What a page of Query or Scan has found.
pub struct PageReply<'a> {
    /// What was asked for.
    pub request: &'a ReadPage,
    /// What identifies the table's items.
    pub schema: &'a KeySchema,
    /// How many items were looked at.
    pub scanned: u64,
    /// Their size.
    pub scanned_bytes: u64,
    /// The encoded key of the item looked at last, if there may be more behind it.
    pub last: Option<&'a [u8]>,
}

/// Writes the answer of Query and Scan.
///
/// # Errors
/// A stored item that is malformed.
pub fn write_page<'a>(
    out: &mut Vec<u8>,
    reply: &PageReply<'_>,
    items: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(), ItemError> {
    let request = reply.request;
    out.push(b'{');
    if !request.count_only {
        out.extend_from_slice(b"\"Items\":[");
    }
    let mut count = 0u64;
    for stored in items {
        if !request.count_only {
            if count > 0 {
                out.push(b',');
            }
            write_item(out, &ItemView::parse(stored)?, request.projection.as_ref());
        }
        count += 1;
    }
    if !request.count_only {
        out.push(b']');
    }
    member(out, "Count");
    push(out, format_args!("{count},\"ScannedCount\":{}", reply.scanned));
    if let Some((partition, sort)) = reply.last.and_then(decode_key) {
        let names = std::iter::once(&reply.schema.partition).chain(&reply.schema.sort);
        let values = std::iter::once(partition).chain(sort);
        let key = names.zip(values).map(|(attribute, value)| (attribute.name.as_str(), value.to_attribute()));
        member(out, "LastEvaluatedKey");
        write_model(out, &key.collect());
    }
    let half_units = read_half_units(reply.scanned_bytes, request.consistent);
    consumed(out, &request.table, request.capacity, half_units);
    out.push(b'}');
    Ok(())
}

/// Writes the answer of BatchWriteItem: what was not done, and the units of each table.
pub fn write_batch(
    out: &mut Vec<u8>,
    unprocessed: &[(&str, Vec<&BatchWrite>)],
    capacity: Capacity,
    half_units: &[(&str, u64)],
) {
    out.extend_from_slice(b"{\"UnprocessedItems\":");
    write_list(out, *b"{}", unprocessed, |out, (table, writes)| {
        write_string(out, table);
        out.push(b':');
        write_list(out, *b"[]", writes, |out, write| match write {
            BatchWrite::Put(item) => write_request(out, "{\"PutRequest\":{\"Item\":", item),
            BatchWrite::Delete(key) => write_request(out, "{\"DeleteRequest\":{\"Key\":", key),
        });
    });
    if capacity != Capacity::None {
        member(out, "ConsumedCapacity");
        write_list(out, *b"[]", half_units, |out, (table, units)| {
            write_capacity(out, table, capacity, *units)
        });
    }
    out.push(b'}');
}

/// What was read of one table for BatchGetItem.
pub struct GotOfTable<I> {
    /// The items that are there.
    pub items: Vec<I>,
    /// Capacity units consumed, in halves.
    pub half_units: u64,
    /// Places of the keys that were not read.
    pub left: Vec<usize>,
}

/// Writes the answer of BatchGetItem: of each table what was asked for, and what was read.
///
/// # Errors
/// A stored item that is malformed.
pub fn write_batch_get<I: std::ops::Deref<Target = [u8]>>(
    out: &mut Vec<u8>,
    capacity: Capacity,
    asked: &[BatchKeys],
    got: &[GotOfTable<I>],
) -> Result<(), ItemError> {
    out.extend_from_slice(b"{\"Responses\":{");
    let tables = || asked.iter().zip(got);
    for (index, (asked, got)) in tables().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, &asked.table);
        out.extend_from_slice(b":[");
        for (index, stored) in got.items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_item(out, &ItemView::parse(stored)?, asked.projection.as_ref());
        }
        out.push(b']');
    }
    out.extend_from_slice(b"},\"UnprocessedKeys\":");
    let left = tables().filter(|(_, got)| !got.left.is_empty());
    write_list(out, *b"{}", left, |out, (asked, got)| {
        write_string(out, &asked.table);
        out.extend_from_slice(b":{\"Keys\":");
        write_list(out, *b"[]", &got.left, |out, left| write_model(out, &asked.keys[*left]));
        push(out, format_args!(",\"ConsistentRead\":{}", asked.consistent));
        write_asked_projection(out, &asked.asked);
        out.push(b'}');
    });
    if capacity != Capacity::None {
        member(out, "ConsumedCapacity");
        write_list(out, *b"[]", tables(), |out, (asked, got)| {
            write_capacity(out, &asked.table, capacity, got.half_units)
        });
    }
    out.push(b'}');
    Ok(())
}

fn write_asked_projection(out: &mut Vec<u8>, asked: &AskedProjection) {
    if let Some(expression) = &asked.expression {
        member(out, "ProjectionExpression");
        write_string(out, expression);
    }
    if !asked.names.is_empty() {
        member(out, "ExpressionAttributeNames");
        write_list(out, *b"{}", &asked.names, |out, (key, name)| {
            write_string(out, key);
            out.push(b':');
            write_string(out, name);
        });
    }
    if let Some(attributes) = &asked.attributes {
        member(out, "AttributesToGet");
        write_list(out, *b"[]", attributes, |out, name| write_string(out, name));
    }
}

/// Writes attributes that are not stored.
fn write_model(out: &mut Vec<u8>, attributes: &Attributes) {
    let stored = encode_item(attributes);
    let view = ItemView::parse(&stored).expect("encoded on the line above");
    write_attributes(out, view.attributes());
}

fn write_request(out: &mut Vec<u8>, opening: &str, attributes: &Attributes) {
    out.extend_from_slice(opening.as_bytes());
    write_model(out, attributes);
    out.extend_from_slice(b"}}");
}
