//! The thread that sends: spans in batches, metrics once an interval. What a collector does not take for a while is tried again; meanwhile
//! the queue fills, and what finds no room is counted.
//! See "OpenTelemetry Protocol Specification", "OTLP/HTTP": retryable statuses, partial success.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use sigward_gateway::{Failure, Target, Upstream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Telemetry, metrics, scope};
use crate::body::Outbound;
use crate::h1::client::{AnswerBody, Request, Waits, exchange};
use crate::logs;
use crate::pool::{self, Pool, Way};
use crate::shared::Shared;

/// `delay` is no shorter: the thread never spins.
const SHORTEST: Duration = Duration::from_millis(10);
/// `delay` is no longer, and neither is the pause between attempts, which is doubled from it on.
const LONGEST: Duration = Duration::from_secs(30);
/// An answer is read so far.
const MOST_ANSWER: usize = 64 << 10;

/// The running thread.
#[derive(Debug)]
pub(crate) struct Exporter {
    thread: JoinHandle<()>,
    end: watch::Sender<Option<Instant>>,
    pool: watch::Sender<Arc<Pool>>,
}

impl Exporter {
    /// Connects by this one from now on: whom it trusts may have changed.
    pub(crate) fn use_pool(&self, pool: Arc<Pool>) {
        self.pool.send_replace(pool);
    }

    /// Sends what there is, for as long as `patience` at most.
    pub(crate) fn close(self, patience: Duration) {
        self.end.send_replace(Some(Instant::now() + patience));
        let _ = self.thread.join();
    }
}

/// Starts it. `pool`: of its own. The error names the setting.
pub(crate) fn start(shared: &Arc<Shared>, telemetry: &Arc<Telemetry>, pool: Arc<Pool>) -> Result<Exporter, String> {
    let settings = &telemetry.settings;
    let (pool, pools) = watch::channel(pool);
    let sending = Sending {
        traces: settings.traces.as_deref().map(Place::new).transpose()?,
        metrics: settings.metrics.as_deref().map(Place::new).transpose()?,
        headers: headers(telemetry)?,
        shared: Arc::clone(shared),
        telemetry: Arc::clone(telemetry),
        pools,
        began: SystemTime::now(),
        pending: None,
        pause: Duration::ZERO,
        not_before: Instant::now(),
        until: None,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| format!("otlp: no runtime for it: {error}"))?;
    let (end, ending) = watch::channel(None);
    let log = shared.dispatch.clone();
    let thread = std::thread::Builder::new()
        .name("sigward-otlp".into())
        .spawn(move || {
            logs::default_for_thread(&log);
            runtime.block_on(sending.run(ending));
            runtime.shutdown_background();
        })
        .map_err(|error| format!("otlp: no thread for it: {error}"))?;
    Ok(Exporter { thread, end, pool })
}

