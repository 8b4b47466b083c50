//! Metrics in Prometheus's text format 0.0.4.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use sigward_gateway::{Disposition, Record};

/// More services than AWS has; beyond it a client is making names up, and they are counted together.
const MOST_SERVICES: usize = 600;

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    signatures: IntCounterVec,
    retries: IntCounterVec,
    expiry: GaugeVec,
    pub(crate) in_flight: IntGauge,
    services: Mutex<HashSet<String>>,
}

impl Metrics {
    #[allow(clippy::expect_used, reason = "constant names; a test builds it")]
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("the metric's name and labels are well-formed")
        };
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let metrics = Self {
            requests: counter(
                "sigward_requests_total",
                "Requests answered, by what the client got.",
                &["service", "operation", "region", "identity", "action", "code"],
            ),
            duration: HistogramVec::new(
                HistogramOpts::new("sigward_request_duration_seconds", "From a request's head to its answer's head.").buckets(buckets),
                &["service"],
            )
            .expect("the histogram is well-formed"),
            signatures: counter("sigward_signatures_total", "Signatures made.", &["service", "region", "identity"]),
            retries: counter("sigward_retries_total", "Attempts after the first.", &["service", "cause"]),
            expiry: GaugeVec::new(
                Opts::new("sigward_credentials_expiry_timestamp_seconds", "When an identity's credentials expire; +Inf: never."),
                &["identity"],
            )
            .expect("the gauge is well-formed"),
            in_flight: IntGauge::new("sigward_in_flight_requests", "Requests under way.").expect("the gauge is well-formed"),
            services: Mutex::default(),
            registry,
        };
        let build = prometheus::IntGaugeVec::new(Opts::new("sigward_build_info", "The version, as a label."), &["version"])
            .expect("the gauge is well-formed");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for collector in [
            Box::new(metrics.requests.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(metrics.duration.clone()),
            Box::new(metrics.signatures.clone()),
            Box::new(metrics.retries.clone()),
            Box::new(metrics.expiry.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(build),
        ] {
            metrics.registry.register(collector).expect("each metric is registered once");
        }
        metrics
    }

    pub(crate) fn credentials_expire(&self, identity: &str, at: Option<f64>) {
        self.expiry.with_label_values(&[identity]).set(at.unwrap_or(f64::INFINITY));
    }

    /// Counts one exchange. `code`: the status, or what took its place (`client-gone`).
    pub(crate) fn count(&self, record: &Record, code: &str, took: Duration) {
        let service = self.bounded(record.service.as_deref().unwrap_or_default());
        let region = record.region.as_deref().unwrap_or_default();
        let identity = record.identity.as_deref().unwrap_or_default();
        // An unknown region's name is the client's too.
        let region = if service == "other" { "other" } else { region };
        // The table's names alone: what a client makes up is no operation.
        let operation = record.operation.as_ref().map_or("", |operation| &*operation.name);
        self.requests.with_label_values(&[service.as_str(), operation, region, identity, record.disposition.as_str(), code]).inc();
        self.duration.with_label_values(&[service.as_str()]).observe(took.as_secs_f64());
        if record.disposition == Disposition::Sign && record.signatures > 0 {
            self.signatures.with_label_values(&[service.as_str(), region, identity]).inc_by(u64::from(record.signatures));
        }
        let retried = record.attempts.len().saturating_sub(1);
        for attempt in record.attempts.iter().take(retried) {
            self.retries.with_label_values(&[service.as_str(), attempt.outcome.as_str()]).inc();
        }
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

    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_makes_up_does_not_grow_the_labels_for_ever() {
        let metrics = Metrics::new();
        for number in 0..2 * MOST_SERVICES {
            let record = Record { service: Some(format!("made-up-{number}").into()), ..Record::default() };
            metrics.count(&record, "403", Duration::ZERO);
        }
        let text = metrics.text();
        let series = text.lines().filter(|line| line.starts_with("sigward_requests_total{")).count();
        assert_eq!(series, MOST_SERVICES + 1);
        assert!(text.contains(&format!("sigward_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    }
}
