//! judge: deliver this answer, or try again, and after how long?
//!
//! The classes are botocore's (1.44, `retries/standard.py`): throttling by a list of codes, by the service's model or by 429;
//! transient by 500, 502, 503, 504, by a list of codes or by the model. Never another 4xx. Beyond botocore: expired credentials,
//! wrong clocks and S3's redirects are mended once each. Delays follow the SDKs' standard mode: full-jitter exponential,
//! `random() · min(scale · 2^(n−1), cap)`; what AWS asks for (`x-amz-retry-after`, `retry-after`) raises it by at most 5 s.
//! See the AWS SDKs and Tools Reference Guide, "Retry behavior".
//!
//! Not every answer of a host of AWS's is AWS's: see [`Author`].

use std::borrow::Cow;
use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;
use http::header::{CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER};

use crate::knowledge::{ErrorKind, Knowledge, Operation};
use crate::recognise::Recognised;
use crate::settings::{Constants, RetrySettings};

/// Who writes a host's answers, and so what they prove.
///
/// AWS's "throttled" and "expired" say that nothing was done. A customer's program can say the same after its work, in its status, its
/// body and most of its headers, so its word allows no more than its status does: another attempt of what is safe to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// AWS, or a store that speaks its protocol.
    Aws,
    /// AWS's search engines, which can also answer 429 after a part of the work.
    Engine,
    /// A customer's program, behind a gateway of AWS's that marks what it answers itself.
    Gateway,
    /// Somebody's program, and nothing tells its words from those of AWS.
    Program,
}

/// By signing name. Sources: for `execute-api` and `lambda`, answers in aws/chalice issue 12, and "Amazon API Gateway important notes"
/// (`x-amzn-Remapped-…`); for `appsync`, "HTTP helpers in util.http" (no header of a resolver begins with `x-amzn-`); for
/// `bedrock-agentcore`, "Header propagation with Gateway"; for `es`, OpenSearch's `_update_by_query`, whose status is that of the worst
/// of its failures. The functions of `s3-object-lambda` answer GET and HEAD alone, so they are not here.
const AUTHORS: &[(&str, Author)] = &[
    ("execute-api", Author::Gateway),
    ("lambda", Author::Gateway),
    ("appsync", Author::Gateway),
    // Targets have their headers passed on.
    ("bedrock-agentcore", Author::Program),
    ("vpc-lattice-svcs", Author::Program),
    // It passes queries on to its data sources.
    ("grafana", Author::Program),
    ("es", Author::Engine),
    ("aoss", Author::Engine),
];

impl Author {
    /// Of the answers of a host. `service`: the signing name, if requests are signed for it.
    pub(crate) fn of(knowledge: &Knowledge, host: Option<Recognised<'_>>, service: Option<&str>) -> Self {
        let listed = |name: &str| AUTHORS.iter().find(|(known, _)| *known == name).map(|(_, author)| *author);
        match (host, service) {
            (Some(host), _) if host.own_api => {
                listed(host.signing_name).unwrap_or(if host.owner_reads { Self::Program } else { Self::Aws })
            }
            (Some(_), _) => Self::Aws,
            // A name of the operator's own for such an endpoint, or what stands in AWS's place.
            (None, Some(service)) => listed(service).unwrap_or(if knowledge.has_service(service) { Self::Aws } else { Self::Program }),
            (None, None) => Self::Program,
        }
    }
}

/// Why a repeat may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// The service or the way to it failed.
    Transient,
    /// Too many calls.
    Throttling,
    /// The session token has expired: other credentials may be there.
    Expired,
    /// The signature's time is wrong: AWS's own clock stands in `Date`.
    Skew,
    /// The signature is wrong, perhaps for its time.
    Signature,
    /// The bucket is in another region.
    Region,
}

/// What a response head says about a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Deliver,
    /// Try again.
    Retry(RetryClass),
    /// The error code in the body decides.
    ReadCode,
}

/// An answer, and what it is the answer to.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// As received.
    pub headers: &'a HeaderMap,
    /// What was called, if the table tells.
    pub operation: Option<&'a Operation>,
    /// It was S3's.
    pub s3: bool,
    /// The answer to HEAD has no body.
    pub method: &'a Method,
    /// Who wrote it.
    pub author: Author,
}

