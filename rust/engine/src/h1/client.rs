//! The upstream half of HTTP/1.1: one request on a connection, and its answer.
//!
//! The whole of a small request is one write. No task stands behind a connection: whoever waits for the answer drives it, and what is left
//! of an upload goes on while the answer is read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, UPGRADE};
use http::{Method, StatusCode};
use http_body::{Body as _, Frame};
use prometheus::IntCounter;
use sigward_gateway::Failure;
use sigward_gateway::admit::{remove_hop_by_hop, remove_own};
use tokio::time::Instant;

use super::body::{Decoder, Piece};
use super::head::{self, Most, ResponseHead};
use crate::alarm::Alarm;
use crate::body::{BodyError, Outbound};
use crate::drive::{AnswerError, Informed};
use crate::net::Stream;
use crate::pool::Place;

/// What is sent in one piece with the head, bytes: a record of TLS has room for it.
const WITH_HEAD: usize = 14 << 10;
/// Of one body so much moves before others have their turn, bytes.
pub(crate) const TURN: usize = 256 << 10;
/// An upstream's head, at most.
const MOST: Most = Most { bytes: 256 << 10, headers: 1000 };
/// All informational heads before one answer, bytes: they are queued for the client.
const MOST_INFORMATIONAL: usize = 256 << 10;

/// A connection to an upstream.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) alarm: Alarm,
}

impl Connection {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, alarm: Alarm::default() }
    }
}

/// What is to be sent.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// All of them, and no framing but content-length.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Outbound,
}

/// How long each wait may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// Without a byte.
    pub(crate) idle: Duration,
    /// From the request's last byte to the answer's head.
    pub(crate) head: Duration,
    /// All of it.
    pub(crate) until: Option<Instant>,
}

/// An answer's beginning.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

