//! record: what we tell the operator of one exchange: for metrics, the access log and the flow. Never a secret.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderName, HeaderValue};

use crate::knowledge::Operation;
use crate::route::Upstream;
use crate::throttles::Throttled;

/// One try, as the record tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `200`, `503 throttled`, `connect-failed`, …
    pub outcome: Cow<'static, str>,
    /// From sending to the head of the answer.
    pub took: Duration,
    /// Waited before it.
    pub waited: Duration,
    /// When it was sent, on the clock that never goes back.
    pub began: Duration,
    /// Where to, if it was not where the last one went.
    pub upstream: Option<Arc<Upstream>>,
}

/// A wait for leave to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What for.
    pub reason: Reason,
    /// On the clock that never goes back.
    pub began: Duration,
    /// How long.
    pub took: Duration,
}

/// What a request waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its turn.
    Pace,
    /// Credentials.
    Credentials,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// Signed and forwarded.
    Sign,
    /// Forwarded as it was.
    Pass,
    /// Refused by a route.
    Deny,
    /// Refused for what it was.
    #[default]
    Refuse,
}

impl Disposition {
    /// For reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Pass => "pass",
            Self::Deny => "deny",
            Self::Refuse => "refuse",
        }
    }
}

/// How a request was signed, as it may be shown: without tokens, and with the beginning of the signature alone.
///
/// The string to sign holds a hash of the whole canonical request, token and all; it tells nothing of either, and is of no use
/// without the secret key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Step 1.
    pub canonical_request: String,
    /// Step 2.
    pub string_to_sign: String,
    /// Step 3.
    pub signature: String,
    /// Step 4: headers, or parameters of the query.
    pub added: Vec<(String, String)>,
}

impl Steps {
    /// `query`: what the signature is in, if it is in the query.
    pub(crate) fn new<'a, T>(steps: &sigward_sigv4::Steps<T>, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>, query: &[u8]) -> Self {
        let headers = headers.map(|(name, value)| (text(name), text(&redact_bytes(name, value))));
        let query = redact_query(&text(query));
        let parameters = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| name.starts_with("X-Amz-"));
        Self {
            canonical_request: redact_canonical(&text(&steps.canonical_request)),
            string_to_sign: steps.string_to_sign.clone(),
            signature: format!("{}…", steps.signature.get(..SIGNATURE_SHOWN).unwrap_or_default()),
            added: headers.chain(parameters.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect(),
        }
    }
}

/// Digits of a signature that are shown: enough to tell one from another, and no more.
const SIGNATURE_SHOWN: usize = 8;

/// An endpoint whose clock differs from ours by more than a day, as its `Date` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongClock {
    /// `host`, or `host:port`.
    pub endpoint: Box<str>,
    /// Seconds.
    pub ahead: i64,
}

impl fmt::Display for WrongClock {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, side) = (self.ahead.unsigned_abs() / 3600, if self.ahead < 0 { "behind" } else { "ahead of" });
        let Self { endpoint, .. } = self;
        write!(
            to,
            "{endpoint} rejected the time of a signature; its clock is {hours} h {side} this host's, which is too far to follow. Signatures \
             keep this host's time: set its clock right, or find what answers for {endpoint}"
        )
    }
}

/// The record of one exchange.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What became of it.
    pub disposition: Disposition,
    /// Signing name.
    pub service: Option<Arc<str>>,
    /// Which call it is, if the table tells.
    pub operation: Option<Arc<Operation>>,
    /// The rule that decided, if one did.
    pub route: Option<Arc<str>>,
    /// What the call is for, as far as the request tells; looked for if the audit log is on.
    pub resource: Option<String>,
    /// Region in the scope.
    pub region: Option<Arc<str>>,
    /// Whose credentials.
    pub identity: Option<Arc<str>>,
    /// Whose issued key signed the request.
    pub client: Option<Arc<str>>,
    /// Where the bytes went.
    pub upstream: Option<Arc<Upstream>>,
    /// In order.
    pub attempts: Vec<Attempt>,
    /// Each wait for its turn or for credentials, in order.
    pub waits: Vec<Wait>,
    /// Waited for its turn, all attempts together.
    pub paced: Duration,
    /// The rule that it waited for, or that refused it.
    pub pace_rule: Option<Arc<str>>,
    /// A repeat was not made because the endpoint's retry quota is used up.
    pub quota_empty: bool,
    /// What the operator should hear.
    pub advice: Option<Throttled>,
    /// The endpoint's clock is too far from ours to be followed.
    pub wrong_clock: Option<WrongClock>,
    /// How many signatures were made.
    pub signatures: u32,
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Slug of the error that sigward answered with.
    pub error: Option<&'static str>,
    /// The same in words, as `x-sigward-reason` has it.
    pub reason: Option<Box<str>>,
    /// Where the request names its call twice, and differently: `target`, `query`, …
    pub ambiguous: Option<&'static str>,
    /// Rules that would have refused the request for what is unknown of it (`rules.unknown = "report"`), and what that is.
    pub would_refuse: Vec<(Arc<str>, &'static str)>,
    /// What sigward called the request towards its client, where it has answered itself.
    pub request_id: Option<Box<str>>,
    /// The last head sent, redacted.
    pub signed_head: Vec<(HeaderName, HeaderValue)>,
    /// How it was signed; `None`: it was not, or nobody wants to see it (`EngineSettings::inspect`).
    pub steps: Option<Box<Steps>>,
}

