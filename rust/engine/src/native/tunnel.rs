//! What begins as one thing and goes on as another: CONNECT, TLS on a listener of plain text, connections that the kernel turned round.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::HOST;
use rustls::ServerConfig;
use sigward_gateway::{Refusal, Scheme, Target, is_forbidden};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ending, Front, LAME_DUCK, NOT_VOUCHED, Via, at_least};
use crate::connect::ConnectError;
use crate::h1::head::{self, Most};
use crate::net::{Socket, Stream};

/// A handshake's first byte.
const TLS: u8 = 0x16;
/// A `ClientHello`, or the head of a plain request, is not longer.
const MOST_HELLO: usize = 64 << 10;

/// What a CONNECT leads to.
pub(crate) enum Beyond {
    /// It is looked into.
    Inside(Target),
    /// Bytes are passed on, both ways.
    Tunnel(Box<Stream>),
}

/// What a client begins with.
enum Hello {
    /// TLS, for this name.
    Tls(Option<String>),
    /// A method's letters.
    Plain,
    Other,
}

/// Bytes both ways until either side ends.
pub(super) async fn copy(one: &mut (impl AsyncRead + AsyncWrite + Unpin), other: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = tokio::io::copy_bidirectional_with_sizes(one, other, 32 << 10, 32 << 10).await;
}

impl Front {
    /// CONNECT: AWS's hosts are looked into, all else is passed on, but never to a local address.
    pub(super) async fn connect(&self, authority: &str) -> Result<Beyond, Refusal> {
        let target = super::target::authority(authority)?;
        let config = self.shared.config.load_full();
        if config.intercepts(&target.host) && self.native.authority.get().is_some() {
            if !self.native.vouches_for(&target.host) {
                return Err(Refusal::sigward(
                    403,
                    "not-vouched-for",
                    format!("{:?} is not among the hosts that clients take a certificate of sigward's CA for.", target.host),
                    NOT_VOUCHED,
                ));
            }
            return Ok(Beyond::Inside(target));
        }
        if config.clients.required() {
            return Err(Refusal::client(
                403,
                "missing-authentication-token",
                format!(
                    "{:?} would be reached through a tunnel, and only requests that are signed with an issued key are served here.",
                    target.host
                ),
                "See clients.required.",
            ));
        }
        Ok(Beyond::Tunnel(Box::new(self.reach(&target).await?)))
    }

