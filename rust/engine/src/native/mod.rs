//! The native front: Rust from socket to socket. Forward proxy with interception, reverse and transparent listeners, on TCP and unix sockets.
//!
//! Each worker has a socket of its own on the same port (`SO_REUSEPORT`), so that the kernel spreads connections and no thread
//! hands anything to another. What a request goes through is [`drive`](crate::drive)'s, as with the other front.

mod constraints;
mod handshake;
mod http1;
mod http2;
mod leaf;
mod listen;
mod target;
mod tunnel;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use sigward_gateway::{Entry, Refusal, RequestHead, Target};
use tokio::sync::{Notify, watch};

use crate::body::Inbound;
use crate::drive::{Answer, Informed, Listener, drive};
use crate::job::UnderWay;
use crate::net::{Socket, Stream};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::system::unix_seconds;
use crate::validity::{RENEW_CA, ca_standing};
use leaf::Authority;

pub(crate) use http1::Upload;
pub(crate) use listen::{Bound, accept, bind};

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A proxy: CONNECT and absolute-form.
    Forward,
    /// An endpoint URL: everything goes to this target, or to the host that Host names.
    Reverse(Option<Target>),
    /// Connections that the kernel turned round (iptables' REDIRECT): where they were bound for is asked of it.
    Transparent,
}

/// Why clients refuse some hosts' certificates, and the mend.
const NOT_VOUCHED: &str = "sigward's CA is limited to AWS's hosts and those that routes named when it was made. `sigward ca renew` makes one for \
    the routes of today, which clients must trust anew; `ca_names` adds names.";

/// How far a front has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    No,
    /// Nothing new.
    Draining,
    /// Nothing at all.
    Cut,
}

/// What all listeners share.
#[derive(Debug)]
pub(crate) struct Native {
    /// Signs leaves. Replaced when the CA in its file is another.
    authority: ArcSwapOption<Authority>,
    /// No new connections; those that are open end after what they are at, or at once.
    ending: watch::Sender<Ending>,
    connections: AtomicI64,
    /// Listeners that take connections.
    accepting: AtomicI64,
    /// A connection has ended.
    ended: Notify,
    /// What the log has told of handshakes and tunnels.
    told: handshake::Told,
    /// Bytes that clients of HTTP/2 may send ahead, beyond what each of them always may.
    widened: AtomicU64,
}

impl Default for Native {
    fn default() -> Self {
        Self {
            authority: ArcSwapOption::empty(),
            ending: watch::Sender::new(Ending::No),
            connections: AtomicI64::new(0),
            accepting: AtomicI64::new(0),
            ended: Notify::new(),
            told: handshake::Told::default(),
            widened: AtomicU64::new(0),
        }
    }
}

impl Native {
    /// Reads the CA that forward listeners sign with. An error leaves the one that there is.
    pub(crate) fn load_authority(&self, path: &Path) -> Result<Arc<Authority>, String> {
        let authority = Authority::load(path, self.authority.load_full())?;
        self.authority.store(Some(Arc::clone(&authority)));
        Ok(authority)
    }

    /// The CA, once it is read.
    pub(crate) fn authority(&self) -> Option<Arc<Authority>> {
        self.authority.load_full()
    }

    /// True if clients take a certificate of the CA's for this host. Without a CA there is nothing to refuse.
    pub(crate) fn vouches_for(&self, host: &str) -> bool {
        self.authority.load().as_ref().is_none_or(|authority| authority.vouches_for(host))
    }

    /// Why a CONNECT to this host is refused although it would be intercepted: clients would refuse the certificate.
    pub(crate) fn refuses(&self, host: &str) -> Option<Refusal> {
        let authority = self.authority.load();
        let authority = authority.as_ref()?;
        let now = unix_seconds();
        if authority.validity.has_ended(now) {
            let what = ca_standing(authority.validity, now).what;
            return Some(Refusal::sigward(503, "ca-expired", format!("{what}."), RENEW_CA));
        }
        let unvouched = || format!("{host:?} is not among the hosts that clients take a certificate of sigward's CA for.");
        (!authority.vouches_for(host)).then(|| Refusal::sigward(403, "not-vouched-for", unvouched(), NOT_VOUCHED))
    }

    pub(crate) fn end(&self, ending: Ending) {
        self.ending.send_replace(ending);
    }

    pub(crate) fn connections(&self) -> i64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// False once all that had connected before the front drained has ended.
    pub(crate) fn is_busy(&self) -> bool {
        self.accepting.load(Ordering::Relaxed) > 0 || self.connections() > 0
    }
}

/// When the front drains, a connection that nothing is known to have come on is looked at for so long: what lies in its socket is a
/// request that its client takes for accepted.
const LAME_DUCK: Duration = Duration::from_millis(50);

/// Ready when the front has come so far to its end.
async fn at_least(ending: &mut watch::Receiver<Ending>, far: Ending) {
    // Without a sender the front is gone.
    let _ = ending.wait_for(|ending| *ending >= far).await;
}

/// What one connection needs.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<ArcSwap<Pool>>,
    pub(crate) native: Arc<Native>,
    pub(crate) kind: Kind,
}

/// A connection that is counted for as long as it is there.
pub(crate) struct Counted {
    shared: Arc<Shared>,
    native: Arc<Native>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.native.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.connections.dec();
        self.native.ended.notify_waiters();
    }
}

/// How requests of one connection are to be read.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    Proxy,
    Endpoint,
    /// Inside a CONNECT, or a connection that was turned round, to this target.
    Inside(Target),
}

impl Via {
    fn entry(&self) -> Entry {
        match self {
            Self::Proxy => Entry::Forward,
            Self::Endpoint => Entry::Reverse,
            Self::Inside(_) => Entry::Connect,
        }
    }
}

impl Front {
    pub(crate) fn counted(&self) -> Counted {
        self.native.connections.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.connections.inc();
        Counted { shared: Arc::clone(&self.shared), native: Arc::clone(&self.native) }
    }

    /// A new connection, from its first byte to its last.
    async fn begin(self, socket: Socket, client: Arc<str>, original: Option<SocketAddr>) {
        let stream = Stream::new(socket);
        match self.kind {
            Kind::Forward => self.plain_or_tls(stream, Via::Proxy, client).await,
            Kind::Reverse(_) => self.plain_or_tls(stream, Via::Endpoint, client).await,
            Kind::Transparent => Box::pin(self.turned_round(stream, original, client)).await,
        }
    }

    /// HTTP of whichever version; a TLS client may have agreed on one.
    async fn http(self, stream: Stream, via: Via, client: Arc<str>) {
        if stream.protocol() == Some(b"h2") {
            Box::pin(http2::serve(self, stream, via, client)).await;
        } else {
            http1::serve(self, stream, via, client).await;
        }
    }

    /// One request, and what is told of it.
    pub(crate) async fn exchange(&self, head: RequestHead, inbound: Inbound, listener: Listener<'_>) -> Answer {
        let mut under_way = UnderWay::new(None, &self.shared, &head);
        let pool = self.pool.load_full();
        // For as long as the pool is held here.
        let listener = Listener { informed: listener.informed.map(|informed| informed as Informed<'_>) };
        let mut answer = drive(&self.shared, &pool, head, inbound, listener, false, &mut under_way).await;
        under_way.tell(&mut answer);
        answer
    }

    /// Work that goes on for as long as the front does.
    pub(crate) async fn until_cut(&self, work: impl Future<Output = ()>) {
        let mut ending = self.native.ending.subscribe();
        tokio::select! {
            () = work => {}
            () = at_least(&mut ending, Ending::Cut) => {}
        }
    }
}
