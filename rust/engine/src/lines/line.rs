//! One line of JSON, written by hand: a log's line costs less than the request's signature.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use http::header::HOST;
use http::{HeaderMap, HeaderName};
use sigward_gateway::{Record, RequestHead};
use sigward_sigv4::time::amz_date;

/// A request id of an upstream is not longer.
const LONGEST_ID: usize = 256;

/// The line of a request that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Line(pub(super) Vec<u8>);

impl Line {
    /// Who asks for what: never the query, which may hold a signature and much else that is nobody's business.
    pub(crate) fn begin(head: &RequestHead, now: SystemTime) -> Self {
        let mut line = Self(Vec::with_capacity(512));
        line.time(now);
        line.text("client", &head.client);
        line.text("method", head.method.as_str());
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(&head.target.host);
        // Who writes a password before it gets no answer; it is not for the log all the same.
        line.text("host", host.rsplit('@').next().unwrap_or_default());
        line.text("path", head.path.split(['?', '#']).next().unwrap_or_default());
        line
    }

    /// What the request was found to be.
    pub(crate) fn found(&mut self, record: &Record) {
        let operation = record.operation.as_ref().map(|operation| &*operation.name);
        for (name, value) in [
            ("service", record.service.as_deref()),
            ("operation", operation),
            ("region", record.region.as_deref()),
            ("identity", record.identity.as_deref()),
            ("issued_client", record.client.as_deref()),
        ] {
            if let Some(value) = value {
                self.text(name, value);
            }
        }
    }

    /// What the rules made of it.
    pub(crate) fn decided(&mut self, record: &Record) {
        if let Some(route) = &record.route {
            self.text("route", route);
        }
        if let Some(kind) = record.ambiguous {
            self.text("ambiguous", kind);
        }
        let mut before: &[u8] = b",\"would_refuse\":[";
        for (rule, unknown) in &record.would_refuse {
            self.raw(before);
            self.raw(b"{\"rule\":\"");
            self.escaped(rule);
            self.raw(b"\",\"unknown\":\"");
            self.escaped(unknown);
            self.raw(b"\"}");
            before = b",";
        }
        if !record.would_refuse.is_empty() {
            self.raw(b"]");
        }
    }

    /// What the call is for, as far as it is known.
    pub(crate) fn resource(&mut self, record: &Record) {
        if let Some(resource) = record.shown_resource() {
            self.text("resource", &resource);
        }
    }

    /// What sigward's own error is, and what the request is called: by AWS, or by sigward where that has answered.
    pub(crate) fn answer(&mut self, record: &Record, headers: &HeaderMap) {
        if let Some(error) = record.error {
            self.text("error", error);
        }
        if let Some(reason) = record.reason() {
            self.text("reason", reason);
        }
        if let Some(id) = request_id(record, headers) {
            self.text("request_id", id);
        }
    }

    /// The trace that it is part of, if there is one.
    pub(crate) fn traced(mut self, id: Option<&str>) -> Self {
        if let Some(id) = id {
            self.text("trace_id", id);
        }
        self
    }

    pub(crate) fn end(&mut self) {
        self.0.extend_from_slice(b"}\n");
    }

    /// RFC 3339, UTC, with milliseconds. The first field.
    fn time(&mut self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let date = amz_date(since.as_secs()).unwrap_or(*b"99991231T235959Z");
        let [y1, y2, y3, y4, m1, m2, d1, d2, t, h1, h2, i1, i2, s1, s2, z] = date;
        self.0.extend_from_slice(b"{\"time\":\"");
        self.0.extend_from_slice(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, t, h1, h2, b':', i1, i2, b':', s1, s2]);
        self.fraction(since.subsec_millis());
        self.0.extend_from_slice(&[z, b'"']);
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":\"");
        self.escaped(value);
        self.0.push(b'"');
    }

    /// As RFC 8259, section 7 has it; and no control character reaches a terminal.
    pub(crate) fn escaped(&mut self, value: &str) {
        let is_plain = |byte: u8| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\');
        // Without an end in between, many bytes are looked at at once.
        if value.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            return self.0.extend_from_slice(value.as_bytes());
        }
        for letter in value.chars() {
            match letter {
                '"' => self.0.extend_from_slice(b"\\\""),
                '\\' => self.0.extend_from_slice(b"\\\\"),
                letter if letter.is_control() => {
                    // All of them are below U+00A0.
                    let _ = write!(self.0, "\\u{:04x}", u32::from(letter));
                }
                letter => self.0.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// With microseconds behind the point.
    pub(crate) fn milliseconds(&mut self, before: &str, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(before.as_bytes());
        self.number(micros / 1000);
        self.fraction((micros % 1000) as u32);
    }

    /// `.007`
    fn fraction(&mut self, thousandths: u32) {
        let digit = |number: u32| b'0' + (number % 10) as u8;
        self.0.extend_from_slice(&[b'.', digit(thousandths / 100), digit(thousandths / 10), digit(thousandths)]);
    }

    /// Sixteen digits.
    pub(crate) fn hexadecimal(&mut self, number: u64) {
        let _ = write!(self.0, "{number:016x}");
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut from = digits.len();
        for place in digits.iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
            from -= 1;
            if number == 0 {
                break;
            }
        }
        self.0.extend_from_slice(digits.get(from..).unwrap_or_default());
    }
}

/// What a request is called in the logs and towards its client.
pub(crate) fn request_id<'a>(record: &'a Record, headers: &'a HeaderMap) -> Option<&'a str> {
    const IDS: [HeaderName; 2] = [HeaderName::from_static("x-amzn-requestid"), HeaderName::from_static("x-amz-request-id")];
    if let Some(id) = &record.request_id {
        return Some(id);
    }
    let id = IDS.iter().find_map(|name| headers.get(name))?;
    id.to_str().ok().filter(|id| id.len() <= LONGEST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (number, said) in [(0, "0"), (7, "7"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            let mut line = Line(Vec::new());
            line.number(number);
            assert_eq!(line.0, said.as_bytes());
        }
    }
}
