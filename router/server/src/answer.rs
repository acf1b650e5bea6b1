//! Answers of the HTTP front: bodies, headers, and which error of the client is which error of the API.

use bytes::Bytes;
use evenkeel_client::Error;
use evenkeel_dynamodb::{ApiError, ErrorKind};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const CRC32: HeaderName = HeaderName::from_static("x-amz-crc32");
/// What bodies are in: requests may say either, and answers say the same.
pub const AMZ_JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");
/// The other one.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer before it has headers.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer that went well.
    pub fn done(body: Vec<u8>) -> Answer {
        Answer { status: 200, body }
    }

    /// The response, with every header that clients check.
    pub fn into_response(self, content_type: HeaderValue, request_id: &[u8]) -> Response<Full<Bytes>> {
        let status = StatusCode::from_u16(self.status).expect("statuses are constants of this program");
        let mut response = checked(status, Bytes::from(self.body), request_id);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

/// A response with its checksum and its id.
pub fn checked(status: StatusCode, body: Bytes, request_id: &[u8]) -> Response<Full<Bytes>> {
    let checksum = crc32fast::hash(&body);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, HeaderValue::from_bytes(request_id).expect("letters and digits"));
    headers.insert(CRC32, HeaderValue::from(checksum));
    response
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Answer {
        let mut body = Vec::with_capacity(192);
        error.write_json(&mut body);
        Answer { status: error.status(), body }
    }
}

/// The API's error for a client's, where the operation has no text of its own for it.
pub fn api_error(error: Error) -> ApiError {
    let kind = match &error {
        Error::TableNotFound { .. } => return ApiError::table_not_found(),
        Error::TableExists { .. } | Error::TableInUse { .. } => ErrorKind::ResourceInUse,
        Error::Invalid { message } => return ApiError::validation(message),
        Error::ConditionFailed { .. } => ErrorKind::ConditionalCheckFailed,
        Error::Protected { .. } => ErrorKind::Validation,
        Error::Overloaded { .. } | Error::Unavailable { .. } | Error::Expired { .. } | Error::Closed => {
            ErrorKind::ServiceUnavailable
        }
        Error::OutcomeUnknown { .. }
        | Error::Damaged { .. }
        | Error::Forbidden { .. }
        | Error::UserExists { .. }
        | Error::UserNotFound { .. }
        | Error::Mismatch { .. }
        | Error::Seeds { .. }
        | Error::Internal { .. } => ErrorKind::InternalServerError,
    };
    ApiError::new(kind, error.to_string())
}

/// The API's error for a stored item that cannot be read.
pub fn malformed(error: evenkeel_model::ItemError) -> ApiError {
    ApiError::new(ErrorKind::InternalServerError, format!("a stored item cannot be read: {error}"))
}
