//! How a body goes out: hashed, unsigned, as the client framed it, in chunks, or as an event stream. What came in chunks that
//! carry signatures of a key that is not ours is unwrapped first.
//!
//! See "Signature calculations … transferring payload in multiple chunks" (S3 API Reference).

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, TRAILER};
use http::{HeaderName, HeaderValue};
use sigward_sigv4::chunked::{Encoder, Framing};
use sigward_sigv4::event::EventSigner;
use sigward_sigv4::{ChecksumAlgorithm, Credentials, Style, Variant};

use crate::admit::{BodySize, is_hop_by_hop, tokens};
use crate::settings::PayloadMode;
use crate::sign::CONTENT_SHA256;

pub(crate) const AMZ_TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");

/// Bytes of a chunk of our own making. S3 asks for 8 KiB and more.
pub const CHUNK: usize = 64 << 10;

/// What the signature says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its SHA-256, once it is known.
    Hash,
    /// The value of `x-amz-content-sha256`: the client's own, or one of AWS's keywords.
    Given(HeaderValue),
    /// Chunks of our own making.
    Chunks(Framing),
    /// Each message of an event stream carries a signature.
    Events,
}

/// What an attempt's body is wrapped in, on its way out.
pub enum Wrap {
    /// Chunks of [`CHUNK`] bytes, then these trailers (by name, in this order).
    Chunks {
        /// Frames and signs.
        encoder: Box<Encoder>,
        /// Lower-case names.
        trailers: Vec<HeaderName>,
    },
    /// Event-stream messages, each in a signed one.
    Events {
        /// Goes on from the request's signature.
        signer: Box<EventSigner>,
        /// Those that signed the request.
        credentials: Arc<Credentials>,
        /// Seconds that the clock of the request's signature is ahead of the system's.
        skew: i64,
    },
}

impl std::fmt::Debug for Wrap {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chunks { encoder, trailers } => to.debug_struct("Chunks").field("encoder", encoder).field("trailers", trailers).finish(),
            Self::Events { .. } => to.write_str("Events"),
        }
    }
}

/// What is settled by the head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) form: Form,
    /// The body comes in chunks and is taken out of them first.
    pub(crate) unwrap: bool,
}

/// What settles it.
pub(crate) struct Facts<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) mode: PayloadMode,
    pub(crate) style: Style,
    pub(crate) over_tls: bool,
    /// [`crate::recognise::Call::uploads`].
    pub(crate) uploads: bool,
    /// The signature stands in the query: there S3 reads no hash of the body, and no framing of it.
    pub(crate) in_query: bool,
    /// Of what arrives.
    pub(crate) size: BodySize,
    pub(crate) hold: u64,
}

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

pub(crate) fn plan(facts: &Facts<'_>) -> Plan {
    // What the client says of the body itself.
    let given = facts.headers.get(CONTENT_SHA256);
    let framing = given.and_then(|given| Framing::of_keyword(given.as_bytes()));
    // Without a body there is nothing to frame: then it is metadata of an object that is copied, or uploaded in parts.
    let chunked = facts.style == Style::S3 && facts.size != BodySize::Known(0) && is_chunked(facts.headers);
    let trailers = facts.headers.contains_key(AMZ_TRAILER);
    // SDKs that sign nothing (boto3 with `UNSIGNED`) frame a body as aws-chunked with a checksum trailer and leave the keyword
    // that goes with it to the signer.
    let unsaid = if trailers { Framing::UnsignedTrailer } else { Framing::Signed };
    let framing = framing.map(|(framing, _)| framing).or_else(|| chunked.then_some(unsaid));
    let keyword = |keyword: &'static str| Form::Given(HeaderValue::from_static(keyword));
    let own_chunks = Form::Chunks(if trailers { Framing::SignedTrailer } else { Framing::Signed });

    if let Some(framing) = framing {
        let unwrapped = |form| Plan { form, unwrap: true };
        return match facts.mode {
            _ if facts.style != Style::S3 || facts.in_query => unwrapped(Form::Hash),
            PayloadMode::Chunked if facts.uploads => unwrapped(own_chunks),
            PayloadMode::Hash | PayloadMode::Chunked => unwrapped(Form::Hash),
            // In chunks as it came, but of our own making: who has seen the head has seen all that is said of the call.
            PayloadMode::Auto | PayloadMode::Unsigned if framing == Framing::UnsignedTrailer => {
                unwrapped(Form::Chunks(Framing::UnsignedTrailer))
            }
            PayloadMode::Auto if !facts.over_tls => unwrapped(own_chunks),
            PayloadMode::Auto | PayloadMode::Unsigned if trailers => unwrapped(Form::Chunks(Framing::UnsignedTrailer)),
            PayloadMode::Auto | PayloadMode::Unsigned => unwrapped(keyword(UNSIGNED)),
        };
    }
    let large = matches!(facts.size, BodySize::Known(length) if length > facts.hold);
    let form = match (facts.mode, given) {
        _ if facts.style == Style::S3 && facts.in_query => keyword(UNSIGNED),
        (PayloadMode::Unsigned, _) => keyword(UNSIGNED),
        (PayloadMode::Chunked, _) if facts.uploads && facts.size != BodySize::Known(0) => Form::Chunks(Framing::Signed),
        (PayloadMode::Auto, _) if is_event_stream(facts.headers) => Form::Events,
        (PayloadMode::Auto, Some(given)) if given == UNSIGNED => Form::Given(given.clone()),
        (_, Some(given)) if is_hash(given) => Form::Given(given.clone()),
        (PayloadMode::Auto, _) if facts.style == Style::S3 && facts.over_tls && large => keyword(UNSIGNED),
        _ => Form::Hash,
    };
    Plan { form, unwrap: false }
}

