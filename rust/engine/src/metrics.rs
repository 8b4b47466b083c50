//! Metrics in Prometheus's text format 0.0.4.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use sigward_gateway::circuit::State;
use sigward_gateway::quota::CAPACITY;
use sigward_gateway::{Config, Disposition, Identities, Live, Record};

use crate::descriptors;
use crate::lines::Counts;
use crate::validity::Validity;

/// Endpoints in trouble that are told of.
const MOST_ENDPOINTS: usize = 100;

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    ambiguous: IntCounterVec,
    would_refuse: IntCounterVec,
    passed: IntCounterVec,
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
    pub(crate) store_invalid: prometheus::IntCounter,
    pub(crate) store_unusable: IntGauge,
    pub(crate) in_flight: IntGauge,
    pub(crate) held_bytes: IntGauge,
    pub(crate) overloaded: prometheus::IntCounter,
    descriptors: GaugeVec,
    /// Connections to upstreams that wait for a request.
    pub(crate) idle_connections: IntGauge,
    /// Of them, those that were closed before their time, by reason.
    pub(crate) idle_closed: IntCounterVec,
    /// Connections of sigward's own that came back.
    pub(crate) loops: IntCounter,
    /// Of clients, tunnels among them.
    pub(crate) connections: IntGauge,
    /// Why a listener takes no connections for a while.
    pub(crate) accept_paused: IntCounterVec,
    /// Clients let go for being slow, by what they were slow at.
    pub(crate) slow_clients: IntCounterVec,
    /// Of clients, by reason.
    pub(crate) tls_failures: IntCounterVec,
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
    /// Without a label, and without a value where there is no such certificate.
    ca_expiry: GaugeVec,
    listener_expiry: GaugeVec,
    build: GaugeVec,
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
#[derive(Clone, Copy, Hash)]
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
            passed: counter(
                "sigward_passed_total",
                "Requests forwarded without a signature: `own-authorization`, the client authenticates them itself; `public`; `route`, by a rule; \
                 `unsigned-host`, not AWS's or not one that takes SigV4.",
                &["service", "reason"],
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
            store_invalid: single("sigward_pace_store_invalid_total", "Invalid entries and answers of the store of shared limits."),
            store_unusable: IntGauge::new(
                "sigward_pace_store_unusable_limits",
                "Shared limits for which the store grants no valid lease while calls wait; `pacing.share` applies.",
            )
            .expect("the gauge is well-formed"),
            in_flight: IntGauge::new("sigward_in_flight_requests", "Requests under way.").expect("the gauge is well-formed"),
            held_bytes: IntGauge::new("sigward_held_body_bytes", "Bytes of request bodies in memory.").expect("the gauge is well-formed"),
            overloaded: prometheus::IntCounter::new("sigward_overloaded_total", "Requests refused because too much was under way.")
                .expect("the counter is well-formed"),
            descriptors: gauge("sigward_descriptors", "File descriptors: `open`, and the `limit` of the process.", &["kind"]),
            idle_connections: IntGauge::new("sigward_idle_upstream_connections", "Connections to upstreams that wait for a request.")
                .expect("the gauge is well-formed"),
            idle_closed: counter(
                "sigward_idle_upstream_closed_total",
                "Idle connections to upstreams closed early: `bound`, there were too many; `descriptors` ran out.",
                &["reason"],
            ),
            loops: single("sigward_loops_total", "Tunnels and redirected connections refused because they lead back to sigward."),
            connections: IntGauge::new("sigward_client_connections", "Connections of clients to the native front, tunnels among them.")
                .expect("the gauge is well-formed"),
            accept_paused: counter(
                "sigward_accept_paused_total",
                "Times that a native listener took no connections for a while: `descriptors`: only those reserved for upstreams were left; `limit`: limits.connections \
                 was reached.",
                &["reason"],
            ),
            slow_clients: counter("sigward_slow_clients_total", "Connections closed because the client was slow.", &["at"]),
            tls_failures: counter(
                "sigward_tls_handshake_failures_total",
                "TLS handshakes of clients with the native front that failed: `untrusted`, the client does not trust the CA.",
                &["reason"],
            ),
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
            ca_expiry: gauge(
                "sigward_ca_expiry_seconds",
                "Seconds until the CA expires, by sigward's clock; the earliest certificate of its chain counts. Negative: it has expired.",
                &[],
            ),
            listener_expiry: gauge(
                "sigward_tls_certificate_expiry_seconds",
                "Seconds until the certificate of `tls.certificate` expires; negative: it has expired.",
                &[],
            ),
            build: gauge("sigward_build_info", "The version, as a label.", &["version"]),
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
            Box::new(self.passed.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.signatures.clone()),
            Box::new(self.attempts.clone()),
            Box::new(self.broken.clone()),
            Box::new(self.credentials_failures.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.expiry.clone()),
            Box::new(self.usable.clone()),
            Box::new(self.ca_expiry.clone()),
            Box::new(self.listener_expiry.clone()),
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
            Box::new(self.store_invalid.clone()),
            Box::new(self.store_unusable.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.held_bytes.clone()),
            Box::new(self.overloaded.clone()),
            Box::new(self.descriptors.clone()),
            Box::new(self.idle_connections.clone()),
            Box::new(self.idle_closed.clone()),
            Box::new(self.loops.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.accept_paused.clone()),
            Box::new(self.slow_clients.clone()),
            Box::new(self.tls_failures.clone()),
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
    pub(crate) fn count(&self, config: &Config, record: &Record, code: Option<&'static str>, took: Duration) -> IntCounter {
        let service = record.service.as_deref().unwrap_or_default();
        let region = record.region.as_deref().unwrap_or_default();
        let identity = record.identity.as_deref().unwrap_or_default();
        // The table's names alone: what a client makes up is no operation.
        let operation = record.operation.as_ref().map_or("", |operation| &*operation.name);
        let labels = Labels { service, operation, region, identity, action: record.disposition.as_str(), code, status: record.status };
        let series = self.series(config, labels);
        series.requests.inc();
        series.duration.observe(took.as_secs_f64());
        if record.disposition == Disposition::Sign && record.signatures > 0 {
            series.signatures.inc_by(u64::from(record.signatures));
        }
        if !record.attempts.is_empty() {
            series.attempts.inc_by(record.attempts.len() as u64);
        }
        if record.attempts.len() > 1 || record.pace_rule.is_some() || record.quota_empty || record.error.is_some() {
            self.count_trouble(config, record);
        }
        if let Some(kind) = record.ambiguous {
            self.ambiguous.with_label_values(&[kind]).inc();
        }
        if let Some(passed) = record.passed.filter(|_| record.disposition == Disposition::Pass) {
            self.passed.with_label_values(&[config.labels.service(&config.knowledge, service), passed.as_str()]).inc();
        }
        for (rule, _) in &record.would_refuse {
            self.would_refuse.with_label_values(&[&**rule]).inc();
        }
        series.broken.clone()
    }

    /// What most requests do not have.
    fn count_trouble(&self, config: &Config, record: &Record) {
        match record.error {
            Some("overloaded") => self.overloaded.inc(),
            Some("audit-log-unavailable") => self.audit_refused.inc(),
            _ => {}
        }
        let service = config.labels.service(&config.knowledge, record.service.as_deref().unwrap_or_default());
        let backoff: Duration = record.attempts.iter().map(|attempt| attempt.waited).sum();
        if !backoff.is_zero() {
            self.backoff.with_label_values(&[service]).observe(backoff.as_secs_f64());
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
            self.quota_empty.with_label_values(&[service]).inc();
        }
        let retried = record.attempts.len().saturating_sub(1);
        for attempt in record.attempts.iter().take(retried) {
            self.retries.with_label_values(&[service, &*attempt.outcome]).inc();
        }
    }

    /// The series that a request with these labels counts in. To find them by their labels costs more than to sign.
    fn series(&self, config: &Config, labels: Labels<'_>) -> Arc<Series> {
        if let Some(recent) = self.recent(&labels) {
            return recent;
        }
        // A name that a client made up has no series of its own, and takes no other's place among the recent ones.
        let labels = Labels {
            service: config.labels.service(&config.knowledge, labels.service),
            region: config.labels.region(&config.knowledge, labels.region),
            ..labels
        };
        if let Some(recent) = self.recent(&labels) {
            return recent;
        }
        let Labels { service, operation, region, identity, action, status, .. } = labels;
        let text = status.to_string();
        let code = labels.code.unwrap_or(&text);
        let series = Arc::new(Series {
            service: service.into(),
            operation: operation.into(),
            region: region.into(),
            identity: identity.into(),
            action,
            code: labels.code,
            status,
            requests: self.requests.with_label_values(&[service, operation, region, identity, action, code]),
            duration: self.duration.with_label_values(&[service]),
            signatures: self.signatures.with_label_values(&[service, region, identity]),
            attempts: self.attempts.with_label_values(&[service]),
            broken: self.broken.with_label_values(&[service]),
        });
        if let Some(place) = self.place(&labels) {
            place.store(Some(Arc::clone(&series)));
        }
        series
    }

    fn place(&self, labels: &Labels<'_>) -> Option<&ArcSwapOption<Series>> {
        let hash = self.hasher.hash_one(labels);
        self.recent.get(usize::try_from(hash).unwrap_or_default() % RECENT)
    }

    fn recent(&self, labels: &Labels<'_>) -> Option<Arc<Series>> {
        let recent = self.place(labels)?.load();
        recent.as_ref().filter(|recent| recent.is_for(labels)).map(Arc::clone)
    }

    /// What is looked up when it is asked for. `ready`: `/readyz` answers 200.
    pub(crate) fn state(&self, ready: bool, identities: &Identities, unix_seconds: u64) {
        self.ready.set(ready.into());
        self.descriptors.with_label_values(&["limit"]).set(descriptors::limit() as f64);
        if let Some(open) = descriptors::open() {
            self.descriptors.with_label_values(&["open"]).set(open as f64);
        }
        self.usable.reset();
        for (name, identity) in identities {
            self.usable.with_label_values(&[&**name]).set(if identity.usable(unix_seconds).is_some() { 1.0 } else { 0.0 });
        }
    }

    /// Of the CA and of the listeners' certificate.
    pub(crate) fn certificates(&self, validities: [Option<Validity>; 2], unix_seconds: u64) {
        for (gauge, validity) in [&self.ca_expiry, &self.listener_expiry].into_iter().zip(validities) {
            gauge.reset();
            if let Some(validity) = validity {
                #[allow(clippy::cast_precision_loss, reason = "a few centuries, in seconds")]
                gauge.with_label_values::<&str>(&[]).set(validity.left(unix_seconds) as f64);
            }
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
    use sigward_gateway::knowledge::Knowledge;
    use sigward_gateway::settings::EngineSettings;
    use sigward_gateway::{Attempt, Clients};

    use super::*;
    use crate::lines::tests::denied;

    #[test]
    fn a_denied_call_is_counted_with_all_that_is_known_of_it() {
        let metrics = Metrics::new();
        metrics.count(&config("{}"), &denied(), None, Duration::ZERO);
        let text = TextEncoder::new().encode_to_string(&metrics.gather(&Live::default(), Duration::ZERO)).unwrap();
        let labels = r#"action="deny",code="403",identity="default",operation="DeleteTable",region="us-east-1",service="dynamodb""#;
        assert!(text.contains(&format!("sigward_requests_total{{{labels}}} 1\n")), "{text}");
    }

    #[test]
    fn ambiguous_calls_and_what_a_rule_would_refuse_are_counted() {
        let metrics = Metrics::new();
        let would_refuse = vec![("no-deletes".into(), "operation"), ("#2".into(), "bucket")];
        metrics.count(&config("{}"), &Record { ambiguous: Some("target"), ..Record::default() }, None, Duration::ZERO);
        metrics.count(&config("{}"), &Record { would_refuse: would_refuse.clone(), ..Record::default() }, None, Duration::ZERO);
        // Whoever does not wait for the answer is counted too.
        metrics.count(&config("{}"), &Record { would_refuse, ..Record::default() }, Some("client-gone"), Duration::ZERO);
        let text = TextEncoder::new().encode_to_string(&metrics.gather(&Live::default(), Duration::ZERO)).unwrap();
        for expected in [
            r#"sigward_ambiguous_calls_total{kind="target"} 1"#,
            r#"sigward_would_refuse_total{rule="no-deletes"} 2"#,
            r##"sigward_would_refuse_total{rule="#2"} 2"##,
        ] {
            assert!(text.contains(&format!("{expected}\n")), "{text}");
        }
    }

    fn config(settings: &str) -> Config {
        let settings = EngineSettings::from_json(settings).unwrap();
        Config::new(settings, Knowledge::shipped().unwrap(), Clients::default(), Arc::default()).unwrap()
    }

    fn text(metrics: &Metrics) -> String {
        TextEncoder::new().encode_to_string(&metrics.gather(&Live::default(), Duration::ZERO)).unwrap()
    }

    fn called(service: &str, region: &str) -> Record {
        let attempt = |outcome: &'static str| Attempt {
            outcome: outcome.into(),
            took: Duration::ZERO,
            waited: Duration::from_secs(1),
            began: Duration::ZERO,
            upstream: None,
        };
        Record {
            service: Some(service.into()),
            region: Some(region.into()),
            identity: Some("default".into()),
            disposition: Disposition::Sign,
            signatures: 2,
            status: 200,
            quota_empty: true,
            attempts: vec![attempt("503"), attempt("200")],
            ..Record::default()
        }
    }

    #[test]
    fn what_clients_make_up_makes_no_series() {
        let (metrics, config) = (Metrics::new(), config("{}"));
        metrics.count(&config, &called("sqs", "us-east-1"), None, Duration::ZERO);
        metrics.count(&config, &called("other", "other"), None, Duration::ZERO);
        let lines = text(&metrics).lines().count();
        for number in 0..60_000_u32 {
            let letters: String = (0..4).map(|place| char::from(b'a' + u8::try_from((number >> (4 * place)) & 15).unwrap())).collect();
            metrics.count(&config, &called("sqs", &format!("us-{letters}-1")), None, Duration::ZERO);
            metrics.count(&config, &called(&format!("made-{letters}"), "us-east-1"), None, Duration::ZERO);
        }
        // `sqs` with another region, and another service with `us-east-1`: one series each of those that have a region.
        assert_eq!(text(&metrics).lines().count(), lines + 4);
        // Whatever came before it, a real name has its own.
        metrics.count(&config, &called("dynamodb", "eu-west-1"), None, Duration::ZERO);
        let text = text(&metrics);
        for line in [
            r#"sigward_requests_total{action="sign",code="200",identity="default",operation="",region="eu-west-1",service="dynamodb"} 1"#,
            r#"sigward_requests_total{action="sign",code="200",identity="default",operation="",region="other",service="sqs"} 60000"#,
            r#"sigward_signatures_total{identity="default",region="us-east-1",service="other"} 120000"#,
            r#"sigward_retries_total{cause="503",service="other"} 60001"#,
            r#"sigward_retry_quota_empty_total{service="dynamodb"} 1"#,
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
        assert!(text.contains(&format!("sigward_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn what_the_operator_names_has_series_of_its_own() {
        let metrics = Metrics::new();
        let named = config(r#"{"default_region": "xx-home-1", "routes": [{"host": "a.test", "service": "minio", "region": "xx-lab-1"}]}"#);
        for region in ["xx-home-1", "xx-lab-1", "*", "xx-else-1"] {
            metrics.count(&named, &called("minio", region), None, Duration::ZERO);
        }
        // Settings that change: what is not named any more is counted with the others from then on, or where it was.
        metrics.count(&config("{}"), &called("minio", "xx-new-1"), None, Duration::ZERO);
        let told = text(&metrics);
        let series: Vec<&str> = told.lines().filter(|line| line.starts_with("sigward_signatures_total{")).collect();
        assert_eq!(
            series,
            [
                r#"sigward_signatures_total{identity="default",region="*",service="minio"} 2"#,
                r#"sigward_signatures_total{identity="default",region="other",service="minio"} 2"#,
                r#"sigward_signatures_total{identity="default",region="other",service="other"} 2"#,
                r#"sigward_signatures_total{identity="default",region="xx-home-1",service="minio"} 2"#,
                r#"sigward_signatures_total{identity="default",region="xx-lab-1",service="minio"} 2"#,
            ]
        );
    }
}
