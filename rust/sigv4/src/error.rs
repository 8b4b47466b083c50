//! Why a request cannot be signed.

use std::fmt;

/// Why a request cannot be signed. The caller's input is at fault, but for [`SignError::Crypto`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignError {
    /// No `host` among the headers.
    MissingHost,
    /// A field is empty.
    Empty(&'static str),
    /// A field holds a byte that cannot stand there.
    BadByte {
        /// Which field.
        field: &'static str,
        /// Offset of the byte.
        at: usize,
    },
    /// A presigned URL is valid for 1 to 604,800 s, not for so many.
    Expires(u64),
    /// A field is longer than it may be.
    Long {
        /// Which field.
        field: &'static str,
        /// In bytes.
        most: usize,
    },
    /// The cryptographic library failed: no randomness, or no memory.
    Crypto,
    /// The time is beyond the year 9999, which the date format cannot write.
    Time(u64),
}

impl SignError {
    /// For machines.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::MissingHost => "missing-host",
            Self::Empty(_) => "empty-field",
            Self::BadByte { .. } => "bad-byte",
            Self::Expires(_) => "bad-expires",
            Self::Long { .. } => "too-long",
            Self::Crypto => "crypto",
            Self::Time(_) => "bad-time",
        }
    }

    /// The mend.
    pub fn hint(&self) -> String {
        match self {
            Self::MissingHost => "Add a host header: the name the request is sent to.".into(),
            Self::Empty(field) => format!("Give a {field}."),
            Self::BadByte { field, .. } => format!("Give a {field} of printable ASCII, without blanks and line ends."),
            Self::Expires(_) => "Give 1 to 604,800 seconds: at most seven days.".into(),
            Self::Long { field, most } => format!("Give a {field} of at most {most} bytes."),
            Self::Crypto => "Try again.".into(),
            Self::Time(_) => "Give the time in seconds since 1970.".into(),
        }
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingHost => write!(to, "headers: there is no host header"),
            Self::Empty(field) => write!(to, "{field}: it is empty"),
            Self::BadByte { field, at } => write!(to, "{field}: byte {at} cannot stand there"),
            Self::Expires(seconds) => write!(to, "expires: {seconds} s is not 1 to 604,800"),
            Self::Long { field, most } => write!(to, "{field}: it is longer than {most} bytes"),
            Self::Crypto => write!(to, "the signature: the cryptographic library failed"),
            Self::Time(seconds) => write!(to, "time: {seconds} s is beyond the year 9999"),
        }
    }
}

impl std::error::Error for SignError {}
