//! One stream of HTTP/2: a request, its answer, and what is left of the request behind it.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use sigward_gateway::{BodySize, Refusal, RequestHead, Shape};
use tokio::time::Instant;

use super::duplex::Duplex;
use super::windows::{MOST_REST, Widened};
use super::{Busy, Open, SEND_BUFFER, Stalled, locked};
use crate::alarm::Alarm;
use crate::body::{BodyError, Inbound};
use crate::drive::{AnswerBody, Listener};
use crate::native::tunnel::Beyond;
use crate::native::{Ending, Front, Via, at_least, target};
use crate::net::{Socket, Stream};

/// A client that has its answer and still sends may be silent for so long before its stream is reset.
const LINGER: Duration = Duration::from_secs(30);
/// And before it counts as one that has stopped its upload: what it was granted for that goes to others.
const QUIET: Duration = Duration::from_secs(1);

/// A stream, shared by whoever reads the request and whoever answers it.
struct Half {
    respond: SendResponse<Bytes>,
    incoming: RecvStream,
    /// Bytes that content-length still promises.
    left: Option<u64>,
    /// No more DATA comes.
    data_ended: bool,
    /// The client waits for `100 Continue`.
    owes_continue: bool,
    /// Nobody wants what is left of the body.
    abandoned: bool,
    /// Who waits for that.
    waits: Option<Waker>,
}

type Shared = Arc<Mutex<Half>>;

impl Half {
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if self.data_ended {
            return Poll::Ready(None);
        }
        let data = ready!(self.incoming.poll_data(context));
        match &data {
            Some(Ok(data)) => {
                let _ = self.incoming.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            }
            Some(Err(_)) | None => self.data_ended = true,
        }
        Poll::Ready(data)
    }
}

/// A request's body, as it comes in.
struct Upload(Shared);

impl Drop for Upload {
    fn drop(&mut self) {
        let mut half = locked(&self.0);
        half.abandoned = true;
        if let Some(waker) = half.waits.take() {
            waker.wake();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut half = locked(&self.0);
        // A request that was reset is not whole, whatever the reason.
        let broken = |error: h2::Error| Some(Err(BodyError::Client(error.to_string())));
        match half.poll_data(context) {
            Poll::Ready(Some(data)) => return Poll::Ready(data.map_or_else(broken, |data| Some(Ok(Frame::data(data))))),
            Poll::Ready(None) => {}
            Poll::Pending => {
                // RFC 9110, section 10.1.1: it is wanted, and nothing of it has come.
                if std::mem::take(&mut half.owes_continue) {
                    let _ = half.respond.send_informational(informational(StatusCode::CONTINUE, &HeaderMap::new()));
                }
                return Poll::Pending;
            }
        }
        let trailers = ready!(half.incoming.poll_trailers(context));
        Poll::Ready(trailers.map_or_else(broken, |trailers| Some(Ok(Frame::trailers(trailers?)))))
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.0).incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.0).left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

fn informational(status: StatusCode, headers: &HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().clone_from(headers);
    response
}

/// What becomes of a request.
#[allow(clippy::large_enum_variant, reason = "it is moved once")]
enum Reply {
    Answer(Response<AnswerBody>),
    /// CONNECT: bytes both ways.
    Tunnel(Beyond),
}

/// Serves a stream to its end.
pub(super) async fn serve(
    front: Front,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    via: Via,
    client: Arc<str>,
    open: Open,
) {
    let (parts, incoming) = request.into_parts();
    let left = length(&parts.headers).or_else(|| incoming.is_end_stream().then_some(0));
    let owes_continue =
        left != Some(0) && parts.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let half = Half { respond, incoming, left, data_ended: false, owes_continue, abandoned: false, waits: None };
    let half = Arc::new(Mutex::new(half));
    let is_head = parts.method == Method::HEAD;
    let reply = {
        let mut answering = pin!(answer(&front, &half, parts, via, Arc::clone(&client)));
        std::future::poll_fn(|context| {
            // Before anything of it goes out.
            if let Poll::Ready(reset) = locked(&half).respond.poll_reset(context) {
                return Poll::Ready(reset.is_ok().then(|| open.0.count_reset()).and(None));
            }
            answering.as_mut().poll(context).map(Some)
        })
        .await
    };
    match reply {
        Some(Reply::Answer(response)) => deliver(&front, &half, &open.0, response, is_head).await,
        Some(Reply::Tunnel(beyond)) => {
            let _counted = front.counted();
            let Ok(outgoing) = locked(&half).respond.send_response(Response::new(()), false) else { return };
            let Some(half) = Arc::into_inner(half) else { return };
            let incoming = half.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).incoming;
            let stream = Stream::new(Socket::Other(Box::new(Duplex::new(incoming, outgoing))));
            front.until_cut(Box::pin(front.clone().beyond(stream, beyond, client))).await;
        }
        None => {}
    }
}

