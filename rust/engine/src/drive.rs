//! The driver: carries out the steps of one exchange. The only place where requests meet the network.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use sigward_gateway::admit::{remove_hop_by_hop, remove_own};
use sigward_gateway::judge::CODE_PREFIX;
use sigward_gateway::settings::Http2;
use sigward_gateway::{
    BodyPlan, BodySize, Event, Exchange, Failure, Identities, Keep, Load, Moment, Outgoing, Record, Refusal, RequestHead, Shape, Step,
    Upstream, Wrap,
};
use tokio::time::Instant;

use crate::body::{BodyError, Inbound, Next, Outbound, Progress, Read, SharedInbound, Spool, Spooling, next_piece, read_up_to};
pub use crate::h1::client::AnswerBody;
use crate::h1::client::{Request as Http1Request, Waits, exchange};
use crate::job::UnderWay;
use crate::lines::Written;
use crate::net::Stream;
use crate::pool::{Pool, Way};
use crate::shared::{Held, Shared};
use crate::system::unix_seconds;
use crate::wrap::unwrapped;

/// An answer that broke off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The upstream's connection.
    #[error("the upstream's answer broke off: {0}")]
    Broken(String),
    /// No byte came in time.
    #[error("the upstream sent nothing for {0:?}")]
    Idle(Duration),
}

/// What the client gets.
pub struct Answer {
    /// Head and body; hop-by-hop headers are gone.
    pub response: Response<AnswerBody>,
    /// For the operator.
    pub record: Record,
    /// With status 101: the bytes that follow.
    pub(crate) upgrade: Option<Box<Stream>>,
}

/// Told of each informational answer (1xx) that comes before the answer.
pub(crate) type Informed<'a> = &'a mut (dyn FnMut(StatusCode, &HeaderMap) + Send);

/// What a front hears of a request before its answer.
#[derive(Default)]
pub(crate) struct Listener<'a> {
    /// Each 1xx.
    pub(crate) informed: Option<Informed<'a>>,
}

/// What was read of the body so far.
enum Kept {
    Memory(Bytes),
    Spool(Spool),
}

/// Of the front's body, what has not been read.
enum Rest {
    /// Nothing, or it is being read.
    Gone,
    Here(Inbound),
    /// An attempt streams it.
    Shared(SharedInbound),
}

struct Driver<'a> {
    shared: &'a Arc<Shared>,
    pool: &'a Arc<Pool>,
    exchange: Exchange,
    inbound: Rest,
    size: BodySize,
    kept: Kept,
    /// Its part of what may be held in memory.
    held: Option<Held>,
    /// What followed what was read whole.
    trailers: Option<HeaderMap>,
    answer: Option<Response<AnswerBody>>,
    prefix: Bytes,
    listener: Listener<'a>,
    /// What is told of it.
    under_way: &'a mut UnderWay,
    answered: bool,
    /// When the last event was.
    clock: Clock,
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.under_way.leave(self.exchange.give_up(self.shared.started.elapsed()));
        }
    }
}

/// Serves one request. Dropping the future stops it at once: nothing more is sent. `shows_head`: the record is to hold what was sent.
pub(crate) async fn drive<'a>(
    shared: &'a Arc<Shared>,
    pool: &'a Arc<Pool>,
    head: RequestHead,
    body: Inbound,
    listener: Listener<'a>,
    shows_head: bool,
    under_way: &'a mut UnderWay,
) -> Answer {
    let mut exchange = Exchange::new(shared.config.load_full(), shared.next_seed()).through(&shared.hop);
    if shows_head {
        exchange = exchange.showing_head();
    }
    if let Some(onward) = under_way.onward() {
        exchange = exchange.tracing(onward);
    }
    let mut driver = Driver {
        shared,
        pool,
        exchange,
        size: head.body,
        inbound: Rest::Here(body),
        kept: Kept::Memory(Bytes::new()),
        held: None,
        trailers: None,
        answer: None,
        prefix: Bytes::new(),
        listener,
        under_way,
        answered: false,
        clock: shared.clock(),
    };
    let load = driver.load();
    let mut step = driver.tell_then(Event::Head { head, load });
    loop {
        step = match step {
            Step::Reply(response) => {
                let (mut head, body) = response.into_parts();
                tell_attempts(&mut head.headers, driver.exchange.record());
                let response = Response::from_parts(head, AnswerBody::whole(body));
                driver.answered = true;
                return Answer { response, record: driver.exchange.take_record(), upgrade: None };
            }
            Step::Deliver => {
                driver.answered = true;
                return driver.deliver();
            }
            other => driver.carry_out(other).await,
        };
    }
}

