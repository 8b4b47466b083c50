//! What sigward answers itself: an error in the shape of the protocol that the client speaks, so that its SDK can read it.
//!
//! Every refusal names a slug (`x-sigward-error`), the side at fault, the cause and how to fix it; `x-sigward-reason` has the last two, for
//! HEAD, which has no body. A call that a rule of the operator's denies gets the code that AWS has for it, which programs catch.
//! Shapes: "Smithy protocols" (awsJson, restJson1, restXml, awsQuery, ec2Query, rpcv2Cbor), error serialization.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use sigward_sigv4::Style;

use crate::admit::shown;
use crate::recognise::form::is_form;
use crate::recognise::{Call, style_of};
use crate::record::{Record, redact_text};
use crate::route::Choice;
use crate::slugs::is_known;

/// Who has to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program that sent the request.
    Client,
    /// This proxy, or its operator.
    Sigward,
    /// The service, or the way to it.
    Upstream,
}

/// Slugs of calls that a rule of the operator's does not allow. Not `forbidden-address` and `not-aws`: their host is not AWS's, and
/// "access denied" would send people to their IAM policies. Not `ambiguous-call` either: programs take a validation error for what the
/// service says of a resource (`CloudFormation`: there is no such stack), and no SDK sends such a call.
const DENIALS: &[&str] = &["customer-endpoint", "denied"];

/// Services that do not use their protocol's code for a call that is not allowed: signing name, protocol, code. Only what both a service's
/// model and reports of its answers say: SWF's model has `OperationNotPermittedFault`, and its answer is `AccessDeniedException`
/// (Netflix/asgard, issue 722).
///
/// - SNS: botocore's model, `AuthorizationErrorException` (403); nccgroup/Scout2, issue 261.
/// - Data of `IoT`: botocore's model, `ForbiddenException` (403); boto/boto3, issue 1447.
const DENIED_OTHERWISE: &[(&str, Shape, &str)] =
    &[("sns", Shape::Query, "AuthorizationError"), ("iotdata", Shape::RestJson, "ForbiddenException")];

/// Longest `x-sigward-reason`, in bytes: clients and proxies bound the size of a head.
const LONGEST_REASON: usize = 1024;

