//! `Rehearsal` and `Rehearsed`: one request through the gateway as it would be served, without a socket, a clock or a key.
//!
//! What the driver does is done here in one loop over bytes: bodies are given whole, waits are over at once, and the first attempt ends
//! the rehearsal. Tests read what would have been sent and compare it with what was decided.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use sigward_gateway::body::CHUNK;
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::settings::{EngineSettings, LogTo};
use sigward_gateway::{
    BodyPlan, BodySize, Clients, Config, Entry, Event, Exchange, Identities, Identity, Keep, Moment, Outgoing, Record, RequestHead, Scheme,
    Step, Target, Wrap,
};
use sigward_sigv4::chunked::{Decoder, Piece};
use sigward_sigv4::{Credentials, SignError};

/// 30 August 2015, 12:36 UTC: the time of AWS's own examples.
const NOW: u64 = 1_440_938_160;
/// Between two requests: no limit of calls a second is reached.
const APART: u64 = 60;
/// More steps than the longest way to a first attempt has.
const STEPS: usize = 4096;
/// A spooled body comes in pieces, as from a socket.
const PIECE: usize = 16 << 10;

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Rehearsal {
    config: Arc<Config>,
    identities: Identities,
    count: AtomicU64,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Rehearsed {
    record: Record,
    outcome: Outcome,
}

enum Outcome {
    Sent(Box<Sent>),
    Answered {
        status: u16,
        headers: HeaderMap,
        body: Bytes,
    },
    /// The client's body did not come to its end, which the driver reports as such.
    Stuck(String),
}

struct Sent {
    outgoing: Outgoing,
    body: Bytes,
}

#[pymethods]
impl Rehearsal {
    #[new]
    fn new(python: Python<'_>, settings: &str) -> PyResult<Self> {
        Self::made_of(settings).map_err(|message| crate::errors::settings(python, message))
    }

    #[allow(clippy::too_many_arguments, reason = "one request")]
    #[pyo3(signature = (entry, scheme, host, method, target, headers, body = None, port = None))]
    fn run(
        &self,
        entry: &str,
        scheme: &str,
        host: &str,
        method: &str,
        target: &[u8],
        headers: &Bound<'_, PyAny>,
        body: Option<&[u8]>,
        port: Option<u16>,
    ) -> PyResult<Rehearsed> {
        let entry = match entry {
            "forward" => Entry::Forward,
            "connect" => Entry::Connect,
            "reverse" => Entry::Reverse,
            other => return Err(PyValueError::new_err(format!("entry: forward, connect or reverse is expected, not {other:?}"))),
        };
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(PyValueError::new_err(format!("scheme: http or https is expected, not {other:?}"))),
        };
        let body = body.unwrap_or_default();
        let (headers, bad_header) = crate::engine::header_map(headers)?;
        let target_read = Target::new(scheme, host, port.unwrap_or(scheme.default_port()));
        let method_read = Method::from_bytes(method.as_bytes());
        let wrong = bad_header.or_else(|| target_read.as_ref().err().cloned());
        let head = RequestHead {
            entry,
            malformed: wrong.or_else(|| method_read.is_err().then(|| "the method is not a token".to_owned())),
            method: method_read.unwrap_or(Method::GET),
            target: target_read.unwrap_or_else(|_| sigward_gateway::exchange::nowhere()),
            path: sigward_engine::legal_target(target),
            body: BodySize::Known(body.len() as u64),
            headers,
            client: "127.0.0.1".into(),
        };
        Ok(self.rehearse(head, Bytes::copy_from_slice(body)))
    }
}

impl Rehearsal {
    fn made_of(settings: &str) -> Result<Self, String> {
        let mut settings = EngineSettings::from_json(settings)?;
        // What a call is for is looked for where it will be logged.
        settings.audit_log = LogTo::Stderr;
        let credentials = Credentials::new("AKIDREHEARSAL", "no-secret", None).map_err(|error: SignError| error.to_string())?;
        let identity = Identity { credentials: Some(Arc::new(credentials)), provider: "rehearsal".into(), ..Identity::default() };
        let names: BTreeSet<&str> = [settings.default_identity.as_str()]
            .into_iter()
            .chain(settings.routes.iter().filter_map(|route| route.identity.as_deref()))
            .chain(settings.clients.issued.iter().filter_map(|issued| issued.identity.as_deref()))
            .collect();
        let identities = names.into_iter().map(|name| (name.into(), identity.clone())).collect();
        let clients = Clients::new(&settings.clients, &[0; 32]);
        let config = Config::new(settings, Knowledge::shipped()?, clients, Arc::default())?;
        Ok(Self { config: Arc::new(config), identities, count: AtomicU64::new(0) })
    }

