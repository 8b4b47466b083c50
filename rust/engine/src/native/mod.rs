//! The native front: Rust from socket to socket. Forward proxy with interception, and reverse listeners.
//!
//! Each worker has a socket of its own on the same port (`SO_REUSEPORT`), so that the kernel spreads connections and no thread
//! hands anything to another. What a request goes through is [`drive`](crate::drive)'s, as with the other front.

mod leaf;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sigward_gateway::{BodySize, Entry, Refusal, RequestHead, Scheme, Shape, Target};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::Client;
use crate::body::BodyError;
use crate::drive::{AnswerBody, drive};
use crate::job::UnderWay;
use crate::outbox::OutboxEvent;
use crate::shared::Shared;
use leaf::Authority;

/// A client has so long to send a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// And so long for its first bytes inside a CONNECT, and for the TLS handshake.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);
/// A `ClientHello` is not longer.
const MOST_HELLO: usize = 64 << 10;
/// After a failed accept: out of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A proxy: CONNECT and absolute-form.
    Forward,
    /// An endpoint URL: everything goes to this target, or to the host that Host names.
    Reverse(Option<Target>),
}

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
    /// Signs leaves, once a forward listener needs it.
    authority: OnceLock<Authority>,
    /// No new connections; those that are open end after what they are at, or at once.
    ending: watch::Sender<Ending>,
    connections: Arc<AtomicI64>,
}

impl Default for Native {
    fn default() -> Self {
        Self { authority: OnceLock::new(), ending: watch::Sender::new(Ending::No), connections: Arc::default() }
    }
}

impl Native {
    /// Reads the CA that forward listeners sign with.
    pub(crate) fn load_authority(&self, path: &Path) -> Result<(), String> {
        let authority = Authority::load(path)?;
        let _ = self.authority.set(authority);
        Ok(())
    }

    pub(crate) fn end(&self, ending: Ending) {
        self.ending.send_replace(ending);
    }

    pub(crate) fn connections(&self) -> i64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One socket for each of `count` workers, on the same port.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let mut address = address;
    let mut made = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Not on a port that another process has: only among our own.
        if made.is_empty() {
            std::net::TcpListener::bind(address).map(drop)?;
        }
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        let listener = std::net::TcpListener::from(socket);
        address = listener.local_addr()?;
        made.push(listener);
    }
    Ok(made)
}

/// What one connection needs.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Arc<ArcSwap<Client>>,
    pub(crate) native: Arc<Native>,
    pub(crate) kind: Kind,
}