impl Driver<'_> {
    fn tell(&mut self, event: Event<'_>) -> Step {
        self.clock = self.shared.clock();
        self.tell_then(event)
    }

    /// At the time of the event before, which has only just been.
    fn tell_then(&mut self, event: Event<'_>) -> Step {
        let identities = self.shared.identities.load();
        self.exchange.on(event, &self.clock.moment(&identities))
    }

    async fn carry_out(&mut self, step: Step) -> Step {
        match step {
            Step::Unwrap { length, decoder } => {
                if let Some(body) = self.take_inbound() {
                    self.put_back(unwrapped(body, length, *decoder));
                }
                self.size = length.map_or(BodySize::Unknown, BodySize::Known);
                self.tell(Event::Unwrapped)
            }
            Step::Read { limit, keep: Keep::Memory } => self.hold(limit).await,
            Step::Read { keep: Keep::Spool, .. } => match Box::pin(self.spool()).await {
                Ok(step) => step,
                Err(error) => self.tell(Event::Failed(error.failure())),
            },
            Step::Wait { until } => {
                tokio::time::sleep_until(self.shared.started + until).await;
                self.answer = None;
                self.tell(Event::Elapsed)
            }
            Step::Pace { ticket, until } => {
                self.answer = None;
                self.shared.queued.notify_one();
                if ticket.is_unleased() {
                    self.shared.unleased.notify_one();
                }
                let granted = if let Some(until) = self.shared.started.checked_add(until) {
                    tokio::time::timeout_at(until, ticket).await.is_ok()
                } else {
                    ticket.await;
                    true
                };
                self.tell(Event::Paced { granted })
            }
            Step::Refresh { identity, after } => {
                let patience = self.exchange.config().settings.timeouts.credentials;
                let left = self.exchange.deadline().map(|deadline| deadline.saturating_sub(self.shared.started.elapsed()));
                let patience = left.map_or(patience, |left| patience.min(left));
                Box::pin(self.shared.wait_for_credentials(&identity, after, patience)).await;
                self.tell(Event::Refreshed)
            }
            Step::Send(outgoing) => {
                if let Some(line) = self.under_way.begins(&self.exchange.config().settings, self.exchange.record())
                    && let written = Box::pin(self.shared.audit.write(line, self.until())).await
                    && written != Written::Yes
                {
                    self.under_way.did_not_begin(written);
                    return self.tell(Event::Unlogged);
                }
                // What is left of the last answer goes first: its connection is not worth waiting for.
                self.answer = None;
                self.prefix = Bytes::new();
                self.send(*outgoing).await
            }
            Step::ReadCode { limit } => {
                Box::pin(self.read_code(limit)).await;
                let prefix = self.prefix.clone();
                self.tell(Event::ResponseBody { prefix: &prefix })
            }
            Step::Reply(_) | Step::Deliver => step,
        }
    }

    /// Itself included.
    fn load(&self) -> Load {
        let settings = &self.exchange.config().settings;
        let in_flight = usize::try_from(self.shared.metrics.in_flight.get()).unwrap_or_default();
        Load { overloaded: in_flight > settings.limits.in_flight, audit_blocked: !self.under_way.can_be_told(settings) }
    }

    async fn hold(&mut self, limit: u64) -> Step {
        let settings = &self.exchange.config().settings;
        let (idle, most) = (settings.timeouts.idle, settings.limits.held_bytes);
        let expected = if let BodySize::Known(length) = self.size { length } else { LIKELY };
        let Some(mut held) = Held::reserve(self.shared, expected.min(limit), most) else {
            return self.tell(Event::NoRoom);
        };
        let Some(mut body) = self.take_inbound() else { return self.tell(Event::Body { bytes: b"", last: true, trailers: None }) };
        let at_once = matches!(body, Inbound::Whole(_));
        let read = read_up_to(&mut body, limit, idle).await;
        self.put_back(body);
        match read {
            Ok(Read { bytes, last, trailers }) => {
                held.settle(bytes.len() as u64);
                self.held = Some(held);
                self.kept = Kept::Memory(bytes.clone());
                if last {
                    self.size = BodySize::Known(bytes.len() as u64);
                }
                self.trailers.clone_from(&trailers);
                let event = Event::Body { bytes: &bytes, last, trailers: trailers.as_ref() };
                if at_once { self.tell_then(event) } else { self.tell(event) }
            }
            Err(error) => self.tell(Event::Failed(error.failure())),
        }
    }

    async fn spool(&mut self) -> Result<Step, BodyError> {
        let settings = &self.exchange.config().settings;
        let idle = settings.timeouts.idle;
        let mut spool = Spooling::begin(settings.body.spool_dir.as_deref(), &self.shared.network.descriptors).await?;
        if let Kept::Memory(held) = &self.kept
            && !held.is_empty()
        {
            spool.append(held.clone()).await?;
        }
        let mut body = self.take_inbound().ok_or_else(|| BodyError::Client("it was read before".into()))?;
        let step = loop {
            let (piece, last) = match next_piece(&mut body, idle).await? {
                Next::Data(piece) => (piece, body.is_end_stream()),
                Next::End(trailers) => {
                    self.trailers = trailers;
                    (Bytes::new(), true)
                }
            };
            let trailers = self.trailers.clone();
            spool.append(piece.clone()).await?;
            let step = self.tell(Event::Body { bytes: &piece, last, trailers: trailers.as_ref() });
            if !matches!(step, Step::Read { keep: Keep::Spool, .. }) {
                break step;
            }
        };
        self.put_back(body);
        self.kept = Kept::Spool(spool.finish().await?);
        Ok(step)
    }

    fn take_inbound(&mut self) -> Option<Inbound> {
        match std::mem::replace(&mut self.inbound, Rest::Gone) {
            Rest::Gone => None,
            Rest::Here(body) => Some(body),
            Rest::Shared(shared) => {
                Arc::into_inner(shared).map(|mutex| mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
            }
        }
    }

    fn put_back(&mut self, body: Inbound) {
        self.inbound = Rest::Here(body);
    }

    /// What has not been read, for an attempt that streams it.
    fn share_inbound(&mut self) -> Option<SharedInbound> {
        let body = match std::mem::replace(&mut self.inbound, Rest::Gone) {
            Rest::Gone => return None,
            Rest::Here(body) => Arc::new(std::sync::Mutex::new(body)),
            Rest::Shared(shared) => shared,
        };
        self.inbound = Rest::Shared(Arc::clone(&body));
        Some(body)
    }

    async fn send(&mut self, outgoing: Outgoing) -> Step {
        if let Some(edited) = outgoing.edited {
            self.kept = Kept::Memory(edited);
        }
        let body = match (outgoing.body, &self.kept) {
            (BodyPlan::Empty, _) => Outbound::empty(),
            (BodyPlan::Kept, Kept::Memory(bytes)) => Outbound::held(bytes.clone()),
            (BodyPlan::Kept, Kept::Spool(spool)) => Outbound::spooled(spool.clone()),
            (BodyPlan::Stream, _) => {
                let first = if let Kept::Memory(bytes) = &self.kept { bytes.clone() } else { Bytes::new() };
                let length = if let BodySize::Known(length) = self.size { Some(length) } else { None };
                match self.share_inbound() {
                    Some(rest) => Outbound::stream(first, rest, length).trailed(outgoing.trailers),
                    None => Outbound::held(first),
                }
            }
        };
        let http2 = match self.exchange.config().settings.egress.http2 {
            Http2::Always => outgoing.upgrade.is_none(),
            Http2::Auto => matches!(outgoing.wrap, Some(Wrap::Events { .. })),
            Http2::Never => false,
        };
        let body = match outgoing.wrap {
            Some(wrap) => body.wrapped(wrap, self.trailers.clone()),
            None => body,
        };
        let mut headers = outgoing.headers;
        if let Some(upgrade) = outgoing.upgrade {
            headers.insert(header::CONNECTION, http::HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade);
        }
        let request = Http1Request { method: outgoing.method, path: outgoing.path, headers, body };
        match self.exchanged(request, &outgoing.upstream, http2).await {
            Ok(mut answer) => {
                remove_own(answer.headers_mut());
                let status = answer.status().as_u16();
                let answer = self.answer.insert(answer);
                self.clock = self.shared.clock();
                let identities = self.shared.identities.load();
                self.exchange.on(Event::Response { status, headers: answer.headers() }, &self.clock.moment(&identities))
            }
            #[cfg(test)]
            Err(Failure::Broken(why)) if crate::simulation::sabotaged(crate::simulation::Sabotage::RepeatsAll) => {
                self.tell(Event::Failed(Failure::Connect(why)))
            }
            Err(failure) => self.tell(Event::Failed(failure)),
        }
    }

    /// One attempt, on a connection that waits for one or on a new one.
    async fn exchanged(&mut self, request: Http1Request, upstream: &Arc<Upstream>, http2: bool) -> Result<Response<AnswerBody>, Failure> {
        let timeouts = &self.exchange.config().settings.timeouts;
        let until = self.until();
        let waits = Waits { idle: timeouts.idle, head: timeouts.head, until };
        let mut request = request;
        // A target that HTTP/2's library does not take goes as it always went.
        let mut http2 = http2 && PathAndQuery::try_from(request.path.as_str()).is_ok();
        let mut way = in_time(until, self.pool.way(upstream, http2)).await?;
        while let Way::Http2(sender) = way {
            match Box::pin(over_http2(sender, request, upstream, waits)).await {
                Ok(response) => return Ok(response),
                Err(Unanswered::Failed(failure)) => return Err(failure),
                // The connection was ending, and nothing of it went out.
                Err(Unanswered::Unsent(again)) if http2 => request = *again,
                Err(Unanswered::Unsent(_)) => {
                    return Err(Failure::Connect("connections of HTTP/2 are closed as soon as they are made".into()));
                }
            }
            http2 = false;
            way = in_time(until, self.pool.way(upstream, true)).await?;
        }
        match way {
            Way::Http2(_) => Err(Failure::Internal("no way".into())),
            Way::Http1(connection, place) => {
                let informed = self.listener.informed.as_mut().map(|informed| &mut **informed as Informed<'_>);
                let answer = exchange(connection, request, waits, place, informed).await?;
                let mut response = Response::new(answer.body);
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                Ok(response)
            }
        }
    }

    /// What comes of it in time is enough.
    async fn read_code(&mut self, limit: usize) {
        let until = self.until();
        let Some(answer) = self.answer.as_mut() else { return };
        if answer.body().length().is_some_and(|length| length <= limit as u64)
            && let Some(whole) = answer.body_mut().take_whole()
        {
            self.prefix = whole;
            return;
        }
        let mut prefix = BytesMut::new();
        while prefix.len() < limit.min(CODE_PREFIX) {
            let frame = answer.body_mut().frame();
            let frame = match until {
                Some(until) => tokio::time::timeout_at(until, frame).await.ok().flatten(),
                None => frame.await,
            };
            match frame {
                Some(Ok(frame)) => prefix.extend(frame.into_data().ok()),
                Some(Err(error)) => {
                    answer.body_mut().break_off(error);
                    break;
                }
                None => break,
            }
        }
        self.prefix = prefix.freeze();
    }

    /// When all must be over.
    fn until(&self) -> Option<Instant> {
        self.exchange.deadline().and_then(|deadline| self.shared.started.checked_add(deadline))
    }

    fn deliver(&mut self) -> Answer {
        let Some(answer) = self.answer.take() else {
            let refusal = Refusal::sigward(500, "internal", "there is no answer to deliver.", "This is a bug in sigward: see its log.");
            let response = refusal.response(Shape::Plain, false, None).map(AnswerBody::whole);
            return Answer { response, record: self.exchange.take_record(), upgrade: None };
        };
        let (mut head, mut body) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = body.into_stream().map(Box::new);
            tell_attempts(&mut head.headers, self.exchange.record());
            return Answer { response: Response::from_parts(head, AnswerBody::empty()), record: self.exchange.take_record(), upgrade };
        }
        remove_hop_by_hop(&mut head.headers);
        self.exchange.localize(&mut head.headers);
        tell_attempts(&mut head.headers, self.exchange.record());
        body.put_back(std::mem::take(&mut self.prefix));
        Answer { response: Response::from_parts(head, body), record: self.exchange.take_record(), upgrade: None }
    }
}

