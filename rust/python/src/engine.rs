//! `Engine`, `Job` and `Report`. Nothing here waits: what takes time happens on the engine's threads, which never take the GIL.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use sigward_engine::{Kind, Level, OutboxEvent};
use sigward_gateway::{BodySize, Entry, FirstBytes, Handling, Opening, Record, RequestHead, Scheme, Target};

const EVENT_RESPONSE: u8 = 0;
const EVENT_DATA: u8 = 1;
const EVENT_TRAILERS: u8 = 2;
const EVENT_FAILED: u8 = 3;
const EVENT_WRITABLE: u8 = 4;
const EVENT_REFRESH: u8 = 5;
const EVENT_LOG: u8 = 6;

const ENTRY_FORWARD: u8 = 0;
const ENTRY_CONNECT: u8 = 1;
const ENTRY_REVERSE: u8 = 2;

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Engine {
    engine: sigward_engine::Engine,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Job {
    job: sigward_engine::Job,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Allowance {
    allowance: Arc<sigward_engine::Allowance>,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Held {
    held: Mutex<sigward_engine::Held>,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Report {
    record: Record,
}

/// Canonical request, string to sign, the signature's beginning, what was added.
type Shown<'a> = (&'a str, &'a str, &'a str, Vec<(String, String)>);

#[pymethods]
impl Engine {
    #[new]
    fn new(python: Python<'_>, settings: &str) -> PyResult<Self> {
        let engine = python.detach(|| sigward_engine::Engine::new(settings));
        Ok(Self { engine: engine.map_err(|message| crate::errors::settings(python, message))? })
    }

    #[pyo3(signature = (settings, /))]
    fn configure(&self, python: Python<'_>, settings: &str) -> PyResult<()> {
        python.detach(|| self.engine.configure(settings)).map_err(|message| crate::errors::settings(python, message))
    }

    fn warnings(&self) -> Vec<String> {
        self.engine.warnings()
    }

    fn reopen_logs(&self, python: Python<'_>) -> PyResult<()> {
        python.detach(|| self.engine.reopen_logs()).map_err(|message| crate::errors::settings(python, message))
    }

    fn fileno(&self) -> RawFd {
        self.engine.descriptor()
    }

    fn poll<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events: Vec<Bound<'py, PyTuple>> = self.engine.poll().into_iter().map(|event| tuple(python, event)).collect::<PyResult<_>>()?;
        PyList::new(python, events)
    }

    #[allow(clippy::too_many_arguments, reason = "positional arguments cost least")]
    #[pyo3(signature = (entry, method, scheme, host, port, path, headers, body, client, allowance = None, /))]
    fn submit(
        &self,
        entry: u8,
        method: &[u8],
        scheme: &[u8],
        host: &str,
        port: i64,
        path: &[u8],
        headers: &Bound<'_, PyAny>,
        body: Option<&[u8]>,
        client: &str,
        allowance: Option<&Allowance>,
    ) -> PyResult<Job> {
        let entry = match entry {
            ENTRY_FORWARD => Entry::Forward,
            ENTRY_CONNECT => Entry::Connect,
            ENTRY_REVERSE => Entry::Reverse,
            other => return Err(PyValueError::new_err(format!("entry: one of ENTRY_… is expected, not {other}"))),
        };
        let (headers, bad_header) = header_map(headers)?;
        let scheme = if scheme == b"http" { Scheme::Http } else { Scheme::Https };
        let target = u16::try_from(port).map_err(|_| format!("port {port}")).and_then(|port| Target::new(scheme, host, port));
        let wrong = bad_header.or_else(|| target.as_ref().err().cloned());
        let size = match body {
            Some(body) => BodySize::Known(body.len() as u64),
            None => content_length(&headers).map_or(BodySize::Unknown, BodySize::Known),
        };
        let method_read = Method::from_bytes(method);
        let wrong = wrong.or_else(|| method_read.is_err().then(|| "the method is not a token".to_owned()));
        let head = RequestHead {
            entry,
            method: method_read.unwrap_or(Method::GET),
            target: target.unwrap_or_else(|_| sigward_gateway::exchange::nowhere()),
            path: sigward_engine::legal_target(path),
            headers,
            body: size,
            client: client.into(),
            malformed: wrong,
        };
        let allowance = allowance.map_or_else(|| self.engine.allowance(), |given| Arc::clone(&given.allowance));
        let job = self.engine.submit(head, body.map(Bytes::copy_from_slice), allowance);
        Ok(Job { job: job.ok_or_else(|| PyRuntimeError::new_err("the engine is closed"))? })
    }

    #[pyo3(signature = (host, port, opening, name = None, protocols = None, /))]
    fn handling(
        &self,
        host: &str,
        port: u16,
        opening: &str,
        name: Option<&str>,
        protocols: Option<Vec<Vec<u8>>>,
    ) -> PyResult<(&'static str, &'static str, String)> {
        let protocols = protocols.unwrap_or_default();
        let protocols: Vec<&[u8]> = protocols.iter().map(Vec::as_slice).collect();
        let opening = match opening {
            "unknown" => Opening::Unknown,
            "http" => Opening::Http,
            "tls" => Opening::Tls { name, protocols: &protocols },
            "other" => Opening::Other,
            other => return Err(PyValueError::new_err(format!("opening: {other:?}: unknown, http, tls or other is expected"))),
        };
        Ok(match self.engine.handling(host, port, opening) {
            Handling::Intercept => ("intercept", "", String::new()),
            Handling::Tunnel => ("tunnel", "", String::new()),
            Handling::Refuse(why) => {
                let refusal = why.refusal(host, port);
                ("refuse", refusal.slug, format!("{} {}", refusal.message, refusal.hint))
            }
        })
    }

    #[pyo3(signature = (host, /))]
    fn offers_http2(&self, host: &str) -> bool {
        self.engine.offers_http2(host)
    }

    #[pyo3(signature = (headers, /))]
    fn came_round(&self, headers: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        let (headers, _) = header_map(headers)?;
        Ok(self.engine.check_loop(&headers).err().map(|refusal| refusal.reason()))
    }

    fn allowance(&self) -> Allowance {
        Allowance { allowance: self.engine.allowance() }
    }

    fn held(&self) -> Held {
        Held { held: Mutex::new(self.engine.held()) }
    }

    #[pyo3(signature = (host, port, /))]
    fn listens(&self, host: &str, port: u16) {
        self.engine.listens(host, port);
    }

    #[pyo3(signature = (address, port, /))]
    fn leads_back(&self, address: &str, port: u16) -> PyResult<Option<String>> {
        let to = SocketAddr::new(read_address(address)?, port);
        Ok(self.engine.check_tunnel(to).err().map(|refusal| refusal.reason()))
    }

    #[pyo3(signature = (for_client, /))]
    fn make_room(&self, for_client: bool) {
        self.engine.make_room(for_client);
    }

    fn client_timeouts(&self) -> (f64, f64, f64, f64) {
        self.engine.client_timeouts().map(|timeout| timeout.as_secs_f64()).into()
    }

    #[pyo3(signature = (at, /))]
    fn slow_client(&self, at: &str) {
        self.engine.slow_client(at);
    }

    #[pyo3(signature = (path, needed = false, /))]
    fn load_authority(&self, python: Python<'_>, path: &str, needed: bool) -> PyResult<bool> {
        python.detach(|| self.engine.load_authority(std::path::Path::new(path), needed)).map_err(PyValueError::new_err)
    }

    #[pyo3(signature = (host, /))]
    fn certificate<'py>(&self, python: Python<'py>, host: &str) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyBytes>)> {
        let shown = python.detach(|| self.engine.certificate(host)).map_err(PyValueError::new_err)?;
        let chain = shown.chain.iter().map(|certificate| PyBytes::new(python, certificate));
        Ok((PyTuple::new(python, chain)?, PyBytes::new(python, &shown.key)))
    }

    #[pyo3(signature = (host, /))]
    fn refuses_tunnel(&self, host: &str) -> Option<(u16, &'static str, String)> {
        self.engine.refuses_tunnel(host).map(|refusal| (refusal.status, refusal.slug, refusal.reason()))
    }

    fn certificates(&self) -> Vec<(&'static str, &'static str, u64, String, &'static str)> {
        let standings = self.engine.certificates().into_iter();
        standings.map(|one| (one.name, one.state.as_str(), one.until, one.what, one.mend)).collect()
    }

    #[pyo3(signature = (host, /))]
    fn vouches_for(&self, host: &str) -> bool {
        self.engine.vouches_for(host)
    }

    #[pyo3(signature = (address, kind, upstream = None, /))]
    fn listen(&self, python: Python<'_>, address: &str, kind: &str, upstream: Option<&str>) -> PyResult<(String, u16)> {
        let kind = match (kind, upstream.map(Target::from_url)) {
            ("forward", _) => Kind::Forward,
            ("transparent", _) => Kind::Transparent,
            ("reverse", None) => Kind::Reverse(None),
            ("reverse", Some(Ok(target))) => Kind::Reverse(Some(target)),
            ("reverse", Some(Err(why))) => return Err(PyValueError::new_err(format!("upstream: {why}"))),
            (other, _) => return Err(PyValueError::new_err(format!("kind: forward, reverse or transparent is expected, not {other:?}"))),
        };
        Ok(python.detach(|| self.engine.listen(address, &kind))?)
    }

    fn drain(&self) {
        self.engine.drain();
    }

    fn cut(&self) {
        self.engine.cut();
    }

    fn connections(&self) -> i64 {
        self.engine.connections()
    }

    fn draining(&self) -> bool {
        self.engine.draining()
    }

    #[pyo3(signature = (host, address = None, /))]
    fn may_connect(&self, host: &str, address: Option<&str>) -> PyResult<bool> {
        let address = address.map(read_address).transpose()?;
        Ok(self.engine.may_connect(host, address))
    }

    #[pyo3(signature = (identity, access_key_id, secret_access_key, session_token, expires_at, provider, /))]
    #[allow(clippy::too_many_arguments, reason = "one snapshot")]
    fn set_credentials(
        &self,
        python: Python<'_>,
        identity: &str,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
        expires_at: Option<f64>,
        provider: &str,
    ) -> PyResult<()> {
        let credentials = sigward_engine::credentials(access_key_id, secret_access_key, session_token.filter(|token| !token.is_empty()));
        let credentials = credentials.map_err(|error| crate::errors::signing(python, &error))?;
        self.engine.set_credentials(identity, credentials, expires_at, provider);
        Ok(())
    }

    #[pyo3(signature = (identity, reasons, /))]
    fn set_credentials_failed(&self, identity: &str, reasons: Vec<(String, String)>) {
        self.engine.set_credentials_failed(identity, reasons);
    }

    fn clock_ahead(&self) -> i64 {
        self.engine.clock_ahead()
    }

    #[pyo3(signature = (ahead, /))]
    fn hear_clock(&self, ahead: i64) {
        self.engine.hear_clock(ahead);
    }

    #[pyo3(signature = (address, /))]
    fn admin(&self, python: Python<'_>, address: &str) -> PyResult<(String, u16)> {
        let bound = python.detach(|| self.engine.admin(address))?;
        Ok((bound.ip().to_string(), bound.port()))
    }

    #[pyo3(signature = (part, ready, why = "", /))]
    fn set_ready(&self, part: &str, ready: bool, why: &str) {
        self.engine.set_ready(part, ready, why);
    }

    fn is_ready(&self) -> bool {
        self.engine.not_ready().is_empty()
    }

    fn metrics(&self) -> String {
        self.engine.metrics()
    }

    fn in_flight(&self) -> i64 {
        self.engine.in_flight()
    }

    #[pyo3(signature = (name, value, /))]
    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn redact<'py>(&self, python: Python<'py>, name: &[u8], value: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(python, &sigward_gateway::record::redact_bytes(name, value))
    }

    #[pyo3(signature = (target, /))]
    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn redact_target(&self, target: &str) -> String {
        match target.split_once('?') {
            Some((path, query)) => format!("{path}?{}", sigward_gateway::record::redact_query(query)),
            None => target.to_owned(),
        }
    }

    #[pyo3(signature = (patience = 1.0, /))]
    fn close(&self, python: Python<'_>, patience: f64) -> PyResult<()> {
        let wrong = |_| PyValueError::new_err(format!("patience: seconds, a number >= 0, are expected, not {patience}"));
        let patience = Duration::try_from_secs_f64(patience).map_err(wrong)?;
        python.detach(|| self.engine.close(patience));
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn __repr__(&self) -> &'static str {
        "Engine(…)"
    }
}

