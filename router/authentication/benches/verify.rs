//! What it costs to verify a request: a GetItem as an SDK signs it, by the size of its body.
//! `cargo bench -p evenkeel-authentication`.

use evenkeel_authentication::{AccessKey, BodyHash, DayKeys, SignedRequest, sign};
use http::Request;
use std::hint::black_box;
use std::time::Instant;

const NOW_S: i64 = 1_795_446_000;
const ROUNDS: u32 = 20_000;

fn main() {
    let key = AccessKey::generate();
    for body_bytes in [100, 1000, 10_000, 400_000] {
        let body = vec![b'x'; body_bytes];
        let mut parts = Request::post("/")
            .header("host", "127.0.0.1:8000")
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", "DynamoDB_20120810.GetItem")
            .header("user-agent", "aws-sdk")
            .body(())
            .expect("a well-formed request")
            .into_parts()
            .0;
        sign(&mut parts, &body, &key, None, "us-east-1", NOW_S).expect("plain characters");
        let mut days = DayKeys::default();
        let rounds = if body_bytes > 100_000 { ROUNDS / 100 } else { ROUNDS };
        let began = Instant::now();
        for _ in 0..rounds {
            let signed = SignedRequest::read(black_box(&parts)).expect("signed above");
            signed.check(NOW_S).expect("signed at this time");
            let secret = || Ok::<_, ()>(key.secret.clone());
            let day = days.get(signed.access_key_id(), signed.date(), signed.region(), secret);
            signed
                .verify(day.expect("there is a secret"), &BodyHash::of(&body))
                .expect("signed with this key");
        }
        let each_ns = began.elapsed().as_nanos() / u128::from(rounds);
        println!("{body_bytes:>7} bytes of body: {:>9.2} us", each_ns as f64 / 1000.0);
    }
}
