//! What an exchange has noted, as spans: one of the server for the request, below it one for each wait and each attempt.
//!
//! Attributes are those of OpenTelemetry's semantic conventions for HTTP, RPC and the AWS SDK; `sigward.` stands before our own. None holds
//! a query, a header's value but the request id, or a body.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use sigward_gateway::record::{Attempt, Reason, Wait};
use sigward_gateway::{Disposition, Record, Upstream};

use super::{Trace, attribute, nanos, text};
use crate::lines::request_id;

/// A trace's flag: sampled (OTLP, `Span.flags`; W3C Trace Context).
const SAMPLED: u32 = 1;

/// A request that is over.
#[derive(Debug)]
pub(super) struct Finished {
    trace: Box<Trace>,
    took: Duration,
    status: u16,
    error: Option<&'static str>,
    disposition: Disposition,
    /// botocore's name of the service, or the signing name; the operation's name.
    service: Option<Arc<str>>,
    operation: Option<Box<str>>,
    region: Option<Arc<str>>,
    identity: Option<Arc<str>>,
    client: Option<Arc<str>>,
    route: Option<Arc<str>>,
    ambiguous: Option<&'static str>,
    would_refuse: Vec<(Arc<str>, &'static str)>,
    /// Of a call that sigward did not let pass, or answered itself.
    resource: Option<Box<str>>,
    reason: Option<Box<str>>,
    rule: Option<Arc<str>>,
    request_id: Option<Box<str>>,
    upstream: Option<Arc<Upstream>>,
    waits: Vec<Wait>,
    attempts: Vec<Attempt>,
}

impl Finished {
    pub(super) fn new(trace: Box<Trace>, record: &Record, code: Option<&'static str>, headers: &HeaderMap, took: Duration) -> Self {
        let operation = record.operation.as_ref();
        Self {
            trace,
            took,
            status: record.status,
            error: code.or(record.error),
            disposition: record.disposition,
            service: operation.map(|operation| Arc::clone(&operation.service)).or_else(|| record.service.clone()),
            operation: operation.map(|operation| operation.name.clone()),
            region: record.region.clone(),
            identity: record.identity.clone(),
            client: record.client.clone(),
            route: record.route.clone(),
            ambiguous: record.ambiguous,
            would_refuse: record.would_refuse.clone(),
            resource: record.shown_resource().filter(|_| record.error.is_some()).map(|resource| (*resource).into()),
            reason: record.reason().map(Into::into),
            rule: record.pace_rule.clone(),
            request_id: request_id(record, headers).map(Into::into),
            upstream: record.upstream.clone(),
            waits: record.waits.clone(),
            attempts: record.attempts.clone(),
        }
    }

    /// How many spans it becomes.
    pub(super) fn count(&self) -> usize {
        1 + self.waits.len() + self.attempts.len()
    }

    /// `fresh`: an id for each span below the request's.
    pub(super) fn spans(&self, mut fresh: impl FnMut() -> [u8; 8]) -> Vec<Span> {
        let mut spans = vec![self.request()];
        for wait in &self.waits {
            let name = match wait.reason {
                Reason::Pace => "pace",
                Reason::Credentials => "credentials",
            };
            let rule = self.rule.as_ref().filter(|_| wait.reason == Reason::Pace);
            let identity = self.identity.as_ref().filter(|_| wait.reason == Reason::Credentials);
            let attributes = [("sigward.rule", rule), ("sigward.identity", identity)];
            let attributes = attributes.into_iter().filter_map(|(key, value)| Some(text(key, value?))).collect();
            spans.push(self.below(fresh(), name, SpanKind::Internal, wait.began, wait.took, attributes));
        }
        for (resent, attempt) in (0..).zip(&self.attempts) {
            spans.push(self.attempt(fresh(), resent, attempt));
        }
        spans
    }

    fn request(&self) -> Span {
        let Trace { context, span, asked, .. } = &*self.trace;
        let (service, operation) = (self.service.as_deref(), self.operation.as_deref());
        let name = match (service, operation) {
            (Some(service), Some(operation)) => format!("{service}/{operation}"),
            _ => asked.method.clone(),
        };
        let mut attributes = vec![
            text("http.request.method", &asked.method),
            text("url.scheme", asked.scheme),
            text("url.path", &asked.path),
            text("server.address", &asked.host),
            number("server.port", asked.port.into()),
            text("client.address", &asked.client),
            text("sigward.action", self.disposition.as_str()),
        ];
        if self.status > 0 {
            attributes.push(number("http.response.status_code", self.status.into()));
        }
        if service.is_some() {
            attributes.push(text("rpc.system", "aws-api"));
        }
        let failed = self.error.is_some() || self.status >= 500;
        let kind = self.error.map(str::to_owned).or_else(|| failed.then(|| self.status.to_string()));
        for (key, value) in [
            ("rpc.service", service),
            ("rpc.method", operation),
            ("aws.request_id", self.request_id.as_deref()),
            ("cloud.region", self.region.as_deref()),
            ("sigward.identity", self.identity.as_deref()),
            ("sigward.client", self.client.as_deref()),
            ("sigward.route", self.route.as_deref()),
            ("sigward.resource", self.resource.as_deref()),
            ("sigward.reason", self.reason.as_deref()),
            ("sigward.ambiguous", self.ambiguous),
            ("error.type", kind.as_deref()),
        ] {
            attributes.extend(value.map(|value| text(key, value)));
        }
        if !self.would_refuse.is_empty() {
            let rules = self.would_refuse.iter().map(|(rule, unknown)| format!("{rule}: {unknown}"));
            let values = rules.map(|rule| AnyValue { value: Some(Value::StringValue(rule)) }).collect();
            attributes.push(attribute("sigward.would_refuse", Value::ArrayValue(ArrayValue { values })));
        }
        // What a client did wrong is no error of the server's.
        let error = self.status == 0 || self.status >= 500;
        Span {
            span_id: span.to_vec(),
            parent_span_id: context.parent.map(Vec::from).unwrap_or_default(),
            ..self.span(name, SpanKind::Server, self.trace.began.1, self.took, attributes, error)
        }
    }

