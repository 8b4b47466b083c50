//! The other side: checks that a request was signed by who says so.
//!
//! First [`Claim::of`] reads what the request says of its signature, then the caller finds the credentials that go with
//! [`Claim::access_key_id`], then [`Claim::verify`] checks. Signatures and tokens are compared in constant time.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest, Sha256};

use crate::canonical::{Query, push_path, push_value};
use crate::chunked::{ChunkSigner, Decoder, Framing};
use crate::encode::{hex, percent_decoded};
use crate::sign::{EMPTY_SHA256, MAX_EXPIRES, date_of, push_to_sign};
use crate::time::{AmzDate, unix_seconds_of};
use crate::{Credentials, Payload, QueryPlus, Request, Scope, SessionToken, SignError, Style, Variant};

/// How the service reads requests, and its clock.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The service's path rule.
    pub style: Style,
    /// Generic style: the path was normalised.
    pub normalize: bool,
    /// Where the session token stands, and if it is signed.
    pub session_token: SessionToken,
    /// Now, in seconds since 1970.
    pub unix_seconds: u64,
    /// By how many seconds clocks may differ. AWS grants 900.
    pub window: u64,
}

impl Rules {
    /// With AWS's window, and normalised paths.
    pub fn new(style: Style, unix_seconds: u64) -> Self {
        Self { style, normalize: true, session_token: SessionToken::Signed, unix_seconds, window: 900 }
    }
}

/// Where a signature stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the `authorization` header.
    Header,
    /// In the query.
    Query,
}

/// What a request says of its own signature. Not checked yet.
#[derive(Clone)]
pub struct Claim {
    place: Place,
    variant: Variant,
    access_key_id: String,
    region: String,
    signing_name: String,
    amz_date: AmzDate,
    signed_at: u64,
    expires: Option<u64>,
    session_token: Option<Vec<u8>>,
    signed_headers: Vec<String>,
    signature: Vec<u8>,
}

/// A request whose signature is right.
#[derive(Debug)]
pub struct Verified {
    /// In hexadecimal digits: what chunks and events go on from.
    pub signature: Vec<u8>,
    /// The body was not compared with its hash: it was not given, or the signature does not cover it.
    pub payload_unchecked: bool,
    /// What the client takes a raw `+` in its query for. `None`: there is none, or it was signed as it stands there.
    pub query_plus: Option<QueryPlus>,
    chunks: Option<(ChunkSigner, Framing)>,
}

impl Verified {
    /// If the body comes in signed chunks: what reads and checks them.
    pub fn decoder(&self) -> Option<Decoder> {
        let (signer, framing) = self.chunks.as_ref()?;
        Some(Decoder::checking(signer.clone(), *framing == Framing::SignedTrailer))
    }
}

/// Why a request is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no signature.
    Unsigned,
    /// A part of the signature cannot be read.
    Malformed(&'static str),
    /// A part that must be there is not.
    Missing(&'static str),
    /// The scope's date is not the day of `x-amz-date`.
    ScopeDate,
    /// The scope ends otherwise than in `aws4_request`, or names another region or service.
    Scope {
        /// `region`, `signing name` or `end`.
        part: &'static str,
        /// What it names.
        given: String,
    },
    /// Other credentials than those given have this id.
    AccessKey(String),
    /// The session token is not the one that goes with the key, or one of the two has none.
    SessionToken,
    /// The clocks differ by so many seconds: negative, if the request is from the past.
    Skewed(i64),
    /// The presigned URL has been invalid for so many seconds.
    Expired(u64),
    /// A presigned URL may not be valid for so many seconds.
    Expires(u64),
    /// `SignedHeaders` names a header that the request has not: it was lost on the way.
    HeaderGone(String),
    /// A header that must be signed is not.
    HeaderNotSigned(String),
    /// The body's SHA-256 is not the one that was signed.
    PayloadHash {
        /// As signed, in hexadecimal digits.
        signed: String,
        /// Of the body that came.
        actual: String,
    },
    /// The signature is of other strings than these, or made with another secret.
    Signature(Box<Expected>),
    /// The request cannot be signed at all.
    Sign(SignError),
}

/// What should have been signed. It may hold a session token: not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Expected {
    /// Step 1.
    pub canonical_request: Vec<u8>,
    /// Step 2.
    pub string_to_sign: Vec<u8>,
}

