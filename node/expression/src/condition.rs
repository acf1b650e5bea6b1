//! Conditions: tests of values, and how their results combine.
//!
//! The logic is a list in postfix order (each `And`, `Or` and `Not` behind what it combines), so that
//! neither checking nor running it recurses. Every test is made, whatever the others found: the work
//! depends on the condition, not on the item.

use crate::path::{ArchivedPath, Path};
use crate::value;
use evenkeel_model::{ArchivedAttributeValue, AttributeValue, ItemView, Number};
use rkyv::{Archive, Serialize};
use std::cmp::Ordering;

/// Most operators and functions in one expression, as DynamoDB counts them.
pub const OPERATORS_MAX: usize = 300;
/// Most results that can wait to be combined.
const WAITING_MAX: usize = 2 * OPERATORS_MAX;

/// A value that a test looks at.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub enum Operand {
    /// What the item holds at a path.
    Path(Path),
    /// A constant.
    Value(AttributeValue),
    /// The size of what the item holds at a path.
    Size(Path),
}

/// How two values are compared.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A question with the answer yes or no.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub enum Test {
    /// A comparison of two values.
    Compare(Comparator, Operand, Operand),
    /// The first is not below the second and not above the third.
    Between(Operand, Operand, Operand),
    /// The first equals one of the others.
    In(Operand, Vec<Operand>),
    /// There is something at the path.
    Exists(Path),
    /// There is nothing at the path.
    NotExists(Path),
    /// What is at the path has the type that the operand, a string, names.
    Type(Path, Operand),
    /// The first begins with the second.
    BeginsWith(Operand, Operand),
    /// The first holds the second.
    Contains(Operand, Operand),
}

/// One step of combining the tests' results.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    /// The result of the test of this number.
    Test(u16),
    /// Whether both of the last two are true.
    And,
    /// Whether one of the last two is true.
    Or,
    /// Whether the last one is false.
    Not,
}

/// A condition on an item.
#[derive(Archive, Serialize, Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// The tests.
    pub tests: Vec<Test>,
    /// How they combine, in postfix order.
    pub logic: Vec<Logic>,
}

impl Condition {
    /// Appends a test and its result.
    pub fn test(&mut self, test: Test) {
        let number = u16::try_from(self.tests.len()).expect("an expression has at most 300 operators");
        self.tests.push(test);
        self.logic.push(Logic::Test(number));
    }

    /// Appends what combines the results so far.
    pub fn combine(&mut self, logic: Logic) {
        self.logic.push(logic);
    }

    /// Every path that the condition looks at.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        fn of(operand: &Operand) -> Option<&Path> {
            match operand {
                Operand::Path(path) | Operand::Size(path) => Some(path),
                Operand::Value(_) => None,
            }
        }
        self.tests.iter().flat_map(|test| -> Vec<&Path> {
            match test {
                Test::Compare(_, a, b) | Test::BeginsWith(a, b) | Test::Contains(a, b) => {
                    of(a).into_iter().chain(of(b)).collect()
                }
                Test::Between(a, b, c) => [a, b, c].into_iter().filter_map(of).collect(),
                Test::In(a, list) => of(a).into_iter().chain(list.iter().filter_map(of)).collect(),
                Test::Exists(path) | Test::NotExists(path) => vec![path],
                Test::Type(path, operand) => std::iter::once(path).chain(of(operand)).collect(),
            }
        })
    }
}

/// What an operand stands for in an item.
enum Found<'a> {
    Value(&'a ArchivedAttributeValue),
    Size(Number),
}

