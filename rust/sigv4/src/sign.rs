//! Steps 2 to 4: the string to sign, the signature, and what is added to the request.

use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use zeroize::optimization_barrier;

use crate::canonical::{Lowered, Query, SignedHeaders, lower, push_path};
use crate::encode::{Keep, hex, push_encoded};
use crate::out::{Gathered, HashOut, Out};
use crate::time::{AmzDate, amz_date};
use crate::{Credentials, SignError};

/// The algorithm that a signature names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `AWS4-HMAC-SHA256`: one region.
    #[default]
    V4,
    /// `AWS4-ECDSA-P256-SHA256`: the scope's region is a region set, e.g. `*` or `us-east-1,us-west-2`.
    V4a,
}

impl Variant {
    /// As it stands in a signature.
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::V4 => "AWS4-HMAC-SHA256",
            Self::V4a => "AWS4-ECDSA-P256-SHA256",
        }
    }
}

/// How the path enters the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As sent, encoded once, not normalised; `x-amz-content-sha256` is added. S3 and its kin.
    S3,
    /// Normalised, encoded once more. All other services.
    Generic,
}

/// What a raw `+` in a query stands for. `%2B` is a plus sign, and so is `+` in a path, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueryPlus {
    /// A blank, by the form rules (WHATWG URL, section 5.1), as most clients mean it: `%20`.
    #[default]
    Blank,
    /// A plus sign, by RFC 3986 alone: `%2B`.
    Plus,
}

impl QueryPlus {
    /// As the canonical query has it.
    pub(crate) const fn spelling(self) -> &'static [u8] {
        match self {
            Self::Blank => b"%20",
            Self::Plus => b"%2B",
        }
    }
}

/// The credential scope, but for its date.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// E.g. `us-east-1`; with [`Variant::V4a`] a region set, e.g. `*`.
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
    /// The value for `x-amz-content-sha256`: 64 hexadecimal digits, or one of AWS's keywords. That header is added.
    Given(&'a [u8]),
}

impl Payload<'static> {
    /// There is none.
    pub const EMPTY: Self = Self::Bytes(b"");
    /// The body is not signed; for S3, over TLS.
    pub const UNSIGNED: Self = Self::Given(b"UNSIGNED-PAYLOAD");
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
    /// (`authorization`, `x-amz-date`, `x-amz-security-token`) is left out: what is signed takes its place.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The body.
    pub payload: Payload<'a>,
}

/// Where temporary credentials' session token goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionToken {
    /// `x-amz-security-token`, signed.
    #[default]
    Signed,
    /// `x-amz-security-token`, added after signing (`IoT`).
    AddedAfter,
    /// `x-amz-s3session-token`, signed (S3 Express).
    S3Express,
}

impl SessionToken {
    fn header(self) -> &'static [u8] {
        match self {
            Self::Signed | Self::AddedAfter => b"x-amz-security-token",
            Self::S3Express => b"x-amz-s3session-token",
        }
    }

    fn parameter(self) -> &'static [u8] {
        match self {
            Self::Signed | Self::AddedAfter => b"X-Amz-Security-Token",
            Self::S3Express => b"X-Amz-S3session-Token",
        }
    }
}

/// What few callers need to change.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The algorithm.
    pub variant: Variant,
    /// Generic style: remove `.`, `..` and empty segments. On, unless a service says otherwise.
    pub normalize: bool,
    /// Where the session token goes.
    pub session_token: SessionToken,
    /// Add `x-amz-content-sha256` also where neither the style nor the payload asks for it (`aoss`).
    pub content_sha256: bool,
    /// Sign `content-length`, if it is among the headers. On, unless a service refuses it (`aoss`).
    pub content_length: bool,
    /// What a raw `+` in the query stands for.
    pub query_plus: QueryPlus,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            variant: Variant::V4,
            normalize: true,
            session_token: SessionToken::Signed,
            content_sha256: false,
            content_length: true,
            query_plus: QueryPlus::Blank,
        }
    }
}

/// Hexadecimal digits: 64, or up to 144 of an ECDSA signature in DER.
pub(crate) type SignatureText = SmallVec<[u8; 144]>;

/// What signing by headers adds to a request.
pub struct Signed {
    /// `name: value\r\n` for each.
    lines: Vec<u8>,
    spans: Spans,
}

impl Signed {
    /// The `authorization` header.
    pub fn authorization(&self) -> &[u8] {
        self.text(&self.spans.authorization)
    }

    /// The `x-amz-date` header: `20150830T123600Z`.
    pub fn amz_date(&self) -> &[u8; 16] {
        &self.spans.amz_date
    }

