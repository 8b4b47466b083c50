//! Request bodies: what comes in from a front, where it is kept, and what goes out with each attempt.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use sigward_gateway::{Failure, Wrap};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::descriptors::Descriptors;
use crate::system;
use crate::wrap::Wrapper;

/// Any body that a front brings.
pub enum Inbound {
    /// All that there is of it.
    Whole(Bytes),
    /// Behind a head of HTTP/1.1.
    #[allow(private_interfaces, reason = "made here alone")]
    Http1(crate::native::Upload),
    /// Any other.
    Other(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Http1(upload) => Pin::new(upload).poll_frame(context),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Http1(upload) => upload.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(upload) => upload.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

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

/// A spool that is being written. While one batch goes to the disk, the next comes in.
pub(crate) struct Spooling {
    spool: Spool,
    batch: Vec<Bytes>,
    batched: usize,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Spooling {
    pub(crate) async fn begin(directory: Option<&Path>, descriptors: &Descriptors) -> Result<Self, BodyError> {
        let open = || {
            let directory = directory.map(Path::to_path_buf);
            blocking(move || directory.map_or_else(tempfile::tempfile, tempfile::tempfile_in))
        };
        let file = descriptors.again(open).await?;
        let spool = Spool { file: Arc::new(file), length: 0 };
        Ok(Self { spool, batch: Vec::new(), batched: 0, writing: None })
    }

    pub(crate) async fn append(&mut self, piece: Bytes) -> Result<(), BodyError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.batched += piece.len();
        self.batch.push(piece);
        if self.batched >= SPOOL_PIECE { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), BodyError> {
        self.written().await?;
        let (file, mut at, batch) = (Arc::clone(&self.spool.file), self.spool.length, std::mem::take(&mut self.batch));
        self.spool.length += std::mem::take(&mut self.batched) as u64;
        self.writing = Some(system::offload(move || {
            for piece in batch {
                write_all_at(&file, &piece, at)?;
                at += piece.len() as u64;
            }
            Ok(())
        }));
        Ok(())
    }

    /// Waits for what goes to the disk.
    async fn written(&mut self) -> Result<(), BodyError> {
        match self.writing.take() {
            Some(writing) => Ok(writing.await.map_err(io::Error::other)??),
            None => Ok(()),
        }
    }

    /// All of it is there.
    pub(crate) async fn finish(mut self) -> Result<Spool, BodyError> {
        if self.batched > 0 {
            self.write().await?;
        }
        self.written().await?;
        Ok(self.spool)
    }
}

impl Spool {
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
    system::offload(job).await.map_err(io::Error::other)?
}

/// When a byte last moved, and whether the request is out whole: what the time-outs ask.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Microseconds since `began`.
    last: AtomicU64,
    complete: AtomicBool,
    /// The request is out whole: another time-out counts from here on.
    completed: Notify,
    failure: OnceLock<Failure>,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            completed: Notify::new(),
            failure: OnceLock::new(),
        })
    }

    /// Why the request's body came to no end, if it did not.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    fn moved(&self) {
        self.last.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn finished(&self) {
        // The end may be looked at more than once.
        if !self.complete.load(Ordering::Relaxed) {
            self.moved();
            self.complete.store(true, Ordering::Relaxed);
            self.completed.notify_one();
        }
    }

    /// Waits until the request is out whole.
    pub(crate) async fn completed(&self) {
        self.completed.notified().await;
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
    wrapper: Option<Box<Wrapper>>,
    /// What followed a kept body.
    trailers: Option<Box<HeaderMap>>,
    /// Of the trailers of a body that is not wrapped, those that go on.
    named: Vec<HeaderName>,
    /// For whoever waits beside it.
    progress: Option<Arc<Progress>>,
}

impl Outbound {
    pub(crate) fn empty() -> Self {
        Self::of(Source::Empty)
    }

