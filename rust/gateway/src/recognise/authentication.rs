//! Who authenticates this request: sigward, the client itself, or nobody? Decided here and only here, from the request as it arrived,
//! before anything in it is replaced. A credential of the client's own passes untouched; what is nobody's passes without a signature.
//!
//! `Authorization` decides first. A signature of Version 4 there is for sigward to replace, whatever its key: issued keys were verified
//! before, and all others are dummies. Without that header, URL, other headers and forms are asked, each for what its service documents.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use sigward_sigv4::Style;

use super::call::{Ambiguity, Call, Part, Source, is_plain_form};
use super::form::{media_type, pairs};
use super::s3::Body;
use crate::knowledge::QUERY;

/// Who authenticates a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// It has no signature, or one to replace.
    Sigward,
    /// The client, with what it brings.
    Client(Own),
    /// What it asks for is public.
    Nobody,
    /// A form, which has not been read, may hold a signature of the client's own.
    InBody,
}

/// Where a client's own credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `Authorization`: Bearer, Basic, a bare JWT, what a Lambda authorizer expects, or Signature Version 2 with a real key.
    Authorization,
    /// Another header that authenticates there: an API key, a custom authorizer's token.
    Header,
    /// The URL: presigned by Version 2, 4 or 4a, or for CloudFront.
    Url,
    /// The body: a browser's upload to S3, Signature Version 2.
    Form,
}

impl Own {
    /// Sigward can sign in its place: what it is in is not the request itself.
    pub fn is_in_header(self) -> bool {
        matches!(self, Self::Authorization | Self::Header)
    }
}

/// What the head says, before the call is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InHead {
    /// A credential of the client's own.
    Own(Own),
    /// A signature that sigward replaces.
    Replaceable,
    /// One in the URL: Version 2 of the query protocols, with a dummy key.
    ReplaceableInUrl,
    /// Nothing.
    Nothing,
}

/// Reads the head.
pub(super) fn in_head(source: &Source<'_>) -> Result<InHead, Ambiguity> {
    let found = match authorization(source.headers) {
        // It is nothing to sigward where it signs for no service.
        Err(_) if source.service.is_none() => InHead::Own(Own::Authorization),
        found => found?,
    };
    if found == InHead::Own(Own::Authorization) {
        return Ok(found);
    }
    let in_url = in_url(source.target);
    if in_url != InHead::Nothing {
        return Ok(in_url);
    }
    if found == InHead::Nothing
        && let Some(own) = of_service(source)
    {
        return Ok(InHead::Own(own));
    }
    Ok(found)
}

/// Who authenticates a call that has been read.
pub(super) fn of_call(found: InHead, source: &Source<'_>, call: &Call) -> Authentication {
    match found {
        InHead::Own(own) => return Authentication::Client(own),
        InHead::Nothing if is_browser_upload(source, call) => return Authentication::Client(Own::Form),
        InHead::Nothing if may_be_signed_form(source) => match source.body {
            Body::Pending => return Authentication::InBody,
            Body::Whole(form) if key_of_v2(form).is_some_and(|key| is_real_key(&key)) => return Authentication::Client(Own::Form),
            Body::Whole(_) | Body::Unreadable => {}
        },
        InHead::Nothing | InHead::Replaceable | InHead::ReplaceableInUrl => {}
    }
    let unsigned = call.known_operation().is_some_and(|operation| operation.unsigned());
    if unsigned || is_public_document(source) { Authentication::Nobody } else { Authentication::Sigward }
}

/// One look at `Authorization`. Where it comes more than once, all of its values must be of the same kind.
fn authorization(headers: &HeaderMap) -> Result<InHead, Ambiguity> {
    let mut values = headers.get_all(AUTHORIZATION).iter().map(kind_of);
    let first = values.next().unwrap_or(InHead::Nothing);
    if values.any(|other| other != first) {
        return Err(Ambiguity {
            kind: "authorization",
            one: "one Authorization header is the client's own".into(),
            other: "another one is a signature to replace".into(),
        });
    }
    Ok(first)
}

