//! The access log: a JSON line for each request, written by a thread of its own. [`UnderWay`](crate::job::UnderWay) tells of requests, for
//! every front.
//!
//! A worker puts its line into memory and goes on; the writer takes all that has gathered there and writes it in one go. When the writer
//! cannot keep up, or is blocked, lines are dropped and counted: no request waits for a log. A line tells nothing that is secret: no
//! query, no header but Host and the answer's request id, no body.
//!
//! A file that is opened anew has a queue and a writer of its own; those before write what they have into the file that they have. So no
//! line is lost when a file is renamed and then opened anew, and a writer that is blocked holds up nobody but itself.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use http::header::HOST;
use http::{HeaderMap, StatusCode};
use prometheus::IntCounter;
use sigward_gateway::settings::AccessLog as Setting;
use sigward_gateway::{BodySize, Record, RequestHead};
use sigward_sigv4::time::amz_date;
use tracing::Dispatch;

/// So many lines wait for the writer at most.
const MOST_LINES: usize = 8192;
/// And so many bytes: a path can be long.
const MOST_BYTES: usize = 8 << 20;
/// The first line waits so long for others to be written with it.
const GATHER: Duration = Duration::from_millis(10);
/// A writer that has so many lines does not wait for more.
const PLENTY: usize = 1024;
/// The end waits so long for a writer that is blocked.
const PATIENCE: Duration = Duration::from_secs(1);
/// A pipe takes so much without mixing it with what others write: POSIX's `PIPE_BUF`, on Linux.
const WHOLE: usize = 4096;
/// A request id of an upstream is not longer.
const LONGEST_ID: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct AccessLog {
    current: ArcSwapOption<Queue>,
    /// Where it goes, and the queues that still write what they have.
    state: Mutex<(Setting, Vec<Arc<Queue>>)>,
    counts: Counts,
    /// Where it tells of trouble.
    log: Dispatch,
}

/// What is counted of it.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Lines.
    pub(crate) dropped: IntCounter,
    /// Writes that failed.
    pub(crate) errors: IntCounter,
}

/// A log that is open and not in use yet.
pub(crate) struct Opened {
    setting: Setting,
    queue: Option<Arc<Queue>>,
}

/// The line of a request that is under way.
#[derive(Debug)]
pub(crate) struct Line(Vec<u8>);

impl AccessLog {
    /// It is off.
    pub(crate) fn new(counts: Counts, log: Dispatch) -> Self {
        Self { current: ArcSwapOption::empty(), state: Mutex::new((Setting::Off, Vec::new())), counts, log }
    }

    /// Opens what the setting names; nothing changes yet. `None`: it is in use already. The error names the setting.
    pub(crate) fn open(&self, setting: &Setting) -> Result<Option<Opened>, String> {
        if self.state().0 == *setting {
            return Ok(None);
        }
        self.opened(setting).map(Some)
    }

    fn opened(&self, setting: &Setting) -> Result<Opened, String> {
        let (output, name) = match setting {
            Setting::Off => return Ok(Opened { setting: Setting::Off, queue: None }),
            Setting::Stderr => (Output::new(Box::new(io::stderr()), true), "stderr".to_owned()),
            Setting::File(path) => {
                let (file, is_pipe) = open_file(path).map_err(|error| format!("access_log: {}: {error}", path.display()))?;
                (Output::new(Box::new(file), is_pipe), path.display().to_string())
            }
        };
        let queue = self.start(output, name).map_err(|error| format!("access_log: no thread for it: {error}"))?;
        Ok(Opened { setting: setting.clone(), queue: Some(queue) })
    }

    fn start(&self, output: Output, name: String) -> io::Result<Arc<Queue>> {
        let queue = Arc::new(Queue::default());
        let writer = Writer { queue: Arc::clone(&queue), output, name, counts: self.counts.clone() };
        let log = self.log.clone();
        let work = move || tracing::dispatcher::with_default(&log, || writer.run());
        std::thread::Builder::new().name("sigward-access".into()).spawn(work)?;
        Ok(queue)
    }

