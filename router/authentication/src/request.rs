//! A signed request: what it says of its signature, whether that can be true, and whether it is.
//!
//! The order in which faults are told is that of AWS: form, then time, then scope; whether the access
//! key exists is the caller's to find out next, and the signature itself comes last.

use crate::canonical::{Head, hex, parameters, percent_decode, unhex};
use crate::error::AuthenticationError;
use crate::key::{DayKey, SERVICE, TERMINATOR};
use crate::timestamp::Timestamp;
use http::header::{AUTHORIZATION, DATE, HeaderMap};
use http::request::Parts;
use ring::digest::{Digest, SHA256, digest};
use std::borrow::Cow;

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(crate) const SIGNATURE_PARAMETER: &str = "X-Amz-Signature";
/// How far the clock of a client may be off.
const SKEW_S: i64 = 15 * 60;
/// How long a presigned request may be good for.
const EXPIRES_S_MAX: i64 = 7 * 24 * 3600;
const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. \
     Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

/// The hash of a request's body: the one part of verifying that grows with it.
pub struct BodyHash(pub(crate) Digest);

impl BodyHash {
    /// Hashes a body.
    pub fn of(body: &[u8]) -> BodyHash {
        BodyHash(digest(&SHA256, body))
    }
}

/// A request with what it says of its signature.
pub struct SignedRequest<'r> {
    head: Head<'r>,
    claim: Claim<'r>,
    at: Timestamp,
}

/// The parts of a signature, wherever they stand.
struct Claim<'r> {
    credential: Credential,
    /// In order.
    signed_headers: Vec<Cow<'r, str>>,
    signature: Cow<'r, str>,
    date: Cow<'r, str>,
    /// For how many seconds a presigned request says it is good.
    expires: Option<Cow<'r, str>>,
    session_token: Option<Cow<'r, str>>,
}

/// `ID/YYYYMMDD/REGION/SERVICE/aws4_request`, as it stands in the request.
struct Credential(String);

impl Credential {
    fn part(&self, index: usize) -> &str {
        self.0.split('/').nth(index).unwrap_or_default()
    }

    /// Everything behind the access key's id.
    fn scope(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, scope)| scope)
    }
}

impl<'r> SignedRequest<'r> {
    /// Reads what a request says of its signature.
    ///
    /// # Errors
    /// If it says nothing, or something is missing or cannot be read.
    pub fn read(parts: &'r Parts) -> Result<SignedRequest<'r>, AuthenticationError> {
        let query = parts.uri.query().unwrap_or_default();
        let header = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let claim = match (header, parameter(query, "X-Amz-Algorithm")) {
            (Some(_), Some(_)) => {
                let text = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.";
                return Err(AuthenticationError::Invalid(text.to_owned()));
            }
            (Some(header), None) if header.trim_start().starts_with("AWS4-") => {
                read_header(header.trim(), &parts.headers)?
            }
            (None, Some(algorithm)) if algorithm == ALGORITHM => read_query(query)?,
            _ => return Err(AuthenticationError::Missing),
        };
        check_signed_headers(&claim.signed_headers, &parts.headers)?;
        let Some(at) = Timestamp::parse(&claim.date) else {
            let text = format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'. See http://en.wikipedia.org/wiki/ISO_8601",
                claim.date
            );
            return Err(AuthenticationError::Incomplete(text));
        };
        let head = Head { method: parts.method.as_str(), uri: &parts.uri, headers: &parts.headers };
        Ok(SignedRequest { head, claim, at })
    }

    /// The access key that it says it is signed with.
    pub fn access_key_id(&self) -> &str {
        self.claim.credential.part(0)
    }

    /// The day, `YYYYMMDD`, of the key that it is signed with.
    pub fn date(&self) -> &str {
        self.claim.credential.part(1)
    }

    /// The region that it is signed for.
    pub fn region(&self) -> &str {
        self.claim.credential.part(2)
    }

    /// The token of a session, if it is signed with a temporary access key.
    pub fn session_token(&self) -> Option<&str> {
        self.claim.session_token.as_deref()
    }

