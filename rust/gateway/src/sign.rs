//! sign: the head that goes upstream, and the signature over it.
//!
//! The order matters: first everything that the client sent and that may go on is in place, then whatever it sent of a
//! signature is taken out, then the head is signed whole, so that no `x-amz-*` header goes out unsigned.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, TRAILER};
use http::{HeaderName, HeaderValue};
use sigward_sigv4::wire::percent_decoded;
use sigward_sigv4::{
    Credentials, Options, Payload, Request, Scope, SessionToken, SignError, Signed, Style, Variant, presign_steps, sign_with, steps_with,
};
use smallvec::SmallVec;

use crate::admit::{BodySize, RequestHead, Target};
use crate::recognise::Hint;
use crate::record::Steps;
use crate::route::SigningForm;
use crate::settings::{PayloadMode, SignaturePlace, SignatureVariant, TokenPlace};

pub(crate) const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const S3_SESSION_TOKEN: HeaderName = HeaderName::from_static("x-amz-s3session-token");
const REGION_SET: HeaderName = HeaderName::from_static("x-amz-region-set");

/// What the signature says of the body, when all is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyHash<'a> {
    /// sigward has read it all.
    Digest([u8; 32]),
    /// The value of `x-amz-content-sha256`.
    Given(&'a [u8]),
}

/// With what, for what, and how.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) scope: Scope<'a>,
    pub(crate) options: Options,
    /// Headers that a route leaves unsigned.
    pub(crate) unsigned: &'a [HeaderName],
    pub(crate) unix_seconds: u64,
    /// The steps are to be shown.
    pub(crate) shown: bool,
}

/// A signature, and how it was made if that is to be shown.
pub(crate) struct Made<T> {
    pub(crate) signed: T,
    pub(crate) steps: Option<Box<Steps>>,
}

/// A presigned request of ours is sent at once; Transcribe grants no more than this, in seconds.
const EXPIRES: u64 = 300;

/// The scope that a client's own signature is for: `Credential=AKID/20260101/us-east-1/sqs/aws4_request`.
pub(crate) fn scope_of(headers: &HeaderMap) -> Option<Hint<'_>> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("AWS4-"))?;
    let credential = text.split_once("Credential=")?.1.split([',', ' ']).next()?;
    let mut parts = credential.rsplit('/').skip(1);
    let (signing_name, region) = (parts.next()?, parts.next()?);
    Some(Hint { signing_name, region })
}

/// Takes out what a client's own signature left: it would stand beside ours, or replace it.
pub(crate) fn remove_client_signature(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, AMZ_DATE, SECURITY_TOKEN, S3_SESSION_TOKEN, REGION_SET] {
        headers.remove(name);
    }
}

/// True for the headers that carry a signature or say how it was made, but Authorization.
pub(crate) fn is_of_signature(name: &HeaderName) -> bool {
    [AMZ_DATE, CONTENT_SHA256, SECURITY_TOKEN, S3_SESSION_TOKEN, REGION_SET].contains(name)
}

/// Sets Host and the length: what the first line and the framing say must be what is signed.
pub(crate) fn address(headers: &mut HeaderMap, target: &Target) {
    if let Ok(host) = HeaderValue::from_str(&target.authority()) {
        headers.insert(HOST, host);
    }
}

