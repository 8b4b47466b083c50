//! How far the engine runs ahead of clients, and clients ahead of upstreams, in all: for fronts that talk by messages.
//!
//! An answer is told piece by piece, and each piece counts until its client has taken it. What a client leaves untaken is bounded for each
//! answer, for each client's connection and for the whole process. The bounds give way to each other: an answer may run ahead by as much
//! as is left to its connection, a connection by as much as is left in all. So one that stalls leaves room for the next, and a thousand
//! that stall take little each (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
//!
//! An answer of which nothing is ahead always has one piece: those that stall must not hold up another that its client reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes of one answer ahead of what its client has taken.
const ANSWER: usize = 512 << 10;
/// Of all answers on one connection.
const CONNECTION: usize = 8 << 20;
/// Of all answers. Beyond it, and beyond a connection's part, each answer has one piece.
const ALL: usize = 128 << 20;
/// More than this in the queue of an upload: the front should stop.
const UPLOAD: usize = 1 << 20;
/// Likewise in those of all uploads on one connection.
const UPLOADS: usize = 8 << 20;

/// Bytes of answers that were told and not taken, in all.
#[derive(Debug, Default)]
pub(crate) struct All {
    ahead: AtomicUsize,
    returned: Notify,
}

/// What one client's connection has.
#[derive(Debug)]
pub struct Allowance {
    ahead: AtomicUsize,
    queued: AtomicUsize,
    returned: Notify,
    all: Arc<All>,
}

impl Allowance {
    pub(crate) fn new(all: &Arc<All>) -> Arc<Self> {
        Arc::new(Self { ahead: AtomicUsize::new(0), queued: AtomicUsize::new(0), returned: Notify::new(), all: Arc::clone(all) })
    }
}

/// Bytes of one answer that were told and not taken.
#[derive(Debug)]
pub(crate) struct Credit {
    ahead: AtomicUsize,
    allowance: Arc<Allowance>,
}

impl Credit {
    pub(crate) fn new(allowance: Arc<Allowance>) -> Self {
        Self { ahead: AtomicUsize::new(0), allowance }
    }

    /// Waits until so much more may be told.
    pub(crate) async fn take(&self, size: usize) {
        let Allowance { returned, all, .. } = &*self.allowance;
        while !self.takes(size) {
            let (mut here, mut there) = (std::pin::pin!(returned.notified()), std::pin::pin!(all.returned.notified()));
            // From before the look: what comes back during it counts, too.
            here.as_mut().enable();
            there.as_mut().enable();
            if self.takes(size) {
                return;
            }
            tokio::select! { () = here => {}, () = there => {} }
        }
    }

    /// False: it has to wait.
    fn takes(&self, size: usize) -> bool {
        let Allowance { ahead, all, .. } = &*self.allowance;
        let mut before = ahead.load(Ordering::Acquire);
        loop {
            let own = self.ahead.load(Ordering::Acquire);
            let has_room =
                own < ANSWER.min(CONNECTION.saturating_sub(before)) && before < ALL.saturating_sub(all.ahead.load(Ordering::Acquire));
            if !has_room && own > 0 && size > 0 {
                return false;
            }
            // Of those who find the same room, one takes it.
            match ahead.compare_exchange(before, before + size, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => before = now,
            }
        }
        self.ahead.fetch_add(size, Ordering::AcqRel);
        all.ahead.fetch_add(size, Ordering::AcqRel);
        true
    }

    /// The client took so many bytes.
    pub(crate) fn give_back(&self, size: usize) {
        let before = self.ahead.fetch_update(Ordering::AcqRel, Ordering::Acquire, |ahead| Some(ahead.saturating_sub(size)));
        let size = before.unwrap_or_default().min(size);
        if size == 0 {
            return;
        }
        let Allowance { ahead, returned, all, .. } = &*self.allowance;
        ahead.fetch_sub(size, Ordering::AcqRel);
        // Nobody waits for the others while there is room for a connection of each size.
        if all.ahead.fetch_sub(size, Ordering::AcqRel) >= ALL - 2 * CONNECTION {
            all.returned.notify_waiters();
        }
        returned.notify_waiters();
    }

    /// Nobody will take any of it.
    pub(crate) fn give_all_back(&self) {
        self.give_back(usize::MAX);
    }