impl Answer<'_> {
    /// What it says of throttling and of signatures is AWS's word: the call has done nothing.
    pub fn is_aws(&self) -> bool {
        match self.author {
            Author::Aws | Author::Engine => true,
            Author::Gateway => code_of_gateway(self.headers).is_some(),
            Author::Program => false,
        }
    }
}

/// Error codes that mean throttling. Source: botocore's retry handler (`ThrottledRetryableChecker`) and EC2's documentation.
const THROTTLING_CODES: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// Error codes that come as a 4xx and are transient all the same.
const TRANSIENT_CODES: &[&str] = &["RequestTimeout", "RequestTimeoutException"];

/// Error codes of credentials that have expired, and of clocks that are wrong. Source: the AWS SDKs' clock skew handling.
const EXPIRED_CODES: &[&str] = &["ExpiredToken", "ExpiredTokenException"];
const SKEW_CODES: &[&str] = &["RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"];
const SIGNATURE_CODES: &[&str] = &["AuthFailure", "InvalidSignatureException", "SignatureDoesNotMatch"];

/// S3's words for a bucket in another region. Source: botocore's `S3RegionRedirectorv2`.
const REGION_CODES: &[&str] =
    &["AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "Redirect", "TemporaryRedirect"];

/// S3's operations that may say 200 and then fail: the status is sent before the work is done.
const LATE_ERRORS: &[&str] = &["CompleteMultipartUpload", "CopyObject", "UploadPartCopy"];

/// A signature that is wrong for its time is wrong by more than this: AWS takes 5 minutes. Seconds.
pub const SKEW_LIMIT: u64 = 240;

/// How much of an error body is read for its code, bytes.
pub const CODE_PREFIX: usize = 16 << 10;

/// How much of it is looked at once it is decompressed, bytes.
const INFLATED: u64 = 64 << 10;

/// What AWS asks for may add so much to a delay.
const MOST_ADDED: Duration = Duration::from_secs(5);

/// Judges a response by its head.
pub fn judge_head(answer: &Answer<'_>) -> Verdict {
    let Answer { status, headers, method, .. } = *answer;
    let late = answer.s3 && status == 200 && answer.operation.is_some_and(|operation| LATE_ERRORS.contains(&&*operation.name));
    if late {
        return Verdict::ReadCode;
    }
    if status < 300 {
        return Verdict::Deliver;
    }
    if answer.s3 && region_in_headers(headers).is_some() && (matches!(status, 301 | 302 | 307) || (status == 400 && method == Method::HEAD))
    {
        return Verdict::Retry(RetryClass::Region);
    }
    if status < 400 && !answer.s3 {
        return Verdict::Deliver;
    }
    match answer.author {
        Author::Aws | Author::Engine => {}
        // No body of theirs counts.
        Author::Gateway => return by_code(answer, code_of_gateway(headers)),
        Author::Program => return by_code(answer, None),
    }
    match code_in_headers(headers) {
        Some(code) => by_code(answer, Some(code)),
        None if method == Method::HEAD || headers.get("content-length").is_some_and(|length| length == "0") => by_code(answer, None),
        None => Verdict::ReadCode,
    }
}

/// Judges a response by its status alone.
pub fn judge_status(answer: &Answer<'_>) -> Verdict {
    if answer.status < 400 { Verdict::Deliver } else { by_code(answer, None) }
}

/// Judges a response whose body had to be looked at.
pub fn judge_body(answer: &Answer<'_>, prefix: &[u8]) -> Verdict {
    let prefix = inflated(answer.headers, prefix);
    if answer.status == 200 {
        // Blanks come while S3 works; then the result, or an error.
        let failed = find(prefix.trim_ascii_start(), b"<Error>").is_some();
        let status = if failed { 500 } else { 200 };
        return if failed { by_code(&Answer { status, ..*answer }, code_in_body(&prefix)) } else { Verdict::Deliver };
    }
    if answer.author == Author::Engine && prefix.get(..prefix.len().min(32)).is_some_and(|start| find(start, b"took").is_some()) {
        return Verdict::Deliver;
    }
    by_code(answer, code_in_body(&prefix))
}

fn by_code(answer: &Answer<'_>, code: Option<&str>) -> Verdict {
    let listed = |codes: &[&str]| code.is_some_and(|code| codes.contains(&code));
    let modelled = code.zip(answer.operation).and_then(|(code, operation)| operation.error(code));
    let of_sts = || answer.operation.is_some_and(|operation| *operation.service == *"sts") && code == Some("IDPCommunicationError");
    let class = if listed(THROTTLING_CODES) {
        RetryClass::Throttling
    } else if listed(EXPIRED_CODES) {
        RetryClass::Expired
    } else if listed(SKEW_CODES) {
        RetryClass::Skew
    } else if listed(SIGNATURE_CODES) {
        RetryClass::Signature
    } else if answer.s3 && listed(REGION_CODES) {
        RetryClass::Region
    } else {
        match (modelled, answer.status) {
            (Some(ErrorKind::Throttling), _) | (None, 429 | 509) => RetryClass::Throttling,
            (Some(ErrorKind::Transient), _) | (_, 500 | 502 | 503 | 504) => RetryClass::Transient,
            _ if listed(TRANSIENT_CODES) || of_sts() => RetryClass::Transient,
            _ => return Verdict::Deliver,
        }
    };
    Verdict::Retry(class)
}

/// The region that S3 says the bucket is in.
pub fn region_of<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Option<&'a str> {
    let told = find(body, b"<Region>").and_then(|after| until(after, b"<")).and_then(|text| std::str::from_utf8(text).ok());
    let region = region_in_headers(headers).or(told)?;
    let plain = region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    Some(region).filter(|region| plain && (3..=32).contains(&region.len()))
}

