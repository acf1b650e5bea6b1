//! Signatures made by botocore 1.x at a fixed moment, and everything that can be wrong with them.

use evenkeel_authentication::{
    AccessKey, AuthenticationError, BodyHash, DayKey, SignedRequest, claimed_region, sign,
};
use http::Request;
use http::request::Parts;
use proptest::prelude::*;
use zeroize::Zeroizing;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2026-11-23T15:00:00Z.
const NOW_S: i64 = 1_795_446_000;
const BODY: &[u8] = br#"{"TableName":"ships"}"#;
const PLAIN: &str = "AWS4-HMAC-SHA256 Credential=AKEVEXAMPLE/20261123/eu-west-1/dynamodb/aws4_request, \
     SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
     Signature=bf253e704455509cced97c4d8b084763b896abb047df7fd33d76c0d32bfe8f1b";
const WITH_TOKEN: &str = "AWS4-HMAC-SHA256 Credential=AKEVEXAMPLE/20261123/eu-west-1/dynamodb/aws4_request, \
     SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, \
     Signature=7403255ad00d2acda2ae3ca6c20869995b592bad536a074489144a0b8ae5272e";
const PRESIGNED: &str = "/?TableName=ships&X-Amz-Algorithm=AWS4-HMAC-SHA256\
     &X-Amz-Credential=AKEVEXAMPLE%2F20261123%2Feu-west-1%2Fdynamodb%2Faws4_request\
     &X-Amz-Date=20261123T150000Z&X-Amz-Expires=3600\
     &X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-target\
     &X-Amz-Signature=3e2a7cf02883f2fa993dfb3a68a6538c1cb5a4635e2f400b6ca54b4275aa97fe";
const PRESIGNED_WITH_TOKEN: &str = "/?TableName=ships&X-Amz-Algorithm=AWS4-HMAC-SHA256\
     &X-Amz-Credential=AKEVEXAMPLE%2F20261123%2Feu-west-1%2Fdynamodb%2Faws4_request\
     &X-Amz-Date=20261123T150000Z&X-Amz-Expires=3600\
     &X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-target&X-Amz-Security-Token=a%2Ftoken%2B%3D%3D\
     &X-Amz-Signature=4da925aa31b819f74550c29f9dd86a7565f69ce8b4fbaf92a15e8de1a72d6eb7";

fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let common = [
        ("host", "127.0.0.1:8000"),
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", "DynamoDB_20120810.DescribeTable"),
    ];
    let mut request = Request::post(uri);
    for (name, value) in common.iter().chain(headers) {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a well-formed request").into_parts().0
}

fn with_header(authorization: &str) -> Parts {
    request("/", &[("x-amz-date", "20261123T150000Z"), ("authorization", authorization)])
}

fn verify(parts: &Parts, now_s: i64, secret: &str, body: &[u8]) -> Result<(), AuthenticationError> {
    let signed = SignedRequest::read(parts)?;
    signed.check(now_s)?;
    signed.verify(&DayKey::derive(secret, signed.date(), signed.region()), &BodyHash::of(body))
}

#[test]
fn what_botocore_signs_is_believed_in_both_forms_with_and_without_a_token() {
    let token = ("x-amz-security-token", "a/token+==");
    let date = ("x-amz-date", "20261123T150000Z");
    let cases = [
        (with_header(PLAIN), BODY, None),
        (request("/", &[date, token, ("authorization", WITH_TOKEN)]), BODY, Some("a/token+==")),
        (request(PRESIGNED, &[]), b"", None),
        (request(PRESIGNED_WITH_TOKEN, &[]), b"", Some("a/token+==")),
    ];
    for (index, (parts, body, token)) in cases.iter().enumerate() {
        assert_eq!(verify(parts, NOW_S, SECRET, body), Ok(()), "case {index}");
        let signed = SignedRequest::read(parts).unwrap();
        assert_eq!((signed.access_key_id(), signed.session_token()), ("AKEVEXAMPLE", *token));
        let mismatch = verify(parts, NOW_S, "another", body).unwrap_err();
        assert_eq!(mismatch.type_name(), "InvalidSignatureException");
        let text = "The request signature we calculated does not match the signature you provided.";
        assert!(mismatch.to_string().starts_with(text), "{mismatch}");
        assert!(verify(parts, NOW_S, SECRET, b"{}").is_err(), "case {index}: another body");
    }
}

