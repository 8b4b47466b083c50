//! The client half of HTTP/2: one connection. Its streams are in `stream`.

mod carrier;
mod duplex;
mod stream;
mod windows;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Connection;
use h2::{Ping, PingPong, Reason};
use tokio::sync::mpsc;

use super::{Ending, Front, Via, at_least};
use crate::net::Stream;
use carrier::Carrier;
use windows::{Ask, Windows};

/// A client that still sends gets so long to see why its connection ends.
const LINGER: Duration = Duration::from_secs(5);
/// A client has so long to answer a PING.
const PONG: Duration = Duration::from_secs(20);
/// How often it is looked whether a client has confirmed its windows.
const UNCONFIRMED: Duration = Duration::from_millis(50);
/// Bytes of answers that wait for one client's windows.
const SEND_BUFFER: usize = 64 << 10;

/// Serves a connection to its end.
pub(crate) async fn serve(front: Front, stream: Stream, via: Via, client: Arc<str>) {
    let back = Arc::new(Mutex::new(None));
    let broken = Box::pin(converse(front, Carrier::new(stream, &back), via, client)).await;
    // A client that has broken a rule may be sending on, and is to see the GOAWAY that says so.
    let stream = locked(&back).take();
    if let Some(mut stream) = stream.filter(|_| broken) {
        // All is said, but nothing may have been closed.
        let mut said = false;
        let lingering = std::future::poll_fn(|context| stream.poll_linger(context, &mut said));
        let _ = tokio::time::timeout(LINGER, lingering).await;
    }
}

/// True: the client has broken a rule.
async fn converse(front: Front, carrier: Carrier, via: Via, client: Arc<str>) -> bool {
    let config = front.shared.config.load_full();
    let limits = &config.settings.limits;
    let patience = config.settings.timeouts.client_head;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes + limits.target_bytes + 64 * limits.headers).unwrap_or(u32::MAX))
        .initial_window_size(windows::STREAM)
        .initial_connection_window_size(windows::CONNECTION)
        .max_send_buffer_size(SEND_BUFFER);
    let heard = carrier.heard();
    let mut connection: Connection<Carrier, Bytes> = match tokio::time::timeout(patience, builder.handshake(carrier)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return true,
        Err(_) => {
            front.shared.metrics.slow_clients.with_label_values(&["head"]).inc();
            return false;
        }
    };
    let (asks, mut asked) = mpsc::unbounded_channel();
    let busy = Arc::new(Busy::new(asks, limits.streams));
    let mut windows = Windows::default();
    let mut ending = front.native.ending.subscribe();
    let mut unused = pin!(unused(&front, &busy));
    let mut silent = pin!(silent(connection.ping_pong(), heard, patience));
    let mut leaving = false;
    let mut has_left = pin!(has_left(&front, &busy));
    loop {
        tokio::select! {
            biased;
            Some(ask) = asked.recv() => windows.answer(ask, &mut connection),
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    if busy.resets_too_often() {
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    }
                    windows.settle(&mut connection);
                    tokio::spawn(stream::serve(front.clone(), request, respond, via.clone(), Arc::clone(&client), Open::new(&busy)));
                }
                Some(Err(_)) => return true,
                None => return busy.resets_too_often(),
            },
            () = at_least(&mut ending, Ending::Draining), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            why = &mut unused, if !leaving => match why {
                Unused::Idle => {
                    leaving = true;
                    connection.graceful_shutdown();
                }
                Unused::Stalled => return false,
            },
            // The library tells nobody of a confirmation.
            () = tokio::time::sleep(UNCONFIRMED), if windows.is_unsettled() => windows.settle(&mut connection),
            () = &mut has_left, if leaving => return false,
            () = &mut silent => return false,
        }
    }
}

/// Ready when a client sends nothing for too long, not even the answer to a PING.
async fn silent(pings: Option<PingPong>, heard: Arc<AtomicBool>, patience: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        heard.store(false, Ordering::Relaxed);
        tokio::time::sleep(patience).await;
        if heard.load(Ordering::Relaxed) {
            continue;
        }
        match tokio::time::timeout(PONG, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// What is under way on one connection.
struct Busy {
    /// Requests, answers and tunnels.
    open: AtomicUsize,
    /// Of them, answers that the client has taken nothing of for too long.
    stalled: AtomicUsize,
    /// When the last of them ended.
    since: Mutex<Option<Instant>>,
    resets: Mutex<Resets>,
    /// The client is granted more for the rest of one of them.
    widened: AtomicBool,
    /// To whoever drives the connection.
    asks: mpsc::UnboundedSender<Ask>,
}

/// Requests that the client has taken back while they were served.
struct Resets {
    count: u32,
    since: Instant,
    most: u32,
}

/// A client may take back so many requests, or twice as many as it may have at once, within this time.
const LEAST_RESETS: u32 = 1000;
const RESETS_WITHIN: Duration = Duration::from_secs(10);

impl Busy {
    fn new(asks: mpsc::UnboundedSender<Ask>, streams: u32) -> Self {
        let most = streams.saturating_mul(2).max(LEAST_RESETS);
        Self {
            open: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            since: Mutex::new(None),
            resets: Mutex::new(Resets { count: 0, since: Instant::now(), most }),
            widened: AtomicBool::new(false),
            asks,
        }
    }

    /// The client has taken a request back (CVE-2023-44487: each costs it nothing, and may cost an upstream a call).
    fn count_reset(&self) {
        let mut resets = locked(&self.resets);
        if resets.count <= resets.most && resets.since.elapsed() > RESETS_WITHIN {
            (resets.count, resets.since) = (0, Instant::now());
        }
        resets.count += 1;
    }

    fn resets_too_often(&self) -> bool {
        let resets = locked(&self.resets);
        resets.count > resets.most
    }
}

/// One of what is under way.
struct Open(Arc<Busy>);

impl Open {
    fn new(busy: &Arc<Busy>) -> Self {
        busy.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            *locked(&self.0.since) = Some(Instant::now());
        }
    }
}

/// An answer that the client takes nothing of.
struct Stalled<'a>(&'a Busy);

impl<'a> Stalled<'a> {
    fn new(busy: &'a Busy) -> Self {
        busy.stalled.fetch_add(1, Ordering::Relaxed);
        Self(busy)
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.stalled.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection is not kept.
enum Unused {
    /// Nothing was asked for so long.
    Idle,
    /// Of no answer on it anything is taken any more.
    Stalled,
}

/// Ready when a connection is no more of use.
async fn unused(front: &Front, busy: &Busy) -> Unused {
    let began = Instant::now();
    loop {
        let config = front.shared.config.load_full();
        let timeouts = &config.settings.timeouts;
        let pause = (timeouts.client_write / 2).min(timeouts.client_idle / 2).clamp(SHORTEST_LOOK, LONGEST_LOOK);
        tokio::time::sleep(pause).await;
        let open = busy.open.load(Ordering::Relaxed);
        if open == 0 {
            if locked(&busy.since).unwrap_or(began).elapsed() >= timeouts.client_idle {
                return Unused::Idle;
            }
        } else if busy.stalled.load(Ordering::Relaxed) == open {
            return Unused::Stalled;
        }
    }
}

/// Ready when a client that was sent GOAWAY has had its time. The library waits for ever for one that does not take what was sent.
async fn has_left(front: &Front, busy: &Busy) {
    loop {
        tokio::time::sleep(front.shared.config.load().settings.timeouts.client_write).await;
        // All that is open takes nothing, or nothing is.
        if busy.stalled.load(Ordering::Relaxed) == busy.open.load(Ordering::Relaxed) {
            return;
        }
    }
}

const SHORTEST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
