//! Connections to upstreams: kept while they are idle, made where there is none.
//!
//! Each worker has a pool of its own, so that no thread waits for another's. The connection that served last serves next: the others
//! grow old and are closed. Whether the upstream has closed one is looked at when it is taken, and twice a `pool_idle` besides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sigward_gateway::{Failure, Target, Upstream};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::body::Outbound;
use crate::connect::{ConnectError, Connector};
use crate::descriptors::{Closed, Descriptors, Keeps, Resting};
use crate::h1::client::Connection;
use crate::net::Stream;

/// Upstreams that are known to speak HTTP/1.1 alone, at most.
const MOST_HTTP1: usize = 4096;

/// A block that the allocator does not keep for itself, bytes.
const LARGE: usize = 8 << 20;

/// See the module.
pub(crate) struct Pool {
    connector: Connector,
    idle_for: Duration,
    idle: Mutex<HashMap<Arc<Upstream>, Vec<Idle>>>,
    /// What is known of HTTP/2 to an upstream.
    shared: Mutex<HashMap<Arc<Upstream>, Known>>,
}

/// One connection of HTTP/2 serves any number of requests: while it is made, whoever comes waits for it.
enum Known {
    Coming(broadcast::Receiver<Outcome>),
    Open {
        sender: SendRequest<Outbound>,
        used: Instant,
        #[allow(dead_code, reason = "counts for as long as it is there")]
        resting: Resting,
    },
    /// The upstream speaks HTTP/1.1 alone: when that was asked for last.
    Http1(Instant),
}

/// What came of connecting.
type Outcome = Result<(), Failure>;

/// What a request for HTTP/2 is to do.
enum Turn {
    Use(SendRequest<Outbound>),
    /// Connect, and tell of it.
    Connect(broadcast::Sender<Outcome>),
    Wait(broadcast::Receiver<Outcome>),
    /// As if there were no HTTP/2.
    Http1,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
    #[allow(dead_code, reason = "counts for as long as it is there")]
    resting: Resting,
}

/// Where a connection is given back.
pub(crate) struct Place {
    pool: Weak<Pool>,
    upstream: Arc<Upstream>,
}

/// A way to an upstream.
pub(crate) enum Way {
    /// For one request at a time.
    Http1(Box<Connection>, Place),
    /// For many.
    Http2(SendRequest<Outbound>),
}

impl Pool {
    pub(crate) fn new(connector: Connector, idle_for: Duration) -> Arc<Self> {
        let pool = Arc::new(Self { connector, idle_for, idle: Mutex::default(), shared: Mutex::default() });
        let watched: Weak<Self> = Arc::downgrade(&pool);
        pool.descriptors().watch(watched);
        pool
    }

    fn descriptors(&self) -> &Descriptors {
        &self.connector.network().descriptors
    }

    /// A connection that waits for a request, or a new one. `http2`: that may be agreed on.
    pub(crate) async fn way(self: &Arc<Self>, upstream: &Arc<Upstream>, http2: bool) -> Result<Way, Failure> {
        // What is rare lies on the heap: the future of each request has room for all that is not.
        if http2 {
            return Box::pin(self.either(upstream)).await;
        }
        match self.take(upstream) {
            Some(connection) => Ok(Way::Http1(connection, self.place(upstream))),
            None => Box::pin(self.fresh(upstream, false)).await,
        }
    }

    /// The connection of HTTP/2 that there is, or that comes; where the upstream has none, one of HTTP/1.1.
    async fn either(self: &Arc<Self>, upstream: &Arc<Upstream>) -> Result<Way, Failure> {
        loop {
            match self.turn(upstream) {
                Turn::Use(sender) => return Ok(Way::Http2(sender)),
                Turn::Http1 => break,
                // Whoever connects may be gone before it is done: then the next one does.
                Turn::Wait(mut coming) => {
                    if let Ok(Err(failure)) = coming.recv().await {
                        return Err(failure);
                    }
                }
                Turn::Connect(telling) => {
                    let way = self.fresh(upstream, true).await;
                    match &way {
                        Ok(Way::Http2(_)) => {}
                        Ok(Way::Http1(..)) => self.note_http1(upstream),
                        Err(_) => drop(locked(&self.shared).remove(upstream)),
                    }
                    // An error: nobody waits.
                    let _ = telling.send(way.as_ref().map(|_| ()).map_err(Failure::clone));
                    return way;
                }
            }
        }
        match self.take(upstream) {
            Some(connection) => Ok(Way::Http1(connection, self.place(upstream))),
            None => self.fresh(upstream, true).await,
        }
    }

