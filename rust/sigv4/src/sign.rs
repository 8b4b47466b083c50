//! Steps 2 to 4: the string to sign, the signature, and what is added to the request.

use std::fmt;

use hmac::Mac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::canonical::{push_headers, push_path, push_query};
use crate::encode::hex;
use crate::time::{AmzDate, amz_date};
use crate::{Credentials, SignError};

const ALGORITHM: &[u8] = b"AWS4-HMAC-SHA256";

/// How the path enters the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As sent, encoded once, not normalised; `x-amz-content-sha256` is added. S3 and its kin.
    S3,
    /// Normalised, encoded once more. All other services.
    Generic,
}

/// The credential scope, but for its date.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// E.g. `us-east-1`.
    pub region: &'a str,
    /// E.g. `es` for OpenSearch.
    pub signing_name: &'a str,
    /// The service's path rule.
    pub style: Style,
}

/// What the signature says of the body.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// Its SHA-256.
    Digest([u8; 32]),
    /// The value for `x-amz-content-sha256`: 64 hexadecimal digits, or `UNSIGNED-PAYLOAD` and the like. That header is added.
    Given(&'a [u8]),
}

/// A request to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// E.g. `GET`.
    pub method: &'a str,
    /// As sent, undecoded.
    pub path: &'a [u8],
    /// As sent, undecoded, without `?`.
    pub query: &'a [u8],
    /// (name in any case, value); `host` must be there. Repeated names are joined in order. A signature that stands among them
    /// (`authorization`, `x-amz-date`, `x-amz-security-token`) is left out: what [`Signed`] holds takes its place.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The body.
    pub payload: Payload<'a>,
}

/// What few callers need to change.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Generic style: remove `.`, `..` and empty segments. On, unless a service says otherwise.
    pub normalize: bool,
    /// The session token is added after signing instead of being signed (`IoT`).
    pub omit_session_token: bool,
    /// Add `x-amz-content-sha256` also where the style does not ask for it.
    pub content_sha256: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { normalize: true, omit_session_token: false, content_sha256: false }
    }
}

/// What signing adds to a request.
pub struct Signed {
    authorization: Vec<u8>,
    amz_date: AmzDate,
    content_sha256: Option<Vec<u8>>,
    session_token: Option<Zeroizing<String>>,
}

impl Signed {
    /// The `authorization` header.
    pub fn authorization(&self) -> &[u8] {
        &self.authorization
    }

    /// The `x-amz-date` header: `20150830T123600Z`.
    pub fn amz_date(&self) -> &[u8] {
        &self.amz_date
    }

    /// The `x-amz-content-sha256` header, if it is to be set.
    pub fn content_sha256(&self) -> Option<&[u8]> {
        self.content_sha256.as_deref()
    }

    /// The `x-amz-security-token` header, if it is to be set.
    pub fn session_token(&self) -> Option<&[u8]> {
        self.session_token.as_ref().map(|token| token.as_bytes())
    }

    /// All of them in order, lower-case, `authorization` last.
    pub fn headers(&self) -> impl Iterator<Item = (&'static [u8], &[u8])> {
        let date = Some((&b"x-amz-date"[..], self.amz_date()));
        let hash = self.content_sha256().map(|value| (&b"x-amz-content-sha256"[..], value));
        let token = self.session_token().map(|value| (&b"x-amz-security-token"[..], value));
        let authorization = Some((&b"authorization"[..], self.authorization()));
        [date, hash, token, authorization].into_iter().flatten()
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Signed").field("amz_date", &String::from_utf8_lossy(&self.amz_date)).finish_non_exhaustive()
    }
}

/// The same with every intermediate string, for people and tests.
#[derive(Debug)]
pub struct Steps {
    /// Step 1.
    pub canonical_request: Vec<u8>,
    /// Step 2.
    pub string_to_sign: String,
    /// Step 3: 64 hexadecimal digits.
    pub signature: String,
    /// Step 4.
    pub signed: Signed,
}

/// Signs by headers, at a time in seconds since 1970.
///
/// # Errors
/// [`SignError`], naming the part of the input that cannot be signed.
pub fn sign(credentials: &Credentials, scope: &Scope<'_>, request: &Request<'_>, unix_seconds: u64) -> Result<Signed, SignError> {
    sign_with(credentials, scope, request, unix_seconds, Options::default())
}

/// [`sign`] with [`Options`].
///
/// # Errors
/// As [`sign`].
pub fn sign_with(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    options: Options,
) -> Result<Signed, SignError> {
    Ok(work(credentials, scope, request, unix_seconds, options)?.signed)
}

/// Signs, and shows the four steps.
///
/// # Errors
/// As [`sign`].
pub fn steps(credentials: &Credentials, scope: &Scope<'_>, request: &Request<'_>, unix_seconds: u64) -> Result<Steps, SignError> {
    steps_with(credentials, scope, request, unix_seconds, Options::default())
}

/// [`steps`] with [`Options`].
///
/// # Errors
/// As [`sign`].
pub fn steps_with(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    options: Options,
) -> Result<Steps, SignError> {
    let work = work(credentials, scope, request, unix_seconds, options)?;
    Ok(Steps {
        canonical_request: work.canonical_request,
        string_to_sign: String::from_utf8_lossy(&work.string_to_sign).into_owned(),
        signature: String::from_utf8_lossy(&work.signature).into_owned(),
        signed: work.signed,
    })
}