/// One error that sigward answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Machine-readable, for `x-sigward-error`.
    pub slug: &'static str,
    /// Who has to mend it.
    pub fault: Fault,
    /// The cause.
    pub message: String,
    /// The mend.
    pub hint: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The client's fault.
    pub fn client(status: u16, slug: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::of(Fault::Client, status, slug, message.into(), hint.into())
    }

    /// Sigward's or its operator's fault.
    pub fn sigward(status: u16, slug: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::of(Fault::Sigward, status, slug, message.into(), hint.into())
    }

    /// The upstream's fault.
    pub fn upstream(status: u16, slug: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::of(Fault::Upstream, status, slug, message.into(), hint.into())
    }

    fn of(fault: Fault, status: u16, slug: &'static str, message: String, hint: String) -> Self {
        debug_assert!(is_known(slug, status, fault), "{slug} ({status}, {fault:?}) is missing in slugs.rs");
        // It may quote what the client sent, and it goes into logs.
        let message = match redact_text(&message) {
            Cow::Owned(redacted) => redacted,
            Cow::Borrowed(_) => message,
        };
        Self { status, slug, fault, message, hint, retry_after: None }
    }

    /// A route denies the call. `record`: what is known of it; `host`: what it is bound for.
    pub fn denied(record: &Record, host: &str, choice: &Choice<'_>, read: Option<&Call>) -> Self {
        let route = record.route.as_deref().unwrap_or_default();
        let operation = record.operation.as_ref().map(ToString::to_string);
        let call = operation.or_else(|| record.service.as_ref().map(|service| format!("a call to {}", shown(service))));
        let resource = record.shown_resource().map(|resource| format!("on {}", shown(&resource)));
        let what = [Some(format!("route {} denies", shown(route))), call, resource, Some(format!("at {:?}", shown(host)))];
        let details = [("region", &record.region), ("client", &record.client), ("identity", &record.identity)];
        let details = details.into_iter().filter_map(|(name, value)| Some(format!(", {name} {}", shown(value.as_ref()?))));
        let mut message = format!("{}{}.", what.into_iter().flatten().collect::<Vec<_>>().join(" "), details.collect::<String>());
        // Writing to a String does not fail.
        if let Some(touched) = choice.route.zip(read).and_then(|(route, read)| route.touched(read)) {
            let _ = write!(message, " It touches {touched}.");
        }
        if let Some(unknown) = choice.unknown {
            let _ = write!(message, " It applies because this is unknown: {unknown}.");
        }
        for (skipped, unknown) in &choice.skipped {
            let _ = write!(message, " Route {} does not apply because this is unknown: {unknown}.", shown(skipped));
        }
        Self::client(403, "denied", message, "Ask the operator of this sigward to change the route.")
    }

    /// The request names its call twice, and differently. `kind`: where, for the metrics; `one`, `other`: the two readings.
    pub fn ambiguous(kind: &'static str, one: impl std::fmt::Display, other: impl std::fmt::Display) -> Self {
        Self::client(400, "ambiguous-call", format!("the request can be read in two ways ({kind}): {one}; {other}."), "Name the call once.")
    }

    /// Tells the client when to try again.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// A denied call's is AWS's own; else `no-credentials` → `NoCredentials`.
    fn code(&self, shape: Shape, service: Option<&str>) -> Cow<'static, str> {
        if DENIALS.contains(&self.slug) {
            return shape.denied(service).into();
        }
        let word = |word: &str| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        };
        self.slug.split('-').map(word).collect()
    }

    /// The cause and how to fix it, as a header can hold them: visible ASCII, what is not is escaped, at most 1 KiB.
    pub fn reason(&self) -> String {
        header_text(&format!("{} {}", self.message, self.hint))
    }

    /// The answer. `head_only`: the request was HEAD, so there is no body. `id`: what the logs call the request.
    pub fn response<'a>(&self, reader: impl Into<Reader<'a>>, head_only: bool, id: Option<&str>) -> Response<Bytes> {
        let Reader { shape, service, query_mode } = reader.into();
        let text = format!("sigward: {} {}", self.message, self.hint);
        let code = self.code(shape, service);
        let (content_type, body) = shape.body(&code, &text, self.fault, id.unwrap_or("sigward"));
        let mut response = Response::new(if head_only { Bytes::new() } else { Bytes::from(body) });
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert("x-sigward-error", HeaderValue::from_static(self.slug));
        if let Ok(reason) = HeaderValue::try_from(self.reason()) {
            headers.insert("x-sigward-reason", reason);
        }
        if let Some(id) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
            // Where SDKs look for it.
            headers.insert(if shape == Shape::S3 { "x-amz-request-id" } else { "x-amzn-requestid" }, id);
        }
        if let Some(after) = self.retry_after {
            // Whole seconds, at least one; AWS's own header has milliseconds.
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000).clamp(1, 86_400) as u64));
            headers.insert("x-amz-retry-after", HeaderValue::from(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        }
        if matches!(shape, Shape::RestJson | Shape::Json10 | Shape::Json11)
            && let Ok(code) = HeaderValue::from_str(&code)
        {
            headers.insert("x-amzn-errortype", code);
        }
        if shape == Shape::Cbor {
            headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
        }
        if query_mode && matches!(shape, Shape::Json10 | Shape::Json11 | Shape::Cbor) {
            let code = self.code(Shape::Query, service);
            if let Ok(error) = HeaderValue::try_from(format!("{code};{}", self.fault.query_type())) {
                headers.insert("x-amzn-query-error", error);
            }
        }
        response
    }
}

impl Fault {
    /// As the query protocol says it.
    fn query_type(self) -> &'static str {
        if self == Self::Client { "Sender" } else { "Receiver" }
    }
}

/// Who reads an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    /// Of its protocol.
    pub shape: Shape,
    /// The signing name of the service that it calls, as far as it is known.
    pub service: Option<&'a str>,
    /// Its service spoke the query protocol once, and it expects that protocol's codes in `x-amzn-query-error` ("AWS query compatible", Smithy).
    pub query_mode: bool,
}

impl<'a> Reader<'a> {
    /// `headers`: the request's.
    pub fn new(shape: Shape, service: Option<&'a str>, headers: Option<&HeaderMap>) -> Self {
        let query_mode = headers.and_then(|headers| headers.get("x-amzn-query-mode")).is_some_and(|mode| mode.as_bytes() == b"true");
        Self { shape, service, query_mode }
    }
}

