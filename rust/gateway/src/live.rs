//! What is learnt while requests go by, and outlives a change of settings: AWS's clock, endpoints' health, where buckets are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::circuit::Circuit;
use crate::pace::Pacer;
use crate::quota::Quota;
use crate::throttles::Throttles;

/// Endpoints, and buckets, that are remembered.
const MOST: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Live {
    /// Seconds that AWS's clock is ahead of ours, as its answers taught. Signatures follow it, the system's clock does not.
    pub skew: AtomicI64,
    /// Token buckets.
    pub pacer: Arc<Pacer>,
    /// What AWS throttles.
    pub throttles: Throttles,
    endpoints: Mutex<HashMap<Box<str>, Arc<Endpoint>>>,
    regions: Mutex<HashMap<Box<str>, Arc<str>>>,
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
}

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

    /// Where S3 said that a bucket is.
    pub fn region_of(&self, bucket: &str) -> Option<Arc<str>> {
        locked(&self.regions).get(bucket).map(Arc::clone)
    }

    /// Remembers where S3 said that a bucket is.
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
        }
        assert!(live.endpoints().len() <= MOST);
        assert!(Arc::ptr_eq(&live.endpoint("kept"), &kept));
        assert!(locked(&live.regions).len() <= MOST);
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