fn read_address(address: &str) -> PyResult<IpAddr> {
    // A scope (fe80::1%eth0) says only which link.
    let bare = address.split('%').next().unwrap_or_default();
    bare.parse().map_err(|_| PyValueError::new_err(format!("address: an IP address is expected, not {address:?}")))
}

#[pymethods]
impl Allowance {
    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn __repr__(&self) -> &'static str {
        "Allowance(…)"
    }
}

#[pymethods]
impl Held {
    #[pyo3(signature = (size, /))]
    fn grow(&self, size: u64) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).grow(size)
    }

    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn __repr__(&self) -> &'static str {
        "Held(…)"
    }
}

#[pymethods]
impl Job {
    #[getter]
    fn id(&self) -> u64 {
        self.job.id()
    }

    #[pyo3(signature = (data, /))]
    fn send(&self, data: &[u8]) -> bool {
        self.job.send(Bytes::copy_from_slice(data))
    }

    #[pyo3(signature = (trailers = None, /))]
    fn end(&self, trailers: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let trailers = trailers.map(header_map).transpose()?.map(|(trailers, _)| trailers);
        self.job.end(trailers);
        Ok(())
    }

    #[pyo3(signature = (size, /))]
    fn ack(&self, size: usize) {
        self.job.ack(size);
    }

