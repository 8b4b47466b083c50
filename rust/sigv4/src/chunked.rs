//! Bodies sent in chunks (`aws-chunked`): their signatures, their framing, and the way back.
//!
//! See "Signature calculations for the Authorization header: transferring payload in multiple chunks" and "… including trailing
//! headers" (S3 API Reference). A body is `SIZE;chunk-signature=…`, CR LF, the bytes, CR LF for each chunk, then a chunk of
//! size 0, then trailers.
//!
//! Clients end it in several ways. AWS's SDKs end each trailer in CR LF, and the trailers in an empty line. minio-go (in mc, warp
//! and restic; `pkg/signer`) ends a checksum in LF and puts an empty line before the trailers' signature; unsigned, it ends the
//! trailers in two empty lines. Some leave the last empty line out. [`Decoder`] reads them all, [`Encoder`] writes as AWS's SDKs do.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::credentials::SigningKey;
use crate::encode::hex;
use crate::sign::{EMPTY_SHA256, SignatureText, date_of, push_to_sign};
use crate::{Credentials, Scope, SignError, Variant};

/// An ECDSA signature is as long as its numbers are; in a chunk's head it is filled up to this, so that the length of the
/// body is known before it is signed.
const V4A_WIDTH: usize = 144;
const V4A_FILL: u8 = b'*';

/// How a body in chunks is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Each chunk carries a signature.
    Signed,
    /// And so do the trailers.
    SignedTrailer,
    /// Nothing but trailers guards it, over TLS.
    UnsignedTrailer,
}

impl Framing {
    /// The value of `x-amz-content-sha256` that announces it.
    pub const fn keyword(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Self::Signed, Variant::V4) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            (Self::SignedTrailer, Variant::V4) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            (Self::Signed, Variant::V4a) => "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
            (Self::SignedTrailer, Variant::V4a) => "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
            (Self::UnsignedTrailer, _) => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }
    }

    /// What a value of `x-amz-content-sha256` announces, if it is a body in chunks.
    pub fn of_keyword(keyword: &[u8]) -> Option<(Self, Variant)> {
        [Self::Signed, Self::SignedTrailer, Self::UnsignedTrailer]
            .into_iter()
            .flat_map(|framing| [Variant::V4, Variant::V4a].map(|variant| (framing, variant)))
            .find(|(framing, variant)| framing.keyword(*variant).as_bytes() == keyword)
    }

    /// Bytes of the framed body: `decoded` bytes in chunks of `chunk` (the last may be shorter), and trailers as `trailers`
    /// (names and values) counts them.
    pub fn encoded_length(self, variant: Variant, decoded: u64, chunk: u64, trailers: &[(&[u8], usize)]) -> u64 {
        let width = match (self, variant) {
            (Self::UnsignedTrailer, _) => 0,
            (_, Variant::V4) => 64,
            (_, Variant::V4a) => V4A_WIDTH as u64,
        };
        let signature = if width == 0 { 0 } else { CHUNK_SIGNATURE.len() as u64 + width };
        let framed = |size: u64, count: u64| (hex_length(size) + signature + 4 + size).saturating_mul(count);
        let chunk = chunk.max(1);
        let (whole, rest) = (decoded / chunk, decoded % chunk);
        let last = if rest == 0 { 0 } else { framed(rest, 1) };
        let end = hex_length(0) + signature + 2 + 2;
        let trailers: u64 = trailers.iter().map(|(name, value)| (name.len() + value + 3) as u64).sum();
        let trailer_signature = if self == Self::SignedTrailer { TRAILER_SIGNATURE.len() as u64 + 1 + width + 2 } else { 0 };
        framed(chunk, whole).saturating_add(last).saturating_add(end + trailers + trailer_signature)
    }
}

fn hex_length(size: u64) -> u64 {
    u64::from((64 - size.leading_zeros()).div_ceil(4)).max(1)
}

const CHUNK_SIGNATURE: &[u8] = b";chunk-signature=";
const TRAILER_SIGNATURE: &[u8] = b"x-amz-trailer-signature";

/// Signs chunk after chunk: each signature covers the one before, and the first covers the request's.
#[derive(Clone)]
pub struct ChunkSigner {
    key: SigningKey,
    variant: Variant,
    chunk: Vec<u8>,
    trailer: Vec<u8>,
    previous: SignatureText,
}