    /// The `x-amz-content-sha256` header, if it is to be set.
    pub fn content_sha256(&self) -> Option<&[u8]> {
        self.spans.content_sha256.as_ref().map(|range| self.text(range))
    }

    /// The session token's header, if it is to be set: name and value.
    pub fn session_token(&self) -> Option<(&[u8], &[u8])> {
        self.spans.session_token.as_ref().map(|(name, range)| (*name, self.text(range)))
    }

    /// The `x-amz-region-set` header, if it is to be set ([`Variant::V4a`]).
    pub fn region_set(&self) -> Option<&[u8]> {
        self.spans.region_set.as_ref().map(|range| self.text(range))
    }

    /// Hexadecimal digits: 64, or up to 144 with [`Variant::V4a`].
    pub fn signature(&self) -> &[u8] {
        self.text(&self.spans.signature)
    }

    /// All of them in order, lower-case, `authorization` last.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let date = Some((&b"x-amz-date"[..], &self.spans.amz_date[..]));
        let hash = self.content_sha256().map(|value| (&b"x-amz-content-sha256"[..], value));
        let regions = self.region_set().map(|value| (&b"x-amz-region-set"[..], value));
        let authorization = Some((&b"authorization"[..], self.authorization()));
        [date, hash, regions, self.session_token(), authorization].into_iter().flatten()
    }

    /// The same as HTTP/1.1 writes them: `name: value`, CR and LF for each.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.lines.get(range.clone()).unwrap_or_default()
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        if self.spans.session_token.is_some() {
            self.lines.fill(0);
            optimization_barrier(&*self.lines);
        }
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Signed").field("amz_date", &String::from_utf8_lossy(&self.spans.amz_date)).finish_non_exhaustive()
    }
}

/// What signing by query makes of a request.
pub struct Presigned {
    query: Vec<u8>,
    amz_date: AmzDate,
    signature: Range<usize>,
}

impl Presigned {
    /// The whole query to send, without `?`: what the request had, in canonical form, and the signature's parameters.
    pub fn query(&self) -> &[u8] {
        &self.query
    }

    /// `20150830T123600Z`
    pub fn amz_date(&self) -> &[u8; 16] {
        &self.amz_date
    }

    /// Hexadecimal digits.
    pub fn signature(&self) -> &[u8] {
        self.query.get(self.signature.clone()).unwrap_or_default()
    }
}

impl Drop for Presigned {
    fn drop(&mut self) {
        self.query.fill(0);
        optimization_barrier(&*self.query);
    }
}

impl fmt::Debug for Presigned {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Presigned").field("amz_date", &String::from_utf8_lossy(&self.amz_date)).finish_non_exhaustive()
    }
}

/// The same with every intermediate string, for people and tests.
#[derive(Debug)]
pub struct Steps<T = Signed> {
    /// Step 1.
    pub canonical_request: Vec<u8>,
    /// Step 2.
    pub string_to_sign: String,
    /// Step 3: hexadecimal digits.
    pub signature: String,
    /// Step 4: [`Signed`] or [`Presigned`].
    pub signed: T,
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
    by_headers(credentials, scope, request, unix_seconds, options, &mut HashOut::new(), Spans::signed)
}

/// [`sign_with`] for those who need the added headers once and at once, as [`Signed::lines`] gives them: allocates nothing.
///
/// # Errors
/// As [`sign`].
pub fn sign_lines<T>(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    options: Options,
    take: impl FnOnce(&[u8]) -> T,
) -> Result<T, SignError> {
    let take = |spans: Spans, lines: &mut Gathered| lines.with_all(spans.session_token.is_some(), take);
    by_headers(credentials, scope, request, unix_seconds, options, &mut HashOut::new(), take)
}

/// Signs by headers, and shows the four steps.
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
    let mut trace = Trace::default();
    let signed = by_headers(credentials, scope, request, unix_seconds, options, &mut trace, Spans::signed)?;
    let signature = signed.signature().to_vec();
    Ok(trace.into_steps(&signature, signed))
}

/// Signs by query: a presigned URL, valid for `expires` seconds (1 to 604,800) from `unix_seconds` on.
///
/// S3's clients sign [`Payload::UNSIGNED`] so, all others the body that is to be sent, mostly [`Payload::EMPTY`]. Signature
/// parameters that stand in the query are left out.
///
/// # Errors
/// [`SignError`], naming the part of the input that cannot be signed.
pub fn presign(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    expires: u64,
    options: Options,
) -> Result<Presigned, SignError> {
    by_query(credentials, scope, request, unix_seconds, expires, options, &mut HashOut::new())
}

