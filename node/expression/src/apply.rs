//! Runs an update: everything is read from the item as it was, then written path by path.
//!
//! Writes go in the order of their paths, so that elements appended to a list stand in the order of
//! their indexes, whichever order the expression names them in. What is removed goes last and from the
//! back, so that every index means what it meant in the item as it was.

use crate::codec::UpdateView;
use crate::path::{Path, Step};
use crate::update::{ArchivedAction, ArchivedSetOperand};
use evenkeel_model::limits::ITEM_BYTES_MAX;
use evenkeel_model::number::NumberError;
use evenkeel_model::{Attribute, AttributeValue, Attributes, ItemView};

/// Most that the operands of one update may hold together: an item a few times over. What is larger
/// could only end as an item that is too large.
const OPERAND_BYTES_MAX: usize = 8 * ITEM_BYTES_MAX;

/// Why an update was not made. The texts are DynamoDB's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A path leads through what is not there, or is no map or list.
    #[error("The document path provided in the update expression is invalid for update")]
    Path,
    /// An operand is a path at which there is nothing.
    #[error("The provided expression refers to an attribute that does not exist in the item")]
    Missing,
    /// An operand is of the wrong type for what is done with it.
    #[error("An operand in the update expression has an incorrect data type")]
    OperandType,
    /// The new item is over the limit.
    #[error("Item size to update has exceeded the maximum allowed size")]
    TooLarge,
    /// The new item nests too deep.
    #[error(
        "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
    )]
    Nesting,
    /// A sum cannot be stored.
    #[error(transparent)]
    Number(#[from] NumberError),
}

enum Write {
    Set(AttributeValue),
    Add(AttributeValue),
    Delete(AttributeValue),
}

/// A map or list in which something is written.
enum Container<'a> {
    Map(&'a mut Vec<Attribute>),
    List(&'a mut Vec<AttributeValue>),
}

impl UpdateView<'_> {
    /// The item after the update; `key` holds the key attributes, from which an item that is not there
    /// is made.
    ///
    /// # Errors
    /// See [`UpdateError`]; nothing was changed.
    pub fn apply(&self, item: Option<&ItemView<'_>>, key: &Attributes) -> Result<Attributes, UpdateError> {
        let mut operands = self.operands(item)?;
        let mut writes = Vec::with_capacity(self.0.actions.len());
        let mut removed = Vec::new();
        for action in self.0.actions.iter() {
            let path = action.path().to_path();
            let found = action.path().find(item).map(|value| value.to_value());
            match action {
                ArchivedAction::Set(_, operand) => {
                    let value = operands[usize::from(u16::from(*operand))].take();
                    writes.push((path, Write::Set(value.expect("checked: taken once")?)));
                }
                ArchivedAction::Remove(_) => removed.push(path),
                ArchivedAction::Add(_, value) => {
                    let value = value.to_value();
                    check_add(found.as_ref(), &value)?;
                    writes.push((path, Write::Add(value)));
                }
                ArchivedAction::Delete(_, value) => {
                    let value = value.to_value();
                    check_delete(found.as_ref(), &value)?;
                    writes.push((path, Write::Delete(value)));
                }
            }
        }
        let before = item.map_or_else(|| key.clone(), ItemView::to_attributes);
        let mut attributes = before.into_vec();
        writes.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, write) in writes {
            if carry_out(&mut attributes, &path, write)? == Left::Nothing {
                removed.push(path);
            }
        }
        removed.sort();
        for path in removed.iter().rev() {
            remove(&mut attributes, path)?;
        }
        checked(Attributes::new(attributes))
    }

    /// The values of the operands, in order; one that cannot be had is an error only for who uses it.
    fn operands(
        &self,
        item: Option<&ItemView<'_>>,
    ) -> Result<Vec<Option<Result<AttributeValue, UpdateError>>>, UpdateError> {
        type Values = Vec<Option<Result<AttributeValue, UpdateError>>>;
        let mut values: Values = Vec::with_capacity(self.0.operands.len());
        let mut bytes = 0;
        for operand in self.0.operands.iter() {
            let mut take = |number: u16| -> Result<AttributeValue, UpdateError> {
                values[usize::from(number)].take().expect("checked: stands before, and is taken once")
            };
            let value = match operand {
                ArchivedSetOperand::Path(path) => {
                    path.find(item).map(|value| value.to_value()).ok_or(UpdateError::Missing)
                }
                ArchivedSetOperand::Value(value) => Ok(value.to_value()),
                ArchivedSetOperand::IfNotExists(path, other) => {
                    let other = take((*other).into());
                    path.find(item).map_or(other, |value| Ok(value.to_value()))
                }
                ArchivedSetOperand::ListAppend(a, b) => append(take((*a).into()), take((*b).into())),
                ArchivedSetOperand::Plus(a, b) => numbers(take((*a).into()), take((*b).into()))
                    .and_then(|(a, b)| Ok(AttributeValue::N(a.checked_add(&b)?))),
                ArchivedSetOperand::Minus(a, b) => numbers(take((*a).into()), take((*b).into()))
                    .and_then(|(a, b)| Ok(AttributeValue::N(a.checked_sub(&b)?))),
            };
            bytes += value.as_ref().map_or(0, AttributeValue::size_bytes);
            if bytes > OPERAND_BYTES_MAX {
                return Err(UpdateError::TooLarge);
            }
            values.push(Some(value));
        }
        Ok(values)
    }
}

