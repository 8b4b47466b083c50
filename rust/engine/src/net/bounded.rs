//! A stream of which no more is read than its user allows: for protocols whose reader has no bound of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// How many bytes may still be read. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadLimit(Arc<AtomicUsize>);

impl ReadLimit {
    /// So many from now on.
    pub(crate) fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// All of it was read.
    pub(crate) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// See the module. Reading beyond the limit is an error, and takes nothing from the socket.
pub(crate) struct Bounded {
    stream: Stream,
    left: ReadLimit,
}

impl Bounded {
    pub(crate) fn new(stream: Stream, left: ReadLimit) -> Self {
        Self { stream, left }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.left.0.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "longer than allowed")));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left.min(buffer.remaining())));
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        this.left.0.fetch_sub(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::Socket;

    #[tokio::test]
    async fn no_more_is_read_than_allowed() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let limit = ReadLimit::default();
        let mut bounded = Bounded::new(Stream::new(Socket::Other(Box::new(near))), limit.clone());
        far.write_all(&[7; 100]).await.unwrap();
        let mut read = [0; 64];
        assert!(bounded.read(&mut read).await.is_err(), "nothing is allowed yet");
        limit.set(40);
        assert_eq!(bounded.read(&mut read).await.unwrap(), 40);
        assert!(limit.is_used_up());
        assert!(bounded.read(&mut read).await.is_err());
        limit.set(1000);
        assert_eq!(bounded.read(&mut read).await.unwrap(), 60);
        assert!(!limit.is_used_up());
        drop(far);
        assert_eq!(bounded.read(&mut read).await.unwrap(), 0, "the end is no error");
    }
}
