//! The tokens of the expression language, and the texts that say where one is out of place.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name, keyword or function.
    Word,
    /// `#name`.
    Name,
    /// `:value`.
    Value,
    /// The index in brackets.
    Number,
    /// An operator or punctuation.
    Symbol,
    /// Anything else.
    Unreadable,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

const SYMBOLS: [&str; 14] = ["<>", "<=", ">=", "=", "<", ">", "(", ")", ",", ".", "[", "]", "+", "-"];

/// An expression cut into tokens.
#[derive(Debug)]
pub struct Lexed<'a> {
    source: &'a str,
    pub tokens: Vec<Token<'a>>,
}

impl<'a> Lexed<'a> {
    pub fn new(source: &'a str) -> Lexed<'a> {
        let mut tokens: Vec<Token<'a>> = Vec::new();
        let mut start = 0;
        loop {
            let rest = &source[start..];
            let blank = rest.find(|c: char| !c.is_ascii_whitespace()).unwrap_or(rest.len());
            start += blank;
            let rest = &source[start..];
            let Some(first) = rest.chars().next() else { return Lexed { source, tokens } };
            let in_brackets = tokens.last().is_some_and(|token| token.text == "[");
            let (kind, length) = measure(rest, first, in_brackets);
            tokens.push(Token { kind, text: &rest[..length], start });
            start += length;
        }
    }

    /// The text of the error that the token of this number does not belong where it stands. `near` is
    /// the source from the token before it to the one behind it.
    pub fn syntax_error(&self, at: usize) -> String {
        let Some(token) = self.tokens.get(at) else {
            let near = self.tokens.last().map_or(self.source, |last| last.text);
            return format!("Syntax error; token: \"<EOF>\", near: \"{near}\"");
        };
        let start = at.checked_sub(1).map_or(token.start, |before| self.tokens[before].start);
        let end = self.tokens.get(at + 1).map_or(token.end(), Token::end);
        format!("Syntax error; token: \"{}\", near: \"{}\"", token.text, &self.source[start..end])
    }

    /// Whether a pair of parentheses holds nothing but another pair.
    pub fn has_redundant_parentheses(&self) -> bool {
        let mut open = Vec::new();
        let mut closed_by = vec![None; self.tokens.len()];
        for (at, token) in self.tokens.iter().enumerate() {
            match token.text {
                "(" => open.push(at),
                ")" => {
                    if let Some(open) = open.pop() {
                        closed_by[open] = Some(at);
                    }
                }
                _ => {}
            }
        }
        closed_by.windows(2).any(|pair| matches!(pair, [Some(outer), Some(inner)] if outer - inner == 1))
    }
}

fn measure(rest: &str, first: char, in_brackets: bool) -> (Kind, usize) {
    let word =
        |text: &str| text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        return (Kind::Symbol, symbol.len());
    }
    match first {
        '#' | ':' if word(&rest[1..]) > 0 => {
            (if first == '#' { Kind::Name } else { Kind::Value }, 1 + word(&rest[1..]))
        }
        'a'..='z' | 'A'..='Z' | '_' => (Kind::Word, word(rest)),
        // A number that begins with 0 is the 0 alone.
        '0' if in_brackets => (Kind::Number, 1),
        '1'..='9' if in_brackets => (Kind::Number, rest.bytes().take_while(u8::is_ascii_digit).count()),
        _ => (Kind::Unreadable, first.len_utf8()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_text_and_kind() {
        let found: Vec<_> =
            Lexed::new("#a.b[10]<>:v AND x_1").tokens.iter().map(|t| (t.kind, t.text)).collect();
        let expected = [
            (Kind::Name, "#a"),
            (Kind::Symbol, "."),
            (Kind::Word, "b"),
            (Kind::Symbol, "["),
            (Kind::Number, "10"),
            (Kind::Symbol, "]"),
            (Kind::Symbol, "<>"),
            (Kind::Value, ":v"),
            (Kind::Word, "AND"),
            (Kind::Word, "x_1"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_error_shows_the_neighbours_of_its_token() {
        let cases = [
            ("a = :v b c", 3, "Syntax error; token: \"b\", near: \":v b c\""),
            ("a =", 2, "Syntax error; token: \"<EOF>\", near: \"=\""),
            ("   ", 0, "Syntax error; token: \"<EOF>\", near: \"   \""),
            ("! a", 0, "Syntax error; token: \"!\", near: \"! a\""),
            ("a é b", 1, "Syntax error; token: \"é\", near: \"a é b\""),
        ];
        for (source, at, expected) in cases {
            assert_eq!(Lexed::new(source).syntax_error(at), expected, "{source}");
        }
    }

    #[test]
    fn parentheses_around_parentheses_alone_are_redundant() {
        let cases = [("(a)", false), ("((a))", true), ("((a) AND (b))", false), ("((a)) AND (b)", true)];
        for (source, expected) in cases {
            assert_eq!(Lexed::new(source).has_redundant_parentheses(), expected, "{source}");
        }
    }
}