/// SHA-256, in hexadecimal digits.
pub(crate) fn is_hash(given: &HeaderValue) -> bool {
    given.len() == 64 && given.as_bytes().iter().all(u8::is_ascii_hexdigit)
}

fn is_chunked(headers: &HeaderMap) -> bool {
    encodings(headers).any(|encoding| encoding.eq_ignore_ascii_case("aws-chunked"))
}

/// True if the body comes in chunks, as one of several headers says.
pub(crate) fn is_framed(headers: &HeaderMap) -> bool {
    let by_keyword = || headers.get(CONTENT_SHA256).is_some_and(|given| Framing::of_keyword(given.as_bytes()).is_some());
    is_chunked(headers) || by_keyword()
}

fn encodings(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',').map(str::trim))
}

/// Messages that the service wants signed one by one: Transcribe, Lex, Bedrock and the like, by the type that they all use.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/vnd.amazon.eventstream")
}

/// The length that a body has once it is out of its chunks, if the client tells.
pub(crate) fn decoded_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(DECODED_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The trailers behind a body in chunks that go on: checksums that the client announces, each once. S3 takes no others, and what else a
/// trailer can name is for the head alone to say.
pub(crate) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    named(headers, &AMZ_TRAILER, |name| ChecksumAlgorithm::of_header(name.as_str().as_bytes()).is_some())
}

/// The trailers of HTTP that go on behind a body that streams: those that the client announces, and that say nothing of the call.
pub(crate) fn trailing(headers: &HeaderMap) -> Vec<HeaderName> {
    named(headers, &TRAILER, |name| !headers.contains_key(name) && may_trail(name))
}

/// Says which trailers will follow.
pub(crate) fn announce(headers: &mut HeaderMap, names: &[HeaderName]) {
    headers.remove(TRAILER);
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    if let Some(names) = HeaderValue::from_str(&names.join(", ")).ok().filter(|names| !names.is_empty()) {
        headers.insert(TRAILER, names);
    }
}

fn named(headers: &HeaderMap, by: &HeaderName, may: impl Fn(&HeaderName) -> bool) -> Vec<HeaderName> {
    let mut found: Vec<HeaderName> = Vec::new();
    for name in tokens(headers, by).filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
        if !found.contains(&name) && may(&name) {
            found.push(name);
        }
    }
    found
}

/// Of what frames, routes, authenticates, changes or describes a request, nothing may stand behind it (RFC 9110, section 6.5.1).
fn may_trail(name: &HeaderName) -> bool {
    // What names a call of AWS's, and what is signed.
    const PREFIXES: &[&str] =
        &["x-amz", "amz-", "smithy-", "x-sigward-", "content-", "if-", "accept", "x-forwarded-", "x-http-method", "sec-"];
    const NAMES: &[&str] = &[
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "forwarded",
        "host",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "traceparent",
        "tracestate",
        "user-agent",
        "via",
        "x-method-override",
    ];
    let text = name.as_str();
    !(is_hop_by_hop(name) || NAMES.contains(&text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix)))
}

/// Takes out what says that the body is in chunks.
pub(crate) fn unframed(headers: &mut HeaderMap) {
    headers.remove(DECODED_LENGTH);
    headers.remove(AMZ_TRAILER);
    headers.remove(CONTENT_SHA256);
    let kept: Vec<&str> = encodings(headers).filter(|encoding| !encoding.eq_ignore_ascii_case("aws-chunked")).collect();
    let kept = HeaderValue::from_str(&kept.join(", ")).ok().filter(|value| !value.is_empty());
    headers.remove(CONTENT_ENCODING);
    if let Some(kept) = kept {
        headers.insert(CONTENT_ENCODING, kept);
    }
}