impl fmt::Debug for Expected {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Expected").field("string_to_sign", &String::from_utf8_lossy(&self.string_to_sign)).finish_non_exhaustive()
    }
}

impl VerifyError {
    /// For machines.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Malformed(_) => "malformed",
            Self::Missing(_) => "missing",
            Self::ScopeDate => "scope-date",
            Self::Scope { .. } => "scope",
            Self::AccessKey(_) => "access-key",
            Self::SessionToken => "session-token",
            Self::Skewed(_) => "skewed",
            Self::Expired(_) => "expired",
            Self::Expires(_) => "bad-expires",
            Self::HeaderGone(_) => "header-gone",
            Self::HeaderNotSigned(_) => "header-not-signed",
            Self::PayloadHash { .. } => "payload-hash",
            Self::Signature(_) => "signature",
            Self::Sign(error) => error.slug(),
        }
    }
}

impl From<SignError> for VerifyError {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => write!(to, "the request has no signature"),
            Self::Malformed(part) => write!(to, "{part} cannot be read"),
            Self::Missing(part) => write!(to, "{part} is missing"),
            Self::ScopeDate => write!(to, "the credential scope's date is not the day of x-amz-date"),
            Self::Scope { part, given } => write!(to, "the credential scope's {part} is {given:?}"),
            Self::AccessKey(id) => write!(to, "the access key id {id:?} is not known"),
            Self::SessionToken => write!(to, "the session token is not the one of this access key"),
            Self::Skewed(seconds) if *seconds < 0 => write!(to, "the request was signed {} s ago", seconds.unsigned_abs()),
            Self::Skewed(seconds) => write!(to, "the request was signed {seconds} s in the future"),
            Self::Expired(seconds) => write!(to, "the presigned URL expired {seconds} s ago"),
            Self::Expires(seconds) => write!(to, "a presigned URL cannot be valid for {seconds} s"),
            Self::HeaderGone(name) => write!(to, "the header {name:?} is signed, but not there"),
            Self::HeaderNotSigned(name) => write!(to, "the header {name:?} is there, but not signed"),
            Self::PayloadHash { signed, actual } => write!(to, "the body's SHA-256 is {actual}, but {signed:?} was signed"),
            Self::Signature(_) => write!(to, "the signature does not match"),
            Self::Sign(error) => error.fmt(to),
        }
    }
}

impl std::error::Error for VerifyError {}