fn region_in_headers(headers: &HeaderMap) -> Option<&str> {
    if let Some(region) = headers.get("x-amz-bucket-region") {
        return region.to_str().ok();
    }
    // A new bucket's temporary redirect names only the host.
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let host = location.split_once("://")?.1.split(['/', ':']).next()?;
    let rest = match host.split_once(".s3.").or_else(|| host.split_once(".s3-")) {
        Some((_, rest)) => rest,
        None => host.strip_prefix("s3.")?,
    };
    rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))
}

/// What a compressed body begins with, bounded whatever it claims to be.
fn inflated<'a>(headers: &HeaderMap, prefix: &'a [u8]) -> Cow<'a, [u8]> {
    let Some(encoding) = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()) else { return Cow::Borrowed(prefix) };
    let mut out = Vec::new();
    // A prefix ends too early for its decoder: what came out until then counts.
    let _ = match encoding.trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => flate2::read::GzDecoder::new(prefix).take(INFLATED).read_to_end(&mut out),
        "deflate" => flate2::read::ZlibDecoder::new(prefix).take(INFLATED).read_to_end(&mut out),
        _ => return Cow::Borrowed(prefix),
    };
    Cow::Owned(out)
}

/// How long AWS asks to wait: `x-amz-retry-after` in milliseconds, else `retry-after` in seconds or as a date. Nonsense counts for
/// nothing.
pub fn asked_for(headers: &HeaderMap, unix_seconds: u64) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("x-amz-retry-after") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let after = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(after).ok()?.duration_since(UNIX_EPOCH).ok()?;
    date.checked_sub(Duration::from_secs(unix_seconds))
}

/// `x-amzn-errortype: com.amazon#Code:http://…` and `x-amzn-query-error: Code;Sender`.
fn code_in_headers(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("x-amzn-errortype").or_else(|| headers.get("x-amzn-query-error"))?;
    Some(bare_code(value.to_str().ok()?))
}

/// What a gateway of AWS's says itself, in place of the program behind it. The program's answers bear the header too if it sets it, and
/// then also what the gateway adds to them: where they were traced, or what their headers were called. HTTP APIs mark nothing.
fn code_of_gateway(headers: &HeaderMap) -> Option<&str> {
    let mut codes = headers.get_all("x-amzn-errortype").iter();
    let (Some(code), None) = (codes.next(), codes.next()) else { return None };
    let of_program = |name: &str| matches!(name, "x-amzn-trace-id" | "apigw-requestid") || name.starts_with("x-amzn-remapped-");
    let marked = headers.contains_key("x-amzn-requestid") && !headers.keys().any(|name| of_program(name.as_str()));
    code.to_str().ok().filter(|_| marked).map(bare_code)
}