    /// Checks its time against the clock, in seconds since the Unix epoch, and its scope.
    ///
    /// # Errors
    /// If it was signed too long ago or too far ahead, or for something else.
    pub fn check(&self, now_s: i64) -> Result<(), AuthenticationError> {
        self.check_time(now_s)?;
        let credential = &self.claim.credential;
        if credential.0.split('/').count() != 5 {
            let text = format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. \
                 keyid/date/region/service/term, got '{}'",
                credential.0
            );
            return Err(AuthenticationError::Incomplete(text));
        }
        let mut faults = Vec::new();
        let region = self.region();
        if !is_region(region) {
            faults.push(format!("Credential should be scoped to a valid region, not '{region}'. "));
        }
        if credential.part(3) != SERVICE {
            faults.push(format!("Credential should be scoped to correct service: '{SERVICE}'. "));
        }
        if credential.part(4) != TERMINATOR {
            faults.push(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'. ",
                credential.part(4)
            ));
        }
        let day = &self.claim.date[..8];
        if self.date() != day {
            faults.push(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '{}' != '{day}', from '{}'. ",
                self.date(),
                self.claim.date
            ));
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(AuthenticationError::Invalid(faults.concat().trim_end().to_owned())),
        }
    }

    fn check_time(&self, now_s: i64) -> Result<(), AuthenticationError> {
        let (at, now) = (self.at, Timestamp(now_s));
        let good_for = match &self.claim.expires {
            None => SKEW_S,
            Some(text) => match text.parse::<i64>() {
                Ok(seconds) if (1..=EXPIRES_S_MAX).contains(&seconds) => seconds,
                _ => {
                    let text = format!("X-Amz-Expires must be between 1 and {EXPIRES_S_MAX} seconds");
                    return Err(AuthenticationError::Incomplete(text));
                }
            },
        };
        let (earliest, latest) = (Timestamp(now_s - good_for), Timestamp(now_s + SKEW_S));
        let fault = if at < earliest {
            format!("Signature expired: {at} is now earlier than {earliest} ({now} - {}.)", span(good_for))
        } else if at > latest {
            format!(
                "Signature not yet current: {at} is still later than {latest} ({now} + {}.)",
                span(SKEW_S)
            )
        } else {
            return Ok(());
        };
        Err(AuthenticationError::Invalid(fault))
    }

    /// Holds the signature against the request and the hash of its body.
    ///
    /// # Errors
    /// If it is another one.
    pub fn verify(&self, key: &DayKey, body: &BodyHash) -> Result<(), AuthenticationError> {
        let canonical = self.head.hash(&self.claim.signed_headers, body, SIGNATURE_PARAMETER);
        let text = string_to_sign(&self.claim.date, self.claim.credential.scope(), canonical.as_ref());
        let given = unhex(&self.claim.signature);
        match given.is_some_and(|signature| key.is_signature(text.as_bytes(), &signature)) {
            true => Ok(()),
            false => Err(AuthenticationError::Invalid(MISMATCH.to_owned())),
        }
    }
}

/// What the signature is over.
pub(crate) fn string_to_sign(date: &str, scope: &str, canonical: &[u8]) -> String {
    [ALGORITHM, "\n", date, "\n", scope, "\n", &hex(canonical)].concat()
}

fn span(seconds: i64) -> String {
    if seconds % 60 == 0 { format!("{} min", seconds / 60) } else { format!("{seconds} sec") }
}

/// The region that a request says it is signed for, in whichever form; nothing is checked but that it can
/// be one.
pub fn claimed_region(parts: &Parts) -> Option<Cow<'_, str>> {
    let credential = match parts.headers.get(AUTHORIZATION) {
        Some(header) => {
            let (_, rest) = header.to_str().ok()?.split_once("Credential=")?;
            Cow::Borrowed(rest.split(',').next()?)
        }
        None => parameter(parts.uri.query()?, "X-Amz-Credential")?,
    };
    let region = match credential {
        Cow::Borrowed(credential) => Cow::Borrowed(credential.split('/').nth(2)?),
        Cow::Owned(credential) => Cow::Owned(credential.split('/').nth(2)?.to_owned()),
    };
    is_region(&region).then_some(region)
}

fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The first value of a parameter, decoded.
fn parameter<'q>(query: &'q str, wanted: &str) -> Option<Cow<'q, str>> {
    let (_, value) = parameters(query).find(|(name, _)| *name == wanted)?;
    if value.contains('%') {
        return Some(Cow::Owned(String::from_utf8_lossy(&percent_decode(value)).into_owned()));
    }
    Some(Cow::Borrowed(value))
}

fn read_header<'r>(header: &'r str, headers: &'r HeaderMap) -> Result<Claim<'r>, AuthenticationError> {
    let (algorithm, rest) = header.split_once(' ').unwrap_or((header, ""));
    if algorithm != ALGORITHM {
        return Err(AuthenticationError::Incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
    }
    let (mut credential, mut signature, mut signed_headers) = (None, None, None);
    for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            let text =
                format!("'{part}' not a valid key=value pair (missing equal-sign) in Authorization header.");
            return Err(AuthenticationError::Incomplete(text));
        };
        match name {
            "Credential" => credential = Some(value),
            "Signature" => signature = Some(value),
            "SignedHeaders" => signed_headers = Some(value),
            _ => {}
        }
    }
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let date = value("x-amz-date").or_else(|| value(DATE.as_str()));
    let (Some(credential), Some(signature), Some(signed_headers), Some(date)) =
        (credential, signature, signed_headers, date)
    else {
        let missing: String = [
            (credential.is_none(), "Authorization header requires 'Credential' parameter. "),
            (signature.is_none(), "Authorization header requires 'Signature' parameter. "),
            (signed_headers.is_none(), "Authorization header requires 'SignedHeaders' parameter. "),
            (
                date.is_none(),
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
            ),
        ]
        .into_iter()
        .filter_map(|(is_missing, text)| is_missing.then_some(text))
        .collect();
        return Err(AuthenticationError::Incomplete(format!("{missing}Authorization={algorithm}")));
    };
    let mut signed_headers: Vec<Cow<'r, str>> = signed_headers.split(';').map(Cow::Borrowed).collect();
    signed_headers.sort();
    Ok(Claim {
        credential: Credential(credential.to_owned()),
        signed_headers,
        signature: Cow::Borrowed(signature),
        date: Cow::Borrowed(date),
        expires: None,
        session_token: value("x-amz-security-token").map(Cow::Borrowed),
    })
}

fn read_query(query: &str) -> Result<Claim<'_>, AuthenticationError> {
    let names = ["X-Amz-Credential", SIGNATURE_PARAMETER, "X-Amz-SignedHeaders", "X-Amz-Date"];
    let [credential, signature, signed_headers, date] = names.map(|name| parameter(query, name));
    let missing: String = names
        .into_iter()
        .zip([&credential, &signature, &signed_headers, &date])
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| format!("AWS query-string parameters must include '{name}'. "))
        .collect();
    let (Some(credential), Some(signature), Some(signed_headers), Some(date)) =
        (credential, signature, signed_headers, date)
    else {
        return Err(AuthenticationError::Incomplete(format!(
            "{missing}Re-examine the query-string parameters."
        )));
    };
    let mut signed_headers: Vec<Cow<'_, str>> =
        signed_headers.split(';').map(|name| Cow::Owned(name.to_owned())).collect();
    signed_headers.sort();
    Ok(Claim {
        credential: Credential(credential.into_owned()),
        signed_headers,
        signature,
        date,
        expires: parameter(query, "X-Amz-Expires"),
        session_token: parameter(query, "X-Amz-Security-Token"),
    })
}

/// Whoever carries the request must not be able to turn it into another one: to another host, or for
/// another operation.
fn check_signed_headers(signed: &[Cow<'_, str>], headers: &HeaderMap) -> Result<(), AuthenticationError> {
    let is_signed = |name: &str| signed.iter().any(|signed| signed == name);
    let text = if !is_signed("host") && !is_signed(":authority") {
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned()
    } else {
        let named = ["x-amz-target", "x-amz-security-token"];
        match named.into_iter().find(|name| headers.contains_key(*name) && !is_signed(name)) {
            None => return Ok(()),
            Some(name) => format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."),
        }
    };
    Err(AuthenticationError::Invalid(text))
}