    fn attempt(&self, id: [u8; 8], resent: i64, attempt: &Attempt) -> Span {
        let asked = &self.trace.asked;
        let mut attributes = vec![text("http.request.method", &asked.method)];
        if let Some(upstream) = attempt.upstream.as_ref().or(self.upstream.as_ref()) {
            let target = &upstream.target;
            attributes.push(text("server.address", &target.host));
            attributes.push(number("server.port", target.port.into()));
            attributes.push(text("url.full", &format!("{}://{}{}", target.scheme.as_str(), target.authority(), asked.path)));
        }
        if resent > 0 {
            attributes.push(number("http.request.resend_count", resent));
            attributes.push(attribute("sigward.waited", Value::DoubleValue(attempt.waited.as_secs_f64())));
        }
        let status: Option<u16> = attempt.outcome.get(..3).and_then(|code| code.parse().ok());
        attributes.extend(status.map(|status| number("http.response.status_code", status.into())));
        let failed = status.is_none_or(|status| status >= 400);
        if failed {
            attributes.push(text("error.type", &attempt.outcome));
        }
        let mut span = self.below(id, &asked.method, SpanKind::Client, attempt.began, attempt.took, attributes);
        span.status = status_of(failed);
        span
    }

    fn below(&self, id: [u8; 8], name: &str, kind: SpanKind, began: Duration, took: Duration, attributes: Vec<KeyValue>) -> Span {
        let span = self.span(name.to_owned(), kind, began, took, attributes, false);
        Span { span_id: id.to_vec(), parent_span_id: self.trace.span.to_vec(), ..span }
    }

    fn span(&self, name: String, kind: SpanKind, began: Duration, took: Duration, attributes: Vec<KeyValue>, error: bool) -> Span {
        let Trace { context, began: (wall, since_start), .. } = &*self.trace;
        let start = *wall + began.saturating_sub(*since_start);
        Span {
            trace_id: context.trace.to_vec(),
            trace_state: context.state.clone(),
            flags: SAMPLED,
            name,
            kind: kind.into(),
            start_time_unix_nano: nanos(start),
            end_time_unix_nano: nanos(start + took),
            attributes,
            status: status_of(error),
            ..Span::default()
        }
    }
}

fn status_of(error: bool) -> Option<Status> {
    error.then(|| Status { code: StatusCode::Error.into(), ..Status::default() })
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::context::Context;
    use super::super::{Asked, Trace};
    use super::*;
    use crate::lines::tests::denied;

    fn attributes(record: &Record) -> Vec<KeyValue> {
        let context = Context { trace: [1; 16], parent: None, sampled: true, state: String::new() };
        let trace = Trace { context, span: [2; 8], began: (SystemTime::UNIX_EPOCH, Duration::ZERO), asked: Asked::default() };
        let finished = Finished::new(Box::new(trace), record, None, &HeaderMap::new(), Duration::ZERO);
        finished.spans(|| [3; 8]).remove(0).attributes
    }

    #[test]
    fn a_denied_call_is_described_as_fully_as_a_signed_one() {
        let told = attributes(&denied());
        for expected in [
            text("sigward.action", "deny"),
            text("sigward.route", "no-\"deletes"),
            text("rpc.service", "dynamodb"),
            text("rpc.method", "DeleteTable"),
            text("cloud.region", "us-east-1"),
            text("sigward.identity", "default"),
            text("sigward.client", "batch"),
            text("sigward.resource", "TableName=orders"),
            text("sigward.reason", "route no-\"deletes denies it. Ask."),
            text("error.type", "denied"),
            number("http.response.status_code", 403),
        ] {
            assert!(told.contains(&expected), "{expected:?} in {told:?}");
        }
    }

    #[test]
    fn what_is_unknown_of_a_call_is_told() {
        let would_refuse = vec![("#1".into(), "bucket"), ("a".into(), "operation")];
        let told = attributes(&Record { would_refuse, ambiguous: Some("target"), error: None, ..denied() });
        let values = ["#1: bucket", "a: operation"].map(|rule| AnyValue { value: Some(Value::StringValue(rule.to_owned())) });
        let rules = attribute("sigward.would_refuse", Value::ArrayValue(ArrayValue { values: values.to_vec() }));
        assert!(told.contains(&rules) && told.contains(&text("sigward.ambiguous", "target")), "{told:?}");
        assert!(told.iter().all(|one| one.key != "sigward.resource"), "of what is not refused, the audit log has it");
    }
}
