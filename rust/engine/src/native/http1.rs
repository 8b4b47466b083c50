//! The client half of HTTP/1.1: requests one after another on a connection, and their answers.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use sigward_gateway::settings::{ClientHttp2, EngineSettings};
use sigward_gateway::{BodySize, Refusal, Shape};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Ending, Front, LAME_DUCK, Via, at_least};
use crate::alarm::Alarm;
use crate::body::{BodyError, Inbound};
use crate::drive::{AnswerBody, AnswerError, Listener};
use crate::h1::body::{Decoder, Piece};
use crate::h1::client::TURN;
use crate::h1::head::{self, Framing, Most, RequestHead};
use crate::net::Stream;

/// What a client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read ahead of a request that is under way, at most.
const AHEAD: usize = 64 << 10;
/// An answer of so many bytes goes out in one piece with its head.
const WITH_HEAD: usize = 14 << 10;
/// What is left of a body when its answer is out is read so far, for the sake of the connection.
const LEFT: u64 = 64 << 10;
/// A client that still sends gets so long to see its answer before the connection is gone.
const LINGER: Duration = Duration::from_secs(30);

/// A connection, and the body that is being read from it.
struct Io {
    stream: Stream,
    decoder: Decoder,
    /// The client waits for `100 Continue`.
    owes_continue: bool,
    alarm: Alarm,
}

impl Io {
    /// The next piece of the body.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        let broken = |why: &dyn std::fmt::Display| BodyError::Client(why.to_string());
        if std::mem::take(&mut self.owes_continue) && !self.decoder.is_done() && self.stream.plain.is_empty() {
            self.stream.queue(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|error| broken(&error))?;
        }
        loop {
            if let Poll::Ready(Err(error)) = self.stream.poll_flush_out(context) {
                return Poll::Ready(Err(broken(&error)));
            }
            let end = self.stream.end();
            match self.decoder.next(&mut self.stream.plain, end) {
                Ok(Piece::More) => {}
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(why) => return Poll::Ready(Err(broken(&why))),
            }
            ready!(self.stream.poll_fill(context)).map_err(|error| broken(&error))?;
        }
    }

    /// True if the client's connection is broken, rather than closed on its side. Looks while nothing more of its request is to come.
    fn has_gone(&mut self, context: &mut Context<'_>) -> bool {
        while self.stream.plain.len() < AHEAD {
            match self.stream.poll_fill(context) {
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(size)) if size > 0 => {}
                _ => break,
            }
        }
        false
    }
}

type Shared = Arc<Mutex<Io>>;

fn locked(io: &Shared) -> MutexGuard<'_, Io> {
    io.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's body, as it comes in.
pub struct Upload(Shared);

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match ready!(locked(&self.0).poll_piece(context)) {
            Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Piece::End(trailers)) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Ok(Piece::More) => return Poll::Pending,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.0).decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.0).decoder.left().map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// What comes next on a connection.
enum Next {
    Request(Box<RequestHead>),
    /// It is HTTP/2.
    Http2,
    Refused(Refusal),
    /// Nothing more.
    End,
}

/// Serves a connection to its end.
pub(crate) async fn serve(front: Front, stream: Stream, via: Via, client: Arc<str>) {
    let io: Shared = Arc::new(Mutex::new(Io { stream, decoder: Decoder::Done, owes_continue: false, alarm: Alarm::default() }));
    let mut ending = front.native.ending.subscribe();
    let mut first = true;
    loop {
        match next(&front, &io, &mut ending, first).await {
            Next::End => break,
            Next::Http2 => {
                if let Some(io) = Arc::into_inner(io) {
                    let io = io.into_inner().unwrap_or_else(PoisonError::into_inner);
                    Box::pin(super::http2::serve(front, io.stream, via, client)).await;
                }
                return;
            }
            Next::Refused(refusal) => {
                front.shared.metrics.bad_requests.with_label_values(&[refusal.slug]).inc();
                let _ = Box::pin(refuse(&front, &io, &refusal)).await;
                break;
            }
            Next::Request(request) if request.method == Method::CONNECT && matches!(via, Via::Proxy) => {
                return Box::pin(connect(front, io, *request, client)).await;
            }
            Next::Request(request) => match one(&front, &io, *request, &via, &client, &ending).await {
                After::Next => {}
                After::Close => break,
                After::Tunnel(upstream) => return Box::pin(tunnel(front, io, *upstream)).await,
                After::Gone => return,
            },
        }
        first = false;
    }
    let mut said = false;
    let _ = std::future::poll_fn(|context| {
        let mut io = locked(&io);
        let Io { stream, alarm, .. } = &mut *io;
        if let Poll::Ready(done) = stream.poll_close(context, &mut said) {
            return Poll::Ready(done);
        }
        ready!(alarm.poll(context, Instant::now() + LINGER));
        Poll::Ready(Ok(()))
    })
    .await;
}

