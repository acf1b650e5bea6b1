//! Operations on attributes, for applications. Keys and items are checked before anything is sent.

use crate::client::Client;
use crate::encoded::{Consistency, RangeRequest};
use crate::error::Error;
use crate::limits::{PAGE_ITEMS_MAX, RANGE_BYTES_MAX};
use crate::page::{ItemPage, StoredItem};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::key::{collection_prefix, encode_key, sort_prefix, successor};
use evenkeel_model::limits::{
    ATTRIBUTE_NAME_BYTES_MAX, ITEM_BYTES_MAX, NESTING_LEVELS_MAX, PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX,
};
use evenkeel_model::{Attributes, ItemView, KeyAttribute, KeySchema, KeyType, KeyValue, encode_item};

/// Which sort keys a query wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortCondition {
    /// Every one.
    All,
    /// This one.
    Equals(KeyValue),
    /// Those below.
    Less(KeyValue),
    /// Those below and this one.
    LessOrEqual(KeyValue),
    /// Those above.
    Greater(KeyValue),
    /// Those above and this one.
    GreaterOrEqual(KeyValue),
    /// Those from the first to the second, both included.
    Between(KeyValue, KeyValue),
    /// Strings or binaries that begin like this.
    BeginsWith(KeyValue),
}

/// A query: items of one partition key, in the order of their sort keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The partition key.
    pub partition: KeyValue,
    /// The sort keys wanted.
    pub sort: SortCondition,
    /// Whether to begin with the greatest sort key.
    pub reverse: bool,
    /// Most items of a page; nothing for as many as a page holds.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub after: Option<PageKey>,
}

impl Query {
    /// All items of a partition key in ascending order, from the first.
    pub fn new(partition: KeyValue) -> Query {
        Query { partition, sort: SortCondition::All, reverse: false, limit: None, after: None }
    }
}

/// Where a page ended: the encoded key of its last item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageKey(Vec<u8>);

/// A page of items.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultPage {
    /// The items.
    pub items: Vec<Attributes>,
    /// Where the next page begins; nothing if this is the last.
    pub after: Option<PageKey>,
}

impl Client {
    /// Writes an item, replacing the one with the same key. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an item that the table cannot hold; see [`Error`].
    pub async fn put(&self, table: &str, item: Attributes) -> Result<(), Error> {
        let table = self.table(table).await?;
        let key = item_key(&table.schema, &item)?;
        let encoded = encode_checked(&item)?;
        self.put_encoded(&table, &key, &encoded, false).await.map(|_| ())
    }

    /// Reads the item with this key, strongly consistent. `key` holds the key attributes and no others.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is not one of the table; see [`Error`].
    pub async fn get(&self, table: &str, key: Attributes) -> Result<Option<Attributes>, Error> {
        let table = self.table(table).await?;
        let key = exact_key(&table.schema, &key)?;
        self.get_encoded(&table, &key, Consistency::Strong).await?.as_ref().map(attributes).transpose()
    }

    /// Deletes the item with this key, if it is there. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is not one of the table; see [`Error`].
    pub async fn delete(&self, table: &str, key: Attributes) -> Result<(), Error> {
        let table = self.table(table).await?;
        let key = exact_key(&table.schema, &key)?;
        self.delete_encoded(&table, &key, false).await.map(|_| ())
    }

    /// Reads a page of the items with one partition key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for key values that are not of the table's types; see [`Error`].
    pub async fn query(&self, table: &str, query: &Query) -> Result<ResultPage, Error> {
        let table = self.table(table).await?;
        let (lower, upper) = query_range(&table.schema, query)?;
        self.page(&table, lower, upper, query.reverse, query.limit, query.after.as_ref()).await
    }

    /// Reads a page of all items, in the order of their encoded keys. Begin without `after`, and go on
    /// with [`ResultPage::after`] while there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn scan(
        &self,
        table: &str,
        limit: Option<u32>,
        after: Option<&PageKey>,
    ) -> Result<ResultPage, Error> {
        let table = self.table(table).await?;
        self.page(&table, Vec::new(), None, false, limit, after).await
    }

    async fn page(
        &self,
        table: &TableRow,
        lower: Vec<u8>,
        upper: Option<Vec<u8>>,
        reverse: bool,
        limit: Option<u32>,
        after: Option<&PageKey>,
    ) -> Result<ResultPage, Error> {
        let items_max = limit.unwrap_or(PAGE_ITEMS_MAX);
        let mut range = RangeRequest {
            lower,
            upper,
            consistency: Consistency::Strong,
            reverse,
            items_max,
            bytes_max: RANGE_BYTES_MAX,
            filter: None,
        };
        if let Some(PageKey(after)) = after {
            begin_after(&mut range, after);
        }
        result_page(&self.range_encoded(table, &range).await?)
    }
}

