//! judge: deliver this answer, or try again, and after how long?
//!
//! Retried are connection errors, 500, 502, 503, 504 and throttling; never another 4xx. Delays follow the AWS SDKs' standard
//! mode: full-jitter exponential, `random() · min(scale · 2^(n−1), cap)`.
//! See the AWS SDKs and Tools Reference Guide, "Retry behavior".

use std::time::Duration;

use http::header::HeaderMap;

use crate::settings::RetrySettings;

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

/// A signature that is wrong for its time is wrong by more than this: AWS takes 5 minutes. Seconds.
pub const SKEW_LIMIT: u64 = 240;

/// How much of an error body is read for its code, bytes.
pub const CODE_PREFIX: usize = 16 << 10;

/// Judges a response by its head.
pub fn judge_head(status: u16, headers: &HeaderMap) -> Verdict {
    match (status, code_in_headers(headers)) {
        (429 | 509, _) => Verdict::Retry(RetryClass::Throttling),
        (400.., Some(code)) if class_of_code(code).is_some() => class_of_code(code).map_or(Verdict::Deliver, Verdict::Retry),
        // 503 is retried in any case; the code tells SlowDown from a failure.
        (400 | 403 | 503, None) => Verdict::ReadCode,
        (500 | 502 | 503 | 504, _) => Verdict::Retry(RetryClass::Transient),
        _ => Verdict::Deliver,
    }
}

/// Judges a response whose body had to be looked at.
pub fn judge_body(status: u16, prefix: &[u8]) -> Verdict {
    match code_in_body(prefix).and_then(class_of_code) {
        Some(class) => Verdict::Retry(class),
        None if status >= 500 => Verdict::Retry(RetryClass::Transient),
        None => Verdict::Deliver,
    }
}

fn class_of_code(code: &str) -> Option<RetryClass> {
    let classes = [
        (THROTTLING_CODES, RetryClass::Throttling),
        (TRANSIENT_CODES, RetryClass::Transient),
        (EXPIRED_CODES, RetryClass::Expired),
        (SKEW_CODES, RetryClass::Skew),
        (SIGNATURE_CODES, RetryClass::Signature),
    ];
    classes.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, class)| *class)
}

/// `x-amzn-errortype: com.amazon#Code:http://…` and `x-amzn-query-error: Code;Sender`.
fn code_in_headers(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("x-amzn-errortype").or_else(|| headers.get("x-amzn-query-error"))?;
    Some(bare_code(value.to_str().ok()?))
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

/// The wait before retry `n` (1 for the first). `random`: uniform in 0 ≤ random < 1.
pub fn delay(settings: &RetrySettings, class: RetryClass, n: u32, random: f64) -> Duration {
    let scale = match class {
        RetryClass::Transient => settings.base,
        RetryClass::Throttling => settings.throttle_base,
        RetryClass::Expired | RetryClass::Skew | RetryClass::Signature => return Duration::ZERO,
    };
    let grown = scale.saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX));
    grown.min(settings.cap).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn heads() {
        let none = HeaderMap::new();
        for status in [200, 204, 301, 404, 409, 412, 501, 505] {
            assert_eq!(judge_head(status, &none), Verdict::Deliver, "{status}");
        }
        for status in [500, 502, 504] {
            assert_eq!(judge_head(status, &none), Verdict::Retry(RetryClass::Transient), "{status}");
        }
        assert_eq!(judge_head(429, &none), Verdict::Retry(RetryClass::Throttling));
        assert_eq!(judge_head(400, &none), Verdict::ReadCode);
        assert_eq!(judge_head(503, &none), Verdict::ReadCode);
        let throttled = with("x-amzn-errortype", "com.amazonaws.lambda#TooManyRequestsException:http://x");
        assert_eq!(judge_head(400, &throttled), Verdict::Retry(RetryClass::Throttling));
        assert_eq!(judge_head(200, &throttled), Verdict::Deliver);
        assert_eq!(judge_head(400, &with("x-amzn-errortype", "ValidationException")), Verdict::Deliver);
        assert_eq!(judge_head(503, &with("x-amzn-errortype", "InternalFailure")), Verdict::Retry(RetryClass::Transient));
    }

    #[test]
    fn bodies_of_every_protocol() {
        let throttling = Verdict::Retry(RetryClass::Throttling);
        for body in [
            &br#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"x"}"#[..],
            br#"{ "code" : "ThrottlingException" }"#,
            b"<Response><Errors><Error><Code>RequestLimitExceeded</Code>",
            b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce</Message></Error>",
            b"\xa1\x66__type\x78\x1ccom.amazonaws#SlowDownNotQui",
            b"\xa1\x66__type\x69Throttled",
        ] {
            let expected = if body.starts_with(b"\xa1") { Verdict::Deliver } else { throttling };
            assert_eq!(judge_body(400, body), expected, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(judge_body(400, b"\xa1\x66__type\x73ThrottlingException"), throttling);
        assert_eq!(judge_body(400, b"<Error><Code>AccessDenied</Code></Error>"), Verdict::Deliver);
        assert_eq!(judge_body(400, b"<Error><Code>RequestTimeout</Code>"), Verdict::Retry(RetryClass::Transient));
        assert_eq!(judge_body(503, b"oops"), Verdict::Retry(RetryClass::Transient));
        assert_eq!(judge_body(503, b"<Code>SlowDown</Code>"), throttling);
        assert_eq!(judge_body(403, b"<Code>ExpiredToken</Code>"), Verdict::Retry(RetryClass::Expired));
        assert_eq!(judge_body(403, b"<Code>RequestTimeTooSkewed</Code>"), Verdict::Retry(RetryClass::Skew));
        assert_eq!(judge_body(400, br#"{"__type":"InvalidSignatureException"}"#), Verdict::Retry(RetryClass::Signature));
        for body in [&b""[..], b"__type", b"__type\"", b"__type\":\"", b"<Code>", b"__type\x78", b"__type\x78\xff", b"__type\x77ab"] {
            assert_eq!(judge_body(400, body), Verdict::Deliver);
        }
    }

    #[test]
    fn delays_grow_are_capped_and_jittered() {
        let settings = RetrySettings::default();
        assert_eq!(delay(&settings, RetryClass::Transient, 1, 0.5), Duration::from_millis(25));
        assert_eq!(delay(&settings, RetryClass::Transient, 2, 1.0), Duration::from_millis(100));
        assert_eq!(delay(&settings, RetryClass::Throttling, 1, 1.0), Duration::from_secs(1));
        assert_eq!(delay(&settings, RetryClass::Throttling, 60, 1.0), Duration::from_secs(20));
        assert_eq!(delay(&settings, RetryClass::Throttling, 3, 0.0), Duration::ZERO);
    }
}
