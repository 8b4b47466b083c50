//! Connections of sigward's own that come back to it.
//!
//! A request says by its `Via` that it has been here before. A tunnel says nothing, so it is the connection that is recognised: by its two
//! ends, which no other connection has. iptables' REDIRECT without an exception for sigward's own user sends sigward's connections to its
//! transparent listener, which asks where they were bound for, and would connect there again, and again.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Redirected connections to one destination of which nothing has come back yet, at most. Two sigwards that each redirect the other's
/// connections do not recognise them, and in such a circle no byte ever comes back.
const MOST_SILENT: usize = 64;

/// A connection's own end, and its far end.
type Ends = (SocketAddr, SocketAddr);

/// See the module.
#[derive(Debug)]
pub(crate) struct Loops {
    outgoing: Mutex<HashMap<Ends, Arc<AtomicBool>>>,
    listeners: Mutex<Vec<SocketAddr>>,
    /// Redirected connections that nothing has come back of, by destination.
    silent: Mutex<HashMap<SocketAddr, usize>>,
    noticed: IntCounter,
}

impl Loops {
    pub(crate) fn new(noticed: IntCounter) -> Self {
        Self { outgoing: Mutex::default(), listeners: Mutex::default(), silent: Mutex::default(), noticed }
    }

    /// A connection goes out.
    pub(crate) fn departs(self: &Arc<Self>, own: SocketAddr, far: SocketAddr) -> Departed {
        let ends = (plain(own), plain(far));
        let returned = Arc::new(AtomicBool::new(false));
        locked(&self.outgoing).insert(ends, Arc::clone(&returned));
        Departed { loops: Arc::clone(self), ends, returned }
    }

    /// True if a connection that came in is one that went out. `peer`: who connects, `bound_for`: where to. Whoever made it can tell from
    /// then on.
    pub(crate) fn is_own(&self, peer: SocketAddr, bound_for: SocketAddr) -> bool {
        let returned = locked(&self.outgoing).get(&(plain(peer), plain(bound_for))).map(Arc::clone);
        if let Some(returned) = &returned {
            returned.store(true, Ordering::Release);
            self.noticed.inc();
        }
        returned.is_some()
    }

    /// A listener of this process.
    pub(crate) fn listens(&self, at: SocketAddr) {
        locked(&self.listeners).push(plain(at));
    }

    /// True if a listener of this process has this address.
    pub(crate) fn leads_back(&self, to: SocketAddr) -> bool {
        let to = plain(to);
        // One of IPv6 may take IPv4, too; not the other way round.
        let takes_any = |ip: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || to.is_ipv4());
        let at = |listener: &SocketAddr| listener.port() == to.port() && (listener.ip() == to.ip() || takes_any(listener.ip()));
        let found = locked(&self.listeners).iter().filter(|listener| at(listener)).map(|listener| listener.ip() == to.ip()).max();
        let leads_back = found.is_some_and(|exact| exact || is_of_this_host(to.ip()));
        if leads_back {
            self.noticed.inc();
        }
        leads_back
    }

    /// A redirected connection begins. `None`: of too many to this destination, nothing has come back yet.
    pub(crate) fn begins(self: &Arc<Self>, to: SocketAddr) -> Option<Silent> {
        let mut silent = locked(&self.silent);
        let count = silent.entry(to).or_default();
        if *count >= MOST_SILENT {
            self.noticed.inc();
            return None;
        }
        *count += 1;
        Some(Silent { loops: Arc::clone(self), to })
    }
}

/// A connection that went out, for as long as it is there.
#[derive(Debug)]
pub(crate) struct Departed {
    loops: Arc<Loops>,
    ends: Ends,
    returned: Arc<AtomicBool>,
}

impl Departed {
    /// Becomes true once it has come back.
    pub(crate) fn returned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.returned)
    }
}

impl Drop for Departed {
    fn drop(&mut self) {
        locked(&self.loops.outgoing).remove(&self.ends);
    }
}