/// [`presign`], and shows the four steps.
///
/// # Errors
/// As [`presign`].
pub fn presign_steps(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    expires: u64,
    options: Options,
) -> Result<Steps<Presigned>, SignError> {
    let mut trace = Trace::default();
    let signed = by_query(credentials, scope, request, unix_seconds, expires, options, &mut trace)?;
    let signature = signed.signature().to_vec();
    Ok(trace.into_steps(&signature, signed))
}

/// Where the canonical request goes, and what is kept on the way.
trait Sink: Out {
    /// The canonical request's SHA-256. `secret`: a session token is in it.
    fn close(&mut self, secret: bool) -> [u8; 32];
    fn keep(&mut self, string_to_sign: impl FnOnce(&mut Vec<u8>));
}

impl Sink for HashOut {
    fn close(&mut self, secret: bool) -> [u8; 32] {
        self.finish(secret)
    }

    fn keep(&mut self, _: impl FnOnce(&mut Vec<u8>)) {}
}

/// Keeps everything.
#[derive(Default)]
struct Trace {
    canonical_request: Vec<u8>,
    string_to_sign: Vec<u8>,
}

impl Out for Trace {
    fn push(&mut self, byte: u8) {
        self.canonical_request.push(byte);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.canonical_request.extend_from_slice(bytes);
    }
}

impl Sink for Trace {
    fn close(&mut self, _: bool) -> [u8; 32] {
        Sha256::digest(&self.canonical_request).into()
    }

    fn keep(&mut self, string_to_sign: impl FnOnce(&mut Vec<u8>)) {
        string_to_sign(&mut self.string_to_sign);
    }
}

impl Trace {
    fn into_steps<T>(self, signature: &[u8], signed: T) -> Steps<T> {
        Steps {
            canonical_request: self.canonical_request,
            string_to_sign: String::from_utf8_lossy(&self.string_to_sign).into_owned(),
            signature: String::from_utf8_lossy(signature).into_owned(),
            signed,
        }
    }
}

/// Step 2's text, but for its last lines. `algorithm`: of a request, or of what follows it.
pub(crate) fn push_to_sign(out: &mut impl Out, algorithm: &[u8], variant: Variant, amz_date: &AmzDate, scope: (&str, &str)) {
    out.put(algorithm);
    out.push(b'\n');
    out.put(amz_date);
    out.push(b'\n');
    push_scope(out, variant, amz_date, scope, b"/");
    out.push(b'\n');
}

/// The credential scope, with what stands between its parts.
fn push_scope(out: &mut impl Out, variant: Variant, amz_date: &AmzDate, (region, signing_name): (&str, &str), between: &[u8]) {
    out.put(&date_of(amz_date));
    if variant == Variant::V4 {
        out.put(between);
        out.put(region.as_bytes());
    }
    for part in [between, signing_name.as_bytes(), between, b"aws4_request"] {
        out.put(part);
    }
}

/// `20150830`
pub(crate) fn date_of(amz_date: &AmzDate) -> [u8; 8] {
    amz_date.first_chunk().copied().unwrap_or(*b"00000000")
}

/// The payload's line of the canonical request.
struct PayloadText<'a> {
    digits: [u8; 64],
    given: Option<&'a [u8]>,
}

/// SHA-256 of nothing.
pub(crate) const EMPTY_SHA256: &[u8; 64] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl<'a> PayloadText<'a> {
    fn of(payload: Payload<'a>) -> Result<Self, SignError> {
        let (digits, given) = match payload {
            Payload::Bytes(b"") => (*EMPTY_SHA256, None),
            Payload::Bytes(bytes) => (hex(&Sha256::digest(bytes).into()), None),
            Payload::Digest(bytes) => (hex(&bytes), None),
            Payload::Given(value) => {
                if value != b"UNSIGNED-PAYLOAD" {
                    check_part("payload hash", value)?;
                }
                ([0; 64], Some(value))
            }
        };
        Ok(Self { digits, given })
    }

    fn text(&self) -> &[u8] {
        self.given.unwrap_or(&self.digits)
    }
}