/// The framing of what is sent: an empty body of a method that has none needs no length.
pub(crate) fn frame(headers: &mut HeaderMap, head: &RequestHead, size: BodySize) {
    if size != BodySize::Unknown {
        headers.remove(TRAILER);
    }
    match size {
        BodySize::Known(0) if !headers.contains_key(CONTENT_LENGTH) && !matches!(head.method.as_str(), "POST" | "PUT" | "PATCH") => {}
        BodySize::Known(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        BodySize::Unknown => {
            headers.remove(CONTENT_LENGTH);
        }
    }
}

/// True for the protocol of WebSockets.
pub(crate) fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// MQTT over WebSockets is another service of `IoT`'s, behind the same name.
pub(crate) fn service_of(service: Arc<str>, path: &str, websocket: bool) -> Arc<str> {
    let is_mqtt = || percent_decoded(path.split('?').next().unwrap_or_default().as_bytes()) == b"/mqtt";
    if websocket && &*service == "iotdata" && is_mqtt() { "iotdevicegateway".into() } else { service }
}

/// The options and the place that a request's signature has: what the route says, else what the service asks for.
pub(crate) fn how(service: &str, form: SigningForm, head: &RequestHead, upgrade: Option<&HeaderValue>) -> (Options, bool) {
    let websocket = upgrade.is_some_and(is_websocket);
    let in_query = match form.signature {
        SignaturePlace::Header => false,
        SignaturePlace::Query => true,
        SignaturePlace::Auto => websocket && matches!(service, "iotdevicegateway" | "transcribe" | "kinesisvideo"),
    };
    let session_token = match form.token {
        TokenPlace::AddedAfter => SessionToken::AddedAfter,
        TokenPlace::S3express => SessionToken::S3Express,
        TokenPlace::Auto if service == "iotdevicegateway" => SessionToken::AddedAfter,
        TokenPlace::Auto | TokenPlace::Signed => SessionToken::Signed,
    };
    let variant = match form.variant {
        SignatureVariant::V4 => Variant::V4,
        SignatureVariant::V4a => Variant::V4a,
    };
    // OpenSearch Serverless wants the body's hash in a header, and content-length left out; Lambda URLs want the hash where
    // CloudFront stands before them.
    let serverless = service == "aoss";
    let content_sha256 = serverless || takes_no_hash(service) || (service == "lambda" && head.target.host.contains(".lambda-url."));
    let options = Options { variant, session_token, content_sha256, content_length: !serverless, ..Options::default() };
    (options, in_query)
}

/// VPC Lattice wants `UNSIGNED-PAYLOAD` in a header, of empty bodies too (VPC Lattice User Guide, authenticated requests).
pub(crate) fn takes_no_hash(service: &str) -> bool {
    service == "vpc-lattice-svcs"
}

/// What the signature says of the body, where a route leaves that to the service.
pub(crate) fn payload_of(service: &str, asked: PayloadMode) -> PayloadMode {
    if asked == PayloadMode::Auto && takes_no_hash(service) { PayloadMode::Unsigned } else { asked }
}

/// One signature. `headers`: as they go out; the signature's own are added. Gives it.
pub(crate) fn sign(
    terms: &Terms<'_>,
    method: &str,
    path: &str,
    hash: BodyHash<'_>,
    headers: &mut HeaderMap,
) -> Result<Made<Signed>, SignError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let made = {
        let signed = headers.iter().filter(|(name, _)| !terms.unsigned.contains(name));
        let pairs: SmallVec<[(&[u8], &[u8]); 24]> = signed.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        let request = Request { method, path: path.as_bytes(), query: query.as_bytes(), headers: &pairs, payload: hash.payload() };
        if terms.shown {
            let steps = steps_with(terms.credentials, &terms.scope, &request, terms.unix_seconds, terms.options)?;
            let shown = Steps::new(&steps, steps.signed.headers(), b"", headers);
            Made { signed: steps.signed, steps: Some(Box::new(shown)) }
        } else {
            let signed = sign_with(terms.credentials, &terms.scope, &request, terms.unix_seconds, terms.options)?;
            Made { signed, steps: None }
        }
    };
    for (name, value) in made.signed.headers() {
        // What the signer makes of checked input is ASCII, and its names are.
        if let (Some(name), Ok(mut value)) = (header_name(name), HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value))) {
            value.set_sensitive(name == AUTHORIZATION || name == SECURITY_TOKEN || name == S3_SESSION_TOKEN);
            headers.insert(name, value);
        }
    }
    Ok(made)
}

/// The signer's headers are few, and to read a name costs more than to look which it is.
fn header_name(name: &[u8]) -> Option<HeaderName> {
    match name {
        b"authorization" => Some(AUTHORIZATION),
        b"x-amz-date" => Some(AMZ_DATE),
        b"x-amz-content-sha256" => Some(CONTENT_SHA256),
        b"x-amz-security-token" => Some(SECURITY_TOKEN),
        name => HeaderName::from_bytes(name).ok(),
    }
}

/// The same in the query. Gives the path to send. Only Host and `x-amz-*` are signed: what else a handshake has is the transport's.
pub(crate) fn presign(
    terms: &Terms<'_>,
    method: &str,
    path: &str,
    hash: BodyHash<'_>,
    headers: &mut HeaderMap,
) -> Result<Made<String>, SignError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    // The payload's line has no header here.
    headers.remove(CONTENT_SHA256);
    let (signed, steps) = {
        let pairs: Vec<(&[u8], &[u8])> = headers
            .iter()
            .filter(|(name, _)| *name == HOST || name.as_str().starts_with("x-amz-"))
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        let payload = if terms.scope.style == Style::S3 { Payload::UNSIGNED } else { hash.payload() };
        let request = Request { method, path: path.as_bytes(), query: query.as_bytes(), headers: &pairs, payload };
        if terms.shown {
            let steps = presign_steps(terms.credentials, &terms.scope, &request, terms.unix_seconds, EXPIRES, terms.options)?;
            let shown = Steps::new(&steps, std::iter::empty(), steps.signed.query(), headers);
            (steps.signed, Some(Box::new(shown)))
        } else {
            (sigward_sigv4::presign(terms.credentials, &terms.scope, &request, terms.unix_seconds, EXPIRES, terms.options)?, None)
        }
    };
    Ok(Made { signed: format!("{path}?{}", String::from_utf8_lossy(signed.query())), steps })
}

impl<'a> BodyHash<'a> {
    fn payload(self) -> Payload<'a> {
        match self {
            Self::Digest(digest) => Payload::Digest(digest),
            Self::Given(value) => Payload::Given(value),
        }
    }
}