    /// From here on, lines go there.
    pub(crate) fn switch(&self, to: Opened) {
        let mut state = self.state();
        state.0 = to.setting;
        let before = self.current.swap(to.queue);
        state.1.retain(|queue| !queue.state().done);
        state.1.extend(before.inspect(|queue| queue.close()));
    }

    /// Opens the file anew, after it was renamed. The error names the setting; the old file is used on.
    pub(crate) fn reopen(&self) -> Result<(), String> {
        let setting = self.state().0.clone();
        if matches!(setting, Setting::File(_)) {
            self.switch(self.opened(&setting)?);
        }
        Ok(())
    }

    /// Writes what there is. A writer that is blocked is left to itself.
    pub(crate) fn close(&self) {
        self.switch(Opened { setting: Setting::Off, queue: None });
        let until = Instant::now() + PATIENCE;
        let queues = std::mem::take(&mut self.state().1);
        for queue in queues {
            queue.wait_done(until);
        }
    }

    /// Begins a request's line, if the log is on.
    pub(crate) fn begin(&self, head: &RequestHead) -> Option<Line> {
        self.current.load().is_some().then(|| Line::begin(head, SystemTime::now()))
    }

    /// Ends the line of a request that has been answered. `took`: until the answer's head.
    pub(crate) fn answered(&self, mut line: Line, record: &Record, status: StatusCode, headers: &HeaderMap, took: Duration) {
        line.answered(record, status, headers);
        self.push(line, took);
    }

    /// Ends the line of one whose client has gone before.
    pub(crate) fn gone(&self, mut line: Line, took: Duration) {
        line.text("error", "client-gone");
        self.push(line, took);
    }