type Operand = Result<AttributeValue, UpdateError>;

fn append(a: Operand, b: Operand) -> Operand {
    match (a?, b?) {
        (AttributeValue::L(mut a), AttributeValue::L(b)) => {
            a.extend(b);
            Ok(AttributeValue::L(a))
        }
        _ => Err(UpdateError::OperandType),
    }
}

fn numbers(a: Operand, b: Operand) -> Result<(evenkeel_model::Number, evenkeel_model::Number), UpdateError> {
    match (a?, b?) {
        (AttributeValue::N(a), AttributeValue::N(b)) => Ok((a, b)),
        _ => Err(UpdateError::OperandType),
    }
}

fn is_set(value: &AttributeValue) -> bool {
    matches!(value, AttributeValue::Ss(_) | AttributeValue::Ns(_) | AttributeValue::Bs(_))
}

fn same_type(a: &AttributeValue, b: &AttributeValue) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn check_add(found: Option<&AttributeValue>, value: &AttributeValue) -> Result<(), UpdateError> {
    let addable = is_set(value) || matches!(value, AttributeValue::N(_));
    match addable && found.is_none_or(|found| same_type(found, value)) {
        true => Ok(()),
        false => Err(UpdateError::OperandType),
    }
}

fn check_delete(found: Option<&AttributeValue>, value: &AttributeValue) -> Result<(), UpdateError> {
    match is_set(value) && found.is_none_or(|found| same_type(found, value)) {
        true => Ok(()),
        false => Err(UpdateError::OperandType),
    }
}

/// What a write leaves at its path.
#[derive(PartialEq)]
enum Left {
    Something,
    /// An emptied set, which is none.
    Nothing,
}

fn carry_out(root: &mut Vec<Attribute>, path: &Path, write: Write) -> Result<Left, UpdateError> {
    let (container, last) = container(root, path).ok_or(UpdateError::Path)?;
    match write {
        Write::Set(value) => put(container, last, value)?,
        Write::Add(value) => match entry(container, last)? {
            Entry::There(found) => add(found, value)?,
            Entry::Absent(container) => put(container, last, value)?,
        },
        Write::Delete(value) => {
            if let Entry::There(found) = entry(container, last)? {
                return delete(found, &value);
            }
        }
    }
    Ok(Left::Something)
}

/// The map or list that a path ends in, and its last step.
fn container<'a, 'p>(root: &'a mut Vec<Attribute>, path: &'p Path) -> Option<(Container<'a>, &'p Step)> {
    let (last, before) = path.steps().split_last()?;
    let mut container = Container::Map(root);
    for step in before {
        let value = match (container, step) {
            (Container::Map(entries), Step::Name(name)) => {
                let at = position(entries, name).ok()?;
                &mut entries[at].value
            }
            (Container::List(elements), Step::Index(index)) => elements.get_mut(*index as usize)?,
            _ => return None,
        };
        container = match value {
            AttributeValue::M(entries) => Container::Map(entries),
            AttributeValue::L(elements) => Container::List(elements),
            _ => return None,
        };
    }
    Some((container, last))
}

