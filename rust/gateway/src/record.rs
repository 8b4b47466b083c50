//! record: what we tell the operator of one exchange: for metrics, the access log and the flow. Never a secret.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderName, HeaderValue};
use sigward_sigv4::wire::percent_decoded;

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

/// Why a request was forwarded as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It brings a credential of its own.
    OwnAuthorization,
    /// What it asks for takes no signature.
    Public,
    /// A route says so.
    Route,
    /// Its host is not AWS's, or takes no signature of `SigV4`.
    Host,
}

impl Passed {
    /// For reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnAuthorization => "own-authorization",
            Self::Public => "public",
            Self::Route => "route",
            Self::Host => "unsigned-host",
        }
    }
}

/// An endpoint that refused a credential of a client's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedOwn {
    /// `host`, or `host:port`.
    pub endpoint: Box<str>,
    /// 401 or 403.
    pub status: u16,
}

impl fmt::Display for RefusedOwn {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, status } = self;
        write!(
            to,
            "{endpoint} answered {status} to a request with the client's own Authorization header, which sigward passes on without signing. \
             If sigward should sign in its place, set authorization = \"replace\" in a [[route]] for that host"
        )
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
    /// `query`: what the signature is in, if it is in the query. `sent`: the request's headers; those marked as sensitive are hidden.
    pub(crate) fn new<'a, T>(
        steps: &sigward_sigv4::Steps<T>,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        query: &[u8],
        sent: &HeaderMap,
    ) -> Self {
        let headers = headers.map(|(name, value)| (text(name), text(&redact_bytes(name, value))));
        let query = redact_query(&text(query));
        let parameters = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| name.starts_with("X-Amz-"));
        Self {
            canonical_request: redact_canonical(&text(&steps.canonical_request), sent),
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

/// A host that may be a service's of AWS's, and that the table does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownHost {
    /// Lower-case.
    pub host: Arc<str>,
    /// Requests for it go on unsigned, rather than being refused.
    pub passes: bool,
}

impl fmt::Display for UnknownHost {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, passes } = self;
        let what = if *passes { "pass unsigned" } else { "are refused" };
        write!(
            to,
            "{host} is not in the table of AWS's hosts: requests to it {what}. To sign them, add a [[route]] with host = {host:?} and \
             service = its signing name, or make a newer table with `sigward knowledge refresh`"
        )
    }
}

/// The record of one exchange.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What became of it.
    pub disposition: Disposition,
    /// Why it passed, if it did.
    pub passed: Option<Passed>,
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
    /// The endpoint refused what the client authenticates itself with; told once of each.
    pub refused_own: Option<RefusedOwn>,
    /// A host that the table does not have, the first time.
    pub unknown_host: Option<UnknownHost>,
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
    /// Why sigward answered itself, in words; else why the request passed unsigned.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref().or_else(|| self.passed.map(Passed::as_str))
    }

    /// What the call is for, as it may be shown.
    pub fn shown_resource(&self) -> Option<Cow<'_, str>> {
        self.resource.as_deref().map(redact_resource)
    }

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
    "x-amz-customauthorizer-signature",
    "x-amz-sso_bearer_token",
    "x-api-key",
];

/// Where `IoT`'s custom authorizers look, as AWS's own examples name it.
const TOKEN: &str = "token";

/// The value of one header as it may be shown.
pub fn redact(name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let hidden = HeaderValue::from_static("redacted");
    let marked = value.is_sensitive() && *name != AUTHORIZATION;
    if marked || *name == *TOKEN || SECRET_HEADERS.contains(&name.as_str()) {
        return hidden;
    }
    if *name == SEC_WEBSOCKET_PROTOCOL {
        return without_authorization(value);
    }
    if *name != AUTHORIZATION {
        return value.clone();
    }
    // SigV4's Credential and SignedHeaders may be seen, and help; every other scheme is hidden whole.
    let text = value.to_str().unwrap_or_default();
    let shown = text.starts_with("AWS4-").then(|| text.split_once("Signature=")).flatten();
    shown.and_then(|(before, _)| HeaderValue::from_str(&format!("{before}Signature=redacted")).ok()).unwrap_or(hidden)
}

/// `AppSync`'s subscriptions bring their credential as a protocol, `header-` and base 64.
fn without_authorization(protocols: &HeaderValue) -> HeaderValue {
    let hide = |protocol: &str| match protocol.trim_start().get(..7) {
        Some(start) if start.eq_ignore_ascii_case("header-") => " header-redacted".to_owned(),
        _ => protocol.to_owned(),
    };
    let shown = text(protocols.as_bytes()).split(',').map(hide).collect::<Vec<_>>().join(",");
    HeaderValue::from_str(shown.trim_start()).unwrap_or_else(|_| HeaderValue::from_static("redacted"))
}

/// The same for names and values as they came.
pub fn redact_bytes(name: &[u8], value: &[u8]) -> Vec<u8> {
    match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => redact(&name, &value).as_bytes().to_vec(),
        _ => b"redacted".to_vec(),
    }
}