fn kind_of(value: &HeaderValue) -> InHead {
    let value = value.as_bytes().trim_ascii();
    let begins = |scheme: &[u8]| value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let theirs = if value.is_empty() {
        return InHead::Nothing;
    } else if begins(b"AWS4-") {
        // IAM Roles Anywhere: signed with a certificate's key, which sigward does not have.
        begins(b"AWS4-X509-")
    } else if begins(b"AWS ") {
        // Signature Version 2 of S3: `AWS AKID:signature`.
        is_real_key(value.get(4..).and_then(|rest| rest.split(|byte| *byte == b':').next()).unwrap_or_default().trim_ascii())
    } else if begins(b"AWS3") {
        const NAME: &[u8] = b"AWSAccessKeyId=";
        let at = value.windows(NAME.len()).position(|window| window == NAME).map_or(value.len(), |at| at + NAME.len());
        is_real_key(value.get(at..).and_then(|rest| rest.split(|byte| matches!(byte, b',' | b' ')).next()).unwrap_or_default())
    } else {
        true
    };
    if theirs { InHead::Own(Own::Authorization) } else { InHead::Replaceable }
}

/// True for an access key id of AWS's own form: `AKIA`, or `ASIA` of temporary keys, and 16 characters of base 32. AWS's examples have it,
/// too. See "IAM identifiers", unique ID prefixes.
fn is_real_key(id: &[u8]) -> bool {
    let base32 = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'2'..=b'7');
    let rest = id.strip_prefix(b"AKIA").or_else(|| id.strip_prefix(b"ASIA")).unwrap_or_default();
    // `AKIAAAAAAAAAAAAAAAAA` and the like are typed by hand.
    rest.len() == 16 && rest.iter().all(base32) && rest.iter().any(|byte| Some(byte) != rest.first()) && !id.ends_with(b"EXAMPLE")
}

/// True if a request brings a signature in its query.
pub(crate) fn is_presigned(target: &str) -> bool {
    in_url(target) != InHead::Nothing
}

fn in_url(target: &str) -> InHead {
    let Some((_, query)) = target.split_once('?') else { return InHead::Nothing };
    let (mut key, mut pair, mut signature, mut of_protocol) = (None, false, false, false);
    for (name, value) in pairs(query.as_bytes()) {
        match &*name {
            b"AWSAccessKeyId" => key = Some(value),
            b"Key-Pair-Id" => pair = true,
            b"Signature" => signature = true,
            b"SignatureVersion" => of_protocol = true,
            name if name.eq_ignore_ascii_case(b"X-Amz-Signature") => return InHead::Own(Own::Url),
            _ => {}
        }
    }
    match key {
        _ if !signature => InHead::Nothing,
        // A URL that was presigned with a dummy key is somebody's mistake, and AWS says so.
        Some(key) if of_protocol && !pair && !is_real_key(&key) => InHead::ReplaceableInUrl,
        None if !pair => InHead::Nothing,
        _ => InHead::Own(Own::Url),
    }
}

/// Parameters that Version 2 adds to a request of the query protocols. See "Signature Version 2 signing process".
const OF_VERSION_2: &[&[u8]] =
    &[b"AWSAccessKeyId", b"Expires", b"SecurityToken", b"Signature", b"SignatureMethod", b"SignatureVersion", b"Timestamp"];

fn kept_pairs(text: &str) -> String {
    let is_kept = |pair: &&str| pairs(pair.as_bytes()).next().is_none_or(|(name, _)| !OF_VERSION_2.contains(&&*name));
    text.split('&').filter(is_kept).collect::<Vec<_>>().join("&")
}

/// A target without the signature of Version 2 in it.
pub(super) fn without_v2(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let kept = kept_pairs(query);
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") }
}

/// A form without a dummy key's signature of Version 2. `None`: it has none.
pub(crate) fn form_without_v2(headers: &HeaderMap, form: &[u8]) -> Option<String> {
    if !is_plain_form(headers) || key_of_v2(form).is_none_or(|key| is_real_key(&key)) {
        return None;
    }
    std::str::from_utf8(form).ok().map(kept_pairs)
}

