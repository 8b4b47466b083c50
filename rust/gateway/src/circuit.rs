//! The circuit breaker of one endpoint: while it keeps failing, clients are told at once instead of piling up before it.
//!
//! Closed: all go. After so many failures in a row it opens: none go, for a pause that doubles with every failed probe. Then it is
//! half open: one probe at a time goes; its success closes it. Failures are transient ones (no connection, no answer, 500, 502,
//! 503, 504); an answer of any other kind, throttling too, shows that the endpoint works. M. Nygard, "Release It!", 2007.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::settings::CircuitSettings;

/// What the breaker says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It may go.
    Go,
    /// It may go, and what becomes of it decides.
    Probe,
    /// Not now; again after this.
    Refused(Duration),
}

/// For reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All go.
    Closed,
    /// One probe at a time.
    HalfOpen,
    /// None go.
    Open,
}

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const PROBING: u8 = 2;

/// One endpoint's. Times are nanoseconds of the clock that never goes back.
#[derive(Debug, Default)]
pub struct Circuit {
    state: AtomicU8,
    failures: AtomicU32,
    opened: AtomicU32,
    until: AtomicU64,
}

impl Circuit {
    /// Asks whether a request may go.
    pub fn ask(&self, now: Duration) -> Pass {
        let state = self.state.load(Ordering::Acquire);
        if state == CLOSED {
            return Pass::Go;
        }
        let (now, until) = (nanos(now), self.until.load(Ordering::Acquire));
        if now < until {
            return Pass::Refused(Duration::from_nanos(until - now));
        }
        // A probe that never comes back (its client went) must not close the door for ever: another may go after a pause.
        let next = now.saturating_add(PROBE_PATIENCE);
        match self.until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.state.store(PROBING, Ordering::Release);
                Pass::Probe
            }
            Err(later) => Pass::Refused(Duration::from_nanos(later.saturating_sub(now))),
        }
    }

    /// The endpoint gave an answer that shows that it works. True: this closed the circuit.
    pub fn succeeded(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.state.load(Ordering::Acquire) == CLOSED {
            return false;
        }
        self.opened.store(0, Ordering::Relaxed);
        self.state.swap(CLOSED, Ordering::AcqRel) != CLOSED
    }

    /// It failed. True: this opened the circuit. `random`: 0 ≤ random < 1, for jitter.
    pub fn failed(&self, settings: &CircuitSettings, now: Duration, random: f64) -> bool {
        if settings.failures == 0 {
            return false;
        }
        let state = self.state.load(Ordering::Acquire);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // What was under way when it opened tells nothing new.
        if state == OPEN || (state == CLOSED && failures < settings.failures) {
            return false;
        }
        let times = self.opened.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = settings.pause.saturating_mul(1 << times).min(settings.longest).mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0);
        self.until.store(nanos(now).saturating_add(nanos(pause)), Ordering::Release);
        self.state.swap(OPEN, Ordering::AcqRel) != OPEN
    }

    /// For reports.
    pub fn state(&self, now: Duration) -> State {
        match self.state.load(Ordering::Acquire) {
            CLOSED => State::Closed,
            OPEN if nanos(now) < self.until.load(Ordering::Acquire) => State::Open,
            _ => State::HalfOpen,
        }
    }
}

/// Nanoseconds after which a second probe goes.
const PROBE_PATIENCE: u64 = 10_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_opens_probes_and_closes() {
        let settings = CircuitSettings { failures: 3, pause: at(1000), longest: at(3000), ..CircuitSettings::default() };
        let circuit = Circuit::default();
        assert!(!circuit.failed(&settings, at(0), 0.5) && !circuit.failed(&settings, at(0), 0.5));
        circuit.succeeded();
        assert!(!circuit.failed(&settings, at(0), 0.5) && !circuit.failed(&settings, at(0), 0.5), "in a row, not in all");
        assert!(circuit.failed(&settings, at(0), 0.5), "the third opens it");
        assert!(!circuit.failed(&settings, at(0), 0.5), "what was under way does not prolong it");
        assert_eq!((circuit.ask(at(400)), circuit.state(at(400))), (Pass::Refused(at(600)), State::Open));
        assert_eq!((circuit.ask(at(1000)), circuit.state(at(1000))), (Pass::Probe, State::HalfOpen));
        assert!(matches!(circuit.ask(at(1001)), Pass::Refused(_)), "one probe at a time");
        assert!(circuit.failed(&settings, at(1100), 0.5), "a failed probe opens it again, for longer");
        assert_eq!(circuit.ask(at(2100)), Pass::Refused(at(1000)));
        assert_eq!(circuit.ask(at(3100)), Pass::Probe);
        assert!(circuit.failed(&settings, at(3100), 0.5));
        assert_eq!(circuit.ask(at(3100)), Pass::Refused(at(3000)), "at most so long");
        assert_eq!(circuit.ask(at(6100)), Pass::Probe);
        assert!(circuit.succeeded() && !circuit.succeeded());
        assert_eq!((circuit.ask(at(6100)), circuit.state(at(6100))), (Pass::Go, State::Closed));
    }

    #[test]
    fn a_probe_that_is_lost_is_followed_by_another() {
        let settings = CircuitSettings { failures: 1, pause: at(1000), ..CircuitSettings::default() };
        let circuit = Circuit::default();
        assert!(circuit.failed(&settings, at(0), 0.0));
        assert_eq!(circuit.ask(at(2000)), Pass::Probe);
        assert_eq!(circuit.ask(at(11_999)), Pass::Refused(at(1)));
        assert_eq!(circuit.ask(at(12_000)), Pass::Probe);
    }

    #[test]
    fn none_is_none() {
        let circuit = Circuit::default();
        let settings = CircuitSettings { failures: 0, ..CircuitSettings::default() };
        assert!((0..1000).all(|_| !circuit.failed(&settings, at(0), 0.0)));
        assert_eq!(circuit.ask(at(0)), Pass::Go);
    }
}