    fn push(&self, mut line: Line, took: Duration) {
        line.milliseconds(",\"ms\":", took);
        line.0.extend_from_slice(b"}\n");
        loop {
            let queue = self.current.load();
            let Some(queue) = queue.as_ref() else { return };
            match queue.push(&line.0) {
                Pushed::Taken => return,
                Pushed::Full => return self.counts.dropped.inc(),
                // Another has come for it.
                Pushed::Closed => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, (Setting, Vec<Arc<Queue>>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Gives the file, and true if it is a pipe.
fn open_file(path: &Path) -> io::Result<(File, bool)> {
    let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
    // A named pipe that is opened for writing alone waits for its reader, and fails when that one ends.
    let file = OpenOptions::new().append(true).read(is_pipe).create(!is_pipe).mode(0o600).open(path)?;
    Ok((file, is_pipe))
}

/// Lines on their way to one writer. Its lock is held for as long as it takes to copy a line.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    count: usize,
    /// The writer waits for a line.
    idle: bool,
    closed: bool,
    /// The writer has ended.
    done: bool,
}

enum Pushed {
    Taken,
    Full,
    Closed,
}

impl Queue {
    fn push(&self, line: &[u8]) -> Pushed {
        let mut state = self.state();
        if state.closed {
            return Pushed::Closed;
        }
        if state.count >= MOST_LINES || state.lines.len() + line.len() > MOST_BYTES {
            return Pushed::Full;
        }
        state.lines.extend_from_slice(line);
        state.count += 1;
        let wakes = std::mem::take(&mut state.idle) || state.count == PLENTY;
        drop(state);
        if wakes {
            self.changed.notify_all();
        }
        Pushed::Taken
    }

    /// Waits for lines and takes them into `batch`, which is empty. False: there will be no more.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        while state.count == 0 && !state.closed {
            state.idle = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed && state.count < PLENTY {
            (state, _) = self.changed.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        std::mem::swap(&mut state.lines, batch);
        std::mem::take(&mut state.count) > 0
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn wait_done(&self, until: Instant) {
        let mut state = self.state();
        while !state.done {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes.
struct Writer {
    queue: Arc<Queue>,
    output: Output,
    name: String,
    counts: Counts,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        // While writing fails: how many lines that has cost.
        let mut failing: Option<u64> = None;
        while self.queue.take(&mut batch) {
            match self.output.write(&batch) {
                Ok(()) => {
                    if let Some(lost) = failing.take() {
                        tracing::warn!("access_log: {} is written again; {lost} lines are lost", self.name);
                    }
                }
                Err(Lost { lines, error }) => {
                    self.counts.errors.inc();
                    self.counts.dropped.inc_by(lines);
                    if failing.is_none() {
                        tracing::warn!("access_log: {}: {error}; lines are lost until it can be written again", self.name);
                    }
                    failing = Some(failing.unwrap_or_default() + lines);
                }
            }
            batch.clear();
            // What a rush took is given back.
            batch.shrink_to(1 << 20);
        }
        self.queue.state().done = true;
        self.queue.changed.notify_all();
    }
}

/// Where lines go.
struct Output {
    to: Box<dyn Write + Send>,
    /// Others write there too, or read while it is written: it gets whole lines.
    is_pipe: bool,
    /// The rest of a line that was written in part. Nothing else may follow that part.
    torn: Vec<u8>,
}

/// So many lines could not be written, or not as a whole.
struct Lost {
    lines: u64,
    error: io::Error,
}

impl Output {
    fn new(to: Box<dyn Write + Send>, is_pipe: bool) -> Self {
        Self { to, is_pipe, torn: Vec::new() }
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let torn = std::mem::take(&mut self.torn);
        if let Err((written, error)) = self.write_all(&torn) {
            self.torn = torn.get(written..).unwrap_or_default().to_vec();
            return Err(Lost { lines: count_lines(lines), error });
        }
        let Err((written, error)) = self.write_all(lines) else { return Ok(()) };
        let (before, after) = lines.split_at_checked(written).unwrap_or((lines, &[]));
        if before.last().is_some_and(|last| *last != b'\n') {
            let end = memchr::memchr(b'\n', after).map_or(after.len(), |end| end + 1);
            self.torn = after.get(..end).unwrap_or_default().to_vec();
        }
        // A torn line that is mended in the end is no lost one; if there is no end to it, it is.
        Err(Lost { lines: count_lines(after) - u64::from(!self.torn.is_empty()), error })
    }

    /// The error comes with how much was written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.to.write(if self.is_pipe { whole(rest) } else { rest }) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(size) => written += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody who has the same pipe made it so. It is waited for, as if it had blocked.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(GATHER),
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

/// As many whole lines as a pipe takes in one piece; one at least.
fn whole(lines: &[u8]) -> &[u8] {
    let fits = lines.get(..WHOLE).and_then(|first| memchr::memrchr(b'\n', first));
    let end = fits.or_else(|| memchr::memchr(b'\n', lines).filter(|_| lines.len() > WHOLE));
    end.map_or(lines, |end| lines.get(..=end).unwrap_or(lines))
}

fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

impl Line {
    fn begin(head: &RequestHead, now: SystemTime) -> Self {
        let mut line = Self(Vec::with_capacity(512));
        line.time(now);
        line.text("client", &head.client);
        line.text("method", head.method.as_str());
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(&head.target.host);
        // Who writes a password before it gets no answer; it is not for the log all the same.
        line.text("host", host.rsplit('@').next().unwrap_or_default());
        // A query may hold a signature, and much else that is nobody's business.
        line.text("path", head.path.split(['?', '#']).next().unwrap_or_default());
        if let BodySize::Known(size) = head.body {
            line.0.extend_from_slice(b",\"request_bytes\":");
            line.number(size);
        }
        line
    }

    fn answered(&mut self, record: &Record, status: StatusCode, headers: &HeaderMap) {
        self.0.extend_from_slice(b",\"status\":");
        self.number(status.as_u16().into());
        self.text("action", record.disposition.as_str());
        let operation = record.operation.as_ref().map(|operation| &*operation.name);
        for (name, value) in [
            ("service", record.service.as_deref()),
            ("operation", operation),
            ("region", record.region.as_deref()),
            ("identity", record.identity.as_deref()),
            ("issued_client", record.client.as_deref()),
            ("error", record.error),
        ] {
            if let Some(value) = value {
                self.text(name, value);
            }
        }
        if record.error.is_none() {
            let id = headers.get("x-amzn-requestid").or_else(|| headers.get("x-amz-request-id"));
            if let Some(id) = id.and_then(|id| id.to_str().ok()).filter(|id| id.len() <= LONGEST_ID) {
                self.text("request_id", id);
            }
        }
        if !record.attempts.is_empty() {
            self.attempts(record);
        }
        if !record.paced.is_zero() {
            self.milliseconds(",\"paced_ms\":", record.paced);
        }
    }

    fn attempts(&mut self, record: &Record) {
        let mut waited = Duration::ZERO;
        let mut before = ",\"attempts\":[";
        for attempt in &record.attempts {
            self.0.extend_from_slice(before.as_bytes());
            self.0.extend_from_slice(b"{\"outcome\":\"");
            self.escaped(&attempt.outcome);
            self.milliseconds("\",\"ms\":", attempt.took);
            self.0.push(b'}');
            waited += attempt.waited;
            before = ",";
        }
        self.0.push(b']');
        if !waited.is_zero() {
            self.milliseconds(",\"waited_ms\":", waited);
        }
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

    fn text(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":\"");
        self.escaped(value);
        self.0.push(b'"');
    }

    /// As RFC 8259, section 7 has it; and no control character reaches a terminal.
    fn escaped(&mut self, value: &str) {
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

    /// With microseconds behind the point.
    fn milliseconds(&mut self, before: &str, duration: Duration) {
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

    fn number(&mut self, mut number: u64) {
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use http::{HeaderValue, Method};
    use serde_json::{Value, json};
    use sigward_gateway::record::Attempt;
    use sigward_gateway::{Disposition, Entry, Target};

    use super::*;

    fn log() -> AccessLog {
        let counter = |name| IntCounter::new(name, "help").unwrap();
        AccessLog::new(Counts { dropped: counter("dropped"), errors: counter("errors") }, Dispatch::none())
    }

    /// A log that goes to `to`.
    fn log_to(to: impl Write + Send + 'static) -> AccessLog {
        let log = log();
        let queue = log.start(Output::new(Box::new(to), false), "a test".into()).unwrap();
        log.switch(Opened { setting: Setting::Stderr, queue: Some(queue) });
        log
    }

    fn head(path: &str) -> RequestHead {
        let target = Target::from_url("https://sqs.us-east-1.amazonaws.com").unwrap();
        RequestHead {
            entry: Entry::Reverse,
            method: Method::POST,
            target,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: BodySize::Known(3),
            client: "127.0.0.1".into(),
            malformed: None,
        }
    }

    fn tell(log: &AccessLog, path: &str) {
        let line = log.begin(&head(path)).unwrap();
        log.answered(line, &Record::default(), StatusCode::OK, &HeaderMap::new(), Duration::from_millis(1));
    }

    fn paths(lines: &[u8]) -> Vec<String> {
        let parsed = lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice::<Value>(line).unwrap());
        parsed.map(|line| line["path"].as_str().unwrap().to_owned()).collect()
    }

    /// Tells what is written.
    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn next(told: &Receiver<Vec<u8>>) -> Vec<u8> {
        told.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_line_has_all_that_there_is_to_tell() {
        let (sender, told) = channel();
        let log = log_to(Told(sender));
        let mut asked = head("/a%20key?X-Amz-Signature=abc");
        asked.headers.insert(HOST, HeaderValue::from_static("me:pass@b.s3.us-east-1.amazonaws.com"));
        let attempt = |outcome: &'static str, took, waited| Attempt {
            outcome: Cow::Borrowed(outcome),
            took: Duration::from_micros(took),
            waited: Duration::from_micros(waited),
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
        let line = Line::begin(&asked, SystemTime::UNIX_EPOCH + Duration::from_millis(1_440_938_160_007));
        log.answered(line, &record, StatusCode::OK, &headers, Duration::from_micros(63_602));
        let expected = json!({
            "time": "2015-08-30T12:36:00.007Z", "client": "127.0.0.1", "method": "POST", "host": "b.s3.us-east-1.amazonaws.com",
            "path": "/a%20key", "request_bytes": 3, "status": 200, "action": "sign", "service": "s3", "region": "us-east-1",
            "identity": "default", "issued_client": "batch", "request_id": "ID\"1\"",
            "attempts": [{"outcome": "503 throttled", "ms": 0.007}, {"outcome": "200", "ms": 12.345}],
            "waited_ms": 50.0, "paced_ms": 1.25, "ms": 63.602,
        });
        assert_eq!(serde_json::from_slice::<Value>(&next(&told)).unwrap(), expected);

        let refused = Record { error: Some("no-credentials"), ..Record::default() };
        log.answered(Line::begin(&head("/"), SystemTime::now()), &refused, StatusCode::FORBIDDEN, &headers, Duration::ZERO);
        let line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        assert_eq!((&line["error"], &line["status"], line.get("request_id")), (&json!("no-credentials"), &json!(403), None));

        log.gone(log.begin(&head("/")).unwrap(), Duration::ZERO);
        let line = serde_json::from_slice::<Value>(&next(&told)).unwrap();
        assert_eq!((&line["error"], line.get("status")), (&json!("client-gone"), None));
    }

    #[test]
    fn whatever_a_client_sends_is_one_line_of_json() {
        let mut odd: Vec<String> = (0..0x250).filter_map(char::from_u32).map(|letter| format!("/a{letter}b")).collect();
        odd.retain(|path| !path.contains(['?', '#']));
        odd.extend(["/\u{2028}\u{ffff}\u{1f600}", "/\"},{\"status\":200", "", "/\\\\\""].map(str::to_owned));
        for path in odd {
            let mut line = Line::begin(&head(&path), SystemTime::now());
            line.0.push(b'}');
            assert_eq!(serde_json::from_slice::<Value>(&line.0).unwrap()["path"], path);
            assert!(!std::str::from_utf8(&line.0).unwrap().contains(char::is_control));
        }
    }

    #[test]
    fn numbers() {
        for (number, said) in [(0, "0"), (7, "7"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            let mut line = Line(Vec::new());
            line.number(number);
            assert_eq!(line.0, said.as_bytes());
        }
    }

    #[test]
    fn a_log_that_is_off_has_no_lines() {
        let log = log();
        assert!(log.begin(&head("/")).is_none());
        log.push(Line(Vec::new()), Duration::ZERO);
        log.reopen().unwrap();
        log.close();
    }

    #[test]
    fn a_blocked_writer_costs_lines_and_holds_nobody_up() {
        struct Blocked(Receiver<()>, Told);
        impl Write for Blocked {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Until the sender is dropped.
                let _ = self.0.recv();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ((gate, blocked), (sender, told)) = (channel(), channel());
        let log = log_to(Blocked(blocked, Told(sender)));
        // What the writer has taken, and as much again.
        let all = 2 * MOST_LINES + 10;
        for _ in 0..all {
            tell(&log, "/");
        }
        let dropped = log.counts.dropped.get();
        assert!(dropped >= 10, "{dropped}");
        drop(gate);
        log.close();
        let written: usize = told.iter().map(|piece| paths(&piece).len()).sum();
        assert_eq!(written + usize::try_from(dropped).unwrap(), all);
        assert_eq!(log.counts.dropped.get(), dropped);
    }

    #[test]
    fn long_lines_do_not_fill_the_memory() {
        let queue = Queue::default();
        let line = vec![b'x'; 1 << 20];
        let taken = (0..100).filter(|_| matches!(queue.push(&line), Pushed::Taken)).count();
        assert_eq!(taken, MOST_BYTES >> 20);
    }

    #[test]
    fn no_line_is_lost_when_the_file_is_renamed_and_opened_anew() {
        const EACH: usize = 5000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log();
        log.switch(log.open(&Setting::File(path.clone())).unwrap().unwrap());
        assert!(log.open(&Setting::File(path.clone())).unwrap().is_none());
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let rotations = std::thread::scope(|scope| {
            let tellers: Vec<_> = (0..2)
                .map(|teller| {
                    let log = &log;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            tell(log, &format!("/{teller}/{number}"));
                            // As fast as the writer, or lines are dropped, as they should be.
                            while log.current.load().as_ref().unwrap().state().count > MOST_LINES / 2 {
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            let mut rotations = 0;
            while tellers.iter().any(|teller| !teller.is_finished()) || rotations < 3 {
                rotations += 1;
                std::fs::rename(&path, folder.path().join(format!("access.log.{rotations}"))).unwrap();
                log.reopen().unwrap();
            }
            rotations
        });
        log.close();
        let mut found = Vec::new();
        for entry in folder.path().read_dir().unwrap() {
            found.extend(paths(&std::fs::read(entry.unwrap().path()).unwrap()));
        }
        found.sort();
        let mut expected: Vec<String> = (0..2 * EACH).map(|number| format!("/{}/{}", number / EACH, number % EACH)).collect();
        expected.sort();
        assert_eq!(found, expected, "{rotations} rotations");
        assert_eq!(log.counts.dropped.get(), 0);
    }

    #[test]
    fn a_full_disk_costs_lines_and_tears_none() {
        /// Takes so many bytes; then it fails until it has room again.
        struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let mut disk = self.0.lock().unwrap();
                let size = bytes.len().min(disk.0);
                if size == 0 {
                    return Err(ErrorKind::StorageFull.into());
                }
                disk.0 -= size;
                disk.1.extend_from_slice(bytes.get(..size).unwrap());
                Ok(size)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let disk = Arc::new(Mutex::new((0, Vec::new())));
        let mut output = Output::new(Box::new(Disk(Arc::clone(&disk))), false);
        let mut write = |room, lines: &str| {
            disk.lock().unwrap().0 = room;
            let lost = output.write(lines.as_bytes()).map_err(|lost| lost.lines);
            (lost, std::mem::take(&mut disk.lock().unwrap().1))
        };
        assert_eq!(write(0, "one\ntwo\n"), (Err(2), b"".to_vec()));
        // `two` is torn, and goes on where it was torn.
        assert_eq!(write(5, "one\ntwo\nthree\n"), (Err(1), b"one\nt".to_vec()));
        assert_eq!(write(1, "four\n"), (Err(1), b"w".to_vec()));
        assert_eq!(write(99, "five\n"), (Ok(()), b"o\nfive\n".to_vec()));
        assert_eq!(write(5, "five\nsix\n"), (Err(1), b"five\n".to_vec()));
    }

    #[test]
    fn errors_are_counted_and_the_log_goes_on() {
        let log = log();
        log.switch(log.open(&Setting::File("/dev/full".into())).unwrap().unwrap());
        tell(&log, "/");
        tell(&log, "/");
        log.close();
        assert_eq!(log.counts.dropped.get(), 2);
        assert!(log.counts.errors.get() >= 1);
    }

    #[test]
    fn an_error_names_the_setting_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = log();
        let error = log.open(&Setting::File(folder.path().to_owned())).err().unwrap();
        assert!(error.starts_with("access_log: ") && error.contains(&folder.path().display().to_string()), "{error}");
        assert!(log.begin(&head("/")).is_none());
        let path = folder.path().join("gone").join("access.log");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        log.switch(log.open(&Setting::File(path.clone())).unwrap().unwrap());
        std::fs::rename(path.parent().unwrap(), folder.path().join("renamed")).unwrap();
        assert!(log.reopen().unwrap_err().starts_with("access_log: "));
        tell(&log, "/goes-on");
        log.close();
        assert_eq!(paths(&std::fs::read(folder.path().join("renamed/access.log")).unwrap()), ["/goes-on"]);
    }

    #[test]
    fn a_pipe_gets_whole_lines() {
        let lines = [vec![b'a'; 3000], vec![b'b'; 3000], vec![b'c'; 9000], vec![b'd'; 10]].map(|mut line| {
            line.push(b'\n');
            line
        });
        let all = lines.concat();
        let mut rest = all.as_slice();
        for size in [3001, 3001, 9001, 11] {
            assert_eq!(whole(rest).len(), size);
            rest = &rest[size..];
        }
        assert_eq!(whole(b"a\nb\n"), b"a\nb\n");
        assert_eq!(whole(b"the rest of one"), b"the rest of one");
    }
}
