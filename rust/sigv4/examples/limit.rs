//! Prints, as JSON, the nanoseconds of one signature and of the hashing that it cannot do without: `tests/bench/bench_signing.py` reads it.

#![allow(clippy::unwrap_used, reason = "a measurement")]

use std::hint::black_box;
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sigward_sigv4::{Credentials, Payload, Request, Scope, Style, sign, steps};

const ROUNDS: u32 = 100_000;

fn nanoseconds(mut job: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let began = Instant::now();
            (0..ROUNDS).for_each(|_| job());
            began.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None).unwrap();
    let scope = Scope { region: "us-east-1", signing_name: "dynamodb", style: Style::Generic };
    let body = vec![b'x'; 1024];
    let request = Request {
        method: "POST",
        path: b"/",
        query: b"",
        headers: &[
            (b"host", b"dynamodb.us-east-1.amazonaws.com"),
            (b"content-type", b"application/x-amz-json-1.0"),
            (b"x-amz-target", b"DynamoDB_20120810.PutItem"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"aws-cli/2.0"),
            (b"content-length", b"1024"),
            (b"amz-sdk-invocation-id", b"b3b1ab5c-8d2e-4b2c-9e2f-0f2f3a4b5c6d"),
            (b"amz-sdk-request", b"attempt=1; max=3"),
        ],
        payload: Payload::Bytes(&body),
    };
    let shown = steps(&credentials, &scope, &request, 1_440_938_160).unwrap();
    let key: Hmac<Sha256> = Hmac::new_from_slice(b"a signing key of thirty-two bytes").unwrap();
    let limit = nanoseconds(|| {
        black_box(Sha256::digest(black_box(&body)));
        black_box(Sha256::digest(black_box(&shown.canonical_request)));
        let mut mac = key.clone();
        mac.update(black_box(shown.string_to_sign.as_bytes()));
        black_box(mac.finalize());
    });
    let signing = nanoseconds(|| {
        black_box(sign(&credentials, &scope, black_box(&request), 1_440_938_160).unwrap());
    });
    println!("{{\"limit_ns\": {limit:.1}, \"sign_ns\": {signing:.1}}}");
}
