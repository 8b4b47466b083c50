//! Metrics in Prometheus's text format 0.0.4.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use sigward_gateway::circuit::State;
use sigward_gateway::quota::CAPACITY;
use sigward_gateway::{Disposition, Identities, Live, Record};

use crate::lines::Counts;

/// More services than AWS has; beyond it a client is making names up, and they are counted together.
const MOST_SERVICES: usize = 600;

/// Endpoints in trouble that are told of.
const MOST_ENDPOINTS: usize = 100;

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    ambiguous: IntCounterVec,
    would_refuse: IntCounterVec,
    duration: HistogramVec,
    signatures: IntCounterVec,
    attempts: IntCounterVec,
    broken: IntCounterVec,
    /// Loads of credentials that failed.
    pub(crate) credentials_failures: IntCounterVec,
    retries: IntCounterVec,
    expiry: GaugeVec,
    backoff: HistogramVec,
    pace_wait: HistogramVec,
    pace_refused: IntCounterVec,
    quota_empty: IntCounterVec,
    quota: GaugeVec,
    circuit: GaugeVec,
    buckets: IntGauge,
    waiting: IntGauge,
    pub(crate) store_up: IntGauge,
    pub(crate) store_errors: prometheus::IntCounter,
    pub(crate) in_flight: IntGauge,
    pub(crate) held_bytes: IntGauge,
    pub(crate) overloaded: prometheus::IntCounter,
    /// Of clients, tunnels among them.
    pub(crate) connections: IntGauge,
    /// Why a listener takes no connections for a while.
    pub(crate) accept_paused: IntCounterVec,
    /// Clients let go for being slow, by what they were slow at.
    pub(crate) slow_clients: IntCounterVec,
    /// Heads that could not be read.
    pub(crate) bad_requests: IntCounterVec,
    /// Of the access log.
    pub(crate) access: Counts,
    pub(crate) audit: Counts,
    /// Calls that were not signed because the audit log could not be written.
    pub(crate) audit_refused: IntCounter,
    pub(crate) otlp: OtlpCounts,
    /// Lines for the log that were not told.
    pub(crate) log_dropped: IntCounterVec,
    ready: IntGauge,
    usable: GaugeVec,
    build: GaugeVec,
    services: Mutex<HashSet<String>>,
    hasher: RandomState,
    /// Those that were counted in lately, by the hash of their labels.
    recent: Box<[ArcSwapOption<Series>]>,
}

/// What is counted of telemetry.
#[derive(Clone, Debug)]
pub(crate) struct OtlpCounts {
    /// Spans, by signal and reason.
    pub(crate) dropped: IntCounterVec,
    /// Exports that failed, by signal.
    pub(crate) errors: IntCounterVec,
}

/// Series that are found at once.
const RECENT: usize = 256;

/// What tells one request's series from another's.
#[derive(Hash)]
struct Labels<'a> {
    service: &'a str,
    operation: &'a str,
    region: &'a str,
    identity: &'a str,
    action: &'static str,
    code: Option<&'static str>,
    status: u16,
}

/// Where requests of the same labels are counted.
#[derive(Debug)]
struct Series {
    service: Box<str>,
    operation: Box<str>,
    region: Box<str>,
    identity: Box<str>,
    action: &'static str,
    code: Option<&'static str>,
    status: u16,
    requests: IntCounter,
    duration: Histogram,
    signatures: IntCounter,
    attempts: IntCounter,
    broken: IntCounter,
}

impl Series {
    fn is_for(&self, labels: &Labels<'_>) -> bool {
        self.status == labels.status
            && *self.operation == *labels.operation
            && *self.service == *labels.service
            && *self.region == *labels.region
            && *self.identity == *labels.identity
            && self.action == labels.action
            && self.code == labels.code
    }
}