impl ChunkSigner {
    /// `amz_date` and `seed` (the request's signature) as [`crate::Signed`] gives them.
    ///
    /// # Errors
    /// [`SignError`], naming the part of the scope that cannot be signed.
    pub fn new(
        credentials: &Credentials,
        scope: &Scope<'_>,
        variant: Variant,
        amz_date: &[u8; 16],
        seed: &[u8],
    ) -> Result<Self, SignError> {
        let names = (scope.region, scope.signing_name);
        let text = |what: &str| {
            let mut text = Vec::with_capacity(320);
            push_to_sign(&mut text, format!("{}-{what}", variant.algorithm()).as_bytes(), variant, amz_date, names);
            text
        };
        Ok(Self {
            key: credentials.signing_key(variant, date_of(amz_date), names)?,
            variant,
            chunk: text("PAYLOAD"),
            trailer: text("TRAILER"),
            previous: SignatureText::from_slice(seed),
        })
    }

    /// The signature of the next chunk, in hexadecimal digits. The last chunk is empty.
    ///
    /// # Errors
    /// [`SignError::Crypto`], if the cryptographic library fails.
    pub fn chunk(&mut self, data: &[u8]) -> Result<&[u8], SignError> {
        self.digest(&Sha256::digest(data).into())
    }

    /// [`ChunkSigner::chunk`] by the SHA-256 of its bytes.
    ///
    /// # Errors
    /// As [`ChunkSigner::chunk`].
    pub fn digest(&mut self, digest: &[u8; 32]) -> Result<&[u8], SignError> {
        let text = self.chunk_text(digest);
        self.previous = self.key.clone().sign(&text)?;
        Ok(&self.previous)
    }

    /// The signature of the trailers, in the order in which they are sent, after the last chunk's.
    ///
    /// # Errors
    /// As [`ChunkSigner::chunk`].
    pub fn trailer(&mut self, trailers: &[(&[u8], &[u8])]) -> Result<&[u8], SignError> {
        let text = self.trailer_text(&canonical_trailers(trailers.iter().copied()));
        self.previous = self.key.clone().sign(&text)?;
        Ok(&self.previous)
    }

    fn chunk_text(&self, digest: &[u8; 32]) -> Vec<u8> {
        let mut text = self.chunk.clone();
        for part in [&self.previous[..], b"\n", EMPTY_SHA256, b"\n", &hex(digest)] {
            text.extend_from_slice(part);
        }
        text
    }

    fn trailer_text(&self, canonical: &[u8]) -> Vec<u8> {
        let mut text = self.trailer.clone();
        for part in [&self.previous[..], b"\n", &hex(&Sha256::digest(canonical).into())] {
            text.extend_from_slice(part);
        }
        text
    }

    /// True if this is the next chunk's signature; on it goes from there.
    fn accepts(&mut self, text: &[u8], signature: &[u8]) -> bool {
        let signature = unfilled(signature);
        let valid = self.key.verifies(text, signature);
        self.previous = SignatureText::from_slice(signature);
        valid
    }
}

impl fmt::Debug for ChunkSigner {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("ChunkSigner").field("variant", &self.variant).finish_non_exhaustive()
    }
}

fn unfilled(signature: &[u8]) -> &[u8] {
    let end = signature.iter().rposition(|byte| *byte != V4A_FILL).map_or(0, |at| at + 1);
    signature.get(..end).unwrap_or_default()
}

/// `name:value`, a line each.
fn canonical_trailers<'a>(trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    for (name, value) in trailers {
        out.extend(name.trim_ascii().iter().map(u8::to_ascii_lowercase));
        out.push(b':');
        out.extend_from_slice(value.trim_ascii());
        out.push(b'\n');
    }
    out
}

/// Frames a body in chunks. The bytes themselves are not copied: what is written is what stands before and after them.
#[derive(Debug)]
pub struct Encoder {
    signer: Option<ChunkSigner>,
    framing: Framing,
}

/// What stands after each chunk's bytes.
pub const CHUNK_END: &[u8] = b"\r\n";

impl Encoder {
    /// With signatures. `trailers`: some will follow ([`Framing::SignedTrailer`]).
    pub fn signed(signer: ChunkSigner, trailers: bool) -> Self {
        Self { signer: Some(signer), framing: if trailers { Framing::SignedTrailer } else { Framing::Signed } }
    }

    /// Without ([`Framing::UnsignedTrailer`]).
    pub fn unsigned() -> Self {
        Self { signer: None, framing: Framing::UnsignedTrailer }
    }

