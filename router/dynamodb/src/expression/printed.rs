//! Programs printed as expressions and parsed again are the same programs.
//!
//! A tree is drawn, printed with a placeholder for each name and value, and put together as a program the
//! way a parser must; what the parser makes of the text is held against that.

use super::{Placeholders, parse_condition, parse_update};
use evenkeel_expression::{
    Action, Comparator, Condition, Logic, Operand, Path, SetOperand, Step, Test, Update,
};
use evenkeel_model::{AttributeValue, Number};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Prints, and keeps what its placeholders stand for.
#[derive(Default)]
struct Printer {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, AttributeValue>,
}

impl Printer {
    fn name(&mut self, name: &str) -> String {
        let key = format!("#n{}", self.names.len());
        self.names.insert(key.clone(), name.to_owned());
        key
    }

    fn value(&mut self, value: &AttributeValue) -> String {
        let key = format!(":v{}", self.values.len());
        self.values.insert(key.clone(), value.clone());
        key
    }

    fn path(&mut self, path: &Path) -> String {
        let mut text = String::new();
        for step in path.steps() {
            match step {
                Step::Name(name) if text.is_empty() => text = self.name(name),
                Step::Name(name) => text = format!("{text}.{}", self.name(name)),
                Step::Index(index) => text = format!("{text}[{index}]"),
            }
        }
        text
    }

    fn operand(&mut self, operand: &Operand) -> String {
        match operand {
            Operand::Path(path) => self.path(path),
            Operand::Value(value) => self.value(value),
            Operand::Size(path) => format!("size({})", self.path(path)),
        }
    }

    fn test(&mut self, test: &Test) -> String {
        match test {
            Test::Compare(comparator, a, b) => {
                format!("{} {} {}", self.operand(a), symbol(*comparator), self.operand(b))
            }
            Test::Between(a, low, high) => {
                format!("{} BETWEEN {} AND {}", self.operand(a), self.operand(low), self.operand(high))
            }
            Test::In(a, list) => {
                let a = self.operand(a);
                let list: Vec<String> = list.iter().map(|operand| self.operand(operand)).collect();
                format!("{a} IN ({})", list.join(", "))
            }
            Test::Exists(path) => format!("attribute_exists({})", self.path(path)),
            Test::NotExists(path) => format!("attribute_not_exists ({})", self.path(path)),
            Test::Type(path, name) => format!("attribute_type({}, {})", self.path(path), self.operand(name)),
            Test::BeginsWith(a, b) => format!("begins_with({}, {})", self.operand(a), self.operand(b)),
            Test::Contains(a, b) => format!("contains({}, {})", self.operand(a), self.operand(b)),
        }
    }

    fn placeholders(self) -> Placeholders {
        let names = Some(self.names).filter(|names| !names.is_empty());
        let values = Some(self.values).filter(|values| !values.is_empty());
        Placeholders::new(names, values, true, "").unwrap()
    }
}

fn symbol(comparator: Comparator) -> &'static str {
    match comparator {
        Comparator::Equal => "=",
        Comparator::NotEqual => "<>",
        Comparator::Less => "<",
        Comparator::LessOrEqual => "<=",
        Comparator::Greater => ">",
        Comparator::GreaterOrEqual => ">=",
    }
}

#[derive(Clone, Debug)]
enum Tree {
    Test(Test),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
    Not(Box<Tree>),
}

impl Tree {
    fn print(&self, printer: &mut Printer) -> String {
        match self {
            Tree::Test(test) => printer.test(test),
            Tree::And(a, b) => format!("({}) AND ({})", a.print(printer), b.print(printer)),
            Tree::Or(a, b) => format!("({})\tor ({})", a.print(printer), b.print(printer)),
            Tree::Not(a) => format!("NOT ({})", a.print(printer)),
        }
    }

    fn compile(&self, out: &mut Condition) {
        match self {
            Tree::Test(test) => out.test(test.clone()),
            Tree::And(a, b) => {
                a.compile(out);
                b.compile(out);
                out.combine(Logic::And);
            }
            Tree::Or(a, b) => {
                a.compile(out);
                b.compile(out);
                out.combine(Logic::Or);
            }
            Tree::Not(a) => {
                a.compile(out);
                out.combine(Logic::Not);
            }
        }
    }
}

