#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod canonical;
mod checksum;
pub mod chunked;
mod credentials;
pub mod difference;
mod encode;
mod error;
pub mod event;
mod out;
mod sign;
pub mod time;
pub mod verify;
pub mod wire;

pub use canonical::{UNSIGNED_HEADERS, is_signed_header};
pub use checksum::{Checksum, ChecksumAlgorithm};
pub use credentials::Credentials;
pub use error::SignError;
pub use sign::{
    MAX_EXPIRES, Options, Payload, Presigned, QueryPlus, Request, Scope, SessionToken, Signed, Steps, Style, Variant, presign,
    presign_steps, sign, sign_lines, sign_with, steps, steps_with,
};
