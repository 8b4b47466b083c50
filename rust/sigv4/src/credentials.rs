//! Keys, and the keys derived from them: one immutable snapshot that is zeroed when it is dropped.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::encode::{hex, push_hex, unhex, unhex_digest};
use crate::sign::{SignatureText, check_part, date_of, push_to_sign};
use crate::time::AmzDate;
use crate::{SignError, Variant};

/// HMAC with its key already worked in. Zeroed when dropped.
pub(crate) type KeyState = Hmac<Sha256>;

/// Derived keys kept; a process rarely signs for more scopes, and deriving one again takes microseconds.
const KEPT: usize = 64;

/// An access key and what was derived from it. The secret, the token and every derived key are zeroed when the last owner
/// drops this; nothing outlives it.
pub struct Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    derived: Mutex<Vec<Derived>>,
    /// Of SigV4a: one for all scopes and days.
    key_pair: OnceLock<Arc<EcdsaKeyPair>>,
}

struct Derived {
    date: [u8; 8],
    region: Box<str>,
    signing_name: Box<str>,
    key: KeyState,
    /// The key with the start of a string to sign worked in: it is the same for all requests of a second.
    second: AmzDate,
    begun: KeyState,
}

impl Credentials {
    /// Takes keys as AWS gives them.
    ///
    /// # Errors
    /// [`SignError::Empty`] or [`SignError::BadByte`], naming the field, for a value that could not stand in a header.
    pub fn new(access_key_id: &str, secret_access_key: &str, session_token: Option<&str>) -> Result<Self, SignError> {
        check("access key id", access_key_id, |byte| byte.is_ascii_graphic() && !b"/,=".contains(&byte))?;
        check("secret access key", secret_access_key, |byte| byte.is_ascii_graphic())?;
        if let Some(token) = session_token {
            check("session token", token, |byte| byte.is_ascii_graphic())?;
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Zeroizing::new(secret_access_key.to_owned()),
            session_token: session_token.map(|token| Zeroizing::new(token.to_owned())),
            derived: Mutex::new(Vec::new()),
            key_pair: OnceLock::new(),
        })
    }

    /// The public half: it stands in every signature.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The token that goes with temporary keys.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }

    /// The signing key for a date and a scope (region, signing name).
    ///
    /// Region and name are checked once, when their key is derived.
    pub(crate) fn signing_key(
        &self,
        variant: Variant,
        date: [u8; 8],
        (region, signing_name): (&str, &str),
    ) -> Result<SigningKey, SignError> {
        Ok(match variant {
            Variant::V4 => SigningKey::Hmac(self.hmac_key(date, region, signing_name)?),
            Variant::V4a => {
                check_scope(region, signing_name)?;
                SigningKey::Ecdsa(self.key_pair()?)
            }
        })
    }

    /// The point of SigV4a's public key, uncompressed (65 bytes: 4, x, y): all that a verifier needs.
    ///
    /// # Errors
    /// [`SignError::Crypto`], if the cryptographic library fails.
    pub fn public_key(&self) -> Result<[u8; 65], SignError> {
        self.key_pair()?.public_key().as_ref().try_into().map_err(|_| SignError::Crypto)
    }

    fn key_pair(&self) -> Result<Arc<EcdsaKeyPair>, SignError> {
        if let Some(pair) = self.key_pair.get() {
            return Ok(Arc::clone(pair));
        }
        let pair = key_pair(&self.secret_access_key, &self.access_key_id)?;
        Ok(Arc::clone(self.key_pair.get_or_init(|| Arc::new(pair))))
    }

    /// Step 3 of a request: over the algorithm, the time, the scope and the canonical request's hash, in hexadecimal digits.
    pub(crate) fn sign_request(
        &self,
        variant: Variant,
        amz_date: &AmzDate,
        (region, signing_name): (&str, &str),
        hash: &[u8; 64],
    ) -> Result<Signature, SignError> {
        let begin = || {
            let mut text = Vec::with_capacity(160 + region.len() + signing_name.len());
            push_to_sign(&mut text, variant.algorithm().as_bytes(), variant, amz_date, (region, signing_name));
            text
        };
        match variant {
            Variant::V4 => {
                // Within the lock: it is held for less time than handing the state out would take.
                let signature = self.with_derived(date_of(amz_date), region, signing_name, |derived| {
                    if derived.second != *amz_date {
                        derived.begun = derived.key.clone();
                        derived.begun.update(&begin());
                        derived.second = *amz_date;
                    }
                    let mut mac = derived.begun.clone();
                    mac.update(hash);
                    <[u8; 32]>::from(mac.finalize().into_bytes())
                })?;
                Ok(Signature::V4(hex(&signature)))
            }
            Variant::V4a => {
                let key = self.signing_key(variant, date_of(amz_date), (region, signing_name))?;
                let mut text = begin();
                text.extend_from_slice(hash);
                Ok(Signature::V4a(key.sign(&text)?.into_vec()))
            }
        }
    }

    /// See "Create a signed AWS API request", step 3: derive a signing key.
    fn hmac_key(&self, date: [u8; 8], region: &str, signing_name: &str) -> Result<KeyState, SignError> {
        self.with_derived(date, region, signing_name, |derived| derived.key.clone())
    }

    fn with_derived<T>(
        &self,
        date: [u8; 8],
        region: &str,
        signing_name: &str,
        job: impl FnOnce(&mut Derived) -> T,
    ) -> Result<T, SignError> {
        let mut kept = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter_mut().find(|kept| kept.date == date && *kept.signing_name == *signing_name && *kept.region == *region);
        if let Some(derived) = known {
            return Ok(job(derived));
        }
        check_scope(region, signing_name)?;
        let key = self.derive(date, region, signing_name);
        let mut derived =
            Derived { date, region: region.into(), signing_name: signing_name.into(), begun: key.clone(), key, second: [0; 16] };
        let result = job(&mut derived);
        // Yesterday's keys are of no more use.
        kept.retain(|kept| kept.date == date);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(derived);
        Ok(result)
    }

    fn derive(&self, date: [u8; 8], region: &str, signing_name: &str) -> KeyState {
        let mut first = Zeroizing::new(Vec::with_capacity(4 + self.secret_access_key.len()));
        first.extend(b"AWS4");
        first.extend(self.secret_access_key.bytes());
        let date_key = digest(&keyed(&first), &date);
        let region_key = digest(&keyed(&*date_key), region.as_bytes());
        let service_key = digest(&keyed(&*region_key), signing_name.as_bytes());
        let signing_key = digest(&keyed(&*service_key), b"aws4_request");
        keyed(&*signing_key)
    }
}