/// Waits for a request's head.
async fn next(front: &Front, io: &Shared, ending: &mut watch::Receiver<Ending>, first: bool) -> Next {
    let config = front.shared.config.load();
    let settings = &config.settings;
    let most = most(settings);
    let timeouts = &settings.timeouts;
    let mut since = Instant::now();
    let mut begun = !locked(io).stream.plain.is_empty();
    let may_be_http2 = first && settings.client_http2 == ClientHttp2::Auto;
    let reading = std::future::poll_fn(|context| {
        let mut io = locked(io);
        let Io { stream, alarm, .. } = &mut *io;
        // An answer that could not be flushed at once.
        if let Poll::Ready(Err(_)) = stream.poll_flush_out(context) {
            return Poll::Ready(Next::End);
        }
        loop {
            if may_be_http2 && PREFACE.starts_with(stream.plain.get(..stream.plain.len().min(PREFACE.len())).unwrap_or_default()) {
                if stream.plain.len() >= PREFACE.len() {
                    return Poll::Ready(Next::Http2);
                }
            } else if !stream.plain.is_empty() {
                match head::request(&mut stream.plain, most) {
                    Ok(Some(head)) => return Poll::Ready(Next::Request(Box::new(head))),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
                }
            }
            if !begun && !stream.plain.is_empty() {
                (begun, since) = (true, Instant::now());
            }
            match stream.poll_fill(context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        // The first request has no longer than its head.
        let patience = if begun || first { timeouts.client_head } else { timeouts.client_idle };
        if !begun {
            stream.rest();
        }
        ready!(alarm.poll(context, since + patience));
        if begun {
            front.shared.metrics.slow_clients.with_label_values(&["head"]).inc();
            let why = "the request's head did not come to its end in time.";
            return Poll::Ready(Next::Refused(Refusal::client(408, "head-timeout", why, "Send it faster, or raise timeouts.client_head.")));
        }
        Poll::Ready(Next::End)
    });
    let mut reading = pin!(reading);
    let mut leaving = pin!(async {
        at_least(ending, Ending::Draining).await;
        tokio::time::sleep(LAME_DUCK).await;
    });
    let mut left = false;
    std::future::poll_fn(|context| {
        if let Poll::Ready(next) = reading.as_mut().poll(context) {
            return Poll::Ready(next);
        }
        left = left || leaving.as_mut().poll(context).is_ready();
        // A request that has begun to come in comes in.
        if left && locked(io).stream.plain.is_empty() { Poll::Ready(Next::End) } else { Poll::Pending }
    })
    .await
}

fn most(settings: &EngineSettings) -> Most {
    let limits = &settings.limits;
    // Names and values are counted exactly when the head is admitted; here lines and the target come on top.
    Most { bytes: limits.header_bytes + limits.target_bytes + 4 * limits.headers + 1024, headers: limits.headers }
}

/// What follows an answer.
enum After {
    Next,
    Close,
    /// Bytes, both ways.
    Tunnel(Box<Stream>),
    /// The client is not there.
    Gone,
}

/// One request.
async fn one(front: &Front, io: &Shared, request: RequestHead, via: &Via, client: &Arc<str>, ending: &watch::Receiver<Ending>) -> After {
    let RequestHead { method, target, version, headers, framing, keep_alive, expects } = request;
    let found = match version {
        Version::HTTP_11 if !headers.contains_key(HOST) => Err(super::target::no_host()),
        _ => super::target::destination(target, &headers, via, &front.kind),
    };
    let (target, path) = match found {
        Ok(found) => found,
        Err(refusal) => {
            front.shared.metrics.bad_requests.with_label_values(&[refusal.slug]).inc();
            let _ = Box::pin(refuse(front, io, &refusal)).await;
            return After::Close;
        }
    };
    let upgrades = headers.contains_key(UPGRADE);
    let trailers = head::takes_trailers(&headers);
    let (inbound, size) = begin_body(io, framing, expects);
    let is_head = method == Method::HEAD;
    let old = version == Version::HTTP_10;
    let head = sigward_gateway::RequestHead {
        entry: via.entry(),
        method,
        target,
        path,
        headers,
        body: size,
        client: Arc::clone(client),
        malformed: None,
    };
    let mut informed = |status: StatusCode, headers: &HeaderMap| {
        let mut told = Vec::with_capacity(256);
        head::write_response(&mut told, status, headers);
        told.extend_from_slice(b"\r\n");
        let _ = locked(io).stream.queue(&told);
    };
    let answer = {
        let listener = Listener { informed: if old { None } else { Some(&mut informed) } };
        let mut driving = pin!(front.exchange(head, inbound, listener));
        std::future::poll_fn(|context| {
            if let Poll::Ready(answer) = driving.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            let mut io = locked(io);
            let flushed = io.stream.poll_flush_out(context);
            if matches!(flushed, Poll::Ready(Err(_))) {
                return Poll::Ready(None);
            }
            // A client that has closed its side waits for its answer, however long that takes.
            if io.decoder.is_done() && io.has_gone(context) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    };
    let Some(mut answer) = answer else { return After::Gone };
    if let Some(upstream) = answer.upgrade.take().filter(|_| upgrades) {
        let mut told = Vec::with_capacity(512);
        head::write_response(&mut told, answer.response.status(), answer.response.headers());
        told.extend_from_slice(b"\r\n");
        return if write(front, io, told.into()).await.is_ok() { After::Tunnel(upstream) } else { After::Gone };
    }
    let left = {
        let io = locked(io);
        // A client that still waits for leave to send may send or not.
        if io.owes_continue { Some(u64::MAX) } else { io.decoder.left() }
    };
    let keep_alive = keep_alive && left.is_some_and(|left| left <= LEFT) && *ending.borrow() == Ending::No;
    let terms = Terms { is_head, old, keep_alive, trailers };
    match answered(front, io, answer.response, &terms).await {
        Ok(true) => {}
        Ok(false) => {
            if !is_read_out(io) {
                Box::pin(linger(front, io)).await;
            }
            return After::Close;
        }
        Err(()) => return After::Gone,
    }
    if !locked(io).decoder.is_done() && !Box::pin(rest_of_body(front, io)).await {
        return After::Close;
    }
    After::Next
}

/// A body is begun: what drives the request gets it.
fn begin_body(io: &Shared, framing: Framing, expects: bool) -> (Inbound, BodySize) {
    let mut guard = locked(io);
    guard.owes_continue = false;
    guard.decoder = Decoder::Done;
    match framing {
        Framing::Length(0) => (Inbound::Whole(Bytes::new()), BodySize::Known(0)),
        // All of a small body has come with its head, mostly.
        Framing::Length(length) if guard.stream.plain.len() as u64 >= length => {
            let body = guard.stream.plain.split_to(usize::try_from(length).unwrap_or(usize::MAX)).freeze();
            (Inbound::Whole(body), BodySize::Known(length))
        }
        _ => {
            guard.decoder = Decoder::new(framing);
            guard.owes_continue = expects;
            let size = if let Framing::Length(length) = framing { BodySize::Known(length) } else { BodySize::Unknown };
            (Inbound::Http1(Upload(Arc::clone(io))), size)
        }
    }
}

/// How an answer is to be written.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about the client")]
struct Terms {
    is_head: bool,
    /// To a client of HTTP/1.0.
    old: bool,
    keep_alive: bool,
    /// The client takes trailers.
    trailers: bool,
}

/// How the end of a body is written.
struct Tail {
    chunked: bool,
    trailers: bool,
}

/// Writes an answer. True: another request may follow.
async fn answered(front: &Front, io: &Shared, response: Response<AnswerBody>, terms: &Terms) -> Result<bool, ()> {
    let (parts, mut body) = response.into_parts();
    let (status, mut headers) = (parts.status, parts.headers);
    let bodiless = terms.is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let length = body.length();
    // The end of the connection is the end of what has no other.
    let by_close = !bodiless && length.is_none() && terms.old;
    let chunked = !bodiless && length.is_none() && !terms.old;
    let keep_alive = terms.keep_alive && !by_close;
    headers.remove(TRANSFER_ENCODING);
    if !keep_alive {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if terms.old {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    } else {
        headers.remove(CONNECTION);
    }
    let mut first = locked(io).stream.scratch();
    if chunked || by_close {
        headers.remove(CONTENT_LENGTH);
    }
    head::write_response(&mut first, status, &headers);
    if let Some(length) = length.filter(|_| !bodiless)
        && !headers.contains_key(CONTENT_LENGTH)
    {
        head::write_length(&mut first, length);
    }
    if chunked {
        first.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    first.extend_from_slice(b"\r\n");
    if bodiless {
        // What the upstream sends all the same is not waited for.
        drop(body);
        queued(io, first)?;
        write(front, io, Bytes::new()).await?;
        return Ok(keep_alive);
    }
    if let Some(whole) = body.take_whole() {
        let rest = if whole.len() <= WITH_HEAD {
            first.extend_from_slice(&whole);
            Bytes::new()
        } else {
            whole
        };
        queued(io, first)?;
        write(front, io, rest).await?;
        return Ok(keep_alive);
    }
    let tail = Tail { chunked, trailers: terms.trailers };
    if Box::pin(copied(front, io, first, body, tail)).await.is_err() {
        if by_close {
            // An end would look like the answer's.
            locked(io).stream.socket().abort();
        }
        return Err(());
    }
    Ok(keep_alive)
}

/// An answer whose body comes bit by bit.
struct Copying<'a> {
    front: &'a Front,
    io: &'a Shared,
    body: AnswerBody,
    /// What is to be written next: a chunk's frame goes out with its data.
    queue: [Bytes; 3],
    tail: Tail,
    ended: bool,
    /// When the client last took something.
    moved: Instant,
    patience: Duration,
}

/// Writes what comes of a body, as the client takes it. `first`: the head.
async fn copied(front: &Front, io: &Shared, first: Vec<u8>, body: AnswerBody, tail: Tail) -> Result<(), ()> {
    let patience = front.shared.config.load().settings.timeouts.client_write;
    let queue = [first.into(), Bytes::new(), Bytes::new()];
    let mut copying = Copying { front, io, body, queue, tail, ended: false, moved: Instant::now(), patience };
    std::future::poll_fn(|context| copying.poll(context)).await
}

impl Copying<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let mut turn = TURN;
        while turn > 0 {
            ready!(self.poll_write(context))?;
            if self.ended {
                return self.poll_flush(context);
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                // What is there goes out while more is waited for.
                ready!(self.poll_flush(context))?;
                let mut io = locked(self.io);
                // However long the upstream is silent, nobody waits for it once the client has gone.
                let gone = io.decoder.is_done() && io.has_gone(context);
                return if gone { Poll::Ready(Err(())) } else { Poll::Pending };
            };
            turn = turn.saturating_sub(self.take(frame)?);
        }
        // Others have their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the queue is empty: small pieces are put together, large ones are out.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        for at in 0..self.queue.len() {
            let Some(piece) = self.queue.get_mut(at).filter(|piece| !piece.is_empty()) else { continue };
            let before = piece.len();
            let mut io = locked(self.io);
            let sent = if piece.len() < WITH_HEAD && io.stream.queued() < WITH_HEAD {
                Poll::Ready(io.stream.queue(&std::mem::take(piece)))
            } else {
                io.stream.poll_send(context, piece)
            };
            drop(io);
            if piece.len() < before {
                self.moved = Instant::now();
            }
            match sent {
                Poll::Ready(sent) => sent.map_err(drop)?,
                Poll::Pending => return self.too_slow(context),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let flushed = locked(self.io).stream.poll_flush_out(context);
        match flushed {
            Poll::Ready(flushed) => Poll::Ready(flushed.map_err(drop)),
            Poll::Pending => self.too_slow(context),
        }
    }

    /// Ready when the client has taken nothing for too long.
    fn too_slow(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        ready!(locked(self.io).alarm.poll(context, self.moved + self.patience));
        self.front.shared.metrics.slow_clients.with_label_values(&["answer"]).inc();
        Poll::Ready(Err(()))
    }

    /// Queues what came; its size.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, AnswerError>>) -> Result<usize, ()> {
        // Its patience begins with what there is to take.
        self.moved = Instant::now();
        let trailers = match frame.transpose().map_err(drop)?.map(Frame::into_data) {
            Some(Ok(data)) if data.is_empty() => return Ok(0),
            Some(Ok(data)) => {
                let size = data.len();
                self.queue = if self.tail.chunked {
                    [format!("{size:x}\r\n").into(), data, Bytes::from_static(b"\r\n")]
                } else {
                    [data, Bytes::new(), Bytes::new()]
                };
                return Ok(size);
            }
            // They are for those who ask for them (RFC 9110, section 6.5.1).
            Some(Err(frame)) => frame.into_trailers().ok().filter(|_| self.tail.trailers),
            None => None,
        };
        self.ended = true;
        if self.tail.chunked {
            let mut last = b"0\r\n".to_vec();
            head::write_headers(&mut last, &trailers.unwrap_or_default());
            last.extend_from_slice(b"\r\n");
            self.queue = [last.into(), Bytes::new(), Bytes::new()];
        }
        Ok(0)
    }
}

fn queued(io: &Shared, message: Vec<u8>) -> Result<(), ()> {
    locked(io).stream.queue_scratch(message).map_err(drop)
}

/// Writes what is queued, and all of a piece, as fast as the client takes it.
async fn write(front: &Front, io: &Shared, mut piece: Bytes) -> Result<(), ()> {
    let mut moved: Option<Instant> = None;
    let mut small = !piece.is_empty() && piece.len() < AHEAD;
    std::future::poll_fn(|context| {
        let mut io = locked(io);
        let Io { stream, alarm, .. } = &mut *io;
        if std::mem::take(&mut small) {
            stream.queue(&piece).map_err(drop)?;
            piece.clear();
        }
        let before = piece.len();
        match stream.poll_send(context, &mut piece) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(drop)),
            Poll::Pending => {
                if piece.len() < before {
                    moved = None;
                }
                let since = *moved.get_or_insert_with(Instant::now);
                ready!(alarm.poll(context, since + front.shared.config.load().settings.timeouts.client_write));
                front.shared.metrics.slow_clients.with_label_values(&["answer"]).inc();
                Poll::Ready(Err(()))
            }
        }
    })
    .await
}

/// Answers what cannot be served; the connection ends with it.
async fn refuse(front: &Front, io: &Shared, refusal: &Refusal) -> Result<(), ()> {
    let (parts, body) = refusal.response(Shape::Plain, false, None).into_parts();
    let response = Response::from_parts(parts, AnswerBody::whole(body));
    answered(front, io, response, &Terms { is_head: false, old: false, keep_alive: false, trailers: false }).await?;
    linger(front, io).await;
    Ok(())
}

/// True if nothing of what the client has sent is unread, as far as it is known.
fn is_read_out(io: &Shared) -> bool {
    let io = locked(io);
    io.decoder.is_done() && io.stream.plain.is_empty()
}

/// Reads what is left of a body, so that the next request can be read. False: it does not come.
async fn rest_of_body(front: &Front, io: &Shared) -> bool {
    let until = Instant::now() + front.shared.config.load().settings.timeouts.idle;
    std::future::poll_fn(|context| {
        loop {
            let mut io = locked(io);
            match io.poll_piece(context) {
                Poll::Ready(Ok(Piece::Data(_))) => {}
                Poll::Ready(Ok(Piece::End(_))) => return Poll::Ready(true),
                Poll::Ready(Ok(Piece::More) | Err(_)) => return Poll::Ready(false),
                Poll::Pending => {
                    ready!(io.alarm.poll(context, until));
                    return Poll::Ready(false);
                }
            }
        }
    })
    .await
}

/// Ends the connection, but goes on taking what the client sends for a while, so that it sees its answer.
async fn linger(front: &Front, io: &Shared) {
    let until = Instant::now() + LINGER.min(front.shared.config.load().settings.timeouts.idle);
    let mut said = false;
    std::future::poll_fn(|context| {
        let mut io = locked(io);
        let Io { stream, alarm, .. } = &mut *io;
        if stream.poll_linger(context, &mut said).is_ready() {
            return Poll::Ready(());
        }
        alarm.poll(context, until)
    })
    .await;
}

/// The connection itself, of which nothing else is left.
fn into_stream(io: Shared) -> Option<Stream> {
    Arc::into_inner(io).map(|io| io.into_inner().unwrap_or_else(PoisonError::into_inner).stream)
}

/// Bytes both ways after `101`.
async fn tunnel(front: Front, io: Shared, mut upstream: Stream) {
    let Some(mut client) = into_stream(io) else { return };
    front.until_cut(super::tunnel::copy(&mut client, &mut upstream)).await;
}

async fn connect(front: Front, io: Shared, request: RequestHead, client: Arc<str>) {
    let beyond = match super::target::only_host(&request.headers) {
        Ok(_) => front.connect(&request.target, &request.headers).await,
        Err(refusal) => Err(refusal),
    };
    match beyond {
        Ok(beyond) => {
            let established = Bytes::from_static(b"HTTP/1.1 200 Connection established\r\n\r\n");
            if write(&front, &io, established).await.is_err() {
                return;
            }
            // A body of CONNECT has no meaning: what follows is the tunnel's.
            let Some(stream) = into_stream(io) else { return };
            Box::pin(front.beyond(stream, beyond, client)).await;
        }
        Err(refusal) => {
            let _ = refuse(&front, &io, &refusal).await;
        }
    }
}
