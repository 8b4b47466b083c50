//! Traces and metrics by OpenTelemetry's protocol (OTLP, HTTP with protobuf), where the settings name a collector. Off, a request passes one
//! branch here.
//!
//! Nothing is traced while it goes on: the exchange notes when it waited and tried, and when the request is over, or its client has gone,
//! what it noted is put into a bounded queue ([`Telemetry::end`]). A thread of its own makes spans of it and sends them in batches
//! ([`export`]): no request waits for a collector.

mod context;
mod export;
mod metrics;
mod spans;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use rustls::crypto::SecureRandom;
use sigward_gateway::exchange::Onward;
use sigward_gateway::settings::OtlpSettings;
use sigward_gateway::{Record, RequestHead};
use tokio::sync::Notify;

use crate::metrics::OtlpCounts;
use context::{Context, hex};
pub(crate) use export::{Exporter, start};
use spans::Finished;

/// So many requests wait to be sent at most.
const MOST: usize = 4096;
/// So many are sent at once; as soon as there are, or after `delay`.
const BATCH: usize = 512;

/// See the module.
pub(crate) struct Telemetry {
    settings: OtlpSettings,
    /// Who tells.
    resource: Resource,
    queue: Mutex<Vec<Finished>>,
    plenty: Notify,
    counts: OtlpCounts,
    random: &'static dyn SecureRandom,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Telemetry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The trace of a request that is under way.
#[derive(Debug)]
pub(crate) struct Trace {
    context: Context,
    span: [u8; 8],
    /// Of both clocks, when the request's head had come.
    began: (SystemTime, Duration),
    asked: Asked,
}

/// What the request's head said.
#[derive(Debug, Default)]
struct Asked {
    method: String,
    scheme: &'static str,
    host: String,
    port: u16,
    path: String,
    client: String,
}

impl Trace {
    /// For the logs.
    pub(crate) fn id(&self) -> String {
        hex(&self.context.trace)
    }

    /// What the upstream is told.
    pub(crate) fn onward(&self) -> Option<Onward> {
        self.context.onward(self.span)
    }
}

impl Telemetry {
    pub(crate) fn new(settings: OtlpSettings, counts: OtlpCounts) -> Self {
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let mut telemetry =
            Self { settings, resource: Resource::default(), queue: Mutex::default(), plenty: Notify::new(), counts, random };
        let instance = hex(&telemetry.random::<16>());
        let own = [("service.version", env!("CARGO_PKG_VERSION").to_owned()), ("service.instance.id", instance)];
        let set = telemetry.settings.attributes.iter().map(|(name, value)| text(name, value));
        let own = own.iter().filter(|(name, _)| !telemetry.settings.attributes.contains_key(*name));
        telemetry.resource.attributes = set.chain(own.map(|(name, value)| text(name, value))).collect();
        telemetry
    }

    /// Begins a request's trace, or goes on with its client's. `None`: no traces are sent. `since_start`: of the clock that never goes back.
    pub(crate) fn begin(&self, head: &RequestHead, since_start: Duration) -> Option<Box<Trace>> {
        self.settings.traces.as_ref()?;
        let context = Context::of(&head.headers).unwrap_or_else(|| self.fresh());
        let asked = if context.sampled { Asked::of(head) } else { Asked::default() };
        Some(Box::new(Trace { span: self.random(), began: (SystemTime::now(), since_start), context, asked }))
    }

    fn fresh(&self) -> Context {
        let trace: [u8; 16] = self.random();
        let [_, _, _, _, _, _, _, _, low @ ..] = trace;
        // As other samplers by ratio decide, so that all of a system agree.
        let sampled = (u64::from_be_bytes(low) >> 1) as f64 <= self.settings.sample_ratio * (u64::MAX >> 1) as f64;
        Context { trace, parent: None, sampled: sampled && self.settings.sample_ratio > 0.0, state: String::new() }
    }

    /// A request is over. `code`: what took its status's place. `took`: until its answer's head.
    pub(crate) fn end(&self, trace: Box<Trace>, record: &Record, code: Option<&'static str>, headers: &HeaderMap, took: Duration) {
        if !trace.context.sampled {
            return;
        }
        let finished = Finished::new(trace, record, code, headers, took);
        let mut queue = self.queue();
        if queue.len() >= MOST {
            drop(queue);
            return self.counts.dropped.with_label_values(&["traces", "full"]).inc();
        }
        queue.push(finished);
        if queue.len() == BATCH {
            self.plenty.notify_one();
        }
    }

    fn take(&self) -> Vec<Finished> {
        let mut queue = self.queue();
        let size = queue.len().min(BATCH);
        queue.drain(..size).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random<const SIZE: usize>(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        // Without randomness there was no TLS, and so no request.
        let _ = self.random.fill(&mut bytes);
        bytes
    }
}

impl Asked {
    fn of(head: &RequestHead) -> Self {
        Self {
            method: head.method.as_str().to_owned(),
            scheme: head.target.scheme.as_str(),
            host: head.target.host.to_string(),
            port: head.target.port,
            // A query may hold a signature.
            path: head.path.split(['?', '#']).next().unwrap_or_default().to_owned(),
            client: head.client.to_string(),
        }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "sigward".into(), version: env!("CARGO_PKG_VERSION").into(), ..InstrumentationScope::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
