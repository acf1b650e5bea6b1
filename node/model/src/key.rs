//! Keys of items: what a table's key schema says, and the one order-preserving encoding of a key.
//!
//! An encoded key is what trees, partitions and routes compare, as bytes:
//!
//! | part | bytes |
//! |---|---|
//! | hash of the partition key | xxh3-64 of its encoding, big-endian |
//! | partition key | type tag, then the value's encoding |
//! | index id | 0 = the table itself |
//! | sort key, where the table has one | type tag, then the value's encoding |
//!
//! Strings and binaries are their bytes with 0x00 written as 0x00 0xFF, ended by 0x00 0x01; numbers
//! are encoded by [`Number::encode_key`]. The whole encoding is part of the disk format and frozen.

use crate::number::Number;
use crate::value::{AttributeValue, Attributes};
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The index id of the table itself; others are local secondary indexes.
pub const INDEX_TABLE: u8 = 0;

const ESCAPED: u8 = 0x00;
const ESCAPE_MARK: u8 = 0xFF;
const TERMINATOR: [u8; 2] = [0x00, 0x01];

/// The type of a key attribute.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// String.
    S,
    /// Number.
    N,
    /// Binary.
    B,
}

impl KeyType {
    /// The type's name in DynamoDB's JSON.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::S => "S",
            KeyType::N => "N",
            KeyType::B => "B",
        }
    }

    /// The type of this name, `S`, `N` or `B`.
    pub fn from_name(name: &str) -> Option<KeyType> {
        match name {
            "S" => Some(KeyType::S),
            "N" => Some(KeyType::N),
            "B" => Some(KeyType::B),
            _ => None,
        }
    }
}

impl From<&ArchivedKeyType> for KeyType {
    fn from(archived: &ArchivedKeyType) -> Self {
        match archived {
            ArchivedKeyType::S => KeyType::S,
            ArchivedKeyType::N => KeyType::N,
            ArchivedKeyType::B => KeyType::B,
        }
    }
}

/// One attribute of a key.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct KeyAttribute {
    /// The attribute's name.
    pub name: String,
    /// Its type.
    pub key_type: KeyType,
}

/// Which attributes identify an item of a table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct KeySchema {
    /// The partition key (HASH).
    pub partition: KeyAttribute,
    /// The sort key (RANGE), where the table has one.
    pub sort: Option<KeyAttribute>,
}

/// A value of a key attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyValue {
    /// String.
    S(String),
    /// Number.
    N(Number),
    /// Binary.
    B(Vec<u8>),
}

impl KeyValue {
    /// The key value of an attribute of the wanted type; nothing if it is of another.
    pub fn from_attribute(value: &AttributeValue, wanted: KeyType) -> Option<KeyValue> {
        match (value, wanted) {
            (AttributeValue::S(text), KeyType::S) => Some(KeyValue::S(text.clone())),
            (AttributeValue::N(number), KeyType::N) => Some(KeyValue::N(*number)),
            (AttributeValue::B(bytes), KeyType::B) => Some(KeyValue::B(bytes.clone())),
            _ => None,
        }
    }

    /// The value as an attribute.
    pub fn to_attribute(&self) -> AttributeValue {
        match self {
            KeyValue::S(text) => AttributeValue::S(text.clone()),
            KeyValue::N(number) => AttributeValue::N(*number),
            KeyValue::B(bytes) => AttributeValue::B(bytes.clone()),
        }
    }

