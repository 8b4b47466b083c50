//! The driver: carries out the steps of one exchange. The only place where requests meet the network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sigward_gateway::judge::CODE_PREFIX;
use sigward_gateway::{BodyPlan, BodySize, Event, Exchange, Failure, Identities, Keep, Moment, Outgoing, Record, RequestHead, Step};

use crate::Client;
use crate::body::{BodyError, Inbound, Next, Outbound, Progress, Read, SharedInbound, Spool, next_piece, read_up_to};
use crate::connect::{failure_of, pool_uri};
use crate::shared::{Shared, unix_seconds};
use crate::wrap::unwrapped;

/// The body of an answer.
pub type AnswerBody = http_body_util::combinators::UnsyncBoxBody<Bytes, AnswerError>;

/// An answer that broke off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The upstream's connection.
    #[error("the upstream's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// No byte came in time.
    #[error("the upstream sent nothing for {0:?}")]
    Idle(Duration),
}

/// What the client gets.
#[derive(Debug)]
pub struct Answer {
    /// Head and body; hop-by-hop headers are gone.
    pub response: Response<AnswerBody>,
    /// For the operator.
    pub record: Record,
    /// With status 101: the bytes that follow.
    pub upgrade: Option<OnUpgrade>,
}

/// What was read of the body so far.
enum Kept {
    Memory(Bytes),
    Spool(Spool),
}

struct Driver<'a> {
    shared: &'a Shared,
    client: &'a Client,
    exchange: Exchange,
    inbound: Option<SharedInbound>,
    size: BodySize,
    kept: Kept,
    /// What followed what was read whole.
    trailers: Option<HeaderMap>,
    answer: Option<Response<Incoming>>,
    prefix: Bytes,
}

/// Serves one request. Dropping the future stops it at once: nothing more is sent.
pub(crate) async fn drive(shared: &Shared, client: &Client, head: RequestHead, body: Inbound) -> Answer {
    let exchange = Exchange::new(shared.config.load_full(), shared.next_seed());
    let mut driver = Driver {
        shared,
        client,
        exchange,
        size: head.body,
        inbound: Some(Arc::new(std::sync::Mutex::new(body))),
        kept: Kept::Memory(Bytes::new()),
        trailers: None,
        answer: None,
        prefix: Bytes::new(),
    };
    let mut step = driver.tell(Event::Head(head));
    loop {
        step = match step {
            Step::Reply(response) => {
                let (mut head, body) = response.into_parts();
                tell_attempts(&mut head.headers, driver.exchange.record());
                let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
                return Answer { response: Response::from_parts(head, body), record: driver.exchange.into_record(), upgrade: None };
            }
            Step::Deliver => return driver.deliver(),
            other => driver.carry_out(other).await,
        };
    }
}