/// Accepts until the front drains.
pub(crate) async fn accept(listener: std::net::TcpListener, front: Front) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            front.shared.outbox.push(OutboxEvent::Log { warning: true, text: format!("a listener cannot be used: {error}") });
            return;
        }
    };
    let mut ending = front.native.ending.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|ending| *ending != Ending::No) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let _ = socket.set_nodelay(true);
                let front = front.clone();
                tokio::spawn(async move {
                    let _counted = Counted::new(&front.native.connections);
                    let mut ending = front.native.ending.subscribe();
                    tokio::select! {
                        () = front.begin(socket, peer) => {}
                        _ = ending.wait_for(|ending| *ending == Ending::Cut) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Counted(Arc<AtomicI64>);

impl Counted {
    fn new(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How requests of one connection are to be read.
#[derive(Clone, Debug)]
enum Via {
    Proxy,
    Endpoint,
    /// Inside a CONNECT to this target.
    Inside(Target),
}

type Reply = Response<AnswerBody>;

impl Front {
    /// A new connection: a reverse listener takes TLS, too.
    async fn begin(self, socket: TcpStream, peer: SocketAddr) {
        if matches!(self.kind, Kind::Forward) {
            return self.serve(socket, Via::Proxy, peer).await;
        }
        let mut first = [0];
        let told = tokio::time::timeout(HEAD_PATIENCE, socket.peek(&mut first)).await;
        if !matches!(told, Ok(Ok(1))) {
            return;
        }
        if first != [TLS] {
            return self.serve(socket, Via::Endpoint, peer).await;
        }
        let (mut io, mut seen) = (socket, BytesMut::with_capacity(2048));
        let Ok(Ok(Hello::Tls(name))) = tokio::time::timeout(HELLO_PATIENCE, hello(&mut io, &mut seen)).await else { return };
        // A client that names nobody knows the listener by its address.
        let own = || io.local_addr().map_or_else(|_| "localhost".to_owned(), |address| address.ip().to_string());
        let name = name.unwrap_or_else(own);
        let Some(Ok(config)) = self.native.authority.get().map(|authority| authority.server(&name)) else { return };
        let accepting = TlsAcceptor::from(config).accept(Prefixed { first: seen.freeze(), io });
        if let Ok(Ok(stream)) = tokio::time::timeout(HELLO_PATIENCE, accepting).await {
            self.serve(stream, Via::Endpoint, peer).await;
        }
    }

    /// Serves one connection to its end.
    async fn serve<I>(self, io: I, via: Via, peer: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    {
        let broken = Arc::new(AtomicBool::new(false));
        let io = Breakable { io, broken: Arc::clone(&broken) };
        let mut ending = self.native.ending.subscribe();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000).keep_alive_interval(Some(HEAD_PATIENCE));
        let service = service_fn(move |request| {
            let (front, via, broken) = (self.clone(), via.clone(), Arc::clone(&broken));
            // An answer that ends with the connection must not look complete when it is not.
            let by_close = request.version() == Version::HTTP_10;
            async move {
                let reply = front.answer(request, via, peer).await;
                Ok::<_, Infallible>(if by_close { reply.map(|body| watched(body, broken)) } else { reply })
            }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = ending.wait_for(|ending| *ending != Ending::No) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn answer(self, mut request: Request<Incoming>, via: Via, peer: SocketAddr) -> Reply {
        if request.method() == Method::CONNECT && matches!(via, Via::Proxy) {
            return self.connect(request, peer).await;
        }
        let target = match self.target(&request, &via) {
            Ok(target) => target,
            Err(refusal) => return refused(&refusal),
        };
        let entry = match via {
            Via::Proxy => Entry::Forward,
            Via::Endpoint => Entry::Reverse,
            Via::Inside(_) => Entry::Connect,
        };
        let old = request.version() < Version::HTTP_2;
        let client_upgrade = (old && request.headers().contains_key(UPGRADE)).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        if !parts.headers.contains_key(HOST)
            && let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            // HTTP/2 says it in :authority.
            parts.headers.insert(HOST, host);
        }
        let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), ToString::to_string);
        let size = match body.size_hint().exact() {
            Some(length) => BodySize::Known(length),
            None if body.is_end_stream() => BodySize::Known(0),
            None => BodySize::Unknown,
        };
        let head = RequestHead {
            entry,
            method: parts.method,
            target,
            path: if path.is_empty() { "/".into() } else { path },
            headers: parts.headers,
            body: size,
            client: peer.ip().to_string(),
            malformed: None,
        };
        // A query may hold a signature, and much else that is nobody's business.
        let about = self.access_log().then(|| {
            let path = head.path.split('?').next().unwrap_or_default();
            let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(&head.target.host);
            format!("{} {} {host}{path}", head.client, head.method)
        });
        let mut under_way = UnderWay::new(None, &self.shared);
        let client = self.client.load_full();
        let inbound = body.map_err(|error| BodyError::Client(error.to_string())).boxed_unsync();
        let answer = drive(&self.shared, &client, head, inbound).await;
        under_way.tell(&answer.record);
        if let Some(about) = about {
            let text = format!("{about} {} {}", answer.response.status().as_u16(), answer.record.summary());
            self.shared.outbox.push(OutboxEvent::Access { text });
        }
        let (mut head, body) = answer.response.into_parts();
        if let (Some(upstream), Some(client)) = (answer.upgrade, client_upgrade) {
            let counted = Counted::new(&self.native.connections);
            self.until_cut(counted, async move {
                if let (Ok(upstream), Ok(client)) = tokio::join!(upstream, client) {
                    let (mut upstream, mut client) = (TokioIo::new(upstream), TokioIo::new(client));
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
                }
            });
        } else {
            head.headers.remove(CONNECTION);
        }
        Response::from_parts(head, body)
    }

    /// What goes on after an answer, for as long as the front does.
    fn until_cut(&self, counted: Counted, work: impl Future<Output = ()> + Send + 'static) {
        let mut ending = self.native.ending.subscribe();
        tokio::spawn(async move {
            let _counted = counted;
            tokio::select! {
                () = work => {}
                _ = ending.wait_for(|ending| *ending == Ending::Cut) => {}
            }
        });
    }

    fn access_log(&self) -> bool {
        self.shared.config.load().settings.access_log
    }

    /// Where a request is bound for.
    fn target(&self, request: &Request<Incoming>, via: &Via) -> Result<Target, Refusal> {
        let bad = |slug, why: &str, hint: &str| Refusal::client(400, slug, why.to_owned(), hint.to_owned());
        match via {
            Via::Inside(target) => Ok(target.clone()),
            Via::Proxy => {
                let uri = request.uri();
                let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
                    return Err(bad(
                        "not-a-proxy-request",
                        "the request target names no host, and this listener is a proxy.",
                        "Send http://host/path, or CONNECT; for an endpoint URL, add a [[reverse]] listener.",
                    ));
                };
                let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
                let port = authority.port_u16().unwrap_or(scheme.default_port());
                Target::new(scheme, authority.host(), port).map_err(|why| bad("bad-target", &why, "Send a host name and a port."))
            }
            Via::Endpoint => {
                if let Kind::Reverse(Some(target)) = &self.kind {
                    return Ok(target.clone());
                }
                let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                let named = named.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or_default();
                let wrong = || {
                    bad(
                        "bad-host",
                        "the Host header does not name a host; this listener sends a request to the AWS endpoint that Host names.",
                        "Send the Host header of an AWS endpoint.",
                    )
                };
                let authority: http::uri::Authority = named.parse().map_err(|_| wrong())?;
                let port = authority.port_u16().filter(|port| *port != 80).unwrap_or(443);
                Target::new(Scheme::Https, authority.host(), port).map_err(|_| wrong())
            }
        }
    }

    /// CONNECT: AWS's hosts are looked into, all else is passed on, but never to a local address.
    async fn connect(self, mut request: Request<Incoming>, peer: SocketAddr) -> Reply {
        let Some(authority) = request.uri().authority().cloned() else {
            return refused(&Refusal::client(400, "bad-target", "CONNECT names no host.", "Send CONNECT host:port."));
        };
        let port = authority.port_u16().unwrap_or(443);
        let target = match Target::new(Scheme::Https, authority.host(), port) {
            Ok(target) => target,
            Err(why) => return refused(&Refusal::client(400, "bad-target", why, "Send CONNECT host:port.")),
        };
        let config = self.shared.config.load_full();
        if config.intercepts(&target.host) && self.native.authority.get().is_some() {
            let upgrade = hyper::upgrade::on(&mut request);
            let counted = Counted::new(&self.native.connections);
            self.clone().until_cut(counted, async move {
                if let Ok(upgraded) = upgrade.await {
                    self.inside_boxed(TokioIo::new(upgraded), target, peer).await;
                }
            });
            return established();
        }
        if config.clients.required() {
            return refused(&Refusal::client(
                403,
                "missing-authentication-token",
                format!(
                    "{:?} would be reached through a tunnel, and only requests that are signed with an issued key are served here.",
                    target.host
                ),
                "See clients.required.",
            ));
        }
        let mut upstream = match self.reach(&target).await {
            Ok(upstream) => upstream,
            Err(refusal) => return refused(&refusal),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let counted = Counted::new(&self.native.connections);
        self.until_cut(counted, async move {
            if let Ok(upgraded) = upgrade.await {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut upstream).await;
            }
        });
        established()
    }

    /// A connection for a tunnel, to an address that was looked at.
    async fn reach(&self, target: &Target) -> Result<TcpStream, Refusal> {
        let host = &target.host;
        let failed = |why: &dyn std::fmt::Display| {
            Refusal::upstream(502, "connect-failed", format!("no connection to {host:?}: {why}."), "Check the host's name.")
        };
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), target.port)).await.map_err(|error| failed(&error))?.collect();
        let config = self.shared.config.load_full();
        let allowed = |address: &&SocketAddr| !sigward_gateway::is_forbidden(address.ip()) || config.router.names(host);
        let patience = config.settings.timeouts.connect;
        let mut last: Option<Refusal> = None;
        for address in found.iter().filter(allowed) {
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(failed(&error)),
                Err(_) => last = Some(failed(&"no answer in time")),
            }
        }
        Err(last.unwrap_or_else(|| {
            Refusal::client(
                403,
                "forbidden-address",
                format!("{host:?} is a loopback, link-local or metadata address; they are served only where a [[route]] names the host."),
                "Name the host in a [[route]], if that is meant.",
            )
        }))
    }

    /// A type with a name: what is inside is served as what is outside, which no compiler can see through.
    fn inside_boxed(self, io: TokioIo<hyper::upgrade::Upgraded>, target: Target, peer: SocketAddr) -> BoxFuture<'static, ()> {
        Box::pin(self.inside(io, target, peer))
    }

    /// Inside a CONNECT: TLS for this very host, or plain HTTP, is served; a `ClientHello` for another host is passed on untouched.
    async fn inside<I>(self, mut io: I, target: Target, peer: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    {
        let mut seen = BytesMut::with_capacity(2048);
        let hello = tokio::time::timeout(HELLO_PATIENCE, hello(&mut io, &mut seen)).await;
        let Ok(Ok(hello)) = hello else { return };
        let io = Prefixed { first: seen.freeze(), io };
        match hello {
            Hello::Plain => {
                let target = Target { scheme: Scheme::Http, ..target };
                // HTTP/1.1 or /2 in the clear.
                Box::pin(self.serve(io, Via::Inside(target), peer)).await;
            }
            Hello::Tls(name) if name.as_deref().is_none_or(|name| same_host(name, &target.host)) => {
                let Some(Ok(config)) = self.native.authority.get().map(|authority| authority.server(&target.host)) else { return };
                let accepted = tokio::time::timeout(HELLO_PATIENCE, TlsAcceptor::from(config).accept(io)).await;
                if let Ok(Ok(stream)) = accepted {
                    Box::pin(self.serve(stream, Via::Inside(target), peer)).await;
                }
            }
            Hello::Tls(_) if !self.shared.config.load().clients.required() => {
                let mut io = io;
                if let Ok(mut upstream) = self.reach(&target).await {
                    let _ = tokio::io::copy_bidirectional(&mut io, &mut upstream).await;
                }
            }
            // Neither TLS nor HTTP, or no tunnels are served.
            Hello::Tls(_) | Hello::Other => {}
        }
    }
}