/// What a service takes in the place of a signature, beside `Authorization`.
fn of_service(source: &Source<'_>) -> Option<Own> {
    let Source { headers, target, .. } = source;
    let service = &**source.service?;
    let asks = |wanted: &[u8]| target.split_once('?').is_some_and(|(_, query)| pairs(query.as_bytes()).any(|(name, _)| *name == *wanted));
    match service {
        // "API_KEY authorization": the header is the caller's mode, and a signature beside it would ask for another one. (API Gateway's
        // keys are for usage plans, "Choose an API key source": a method may want such a key and a signature.)
        "appsync" if source.of_customer && headers.contains_key("x-api-key") => Some(Own::Header),
        // "Building a real-time WebSocket client": what authorises a subscription is in a parameter, or in the protocol's name.
        "appsync" if source.of_customer && asks(b"header") => Some(Own::Url),
        "appsync" if source.of_customer && headers.get_all("sec-websocket-protocol").iter().any(names_authorisation) => Some(Own::Header),
        // "Inference using Anthropic Messages API": a Bedrock API key, as Anthropic's SDKs send it.
        "bedrock" | "bedrock-mantle" if headers.contains_key("x-api-key") => Some(Own::Header),
        // "Custom authentication and authorization": by HTTP and WebSocket, in headers or, for browsers, in the query.
        "iotdata" | "iotdevicegateway" => {
            const MARKS: [&str; 2] = ["x-amz-customauthorizer-name", "x-amz-customauthorizer-signature"];
            if MARKS.iter().any(|mark| headers.contains_key(*mark)) {
                return Some(Own::Header);
            }
            MARKS.iter().any(|mark| asks(mark.as_bytes())).then_some(Own::Url)
        }
        _ => None,
    }
}

/// `graphql-ws, header-ewogICJ4…`
fn names_authorisation(protocols: &HeaderValue) -> bool {
    protocols.as_bytes().split(|byte| *byte == b',').any(|protocol| protocol.trim_ascii().starts_with(b"header-"))
}

/// "Browser-Based Uploads Using POST": the form holds the policy, and no header authenticates such a request. No other operation of S3's
/// takes this type: an object of it may be uploaded, by an operation that the table knows.
fn is_browser_upload(source: &Source<'_>, call: &Call) -> bool {
    source.style == Style::S3
        && *source.method == Method::POST
        && media_type(source.headers).is_some_and(|media| media.eq_ignore_ascii_case("multipart/form-data"))
        && !matches!(call.operation, Part::Known(_))
}

/// The query protocols took Signature Version 2 as parameters, and some still do.
fn may_be_signed_form(source: &Source<'_>) -> bool {
    *source.method == Method::POST
        && is_plain_form(source.headers)
        && !source.of_customer
        && source.service.and_then(|service| source.knowledge.group(service)).is_some_and(|group| group.protocols & QUERY != 0)
}

/// The key of a form that is signed by Version 2.
fn key_of_v2(form: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (mut key, mut signature) = (None, false);
    for (name, value) in pairs(form) {
        signature |= *name == *b"Signature";
        if *name == *b"AWSAccessKeyId" {
            key = Some(value);
        }
    }
    key.filter(|_| signature)
}

