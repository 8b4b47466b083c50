//! File descriptors: how many there may be, and who closes some when there are too few.
//!
//! Connections to upstreams that wait for their next request are worth the least: they save a handshake. So all of them together take a
//! part of the limit at most, however many hosts there are and on however many threads; and when there are no descriptors left, the
//! oldest of them go first, and what needed one is tried again.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus::IntCounterVec;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;

/// Of the limit, the part that idle connections to upstreams may take: one in so many.
const IDLE_PART: usize = 4;
/// So many may always be idle, and never more.
const IDLE_RANGE: (usize, usize) = (16, 8192);
/// The engine needs so many for itself at least: listeners, logs, threads.
const OWN: usize = 16;
/// Once there are too many idle connections, one in so many of them is closed: not each time that one more comes.
const CLOSED_PART: usize = 8;
/// Who accepts a client leaves so many idle connections to clients that are there.
const LEFT_TO_CLIENTS: usize = 8;
/// A connection of HTTP/2 closes by itself within this time.
const CLOSING: Duration = Duration::from_millis(20);

/// Whoever keeps connections that are idle.
pub(crate) trait Keeps: Send + Sync {
    /// Adds since when each of them is idle.
    fn ages(&self, ages: &mut Vec<Instant>);
    /// Closes those that have been idle since then or before.
    fn close_until(&self, since: Instant) -> Closed;
}

/// What was closed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Closed {
    /// Their descriptors are free.
    pub(crate) now: usize,
    /// They close by themselves, soon.
    pub(crate) soon: usize,
}

/// See the module.
pub(crate) struct Descriptors {
    idle: Arc<AtomicUsize>,
    most_idle: usize,
    keepers: Mutex<Vec<Weak<dyn Keeps>>>,
    /// By reason.
    closed: IntCounterVec,
}

/// One connection that is idle, for as long as this is there.
#[derive(Debug)]
pub(crate) struct Resting(Arc<AtomicUsize>);

impl Drop for Resting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Descriptors {
    pub(crate) fn new(closed: IntCounterVec) -> Self {
        Self::bounded(closed, (limit() / IDLE_PART).clamp(IDLE_RANGE.0, IDLE_RANGE.1))
    }

    fn bounded(closed: IntCounterVec, most_idle: usize) -> Self {
        Self { idle: Arc::default(), most_idle, keepers: Mutex::default(), closed }
    }

    /// From here on its idle connections count.
    pub(crate) fn watch(&self, keeper: Weak<dyn Keeps>) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    /// One more is idle. Call [`Descriptors::settle`] once it is where its keeper finds it.
    pub(crate) fn rest(&self) -> Resting {
        self.idle.fetch_add(1, Ordering::Relaxed);
        Resting(Arc::clone(&self.idle))
    }

    /// Closes the oldest idle connections if there are too many.
    pub(crate) fn settle(&self) {
        if self.idle() > self.most_idle {
            self.close("bound", self.most_idle - self.most_idle / CLOSED_PART);
        }
    }

    /// Connections to upstreams that wait for a request.
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Closes the older half of the idle connections, but leaves `least`. False: nothing was closed.
    async fn give_up(&self, least: usize) -> bool {
        let closed = self.close("descriptors", (self.idle() / 2).max(least));
        if closed.now == 0 && closed.soon > 0 {
            tokio::time::sleep(CLOSING).await;
        }
        closed.now + closed.soon > 0
    }

    /// Closes the oldest idle connections until so many are left.
    fn close(&self, reason: &str, left: usize) -> Closed {
        // Of several that find too many, the first closes them.
        let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let keepers: Vec<Arc<dyn Keeps>> = keepers.iter().filter_map(Weak::upgrade).collect();
        let mut ages = Vec::with_capacity(self.idle());
        for keeper in &keepers {
            keeper.ages(&mut ages);
        }
        let Some(last) = ages.len().checked_sub(left + 1) else { return Closed::default() };
        let (_, since, _) = ages.select_nth_unstable(last);
        let since = *since;
        let mut all = Closed::default();
        for keeper in keepers {
            let closed = keeper.close_until(since);
            (all.now, all.soon) = (all.now + closed.now, all.soon + closed.soon);
        }
        self.closed.with_label_values(&[reason]).inc_by((all.now + all.soon) as u64);
        all
    }

    /// Tries once more, without the idle connections, if there was no descriptor.
    pub(crate) async fn again<T, F: Future<Output = io::Result<T>>>(&self, mut attempt: impl FnMut() -> F) -> io::Result<T> {
        match attempt().await {
            Err(error) if are_used_up(&error) && self.give_up(0).await => attempt().await,
            other => other,
        }
    }

    /// The same of what looks names up: the system's resolver does not say what it ran out of.
    pub(crate) async fn again_unless_room<T, F: Future<Output = io::Result<T>>>(&self, mut attempt: impl FnMut() -> F) -> io::Result<T> {
        match attempt().await {
            Err(error) if (are_used_up(&error) || is_short()) && self.give_up(0).await => attempt().await,
            other => other,
        }
    }

    /// After a failed accept: true if the next may succeed.
    pub(crate) async fn room_for_a_client(&self, error: &io::Error) -> bool {
        are_used_up(error) && self.give_up(LEFT_TO_CLIENTS).await
    }

    /// Before something that cannot be tried again: closes idle connections if there are hardly any descriptors. `for_client`: who comes
    /// leaves some to those that are there.
    pub(crate) fn make_room(&self, for_client: bool) {
        if is_short() {
            self.close("descriptors", (self.idle() / 2).max(if for_client { LEFT_TO_CLIENTS } else { 0 }));
        }
    }
}