/// True if two names are one host: case and a trailing dot mean nothing.
fn same_host(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

/// A handshake's first byte.
const TLS: u8 = 0x16;

/// What a client begins with.
enum Hello {
    /// TLS, for this name.
    Tls(Option<String>),
    /// A method's letters.
    Plain,
    Other,
}

/// Reads until it is known; all that was read stays in `seen`.
async fn hello<I: AsyncRead + Unpin>(io: &mut I, seen: &mut BytesMut) -> io::Result<Hello> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut fed = 0;
    loop {
        if io.read_buf(seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match seen.first() {
            Some(&TLS) => {}
            Some(letter) if letter.is_ascii_uppercase() => return Ok(Hello::Plain),
            _ => return Ok(Hello::Other),
        }
        while let Some(mut rest) = seen.get(fed..).filter(|rest| !rest.is_empty()) {
            let before = rest.len();
            acceptor.read_tls(&mut rest)?;
            fed += before - rest.len();
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Hello::Tls(accepted.client_hello().server_name().map(str::to_owned))),
                Ok(None) => {}
                Err((error, _)) => return Err(io::Error::other(error)),
            }
        }
        if seen.len() > MOST_HELLO {
            return Ok(Hello::Other);
        }
    }
}

/// A body whose breaking off is noted.
fn watched(body: AnswerBody, broken: Arc<AtomicBool>) -> AnswerBody {
    body.map_err(move |error| {
        broken.store(true, Ordering::Relaxed);
        error
    })
    .boxed_unsync()
}

