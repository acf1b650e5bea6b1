//! PutItem and GetItem over HTTP/1.1: kept connections, one request at a time on each.
//!
//! The generator shares the processors with what it measures, so it does as little as it can: requests
//! are bytes made beforehand in which digits are replaced, and of an answer only the status, the length
//! and the body are looked at.

use crate::error::BenchError;
use crate::items::{self, Numbers, Template, Versions};
use crate::load::{self, Lasting, Outcome, Slot};
use crate::native::Operation;
use crate::tally::Measured;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PHASE: &str = "http";
/// Room for the answers that are expected.
const ANSWER_BYTES: usize = 4096;
const STATUS_OK: &[u8] = b"HTTP/1.1 200 ";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Measures one operation with so many connections.
///
/// # Errors
/// The router cannot be reached.
pub fn measure(
    address: SocketAddr,
    operation: Operation,
    connections: u32,
    lasting: Lasting,
    versions: &Arc<Versions>,
) -> Result<Measured, BenchError> {
    load::runtime().map_err(BenchError::in_phase(PHASE))?.block_on(async {
        let mut slots = Vec::new();
        for slot in 0..connections {
            let stream = TcpStream::connect(address).await.map_err(BenchError::in_phase(PHASE))?;
            stream.set_nodelay(true).map_err(BenchError::in_phase(PHASE))?;
            slots.push(HttpSlot {
                stream,
                operation,
                numbers: Numbers::of(slot, connections),
                request: request(address, operation),
                expected: Template::new(items::got_body().into_bytes()),
                answer: Vec::with_capacity(ANSWER_BYTES),
                versions: Arc::clone(versions),
            });
        }
        Ok(load::run(slots, lasting).await)
    })
}

fn request(address: SocketAddr, operation: Operation) -> Template {
    let (target, body) = match operation {
        Operation::Put => ("PutItem", items::put_body()),
        Operation::Get | Operation::GetAny => ("GetItem", items::get_body()),
    };
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nx-amz-target: DynamoDB_20120810.{target}\r\n\
         content-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Template::new(request.into_bytes())
}

struct HttpSlot {
    stream: TcpStream,
    operation: Operation,
    numbers: Numbers,
    request: Template,
    /// The body of the answer to a get.
    expected: Template,
    answer: Vec<u8>,
    versions: Arc<Versions>,
}

impl Slot for HttpSlot {
    async fn operate(&mut self) -> Outcome {
        let number = self.numbers.take();
        let version = match self.operation {
            Operation::Put => self.versions.next(number),
            Operation::Get | Operation::GetAny => 0,
        };
        let sent = self.stream.write_all(self.request.fill(number, version)).await;
        let answer = match sent {
            Ok(()) => read_answer(&mut self.stream, &mut self.answer).await,
            Err(error) => Err(error),
        };
        let is_put = self.operation == Operation::Put;
        let body = match answer {
            Ok(Answer { is_ok: true, body_at }) => &self.answer[body_at..],
            Ok(Answer { is_ok: false, .. }) => {
                if is_put {
                    self.versions.doubtful(number);
                }
                return Outcome::Failed(String::from_utf8_lossy(&self.answer).into_owned());
            }
            Err(error) => {
                if is_put {
                    self.versions.doubtful(number);
                }
                return Outcome::Broken(format!("connection: {error}"));
            }
        };
        if is_put {
            self.versions.acknowledged(number, version);
            return Outcome::Right;
        }
        let Some(version) = self.versions.current(number) else { return Outcome::Right };
        if is_same(self.expected.fill(number, version), body) {
            return Outcome::Right;
        }
        Outcome::Wrong(format!("item {number}, version {version}: {}", String::from_utf8_lossy(body)))
    }
}

/// The same bytes, or else the same JSON.
fn is_same(expected: &[u8], found: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    expected == found || json(found).is_some_and(|found| json(expected) == Some(found))
}

/// A whole answer in the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    is_ok: bool,
    body_at: usize,
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Answer> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((answer, bytes)) = parse(buffer)? else { continue };
        match buffer.len() {
            there if there < bytes => buffer.reserve(bytes - there),
            there if there == bytes => return Ok(answer),
            _ => return Err(malformed("more than one answer to one request")),
        }
    }
}

/// Whether the answer that begins here is a good one, and its bytes in all, once its head is complete.
///
/// # Errors
/// An answer without its length.
pub fn answer_bytes(bytes: &[u8]) -> io::Result<Option<(bool, usize)>> {
    Ok(parse(bytes)?.map(|(answer, all)| (answer.is_ok, all)))
}

/// The answer that begins here and its bytes in all, once its head is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(head) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) else {
        return Ok(None);
    };
    let length = bytes[..head].split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(b"content-length:".len())?;
        let text = std::str::from_utf8(value).ok()?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| text.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or_else(|| malformed("an answer without its length"))?;
    let body_at = head + HEAD_END.len();
    Ok(Some((Answer { is_ok: bytes.starts_with(STATUS_OK), body_at }, body_at + length)))
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_by_their_length() {
        let whole = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\n{}";
        let body_at = whole.len() - 2;
        assert_eq!(parse(whole).unwrap(), Some((Answer { is_ok: true, body_at }, whole.len())));
        assert_eq!(parse(&whole[..20]).unwrap(), None);
        let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\n";
        let expected = Answer { is_ok: false, body_at: refused.len() };
        assert_eq!(parse(refused).unwrap(), Some((expected, refused.len() + 9)));
        assert!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n").is_err());
    }

    #[test]
    fn answers_are_compared_by_content() {
        assert!(is_same(br#"{"a":{"S":"x"},"b":1}"#, br#"{"b":1, "a":{"S":"x"}}"#));
        assert!(!is_same(br#"{"a":1}"#, br#"{"a":2}"#));
        assert!(!is_same(br#"{"a":1}"#, b"not json"));
    }
}
