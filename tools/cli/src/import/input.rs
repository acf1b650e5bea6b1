//! Where lines come from: files and standard input, gzip or not, a line at a time within a limit.
//!
//! Gzip is told by its first two bytes, several members in a row are read as one. A line over the limit is
//! skipped and reported, never held whole.

use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line: an item at its limit of 400 KiB, written in the wordiest notation, nine bytes for one.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

const _: () = assert!(LINE_BYTES_MAX > 10 * evenkeel_model::limits::ITEM_BYTES_MAX);

/// A file to import, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `-` on the command line.
    StandardInput,
    /// A file.
    File(PathBuf),
}

impl From<&str> for Source {
    fn from(argument: &str) -> Source {
        if argument == "-" { Source::StandardInput } else { Source::File(argument.into()) }
    }
}

impl Source {
    /// How the source is named in messages.
    pub fn name(&self) -> String {
        match self {
            Source::StandardInput => "-".to_owned(),
            Source::File(path) => path.display().to_string(),
        }
    }

    /// Bytes to read, where they are known before.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Source::StandardInput => None,
            Source::File(path) => file_bytes(path),
        }
    }

    /// Opens the source; `count` is told of all bytes as they are read, before decompression.
    ///
    /// # Errors
    /// What the system says about opening or reading the first bytes.
    pub fn open(&self, count: impl Fn(u64) + Send + 'static) -> io::Result<Lines> {
        let raw: Box<dyn Read + Send> = match self {
            Source::StandardInput => Box::new(io::stdin()),
            Source::File(path) => Box::new(File::open(path)?),
        };
        Lines::new(Counting { inner: raw, count })
    }
}

fn file_bytes(path: &Path) -> Option<u64> {
    let metadata = path.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

struct Counting<R, F> {
    inner: R,
    count: F,
}

impl<R: Read, F: Fn(u64)> Read for Counting<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        (self.count)(bytes as u64);
        Ok(bytes)
    }
}

/// One line of a source.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counts from 1.
    pub number: u64,
    /// Its text without the line end.
    pub text: Result<&'a str, Unreadable>,
}

/// Why a line has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Over [`LINE_BYTES_MAX`].
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the line is not UTF-8 at byte {0}")]
    NotUtf8(usize),
}

/// The lines of a source.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Lines of decompressed or plain bytes, by the first two of them.
    ///
    /// # Errors
    /// What the reader says.
    pub fn new(raw: impl Read + Send + 'static) -> io::Result<Lines> {
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, raw);
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        raw.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
        let compressed = magic == GZIP_MAGIC;
        let whole = io::Cursor::new(magic).chain(raw);
        let reader: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        Ok(Lines { reader, line: Vec::new(), number: 0 })
    }

    /// The number of the line read last.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line, nothing at the end.
    ///
    /// # Errors
    /// What the reader says; a gzip file that ends too early is one of them.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        self.reader.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let ended = self.line.pop_if(|byte| *byte == b'\n').is_some();
        if !ended && self.line.len() > LINE_BYTES_MAX {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Line { number: self.number, text: Err(Unreadable::TooLong) }));
        }
        self.line.pop_if(|byte| *byte == b'\r');
        let text = str::from_utf8(&self.line).map_err(|error| Unreadable::NotUtf8(error.valid_up_to() + 1));
        Ok(Some(Line { number: self.number, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(bytes: Vec<u8>) -> io::Result<Vec<(u64, Result<String, Unreadable>)>> {
        let mut lines = Lines::new(io::Cursor::new(bytes))?;
        let mut all = Vec::new();
        while let Some(line) = lines.next_line()? {
            all.push((line.number, line.text.map(str::to_owned)));
        }
        Ok(all)
    }

    #[test]
    fn lines_come_numbered_whatever_ends_them() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\r\nbc\n", &["a", "bc"]),
            ("\n\nx", &["", "", "x"]),
            ("\u{1f}", &["\u{1f}"]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> =
                expected.iter().zip(1..).map(|(line, number)| (number, Ok((*line).to_owned()))).collect();
            assert_eq!(read_all(text.into()).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn gzip_is_told_by_its_first_bytes_and_its_members_are_joined() {
        let joined = [gzip(b"one\ntw"), gzip(b"o\n")].concat();
        assert_eq!(read_all(joined).unwrap(), read_all(b"one\ntwo\n".to_vec()).unwrap());
    }

    #[test]
    fn a_cut_gzip_file_is_an_error_after_the_lines_that_came_whole() {
        let mut cut = gzip(b"one\ntwo\n");
        cut.truncate(cut.len() - 4);
        assert_eq!(read_all(cut).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_the_next_is_read() {
        let long = |bytes: usize| vec![b'x'; bytes];
        let text =
            [long(LINE_BYTES_MAX), b"\n".to_vec(), long(LINE_BYTES_MAX + 1), b"\nnext".to_vec()].concat();
        let lines = read_all(text).unwrap();
        assert_eq!(lines[0].1.as_ref().map(String::len), Ok(LINE_BYTES_MAX));
        assert_eq!(lines[1..], [(2, Err(Unreadable::TooLong)), (3, Ok("next".to_owned()))]);
    }

    #[test]
    fn what_is_not_utf_8_is_named_by_its_place() {
        assert_eq!(
            read_all(b"ab\xff\nok".to_vec()).unwrap(),
            [(1, Err(Unreadable::NotUtf8(3))), (2, Ok("ok".to_owned()))]
        );
    }
}
