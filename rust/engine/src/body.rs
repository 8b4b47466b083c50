//! Request bodies: what comes in from a front, where it is kept, and what goes out with each attempt.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use sigward_gateway::Failure;

/// Any body that a front brings.
pub type Inbound = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;

/// A piece of a spooled body that is read at once, bytes.
const SPOOL_PIECE: usize = 256 << 10;

/// A request body that did not come to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The client stopped, or broke its framing.
    #[error("{0}")]
    Client(String),
    /// The spool cannot be written or read.
    #[error("the body cannot be spooled: {0}")]
    Spool(String),
}

impl BodyError {
    /// For the exchange.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Client(why) => Failure::Body(why.clone()),
            Self::Spool(_) => Failure::Internal(self.to_string()),
        }
    }
}

impl From<io::Error> for BodyError {
    fn from(error: io::Error) -> Self {
        Self::Spool(error.to_string())
    }
}

/// An unlinked temporary file: it has no name, and is gone when the last handle is.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    file: Arc<File>,
    length: u64,
}

impl Spool {
    pub(crate) async fn create(directory: Option<&Path>) -> Result<Self, BodyError> {
        let directory = directory.map(Path::to_path_buf);
        let file = blocking(move || directory.map_or_else(tempfile::tempfile, tempfile::tempfile_in)).await?;
        Ok(Self { file: Arc::new(file), length: 0 })
    }

    pub(crate) async fn append(&mut self, piece: Bytes) -> Result<(), BodyError> {
        let (file, at) = (Arc::clone(&self.file), self.length);
        self.length += piece.len() as u64;
        Ok(blocking(move || write_all_at(&file, &piece, at)).await?)
    }

    async fn read(self, at: u64) -> Result<Bytes, BodyError> {
        let size = usize::try_from(self.length - at).unwrap_or(usize::MAX).min(SPOOL_PIECE);
        let piece = blocking(move || {
            let mut buffer = BytesMut::zeroed(size);
            read_exact_at(&self.file, &mut buffer, at)?;
            Ok(buffer.freeze())
        });
        Ok(piece.await?)
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(not(unix))]
fn write_all_at(mut file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use std::io::{Seek, Write};
    file.seek(io::SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read, Seek};
    file.seek(io::SeekFrom::Start(at))?;
    file.read_exact(bytes)
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(io::Error::other)?
}

/// When a byte last moved, and whether the request is out whole: what the time-outs ask.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Microseconds since `began`.
    last: AtomicU64,
    complete: AtomicBool,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), last: AtomicU64::new(0), complete: AtomicBool::new(false) })
    }

    fn moved(&self) {
        self.last.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn finished(&self) {
        self.moved();
        self.complete.store(true, Ordering::Relaxed);
    }

    /// When the attempt has waited too long, as things stand.
    pub(crate) fn deadline(&self, idle: Duration, head: Duration) -> Instant {
        let last = self.began + Duration::from_micros(self.last.load(Ordering::Relaxed));
        last + if self.complete.load(Ordering::Relaxed) { head } else { idle }
    }
}

enum Source {
    Empty,
    Held(Option<Bytes>),
    Spooled { spool: Spool, at: u64, reading: Option<BoxFuture<'static, Result<Bytes, BodyError>>> },
    Stream { first: Option<Bytes>, rest: SharedInbound, left: Option<u64> },
}

/// The front's body while an attempt streams it. Shared, so that the driver can see whether it came to its end.
pub(crate) type SharedInbound = Arc<std::sync::Mutex<Inbound>>;

/// The body of one attempt.
pub(crate) struct Outbound {
    source: Source,
    progress: Arc<Progress>,
}

impl Outbound {
    pub(crate) fn empty(progress: Arc<Progress>) -> Self {
        progress.finished();
        Self { source: Source::Empty, progress }
    }

    pub(crate) fn held(bytes: Bytes, progress: Arc<Progress>) -> Self {
        Self { source: Source::Held(Some(bytes).filter(|bytes| !bytes.is_empty())), progress }
    }

    pub(crate) fn spooled(spool: Spool, progress: Arc<Progress>) -> Self {
        Self { source: Source::Spooled { spool, at: 0, reading: None }, progress }
    }

    /// `length`: of all of it, where it is known.
    pub(crate) fn stream(first: Bytes, rest: SharedInbound, length: Option<u64>, progress: Arc<Progress>) -> Self {
        let first = Some(first).filter(|bytes| !bytes.is_empty());
        Self { source: Source::Stream { first, rest, left: length }, progress }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Empty => None,
            Source::Held(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Spooled { spool, at, .. } if *at >= spool.length => None,
            Source::Spooled { spool, at, reading } => {
                let piece = reading.get_or_insert_with(|| Box::pin(spool.clone().read(*at)));
                match piece.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(piece) => {
                        *reading = None;
                        Some(piece.map(|piece| {
                            *at += piece.len() as u64;
                            Frame::data(piece)
                        }))
                    }
                }
            }
            Source::Stream { first, rest, left } => {
                let frame = if let Some(first) = first.take() {
                    Some(Ok(Frame::data(first)))
                } else {
                    let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
                    match Pin::new(&mut *rest).poll_frame(context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(frame) => frame,
                    }
                };
                if let (Some(left), Some(Ok(data))) = (left.as_mut(), frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref))) {
                    *left = left.saturating_sub(data.map_or(0, Bytes::len) as u64);
                }
                frame
            }
        };
        match &frame {
            None => this.progress.finished(),
            Some(_) if this.is_end_stream() => this.progress.finished(),
            Some(_) => this.progress.moved(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Held(None) => true,
            Source::Held(Some(_)) => false,
            Source::Spooled { spool, at, .. } => *at >= spool.length,
            Source::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty | Source::Held(None) => SizeHint::with_exact(0),
            Source::Held(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Source::Spooled { spool, at, .. } => SizeHint::with_exact(spool.length - at),
            Source::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Source::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

/// Reads until the body ends or more than `limit` bytes are there. The second item: it is complete.
pub(crate) async fn read_up_to(body: &mut Inbound, limit: u64, idle: Duration) -> Result<(Bytes, bool), BodyError> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    loop {
        let so_far = first.as_ref().map_or(0, Bytes::len) + all.len();
        if so_far as u64 > limit {
            break;
        }
        if body.is_end_stream() {
            return Ok((first.unwrap_or_else(|| all.freeze()), true));
        }
        let Some(piece) = next_piece(body, idle).await? else {
            return Ok((first.unwrap_or_else(|| all.freeze()), true));
        };
        // One piece is the usual case, and is not copied.
        if so_far == 0 {
            first = Some(piece);
        } else {
            if let Some(first) = first.take() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
    }
    Ok((first.unwrap_or_else(|| all.freeze()), false))
}

/// The next data of a body; `None`: it is complete. Trailers of a body that is kept end here: its length is known by then.
pub(crate) async fn next_piece(body: &mut Inbound, idle: Duration) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Client(format!("nothing came for {idle:?}")))?;
        match frame.transpose()?.map(Frame::into_data) {
            None => return Ok(None),
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => return Ok(Some(data)),
            Some(Err(_trailers)) => {}
        }
    }
}