/// Hexadecimal digits.
pub(crate) enum Signature {
    V4([u8; 64]),
    V4a(Vec<u8>),
}

impl Signature {
    #[inline]
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Self::V4(digits) => digits,
            Self::V4a(digits) => digits,
        }
    }
}

pub(crate) fn check_scope(region: &str, signing_name: &str) -> Result<(), SignError> {
    check_part("region", region.as_bytes())?;
    check_part("signing name", signing_name.as_bytes())
}

/// What makes and checks signatures.
#[derive(Clone)]
pub(crate) enum SigningKey {
    Hmac(KeyState),
    Ecdsa(Arc<EcdsaKeyPair>),
}

impl SigningKey {
    /// Step 3: hexadecimal digits.
    pub(crate) fn sign(self, text: &[u8]) -> Result<SignatureText, SignError> {
        match self {
            Self::Hmac(mut mac) => {
                mac.update(text);
                Ok(SignatureText::from_slice(&hex(&mac.finalize().into_bytes().into())))
            }
            Self::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), text).map_err(|_| SignError::Crypto)?;
                let mut digits = SignatureText::new();
                push_hex(&mut digits, signature.as_ref());
                Ok(digits)
            }
        }
    }

    /// True if `signature` (hexadecimal digits) is of this text; compared in constant time.
    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => {
                let mut mac = key.clone();
                mac.update(text);
                unhex_digest(signature).is_some_and(|signature| mac.verify_slice(&signature).is_ok())
            }
            Self::Ecdsa(pair) => unhex(signature).is_some_and(|signature| {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref()).verify(text, &signature).is_ok()
            }),
        }
    }
}

