//! Attribute values: the ten types of DynamoDB, and the attributes of an item.
//!
//! Attributes and map entries are sorted by name, sets by value, so that equal content has equal bytes.
//! Both are archived by rkyv and read in place.

use crate::limits;
use crate::number::Number;
use rkyv::{Archive, Deserialize, Serialize};

/// A value of one of DynamoDB's ten types.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    deserialize_bounds(__D::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
)]
pub enum AttributeValue {
    /// String.
    S(String),
    /// Number; boxed in the archive, so that it does not widen every other value.
    N(#[rkyv(with = rkyv::with::AsBox)] Number),
    /// Binary.
    B(Vec<u8>),
    /// Boolean.
    Bool(bool),
    /// Null.
    Null,
    /// Map, sorted by name.
    M(#[rkyv(omit_bounds)] Vec<Attribute>),
    /// List.
    L(#[rkyv(omit_bounds)] Vec<AttributeValue>),
    /// String set, sorted, not empty.
    Ss(Vec<String>),
    /// Number set, sorted, not empty.
    Ns(Vec<Number>),
    /// Binary set, sorted, not empty.
    Bs(Vec<Vec<u8>>),
}

/// A named value.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    deserialize_bounds(__D::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
)]
pub struct Attribute {
    /// The name, unique among its siblings.
    pub name: String,
    /// The value.
    #[rkyv(omit_bounds)]
    pub value: AttributeValue,
}

/// The attributes of an item, sorted by name; each name occurs once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<Attribute>);

impl Attributes {
    /// Sorts the attributes; of several with one name the last stays, as JSON objects are read.
    pub fn new(attributes: Vec<Attribute>) -> Attributes {
        Attributes(sorted_by_name(attributes))
    }

    /// The value of the attribute of this name.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        let at = self.0.binary_search_by(|attribute| attribute.name.as_str().cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    /// The attributes in order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.0.iter()
    }

    /// The attributes in order of their names, as a slice.
    pub fn as_slice(&self) -> &[Attribute] {
        &self.0
    }

    /// The attributes in order of their names, to be changed.
    pub fn into_vec(self) -> Vec<Attribute> {
        self.0
    }

    /// What the archive of an item is made from.
    pub(crate) fn archived_form(&self) -> &Vec<Attribute> {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Item size by DynamoDB's rules ("Item sizes and formats" in its developer guide).
    pub fn size_bytes(&self) -> usize {
        self.0.iter().map(|attribute| attribute.name.len() + attribute.value.size_bytes()).sum()
    }
}

impl<S: Into<String>> FromIterator<(S, AttributeValue)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (S, AttributeValue)>>(pairs: I) -> Self {
        Attributes::new(
            pairs.into_iter().map(|(name, value)| Attribute { name: name.into(), value }).collect(),
        )
    }
}

/// Sorts by name and keeps the last of each name.
pub fn sorted_by_name(mut attributes: Vec<Attribute>) -> Vec<Attribute> {
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut kept: Vec<Attribute> = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        match kept.last_mut() {
            Some(last) if last.name == attribute.name => *last = attribute,
            _ => kept.push(attribute),
        }
    }
    kept
}

/// Bytes that a list or map adds to those of its elements.
const CONTAINER_BYTES: usize = 3;
/// Bytes that each element of a list or map adds.
const ELEMENT_BYTES: usize = 1;

