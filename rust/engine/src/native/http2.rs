//! The client half of HTTP/2, by hyper.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sigward_gateway::{BodySize, Refusal, RequestHead, Shape};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Ending, Front, Via, at_least};
use crate::body::{BodyError, Inbound};
use crate::drive::{AnswerBody, AnswerError, Listener};
use crate::net::{Socket, Stream};

/// Serves a connection to its end.
pub(crate) async fn serve(front: Front, stream: Stream, via: Via, client: Arc<str>) {
    let config = front.shared.config.load_full();
    let limits = &config.settings.limits;
    let mut ending = front.native.ending.subscribe();
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes + limits.target_bytes + 64 * limits.headers).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Some(config.settings.timeouts.client_head));
    let busy = Arc::new(Busy::default());
    let unused = unused(front.clone(), Arc::clone(&busy));
    let service = service_fn(move |request| {
        let (front, via, client) = (front.clone(), via.clone(), Arc::clone(&client));
        let open = Open::new(&busy);
        async move { Ok::<_, Infallible>(answer(front, request, via, client, open).await) }
    });
    let back = Arc::new(Mutex::new(None));
    let lent = Lent { stream: Some(stream), back: Arc::clone(&back) };
    let broken = {
        let mut connection = pin!(builder.serve_connection(TokioIo::new(lent), service));
        let why = tokio::select! {
            biased;
            ended = connection.as_mut() => Err(ended.is_err()),
            () = at_least(&mut ending, Ending::Draining) => Ok(Unused::Idle),
            unused = unused => Ok(unused),
        };
        match why {
            Err(broken) => broken,
            Ok(Unused::Idle) => {
                connection.as_mut().graceful_shutdown();
                connection.await.is_err()
            }
            Ok(Unused::Stalled) => false,
        }
    };
    // A client that has broken a rule may be sending on, and is to see the GOAWAY that says so.
    let stream = back.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut stream) = stream.filter(|_| broken) {
        // hyper has said all, but it may have closed nothing.
        let mut said = false;
        let lingering = std::future::poll_fn(|context| stream.poll_linger(context, &mut said));
        let _ = tokio::time::timeout(LINGER, lingering).await;
    }
}

/// A client that still sends gets so long to see why its connection ends.
const LINGER: Duration = Duration::from_secs(5);

/// A stream that comes back when hyper is done with it.
struct Lent {
    stream: Option<Stream>,
    back: Arc<Mutex<Option<Stream>>>,
}

