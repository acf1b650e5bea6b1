//! The canonical form of a request, hashed as it is made: what the client signed, rebuilt.

use crate::request::BodyHash;
use http::{HeaderMap, Uri};
use ring::digest::{Context, Digest, SHA256};
use std::borrow::Cow;

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads 64 lower-case hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// What is signed of a request besides its body.
pub(crate) struct Head<'r> {
    pub(crate) method: &'r str,
    pub(crate) uri: &'r Uri,
    pub(crate) headers: &'r HeaderMap,
}

impl Head<'_> {
    /// The hash of the canonical request. Parameters of the query named `without` are left out.
    pub(crate) fn hash(&self, signed_headers: &[Cow<'_, str>], body: &BodyHash, without: &str) -> Digest {
        let mut out = Context::new(&SHA256);
        out.update(self.method.as_bytes());
        out.update(b"\n");
        out.update(path(self.uri.path()).as_bytes());
        out.update(b"\n");
        out.update(query(self.uri.query().unwrap_or_default(), without).as_bytes());
        out.update(b"\n");
        for name in signed_headers {
            out.update(name.as_bytes());
            out.update(b":");
            self.header(&mut out, name);
            out.update(b"\n");
        }
        out.update(b"\n");
        for (index, name) in signed_headers.iter().enumerate() {
            out.update(if index == 0 { b"" } else { b";" });
            out.update(name.as_bytes());
        }
        out.update(b"\n");
        out.update(hex(body.0.as_ref()).as_bytes());
        out.finish()
    }

    /// A header's values, joined by commas, each without blanks at its ends and with single ones inside.
    fn header(&self, out: &mut Context, name: &str) {
        let mut values = self.headers.get_all(name).iter().peekable();
        if values.peek().is_none() && name == "host" {
            // HTTP/2 has it as a part of the address.
            out.update(self.uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
        }
        for (index, value) in values.enumerate() {
            out.update(if index == 0 { b"" } else { b"," });
            let words = value.as_bytes().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            for (index, word) in words.enumerate() {
                out.update(if index == 0 { b"" } else { b" " });
                out.update(word);
            }
        }
    }
}

/// A path without `.`, `..` and empty segments, each segment encoded once more.
fn path(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut out = String::new();
    for segment in &kept {
        out.push('/');
        percent_encode(&mut out, segment.as_bytes());
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    out
}

/// A query with its parameters encoded in one way and in order.
fn query(query: &str, without: &str) -> String {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        percent_encode(&mut out, &percent_decode(text));
        out
    };
    let mut pairs: Vec<(String, String)> = parameters(query)
        .filter(|(name, _)| *name != without)
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    let joined: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

/// The parameters of a query as they stand there.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// RFC 3986, section 2.3: everything but unreserved characters becomes `%XX`.
fn percent_encode(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&hex(&[byte]).to_ascii_uppercase());
            }
        }
    }
}

/// The bytes that an encoded text stands for; a `%` without two digits stands for itself.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_encoded_once_more() {
        let cases = [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/a/./b", "/a/b"),
            ("/a/../b/", "/b/"),
            ("/../..", "/"),
            ("/a%20b", "/a%2520b"),
            ("/a b", "/a%20b"),
            ("/-._~", "/-._~"),
        ];
        for (given, expected) in cases {
            assert_eq!(path(given), expected, "{given}");
        }
    }

    #[test]
    fn queries_are_ordered_and_encoded_in_one_way() {
        let cases = [
            ("", ""),
            ("b=2&a=1", "a=1&b=2"),
            ("a=2&a=1", "a=1&a=2"),
            ("a", "a="),
            ("a=%7e%2f", "a=~%2F"),
            ("a=b c+d", "a=b%20c%2Bd"),
            ("X-Amz-Signature=1&a=%", "a=%25"),
            ("&&a=1&", "a=1"),
        ];
        for (given, expected) in cases {
            assert_eq!(query(given, "X-Amz-Signature"), expected, "{given}");
        }
    }

    #[test]
    fn requests_hash_to_the_published_values() {
        // From the test suite for Signature Version 4, AWS general reference.
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(&str, &str, Headers, &str); 8] = [
            ("GET", "/", &[], "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"),
            ("GET", "/./", &[], "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"),
            ("GET", "/example/..", &[], "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"),
            (
                "GET",
                "/?Param2=value2&Param1=value1",
                &[],
                "816cd5b414d056048ba4f7c5386d6e0533120fb1fcfa93762cf0fc39e2cf19e0",
            ),
            (
                "POST",
                "/?Param1=value1",
                &[],
                "9d659678c1756bb3113e2ce898845a0a79dbbc57b740555917687f1b3340fbbd",
            ),
            (
                "POST",
                "/",
                &[("my-header1", "value1")],
                "9368318c2967cf6de74404b30c65a91e8f6253e0a8659d6d5319f1a812f87d65",
            ),
            (
                "GET",
                "/",
                &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
                "dc7f04a3abfde8d472b0ab1a418b741b7c67174dad1551b4117b15527fbe966c",
            ),
            (
                "GET",
                "/",
                &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                "a726db9b0df21c14f559d0a978e563112acb1b9e05476f0a6a1c7d68f28605c7",
            ),
        ];
        for (method, uri, more, expected) in cases {
            let mut request = http::Request::builder().method(method).uri(uri);
            let mut signed = vec!["host", "x-amz-date"];
            for (name, value) in [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")] {
                request = request.header(name, value);
            }
            for (name, value) in more {
                request = request.header(*name, *value);
                signed.push(name);
            }
            signed.sort_unstable();
            signed.dedup();
            let signed: Vec<Cow<'_, str>> = signed.into_iter().map(Cow::Borrowed).collect();
            let request = request.body(()).unwrap();
            let head = Head { method, uri: request.uri(), headers: request.headers() };
            assert_eq!(
                hex(head.hash(&signed, &BodyHash::of(b""), "X-Amz-Signature").as_ref()),
                expected,
                "{uri} {more:?}"
            );
        }
    }

    #[test]
    fn hexadecimal_digits_are_lower_case_and_exactly_as_many_as_needed() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(hex(&unhex(&text).unwrap()), text);
        for wrong in [text.to_ascii_uppercase(), text[1..].to_owned(), format!("{text}0"), "g".repeat(64)] {
            assert_eq!(unhex(&wrong), None, "{wrong}");
        }
    }
}