/// `<Code>…</Code>` in XML; `__type` or `code` in JSON and CBOR. Whatever comes first.
fn code_in_body(prefix: &[u8]) -> Option<&str> {
    let text = if let Some(after) = find(prefix, b"<Code>") {
        until(after, b"<")?
    } else {
        let after = [&b"__type"[..], b"\"code\"", b"\"Code\""].iter().find_map(|key| find(prefix, key))?;
        let json = after.strip_prefix(b"\"").unwrap_or(after);
        let json = json.trim_ascii_start();
        match json.strip_prefix(b":") {
            Some(value) => until(value.trim_ascii_start().strip_prefix(b"\"")?, b"\"")?,
            None => cbor_text(after)?,
        }
    };
    Some(bare_code(std::str::from_utf8(text).ok()?))
}

fn bare_code(text: &str) -> &str {
    let text = text.split([':', ';']).next().unwrap_or_default();
    text.rsplit('#').next().unwrap_or_default().trim()
}

fn find<'b>(bytes: &'b [u8], what: &[u8]) -> Option<&'b [u8]> {
    let at = bytes.windows(what.len()).position(|window| window == what)?;
    bytes.get(at + what.len()..)
}

fn until<'b>(bytes: &'b [u8], end: &[u8]) -> Option<&'b [u8]> {
    let at = bytes.windows(end.len()).position(|window| window == end)?;
    bytes.get(..at)
}

/// A definite-length text string (RFC 8949, major type 3), up to 255 bytes.
fn cbor_text(bytes: &[u8]) -> Option<&[u8]> {
    match *bytes {
        [head @ 0x60..=0x77, ..] => bytes.get(1..1 + usize::from(head & 0x1f)),
        [0x78, length, ..] => bytes.get(2..2 + usize::from(length)),
        _ => None,
    }
}

/// Attempts in all.
pub fn attempts(settings: &RetrySettings, service: Option<&str>) -> u32 {
    settings.attempts.unwrap_or(if is_dynamodb(service) { 4 } else { 3 })
}

fn is_dynamodb(service: Option<&str>) -> bool {
    matches!(service, Some("dynamodb" | "dynamodbstreams"))
}

