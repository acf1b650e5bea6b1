//! Update expressions.
//!
//! ```text
//! update  := section+
//! section := SET path '=' value ( ',' path '=' value )* | REMOVE path ( ',' path )*
//!          | ADD path :value ( ',' path :value )* | DELETE path :value ( ',' path :value )*
//! value   := operand ( ( '+' | '-' ) operand )?
//! operand := path | :value | '(' value ')' | if_not_exists '(' path ',' value ')'
//!          | list_append '(' value ',' value ')'
//! ```

use super::parser::{Fault, Parser, overlap, parse};
use super::placeholders::Placeholders;
use crate::error::ApiError;
use evenkeel_expression::{Action, Path, SetOperand, Update};
use evenkeel_model::AttributeValue;

const SECTIONS: [&str; 4] = ["SET", "REMOVE", "ADD", "DELETE"];

/// Parses an update expression.
///
/// # Errors
/// DynamoDB's texts.
pub fn parse_update(source: &str, placeholders: &Placeholders) -> Result<Update, ApiError> {
    parse("UpdateExpression", source, placeholders, |parser| {
        let mut update = Update::default();
        let mut seen = Vec::new();
        loop {
            let section = SECTIONS.into_iter().find(|section| parser.is_keyword(section));
            let section = section.ok_or_else(|| parser.unexpected())?;
            if seen.contains(&section) {
                return Err(format!(
                    "The \"{section}\" section can only be used once in an update expression;"
                ));
            }
            seen.push(section);
            parser.advance();
            loop {
                let action = action(parser, section, &mut update)?;
                update.actions.push(action);
                if !parser.accept(",") {
                    break;
                }
            }
            if parser.peek().is_none() {
                break;
            }
        }
        let mut actions: Vec<&Action> = update.actions.iter().collect();
        actions.sort_by_key(|action| rank(action));
        actions.iter().for_each(|action| check_operand_of_section(parser, action));
        let targets: Vec<&Path> = actions.into_iter().map(Action::path).collect();
        if let Some(fault) = overlap(&targets) {
            parser.note(fault);
        }
        Ok(update)
    })
}

/// Paths are told of section by section, in this order.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Set(..) => 0,
        Action::Remove(_) => 1,
        Action::Add(..) => 2,
        Action::Delete(..) => 3,
    }
}

fn action(parser: &mut Parser<'_>, section: &str, update: &mut Update) -> Result<Action, Fault> {
    let path = parser.path()?;
    parser.operator()?;
    match section {
        "SET" => {
            parser.expect("=")?;
            let value = value(parser, update)?;
            Ok(Action::Set(path, value))
        }
        "REMOVE" => Ok(Action::Remove(path)),
        "ADD" => {
            let value = parser.value()?;
            Ok(Action::Add(path, value))
        }
        _ => {
            let value = parser.value()?;
            Ok(Action::Delete(path, value))
        }
    }
}

fn is_set(value: &AttributeValue) -> bool {
    matches!(value, AttributeValue::Ss(_) | AttributeValue::Ns(_) | AttributeValue::Bs(_))
}

/// Notes a value that ADD or DELETE does not take. They spell types out, and are looked at before what
/// SET is made from.
fn check_operand_of_section(parser: &mut Parser<'_>, action: &Action) {
    let (section, value) = match action {
        Action::Add(_, value) if !matches!(value, AttributeValue::N(_)) && !is_set(value) => ("ADD", value),
        Action::Delete(_, value) if !is_set(value) => ("DELETE", value),
        _ => return,
    };
    let spelled = match value {
        AttributeValue::S(_) => "STRING",
        AttributeValue::N(_) => "NUMBER",
        AttributeValue::B(_) => "Binary",
        AttributeValue::L(_) => "LIST",
        AttributeValue::M(_) => "MAP",
        other => other.type_name(),
    };
    parser.note_first(format!(
        "Incorrect operand type for operator or function; operator: {section}, operand type: {spelled}, typeSet: ALLOWED_FOR_ADD_OPERAND"
    ));
}

fn value(parser: &mut Parser<'_>, update: &mut Update) -> Result<u16, Fault> {
    let first = operand(parser, update)?;
    for (symbol, plus) in [("+", true), ("-", false)] {
        if !parser.accept(symbol) {
            continue;
        }
        parser.operator()?;
        let second = operand(parser, update)?;
        for operand in [first, second] {
            check_operand(parser, update, operand, symbol, |value| matches!(value, AttributeValue::N(_)));
        }
        let sum = if plus { SetOperand::Plus(first, second) } else { SetOperand::Minus(first, second) };
        return Ok(update.operand(sum));
    }
    Ok(first)
}

/// Notes an operand that is a constant of a type that is not allowed.
fn check_operand(
    parser: &mut Parser<'_>,
    update: &Update,
    operand: u16,
    operator: &str,
    allowed: impl Fn(&AttributeValue) -> bool,
) {
    if let SetOperand::Value(value) = &update.operands[usize::from(operand)]
        && !allowed(value)
    {
        parser.note_type(operator, value);
    }
}

fn operand(parser: &mut Parser<'_>, update: &mut Update) -> Result<u16, Fault> {
    if parser.is_value() {
        let value = parser.value()?;
        return Ok(update.operand(SetOperand::Value(value)));
    }
    if parser.is_symbol("(") {
        // Each pair counts as an operator, which bounds how deep this recurses.
        parser.operator()?;
        parser.advance();
        let inner = value(parser, update)?;
        parser.expect(")")?;
        return Ok(inner);
    }
    match parser.called() {
        Some(name) => function(parser, update, name),
        None => {
            let path = parser.path()?;
            Ok(update.operand(SetOperand::Path(path)))
        }
    }
}

fn function(parser: &mut Parser<'_>, update: &mut Update, name: &str) -> Result<u16, Fault> {
    if name != "if_not_exists" && name != "list_append" {
        return Err(match is_condition_function(name) {
            true => {
                format!("The function is not allowed in an update expression; function: {name}")
            }
            false => format!("Invalid function name; function: {name}"),
        });
    }
    parser.operator()?;
    parser.advance();
    parser.advance();
    let mut operands = vec![value(parser, update)?];
    while parser.accept(",") {
        operands.push(value(parser, update)?);
    }
    parser.expect(")")?;
    let [first, second] = operands[..] else {
        return Err(format!(
            "Incorrect number of operands for operator or function; operator or function: {name}, number of operands: {}",
            operands.len()
        ));
    };
    if name == "list_append" {
        for operand in [first, second] {
            check_operand(parser, update, operand, name, |value| matches!(value, AttributeValue::L(_)));
        }
        return Ok(update.operand(SetOperand::ListAppend(first, second)));
    }
    match update.operands[usize::from(first)].clone() {
        SetOperand::Path(path) => Ok(update.operand(SetOperand::IfNotExists(path, second))),
        _ => {
            Err("Operator or function requires a document path; operator or function: if_not_exists"
                .to_owned())
        }
    }
}

fn is_condition_function(name: &str) -> bool {
    ["attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size"]
        .contains(&name)
}
