//! Signing by headers allocates what it gives back, and nothing else.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use sigward_sigv4::{Credentials, Options, Payload, Request, Scope, Style, sign, sign_lines};

fn allocations(job: impl FnOnce()) -> u64 {
    allocation_counter::measure(job).count_total
}

#[test]
fn one_for_the_output() {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some(&"token".repeat(100))).unwrap();
    let key = format!("/bucket/{}", "some%20folder/".repeat(20));
    let query = b"list-type=2&prefix=a%2Fb&delimiter=%2F&max-keys=1000&start-after=k&encoding-type=url";
    let headers: [(&[u8], &[u8]); 9] = [
        (b"Host", b"bucket.s3.amazonaws.com"),
        (b"Content-Type", b"application/json;   charset=utf-8"),
        (b"X-Amz-Meta-One", b"a"),
        (b"x-amz-meta-two", b"b"),
        (b"x-amz-meta-two", b"c"),
        (b"User-Agent", b"test"),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
        (b"X-Amz-Security-Token", b"the client's own"),
    ];
    for (style, signing_name) in [(Style::S3, "s3"), (Style::Generic, "dynamodb")] {
        let scope = Scope { region: "us-east-1", signing_name, style };
        for payload in [Payload::EMPTY, Payload::Bytes(b"body"), Payload::UNSIGNED, Payload::Digest([7; 32])] {
            let request = Request { method: "GET", path: key.as_bytes(), query, headers: &headers, payload };
            // The first derives a key.
            drop(sign(&credentials, &scope, &request, 1_440_938_160).unwrap());
            let mut signed = None;
            assert_eq!(allocations(|| signed = Some(sign(&credentials, &scope, &request, 1_440_938_160).unwrap())), 1);
            assert_eq!(allocations(|| drop(signed)), 0);
            let lines = || sign_lines(&credentials, &scope, &request, 1_440_938_160, Options::default(), <[u8]>::len).unwrap();
            let mut length = 0;
            // A session token of kilobytes would not fit on the stack.
            assert_eq!(allocations(|| length = lines()), 0);
            assert_eq!(length, sign(&credentials, &scope, &request, 1_440_938_160).unwrap().lines().len());
        }
    }
}