/// Sends a request and reads its answer's head. `place`: where the connection goes when all is over. `informed`: told of each 1xx.
pub(crate) async fn exchange(
    mut connection: Box<Connection>,
    request: Request,
    waits: Waits,
    place: Place,
    mut informed: Option<Informed<'_>>,
) -> Result<Answer, Failure> {
    let Request { method, path, headers, mut body } = request;
    let mut first = connection.stream.scratch();
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let upgrades = headers.contains_key(UPGRADE);
    let chunked = length.is_none() && !body.is_end_stream();
    head::write_request(&mut first, &method, &path, &headers, chunked);
    // A body that lies in memory and is small goes out with the head.
    let whole = if chunked { None } else { body.take_held(WITH_HEAD) };
    if let Some(whole) = &whole {
        first.extend_from_slice(whole);
    }
    let sent = whole.as_ref().map_or(0, |whole| whole.len() as u64);
    connection.stream.queue_scratch(first).map_err(|error| Failure::Broken(error.to_string()))?;
    let mut upload = Upload {
        left: length.map(|length| length.saturating_sub(sent)),
        chunked,
        body: Some(body),
        piece: Bytes::new(),
        moved: Instant::now(),
        complete: false,
    };
    let mut broken: Option<String> = None;
    let mut informational = 0;
    let outcome = std::future::poll_fn(|context| {
        let stream = &mut connection.stream;
        if !upload.complete && broken.is_none() {
            match upload.poll(stream, context) {
                Poll::Ready(Err(UploadError::Body(error))) => return Poll::Ready(Err(error.failure())),
                // It may have answered before it closed.
                Poll::Ready(Err(UploadError::Io(why))) => broken = Some(why),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            let before = stream.plain.len();
            match head::response(&mut stream.plain, &method, MOST) {
                Err(why) => return Poll::Ready(Err(Failure::Broken(why))),
                Ok(Some(mut head)) if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS => {
                    informational += before - stream.plain.len();
                    if informational > MOST_INFORMATIONAL {
                        return Poll::Ready(Err(Failure::Broken("its informational answers do not end".into())));
                    }
                    if let Some(informed) = informed.as_mut().filter(|_| head.status != StatusCode::CONTINUE) {
                        // It has no body, so no length either (RFC 9110, section 8.6).
                        head.headers.remove(CONTENT_LENGTH);
                        remove_hop_by_hop(&mut head.headers);
                        remove_own(&mut head.headers);
                        informed(head.status, &head.headers);
                    }
                    continue;
                }
                Ok(Some(head)) if head.status == StatusCode::SWITCHING_PROTOCOLS && !upgrades => {
                    return Poll::Ready(Err(Failure::Broken("it switched protocols, and nobody had asked for that".into())));
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
            }
            match stream.poll_fill(context) {
                Poll::Ready(Ok(0)) => {
                    let why = broken.take().unwrap_or_else(|| "connection closed before message completed".to_owned());
                    return Poll::Ready(Err(Failure::Broken(why)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Broken(broken.take().unwrap_or_else(|| error.to_string())))),
                Poll::Pending => break,
            }
        }
        // From the upload's own last byte: what the upstream sends before its answer is no progress.
        let deadline = upload.moved + if upload.complete { waits.head } else { waits.idle };
        let deadline = waits.until.map_or(deadline, |until| until.min(deadline));
        ready!(connection.alarm.poll(context, deadline));
        Poll::Ready(Err(Failure::HeadTimeout))
    })
    .await;
    let ResponseHead { status, headers, framing, keep_alive } = outcome?;
    upload.failed(broken.is_some());
    let switched = status == StatusCode::SWITCHING_PROTOCOLS;
    let body = AnswerBody {
        prefix: Bytes::new(),
        source: Source::H1(Box::new(Reading {
            connection,
            decoder: Decoder::new(framing),
            upload,
            keep_alive: keep_alive && broken.is_none() && !switched,
            place,
            idle: waits.idle,
            moved: Instant::now(),
        })),
        broken: None,
    };
    // After `101` the connection is the client's.
    Ok(Answer { status, headers, body: if switched { body } else { body.settled() } })
}

/// A request's body on its way.
struct Upload {
    body: Option<Outbound>,
    /// Bytes that content-length still promises.
    left: Option<u64>,
    chunked: bool,
    piece: Bytes,
    /// When a byte last moved.
    moved: Instant,
    /// All is out.
    complete: bool,
}

enum UploadError {
    /// Its source's.
    Body(BodyError),
    /// The connection's.
    Io(String),
}

impl Upload {
    /// Ready when all is out.
    fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        let io = |error: std::io::Error| UploadError::Io(error.to_string());
        let mut turn = TURN;
        loop {
            if turn == 0 {
                // Others have their turn.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !stream.is_flushed() || !self.piece.is_empty() {
                let before = (self.piece.len(), stream.queued());
                let sent = stream.poll_send(context, &mut self.piece);
                // A part of it counts, too.
                if sent.is_ready() || (self.piece.len(), stream.queued()) != before {
                    self.moved = Instant::now();
                }
                ready!(sent).map_err(io)?;
            }
            let Some(body) = self.body.as_mut() else {
                self.complete = true;
                return Poll::Ready(Ok(()));
            };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Err(error)) => return Poll::Ready(Err(UploadError::Body(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        turn = turn.saturating_sub(data.len());
                        self.take(&data, stream).map_err(io)?;
                    }
                    Err(frame) => self.end(frame.trailers_ref(), stream)?,
                },
                None => self.end(None, stream)?,
            }
        }
    }

    fn take(&mut self, data: &Bytes, stream: &mut Stream) -> std::io::Result<()> {
        if self.chunked {
            if data.is_empty() {
                return Ok(());
            }
            let mut framed = Vec::with_capacity(data.len() + 20);
            framed.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            framed.extend_from_slice(data);
            framed.extend_from_slice(b"\r\n");
            return stream.queue(&framed);
        }
        let left = self.left.unwrap_or(0);
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        self.left = Some(left - fits as u64);
        self.piece = data.slice(..fits);
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, stream: &mut Stream) -> Result<(), UploadError> {
        self.body = None;
        if self.chunked {
            let mut end = b"0\r\n".to_vec();
            head::write_headers(&mut end, trailers.unwrap_or(&HeaderMap::new()));
            end.extend_from_slice(b"\r\n");
            return stream.queue(&end).map_err(|error| UploadError::Io(error.to_string()));
        }
        if self.left.is_some_and(|left| left > 0) { Err(UploadError::Body(short())) } else { Ok(()) }
    }

    /// No more of it goes out.
    fn failed(&mut self, broken: bool) {
        if self.complete || broken {
            self.body = None;
            self.piece = Bytes::new();
        }
    }
}

fn short() -> BodyError {
    BodyError::Client("it is shorter than its content-length".into())
}

/// An answer's body, from wherever it comes.
pub struct AnswerBody {
    /// What was read for its code comes first.
    prefix: Bytes,
    source: Source,
    /// What it counts in if it breaks off.
    broken: Option<IntCounter>,
}

enum Source {
    Done,
    /// One piece.
    Whole(Bytes),
    /// It broke off while its beginning was read.
    Broken(AnswerError),
    H1(Box<Reading>),
    H2 {
        incoming: hyper::body::Incoming,
        idle: Duration,
        alarm: Alarm,
        moved: Instant,
    },
}

/// An answer that is being read.
struct Reading {
    connection: Box<Connection>,
    decoder: Decoder,
    upload: Upload,
    keep_alive: bool,
    place: Place,
    idle: Duration,
    moved: Instant,
}

impl AnswerBody {
    /// None.
    pub(crate) fn empty() -> Self {
        Self { prefix: Bytes::new(), source: Source::Done, broken: None }
    }

    /// Of sigward's own.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { prefix: Bytes::new(), source: if bytes.is_empty() { Source::Done } else { Source::Whole(bytes) }, broken: None }
    }

    pub(crate) fn http2(incoming: hyper::body::Incoming, idle: Duration) -> Self {
        let source = if incoming.is_end_stream() {
            Source::Done
        } else {
            Source::H2 { incoming, idle, alarm: Alarm::default(), moved: Instant::now() }
        };
        Self { prefix: Bytes::new(), source, broken: None }
    }

    /// The connection goes back at once where nothing follows the head.
    fn settled(mut self) -> Self {
        if let Source::H1(reading) = &self.source
            && reading.decoder.is_done()
            && reading.upload.complete
        {
            self.give_back();
        }
        self
    }

    /// Counted in this, if it breaks off.
    pub(crate) fn count_break_off(&mut self, broken: IntCounter) {
        if !matches!(self.source, Source::Done | Source::Whole(_)) {
            self.broken = Some(broken);
        }
    }

    /// It broke off behind what was read: whoever gets that gets this, too.
    pub(crate) fn break_off(&mut self, error: AnswerError) {
        self.source = Source::Broken(error);
    }

    /// What was read comes first again.
    pub(crate) fn put_back(&mut self, prefix: Bytes) {
        self.prefix = prefix;
    }

    /// The whole of it, if no more has to be read for it.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.source {
            Source::Done => return Some(std::mem::take(&mut self.prefix)),
            Source::Whole(bytes) if self.prefix.is_empty() => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Done;
                return Some(bytes);
            }
            Source::H1(reading) if self.prefix.is_empty() && reading.upload.complete => {
                let left = reading.decoder.left().and_then(|left| usize::try_from(left).ok())?;
                if reading.connection.stream.plain.len() < left {
                    return None;
                }
            }
            _ => return None,
        }
        let Source::H1(reading) = &mut self.source else { return None };
        let Ok(Piece::Data(data)) = reading.decoder.next(&mut reading.connection.stream.plain, None) else { return None };
        self.give_back();
        Some(data)
    }

    /// The connection itself, after `101`.
    pub(crate) fn into_stream(self) -> Option<Stream> {
        match self.source {
            Source::H1(reading) => Some(reading.connection.stream),
            _ => None,
        }
    }

    /// Its length, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        let prefix = self.prefix.len() as u64;
        match &self.source {
            Source::Done => Some(prefix),
            Source::Broken(_) => None,
            Source::Whole(bytes) => Some(prefix + bytes.len() as u64),
            Source::H1(reading) => reading.decoder.left().map(|left| prefix + left),
            Source::H2 { incoming, .. } => incoming.size_hint().exact().map(|left| prefix + left),
        }
    }

    fn give_back(&mut self) {
        if let Source::H1(reading) = std::mem::replace(&mut self.source, Source::Done) {
            let Reading { connection, upload, keep_alive, place, .. } = *reading;
            #[cfg(test)]
            if crate::simulation::sabotaged(crate::simulation::Sabotage::KeepsDirty) {
                return place.give_back(connection);
            }
            if keep_alive && upload.complete && connection.stream.plain.is_empty() && connection.stream.end().is_none() {
                place.give_back(connection);
            }
        }
    }
}

