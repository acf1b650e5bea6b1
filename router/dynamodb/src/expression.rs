//! Key conditions: lexer and parser. The lexer knows the tokens of the whole expression language; the
//! parser so far knows the key conditions of Query.
//!
//! ```text
//! condition := term ( AND term )*
//! term      := '(' condition ')'
//!            | name ( '=' | '<' | '<=' | '>' | '>=' ) value
//!            | name BETWEEN value AND value
//!            | begins_with '(' name ',' value ')'
//! name      := identifier | '#' identifier
//! value     := ':' identifier
//! ```

use crate::error::ApiError;
use evenkeel_model::AttributeValue;
use evenkeel_model::limits::EXPRESSION_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 64;

/// The placeholders of a request.
#[derive(Debug, Default, Clone)]
pub struct Placeholders {
    /// ExpressionAttributeNames: `#n` to an attribute's name.
    pub names: BTreeMap<String, String>,
    /// ExpressionAttributeValues: `:v` to a value.
    pub values: BTreeMap<String, AttributeValue>,
}

/// How an attribute is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// Equal.
    Equal(AttributeValue),
    /// Less.
    Less(AttributeValue),
    /// Less or equal.
    LessOrEqual(AttributeValue),
    /// Greater.
    Greater(AttributeValue),
    /// Greater or equal.
    GreaterOrEqual(AttributeValue),
    /// Between two values, both included.
    Between(AttributeValue, AttributeValue),
    /// Begins with.
    BeginsWith(AttributeValue),
}

/// One condition on an attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The attribute.
    pub name: String,
    /// How it is compared.
    pub comparison: Comparison,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, keyword or function.
    Word(String),
    /// `#name`.
    Name(String),
    /// `:value`.
    Value(String),
    /// An operator or punctuation.
    Symbol(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(text) | Token::Name(text) | Token::Value(text) => text,
            Token::Symbol(text) => text,
        }
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

const SYMBOLS: [&str; 13] = ["<>", "<=", ">=", "=", "<", ">", "(", ")", ",", ".", "[", "]", "+"];

fn fault(text: impl std::fmt::Display) -> ApiError {
    ApiError::validation(format!("Invalid KeyConditionExpression: {text}"))
}

fn tokens(text: &str) -> Result<Vec<Token>, ApiError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word_bytes = |text: &str| {
            text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(text.len())
        };
        let length;
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            length = symbol.len();
            tokens.push(Token::Symbol(symbol));
        } else if first == '#' || first == ':' {
            length = 1 + word_bytes(&rest[1..]);
            let whole = rest[..length].to_owned();
            if length == 1 {
                return Err(syntax(&whole, rest));
            }
            tokens.push(if first == '#' { Token::Name(whole) } else { Token::Value(whole) });
        } else if first.is_ascii_alphanumeric() || first == '_' {
            length = word_bytes(rest);
            tokens.push(Token::Word(rest[..length].to_owned()));
        } else {
            return Err(syntax(&first.to_string(), rest));
        }
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn syntax(token: &str, near: &str) -> ApiError {
    let near: String = near.chars().take(16).collect();
    fault(format_args!("Syntax error; token: \"{token}\", near: \"{near}\""))
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    placeholders: &'a Placeholders,
    used_names: BTreeSet<String>,
    used_values: BTreeSet<String>,
}

/// Parses a key condition and resolves its placeholders.
///
/// # Errors
/// DynamoDB's texts for syntax errors, and for placeholders that are missing or unused.
pub fn parse_key_condition(text: &str, placeholders: &Placeholders) -> Result<Vec<Condition>, ApiError> {
    if text.is_empty() {
        return Err(fault("The expression can not be empty;"));
    }
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(fault(format_args!(
            "Expression size has exceeded the maximum allowed size; expression size: {}",
            text.len()
        )));
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        placeholders,
        used_names: BTreeSet::new(),
        used_values: BTreeSet::new(),
    };
    let mut conditions = Vec::new();
    parser.condition(&mut conditions, 0)?;
    if parser.at < parser.tokens.len() {
        return Err(parser.unexpected());
    }
    check_unused("Names", placeholders.names.keys(), &parser.used_names)?;
    check_unused("Values", placeholders.values.keys(), &parser.used_values)?;
    Ok(conditions)
}