fn path_from(root: impl Strategy<Value = String>) -> impl Strategy<Value = Path> {
    let step = prop_oneof!["\\PC{1,4}".prop_map(Step::Name), (0u32..1000).prop_map(Step::Index)];
    (root, prop::collection::vec(step, 0..4))
        .prop_map(|(root, steps)| steps.into_iter().fold(Path::attribute(root), Path::then))
}

fn path() -> impl Strategy<Value = Path> {
    path_from("\\PC{1,8}".boxed())
}

fn number() -> impl Strategy<Value = AttributeValue> {
    any::<u32>().prop_map(|value| AttributeValue::N(Number::from(u64::from(value))))
}

fn text() -> impl Strategy<Value = AttributeValue> {
    "\\PC{0,6}".prop_map(AttributeValue::S)
}

fn ordered() -> impl Strategy<Value = AttributeValue> {
    let binary = prop::collection::vec(any::<u8>(), 0..4).prop_map(AttributeValue::B);
    prop_oneof![number(), text(), binary]
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        path().prop_map(Operand::Path),
        ordered().prop_map(Operand::Value),
        path().prop_map(Operand::Size)
    ]
}

fn test() -> impl Strategy<Value = Test> {
    use Comparator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let comparator = prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
    let type_name = prop::sample::select(vec!["S", "N", "BOOL", "M"]);
    let prefix = || prop_oneof![path().prop_map(Operand::Path), text().prop_map(Operand::Value)];
    prop_oneof![
        (comparator, operand(), operand()).prop_map(|(comparator, a, b)| Test::Compare(comparator, a, b)),
        (operand(), path(), number()).prop_map(|(a, low, high)| Test::Between(
            a,
            Operand::Path(low),
            Operand::Value(high)
        )),
        (operand(), prop::collection::vec(operand(), 1..5)).prop_map(|(a, list)| Test::In(a, list)),
        path().prop_map(Test::Exists),
        path().prop_map(Test::NotExists),
        (path(), type_name)
            .prop_map(|(path, name)| Test::Type(path, Operand::Value(AttributeValue::S(name.to_owned())))),
        (prefix(), prefix()).prop_map(|(a, b)| Test::BeginsWith(a, b)),
        (path(), ordered()).prop_map(|(a, b)| Test::Contains(Operand::Path(a), Operand::Value(b))),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    test().prop_map(Tree::Test).prop_recursive(5, 40, 2, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            (boxed(), boxed()).prop_map(|(a, b)| Tree::And(a, b)),
            (boxed(), boxed()).prop_map(|(a, b)| Tree::Or(a, b)),
            boxed().prop_map(Tree::Not),
        ]
    })
}

/// What SET makes a value from.
#[derive(Clone, Debug)]
enum Value {
    Path(Path),
    Number(AttributeValue),
    IfNotExists(Path, Box<Value>),
    ListAppend(Path, Box<Value>),
    Sum(bool, Box<Value>, Box<Value>),
}

impl Value {
    fn print(&self, printer: &mut Printer) -> String {
        match self {
            Value::Path(path) => printer.path(path),
            Value::Number(number) => printer.value(number),
            Value::IfNotExists(path, or) => {
                format!("if_not_exists({}, {})", printer.path(path), or.print(printer))
            }
            Value::ListAppend(path, list) => {
                format!("list_append({}, {})", printer.path(path), list.print(printer))
            }
            Value::Sum(plus, a, b) => {
                let sign = if *plus { "+" } else { "-" };
                format!("{} {sign} {}", a.print_in_sum(printer), b.print_in_sum(printer))
            }
        }
    }

    /// A sum is no operand of a sum but in parentheses.
    fn print_in_sum(&self, printer: &mut Printer) -> String {
        match self {
            Value::Sum(..) => format!("({})", self.print(printer)),
            _ => self.print(printer),
        }
    }