impl Claim {
    /// Reads it. The query is looked at only if there is no `authorization` header.
    ///
    /// # Errors
    /// [`VerifyError::Unsigned`], [`VerifyError::Malformed`], [`VerifyError::Missing`], [`VerifyError::Scope`],
    /// [`VerifyError::ScopeDate`] or [`VerifyError::Expires`].
    pub fn of(request: &Request<'_>) -> Result<Self, VerifyError> {
        match header(request, "authorization") {
            Some(value) => Self::of_header(request, value),
            None => Self::of_query(request),
        }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The algorithm.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Whose it is.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The scope's region, or the region set.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The scope's service.
    pub fn signing_name(&self) -> &str {
        &self.signing_name
    }

    /// When it was signed, in seconds since 1970.
    pub fn signed_at(&self) -> u64 {
        self.signed_at
    }

    /// For how many seconds a presigned URL is valid.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Lower-case, in the order of the signature.
    pub fn signed_headers(&self) -> impl Iterator<Item = &str> {
        self.signed_headers.iter().map(String::as_str)
    }

    /// Hexadecimal digits.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn of_header(request: &Request<'_>, value: &[u8]) -> Result<Self, VerifyError> {
        let value = std::str::from_utf8(value).map_err(|_| VerifyError::Malformed("authorization"))?.trim();
        let (algorithm, rest) = value.split_once(' ').ok_or(VerifyError::Malformed("authorization"))?;
        let variant = variant_of(algorithm)?;
        let mut parts = [None; 3];
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(VerifyError::Malformed("authorization"))?;
            let slot = match name {
                "Credential" => 0,
                "SignedHeaders" => 1,
                "Signature" => 2,
                _ => return Err(VerifyError::Malformed("authorization")),
            };
            if parts.get_mut(slot).is_none_or(|slot| slot.replace(value).is_some()) {
                return Err(VerifyError::Malformed("authorization"));
            }
        }
        let [credential, signed_headers, signature] = parts;
        let date = header(request, "x-amz-date").ok_or(VerifyError::Missing("x-amz-date"))?;
        let regions = match variant {
            Variant::V4 => None,
            Variant::V4a => Some(header(request, "x-amz-region-set").ok_or(VerifyError::Missing("x-amz-region-set"))?.to_vec()),
        };
        Self::new(Parts {
            place: Place::Header,
            variant,
            credential: credential.ok_or(VerifyError::Missing("Credential"))?,
            signed_headers: signed_headers.ok_or(VerifyError::Missing("SignedHeaders"))?,
            signature: signature.ok_or(VerifyError::Missing("Signature"))?,
            amz_date: date,
            regions,
            expires: None,
            session_token: header(request, "x-amz-security-token").or_else(|| header(request, "x-amz-s3session-token")).map(<[u8]>::to_vec),
        })
    }

    fn of_query(request: &Request<'_>) -> Result<Self, VerifyError> {
        let algorithm = parameter(request, "X-Amz-Algorithm").ok_or(VerifyError::Unsigned)?;
        let text = |name: &'static str| {
            let value = parameter(request, name).ok_or(VerifyError::Missing(name))?;
            String::from_utf8(value).map_err(|_| VerifyError::Malformed(name))
        };
        let variant = variant_of(&String::from_utf8_lossy(&algorithm))?;
        let expires: u64 = text("X-Amz-Expires")?.parse().map_err(|_| VerifyError::Malformed("X-Amz-Expires"))?;
        if !(1..=MAX_EXPIRES).contains(&expires) {
            return Err(VerifyError::Expires(expires));
        }
        Self::new(Parts {
            place: Place::Query,
            variant,
            credential: &text("X-Amz-Credential")?,
            signed_headers: &text("X-Amz-SignedHeaders")?,
            signature: &text("X-Amz-Signature")?,
            amz_date: text("X-Amz-Date")?.as_bytes(),
            regions: if variant == Variant::V4a { Some(text("X-Amz-Region-Set")?.into_bytes()) } else { None },
            expires: Some(expires),
            session_token: parameter(request, "X-Amz-Security-Token").or_else(|| parameter(request, "X-Amz-S3session-Token")),
        })
    }

    fn new(parts: Parts<'_>) -> Result<Self, VerifyError> {
        let amz_date: AmzDate = parts.amz_date.trim_ascii().try_into().map_err(|_| VerifyError::Malformed("x-amz-date"))?;
        let signed_at = unix_seconds_of(&amz_date).ok_or(VerifyError::Malformed("x-amz-date"))?;
        // From the right: an id may hold a slash where it is not AWS's.
        let mut scope = parts.credential.rsplitn(if parts.variant == Variant::V4 { 5 } else { 4 }, '/');
        let end = scope.next().unwrap_or_default();
        if end != "aws4_request" {
            return Err(VerifyError::Scope { part: "end", given: end.into() });
        }
        let signing_name = scope.next().ok_or(VerifyError::Malformed("Credential"))?;
        let region = match (parts.variant, parts.regions) {
            (Variant::V4, _) => scope.next().ok_or(VerifyError::Malformed("Credential"))?.to_owned(),
            (Variant::V4a, regions) => {
                String::from_utf8(regions.unwrap_or_default()).map_err(|_| VerifyError::Malformed("x-amz-region-set"))?.trim().to_owned()
            }
        };
        let date = scope.next().ok_or(VerifyError::Malformed("Credential"))?;
        let access_key_id = scope.next().filter(|id| !id.is_empty()).ok_or(VerifyError::Malformed("Credential"))?;
        if Some(date.as_bytes()) != amz_date.get(..8) {
            return Err(VerifyError::ScopeDate);
        }
        let longest = if parts.variant == Variant::V4 { 64 } else { 144 };
        if parts.signature.len() > longest || !parts.signature.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(VerifyError::Malformed("Signature"));
        }
        Ok(Self {
            place: parts.place,
            variant: parts.variant,
            access_key_id: access_key_id.to_owned(),
            region,
            signing_name: signing_name.to_owned(),
            amz_date,
            signed_at,
            expires: parts.expires,
            session_token: parts.session_token,
            signed_headers: parts.signed_headers.split(';').map(str::to_owned).collect(),
            signature: parts.signature.as_bytes().to_vec(),
        })
    }

    /// Checks the request against the credentials that the id stands for. The body is compared with what was signed as far as
    /// `request.payload` tells it ([`Payload::Bytes`] or [`Payload::Digest`]). A raw `+` in the query may be signed as a blank, as a plus
    /// sign, or as it is: signers differ.
    ///
    /// # Errors
    /// [`VerifyError`]; the first that applies, in the order in which they are declared.
    pub fn verify(&self, credentials: &Credentials, request: &Request<'_>, rules: &Rules) -> Result<Verified, VerifyError> {
        if self.access_key_id != credentials.access_key_id() {
            return Err(VerifyError::AccessKey(self.access_key_id.clone()));
        }
        let (given, own) = (self.session_token.as_deref().unwrap_or_default(), credentials.session_token().unwrap_or_default());
        if verify_slices_are_equal(given, own.as_bytes()).is_err() {
            return Err(VerifyError::SessionToken);
        }
        self.check_time(rules)?;
        self.check_headers(request, rules)?;
        let (payload, payload_unchecked) = self.payload(request, rules)?;
        let names = (&*self.region, &*self.signing_name);
        let key = credentials.signing_key(self.variant, date_of(&self.amz_date), names)?;
        let signed = |plus: &'static [u8]| {
            let canonical_request = self.canonical_request(request, rules, &payload, plus)?;
            let mut to_sign = Vec::with_capacity(256);
            push_to_sign(&mut to_sign, self.variant.algorithm().as_bytes(), self.variant, &self.amz_date, names);
            to_sign.extend_from_slice(&hex(&Sha256::digest(&canonical_request).into()));
            let expected = Expected { canonical_request, string_to_sign: to_sign };
            Ok::<_, VerifyError>(if key.verifies(&expected.string_to_sign, &self.signature) { None } else { Some(expected) })
        };
        let mut query_plus = Some(QueryPlus::Blank);
        if let Some(expected) = signed(QueryPlus::Blank.spelling())? {
            let right = |plus: &'static [u8]| Ok::<_, VerifyError>(request.query.contains(&b'+') && signed(plus)?.is_none());
            query_plus = match () {
                () if right(QueryPlus::Plus.spelling())? => Some(QueryPlus::Plus),
                () if right(b"+")? => None,
                () => return Err(VerifyError::Signature(Box::new(expected))),
            };
        }
        let scope = Scope { region: &self.region, signing_name: &self.signing_name, style: rules.style };
        let chunks = match Framing::of_keyword(&payload) {
            Some((framing @ (Framing::Signed | Framing::SignedTrailer), _)) => {
                Some((ChunkSigner::new(credentials, &scope, self.variant, &self.amz_date, &self.signature)?, framing))
            }
            _ => None,
        };
        query_plus = query_plus.filter(|_| request.query.contains(&b'+'));
        Ok(Verified { signature: self.signature.clone(), payload_unchecked, query_plus, chunks })
    }

    fn check_time(&self, rules: &Rules) -> Result<(), VerifyError> {
        let ahead = i64::try_from(self.signed_at).unwrap_or(i64::MAX).saturating_sub(i64::try_from(rules.unix_seconds).unwrap_or(i64::MAX));
        let window = i64::try_from(rules.window).unwrap_or(i64::MAX);
        match self.expires {
            Some(expires) => {
                let end = self.signed_at.saturating_add(expires);
                if rules.unix_seconds > end {
                    return Err(VerifyError::Expired(rules.unix_seconds - end));
                }
            }
            None if ahead < -window => return Err(VerifyError::Skewed(ahead)),
            None => {}
        }
        if ahead > window { Err(VerifyError::Skewed(ahead)) } else { Ok(()) }
    }

    /// `host` and every `x-amz-*` header must be signed, and what is signed must be there.
    fn check_headers(&self, request: &Request<'_>, rules: &Rules) -> Result<(), VerifyError> {
        for name in &self.signed_headers {
            if header(request, name).is_none() {
                return Err(VerifyError::HeaderGone(name.clone()));
            }
        }
        let signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        if !signed("host") {
            return Err(VerifyError::HeaderNotSigned("host".into()));
        }
        let added = |name: &str| name == "x-amz-security-token" && rules.session_token == SessionToken::AddedAfter;
        for (name, _) in request.headers {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if name.starts_with("x-amz-") && !signed(&name) && !added(&name) {
                return Err(VerifyError::HeaderNotSigned(name));
            }
        }
        Ok(())
    }

    /// The canonical request's last line; and whether the body is not compared with it.
    fn payload(&self, request: &Request<'_>, rules: &Rules) -> Result<(Vec<u8>, bool), VerifyError> {
        let actual = match request.payload {
            Payload::Bytes(b"") => Some(*EMPTY_SHA256),
            Payload::Bytes(bytes) => Some(hex(&Sha256::digest(bytes).into())),
            Payload::Digest(digest) => Some(hex(&digest)),
            Payload::Given(_) => None,
        };
        let signed = match (header(request, "x-amz-content-sha256"), self.place, rules.style, request.payload) {
            (Some(signed), ..) => signed.trim_ascii().to_vec(),
            (None, Place::Query, Style::S3, _) => b"UNSIGNED-PAYLOAD".to_vec(),
            (None, Place::Header, Style::S3, _) => return Err(VerifyError::Missing("x-amz-content-sha256")),
            (None, .., Payload::Given(given)) => given.to_vec(),
            (None, ..) => return Ok((actual.unwrap_or(*EMPTY_SHA256).to_vec(), false)),
        };
        let is_hash = signed.len() == 64 && signed.iter().all(u8::is_ascii_hexdigit);
        match actual {
            Some(actual) if is_hash && verify_slices_are_equal(&actual, &signed.to_ascii_lowercase()).is_err() => {
                Err(VerifyError::PayloadHash {
                    signed: String::from_utf8_lossy(&signed).into_owned(),
                    actual: String::from_utf8_lossy(&actual).into_owned(),
                })
            }
            actual => Ok((signed, actual.is_none() || !is_hash)),
        }
    }

    /// `plus`: how a raw `+` in the query is written.
    fn canonical_request(&self, request: &Request<'_>, rules: &Rules, payload: &[u8], plus: &'static [u8]) -> Result<Vec<u8>, VerifyError> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(request.method.as_bytes());
        out.push(b'\n');
        push_path(&mut out, rules.style, request.path, rules.normalize);
        out.push(b'\n');
        let unsigned_token = rules.session_token == SessionToken::AddedAfter;
        let mut query = Query::new(request.query, plus, |name| {
            self.place == Place::Query
                && match &percent_decoded(name)[..] {
                    b"X-Amz-Signature" => true,
                    b"X-Amz-Security-Token" => unsigned_token,
                    _ => false,
                }
        })?;
        query.write(&mut out);
        out.push(b'\n');
        for name in &self.signed_headers {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            for (at, value) in values(request, name).enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                push_value(&mut out, value)?;
            }
            out.push(b'\n');
        }
        out.push(b'\n');
        for (at, name) in self.signed_headers.iter().enumerate() {
            if at > 0 {
                out.push(b';');
            }
            out.extend_from_slice(name.as_bytes());
        }
        out.push(b'\n');
        out.extend_from_slice(payload);
        Ok(out)
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Claim")
            .field("place", &self.place)
            .field("variant", &self.variant)
            .field("region", &self.region)
            .field("signing_name", &self.signing_name)
            .finish_non_exhaustive()
    }
}

struct Parts<'a> {
    place: Place,
    variant: Variant,
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    amz_date: &'a [u8],
    regions: Option<Vec<u8>>,
    expires: Option<u64>,
    session_token: Option<Vec<u8>>,
}

fn variant_of(algorithm: &str) -> Result<Variant, VerifyError> {
    [Variant::V4, Variant::V4a].into_iter().find(|variant| variant.algorithm() == algorithm).ok_or(if algorithm.starts_with("AWS4-") {
        VerifyError::Malformed("algorithm")
    } else {
        VerifyError::Unsigned
    })
}

/// The first value of a header; `name` in small letters.
fn header<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    values(request, name).next()
}

fn values<'a>(request: &Request<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    request.headers.iter().filter(move |(given, _)| given.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value)
}

/// The first value of a query's parameter, decoded.
fn parameter(request: &Request<'_>, name: &str) -> Option<Vec<u8>> {
    request.query.split(|byte| *byte == b'&').find_map(|term| {
        let cut = term.iter().position(|byte| *byte == b'=')?;
        let (given, value) = term.split_at_checked(cut)?;
        (percent_decoded(given) == name.as_bytes()).then(|| percent_decoded(value.get(1..).unwrap_or_default()))
    })
}