    fn cancel(&self) {
        self.job.cancel();
    }

    fn __repr__(&self) -> String {
        format!("Job({})", self.job.id())
    }
}

#[pymethods]
impl Report {
    #[getter]
    fn service(&self) -> Option<&str> {
        self.record.service.as_deref()
    }

    #[getter]
    fn region(&self) -> Option<&str> {
        self.record.region.as_deref()
    }

    #[getter]
    fn identity(&self) -> Option<&str> {
        self.record.identity.as_deref()
    }

    #[getter]
    fn client(&self) -> Option<&str> {
        self.record.client.as_deref()
    }

    #[getter]
    fn operation(&self) -> Option<String> {
        self.record.operation.as_ref().map(ToString::to_string)
    }

    #[getter]
    fn action(&self) -> &str {
        self.record.disposition.as_str()
    }

    #[getter]
    fn upstream(&self) -> Option<String> {
        self.record.upstream.as_ref().map(|upstream| upstream.target.to_string())
    }

    #[getter]
    fn attempts(&self) -> Vec<(String, f64, f64)> {
        let attempts = self.record.attempts.iter();
        attempts.map(|attempt| (attempt.outcome.to_string(), attempt.took.as_secs_f64(), attempt.waited.as_secs_f64())).collect()
    }

    #[getter]
    fn paced(&self) -> (f64, Option<&str>) {
        (self.record.paced.as_secs_f64(), self.record.pace_rule.as_deref())
    }

