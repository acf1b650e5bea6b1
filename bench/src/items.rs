//! The items that every phase writes and reads, as the native client and as HTTP have them.
//!
//! After each acknowledged put it is known exactly what a get must return, in whichever way either was asked.

pub use crate::plain::{ITEMS, Numbers, Template};

use crate::plain::{KEY_NAME, NUMBER_MARK, VALUE_NAME, value};
use evenkeel_client::StoredItem;
use evenkeel_model::item::HEADER_BYTES;
use evenkeel_model::{AttributeValue, Attributes, KeyAttribute, KeySchema, KeyType, encode_item};
use evenkeel_model::{KeyValue, key::encode_key};
use std::sync::atomic::{AtomicU32, Ordering};

/// The table that the bench makes.
pub const TABLE: &str = "bench";
/// Version of an item of which a put failed, so that it may be there or not.
const UNKNOWN: u32 = u32::MAX;

/// What identifies the items.
pub fn schema() -> KeySchema {
    KeySchema { partition: KeyAttribute { name: KEY_NAME.to_owned(), key_type: KeyType::S }, sort: None }
}

fn attributes() -> Attributes {
    Attributes::from_iter([
        (KEY_NAME, AttributeValue::S(NUMBER_MARK.to_owned())),
        (VALUE_NAME, AttributeValue::S(value())),
    ])
}

/// The encoded key of an item.
pub fn encoded_key(number: u32) -> Vec<u8> {
    encode_key(&KeyValue::S(format!("{number:010}")), None)
}

impl Template {
    /// The stored form of the items.
    pub fn encoded_item() -> Template {
        Template::new(encode_item(&attributes()))
    }
}

/// Body of a PutItem, with marks.
pub fn put_body() -> String {
    format!(r#"{{"TableName":"{TABLE}","Item":{}}}"#, json_item())
}

/// Body of a GetItem, with marks.
pub fn get_body() -> String {
    format!(
        r#"{{"TableName":"{TABLE}","Key":{{"{KEY_NAME}":{{"S":"{NUMBER_MARK}"}}}},"ConsistentRead":true}}"#
    )
}

/// Body of the answer to a GetItem, with marks.
pub fn got_body() -> String {
    format!(r#"{{"Item":{}}}"#, json_item())
}

fn json_item() -> String {
    format!(r#"{{"{KEY_NAME}":{{"S":"{NUMBER_MARK}"}},"{VALUE_NAME}":{{"S":"{}"}}}}"#, value())
}

/// Whether a stored item is the one that was put: all but what the partition stamps into it.
pub fn is_same(put: &[u8], got: &StoredItem) -> bool {
    let stamps = 8..24;
    put.len() == got.len()
        && got.len() >= HEADER_BYTES
        && put[..stamps.start] == got[..stamps.start]
        && put[stamps.end..] == got[stamps.end..]
}

/// The version of every item that was acknowledged last.
#[derive(Debug)]
pub struct Versions(Vec<AtomicU32>);

impl Versions {
    /// All items at version 0, which is to be put first.
    pub fn new() -> Versions {
        Versions((0..ITEMS).map(|_| AtomicU32::new(0)).collect())
    }

    /// The version to put next.
    pub fn next(&self, number: u32) -> u32 {
        match self.0[number as usize].load(Ordering::Relaxed) {
            // Higher than any that was put: versions count puts of one item.
            UNKNOWN => UNKNOWN / 2,
            version => version + 1,
        }
    }

    /// A put was acknowledged.
    pub fn acknowledged(&self, number: u32, version: u32) {
        self.0[number as usize].store(version, Ordering::Relaxed);
    }

    /// A put failed: the item may have either version.
    pub fn doubtful(&self, number: u32) {
        self.0[number as usize].store(UNKNOWN, Ordering::Relaxed);
    }

    /// What a get must return; nothing if that is not known.
    pub fn current(&self, number: u32) -> Option<u32> {
        Some(self.0[number as usize].load(Ordering::Relaxed)).filter(|version| *version != UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::{ITEM_BYTES, VERSION_MARK};
    use evenkeel_model::ItemView;

    #[test]
    fn filled_templates_are_the_items_that_encoding_makes() {
        let made = Attributes::from_iter([
            (KEY_NAME, AttributeValue::S("0000000042".to_owned())),
            (VALUE_NAME, AttributeValue::S(value().replace(VERSION_MARK, "0000000007"))),
        ]);
        let mut template = Template::encoded_item();
        let filled = template.fill(42, 7);
        assert_eq!(filled, encode_item(&made));
        let view = ItemView::check(filled).unwrap();
        assert_eq!(view.header().item_bytes as usize, ITEM_BYTES);
        for body in [put_body(), got_body(), get_body()] {
            let mut template = Template::new(body.into_bytes());
            let text = String::from_utf8(template.fill(1, 2).to_vec()).unwrap();
            assert!(text.contains("0000000001") && !text.contains(NUMBER_MARK), "{text}");
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
}
