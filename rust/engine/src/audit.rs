//! The audit log: a JSON line for each call, told when it is over or its client has gone: who, as whom, what, on which resource, and what
//! was decided. [`UnderWay`](crate::job::UnderWay) tells of calls, for every front.
//!
//! Before a call goes out for the first time there is another line, `begun` (`audit_begun`), so that a process that is killed leaves a
//! trace of what it had sent. Both lines have the same `call_id`. What is signed waits until that line is written; what would go out
//! anyway, because nobody's keys are used or because lines may be lost, does not.
//!
//! Identity and provider are told and no access key id: AWS's trail has it beside the request id, and what names no key cannot leak one.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use sigward_gateway::settings::{AuditFull, EngineSettings};
use sigward_gateway::{Identities, Record, RequestHead};

use crate::lines::{Line, LineLog, Terms, Trouble};

/// The line of a call that is under way.
#[derive(Debug)]
pub(crate) struct Call {
    line: Line,
    /// What its lines are joined by, once there is one.
    id: Option<u64>,
    /// It went out because the log had room when it came: the log takes it, whatever there is by now.
    pub(crate) accepted: bool,
}

/// Where it goes by the settings, and what becomes of lines that cannot be written.
pub(crate) fn terms(settings: &EngineSettings) -> Terms {
    let trouble = match settings.audit_when_full {
        AuditFull::Refuse => Trouble::Keep,
        AuditFull::Drop => Trouble::Lose,
    };
    Terms { to: settings.audit_log.clone(), trouble }
}

/// True if calls are signed although the log cannot record them.
pub(crate) fn may_lose(settings: &EngineSettings) -> bool {
    settings.audit_when_full == AuditFull::Drop
}

/// Begins a call's line, if the log is on.
pub(crate) fn begin(log: &LineLog, head: &RequestHead) -> Option<Call> {
    log.is_on().then(|| Call { line: Line::begin(head, SystemTime::now()), id: None, accepted: false })
}

impl Call {
    pub(crate) fn traced(self, id: Option<&str>) -> Self {
        Self { line: self.line.traced(id), ..self }
    }

    /// True if its first line is made.
    pub(crate) fn has_begun(&self) -> bool {
        self.id.is_some()
    }

    /// The log does not have it.
    pub(crate) fn has_no_beginning(&mut self) {
        self.id = None;
    }

    /// The line that comes before it goes out.
    pub(crate) fn begun(&mut self, id: u64, record: &Record, identities: &Identities) -> Line {
        self.id = Some(id);
        let mut line = self.line.clone();
        line.raw(b",\"begun\":true");
        found(&mut line, self.id, record, identities);
        line
    }

    /// It has been answered.
    pub(crate) fn answered(mut self, log: &LineLog, record: &Record, identities: &Identities, status: StatusCode, headers: &HeaderMap) {
        found(&mut self.line, self.id, record, identities);
        self.line.raw(b",\"status\":");
        self.line.number(status.as_u16().into());
        self.line.answer(record, headers);
        self.end(log, record);
    }

    /// Its client has gone before; what was sent may have been done all the same.
    pub(crate) fn gone(mut self, log: &LineLog, record: &Record, identities: &Identities) {
        found(&mut self.line, self.id, record, identities);
        self.line.text("error", "client-gone");
        self.end(log, record);
    }

    fn end(self, log: &LineLog, record: &Record) {
        let Self { mut line, accepted, .. } = self;
        line.raw(b",\"attempts\":");
        line.number(record.attempts.len() as u64);
        log.push(line, accepted);
    }
}