    #[getter]
    fn steps(&self) -> Option<Shown<'_>> {
        let steps = self.record.steps.as_ref()?;
        Some((&steps.canonical_request, &steps.string_to_sign, &steps.signature, steps.added.clone()))
    }

    #[getter]
    fn signed_head<'py>(&self, python: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let head = self.record.signed_head.iter();
        head.map(|(name, value)| (PyBytes::new(python, name.as_str().as_bytes()), PyBytes::new(python, value.as_bytes()))).collect()
    }

    #[getter]
    fn error(&self) -> Option<&str> {
        self.record.error
    }

    #[getter]
    fn reason(&self) -> Option<&str> {
        self.record.reason()
    }

    #[getter]
    fn route(&self) -> Option<&str> {
        self.record.route.as_deref()
    }

    #[getter]
    fn resource(&self) -> Option<Cow<'_, str>> {
        self.record.shown_resource()
    }

    #[getter]
    fn ambiguous(&self) -> Option<&str> {
        self.record.ambiguous
    }

    #[getter]
    fn would_refuse(&self) -> Vec<(&str, &str)> {
        self.record.would_refuse.iter().map(|(rule, unknown)| (&**rule, *unknown)).collect()
    }

    #[getter]
    fn summary(&self) -> String {
        self.record.summary()
    }

    fn __repr__(&self) -> String {
        format!("Report({})", self.record.summary())
    }
}