impl Metrics {
    #[allow(clippy::expect_used, reason = "constant names; a test builds it")]
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("the metric's name and labels are well-formed")
        };
        let single = |name: &str, help: &str| IntCounter::new(name, help).expect("the counter is well-formed");
        let gauge =
            |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels).expect("the gauge is well-formed");
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.clone()), labels).expect("the histogram is well-formed")
        };
        let metrics = Self {
            requests: counter(
                "sigward_requests_total",
                "Requests answered, by what the client got.",
                &["service", "operation", "region", "identity", "action", "code"],
            ),
            ambiguous: counter(
                "sigward_ambiguous_calls_total",
                "Requests refused because they name their call twice, and differently.",
                &["kind"],
            ),
            would_refuse: counter(
                "sigward_would_refuse_total",
                "Requests that a rule would have refused for what is unknown of them, if `rules.unknown` were `closed`.",
                &["rule"],
            ),
            duration: histogram("sigward_request_duration_seconds", "From a request's head to its answer's head.", &["service"]),
            signatures: counter("sigward_signatures_total", "Signatures made.", &["service", "region", "identity"]),
            attempts: counter("sigward_attempts_total", "Attempts sent upstream.", &["service"]),
            broken: counter("sigward_broken_answers_total", "Answers that broke off behind their head.", &["service"]),
            credentials_failures: counter("sigward_credentials_failures_total", "Loads of credentials that failed.", &["identity"]),
            retries: counter("sigward_retries_total", "Attempts after the first.", &["service", "cause"]),
            expiry: gauge(
                "sigward_credentials_expiry_timestamp_seconds",
                "When an identity's credentials expire; +Inf: never.",
                &["identity"],
            ),
            backoff: histogram("sigward_backoff_seconds", "Waited between attempts of one request.", &["service"]),
            pace_wait: histogram("sigward_pace_wait_seconds", "Waited for its turn.", &["rule"]),
            pace_refused: counter("sigward_pace_refused_total", "Refused because its turn would come too late.", &["rule"]),
            quota_empty: counter("sigward_retry_quota_empty_total", "Repeats not made: the endpoint's quota was used up.", &["service"]),
            quota: gauge("sigward_retry_quota_tokens", "Tokens for repeats, of 500; the endpoints with fewest.", &["endpoint"]),
            circuit: gauge("sigward_circuit_state", "0: closed, 1: half open, 2: open; endpoints that are not closed.", &["endpoint"]),
            buckets: IntGauge::new("sigward_pace_buckets", "Token buckets in use.").expect("the gauge is well-formed"),
            waiting: IntGauge::new("sigward_pace_waiting_requests", "Requests that wait for their turn.")
                .expect("the gauge is well-formed"),
            store_up: IntGauge::new("sigward_pace_store_up", "1: the store of shared limits answers.").expect("the gauge is well-formed"),
            store_errors: prometheus::IntCounter::new("sigward_pace_store_errors_total", "Failures of the store of shared limits.")
                .expect("the counter is well-formed"),
            in_flight: IntGauge::new("sigward_in_flight_requests", "Requests under way.").expect("the gauge is well-formed"),
            held_bytes: IntGauge::new("sigward_held_body_bytes", "Bytes of request bodies in memory.").expect("the gauge is well-formed"),
            overloaded: prometheus::IntCounter::new("sigward_overloaded_total", "Requests refused because too much was under way.")
                .expect("the counter is well-formed"),
            connections: IntGauge::new("sigward_client_connections", "Connections of clients to the native front, tunnels among them.")
                .expect("the gauge is well-formed"),
            accept_paused: counter(
                "sigward_accept_paused_total",
                "Times that a native listener took no connections for a while: `descriptors` ran out, or limits.connections was reached.",
                &["reason"],
            ),
            slow_clients: counter("sigward_slow_clients_total", "Connections closed because the client was slow.", &["at"]),
            bad_requests: counter("sigward_bad_requests_total", "Requests of the native front that could not be read.", &["error"]),
            access: Counts {
                dropped: single("sigward_access_log_dropped_total", "Lines of the access log that were not written."),
                errors: single("sigward_access_log_errors_total", "Writes of the access log that failed."),
            },
            audit: Counts {
                dropped: single("sigward_audit_log_dropped_total", "Lines of the audit log that were not written."),
                errors: single("sigward_audit_log_errors_total", "Writes of the audit log that failed."),
            },
            audit_refused: single("sigward_audit_log_refused_total", "Calls refused because the audit log could not be written."),
            otlp: OtlpCounts {
                dropped: counter(
                    "sigward_otlp_dropped_total",
                    "Spans that were not sent: `full`, too many waited; `rejected` by the collector; `shutdown`, left at the end.",
                    &["signal", "reason"],
                ),
                errors: counter("sigward_otlp_errors_total", "Exports by OTLP that failed.", &["signal"]),
            },
            log_dropped: counter(
                "sigward_log_dropped_total",
                "Lines of the engine's log that were not told: `rate`, too many from one place; `full`, too many not fetched yet.",
                &["reason"],
            ),
            ready: IntGauge::new("sigward_ready", "1: /readyz answers 200.").expect("the gauge is well-formed"),
            usable: gauge("sigward_credentials_usable", "1: an identity has credentials that have not expired.", &["identity"]),
            build: gauge("sigward_build_info", "The version, as a label.", &["version"]),
            services: Mutex::default(),
            hasher: RandomState::new(),
            recent: (0..RECENT).map(|_| ArcSwapOption::empty()).collect(),
            registry,
        };
        metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        for collector in metrics.collectors() {
            metrics.registry.register(collector).expect("each metric is registered once");
        }
        metrics
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.requests.clone()),
            Box::new(self.ambiguous.clone()),
            Box::new(self.would_refuse.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.signatures.clone()),
            Box::new(self.attempts.clone()),
            Box::new(self.broken.clone()),
            Box::new(self.credentials_failures.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.expiry.clone()),
            Box::new(self.usable.clone()),
            Box::new(self.backoff.clone()),
            Box::new(self.pace_wait.clone()),
            Box::new(self.pace_refused.clone()),
            Box::new(self.quota_empty.clone()),
            Box::new(self.quota.clone()),
            Box::new(self.circuit.clone()),
            Box::new(self.buckets.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.store_up.clone()),
            Box::new(self.store_errors.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.held_bytes.clone()),
            Box::new(self.overloaded.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.accept_paused.clone()),
            Box::new(self.slow_clients.clone()),
            Box::new(self.bad_requests.clone()),
            Box::new(self.access.dropped.clone()),
            Box::new(self.access.errors.clone()),
            Box::new(self.audit.dropped.clone()),
            Box::new(self.audit.errors.clone()),
            Box::new(self.audit_refused.clone()),
            Box::new(self.otlp.dropped.clone()),
            Box::new(self.otlp.errors.clone()),
            Box::new(self.log_dropped.clone()),
            Box::new(self.ready.clone()),
            Box::new(self.build.clone()),
        ]
    }

    pub(crate) fn credentials_expire(&self, identity: &str, at: Option<f64>) {
        self.expiry.with_label_values(&[identity]).set(at.unwrap_or(f64::INFINITY));
    }

    /// Counts one exchange. `code`: what took the status's place, such as `client-gone`. Gives what its answer counts in if it breaks off.
    pub(crate) fn count(&self, record: &Record, code: Option<&'static str>, took: Duration) -> IntCounter {
        let service = record.service.as_deref().unwrap_or_default();
        let region = record.region.as_deref().unwrap_or_default();
        let identity = record.identity.as_deref().unwrap_or_default();
        // The table's names alone: what a client makes up is no operation.
        let operation = record.operation.as_ref().map_or("", |operation| &*operation.name);
        let labels = Labels { service, operation, region, identity, action: record.disposition.as_str(), code, status: record.status };
        let series = self.series(&labels);
        series.requests.inc();
        series.duration.observe(took.as_secs_f64());
        if record.disposition == Disposition::Sign && record.signatures > 0 {
            series.signatures.inc_by(u64::from(record.signatures));
        }
        if !record.attempts.is_empty() {
            series.attempts.inc_by(record.attempts.len() as u64);
        }
        if record.attempts.len() > 1 || record.pace_rule.is_some() || record.quota_empty || record.error.is_some() {
            self.count_trouble(record);
        }
        if let Some(kind) = record.ambiguous {
            self.ambiguous.with_label_values(&[kind]).inc();
        }
        for (rule, _) in &record.would_refuse {
            self.would_refuse.with_label_values(&[&**rule]).inc();
        }
        series.broken.clone()
    }

    /// What most requests do not have.
    fn count_trouble(&self, record: &Record) {
        match record.error {
            Some("overloaded") => self.overloaded.inc(),
            Some("audit-log-unavailable") => self.audit_refused.inc(),
            _ => {}
        }
        let service = self.bounded(record.service.as_deref().unwrap_or_default());
        let backoff: Duration = record.attempts.iter().map(|attempt| attempt.waited).sum();
        if !backoff.is_zero() {
            self.backoff.with_label_values(&[service.as_str()]).observe(backoff.as_secs_f64());
        }
        // The rules' names are the operator's or the table's.
        if let Some(rule) = &record.pace_rule {
            if record.error == Some("slow-down") {
                self.pace_refused.with_label_values(&[&**rule]).inc();
            } else {
                self.pace_wait.with_label_values(&[&**rule]).observe(record.paced.as_secs_f64());
            }
        }
        if record.quota_empty {
            self.quota_empty.with_label_values(&[service.as_str()]).inc();
        }
        let retried = record.attempts.len().saturating_sub(1);
        for attempt in record.attempts.iter().take(retried) {
            self.retries.with_label_values(&[service.as_str(), &*attempt.outcome]).inc();
        }
    }

    /// The series that a request with these labels counts in. To find them by their labels costs more than to sign.
    fn series(&self, labels: &Labels<'_>) -> Arc<Series> {
        let hash = self.hasher.hash_one(labels);
        let place = self.recent.get(usize::try_from(hash).unwrap_or_default() % RECENT);
        if let Some(place) = place
            && let Some(recent) = place.load().as_ref()
            && recent.is_for(labels)
        {
            return Arc::clone(recent);
        }
        let service = self.bounded(labels.service);
        // An unknown region's name is the client's too.
        let region = if service == "other" { "other" } else { labels.region };
        let status = labels.status.to_string();
        let code = labels.code.unwrap_or(&status);
        let series = Arc::new(Series {
            service: labels.service.into(),
            operation: labels.operation.into(),
            region: labels.region.into(),
            identity: labels.identity.into(),
            action: labels.action,
            code: labels.code,
            status: labels.status,
            requests: self.requests.with_label_values(&[service.as_str(), labels.operation, region, labels.identity, labels.action, code]),
            duration: self.duration.with_label_values(&[service.as_str()]),
            signatures: self.signatures.with_label_values(&[service.as_str(), region, labels.identity]),
            attempts: self.attempts.with_label_values(&[service.as_str()]),
            broken: self.broken.with_label_values(&[service.as_str()]),
        });
        if let Some(place) = place {
            place.store(Some(Arc::clone(&series)));
        }
        series
    }

    fn bounded(&self, service: &str) -> String {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.contains(service) {
            return service.to_owned();
        }
        if services.len() >= MOST_SERVICES {
            return "other".to_owned();
        }
        services.insert(service.to_owned());
        service.to_owned()
    }

    /// What is looked up when it is asked for. `ready`: `/readyz` answers 200.
    pub(crate) fn state(&self, ready: bool, identities: &Identities, unix_seconds: u64) {
        self.ready.set(ready.into());
        self.usable.reset();
        for (name, identity) in identities {
            self.usable.with_label_values(&[&**name]).set(if identity.usable(unix_seconds).is_some() { 1.0 } else { 0.0 });
        }
    }

    /// All of them. `now`: of the clock that never goes back.
    pub(crate) fn gather(&self, live: &Live, now: Duration) -> Vec<MetricFamily> {
        let (buckets, waiting) = live.pacer.size();
        self.buckets.set(i64::try_from(buckets).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        // Endpoints have buckets' names in them, which are any number: those in trouble are shown, and not too many.
        self.quota.reset();
        self.circuit.reset();
        let mut troubled = live.endpoints();
        troubled.retain(|endpoint| endpoint.quota.left() < CAPACITY || endpoint.circuit.state(now) != State::Closed);
        troubled.sort_by_key(|endpoint| endpoint.quota.left());
        for endpoint in troubled.iter().take(MOST_ENDPOINTS) {
            self.quota.with_label_values(&[&*endpoint.name]).set(f64::from(endpoint.quota.left()));
            let state = match endpoint.circuit.state(now) {
                State::Closed => continue,
                State::HalfOpen => 1.0,
                State::Open => 2.0,
            };
            self.circuit.with_label_values(&[&*endpoint.name]).set(state);
        }
        self.registry.gather()
    }
}

