//! A connection with its buffers.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::session::{Session, Window, as_io};
use super::socket::Socket;

/// What is read at once at first: a message without a large body fits in.
const LEAST: usize = 4 << 10;
/// And where much comes, at most.
const MOST: usize = 32 << 10;
/// What is sealed and written at once, at most.
const PIECE: usize = 32 << 10;
/// An idle connection keeps so much of a buffer.
const KEPT: usize = 4 << 10;

/// A peer has so long to see why its connection ends.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How reading came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer said so: by TLS's own word, or by closing a plain connection.
    Said,
    /// TLS was cut off.
    Cut,
}

/// See the module.
pub(crate) struct Stream {
    socket: Socket,
    session: Option<Box<Session>>,
    /// What was read and not taken yet.
    pub(crate) plain: BytesMut,
    /// What is to be written, if there is no TLS.
    out: Window,
    end: Option<End>,
    /// What the next read may take.
    appetite: usize,
    /// Where messages are put together; empty between them.
    scratch: Vec<u8>,
    /// What a simulated handshake agreed on.
    #[cfg(test)]
    agreed: Option<&'static [u8]>,
}

impl Stream {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            session: None,
            plain: BytesMut::new(),
            out: Window::default(),
            end: None,
            appetite: LEAST,
            scratch: Vec::new(),
            #[cfg(test)]
            agreed: None,
        }
    }

    /// The connection in pieces, to begin anew on it: what was read and not taken comes with it.
    pub(crate) fn into_parts(self) -> (Socket, BytesMut) {
        if self.session.is_some() {
            // TLS stays where it is; on it goes what comes.
            return (Socket::Other(Box::new(self)), BytesMut::new());
        }
        (self.socket, self.plain)
    }

    /// A TLS client's handshake.
    pub(crate) async fn connect(socket: Socket, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(world) = crate::simulation::world() {
            let mut socket = socket;
            let agreed = world.handshake(&mut socket, config.alpn_protocols.iter().any(|protocol| protocol == b"h2")).await?;
            return Ok(Self { agreed, ..Self::new(socket) });
        }
        Self::new(socket).shaken(Session::client(config, name).map_err(as_io)?).await
    }

    /// A TLS server's handshake; this stream's plain text are the client's records.
    pub(crate) async fn accept(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut session = Session::server(config).map_err(as_io)?;
        let (socket, first) = self.into_parts();
        session.incoming.extend(&first);
        Self::new(socket).shaken(session).await
    }

    /// Ends a connection with these bytes, and takes what the peer still sends, so that it sees them.
    pub(crate) async fn end_with(mut self, last: &[u8]) {
        self.session = None;
        self.out.extend(last);
        let mut said = false;
        let _ = tokio::time::timeout(LAST_WORD, std::future::poll_fn(|context| self.poll_linger(context, &mut said))).await;
    }

    async fn shaken(mut self, session: Session) -> io::Result<Self> {
        self.session = Some(Box::new(session));
        match std::future::poll_fn(|context| self.poll_handshake(context)).await {
            Ok(()) => Ok(self),
            Err(error) => {
                // The alert is out, or stuck; closed with bytes unread, the connection would be reset, and the peer might not see it.
                if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
                    self.end_with(&[]).await;
                }
                Err(error)
            }
        }
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(session) = self.session.as_mut() else { return Poll::Ready(Ok(())) };
            let opened = session.open(&mut self.plain);
            let established = session.established;
            if let Err(error) = opened {
                // What is wrong is told to the peer, if it can be.
                let _ = self.poll_flush_out(context);
                return Poll::Ready(Err(as_io(error)));
            }
            ready!(self.poll_flush_out(context))?;
            if established {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_records(context))? == 0 {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed during the TLS handshake",
                )));
            }
        }
    }

    /// What ALPN agreed on.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        #[cfg(test)]
        if self.agreed.is_some() {
            return self.agreed;
        }
        self.session.as_ref().and_then(|session| session.protocol())
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// How reading has ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Reads more into `plain`; how much, 0: the end.
    pub(crate) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.end.is_some() {
            return Poll::Ready(Ok(0));
        }
        if self.session.is_none() {
            return self.poll_fill_plain(context);
        }
        loop {
            let before = self.plain.len();
            let Some(session) = self.session.as_mut() else { return Poll::Ready(Ok(0)) };
            if !session.incoming.is_empty() {
                // Once, instead of at each record.
                self.plain.reserve(session.incoming.filled().len());
                session.open(&mut self.plain).map_err(as_io)?;
            }
            let closed = session.peer_closed;
            let got = self.plain.len() - before;
            if got > 0 {
                return Poll::Ready(Ok(got));
            }
            if closed {
                self.end = Some(End::Said);
                return Poll::Ready(Ok(0));
            }
            if ready!(self.poll_records(context))? == 0 {
                self.end = Some(End::Cut);
                return Poll::Ready(Ok(0));
            }
        }
    }

    fn poll_fill_plain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // No buffer for what is not there: the last one may still be in use, and is free again when more comes.
        ready!(self.socket.poll_read_ready(context))?;
        if self.plain.capacity() - self.plain.len() < self.appetite {
            self.plain.reserve(self.appetite);
        }
        let mut limited = bytes::BufMut::limit(&mut self.plain, self.appetite);
        let got = ready!(pin!(self.socket.read_buf(&mut limited)).poll(context))?;
        self.learn(got);
        if got == 0 {
            self.end = Some(End::Said);
        }
        Poll::Ready(Ok(got))
    }

    /// Reads records; 0: the end.
    fn poll_records(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(session) = self.session.as_mut() else { return Poll::Ready(Ok(0)) };
        let room = session.incoming.room(self.appetite);
        let size = room.len().min(self.appetite.max(LEAST));
        let mut buffer = ReadBuf::new(room.get_mut(..size).unwrap_or_default());
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        let got = buffer.filled().len();
        session.incoming.fill(got);
        self.learn(got);
        Poll::Ready(Ok(got))
    }

    /// Much at once: more may be waiting.
    fn learn(&mut self, got: usize) {
        if got >= self.appetite {
            // At once: each size on the way would leave a buffer behind.
            self.appetite = MOST;
        }
    }

    /// Bytes that are to be written.
    pub(crate) fn queued(&self) -> usize {
        self.session.as_ref().map_or(&self.out, |session| &session.outgoing).filled().len()
    }

    /// True if nothing is to be written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.queued() == 0
    }

    /// An empty buffer to put a message together in; `queue_scratch` takes it back.
    pub(crate) fn scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// Adds what was put together to what is to be written.
    pub(crate) fn queue_scratch(&mut self, mut message: Vec<u8>) -> io::Result<()> {
        let queued = self.queue(&message);
        if message.capacity() <= KEPT {
            message.clear();
            self.scratch = message;
        }
        queued
    }

    /// Adds to what is to be written.
    pub(crate) fn queue(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            return session.seal(data, &mut self.plain).map_err(as_io);
        }
        self.out.extend(data);
        Ok(())
    }

    /// Writes what was queued.
    pub(crate) fn poll_flush_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = self.session.as_mut().map_or(&mut self.out, |session| &mut session.outgoing);
        while !out.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, out.filled()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                size => out.consume(size),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was queued, then `data`, which is consumed as it goes out. True from `is_flushed` then: all is out.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush_out(context))?;
            if data.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.session.is_some() {
                let piece = data.split_to(data.len().min(PIECE));
                self.queue(&piece)?;
            } else {
                match ready!(Pin::new(&mut self.socket).poll_write(context, data))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    size => data.advance(size),
                }
            }
        }
    }

    /// Says that no more comes, and waits until that is out.
    pub(crate) fn poll_close(&mut self, context: &mut Context<'_>, said: &mut bool) -> Poll<io::Result<()>> {
        if !std::mem::replace(said, true)
            && let Some(session) = &mut self.session
        {
            session.close();
        }
        ready!(self.poll_flush_out(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    /// Says that no more comes, and takes what the peer still sends, for nothing, until it ends, too. Closed with bytes unread, the
    /// connection would be reset, and the peer might not see what was said last (RFC 9112, section 9.6).
    pub(crate) fn poll_linger(&mut self, context: &mut Context<'_>, said: &mut bool) -> Poll<()> {
        let _ = self.poll_close(context, said);
        loop {
            self.plain.clear();
            match ready!(self.poll_fill(context)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Lets go of what an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        self.appetite = LEAST;
        self.out.rest(KEPT);
        if let Some(session) = &mut self.session {
            session.incoming.rest(KEPT);
            session.outgoing.rest(KEPT);
        }
        if self.plain.is_empty() && self.plain.capacity() > KEPT {
            self.plain = BytesMut::new();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.plain.is_empty() && ready!(this.poll_fill(context))? == 0 {
            return match this.end {
                Some(End::Cut) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                _ => Poll::Ready(Ok(())),
            };
        }
        let size = this.plain.len().min(buffer.remaining());
        buffer.put_slice(this.plain.get(..size).unwrap_or_default());
        this.plain.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_flush_out(context))?;
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        if this.session.is_none() {
            return Pin::new(&mut this.socket).poll_write(context, piece);
        }
        this.queue(piece)?;
        // It is taken, whether it is out or not: `poll_flush` sees to that.
        if let Poll::Ready(Err(error)) = this.poll_flush_out(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush_out(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Closing twice says it twice at most, which a peer that has heard it once no longer reads.
        let mut said = self.end == Some(End::Cut);
        self.get_mut().poll_close(context, &mut said)
    }
}
