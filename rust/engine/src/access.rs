//! The access log: a JSON line for each request. [`UnderWay`](crate::job::UnderWay) tells of requests, for every front.
//!
//! A line tells nothing that is secret: no query, no header but Host and the answer's request id, no body.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use sigward_gateway::{BodySize, Record, RequestHead};

use crate::lines::{Line, LineLog};

/// Begins a request's line, if the log is on.
pub(crate) fn begin(log: &LineLog, head: &RequestHead) -> Option<Line> {
    log.is_on().then(|| begun(head, SystemTime::now()))
}

fn begun(head: &RequestHead, now: SystemTime) -> Line {
    let mut line = Line::begin(head, now);
    if let BodySize::Known(size) = head.body {
        line.raw(b",\"request_bytes\":");
        line.number(size);
    }
    line
}

/// Ends the line of a request that has been answered. `took`: until the answer's head.
pub(crate) fn answered(log: &LineLog, mut line: Line, record: &Record, status: StatusCode, headers: &HeaderMap, took: Duration) {
    line.raw(b",\"status\":");
    line.number(status.as_u16().into());
    line.text("action", record.disposition.as_str());
    line.decided(record);
    line.found(record);
    // The audit log has every call's.
    if record.error.is_some() {
        line.resource(record);
    }
    line.answer(record, headers);
    waits(&mut line, record);
    end(log, line, took);
}

/// Ends the line of one whose client has gone before.
pub(crate) fn gone(log: &LineLog, mut line: Line, record: &Record, took: Duration) {
    line.decided(record);
    line.found(record);
    line.text("error", "client-gone");
    waits(&mut line, record);
    end(log, line, took);
}

fn end(log: &LineLog, mut line: Line, took: Duration) {
    line.milliseconds(",\"ms\":", took);
    log.push(line, false);
}

fn waits(line: &mut Line, record: &Record) {
    if !record.attempts.is_empty() {
        attempts(line, record);
    }
    if !record.paced.is_zero() {
        line.milliseconds(",\"paced_ms\":", record.paced);
    }
}

fn attempts(line: &mut Line, record: &Record) {
    let mut waited = Duration::ZERO;
    let mut before = ",\"attempts\":[";
    for attempt in &record.attempts {
        line.raw(before.as_bytes());
        line.raw(b"{\"outcome\":\"");
        line.escaped(&attempt.outcome);
        line.milliseconds("\",\"ms\":", attempt.took);
        line.raw(b"}");
        waited += attempt.waited;
        before = ",";
    }
    line.raw(b"]");
    if !waited.is_zero() {
        line.milliseconds(",\"waited_ms\":", waited);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::mpsc::channel;

    use http::HeaderValue;
    use http::header::HOST;
    use serde_json::{Value, json};
    use sigward_gateway::Disposition;
    use sigward_gateway::record::Attempt;

    use super::*;
    use crate::lines::Trouble;
    use crate::lines::tests::{Told, denied, head, log_to, next};

    #[test]
    fn a_line_has_all_that_there_is_to_tell() {
        let (sender, told) = channel();
        let log = log_to(Told(sender), Trouble::Lose);
        let mut asked = head("/a%20key?X-Amz-Signature=abc");
        asked.headers.insert(HOST, HeaderValue::from_static("me:pass@b.s3.us-east-1.amazonaws.com"));
        let attempt = |outcome: &'static str, took, waited| Attempt {
            outcome: Cow::Borrowed(outcome),
            took: Duration::from_micros(took),
            waited: Duration::from_micros(waited),
            began: Duration::ZERO,
            upstream: None,
        };
        let record = Record {
            disposition: Disposition::Sign,
            service: Some("s3".into()),
            region: Some("us-east-1".into()),
            identity: Some("default".into()),
            client: Some("batch".into()),
            attempts: vec![attempt("503 throttled", 7, 0), attempt("200", 12_345, 50_000)],
            paced: Duration::from_micros(1_250),
            ..Record::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-request-id", HeaderValue::from_static("ID\"1\""));
        let line = begun(&asked, SystemTime::UNIX_EPOCH + Duration::from_millis(1_440_938_160_007));
        answered(&log, line, &record, StatusCode::OK, &headers, Duration::from_micros(63_602));
        let expected = json!({
            "time": "2015-08-30T12:36:00.007Z", "client": "127.0.0.1", "method": "POST", "host": "b.s3.us-east-1.amazonaws.com",
            "path": "/a%20key", "request_bytes": 3, "status": 200, "action": "sign", "service": "s3", "region": "us-east-1",
            "identity": "default", "issued_client": "batch", "request_id": "ID\"1\"",
            "attempts": [{"outcome": "503 throttled", "ms": 0.007}, {"outcome": "200", "ms": 12.345}],
            "waited_ms": 50.0, "paced_ms": 1.25, "ms": 63.602,
        });
        assert_eq!(serde_json::from_slice::<Value>(&next(&told)).unwrap(), expected);

        let refused = Record { error: Some("no-credentials"), request_id: Some("sigward-1".into()), ..Record::default() };
        answered(&log, begin(&log, &head("/")).unwrap(), &refused, StatusCode::FORBIDDEN, &HeaderMap::new(), Duration::ZERO);
        let line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        assert_eq!((&line["error"], &line["status"], &line["request_id"]), (&json!("no-credentials"), &json!(403), &json!("sigward-1")));

        gone(&log, begin(&log, &head("/")).unwrap(), &Record::default(), Duration::ZERO);
        let line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        assert_eq!((&line["error"], line.get("status")), (&json!("client-gone"), None));
    }

    #[test]
    fn a_denied_call_is_described_as_fully_as_a_signed_one() {
        let (sender, told) = channel();
        let log = log_to(Told(sender), Trouble::Lose);
        answered(&log, begin(&log, &head("/")).unwrap(), &denied(), StatusCode::FORBIDDEN, &HeaderMap::new(), Duration::ZERO);
        let mut line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        for varies in ["time", "client", "method", "host", "path", "request_bytes", "ms"] {
            line.as_object_mut().unwrap().remove(varies);
        }
        let expected = json!({
            "status": 403, "action": "deny", "route": "no-\"deletes", "service": "dynamodb", "operation": "DeleteTable", "region": "us-east-1",
            "identity": "default", "issued_client": "batch", "resource": "TableName=orders", "error": "denied",
            "reason": "route no-\"deletes denies it. Ask.", "request_id": "sigward-1",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn what_a_rule_would_have_refused_is_told_of_what_is_let_pass() {
        let (sender, told) = channel();
        let log = log_to(Told(sender), Trouble::Lose);
        let record = Record {
            disposition: Disposition::Sign,
            would_refuse: vec![("a\"b".into(), "operation"), ("#2".into(), "bucket")],
            resource: Some("TableName=orders".into()),
            ..Record::default()
        };
        answered(&log, begin(&log, &head("/")).unwrap(), &record, StatusCode::OK, &HeaderMap::new(), Duration::ZERO);
        let line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        let rules = json!([{"rule": "a\"b", "unknown": "operation"}, {"rule": "#2", "unknown": "bucket"}]);
        assert_eq!((&line["would_refuse"], line.get("resource"), line.get("reason")), (&rules, None, None));
        let record = Record { ambiguous: Some("target"), error: Some("ambiguous-call"), ..Record::default() };
        gone(&log, begin(&log, &head("/")).unwrap(), &record, Duration::ZERO);
        let line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        assert_eq!((&line["ambiguous"], line.get("would_refuse")), (&json!("target"), None));
    }
}
