//! What begins as one thing and goes on as another: CONNECT, TLS on a listener of plain text, connections that the kernel turned round.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{HOST, HeaderMap};
use rustls::{Error, InvalidMessage, ServerConfig};
use sigward_gateway::interception::Why;
use sigward_gateway::{
    Config, FirstBytes, Handling, Opening, Refusal, Scheme, Shape, Target, first_bytes, is_forbidden, leads_back, speaks_http,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::handshake::{self, TLS};
use super::{Ending, Front, LAME_DUCK, Via, at_least};
use crate::connect::ConnectError;
use crate::h1::head::{self, Most};
use crate::loops::Listening;
use crate::net::{Socket, Stream, as_io};

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
    /// TLS, for this name, with these protocols.
    Tls(Option<String>, Vec<Vec<u8>>),
    /// A request.
    Plain,
    Other,
}

impl Hello {
    /// What becomes of a connection to this destination that begins so.
    fn handling(&self, config: &Config, host: &str, port: u16) -> Handling {
        match self {
            Self::Plain => config.handling(host, port, Opening::Http),
            Self::Other => config.handling(host, port, Opening::Other),
            Self::Tls(name, protocols) => {
                let protocols: Vec<&[u8]> = protocols.iter().map(Vec::as_slice).collect();
                config.handling(host, port, Opening::Tls { name: name.as_deref(), protocols: &protocols })
            }
        }
    }
}

/// Bytes both ways until either side ends.
pub(super) async fn copy(one: &mut (impl AsyncRead + AsyncWrite + Unpin), other: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = tokio::io::copy_bidirectional_with_sizes(one, other, 32 << 10, 32 << 10).await;
}

