//! What the engine takes from the system that it runs on: the wall clock, randomness, names, connections, and threads for work that blocks.
//!
//! Tests that simulate the system put another in its place: see `simulation`.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::loops::Loops;
use crate::net::Socket;
#[cfg(test)]
use crate::simulation::world;

/// The wall clock.
pub(crate) fn unix_seconds() -> u64 {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.unix_seconds();
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A number that nobody can guess.
pub(crate) fn random() -> u64 {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.random();
    }
    RandomState::new().hash_one(std::process::id())
}

/// The addresses of a name.
pub(crate) async fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.lookup(host).await;
    }
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// A connection to an address. It is known as this process's own before its far end can have seen a byte of it.
pub(crate) async fn dial(address: SocketAddr, loops: &Arc<Loops>) -> io::Result<Socket> {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.dial(address).await;
    }
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        _ => {}
    }
    let own = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let departed = loops.departs(own, address);
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let _ = stream.set_nodelay(true);
    let keep_alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
    Ok(Socket::Outgoing(departed, stream))
}

/// A connection to a service of the operator's.
pub(crate) async fn reach(host: &str, port: u16) -> io::Result<Socket> {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.store(host, port).await;
    }
    let stream = TcpStream::connect((host, port)).await?;
    let _ = stream.set_nodelay(true);
    Ok(stream.into())
}

/// Work that blocks its thread.
pub(crate) fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if world().is_some() {
        let done = work();
        return tokio::spawn(std::future::ready(done));
    }
    tokio::task::spawn_blocking(work)
}
