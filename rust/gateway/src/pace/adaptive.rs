//! The adaptive limiter of one operation: learns from throttled answers how fast AWS lets it be called.
//!
//! The rate grows along CUBIC's curve (S. Ha, I. Rhee, L. Xu, 2008), with the constants of the AWS SDKs' adaptive mode. Where
//! those fall to 0.7 of the rate *sent* at every throttled answer, this falls once for a burst of them, and from the rate that was
//! *let through*, which is what is looked for: so it neither falls for one mistake many times nor loses a third of what it may have.

use std::time::Duration;

/// CUBIC's scale: the rate regained in a second's third power.
const SCALE: f64 = 0.4;
/// What a throttled answer leaves of the rate that was let through.
const KEPT: f64 = 0.95;
/// Weight of a new measurement.
const SMOOTHING: f64 = 0.8;
/// Seconds that one measurement takes.
const SPAN: f64 = 0.5;
/// Calls a second that are always tried.
pub const LEAST: f64 = 0.5;
/// Seconds for which throttled answers count as one burst.
const BURST: f64 = 0.5;

/// See the module. Off until the first throttled answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive {
    rate: Option<f64>,
    most: f64,
    knee: f64,
    fell: f64,
    first: f64,
    span: f64,
    answered: f64,
    let_through: f64,
    measured: f64,
    passed: f64,
}

impl Adaptive {
    /// Calls a second; `None`: as many as there are.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// An answer came.
    pub fn answered(&mut self, now: Duration, throttled: bool) {
        let now = now.as_secs_f64();
        self.measure(now, throttled);
        if throttled {
            if self.rate.is_some() && now < self.fell + BURST {
                return;
            }
            // What the measurement under way has so far counts, too: while the rate grows, the last one is behind. Too much at first
            // is mended by the next.
            let since = (now - self.span.max(self.first)).max(0.1);
            let through = self.passed.max(self.let_through / since);
            let through = self.rate.map_or(through, |rate| through.min(rate)).max(LEAST);
            self.most = through;
            self.knee = (through * (1.0 - KEPT) / SCALE).cbrt();
            self.fell = now;
            self.rate = Some((through * KEPT).max(LEAST));
        } else if self.rate.is_some() {
            let since = now - self.fell - self.knee;
            let grown = SCALE * since * since * since + self.most;
            self.rate = Some(grown.min(2.0 * self.measured.max(LEAST)).max(LEAST));
        }
    }

    fn measure(&mut self, now: f64, throttled: bool) {
        let span = (now / SPAN).floor() * SPAN;
        if self.answered == 0.0 && self.measured == 0.0 && self.span == 0.0 {
            (self.first, self.span) = (now, span);
        }
        self.answered += 1.0;
        if !throttled {
            self.let_through += 1.0;
        }
        if span > self.span {
            let took = span - self.span;
            let smooth = |old: f64, count: f64| if old == 0.0 { count / took } else { SMOOTHING * count / took + (1.0 - SMOOTHING) * old };
            self.measured = smooth(self.measured, self.answered);
            self.passed = smooth(self.passed, self.let_through);
            (self.answered, self.let_through, self.span) = (0.0, 0.0, span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::cast_sign_loss, reason = "the test's own numbers")]
    fn feed(limiter: &mut Adaptive, from: f64, seconds: f64, rate: f64, throttled: impl Fn(u64) -> bool) -> f64 {
        let calls = (seconds * rate) as u64;
        for call in 0..calls {
            limiter.answered(Duration::from_secs_f64(from + call as f64 / rate), throttled(call));
        }
        from + seconds
    }

    #[test]
    fn it_is_off_until_it_is_needed_and_then_finds_what_is_let_through() {
        let mut limiter = Adaptive::default();
        let now = feed(&mut limiter, 10.0, 5.0, 100.0, |_| false);
        assert_eq!(limiter.rate(), None);
        let now = feed(&mut limiter, now, 2.0, 100.0, |call| call % 2 == 0);
        let rate = limiter.rate().unwrap();
        assert!((40.0..80.0).contains(&rate), "half of 100/s is let through: {rate}");
        feed(&mut limiter, now, 5.0, rate, |_| false);
        assert!(limiter.rate().unwrap() > rate, "it grows again");
    }

    #[test]
    fn it_never_stops_trying() {
        let mut limiter = Adaptive::default();
        feed(&mut limiter, 0.0, 20.0, 10.0, |_| true);
        assert_eq!(limiter.rate(), Some(LEAST));
    }
}