impl Front {
    /// CONNECT: AWS's hosts are looked into, all else is passed on, but never to a local address.
    pub(super) async fn connect(&self, authority: &str, headers: &HeaderMap) -> Result<Beyond, Refusal> {
        let target = super::target::authority(authority)?;
        let config = self.shared.config.load_full();
        if config.settings.via {
            self.shared.hop.check(headers)?;
        }
        match config.handling(&target.host, target.port, Opening::Unknown) {
            Handling::Intercept if self.native.authority.load().is_some() => {
                self.native.refuses(&target.host).map_or(Ok(Beyond::Inside(target)), Err)
            }
            Handling::Refuse(why) => Err(why.refusal(&target.host, target.port)),
            Handling::Intercept | Handling::Tunnel => Ok(Beyond::Tunnel(Box::new(self.reach(&target).await?))),
        }
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
            ConnectError::Loop => leads_back(&format!("{}:{}", target.host, target.port)),
            error => {
                Refusal::upstream(502, "connect-failed", format!("no connection to {:?}: {error}.", target.host), "Check the host's name.")
            }
        })
    }

    /// Inside a CONNECT: TLS for this very host, or plain HTTP, is served; all else is passed on untouched, if it may be.
    async fn inside(self, stream: Stream, target: Target, client: Arc<str>) {
        let Some((hello, mut stream)) = self.hello(stream, &client).await else { return };
        let config = self.shared.config.load_full();
        match (hello.handling(&config, &target.host, target.port), &hello) {
            // HTTP/1.1 or /2 in the clear.
            (Handling::Intercept, Hello::Plain) => {
                self.http(stream, Via::Inside(Target { scheme: Scheme::Http, ..target }), client).await;
            }
            (Handling::Intercept, _) => {
                let host = target.host.clone();
                self.shaken(stream, &host, Via::Inside(target), client).await;
            }
            (Handling::Tunnel, _) => {
                if let Ok(mut upstream) = self.reach(&target).await {
                    copy(&mut stream, &mut upstream).await;
                }
            }
            (Handling::Refuse(why), _) => self.untunnelled(stream, &hello, &target.host, target.port, &why).await,
        }
    }

    /// A listener of requests takes plain text and TLS.
    pub(super) async fn plain_or_tls(self, mut stream: Stream, via: Via, client: Arc<str>) {
        let Some(first) = Box::pin(self.first_byte(&mut stream)).await else { return };
        if first != TLS {
            return self.http(stream, via, client).await;
        }
        let Some((hello, stream)) = Box::pin(self.hello(stream, &client)).await else { return };
        let Hello::Tls(name, _) = hello else {
            self.failed_handshake(&client, "", "malformed", "it begins like a handshake, and is none");
            return stream.end_with(&handshake::DECODE_ERROR).await;
        };
        // A client that names nobody knows the listener by its address.
        let own = || stream.socket().local_addr().map_or_else(|| "localhost".to_owned(), |address| address.ip().to_string());
        let name = name.unwrap_or_else(own);
        Box::pin(self.shaken(stream, &name, via, client)).await;
    }

    /// A connection that was bound for somewhere else: AWS's hosts are served, all else goes where it was bound for.
    pub(super) async fn turned_round(self, stream: Stream, original: Option<SocketAddr>, client: Arc<str>) {
        // Whoever connects to the listener itself was not turned round.
        let Some(original) = original.filter(|original| stream.socket().local_addr() != Some(*original)) else { return };
        let began = if speaks_http(original.port()) {
            self.hello(stream, &client).await
        } else {
            // The server may have to speak first.
            Some((Hello::Other, stream))
        };
        let Some((hello, mut stream)) = began else { return };
        // What has come was sent by whoever made the connection, who has noted it before.
        let loops = &self.shared.network.loops;
        if stream.socket().peer_addr().is_some_and(|peer| loops.is_own(peer, original)) {
            return self.came_back(stream, &hello, original).await;
        }
        let config = self.shared.config.load_full();
        let named = match &hello {
            Hello::Tls(name, _) => name.clone().map(|name| (Scheme::Https, name)),
            Hello::Plain => self.plain_host(&mut stream).await.map(|name| (Scheme::Http, name)),
            Hello::Other => None,
        };
        let target = named.and_then(|(scheme, name)| super::target::named(scheme, &name, original.port(), "bad-host").ok());
        let bound = Target { scheme: Scheme::Https, host: original.ip().to_string().into(), port: original.port() };
        match hello.handling(&config, target.as_ref().map_or(&bound.host, |target| &target.host), original.port()) {
            // Where the bytes go is found anew from the name, whatever address the client had.
            Handling::Intercept => {
                let target = target.unwrap_or(bound);
                match hello {
                    Hello::Tls(..) => {
                        let host = target.host.clone();
                        self.shaken(stream, &host, Via::Inside(target), client).await;
                    }
                    _ => self.http(stream, Via::Inside(target), client).await,
                }
            }
            Handling::Tunnel if is_forbidden(original.ip()) => {}
            Handling::Tunnel => {
                let Some(silent) = loops.begins(original) else {
                    if self.native.told.is_new(&original.to_string(), "silent") {
                        tracing::warn!(
                            "too many redirected connections to {original} have had no answer, so more are refused. Either nothing answers \
                             there, or two sigwards redirect each other's connections (docs/fronts.md)"
                        );
                    }
                    return refuse_loop(stream, &hello, original).await;
                };
                if let Ok(upstream) = self.reach(&bound).await {
                    copy(&mut stream, &mut Listening::new(upstream, silent)).await;
                }
            }
            Handling::Refuse(why) => {
                self.untunnelled(stream, &hello, target.as_ref().map_or(&bound.host, |target| &target.host), original.port(), &why).await;
            }
        }
    }

    /// The connection is sigward's own: it ends here, or would go out again, and come back again.
    async fn came_back(&self, stream: Stream, hello: &Hello, original: SocketAddr) {
        if self.native.told.is_new(&original.to_string(), "loop") {
            tracing::warn!(
                "a connection of sigward's own to {original} was redirected to its transparent listener and is refused: it would go round for \
                 ever. Exempt sigward's user from the redirection: iptables … -m owner ! --uid-owner USER (docs/fronts.md)"
            );
        }
        refuse_loop(stream, hello, original).await;
    }

    /// What came is not HTTP, and may not be passed on.
    async fn untunnelled(&self, stream: Stream, hello: &Hello, host: &str, port: u16, why: &Why) {
        if self.native.told.is_new(host, "tunnel-refused") {
            let what = if let Hello::Tls(_, protocols) = hello { handshake::shown(protocols) } else { "it".into() };
            tracing::warn!(
                "a connection to {host}:{port} is refused: {what} is not HTTP for this host, and {why}. If it is meant, pass it in a [[route]] \
                 with host, port and action = \"pass\""
            );
        }
        let last: &[u8] = if matches!(hello, Hello::Tls(..)) { &handshake::ACCESS_DENIED } else { &[] };
        stream.end_with(last).await;
    }

    /// The handshake, with a certificate for this name, and what comes after it.
    async fn shaken(self, stream: Stream, name: &str, via: Via, client: Arc<str>) {
        // Inside a CONNECT the client expects the very host; a listener of one's own may have a name of one's own.
        let given = if matches!(via, Via::Endpoint) { self.shared.given.load_full() } else { None };
        let config = match given.map(Ok).or_else(|| self.server_config(name)) {
            Some(Ok(config)) => config,
            unmade => {
                let why = if let Some(Err(why)) = unmade { why } else { "there is no CA".to_owned() };
                self.failed_handshake(&client, name, "certificate", &why);
                return stream.end_with(&handshake::INTERNAL_ERROR).await;
            }
        };
        let shaking = Box::pin(tokio::time::timeout(self.patience(), stream.accept(config)));
        match shaking.await {
            Ok(Ok(stream)) => self.http(stream, via, client).await,
            Ok(Err(error)) => {
                let (reason, why) = handshake::reason(&error);
                self.failed_handshake(&client, name, reason, &why);
            }
            Err(_) => self.failed_handshake(&client, name, "timeout", "it did not come to its end in time"),
        }
    }

    /// Counts it, and tells the log once a day for each client and reason.
    fn failed_handshake(&self, client: &str, name: &str, reason: &'static str, why: &str) {
        self.shared.metrics.tls_failures.with_label_values(&[reason]).inc();
        if self.native.told.is_new(client, reason) {
            tracing::warn!("the TLS handshake of {client} for {name:?} failed: {why}");
        }
    }

    fn server_config(&self, name: &str) -> Option<Result<Arc<ServerConfig>, String>> {
        let http2 = self.shared.config.load().client_http2(name);
        self.native.authority().map(|authority| authority.server(name, http2))
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
                () = tokio::time::sleep(self.patience()) => {
                    self.shared.metrics.slow_clients.with_label_values(&["head"]).inc();
                    return None;
                }
                () = leaving => return None,
            };
        }
        stream.plain.first().copied()
    }

    /// What the client begins with; all that was read stays in the stream. `None`: nothing, not in time, or no handshake.
    async fn hello(&self, mut stream: Stream, client: &str) -> Option<(Hello, Stream)> {
        self.first_byte(&mut stream).await?;
        let too_long = || (as_io(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)), handshake::DECODE_ERROR.to_vec());
        let reading = async {
            let mut acceptor = rustls::server::Acceptor::default();
            let mut fed = 0;
            loop {
                match first_bytes(&stream.plain) {
                    FirstBytes::Http => return Ok(Hello::Plain),
                    FirstBytes::Other => return Ok(Hello::Other),
                    FirstBytes::Undecided => {}
                    FirstBytes::Tls => {
                        while let Some(mut rest) = stream.plain.get(fed..).filter(|rest| !rest.is_empty()) {
                            let before = rest.len();
                            acceptor.read_tls(&mut rest).map_err(|_| Some(too_long()))?;
                            fed += before - rest.len();
                            match acceptor.accept() {
                                Ok(Some(accepted)) => {
                                    let hello = accepted.client_hello();
                                    let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                                    return Ok(Hello::Tls(hello.server_name().map(str::to_owned), protocols));
                                }
                                Ok(None) => {}
                                Err((error, mut alert)) => {
                                    let mut last = Vec::new();
                                    let _ = alert.write_all(&mut last);
                                    return Err(Some((as_io(error), last)));
                                }
                            }
                        }
                    }
                }
                let filled = std::future::poll_fn(|context| stream.poll_fill(context)).await;
                if !filled.is_ok_and(|size| size > 0) {
                    return Err(None);
                }
                if stream.plain.len() > MOST_HELLO {
                    return Err((fed > 0).then(too_long));
                }
            }
        };
        match tokio::time::timeout(self.patience(), reading).await {
            Ok(Ok(hello)) => Some((hello, stream)),
            Ok(Err(None)) => None,
            Ok(Err(Some((error, last)))) => {
                let (reason, why) = handshake::reason(&error);
                self.failed_handshake(client, "", reason, &why);
                stream.end_with(&last).await;
                None
            }
            Err(_) => {
                self.shared.metrics.slow_clients.with_label_values(&["head"]).inc();
                None
            }
        }
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

/// Ends a connection that goes in a circle, in the client's own words where it has some.
async fn refuse_loop(stream: Stream, hello: &Hello, original: SocketAddr) {
    let last = match hello {
        Hello::Tls(..) => handshake::ACCESS_DENIED.to_vec(),
        Hello::Plain => {
            let (parts, body) = leads_back(&original.to_string()).response(Shape::Plain, false, None).into_parts();
            let mut last = Vec::new();
            head::write_response(&mut last, parts.status, &parts.headers);
            head::write_length(&mut last, body.len() as u64);
            last.extend_from_slice(b"connection: close\r\n\r\n");
            last.extend_from_slice(&body);
            last
        }
        Hello::Other => Vec::new(),
    };
    stream.end_with(&last).await;
}

/// Without its port: the connection's own counts.
fn host_of(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    }
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
