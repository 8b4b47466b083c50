//! Event streams: each message carries a signature over the one before (Transcribe, Bedrock's bidirectional streams).
//!
//! See "Event stream encoding" (Amazon Transcribe Developer Guide) and "Smithy's event stream specification". A request that opens a stream is signed with
//! the payload [`EVENTS`].

use std::fmt;

use crc_fast::{CrcAlgorithm, checksum};
use sha2::{Digest, Sha256};

use crate::credentials::check_scope;
use crate::encode::{hex, unhex};
use crate::sign::{SignatureText, date_of, push_to_sign};
use crate::time::amz_date;
use crate::{Credentials, Payload, Scope, SignError, Variant};

/// The value of `x-amz-content-sha256` of a request that opens an event stream.
pub const KEYWORD: &str = "STREAMING-AWS4-HMAC-SHA256-EVENTS";

/// The payload of such a request.
pub const EVENTS: Payload<'static> = Payload::Given(KEYWORD.as_bytes());

/// The longest payload that a message holds (the specification's limit): 24 MiB.
pub const MAX_EVENT: usize = 24 << 20;

/// Wraps messages in signed ones.
#[derive(Clone)]
pub struct EventSigner {
    region: String,
    signing_name: String,
    previous: SignatureText,
}

impl EventSigner {
    /// `seed`: the signature of the request that opened the stream, in hexadecimal digits.
    ///
    /// # Errors
    /// [`SignError`], naming the part of the scope that cannot be signed.
    pub fn new(scope: &Scope<'_>, seed: &[u8]) -> Result<Self, SignError> {
        check_scope(scope.region, scope.signing_name)?;
        Ok(Self { region: scope.region.into(), signing_name: scope.signing_name.into(), previous: SignatureText::from_slice(seed) })
    }

    /// The message that carries `payload` (a message itself, encoded; empty at the stream's end), signed at a time in
    /// seconds since 1970: the header and the signature must tell the same.
    ///
    /// # Errors
    /// [`SignError::Long`] for more than [`MAX_EVENT`], [`SignError::Time`].
    pub fn sign(&mut self, credentials: &Credentials, payload: &[u8], unix_seconds: u64) -> Result<Vec<u8>, SignError> {
        if payload.len() > MAX_EVENT {
            return Err(SignError::Long { field: "event", most: MAX_EVENT });
        }
        let amz_date = amz_date(unix_seconds)?;
        let names = (&*self.region, &*self.signing_name);
        let mut headers = Vec::with_capacity(66);
        push_name(&mut headers, b":date", TIMESTAMP);
        headers.extend_from_slice(&(unix_seconds * 1000).to_be_bytes());
        let mut text = Vec::with_capacity(320);
        push_to_sign(&mut text, b"AWS4-HMAC-SHA256-PAYLOAD", Variant::V4, &amz_date, names);
        text.extend_from_slice(&self.previous);
        for part in [&headers[..], payload] {
            text.push(b'\n');
            text.extend_from_slice(&hex(&Sha256::digest(part).into()));
        }
        self.previous = credentials.signing_key(Variant::V4, date_of(&amz_date), names)?.sign(&text)?;
        let signature = unhex(&self.previous).unwrap_or_default();
        push_name(&mut headers, b":chunk-signature", BYTES);
        headers.extend_from_slice(&(signature.len() as u16).to_be_bytes());
        headers.extend_from_slice(&signature);
        Ok(message(&headers, payload))
    }

    /// The last signature, in hexadecimal digits.
    pub fn previous(&self) -> &[u8] {
        &self.previous
    }
}

impl fmt::Debug for EventSigner {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("EventSigner").field("region", &self.region).field("signing_name", &self.signing_name).finish_non_exhaustive()
    }
}

/// The types of a header's value.
const BYTES: u8 = 6;
const TIMESTAMP: u8 = 8;

fn push_name(headers: &mut Vec<u8>, name: &[u8], value_type: u8) {
    headers.push(name.len() as u8);
    headers.extend_from_slice(name);
    headers.push(value_type);
}

/// Total length, length of the headers, CRC-32 of both; headers, payload; CRC-32 of all that.
fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = headers.len() + payload.len() + 16;
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32IsoHdlc, bytes) as u32
}
