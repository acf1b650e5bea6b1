//! One HTTP request: which operation it is for, its body within limits, its answer with headers.

use crate::access::Access;
use crate::answer::{AMZ_JSON, Answer, JSON, checked};
use crate::beside::sized;
use crate::counts::Counts;
use crate::identity::RequestIds;
use crate::operations::{self, Call};
use bytes::{Buf, Bytes};
use evenkeel_authentication::claimed_region;
use evenkeel_client::Client;
use evenkeel_dynamodb::{ApiError, ErrorKind, Operation};
use evenkeel_model::limits::REQUEST_BODY_BYTES_MAX;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue,
    ORIGIN,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Instant;

/// What all requests of a worker share.
pub struct Front {
    /// The worker's way to the cluster.
    pub client: Client,
    /// Region in ARNs, where a request names none.
    pub region: String,
    /// Who may ask.
    pub access: Access,
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
        let from_a_page = request.headers().contains_key(ORIGIN);
        let mut response = self.answer(request, began, &id).await;
        if from_a_page {
            allow_pages(response.headers_mut());
        }
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>, began: Instant, id: &[u8]) -> Response<Full<Bytes>> {
        match *request.method() {
            Method::POST => {}
            Method::GET => return health(request.headers(), id),
            Method::OPTIONS => return preflight(request.headers()),
            _ => return self.not_of_the_api(began, id),
        }
        let Some(content_type) = content_type(request.headers()) else {
            return self.not_of_the_api(began, id);
        };
        let operation = target(request.headers()).and_then(Operation::from_target);
        let (parts, body) = request.into_parts();
        let body = match read_body(&parts.headers, body).await {
            Ok(body) => body,
            Err(refused) => {
                self.counts.answered(operation, refused.status().as_u16(), began.elapsed(), (0, 0));
                return refused;
            }
        };
        let result = match operation {
            Some(operation) => self.run(operation, &parts, &body).await,
            None => Err(unknown_operation()),
        };
        let answer = result.unwrap_or_else(Answer::from);
        let bytes = (body.len(), answer.body.len());
        self.counts.answered(operation, answer.status, began.elapsed(), bytes);
        answer.into_response(content_type, id)
    }
}

impl Front {
    async fn run(&self, operation: Operation, parts: &Parts, body: &Bytes) -> Result<Answer, ApiError> {
        self.access.check(&self.client, parts, body).await?;
        let region = claimed_region(parts).unwrap_or(Cow::Borrowed(&self.region));
        let call = Call { client: &self.client, region: &region, host: host(&parts.headers), body };
        operations::run(operation, call).await
    }

    /// The answer to what is no request of the API by its method or by the type of its body.
    fn not_of_the_api(&self, began: Instant, id: &[u8]) -> Response<Full<Bytes>> {
        const BODY: &[u8] = b"<UnknownOperationException/>\n";
        let status = StatusCode::NOT_FOUND;
        self.counts.answered(None, status.as_u16(), began.elapsed(), (0, BODY.len()));
        checked(status, Bytes::from_static(BODY), id)
    }
}

fn unknown_operation() -> ApiError {
    ApiError::new(ErrorKind::UnknownOperation, "")
}

/// The type of a body that can be read, as answers will name it.
fn content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = named.split(';').next().unwrap_or_default().trim();
    [AMZ_JSON, JSON].into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(media_type.as_bytes()))
}

fn target(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()
}

async fn read_body(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Response<Full<Bytes>>> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let least = announced.unwrap_or(0).max(body.size_hint().lower());
    if least > REQUEST_BODY_BYTES_MAX as u64 {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE));
    }
    match Limited::new(body, REQUEST_BODY_BYTES_MAX).collect().await {
        Ok(body) => {
            let mut body = body.aggregate();
            let bytes = body.remaining();
            Ok(sized(bytes, move || body.copy_to_bytes(bytes)).await)
        }
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

fn health(headers: &HeaderMap, id: &[u8]) -> Response<Full<Bytes>> {
    let text = format!("healthy: {} ", host(headers));
    let mut response = checked(StatusCode::OK, Bytes::from(text), id);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Browsers ask before they send: what they ask for is allowed, for two days.
fn preflight(asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    let headers = response.headers_mut();
    for (allow, request, default) in [
        (ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_REQUEST_METHOD, "POST, GET, OPTIONS"),
        (ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, "*"),
    ] {
        let default = || HeaderValue::from_static(default);
        headers.insert(allow, asked.get(request).cloned().unwrap_or_else(default));
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("172800"));
    allow_pages(headers);
    response
}

/// Lets scripts of any page read the answer; what protects tables is the signature, not the origin.
fn allow_pages(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let exposed = "x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,x-amz-crc32,Date";
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
}
