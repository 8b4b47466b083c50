//! What is learnt while requests go by, and outlives a change of settings: endpoints' clocks and health, where buckets are.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::circuit::Circuit;
use crate::pace::Pacer;
use crate::quota::Quota;
use crate::throttles::Throttles;

/// Endpoints, and buckets, that are remembered.
const MOST: usize = 4096;

/// Hosts that the table does not have, and that are reported.
const MOST_UNKNOWN: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Live {
    /// Token buckets.
    pub pacer: Arc<Pacer>,
    /// What AWS throttles.
    pub throttles: Throttles,
    endpoints: Mutex<HashMap<Box<str>, Arc<Endpoint>>>,
    regions: Mutex<HashMap<Box<str>, Arc<str>>>,
    unknown: Mutex<HashSet<Box<str>>>,
    /// Seconds that the sources of credentials are ahead of us, as their answers tell.
    sources: Clock,
}

/// One upstream, for everybody.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// `host`, or `host:port`.
    pub name: Box<str>,
    /// Tokens for repeats.
    pub quota: Quota,
    /// Whether it works.
    pub circuit: Circuit,
    /// Requests that it has not answered yet.
    pub in_flight: AtomicU32,
    /// Seconds that its clock is ahead of ours, as its answers taught. One endpoint's answer never changes another's signatures.
    skew: AtomicI64,
    /// The same as its last answer was dated. Keys expire by it; what is signed follows `skew` alone.
    heard: Clock,
    /// Whether there was an answer.
    answered: AtomicBool,
    /// A clock that is not followed was reported.
    clock_reported: AtomicBool,
    /// That it refuses clients' own credentials was reported.
    refusal_reported: AtomicBool,
}

impl Endpoint {
    /// Seconds that its clock is ahead of ours.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// Its clock, when ours shows this. Signatures follow it, the system's clock does not.
    pub fn clock(&self, unix_seconds: u64) -> u64 {
        unix_seconds.saturating_add_signed(self.skew())
    }