    /// Its kind.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Writes what stands before a chunk; its bytes and [`CHUNK_END`] follow. S3 takes chunks of 8 KiB and more, but for the
    /// last. An empty one would end the body: it is left out, with what would stand around it.
    ///
    /// # Errors
    /// As [`ChunkSigner::chunk`].
    pub fn head(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), SignError> {
        if data.is_empty() { Ok(()) } else { self.write_head(data, out) }
    }

    /// True if chunks carry signatures, so that [`Encoder::head_of`] needs their digests.
    pub fn is_signed(&self) -> bool {
        self.signer.is_some()
    }

    /// [`Encoder::head`] for bytes that lie in pieces: their count, and their SHA-256 if [`Encoder::is_signed`].
    ///
    /// # Errors
    /// As [`Encoder::head`].
    pub fn head_of(&mut self, size: usize, digest: &[u8; 32], out: &mut Vec<u8>) -> Result<(), SignError> {
        if size == 0 { Ok(()) } else { self.write_head_of(size, digest, out) }
    }

    fn write_head(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), SignError> {
        let digest = if self.is_signed() { Sha256::digest(data).into() } else { [0; 32] };
        self.write_head_of(data.len(), &digest, out)
    }

    fn write_head_of(&mut self, size: usize, digest: &[u8; 32], out: &mut Vec<u8>) -> Result<(), SignError> {
        out.extend_from_slice(format!("{size:x}").as_bytes());
        if let Some(signer) = &mut self.signer {
            let variant = signer.variant;
            out.extend_from_slice(CHUNK_SIGNATURE);
            push_filled(out, variant, signer.digest(digest)?);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes a chunk whole: for small ones.
    ///
    /// # Errors
    /// As [`Encoder::head`].
    pub fn chunk(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), SignError> {
        if !data.is_empty() {
            self.write_head(data, out)?;
            out.extend_from_slice(data);
            out.extend_from_slice(CHUNK_END);
        }
        Ok(())
    }

    /// Writes the last chunk and the trailers (of which [`Framing::Signed`] has none): the body is over.
    ///
    /// # Errors
    /// [`SignError::BadByte`] for a trailer that would break the framing, or as [`Encoder::head`].
    pub fn finish(mut self, trailers: &[(&[u8], &[u8])], out: &mut Vec<u8>) -> Result<(), SignError> {
        let trailers = if self.framing == Framing::Signed { &[] } else { trailers };
        for (name, value) in trailers {
            let bad = |bytes: &[u8]| bytes.iter().position(|byte| byte.is_ascii_control() || *byte == 0);
            if let Some(at) = bad(name).or_else(|| name.iter().position(|byte| *byte == b':')) {
                return Err(SignError::BadByte { field: "trailer name", at });
            }
            if let Some(at) = bad(value) {
                return Err(SignError::BadByte { field: "trailer value", at });
            }
        }
        self.write_head(b"", out)?;
        for (name, value) in trailers {
            out.extend_from_slice(name);
            out.push(b':');
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        if let (Some(signer), Framing::SignedTrailer) = (&mut self.signer, self.framing) {
            let variant = signer.variant;
            out.extend_from_slice(TRAILER_SIGNATURE);
            out.push(b':');
            push_filled(out, variant, signer.trailer(trailers)?);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn push_filled(out: &mut Vec<u8>, variant: Variant, signature: &[u8]) {
    out.extend_from_slice(signature);
    if variant == Variant::V4a {
        out.resize(out.len() + V4A_WIDTH.saturating_sub(signature.len()), V4A_FILL);
    }
}

/// What a [`Decoder`] finds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body itself.
    Data(&'a [u8]),
    /// A trailer, as sent, without blanks around its value. The trailers' signature is none.
    Trailer {
        /// In the case in which it was sent.
        name: Vec<u8>,
        /// Without blanks around it.
        value: Vec<u8>,
    },
}

/// Why a body in chunks cannot be read, or is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkError {
    /// A chunk's size is no hexadecimal number below 2^63.
    Size,
    /// The head of a chunk, or a trailer, is longer than it may be.
    Long,
    /// No CR LF where a line or a chunk must end. A trailer may end in LF alone.
    LineEnd,
    /// A trailer has no colon, or no name.
    Trailer,
    /// Too many trailers.
    Trailers,
    /// It ends before its last chunk.
    Truncated,
    /// Something follows its end.
    Extra,
    /// The signature of a chunk (counted from 0) is missing or not its own.
    Signature {
        /// Which.
        chunk: u64,
    },
    /// The trailers' signature is missing or not theirs.
    TrailerSignature,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => write!(to, "a chunk's size is not a hexadecimal number"),
            Self::Long => write!(to, "a chunk's head or a trailer is longer than {LINE} bytes"),
            Self::LineEnd => write!(to, "a line or a chunk does not end in CR LF"),
            Self::Trailer => write!(to, "a trailer is not `name: value`"),
            Self::Trailers => write!(to, "there are more than {TRAILERS} trailers"),
            Self::Truncated => write!(to, "the body ends before its last chunk"),
            Self::Extra => write!(to, "something follows the end of the body"),
            Self::Signature { chunk } => write!(to, "the signature of chunk {chunk} is missing or wrong"),
            Self::TrailerSignature => write!(to, "the trailers' signature is missing or wrong"),
        }
    }
}

impl std::error::Error for ChunkError {}

const LINE: usize = 4096;
const TRAILERS: usize = 32;

/// Name and value.
type Trailer = (Vec<u8>, Vec<u8>);

/// Reads a body in chunks, however it is cut, holding no more than a line of it. With a signer it checks every signature: a
/// chunk's bytes come before its signature can be checked, so nothing may be believed before [`Decoder::end`].
#[derive(Debug)]
pub struct Decoder {
    state: DecoderState,
    line: Vec<u8>,
    checker: Option<Checker>,
    trailers: Vec<Trailer>,
    trailer_signature: Option<Vec<u8>>,
    decoded: u64,
    failed: Option<ChunkError>,
}

#[derive(Debug)]
struct Checker {
    signer: ChunkSigner,
    trailers: bool,
    hash: Sha256,
    signature: Vec<u8>,
    chunk: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecoderState {
    Head,
    Data {
        left: u64,
    },
    DataEnd {
        line_feed: bool,
    },
    Trailer,
    /// Behind the empty line after the trailers: their signature may follow, and one more empty line.
    TrailerEnd,
    Done,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Believes what it reads.
    pub fn new() -> Self {
        Self {
            state: DecoderState::Head,
            line: Vec::new(),
            checker: None,
            trailers: Vec::new(),
            trailer_signature: None,
            decoded: 0,
            failed: None,
        }
    }

    /// Checks signatures. `trailers`: they must be signed ([`Framing::SignedTrailer`]).
    pub fn checking(signer: ChunkSigner, trailers: bool) -> Self {
        let checker = Checker { signer, trailers, hash: Sha256::new(), signature: Vec::new(), chunk: 0 };
        Self { checker: Some(checker), ..Self::new() }
    }

    /// Bytes of the body itself so far.
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    /// Takes from `input` and gives what it finds; `None`: `input` is used up. After an error, the same error again.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ChunkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance(input).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// No more input will come: only this tells that the body is whole. The empty line after the trailers may be left out.
    ///
    /// # Errors
    /// [`ChunkError::Truncated`], or as [`Decoder::next`].
    pub fn end(&mut self) -> Result<(), ChunkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.state {
            DecoderState::Trailer | DecoderState::TrailerEnd | DecoderState::Done if self.line.is_empty() => self.check_trailers(),
            _ => Err(ChunkError::Truncated),
        }
        .inspect_err(|error| self.failed = Some(error.clone()))?;
        self.state = DecoderState::Done;
        self.checker = None;
        Ok(())
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ChunkError> {
        loop {
            match self.state {
                DecoderState::Head => {
                    let Some(line) = self.take_line(input)? else { return Ok(None) };
                    self.begin_chunk(line.strip_suffix(b"\r").ok_or(ChunkError::LineEnd)?)?;
                }
                DecoderState::Data { left } => {
                    let take = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if take == 0 {
                        return Ok(None);
                    }
                    let (data, rest) = input.split_at_checked(take).unwrap_or((input, b""));
                    *input = rest;
                    let left = left - take as u64;
                    self.state = if left == 0 { DecoderState::DataEnd { line_feed: false } } else { DecoderState::Data { left } };
                    self.decoded = self.decoded.saturating_add(take as u64);
                    if let Some(checker) = &mut self.checker {
                        checker.hash.update(data);
                        if left == 0 {
                            checker.end_chunk()?;
                        }
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                DecoderState::DataEnd { line_feed } => {
                    let Some((byte, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    self.state = match (line_feed, byte) {
                        (false, b'\r') => DecoderState::DataEnd { line_feed: true },
                        (true, b'\n') => DecoderState::Head,
                        _ => return Err(ChunkError::LineEnd),
                    };
                }
                DecoderState::Trailer => {
                    let Some(line) = self.take_line(input)? else { return Ok(None) };
                    if line == b"\r" {
                        self.state = if self.trailers.is_empty() { DecoderState::Done } else { DecoderState::TrailerEnd };
                    } else if let Some((name, value)) = self.trailer(trailer_line(&line)?)? {
                        return Ok(Some(Piece::Trailer { name, value }));
                    }
                }
                DecoderState::TrailerEnd => {
                    let Some(line) = self.take_line(input)? else { return Ok(None) };
                    if line == b"\r" {
                        self.state = DecoderState::Done;
                    } else if self.trailer_signature.is_some() || self.trailer(trailer_line(&line)?)?.is_some() {
                        return Err(ChunkError::Extra);
                    }
                }
                DecoderState::Done if input.is_empty() => return Ok(None),
                DecoderState::Done => return Err(ChunkError::Extra),
            }
        }
    }

    /// A line without its LF, once it is whole.
    fn take_line(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, ChunkError> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + take > LINE {
            return Err(ChunkError::Long);
        }
        let (part, rest) = input.split_at_checked(take).unwrap_or_default();
        self.line.extend_from_slice(part);
        *input = rest;
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        Ok(Some(line))
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        let cut = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
        let (digits, extension) = line.split_at_checked(cut).unwrap_or_default();
        let digits = digits.trim_ascii();
        let size = Some(digits)
            .filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
            .filter(|size| i64::try_from(*size).is_ok())
            .ok_or(ChunkError::Size)?;
        if let Some(checker) = &mut self.checker {
            let signature = extension.strip_prefix(CHUNK_SIGNATURE).ok_or(ChunkError::Signature { chunk: checker.chunk })?;
            checker.signature = signature.trim_ascii().to_vec();
        }
        self.state = if size == 0 { DecoderState::Trailer } else { DecoderState::Data { left: size } };
        match &mut self.checker {
            Some(checker) if size == 0 => checker.end_chunk(),
            _ => Ok(()),
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<Option<Trailer>, ChunkError> {
        let cut = line.iter().position(|byte| *byte == b':').ok_or(ChunkError::Trailer)?;
        let (name, value) = line.split_at_checked(cut).unwrap_or_default();
        let (name, value) = (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
        if name.is_empty() {
            return Err(ChunkError::Trailer);
        }
        if name.eq_ignore_ascii_case(TRAILER_SIGNATURE) {
            self.trailer_signature = Some(value.to_vec());
            return Ok(None);
        }
        if self.trailers.len() >= TRAILERS {
            return Err(ChunkError::Trailers);
        }
        let trailer = (name.to_vec(), value.to_vec());
        self.trailers.push(trailer.clone());
        Ok(Some(trailer))
    }

    fn check_trailers(&mut self) -> Result<(), ChunkError> {
        let Some(checker) = &mut self.checker else { return Ok(()) };
        if !checker.trailers {
            return if self.trailers.is_empty() { Ok(()) } else { Err(ChunkError::TrailerSignature) };
        }
        let canonical = canonical_trailers(self.trailers.iter().map(|(name, value)| (&name[..], &value[..])));
        let text = checker.signer.trailer_text(&canonical);
        let signature = self.trailer_signature.take().ok_or(ChunkError::TrailerSignature)?;
        if checker.signer.accepts(&text, &signature) { Ok(()) } else { Err(ChunkError::TrailerSignature) }
    }
}

/// Without CR, or as it is if it ends in LF right after its last character.
fn trailer_line(line: &[u8]) -> Result<&[u8], ChunkError> {
    match line.strip_suffix(b"\r") {
        Some(line) => Ok(line),
        None if line.last().is_some_and(|byte| !byte.is_ascii_whitespace()) => Ok(line),
        None => Err(ChunkError::LineEnd),
    }
}

impl Checker {
    fn end_chunk(&mut self) -> Result<(), ChunkError> {
        let digest = self.hash.finalize_reset().into();
        let text = self.signer.chunk_text(&digest);
        let chunk = self.chunk;
        self.chunk += 1;
        if self.signer.accepts(&text, &std::mem::take(&mut self.signature)) { Ok(()) } else { Err(ChunkError::Signature { chunk }) }
    }
}
