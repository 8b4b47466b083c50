//! pace: must a request wait before it goes out, so that AWS need not throttle it?
//!
//! Token buckets by the generic cell rate algorithm (ITU-T I.371): one number a bucket, the time at which it would be full again
//! if nothing more came. Who must wait stands in the bucket's line: clients take turns, each client's requests go in their order.
//! A [`Ticket`] is a place in a line; dropping it leaves the line at once. Nothing here reads a clock: [`Pacer::advance`] is told
//! the time, grants what is due, and says when to come again.

mod adaptive;
mod rules;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use adaptive::{Adaptive, LEAST};
pub use rules::{Paced, Paces, Subject, account_of};

/// Which bucket.
pub type Key = u64;

/// How fast a bucket fills, and how many it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Calls a second, > 0; infinite: no limit of its own.
    pub rate: f64,
    /// Calls at once, ≥ 1.
    pub burst: f64,
}

impl Limit {
    /// What is limited by nothing but what throttled answers teach.
    pub const NONE: Self = Self { rate: f64::INFINITY, burst: 1.0 };
}

/// How long a line may get.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Refused at once if it would wait for longer; zero: nobody waits.
    pub wait: Duration,
    /// Places in a line.
    pub places: usize,
}

/// What a bucket says.
#[derive(Debug)]
pub enum Asked {
    /// Go.
    Go,
    /// Wait for the ticket.
    Wait(Ticket),
    /// Not now: it would take so long.
    Full(Duration),
}

/// All buckets.
#[derive(Debug, Default)]
pub struct Pacer {
    inner: Mutex<Inner>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Inner {
    buckets: HashMap<Key, Bucket, BuildHasherDefault<Already>>,
    /// Those with a line.
    lines: Vec<Key>,
    /// When so many are there, the idle ones leave.
    sweep: usize,
    waiting: usize,
}

/// 24 bytes and what few have.
#[derive(Debug, Default)]
struct Bucket {
    /// Nanoseconds.
    full_at: u64,
    /// Nanoseconds that one call takes; 0: none.
    interval: u64,
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// What its own limit is, without what was learnt.
    tolerance: u64,
    lease: Option<Box<Lease>>,
    adaptive: Option<Adaptive>,
    line: VecDeque<(u64, VecDeque<Arc<Waiter>>)>,
    waiting: usize,
}

/// This one's part of a limit that a fleet shares.
#[derive(Debug)]
struct Lease {
    name: Arc<str>,
    limit: Limit,
    /// Calls a second; `None`: the store has not said yet.
    rate: Option<f64>,
    /// Nanoseconds: then it counts no more.
    until: u64,
    /// What is taken of the limit without a lease, 0 to 1.
    share: f64,
    asked: u64,
}

impl Lease {
    /// What may be called now: as leased, or the share that needs no lease. Nothing, while the first lease is on its way.
    fn limit(&self, now: u64) -> Limit {
        let rate = match self.rate {
            Some(rate) if now < self.until => rate,
            None if now < self.until => 0.0,
            _ => self.limit.rate * self.share,
        };
        // The whole fleet's burst is its limit's slack.
        Limit { rate, burst: 1.0 }
    }
}

/// Nanoseconds by which a pace may run ahead: it makes up for timers that are late, which come by the millisecond.
const SLACK: f64 = 5e6;

/// Nanoseconds that a first lease is waited for.
const FIRST_LEASE: u64 = 300_000_000;

/// What a fleet's store is asked for one limit.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Of the bucket.
    pub key: Key,
    /// The same for the whole fleet.
    pub name: Arc<str>,
    /// Of the whole fleet.
    pub limit: f64,
    /// Calls that were asked for since the last time.
    pub asked: u64,
    /// Requests that wait.
    pub waiting: usize,
    /// What is held, calls a second.
    pub held: f64,
}