    /// What follows the answer to CONNECT. A type with a name: what is inside is served as what is outside, which no compiler sees through.
    pub(super) fn beyond(self, mut stream: Stream, beyond: Beyond, client: Arc<str>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match beyond {
                Beyond::Inside(target) => self.inside(stream, target, client).await,
                Beyond::Tunnel(mut upstream) => copy(&mut stream, &mut *upstream).await,
            }
        })
    }

    /// A connection for a tunnel, to an address that was looked at.
    async fn reach(&self, target: &Target) -> Result<Stream, Refusal> {
        let config = self.shared.config.load_full();
        let pool = self.pool.load_full();
        pool.tunnel(target, config.router.names(&target.host)).await.map_err(|error| match error {
            ConnectError::Forbidden(_) => forbidden(&target.host),
            error => {
                Refusal::upstream(502, "connect-failed", format!("no connection to {:?}: {error}.", target.host), "Check the host's name.")
            }
        })
    }

    /// Inside a CONNECT: TLS for this very host, or plain HTTP, is served; a `ClientHello` for another host is passed on untouched.
    async fn inside(self, mut stream: Stream, target: Target, client: Arc<str>) {
        let Some(hello) = self.hello(&mut stream).await else { return };
        match hello {
            // HTTP/1.1 or /2 in the clear.
            Hello::Plain => self.http(stream, Via::Inside(Target { scheme: Scheme::Http, ..target }), client).await,
            Hello::Tls(name) if name.as_deref().is_none_or(|name| same_host(name, &target.host)) => {
                let host = target.host.clone();
                self.shaken(stream, &host, Via::Inside(target), client).await;
            }
            Hello::Tls(_) if !self.shared.config.load().clients.required() => {
                if let Ok(mut upstream) = self.reach(&target).await {
                    copy(&mut stream, &mut upstream).await;
                }
            }
            // Neither TLS nor HTTP, or no tunnels are served.
            Hello::Tls(_) | Hello::Other => {}
        }
    }

    /// A reverse listener takes plain text and TLS.
    pub(super) async fn endpoint(self, mut stream: Stream, client: Arc<str>) {
        let Some(first) = Box::pin(self.first_byte(&mut stream)).await else { return };
        if first != TLS {
            return self.http(stream, Via::Endpoint, client).await;
        }
        let Some(Hello::Tls(name)) = Box::pin(self.hello(&mut stream)).await else { return };
        // A client that names nobody knows the listener by its address.
        let own = || stream.socket().local_addr().map_or_else(|| "localhost".to_owned(), |address| address.ip().to_string());
        let name = name.unwrap_or_else(own);
        Box::pin(self.shaken(stream, &name, Via::Endpoint, client)).await;
    }

    /// A connection that was bound for somewhere else: AWS's hosts are served, all else goes where it was bound for.
    pub(super) async fn turned_round(self, mut stream: Stream, original: Option<SocketAddr>, client: Arc<str>) {
        // Whoever connects to the listener itself was not turned round.
        let Some(original) = original.filter(|original| stream.socket().local_addr() != Some(*original)) else { return };
        let Some(hello) = self.hello(&mut stream).await else { return };
        let config = self.shared.config.load_full();
        let named = match &hello {
            Hello::Tls(name) => name.clone().map(|name| (Scheme::Https, name)),
            Hello::Plain => self.plain_host(&mut stream).await.map(|name| (Scheme::Http, name)),
            Hello::Other => None,
        };
        let target = named.and_then(|(scheme, name)| super::target::named(scheme, &name, original.port(), "bad-host").ok());
        if let Some(target) = target.filter(|target| config.intercepts(&target.host)) {
            // Where the bytes go is found anew from the name, whatever address the client had.
            return match hello {
                Hello::Tls(_) => {
                    let host = target.host.clone();
                    self.shaken(stream, &host, Via::Inside(target), client).await;
                }
                _ => self.http(stream, Via::Inside(target), client).await,
            };
        }
        if config.clients.required() || is_forbidden(original.ip()) {
            return;
        }
        let target = Target { scheme: Scheme::Https, host: original.ip().to_string().into(), port: original.port() };
        if let Ok(mut upstream) = self.reach(&target).await {
            copy(&mut stream, &mut upstream).await;
        }
    }

    /// The handshake, with a certificate for this name, and what comes after it.
    async fn shaken(self, stream: Stream, name: &str, via: Via, client: Arc<str>) {
        // Inside a CONNECT the client expects the very host; a listener of one's own may have a name of one's own.
        let given = if matches!(via, Via::Endpoint) { self.shared.given.load_full() } else { None };
        let Some(config) = given.or_else(|| self.server_config(name)?.ok()) else { return };
        let shaking = Box::pin(tokio::time::timeout(self.patience(), stream.accept(config)));
        if let Ok(Ok(stream)) = shaking.await {
            self.http(stream, via, client).await;
        }
    }

    fn server_config(&self, name: &str) -> Option<Result<Arc<ServerConfig>, String>> {
        self.native.authority.get().map(|authority| authority.server(name))
    }

    fn patience(&self) -> Duration {
        self.shared.config.load().settings.timeouts.client_head
    }

    async fn first_byte(&self, stream: &mut Stream) -> Option<u8> {
        if stream.plain.is_empty() {
            let mut ending = self.native.ending.subscribe();
            let leaving = async {
                at_least(&mut ending, Ending::Draining).await;
                tokio::time::sleep(LAME_DUCK).await;
            };
            tokio::select! {
                biased;
                filled = std::future::poll_fn(|context| stream.poll_fill(context)) => filled.ok()?,
                () = tokio::time::sleep(self.patience()) => return None,
                () = leaving => return None,
            };
        }
        stream.plain.first().copied()
    }

    /// What the client begins with; all that was read stays in the stream. `None`: nothing, or not in time.
    async fn hello(&self, stream: &mut Stream) -> Option<Hello> {
        match self.first_byte(stream).await? {
            TLS => {}
            letter if letter.is_ascii_uppercase() => return Some(Hello::Plain),
            _ => return Some(Hello::Other),
        }
        let reading = async {
            let mut acceptor = rustls::server::Acceptor::default();
            let mut fed = 0;
            loop {
                while let Some(mut rest) = stream.plain.get(fed..).filter(|rest| !rest.is_empty()) {
                    let before = rest.len();
                    acceptor.read_tls(&mut rest).ok()?;
                    fed += before - rest.len();
                    match acceptor.accept() {
                        Ok(Some(accepted)) => return Some(Hello::Tls(accepted.client_hello().server_name().map(str::to_owned))),
                        Ok(None) => {}
                        Err(_) => return None,
                    }
                }
                let filled = std::future::poll_fn(|context| stream.poll_fill(context)).await;
                if stream.plain.len() > MOST_HELLO || !filled.is_ok_and(|size| size > 0) {
                    return None;
                }
            }
        };
        tokio::time::timeout(self.patience(), reading).await.ok()?
    }

    /// The host that a plain request's head names; the head stays in the stream.
    async fn plain_host(&self, stream: &mut Stream) -> Option<String> {
        let reading = async {
            loop {
                // On a copy: the head is read again by whoever serves it.
                let read = head::request(&mut stream.plain.clone(), Most { bytes: MOST_HELLO, headers: 200 });
                match read {
                    Ok(Some(head)) => return head.headers.get(HOST).and_then(|host| host.to_str().ok()).map(host_of),
                    Ok(None) => {}
                    Err(_) => return None,
                }
                if !std::future::poll_fn(|context| stream.poll_fill(context)).await.is_ok_and(|size| size > 0) {
                    return None;
                }
            }
        };
        tokio::time::timeout(self.patience(), reading).await.ok()?
    }
}

/// Without its port: the connection's own counts.
fn host_of(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    }
}

/// True if two names are one host: case and a trailing dot mean nothing.
fn same_host(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

fn forbidden(host: &str) -> Refusal {
    Refusal::client(
        403,
        "forbidden-address",
        format!("{host:?} is a loopback, link-local or metadata address: a program that asks a proxy for it ignores NO_PROXY."),
        "Call it directly. If it is meant, name the host in a [[route]].",
    )
}

impl From<Stream> for Socket {
    /// TLS, or bytes that were read ahead, stay in the stream.
    fn from(stream: Stream) -> Self {
        Self::Other(Box::new(stream))
    }
}