async fn answer(front: &Front, half: &Shared, mut parts: Parts, via: Via, client: Arc<str>) -> Reply {
    let refused = |refusal: &Refusal| Reply::Answer(refusal.response(Shape::Plain, false, None).map(AnswerBody::whole));
    // Until there is an upload, nobody wants the body.
    locked(half).abandoned = true;
    let host = match target::one_authority(&parts.uri, &parts.headers) {
        Ok(host) => host,
        Err(refusal) => return refused(&refusal),
    };
    if parts.method == Method::CONNECT && matches!(via, Via::Proxy) {
        let authority = parts.uri.authority().map_or_else(String::new, ToString::to_string);
        return match front.connect(&authority, &parts.headers).await {
            Ok(beyond) => Reply::Tunnel(beyond),
            Err(refusal) => refused(&refusal),
        };
    }
    match host {
        Some(host) => parts.headers.insert(HOST, host),
        None => return refused(&target::no_host()),
    };
    // A proxy's client sends the whole of it, every other a path.
    let target = if matches!(via, Via::Proxy) {
        parts.uri.to_string()
    } else {
        parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
    };
    let (target, path) = match target::destination(target, &parts.headers, &via, &front.kind) {
        Ok(found) => found,
        Err(refusal) => return refused(&refusal),
    };
    let size = locked(half).left.map_or(BodySize::Unknown, BodySize::Known);
    let head =
        RequestHead { entry: via.entry(), method: parts.method, target, path, headers: parts.headers, body: size, client, malformed: None };
    let inbound = if size == BodySize::Known(0) {
        Inbound::Whole(Bytes::new())
    } else {
        locked(half).abandoned = false;
        Inbound::Other(Upload(Arc::clone(half)).boxed_unsync())
    };
    let mut informed = |status: StatusCode, headers: &HeaderMap| {
        let _ = locked(half).respond.send_informational(informational(status, headers));
    };
    Reply::Answer(front.exchange(head, inbound, Listener { informed: Some(&mut informed) }).await.response)
}

/// What content-length says, where it says one thing.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let first = values.next()?;
    if !first.as_bytes().iter().all(u8::is_ascii_digit) || values.any(|value| value != first) {
        return None;
    }
    first.to_str().ok()?.parse().ok()
}

/// Sends an answer, then takes what is left of the request.
async fn deliver(front: &Front, half: &Shared, busy: &Arc<Busy>, response: Response<AnswerBody>, is_head: bool) {
    let timeouts = &front.shared.config.load_full().settings.timeouts;
    let patience = LINGER.min(timeouts.idle);
    let mut rest = Rest { half, bytes: 0, moved: None, alarm: Alarm::default(), patience, widened: None };
    let mut widened = None;
    let sent = {
        let mut sending = pin!(send(front, half, busy, response, is_head, &mut widened));
        let mut taken = false;
        std::future::poll_fn(|context| {
            // The client may have to send on before it reads.
            taken = taken || rest.poll(context).is_ready();
            sending.as_mut().poll(context)
        })
        .await
    };
    if sent.is_err() {
        return;
    }
    // Dropped before the request's end, the stream is reset with NO_ERROR (RFC 9113, section 8.1): the answer is complete. Some clients
    // that have not sent all by then take it for lost.
    rest.moved = Some(Instant::now());
    rest.widened = widened.map(|widened| (widened, Instant::now() + LINGER, Alarm::default()));
    let mut ending = front.native.ending.subscribe();
    tokio::select! {
        () = std::future::poll_fn(|context| rest.poll(context)) => {}
        () = at_least(&mut ending, Ending::Draining) => {}
    }
}

/// What is left of a request that was answered before its end.
struct Rest<'a> {
    half: &'a Shared,
    /// Taken so far.
    bytes: u64,
    /// When some of it last came. `None`: it is not limited yet.
    moved: Option<Instant>,
    alarm: Alarm,
    patience: Duration,
    /// What the client was granted for it, and until when at most.
    widened: Option<(Widened, Instant, Alarm)>,
}

impl Rest<'_> {
    /// Takes it, for nothing. Ready at its end, or when the client has had its time.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut half = locked(self.half);
        if !half.abandoned {
            half.waits = Some(context.waker().clone());
            return Poll::Pending;
        }
        while let Poll::Ready(data) = half.poll_data(context) {
            let Some(Ok(data)) = data else { return Poll::Ready(()) };
            self.bytes += data.len() as u64;
            self.moved = self.moved.map(|_| Instant::now());
            if self.bytes > u64::from(MOST_REST) {
                return Poll::Ready(());
            }
        }
        let Some(moved) = self.moved else { return Poll::Pending };
        if let Some((_, end, quiet)) = &mut self.widened
            && quiet.poll(context, (moved + QUIET).min(*end)).is_ready()
        {
            self.widened = None;
        }
        self.alarm.poll(context, moved + self.patience)
    }
}

