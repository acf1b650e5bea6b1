//! One HTTP request: which operation it is for, its body within limits, its answer with headers.

use crate::answer::Answer;
use crate::counts::Counts;
use crate::identity::RequestIds;
use crate::operations::{self, Call};
use bytes::Bytes;
use evenkeel_client::Client;
use evenkeel_dynamodb::{ApiError, ErrorKind, Operation};
use evenkeel_model::limits::REQUEST_BODY_BYTES_MAX;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Instant;

/// What all requests of a worker share.
pub struct Front {
    /// The worker's way to the cluster.
    pub client: Client,
    /// Region in ARNs, where a request names none.
    pub region: String,
    /// The worker's counters.
    pub counts: Counts,
    /// Request ids.
    pub ids: RefCell<RequestIds>,
}

impl Front {
    /// Answers one request.
    ///
    /// # Errors
    /// None: what goes wrong is an answer.
    pub async fn handle(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let began = Instant::now();
        let id = self.ids.borrow_mut().next();
        match *request.method() {
            Method::POST => {}
            Method::GET => return Ok(health(request.headers())),
            Method::OPTIONS => return Ok(preflight()),
            _ => return Ok(Answer::from(unknown_operation()).into_response(&id)),
        }
        let operation = target(request.headers()).and_then(Operation::from_target);
        let region = region(request.headers()).unwrap_or(&self.region).to_owned();
        let host = host(request.headers()).to_owned();
        let body = match read_body(request).await {
            Ok(body) => body,
            Err(refused) => {
                self.counts.answered(operation, refused.status().as_u16(), began.elapsed(), (0, 0));
                return Ok(refused);
            }
        };
        let result = match operation {
            Some(operation) => {
                let call = Call { client: &self.client, region: &region, host: &host, body: &body };
                operations::run(operation, call).await
            }
            None => Err(unknown_operation()),
        };
        let answer = result.unwrap_or_else(Answer::from);
        let bytes = (body.len(), answer.body.len());
        self.counts.answered(operation, answer.status, began.elapsed(), bytes);
        Ok(answer.into_response(&id))
    }
}

fn unknown_operation() -> ApiError {
    ApiError::new(ErrorKind::UnknownOperation, "")
}

fn target(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()
}

/// The region in the credential scope of a SigV4 header: `Credential=KEY/DATE/REGION/dynamodb/aws4_request`.
fn region(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (_, scope) = header.split_once("Credential=")?;
    let region = scope.split(',').next()?.split('/').nth(2)?;
    let plain = region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && !region.is_empty()).then_some(region)
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Response<Full<Bytes>>> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let least = announced.unwrap_or(0).max(request.body().size_hint().lower());
    if least > REQUEST_BODY_BYTES_MAX as u64 {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE));
    }
    match Limited::new(request.into_body(), REQUEST_BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(refused(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Err(_) => Err(refused(StatusCode::BAD_REQUEST)),
    }
}

/// The body was not read to its end, so the connection cannot be used any longer.
fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The host that a request was sent to.
fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("evenkeel")
}

fn health(headers: &HeaderMap) -> Response<Full<Bytes>> {
    let host = host(headers);
    let mut response = Response::new(Full::new(Bytes::from(format!("healthy: {host} "))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    response
}

/// Browsers ask before they send.
fn preflight() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
    headers.insert("access-control-allow-methods", HeaderValue::from_static("POST, GET, OPTIONS"));
    headers.insert("access-control-allow-headers", HeaderValue::from_static("*"));
    headers.insert("access-control-max-age", HeaderValue::from_static("172800"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_that_of_the_credential_scope() {
        let cases = [
            (
                "AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host",
                Some("eu-west-1"),
            ),
            ("AWS4-HMAC-SHA256 Credential=AK/20260101//dynamodb/aws4_request", None),
            ("AWS4-HMAC-SHA256 Credential=AK/20260101/\"x/dynamodb", None),
            ("Bearer x", None),
        ];
        for (header, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
            assert_eq!(region(&headers), expected, "{header}");
        }
    }
}
