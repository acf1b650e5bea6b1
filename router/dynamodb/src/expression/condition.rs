//! Conditions and filters.
//!
//! ```text
//! or        := and ( OR and )*
//! and       := not ( AND not )*
//! not       := NOT* primary
//! primary   := '(' or ')' | function | operand comparator operand
//!            | operand BETWEEN operand AND operand | operand IN '(' operand ( ',' operand )* ')'
//! operand   := path | value | size '(' path ')'
//! ```

use super::lexer::Kind;
use super::parser::{Fault, Parser, parse};
use super::placeholders::Placeholders;
use crate::error::ApiError;
use evenkeel_expression::{Comparator, Condition, Logic, Operand, Step, Test};
use evenkeel_model::AttributeValue;

/// The functions that are conditions by themselves.
const FUNCTIONS: [&str; 5] =
    ["attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains"];
/// Most operands of IN.
const IN_OPERANDS_MAX: usize = 100;

/// Parses the condition in a parameter, `ConditionExpression` or `FilterExpression`.
///
/// # Errors
/// DynamoDB's texts.
pub fn parse_condition(
    parameter: &str,
    source: &str,
    placeholders: &Placeholders,
) -> Result<Condition, ApiError> {
    parse(parameter, source, placeholders, whole)
}

/// A condition, up to where it ends.
pub(super) fn whole(parser: &mut Parser<'_>) -> Result<Condition, Fault> {
    let mut condition = Condition::default();
    or(parser, &mut condition)?;
    Ok(condition)
}

fn or(parser: &mut Parser<'_>, out: &mut Condition) -> Result<(), Fault> {
    and(parser, out)?;
    while parser.accept_keyword("OR") {
        parser.operator()?;
        and(parser, out)?;
        out.combine(Logic::Or);
    }
    Ok(())
}

fn and(parser: &mut Parser<'_>, out: &mut Condition) -> Result<(), Fault> {
    not(parser, out)?;
    while parser.accept_keyword("AND") {
        parser.operator()?;
        not(parser, out)?;
        out.combine(Logic::And);
    }
    Ok(())
}

fn not(parser: &mut Parser<'_>, out: &mut Condition) -> Result<(), Fault> {
    let mut count = 0;
    while parser.accept_keyword("NOT") {
        parser.operator()?;
        count += 1;
    }
    primary(parser, out)?;
    (0..count).for_each(|_| out.combine(Logic::Not));
    Ok(())
}

fn primary(parser: &mut Parser<'_>, out: &mut Condition) -> Result<(), Fault> {
    if parser.is_symbol("(") {
        // Each pair counts as an operator, which bounds how deep this recurses.
        parser.operator()?;
        parser.advance();
        or(parser, out)?;
        return parser.expect(")");
    }
    let test = match parser.called() {
        None | Some("size") => comparison(parser)?,
        Some(name) => function(parser, name)?,
    };
    out.test(test);
    Ok(())
}

fn function(parser: &mut Parser<'_>, name: &str) -> Result<Test, Fault> {
    if !FUNCTIONS.contains(&name) {
        return Err(format!("Invalid function name; function: {name}"));
    }
    parser.operator()?;
    parser.advance();
    parser.advance();
    let mut operands = vec![operand(parser)?];
    while parser.accept(",") {
        operands.push(operand(parser)?);
    }
    parser.expect(")")?;
    let wanted = if name.starts_with("attribute_") && name.ends_with("exists") { 1 } else { 2 };
    if operands.len() != wanted {
        return Err(format!(
            "Incorrect number of operands for operator or function; operator or function: {name}, number of operands: {}",
            operands.len()
        ));
    }
    let mut operands = operands.into_iter();
    let mut next = || operands.next().expect("counted above");
    let first = next();
    Ok(match name {
        "begins_with" => begins_with(parser, first, next()),
        "contains" => contains(parser, first, next()),
        _ => {
            let Operand::Path(path) = first else {
                return Err(format!(
                    "Operator or function requires a document path; operator or function: {name}"
                ));
            };
            match name {
                "attribute_exists" => Test::Exists(path),
                "attribute_not_exists" => Test::NotExists(path),
                _ => {
                    let type_name = next();
                    check_type_name(parser, &type_name);
                    Test::Type(path, type_name)
                }
            }
        }
    })
}

fn begins_with(parser: &mut Parser<'_>, value: Operand, prefix: Operand) -> Test {
    for operand in [&value, &prefix] {
        if let Operand::Value(value) = operand
            && !matches!(value, AttributeValue::S(_) | AttributeValue::B(_))
        {
            parser.note_type("begins_with", value);
        }
    }
    Test::BeginsWith(value, prefix)
}

fn contains(parser: &mut Parser<'_>, value: Operand, element: Operand) -> Test {
    if let (Operand::Path(one), Operand::Path(two)) = (&value, &element)
        && one == two
    {
        let steps: Vec<String> = one.steps().iter().map(print_step).collect();
        let one = steps.join(".");
        parser.note(format!(
            "The first operand must be distinct from the remaining operands for this operator or function; operator: contains, first operand: [{one}]"
        ));
    }
    Test::Contains(value, element)
}

fn print_step(step: &Step) -> String {
    match step {
        Step::Name(name) => name.clone(),
        Step::Index(index) => format!("[{index}]"),
    }
}

