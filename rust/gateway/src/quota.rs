//! The retry quota: repeats stop when most of what goes to an endpoint fails, so that they do not add to an outage.
//!
//! As the AWS SDKs' standard mode has it (botocore 1.44, `retries/standard.py`): 500 tokens; a repeat costs some, a success gives
//! some back. One quota serves all clients of an endpoint.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::judge::RetryClass;
use crate::settings::Constants;

/// Tokens at the start, and at most.
pub const CAPACITY: i32 = 500;

/// What a repeat costs.
pub fn cost(constants: Constants, class: RetryClass, timed_out: bool) -> i32 {
    match (constants, class) {
        (Constants::Current, RetryClass::Throttling) => 5,
        (Constants::Current, _) => 14,
        (Constants::Before2026, _) if timed_out => 10,
        (Constants::Before2026, _) => 5,
    }
}

/// The quota of one endpoint.
#[derive(Debug)]
pub struct Quota(AtomicI32);

impl Default for Quota {
    fn default() -> Self {
        Self(AtomicI32::new(CAPACITY))
    }
}

impl Quota {
    /// Takes tokens for a repeat. False: there are not enough.
    pub fn take(&self, tokens: i32) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(tokens).filter(|left| *left >= 0));
        taken.is_ok()
    }

    /// Gives tokens back after a success: what the last repeat cost; 1 if there was none.
    pub fn give(&self, tokens: i32) {
        if self.left() < CAPACITY {
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_add(tokens).min(CAPACITY)));
        }
    }

    /// What is left.
    pub fn left(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_the_repeats_and_successes_bring_them_back() {
        let quota = Quota::default();
        let mut repeats = 0;
        while quota.take(cost(Constants::Current, RetryClass::Transient, false)) {
            repeats += 1;
        }
        assert_eq!((repeats, quota.left()), (35, 10));
        assert!(quota.take(5) && quota.take(5) && !quota.take(5), "throttled repeats cost less");
        quota.give(14);
        assert_eq!(quota.left(), 14);
        (0..1000).for_each(|_| quota.give(1));
        assert_eq!(quota.left(), CAPACITY);
    }
}