impl Driver<'_> {
    fn tell(&mut self, event: Event<'_>) -> Step {
        let identities: Arc<Identities> = self.shared.identities.load_full();
        self.exchange.on(event, &self.shared.moment(&identities))
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
            Step::Read { keep: Keep::Spool, .. } => match self.spool().await {
                Ok(step) => step,
                Err(error) => self.tell(Event::Failed(error.failure())),
            },
            Step::Wait { until } => {
                tokio::time::sleep_until((self.shared.started + until).into()).await;
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
                    tokio::time::timeout_at(until.into(), ticket).await.is_ok()
                } else {
                    ticket.await;
                    true
                };
                self.tell(Event::Paced { granted })
            }
            Step::Refresh { identity, after } => {
                let patience = self.exchange.config().settings.timeouts.credentials;
                self.shared.wait_for_credentials(&identity, after, patience).await;
                self.tell(Event::Refreshed)
            }
            Step::Send(outgoing) => {
                // What is left of the last answer goes first: its connection is not worth waiting for.
                self.answer = None;
                self.prefix = Bytes::new();
                self.send(*outgoing).await
            }
            Step::ReadCode { limit } => {
                self.prefix = self.read_code(limit).await;
                let prefix = self.prefix.clone();
                self.tell(Event::ResponseBody { prefix: &prefix })
            }
            Step::Reply(_) | Step::Deliver => step,
        }
    }

    async fn hold(&mut self, limit: u64) -> Step {
        let idle = self.exchange.config().settings.timeouts.idle;
        let Some(mut body) = self.take_inbound() else { return self.tell(Event::Body { bytes: b"", last: true, trailers: None }) };
        let read = read_up_to(&mut body, limit, idle).await;
        self.put_back(body);
        match read {
            Ok(Read { bytes, last, trailers }) => {
                self.kept = Kept::Memory(bytes.clone());
                if last {
                    self.size = BodySize::Known(bytes.len() as u64);
                }
                self.trailers.clone_from(&trailers);
                self.tell(Event::Body { bytes: &bytes, last, trailers: trailers.as_ref() })
            }
            Err(error) => self.tell(Event::Failed(error.failure())),
        }
    }

    async fn spool(&mut self) -> Result<Step, BodyError> {
        let settings = &self.exchange.config().settings;
        let idle = settings.timeouts.idle;
        let mut spool = Spool::create(settings.body.spool_dir.as_deref()).await?;
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
            let step = self.tell(Event::Body { bytes: &piece, last, trailers: trailers.as_ref() });
            spool.append(piece).await?;
            if !matches!(step, Step::Read { keep: Keep::Spool, .. }) {
                break step;
            }
        };
        self.put_back(body);
        self.kept = Kept::Spool(spool);
        Ok(step)
    }

    fn take_inbound(&mut self) -> Option<Inbound> {
        let shared = self.inbound.take()?;
        Arc::into_inner(shared).map(|mutex| mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn put_back(&mut self, body: Inbound) {
        self.inbound = Some(Arc::new(std::sync::Mutex::new(body)));
    }

    async fn send(&mut self, outgoing: Outgoing) -> Step {
        let progress = Progress::new();
        if let Some(edited) = outgoing.edited {
            self.kept = Kept::Memory(edited);
        }
        let body = match (outgoing.body, &self.kept) {
            (BodyPlan::Empty, _) => Outbound::empty(Arc::clone(&progress)),
            (BodyPlan::Kept, Kept::Memory(bytes)) => Outbound::held(bytes.clone(), Arc::clone(&progress)),
            (BodyPlan::Kept, Kept::Spool(spool)) => Outbound::spooled(spool.clone(), Arc::clone(&progress)),
            (BodyPlan::Stream, kept) => {
                let first = if let Kept::Memory(bytes) = kept { bytes.clone() } else { Bytes::new() };
                let length = if let BodySize::Known(length) = self.size { Some(length) } else { None };
                match &self.inbound {
                    Some(rest) => Outbound::stream(first, Arc::clone(rest), length, Arc::clone(&progress)),
                    None => Outbound::held(first, Arc::clone(&progress)),
                }
            }
        };
        let body = match outgoing.wrap {
            Some(wrap) => body.wrapped(wrap, self.trailers.clone()),
            None => body,
        };
        let uri = match pool_uri(&outgoing.upstream, &outgoing.path) {
            Ok(uri) => uri,
            Err(why) => return self.tell(Event::Failed(Failure::Body(format!("its target is not one that can be sent: {why}")))),
        };
        let mut request = Request::new(body);
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = outgoing.headers;
        if let Some(upgrade) = outgoing.upgrade {
            request.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, upgrade);
        }
        let failure = tokio::select! {
            biased;
            result = self.client.request(request) => match result {
                Ok(response) => {
                    let (status, headers) = (response.status().as_u16(), response.headers().clone());
                    self.answer = Some(response);
                    return self.tell(Event::Response { status, headers: &headers });
                }
                Err(error) => failure_of(&error),
            },
            () = self.out_of_time(&progress) => Failure::HeadTimeout,
        };
        self.tell(Event::Failed(failure))
    }

    /// Ends when the attempt has lasted too long: idle while the request is on its way, then the head's time-out, and the total.
    async fn out_of_time(&self, progress: &Progress) {
        let timeouts = &self.exchange.config().settings.timeouts;
        let total = self.exchange.deadline().map(|deadline| self.shared.started + deadline);
        // A connection that is being made has its own time-out; until the first byte moves, it counts too.
        let idle = timeouts.idle + timeouts.connect;
        loop {
            let deadline = progress.deadline(idle, timeouts.head);
            let deadline = total.map_or(deadline, |total| total.min(deadline));
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep_until(deadline.into()).await;
        }
    }

    async fn read_code(&mut self, limit: usize) -> Bytes {
        let idle = self.exchange.config().settings.timeouts.idle;
        let Some(answer) = self.answer.as_mut() else { return Bytes::new() };
        let mut prefix = BytesMut::new();
        while prefix.len() < limit.min(CODE_PREFIX) {
            match tokio::time::timeout(idle, answer.body_mut().frame()).await {
                Ok(Some(Ok(frame))) => prefix.extend(frame.into_data().ok()),
                _ => break,
            }
        }
        prefix.freeze()
    }

    fn deliver(mut self) -> Answer {
        let idle = self.exchange.config().settings.timeouts.idle;
        let Some(mut answer) = self.answer.take() else {
            let mut response = Response::new(
                Full::new(Bytes::from_static(b"sigward: no answer to deliver\n")).map_err(|never| match never {}).boxed_unsync(),
            );
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.headers_mut().insert("x-sigward-error", http::HeaderValue::from_static("internal"));
            return Answer { response, record: self.exchange.into_record(), upgrade: None };
        };
        let upgrade = (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
        let (mut head, body) = answer.into_parts();
        if upgrade.is_none() {
            sigward_gateway::admit::remove_hop_by_hop(&mut head.headers);
        }
        tell_attempts(&mut head.headers, self.exchange.record());
        let body = answer_body(self.prefix, body, idle);
        Answer { response: Response::from_parts(head, body), record: self.exchange.into_record(), upgrade }
    }
}

/// How often it was tried, for the client to see; nothing for what was never sent.
fn tell_attempts(headers: &mut http::HeaderMap, record: &Record) {
    let attempts = record.attempts.len();
    if attempts > 0 {
        headers.insert("x-sigward-attempts", http::HeaderValue::from(attempts));
    }
}

/// What was read for its code comes first; then each frame must come within `idle`.
fn answer_body(prefix: Bytes, body: Incoming, idle: Duration) -> AnswerBody {
    if prefix.is_empty() && body.is_end_stream() {
        return http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let first = Some(prefix).filter(|prefix| !prefix.is_empty());
    let frames = futures_util::stream::unfold((first, body), move |(mut first, mut body)| async move {
        if let Some(first) = first.take() {
            return Some((Ok(Frame::data(first)), (None, body)));
        }
        match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => None,
            Ok(Some(frame)) => Some((frame.map_err(AnswerError::from), (None, body))),
            Err(_) => Some((Err(AnswerError::Idle(idle)), (None, body))),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Shared {
    fn moment<'a>(&self, identities: &'a Identities) -> Moment<'a> {
        Moment { unix_seconds: unix_seconds(), since_start: self.started.elapsed(), identities }
    }
}
