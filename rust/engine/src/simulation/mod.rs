//! The engine in a world of its own: everything outside of it is made of a seed.
//!
//! One seed is one run: real exchanges, the real driver, pool, clients of HTTP/1.1 and HTTP/2, pacer and leases, and the real script of the
//! shared store, on one thread. Time is tokio's paused clock, which jumps to the next timer when nobody has anything to do; the
//! network, the upstreams, the store, the credentials, the wall clock and the clients are simulated and fail as the seed says. The same
//! seed gives the same run, to the last event. `system` is where the engine meets the world.
//!
//! - `random`, `faults`: what the seed decides.
//! - `network`: connections. `upstream`: who answers on them. `store`: the fleet's. `clients`: who asks, and what must hold for them.
//! - `run`: one seed. `fleet`: one seed of sidecars that share a limit. `tests`: many.
//!
//! A failed seed prints itself, what did not hold, and what happened. To run it alone: `SIGWARD_SEED=17 cargo test -p sigward-engine
//! simulation`. To run more: `make simulate SEEDS=100000`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

mod clients;
mod faults;
mod fleet;
mod network;
mod random;
mod run;
mod store;
#[cfg(test)]
mod tests;
mod upstream;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::net::Socket;
use clients::Call;
pub(crate) use faults::Sabotage;
use faults::{Fault, Plan};
use random::Random;

thread_local! {
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
    static SABOTAGE: Cell<Option<Sabotage>> = const { Cell::new(None) };
}

/// The world of this thread, if it is simulated.
pub(crate) fn world() -> Option<Arc<World>> {
    WORLD.with_borrow(Clone::clone)
}

/// True if this rule is broken on purpose: the simulation has to notice.
pub(crate) fn sabotaged(sabotage: Sabotage) -> bool {
    SABOTAGE.get() == Some(sabotage)
}

/// The upstreams' clock at the start.
const EPOCH: u64 = 1_800_000_000;

/// See the module.
pub(crate) struct World {
    plan: Plan,
    began: Instant,
    /// Seconds that this host's clock is ahead.
    ahead: AtomicI64,
    random: Mutex<Random>,
    calls: Mutex<BTreeMap<u64, Call>>,
    /// When each pair of keys expires, by the upstreams' clock.
    keys: Mutex<Vec<u64>>,
    /// Connections that the engine holds.
    open: AtomicI64,
    connections: AtomicU64,
    store: store::Store,
    violations: Mutex<Vec<String>>,
    trace: Option<Mutex<Vec<String>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hosts that there are.
const HOSTS: [&str; 4] = [
    "dynamodb.us-east-1.amazonaws.com",
    "sqs.us-east-1.amazonaws.com",
    "bucket.s3.us-east-1.amazonaws.com",
    "abcdefghij.execute-api.us-east-1.amazonaws.com",
];
const STORE: &str = "store.internal";
/// It is near. Milliseconds.
const STORE_LATENCY: (u64, u64) = (0, 5);

impl World {
    fn new(plan: Plan, random: Random, traced: bool) -> Arc<Self> {
        Arc::new(Self {
            plan,
            began: Instant::now(),
            ahead: AtomicI64::new(0),
            random: Mutex::new(random),
            calls: Mutex::default(),
            keys: Mutex::default(),
            open: AtomicI64::new(0),
            connections: AtomicU64::new(0),
            store: store::Store::new(),
            violations: Mutex::default(),
            trace: traced.then(Mutex::default),
        })
    }

    pub(crate) fn random(&self) -> u64 {
        locked(&self.random).next()
    }

    fn split(&self) -> Random {
        locked(&self.random).split()
    }

    /// True if it happens now.
    fn fault(&self, fault: Fault, random: &mut Random) -> bool {
        let happens = random.chance(self.plan.faults[fault as usize]);
        if happens {
            faults::HAPPENED[fault as usize].fetch_add(1, Ordering::Relaxed);
            self.tell(|| format!("fault: {fault:?}"));
        }
        happens
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let what = format!("{:>9.3} {}", self.began.elapsed().as_secs_f64(), what());
            locked(trace).push(what);
        }
    }

    /// Something did not hold.
    fn violation(&self, what: impl FnOnce() -> String) {
        let what = what();
        self.tell(|| format!("!!! {what}"));
        locked(&self.violations).push(what);
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violation(what);
        }
    }

    /// What the upstreams' clock shows.
    fn true_seconds(&self) -> u64 {
        EPOCH + self.began.elapsed().as_secs()
    }

    /// What this host's clock shows.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.true_seconds().saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    pub(crate) async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut random = self.split();
        tokio::time::sleep(random.millis(0, self.plan.latency.1)).await;
        if self.fault(Fault::LookupHangs, &mut random) {
            std::future::pending::<()>().await;
        }
        if self.fault(Fault::LookupFails, &mut random) {
            return Err(io::Error::other("no such name"));
        }
        if self.fault(Fault::LookupLies, &mut random) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let Some(number) = HOSTS.iter().position(|known| *known == host) else { return Err(io::Error::other("no such name")) };
        let addresses = random.between(1, 3) as u8;
        Ok((0..addresses).map(|last| Ipv4Addr::new(10, 0, number as u8, last).into()).collect())
    }

    pub(crate) async fn dial(self: Arc<Self>, address: SocketAddr) -> io::Result<Socket> {
        let mut random = self.split();
        self.check(!address.ip().is_loopback(), || format!("a connection to {address}, which no client may reach"));
        tokio::time::sleep(random.millis(0, self.plan.latency.1)).await;
        if self.fault(Fault::DialHangs, &mut random) {
            std::future::pending::<()>().await;
        }
        if self.fault(Fault::DialRefused, &mut random) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = network::connection(&self, self.plan.latency);
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        self.tell(|| format!("connection {number} to {address}"));
        tokio::spawn(upstream::serve(Arc::clone(&self), theirs, number));
        Ok(Socket::Other(Box::new(ours)))
    }

    /// Stands for TLS: what is offered, and what was agreed on.
    pub(crate) async fn handshake(&self, socket: &mut Socket, http2: bool) -> io::Result<Option<&'static [u8]>> {
        socket.write_all(if http2 { b"2" } else { b"1" }).await?;
        match socket.read_u8().await? {
            b'2' => Ok(Some(b"h2")),
            b'1' => Ok(None),
            _ => Err(crate::net::as_io(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))),
        }
    }

    /// A connection to the fleet's store.
    pub(crate) async fn store(self: Arc<Self>, host: &str, port: u16) -> io::Result<Socket> {
        self.check((host, port) == (STORE, 6379), || "another store was asked for".into());
        let mut random = self.split();
        tokio::time::sleep(random.millis(0, STORE_LATENCY.1)).await;
        if self.store.is_down() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = network::connection(&self, STORE_LATENCY);
        tokio::spawn(store::serve(Arc::clone(&self), theirs));
        Ok(Socket::Other(Box::new(ours)))
    }
}

/// Longer than anything in a run may take.
const PATIENCE: Duration = Duration::from_secs(600);