impl Found<'_> {
    fn equals(&self, other: &Found<'_>) -> bool {
        match (self, other) {
            (Found::Value(a), Found::Value(b)) => value::equal(a, b),
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    fn order(&self, other: &Found<'_>) -> Option<Ordering> {
        match (self, other) {
            (Found::Value(a), Found::Value(b)) => value::order(a, b),
            _ => Some(self.number()?.cmp(&other.number()?)),
        }
    }

    fn number(&self) -> Option<Number> {
        match self {
            Found::Size(size) => Some(*size),
            Found::Value(ArchivedAttributeValue::N(number)) => Some(value::number(number)),
            Found::Value(_) => None,
        }
    }

    fn value(&self) -> Option<&ArchivedAttributeValue> {
        match self {
            Found::Value(value) => Some(value),
            Found::Size(_) => None,
        }
    }
}

impl ArchivedOperand {
    fn find<'a>(&'a self, item: Option<&ItemView<'a>>) -> Option<Found<'a>> {
        match self {
            ArchivedOperand::Path(path) => path.find(item).map(Found::Value),
            ArchivedOperand::Value(value) => Some(Found::Value(value)),
            ArchivedOperand::Size(path) => value::size(path.find(item)?).map(Found::Size),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            ArchivedOperand::Path(path) | ArchivedOperand::Size(path) => path.is_valid(),
            ArchivedOperand::Value(value) => value.checked_size_bytes().is_some(),
        }
    }
}

impl ArchivedTest {
    fn is_valid(&self) -> bool {
        match self {
            ArchivedTest::Compare(_, a, b)
            | ArchivedTest::BeginsWith(a, b)
            | ArchivedTest::Contains(a, b) => a.is_valid() && b.is_valid(),
            ArchivedTest::Between(a, b, c) => a.is_valid() && b.is_valid() && c.is_valid(),
            ArchivedTest::In(a, list) => a.is_valid() && list.iter().all(ArchivedOperand::is_valid),
            ArchivedTest::Exists(path) | ArchivedTest::NotExists(path) => path.is_valid(),
            ArchivedTest::Type(path, name) => path.is_valid() && name.is_valid(),
        }
    }

    fn holds(&self, item: Option<&ItemView<'_>>) -> bool {
        let exists = |path: &ArchivedPath| path.find(item).is_some();
        match self {
            ArchivedTest::Compare(comparator, a, b) => match (a.find(item), b.find(item)) {
                (Some(a), Some(b)) => comparator.holds(&a, &b),
                // What is not there equals nothing, and is neither less nor greater.
                _ => matches!(comparator, ArchivedComparator::NotEqual),
            },
            ArchivedTest::Between(a, low, high) => match (a.find(item), low.find(item), high.find(item)) {
                (Some(a), Some(low), Some(high)) => {
                    a.order(&low).is_some_and(Ordering::is_ge) && a.order(&high).is_some_and(Ordering::is_le)
                }
                _ => false,
            },
            ArchivedTest::In(a, list) => a.find(item).is_some_and(|a| {
                list.iter()
                    .any(|candidate| candidate.find(item).is_some_and(|candidate| a.equals(&candidate)))
            }),
            ArchivedTest::Exists(path) => exists(path),
            ArchivedTest::NotExists(path) => !exists(path),
            ArchivedTest::Type(path, name) => match (path.find(item), name.find(item)) {
                (Some(value), Some(Found::Value(ArchivedAttributeValue::S(name)))) => {
                    value::type_name(value) == name.as_str()
                }
                _ => false,
            },
            ArchivedTest::BeginsWith(a, b) => both(a, b, item, value::begins_with),
            ArchivedTest::Contains(a, b) => both(a, b, item, value::contains),
        }
    }
}

fn both(
    a: &ArchivedOperand,
    b: &ArchivedOperand,
    item: Option<&ItemView<'_>>,
    test: impl Fn(&ArchivedAttributeValue, &ArchivedAttributeValue) -> bool,
) -> bool {
    let (Some(a), Some(b)) = (a.find(item), b.find(item)) else { return false };
    a.value().zip(b.value()).is_some_and(|(a, b)| test(a, b))
}

impl ArchivedComparator {
    fn holds(&self, a: &Found<'_>, b: &Found<'_>) -> bool {
        let order = |test: fn(Ordering) -> bool| a.order(b).is_some_and(test);
        match self {
            ArchivedComparator::Equal => a.equals(b),
            ArchivedComparator::NotEqual => !a.equals(b),
            ArchivedComparator::Less => order(Ordering::is_lt),
            ArchivedComparator::LessOrEqual => order(Ordering::is_le),
            ArchivedComparator::Greater => order(Ordering::is_gt),
            ArchivedComparator::GreaterOrEqual => order(Ordering::is_ge),
        }
    }
}

impl ArchivedCondition {
    /// Whether it can be run: every test stands, and the logic leaves exactly one result.
    pub(crate) fn is_valid(&self) -> bool {
        let mut waiting = 0usize;
        for logic in self.logic.iter() {
            let (takes, exists) = match logic {
                ArchivedLogic::Test(number) => (0, usize::from(u16::from(*number)) < self.tests.len()),
                ArchivedLogic::And | ArchivedLogic::Or => (2, true),
                ArchivedLogic::Not => (1, true),
            };
            let Some(left) = waiting.checked_sub(takes) else { return false };
            waiting = left + 1;
            if !exists || waiting > WAITING_MAX {
                return false;
            }
        }
        waiting == 1 && self.tests.iter().all(ArchivedTest::is_valid)
    }

    /// Whether the condition holds for an item, or for no item.
    pub(crate) fn holds(&self, item: Option<&ItemView<'_>>) -> bool {
        let mut results = [false; WAITING_MAX + 1];
        let mut waiting = 0;
        for logic in self.logic.iter() {
            match logic {
                ArchivedLogic::Test(number) => {
                    results[waiting] = self.tests[usize::from(u16::from(*number))].holds(item);
                    waiting += 1;
                }
                ArchivedLogic::And => {
                    waiting -= 1;
                    results[waiting - 1] &= results[waiting];
                }
                ArchivedLogic::Or => {
                    waiting -= 1;
                    results[waiting - 1] |= results[waiting];
                }
                ArchivedLogic::Not => results[waiting - 1] = !results[waiting - 1],
            }
        }
        results[0]
    }
}