#[test]
fn a_request_changed_after_it_was_signed_is_not_believed() {
    let mut target = with_header(PLAIN);
    target.headers.insert("x-amz-target", "DynamoDB_20120810.DeleteTable".parse().unwrap());
    let mut host = with_header(PLAIN);
    host.headers.insert("host", "elsewhere".parse().unwrap());
    let mut method = with_header(PLAIN);
    method.method = http::Method::PUT;
    let mut path = with_header(PLAIN);
    path.uri = "/other".parse().unwrap();
    let mut query = with_header(PLAIN);
    query.uri = "/?a=1".parse().unwrap();
    for parts in [target, host, method, path, query] {
        assert!(verify(&parts, NOW_S, SECRET, BODY).is_err(), "{parts:?}");
    }
}

#[test]
fn a_signature_holds_a_quarter_of_an_hour_and_a_presigned_one_as_long_as_it_says() {
    let cases = [
        (with_header(PLAIN), BODY, -900, None),
        (with_header(PLAIN), BODY, 900, None),
        (
            with_header(PLAIN),
            BODY,
            -901,
            Some(
                "Signature not yet current: 20261123T150000Z is still later than 20261123T145959Z (20261123T144459Z + 15 min.)",
            ),
        ),
        (
            with_header(PLAIN),
            BODY,
            901,
            Some(
                "Signature expired: 20261123T150000Z is now earlier than 20261123T150001Z (20261123T151501Z - 15 min.)",
            ),
        ),
        (request(PRESIGNED, &[]), b"", 3600, None),
        (
            request(PRESIGNED, &[]),
            b"",
            3601,
            Some(
                "Signature expired: 20261123T150000Z is now earlier than 20261123T150001Z (20261123T160001Z - 60 min.)",
            ),
        ),
    ];
    for (parts, body, off_s, expected) in cases {
        let found = verify(&parts, NOW_S + off_s, SECRET, body).err().map(|error| error.to_string());
        assert_eq!(found.as_deref(), expected, "{off_s} s");
    }
}