    /// A new connection.
    pub(crate) async fn fresh(self: &Arc<Self>, upstream: &Arc<Upstream>, http2: bool) -> Result<Way, Failure> {
        let stream = self.connector.connect(upstream, http2).await?;
        if stream.protocol() != Some(b"h2") {
            return Ok(Way::Http1(Box::new(Connection::new(stream)), self.place(upstream)));
        }
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30))).keep_alive_while_idle(true);
        // A large answer shall not wait for its window at every turn.
        builder.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
        let handshake = builder.handshake::<_, Outbound>(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| Failure::Connect(error.to_string()))?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let known = Known::Open { sender: sender.clone(), used: Instant::now(), resting: self.descriptors().rest() };
        drop(locked(&self.shared).insert(Arc::clone(upstream), known));
        self.descriptors().settle();
        Ok(Way::Http2(sender))
    }

    /// A connection for a tunnel.
    pub(crate) async fn tunnel(&self, target: &Target, local_allowed: bool) -> Result<Stream, ConnectError> {
        self.connector.tunnel(target, local_allowed).await
    }

    fn place(self: &Arc<Self>, upstream: &Arc<Upstream>) -> Place {
        Place { pool: Arc::downgrade(self), upstream: Arc::clone(upstream) }
    }

    /// The upstream speaks HTTP/1.1 alone. Hosts can be any number: they are asked once more, rather than all remembered.
    fn note_http1(&self, upstream: &Arc<Upstream>) {
        let mut shared = locked(&self.shared);
        if shared.len() >= MOST_HTTP1 {
            shared.retain(|_, known| !matches!(known, Known::Http1(_)));
        }
        shared.insert(Arc::clone(upstream), Known::Http1(Instant::now()));
    }

    fn turn(&self, upstream: &Arc<Upstream>) -> Turn {
        let mut shared = locked(&self.shared);
        match shared.get_mut(upstream) {
            Some(Known::Http1(used)) => {
                *used = Instant::now();
                return Turn::Http1;
            }
            Some(Known::Open { sender, used, .. }) if !sender.is_closed() => {
                *used = Instant::now();
                return Turn::Use(sender.clone());
            }
            // Closed: nobody is connecting any more.
            Some(Known::Coming(coming)) if !coming.is_closed() => return Turn::Wait(coming.resubscribe()),
            _ => {}
        }
        let (telling, coming) = broadcast::channel(1);
        shared.insert(Arc::clone(upstream), Known::Coming(coming));
        Turn::Connect(telling)
    }

    /// The connection that was given back last and is still open.
    fn take(&self, upstream: &Arc<Upstream>) -> Option<Box<Connection>> {
        let mut idle = locked(&self.idle);
        let waiting = idle.get_mut(upstream)?;
        let now = Instant::now();
        while let Some(Idle { mut connection, since, .. }) = waiting.pop() {
            if now.duration_since(since) < self.idle_for && is_open(&mut connection) {
                return Some(connection);
            }
        }
        None
    }

    /// Upstreams with idle connections, and those of which something is known of HTTP/2.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (locked(&self.idle).len(), locked(&self.shared).len())
    }

    /// Closes what has been idle for too long, or was closed.
    fn sweep(&self) {
        let now = Instant::now();
        locked(&self.idle).retain(|_, waiting| {
            waiting.retain_mut(|idle| now.duration_since(idle.since) < self.idle_for && is_open(&mut idle.connection));
            !waiting.is_empty()
        });
        // What is under way on a connection comes to its end all the same.
        locked(&self.shared).retain(|_, known| match known {
            Known::Open { sender, used, .. } => !sender.is_closed() && now.duration_since(*used) < self.idle_for,
            Known::Coming(coming) => !coming.is_closed(),
            // Hosts can be any number.
            Known::Http1(used) => now.duration_since(*used) < self.idle_for,
        });
    }
}