fn position(entries: &[Attribute], name: &str) -> Result<usize, usize> {
    entries.binary_search_by(|entry| entry.name.as_str().cmp(name))
}

enum Entry<'a> {
    There(&'a mut AttributeValue),
    Absent(Container<'a>),
}

fn entry<'a>(container: Container<'a>, step: &Step) -> Result<Entry<'a>, UpdateError> {
    match (container, step) {
        (Container::Map(entries), Step::Name(name)) => Ok(match position(entries, name) {
            Ok(at) => Entry::There(&mut entries[at].value),
            Err(_) => Entry::Absent(Container::Map(entries)),
        }),
        (Container::List(elements), Step::Index(index)) => {
            let at = *index as usize;
            Ok(match at < elements.len() {
                true => Entry::There(&mut elements[at]),
                false => Entry::Absent(Container::List(elements)),
            })
        }
        _ => Err(UpdateError::Path),
    }
}

/// Puts a value in place of what is there, or beside it; behind the end of a list it is appended.
fn put(container: Container<'_>, step: &Step, value: AttributeValue) -> Result<(), UpdateError> {
    match (entry(container, step)?, step) {
        (Entry::There(found), _) => *found = value,
        (Entry::Absent(Container::Map(entries)), Step::Name(name)) => {
            let at = position(entries, name).unwrap_or_else(|at| at);
            entries.insert(at, Attribute { name: name.clone(), value });
        }
        (Entry::Absent(Container::List(elements)), _) => elements.push(value),
        (Entry::Absent(Container::Map(_)), Step::Index(_)) => return Err(UpdateError::Path),
    }
    Ok(())
}

fn union<T: Ord>(found: &mut Vec<T>, more: Vec<T>) {
    found.extend(more);
    found.sort_unstable();
    found.dedup();
}

fn add(found: &mut AttributeValue, value: AttributeValue) -> Result<(), UpdateError> {
    match (found, value) {
        (AttributeValue::N(found), AttributeValue::N(value)) => *found = found.checked_add(&value)?,
        (AttributeValue::Ss(found), AttributeValue::Ss(value)) => union(found, value),
        (AttributeValue::Ns(found), AttributeValue::Ns(value)) => union(found, value),
        (AttributeValue::Bs(found), AttributeValue::Bs(value)) => union(found, value),
        _ => return Err(UpdateError::OperandType),
    }
    Ok(())
}

fn delete(found: &mut AttributeValue, value: &AttributeValue) -> Result<Left, UpdateError> {
    fn without<T: Ord>(found: &mut Vec<T>, taken: &[T]) -> Left {
        found.retain(|member| taken.binary_search(member).is_err());
        if found.is_empty() { Left::Nothing } else { Left::Something }
    }
    match (found, value) {
        (AttributeValue::Ss(found), AttributeValue::Ss(value)) => Ok(without(found, value)),
        (AttributeValue::Ns(found), AttributeValue::Ns(value)) => Ok(without(found, value)),
        (AttributeValue::Bs(found), AttributeValue::Bs(value)) => Ok(without(found, value)),
        _ => Err(UpdateError::OperandType),
    }
}

/// Takes away what is at a path; there need not be anything, but its map or list must be there.
fn remove(root: &mut Vec<Attribute>, path: &Path) -> Result<(), UpdateError> {
    match container(root, path).ok_or(UpdateError::Path)? {
        (Container::Map(entries), Step::Name(name)) => {
            if let Ok(at) = position(entries, name) {
                entries.remove(at);
            }
        }
        (Container::List(elements), Step::Index(index)) => {
            if (*index as usize) < elements.len() {
                elements.remove(*index as usize);
            }
        }
        _ => return Err(UpdateError::Path),
    }
    Ok(())
}

fn checked(attributes: Attributes) -> Result<Attributes, UpdateError> {
    if attributes.size_bytes() > ITEM_BYTES_MAX {
        return Err(UpdateError::TooLarge);
    }
    if !attributes.iter().all(|attribute| attribute.value.nesting_is_allowed()) {
        return Err(UpdateError::Nesting);
    }
    Ok(attributes)
}