/// Parameters of a query whose values are tokens or signatures, in small letters.
const SECRET_PARAMETERS: &[&str] = &[
    "x-amz-security-token",
    "x-amz-s3session-token",
    "x-amz-signature",
    "signature",
    "securitytoken",
    "x-amz-customauthorizer-signature",
    TOKEN,
];

/// What names `IoT`'s custom authorizer, whose token is in a parameter of any name.
const OF_AUTHORIZER: &str = "x-amz-customauthorizer-name";

/// The parameter that `AppSync` reads a subscription's credential from.
const OF_SUBSCRIPTION: &str = "header";

/// A query as it may be shown.
pub fn redact_query(query: &str) -> String {
    let plain = |name: &str| text(&percent_decoded(name.as_bytes())).to_ascii_lowercase();
    let is_for_authorizer = query.split('&').any(|pair| plain(pair.split('=').next().unwrap_or_default()) == OF_AUTHORIZER);
    let hides = |name: &str| name == OF_SUBSCRIPTION || SECRET_PARAMETERS.contains(&name) || (is_for_authorizer && name != OF_AUTHORIZER);
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if hides(&plain(name)) => format!("{name}=redacted"),
        _ => pair.to_owned(),
    };
    query.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// A text that may quote what a client sent, as it may be shown: without the values of secret parameters and headers, the tokens of
/// `Authorization`, and a URL's user and password.
pub fn redact_text(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let mut secrets = Vec::new();
    for header in SECRET_HEADERS {
        find_values(&lower, header, &["=", "%3d", ": ", ":"], &mut secrets);
    }
    for scheme in ["bearer", "basic"] {
        find_values(&lower, scheme, &[" "], &mut secrets);
    }
    find_parameters(&lower, &mut secrets);
    find_passwords(&lower, &mut secrets);
    without(text, secrets)
}

/// The name of a resource as it may be shown: a part of a path or a body that the client wrote.
fn redact_resource(resource: &str) -> Cow<'_, str> {
    let lower = resource.to_ascii_lowercase();
    let mut secrets = Vec::new();
    find_parameters(&lower, &mut secrets);
    without(resource, secrets)
}

/// Where parameters' values and URLs' users are. `lower`: in small letters.
fn find_parameters(lower: &str, secrets: &mut Vec<Range<usize>>) {
    for parameter in SECRET_PARAMETERS {
        find_values(lower, parameter, &["=", "%3d"], secrets);
    }
    for (at, mark) in lower.match_indices("://") {
        let begins = at + mark.len();
        let authority = lower.get(begins..).and_then(|rest| rest.split(['/', '?', '#', ' ', '"']).next()).unwrap_or_default();
        secrets.extend(authority.rfind('@').map(|end| begins..begins + end));
    }
}

/// Where a user and a password stand before a host that is not a URL's: `"me:secret@host"`.
fn find_passwords(lower: &str, secrets: &mut Vec<Range<usize>>) {
    let mut from = 0;
    for (at, _) in lower.match_indices('@') {
        let word = lower.get(from..at).and_then(|before| before.rsplit([' ', '"', '\'', '/', '(', '=', ',']).next()).unwrap_or_default();
        if word.contains(':') {
            secrets.push(at - word.len()..at);
        }
        from = at + 1;
    }
}

/// Where what follows a name and one of the separators is. The name is a word of its own: a path may have `/signature=1/`.
fn find_values(lower: &str, name: &str, separators: &[&str], secrets: &mut Vec<Range<usize>>) {
    const ENDS: &[char] = &['&', ' ', '"', '\'', ',', ';', ')', '<', '>', '\\', '\r', '\n'];
    let mut done = 0;
    for (at, _) in lower.match_indices(name) {
        let (before, after) = lower.split_at_checked(at).unwrap_or_default();
        let after = after.get(name.len()..).unwrap_or_default();
        // An encoded `&` or `?` ends with a digit or a letter.
        let escaped = before
            .as_bytes()
            .last_chunk::<3>()
            .is_some_and(|[mark, high, low]| *mark == b'%' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        if at < done || (!escaped && before.ends_with(|letter: char| letter == '-' || letter == '/' || letter.is_alphanumeric())) {
            continue;
        }
        let Some(separator) = separators.iter().find(|separator| after.starts_with(**separator)) else { continue };
        let begins = at + name.len() + separator.len();
        let value = lower.get(begins..).unwrap_or_default();
        done = begins + value.find(ENDS).unwrap_or(value.len());
        if done > begins {
            secrets.push(begins..done);
        }
    }
}

/// Small letters and ASCII's capitals are as long as each other: places in one are places in the other.
fn without(text: &str, mut secrets: Vec<Range<usize>>) -> Cow<'_, str> {
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    secrets.sort_by_key(|secret| secret.start);
    let (mut shown, mut from) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        if secret.start >= from {
            shown.push_str(text.get(from..secret.start).unwrap_or_default());
            shown.push_str("redacted");
        }
        from = from.max(secret.end);
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(shown)
}

