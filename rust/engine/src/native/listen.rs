//! Listeners: TCP on every worker, unix sockets, and what happens when no more connections can be taken.

use std::fs::{File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use super::{Ending, Front, Kind, Native, at_least};
use crate::descriptors;
use crate::net::Socket;

/// After a failed accept: out of descriptors, mostly. Doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// When the front drains, who has connected before is taken in for so long at most.
const LATECOMERS: Duration = Duration::from_secs(2);
/// In which the runtime has looked at all sockets.
const GLANCE: Duration = Duration::from_millis(2);
/// Connections that the kernel holds for us.
const BACKLOG: i32 = 4096;

/// A bound socket, of one worker.
pub(crate) enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, Arc<Unlinked>),
}

/// A unix socket's file goes with its listener, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct Unlinked {
    path: PathBuf,
    /// Device and number.
    inode: (u64, u64),
}

impl Unlinked {
    fn inode(path: &Path) -> io::Result<(u64, u64)> {
        std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for Unlinked {
    fn drop(&mut self) {
        if Self::inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// `HOST:PORT`'s two parts; of a unix socket its path, and 0.
    pub(crate) fn address(&self) -> io::Result<(String, u16)> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| (address.ip().to_string(), address.port())),
            Self::Unix(_, path) => Ok((format!("unix:{}", path.path.display()), 0)),
        }
    }
}

/// One socket for each of `count` workers, on the same port. `address`: `HOST:PORT`, or `unix:/path`.
pub(crate) fn bind(address: &str, count: usize) -> io::Result<Vec<Bound>> {
    if let Some(path) = address.strip_prefix("unix:") {
        return bind_unix(Path::new(path), count);
    }
    let address = std::net::ToSocketAddrs::to_socket_addrs(address)?.next();
    bind_tcp(address.ok_or_else(|| io::Error::other("the name has no address"))?, count)
}

fn bind_tcp(mut address: SocketAddr, count: usize) -> io::Result<Vec<Bound>> {
    let mut made = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Not on a port that another process has: only among our own.
        if made.is_empty() {
            std::net::TcpListener::bind(address).map(drop)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        address = listener.local_addr()?;
        made.push(Bound::Tcp(listener));
    }
    Ok(made)
}

/// Only the user's own processes may connect (mode 0600); a file that nobody listens on any more is replaced.
fn bind_unix(path: &Path, count: usize) -> io::Result<Vec<Bound>> {
    let address = SockAddr::unix(path)?;
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose backlog is full would be waited for.
    probe.set_nonblocking(true)?;
    match probe.connect(&address) {
        // What is no socket refuses, too.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                std::fs::remove_file(path)?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => return Err(error),
    }
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // On Linux the file gets the mode of its socket: nobody else can connect, however short a while.
    let mode = Permissions::from_mode(0o600);
    let _ = File::from(std::os::fd::OwnedFd::from(socket.try_clone()?)).set_permissions(mode.clone());
    socket.bind(&address)?;
    let file = Arc::new(Unlinked { path: path.to_owned(), inode: Unlinked::inode(path)? });
    std::fs::set_permissions(path, mode)?;
    socket.listen(BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    (0..count.max(1)).map(|_| Ok(Bound::Unix(listener.try_clone()?, Arc::clone(&file)))).collect()
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[allow(dead_code, reason = "held until the listener is dropped")] Arc<Unlinked>),
}

impl Listener {
    fn new(bound: Bound) -> io::Result<Self> {
        match bound {
            Bound::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Bound::Unix(listener, file) => Ok(Self::Unix(UnixListener::from_std(listener)?, file)),
        }
    }

    /// A connection, and who is at its other end.
    async fn accept(&self) -> io::Result<(Socket, Arc<str>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((stream.into(), peer.ip().to_string().into()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().map_or_else(|_| "unix".to_owned(), |peer| format!("uid {}", peer.uid()));
                Ok((stream.into(), user.into()))
            }
        }
    }
}

/// A listener that still takes connections.
struct Accepting(Arc<Native>);