/// A body of unknown length takes so much of what may be held, until it is known.
const LIKELY: u64 = 64 << 10;

async fn in_time<T>(until: Option<Instant>, way: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match until {
        Some(until) => tokio::time::timeout_at(until, way).await.unwrap_or(Err(Failure::HeadTimeout)),
        None => way.await,
    }
}

/// Why a stream brought no answer.
enum Unanswered {
    Failed(Failure),
    /// The connection takes no more streams: the request as it was.
    Unsent(Box<Http1Request>),
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One stream of a connection that many requests share.
async fn over_http2(
    mut sender: SendRequest<Outbound>,
    request: Http1Request,
    upstream: &Upstream,
    waits: Waits,
) -> Result<Response<AnswerBody>, Unanswered> {
    let progress = Progress::new();
    let Http1Request { method, path, mut headers, body } = request;
    // What is signed as Host goes out as :authority.
    let host = headers.remove(header::HOST);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).map_or_else(|| upstream.target.authority(), str::to_owned);
    let authority: Authority = authority.parse().map_err(|_| Failure::Body("its host cannot be sent".into()))?;
    let uri = Uri::builder().scheme(UriScheme::HTTPS).authority(authority).path_and_query(path).build();
    let uri = uri.map_err(|why| Failure::Body(format!("its target is not one that can be sent: {why}")))?;
    let mut sent = Request::new(body.watched(Arc::clone(&progress)));
    *sent.method_mut() = method;
    *sent.uri_mut() = uri;
    *sent.headers_mut() = headers;
    tokio::select! {
        biased;
        answered = sender.try_send_request(sent) => match answered {
            Ok(response) => Ok(response.map(|incoming| AnswerBody::http2(incoming, waits.idle))),
            Err(mut error) => Err(match error.take_message() {
                Some(unsent) => Unanswered::Unsent(Box::new(as_it_was(unsent, host))),
                // A body that fails resets its stream, and the error says no more than that.
                None => progress.failure().unwrap_or_else(|| failure_of(error.error())).into(),
            }),
        },
        () = out_of_time(&progress, waits) => Err(Failure::HeadTimeout.into()),
    }
}