/// Ends a connection so that its peer sees that something is missing.
trait Abort {
    fn abort(&self) {}
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Closed like this, it is reset.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// Without `close_notify`, TLS tells by itself.
impl<I> Abort for tokio_rustls::server::TlsStream<I> {}

impl<I: Abort> Abort for Prefixed<I> {
    fn abort(&self) {
        self.io.abort();
    }
}

impl Abort for TokioIo<hyper::upgrade::Upgraded> {}

/// A connection that is not ended in good order once an answer has broken off.
struct Breakable<I: Abort> {
    io: I,
    broken: Arc<AtomicBool>,
}

impl<I: Abort> Drop for Breakable<I> {
    fn drop(&mut self) {
        if self.broken.load(Ordering::Relaxed) {
            self.io.abort();
        }
    }
}

impl<I: AsyncRead + Abort + Unpin> AsyncRead for Breakable<I> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Abort + Unpin> AsyncWrite for Breakable<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.load(Ordering::Relaxed) {
            self.io.abort();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// What was read already comes first.
struct Prefixed<I> {
    first: Bytes,
    io: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for Prefixed<I> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let size = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..size).unwrap_or_default());
        self.first.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prefixed<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

fn established() -> Reply {
    Response::new(empty())
}

fn empty() -> AnswerBody {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn refused(refusal: &Refusal) -> Reply {
    let (head, body) = refusal.response(Shape::Plain, false).into_parts();
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Response::from_parts(head, body)
}