impl AttributeValue {
    /// The type's name in DynamoDB's JSON: `S`, `N`, `B`, `BOOL`, `NULL`, `M`, `L`, `SS`, `NS` or `BS`.
    pub fn type_name(&self) -> &'static str {
        match self {
            AttributeValue::S(_) => "S",
            AttributeValue::N(_) => "N",
            AttributeValue::B(_) => "B",
            AttributeValue::Bool(_) => "BOOL",
            AttributeValue::Null => "NULL",
            AttributeValue::M(_) => "M",
            AttributeValue::L(_) => "L",
            AttributeValue::Ss(_) => "SS",
            AttributeValue::Ns(_) => "NS",
            AttributeValue::Bs(_) => "BS",
        }
    }

    /// Size by DynamoDB's rules, without the attribute's name.
    pub fn size_bytes(&self) -> usize {
        match self {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(number) => number.size_bytes(),
            AttributeValue::B(bytes) => bytes.len(),
            AttributeValue::Bool(_) | AttributeValue::Null => 1,
            AttributeValue::M(entries) => {
                let entry = |e: &Attribute| e.name.len() + e.value.size_bytes() + ELEMENT_BYTES;
                CONTAINER_BYTES + entries.iter().map(entry).sum::<usize>()
            }
            AttributeValue::L(elements) => {
                CONTAINER_BYTES + elements.iter().map(|e| e.size_bytes() + ELEMENT_BYTES).sum::<usize>()
            }
            AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
            AttributeValue::Ns(numbers) => numbers.iter().map(Number::size_bytes).sum(),
            AttributeValue::Bs(blobs) => blobs.iter().map(Vec::len).sum(),
        }
    }

    /// Whether lists and maps nest at most as deep as DynamoDB allows.
    pub fn nesting_is_allowed(&self) -> bool {
        self.nests_at_most(limits::NESTING_LEVELS_MAX)
    }

    fn nests_at_most(&self, levels: usize) -> bool {
        match self {
            AttributeValue::M(entries) => {
                levels > 0 && entries.iter().all(|e| e.value.nests_at_most(levels - 1))
            }
            AttributeValue::L(elements) => levels > 0 && elements.iter().all(|e| e.nests_at_most(levels - 1)),
            _ => true,
        }
    }
}

/// What an archive from outside must satisfy beyond rkyv's own checks, and its size on the way.
impl ArchivedAttributeValue {
    /// Size by DynamoDB's rules, or nothing if a name or set is out of order, a set is empty, or a
    /// number is not normal.
    pub fn checked_size_bytes(&self) -> Option<usize> {
        match self {
            ArchivedAttributeValue::S(text) => Some(text.len()),
            ArchivedAttributeValue::N(number) => Number::from_archived(number).map(|n| n.size_bytes()),
            ArchivedAttributeValue::B(bytes) => Some(bytes.len()),
            ArchivedAttributeValue::Bool(_) | ArchivedAttributeValue::Null => Some(1),
            ArchivedAttributeValue::M(entries) => {
                Some(CONTAINER_BYTES + entries.len() * ELEMENT_BYTES + checked_attributes_bytes(entries)?)
            }
            ArchivedAttributeValue::L(elements) => {
                let mut sum = CONTAINER_BYTES + elements.len() * ELEMENT_BYTES;
                for element in elements.iter() {
                    sum += element.checked_size_bytes()?;
                }
                Some(sum)
            }
            ArchivedAttributeValue::Ss(texts) => {
                checked_set_bytes(texts.iter().map(|t| (t.as_str(), t.len())))
            }
            ArchivedAttributeValue::Bs(blobs) => {
                checked_set_bytes(blobs.iter().map(|b| (b.as_slice(), b.len())))
            }
            ArchivedAttributeValue::Ns(numbers) => {
                let numbers: Option<Vec<Number>> = numbers.iter().map(Number::from_archived).collect();
                checked_set_bytes(numbers?.iter().map(|n| (*n, n.size_bytes())))
            }
        }
    }

    /// The value itself, off the read path.
    pub fn to_value(&self) -> AttributeValue {
        let infallible: Result<_, rkyv::rancor::Panic> = rkyv::api::deserialize_using(self, &mut ());
        match infallible {
            Ok(value) => value,
        }
    }
}

/// Size of archived attributes by DynamoDB's rules, or nothing if one is malformed or out of order.
pub(crate) fn checked_attributes_bytes(attributes: &[ArchivedAttribute]) -> Option<usize> {
    if !attributes.is_sorted_by(|a, b| a.name.as_str() < b.name.as_str()) {
        return None;
    }
    let mut sum = 0;
    for attribute in attributes {
        sum += attribute.name.len() + attribute.value.checked_size_bytes()?;
    }
    Some(sum)
}

fn checked_set_bytes<T: Ord>(mut members: impl Iterator<Item = (T, usize)>) -> Option<usize> {
    let (mut last, mut sum) = members.next()?;
    for (member, bytes) in members {
        if member <= last {
            return None;
        }
        (last, sum) = (member, sum + bytes);
    }
    Some(sum)
}