    /// The value's size in bytes, as DynamoDB's limits on keys count it.
    pub fn size_bytes(&self) -> usize {
        match self {
            KeyValue::S(text) => text.len(),
            KeyValue::N(number) => number.size_bytes(),
            KeyValue::B(bytes) => bytes.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_open(out);
        if !matches!(self, KeyValue::N(_)) {
            out.extend_from_slice(&TERMINATOR);
        }
    }

    /// Tag and value without the terminator: the common prefix of all strings that begin with this one.
    fn encode_open(&self, out: &mut Vec<u8>) {
        match self {
            KeyValue::S(text) => encode_bytes(b'S', text.as_bytes(), out),
            KeyValue::B(bytes) => encode_bytes(b'B', bytes, out),
            KeyValue::N(number) => {
                out.push(b'N');
                number.encode_key(out);
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<(KeyValue, &[u8])> {
        let (&tag, rest) = bytes.split_first()?;
        match tag {
            b'N' => Number::decode_key(rest).map(|(number, rest)| (KeyValue::N(number), rest)),
            b'S' => {
                let (raw, rest) = decode_bytes(rest)?;
                String::from_utf8(raw).ok().map(|text| (KeyValue::S(text), rest))
            }
            b'B' => decode_bytes(rest).map(|(raw, rest)| (KeyValue::B(raw), rest)),
            _ => None,
        }
    }
}

fn encode_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    for &byte in bytes {
        out.push(byte);
        if byte == ESCAPED {
            out.push(ESCAPE_MARK);
        }
    }
}

fn decode_bytes(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut raw = Vec::new();
    let mut at = 0;
    loop {
        let byte = *bytes.get(at)?;
        if byte == ESCAPED {
            match *bytes.get(at + 1)? {
                ESCAPE_MARK => at += 1,
                mark if mark == TERMINATOR[1] => return Some((raw, &bytes[at + 2..])),
                _ => return None,
            }
        }
        raw.push(byte);
        at += 1;
    }
}

/// The encoded key of an item.
pub fn encode_key(partition: &KeyValue, sort: Option<&KeyValue>) -> Vec<u8> {
    let mut key = collection_prefix(partition);
    if let Some(sort) = sort {
        sort.encode(&mut key);
    }
    key
}

/// The encoded key of an item with these attributes; nothing if a key attribute is absent or of another type.
pub fn encode_item_key(schema: &KeySchema, attributes: &Attributes) -> Option<Vec<u8>> {
    let value = |of: &KeyAttribute| KeyValue::from_attribute(attributes.get(&of.name)?, of.key_type);
    let partition = value(&schema.partition)?;
    match &schema.sort {
        None => Some(encode_key(&partition, None)),
        Some(sort) => Some(encode_key(&partition, Some(&value(sort)?))),
    }
}

/// What the encoded keys of all items with this partition key begin with.
pub fn collection_prefix(partition: &KeyValue) -> Vec<u8> {
    let mut key = vec![0; 8];
    partition.encode(&mut key);
    let hash = xxh3_64(&key[8..]);
    key[..8].copy_from_slice(&hash.to_be_bytes());
    key.push(INDEX_TABLE);
    key
}

/// What the encoded keys of all items with this partition key and a sort key that begins with `start` begin with.
pub fn sort_prefix(partition: &KeyValue, start: &KeyValue) -> Vec<u8> {
    let mut key = collection_prefix(partition);
    start.encode_open(&mut key);
    key
}

/// The least byte string greater than every one that begins with `prefix`; nothing if there is none.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// The partition and sort key of an encoded key; nothing if it is malformed.
pub fn decode_key(key: &[u8]) -> Option<(KeyValue, Option<KeyValue>)> {
    let (partition, rest) = KeyValue::decode(key.get(8..)?)?;
    let hash = u64::from_be_bytes(key[..8].try_into().expect("eight bytes"));
    let encoded_bytes = key.len() - 8 - rest.len();
    let (&index, rest) = rest.split_first()?;
    if index != INDEX_TABLE || hash != xxh3_64(&key[8..8 + encoded_bytes]) {
        return None;
    }
    if rest.is_empty() {
        return Some((partition, None));
    }
    let (sort, rest) = KeyValue::decode(rest)?;
    rest.is_empty().then_some((partition, Some(sort)))
}

/// The lower bounds of `count` partitions that share the space of hashes evenly; the first is empty.
pub fn even_bounds(count: usize) -> Vec<Vec<u8>> {
    assert!(count > 0, "a table has at least one partition");
    (0..count as u64).map(|index| even_bound(index, count as u64)).collect()
}

/// The lower bound of one of `count` shares of the space of hashes; the first is empty.
pub fn even_bound(index: u64, count: u64) -> Vec<u8> {
    if index == 0 { Vec::new() } else { (u64::MAX / count * index).to_be_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> KeyValue {
        KeyValue::S(value.to_owned())
    }

    #[test]
    fn the_key_encoding_of_version_1_is_frozen() {
        let key = encode_key(&text("a\0b"), Some(&KeyValue::N(Number::from(7))));
        let hex = crate::hex::Hex(&key).to_string();
        assert_eq!(hex, "32a73e9dba069643536100ff620001004e03824700");
        assert_eq!(decode_key(&key), Some((text("a\0b"), Some(KeyValue::N(Number::from(7))))));
    }

    #[test]
    fn a_prefix_covers_what_begins_with_it_and_nothing_else() {
        let prefix = sort_prefix(&text("p"), &text("ab"));
        let end = successor(&prefix).unwrap();
        let inside =
            |sort: &str| (prefix.clone()..end.clone()).contains(&encode_key(&text("p"), Some(&text(sort))));
        assert!(inside("ab") && inside("ab\0") && inside("abc") && inside("ab\u{10ffff}"));
        assert!(!inside("a") && !inside("ac") && !inside("aa\u{10ffff}") && !inside(""));
    }

    #[test]
    fn successors_skip_bytes_that_cannot_rise() {
        assert_eq!(successor(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(successor(&[1, 255]), Some(vec![2]));
        assert_eq!(successor(&[255]), None);
    }

    fn any_value() -> impl Strategy<Value = KeyValue> {
        prop_oneof![
            proptest::collection::vec(0u8..4, 0..6).prop_map(KeyValue::B),
            "[\\x00-\\x02a]{0,5}".prop_map(KeyValue::S),
            any::<u64>().prop_map(|n| KeyValue::N(Number::from(n))),
        ]
    }

    proptest! {
        #[test]
        fn keys_come_back(partition in any_value(), sort in proptest::option::of(any_value())) {
            let key = encode_key(&partition, sort.as_ref());
            prop_assert_eq!(decode_key(&key), Some((partition, sort)));
        }

        #[test]
        fn sort_keys_of_one_type_compare_as_bytes(a in proptest::collection::vec(0u8..4, 0..6), b in proptest::collection::vec(0u8..4, 0..6)) {
            let key = |bytes: &[u8]| encode_key(&text("p"), Some(&KeyValue::B(bytes.to_vec())));
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_key(&bytes);
        }
    }
}