fn check_type_name(parser: &mut Parser<'_>, operand: &Operand) {
    const TYPES: [&str; 10] = ["B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M"];
    match operand {
        Operand::Value(AttributeValue::S(name)) if TYPES.contains(&name.as_str()) => {}
        Operand::Value(AttributeValue::S(name)) => parser.note(format!(
            "Invalid attribute type name found; type: {name}, valid types: {{{}}}",
            TYPES.join(",")
        )),
        Operand::Value(value) => parser.note_type("attribute_type", value),
        Operand::Path(_) | Operand::Size(_) => {
            parser
                .note("Second operand of the attribute_type function must be an expression attribute value");
        }
    }
}

fn operand(parser: &mut Parser<'_>) -> Result<Operand, Fault> {
    if parser.is_value() {
        return parser.value().map(Operand::Value);
    }
    match parser.called() {
        Some("size") => {
            parser.operator()?;
            parser.advance();
            parser.advance();
            let path = parser.path()?;
            parser.expect(")")?;
            Ok(Operand::Size(path))
        }
        Some(name) if FUNCTIONS.contains(&name) => {
            Err(format!("The function is not allowed to be used this way in an expression; function: {name}"))
        }
        Some(_) => {
            parser.advance();
            Err(parser.unexpected())
        }
        None => parser.path().map(Operand::Path),
    }
}

fn comparison(parser: &mut Parser<'_>) -> Result<Test, Fault> {
    let first = operand(parser)?;
    if parser.accept_keyword("BETWEEN") {
        parser.operator()?;
        let low = operand(parser)?;
        if !parser.accept_keyword("AND") {
            return Err(parser.unexpected());
        }
        let high = operand(parser)?;
        check_bounds(parser, &low, &high);
        return Ok(Test::Between(first, low, high));
    }
    if parser.accept_keyword("IN") {
        parser.operator()?;
        return one_of(parser, first);
    }
    let token = parser.peek().filter(|token| token.kind == Kind::Symbol);
    let symbol = token.map_or("", |token| token.text);
    let comparator = match symbol {
        "=" => Comparator::Equal,
        "<>" => Comparator::NotEqual,
        "<" => Comparator::Less,
        "<=" => Comparator::LessOrEqual,
        ">" => Comparator::Greater,
        ">=" => Comparator::GreaterOrEqual,
        _ => return Err(parser.unexpected()),
    };
    parser.operator()?;
    parser.advance();
    let second = operand(parser)?;
    if !matches!(comparator, Comparator::Equal | Comparator::NotEqual) {
        for operand in [&first, &second] {
            if let Operand::Value(value) = operand
                && !has_order(value)
            {
                parser.note(format!(
                    "Incorrect operand type for operator or function; operator: {symbol}, operand type: {}",
                    value.type_name()
                ));
            }
        }
    }
    Ok(Test::Compare(comparator, first, second))
}

fn has_order(value: &AttributeValue) -> bool {
    matches!(value, AttributeValue::S(_) | AttributeValue::N(_) | AttributeValue::B(_))
}

fn one_of(parser: &mut Parser<'_>, first: Operand) -> Result<Test, Fault> {
    parser.expect("(")?;
    let mut list = vec![operand(parser)?];
    while parser.accept(",") {
        list.push(operand(parser)?);
    }
    parser.expect(")")?;
    if list.len() > IN_OPERANDS_MAX {
        parser.note(format!(
            "The IN operator is provided with too many operands; number of operands: {}",
            list.len()
        ));
    }
    Ok(Test::In(first, list))
}

/// Bounds that are both constants must be of one type, and in order.
fn check_bounds(parser: &mut Parser<'_>, low: &Operand, high: &Operand) {
    let (Operand::Value(low), Operand::Value(high)) = (low, high) else { return };
    for bound in [low, high] {
        if !has_order(bound) {
            return parser.note_type("BETWEEN", bound);
        }
    }
    let in_order = match (low, high) {
        (AttributeValue::S(low), AttributeValue::S(high)) => low <= high,
        (AttributeValue::N(low), AttributeValue::N(high)) => low <= high,
        (AttributeValue::B(low), AttributeValue::B(high)) => low <= high,
        _ => {
            return parser.note(format!(
                "The BETWEEN operator requires same data type for lower and upper bounds; {}",
                print_bounds(low, high)
            ));
        }
    };
    if !in_order {
        parser.note(bounds_out_of_order(low, high));
    }
}

/// The fault that the bounds of BETWEEN are not in order.
pub fn bounds_out_of_order(low: &AttributeValue, high: &AttributeValue) -> String {
    format!(
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; {}",
        print_bounds(low, high)
    )
}

fn print_bounds(low: &AttributeValue, high: &AttributeValue) -> String {
    format!(
        "lower bound operand: AttributeValue: {{{}}}, upper bound operand: AttributeValue: {{{}}}",
        print(low),
        print(high)
    )
}

/// A value as DynamoDB prints it in messages.
fn print(value: &AttributeValue) -> String {
    use base64::Engine as _;
    match value {
        AttributeValue::S(text) => format!("S:{text}"),
        AttributeValue::N(number) => format!("N:{number}"),
        AttributeValue::B(bytes) => {
            format!("B:{}", base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        other => other.type_name().to_owned(),
    }
}
