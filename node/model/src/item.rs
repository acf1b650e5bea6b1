//! Stored items: a fixed header and the attributes as an archive that is read in place.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | format version, 1 |
//! | 2 | 2 | flags, 0 |
//! | 4 | 4 | item size by DynamoDB's rules |
//! | 8 | 8 | write timestamp |
//! | 16 | 8 | slot |
//! | 24 | 8 | reserved, 0 |
//! | 32 | … | rkyv archive of the attributes, its root at the end |
//!
//! All integers are little-endian. The client encodes the item once and leaves timestamp and slot zero;
//! the partition that orders the write stamps them. From then on the bytes never change.

use crate::ids::Slot;
use crate::limits;
use crate::time::Timestamp;
use crate::value::{ArchivedAttribute, Attributes, checked_attributes_bytes};
use rkyv::rancor;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::vec::ArchivedVec;

/// Bytes of the header of a stored item.
pub const HEADER_BYTES: usize = 32;
const VERSION: u16 = 1;

/// How deep an archive of an allowed item nests: two sub-objects a level, and the root.
const ARCHIVE_DEPTH_MAX: usize = 2 * limits::NESTING_LEVELS_MAX + 4;

/// The fields of a stored item's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHeader {
    /// Item size by DynamoDB's rules, in bytes.
    pub item_bytes: u32,
    /// When the write was ordered.
    pub timestamp: Timestamp,
    /// Where the write stands in its partition's log.
    pub slot: Slot,
}

/// Why bytes are not a stored item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Shorter than a header.
    #[error("a stored item has at least {HEADER_BYTES} bytes, not {0}")]
    Short(usize),
    /// A format this program does not know.
    #[error("stored item of unknown format version {0}; this program reads version {VERSION}")]
    Version(u16),
    /// The archive is not one of attributes.
    #[error("malformed attributes: {0}")]
    Malformed(String),
    /// Over the limit of an item.
    #[error("item of {0} bytes exceeds {max} bytes", max = limits::ITEM_BYTES_MAX)]
    TooLarge(usize),
}

/// Encodes an item; timestamp and slot are left zero for the partition to stamp.
pub fn encode_item(attributes: &Attributes) -> Vec<u8> {
    let mut bytes = vec![0u8; HEADER_BYTES];
    bytes[0..2].copy_from_slice(&VERSION.to_le_bytes());
    let item_bytes = u32::try_from(attributes.size_bytes()).unwrap_or(u32::MAX);
    bytes[4..8].copy_from_slice(&item_bytes.to_le_bytes());
    let result: Result<Vec<u8>, rancor::Panic> =
        rkyv::api::high::to_bytes_in(attributes.archived_form(), bytes);
    match result {
        Ok(bytes) => bytes,
    }
}

/// Size by DynamoDB's rules of a stored item, read from its header. Bytes too short to be one count as they are.
pub fn stored_item_bytes(stored: &[u8]) -> u64 {
    match stored.get(4..8) {
        Some(field) if stored.len() >= HEADER_BYTES => {
            u64::from(u32::from_le_bytes(field.try_into().expect("four bytes")))
        }
        _ => stored.len() as u64,
    }
}

/// Writes timestamp, slot and the checked size into an encoded item.
pub fn stamp_item(bytes: &mut [u8], header: StoredHeader) {
    bytes[4..8].copy_from_slice(&header.item_bytes.to_le_bytes());
    bytes[8..16].copy_from_slice(&header.timestamp.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.slot.0.to_le_bytes());
}

/// A stored item, checked, read in place.
#[derive(Clone, Copy)]
pub struct ItemView<'a> {
    header: StoredHeader,
    attributes: &'a ArchivedVec<ArchivedAttribute>,
}