    /// Notes how an answer is dated: seconds ahead of ours; `None`: not at all.
    pub fn hear(&self, ahead: Option<i64>) {
        if let Some(ahead) = ahead {
            self.heard.hear(ahead);
        }
        // The hot path only reads, but for the first time.
        if !self.is_heard() {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// True once it has answered: it has said what time it is, or does not say.
    pub fn is_heard(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The time by which keys have expired there: the earlier of what it was corrected to and what it says. It refuses them itself
    /// where that is too early.
    pub fn expiry_clock(&self, unix_seconds: u64) -> u64 {
        let heard = self.heard.ahead().map_or(u64::MAX, |ahead| unix_seconds.saturating_add_signed(ahead));
        self.clock(unix_seconds).min(heard)
    }

    /// Notes that its clock is so many seconds ahead. `false`: no clock is that wrong, and nothing is corrected.
    pub fn learn_skew(&self, ahead: i64) -> bool {
        let plausible = ahead.unsigned_abs() <= MOST_SKEW;
        if plausible {
            self.skew.store(ahead, Ordering::Relaxed);
        }
        plausible
    }

    /// True the first time.
    pub fn reports_clock(&self) -> bool {
        !self.clock_reported.swap(true, Ordering::Relaxed)
    }

    /// True the first time.
    pub fn reports_refusal(&self) -> bool {
        !self.refusal_reported.swap(true, Ordering::Relaxed)
    }
}

/// Seconds that another's clock is ahead of ours; none at first.
#[derive(Debug)]
struct Clock(AtomicI64);

impl Default for Clock {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Clock {
    fn hear(&self, ahead: i64) {
        if ahead.unsigned_abs() <= MOST_SKEW {
            self.0.store(ahead, Ordering::Relaxed);
        }
    }

    fn ahead(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ahead| *ahead != i64::MIN)
    }
}

/// An endpoint's clock that differs by more is not followed, seconds: rather than ours, its `Date` is wrong, or forged.
pub const MOST_SKEW: u64 = 86_400;

/// A request that is under way to an endpoint.
#[derive(Debug)]
pub struct UnderWay(Arc<Endpoint>);

impl UnderWay {
    /// One more, if there are fewer than `most` (0: any number).
    pub fn begin(endpoint: &Arc<Endpoint>, most: u32) -> Option<Self> {
        let before = endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        let one = Self(Arc::clone(endpoint));
        (most == 0 || before < most).then_some(one)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// The endpoint of a name.
    pub fn endpoint(&self, name: &str) -> Arc<Endpoint> {
        let mut endpoints = locked(&self.endpoints);
        if let Some(known) = endpoints.get(name) {
            return Arc::clone(known);
        }
        if endpoints.len() >= MOST {
            // Names of buckets can be any number: those that nobody uses go.
            endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let made = Arc::new(Endpoint { name: name.into(), ..Endpoint::default() });
        if endpoints.len() < MOST {
            endpoints.insert(name.into(), Arc::clone(&made));
        }
        made
    }

    /// All of them.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        locked(&self.endpoints).values().map(Arc::clone).collect()
    }

    /// Seconds that the world is ahead of this host, so that one endpoint that is wrong counts for nothing: as most endpoints say, else
    /// the sources of credentials. `None`: nobody has said.
    pub fn ahead(&self) -> Option<i64> {
        let mut heard: Vec<i64> = locked(&self.endpoints).values().filter_map(|endpoint| endpoint.heard.ahead()).collect();
        heard.sort_unstable();
        heard.get(heard.len() / 2).copied().or_else(|| self.sources.ahead())
    }

    /// Notes how a source of credentials dates its answers.
    pub fn hear_source(&self, ahead: i64) {
        self.sources.hear(ahead);
    }

    /// True the first time for a host that the table does not have. Clients make up any number of names: after a while, none is reported.
    pub fn reports_unknown(&self, host: &str) -> bool {
        let mut unknown = locked(&self.unknown);
        unknown.len() < MOST_UNKNOWN && unknown.insert(host.into())
    }

    /// Where S3 said that a bucket is.
    pub fn region_of(&self, bucket: &str) -> Option<Arc<str>> {
        locked(&self.regions).get(bucket).map(Arc::clone)
    }

    /// What S3 said of a bucket does not hold.
    pub fn forget_region(&self, bucket: &str) {
        locked(&self.regions).remove(bucket);
    }

    /// Remembers where S3 said that a bucket is. `bucket`: partition and name.
    pub fn learn_region(&self, bucket: &str, region: &str) {
        let mut regions = locked(&self.regions);
        if regions.len() >= MOST {
            regions.clear();
        }
        regions.insert(bucket.into(), region.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clients_make_up_do_not_grow_it_for_ever() {
        let live = Live::default();
        let kept = live.endpoint("kept");
        for number in 0..3 * MOST {
            live.endpoint(&format!("made-up-{number}"));
            live.learn_region(&format!("made-up-{number}"), "eu-west-1");
            assert_eq!(live.reports_unknown(&format!("made-up-{number}")), number < MOST_UNKNOWN);
            assert!(!live.reports_unknown("made-up-0"));
        }
        assert!(live.endpoints().len() <= MOST);
        assert!(Arc::ptr_eq(&live.endpoint("kept"), &kept));
        assert!(locked(&live.regions).len() <= MOST);
    }

    #[test]
    fn a_clock_is_followed_up_to_a_day() {
        let endpoint = Endpoint::default();
        for (ahead, followed, clock) in
            [(3600, true, 1_003_600), (-86_400, true, 913_600), (86_401, false, 913_600), (i64::MIN, false, 913_600)]
        {
            assert_eq!((endpoint.learn_skew(ahead), endpoint.clock(1_000_000)), (followed, clock), "{ahead}");
        }
        assert!(endpoint.reports_clock() && !endpoint.reports_clock());
    }

    #[test]
    fn the_time_is_what_most_endpoints_say() {
        let live = Live::default();
        assert_eq!(live.ahead(), None);
        live.hear_source(-7200);
        assert_eq!(live.ahead(), Some(-7200));
        for (name, ahead) in [("wrong", 3600), ("one", -7100), ("two", -7101), ("ages-away", -100_000)] {
            live.endpoint(name).hear(Some(ahead));
        }
        assert_eq!(live.ahead(), Some(-7100));
        let endpoint = live.endpoint("one");
        assert_eq!((endpoint.is_heard(), endpoint.clock(10_000), endpoint.expiry_clock(10_000)), (true, 10_000, 2_900));
        let other = live.endpoint("ages-away");
        assert_eq!((other.is_heard(), other.expiry_clock(10_000)), (true, 10_000));
        let silent = live.endpoint("silent");
        assert!(!silent.is_heard());
        silent.hear(None);
        assert!(silent.is_heard());
        assert_eq!(live.ahead(), Some(-7100));
    }

    #[test]
    fn requests_under_way_are_counted_also_when_they_are_dropped() {
        let endpoint = Arc::new(Endpoint::default());
        let one = UnderWay::begin(&endpoint, 1).unwrap();
        assert!(UnderWay::begin(&endpoint, 1).is_none());
        drop(one);
        assert!(UnderWay::begin(&endpoint, 1).is_some());
        assert_eq!(endpoint.in_flight.load(Ordering::Relaxed), 0);
    }
}
