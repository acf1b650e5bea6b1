//! Paths into documents: where in an item a value is.

use evenkeel_model::{ArchivedAttributeValue, ItemView};
use rkyv::{Archive, Serialize};
use std::fmt;

/// One step into a document.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The attribute of an item, or the entry of a map, of this name.
    Name(String),
    /// The element of a list, counted from zero.
    Index(u32),
}

/// Where in an item a value is; begins with the name of an attribute.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

impl Path {
    /// The path to an attribute of the item itself.
    pub fn attribute(name: impl Into<String>) -> Path {
        Path(vec![Step::Name(name.into())])
    }

    /// The path one step further.
    pub fn then(mut self, step: Step) -> Path {
        self.0.push(step);
        self
    }

    /// The name of the attribute that the path begins with.
    pub fn root(&self) -> &str {
        match &self.0[0] {
            Step::Name(name) => name,
            Step::Index(_) => unreachable!("every constructor begins with a name"),
        }
    }

    /// The steps, of which the first is a name.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// As DynamoDB prints paths in its messages: `[a, b, [1]]`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, step) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            match step {
                Step::Name(name) => f.write_str(name)?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        f.write_str("]")
    }
}

impl ArchivedPath {
    /// Whether it begins with a name: what everything here relies on.
    pub(crate) fn is_valid(&self) -> bool {
        matches!(self.0.first(), Some(ArchivedStep::Name(_)))
    }

    /// The value at the path, if there is one.
    pub(crate) fn find<'a>(&self, item: Option<&ItemView<'a>>) -> Option<&'a ArchivedAttributeValue> {
        let (first, rest) = self.0.split_first()?;
        let ArchivedStep::Name(name) = first else { return None };
        let mut value = &item?.get(name)?.value;
        for step in rest {
            value = match (step, value) {
                (ArchivedStep::Name(name), ArchivedAttributeValue::M(entries)) => {
                    let at = entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
                    &entries[at].value
                }
                (ArchivedStep::Index(index), ArchivedAttributeValue::L(elements)) => {
                    elements.get(u32::from(*index) as usize)?
                }
                _ => return None,
            };
        }
        Some(value)
    }

    /// The path itself, off the read path.
    pub(crate) fn to_path(&self) -> Path {
        let step = |step: &ArchivedStep| match step {
            ArchivedStep::Name(name) => Step::Name(name.as_str().to_owned()),
            ArchivedStep::Index(index) => Step::Index((*index).into()),
        };
        Path(self.0.iter().map(step).collect())
    }
}
