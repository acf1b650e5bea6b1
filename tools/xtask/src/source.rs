//! Rust source as the checks see it: comments and literals blanked, lengths and line numbers kept.
//!
//! A full parser would be exact and slow to build; these checks need only braces, words and
//! function heads, so a scanner over the masked text is enough. It knows every way in which Rust
//! can hide a brace: nested comments, strings, raw strings, byte and C strings, characters.
//! It refuses to know types, macros and name resolution.

use std::ops::Range;

/// One function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Line of the `fn` keyword, from 1.
    pub line: usize,
    /// Lines from the `fn` keyword to the closing brace, both included.
    pub lines: usize,
}

/// The source with the content of every comment, string and character literal replaced by spaces.
///
/// Line breaks stay, so offsets and line numbers are those of the original.
pub fn mask(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_or_comment(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut masked[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(masked).expect("whole characters are replaced by spaces")
}

/// Where the comment or literal that begins at `at` ends (exclusive), if one begins there.
fn literal_or_comment(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes[at] {
        b'/' if bytes.get(at + 1) == Some(&b'/') => Some(line_end(bytes, at)),
        b'/' if bytes.get(at + 1) == Some(&b'*') => Some(block_comment_end(bytes, at)),
        b'"' => Some(quoted_end(bytes, at, b'"')),
        b'r' if begins_raw_string(bytes, at) => raw_string_end(bytes, at),
        b'\'' => character_end(bytes, at),
        _ => None,
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether the `r` at `at` can open a raw string: it stands alone or after the `b` or `c` of one.
fn begins_raw_string(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|index| bytes[index]);
    match before(1) {
        Some(b'b' | b'c') => !before(2).is_some_and(is_word_byte),
        Some(byte) => !is_word_byte(byte),
        None => true,
    }
}

fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None; // `r#type` is an identifier
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = open + 1;
    let length = bytes[body..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| body + length + close.len()))
}

/// Where the character literal at `start` ends; `None` for a lifetime or a label.
fn character_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = *bytes.get(start + 1)?;
    if first == b'\\' {
        return Some(quoted_end(bytes, start, b'\''));
    }
    let width = match first {
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    };
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + width + 2)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Offsets at which `word` stands as a whole word.
pub fn word_offsets(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let alone = |start: usize| {
        let end = start + word.len();
        let before = start.checked_sub(1).map(|index| bytes[index]);
        !before.is_some_and(is_word_byte) && !bytes.get(end).copied().is_some_and(is_word_byte)
    };
    text.match_indices(word).map(|(start, _)| start).filter(|start| alone(*start)).collect()
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
}

/// Every function with a body in masked source, nested ones too.
pub fn functions(masked: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for start in word_offsets(masked, "fn") {
        let rest = masked[start + "fn".len()..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // a function pointer type, or a macro's `fn $name`
        }
        let head = masked.len() - rest.len();
        if let ItemEnd::Body(end) = item_end(masked, head) {
            let line = line_of(masked, start);
            found.push(Function { name, line, lines: line_of(masked, end - 1) - line + 1 });
        }
    }
    found
}

/// The line ranges (from 1, end exclusive) of items under `#[cfg(test)]` in masked source.
pub fn test_lines(masked: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for attribute in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (start, _) in masked.match_indices(attribute) {
            let line = line_of(masked, start);
            if ranges.iter().any(|range| range.contains(&line)) {
                continue;
            }
            let (ItemEnd::Body(end) | ItemEnd::Semicolon(end)) = item_end(masked, start + 1);
            ranges.push(line..line_of(masked, end - 1) + 1);
        }
    }
    ranges
}

/// How an item ends, with the offset after its last character.
enum ItemEnd {
    Body(usize),
    Semicolon(usize),
}

/// Finds the end of the item whose head is at `start`: its matched braces, or a semicolon.
fn item_end(masked: &str, start: usize) -> ItemEnd {
    let bytes = masked.as_bytes();
    let mut nesting = 0_i32;
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => nesting += 1,
            b')' | b']' => nesting -= 1,
            b';' if nesting == 0 => return ItemEnd::Semicolon(at + 1),
            b'{' => {
                let end = braces_end(bytes, at);
                // `Frame<{ LIMIT }>` and `[u8; { LIMIT }]` are types inside the head.
                let is_type = nesting > 0 || masked[..at].trim_end().ends_with('<');
                if !is_type {
                    return ItemEnd::Body(end);
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    ItemEnd::Semicolon(bytes.len())
}

fn braces_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked_words(source: &str) -> String {
        let masked = mask(source);
        assert_eq!(masked.len(), source.len());
        assert_eq!(masked.matches('\n').count(), source.matches('\n').count());
        masked.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        for (source, expected) in [
            ("a // b {\nc", "a c"),
            ("a /* b /* { */ c */ d", "a d"),
            (r#"a("b { \" } c") d"#, "a( ) d"),
            (r##"a(r#"b " { "#) c"##, "a( ) c"),
            (r###"a(br##"b "# { "##) c"###, "a(b ) c"),
            (r#"a(b"{", c"}", r"\") d"#, "a(b , c , ) d"),
            ("let r#type = 1; 'a'", "let r#type = 1;"),
            ("match c { '{' => '\\'', '\\u{7b}' => b'}' }", "match c { => , => b }"),
            ("fn f<'a>(x: &'a str) { 'outer: loop {} }", "fn f<'a>(x: &'a str) { 'outer: loop {} }"),
            ("f('ö', '→', '🜁') ö", "f( , , ) ö"),
            ("a \"unterminated { ", "a"),
            ("a /* unterminated", "a"),
            ("a r#\"unterminated", "a"),
        ] {
            assert_eq!(masked_words(source), expected, "{source}");
        }
    }

    #[test]
    fn words_are_found_only_whole() {
        assert_eq!(word_offsets("dbg dbg2 a_dbg dbg", "dbg"), [0, 15]);
        assert_eq!(word_offsets("", "dbg"), Vec::<usize>::new());
    }

    #[test]
    fn function_lengths_are_counted_from_the_keyword_to_the_closing_brace() {
        let source = "
pub const fn first(a: [u8; 4]) -> Frame<{ LIMIT }>
where
    A: Copy,
{
    if a { '}' } else { \"}\" }
    fn inner() {}
}
trait T { fn declared(&self) -> [u8; { 4 }]; fn given(&self) {} }
type Pointer = fn(u8) -> u8;
macro_rules! m { ($name:ident) => { fn $name() {} } }
";
        let found = functions(&mask(source));
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("first", 2, 7), ("inner", 7, 1), ("given", 9, 1)]);
    }

    #[test]
    fn test_items_are_located_whatever_item_carries_the_attribute() {
        let source = "
fn a() {}
#[cfg(test)]
mod tests;
#[cfg(test)]
mod inline {
    #[cfg(test)]
    fn nested() {}
}
#[cfg(all(test, unix))]
use a::{b, c};
fn d() {}
";
        assert_eq!(test_lines(&mask(source)), [3..5, 5..10, 10..12]);
    }
}
