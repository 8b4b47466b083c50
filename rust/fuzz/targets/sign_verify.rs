//! What is signed is believed, by headers and by query; what is changed is not.
#![no_main]

mod feed;

use feed::Feed;
use libfuzzer_sys::fuzz_target;
use sigward_sigv4::verify::{Claim, Rules};
use sigward_sigv4::{Credentials, Options, Payload, Request, Scope, SessionToken, Style, presign, sign_with};

const NOW: u64 = 1_440_938_160;

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed(data);
    let flags = feed.byte();
    let style = if flags & 1 == 0 { Style::S3 } else { Style::Generic };
    let session_token = [SessionToken::Signed, SessionToken::AddedAfter, SessionToken::S3Express][usize::from(flags >> 1) % 3];
    let credentials = Credentials::new("AKID", "secret", (flags & 128 != 0).then_some("to/ken")).unwrap();
    let options = Options { session_token, ..Options::default() };
    let rules = Rules { session_token, ..Rules::new(style, NOW) };
    let (path, query) = (feed.piece(), feed.piece());
    let headers = feed.headers();
    // Headers of the signature's own, and of the body's hash, are the signer's to write.
    let own = [&b"authorization"[..], b"host", b"x-amz-date", b"x-amz-security-token", b"x-amz-s3session-token", b"x-amz-content-sha256"];
    let headers: Vec<(&[u8], &[u8])> = headers
        .into_iter()
        .enumerate()
        .filter(|(at, (name, _))| *at == 0 || !own.contains(&&*name.to_ascii_lowercase()))
        .map(|(_, pair)| pair)
        .collect();
    let scope = Scope { region: "r", signing_name: "s", style };
    let request = Request { method: "PUT", path, query, headers: &headers, payload: Payload::Bytes(feed.0) };
    if let Ok(signed) = sign_with(&credentials, &scope, &request, NOW, options) {
        let mut all = headers.clone();
        all.extend(signed.headers());
        let arrived = Request { headers: &all, ..request };
        let claim = Claim::of(&arrived).unwrap();
        claim.verify(&credentials, &arrived, &rules).unwrap();
        let other = Credentials::new("AKID", "other", credentials.session_token()).unwrap();
        assert_eq!(claim.verify(&other, &arrived, &rules).unwrap_err().slug(), "signature");
    }
    let payload = if style == Style::S3 { Payload::UNSIGNED } else { request.payload };
    let request = Request { payload, ..request };
    if let Ok(signed) = presign(&credentials, &scope, &request, NOW, 1 + u64::from(flags), options) {
        let arrived = Request { query: signed.query(), ..request };
        let claim = Claim::of(&arrived).unwrap();
        claim.verify(&credentials, &arrived, &rules).unwrap();
        assert_eq!(claim.verify(&credentials, &Request { method: "GET", ..arrived }, &rules).unwrap_err().slug(), "signature");
    }
});
