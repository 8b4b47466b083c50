//! sign: the head that goes upstream, and the signature over it.
//!
//! The order matters: first everything that the client sent and that may go on is in place, then whatever it sent of a
//! signature is taken out, then the head is signed whole, so that no `x-amz-*` header goes out unsigned.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, TRAILER};
use http::{HeaderName, HeaderValue};
use sigward_sigv4::{Credentials, Payload, Request, Scope, SignError, Signed, Style, sign as sigv4_sign, wire};

use crate::admit::{BodySize, RequestHead, Target};

pub(crate) const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const AMZ_TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
const CONTENT_ENCODING: HeaderName = http::header::CONTENT_ENCODING;

/// What the signature says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyHash {
    /// sigward has read it all.
    Digest([u8; 32]),
    /// The value of `x-amz-content-sha256`: the client's own, or one of AWS's keywords.
    Given(HeaderValue),
}

/// Takes out what a client's own signature left: it would stand beside ours, or replace it.
pub(crate) fn remove_client_signature(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, AMZ_DATE, SECURITY_TOKEN] {
        headers.remove(name);
    }
}

/// The same in the query: presigned parameters of a request that is to be signed anew.
pub(crate) fn is_presigned(path: &str) -> bool {
    let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let mut v4 = false;
    let (mut key, mut signature) = (false, false);
    for name in query.split('&').map(|pair| pair.split('=').next().unwrap_or_default()) {
        v4 |= name.eq_ignore_ascii_case("X-Amz-Signature");
        key |= matches!(name, "AWSAccessKeyId" | "Key-Pair-Id");
        signature |= name == "Signature";
    }
    v4 || (key && signature)
}

/// What the client says the body's hash is, if that can be signed as it stands.
///
/// SDKs that sign nothing (boto3 with `UNSIGNED`) frame a body as aws-chunked with a checksum trailer and leave the
/// keyword that goes with it to the signer. See "Signature calculations: transferring payload in multiple chunks" (S3).
pub(crate) fn given_hash(headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
    let Some(value) = headers.get(CONTENT_SHA256) else {
        let chunked = headers.get_all(CONTENT_ENCODING).iter().any(|value| value.as_bytes().windows(11).any(|word| word == b"aws-chunked"));
        let trailer = chunked && headers.contains_key(AMZ_TRAILER);
        return Ok(trailer.then(|| HeaderValue::from_static("STREAMING-UNSIGNED-PAYLOAD-TRAILER")));
    };
    let text = value.as_bytes();
    let hex = text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
    match text {
        b"UNSIGNED-PAYLOAD" | b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Some(value.clone())),
        _ if hex => Ok(Some(value.clone())),
        _ if text.starts_with(b"STREAMING-") => Err("its chunks carry signatures of the client's own key"),
        _ => Ok(None),
    }
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

/// One signature. `headers`: as they go out; the signature's own are added.
pub(crate) fn sign(
    credentials: &Credentials,
    (region, signing_name, style): (&str, &str, Style),
    method: &str,
    path: &str,
    hash: &BodyHash,
    headers: &mut HeaderMap,
    unix_seconds: u64,
) -> Result<(), SignError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let signed: Signed = {
        let pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        let payload = match hash {
            BodyHash::Digest(digest) => Payload::Digest(*digest),
            BodyHash::Given(value) => Payload::Given(value.as_bytes()),
        };
        let request = Request { method, path: path.as_bytes(), query: query.as_bytes(), headers: &pairs, payload };
        sigv4_sign(credentials, &Scope { region, signing_name, style }, &request, unix_seconds)?
    };
    let mut add = |name: HeaderName, value: &[u8], secret: bool| {
        // What the signer makes of checked input is ASCII.
        if let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value)) {
            value.set_sensitive(secret);
            headers.insert(name, value);
        }
    };
    add(AMZ_DATE, signed.amz_date(), false);
    if let Some(hash) = signed.content_sha256() {
        add(CONTENT_SHA256, hash, false);
    }
    if let Some((_, token)) = signed.session_token() {
        add(SECURITY_TOKEN, token, true);
    }
    add(AUTHORIZATION, signed.authorization(), true);
    Ok(())
}

/// The request target as it goes on the wire, in the canonical form that is signed.
pub(crate) fn wire_path(style: Style, path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let bytes = wire::path_and_query(style, path.as_bytes(), query.as_bytes());
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presigned_requests_are_known_by_their_query() {
        for (path, expected) in [
            ("/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab", true),
            ("/k?AWSAccessKeyId=A&Signature=b&Expires=1", true),
            ("/k?Signature=b&Key-Pair-Id=c", true),
            ("/k?Signature=b", false),
            ("/k", false),
            ("/X-Amz-Signature=1", false),
        ] {
            assert_eq!(is_presigned(path), expected, "{path}");
        }
    }

    #[test]
    fn the_clients_own_hash() {
        let given = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
            given_hash(&headers).map(|value| value.map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(given(&[]), Ok(None));
        assert_eq!(given(&[("x-amz-content-sha256", "nonsense")]), Ok(None));
        assert_eq!(given(&[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]), Ok(Some("UNSIGNED-PAYLOAD".into())));
        let chunked = [("content-encoding", "gzip,aws-chunked"), ("x-amz-trailer", "x-amz-checksum-crc32")];
        assert_eq!(given(&chunked), Ok(Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER".into())));
        assert!(given(&[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]).is_err());
    }
}
