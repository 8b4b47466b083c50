//! Connections to the upstream: resolving, the guard against local addresses, TCP, a proxy on the way, verified TLS; one time-out over all.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sigward_gateway::settings::{EgressSettings, EngineSettings, Proxy};
use sigward_gateway::{Failure, Hop, Scheme, Target, Upstream, is_forbidden, is_forbidden_host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::descriptors::Descriptors;
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::net::{Socket, Stream};
use crate::system;

/// An address has so long before the next is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Names that are remembered.
const MOST_NAMES: usize = 4096;
/// What a proxy answers to CONNECT, at most.
const PROXY_HEAD: usize = 16 << 10;

/// What all connections to upstreams share.
#[derive(Debug)]
pub(crate) struct Network {
    resolver: Resolver,
    pub(crate) descriptors: Descriptors,
    pub(crate) loops: Arc<Loops>,
}

impl Network {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            resolver: Resolver::default(),
            descriptors: Descriptors::new(metrics.idle_closed.clone()),
            loops: Arc::new(Loops::new(metrics.loops.clone())),
        }
    }
}

/// What was found of names, for everybody.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    known: Mutex<Known>,
}

/// When it was asked for, and what was found, by name.
type Known = HashMap<Box<str>, (Instant, Arc<[IpAddr]>)>;