/// Says that the body is in chunks of ours; gives its length on the wire, if that is known.
pub(crate) fn framed(
    headers: &mut HeaderMap,
    framing: Framing,
    variant: Variant,
    decoded: u64,
    trailers: &[(HeaderName, Option<usize>)],
) -> BodySize {
    headers.insert(DECODED_LENGTH, HeaderValue::from(decoded));
    let others: Vec<&str> = encodings(headers).filter(|encoding| !encoding.eq_ignore_ascii_case("aws-chunked")).collect();
    let encodings: Vec<&str> = std::iter::once("aws-chunked").chain(others).collect();
    if let Ok(encodings) = HeaderValue::from_str(&encodings.join(",")) {
        headers.insert(CONTENT_ENCODING, encodings);
    }
    headers.remove(AMZ_TRAILER);
    if framing != Framing::Signed && !trailers.is_empty() {
        let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(",")) {
            headers.insert(AMZ_TRAILER, names);
        }
    }
    let lengths: Option<Vec<(&[u8], usize)>> =
        trailers.iter().map(|(name, length)| length.map(|length| (name.as_str().as_bytes(), length))).collect();
    lengths.map_or(BodySize::Unknown, |lengths| BodySize::Known(framing.encoded_length(variant, decoded, CHUNK as u64, &lengths)))
}

