//! Which operations AWS throttles, and whether that is a burst now and then, which backoff mends, or goes on, which it does not.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::knowledge::Operation;

/// Operations that are remembered.
const MOST: usize = 1000;
/// A minute is looked at in so many parts.
const PARTS: usize = 4;
const PART: Duration = Duration::from_secs(15);
/// The same is said again after this.
const AGAIN: Duration = Duration::from_secs(300);
/// Of the calls in a part, so many throttled ones count as throttled.
const SHARE: f64 = 0.05;

/// Service, operation, region.
type Key = (Arc<str>, Box<str>, Box<str>);

/// See the module.
#[derive(Debug, Default)]
pub struct Throttles {
    any: AtomicBool,
    seen: Mutex<HashMap<Key, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    part: u64,
    /// (calls, throttled), the part under way first.
    counts: [(u32, u32); PARTS],
    throttled: u64,
    told: Option<(Duration, bool)>,
}

/// One operation that has been throttled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// botocore's name of the service.
    pub service: String,
    /// E.g. `DescribeInstances`.
    pub operation: String,
    /// In the scope.
    pub region: String,
    /// In the last minute.
    pub calls: u32,
    /// Of those.
    pub throttled: u32,
    /// Since the start.
    pub ever: u64,
    /// In most parts of the last minute: backoff does not mend it.
    pub steady: bool,
}

impl fmt::Display for Throttled {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, operation, region, calls, throttled, .. } = self;
        write!(to, "{service}:{operation} in {region} is throttled ")?;
        if self.steady {
            write!(
                to,
                "steadily ({throttled} of {calls} calls in a minute): backoff does not mend that. Call less often, set a [[pace]] rule, or \
                 ask for a higher quota: sigward quotas {service}"
            )
        } else {
            write!(to, "now and then ({throttled} of {calls} calls in a minute): backoff takes care of it")
        }
    }
}

impl Seen {
    fn turn(&mut self, now: Duration) {
        let part = now.as_secs() / PART.as_secs();
        let passed = usize::try_from(part.saturating_sub(self.part)).unwrap_or(PARTS).min(PARTS);
        self.counts.rotate_right(passed);
        self.counts.iter_mut().take(passed).for_each(|count| *count = (0, 0));
        self.part = part;
    }

    fn told(&self, (service, operation, region): &Key) -> Throttled {
        let (calls, throttled) = self.counts.iter().fold((0, 0), |(calls, all), (some, throttled)| (calls + some, all + throttled));
        let busy = self.counts.iter().filter(|(calls, throttled)| f64::from(*throttled) > SHARE * f64::from(*calls)).count();
        Throttled {
            service: service.to_string(),
            operation: operation.to_string(),
            region: region.to_string(),
            calls,
            throttled,
            ever: self.throttled,
            steady: busy >= PARTS - 1,
        }
    }
}

impl Throttles {
    /// Notes an answer. Gives what is to be said of its operation, if it is news.
    pub fn note(&self, operation: &Operation, region: &str, now: Duration, throttled: bool) -> Option<Throttled> {
        if !throttled && !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(&operation.service), operation.name.clone(), region.into());
        if !throttled && !all.contains_key(&key) {
            return None;
        }
        if all.len() >= MOST && !all.contains_key(&key) {
            return None;
        }
        self.any.store(true, Ordering::Relaxed);
        let seen = all.entry(key.clone()).or_default();
        seen.turn(now);
        let [(calls, limited), ..] = &mut seen.counts;
        *calls = calls.saturating_add(1);
        if !throttled {
            return None;
        }
        *limited = limited.saturating_add(1);
        seen.throttled += 1;
        let told = seen.told(&key);
        let news = seen.told.is_none_or(|(at, steady)| now >= at + AGAIN || (told.steady && !steady));
        if news {
            seen.told = Some((now, told.steady));
        }
        news.then_some(told)
    }

    /// All of them, the most throttled first.
    pub fn all(&self, now: Duration) -> Vec<Throttled> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told: Vec<Throttled> = all
            .iter_mut()
            .map(|(key, seen)| {
                seen.turn(now);
                seen.told(key)
            })
            .collect();
        told.sort_by(|one, other| other.ever.cmp(&one.ever).then_with(|| one.operation.cmp(&other.operation)));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::Knowledge;

    #[test]
    fn bursts_are_told_from_what_goes_on() {
        let throttles = Throttles::default();
        let knowledge = Knowledge::shipped().unwrap();
        let operation = knowledge.named("ec2", "ec2", "DescribeInstances").unwrap();
        let at = |seconds: u64| Duration::from_secs(1000 + seconds);
        let note = |seconds, throttled| throttles.note(operation, "eu-west-1", at(seconds), throttled).map(|told| told.steady);
        assert_eq!(note(0, false), None);
        assert!(throttles.all(at(0)).is_empty(), "what is never throttled costs nothing");
        assert_eq!(note(1, true), Some(false));
        assert_eq!(note(2, true), None, "said once");
        let mut said = Vec::new();
        for second in 3..60 {
            (0..10).for_each(|call| said.extend(note(second, call % 3 == 0)));
        }
        assert_eq!(said, [true], "then that it goes on");
        let told = &throttles.all(at(60))[0];
        assert!(told.steady && told.to_string().ends_with("sigward quotas ec2"), "{told}");
        for second in 60..120 {
            note(second, false);
        }
        assert!(!throttles.all(at(121))[0].steady);
        assert_eq!(note(121, true), None);
        assert_eq!(note(400, true), Some(false), "and again after a while");
    }
}
