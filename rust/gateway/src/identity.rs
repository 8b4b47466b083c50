//! Who signs: immutable snapshots of credentials by identity, made by Python's keeper and read by every exchange.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sigward_sigv4::Credentials;

/// One identity's state. Cheap to clone.
#[derive(Clone, Default)]
pub struct Identity {
    /// The keys, if the chain has found any.
    pub credentials: Option<Arc<Credentials>>,
    /// The account that the key belongs to, as far as its id tells.
    pub account: Option<Arc<str>>,
    /// Unix seconds; `None`: they do not expire.
    pub expires_at: Option<f64>,
    /// The provider that gave them, as botocore calls it.
    pub provider: Arc<str>,
    /// (provider, why) of the last failed load, in the chain's order; empty after a success.
    pub failures: Arc<[(String, String)]>,
    /// Grows with every publication, good or bad.
    pub version: u64,
}

impl Identity {
    /// The keys, unless they have expired.
    pub fn usable(&self, unix_seconds: u64) -> Option<&Arc<Credentials>> {
        let expired = self.expires_at.is_some_and(|at| at <= unix_seconds as f64);
        self.credentials.as_ref().filter(|_| !expired)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Identity")
            .field("loaded", &self.credentials.is_some())
            .field("provider", &self.provider)
            .field("expires_at", &self.expires_at)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// All of them, by name.
pub type Identities = HashMap<Arc<str>, Identity>;
