//! Any signature that a request claims, by query or by header, is read or refused; nobody else's is believed.
#![no_main]

mod feed;

use feed::Feed;
use libfuzzer_sys::fuzz_target;
use sigward_sigv4::verify::{Claim, Rules};
use sigward_sigv4::{Credentials, Payload, Request, Style};

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed(data);
    let style = if feed.byte() & 1 == 0 { Style::S3 } else { Style::Generic };
    let headers = feed.headers();
    let path = feed.piece();
    let known = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20150830%2Fr%2Fs%2Faws4_request&X-Amz-Date=20150830T123600Z\
                 &X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00&";
    let completed = [known.as_bytes(), feed.0].concat();
    let credentials = Credentials::new("AKID", "secret", None).unwrap();
    for query in [feed.0, &completed] {
        let request = Request { method: "GET", path, query, headers: &headers, payload: Payload::EMPTY };
        if let Ok(claim) = Claim::of(&request) {
            assert!(claim.verify(&credentials, &request, &Rules::new(style, claim.signed_at())).is_err());
        }
    }
});