    fn compile(&self, out: &mut Update) -> u16 {
        match self {
            Value::Path(path) => out.operand(SetOperand::Path(path.clone())),
            Value::Number(number) => out.operand(SetOperand::Value(number.clone())),
            Value::IfNotExists(path, or) => {
                // The parser takes the path for an operand before it knows better.
                out.operand(SetOperand::Path(path.clone()));
                let or = or.compile(out);
                out.operand(SetOperand::IfNotExists(path.clone(), or))
            }
            Value::ListAppend(path, list) => {
                let first = out.operand(SetOperand::Path(path.clone()));
                let second = list.compile(out);
                out.operand(SetOperand::ListAppend(first, second))
            }
            Value::Sum(plus, a, b) => {
                let (a, b) = (a.compile(out), b.compile(out));
                out.operand(if *plus { SetOperand::Plus(a, b) } else { SetOperand::Minus(a, b) })
            }
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![path().prop_map(Value::Path), number().prop_map(Value::Number)];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let list = path().prop_map(|path| Box::new(Value::Path(path)));
        prop_oneof![
            (path(), boxed()).prop_map(|(path, or)| Value::IfNotExists(path, or)),
            (path(), list).prop_map(|(path, list)| Value::ListAppend(path, list)),
            (any::<bool>(), boxed(), boxed()).prop_map(|(plus, a, b)| Value::Sum(plus, a, b)),
        ]
    })
}

/// Actions of all sections; each writes below a root of its own, so that none overlap.
fn sections() -> impl Strategy<Value = (Vec<Value>, usize, Vec<AttributeValue>, usize)> {
    (prop::collection::vec(value(), 1..4), 0usize..3, prop::collection::vec(number(), 0..3), 0usize..3)
}

proptest! {
    #[test]
    fn a_printed_condition_is_parsed_to_the_same(tree in tree()) {
        let mut printer = Printer::default();
        let source = tree.print(&mut printer);
        let mut expected = Condition::default();
        tree.compile(&mut expected);
        let placeholders = printer.placeholders();
        let parsed = parse_condition("ConditionExpression", &source, &placeholders);
        // Expressions of more than 4 KB are refused, whatever they say.
        prop_assume!(source.len() <= evenkeel_model::limits::EXPRESSION_BYTES_MAX);
        prop_assert_eq!(parsed.map_err(|error| error.message), Ok(expected), "{}", source);
        prop_assert!(placeholders.check_used().is_ok());
    }

    #[test]
    fn a_printed_update_is_parsed_to_the_same((sets, removes, adds, deletes) in sections(), below in path()) {
        let mut printer = Printer::default();
        let mut expected = Update::default();
        let mut roots = 0;
        let mut target = || {
            roots += 1;
            below.steps()[1..].iter().cloned().fold(Path::attribute(format!("root {roots}")), Path::then)
        };
        let mut printed: Vec<(&str, Vec<String>)> = Vec::new();
        let mut list = Vec::new();
        for value in &sets {
            let path = target();
            list.push(format!("{} = {}", printer.path(&path), value.print(&mut printer)));
            let operand = value.compile(&mut expected);
            expected.actions.push(Action::Set(path, operand));
        }
        printed.push(("SET", list));
        let list = (0..removes).map(|_| {
            let path = target();
            let text = printer.path(&path);
            expected.actions.push(Action::Remove(path));
            text
        });
        printed.push(("remove", list.collect()));
        let list = adds.iter().map(|number| {
            let path = target();
            let text = format!("{} {}", printer.path(&path), printer.value(number));
            expected.actions.push(Action::Add(path, number.clone()));
            text
        });
        printed.push(("ADD", list.collect()));
        let members = AttributeValue::Ss(vec!["x".to_owned()]);
        let list = (0..deletes).map(|_| {
            let path = target();
            let text = format!("{} {}", printer.path(&path), printer.value(&members));
            expected.actions.push(Action::Delete(path, members.clone()));
            text
        });
        printed.push(("DELETE", list.collect()));
        let sections = printed.iter().filter(|(_, list)| !list.is_empty());
        let source: Vec<String> = sections.map(|(name, list)| format!("{name} {}", list.join(", "))).collect();
        let source = source.join(" ");
        prop_assume!(source.len() <= evenkeel_model::limits::EXPRESSION_BYTES_MAX);
        let parsed = parse_update(&source, &printer.placeholders());
        prop_assert_eq!(parsed.map_err(|error| error.message), Ok(expected), "{}", source);
    }
}
