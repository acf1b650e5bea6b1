//! What all expressions have in common: tokens in order, paths, placeholders, and how faults are told.
//!
//! An expression that breaks the grammar is reported as such, whatever else is wrong with it. So a fault
//! of meaning (a placeholder that is not defined, an operand of the wrong type) is noted where it is
//! found, and reported if the grammar holds to the end.

use super::lexer::{Kind, Lexed, Token};
use super::placeholders::Placeholders;
use super::reserved::is_reserved;
use crate::error::ApiError;
use evenkeel_expression::{OPERATORS_MAX, Path, Step};
use evenkeel_model::AttributeValue;
use evenkeel_model::limits::{EXPRESSION_BYTES_MAX, NESTING_LEVELS_MAX};

/// A fault of the expression, without the words that say which expression it is.
pub type Fault = String;

pub struct Parser<'a> {
    lexed: Lexed<'a>,
    at: usize,
    placeholders: &'a Placeholders,
    operators: usize,
    noted: Option<Fault>,
    noted_first: Option<Fault>,
}

/// Parses an expression of a parameter, such as `ConditionExpression`.
pub fn parse<T>(
    parameter: &str,
    source: &str,
    placeholders: &Placeholders,
    body: impl FnOnce(&mut Parser<'_>) -> Result<T, Fault>,
) -> Result<T, ApiError> {
    let parsed = whole(source, placeholders, body);
    parsed.map_err(|fault| ApiError::validation(format!("Invalid {parameter}: {fault}")))
}

fn whole<T>(
    source: &str,
    placeholders: &Placeholders,
    body: impl FnOnce(&mut Parser<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if source.is_empty() {
        return Err("The expression can not be empty;".to_owned());
    }
    if source.len() > EXPRESSION_BYTES_MAX {
        return Err(format!(
            "Expression size has exceeded the maximum allowed size; expression size: {}",
            source.len()
        ));
    }
    let lexed = Lexed::new(source);
    if lexed.has_redundant_parentheses() {
        return Err("The expression has redundant parentheses;".to_owned());
    }
    let mut parser = Parser { lexed, at: 0, placeholders, operators: 0, noted: None, noted_first: None };
    let parsed = body(&mut parser)?;
    if parser.peek().is_some() {
        return Err(parser.unexpected());
    }
    match parser.noted_first.or(parser.noted) {
        Some(fault) => Err(fault),
        None => Ok(parsed),
    }
}

impl<'a> Parser<'a> {
    pub fn peek(&self) -> Option<Token<'a>> {
        self.lexed.tokens.get(self.at).copied()
    }

    /// The token behind the next one.
    pub fn peek_second(&self) -> Option<Token<'a>> {
        self.lexed.tokens.get(self.at + 1).copied()
    }

    pub fn advance(&mut self) {
        self.at += 1;
    }

    /// The fault that the next token does not belong here.
    pub fn unexpected(&self) -> Fault {
        self.lexed.syntax_error(self.at)
    }

    /// Keeps the first fault of meaning for the end.
    pub fn note(&mut self, fault: impl Into<Fault>) {
        self.noted.get_or_insert(fault.into());
    }

    /// Keeps the first fault of meaning of those that come before all others.
    pub fn note_first(&mut self, fault: impl Into<Fault>) {
        self.noted_first.get_or_insert(fault.into());
    }

    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.peek().is_some_and(|token| token.kind == Kind::Symbol && token.text == symbol)
    }

    pub fn accept(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.accept(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub fn is_keyword(&self, keyword: &str) -> bool {
        self.peek().is_some_and(|token| token.kind == Kind::Word && token.text.eq_ignore_ascii_case(keyword))
    }

    pub fn accept_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    /// The function that is called here, if one is; nothing is consumed.
    pub fn called(&self) -> Option<&'a str> {
        let (word, open) = (self.peek()?, self.peek_second()?);
        (word.kind == Kind::Word && open.text == "(" && !is_keyword_of_logic(word.text)).then_some(word.text)
    }

    /// Counts an operator or function.
    pub fn operator(&mut self) -> Result<(), Fault> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(format!(
                "The expression contains too many operators; operator count: {}",
                self.operators
            ));
        }
        Ok(())
    }

    /// `name ( '.' name | '[' number ']' )*`
    pub fn path(&mut self) -> Result<Path, Fault> {
        let mut path = Path::attribute(self.name()?);
        loop {
            if self.accept(".") {
                path = path.then(Step::Name(self.name()?));
            } else if self.accept("[") {
                let token = self.peek().filter(|token| token.kind == Kind::Number);
                let number = token.ok_or_else(|| self.unexpected())?.text;
                self.advance();
                self.expect("]")?;
                let index = number.parse().map_err(|_| {
                    format!("List index is not within the allowable range; index: [{number}]")
                })?;
                path = path.then(Step::Index(index));
            } else {
                break;
            }
        }
        if path.steps().len() > NESTING_LEVELS_MAX {
            self.note(
                "The document path has too many nesting elements; nesting elements: ".to_owned()
                    + &path.steps().len().to_string(),
            );
        }
        Ok(path)
    }

    fn name(&mut self) -> Result<String, Fault> {
        let token = self.peek().ok_or_else(|| self.unexpected())?;
        let name = match token.kind {
            Kind::Word if is_reserved(token.text) && !is_keyword_of_grammar(token.text) => {
                return Err(format!(
                    "Attribute name is a reserved keyword; reserved keyword: {}",
                    token.text
                ));
            }
            Kind::Word if !is_keyword_of_grammar(token.text) => token.text.to_owned(),
            Kind::Name => match self.placeholders.name(token.text) {
                Ok(name) => name.to_owned(),
                Err(fault) => {
                    self.note_first(fault);
                    String::new()
                }
            },
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(name)
    }

    /// Whether a value's placeholder stands here.
    pub fn is_value(&self) -> bool {
        self.peek().is_some_and(|token| token.kind == Kind::Value)
    }

    /// `:value`
    pub fn value(&mut self) -> Result<AttributeValue, Fault> {
        let token = self.peek().filter(|token| token.kind == Kind::Value);
        let token = token.ok_or_else(|| self.unexpected())?;
        self.advance();
        match self.placeholders.value(token.text) {
            Ok(value) => Ok(value.clone()),
            Err(fault) => {
                self.note_first(fault);
                Ok(AttributeValue::Null)
            }
        }
    }

    /// Notes that an operand is of a type that an operator or function does not take.
    pub fn note_type(&mut self, operator: &str, operand: &AttributeValue) {
        self.note(format!(
            "Incorrect operand type for operator or function; operator or function: {operator}, operand type: {}",
            operand.type_name()
        ));
    }
}

/// Words of the grammar: where a name is wanted, they are out of place rather than reserved.
fn is_keyword_of_grammar(word: &str) -> bool {
    ["SET", "REMOVE", "ADD", "DELETE"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
        || is_keyword_of_logic(word)
}

fn is_keyword_of_logic(word: &str) -> bool {
    ["AND", "OR", "NOT", "BETWEEN", "IN"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// The fault that two paths are not apart, if any two of them are not.
pub fn overlap(paths: &[&Path]) -> Option<Fault> {
    for (at, one) in paths.iter().enumerate() {
        for two in &paths[at + 1..] {
            let shorter = one.steps().len().min(two.steps().len());
            let common = one.steps().iter().zip(two.steps()).take_while(|(a, b)| a == b).count();
            if common == shorter {
                return Some(format!(
                    "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: {one}, path two: {two}"
                ));
            }
            let kinds = one.steps().get(common).zip(two.steps().get(common));
            if let Some((Step::Name(_), Step::Index(_)) | (Step::Index(_), Step::Name(_))) = kinds {
                return Some(format!(
                    "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: {one}, path two: {two}"
                ));
            }
        }
    }
    None
}