impl Keeps for Pool {
    fn ages(&self, ages: &mut Vec<Instant>) {
        ages.extend(locked(&self.idle).values().flatten().map(|idle| idle.since));
        ages.extend(
            locked(&self.shared).values().filter_map(|known| if let Known::Open { used, .. } = known { Some(*used) } else { None }),
        );
    }

    fn close_until(&self, since: Instant) -> Closed {
        // Of one upstream, the oldest come first. They are closed once the lock is free.
        let mut old = Vec::new();
        locked(&self.idle).retain(|_, waiting| {
            old.extend(waiting.drain(..waiting.partition_point(|idle| idle.since <= since)));
            !waiting.is_empty()
        });
        let aged = |known: &Known| matches!(known, Known::Open { used, .. } if *used <= since);
        let shared: Vec<_> = locked(&self.shared).extract_if(|_, known| aged(known)).collect();
        Closed { now: old.len(), soon: shared.len() }
    }
}

/// Sweeps a pool for as long as it is there.
pub(crate) async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(interval) = pool.upgrade().map(|pool| pool.idle_for / 2) else { return };
        tokio::time::sleep(interval.clamp(Duration::from_millis(100), Duration::from_secs(15))).await;
        if let Some(pool) = pool.upgrade() {
            pool.sweep();
        }
        give_memory_back();
    }
}

/// The allocator gives what was freed back to the system when it has waited for a while and is called again. In a process that has
/// nothing more to do nobody calls: what a thousand clients took would stay.
fn give_memory_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

impl Place {
    /// The connection waits for the next request.
    pub(crate) fn give_back(self, mut connection: Box<Connection>) {
        let Some(pool) = self.pool.upgrade() else { return };
        connection.stream.rest();
        let idle = Idle { connection, since: Instant::now(), resting: pool.descriptors().rest() };
        let mut all = locked(&pool.idle);
        match all.get_mut(&self.upstream) {
            Some(waiting) => waiting.push(idle),
            None => drop(all.insert(self.upstream, vec![idle])),
        }
        drop(all);
        pool.descriptors().settle();
    }
}

/// True if the upstream has said nothing since, its end least of all.
fn is_open(connection: &mut Connection) -> bool {
    #[cfg(test)]
    if crate::simulation::sabotaged(crate::simulation::Sabotage::TrustsIdle) {
        return true;
    }
    matches!(connection.stream.poll_fill(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Pool").field("idle_for", &self.idle_for).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sigward_gateway::Hop;
    use sigward_gateway::settings::EngineSettings;

    use super::*;
    use crate::connect::Network;
    use crate::metrics::Metrics;

    fn pool(idle_for: Duration) -> Arc<Pool> {
        let settings = EngineSettings::from_json("{}").unwrap();
        let tls = crate::tls::client_config(&settings.tls).unwrap();
        let network = Arc::new(Network::new(&Metrics::new()));
        let pool = Pool::new(Connector::new(&tls, &settings, &network, &Arc::new(Hop::new(1))), idle_for);
        (0..1000).for_each(|number| pool.note_http1(&made_up(number)));
        pool.sweep();
        pool
    }

    fn made_up(number: usize) -> Arc<Upstream> {
        let target = Target::from_url(&format!("https://sqs.us-made{number}-1.amazonaws.com")).unwrap();
        Arc::new(Upstream { target, connect: None, named: false })
    }

    #[test]
    fn hosts_that_nobody_asks_for_any_more_are_forgotten() {
        assert_eq!(locked(&pool(Duration::ZERO).shared).len(), 0);
        let pool = pool(Duration::from_secs(3600));
        assert_eq!(locked(&pool.shared).len(), 1000);
        for number in 0..3 * MOST_HTTP1 {
            pool.note_http1(&made_up(number));
            assert!(locked(&pool.shared).len() <= MOST_HTTP1);
        }
    }
}