/// Moves the end at which a range is begun behind a key; never outwards.
fn begin_after(range: &mut RangeRequest, after: &[u8]) {
    if range.reverse {
        if range.upper.as_deref().is_none_or(|upper| after < upper) {
            range.upper = Some(after.to_vec());
        }
    } else if range.lower.as_slice() <= after {
        range.lower = [after, &[0]].concat();
    }
}

fn result_page(page: &ItemPage) -> Result<ResultPage, Error> {
    let items = page.rows().map(|(_, item)| read_attributes(item)).collect::<Result<_, _>>()?;
    let after = page.last_key().filter(|_| page.more).map(|key| PageKey(key.to_vec()));
    Ok(ResultPage { items, after })
}

fn attributes(item: &StoredItem) -> Result<Attributes, Error> {
    read_attributes(item)
}

fn read_attributes(item: &[u8]) -> Result<Attributes, Error> {
    Ok(ItemView::parse(item).map_err(Error::internal)?.to_attributes())
}

/// The item, encoded, if it is within the limits.
fn encode_checked(item: &Attributes) -> Result<Vec<u8>, Error> {
    let item_bytes = item.size_bytes();
    if item_bytes > ITEM_BYTES_MAX {
        return Err(Error::invalid(format!("an item of {item_bytes} bytes exceeds {ITEM_BYTES_MAX} bytes")));
    }
    for attribute in item.iter() {
        let name = &attribute.name;
        if name.is_empty() || name.len() > ATTRIBUTE_NAME_BYTES_MAX {
            let message = format!("the name of an attribute has 1 to {ATTRIBUTE_NAME_BYTES_MAX} bytes");
            return Err(Error::invalid(message));
        }
        if !attribute.value.nesting_is_allowed() {
            let message = format!("attribute {name} nests deeper than {NESTING_LEVELS_MAX} levels");
            return Err(Error::invalid(message));
        }
    }
    let encoded = encode_item(item);
    // Sets and maps built by hand may be empty or out of order, which the node would refuse.
    match ItemView::check(&encoded) {
        Ok(_) => Ok(encoded),
        Err(error) => Err(Error::invalid(error.to_string())),
    }
}

fn item_key(schema: &KeySchema, item: &Attributes) -> Result<Vec<u8>, Error> {
    let partition = key_value(&schema.partition, item, PARTITION_KEY_BYTES_MAX)?;
    let sort = schema.sort.as_ref().map(|sort| key_value(sort, item, SORT_KEY_BYTES_MAX)).transpose()?;
    Ok(encode_key(&partition, sort.as_ref()))
}

fn exact_key(schema: &KeySchema, key: &Attributes) -> Result<Vec<u8>, Error> {
    let is_key = |name: &str| {
        name == schema.partition.name || schema.sort.as_ref().is_some_and(|sort| sort.name == name)
    };
    if let Some(other) = key.iter().find(|attribute| !is_key(&attribute.name)) {
        return Err(Error::invalid(format!("attribute {} is not part of the table's key", other.name)));
    }
    item_key(schema, key)
}

fn key_value(wanted: &KeyAttribute, from: &Attributes, bytes_max: usize) -> Result<KeyValue, Error> {
    let KeyAttribute { name, key_type } = wanted;
    let Some(found) = from.get(name) else {
        return Err(Error::invalid(format!("key attribute {name} is missing")));
    };
    let Some(value) = KeyValue::from_attribute(found, *key_type) else {
        let (found, wanted) = (found.type_name(), key_type.name());
        return Err(Error::invalid(format!("key attribute {name} is of type {found}, not {wanted}")));
    };
    check_size(name, &value, bytes_max)?;
    Ok(value)
}