    pub(crate) fn queue(&self) -> Queued {
        Queued { bytes: 0, allowance: Arc::clone(&self.allowance) }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.give_all_back();
    }
}

/// Bytes in the queue of one upload.
#[derive(Debug)]
pub(crate) struct Queued {
    bytes: usize,
    allowance: Arc<Allowance>,
}

impl Queued {
    /// True: too many are queued.
    pub(crate) fn add(&mut self, size: usize) -> bool {
        self.bytes += size;
        self.allowance.queued.fetch_add(size, Ordering::AcqRel) + size > UPLOADS || self.bytes > UPLOAD
    }

    pub(crate) fn remove(&mut self, size: usize) {
        self.bytes -= size;
        self.allowance.queued.fetch_sub(size, Ordering::AcqRel);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const PIECE: usize = 32 << 10;

    /// As much as is given at once, in pieces.
    fn filled(credit: &Credit) -> usize {
        let mut taken = 0;
        while credit.take(PIECE).now_or_never().is_some() {
            taken += PIECE;
        }
        taken
    }

    #[test]
    fn a_thousand_that_stall_take_little_each_and_leave_room_for_one_more() {
        let all = Arc::default();
        let connection = Allowance::new(&all);
        assert_eq!(filled(&Credit::new(Arc::clone(&connection))), ANSWER);
        assert_eq!(all.ahead.load(Ordering::Relaxed), 0, "what is dropped is given back");
        let few: Vec<Credit> = (0..10).map(|_| Credit::new(Arc::clone(&connection))).collect();
        assert!(few.iter().all(|credit| filled(credit) > PIECE));
        let last = Credit::new(Arc::clone(&connection));
        assert!(filled(&last) > PIECE);
        let many: Vec<Credit> = (0..1000).map(|_| Credit::new(Arc::clone(&connection))).collect();
        assert!(many.iter().map(filled).all(|taken| taken >= PIECE), "none is held up by the others");
        assert!(connection.ahead.load(Ordering::Relaxed) <= CONNECTION + 1011 * PIECE);
        // One that its client takes goes on.
        last.give_all_back();
        assert!(filled(&last) > 0);
        drop((few, last, many));
        assert_eq!((connection.ahead.load(Ordering::Relaxed), all.ahead.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn all_connections_have_a_bound_and_each_answer_has_a_piece() {
        let all = Arc::default();
        let mut kept = Vec::new();
        for _ in 0..1000 {
            let connection = Allowance::new(&all);
            let answers: Vec<Credit> = (0..20).map(|_| Credit::new(Arc::clone(&connection))).collect();
            assert!(answers.iter().map(filled).all(|taken| taken >= PIECE));
            kept.push(answers);
        }
        assert!(all.ahead.load(Ordering::Relaxed) <= ALL + 20_000 * PIECE);
        drop(kept);
        assert_eq!(all.ahead.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_another_connection_gives_back() {
        let all = Arc::new(All::default());
        let taken: Vec<Credit> = (0..ALL / ANSWER).map(|_| Credit::new(Allowance::new(&all))).collect();
        for credit in &taken {
            filled(credit);
        }
        let (one, other) = (Allowance::new(&all), Credit::new(Allowance::new(&all)));
        let (first, second) = (Credit::new(Arc::clone(&one)), Credit::new(one));
        while first.take(PIECE).now_or_never().is_some() {}
        while second.take(PIECE).now_or_never().is_some() {}
        let waiting = tokio::spawn(async move { second.take(PIECE).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(other.take(PIECE).now_or_never().is_some(), "its first piece");
        drop(taken);
        waiting.await.unwrap();
    }

    #[test]
    fn uploads_are_bounded_together() {
        let connection = Allowance::new(&Arc::default());
        let credits: Vec<Credit> = (0..100).map(|_| Credit::new(Arc::clone(&connection))).collect();
        let mut queues: Vec<Queued> = credits.iter().map(Credit::queue).collect();
        let mut total = 0;
        for queue in &mut queues {
            while total <= UPLOADS && !queue.add(PIECE) {
                total += PIECE;
            }
        }
        assert!(queues.last_mut().unwrap().add(1), "however small its own");
        drop(queues);
        assert_eq!(connection.queued.load(Ordering::Relaxed), 0);
    }
}