/// Sends an answer as the client takes it.
async fn send(
    front: &Front,
    half: &Shared,
    busy: &Arc<Busy>,
    response: Response<AnswerBody>,
    is_head: bool,
    widened: &mut Option<Widened>,
) -> Result<(), ()> {
    let (mut parts, mut body) = response.into_parts();
    let bodiless = is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let whole = if bodiless { Some(Bytes::new()) } else { body.take_whole() };
    let length = whole.as_ref().map_or_else(|| body.length(), |whole| Some(whole.len() as u64));
    if let Some(length) = length.filter(|length| *length > 0)
        && !parts.headers.contains_key(CONTENT_LENGTH)
    {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let head = Response::from_parts(parts, ());
    if let Some(whole) = whole {
        drop(body);
        if whole.is_empty() {
            *widened = widen(front, half, busy).await;
            return locked(half).respond.send_response(head, true).map(drop).map_err(drop);
        }
        let mut outgoing = locked(half).respond.send_response(head, false).map_err(drop)?;
        let Some(last) = all_but_the_last(front, &mut outgoing, whole).await? else { return stalled(&mut outgoing, busy).await };
        *widened = widen(front, half, busy).await;
        return outgoing.send_data(last, true).map_err(drop);
    }
    let mut outgoing = locked(half).respond.send_response(head, false).map_err(drop)?;
    loop {
        let frame = std::future::poll_fn(|context| {
            if outgoing.poll_reset(context).is_ready() {
                return Poll::Ready(Err(()));
            }
            Pin::new(&mut body).poll_frame(context).map(Ok)
        });
        let ended = match frame.await?.transpose() {
            // The client must not take it for complete.
            Err(_) => {
                outgoing.send_reset(Reason::INTERNAL_ERROR);
                return Err(());
            }
            Ok(None) => End::Data(Bytes::new()),
            Ok(Some(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() && !body.is_end_stream() => continue,
                Ok(data) => {
                    let is_last = body.is_end_stream();
                    let Some(data) = all_but_the_last(front, &mut outgoing, data).await? else {
                        drop(body);
                        return stalled(&mut outgoing, busy).await;
                    };
                    if is_last {
                        End::Data(data)
                    } else {
                        outgoing.send_data(data, false).map_err(drop)?;
                        continue;
                    }
                }
                Err(frame) => End::Trailers(frame.into_trailers().unwrap_or_default()),
            },
        };
        drop(body);
        *widened = widen(front, half, busy).await;
        return match ended {
            End::Data(data) => outgoing.send_data(data, true),
            End::Trailers(trailers) => {
                outgoing.reserve_capacity(0);
                outgoing.send_trailers(trailers)
            }
        }
        .map_err(drop);
    }
}

/// How an answer ends.
enum End {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Before an answer's end: the client may send on, but read no more.
async fn widen(front: &Front, half: &Shared, busy: &Arc<Busy>) -> Option<Widened> {
    let left = {
        let half = locked(half);
        let more = half.abandoned && !half.data_ended && !half.incoming.is_end_stream() && half.left != Some(0);
        more.then_some(half.left)?
    };
    Widened::new(&front.native, busy, left).await
}

/// Sends data as the client takes it, but for the last piece, for which there is room: nothing is left to the library to wait for.
/// `None`: the client takes nothing for too long.
async fn all_but_the_last(front: &Front, outgoing: &mut SendStream<Bytes>, mut data: Bytes) -> Result<Option<Bytes>, ()> {
    let patience = front.shared.config.load().settings.timeouts.client_write;
    while !data.is_empty() {
        outgoing.reserve_capacity(data.len().min(SEND_BUFFER));
        let Ok(room) = tokio::time::timeout(patience, room(outgoing)).await else {
            front.shared.metrics.slow_clients.with_label_values(&["answer"]).inc();
            return Ok(None);
        };
        let room = room?;
        if room >= data.len() {
            break;
        }
        outgoing.send_data(data.split_to(room), false).map_err(drop)?;
    }
    Ok(Some(data))
}

/// Ready when the client takes more: how much. The error: it never will.
async fn room(outgoing: &mut SendStream<Bytes>) -> Result<usize, ()> {
    std::future::poll_fn(|context| {
        if outgoing.poll_reset(context).is_ready() {
            return Poll::Ready(Err(()));
        }
        while outgoing.capacity() == 0 {
            if !matches!(ready!(outgoing.poll_capacity(context)), Some(Ok(_))) {
                return Poll::Ready(Err(()));
            }
        }
        Poll::Ready(Ok(outgoing.capacity()))
    })
    .await
}

/// A client that takes nothing of an answer for too long sees that it broke off, should it ever go on.
async fn stalled(outgoing: &mut SendStream<Bytes>, busy: &Busy) -> Result<(), ()> {
    let _stalled = Stalled::new(busy);
    room(outgoing).await?;
    outgoing.send_reset(Reason::INTERNAL_ERROR);
    Err(())
}