/// Where what is added lies in its lines.
struct Spans {
    amz_date: AmzDate,
    content_sha256: Option<Range<usize>>,
    region_set: Option<Range<usize>>,
    session_token: Option<(&'static [u8], Range<usize>)>,
    authorization: Range<usize>,
    signature: Range<usize>,
}

impl Spans {
    #[inline]
    fn signed(self, lines: &mut Gathered) -> Signed {
        Signed { lines: lines.finish(self.session_token.is_some()), spans: self }
    }
}

/// `done` makes the result of what is added: of its lines, and of where what lies in them.
#[inline(always)]
#[allow(clippy::inline_always, reason = "its large parts lie where they are made; a few callers in all")]
fn by_headers<S: Sink, T>(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    options: Options,
    out: &mut S,
    done: impl FnOnce(Spans, &mut Gathered) -> T,
) -> Result<T, SignError> {
    let amz_date = amz_date(unix_seconds)?;
    check_method(request.method.as_bytes())?;
    let payload = PayloadText::of(request.payload)?;
    let variant = options.variant;
    let token = credentials.session_token().map(str::as_bytes);
    let add_hash = scope.style == Style::S3 || options.content_sha256 || payload.given.is_some();
    let token_header = options.session_token.header();
    let names = (scope.region, scope.signing_name);

    // Step 1: create a canonical request.
    let mut lowered = Lowered::new();
    lower(request.headers, &mut lowered)?;
    let replaced = |name: &[u8]| {
        if !name.starts_with(b"x-amz-") {
            return name == b"content-length" && !options.content_length;
        }
        (matches!(name, b"x-amz-date" | b"x-amz-security-token")
            || name == token_header
            || (add_hash && name == b"x-amz-content-sha256")
            || (variant == Variant::V4a && name == b"x-amz-region-set"))
    };
    let mut headers = SignedHeaders::new();
    headers.take(request.headers, &lowered, replaced)?;
    headers.add(b"x-amz-date", &amz_date);
    if add_hash {
        headers.add(b"x-amz-content-sha256", payload.text());
    }
    if variant == Variant::V4a {
        headers.add(b"x-amz-region-set", scope.region.as_bytes());
    }
    if let Some(token) = token.filter(|_| options.session_token != SessionToken::AddedAfter) {
        headers.add(token_header, token);
    }
    headers.sort();
    out.put(request.method.as_bytes());
    out.push(b'\n');
    push_path(out, scope.style, request.path, options.normalize);
    out.push(b'\n');
    if !request.query.is_empty() {
        Query::new(request.query, options.query_plus.spelling(), |_| false)?.write(out);
    }
    out.push(b'\n');
    headers.write(out)?;
    headers.write_names(out);
    out.push(b'\n');
    out.put(payload.text());
    let digest = out.close(token.is_some());

    // Steps 2 and 3: create a string to sign, calculate the signature.
    let hash = hex(&digest);
    out.keep(|text| {
        push_to_sign(text, variant.algorithm().as_bytes(), variant, &amz_date, names);
        text.extend_from_slice(&hash);
    });
    let signature = credentials.sign_request(variant, &amz_date, names, &hash)?;

    // Step 4: add the signature to the request.
    let id = credentials.access_key_id().as_bytes();
    let mut lines = Gathered::new();
    push_line(&mut lines, b"x-amz-date", &amz_date);
    let content_sha256 = add_hash.then(|| push_line(&mut lines, b"x-amz-content-sha256", payload.text()));
    let region_set = (variant == Variant::V4a).then(|| push_line(&mut lines, b"x-amz-region-set", scope.region.as_bytes()));
    let session_token = token.map(|token| (token_header, push_line(&mut lines, token_header, token)));
    lines.put(b"authorization: ");
    let start = lines.length();
    for part in [variant.algorithm().as_bytes(), b" Credential=", id, b"/"] {
        lines.put(part);
    }
    push_scope(&mut lines, variant, &amz_date, names, b"/");
    lines.put(b", SignedHeaders=");
    headers.write_names(&mut lines);
    lines.put(b", Signature=");
    let middle = lines.length();
    lines.put(signature.text());
    let end = lines.length();
    lines.put(b"\r\n");
    let spans = Spans { amz_date, content_sha256, region_set, session_token, authorization: start..end, signature: middle..end };
    Ok(done(spans, &mut lines))
}

/// Writes one line; gives where its value lies.
#[inline]
fn push_line(lines: &mut Gathered, name: &[u8], value: &[u8]) -> Range<usize> {
    lines.put(name);
    lines.put(b": ");
    let start = lines.length();
    lines.put(value);
    let end = lines.length();
    lines.put(b"\r\n");
    start..end
}

/// The longest that a presigned URL may be valid, in seconds: seven days.
pub const MAX_EXPIRES: u64 = 604_800;

/// A query's parameter that belongs to a signature: replaced when signing by query, and none of them is part of the request itself.
pub(crate) fn is_signature_parameter(name: &[u8]) -> bool {
    name.get(..6).is_some_and(|first| first.eq_ignore_ascii_case(b"x-amz-"))
        && [
            &b"X-Amz-Algorithm"[..],
            b"X-Amz-Credential",
            b"X-Amz-Date",
            b"X-Amz-Expires",
            b"X-Amz-Region-Set",
            b"X-Amz-S3session-Token",
            b"X-Amz-Security-Token",
            b"X-Amz-Signature",
            b"X-Amz-SignedHeaders",
        ]
        .iter()
        .any(|parameter| parameter.eq_ignore_ascii_case(name))
}

fn by_query<S: Sink>(
    credentials: &Credentials,
    scope: &Scope<'_>,
    request: &Request<'_>,
    unix_seconds: u64,
    expires: u64,
    options: Options,
    out: &mut S,
) -> Result<Presigned, SignError> {
    let amz_date = amz_date(unix_seconds)?;
    if !(1..=MAX_EXPIRES).contains(&expires) {
        return Err(SignError::Expires(expires));
    }
    check_method(request.method.as_bytes())?;
    let payload = PayloadText::of(request.payload)?;
    let variant = options.variant;
    let token = credentials.session_token().map(str::as_bytes);
    let names = (scope.region, scope.signing_name);

    let mut lowered = Lowered::new();
    lower(request.headers, &mut lowered)?;
    let replaced = |name: &[u8]| matches!(name, b"x-amz-date" | b"x-amz-security-token" | b"x-amz-s3session-token" | b"x-amz-region-set");
    let mut headers = SignedHeaders::new();
    headers.take(request.headers, &lowered, replaced)?;
    headers.sort();

    // What of step 4 is signed itself.
    let mut query = Query::new(request.query, options.query_plus.spelling(), is_signature_parameter)?;
    query.add(b"X-Amz-Algorithm", |value| value.extend_from_slice(variant.algorithm().as_bytes()));
    query.add(b"X-Amz-Credential", |value| {
        push_encoded(value, credentials.access_key_id().as_bytes(), Keep::Unreserved);
        value.extend_from_slice(b"%2F");
        push_scope(value, variant, &amz_date, names, b"%2F");
    });
    query.add(b"X-Amz-Date", |value| value.extend_from_slice(&amz_date));
    query.add(b"X-Amz-Expires", |value| push_decimal(value, expires));
    if variant == Variant::V4a {
        query.add(b"X-Amz-Region-Set", |value| push_encoded(value, scope.region.as_bytes(), Keep::Unreserved));
    }
    let token_parameter = options.session_token.parameter();
    let signed_token = token.filter(|_| options.session_token != SessionToken::AddedAfter);
    if let Some(token) = signed_token {
        query.add(token_parameter, |value| push_encoded(value, token, Keep::Unreserved));
    }
    // A header's name may hold what a query must not, such as `&` and `%`.
    let mut names_text = Vec::with_capacity(headers.names_length());
    headers.write_names(&mut names_text);
    query.add(b"X-Amz-SignedHeaders", |value| push_encoded(value, &names_text, Keep::Unreserved));
    let mut text = Vec::with_capacity(query.length() + 192 + token.map_or(0, |token| token.len() * 3 + 26));
    query.write(&mut text);

    // Step 1: create a canonical request.
    out.put(request.method.as_bytes());
    out.push(b'\n');
    push_path(out, scope.style, request.path, options.normalize);
    out.push(b'\n');
    out.put(&text);
    out.push(b'\n');
    headers.write(out)?;
    out.put(&names_text);
    out.push(b'\n');
    out.put(payload.text());
    let digest = out.close(token.is_some());

    // Steps 2 and 3: create a string to sign, calculate the signature.
    let hash = hex(&digest);
    out.keep(|text| {
        push_to_sign(text, variant.algorithm().as_bytes(), variant, &amz_date, names);
        text.extend_from_slice(&hash);
    });
    let signature = credentials.sign_request(variant, &amz_date, names, &hash)?;

    // Step 4: add the signature to the request.
    if let Some(token) = token.filter(|_| signed_token.is_none()) {
        text.push(b'&');
        text.extend_from_slice(token_parameter);
        text.push(b'=');
        push_encoded(&mut text, token, Keep::Unreserved);
    }
    text.extend_from_slice(b"&X-Amz-Signature=");
    let start = text.len();
    text.extend_from_slice(signature.text());
    Ok(Presigned { signature: start..text.len(), query: text, amz_date })
}

pub(crate) fn push_decimal(out: &mut impl Out, number: u64) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut count = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (rest % 10) as u8;
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put(digits.get(20 - count..).unwrap_or_default());
}

pub(crate) fn check_part(field: &'static str, value: &[u8]) -> Result<(), SignError> {
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