impl<'a> ItemView<'a> {
    /// Checks structure, order and numbers of bytes from outside and measures them.
    ///
    /// # Errors
    /// Anything that [`encode_item`] would not have produced, and items over the limit.
    pub fn check(bytes: &'a [u8]) -> Result<ItemView<'a>, ItemError> {
        let mut view = ItemView::parse(bytes)?;
        let item_bytes = checked_attributes_bytes(view.attributes)
            .ok_or_else(|| ItemError::Malformed("a name, set or number out of order".to_owned()))?;
        if item_bytes > limits::ITEM_BYTES_MAX {
            return Err(ItemError::TooLarge(item_bytes));
        }
        view.header.item_bytes = u32::try_from(item_bytes).expect("within the limit of an item");
        Ok(view)
    }

    /// Checks the archive's structure only: enough for bytes that [`ItemView::check`] let in.
    ///
    /// # Errors
    /// Anything that is not a header and an archive of attributes.
    pub fn parse(bytes: &'a [u8]) -> Result<ItemView<'a>, ItemError> {
        if bytes.len() < HEADER_BYTES {
            return Err(ItemError::Short(bytes.len()));
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let version = u16::from_le_bytes([bytes[0], bytes[1]]);
        if version != VERSION {
            return Err(ItemError::Version(version));
        }
        let header = StoredHeader {
            item_bytes: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
            timestamp: Timestamp(u64_at(8)),
            slot: Slot(u64_at(16)),
        };
        let archive = &bytes[HEADER_BYTES..];
        let depth = std::num::NonZeroUsize::new(ARCHIVE_DEPTH_MAX);
        let mut validator =
            Validator::new(ArchiveValidator::with_max_depth(archive, depth), SharedValidator::new());
        let attributes = rkyv::api::access_with_context::<ArchivedVec<ArchivedAttribute>, _, rancor::Error>(
            archive,
            &mut validator,
        )
        .map_err(|error| ItemError::Malformed(error.to_string()))?;
        Ok(ItemView { header, attributes })
    }

    /// The header; after [`ItemView::check`] its size is the measured one.
    pub fn header(&self) -> StoredHeader {
        self.header
    }

    /// The attributes, sorted by name.
    pub fn attributes(&self) -> &'a [ArchivedAttribute] {
        self.attributes
    }

    /// The attribute of this name.
    pub fn get(&self, name: &str) -> Option<&'a ArchivedAttribute> {
        let at = self.attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name)).ok()?;
        Some(&self.attributes[at])
    }

    /// The attributes as values of their own, off the read path.
    pub fn to_attributes(&self) -> Attributes {
        self.attributes.iter().map(|a| (a.name.as_str(), a.value.to_value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Number;
    use crate::value::{Attribute, AttributeValue};
    use proptest::prelude::*;

    fn everything() -> Attributes {
        let number = |text: &str| Number::parse(text).unwrap();
        let nested =
            vec![Attribute { name: "k".into(), value: AttributeValue::L(vec![AttributeValue::Null]) }];
        Attributes::from_iter([
            ("s", AttributeValue::S("text".into())),
            ("n", AttributeValue::N(number("-1.5"))),
            ("b", AttributeValue::B(vec![0, 255])),
            ("bool", AttributeValue::Bool(true)),
            ("null", AttributeValue::Null),
            ("m", AttributeValue::M(nested)),
            ("l", AttributeValue::L(vec![AttributeValue::S(String::new())])),
            ("ss", AttributeValue::Ss(vec!["a".into(), "b".into()])),
            ("ns", AttributeValue::Ns(vec![number("1"), number("2")])),
            ("bs", AttributeValue::Bs(vec![vec![], vec![1]])),
        ])
    }

    #[test]
    fn an_item_comes_back_as_it_was() {
        let bytes = encode_item(&everything());
        let view = ItemView::check(&bytes).unwrap();
        assert_eq!(view.to_attributes(), everything());
        assert_eq!(view.header().item_bytes as usize, everything().size_bytes());
        assert!(view.get("null").is_some() && view.get("absent").is_none());
    }

    #[test]
    fn the_item_format_of_version_1_is_frozen() {
        let attributes = Attributes::from_iter([
            ("n", AttributeValue::N(Number::parse("12.5").unwrap())),
            ("pk", AttributeValue::S("a longer value".into())),
        ]);
        let mut bytes = encode_item(&attributes);
        stamp_item(&mut bytes, StoredHeader { item_bytes: 20, timestamp: Timestamp(2), slot: Slot(3) });
        assert_eq!(
            crate::hex::Hex(&bytes).to_string(),
            concat!(
                "0100000014000000020000000000000003000000000000000000000000000000",
                "7d000000000000000000000000000000ffff0061206c6f6e6765722076616c75",
                "656effffffffffffff01d6ffffff00000000706bffffffffffff008e000000d8ffffffdeffffff02000000"
            )
        );
        assert_eq!(ItemView::check(&bytes).unwrap().to_attributes(), attributes);
    }

    #[test]
    fn the_worst_item_stays_within_the_stored_limit() {
        let empty_strings = vec![AttributeValue::S(String::new()); limits::ITEM_BYTES_MAX - 8];
        let attributes = Attributes::from_iter([("l", AttributeValue::L(empty_strings))]);
        assert!(attributes.size_bytes() <= limits::ITEM_BYTES_MAX);
        let bytes = encode_item(&attributes);
        assert!(bytes.len() <= limits::STORED_ITEM_BYTES_MAX, "{} bytes", bytes.len());
        assert!(ItemView::check(&bytes).is_ok());
    }

    #[test]
    fn nesting_far_beyond_the_limit_is_refused_without_a_stack_overflow() {
        let mut value = AttributeValue::Null;
        for _ in 0..200 {
            value = AttributeValue::L(vec![value]);
        }
        let bytes = encode_item(&Attributes::from_iter([("l", value)]));
        assert!(matches!(ItemView::check(&bytes), Err(ItemError::Malformed(_))));
    }

    #[test]
    fn the_deepest_allowed_item_is_accepted() {
        let mut value = AttributeValue::Null;
        for level in 0..limits::NESTING_LEVELS_MAX {
            value = match level % 2 {
                0 => AttributeValue::L(vec![value]),
                _ => AttributeValue::M(vec![Attribute { name: "a longer name".into(), value }]),
            };
        }
        assert!(value.nesting_is_allowed());
        let bytes = encode_item(&Attributes::from_iter([("l", value)]));
        assert!(ItemView::check(&bytes).is_ok());
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let mut bytes = encode_item(&everything());
        bytes[0] = 9;
        assert_eq!(ItemView::check(&bytes).err(), Some(ItemError::Version(9)));
    }

    proptest! {
        #[test]
        fn flipped_bytes_never_panic(at in 0usize..400, flip in 1u8..) {
            let mut bytes = encode_item(&everything());
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(view) = ItemView::check(&bytes) {
                view.to_attributes();
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            if bytes.len() > 2 {
                bytes[..2].copy_from_slice(&VERSION.to_le_bytes());
            }
            let _ = ItemView::check(&bytes);
        }
    }
}
