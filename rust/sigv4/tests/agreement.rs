//! AWS's own Rust signer (`aws-sigv4`) and this one sign alike; where they do not, the reason is told.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::event_stream::{sign_empty_message, sign_message};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign as aws_sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use proptest::prelude::*;
use sigward_sigv4::event::EventSigner;
use sigward_sigv4::verify::{Claim, Rules};
use sigward_sigv4::{Credentials, Options, Payload, Request, Scope, Style, presign, sign};

const NOW: u64 = 1_440_938_160;
const KEY: (&str, &str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "token/+=");

fn when() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn ours() -> Credentials {
    Credentials::new(KEY.0, KEY.1, Some(KEY.2)).unwrap()
}

/// The headers that `aws-sigv4` adds, or the query's parameters.
fn theirs(request: &Request<'_>, style: Style, expires: Option<u64>) -> Vec<(String, String)> {
    let identity = AwsCredentials::new(KEY.0, KEY.1, Some(KEY.2.into()), None, "test").into();
    let mut settings = SigningSettings::default();
    settings.session_token_mode = SessionTokenMode::Include;
    if style == Style::S3 {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if let Some(expires) = expires {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(expires));
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    }
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s")
        .time(when())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", text(request.query)) };
    let uri = format!("https://h.test{}{query}", text(request.path));
    let headers: Vec<(String, String)> = request.headers.iter().map(|(name, value)| (text(name), text(value))).collect();
    let body = match request.payload {
        Payload::Bytes(bytes) => SignableBody::Bytes(bytes),
        _ => SignableBody::UnsignedPayload,
    };
    let headers = headers.iter().map(|(name, value)| (&**name, &**value));
    let signable = SignableRequest::new(request.method, uri, headers, body).unwrap();
    let (instructions, _) = aws_sign(signable, &params).unwrap().into_parts();
    let headers = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
    headers.chain(instructions.params().iter().map(|(name, value)| ((*name).to_owned(), value.clone().into_owned()))).collect()
}