impl Record {
    /// `sign dynamodb PutItem us-east-1 default: 503, 503, 200`
    pub fn summary(&self) -> String {
        let mut words: Vec<&str> = vec![self.disposition.as_str()];
        words.extend(self.service.as_deref());
        words.extend(self.operation.as_ref().map(|operation| &*operation.name));
        words.extend([&self.region, &self.identity].into_iter().filter_map(Option::as_deref));
        words.extend(self.client.as_deref().into_iter().flat_map(|client| ["for", client]));
        let mut outcomes: Vec<&str> = self.attempts.iter().map(|attempt| &*attempt.outcome).collect();
        outcomes.extend(self.error);
        format!("{}: {}", words.join(" "), outcomes.join(", "))
    }
}

/// Headers whose values are keys, tokens or signatures.
const SECRET_HEADERS: &[&str] = &[
    "x-amz-security-token",
    "x-amz-s3session-token",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-amz-bearer-token",
];

/// The value of one header as it may be shown.
pub fn redact(name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let hidden = HeaderValue::from_static("redacted");
    let marked = value.is_sensitive() && *name != AUTHORIZATION;
    if marked || SECRET_HEADERS.contains(&name.as_str()) {
        return hidden;
    }
    if *name != AUTHORIZATION {
        return value.clone();
    }
    // SigV4's Credential and SignedHeaders may be seen, and help; every other scheme is hidden whole.
    let text = value.to_str().unwrap_or_default();
    let shown = text.starts_with("AWS4-").then(|| text.rsplit_once("Signature=")).flatten();
    shown.and_then(|(before, _)| HeaderValue::from_str(&format!("{before}Signature=redacted")).ok()).unwrap_or(hidden)
}

/// The same for names and values as they came.
pub fn redact_bytes(name: &[u8], value: &[u8]) -> Vec<u8> {
    match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => redact(&name, &value).as_bytes().to_vec(),
        _ => b"redacted".to_vec(),
    }
}

/// Parameters of a query whose values are tokens or signatures, in small letters.
const SECRET_PARAMETERS: &[&str] = &["x-amz-security-token", "x-amz-s3session-token", "x-amz-signature", "signature"];

/// A query as it may be shown.
pub fn redact_query(query: &str) -> String {
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if SECRET_PARAMETERS.contains(&&*name.to_ascii_lowercase()) => format!("{name}=redacted"),
        _ => pair.to_owned(),
    };
    query.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// A canonical request as it may be shown: its third line is the query, and headers follow until an empty line.
fn redact_canonical(request: &str) -> String {
    let mut lines: Vec<String> = request.split('\n').map(ToOwned::to_owned).collect();
    if let Some(query) = lines.get_mut(2) {
        *query = redact_query(query);
    }
    for line in lines.iter_mut().skip(3).take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            *line = format!("{name}:{}", text(&redact_bytes(name.as_bytes(), value.as_bytes())));
        }
    }
    lines.join("\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A whole head as it may be shown.
pub fn redacted(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), redact(name, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &'static str, value: &'static str) -> Vec<u8> {
        redact(&HeaderName::from_static(name), &HeaderValue::from_static(value)).as_bytes().to_vec()
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            shown("authorization", "AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature=abc"),
            b"AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature=redacted"
        );
        assert!(!shown("authorization", "Bearer abc").windows(3).any(|window| window == b"abc"));
        assert!(!shown("x-amz-security-token", "abc").windows(3).any(|window| window == b"abc"));
        assert_eq!(shown("host", "abc"), b"abc");
        let mut copied = HeaderValue::from_static("Bearer abc");
        copied.set_sensitive(true);
        assert_eq!(redact(&HeaderName::from_static("x-original-authorization"), &copied), "redacted");
    }

    #[test]
    fn secrets_of_a_query_are_not_shown() {
        assert_eq!(
            redact_query("a=b&X-Amz-Signature=abc&x-amz-security-token=t%3D&Signature=s&Signature2=x&flag"),
            "a=b&X-Amz-Signature=redacted&x-amz-security-token=redacted&Signature=redacted&Signature2=x&flag"
        );
        assert_eq!(redact_query(""), "");
    }

    #[test]
    fn secrets_of_a_canonical_request_are_not_shown() {
        let request = "GET\n/\nX-Amz-Security-Token=abc&a=b\nhost:h\nx-amz-security-token:abc\n\nhost;x-amz-security-token\nhash";
        let shown = "GET\n/\nX-Amz-Security-Token=redacted&a=b\nhost:h\nx-amz-security-token:redacted\n\nhost;x-amz-security-token\nhash";
        assert_eq!(redact_canonical(request), shown);
    }
}
