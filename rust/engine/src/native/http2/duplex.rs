//! The bytes of a CONNECT's stream, both ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is written at once, at most.
const PIECE: usize = 16 << 10;

pub(super) struct Duplex {
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    unread: Bytes,
    ended: bool,
}

impl Duplex {
    pub(super) fn new(incoming: RecvStream, outgoing: SendStream<Bytes>) -> Self {
        Self { incoming, outgoing, unread: Bytes::new(), ended: false }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.incoming.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => this.unread = data,
                Some(Err(error)) => {
                    let closed = matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL));
                    return Poll::Ready(if closed { Ok(()) } else { Err(io::Error::other(error)) });
                }
            }
        }
        let size = this.unread.len().min(buffer.remaining());
        buffer.put_slice(this.unread.get(..size).unwrap_or_default());
        this.unread.advance(size);
        let _ = this.incoming.flow_control().release_capacity(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // No more than is there to be sent: what is reserved is nobody else's.
        this.outgoing.reserve_capacity(bytes.len().min(PIECE));
        while this.outgoing.capacity() == 0 {
            match ready!(this.outgoing.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let piece = bytes.get(..bytes.len().min(PIECE).min(this.outgoing.capacity())).unwrap_or_default();
        this.outgoing.send_data(Bytes::copy_from_slice(piece), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection writes by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.ended, true) {
            this.outgoing.reserve_capacity(0);
            this.outgoing.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}