fn check_size(name: &str, value: &KeyValue, bytes_max: usize) -> Result<(), Error> {
    match value.size_bytes() {
        0 => Err(Error::invalid(format!("key attribute {name} is empty"))),
        bytes if bytes > bytes_max => {
            Err(Error::invalid(format!("key attribute {name} of {bytes} bytes exceeds {bytes_max} bytes")))
        }
        _ => Ok(()),
    }
}

/// A key value given directly, checked against the table's key attribute.
fn checked(wanted: &KeyAttribute, value: &KeyValue, bytes_max: usize) -> Result<(), Error> {
    check_type(wanted, value)?;
    check_size(&wanted.name, value, bytes_max)
}

fn check_type(wanted: &KeyAttribute, value: &KeyValue) -> Result<(), Error> {
    let found = match value {
        KeyValue::S(_) => KeyType::S,
        KeyValue::N(_) => KeyType::N,
        KeyValue::B(_) => KeyType::B,
    };
    if found == wanted.key_type {
        return Ok(());
    }
    let (name, found, wanted) = (&wanted.name, found.name(), wanted.key_type.name());
    Err(Error::invalid(format!("key attribute {name} is of type {found}, not {wanted}")))
}

type Bounds = (Vec<u8>, Option<Vec<u8>>);

/// The encoded keys that a query wants.
fn query_range(schema: &KeySchema, query: &Query) -> Result<Bounds, Error> {
    let partition = &query.partition;
    checked(&schema.partition, partition, PARTITION_KEY_BYTES_MAX)?;
    let all = collection_prefix(partition);
    let end = successor(&all);
    let sort = match (&query.sort, &schema.sort) {
        (SortCondition::All, _) => return Ok((all, end)),
        (_, None) => return Err(Error::invalid("the table has no sort key to put a condition on")),
        (_, Some(sort)) => sort,
    };
    let key = |value: &KeyValue| -> Result<Vec<u8>, Error> {
        checked(sort, value, SORT_KEY_BYTES_MAX)?;
        Ok(encode_key(partition, Some(value)))
    };
    Ok(match &query.sort {
        SortCondition::All => (all, end),
        SortCondition::Equals(value) => (key(value)?, successor(&key(value)?)),
        SortCondition::Less(value) => (all, Some(key(value)?)),
        SortCondition::LessOrEqual(value) => (all, successor(&key(value)?)),
        SortCondition::Greater(value) => (successor(&key(value)?).unwrap_or_default(), end),
        SortCondition::GreaterOrEqual(value) => (key(value)?, end),
        SortCondition::Between(first, last) => (key(first)?, successor(&key(last)?)),
        SortCondition::BeginsWith(KeyValue::N(_)) => {
            return Err(Error::invalid("numbers do not begin with one another"));
        }
        SortCondition::BeginsWith(start) => {
            check_type(sort, start)?;
            let prefix = sort_prefix(partition, start);
            let end = successor(&prefix);
            (prefix, end)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::{AttributeValue, Number};

    fn schema() -> KeySchema {
        let attribute = |name: &str, key_type| KeyAttribute { name: name.to_owned(), key_type };
        KeySchema { partition: attribute("pk", KeyType::S), sort: Some(attribute("sk", KeyType::N)) }
    }

    fn text(value: &str) -> AttributeValue {
        AttributeValue::S(value.to_owned())
    }

    fn number(value: u64) -> AttributeValue {
        AttributeValue::N(Number::from(value))
    }

    fn reason<T>(result: Result<T, Error>) -> String {
        match result {
            Err(Error::Invalid { message }) => message,
            Err(other) => panic!("{other}"),
            Ok(_) => "accepted".to_owned(),
        }
    }

    #[test]
    fn keys_are_checked_before_anything_is_sent() {
        let long = "x".repeat(PARTITION_KEY_BYTES_MAX + 1);
        let cases: [(&[(&str, AttributeValue)], &str); 7] = [
            (&[("pk", text("a")), ("sk", number(1))], "accepted"),
            (&[("sk", number(1))], "key attribute pk is missing"),
            (&[("pk", text("a"))], "key attribute sk is missing"),
            (&[("pk", number(1)), ("sk", number(1))], "key attribute pk is of type N, not S"),
            (&[("pk", text("")), ("sk", number(1))], "key attribute pk is empty"),
            (&[("pk", text(&long)), ("sk", number(1))], "key attribute pk of 2049 bytes exceeds 2048 bytes"),
            (
                &[("pk", text("a")), ("sk", number(1)), ("v", number(1))],
                "attribute v is not part of the table's key",
            ),
        ];
        for (pairs, expected) in cases {
            let key = Attributes::from_iter(pairs.iter().cloned());
            assert_eq!(reason(exact_key(&schema(), &key)), expected);
        }
    }

    #[test]
    fn items_are_checked_before_anything_is_sent() {
        let nested =
            (0..=NESTING_LEVELS_MAX).fold(AttributeValue::Null, |value, _| AttributeValue::L(vec![value]));
        let cases = [
            ("v", text("small"), "accepted"),
            ("v", text(&"x".repeat(ITEM_BYTES_MAX)), "an item of 409601 bytes exceeds 409600 bytes"),
            ("", text("a"), "the name of an attribute has 1 to 65535 bytes"),
            ("v", nested, "attribute v nests deeper than 32 levels"),
            ("v", AttributeValue::Ss(vec![]), "malformed attributes: a name, set or number out of order"),
        ];
        for (name, value, expected) in cases {
            assert_eq!(reason(encode_checked(&Attributes::from_iter([(name, value)]))), expected);
        }
    }

    fn query(sort: SortCondition) -> Query {
        Query { sort, ..Query::new(KeyValue::S("p".to_owned())) }
    }

    #[test]
    fn conditions_on_the_sort_key_cover_what_they_say() {
        use SortCondition::{All, Between, Equals, Greater, GreaterOrEqual, Less, LessOrEqual};
        let n = |value: u64| KeyValue::N(Number::from(value));
        let cases: [(SortCondition, &[u64]); 8] = [
            (All, &[1, 2, 3, 4, 5]),
            (Equals(n(3)), &[3]),
            (Less(n(3)), &[1, 2]),
            (LessOrEqual(n(3)), &[1, 2, 3]),
            (Greater(n(3)), &[4, 5]),
            (GreaterOrEqual(n(3)), &[3, 4, 5]),
            (Between(n(2), n(4)), &[2, 3, 4]),
            (Between(n(4), n(2)), &[]),
        ];
        for (condition, expected) in cases {
            let (lower, upper) = query_range(&schema(), &query(condition.clone())).unwrap();
            let covers = |value: &u64| {
                let key = encode_key(&KeyValue::S("p".to_owned()), Some(&n(*value)));
                lower <= key && upper.as_ref().is_none_or(|upper| key < *upper)
            };
            let covered: Vec<u64> = (1..=5).filter(covers).collect();
            assert_eq!(covered, expected, "{condition:?}");
        }
    }

    #[test]
    fn conditions_of_the_wrong_type_are_refused() {
        let s = |text: &str| KeyValue::S(text.to_owned());
        let starts = SortCondition::BeginsWith(KeyValue::N(Number::ZERO));
        assert_eq!(reason(query_range(&schema(), &query(starts))), "numbers do not begin with one another");
        for condition in [SortCondition::Equals(s("a")), SortCondition::BeginsWith(s("a"))] {
            let refused = reason(query_range(&schema(), &query(condition)));
            assert_eq!(refused, "key attribute sk is of type S, not N");
        }
        let no_sort = KeySchema { sort: None, ..schema() };
        let refused = reason(query_range(&no_sort, &query(SortCondition::Equals(s("a")))));
        assert_eq!(refused, "the table has no sort key to put a condition on");
    }

    #[test]
    fn a_page_goes_on_behind_its_key_and_never_outside_its_range() {
        let range = |reverse| RangeRequest {
            lower: b"d".to_vec(),
            upper: Some(b"m".to_vec()),
            consistency: Consistency::Strong,
            reverse,
            items_max: 1,
            bytes_max: 1,
            filter: None,
        };
        type Case = (bool, &'static [u8], &'static [u8], &'static [u8]);
        let cases: [Case; 4] = [
            (false, b"f", b"f\0", b"m"),
            (false, b"a", b"d", b"m"),
            (true, b"f", b"d", b"f"),
            (true, b"z", b"d", b"m"),
        ];
        for (reverse, after, lower, upper) in cases {
            let mut range = range(reverse);
            begin_after(&mut range, after);
            assert_eq!((&range.lower[..], range.upper.as_deref()), (lower, Some(upper)));
        }
    }
}
