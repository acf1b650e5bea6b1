//! Items as they arrived: slices of the received bytes, read in place.

use bytes::Bytes;
use evenkeel_model::{ItemError, ItemView};
use evenkeel_wire::message::Page;
use evenkeel_wire::{DecodeError, Frame, decode};
use std::fmt;
use std::ops::{Deref, Range};

/// A stored item. It keeps the received datagrams that it is part of; copy it to keep it for long.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredItem(Bytes);

impl StoredItem {
    pub(crate) fn new(bytes: Bytes) -> StoredItem {
        StoredItem(bytes)
    }

    /// The item, read in place.
    ///
    /// # Errors
    /// Bytes that are not a stored item, by a fault of the cluster.
    pub fn view(&self) -> Result<ItemView<'_>, ItemError> {
        ItemView::parse(&self.0)
    }

    /// The item's bytes, as `evenkeel_model::encode_item` made them and the partition stamped them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for StoredItem {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for StoredItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredItem({} bytes)", self.0.len())
    }
}

/// Consecutive items of a range.
#[derive(Clone, Debug, Default)]
pub struct ItemPage {
    parts: Vec<Part>,
    items: usize,
    scanned: u64,
    scanned_bytes: u64,
    /// Whether the page ended at a limit, so that the range may hold more behind the last item; false
    /// if the range has ended.
    pub more: bool,
}

impl ItemPage {
    /// Encoded key and stored item of each row, in the order asked for.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.parts.iter().flat_map(Part::rows)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// How many items were looked at, whether the filter held for them or not.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// The size of the items looked at, by DynamoDB's rules.
    pub fn scanned_bytes(&self) -> u64 {
        self.scanned_bytes
    }

    /// The encoded key of the item looked at last.
    pub fn last_key(&self) -> Option<&[u8]> {
        self.parts.last()?.last()
    }

    pub(crate) fn push(&mut self, part: Part) {
        if part.scanned > 0 {
            self.items += part.rows.len();
            self.scanned += u64::from(part.scanned);
            self.scanned_bytes += part.scanned_bytes;
            self.parts.push(part);
        }
    }
}

/// The rows of one answer.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    body: Bytes,
    rows: Vec<Row>,
    last: Option<Range<usize>>,
    /// How many items were looked at.
    pub(crate) scanned: u32,
    /// Their size.
    pub(crate) scanned_bytes: u64,
}

#[derive(Clone, Debug)]
struct Row {
    key: Range<usize>,
    item: Range<usize>,
}

impl Part {
    /// The rows of an answer, and whether its partition holds more behind them.
    pub(crate) fn read(frame: &Frame) -> Result<(Part, bool), DecodeError> {
        let page = decode::<Page>(frame)?;
        let row =
            |key: &[u8], item: &[u8]| Row { key: place(&frame.body, key), item: place(&frame.body, item) };
        let rows = page.rows.iter().map(|read| row(&read.key, &read.item)).collect();
        let part = Part {
            body: frame.body.clone(),
            rows,
            last: page.last.as_ref().map(|last| place(&frame.body, last)),
            scanned: page.scanned.into(),
            scanned_bytes: page.scanned_bytes.into(),
        };
        Ok((part, page.more))
    }

    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(|row| (&self.body[row.key.clone()], &self.body[row.item.clone()]))
    }

    /// The key of the item looked at last.
    pub(crate) fn last(&self) -> Option<&[u8]> {
        self.last.clone().map(|last| &self.body[last])
    }
}

/// Where a slice of `body` begins and ends in it.
fn place(body: &[u8], slice: &[u8]) -> Range<usize> {
    if slice.is_empty() {
        return 0..0;
    }
    let start = slice.as_ptr() as usize - body.as_ptr() as usize;
    start..start + slice.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::Slot;
    use evenkeel_wire::message::Row as WireRow;
    use evenkeel_wire::{encode, frame};

    #[test]
    fn rows_are_read_where_they_arrived() {
        let rows = vec![WireRow { key: b"a", item: b"first" }, WireRow { key: b"", item: b"" }];
        let page =
            Page { applied: Slot(1), more: true, scanned: 3, scanned_bytes: 9, last: Some(b"c"), rows };
        let frame = frame::open(encode(&page, 1, 0)).unwrap();
        let (part, more) = Part::read(&frame).unwrap();
        assert!(more);
        let mut collected = ItemPage::default();
        collected.push(part);
        let rows: Vec<_> = collected.rows().collect();
        assert_eq!(rows, [(&b"a"[..], &b"first"[..]), (&b""[..], &b""[..])]);
        assert!(frame.body.as_ptr_range().contains(&rows[0].1.as_ptr()));
        assert_eq!((collected.len(), collected.last_key()), (2, Some(&b"c"[..])));
        assert_eq!((collected.scanned(), collected.scanned_bytes()), (3, 9));
    }
}
