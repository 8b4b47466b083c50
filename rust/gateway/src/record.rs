//! record: what we tell the operator of one exchange: for metrics, the access log and the flow. Never a secret.

use std::borrow::Cow;
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
    /// How many signatures were made.
    pub signatures: u32,
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Slug of the error that sigward answered with.
    pub error: Option<&'static str>,
    /// What sigward called the request towards its client, where it has answered itself.
    pub request_id: Option<Box<str>>,
    /// The last head sent, redacted.
    pub signed_head: Vec<(HeaderName, HeaderValue)>,
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
}