fn headers(telemetry: &Telemetry) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sigward/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &telemetry.settings.headers {
        let key = HeaderName::try_from(name).map_err(|_| format!("otlp.headers: {name:?} is no header's name"))?;
        let mut value =
            HeaderValue::try_from(value.expose()).map_err(|_| format!("otlp.headers: the value of {name} holds a control character"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Where one signal goes.
struct Place {
    upstream: Arc<Upstream>,
    path: String,
    /// The last attempt failed: that is said once.
    failing: bool,
}

impl Place {
    fn new(url: &str) -> Result<Self, String> {
        let host_from = url.find("://").map_or(0, |at| at + 3);
        let path_from = url.get(host_from..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host_from + at);
        let (origin, path) = url.split_at(path_from);
        let target = Target::from_url(origin).map_err(|why| format!("otlp.endpoint: {why}"))?;
        let path = if path.is_empty() { "/" } else { path };
        // The operator names it: it may be on this host.
        Ok(Self { upstream: Arc::new(Upstream { target, connect: None, named: true }), path: path.to_owned(), failing: false })
    }
}

/// Why something was not taken.
struct Refused {
    why: String,
    /// Later it may be.
    again: bool,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let why = match failure {
            Failure::HeadTimeout => "no answer in time".to_owned(),
            Failure::Loop => "the connection leads back to sigward".to_owned(),
            Failure::Connect(why)
            | Failure::Forbidden(why)
            | Failure::Tls(why)
            | Failure::Broken(why)
            | Failure::Body(why)
            | Failure::Internal(why) => why,
        };
        Self { why, again: true }
    }
}

/// A batch that has not been taken yet.
struct Pending {
    body: Bytes,
    spans: u64,
}

struct Sending {
    traces: Option<Place>,
    metrics: Option<Place>,
    headers: HeaderMap,
    shared: Arc<Shared>,
    telemetry: Arc<Telemetry>,
    pools: watch::Receiver<Arc<Pool>>,
    began: SystemTime,
    pending: Option<Pending>,
    pause: Duration,
    not_before: Instant,
    /// At the end: when all must be over.
    until: Option<Instant>,
}

impl Sending {
    async fn run(mut self, mut ending: watch::Receiver<Option<Instant>>) {
        self.pools.mark_changed();
        let telemetry = Arc::clone(&self.telemetry);
        let mut metrics_at = Instant::now() + telemetry.settings.interval;
        let delay = self.delay();
        loop {
            tokio::select! {
                _ = ending.wait_for(Option::is_some) => break,
                () = telemetry.plenty.notified() => {}
                () = tokio::time::sleep(delay) => {}
            }
            if self.pools.has_changed().unwrap_or(false) {
                tokio::spawn(pool::sweep(Arc::downgrade(&self.pools.borrow_and_update())));
            }
            let metrics_due = Instant::now() >= metrics_at;
            if metrics_due {
                metrics_at = Instant::now() + telemetry.settings.interval;
            }
            // What is under way when the end comes is kept, and sent again.
            let work = async {
                self.send_spans().await;
                if metrics_due {
                    self.send_metrics().await;
                }
            };
            tokio::select! {
                _ = ending.wait_for(Option::is_some) => break,
                () = work => {}
            }
        }
        self.until = *ending.borrow();
        self.not_before = Instant::now();
        self.send_spans().await;
        self.send_metrics().await;
        self.give_up();
    }

    /// How long spans wait for others, and the first pause after a failure.
    fn delay(&self) -> Duration {
        self.telemetry.settings.delay.clamp(SHORTEST, LONGEST)
    }

    /// All that waits, batch by batch, unless the collector is to be left alone for a while.
    async fn send_spans(&mut self) {
        while Instant::now() >= self.not_before {
            if self.pending.is_none() {
                self.pending = self.batch();
            }
            let (Some(pending), Some(place)) = (&self.pending, &self.traces) else { return };
            let (body, spans) = (pending.body.clone(), pending.spans);
            let sent = self.post(place, body).await;
            let sent = sent.map(|answer| {
                let told = ExportTraceServiceResponse::decode(answer).unwrap_or_default().partial_success.unwrap_or_default();
                (told.rejected_spans, told.error_message)
            });
            match sent {
                Ok((rejected, why)) => {
                    self.pause = Duration::ZERO;
                    self.pending = None;
                    self.dropped("rejected", rejected.try_into().unwrap_or_default());
                    self.told("traces", if rejected > 0 { Err(why) } else { Ok(()) });
                }
                Err(Refused { why, again }) => {
                    if again {
                        self.pause = (self.pause * 2).clamp(self.delay(), LONGEST);
                        self.not_before = Instant::now() + self.pause;
                    } else {
                        self.pending = None;
                        self.dropped("rejected", spans);
                    }
                    self.told("traces", Err(why));
                }
            }
        }
    }

    fn batch(&self) -> Option<Pending> {
        let finished = self.telemetry.take();
        if finished.is_empty() {
            return None;
        }
        let spans: Vec<_> = finished.iter().flat_map(|one| one.spans(|| self.telemetry.random())).collect();
        let count = spans.len() as u64;
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
        let resource = Some(self.telemetry.resource.clone());
        let request =
            ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] };
        Some(Pending { body: request.encode_to_vec().into(), spans: count })
    }

    /// As they are now. What is not taken comes again with the next.
    async fn send_metrics(&mut self) {
        let Some(place) = &self.metrics else { return };
        let metrics = metrics::converted(&self.shared.gathered(), self.began, SystemTime::now());
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.telemetry.resource.clone());
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
        };
        let told = match self.post(place, request.encode_to_vec().into()).await {
            Err(refused) => Err(refused.why),
            Ok(answer) => match ExportMetricsServiceResponse::decode(answer).unwrap_or_default().partial_success {
                Some(partial) if partial.rejected_data_points > 0 => Err(partial.error_message),
                _ => Ok(()),
            },
        };
        self.told("metrics", told);
    }

    /// Gives the answer's body.
    async fn post(&self, place: &Place, body: Bytes) -> Result<Bytes, Refused> {
        let patience = self.telemetry.settings.timeout;
        let until = Instant::now() + patience;
        let until = self.until.map_or(until, |end| end.min(until));
        let posting = tokio::time::timeout_at(until, self.posted(place, body, patience, until));
        posting.await.unwrap_or(Err(Failure::HeadTimeout.into()))
    }

    async fn posted(&self, place: &Place, body: Bytes, patience: Duration, until: Instant) -> Result<Bytes, Refused> {
        let mut headers = self.headers.clone();
        let internal = |_| Failure::Internal("its host cannot be sent".into());
        headers.insert(HOST, HeaderValue::try_from(place.upstream.target.authority()).map_err(internal)?);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let request = Request { method: Method::POST, path: place.path.clone(), headers, body: Outbound::held(body) };
        let pool = Arc::clone(&self.pools.borrow());
        let Way::Http1(connection, back) = pool.way(&place.upstream, false).await? else {
            return Err(Failure::Internal("no way".into()).into());
        };
        let answer = exchange(connection, request, Waits { idle: patience, head: patience, until: Some(until) }, back, None).await?;
        let status = answer.status.as_u16();
        let body = read(answer.body).await?;
        if answer.status.is_success() {
            return Ok(body);
        }
        // All others are final: the same would be refused again.
        Err(Refused { why: format!("it answered {status}"), again: matches!(status, 429 | 502 | 503 | 504) })
    }

    fn dropped(&self, reason: &str, spans: u64) {
        if spans > 0 {
            self.telemetry.counts.dropped.with_label_values(&["traces", reason]).inc_by(spans);
        }
    }

    /// Counts what failed; the log hears of the first failure and of the first success after it.
    fn told(&mut self, signal: &'static str, outcome: Result<(), String>) {
        let place = if signal == "traces" { &mut self.traces } else { &mut self.metrics };
        let Some(place) = place else { return };
        let was = std::mem::replace(&mut place.failing, outcome.is_err());
        match outcome {
            Ok(()) if was => tracing::info!("otlp: {signal} are taken again by {}", place.upstream.target),
            Ok(()) => {}
            Err(why) => {
                self.telemetry.counts.errors.with_label_values(&[signal]).inc();
                if !was {
                    tracing::warn!("otlp: {signal} are not taken by {}: {why}", place.upstream.target);
                }
            }
        }
    }

    /// What is left at the end is lost.
    fn give_up(&mut self) {
        let pending = self.pending.take().map_or(0, |pending| pending.spans);
        let waiting: usize = std::iter::from_fn(|| Some(self.telemetry.take()).filter(|taken| !taken.is_empty()))
            .flatten()
            .map(|finished| finished.count())
            .sum();
        let lost = pending + waiting as u64;
        self.dropped("shutdown", lost);
        if lost > 0 {
            tracing::warn!("otlp: {lost} spans could not be sent before the end");
        }
    }
}

/// To its end, so that the connection can be used again.
async fn read(mut body: AnswerBody) -> Result<Bytes, Refused> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
        read.extend(frame.into_data().ok());
        if read.len() > MOST_ANSWER {
            break;
        }
    }
    Ok(read.freeze())
}
