//! A connection as the operating system has it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::loops::Departed;

/// Anything else that carries bytes both ways: a stream of HTTP/2, or TLS inside TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// See the module.
pub(crate) enum Socket {
    Tcp(TcpStream),
    /// One that went out. It is forgotten before it is closed: its ends can be another's from then on.
    Outgoing(Departed, TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Other(Box<dyn Duplex>),
}

impl Socket {
    /// Ends it so that the peer sees that something is missing.
    pub(crate) fn abort(&self) {
        if let Self::Tcp(stream) | Self::Outgoing(_, stream) = self {
            // Closed like this, it is reset.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Ready when a read would find something, its end or an error.
    pub(crate) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) | Self::Outgoing(_, stream) => stream.poll_read_ready(context),
            #[cfg(unix)]
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Other(_) => Poll::Ready(Ok(())),
        }
    }

    /// Where a client came in.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            _ => None,
        }
    }

    /// Who connected.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            _ => None,
        }
    }

    /// Of one that went out: becomes true once it has come back.
    pub(crate) fn returned(&self) -> Option<Arc<AtomicBool>> {
        match self {
            Self::Outgoing(departed, _) => Some(departed.returned()),
            _ => None,
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $done:expr) => {
        match $self.get_mut() {
            Socket::Tcp($stream) | Socket::Outgoing(_, $stream) => $done,
            #[cfg(unix)]
            Socket::Unix($stream) => $done,
            Socket::Other($stream) => $done,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
