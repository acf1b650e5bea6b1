//! A small DynamoDB client on bare HTTP, which sees every byte of an answer.
//!
//! Every answer is checked for what must hold of all of them: a request id, a length, and a checksum that is
//! exact over the bytes sent.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::error::Error;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// What every request may take; a test that waits longer has found a hang.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const TABLE_ACTIVE_WITHIN: Duration = Duration::from_secs(30);

/// One connection.
pub struct Http {
    authority: String,
    sender: Sender,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An answer, as it was sent.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
}

/// Why there was no answer.
pub type NoAnswer = Box<dyn Error + Send + Sync>;

impl Http {
    /// Connects with HTTP/1.1.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect(authority: &str) -> Result<Http, NoAnswer> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Http { authority: authority.to_owned(), sender: Sender::One(sender) })
    }

    /// Connects with HTTP/2, known to be spoken.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect_http2(authority: &str) -> Result<Http, NoAnswer> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Http { authority: authority.to_owned(), sender: Sender::Two(sender) })
    }

    /// Sends one operation and reads the answer, whatever it says.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn try_call(&mut self, operation: &str, body: &Value) -> Result<Answer, NoAnswer> {
        self.send(operation, body.to_string().into()).await
    }

    /// Sends any bytes as the body of an operation.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn send(&mut self, operation: &str, body: Bytes) -> Result<Answer, NoAnswer> {
        let request = Request::post(format!("http://{}/", self.authority))
            .header("host", &self.authority)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .body(Full::new(body))?;
        self.request(request).await
    }

    /// Sends any request.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn request(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let answer = async {
            let response: Response<Incoming> = match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(ANSWER_WITHIN, answer).await?
    }

    /// Sends an operation that must succeed, and yields the answer's JSON.
    pub async fn call(&mut self, operation: &str, body: Value) -> Value {
        let answer = self.try_call(operation, &body).await;
        let answer = answer.unwrap_or_else(|error| panic!("{operation} {}: {error}", shortened(&body)));
        answer.check();
        assert_eq!(answer.status, StatusCode::OK, "{operation} {}: {}", shortened(&body), answer.text());
        answer.json()
    }

    /// Sends an operation that must fail; yields its type without the namespace, and its message.
    pub async fn refused(&mut self, operation: &str, body: Value) -> (String, String) {
        let answer = self.try_call(operation, &body).await;
        let answer = answer.unwrap_or_else(|error| panic!("{operation} {}: {error}", shortened(&body)));
        answer.check();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{operation}: {}", answer.text());
        let (error_type, message) = answer.error();
        let name = error_type.rsplit_once('#').unwrap_or_else(|| panic!("no namespace: {error_type}")).1;
        (name.to_owned(), message)
    }

    /// Creates a table with these keys (`name`, `type`) and waits until it is ACTIVE; yields the statuses seen.
    pub async fn create_table(&mut self, name: &str, keys: &[(&str, &str)]) -> Vec<String> {
        let created = self.call("CreateTable", create_table(name, keys)).await;
        let mut seen = vec![status_of(&created["TableDescription"])];
        for status in self.wait_until_active(name).await {
            if seen.last() != Some(&status) {
                seen.push(status);
            }
        }
        seen
    }

    /// Waits until a table is ACTIVE; yields the statuses seen.
    pub async fn wait_until_active(&mut self, name: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + TABLE_ACTIVE_WITHIN;
        loop {
            let described = self.call("DescribeTable", json!({ "TableName": name })).await;
            let status = status_of(&described["Table"]);
            if seen.last() != Some(&status) {
                seen.push(status.clone());
            }
            if status == "ACTIVE" {
                return seen;
            }
            assert!(Instant::now() < deadline, "table {name} is {status} after 30 s");
        }
    }

    /// Deletes a table and waits until it is gone.
    pub async fn delete_table(&mut self, name: &str) {
        self.call("DeleteTable", json!({ "TableName": name })).await;
        let deadline = Instant::now() + TABLE_ACTIVE_WITHIN;
        let described = json!({ "TableName": name });
        while self.try_call("DescribeTable", &described).await.expect("an answer").status == StatusCode::OK {
            assert!(Instant::now() < deadline, "table {name} is still there after 30 s");
        }
    }

    /// All pages of a Query or Scan: the items, and how many pages there were.
    pub async fn pages(&mut self, operation: &str, mut body: Value) -> (Vec<Value>, usize) {
        let (mut items, mut pages) = (Vec::new(), 0);
        loop {
            let mut page = self.call(operation, body.clone()).await;
            pages += 1;
            let Value::Array(mut found) = page["Items"].take() else { panic!("{operation}: {page}") };
            assert_eq!(page["Count"], json!(found.len()), "{operation}");
            items.append(&mut found);
            match page["LastEvaluatedKey"].take() {
                Value::Null => return (items, pages),
                key => body["ExclusiveStartKey"] = key,
            }
        }
    }

    /// The sum of the counts of all pages of a Scan that returns no items.
    pub async fn count(&mut self, table: &str) -> u64 {
        let mut body = json!({ "TableName": table, "Select": "COUNT" });
        let mut sum = 0;
        loop {
            let mut page = self.call("Scan", body.clone()).await;
            assert_eq!(page.get("Items"), None, "a count carries no items");
            sum += page["Count"].as_u64().expect("a number");
            match page["LastEvaluatedKey"].take() {
                Value::Null => return sum,
                key => body["ExclusiveStartKey"] = key,
            }
        }
    }
}

/// The body of CreateTable for these keys, on demand.
pub fn create_table(name: &str, keys: &[(&str, &str)]) -> Value {
    let kinds = ["HASH", "RANGE"];
    let definition = |(name, of): &(&str, &str)| json!({ "AttributeName": name, "AttributeType": of });
    let element =
        |((name, _), kind): (&(&str, &str), &str)| json!({ "AttributeName": name, "KeyType": kind });
    json!({
        "TableName": name,
        "AttributeDefinitions": keys.iter().map(definition).collect::<Vec<_>>(),
        "KeySchema": keys.iter().zip(kinds).map(element).collect::<Vec<_>>(),
        "BillingMode": "PAY_PER_REQUEST",
    })
}

fn status_of(description: &Value) -> String {
    description["TableStatus"].as_str().unwrap_or_else(|| panic!("no status: {description}")).to_owned()
}

fn shortened(body: &Value) -> String {
    body.to_string().chars().take(300).collect()
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header's text, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The type and message of an error.
    pub fn error(&self) -> (String, String) {
        let json = self.json();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        // Serialization errors spell it with a capital.
        (text("__type"), text("message") + &text("Message"))
    }

    /// What must hold of every answer of an operation.
    pub fn check(&self) {
        assert!(!self.header("x-amzn-requestid").is_empty(), "no request id: {:?}", self.headers);
        assert_eq!(self.header("content-type"), "application/x-amz-json-1.0");
        assert_eq!(self.header("x-amz-crc32"), crc32fast::hash(&self.body).to_string(), "{}", self.text());
        assert_eq!(self.header("content-length"), self.body.len().to_string());
    }
}