impl From<Shape> for Reader<'_> {
    fn from(shape: Shape) -> Self {
        Self { shape, service: None, query_mode: false }
    }
}

/// The protocols' error shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `awsJson1_0`
    Json10,
    /// `awsJson1_1`
    Json11,
    /// `restJson1`
    RestJson,
    /// `awsQuery`, and `restXml` but S3
    Query,
    /// `ec2Query`
    Ec2,
    /// S3's `restXml` with `noErrorWrapping`
    S3,
    /// `rpcv2Cbor`
    Cbor,
    /// Not AWS's.
    Plain,
}

impl Shape {
    /// Reads the protocol off a request's head. `signing_name`: as far as it is known; `usual`: the only shape that the
    /// service has.
    pub fn of(method: &Method, path: &str, headers: &HeaderMap, signing_name: Option<&str>, usual: Option<Self>) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if headers.contains_key("smithy-protocol") || content_type.starts_with("application/cbor") {
            return Self::Cbor;
        }
        if content_type.starts_with("application/x-amz-json-1.0") {
            return Self::Json10;
        }
        if headers.contains_key("x-amz-target") || content_type.starts_with("application/x-amz-json-1.1") {
            return Self::Json11;
        }
        if signing_name.is_some_and(|name| style_of(name) == Style::S3) {
            return Self::S3;
        }
        if let Some(usual) = usual {
            return usual;
        }
        let form = *method == Method::POST && is_form(headers);
        let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
        if form || query.split('&').any(|pair| pair.starts_with("Action=")) {
            return Self::Query;
        }
        if signing_name.is_some() { Self::RestJson } else { Self::Plain }
    }

    /// Of services that speak one protocol alone: bits as the knowledge table's.
    pub(crate) fn only(protocols: u8) -> Option<Self> {
        Some(match protocols {
            1 => Self::Json10,
            2 => Self::Json11,
            4 => Self::RestJson,
            8 | 16 => Self::Query,
            32 => Self::Ec2,
            64 => Self::Cbor,
            _ => return None,
        })
    }

    /// AWS's code for a call that is not allowed.
    fn denied(self, service: Option<&str>) -> &'static str {
        let otherwise = DENIED_OTHERWISE.iter().find(|(name, shape, _)| Some(*name) == service && *shape == self);
        match (otherwise, self) {
            (Some((_, _, code)), _) => code,
            (None, Self::Json10 | Self::Json11 | Self::RestJson | Self::Cbor) => "AccessDeniedException",
            (None, Self::Ec2) => "UnauthorizedOperation",
            (None, Self::Query | Self::S3 | Self::Plain) => "AccessDenied",
        }
    }

    fn body(self, code: &str, text: &str, fault: Fault, id: &str) -> (&'static str, Vec<u8>) {
        let xml = escape_xml(text);
        match self {
            Self::Json10 | Self::Json11 => {
                let content_type = if self == Self::Json10 { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" };
                (content_type, serde_json::json!({"__type": format!("sigward#{code}"), "message": text}).to_string().into_bytes())
            }
            Self::RestJson => ("application/json", serde_json::json!({"code": code, "message": text}).to_string().into_bytes()),
            Self::Query => {
                let kind = fault.query_type();
                let body = format!(
                    "<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code><Message>{xml}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
                );
                ("text/xml", body.into_bytes())
            }
            Self::Ec2 => {
                let body = format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{xml}</Message></Error></Errors><RequestID>{id}</RequestID></Response>"
                );
                ("text/xml", body.into_bytes())
            }
            Self::S3 => {
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{xml}</Message><RequestId>{id}</RequestId></Error>"
                );
                ("application/xml", body.into_bytes())
            }
            Self::Cbor => ("application/cbor", cbor_map(&[("__type", &format!("sigward#{code}")), ("message", text)])),
            Self::Plain => ("text/plain; charset=utf-8", format!("{text}\n").into_bytes()),
        }
    }
}

/// A text as a header's value: visible ASCII and single blanks, the rest escaped as Rust writes it (`\u{e9}`), cut to 1 KiB.
pub fn header_text(text: &str) -> String {
    const CUT: &str = "...";
    let mut out = String::with_capacity(text.len().min(LONGEST_REASON));
    for letter in text.trim().chars() {
        let before = out.len();
        match letter {
            ' '..='~' => out.push(letter),
            other => out.extend(other.escape_default()),
        }
        if out.len() > LONGEST_REASON - CUT.len() {
            out.truncate(before);
            out.push_str(CUT);
            break;
        }
    }
    out
}

fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML 1.0 has no form for control characters.
            control if control.is_control() && !matches!(control, '\n' | '\t') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A map of text to text, fewer than 24 entries (RFC 8949, section 3).
fn cbor_map(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0xa0 | (entries.len().min(23) as u8)];
    for text in entries.iter().flat_map(|(key, value)| [key, value]) {
        match text.len() {
            length @ 0..24 => out.push(0x60 | length as u8),
            length @ 24..256 => out.extend([0x78, length as u8]),
            length @ 256..65_536 => {
                out.push(0x79);
                out.extend((length as u16).to_be_bytes());
            }
            length => {
                out.push(0x7a);
                out.extend((length as u32).to_be_bytes());
            }
        }
        out.extend(text.bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Refusal {
        Refusal::sigward(503, "no-credentials", "env: <none> & nothing", "Set them.")
    }

    fn body(shape: Shape) -> String {
        String::from_utf8_lossy(refusal().response(shape, false, Some("sigward-1")).body()).into_owned()
    }

    #[test]
    fn each_protocol_gets_its_shape() {
        assert_eq!(body(Shape::Json10), r#"{"__type":"sigward#NoCredentials","message":"sigward: env: <none> & nothing Set them."}"#);
        assert_eq!(body(Shape::RestJson), r#"{"code":"NoCredentials","message":"sigward: env: <none> & nothing Set them."}"#);
        assert!(
            body(Shape::Query).contains("<Type>Receiver</Type><Code>NoCredentials</Code><Message>sigward: env: &lt;none&gt; &amp; nothing")
        );
        assert!(body(Shape::Ec2).starts_with("<Response><Errors><Error><Code>NoCredentials</Code>"));
        assert!(body(Shape::S3).contains("\n<Error><Code>NoCredentials</Code>"));
        assert_eq!(body(Shape::Plain), "sigward: env: <none> & nothing Set them.\n");
        let cbor = refusal().response(Shape::Cbor, false, None);
        assert!(cbor.body().starts_with(b"\xa2\x66__type\x75sigward#NoCredentials\x67message\x78\x28sigward"));
    }

    #[test]
    fn slug_and_reason_are_always_there_and_head_has_no_body() {
        for shape in [Shape::Json10, Shape::Json11, Shape::RestJson, Shape::Query, Shape::Ec2, Shape::S3, Shape::Cbor, Shape::Plain] {
            let response = refusal().response(shape, true, None);
            assert_eq!(response.headers()["x-sigward-error"], "no-credentials");
            assert_eq!(response.headers()["x-sigward-reason"], "env: <none> & nothing Set them.");
            assert!(response.body().is_empty());
            assert_eq!(response.status(), 503);
        }
    }

    #[test]
    fn a_reason_is_a_header_whatever_it_says() {
        for (text, expected) in [
            ("plain.", "plain."),
            (" caf\u{e9}\r\nx-evil: 1\t\0\u{202e}\u{7f} ", "caf\\u{e9}\\r\\nx-evil: 1\\t\\u{0}\\u{202e}\\u{7f}"),
            ("", ""),
            (" \t", ""),
        ] {
            assert_eq!(header_text(text), expected);
        }
        for long in ["x", "\u{1f512}", "ab\u{e9}"] {
            let long = header_text(&long.repeat(5000));
            assert!((LONGEST_REASON - 12..=LONGEST_REASON).contains(&long.len()), "{}", long.len());
            assert!(long.ends_with("...") && long.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{long}");
            assert!(!long.contains('{') || long.ends_with("}...") || long.ends_with("b..."), "no half of an escape: {long}");
        }
        assert_eq!(header_text(&"x".repeat(LONGEST_REASON - 3)).len(), LONGEST_REASON - 3);
    }

    #[test]
    fn a_denied_call_has_awss_own_code() {
        let denied = Refusal::denied(&Record::default(), "h", &Choice::default(), None);
        let code = |shape, service: Option<&str>| denied.code(shape, service).into_owned();
        for (shape, expected) in [
            (Shape::Json10, "AccessDeniedException"),
            (Shape::Json11, "AccessDeniedException"),
            (Shape::RestJson, "AccessDeniedException"),
            (Shape::Cbor, "AccessDeniedException"),
            (Shape::Query, "AccessDenied"),
            (Shape::S3, "AccessDenied"),
            (Shape::Ec2, "UnauthorizedOperation"),
        ] {
            assert_eq!(code(shape, None), expected);
            assert_eq!(code(shape, Some("iam")), expected);
        }
        assert_eq!(code(Shape::Query, Some("sns")), "AuthorizationError");
        assert_eq!(code(Shape::RestJson, Some("iotdata")), "ForbiddenException");
        let response = denied.response(Reader { shape: Shape::Query, service: Some("sns"), query_mode: false }, false, None);
        assert!(String::from_utf8_lossy(response.body()).contains("<Type>Sender</Type><Code>AuthorizationError</Code>"));
        assert_eq!(response.headers()["x-sigward-error"], "denied");
        // What is no denial keeps its own.
        assert_eq!(Refusal::ambiguous("target", "A", "B").code(Shape::Json10, None), "AmbiguousCall");
        for slug in DENIALS {
            assert!(is_known(slug, 403, Fault::Client), "{slug}");
        }
    }

    #[test]
    fn a_client_that_expects_the_query_protocols_code_gets_it_too() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-query-mode", HeaderValue::from_static("true"));
        let denied = Refusal::denied(&Record::default(), "h", &Choice::default(), None);
        for shape in [Shape::Json10, Shape::Cbor] {
            let reader = Reader::new(shape, Some("sqs"), Some(&headers));
            assert_eq!(denied.response(reader, false, None).headers()["x-amzn-query-error"], "AccessDenied;Sender");
            assert_eq!(refusal().response(reader, false, None).headers()["x-amzn-query-error"], "NoCredentials;Receiver");
        }
        for reader in [Reader::new(Shape::Json10, Some("sqs"), None), Reader::new(Shape::S3, None, Some(&headers))] {
            assert_eq!(denied.response(reader, false, None).headers().get("x-amzn-query-error"), None);
        }
    }

    #[test]
    fn a_denied_call_is_described_as_far_as_it_is_known() {
        let mut record = Record { route: Some("no-deletes".into()), ..Record::default() };
        assert_eq!(Refusal::denied(&record, "h", &Choice::default(), None).message, "route no-deletes denies at \"h\".");
        record.service = Some("sqs".into());
        record.resource = Some("https://me:abc@queue/1?X-Amz-Signature=abc".into());
        record.region = Some("us-east-1".into());
        record.client = Some("ci".into());
        record.identity = Some("default".into());
        assert_eq!(
            Refusal::denied(&record, "h", &Choice::default(), None).message,
            "route no-deletes denies a call to sqs on https://redacted@queue/1?X-Amz-Signature=redacted at \"h\", region us-east-1, client ci, \
             identity default."
        );
    }

    #[test]
    fn no_refusal_says_a_secret() {
        let refusal = Refusal::client(400, "bad-request", "header name \"Authorization Bearer abc\" is not a token.", "Send another.");
        assert!(!refusal.reason().contains("abc"));
        let response = refusal.response(Shape::Json10, false, None);
        assert!(!format!("{response:?}").contains("abc"));
        let ambiguous = Refusal::ambiguous("query", "X-Amz-Signature=abc", "\"x?X-Amz-Security-Token=abc\"");
        assert!(!ambiguous.reason().contains("abc"), "{}", ambiguous.message);
    }

    #[test]
    fn the_protocol_is_read_off_the_head() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
        };
        let form = headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
        for (given, service, expected) in [
            (headers(&[("x-amz-target", "X.Y"), ("content-type", "application/x-amz-json-1.0")]), Some("dynamodb"), Shape::Json10),
            (headers(&[("x-amz-target", "X.Y")]), None, Shape::Json11),
            (headers(&[("smithy-protocol", "rpc-v2-cbor")]), Some("sqs"), Shape::Cbor),
            (form.clone(), Some("ec2"), Shape::Ec2),
            (form, Some("sts"), Shape::Query),
            (HeaderMap::new(), Some("s3"), Shape::S3),
            (HeaderMap::new(), Some("lambda"), Shape::RestJson),
            (HeaderMap::new(), None, Shape::Plain),
        ] {
            let usual = (service == Some("ec2")).then_some(Shape::Ec2);
            assert_eq!(Shape::of(&Method::POST, "/", &given, service, usual), expected);
        }
    }
}
