//! Signing: what clients do, for the tools and tests of this repository that ask the API without an SDK.

use crate::access_key::AccessKey;
use crate::canonical::{Head, hex};
use crate::key::{DayKey, SERVICE, TERMINATOR};
use crate::request::{ALGORITHM, BodyHash, SIGNATURE_PARAMETER, string_to_sign};
use crate::timestamp::Timestamp;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, InvalidHeaderValue};
use http::request::Parts;
use std::borrow::Cow;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs a request with all headers that it has, and adds those of the signature. `at_s` is the time, in
/// seconds since the Unix epoch; `session_token` belongs to a temporary access key.
///
/// # Errors
/// If the id or the token cannot stand in a header.
pub fn sign(
    parts: &mut Parts,
    body: &[u8],
    key: &AccessKey,
    session_token: Option<&str>,
    region: &str,
    at_s: i64,
) -> Result<(), InvalidHeaderValue> {
    let date = Timestamp(at_s).to_string();
    parts.headers.insert(DATE, HeaderValue::from_str(&date)?);
    if let Some(token) = session_token {
        parts.headers.insert(SESSION_TOKEN, HeaderValue::from_str(token)?);
    }
    let mut signed: Vec<Cow<'_, str>> = parts.headers.keys().map(|name| Cow::from(name.as_str())).collect();
    signed.sort();
    let head = Head { method: parts.method.as_str(), uri: &parts.uri, headers: &parts.headers };
    let canonical = head.hash(&signed, &BodyHash::of(body), SIGNATURE_PARAMETER);
    let day = &date[..8];
    let scope = format!("{day}/{region}/{SERVICE}/{TERMINATOR}");
    let text = string_to_sign(&date, &scope, canonical.as_ref());
    let signature = hex(&DayKey::derive(&key.secret, day, region).sign(text.as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
        key.id,
        signed.join(";")
    );
    parts.headers.insert(AUTHORIZATION, HeaderValue::from_str(&authorization)?);
    Ok(())
}