#[test]
fn what_is_missing_or_malformed_is_told_in_the_words_of_aws() {
    let header = |text: &str| with_header(text);
    let without = |from: &str| PRESIGNED.replace(from, "X-Amz-Nothing");
    let cases = [
        (request("/", &[]), "MissingAuthenticationTokenException", "Request is missing Authentication Token"),
        (
            header("Bearer x"),
            "MissingAuthenticationTokenException",
            "Request is missing Authentication Token",
        ),
        (
            request(PRESIGNED, &[("authorization", PLAIN)]),
            "InvalidSignatureException",
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
        ),
        (
            header("AWS4-HMAC-SHA1 a=b"),
            "IncompleteSignatureException",
            "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'.",
        ),
        (
            request("/", &[("authorization", "AWS4-HMAC-SHA256")]),
            "IncompleteSignatureException",
            "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' \
             parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires \
             existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256",
        ),
        (
            header("AWS4-HMAC-SHA256 Credential=a, oops"),
            "IncompleteSignatureException",
            "'oops' not a valid key=value pair (missing equal-sign) in Authorization header.",
        ),
        (
            header(&PLAIN.replace("host;", "")),
            "InvalidSignatureException",
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
        ),
        (
            header(&PLAIN.replace(";x-amz-target", "")),
            "InvalidSignatureException",
            "'x-amz-target' must be a 'SignedHeader' in the AWS Authorization.",
        ),
        (
            request("/", &[("x-amz-date", "yesterday"), ("authorization", PLAIN)]),
            "IncompleteSignatureException",
            "Date must be in ISO-8601 'basic format'. Got 'yesterday'.",
        ),
        (
            header(&PLAIN.replace("/eu-west-1", "")),
            "IncompleteSignatureException",
            "Credential must have exactly 5 slash-delimited elements",
        ),
        (
            header(&PLAIN.replace("20261123/eu-west-1/dynamodb/aws4_request", "20261122//s3/aws3")),
            "InvalidSignatureException",
            "Credential should be scoped to a valid region, not ''. Credential should be scoped to correct \
             service: 'dynamodb'. Credential should be scoped with a valid terminator: 'aws4_request', not \
             'aws3'. Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
             HTTP: '20261122' != '20261123', from '20261123T150000Z'.",
        ),
        (
            request(&without("X-Amz-Date"), &[]),
            "IncompleteSignatureException",
            "AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters.",
        ),
        (
            request(&PRESIGNED.replace("Expires=3600", "Expires=604801"), &[]),
            "IncompleteSignatureException",
            "X-Amz-Expires must be between 1 and 604800 seconds",
        ),
    ];
    for (parts, type_name, text) in cases {
        let error = verify(&parts, NOW_S, SECRET, BODY).unwrap_err();
        assert_eq!(error.type_name(), type_name, "{error}");
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn what_is_signed_here_is_what_botocore_signs() {
    let mut parts = request("/", &[]);
    let key = AccessKey { id: "AKEVEXAMPLE".to_owned(), secret: Zeroizing::new(SECRET.to_owned()) };
    sign(&mut parts, BODY, &key, None, "eu-west-1", NOW_S).unwrap();
    assert_eq!(parts.headers["authorization"], PLAIN);
}

#[test]
fn the_region_is_that_of_the_credential_in_either_form() {
    let header = |credential: &str| with_header(&format!("AWS4-HMAC-SHA256 Credential={credential}, a=b"));
    let cases = [
        (with_header(PLAIN), Some("eu-west-1")),
        (request(PRESIGNED, &[]), Some("eu-west-1")),
        (request("/?X-Amz-Credential=a/b/us-east-1/c", &[]), Some("us-east-1")),
        (header("AK/20260101//dynamodb/aws4_request"), None),
        (header("AK/20260101/\"x/dynamodb"), None),
        (with_header("Bearer x"), None),
        (request("/", &[]), None),
    ];
    for (parts, expected) in cases {
        assert_eq!(claimed_region(&parts).as_deref(), expected, "{parts:?}");
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_believed_and_nothing_else(
        path in "/[a-z%./ 0-9]{0,20}",
        query in "[a-z=&%+0-9]{0,20}",
        value in "[ -~]{0,20}",
        body in proptest::collection::vec(any::<u8>(), 0..50),
        at in 0usize..64,
    ) {
        let uri = format!("{}?{query}", path.replace(' ', "%20"));
        let mut parts = request(&uri, &[("x-note", value.trim())]);
        let key = AccessKey { id: "AKEV".to_owned(), secret: Zeroizing::new(SECRET.to_owned()) };
        sign(&mut parts, &body, &key, Some("token"), "us-east-1", NOW_S).unwrap();
        prop_assert_eq!(verify(&parts, NOW_S, SECRET, &body), Ok(()));
        let mut authorization = parts.headers["authorization"].to_str().unwrap().to_owned().into_bytes();
        let digit = authorization.len() - 64 + at;
        authorization[digit] = if authorization[digit] == b'0' { b'1' } else { b'0' };
        parts.headers.insert("authorization", http::HeaderValue::from_bytes(&authorization).unwrap());
        prop_assert!(verify(&parts, NOW_S, SECRET, &body).is_err());
    }

    #[test]
    fn no_header_and_no_query_makes_it_stop(header in ".{0,200}", tail in "[ -~]{0,120}", at in 0..PLAIN.len()) {
        let mangled = format!("{}{tail}", &PLAIN[..at]);
        for text in [header.as_str(), mangled.as_str()] {
            if let Ok(value) = http::HeaderValue::from_str(text) {
                let mut parts = with_header("");
                parts.headers.insert("authorization", value);
                prop_assert!(verify(&parts, NOW_S, SECRET, BODY).is_err());
            }
            if let Ok(uri) = format!("/?X-Amz-Algorithm=AWS4-HMAC-SHA256&{text}").parse() {
                let mut parts = request("/", &[]);
                parts.uri = uri;
                prop_assert!(verify(&parts, NOW_S, SECRET, b"").is_err());
            }
        }
    }
}