/// A redirected connection of which nothing has come back yet.
#[derive(Debug)]
pub(crate) struct Silent {
    loops: Arc<Loops>,
    to: SocketAddr,
}

impl Drop for Silent {
    fn drop(&mut self) {
        let mut silent = locked(&self.loops.silent);
        if let Some(count) = silent.get_mut(&self.to) {
            *count -= 1;
            if *count == 0 {
                silent.remove(&self.to);
            }
        }
    }
}

/// A connection that is counted as silent until something comes.
pub(crate) struct Listening<S> {
    inner: S,
    silent: Option<Silent>,
}

impl<S> Listening<S> {
    pub(crate) fn new(inner: S, silent: Silent) -> Self {
        Self { inner, silent: Some(silent) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        this.silent = None;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// An address in the one form that both ends of a connection see it in: an IPv6 socket shows IPv4 addresses in a form of its own.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True for an address that one of this host's interfaces has.
fn is_of_this_host(address: IpAddr) -> bool {
    let can_bind = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    // Of documentation alone (RFC 5737, RFC 3849): who can bind it can bind any (sysctl ip_nonlocal_bind).
    let (nowhere, any): (IpAddr, IpAddr) = match address {
        IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::UNSPECIFIED.into()),
    };
    if !can_bind(address) {
        return false;
    }
    // The way to an own address begins at that address. Nothing is sent.
    !can_bind(nowhere)
        || address.is_loopback()
        || UdpSocket::bind((any, 0))
            .and_then(|socket| socket.connect((address, 9)).and_then(|()| socket.local_addr()))
            .is_ok_and(|own| own.ip() == address)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn loops() -> Arc<Loops> {
        Arc::new(Loops::new(IntCounter::new("loops", "help").unwrap()))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_is_recognised_by_both_its_ends() {
        let loops = loops();
        let departed = loops.departs(at("10.0.0.5:40000"), at("203.0.113.10:443"));
        // A client on this host may have the same port of its own towards another destination.
        assert!(!loops.is_own(at("10.0.0.5:40000"), at("203.0.113.11:443")));
        assert!(!loops.is_own(at("10.0.0.5:40001"), at("203.0.113.10:443")));
        assert!(!departed.returned().load(Ordering::Acquire));
        assert!(loops.is_own(at("[::ffff:10.0.0.5]:40000"), at("[::ffff:203.0.113.10]:443")));
        assert!(departed.returned().load(Ordering::Acquire));
        drop(departed);
        assert!(!loops.is_own(at("10.0.0.5:40000"), at("203.0.113.10:443")));
        assert!(locked(&loops.outgoing).is_empty());
    }

    #[test]
    fn listeners_are_recognised_by_each_address_of_the_host() {
        let loops = loops();
        loops.listens(at("0.0.0.0:8080"));
        loops.listens(at("127.0.0.1:8081"));
        loops.listens(at("[::1]:8082"));
        for (address, expected) in [
            ("127.0.0.1:8080", true),
            ("127.0.0.2:8080", true),
            ("[::ffff:127.0.0.1]:8080", true),
            ("192.0.2.7:8080", false),
            ("[::1]:8080", false),
            ("127.0.0.1:8081", true),
            ("127.0.0.2:8081", false),
            ("[::1]:8082", true),
            ("127.0.0.1:8082", false),
        ] {
            assert_eq!(loops.leads_back(at(address)), expected, "{address}");
        }
    }

    #[test]
    fn silent_connections_are_bounded_by_destination() {
        let loops = loops();
        let mut all: Vec<Silent> = (0..MOST_SILENT).map(|_| loops.begins(at("203.0.113.10:443")).unwrap()).collect();
        assert!(loops.begins(at("203.0.113.10:443")).is_none());
        assert!(loops.begins(at("203.0.113.10:444")).is_some());
        all.pop();
        assert!(loops.begins(at("203.0.113.10:443")).is_some());
        all.clear();
        assert!(locked(&loops.silent).is_empty());
    }
}