struct Work {
    canonical_request: Vec<u8>,
    string_to_sign: Vec<u8>,
    signature: [u8; 64],
    signed: Signed,
}

fn work(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    options: Options,
) -> Result<Work, SignError> {
    let amz_date = amz_date(unix_seconds)?;
    let date: [u8; 8] = std::array::from_fn(|at| amz_date.get(at).copied().unwrap_or(b'0'));
    check_part("region", scope.region.as_bytes())?;
    check_part("signing name", scope.signing_name.as_bytes())?;
    check_method(request.method.as_bytes())?;

    let digest;
    let payload_hash: &[u8] = match request.payload {
        Payload::Bytes(bytes) => {
            digest = hex(&Sha256::digest(bytes).into());
            &digest
        }
        Payload::Digest(bytes) => {
            digest = hex(&bytes);
            &digest
        }
        Payload::Given(value) => {
            check_part("payload hash", value)?;
            value
        }
    };
    let token = credentials.session_token();
    let signed_token = token.filter(|_| !options.omit_session_token);
    let add_hash = scope.style == Style::S3 || options.content_sha256 || matches!(request.payload, Payload::Given(_));

    // Step 1: create a canonical request.
    let size: usize = request.headers.iter().map(|(name, value)| name.len() * 2 + value.len() + 3).sum();
    let mut canonical = Vec::with_capacity(size + request.path.len() * 3 + request.query.len() * 3 + token.map_or(0, str::len) + 320);
    canonical.extend_from_slice(request.method.as_bytes());
    canonical.push(b'\n');
    push_path(&mut canonical, scope.style, request.path, options.normalize);
    canonical.push(b'\n');
    push_query(&mut canonical, request.query);
    canonical.push(b'\n');
    let mut added: [(&[u8], &[u8]); 3] = [(b"x-amz-date", &amz_date), (b"", b""), (b"", b"")];
    let mut count = 1;
    for (name, value) in [
        (&b"x-amz-content-sha256"[..], Some(payload_hash).filter(|_| add_hash)),
        (b"x-amz-security-token", signed_token.map(str::as_bytes)),
    ] {
        if let (Some(value), Some(slot)) = (value, added.get_mut(count)) {
            *slot = (name, value);
            count += 1;
        }
    }
    let added = added.get(..count).unwrap_or_default();
    // What the caller has of it is superseded.
    let superseded = |name: &[u8]| add_hash && name.eq_ignore_ascii_case(b"x-amz-content-sha256");
    let signed_headers = if request.headers.iter().any(|(name, _)| superseded(name)) {
        let kept: Vec<(&[u8], &[u8])> = request.headers.iter().copied().filter(|(name, _)| !superseded(name)).collect();
        push_headers(&mut canonical, &kept, added)?
    } else {
        push_headers(&mut canonical, request.headers, added)?
    };
    canonical.push(b'\n');
    canonical.extend_from_slice(payload_hash);

    // Step 2: create a string to sign.
    let mut to_sign = Vec::with_capacity(160 + scope.region.len() + scope.signing_name.len());
    to_sign.extend_from_slice(ALGORITHM);
    to_sign.push(b'\n');
    to_sign.extend_from_slice(&amz_date);
    to_sign.push(b'\n');
    let scope_start = to_sign.len();
    to_sign.extend_from_slice(&date);
    to_sign.push(b'/');
    to_sign.extend_from_slice(scope.region.as_bytes());
    to_sign.push(b'/');
    to_sign.extend_from_slice(scope.signing_name.as_bytes());
    to_sign.extend_from_slice(b"/aws4_request");
    let scope_end = to_sign.len();
    to_sign.push(b'\n');
    to_sign.extend_from_slice(&hex(&Sha256::digest(&canonical).into()));

    // Step 3: calculate the signature.
    let mut mac = credentials.signing_key(date, scope.region, scope.signing_name);
    mac.update(&to_sign);
    let signature = hex(&mac.finalize().into_bytes().into());

    // Step 4: add the signature to the request.
    let names = canonical.get(signed_headers).unwrap_or_default();
    let credential_scope = to_sign.get(scope_start..scope_end).unwrap_or_default();
    let id = credentials.access_key_id().as_bytes();
    let mut authorization = Vec::with_capacity(names.len() + credential_scope.len() + id.len() + 128);
    for part in [ALGORITHM, b" Credential=", id, b"/", credential_scope, b", SignedHeaders=", names, b", Signature=", &signature] {
        authorization.extend_from_slice(part);
    }
    let signed = Signed {
        authorization,
        amz_date,
        content_sha256: add_hash.then(|| payload_hash.to_vec()),
        session_token: token.map(|token| Zeroizing::new(token.to_owned())),
    };
    Ok(Work { canonical_request: canonical, string_to_sign: to_sign, signature, signed })
}

fn check_part(field: &'static str, value: &[u8]) -> Result<(), SignError> {
    if value.is_empty() {
        return Err(SignError::Empty(field));
    }
    let bad = value.iter().position(|byte| !byte.is_ascii_graphic() || *byte == b'/');
    bad.map_or(Ok(()), |at| Err(SignError::BadByte { field, at }))
}

fn check_method(method: &[u8]) -> Result<(), SignError> {
    if method.is_empty() {
        return Err(SignError::Empty("method"));
    }
    let bad = method.iter().position(|byte| !byte.is_ascii_graphic());
    bad.map_or(Ok(()), |at| Err(SignError::BadByte { field: "method", at }))
}