/// The order of P-256 less two.
const ORDER_LESS_TWO: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
    0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x4f,
];

/// SigV4a's key pair: NIST SP 800-108 in counter mode over HMAC-SHA256, until the number fits the curve.
fn key_pair(secret: &str, access_key_id: &str) -> Result<EcdsaKeyPair, SignError> {
    let mut input = Zeroizing::new(Vec::with_capacity(5 + secret.len()));
    input.extend(b"AWS4A");
    input.extend(secret.bytes());
    let key = keyed(&input);
    for counter in 1..=254 {
        let mut fixed = Vec::with_capacity(access_key_id.len() + 32);
        for part in [&[0, 0, 0, 1][..], b"AWS4-ECDSA-P256-SHA256", &[0], access_key_id.as_bytes(), &[counter], &[0, 0, 1, 0]] {
            fixed.extend_from_slice(part);
        }
        let mut number = digest(&key, &fixed);
        if *number > ORDER_LESS_TWO {
            continue;
        }
        // One more, from the last byte on.
        for byte in number.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        // An EC private key (RFC 5915) on P-256 that leaves its public half to the library.
        let mut der = Zeroizing::new(Vec::with_capacity(51));
        der.extend([0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20]);
        der.extend(number.iter());
        der.extend([0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        return EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map_err(|_| SignError::Crypto);
    }
    Err(SignError::Crypto)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = self.access_key_id.get(self.access_key_id.len().saturating_sub(4)..).unwrap_or_default();
        to.debug_struct("Credentials").field("access_key_id", &format_args!("…{tail}")).finish_non_exhaustive()
    }
}

fn check(field: &'static str, value: &str, fits: impl Fn(u8) -> bool) -> Result<(), SignError> {
    if value.is_empty() {
        return Err(SignError::Empty(field));
    }
    value.bytes().position(|byte| !fits(byte)).map_or(Ok(()), |at| Err(SignError::BadByte { field, at }))
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104)")]
fn keyed(key: &[u8]) -> KeyState {
    KeyState::new_from_slice(key).expect("HMAC takes keys of every length")
}

fn digest(key: &KeyState, data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = key.clone();
    mac.update(data);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::new("AKIDEXAMPLE", "very-secret", Some("token-secret")).unwrap();
        let shown = format!("{credentials:?}");
        assert_eq!(shown, "Credentials { access_key_id: …MPLE, .. }");
    }

    #[test]
    fn a_wrong_field_is_named() {
        assert_eq!(Credentials::new("", "s", None).unwrap_err(), SignError::Empty("access key id"));
        assert_eq!(Credentials::new("A", "a\nb", None).unwrap_err(), SignError::BadByte { field: "secret access key", at: 1 });
        assert_eq!(Credentials::new("A", "s", Some("")).unwrap_err(), SignError::Empty("session token"));
        assert_eq!(Credentials::new("A/B", "s", None).unwrap_err().to_string(), "access key id: byte 1 cannot stand there");
    }

    #[test]
    fn derived_keys_are_bounded_and_right_again_after_eviction() {
        let credentials = Credentials::new("A", "s", None).unwrap();
        let first = digest(&credentials.hmac_key(*b"20150830", "r0", "s").unwrap(), b"x");
        for number in 0..3 * KEPT {
            credentials.hmac_key(*b"20150830", &format!("r{number}"), "s").unwrap();
        }
        assert_eq!(credentials.derived.lock().unwrap().len(), KEPT);
        assert_eq!(digest(&credentials.hmac_key(*b"20150830", "r0", "s").unwrap(), b"x"), first);
        credentials.hmac_key(*b"20150831", "r0", "s").unwrap();
        assert_eq!(credentials.derived.lock().unwrap().len(), 1);
    }
}
