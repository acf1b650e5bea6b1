//! SPDX licence expressions, as far as crates use them: OR, AND, WITH, parentheses, a trailing
//! `+`, and the old `/` that meant OR.

/// A parsed licence expression.
#[derive(Debug, PartialEq, Eq)]
pub enum Expression {
    /// One licence, with its exception if it has one: `Apache-2.0 WITH LLVM-exception`.
    One(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    /// `None` when the text is not an expression.
    pub fn parse(text: &str) -> Option<Expression> {
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        let expression = any(&mut rest)?;
        rest.is_empty().then_some(expression)
    }

    /// Whether a choice of licences exists that are all allowed. "This version or later" is met
    /// by this version.
    pub fn is_met_by(&self, allowed: impl Fn(&str) -> bool + Copy) -> bool {
        match self {
            Expression::One(license) => allowed(license) || license.strip_suffix('+').is_some_and(allowed),
            Expression::All(parts) => parts.iter().all(|part| part.is_met_by(allowed)),
            Expression::Any(parts) => parts.iter().any(|part| part.is_met_by(allowed)),
        }
    }
}

fn any(words: &mut &[&str]) -> Option<Expression> {
    let mut parts = vec![all(words)?];
    while take(words, "OR") {
        parts.push(all(words)?);
    }
    Some(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
}

fn all(words: &mut &[&str]) -> Option<Expression> {
    let mut parts = vec![one(words)?];
    while take(words, "AND") {
        parts.push(one(words)?);
    }
    Some(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
}

fn one(words: &mut &[&str]) -> Option<Expression> {
    if take(words, "(") {
        let inner = any(words)?;
        return take(words, ")").then_some(inner);
    }
    let license = name(words)?;
    if take(words, "WITH") {
        return Some(Expression::One(format!("{license} WITH {}", name(words)?)));
    }
    Some(Expression::One(license))
}

fn take(words: &mut &[&str], expected: &str) -> bool {
    let found = words.first() == Some(&expected);
    if found {
        *words = &words[1..];
    }
    found
}

fn name(words: &mut &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let reserved = ["OR", "AND", "WITH", "(", ")"].contains(first);
    *words = rest;
    (!reserved).then(|| (*first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_met_as_spdx_says() {
        let allowed = |license: &str| ["MIT", "Apache-2.0", "Unicode-3.0", "MPL-2.0"].contains(&license);
        for (text, met) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0 OR LGPL-3.0", false),
            ("MIT AND GPL-3.0", false),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0 / MIT", true),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0", false),
            ("GPL-3.0 AND ISC OR MIT", true),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true),
            ("MPL-2.0+", true),
        ] {
            let expression = Expression::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(expression.is_met_by(allowed), met, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "OR", "MIT OR", "MIT Apache-2.0", "(MIT", "MIT)", "MIT WITH", "MIT AND OR ISC"] {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
    }
}