impl Resolver {
    /// The addresses of a name, as the system finds them; remembered for `keep`.
    pub(crate) async fn resolve(&self, host: &str, keep: Duration) -> io::Result<Arc<[IpAddr]>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Arc::from([address]));
        }
        if let Some((at, found)) = self.locked().get(host)
            && at.elapsed() < keep
        {
            return Ok(Arc::clone(found));
        }
        let mut found: Vec<IpAddr> = Vec::new();
        for address in system::lookup(host).await? {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        let found: Arc<[IpAddr]> = interleaved(found).into();
        if !keep.is_zero() {
            self.remember(host, &found, keep);
        }
        Ok(found)
    }

    fn remember(&self, host: &str, found: &Arc<[IpAddr]>, keep: Duration) {
        let mut known = self.locked();
        if known.len() >= MOST_NAMES {
            known.retain(|_, (at, _)| at.elapsed() < keep);
        }
        if known.len() < MOST_NAMES {
            known.insert(host.into(), (Instant::now(), Arc::clone(found)));
        }
    }

    /// What was known of a name does not hold.
    fn forget(&self, host: &str) {
        self.locked().remove(host);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two families take turns, beginning with the first that the system names (RFC 8305, section 4).
fn interleaved(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let v6_first = found.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(|address| address.is_ipv6() == v6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair.iter().all(Option::is_none) {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// An address, or a name of this host's, that clients must not reach.
    #[error("{0} is a local address")]
    Forbidden(String),
    /// The network's.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The proxy's on the way.
    #[error("the proxy {proxy} (egress.proxy): {why}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// What it answered, or why it cannot be reached.
        why: String,
    },
    /// It leads back to this process.
    #[error("it leads back to sigward")]
    Loop,
    /// The whole way did not come to its end in time. With a proxy on it, that one's host and port.
    #[error("no connection within {0:?}{by}", by = .1.as_ref().map(|proxy| format!(" through the proxy {proxy} (egress.proxy)")).unwrap_or_default())]
    Late(Duration, Option<String>),
}

impl ConnectError {
    /// For the exchange.
    fn failure(&self) -> Failure {
        match self {
            Self::Forbidden(address) => Failure::Forbidden(address.clone()),
            Self::Loop => Failure::Loop,
            Self::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => Failure::Tls(error.to_string()),
                _ => Failure::Connect(error.to_string()),
            },
            Self::Proxy { .. } | Self::Late(..) => Failure::Connect(self.to_string()),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    /// By `Via` they say where they have been.
    Requests,
    /// A tunnel's, which say nothing.
    Bytes,
}

/// Makes connections, as the settings say.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    /// With ALPN for HTTP/1.1 alone, and for both.
    tls: [Arc<ClientConfig>; 2],
    timeout: Duration,
    dns: Duration,
    egress: EgressSettings,
    network: Arc<Network>,
    /// What a proxy on the way is told of this one.
    hop: Option<Arc<Hop>>,
}

impl Connector {
    pub(crate) fn new(tls: &Arc<ClientConfig>, settings: &EngineSettings, network: &Arc<Network>, hop: &Arc<Hop>) -> Self {
        let speaking = |protocols: &[&[u8]]| {
            let mut config = ClientConfig::clone(tls);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            tls: [Arc::clone(tls), speaking(&[b"h2", b"http/1.1"])],
            timeout: settings.timeouts.connect,
            dns: settings.timeouts.dns,
            egress: settings.egress.clone(),
            network: Arc::clone(network),
            hop: settings.via.then(|| Arc::clone(hop)),
        }
    }

    /// What all connections share.
    pub(crate) fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// TCP and, for https, TLS. `http2`: ALPN offers it.
    pub(crate) async fn connect(&self, upstream: &Upstream, http2: bool) -> Result<Stream, Failure> {
        let connecting = async {
            let socket = self.socket(upstream, Carries::Requests).await?;
            if upstream.target.scheme == Scheme::Http {
                return Ok(Stream::new(socket));
            }
            let name = ServerName::try_from(upstream.target.host.to_string()).map_err(io::Error::other)?;
            let [http1, both] = &self.tls;
            let returned = socket.returned();
            Stream::connect(socket, Arc::clone(if http2 { both } else { http1 }), name).await.map_err(|error| {
                // It was refused at its far end, which is here.
                let returned = returned.is_some_and(|returned| returned.load(Ordering::Acquire));
                if returned { ConnectError::Loop } else { error.into() }
            })
        };
        let late = |_| Err(self.late(upstream));
        let connected: Result<Stream, ConnectError> = tokio::time::timeout(self.timeout, connecting).await.unwrap_or_else(late);
        connected.map_err(|error| error.failure())
    }

    /// Bytes to a target that is not looked into.
    pub(crate) async fn tunnel(&self, target: &Target, local_allowed: bool) -> Result<Stream, ConnectError> {
        let upstream = Upstream { target: target.clone(), connect: None, named: local_allowed };
        let late = |_| Err(self.late(&upstream));
        tokio::time::timeout(self.timeout, self.socket(&upstream, Carries::Bytes)).await.unwrap_or_else(late).map(Stream::new)
    }

    fn late(&self, upstream: &Upstream) -> ConnectError {
        let proxy = place(upstream).ok().and_then(|(host, _)| self.egress.proxy_for(host));
        ConnectError::Late(self.timeout, proxy.map(shown))
    }

    async fn socket(&self, upstream: &Upstream, carries: Carries) -> Result<Socket, ConnectError> {
        let (host, port) = place(upstream)?;
        // A proxy resolves names itself, and may run on this host: names and addresses of this host are refused before it is asked.
        if !upstream.named && is_forbidden_host(host) {
            return Err(ConnectError::Forbidden(host.to_owned()));
        }
        if let Some(proxy) = self.egress.proxy_for(host) {
            let hop = self.hop.as_deref();
            let reached =
                async { through(self.outgoing(&proxy.host, proxy.port, true, Carries::Requests).await?, proxy, host, port, hop).await };
            return reached.await.map_err(|error| match error {
                ConnectError::Io(error) => ConnectError::Proxy { proxy: shown(proxy), why: error.to_string() },
                error => error,
            });
        }
        self.outgoing(host, port, upstream.named, carries).await
    }

    async fn resolved(&self, host: &str) -> io::Result<Arc<[IpAddr]>> {
        let Network { resolver, descriptors, .. } = &*self.network;
        descriptors.again_unless_room(|| resolver.resolve(host, self.dns)).await
    }

    /// A TCP connection to the first address that takes it. `local_allowed`: a loopback or link-local one, too.
    async fn outgoing(&self, host: &str, port: u16, local_allowed: bool, carries: Carries) -> Result<Socket, ConnectError> {
        let found = self.resolved(host).await?;
        let mut allowed: Vec<SocketAddr> = found
            .iter()
            .filter(|address| local_allowed || !is_forbidden(**address))
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        if let (Some(address), true) = (found.first(), allowed.is_empty()) {
            return Err(ConnectError::Forbidden(address.to_string()));
        }
        if carries == Carries::Bytes {
            allowed.retain(|address| !self.network.loops.leads_back(*address));
            if allowed.is_empty() && !found.is_empty() {
                return Err(ConnectError::Loop);
            }
        }
        let connected = self.network.descriptors.again(|| first_of(&allowed, &self.network.loops)).await;
        if connected.is_err() {
            self.network.resolver.forget(host);
        }
        Ok(connected?)
    }
}

/// Happy eyeballs (RFC 8305): each address has a head start over the next, and the first connection counts.
async fn first_of(addresses: &[SocketAddr], loops: &Arc<Loops>) -> io::Result<Socket> {
    let mut waiting = addresses.iter();
    let mut under_way = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let Some(first) = waiting.next() else { return Err(last) };
    under_way.push(system::dial(*first, loops));
    loop {
        let head_start = tokio::time::sleep(HEAD_START);
        tokio::select! {
            biased;
            done = under_way.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = head_start, if waiting.len() > 0 => {}
        }
        match waiting.next() {
            Some(next) => under_way.push(system::dial(*next, loops)),
            None if under_way.is_empty() => return Err(last),
            None => {}
        }
    }
}

/// Where the socket goes: to the upstream's host, or where its route says.
fn place(upstream: &Upstream) -> io::Result<(&str, u16)> {
    match upstream.connect.as_deref().and_then(|connect| connect.rsplit_once(':')) {
        Some((host, port)) => {
            let port = port.parse().map_err(|_| io::Error::other("its port is no number"))?;
            Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
        }
        None => Ok((&*upstream.target.host, upstream.target.port)),
    }
}

/// A proxy, without its password.
fn shown(proxy: &Proxy) -> String {
    let bracketed = proxy.host.contains(':');
    if bracketed { format!("[{}]:{}", proxy.host, proxy.port) } else { format!("{}:{}", proxy.host, proxy.port) }
}

/// What a proxy says of itself is shown so far.
const SHOWN_ANSWER: usize = 120;

/// CONNECT through a proxy on the way.
async fn through(mut stream: Socket, proxy: &Proxy, host: &str, port: u16, hop: Option<&Hop>) -> Result<Socket, ConnectError> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(line) = hop.and_then(|hop| hop.line().to_str().ok()) {
        head.push_str("Via: ");
        head.push_str(line);
        head.push_str("\r\n");
    }
    if let Some(authorization) = &proxy.authorization {
        head.push_str("Proxy-Authorization: ");
        head.push_str(authorization.expose());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = BytesMut::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > PROXY_HEAD {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it did not answer CONNECT").into());
        }
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            let line = answer.get(..end).unwrap_or_default().split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            let status = line.split(' ').nth(1).unwrap_or_default();
            if !line.starts_with("HTTP/1.") || !status.starts_with('2') {
                let answer: String = line.chars().take(SHOWN_ANSWER).collect();
                let mend = match (status, &proxy.authorization) {
                    ("407", Some(_)) => "; it does not take the user and password of egress.proxy",
                    ("407", None) => "; it wants a user and a password in egress.proxy",
                    _ => "",
                };
                return Err(ConnectError::Proxy { proxy: shown(proxy), why: format!("it answered {answer:?}{mend}") });
            }
            // Nothing but the tunnel's may follow, and in TLS the client speaks first.
            return if answer.len() == end + 4 {
                Ok(stream)
            } else {
                Err(io::Error::other("it sent more than its answer to CONNECT").into())
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let found = ["::2", "::3", "::4", "10.0.0.1"].map(address).to_vec();
        assert_eq!(interleaved(found), ["::2", "10.0.0.1", "::3", "::4"].map(address));
        assert_eq!(interleaved(Vec::new()), Vec::<IpAddr>::new());
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // A port that nobody has: refused at once.
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let loops = crate::loops::tests::loops();
        let connected = first_of(&[closed, good], &loops).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert!(loops.is_own(peer, good) && connected.returned().is_some_and(|returned| returned.load(Ordering::Acquire)));
        assert!(first_of(&[closed], &loops).await.is_err());
        assert!(first_of(&[], &loops).await.is_err());
    }

    #[tokio::test]
    async fn names_are_remembered_and_forgotten() {
        let resolver = Resolver::default();
        let keep = Duration::from_secs(60);
        let found = resolver.resolve("localhost", keep).await.unwrap();
        assert!(Arc::ptr_eq(&found, &resolver.resolve("localhost", keep).await.unwrap()));
        resolver.forget("localhost");
        assert!(!Arc::ptr_eq(&found, &resolver.resolve("localhost", keep).await.unwrap()));
        assert!(resolver.resolve("does-not-exist.invalid", keep).await.is_err());
        // Any number of names can be made up.
        let address: Arc<[IpAddr]> = Arc::from([IpAddr::from([192, 0, 2, 1])]);
        (0..3 * MOST_NAMES).for_each(|number| resolver.remember(&format!("made-up-{number}.test"), &address, keep));
        assert!(resolver.locked().len() <= MOST_NAMES);
    }
}