impl Reading {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, AnswerError>> {
        let Self { connection, decoder, upload, keep_alive, idle, moved, .. } = self;
        let stream = &mut connection.stream;
        if !upload.complete && upload.body.is_some() {
            match upload.poll(stream, context) {
                Poll::Ready(Ok(())) => {}
                // The answer is what counts; the connection is not used again.
                Poll::Ready(Err(_)) => {
                    *keep_alive = false;
                    upload.failed(true);
                }
                Poll::Pending => *moved = (*moved).max(upload.moved),
            }
        }
        loop {
            let end = stream.end();
            match decoder.next(&mut stream.plain, end) {
                Ok(Piece::More) => {}
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(why) => return Poll::Ready(Err(AnswerError::Broken(why.to_owned()))),
            }
            match stream.poll_fill(context) {
                Poll::Ready(Ok(_)) => *moved = Instant::now(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(AnswerError::Broken(error.to_string()))),
                Poll::Pending => {
                    ready!(connection.alarm.poll(context, *moved + *idle));
                    return Poll::Ready(Err(AnswerError::Idle(*idle)));
                }
            }
        }
    }
}

/// Removes what no trailer of an answer may say: how messages are framed and routed, and what holds for one connection (RFC 9110, section
/// 6.5.1). In HTTP/2 such a field makes the whole answer malformed (RFC 9113, section 8.2.2).
fn remove_forbidden(trailers: &mut HeaderMap) {
    remove_own(trailers);
    remove_hop_by_hop(trailers);
    while let Some(name) = trailers.keys().find(|name| is_framing(name)).cloned() {
        trailers.remove(name);
    }
}

