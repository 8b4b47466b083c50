//! Keys, and the keys derived from them: one immutable snapshot that is zeroed when it is dropped.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::SignError;

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
}

struct Derived {
    date: [u8; 8],
    region: Box<str>,
    signing_name: Box<str>,
    key: KeyState,
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

    /// The signing key for a date and a scope. See "Create a signed AWS API request", step 3: derive a signing key.
    pub(crate) fn signing_key(&self, date: [u8; 8], region: &str, signing_name: &str) -> KeyState {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let known = derived.iter().position(|kept| kept.date == date && *kept.signing_name == *signing_name && *kept.region == *region);
        if let Some(kept) = known.and_then(|at| derived.get(at)) {
            return kept.key.clone();
        }
        let key = self.derive(date, region, signing_name);
        // Yesterday's keys are of no more use.
        derived.retain(|kept| kept.date == date);
        if derived.len() >= KEPT {
            derived.remove(0);
        }
        derived.push(Derived { date, region: region.into(), signing_name: signing_name.into(), key: key.clone() });
        key
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
        let first = digest(&credentials.signing_key(*b"20150830", "r0", "s"), b"x");
        for number in 0..3 * KEPT {
            credentials.signing_key(*b"20150830", &format!("r{number}"), "s");
        }
        assert_eq!(credentials.derived.lock().unwrap().len(), KEPT);
        assert_eq!(digest(&credentials.signing_key(*b"20150830", "r0", "s"), b"x"), first);
        credentials.signing_key(*b"20150831", "r0", "s");
        assert_eq!(credentials.derived.lock().unwrap().len(), 1);
    }
}