    fn rehearse(&self, head: RequestHead, body: Bytes) -> Rehearsed {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut stage = Stage {
            exchange: Exchange::new(Arc::clone(&self.config), count),
            identities: &self.identities,
            since_start: Duration::from_secs(APART.saturating_mul(count)),
            body,
            trailers: None,
            at: 0,
        };
        let outcome = stage.play(head);
        Rehearsed { record: stage.exchange.take_record(), outcome }
    }
}

/// One request on its way.
struct Stage<'a> {
    exchange: Exchange,
    identities: &'a Identities,
    since_start: Duration,
    /// All of it; out of its chunks, once they are taken off.
    body: Bytes,
    trailers: Option<HeaderMap>,
    /// So much of it has been read.
    at: usize,
}

impl Stage<'_> {
    fn tell(&mut self, event: Event<'_>) -> Step {
        let moment = Moment { unix_seconds: NOW, since_start: self.since_start, identities: self.identities };
        self.exchange.on(event, &moment)
    }

    fn play(&mut self, head: RequestHead) -> Outcome {
        let mut step = self.tell(Event::arrived(head));
        for _ in 0..STEPS.max(self.body.len() / PIECE * 2) {
            step = match step {
                Step::Unwrap { length, decoder } => match unwrapped(&self.body, length, *decoder) {
                    Ok((body, trailers)) => {
                        (self.body, self.trailers) = (body.into(), Some(trailers));
                        self.tell(Event::Unwrapped)
                    }
                    Err(why) => return Outcome::Stuck(why),
                },
                Step::Read { limit, keep } => self.read(limit, keep),
                Step::Wait { until } => {
                    self.since_start = self.since_start.max(until);
                    self.tell(Event::Elapsed)
                }
                Step::Pace { .. } => self.tell(Event::Paced { granted: true }),
                Step::Refresh { .. } => self.tell(Event::Refreshed),
                Step::Send(outgoing) => return self.sent(*outgoing),
                Step::Reply(response) => {
                    let (head, body) = response.into_parts();
                    return Outcome::Answered { status: head.status.as_u16(), headers: head.headers, body };
                }
                Step::ReadCode { .. } | Step::Deliver => return Outcome::Stuck("there is no answer to deliver".into()),
            };
        }
        Outcome::Stuck("the exchange does not come to an attempt".into())
    }

    fn read(&mut self, limit: u64, keep: Keep) -> Step {
        let most = match keep {
            // A driver reads on until the limit is passed.
            Keep::Memory => usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1),
            Keep::Spool => PIECE,
        };
        let end = self.body.len().min(self.at.saturating_add(most));
        let piece = self.body.slice(self.at.min(end)..end);
        self.at = end;
        let (last, trailers) = (end == self.body.len(), self.trailers.clone());
        self.tell(Event::Body { bytes: &piece, last, trailers: trailers.as_ref().filter(|_| last) })
    }

    fn sent(&self, mut outgoing: Outgoing) -> Outcome {
        let body = match (outgoing.edited.take(), outgoing.body) {
            (Some(edited), _) => edited,
            (None, BodyPlan::Empty) => Bytes::new(),
            (None, BodyPlan::Kept | BodyPlan::Stream) => self.body.clone(),
        };
        match wrapped(outgoing.wrap.take(), &body, self.trailers.as_ref()) {
            Ok(wrapped) => Outcome::Sent(Box::new(Sent { outgoing, body: wrapped.map_or(body, Into::into) })),
            Err(why) => Outcome::Stuck(why),
        }
    }
}

/// What was in the chunks, and what followed it.
fn unwrapped(body: &[u8], length: Option<u64>, mut decoder: Decoder) -> Result<(Vec<u8>, HeaderMap), String> {
    let (mut rest, mut out, mut trailers) = (body, Vec::with_capacity(body.len()), HeaderMap::new());
    while let Some(piece) = decoder.next(&mut rest).map_err(|error| error.to_string())? {
        match piece {
            Piece::Data(data) => out.extend_from_slice(data),
            Piece::Trailer { name, value } => {
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(&value)) {
                    trailers.append(name, value);
                }
            }
        }
    }
    decoder.end().map_err(|error| error.to_string())?;
    match length {
        Some(length) if length != out.len() as u64 => Err(format!("{length} bytes were announced, {} came", out.len())),
        _ => Ok((out, trailers)),
    }
}

/// The body in the chunks that it leaves in. Events keep the form that they came in: each is signed on its own, and names no call.
fn wrapped(wrap: Option<Wrap>, body: &[u8], trailers: Option<&HeaderMap>) -> Result<Option<Vec<u8>>, String> {
    let Some(Wrap::Chunks { mut encoder, trailers: announced }) = wrap else { return Ok(None) };
    let mut out = Vec::with_capacity(body.len() + 512);
    for chunk in body.chunks(CHUNK) {
        encoder.chunk(chunk, &mut out).map_err(|error| error.to_string())?;
    }
    let mut told: Vec<(&[u8], &[u8])> = Vec::new();
    for name in &announced {
        let value = trailers.and_then(|trailers| trailers.get(name)).ok_or_else(|| format!("the trailer {name} did not come"))?;
        told.push((name.as_str().as_bytes(), value.as_bytes()));
    }
    encoder.finish(&told, &mut out).map_err(|error| error.to_string())?;
    Ok(Some(out))
}