fn as_it_was(request: Request<Outbound>, host: Option<http::HeaderValue>) -> Http1Request {
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    let path = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Http1Request { method: parts.method, path, headers, body }
}

/// What went wrong, from the chain of causes.
fn failure_of(error: &hyper::Error) -> Failure {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut why = error.to_string();
    while let Some(cause) = next {
        if let Some(body) = cause.downcast_ref::<BodyError>() {
            return body.failure();
        }
        why = cause.to_string();
        // The upstream says that it did nothing of it (RFC 9113, sections 6.8 and 8.7).
        if cause.downcast_ref().is_some_and(is_refused) {
            return Failure::Connect(why);
        }
        next = cause.source();
    }
    if error.is_canceled() { Failure::Connect(why) } else { Failure::Broken(why) }
}

fn is_refused(error: &h2::Error) -> bool {
    let beyond_the_last = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.reason() == Some(h2::Reason::REFUSED_STREAM) || beyond_the_last
}

/// Ends when the attempt has lasted too long: idle while the request is on its way, then the head's time-out, and the total.
async fn out_of_time(progress: &Progress, waits: Waits) {
    loop {
        let deadline = progress.deadline(waits.idle, waits.head);
        let deadline = waits.until.map_or(deadline, |until| until.min(deadline));
        if Instant::now() >= deadline {
            return;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline) => {}
            () = progress.completed() => {}
        }
    }
}

const ATTEMPTS: http::HeaderName = http::HeaderName::from_static("x-sigward-attempts");

/// How often it was tried, for the client to see; nothing for what was never sent.
fn tell_attempts(headers: &mut http::HeaderMap, record: &Record) {
    let attempts = record.attempts.len();
    if attempts > 0 {
        headers.insert(ATTEMPTS, if attempts == 1 { http::HeaderValue::from_static("1") } else { http::HeaderValue::from(attempts) });
    }
}

/// Both clocks, at one time.
#[derive(Clone, Copy)]
struct Clock {
    unix_seconds: u64,
    since_start: Duration,
}

impl Clock {
    fn moment<'a>(&self, identities: &'a Identities) -> Moment<'a> {
        Moment { unix_seconds: self.unix_seconds, since_start: self.since_start, identities }
    }
}

impl Shared {
    fn clock(&self) -> Clock {
        Clock { unix_seconds: unix_seconds(), since_start: self.started.elapsed() }
    }
}