impl Accepting {
    fn new(native: &Arc<Native>) -> Self {
        native.accepting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(native))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the front drains; then waits until its connections have ended, or cuts them. It counts as accepting at once: clients
/// may have connected before it runs for the first time.
pub(crate) fn accept(bound: Bound, front: Front) -> impl Future<Output = ()> {
    let accepting = Accepting::new(&front.native);
    accept_all(bound, front, accepting)
}

async fn accept_all(bound: Bound, front: Front, accepting: Accepting) {
    let listener = match Listener::new(bound) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("a listener cannot be used: {error}");
            return;
        }
    };
    let mut ending = front.native.ending.subscribe();
    let mut connections = JoinSet::new();
    let mut pause = FIRST_PAUSE;
    let mut early = None;
    loop {
        tokio::select! {
            biased;
            () = at_least(&mut ending, Ending::Draining) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = next(&listener, &front, &mut early) => match accepted {
                Ok((socket, client)) => {
                    pause = FIRST_PAUSE;
                    serve(&front, &mut connections, socket, client);
                }
                Err(error) if front.shared.network.descriptors.room_for_a_client(&error).await => {}
                Err(error) => {
                    front.shared.metrics.accept_paused.with_label_values(&["descriptors"]).inc();
                    if pause == FIRST_PAUSE {
                        tracing::warn!("no connection can be accepted for a while: {error}");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
    // Who has connected already was told so by the kernel, and may have sent a request. The runtime looks at its sockets first.
    tokio::time::sleep(GLANCE).await;
    let until = Instant::now() + LATECOMERS;
    if let Some((socket, client)) = early {
        serve(&front, &mut connections, socket, client);
    }
    while let Some(Ok((socket, client))) = tokio::task::unconstrained(listener.accept()).now_or_never() {
        serve(&front, &mut connections, socket, client);
        if Instant::now() >= until {
            break;
        }
    }
    drop(listener);
    drop(accepting);
    loop {
        tokio::select! {
            biased;
            ended = connections.join_next() => if ended.is_none() { return },
            () = at_least(&mut ending, Ending::Cut) => return connections.abort_all(),
        }
    }
}

fn serve(front: &Front, connections: &mut JoinSet<()>, socket: Socket, client: Arc<str>) {
    let original = if let (Kind::Transparent, Socket::Tcp(stream)) = (&front.kind, &socket) { original(stream) } else { None };
    let (front, counted) = (front.clone(), front.counted());
    connections.spawn(async move {
        let _counted = counted;
        front.begin(socket, client, original).await;
    });
}

/// The next connection, when there is room for one. `early`: one that came when another listener had just taken the last place.
async fn next(listener: &Listener, front: &Front, early: &mut Option<(Socket, Arc<str>)>) -> io::Result<(Socket, Arc<str>)> {
    // How many there may be, and why no more.
    let most = || {
        let (limit, descriptors) = (front.shared.config.load().settings.limits.connections, descriptors::most_clients());
        (i64::try_from(limit.min(descriptors)).unwrap_or(i64::MAX), if descriptors < limit { "descriptors" } else { "limit" })
    };
    let mut told = false;
    loop {
        let ended = front.native.ended.notified();
        let (most, why) = most();
        if front.native.connections.load(Ordering::Relaxed) < most {
            if let Some(accepted) = early.take() {
                return Ok(accepted);
            }
            *early = Some(listener.accept().await?);
            continue;
        }
        if !std::mem::replace(&mut told, true) {
            front.shared.metrics.accept_paused.with_label_values(&[why]).inc();
        }
        // Settings may change, too.
        let _ = tokio::time::timeout(LONGEST_PAUSE, ended).await;
    }
}

/// Where a connection that was turned round was bound for.
#[cfg(target_os = "linux")]
fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let found = socket.original_dst_v4().or_else(|_| socket.original_dst_v6()).ok()?;
    found.as_socket()
}

#[cfg(not(target_os = "linux"))]
fn original(_: &TcpStream) -> Option<SocketAddr> {
    None
}