fn found(line: &mut Line, id: Option<u64>, record: &Record, identities: &Identities) {
    if let Some(id) = id {
        line.raw(b",\"call_id\":\"");
        line.hexadecimal(id);
        line.raw(b"\"");
    }
    line.text("decision", record.disposition.as_str());
    line.decided(record);
    line.found(record);
    if let Some(identity) = record.identity.as_ref().filter(|_| record.signatures > 0).and_then(|name| identities.get(name)) {
        line.text("provider", &identity.provider);
    }
    line.resource(record);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use serde_json::{Value, json};
    use sigward_gateway::Disposition;

    use super::*;
    use crate::lines::tests::{Told, denied, head, log_to, next};

    fn line(record: &Record, status: StatusCode) -> Value {
        let (sender, told) = channel();
        let log = log_to(Told(sender), Trouble::Keep);
        begin(&log, &head("/")).unwrap().answered(&log, record, &Identities::default(), status, &HeaderMap::new());
        serde_json::from_slice(&next(&told)).unwrap()
    }

    #[test]
    fn a_denied_call_is_described_as_fully_as_a_signed_one() {
        let mut line = line(&denied(), StatusCode::FORBIDDEN);
        for varies in ["time", "client", "method", "host", "path"] {
            line.as_object_mut().unwrap().remove(varies);
        }
        let expected = json!({
            "decision": "deny", "route": "no-\"deletes", "service": "dynamodb", "operation": "DeleteTable", "region": "us-east-1",
            "identity": "default", "issued_client": "batch", "resource": "TableName=orders", "status": 403, "error": "denied",
            "reason": "route no-\"deletes denies it. Ask.", "request_id": "sigward-1", "attempts": 0,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn the_line_before_a_call_and_the_one_after_it_are_joined() {
        let (sender, told) = channel();
        let log = log_to(Told(sender), Trouble::Keep);
        let mut call = begin(&log, &head("/")).unwrap();
        assert!(!call.has_begun());
        let record = Record { disposition: Disposition::Sign, error: None, reason: None, request_id: None, ..denied() };
        log.push(call.begun(0xabc, &record, &Identities::default()), false);
        assert!(call.has_begun());
        call.answered(&log, &record, &Identities::default(), StatusCode::OK, &HeaderMap::new());
        log.close();
        let written: Vec<u8> = told.try_iter().flatten().collect();
        let mut lines: Vec<Value> =
            written.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        let (mut ended, mut begun) = (lines.pop().unwrap(), lines.pop().unwrap());
        assert_eq!((&begun["begun"], &begun["call_id"]), (&json!(true), &json!("0000000000000abc")));
        begun.as_object_mut().unwrap().remove("begun");
        for of_the_end in ["status", "attempts"] {
            ended.as_object_mut().unwrap().remove(of_the_end).unwrap();
        }
        assert_eq!(begun, ended);
    }

    #[test]
    fn every_disposition_has_what_is_known_of_the_call() {
        for disposition in [Disposition::Sign, Disposition::Pass, Disposition::Deny, Disposition::Refuse] {
            let line = line(
                &Record { disposition, ambiguous: Some("query"), would_refuse: vec![("#1".into(), "bucket")], ..denied() },
                StatusCode::OK,
            );
            assert_eq!(line["decision"], disposition.as_str());
            for known in ["route", "service", "operation", "region", "identity", "issued_client", "resource", "reason"] {
                assert!(line[known].is_string(), "{known} of {}", disposition.as_str());
            }
            assert_eq!((&line["ambiguous"], &line["would_refuse"]), (&json!("query"), &json!([{"rule": "#1", "unknown": "bucket"}])));
        }
    }

    #[test]
    fn a_resource_shows_no_secret() {
        let resource = "https://me:abc@sqs.us-east-1.amazonaws.com/1/q?X-Amz-Signature=abc&X-Amz-Security-Token=abc";
        let line = line(&Record { resource: Some(resource.into()), ..denied() }, StatusCode::FORBIDDEN);
        assert!(!line.to_string().contains("abc"), "{line}");
        assert!(line["resource"].as_str().unwrap().starts_with("https://redacted@sqs.us-east-1.amazonaws.com/1/q?"));
    }
}