#[derive(Debug, Default)]
struct Waiter {
    granted: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// A place in a line; ready when its turn has come.
#[derive(Debug)]
pub struct Ticket {
    pacer: Arc<Pacer>,
    key: Key,
    client: u64,
    waiter: Arc<Waiter>,
    unleased: bool,
}

impl Future for Ticket {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // In this order: a grant in between finds the waker.
        *self.waiter.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if self.waiter.granted.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Ticket {
    /// True if its limit is a fleet's, and this is the first call of it: the store has not been asked.
    pub fn is_unleased(&self) -> bool {
        self.unleased
    }

    /// True when its turn has come.
    pub fn granted(&self) -> bool {
        self.waiter.granted.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.granted() {
            self.pacer.leave(self.key, self.client, &self.waiter);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds a call, and those that a burst may run ahead.
#[allow(clippy::cast_sign_loss, reason = "rates and bursts are positive")]
fn terms(limit: Limit, learnt: Option<f64>) -> (u64, u64) {
    let rate = learnt.map_or(limit.rate, |learnt| limit.rate.min(learnt));
    if !rate.is_finite() {
        return (0, 0);
    }
    if rate <= 0.0 {
        return (NEVER, 0);
    }
    let interval = (1e9 / rate).clamp(1.0, 1e18);
    // What was learnt is spread evenly: a burst would be throttled.
    let burst = if learnt.is_some_and(|learnt| learnt < limit.rate) { (rate * 0.05).clamp(1.0, limit.burst.max(1.0)) } else { limit.burst };
    (interval as u64, ((burst - 1.0).max(0.0) * interval + SLACK).min(1e18) as u64)
}

/// Nanoseconds a call of what may not be called now.
const NEVER: u64 = u64::MAX;

impl Bucket {
    /// Sets the pace; what is owed stays owed, in calls.
    #[allow(clippy::cast_sign_loss, reason = "what is owed is not negative")]
    fn set(&mut self, now: u64, (interval, tolerance): (u64, u64)) -> u64 {
        if interval != self.interval {
            let owed = self.full_at.saturating_sub(now);
            if self.interval > 0 && self.interval != NEVER && interval != NEVER {
                let calls = owed as f64 / self.interval as f64;
                self.full_at = now.saturating_add((calls * interval as f64) as u64);
            }
            self.interval = interval;
        }
        tolerance
    }

    fn take(&mut self, now: u64, tolerance: u64) -> bool {
        if self.interval == 0 || self.interval == NEVER {
            return self.interval == 0;
        }
        let base = self.full_at.max(now);
        if base - now > tolerance {
            return false;
        }
        self.full_at = base.saturating_add(self.interval);
        true
    }

    fn due(&self, tolerance: u64) -> u64 {
        self.full_at.saturating_sub(tolerance)
    }

    fn is_idle(&self, now: u64) -> bool {
        // What was learnt or leased counts for a minute after the last call: a store that is away takes no lease back.
        match &self.more {
            Some(more) => {
                let kept = more.adaptive.is_some() || more.lease.is_some();
                more.waiting == 0 && (!kept || self.full_at.saturating_add(60_000_000_000) < now)
            }
            None => self.full_at <= now,
        }
    }
}

impl More {
    fn push(&mut self, client: u64, waiter: Arc<Waiter>) {
        self.waiting += 1;
        match self.line.iter_mut().find(|(name, _)| *name == client) {
            Some((_, own)) => own.push_back(waiter),
            None => self.line.push_back((client, VecDeque::from([waiter]))),
        }
    }

    /// The next client's first; that client goes to the end.
    fn pop(&mut self) -> Option<Arc<Waiter>> {
        let (client, mut own) = self.line.pop_front()?;
        let waiter = own.pop_front();
        if !own.is_empty() {
            self.line.push_back((client, own));
        }
        self.waiting = self.waiting.saturating_sub(1);
        waiter
    }

    /// How many go before another of this client's.
    fn before(&self, client: u64) -> usize {
        let own = self.line.iter().find(|(name, _)| *name == client).map_or(0, |(_, own)| own.len());
        self.line.iter().map(|(name, theirs)| if *name == client { own } else { theirs.len().min(own + 1) }).sum()
    }
}

impl Pacer {
    /// A key for what belongs together: a keyed hash (`SipHash`), so nobody can make two of them meet, and of a million buckets two do
    /// so by chance in one case of 10⁷.
    pub fn key(&self, parts: impl Hash) -> Key {
        self.hasher.hash_one(&parts)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for one call. `client`: who takes turns with whom.
    pub fn ask(self: &Arc<Self>, key: Key, limit: Limit, client: u64, now: Duration, patience: Patience) -> Asked {
        self.ask_shared(key, limit, None, client, now, patience)
    }

    /// The same of a limit that a fleet shares: its name there, and what is taken of it without the store.
    pub fn ask_shared(
        self: &Arc<Self>,
        key: Key,
        limit: Limit,
        shared: Option<(&Arc<str>, f64)>,
        client: u64,
        now: Duration,
        patience: Patience,
    ) -> Asked {
        let now = nanos(now);
        let whole = limit;
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.buckets.len() >= inner.sweep.max(SWEEP) {
            inner.buckets.retain(|_, bucket| !bucket.is_idle(now));
            inner.sweep = inner.buckets.len() * 2;
        }
        let bucket = inner.buckets.entry(key).or_default();
        if let Some((name, share)) = shared {
            let more = bucket.more.get_or_insert_default();
            let made = || Lease { name: Arc::clone(name), limit, rate: None, until: now.saturating_add(FIRST_LEASE), share, asked: 0 };
            let lease = more.lease.get_or_insert_with(|| Box::new(made()));
            lease.asked += 1;
        }
        let limit = bucket.more.as_ref().and_then(|more| more.lease.as_ref()).map_or(limit, |lease| lease.limit(now));
        let learnt = bucket.more.as_ref().and_then(|more| more.adaptive.as_ref()).and_then(Adaptive::rate);
        let tolerance = bucket.set(now, terms(limit, learnt));
        let waiting = bucket.more.as_ref().map_or(0, |more| more.waiting);
        if waiting == 0 && bucket.take(now, tolerance) {
            return Asked::Go;
        }
        let before = bucket.more.as_ref().map_or(0, |more| more.before(client));
        // Until a lease says more, the whole limit is counted on.
        let interval = if bucket.interval == NEVER { terms(whole, None).0 } else { bucket.interval };
        let wait = bucket.due(tolerance).saturating_sub(now).saturating_add(interval.saturating_mul(before as u64));
        let wait = Duration::from_nanos(wait);
        if wait > patience.wait || waiting >= patience.places {
            return Asked::Full(wait);
        }
        let more = bucket.more.get_or_insert_default();
        more.tolerance = tolerance;
        let waiter = Arc::new(Waiter::default());
        more.push(client, Arc::clone(&waiter));
        inner.waiting += 1;
        if waiting == 0 {
            inner.lines.push(key);
        }
        let unleased = bucket.interval == NEVER;
        Asked::Wait(Ticket { pacer: Arc::clone(self), key, client, waiter, unleased })
    }

    /// Grants what is due. Gives the time at which the next one is.
    pub fn advance(&self, now: Duration) -> Option<Duration> {
        let now = nanos(now);
        let mut woken = Vec::new();
        let mut next: Option<u64> = None;
        {
            let mut inner = self.lock();
            let Inner { buckets, lines, waiting, .. } = &mut *inner;
            lines.retain(|key| {
                let Some(bucket) = buckets.get_mut(key) else { return false };
                let Some(mut more) = bucket.more.take() else { return false };
                if let Some(lease) = &more.lease {
                    let learnt = more.adaptive.as_ref().and_then(Adaptive::rate);
                    more.tolerance = bucket.set(now, terms(lease.limit(now), learnt));
                }
                while more.waiting > 0 && bucket.take(now, more.tolerance) {
                    if let Some(waiter) = more.pop() {
                        *waiting = waiting.saturating_sub(1);
                        waiter.granted.store(true, Ordering::Release);
                        woken.extend(waiter.waker.lock().unwrap_or_else(PoisonError::into_inner).take());
                    }
                }
                let left = more.waiting > 0;
                if left {
                    let lapses = more.lease.as_ref().map(|lease| lease.until).filter(|until| *until > now);
                    let due = if bucket.interval == NEVER { u64::MAX } else { bucket.due(more.tolerance) };
                    let due = lapses.map_or(due, |lapses| lapses.min(due));
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
                bucket.more = Some(more).filter(|more| more.waiting > 0 || more.adaptive.is_some() || more.lease.is_some());
                left
            });
        }
        // Outside the lock: who wakes may ask at once.
        woken.into_iter().for_each(Waker::wake);
        next.map(Duration::from_nanos)
    }

    /// An answer came: teaches the bucket. Gives the rate that is kept from now on, if there is one.
    pub fn teach(&self, key: Key, limit: Limit, now: Duration, throttled: bool) -> Option<f64> {
        let mut inner = self.lock();
        let bucket = inner.buckets.entry(key).or_default();
        let more = bucket.more.get_or_insert_default();
        let adaptive = more.adaptive.get_or_insert_default();
        adaptive.answered(now, throttled);
        let learnt = adaptive.rate();
        let (now, set) = (nanos(now), terms(limit, learnt));
        more.tolerance = set.1;
        bucket.set(now, set);
        learnt
    }

    /// What the store is to be asked for: limits that a fleet shares and that were used since the last time, or are still held.
    pub fn demands(&self, now: Duration) -> Vec<Demand> {
        let now = nanos(now);
        let mut inner = self.lock();
        let mut demands = Vec::new();
        for (key, bucket) in &mut inner.buckets {
            let Some(more) = &mut bucket.more else { continue };
            let waiting = more.waiting;
            let Some(lease) = &mut more.lease else { continue };
            let held = lease.limit(now).rate;
            demands.push(Demand { key: *key, name: Arc::clone(&lease.name), limit: lease.limit.rate, asked: lease.asked, waiting, held });
            lease.asked = 0;
        }
        // The map has an order of its own in every process.
        demands.sort_by(|one, other| one.name.cmp(&other.name));
        demands
    }

    /// The store has leased so many calls a second of a limit, until then. Zero and nothing asked: the bucket leaves.
    pub fn lease(&self, key: Key, rate: f64, now: Duration, until: Duration) {
        self.set_lease(key, Some(rate), now, until);
    }

    /// What the store says of a limit is of no use: from now on the share that needs no lease counts.
    pub fn lapse(&self, key: Key, now: Duration) {
        self.set_lease(key, None, now, now);
    }

    fn set_lease(&self, key: Key, rate: Option<f64>, now: Duration, until: Duration) {
        let now = nanos(now);
        let mut inner = self.lock();
        let Some(bucket) = inner.buckets.get_mut(&key) else { return };
        let Some(more) = &mut bucket.more else { return };
        let learnt = more.adaptive.as_ref().and_then(Adaptive::rate);
        let Some(lease) = &mut more.lease else { return };
        if rate.is_none_or(|rate| rate <= 0.0) && lease.asked == 0 && more.waiting == 0 {
            more.lease = None;
            return;
        }
        (lease.rate, lease.until) = (rate, nanos(until));
        let terms = terms(lease.limit(now), learnt);
        let tolerance = bucket.set(now, terms);
        if let Some(more) = &mut bucket.more {
            more.tolerance = tolerance;
        }
    }

    fn leave(&self, key: Key, client: u64, waiter: &Arc<Waiter>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(more) = inner.buckets.get_mut(&key).and_then(|bucket| bucket.more.as_mut()) else { return };
        let Some(place) = more.line.iter().position(|(name, _)| *name == client) else { return };
        let Some((_, own)) = more.line.get_mut(place) else { return };
        let before = own.len();
        own.retain(|one| !Arc::ptr_eq(one, waiter));
        let gone = before - own.len();
        if own.is_empty() {
            more.line.remove(place);
        }
        more.waiting = more.waiting.saturating_sub(gone);
        inner.waiting = inner.waiting.saturating_sub(gone);
    }

    /// (buckets, requests that wait), for reports.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.buckets.len(), inner.waiting)
    }
}

/// Fewer buckets than this are not looked through for idle ones.
const SWEEP: usize = 4096;

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: Patience = Patience { wait: Duration::from_secs(3600), places: 10_000 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    fn waits(asked: Asked) -> Ticket {
        let Asked::Wait(ticket) = asked else { panic!("{asked:?}") };
        ticket
    }

    #[test]
    fn a_burst_goes_then_the_rate_counts() {
        let pacer = Arc::new(Pacer::default());
        let limit = Limit { rate: 10.0, burst: 5.0 };
        let refuse = Patience { wait: Duration::ZERO, places: 0 };
        let count = |now| (0..100).filter(|_| matches!(pacer.ask(1, limit, 0, now, refuse), Asked::Go)).count();
        assert_eq!([count(at(0)), count(at(50)), count(at(100)), count(at(350)), count(at(10_000))], [5, 0, 1, 2, 5]);
        let Asked::Full(after) = pacer.ask(1, limit, 0, at(10_000), refuse) else { panic!() };
        assert_eq!(after, Duration::from_millis(95));
        assert!(matches!(pacer.ask(2, limit, 0, at(10_000), refuse), Asked::Go), "another bucket is another's");
    }

    #[test]
    fn clients_take_turns_and_each_keeps_its_order() {
        let pacer = Arc::new(Pacer::default());
        let limit = Limit { rate: 1.0, burst: 1.0 };
        assert!(matches!(pacer.ask(1, limit, 7, at(0), PATIENT), Asked::Go));
        let noisy: Vec<Ticket> = (0..50).map(|_| waits(pacer.ask(1, limit, 7, at(0), PATIENT))).collect();
        let quiet: Vec<Ticket> = (0..2).map(|_| waits(pacer.ask(1, limit, 8, at(0), PATIENT))).collect();
        let granted = |tickets: &[Ticket]| tickets.iter().map(Ticket::granted).collect::<Vec<_>>();
        let mut next = pacer.advance(at(0));
        for _ in 0..4 {
            next = pacer.advance(next.unwrap());
        }
        assert_eq!(granted(&quiet), [true, true], "51 of another's do not starve it");
        assert_eq!(granted(&noisy)[..3], [true, true, false]);
        assert_eq!(pacer.size().1, 48);
    }

    #[test]
    fn who_leaves_makes_room_at_once() {
        let pacer = Arc::new(Pacer::default());
        let limit = Limit { rate: 1.0, burst: 1.0 };
        assert!(matches!(pacer.ask(1, limit, 0, at(0), PATIENT), Asked::Go));
        let (first, second) = (waits(pacer.ask(1, limit, 0, at(0), PATIENT)), waits(pacer.ask(1, limit, 0, at(0), PATIENT)));
        drop(first);
        assert_eq!(pacer.size().1, 1);
        pacer.advance(at(1000));
        assert!(second.granted());
        assert_eq!(pacer.advance(at(1000)), None);
    }

    #[test]
    fn lines_are_bounded_in_places_and_time() {
        let pacer = Arc::new(Pacer::default());
        let limit = Limit { rate: 1.0, burst: 1.0 };
        let patience = Patience { wait: Duration::from_secs(3), places: 10 };
        let _ = pacer.ask(1, limit, 0, at(0), patience);
        let line: Vec<Ticket> = (0..3).map(|_| waits(pacer.ask(1, limit, 0, at(0), patience))).collect();
        assert!(matches!(pacer.ask(1, limit, 0, at(0), patience), Asked::Full(wait) if wait == Duration::from_millis(3995)));
        assert!(matches!(pacer.ask(1, limit, 1, at(0), patience), Asked::Wait(_)), "another client's turn comes sooner");
        let short = Patience { places: 3, ..PATIENT };
        assert!(matches!(pacer.ask(1, limit, 1, at(0), short), Asked::Full(_)));
        drop(line);
    }

    #[test]
    fn a_hundred_thousand_buckets_are_small_and_idle_ones_leave() {
        let pacer = Arc::new(Pacer::default());
        let limit = Limit { rate: 10.0, burst: 5.0 };
        for bucket in 0..100_000_u64 {
            let _ = pacer.ask(pacer.key(bucket), limit, 0, at(bucket / 1000), PATIENT);
        }
        assert_eq!(pacer.size().0, 100_000);
        let each = size_of::<(Key, Bucket)>() + 1;
        assert!(100_000 * each * 2 <= 16 << 20, "{each} bytes a bucket");
        for bucket in 0..200_000_u64 {
            let _ = pacer.ask(pacer.key(bucket), limit, 0, at(60_000 + bucket / 100), PATIENT);
        }
        assert!(pacer.size().0 < 100_000, "{}", pacer.size().0);
    }

    #[test]
    fn a_leased_part_counts_until_it_lapses_and_then_the_share() {
        let pacer = Arc::new(Pacer::default());
        let limit = Limit { rate: 100.0, burst: 100.0 };
        let name: Arc<str> = "limit".into();
        let ask = |now| pacer.ask_shared(1, limit, Some((&name, 0.1)), 0, now, PATIENT);
        let first = waits(ask(at(0)));
        let [demand] = <[Demand; 1]>::try_from(pacer.demands(at(0))).unwrap();
        assert_eq!((&*demand.name, demand.asked, demand.waiting), ("limit", 1, 1));
        assert!((demand.limit - 100.0).abs() < 1e-9 && demand.held == 0.0);
        pacer.lease(1, 50.0, at(10), at(1000));
        pacer.advance(at(10));
        assert!(first.granted(), "as soon as the lease is there");
        let count = |from: u64, to: u64| {
            let tickets: Vec<Asked> = (0..100).map(|_| ask(at(from))).collect();
            for milli in from..to {
                pacer.advance(at(milli));
            }
            tickets
                .iter()
                .filter(|asked| match asked {
                    Asked::Go => true,
                    Asked::Wait(ticket) => ticket.granted(),
                    Asked::Full(_) => false,
                })
                .count()
        };
        assert!((48..=52).contains(&count(10, 1000)));
        assert!((9..=11).contains(&count(1000, 2000)), "a tenth without the store");
        pacer.lease(1, 100.0, at(2000), at(4000));
        assert!((98..=102).contains(&count(2000, 3000)));
        pacer.demands(at(3000));
        pacer.lease(1, 0.0, at(3000), at(4000));
        assert!(pacer.demands(at(3000)).is_empty(), "what nobody uses leaves");
    }

    #[test]
    fn leases_of_a_store_that_is_of_no_use_are_not_kept() {
        let pacer = Arc::new(Pacer::default());
        let name: Arc<str> = "limit".into();
        let ask = |key, now| pacer.ask_shared(key, Limit { rate: 100.0, burst: 1.0 }, Some((&name, 0.1)), 0, now, PATIENT);
        let first = waits(ask(1, at(0)));
        pacer.lease(1, 0.0, at(10), at(5000));
        pacer.advance(at(200));
        assert!(!first.granted());
        pacer.lapse(1, at(200));
        pacer.advance(at(200));
        assert!(first.granted(), "the share counts");
        assert!(matches!(ask(1, at(350)), Asked::Go), "ten a second");
        for key in 2..=SWEEP as u64 {
            drop(ask(key, at(400)));
        }
        drop(ask(0, at(120_000)));
        assert_eq!(pacer.size().0, 1, "the others have left, though no store has taken their leases back");
    }

    #[test]
    fn who_finds_no_store_begins_with_the_share() {
        let pacer = Arc::new(Pacer::default());
        let name: Arc<str> = "limit".into();
        let ticket = waits(pacer.ask_shared(1, Limit { rate: 100.0, burst: 1.0 }, Some((&name, 0.1)), 0, at(0), PATIENT));
        let next = pacer.advance(at(0)).unwrap();
        assert_eq!(next, at(300));
        pacer.advance(next);
        assert!(ticket.granted());
    }

    #[test]
    fn what_is_learnt_slows_those_who_come_next() {
        let pacer = Arc::new(Pacer::default());
        for call in 0..400 {
            let asked = pacer.ask(1, Limit::NONE, 0, at(call * 10), PATIENT);
            assert!(call > 300 || matches!(asked, Asked::Go), "nothing is known yet");
            pacer.teach(1, Limit::NONE, at(call * 10), call >= 300 && call % 2 == 0);
        }
        assert!(matches!(pacer.ask(1, Limit::NONE, 0, at(4000), PATIENT), Asked::Go | Asked::Wait(_)));
        let tickets: Vec<Asked> = (0..50).map(|_| pacer.ask(1, Limit::NONE, 0, at(4000), PATIENT)).collect();
        assert!(tickets.iter().filter(|asked| matches!(asked, Asked::Wait(_))).count() > 40);
    }
}
