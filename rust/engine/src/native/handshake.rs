//! Why TLS with a client did not come about, for the client, the log and the metrics.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Mutex, PoisonError};

use rustls::{AlertDescription, Error};

use crate::system::unix_seconds;

/// A handshake's first byte.
pub(super) const TLS: u8 = 0x16;
/// Fatal alerts as records (RFC 8446, sections 5.1 and 6.2), for handshakes that have not begun on our side.
pub(super) const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
pub(super) const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
pub(super) const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// What the log tells once a day is remembered for so many.
const MOST_TOLD: usize = 4096;

/// What the log has told.
#[derive(Debug, Default)]
pub(super) struct Told {
    hasher: RandomState,
    known: Mutex<HashSet<u64>>,
}

impl Told {
    /// True the first time on each day, for each pair.
    pub(super) fn is_new(&self, who: &str, what: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TOLD {
            known.clear();
        }
        known.insert(self.hasher.hash_one((unix_seconds() / 86_400, who, what)))
    }
}

/// A word for the metric, and words for the log.
pub(super) fn reason(error: &io::Error) -> (&'static str, String) {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        let closed = "the client has closed the connection. If that is so each time, it may not trust the CA";
        return ("closed", if error.kind() == io::ErrorKind::UnexpectedEof { closed.into() } else { error.to_string() });
    };
    match error {
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied,
        ) => ("untrusted", format!("the client does not trust the CA ({error}). docs/trust.md says how it learns to")),
        Error::AlertReceived(AlertDescription::CertificateExpired) => (
            "untrusted",
            "the client says that the certificate has expired, or is not valid yet: is its clock right, and has the CA expired?".into(),
        ),
        Error::AlertReceived(_) => ("alert", format!("the client says: {error}")),
        Error::NoApplicationProtocol => {
            ("alpn", "the client offers no protocol that is served: HTTP/1.1, or HTTP/2 unless client_http2 is \"never\"".into())
        }
        Error::PeerIncompatible(why) => ("incompatible", format!("the client and sigward have nothing in common ({why:?})")),
        Error::InvalidMessage(_)
        | Error::DecryptError
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_) => ("malformed", format!("the client does not keep to the protocol ({error})")),
        other => ("other", other.to_string()),
    }
}

/// What ALPN offered, for the log.
pub(super) fn shown(protocols: &[Vec<u8>]) -> String {
    const MOST: usize = 3;
    if protocols.is_empty() {
        return "TLS for another name".into();
    }
    let names: Vec<String> = protocols.iter().take(MOST).map(|name| format!("{:?}", String::from_utf8_lossy(name))).collect();
    format!("ALPN {}", names.join(", "))
}