/// The length of a trailer's value, before it is there.
pub(crate) fn expected_length(name: &HeaderName) -> Option<usize> {
    ChecksumAlgorithm::of_header(name.as_str().as_bytes()).map(ChecksumAlgorithm::text_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'static str, &'static str)];

    fn headers(pairs: Pairs<'_>) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn plans() {
        use PayloadMode::{Auto, Chunked, Hash, Unsigned};
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let given = |value: &'static str| Form::Given(HeaderValue::from_static(value));
        let (signed, signed_trailer) = (Form::Chunks(Framing::Signed), Form::Chunks(Framing::SignedTrailer));
        let unsigned_trailer = Form::Chunks(Framing::UnsignedTrailer);
        let plain: Pairs<'_> = &[];
        let hashed: Pairs<'_> = &[("x-amz-content-sha256", hex)];
        let unsigned: Pairs<'_> = &[("x-amz-content-sha256", UNSIGNED)];
        let nonsense: Pairs<'_> = &[("x-amz-content-sha256", "nonsense")];
        let boto3: Pairs<'_> = &[("content-encoding", "gzip,aws-chunked"), ("x-amz-trailer", "x-amz-checksum-crc32")];
        let java: Pairs<'_> = &[
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ];
        let old: Pairs<'_> = &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")];
        let events: Pairs<'_> = &[("content-type", "application/vnd.amazon.eventstream")];
        let (s3, generic) = (Style::S3, Style::Generic);
        for (pairs, mode, style, over_tls, length, form, unwrap) in [
            (plain, Auto, s3, true, 10, Form::Hash, false),
            (plain, Auto, s3, true, 10_000, given(UNSIGNED), false),
            (plain, Auto, s3, false, 10_000, Form::Hash, false),
            (plain, Auto, generic, true, 10_000, Form::Hash, false),
            (plain, Hash, s3, true, 10_000, Form::Hash, false),
            (plain, Unsigned, s3, true, 10, given(UNSIGNED), false),
            (plain, Chunked, s3, true, 10, signed.clone(), false),
            (plain, Chunked, s3, true, 0, Form::Hash, false),
            (plain, Chunked, generic, true, 10, Form::Hash, false),
            (hashed, Auto, s3, true, 10_000, given(hex), false),
            (hashed, Hash, generic, true, 10, given(hex), false),
            (unsigned, Auto, s3, true, 10, given(UNSIGNED), false),
            (unsigned, Hash, s3, true, 10, Form::Hash, false),
            (nonsense, Auto, generic, true, 10, Form::Hash, false),
            (boto3, Auto, s3, true, 10, unsigned_trailer.clone(), true),
            (boto3, Auto, s3, false, 10, unsigned_trailer.clone(), true),
            (boto3, Unsigned, s3, true, 10, unsigned_trailer.clone(), true),
            (boto3, Hash, s3, true, 10, Form::Hash, true),
            (boto3, Chunked, s3, true, 10, signed_trailer.clone(), true),
            // Only S3 knows what that is; to others it is an encoding like any other.
            (boto3, Auto, generic, true, 10, Form::Hash, false),
            (java, Auto, s3, true, 10, unsigned_trailer.clone(), true),
            (java, Auto, s3, false, 10, signed_trailer.clone(), true),
            (java, Unsigned, s3, true, 10, unsigned_trailer, true),
            (java, Hash, s3, true, 10, Form::Hash, true),
            (java, Auto, generic, true, 10, Form::Hash, true),
            (old, Auto, s3, true, 10, given(UNSIGNED), true),
            (old, Auto, s3, false, 10, signed, true),
            (events, Auto, generic, true, 10, Form::Events, false),
            (events, Hash, generic, true, 10, Form::Hash, false),
        ] {
            let headers = headers(pairs);
            let (in_query, uploads) = (false, style == Style::S3);
            let facts = Facts { headers: &headers, mode, style, over_tls, uploads, in_query, size: BodySize::Known(length), hold: 1000 };
            assert_eq!(plan(&facts), Plan { form, unwrap }, "{pairs:?} {mode:?} {style:?} {over_tls} {length}");
        }
        // S3's calls that send no object: tags, policies, the parts of an upload.
        for (pairs, mode, form, unwrap) in [
            (plain, Chunked, Form::Hash, false),
            (unsigned, Chunked, Form::Hash, false),
            (hashed, Chunked, given(hex), false),
            (java, Chunked, Form::Hash, true),
            (old, Chunked, Form::Hash, true),
        ] {
            let headers = headers(pairs);
            let (size, over_tls) = (BodySize::Known(10), true);
            let facts = Facts { headers: &headers, mode, style: s3, over_tls, uploads: false, in_query: false, size, hold: 1000 };
            assert_eq!(plan(&facts), Plan { form, unwrap }, "{pairs:?} {mode:?}");
        }
        // An encoding that a copy, or an upload in parts, only passes on.
        for (pairs, size, unwrap) in [(boto3, 0, false), (boto3, 1, true), (old, 0, true)] {
            let headers = headers(pairs);
            let (mode, size) = (Auto, BodySize::Known(size));
            let facts = Facts { headers: &headers, mode, style: s3, over_tls: true, uploads: false, in_query: false, size, hold: 1000 };
            assert_eq!(plan(&facts).unwrap, unwrap, "{pairs:?} {size:?}");
        }
        for (pairs, form, unwrap) in [(plain, given(UNSIGNED), false), (boto3, Form::Hash, true), (java, Form::Hash, true)] {
            let headers = headers(pairs);
            let size = BodySize::Known(10);
            let facts =
                Facts { headers: &headers, mode: Chunked, style: s3, over_tls: true, uploads: true, in_query: true, size, hold: 1000 };
            assert_eq!(plan(&facts), Plan { form, unwrap }, "{pairs:?}");
        }
    }

    #[test]
    fn trailers_of_http_say_nothing_of_the_call() {
        let mut map =
            headers(&[("trailer", "X-Sum, x-sum, x-amz-target,host, x-there,content-length,Te,grpc-status, x y"), ("x-there", "1")]);
        assert_eq!(trailing(&map), ["x-sum", "grpc-status"]);
        let names = trailing(&map);
        announce(&mut map, &names);
        assert_eq!(map["trailer"], "x-sum, grpc-status");
        announce(&mut map, &[]);
        assert_eq!(map, headers(&[("x-there", "1")]));
    }

    #[test]
    fn what_says_that_it_is_in_chunks() {
        let mut map = headers(&[
            ("content-encoding", "aws-chunked, gzip"),
            ("x-amz-decoded-content-length", "12"),
            (
                "x-amz-trailer",
                "X-Amz-Checksum-Crc32, x-other,x-amz-copy-source , x-amz-checksum-crc32,x-amz-checksum-sha256,x-amz-checksum-mode",
            ),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        ]);
        assert_eq!(decoded_length(&map), Some(12));
        let names = announced(&map);
        assert_eq!(names, ["x-amz-checksum-crc32", "x-amz-checksum-sha256"]);
        assert_eq!(names.iter().map(expected_length).collect::<Vec<_>>(), [Some(8), Some(44)]);
        unframed(&mut map);
        assert_eq!(map, headers(&[("content-encoding", "gzip")]));
        let trailers = [(HeaderName::from_static("x-amz-checksum-crc32"), Some(8))];
        let size = framed(&mut map, Framing::UnsignedTrailer, Variant::V4, 3, &trailers);
        assert_eq!(size, BodySize::Known("3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n".len() as u64));
        let expected =
            [("content-encoding", "aws-chunked,gzip"), ("x-amz-decoded-content-length", "3"), ("x-amz-trailer", "x-amz-checksum-crc32")];
        assert_eq!(map, headers(&expected));
        let unknown = [(HeaderName::from_static("x-other"), None)];
        assert_eq!(framed(&mut map, Framing::SignedTrailer, Variant::V4, 3, &unknown), BodySize::Unknown);
        unframed(&mut map);
        let mut only = headers(&[("content-encoding", "aws-chunked")]);
        unframed(&mut only);
        assert!(only.is_empty());
    }
}
