//! Every limit of the data model, with its unit; relations between them are proved at compile time.
//!
//! Source: "Quotas and limits in Amazon DynamoDB" in its developer guide. Limits of the log, the wire
//! and the front stand in `limits.rs` of their own crates, and those that depend on these assert it.

/// Largest item: names and values by DynamoDB's size rules.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// Largest partition key value.
pub const PARTITION_KEY_BYTES_MAX: usize = 2048;
/// Largest sort key value.
pub const SORT_KEY_BYTES_MAX: usize = 1024;
/// Deepest nesting of lists and maps.
pub const NESTING_LEVELS_MAX: usize = 32;
/// Longest attribute name.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 65_535;
/// Longest name of a key attribute.
pub const KEY_ATTRIBUTE_NAME_BYTES_MAX: usize = 255;
/// Shortest and longest table name.
pub const TABLE_NAME_BYTES_MIN: usize = 3;
/// See [`TABLE_NAME_BYTES_MIN`].
pub const TABLE_NAME_BYTES_MAX: usize = 255;
/// Tags of one table.
pub const TAGS_MAX: usize = 50;
/// Characters of a tag's key, at most.
pub const TAG_KEY_CHARACTERS_MAX: usize = 128;
/// Characters of a tag's value, at most.
pub const TAG_VALUE_CHARACTERS_MAX: usize = 256;
/// Most data that one page of Query or Scan reads, before any filter.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most writes in one BatchWriteItem.
pub const BATCH_WRITE_ITEMS_MAX: usize = 25;
/// Most segments of a parallel scan.
pub const SCAN_SEGMENTS_MAX: u32 = 1_000_000;
/// Most keys in one BatchGetItem.
pub const BATCH_GET_KEYS_MAX: usize = 100;
/// Most data in the answer of one BatchGetItem, by item sizes.
pub const BATCH_GET_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Largest HTTP request body, and largest sum of a batch.
pub const REQUEST_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest expression text.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// Bytes of all values that the expressions of one request refer to.
pub const EXPRESSION_VALUES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Largest encoded item key: hash, two type tags, every byte of both keys escaped, two terminators, index id.
pub const ENCODED_KEY_BYTES_MAX: usize =
    8 + 1 + 2 * PARTITION_KEY_BYTES_MAX + 2 + 1 + 1 + 2 * SORT_KEY_BYTES_MAX + 2;
/// Largest stored item: header and archive. The worst an archive can do is nine bytes for each byte of
/// an item, a list of empty strings; `item::tests` builds it.
pub const STORED_ITEM_BYTES_MAX: usize = 10 * ITEM_BYTES_MAX;

const _: () = assert!(PAGE_BYTES_MAX > 2 * ITEM_BYTES_MAX, "a page holds an item at the limit");
const _: () = assert!(REQUEST_BODY_BYTES_MAX > BATCH_WRITE_ITEMS_MAX * ITEM_BYTES_MAX);