/// Keys and settings that Cognito publishes of a pool, for whoever verifies its tokens. See "Verifying JSON web tokens".
fn is_public_document(source: &Source<'_>) -> bool {
    const DOCUMENTS: &[&str] = &["jwks.json", "jwks_uri", "openid-configuration"];
    let of_cognito = source.service.is_some_and(|service| matches!(&**service, "cognito-idp" | "cognito-identity"));
    if !of_cognito || !matches!(*source.method, Method::GET | Method::HEAD) {
        return false;
    }
    let path = source.target.split('?').next().unwrap_or_default();
    let Some((pool, document)) = path.split_once("/.well-known/") else { return false };
    DOCUMENTS.contains(&document) && pool.matches('/').count() <= 1 && !pool.contains('%')
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;

    fn who(sample: &Sample<'_>) -> String {
        match sample.call() {
            Ok(call) => match call.authentication {
                Authentication::Client(own) => format!("{own:?}"),
                other => format!("{other:?}"),
            },
            Err(ambiguity) => ambiguity.kind.into(),
        }
    }

    const REAL: &str = "AKIAQYLPMN5HHHFPZAM2";

    #[test]
    fn what_authorization_says() {
        let real = format!("AWS {REAL}:c2ln");
        let route53 = format!("AWS3-HTTPS AWSAccessKeyId={REAL},Algorithm=HmacSHA256,Signature=c2ln");
        for (value, expected) in [
            ("AWS4-HMAC-SHA256 Credential=dummy/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0", "Sigward"),
            ("aws4-hmac-sha256 Credential=x", "Sigward"),
            ("AWS4-ECDSA-P256-SHA256 Credential=x", "Sigward"),
            ("AWS4-X509-RSA-SHA256 Credential=1234/20260101/us-east-1/rolesanywhere/aws4_request", "Authorization"),
            ("AWS4-X509-ECDSA-SHA256 Credential=x", "Authorization"),
            ("", "Sigward"),
            ("Bearer abc", "Authorization"),
            ("bearer abc", "Authorization"),
            ("Basic Og==", "Authorization"),
            ("eyJhbGciOiJub25lIn0.e30.", "Authorization"),
            ("allow", "Authorization"),
            ("Digest username=\"u\"", "Authorization"),
            ("AWSome", "Authorization"),
            (&real, "Authorization"),
            ("AWS dummy:c2ln", "Sigward"),
            ("AWS AKIAIOSFODNN7EXAMPLE:c2ln", "Sigward"),
            ("AWS AKIAAAAAAAAAAAAAAAAA:c2ln", "Sigward"),
            ("AWS SGWD0123456789ABCDEF:c2ln", "Sigward"),
            ("AWS SIGWARDDUMMYKEYID000:c2ln", "Sigward"),
            ("AWS minioadmin:c2ln", "Sigward"),
            (&route53, "Authorization"),
            ("AWS3-HTTPS AWSAccessKeyId=dummy,Algorithm=HmacSHA256,Signature=c2ln", "Sigward"),
        ] {
            let headers = [("authorization", value)];
            assert_eq!(who(&Sample { service: Some("sqs"), headers: &headers, ..Sample::default() }), expected, "{value}");
        }
        let twice = |one, other| {
            who(&Sample { service: Some("sqs"), headers: &[("authorization", one), ("authorization", other)], ..Sample::default() })
        };
        assert_eq!(twice("AWS4-HMAC-SHA256 Credential=x", "Bearer x"), "authorization");
        assert_eq!(twice("Bearer x", "AWS4-HMAC-SHA256 Credential=x"), "authorization");
        assert_eq!(twice("Bearer x", "Basic y"), "Authorization");
        assert_eq!(twice("AWS4-HMAC-SHA256 Credential=x", "AWS dummy:x"), "Sigward");
    }

    #[test]
    fn what_a_url_says() {
        for (target, expected) in [
            ("/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab", "Url"),
            ("/k?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&x-amz-signature=ab", "Url"),
            ("/k?AWSAccessKeyId=A&Signature=b&Expires=1", "Url"),
            ("/k?Signature=b&Key-Pair-Id=c", "Url"),
            ("/k?Signature=b", "Sigward"),
            ("/k", "Sigward"),
            ("/k?X-Amz-%53ignature=ab", "Url"),
            ("/?Action=A&AWSAccessKeyId=AKIAQYLPMN5HHHFPZAM2&SignatureVersion=2&Signature=b", "Url"),
            ("/?Action=A&AWSAccessKeyId=dummy&SignatureVersion=2&Signature=b", "Sigward"),
            ("/X-Amz-Signature=1", "Sigward"),
        ] {
            assert_eq!(who(&Sample { target, ..Sample::default() }), expected, "{target}");
        }
    }

    #[test]
    fn a_dummy_signature_of_version_2_is_taken_out() {
        let sample = |target| Sample { service: Some("sqs"), host: "sqs.us-east-1.amazonaws.com", target, ..Sample::default() };
        for (target, expected) in [
            (
                "/?AWSAccessKeyId=dummy&Action=ListQueues&Signature=b&SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp=t",
                "/?Action=ListQueues",
            ),
            ("/1/q?AWSAccessKeyId=dummy&Signatur%65=b&SignatureVersion=2", "/1/q"),
            ("/?AWSAccessKeyId=dummy&Expires=1&Signature=b", "/?AWSAccessKeyId=dummy&Expires=1&Signature=b"),
        ] {
            assert_eq!(sample(target).call().unwrap().target, expected);
        }
        let headers =
            [("content-type".parse().unwrap(), HeaderValue::from_static("application/x-www-form-urlencoded"))].into_iter().collect();
        for (form, expected) in [
            ("Action=A&AWSAccessKeyId=dummy&Signature=b&x=%20", Some("Action=A&x=%20")),
            ("Action=A&AWSAccessKeyId=AKIAQYLPMN5HHHFPZAM2&Signature=b", None),
            ("Action=A&AWSAccessKeyId=dummy", None),
        ] {
            assert_eq!(form_without_v2(&headers, form.as_bytes()).as_deref(), expected);
        }
        assert_eq!(form_without_v2(&HeaderMap::new(), b"AWSAccessKeyId=dummy&Signature=b"), None);
    }

    #[test]
    fn what_a_form_says() {
        let upload = [("content-type", "multipart/form-data; boundary=x")];
        let own = "b.s3.us-east-1.amazonaws.com";
        for (service, host, method, target, expected) in [
            ("s3", own, "POST", "/", "Form"),
            ("s3", "s3.us-east-1.amazonaws.com", "POST", "/b", "Form"),
            ("s3", own, "PUT", "/k", "Sigward"),
            ("s3", own, "POST", "/k?uploads", "Sigward"),
            ("sqs", "sqs.us-east-1.amazonaws.com", "POST", "/", "Sigward"),
        ] {
            let sample =
                Sample { service: Some(service), host, method, target, headers: &upload, body: Body::Pending, ..Sample::default() };
            assert_eq!(who(&sample), expected, "{service} {method} {target}");
        }
        let signed = format!("Action=ListQueues&AWSAccessKeyId={REAL}&SignatureVersion=2&Signature=c2ln");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for (body, expected) in [
            (Body::Pending, "InBody"),
            (Body::Unreadable, "Sigward"),
            (Body::Whole(signed.as_bytes()), "Form"),
            (Body::Whole(b"Action=ListQueues&AWSAccessKeyId=dummy&Signature=c2ln"), "Sigward"),
            (Body::Whole(b"Action=ListQueues"), "Sigward"),
        ] {
            let sample = Sample {
                service: Some("sqs"),
                host: "sqs.us-east-1.amazonaws.com",
                method: "POST",
                headers: &form,
                body,
                ..Sample::default()
            };
            assert_eq!(who(&sample), expected, "{body:?}");
            let dummy = [form[0], ("authorization", "AWS4-HMAC-SHA256 Credential=x")];
            assert_eq!(who(&Sample { headers: &dummy, ..sample }), "Sigward", "{body:?}");
        }
    }

    #[test]
    fn what_a_service_takes() {
        let key: &[(&str, &str)] = &[("x-api-key", "da2-abc")];
        let authorizer: &[(&str, &str)] = &[("x-amz-customauthorizer-name", "mine")];
        let protocol: &[(&str, &str)] = &[("sec-websocket-protocol", "graphql-ws, header-e30")];
        let of_customer = |service, target, headers| Sample { service: Some(service), target, headers, ..Sample::default() };
        for (sample, expected) in [
            (of_customer("bedrock-mantle", "/anthropic/v1/messages", key), "Header"),
            (of_customer("execute-api", "/", key), "Sigward"),
            (of_customer("appsync", "/v1/apis", key), "Sigward"),
            (of_customer("iotdata", "/topics/t", authorizer), "Header"),
            (of_customer("iotdata", "/topics/t?x-amz-customauthorizer-signature=x&token=y", &[]), "Url"),
            (of_customer("iotdata", "/topics/t", &[]), "Sigward"),
            (of_customer("s3", "/k", authorizer), "Sigward"),
        ] {
            assert_eq!(who(&sample), expected, "{:?} {}", sample.service, sample.target);
        }
        for (target, headers, expected) in [
            ("/graphql", key, "Header"),
            ("/graphql", &[][..], "Sigward"),
            ("/graphql?header=e30&payload=e30", &[], "Url"),
            ("/graphql", protocol, "Header"),
        ] {
            let sample = Sample { service: Some("appsync"), target, headers, ..Sample::default() };
            assert_eq!(who(&Sample { of_customer: true, ..sample }), expected, "{target} {headers:?}");
        }
    }

    #[test]
    fn what_is_public() {
        let idp = "cognito-idp.us-east-1.amazonaws.com";
        for (service, method, target, expected) in [
            ("cognito-idp", "GET", "/us-east-1_abc/.well-known/jwks.json", "Nobody"),
            ("cognito-idp", "HEAD", "/us-east-1_abc/.well-known/openid-configuration", "Nobody"),
            ("cognito-identity", "GET", "/.well-known/openid-configuration", "Nobody"),
            ("cognito-idp", "POST", "/us-east-1_abc/.well-known/jwks.json", "Sigward"),
            ("cognito-idp", "GET", "/a/b/.well-known/jwks.json", "Sigward"),
            ("cognito-idp", "GET", "/us-east-1_abc/.well-known/other", "Sigward"),
            ("sqs", "GET", "/us-east-1_abc/.well-known/jwks.json", "Sigward"),
            ("sts", "POST", "/?Action=AssumeRoleWithWebIdentity&Version=2011-06-15", "Nobody"),
            ("sts", "POST", "/?Action=GetCallerIdentity&Version=2011-06-15", "Sigward"),
        ] {
            let sample = Sample { service: Some(service), host: idp, method, target, ..Sample::default() };
            assert_eq!(who(&sample), expected, "{method} {target}");
        }
    }
}