/// What one metric is, for the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `sigward_…`
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// One sentence.
    pub help: String,
    /// Their names.
    pub labels: Vec<String>,
}

/// Every metric that there is, by name.
pub fn descriptions() -> Vec<Description> {
    let mut all: Vec<Description> = Metrics::new().collectors().iter().flat_map(|collector| described(&**collector)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn described(collector: &dyn Collector) -> Vec<Description> {
    let families = collector.collect();
    let kind = families.first().map_or("", |family| match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    });
    let of = |desc: &&Desc| Description { name: desc.fq_name.clone(), kind, help: desc.help.clone(), labels: desc.variable_labels.clone() };
    collector.desc().iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::lines::tests::denied;

    #[test]
    fn a_denied_call_is_counted_with_all_that_is_known_of_it() {
        let metrics = Metrics::new();
        metrics.count(&denied(), None, Duration::ZERO);
        let text = TextEncoder::new().encode_to_string(&metrics.gather(&Live::default(), Duration::ZERO)).unwrap();
        let labels = r#"action="deny",code="403",identity="default",operation="DeleteTable",region="us-east-1",service="dynamodb""#;
        assert!(text.contains(&format!("sigward_requests_total{{{labels}}} 1\n")), "{text}");
    }

    #[test]
    fn ambiguous_calls_and_what_a_rule_would_refuse_are_counted() {
        let metrics = Metrics::new();
        let would_refuse = vec![("no-deletes".into(), "operation"), ("#2".into(), "bucket")];
        metrics.count(&Record { ambiguous: Some("target"), ..Record::default() }, None, Duration::ZERO);
        metrics.count(&Record { would_refuse: would_refuse.clone(), ..Record::default() }, None, Duration::ZERO);
        // Whoever does not wait for the answer is counted too.
        metrics.count(&Record { would_refuse, ..Record::default() }, Some("client-gone"), Duration::ZERO);
        let text = TextEncoder::new().encode_to_string(&metrics.gather(&Live::default(), Duration::ZERO)).unwrap();
        for expected in [
            r#"sigward_ambiguous_calls_total{kind="target"} 1"#,
            r#"sigward_would_refuse_total{rule="no-deletes"} 2"#,
            r##"sigward_would_refuse_total{rule="#2"} 2"##,
        ] {
            assert!(text.contains(&format!("{expected}\n")), "{text}");
        }
    }

    #[test]
    fn what_a_client_makes_up_does_not_grow_the_labels_for_ever() {
        let metrics = Metrics::new();
        for number in 0..2 * MOST_SERVICES {
            let record = Record { service: Some(format!("made-up-{number}").into()), ..Record::default() };
            metrics.count(&record, Some("403"), Duration::ZERO);
        }
        let text = TextEncoder::new().encode_to_string(&metrics.gather(&Live::default(), Duration::ZERO)).unwrap();
        let series = text.lines().filter(|line| line.starts_with("sigward_requests_total{")).count();
        assert_eq!(series, MOST_SERVICES + 1);
        assert!(text.contains(&format!("sigward_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    }
}