impl Lent {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut Stream>> {
        // It is there until `drop`.
        self.get_mut().stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Lent {
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

/// What is under way on one connection.
#[derive(Default)]
struct Busy {
    /// Requests, answers and tunnels.
    open: AtomicUsize,
    /// When the last of them ended.
    since: Mutex<Option<Instant>>,
    /// Answers that the client has not taken whole, by number.
    leaving: Mutex<HashMap<u64, Arc<Mutex<Passing>>>>,
    numbers: AtomicU64,
}

/// One of what is under way.
struct Open(Arc<Busy>);

impl Open {
    fn new(busy: &Arc<Busy>) -> Self {
        busy.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            *locked(&self.0.since) = Some(Instant::now());
        }
    }
}

/// Why a connection is not kept.
enum Unused {
    /// Nothing was asked for so long.
    Idle,
    /// Of no answer on it anything is taken any more.
    Stalled,
}

/// Ready when a connection is no more of use. On the way, answers that the client takes nothing of let go of their upstreams.
async fn unused(front: Front, busy: Arc<Busy>) -> Unused {
    let began = Instant::now();
    loop {
        let config = front.shared.config.load_full();
        let timeouts = &config.settings.timeouts;
        let pause = (timeouts.client_write / 2).min(timeouts.client_idle / 2).clamp(SHORTEST_LOOK, LONGEST_LOOK);
        tokio::time::sleep(pause).await;
        let open = busy.open.load(Ordering::Relaxed);
        if open == 0 {
            if locked(&busy.since).unwrap_or(began).elapsed() >= timeouts.client_idle {
                return Unused::Idle;
            }
            continue;
        }
        let mut stalled = 0;
        for passing in locked(&busy.leaving).values() {
            let mut passing = locked(passing);
            if passing.offered.is_some_and(|since| since.elapsed() >= timeouts.client_write) && passing.body.take().is_some() {
                front.shared.metrics.slow_clients.with_label_values(&["answer"]).inc();
            }
            stalled += usize::from(passing.body.is_none());
        }
        if stalled == open {
            return Unused::Stalled;
        }
    }
}

const SHORTEST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that is not with the client yet.
struct Passing {
    /// `None`: the client took nothing of it for too long.
    body: Option<AnswerBody>,
    /// Since when the client could take more. `None`: the upstream has nothing.
    offered: Option<Instant>,
}

/// What hyper gets of an answer.
enum Leaving {
    /// All of it is here: no upstream waits for the client.
    Whole(AnswerBody, #[allow(dead_code, reason = "counts")] Open),
    Passing {
        passing: Arc<Mutex<Passing>>,
        number: u64,
        open: Open,
    },
}

impl Leaving {
    fn new(mut body: AnswerBody, open: Open) -> Self {
        if let Some(whole) = body.take_whole() {
            return Self::Whole(AnswerBody::whole(whole), open);
        }
        let passing = Arc::new(Mutex::new(Passing { body: Some(body), offered: Some(Instant::now()) }));
        let number = open.0.numbers.fetch_add(1, Ordering::Relaxed);
        locked(&open.0.leaving).insert(number, Arc::clone(&passing));
        Self::Passing { passing, number, open }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Self::Passing { number, open, .. } = self {
            locked(&open.0.leaving).remove(number);
        }
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Whole(body, _) => Pin::new(body).poll_frame(context),
            Self::Passing { passing, .. } => {
                let mut passing = locked(passing);
                let Some(body) = &mut passing.body else {
                    return Poll::Ready(Some(Err(AnswerError::Broken("the client took nothing of it for too long".into()))));
                };
                let polled = Pin::new(body).poll_frame(context);
                passing.offered = matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body, _) => body.is_end_stream(),
            Self::Passing { passing, .. } => locked(passing).body.as_ref().is_some_and(http_body::Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body, _) => body.size_hint(),
            Self::Passing { passing, .. } => locked(passing).body.as_ref().map(http_body::Body::size_hint).unwrap_or_default(),
        }
    }
}

type Reply = Response<Leaving>;

async fn answer(front: Front, mut request: Request<Incoming>, via: Via, client: Arc<str>, open: Open) -> Reply {
    let host = match super::target::one_authority(request.uri(), request.headers()) {
        Ok(host) => host,
        Err(refusal) => return refused(&refusal, open),
    };
    if request.method() == Method::CONNECT && matches!(via, Via::Proxy) {
        let authority = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let beyond = match front.connect(&authority, request.headers()).await {
            Ok(beyond) => beyond,
            Err(refusal) => return refused(&refusal, open),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let again = front.clone();
        let tunnel = Open::new(&open.0);
        tokio::spawn(async move {
            let (_counted, _tunnel) = (front.counted(), tunnel);
            if let Ok(upgraded) = upgrade.await {
                let stream = Stream::new(Socket::Other(Box::new(TokioIo::new(upgraded))));
                again.until_cut(Box::pin(again.clone().beyond(stream, beyond, client))).await;
            }
        });
        return Response::new(Leaving::new(AnswerBody::empty(), open));
    }
    let (mut parts, body) = request.into_parts();
    match host {
        Some(host) => parts.headers.insert(HOST, host),
        None => return refused(&super::target::no_host(), open),
    };
    // A proxy's client sends the whole of it, every other a path.
    let target = if matches!(via, Via::Proxy) {
        parts.uri.to_string()
    } else {
        parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
    };
    let (target, path) = match super::target::destination(target, &parts.headers, &via, &front.kind) {
        Ok(found) => found,
        Err(refusal) => return refused(&refusal, open),
    };
    let size = match body.size_hint().exact() {
        Some(length) => BodySize::Known(length),
        None if body.is_end_stream() => BodySize::Known(0),
        None => BodySize::Unknown,
    };
    let head =
        RequestHead { entry: via.entry(), method: parts.method, target, path, headers: parts.headers, body: size, client, malformed: None };
    let inbound = if size == BodySize::Known(0) {
        Inbound::Whole(Bytes::new())
    } else {
        Inbound::Other(body.map_err(|error| BodyError::Client(error.to_string())).boxed_unsync())
    };
    front.exchange(head, inbound, Listener::default()).await.response.map(|body| Leaving::new(body, open))
}

fn refused(refusal: &Refusal, open: Open) -> Reply {
    refusal.response(Shape::Plain, false, None).map(|body| Leaving::new(AnswerBody::whole(body), open))
}