fn check_unused<'a>(
    kind: &str,
    given: impl Iterator<Item = &'a String>,
    used: &BTreeSet<String>,
) -> Result<(), ApiError> {
    let unused: Vec<&str> = given.filter(|key| !used.contains(*key)).map(String::as_str).collect();
    if unused.is_empty() {
        return Ok(());
    }
    let keys = unused.join(", ");
    Err(ApiError::validation(format!(
        "Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{keys}}}"
    )))
}

impl Parser<'_> {
    fn unexpected(&self) -> ApiError {
        let token = self.tokens.get(self.at).map_or("<EOF>", Token::text);
        let from = self.at.saturating_sub(1);
        let near: Vec<&str> = self.tokens.iter().skip(from).take(3).map(Token::text).collect();
        syntax(token, &near.join(" "))
    }

    fn next(&mut self) -> Result<Token, ApiError> {
        let token = self.tokens.get(self.at).cloned().ok_or_else(|| self.unexpected())?;
        self.at += 1;
        Ok(token)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Symbol(s)) if *s == symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ApiError> {
        if self.accept(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn accept_keyword(&mut self, keyword: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|token| token.is_keyword(keyword));
        self.at += usize::from(found);
        found
    }

    fn condition(&mut self, out: &mut Vec<Condition>, depth: usize) -> Result<(), ApiError> {
        if depth > DEPTH_MAX {
            return Err(fault("The expression has too many nested parentheses;"));
        }
        loop {
            if self.accept("(") {
                self.condition(out, depth + 1)?;
                self.expect(")")?;
            } else {
                let condition = self.term()?;
                out.push(condition);
            }
            if !self.accept_keyword("AND") {
                return self.refuse_operators();
            }
        }
    }

    /// OR and NOT are of the language, but not of key conditions.
    fn refuse_operators(&self) -> Result<(), ApiError> {
        match self.tokens.get(self.at) {
            Some(token) if token.is_keyword("OR") => {
                Err(fault("Invalid operator used in KeyConditionExpression: OR"))
            }
            _ => Ok(()),
        }
    }

    fn term(&mut self) -> Result<Condition, ApiError> {
        let first = self.next()?;
        if first.is_keyword("NOT") {
            return Err(fault("Invalid operator used in KeyConditionExpression: NOT"));
        }
        if let Token::Word(word) = &first
            && self.accept("(")
        {
            return self.function(word);
        }
        let name = self.name(first)?;
        if self.accept_keyword("BETWEEN") {
            let lower = self.value()?;
            if !self.accept_keyword("AND") {
                return Err(self.unexpected());
            }
            let upper = self.value()?;
            return Ok(Condition { name, comparison: Comparison::Between(lower, upper) });
        }
        if self.tokens.get(self.at).is_some_and(|token| token.is_keyword("IN")) {
            return Err(fault("Invalid operator used in KeyConditionExpression: IN"));
        }
        let comparison: fn(AttributeValue) -> Comparison = match self.next()? {
            Token::Symbol("=") => Comparison::Equal,
            Token::Symbol("<") => Comparison::Less,
            Token::Symbol("<=") => Comparison::LessOrEqual,
            Token::Symbol(">") => Comparison::Greater,
            Token::Symbol(">=") => Comparison::GreaterOrEqual,
            Token::Symbol("<>") => {
                return Err(ApiError::validation("Unsupported operator on KeyCondition: operator: <>"));
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected());
            }
        };
        Ok(Condition { name, comparison: comparison(self.value()?) })
    }

    fn function(&mut self, word: &str) -> Result<Condition, ApiError> {
        const OTHERS: [&str; 5] =
            ["attribute_exists", "attribute_not_exists", "attribute_type", "contains", "size"];
        if OTHERS.contains(&word) {
            return Err(fault(format_args!("Invalid operator used in KeyConditionExpression: {word}")));
        }
        if word != "begins_with" {
            return Err(fault(format_args!("Invalid function name; function: {word}")));
        }
        let first = self.next()?;
        let name = self.name(first)?;
        self.expect(",")?;
        let value = self.value()?;
        self.expect(")")?;
        Ok(Condition { name, comparison: Comparison::BeginsWith(value) })
    }

    fn name(&mut self, token: Token) -> Result<String, ApiError> {
        let is_path = matches!(self.tokens.get(self.at), Some(Token::Symbol("." | "[")));
        if is_path {
            return Err(fault("KeyConditionExpressions cannot have conditions on nested attributes"));
        }
        match token {
            Token::Word(word) => Ok(word),
            Token::Name(key) => match self.placeholders.names.get(&key) {
                Some(name) => {
                    self.used_names.insert(key);
                    Ok(name.clone())
                }
                None => Err(fault(format_args!(
                    "An expression attribute name used in the document path is not defined; attribute name: {key}"
                ))),
            },
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }

    fn value(&mut self) -> Result<AttributeValue, ApiError> {
        match self.next()? {
            Token::Value(key) => match self.placeholders.values.get(&key) {
                Some(value) => {
                    self.used_values.insert(key);
                    Ok(value.clone())
                }
                None => Err(fault(format_args!(
                    "An expression attribute value used in expression is not defined; attribute value: {key}"
                ))),
            },
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Condition>, String> {
        let number = |n: u64| AttributeValue::N(n.into());
        let placeholders = Placeholders {
            names: [("#k".to_owned(), "key".to_owned())]
                .into_iter()
                .filter(|_| text.contains("#k"))
                .collect(),
            values: [(":a".to_owned(), number(1)), (":b".to_owned(), number(2))]
                .into_iter()
                .filter(|(key, _)| text.contains(key.as_str()))
                .collect(),
        };
        parse_key_condition(text, &placeholders).map_err(|error| error.message)
    }

    #[test]
    fn conditions_are_parsed_with_their_placeholders() {
        let (a, b) = (AttributeValue::N(1.into()), AttributeValue::N(2.into()));
        let on = |name: &str, comparison: Comparison| Condition { name: name.to_owned(), comparison };
        let cases = [
            ("pk=:a", vec![on("pk", Comparison::Equal(a.clone()))]),
            (
                "(#k = :a) and (sk BETWEEN :a AND :b)",
                vec![
                    on("key", Comparison::Equal(a.clone())),
                    on("sk", Comparison::Between(a.clone(), b.clone())),
                ],
            ),
            (
                " begins_with ( sk , :b ) AND pk = :a ",
                vec![on("sk", Comparison::BeginsWith(b.clone())), on("pk", Comparison::Equal(a.clone()))],
            ),
            ("pk <= :a", vec![on("pk", Comparison::LessOrEqual(a.clone()))]),
            ("pk < :a", vec![on("pk", Comparison::Less(a.clone()))]),
            ("pk >= :a", vec![on("pk", Comparison::GreaterOrEqual(a.clone()))]),
            ("pk > :a", vec![on("pk", Comparison::Greater(a))]),
        ];
        for (text, conditions) in cases {
            assert_eq!(parse(text), Ok(conditions), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_condition_is_refused_with_its_reason() {
        let cases = [
            ("", "The expression can not be empty;"),
            ("pk", "Syntax error; token: \"<EOF>\", near: \"pk\""),
            ("pk = ", "Syntax error; token: \"<EOF>\""),
            ("pk = 5", "Syntax error; token: \"5\""),
            ("pk == :a", "Syntax error; token: \"=\""),
            ("pk ! :a", "Syntax error; token: \"!\""),
            ("(pk = :a", "Syntax error; token: \"<EOF>\""),
            ("pk = :a)", "Syntax error; token: \")\""),
            ("pk = :c", "attribute value: :c"),
            ("#z = :a", "attribute name: #z"),
            ("pk = :a OR sk = :b", "Invalid operator used in KeyConditionExpression: OR"),
            ("pk <> :a", "Unsupported operator on KeyCondition: operator: <>"),
            ("size(pk) = :a", "Invalid operator used in KeyConditionExpression: size"),
            ("nonsense(pk, :a)", "Invalid function name; function: nonsense"),
            ("pk.x = :a", "nested attributes"),
        ];
        for (text, reason) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let deep = format!("{}pk = :a{}", "(".repeat(1000), ")".repeat(1000));
        assert!(parse(&deep).unwrap_err().contains("nested parentheses"));
    }

    #[test]
    fn unused_placeholders_are_refused() {
        let placeholders = Placeholders {
            values: [":a", ":z"].map(|key| (key.to_owned(), AttributeValue::Null)).into(),
            ..Placeholders::default()
        };
        let error = parse_key_condition("pk = :a", &placeholders).unwrap_err();
        assert_eq!(
            error.message,
            "Value provided in ExpressionAttributeValues unused in expressions: keys: {:z}"
        );
    }

    proptest::proptest! {
        #[test]
        fn parsing_any_text_never_panics(text in "[a-z#:()=<>, .\\[\\]ANDBETWEENé0-9]{0,60}") {
            let _ = parse(&text);
        }
    }
}
