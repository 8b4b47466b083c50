#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod canonical;
mod credentials;
mod encode;
mod error;
mod sign;
mod time;
pub mod wire;

pub use canonical::is_signed_header;
pub use credentials::Credentials;
pub use error::SignError;
pub use sign::{Options, Payload, Request, Scope, Signed, Steps, Style, sign, sign_with, steps, steps_with};