    pub(crate) fn held(bytes: Bytes) -> Self {
        Self::of(Source::Held(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    pub(crate) fn spooled(spool: Spool) -> Self {
        Self::of(Source::Spooled { spool, at: 0, reading: None })
    }

    /// `length`: of all of it, where it is known.
    pub(crate) fn stream(first: Bytes, rest: SharedInbound, length: Option<u64>) -> Self {
        let first = Some(first).filter(|bytes| !bytes.is_empty());
        Self::of(Source::Stream { first, rest, left: length })
    }

    fn of(source: Source) -> Self {
        Self { source, wrapper: None, trailers: None, named: Vec::new(), progress: None }
    }

    /// Lets these trailers go on, and no others.
    pub(crate) fn trailed(self, named: Vec<HeaderName>) -> Self {
        Self { named, ..self }
    }

    /// Notes on the way when a byte moves.
    pub(crate) fn watched(mut self, progress: Arc<Progress>) -> Self {
        if self.is_end_stream() {
            progress.finished();
        }
        self.progress = Some(progress);
        self
    }

    /// All of it, if it lies in memory and is no longer than `most`.
    pub(crate) fn take_held(&mut self, most: usize) -> Option<Bytes> {
        match &mut self.source {
            Source::Held(held) if self.wrapper.is_none() && held.as_ref().is_some_and(|bytes| bytes.len() <= most) => held.take(),
            _ => None,
        }
    }

    /// The same in its wrapping; `trailers`: what followed it, if it was read whole.
    pub(crate) fn wrapped(self, wrap: Wrap, trailers: Option<HeaderMap>) -> Self {
        Self { wrapper: Some(Box::new(Wrapper::new(wrap))), trailers: trailers.map(Box::new), ..self }
    }

    /// The next frame as it came.
    fn poll_plain(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.source.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        let frame = frame.into_data().map(Frame::data).or_else(|frame| {
            let all = frame.into_trailers().unwrap_or_default();
            let values = |name: &HeaderName| all.get_all(name).iter().map(|value| (name.clone(), value.clone())).collect::<Vec<_>>();
            let kept: HeaderMap = self.named.iter().flat_map(values).collect();
            if kept.is_empty() { Err(()) } else { Ok(Frame::trailers(kept)) }
        });
        Poll::Ready(frame.ok().map(Ok))
    }

    /// The next frame of the wrapping.
    fn poll_wrapped(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(wrapper) = self.wrapper.as_mut() else { return Poll::Ready(None) };
            if let Some(piece) = wrapper.next() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if wrapper.has_ended() {
                return Poll::Ready(None);
            }
            let frame = match self.source.poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            let taken = match frame {
                Some(Err(error)) => Err(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => wrapper.take(data),
                    Err(frame) => wrapper.end(frame.trailers_ref()),
                },
                None => wrapper.end(self.trailers.as_deref()),
            };
            if let Err(error) = taken {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Source {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match self {
            Self::Empty => None,
            Self::Held(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Spooled { spool, at, .. } if *at >= spool.length => None,
            Self::Spooled { spool, at, reading } => {
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
            Self::Stream { first, rest, left } => {
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
        })
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = if this.wrapper.is_some() { this.poll_wrapped(context) } else { this.poll_plain(context) };
        let frame = match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        if let Some(progress) = &this.progress {
            match &frame {
                None => progress.finished(),
                Some(Err(error)) => drop(progress.failure.set(error.failure())),
                Some(_) if this.is_end_stream() => progress.finished(),
                Some(_) => progress.moved(),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            _ if self.wrapper.is_some() => self.wrapper.as_ref().is_some_and(|wrapper| wrapper.is_done()),
            Source::Empty | Source::Held(None) => true,
            Source::Held(Some(_)) => false,
            Source::Spooled { spool, at, .. } => *at >= spool.length,
            Source::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            // The head says it, if it is known.
            _ if self.wrapper.is_some() => SizeHint::default(),
            Source::Empty | Source::Held(None) => SizeHint::with_exact(0),
            Source::Held(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Source::Spooled { spool, at, .. } => SizeHint::with_exact(spool.length - at),
            Source::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Source::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

/// What was read of a body.
pub(crate) struct Read {
    /// In one piece.
    pub(crate) bytes: Bytes,
    /// It is complete.
    pub(crate) last: bool,
    /// What followed it.
    pub(crate) trailers: Option<HeaderMap>,
}

/// Reads until the body ends or more than `limit` bytes are there.
pub(crate) async fn read_up_to(body: &mut Inbound, limit: u64, idle: Duration) -> Result<Read, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let (mut last, mut trailers) = (false, None);
    while !last {
        let so_far = first.as_ref().map_or(0, Bytes::len) + all.len();
        if so_far as u64 > limit {
            break;
        }
        match next_piece(body, idle).await? {
            Next::End(after) => (last, trailers) = (true, after),
            // One piece is the usual case, and is not copied.
            Next::Data(piece) if so_far == 0 => first = Some(piece),
            Next::Data(piece) => {
                if let Some(first) = first.take() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&piece);
            }
        }
    }
    Ok(Read { bytes: first.unwrap_or_else(|| all.freeze()), last, trailers })
}

/// What comes next of a body.
pub(crate) enum Next {
    /// Never empty.
    Data(Bytes),
    /// It is complete.
    End(Option<HeaderMap>),
}

/// The next data of a body, or its end.
pub(crate) async fn next_piece(body: &mut Inbound, idle: Duration) -> Result<Next, BodyError> {
    let mut trailers = None;
    loop {
        if body.is_end_stream() {
            return Ok(Next::End(trailers));
        }
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Client(format!("nothing came for {idle:?}")))?;
        match frame.transpose()?.map(Frame::into_data) {
            None => return Ok(Next::End(trailers)),
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => return Ok(Next::Data(data)),
            Some(Err(frame)) => trailers = frame.into_trailers().ok(),
        }
    }
}