#[pymethods]
impl Rehearsed {
    #[getter]
    fn decision(&self) -> &'static str {
        self.record.disposition.as_str()
    }

    #[getter]
    fn sent(&self) -> bool {
        self.outgoing().is_some()
    }

    #[getter]
    fn method(&self) -> Option<&str> {
        Some(self.outgoing()?.outgoing.method.as_str())
    }

    #[getter]
    fn target(&self) -> Option<&str> {
        Some(&self.outgoing()?.outgoing.path)
    }

    #[getter]
    fn host(&self) -> Option<&str> {
        Some(&self.outgoing()?.outgoing.upstream.target.host)
    }

    #[getter]
    fn headers<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = match &self.outcome {
            Outcome::Sent(sent) => &sent.outgoing.headers,
            Outcome::Answered { headers, .. } => headers,
            Outcome::Stuck(_) => return Ok(PyList::empty(python)),
        };
        let pairs: Vec<Bound<'py, PyTuple>> = headers
            .iter()
            .map(|(name, value)| {
                PyTuple::new(python, [PyBytes::new(python, name.as_str().as_bytes()), PyBytes::new(python, value.as_bytes())])
            })
            .collect::<PyResult<_>>()?;
        PyList::new(python, pairs)
    }

    #[getter]
    fn body<'py>(&self, python: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(
            python,
            match &self.outcome {
                Outcome::Sent(sent) => &sent.body,
                Outcome::Answered { body, .. } => body,
                Outcome::Stuck(_) => b"",
            },
        )
    }

    #[getter]
    fn status(&self) -> Option<u16> {
        match &self.outcome {
            Outcome::Answered { status, .. } => Some(*status),
            Outcome::Sent(_) | Outcome::Stuck(_) => None,
        }
    }

    #[getter]
    fn slug(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Stuck(_) => Some("body-failed"),
            Outcome::Answered { .. } => self.record.error,
            Outcome::Sent(_) => None,
        }
    }

    #[getter]
    fn reason(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Stuck(why) => Some(why),
            Outcome::Answered { .. } | Outcome::Sent(_) => self.record.reason(),
        }
    }

    #[getter]
    fn service(&self) -> Option<&str> {
        self.record.service.as_deref()
    }

    #[getter]
    fn region(&self) -> Option<&str> {
        self.record.region.as_deref()
    }

    #[getter]
    fn operation(&self) -> Option<String> {
        self.record.operation.as_ref().map(ToString::to_string)
    }

    #[getter]
    fn resource(&self) -> Option<&str> {
        self.record.resource.as_deref()
    }

    #[getter]
    fn bucket(&self) -> Option<&str> {
        self.in_s3().map(|(bucket, _)| bucket)
    }

    #[getter]
    fn key(&self) -> Option<&str> {
        self.in_s3().map(|(_, key)| key)
    }

    #[getter]
    fn route(&self) -> Option<&str> {
        self.record.route.as_deref()
    }

    #[getter]
    fn ambiguous(&self) -> Option<&str> {
        self.record.ambiguous
    }

    #[getter]
    fn would_refuse(&self) -> Vec<(String, &'static str)> {
        self.record.would_refuse.iter().map(|(route, what)| (route.to_string(), *what)).collect()
    }

    fn __repr__(&self) -> String {
        match &self.outcome {
            Outcome::Sent(sent) => {
                let outgoing = &sent.outgoing;
                format!("Rehearsed({} → {} {}{})", self.record.summary(), outgoing.method, outgoing.upstream.target.host, outgoing.path)
            }
            Outcome::Answered { status, .. } => format!("Rehearsed({} → {status})", self.record.summary()),
            Outcome::Stuck(why) => format!("Rehearsed({} → {why})", self.record.summary()),
        }
    }
}

impl Rehearsed {
    fn outgoing(&self) -> Option<&Sent> {
        match &self.outcome {
            Outcome::Sent(sent) => Some(sent),
            Outcome::Answered { .. } | Outcome::Stuck(_) => None,
        }
    }

    /// Bucket and key, decoded; the key is empty where the bucket itself is meant.
    fn in_s3(&self) -> Option<(&str, &str)> {
        let (_, rest) = self.record.resource.as_deref()?.strip_prefix("arn:")?.split_once(':')?;
        let name = rest.strip_prefix("s3:::").or_else(|| rest.strip_prefix("s3express:::"))?;
        Some(name.split_once('/').unwrap_or((name, "")))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Rehearsal>()?;
    module.add_class::<Rehearsed>()
}