/// A canonical request as it may be shown: its third line is the query, and headers follow until an empty line.
fn redact_canonical(request: &str, sent: &HeaderMap) -> String {
    let mut lines: Vec<String> = request.split('\n').map(ToOwned::to_owned).collect();
    if let Some(query) = lines.get_mut(2) {
        *query = redact_query(query);
    }
    for line in lines.iter_mut().skip(3).take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            let is_marked = *name != *AUTHORIZATION.as_str() && sent.get_all(name).iter().any(HeaderValue::is_sensitive);
            let value = if is_marked { "redacted".into() } else { text(&redact_bytes(name.as_bytes(), value.as_bytes())) };
            *line = format!("{name}:{value}");
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
        assert_eq!(shown("token", "abc"), b"redacted");
        assert_eq!(shown("authorization", "AWS4-HMAC-SHA256 Signature=abc, X=Signature=d"), b"AWS4-HMAC-SHA256 Signature=redacted");
        assert_eq!(shown("sec-websocket-protocol", "graphql-ws, header-eyJ9,header-x"), b"graphql-ws, header-redacted, header-redacted");
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
        assert_eq!(
            redact_query("X-Amz-%53ignature=abc&X-Amz-Security-Toke%6e=t&h%65ader=s&SecurityToken=t&a=b"),
            "X-Amz-%53ignature=redacted&X-Amz-Security-Toke%6e=redacted&h%65ader=redacted&SecurityToken=redacted&a=b"
        );
        // A custom authorizer's token has any name.
        assert_eq!(redact_query("x-amz-customauthorizer-name=mine&mine=t"), "x-amz-customauthorizer-name=mine&mine=redacted");
    }

    #[test]
    fn secrets_in_words_are_not_shown() {
        for (text, shown) in [
            ("the target \"A.B?X-Amz-Signature=abc&x=1\"", "the target \"A.B?X-Amz-Signature=redacted&x=1\""),
            ("x-amz-security-token=abc%3D, and so on", "x-amz-security-token=redacted, and so on"),
            ("X-Amz-Security-Token%3Dabc", "X-Amz-Security-Token%3Dredacted"),
            ("/k%3FX-Amz-Signature%3Dabc", "/k%3FX-Amz-Signature%3Dredacted"),
            ("header name \"Authorization Bearer abc\" is", "header name \"Authorization Bearer redacted\" is"),
            ("header name \"X-Amz-Security-Token: abc\"", "header name \"X-Amz-Security-Token: redacted\""),
            ("AWS4-HMAC-SHA256 SignedHeaders=host, Signature=abc", "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=redacted"),
            ("https://me:abc@queue/1 or HTTP://me:abc@", "https://redacted@queue/1 or HTTP://redacted@"),
            ("\"me:abc@h\" port 1, and me@h", "\"redacted@h\" port 1, and me@h"),
            ("Signature=abc", "Signature=redacted"),
            ("é&signature=abcé&é", "é&signature=redacted&é"),
            // What only looks like it.
            ("client \"ci\": the signature: it is wrong", "client \"ci\": the signature: it is wrong"),
            ("signature= and no more", "signature= and no more"),
            ("a basically plain text at http://h/@", "a basically plain text at http://h/@"),
        ] {
            assert_eq!(redact_text(text), shown);
        }
        let long = "signature=".repeat(10_000);
        assert_eq!(redact_text(&long), "signature=redacted");
    }

    #[test]
    fn a_resource_is_shown_as_it_is_but_for_secrets() {
        for (resource, shown) in [
            ("arn:aws:s3:::b/signature=1/cookie:x/basic plan", "arn:aws:s3:::b/signature=1/cookie:x/basic plan"),
            ("arn:aws:s3:::b/k?X-Amz-Signature=abc&y", "arn:aws:s3:::b/k?X-Amz-Signature=redacted&y"),
            ("https://me:abc@sqs.us-east-1.amazonaws.com/1/q", "https://redacted@sqs.us-east-1.amazonaws.com/1/q"),
        ] {
            let record = Record { resource: Some(resource.to_owned()), ..Record::default() };
            assert_eq!(record.shown_resource().as_deref(), Some(shown));
        }
        assert_eq!(Record::default().shown_resource(), None);
    }

    #[test]
    fn secrets_of_a_canonical_request_are_not_shown() {
        let request = "GET\n/\nX-Amz-Security-Token=abc&a=b\nhost:h\nx-amz-security-token:abc\n\nhost;x-amz-security-token\nhash";
        let shown = "GET\n/\nX-Amz-Security-Token=redacted&a=b\nhost:h\nx-amz-security-token:redacted\n\nhost;x-amz-security-token\nhash";
        assert_eq!(redact_canonical(request, &HeaderMap::new()), shown);
    }
}