/// The wait before retry `n` (1 for the first). `asked`: what AWS asked for. `random`: uniform in 0 ≤ random < 1.
pub fn delay(settings: &RetrySettings, service: Option<&str>, class: RetryClass, n: u32, random: f64, asked: Option<Duration>) -> Duration {
    let before = settings.constants == Constants::Before2026;
    let usual = Duration::from_millis(if is_dynamodb(service) { 25 } else { 50 });
    let scale = match class {
        RetryClass::Throttling => settings.throttle_base,
        RetryClass::Transient if before && settings.base.is_none() => Duration::from_secs(1),
        RetryClass::Transient => settings.base.unwrap_or(usual),
        _ => return Duration::ZERO,
    };
    let grown = scale.saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX));
    let delay = grown.min(settings.cap).mul_f64(random.clamp(0.0, 1.0));
    asked.map_or(delay, |asked| delay.max(asked.min(delay + MOST_ADDED)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::io::Write;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    fn answer(status: u16, headers: &HeaderMap) -> Answer<'_> {
        Answer { status, headers, operation: None, s3: false, method: &Method::POST, author: Author::Aws }
    }

    const THROTTLING: Verdict = Verdict::Retry(RetryClass::Throttling);
    const TRANSIENT: Verdict = Verdict::Retry(RetryClass::Transient);

    #[test]
    fn heads() {
        let none = HeaderMap::new();
        let empty = with("content-length", "0");
        for status in [200, 204, 301, 304] {
            assert_eq!(judge_head(&answer(status, &none)), Verdict::Deliver, "{status}");
        }
        for status in [400, 404, 409, 412, 501, 505] {
            assert_eq!(judge_head(&answer(status, &empty)), Verdict::Deliver, "{status}");
            assert_eq!(judge_head(&answer(status, &none)), Verdict::ReadCode, "{status}");
        }
        for status in [500, 502, 503, 504] {
            assert_eq!(judge_head(&answer(status, &empty)), TRANSIENT, "{status}");
            assert_eq!(judge_head(&Answer { method: &Method::HEAD, ..answer(status, &none) }), TRANSIENT, "{status}");
        }
        assert_eq!(judge_head(&answer(429, &empty)), THROTTLING);
        let throttled = with("x-amzn-errortype", "com.amazonaws.lambda#TooManyRequestsException:http://x");
        assert_eq!(judge_head(&answer(400, &throttled)), THROTTLING);
        assert_eq!(judge_head(&answer(200, &throttled)), Verdict::Deliver);
        assert_eq!(judge_head(&answer(400, &with("x-amzn-errortype", "ValidationException"))), Verdict::Deliver);
        assert_eq!(judge_head(&answer(503, &with("x-amzn-errortype", "InternalFailure"))), TRANSIENT);
    }

    #[test]
    fn bodies_of_every_protocol() {
        let none = HeaderMap::new();
        let judged = |status, body: &[u8]| judge_body(&answer(status, &none), body);
        for body in [
            &br#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"x"}"#[..],
            br#"{ "code" : "ThrottlingException" }"#,
            b"<Response><Errors><Error><Code>RequestLimitExceeded</Code>",
            b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce</Message></Error>",
            b"\xa1\x66__type\x78\x1ccom.amazonaws#SlowDownNotQui",
            b"\xa1\x66__type\x69Throttled",
        ] {
            let expected = if body.starts_with(b"\xa1") { Verdict::Deliver } else { THROTTLING };
            assert_eq!(judged(400, body), expected, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(judged(400, b"\xa1\x66__type\x73ThrottlingException"), THROTTLING);
        assert_eq!(judged(400, b"<Error><Code>AccessDenied</Code></Error>"), Verdict::Deliver);
        assert_eq!(judged(400, b"<Error><Code>RequestTimeout</Code>"), TRANSIENT);
        assert_eq!(judged(503, b"oops"), TRANSIENT);
        assert_eq!(judged(503, b"<Code>SlowDown</Code>"), THROTTLING);
        assert_eq!(judged(403, b"<Code>ExpiredToken</Code>"), Verdict::Retry(RetryClass::Expired));
        assert_eq!(judged(403, b"<Code>RequestTimeTooSkewed</Code>"), Verdict::Retry(RetryClass::Skew));
        assert_eq!(judged(400, br#"{"__type":"InvalidSignatureException"}"#), Verdict::Retry(RetryClass::Signature));
        for body in [&b""[..], b"__type", b"__type\"", b"__type\":\"", b"<Code>", b"__type\x78", b"__type\x78\xff", b"__type\x77ab"] {
            assert_eq!(judged(400, body), Verdict::Deliver);
        }
    }

    #[test]
    fn compressed_bodies_are_looked_into_within_bounds() {
        let gzip = |body: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        };
        let headers = with("content-encoding", "gzip");
        let body = gzip(br#"{"__type":"ThrottlingException"}"#);
        assert_eq!(judge_body(&answer(400, &headers), &body), THROTTLING);
        assert_eq!(judge_body(&answer(400, &headers), &body[..body.len() - 9]), THROTTLING, "cut off");
        let bomb = gzip(&vec![b' '; 100 << 20]);
        assert!(inflated(&headers, &bomb).len() as u64 <= INFLATED);
        for nonsense in [&b""[..], b"\x1f\x8b", b"nothing of the kind"] {
            assert_eq!(judge_body(&answer(503, &headers), nonsense), TRANSIENT);
        }
    }

    #[test]
    fn a_programs_word_is_its_status() {
        let judged = |author, status, headers: &HeaderMap| {
            let answer = Answer { author, ..answer(status, headers) };
            (judge_head(&answer), answer.is_aws())
        };
        let gateways = |more: &[(&'static str, &'static str)]| {
            let own = [("x-amzn-requestid", "1"), ("x-amz-apigw-id", "2")];
            let named = own.iter().chain(more);
            named.map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect::<HeaderMap>()
        };
        let code = |code| ("x-amzn-errortype", code);
        let throttled = gateways(&[code("TooManyRequestsException")]);
        assert_eq!(judged(Author::Gateway, 429, &throttled), (THROTTLING, true));
        assert_eq!(judged(Author::Gateway, 403, &gateways(&[code("ExpiredTokenException")])), (Verdict::Retry(RetryClass::Expired), true));
        assert_eq!(
            judged(Author::Gateway, 403, &gateways(&[code("InvalidSignatureException")])),
            (Verdict::Retry(RetryClass::Signature), true)
        );
        assert_eq!(judged(Author::Program, 429, &throttled), (THROTTLING, false));
        assert_eq!(judged(Author::Program, 403, &gateways(&[code("ExpiredTokenException")])), (Verdict::Deliver, false));
        let mut twice = throttled.clone();
        twice.append("x-amzn-errortype", HeaderValue::from_static("TooManyRequestsException"));
        for (why, headers) in [
            ("no gateway", with("x-amzn-errortype", "TooManyRequestsException")),
            ("traced", gateways(&[code("TooManyRequestsException"), ("x-amzn-trace-id", "Root=1-2")])),
            ("remapped", gateways(&[code("TooManyRequestsException"), ("x-amzn-remapped-date", "now")])),
            ("an HTTP API", gateways(&[code("TooManyRequestsException"), ("apigw-requestid", "3")])),
            ("twice", twice),
            ("none", gateways(&[])),
        ] {
            assert_eq!(judged(Author::Gateway, 429, &headers), (THROTTLING, false), "{why}");
            assert_eq!(judged(Author::Gateway, 403, &headers).0, Verdict::Deliver, "{why}");
            assert_eq!(judged(Author::Gateway, 503, &headers), (TRANSIENT, false), "{why}");
        }
        let none = HeaderMap::new();
        let search = Answer { author: Author::Engine, ..answer(429, &none) };
        assert_eq!(judge_body(&search, br#"{"error":{"type":"rejected_execution_exception"}}"#), THROTTLING);
        assert_eq!(judge_body(&search, b"{\n  \"took\" : 5, \"updated\": 2}"), Verdict::Deliver, "a part is done");
    }

    #[test]
    fn who_writes_answers() {
        let knowledge = Knowledge::shipped().unwrap();
        let author =
            |host: &str, service: Option<&str>| Author::of(&knowledge, crate::recognise::recognise(&knowledge, host, None), service);
        for (host, expected) in [
            ("sqs.us-east-1.amazonaws.com", Author::Aws),
            ("lambda.us-east-1.amazonaws.com", Author::Aws),
            ("appsync.us-east-1.amazonaws.com", Author::Aws),
            ("bedrock-agentcore.us-east-1.amazonaws.com", Author::Aws),
            ("b.s3.us-east-1.amazonaws.com", Author::Aws),
            ("a-1.s3-object-lambda.us-east-1.amazonaws.com", Author::Aws),
            ("a.b.us-east-1.neptune.amazonaws.com", Author::Aws),
            ("a-ats.iot.us-east-1.amazonaws.com", Author::Aws),
            ("aps-workspaces.us-east-1.amazonaws.com", Author::Aws),
            ("brand-new.us-east-1.amazonaws.com", Author::Aws),
            ("d.us-east-1.es.amazonaws.com", Author::Engine),
            ("c.us-east-1.aoss.amazonaws.com", Author::Engine),
            ("a.execute-api.us-east-1.amazonaws.com", Author::Gateway),
            ("a.lambda-url.us-east-1.on.aws", Author::Gateway),
            ("a.appsync-api.us-east-1.amazonaws.com", Author::Gateway),
            ("a.gateway.bedrock-agentcore.us-east-1.amazonaws.com", Author::Program),
            ("s.1.vpc-lattice-svcs.us-east-1.on.aws", Author::Program),
            ("g-1.grafana-workspace.us-east-1.amazonaws.com", Author::Program),
            ("lb-1.us-east-1.elb.amazonaws.com", Author::Program),
            ("example.com", Author::Program),
        ] {
            assert_eq!(author(host, None), expected, "{host}");
        }
        for (service, expected) in [
            ("s3", Author::Aws),
            ("execute-api", Author::Gateway),
            ("vpc-lattice-svcs", Author::Program),
            ("es", Author::Engine),
            ("of-our-own", Author::Program),
        ] {
            assert_eq!(author("api.example.com", Some(service)), expected, "{service}");
        }
        for row in knowledge.hosts.rows().iter().filter(|row| row.owner_reads()) {
            for scope in &row.scopes {
                assert!(AUTHORS.iter().any(|(name, _)| *name == &*scope.signing_name), "{}: who answers there?", row.pattern);
            }
        }
    }

    #[test]
    fn what_a_services_model_says_counts() {
        let knowledge = crate::knowledge::Knowledge::shipped().unwrap();
        let decrypt = knowledge.named("kms", "kms", "Decrypt").unwrap();
        let none = HeaderMap::new();
        let kms = Answer { operation: Some(decrypt), ..answer(400, &none) };
        assert_eq!(
            judge_body(&kms, br#"{"__type":"KeyUnavailableException"}"#),
            judge_body(&kms, br#"{"__type":"DependencyTimeoutException"}"#)
        );
        assert_eq!(judge_body(&kms, br#"{"__type":"InvalidCiphertextException"}"#), Verdict::Deliver);
    }

    #[test]
    fn s3_says_where_a_bucket_is_and_fails_late() {
        let here = with("x-amz-bucket-region", "eu-west-1");
        let none = HeaderMap::new();
        let s3 = |status, headers| Answer { s3: true, method: &Method::GET, ..answer(status, headers) };
        assert_eq!(judge_head(&s3(301, &here)), Verdict::Retry(RetryClass::Region));
        assert_eq!(judge_head(&answer(301, &here)), Verdict::Deliver);
        assert_eq!(judge_head(&Answer { method: &Method::HEAD, ..s3(400, &here) }), Verdict::Retry(RetryClass::Region));
        let malformed = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        assert_eq!(judge_body(&s3(400, &none), malformed), Verdict::Retry(RetryClass::Region));
        assert_eq!(region_of(&none, malformed), Some("eu-west-1"));
        assert_eq!(region_of(&here, b""), Some("eu-west-1"));
        let moved = with("location", "https://b.s3.us-west-2.amazonaws.com/k");
        assert_eq!(region_of(&moved, b""), Some("us-west-2"));
        for bad in ["<Region>EU/../x</Region>", "<Region></Region>", "<Region>"] {
            assert_eq!(region_of(&none, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn delays_grow_are_capped_and_jittered() {
        let settings = RetrySettings::default();
        let delay = |class, n, random| super::delay(&settings, None, class, n, random, None);
        assert_eq!(delay(RetryClass::Transient, 1, 0.5), Duration::from_millis(25));
        assert_eq!(delay(RetryClass::Transient, 2, 1.0), Duration::from_millis(100));
        assert_eq!(super::delay(&settings, Some("dynamodb"), RetryClass::Transient, 1, 1.0, None), Duration::from_millis(25));
        assert_eq!(delay(RetryClass::Throttling, 1, 1.0), Duration::from_secs(1));
        assert_eq!(delay(RetryClass::Throttling, 60, 1.0), Duration::from_secs(20));
        assert_eq!(delay(RetryClass::Throttling, 3, 0.0), Duration::ZERO);
        assert_eq!((attempts(&settings, None), attempts(&settings, Some("dynamodb"))), (3, 4));
    }

    #[test]
    fn what_aws_asks_for_counts_within_bounds() {
        let settings = RetrySettings::default();
        let delayed = |name, value| {
            let asked = asked_for(&with(name, value), 784_111_777);
            super::delay(&settings, None, RetryClass::Throttling, 1, 1.0, asked)
        };
        assert_eq!(delayed("x-amz-retry-after", "1500"), Duration::from_millis(1500));
        assert_eq!(delayed("x-amz-retry-after", "10"), Duration::from_secs(1), "the backoff is longer");
        assert_eq!(delayed("retry-after", "3"), Duration::from_secs(3));
        assert_eq!(delayed("retry-after", "31536000"), Duration::from_secs(6), "a year is not waited for");
        assert_eq!(delayed("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT"), Duration::from_secs(3));
        for nonsense in ["Sun, 06 Nov 1994 08:49:00 GMT", "soon", "-1", "", "1e9", "99999999999999999999999"] {
            assert_eq!(delayed("retry-after", nonsense), Duration::from_secs(1), "{nonsense}");
        }
    }
}
