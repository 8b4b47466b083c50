//! What a connection's frames go over.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::locked;
use crate::net::Stream;

/// A stream that comes back when HTTP/2 is done with it.
pub(super) struct Carrier {
    /// There until `drop`.
    stream: Option<Stream>,
    back: Arc<Mutex<Option<Stream>>>,
    heard: Arc<AtomicBool>,
}

impl Carrier {
    pub(super) fn new(stream: Stream, back: &Arc<Mutex<Option<Stream>>>) -> Self {
        Self { stream: Some(stream), back: Arc::clone(back), heard: Arc::default() }
    }

    /// Set whenever something was read.
    pub(super) fn heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heard)
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut Stream>> {
        self.get_mut().stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        *locked(&self.back) = self.stream.take();
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().stream()?.poll_read(context, buffer))?;
        self.heard.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}