fn tuple(python: Python<'_>, event: OutboxEvent) -> PyResult<Bound<'_, PyTuple>> {
    let bytes = |data: &Bytes| PyBytes::new(python, data);
    match event {
        OutboxEvent::Response { job, status, headers, data, end, record } => {
            let reason = status.canonical_reason().unwrap_or_default();
            let reason = PyBytes::new(python, reason.as_bytes());
            let report = Bound::new(python, Report { record: *record })?;
            let headers = pairs(python, &headers)?;
            (EVENT_RESPONSE, job, PyBytes::new(python, b"HTTP/1.1"), status.as_u16(), reason, headers, bytes(&data), end, report)
                .into_pyobject(python)
        }
        OutboxEvent::Data { job, data, end } => (EVENT_DATA, job, bytes(&data), end).into_pyobject(python),
        OutboxEvent::Trailers { job, trailers } => (EVENT_TRAILERS, job, pairs(python, &trailers)?).into_pyobject(python),
        OutboxEvent::Failed { job, message } => (EVENT_FAILED, job, message).into_pyobject(python),
        OutboxEvent::Writable { job } => (EVENT_WRITABLE, job).into_pyobject(python),
        OutboxEvent::Log { level, target, said } => {
            (EVENT_LOG, python_level(level), logger(target), said.message, said.fields).into_pyobject(python)
        }
        OutboxEvent::Refresh { identity } => (EVENT_REFRESH, identity).into_pyobject(python),
    }
}

/// Python's number of a level.
fn python_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}

/// Python's name for a module's log: `sigward_engine::fleet` is `sigward.engine.fleet`.
fn logger(target: &str) -> String {
    let module = target.split_once("::").map_or("", |(_, module)| module);
    let dot = if module.is_empty() { "" } else { "." };
    format!("sigward.engine{dot}{}", module.replace("::", "."))
}

fn pairs<'py>(python: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyTuple>> {
    let pairs: Vec<Bound<'py, PyTuple>> = headers
        .iter()
        .map(|(name, value)| (PyBytes::new(python, name.as_str().as_bytes()), PyBytes::new(python, value.as_bytes())).into_pyobject(python))
        .collect::<PyResult<_>>()?;
    PyTuple::new(python, pairs)
}

/// The headers, and what is wrong with the first that is malformed.
pub(crate) fn header_map(headers: &Bound<'_, PyAny>) -> PyResult<(HeaderMap, Option<String>)> {
    let mut map = HeaderMap::with_capacity(16);
    let mut wrong = None;
    for pair in headers.try_iter()? {
        let pair = pair?;
        let (name, value): (Bound<'_, PyBytes>, Bound<'_, PyBytes>) = pair.extract()?;
        match (HeaderName::from_bytes(name.as_bytes()), header_value(value.as_bytes())) {
            (Ok(name), Some(value)) => {
                if map.try_append(name, value).is_err() {
                    wrong = wrong.or_else(|| Some("there are too many headers".to_owned()));
                }
            }
            (Err(_), _) => {
                wrong = wrong.or_else(|| Some(format!("header name {:?} is not a token", String::from_utf8_lossy(name.as_bytes()))));
            }
            (Ok(name), None) => wrong = wrong.or_else(|| Some(format!("the value of header {name} holds a control character"))),
        }
    }
    Ok((map, wrong))
}

