//! A canonical request that is hashed as it is written, and one that is written whole: the same signature, for any bytes.
#![no_main]

mod feed;

use feed::Feed;
use libfuzzer_sys::fuzz_target;
use sigward_sigv4::{Credentials, Payload, QueryPlus, Request, Scope, Style, difference, sign, steps, wire};

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed(data);
    let style = if feed.byte() & 1 == 0 { Style::S3 } else { Style::Generic };
    let (path, query) = (feed.piece(), feed.piece());
    let headers = feed.headers();
    let credentials = Credentials::new("AKID", "secret", Some("token")).unwrap();
    let scope = Scope { region: "r", signing_name: "s", style };
    let request = Request { method: "GET", path, query, headers: &headers, payload: Payload::Bytes(feed.0) };
    match (sign(&credentials, &scope, &request, 1_440_938_160), steps(&credentials, &scope, &request, 1_440_938_160)) {
        (Ok(hashed), Ok(whole)) => {
            assert_eq!(hashed.lines(), whole.signed.lines());
            assert_eq!(difference::canonical_requests(&whole.canonical_request, &whole.canonical_request), None);
            let _ = difference::canonical_requests(&whole.canonical_request, data);
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        (one, other) => panic!("{one:?} {other:?}"),
    }
    // What goes on the wire is its own wire form, unless a `?` in the path is one between path and query.
    if !path.contains(&b'?') {
        let once = wire::path_and_query(style, QueryPlus::Blank, path, query);
        let mut halves = once.splitn(2, |byte| *byte == b'?');
        let twice = wire::path_and_query(style, QueryPlus::Plus, halves.next().unwrap(), halves.next().unwrap_or_default());
        assert_eq!(once, twice);
    }
});
