//! One request of a front that talks by messages: its upload queue, its download credit, and the task that serves it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use sigward_gateway::exchange::Onward;
use sigward_gateway::settings::EngineSettings;
use sigward_gateway::{Disposition, Record, RequestHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access;
use crate::allowance::{Allowance, Credit, Queued};
use crate::audit;
use crate::body::{BodyError, Inbound};
use crate::drive::{Answer, AnswerBody, Listener, drive};
use crate::lines::{Line, Written, request_id};
use crate::net::Stream;
use crate::otlp::Trace;
use crate::outbox::OutboxEvent;
use crate::pool::Pool;
use crate::shared::Shared;

/// Less than this in a full upload queue: the front may go on.
const LOW_WATER: usize = 256 << 10;
/// An answer of known length up to this is told in one message.
const WHOLE: u64 = 64 << 10;

#[derive(Debug)]
struct Queue {
    pieces: VecDeque<Bytes>,
    queued: Queued,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The front was told to stop.
    full: bool,
    waker: Option<Waker>,
}

impl Queue {
    fn new(queued: Queued) -> Self {
        Self { pieces: VecDeque::new(), queued, trailers: None, ended: false, full: false, waker: None }
    }
}

/// What the front holds of a job.
#[derive(Clone, Debug)]
pub struct Job {
    id: u64,
    queue: Arc<Mutex<Queue>>,
    credit: Arc<Credit>,
    abort: tokio::task::AbortHandle,
}

impl Job {
    /// Its number, in events.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Queues a piece. False: stop until `Writable`.
    pub fn send(&self, piece: Bytes) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.ended && !piece.is_empty() {
            queue.full |= queue.queued.add(piece.len());
            queue.pieces.push_back(piece);
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        !queue.full
    }

    /// No more will come.
    pub fn end(&self, trailers: Option<HeaderMap>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // The first call counts: a front may end a body by its trailers, and once more by its end.
        if !queue.ended {
            queue.trailers = trailers.filter(|trailers| !trailers.is_empty());
            queue.ended = true;
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// The client took so many bytes of the answer.
    pub fn ack(&self, size: usize) {
        self.credit.give_back(size);
    }

    /// The client is gone.
    pub fn cancel(&self) {
        self.abort.abort();
        self.credit.give_all_back();
    }
}

/// The engine's end of the upload queue.
struct Upload {
    job: u64,
    queue: Arc<Mutex<Queue>>,
    shared: Arc<Shared>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = queue.pieces.pop_front() {
            queue.queued.remove(piece.len());
            if queue.full && queue.queued.bytes() < LOW_WATER {
                queue.full = false;
                self.shared.outbox.push(OutboxEvent::Writable { job: self.job });
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if queue.ended {
            return Poll::Ready(queue.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.ended && queue.pieces.is_empty() && queue.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Counts a request as under way, and as given up if its task is dropped before it was told.
pub(crate) struct UnderWay {
    /// Of a front that talks by messages.
    job: Option<u64>,
    shared: Arc<Shared>,
    began: Instant,
    told: bool,
    /// For the access log, if there is one.
    line: Option<Line>,
    /// For the audit log, likewise.
    audit: Option<audit::Call>,
    /// Of its trace, if there is one.
    trace: Option<Box<Trace>>,
    /// How far the exchange of a client that has gone had come.
    left: Option<Record>,
}

impl UnderWay {
    pub(crate) fn new(job: Option<u64>, shared: &Arc<Shared>, head: &RequestHead) -> Self {
        shared.metrics.in_flight.inc();
        Self {
            job,
            shared: Arc::clone(shared),
            began: Instant::now(),
            told: false,
            line: access::begin(&shared.access, head),
            audit: audit::begin(&shared.audit, head),
            trace: shared.otlp.as_ref().and_then(|telemetry| telemetry.begin(head, shared.started.elapsed())),
            left: None,
        }
    }

    /// What the upstream is told of the trace.
    pub(crate) fn onward(&self) -> Option<Onward> {
        self.trace.as_ref()?.onward()
    }

    /// True if the audit log will tell that the request was signed, or need not.
    pub(crate) fn can_be_told(&self, settings: &EngineSettings) -> bool {
        self.audit.is_none() || audit::may_lose(settings) || self.shared.audit.accepts()
    }

    /// It goes out next. Gives the line that the audit log must have before that, if there is one.
    pub(crate) fn begins(&mut self, settings: &EngineSettings, record: &Record) -> Option<Line> {
        let call = self.audit.as_mut()?;
        let must = record.disposition == Disposition::Sign && !audit::may_lose(settings);
        call.accepted |= must;
        if !settings.writes_begun() || call.has_begun() {
            return None;
        }
        let trace_id = self.trace.as_ref().map(|trace| trace.id());
        let line = call.begun(self.shared.next_call(), record, &self.shared.identities.load()).traced(trace_id.as_deref());
        if must {
            return Some(line);
        }
        self.shared.audit.push_at_once(line);
        None
    }

    /// It does not go out: its first line is not written.
    pub(crate) fn did_not_begin(&mut self, written: Written) {
        if let Some(call) = self.audit.as_mut().filter(|_| written == Written::NotTaken) {
            call.has_no_beginning();
        }
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn leave(&mut self, record: Record) {
        self.left = Some(record);
    }

    /// It is answered. An answer that breaks off from here on is counted.
    pub(crate) fn tell(&mut self, answer: &mut Answer) {
        self.told = true;
        let took = self.began.elapsed();
        let broken = self.shared.metrics.count(&self.shared.config.load(), &answer.record, None, took);
        answer.response.body_mut().count_break_off(broken);
        let (record, response) = (&answer.record, &answer.response);
        let (status, headers) = (response.status(), response.headers());
        let trace_id = self.trace.as_ref().map(|trace| trace.id());
        if let Some(advice) = &record.advice {
            tracing::warn!(request_id = request_id(record, headers), trace_id, "{advice}");
        }
        warn_of_rules(record, request_id(record, headers), trace_id.as_deref());
        if let Some(wrong) = &record.wrong_clock {
            tracing::warn!(request_id = request_id(record, headers), trace_id, "{wrong}");
        }
        if let Some(refused) = &record.refused_own {
            tracing::warn!(request_id = request_id(record, headers), trace_id, "{refused}");
        }
        if let Some(unknown) = &record.unknown_host {
            tracing::warn!(request_id = request_id(record, headers), trace_id, "{unknown}");
        }
        if let Some(line) = self.line.take() {
            access::answered(&self.shared.access, line.traced(trace_id.as_deref()), record, status, headers, took);
        }
        if let Some(call) = self.audit.take() {
            call.traced(trace_id.as_deref()).answered(&self.shared.audit, record, &self.shared.identities.load(), status, headers);
        }
        if let (Some(trace), Some(telemetry)) = (self.trace.take(), &self.shared.otlp) {
            telemetry.end(trace, record, None, headers, took);
        }
    }
}

/// What `rules.unknown = "closed"` would have refused: whoever tightens the rules has to know before.
fn warn_of_rules(record: &Record, request_id: Option<&str>, trace_id: Option<&str>) {
    let service = record.service.as_deref().unwrap_or("an unknown service");
    let call = record.operation.as_ref().map_or_else(|| service.to_owned(), ToString::to_string);
    for (rule, unknown) in &record.would_refuse {
        tracing::warn!(request_id, trace_id, "rule {rule} would refuse a call to {call}; unknown is {unknown} (rules.unknown)");
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.metrics.in_flight.dec();
        if std::thread::panicking()
            && let Some(job) = self.job
        {
            // A bug, but the client shall not wait for ever for what will not come.
            self.shared.outbox.push(OutboxEvent::Failed { job, message: "sigward failed; see its log".into() });
        }
        if !self.told {
            let took = self.began.elapsed();
            let record = self.left.take().unwrap_or_default();
            self.shared.metrics.count(&self.shared.config.load(), &record, Some("client-gone"), took);
            let trace_id = self.trace.as_ref().map(|trace| trace.id());
            warn_of_rules(&record, None, trace_id.as_deref());
            if let Some(line) = self.line.take() {
                access::gone(&self.shared.access, line.traced(trace_id.as_deref()), &record, took);
            }
            if let Some(call) = self.audit.take() {
                call.traced(trace_id.as_deref()).gone(&self.shared.audit, &record, &self.shared.identities.load());
            }
            if let (Some(trace), Some(telemetry)) = (self.trace.take(), &self.shared.otlp) {
                telemetry.end(trace, &record, Some("client-gone"), &HeaderMap::new(), took);
            }
        }
    }
}

/// Starts a job. `allowance`: of the client's connection. `body`: the whole of it, or `None` when it follows by `send` and `end`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    runtime: &tokio::runtime::Handle,
    pool: &Arc<Pool>,
    id: u64,
    head: RequestHead,
    body: Option<Bytes>,
    allowance: Arc<Allowance>,
) -> Job {
    let credit = Arc::new(Credit::new(allowance));
    let queue = Arc::new(Mutex::new(Queue::new(credit.queue())));
    let inbound: Inbound = match body {
        Some(body) => {
            queue.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            Inbound::Whole(body)
        }
        None => Inbound::Other(Upload { job: id, queue: Arc::clone(&queue), shared: Arc::clone(shared) }.boxed_unsync()),
    };
    let task = {
        let (shared, pool, queue, credit) = (Arc::clone(shared), Arc::clone(pool), Arc::clone(&queue), Arc::clone(&credit));
        let mut under_way = UnderWay::new(Some(id), &shared, &head);
        async move {
            let mut answer = drive(&shared, &pool, head, inbound, Listener::default(), true, &mut under_way).await;
            under_way.tell(&mut answer);
            tell(id, &shared, &queue, &credit, answer).await;
        }
    };
    let abort = runtime.spawn(task).abort_handle();
    Job { id, queue, credit, abort }
}

/// Passes an answer on, as far as the client takes it.
async fn tell(job: u64, shared: &Arc<Shared>, queue: &Arc<Mutex<Queue>>, credit: &Credit, answer: Answer) {
    let Answer { response, record, upgrade } = answer;
    let (head, mut body) = response.into_parts();
    let (status, headers) = (head.status, head.headers);
    let length = body.length().or_else(|| content_length(&headers));
    let outbox = &shared.outbox;
    let respond = |data, end| outbox.push(OutboxEvent::Response { job, status, headers, data, end, record: Box::new(record) });
    if let Some(upgrade) = upgrade {
        // What the front queues from here on is the tunnel's. Before it is told, or its first bytes are lost.
        queue.lock().unwrap_or_else(PoisonError::into_inner).ended = false;
        respond(Bytes::new(), false);
        return tunnel(job, shared, queue, credit, *upgrade).await;
    }
    if body.is_end_stream() {
        return respond(Bytes::new(), true);
    }
    if let Some(whole) = body.take_whole() {
        credit.take(whole.len()).await;
        return respond(whole, true);
    }
    if length.is_some_and(|length| length <= WHOLE) {
        let mut whole = Vec::new();
        loop {
            match body.frame().await {
                None => {
                    credit.take(whole.len()).await;
                    return respond(whole.into(), true);
                }
                Some(Ok(frame)) => whole.extend(frame.into_data().ok().into_iter().flatten()),
                Some(Err(error)) => {
                    credit.take(whole.len()).await;
                    respond(whole.into(), false);
                    return outbox.push(OutboxEvent::Failed { job, message: error.to_string() });
                }
            }
        }
    }
    respond(Bytes::new(), false);
    stream(job, shared, credit, body).await;
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn stream(job: u64, shared: &Arc<Shared>, credit: &Credit, mut body: AnswerBody) {
    let outbox = &shared.outbox;
    loop {
        match body.frame().await {
            None => return outbox.push(OutboxEvent::Data { job, data: Bytes::new(), end: true }),
            Some(Err(error)) => return outbox.push(OutboxEvent::Failed { job, message: error.to_string() }),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    credit.take(data.len()).await;
                    outbox.push(OutboxEvent::Data { job, data, end: false });
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return outbox.push(OutboxEvent::Trailers { job, trailers });
                }
            },
        }
    }
}

/// Bytes both ways after `101 Switching Protocols`, until either side ends.
async fn tunnel(job: u64, shared: &Arc<Shared>, queue: &Arc<Mutex<Queue>>, credit: &Credit, upgraded: Stream) {
    let (mut reader, mut writer) = tokio::io::split(upgraded);
    let mut upload = Upload { job, queue: Arc::clone(queue), shared: Arc::clone(shared) };
    let up = async {
        while let Some(Ok(frame)) = upload.frame().await {
            if let Ok(data) = frame.into_data() {
                writer.write_all(&data).await?;
                writer.flush().await?;
            }
        }
        writer.shutdown().await?;
        // The upstream ends the tunnel in its own time.
        std::future::pending::<std::io::Result<()>>().await
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let size = reader.read(&mut buffer).await?;
            let data = Bytes::copy_from_slice(buffer.get(..size).unwrap_or_default());
            credit.take(size).await;
            shared.outbox.push(OutboxEvent::Data { job, data, end: size == 0 });
            if size == 0 {
                return Ok::<(), std::io::Error>(());
            }
        }
    };
    let result = tokio::select! { result = up => result, result = down => result };
    if let Err(error) = result {
        shared.outbox.push(OutboxEvent::Failed { job, message: error.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts};
    use sigward_gateway::settings::LogLevel;

    use super::*;
    use crate::lines::tests::denied;
    use crate::logs::Logs;
    use crate::outbox::Outbox;

    #[test]
    fn the_log_names_each_rule_and_what_cannot_be_told() {
        let outbox = Arc::new(Outbox::new().unwrap());
        let dropped = IntCounterVec::new(Opts::new("dropped", "help"), &["reason"]).unwrap();
        let logs = Logs::new(Arc::clone(&outbox), LogLevel::Warning, dropped);
        let would_refuse = vec![("no-deletes".into(), "operation"), ("#2".into(), "bucket")];
        tracing::dispatcher::with_default(&logs.dispatch(), || {
            warn_of_rules(&Record { would_refuse: would_refuse.clone(), ..denied() }, Some("an-id"), None);
            warn_of_rules(&Record { would_refuse: vec![("a".into(), "service")], ..Record::default() }, None, None);
            warn_of_rules(&denied(), None, None);
            for _ in 0..100 {
                warn_of_rules(&Record { would_refuse: would_refuse.clone(), ..denied() }, None, None);
            }
        });
        let told: Vec<_> = outbox.take().into_iter().collect();
        let said = |at: usize| match told.get(at) {
            Some(OutboxEvent::Log { said, .. }) => (said.message.clone(), said.fields.clone()),
            other => panic!("{other:?}"),
        };
        let end = "(rules.unknown)";
        let id = ("request_id", "an-id".to_owned());
        assert_eq!(said(0), (format!("rule no-deletes would refuse a call to dynamodb:DeleteTable; unknown is operation {end}"), vec![id]));
        assert_eq!(said(1).0, format!("rule #2 would refuse a call to dynamodb:DeleteTable; unknown is bucket {end}"));
        assert_eq!(said(2), (format!("rule a would refuse a call to an unknown service; unknown is service {end}"), vec![]));
        assert!(told.len() < 100, "a flood is cut short");
    }
}
