//! Heads of requests: no header and no query makes the verifier stop, or believe.

#![no_main]

use evenkeel_authentication::{BodyHash, DayKey, SignedRequest};
use http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (uri, authorization, date) = (next(), next(), next());
    let mut request = Request::post(uri).header("host", "h");
    for (name, value) in [("authorization", authorization), ("x-amz-date", date)] {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    if let Ok(signed) = SignedRequest::read(&head) {
        let _ = signed.check(1_795_446_000);
        let key = DayKey::derive("secret", signed.date(), signed.region());
        assert!(signed.verify(&key, &BodyHash::of(b"")).is_err(), "nobody can guess a signature");
        let _ = signed.session_token();
    }
});