fn is_framing(name: &HeaderName) -> bool {
    *name == CONTENT_LENGTH || *name == HOST || name.as_str().starts_with("proxy-")
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let mut polled = self.poll_source(context);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            remove_forbidden(trailers);
            if trailers.is_empty() {
                polled = Poll::Ready(None);
            }
        }
        if matches!(polled, Poll::Ready(Some(Err(_))))
            && let Some(broken) = self.broken.take()
        {
            broken.inc();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && matches!(self.source, Source::Done)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.length().map(http_body::SizeHint::with_exact).unwrap_or_default()
    }
}

impl AnswerBody {
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self;
        if !this.prefix.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.prefix)))));
        }
        match &mut this.source {
            Source::Done => Poll::Ready(None),
            Source::Broken(_) => match std::mem::replace(&mut this.source, Source::Done) {
                Source::Broken(error) => Poll::Ready(Some(Err(error))),
                _ => Poll::Ready(None),
            },
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Done;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::H1(reading) => match ready!(reading.poll_frame(context)) {
                Ok(Piece::Data(data)) => {
                    // Its last piece: the next request may have the connection already.
                    if reading.decoder.is_done() {
                        this.give_back();
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Ok(Piece::End(trailers)) => {
                    this.give_back();
                    Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
                }
                Ok(Piece::More) => Poll::Pending,
                Err(error) => {
                    this.source = Source::Done;
                    Poll::Ready(Some(Err(error)))
                }
            },
            Source::H2 { incoming, idle, alarm, moved } => match Pin::new(incoming).poll_frame(context) {
                Poll::Ready(frame) => {
                    *moved = Instant::now();
                    Poll::Ready(frame.map(|frame| frame.map_err(|error| AnswerError::Broken(error.to_string()))))
                }
                Poll::Pending => {
                    ready!(alarm.poll(context, *moved + *idle));
                    Poll::Ready(Some(Err(AnswerError::Idle(*idle))))
                }
            },
        }
    }
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("AnswerBody").field("length", &self.length()).finish_non_exhaustive()
    }
}