fn path() -> impl Strategy<Value = String> {
    // Without empty and dotted segments, and percent-encoded: for S3 `aws-sigv4` takes it as its caller wrote it.
    proptest::collection::vec("[a-zA-Z0-9_~-]{1,6}(%20|%2B|%C3%A9|%21|%2A|%28|%3A)?", 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn query() -> impl Strategy<Value = String> {
    // Values as a client sends them, percent-encoded; `+` is a blank to both.
    proptest::collection::vec("[a-zA-Z0-9-]{1,5}=([a-z0-9._~+-]|%2F|%20|%C3%A9|%2B){0,5}", 0..6).prop_map(|terms| terms.join("&"))
}

fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    // `expect`, `connection`, `te` and the like are signed by `aws-sigv4` and not by us: they end at the next hop.
    proptest::collection::btree_map("x-amz-meta-[a-z]{1,6}", "[!-~]{1,8}( {1,3}[!-~]{1,8}){0,2}", 0..5)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn by_headers(s3 in any::<bool>(), path in path(), query in query(), headers in headers(), body in "[a-z]{0,20}", unsigned in any::<bool>()) {
        let style = if s3 { Style::S3 } else { Style::Generic };
        let mut pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        pairs.push((b"host", b"h.test"));
        let payload = if s3 && unsigned { Payload::UNSIGNED } else { Payload::Bytes(body.as_bytes()) };
        let request = Request { method: "PUT", path: path.as_bytes(), query: query.as_bytes(), headers: &pairs, payload };
        let signed = sign(&ours(), &Scope { region: "us-east-1", signing_name: "s", style }, &request, NOW).unwrap();
        let mut added: Vec<(String, String)> =
            signed.headers().map(|(name, value)| (String::from_utf8_lossy(name).into(), String::from_utf8_lossy(value).into())).collect();
        let mut theirs = theirs(&request, style, None);
        let mut all = pairs.clone();
        all.extend(theirs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let arrived = Request { headers: &all, ..request };
        Claim::of(&arrived).unwrap().verify(&ours(), &arrived, &Rules::new(style, NOW)).unwrap();
        theirs.sort();
        added.sort();
        prop_assert_eq!(added, theirs);
    }

    #[test]
    fn by_query(path in path(), query in query(), expires in 1..=604_800_u64) {
        let scope = Scope { region: "us-east-1", signing_name: "s", style: Style::S3 };
        let payload = Payload::UNSIGNED;
        let request = Request { method: "GET", path: path.as_bytes(), query: query.as_bytes(), headers: &[(b"host", b"h.test")], payload };
        let signed = presign(&ours(), &scope, &request, NOW, expires, Options::default()).unwrap();
        let theirs = theirs(&request, Style::S3, Some(expires));
        let signature = theirs.iter().find(|(name, _)| name == "X-Amz-Signature").map(|(_, value)| value.clone()).unwrap();
        prop_assert_eq!(std::str::from_utf8(signed.signature()).unwrap(), signature);
    }

    #[test]
    fn event_streams(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let identity = AwsCredentials::new(KEY.0, KEY.1, Some(KEY.2.into()), None, "test").into();
        let params = v4::SigningParams::builder().identity(&identity).region("us-east-1").name("transcribe").time(when()).settings(()).build().unwrap();
        let scope = Scope { region: "us-east-1", signing_name: "transcribe", style: Style::Generic };
        let mut previous = "0".repeat(64);
        let mut signer = EventSigner::new(&scope, previous.as_bytes()).unwrap();
        let written = |message: &Message| {
            let mut bytes = Vec::new();
            write_message_to(message, &mut bytes).unwrap();
            bytes
        };
        // The order of the two headers is free; all else is the same.
        let sorted = |message: &[u8]| {
            let message = read_message_from(message).unwrap();
            let mut headers: Vec<Header> = message.headers().to_vec();
            headers.sort_by_key(|header| header.name().as_str().to_owned());
            (headers, message.payload().clone())
        };
        for payload in payloads {
            let inner = Message::new(payload).add_header(Header::new(":event-type", HeaderValue::String("AudioEvent".into())));
            let (outer, signature) = sign_message(&inner, &previous, &params).unwrap().into_parts();
            let ours = signer.sign(&ours(), &written(&inner), NOW).unwrap();
            prop_assert_eq!(sorted(&ours), sorted(&written(&outer)));
            prop_assert_eq!(signer.previous(), signature.as_bytes());
            previous = signature;
        }
        let (last, signature) = sign_empty_message(&previous, &params).unwrap().into_parts();
        let ours = signer.sign(&ours(), b"", NOW).unwrap();
        prop_assert_eq!(sorted(&ours), sorted(&written(&last)));
        prop_assert_eq!(signer.previous(), signature.as_bytes());
    }
}

/// The decisions, one each: what `aws-sigv4` signs otherwise.
#[test]
fn known_disagreements() {
    let signature = |request: &Request<'_>, style| {
        let scope = Scope { region: "us-east-1", signing_name: "s", style };
        let signed = sign(&ours(), &scope, request, NOW).unwrap();
        let theirs = theirs(request, style, None);
        let theirs = theirs.into_iter().find(|(name, _)| name == "authorization").unwrap().1;
        (String::from_utf8_lossy(signed.authorization()).into_owned(), theirs)
    };
    let plain = Request { method: "GET", path: b"/", query: b"", headers: &[(b"host", b"h.test")], payload: Payload::EMPTY };
    let (ours, theirs) = signature(&plain, Style::Generic);
    assert_eq!(ours, theirs);
    // A path for S3 in its one spelling, as S3 makes it of what arrives; `aws-sigv4` takes it as it stands.
    let (ours, theirs) = signature(&Request { path: b"/a!", ..plain }, Style::S3);
    assert_ne!(ours, theirs);
    let (encoded, theirs) = signature(&Request { path: b"/a%21", ..plain }, Style::S3);
    assert_eq!((&ours, &ours), (&encoded, &theirs));
    // What ends at the next hop, or may change there, is not signed; `aws-sigv4` signs it.
    for name in [&b"expect"[..], b"te", b"connection", b"via", b"x-forwarded-for"] {
        let (ours, theirs) = signature(&Request { headers: &[(b"host", b"h.test"), (name, b"x")], ..plain }, Style::Generic);
        assert_ne!(ours, theirs);
        let signs = |authorization: &str| {
            let (_, names) = authorization.split_once("SignedHeaders=").unwrap();
            names.split_once(',').unwrap().0.split(';').any(|signed| signed.as_bytes() == name)
        };
        assert!(!signs(&ours) && signs(&theirs));
    }
}