/// An obsolete line fold (RFC 9112, section 5.2) becomes blanks, as it has to be before it is forwarded.
fn header_value(value: &[u8]) -> Option<HeaderValue> {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        return Some(value);
    }
    let mut unfolded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, after @ ..] = rest {
        match rest {
            [b'\r', b'\n', b' ' | b'\t', ..] => {
                unfolded.extend(b"  ");
                rest = after.get(1..).unwrap_or_default();
            }
            [b'\n', b' ' | b'\t', ..] => {
                unfolded.push(b' ');
                rest = after;
            }
            _ => {
                unfolded.push(*byte);
                rest = after;
            }
        }
    }
    HeaderValue::from_bytes(&unfolded).ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `master`: as it stands in its file.
#[pyfunction]
#[pyo3(signature = (master, name, rotation, /))]
fn issue_key(master: &[u8], name: &str, rotation: u32) -> PyResult<(String, String)> {
    let master = sigward_engine::master_key(master).map_err(PyValueError::new_err)?;
    let (id, secret) = sigward_gateway::client::issue(&master, name, rotation);
    Ok((id, secret.to_string()))
}

#[pyfunction]
#[pyo3(signature = (host, /))]
fn normal_host(host: &str) -> Option<String> {
    sigward_gateway::normal_host(host).map(|host| host.to_string())
}

#[pyfunction]
#[pyo3(signature = (data, /))]
fn first_bytes(data: &[u8]) -> &'static str {
    match sigward_gateway::first_bytes(data) {
        FirstBytes::Undecided => "undecided",
        FirstBytes::Http => "http",
        FirstBytes::Tls => "tls",
        FirstBytes::Other => "other",
    }
}

#[pyfunction]
#[pyo3(signature = (one, other, port, /))]
fn same_authority(one: &str, other: &str, port: u16) -> bool {
    sigward_gateway::admit::same_authority(one, other, port)
}

type Description = (String, &'static str, String, Vec<String>);

#[pyfunction]
fn metric_descriptions() -> Vec<Description> {
    let descriptions = sigward_engine::descriptions().into_iter();
    descriptions.map(|metric| (metric.name, metric.kind, metric.help, metric.labels)).collect()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, value) in [
        ("EVENT_RESPONSE", EVENT_RESPONSE),
        ("EVENT_DATA", EVENT_DATA),
        ("EVENT_TRAILERS", EVENT_TRAILERS),
        ("EVENT_FAILED", EVENT_FAILED),
        ("EVENT_WRITABLE", EVENT_WRITABLE),
        ("EVENT_REFRESH", EVENT_REFRESH),
        ("EVENT_LOG", EVENT_LOG),
        ("ENTRY_FORWARD", ENTRY_FORWARD),
        ("ENTRY_CONNECT", ENTRY_CONNECT),
        ("ENTRY_REVERSE", ENTRY_REVERSE),
    ] {
        module.add(name, value)?;
    }
    module.add_function(wrap_pyfunction!(issue_key, module)?)?;
    module.add_function(wrap_pyfunction!(normal_host, module)?)?;
    module.add_function(wrap_pyfunction!(first_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(same_authority, module)?)?;
    module.add_function(wrap_pyfunction!(metric_descriptions, module)?)?;
    module.add_class::<Engine>()?;
    module.add_class::<Job>()?;
    module.add_class::<Allowance>()?;
    module.add_class::<Held>()?;
    module.add_class::<Report>()
}