impl std::fmt::Debug for Descriptors {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Descriptors").field("most_idle", &self.most_idle).finish_non_exhaustive()
    }
}

/// Connections of clients that there may be: a client that comes later finds the upstreams' part of the descriptors untouched.
pub(crate) fn most_clients() -> usize {
    let limit = limit();
    (limit - limit / IDLE_PART).saturating_sub(OWN).max(1)
}

/// How many descriptors this process may have.
pub(crate) fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many it has. `None`: it cannot be told here.
pub(crate) fn open() -> Option<usize> {
    open_at_once().or_else(|| fs::read_dir("/proc/self/fd").ok().map(Iterator::count))
}

/// Linux 6.2 and later say it without a look at each.
fn open_at_once() -> Option<usize> {
    fs::metadata("/proc/self/fd").ok().and_then(|found| usize::try_from(found.len()).ok()).filter(|open| *open > 0)
}

fn is_short() -> bool {
    open_at_once().is_some_and(|open| open + OWN > limit())
}

/// This process, or the whole system, has no more of them.
fn are_used_up(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|error| matches!(error, Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus::Opts;

    use super::*;

    pub(crate) fn descriptors(most_idle: usize) -> Descriptors {
        Descriptors::bounded(IntCounterVec::new(Opts::new("closed", "help"), &["reason"]).unwrap(), most_idle)
    }

    /// Connections, each with an age; the oldest first.
    struct Kept {
        of: Arc<Descriptors>,
        idle: Mutex<Vec<(Instant, Resting)>>,
        soon: bool,
    }

    impl Kept {
        fn new(of: &Arc<Descriptors>, soon: bool) -> Arc<Self> {
            let kept = Arc::new(Self { of: Arc::clone(of), idle: Mutex::default(), soon });
            let weak: Weak<Self> = Arc::downgrade(&kept);
            of.watch(weak);
            kept
        }

        fn add(&self, since: Instant) {
            self.idle.lock().unwrap().push((since, self.of.rest()));
            self.of.settle();
        }

        fn count(&self) -> usize {
            self.idle.lock().unwrap().len()
        }
    }

    impl Keeps for Kept {
        fn ages(&self, ages: &mut Vec<Instant>) {
            ages.extend(self.idle.lock().unwrap().iter().map(|(since, _)| *since));
        }

        fn close_until(&self, since: Instant) -> Closed {
            let mut idle = self.idle.lock().unwrap();
            let before = idle.len();
            idle.retain(|(age, _)| *age > since);
            let closed = before - idle.len();
            if self.soon { Closed { now: 0, soon: closed } } else { Closed { now: closed, soon: 0 } }
        }
    }

    #[test]
    fn the_oldest_go_whoever_keeps_them() {
        let all = Arc::new(descriptors(16));
        let (old, new) = (Kept::new(&all, false), Kept::new(&all, false));
        let began = Instant::now();
        for number in 0..10 {
            old.add(began + Duration::from_secs(number));
        }
        for number in 0..6 {
            new.add(began + Duration::from_secs(100 + number));
        }
        assert_eq!((old.count(), new.count(), all.idle()), (10, 6, 16));
        // One too many: a part of them goes, so that the next does not find too many again.
        new.add(began + Duration::from_secs(200));
        assert_eq!((old.count(), new.count(), all.idle()), (7, 7, 14));
        // A pool that is replaced takes its own with it.
        drop(old);
        assert_eq!(all.idle(), 7);
        for number in 0..1000 {
            new.add(began + Duration::from_secs(300 + number));
            assert!(all.idle() <= 16);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_descriptor_is_tried_again_without_the_idle_ones() {
        for soon in [false, true] {
            let all = Arc::new(descriptors(16));
            let kept = Kept::new(&all, soon);
            let began = Instant::now();
            (0..10).for_each(|number| kept.add(began + Duration::from_secs(number)));
            for left in [5, 2, 1, 0] {
                let used_up = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
                let mut first = Some(used_up);
                assert_eq!(all.again(|| std::future::ready(first.take().map_or(Ok(left), Err))).await.unwrap(), left);
                assert_eq!(kept.count(), left);
            }
            // None is left: the error is the first one.
            let mut tried = 0;
            let failed = all.again(|| {
                tried += 1;
                std::future::ready(Err::<(), _>(io::Error::from_raw_os_error(Errno::NFILE.raw_os_error())))
            });
            assert_eq!(failed.await.unwrap_err().raw_os_error(), Some(Errno::NFILE.raw_os_error()));
            assert_eq!(tried, 1);
        }
    }

    #[tokio::test]
    async fn a_client_that_is_accepted_leaves_some() {
        let all = Arc::new(descriptors(64));
        let kept = Kept::new(&all, false);
        let began = Instant::now();
        (0..40).for_each(|number| kept.add(began + Duration::from_secs(number)));
        let used_up = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert!(!all.room_for_a_client(&io::Error::other("")).await);
        while all.room_for_a_client(&used_up).await {}
        assert_eq!(kept.count(), LEFT_TO_CLIENTS);
    }

    #[test]
    fn descriptors_are_counted() {
        if let Some(before) = open() {
            let file = fs::File::open("/proc/self/status").unwrap();
            // Other tests open and close some, too.
            assert!(before > 0 && limit() > before);
            drop(file);
        }
        assert!(most_clients() >= 1);
    }
}
