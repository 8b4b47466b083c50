//! `Knowledge` and `Operation`.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sigward_gateway::judge::{Answer, Author, RetryClass, Verdict, asked_for, delay, judge_body, judge_head};
use sigward_gateway::knowledge::{Knowledge as Table, Operation as Found};
use sigward_gateway::recognise::{Ambiguity, Body, Call as Read, Part, Source, style_of};
use sigward_gateway::settings::RetrySettings;
use sigward_sigv4::{QueryPlus, Style};

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Knowledge {
    table: Arc<Table>,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Operation {
    found: Arc<Found>,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Call {
    operation: Option<Arc<Found>>,
    /// Its own, and those of other models for the same request.
    #[pyo3(get)]
    names: Vec<String>,
    #[pyo3(get)]
    unknown: Option<&'static str>,
    #[pyo3(get)]
    bucket: Option<String>,
    key: Option<Py<PyBytes>>,
    #[pyo3(get)]
    target: String,
    read: Read,
}

impl Call {
    fn new(python: Python<'_>, call: &Read) -> Self {
        let (names, unknown) = match &call.operation {
            Part::Known(names) => (names.iter().map(ToString::to_string).collect(), None),
            Part::Absent => (Vec::new(), None),
            Part::Unknown(why) => (Vec::new(), Some(*why)),
        };
        let (bucket, key) = call.bucket_and_key().unzip();
        Self {
            operation: call.known_operation().cloned(),
            names,
            unknown,
            bucket: bucket.map(str::to_owned),
            key: key.map(|key| PyBytes::new(python, key).unbind()),
            target: call.target.clone(),
            read: call.clone(),
        }
    }
}

#[pymethods]
impl Call {
    #[getter]
    fn operation(&self) -> Option<Operation> {
        self.operation.as_ref().map(|found| Operation { found: Arc::clone(found) })
    }

    fn resource(&self, partition: &str) -> Option<String> {
        self.read.resource(Some(partition))
    }

    #[getter]
    fn key(&self, python: Python<'_>) -> Option<Py<PyBytes>> {
        self.key.as_ref().map(|key| key.clone_ref(python))
    }

    fn __repr__(&self) -> String {
        format!("Call({})", self.names.first().map_or("unknown", String::as_str))
    }
}

#[pymethods]
impl Knowledge {
    #[new]
    #[pyo3(signature = (table = None, /))]
    fn new(python: Python<'_>, table: Option<&[u8]>) -> PyResult<Self> {
        let table = table.map_or_else(Table::shipped, |table| Table::load(table).map(Arc::new));
        Ok(Self { table: table.map_err(|message| crate::errors::settings(python, message))? })
    }

    #[getter]
    fn source(&self) -> &str {
        &self.table.source
    }

    #[pyo3(signature = (signing_name, host, method, path, headers, body = None, /))]
    #[allow(clippy::too_many_arguments, reason = "one request")]
    fn read(
        &self,
        python: Python<'_>,
        signing_name: &str,
        host: &str,
        method: &str,
        path: &str,
        headers: &Bound<'_, PyAny>,
        body: Option<&[u8]>,
    ) -> PyResult<Call> {
        let (headers, _) = crate::engine::header_map(headers)?;
        let method = method.parse::<Method>().map_err(|_| PyValueError::new_err(format!("method: {method:?} is not a method of HTTP")))?;
        let service = Arc::from(signing_name);
        let source = Source {
            knowledge: &self.table,
            host,
            service: Some(&service),
            style: style_of(signing_name),
            query_plus: QueryPlus::Blank,
            of_customer: sigward_gateway::recognise::recognise(&self.table, host, None).is_some_and(|found| found.own_api),
            may_hold_bucket: false,
            method: &method,
            target: path,
            headers: &headers,
            body: Body::Whole(body.unwrap_or_default()),
        };
        match Read::read(&source) {
            Ok(call) => Ok(Call::new(python, &call)),
            Err(Ambiguity { kind, one, other }) => Err(PyValueError::new_err(format!("two readings ({kind}): {one}, or {other}"))),
        }
    }

    #[pyo3(signature = (signing_name, service, operation, status, headers, body, /))]
    #[allow(clippy::too_many_arguments, reason = "one answer")]
    fn judge(
        &self,
        signing_name: &str,
        service: &str,
        operation: &str,
        status: u16,
        headers: &Bound<'_, PyAny>,
        body: &[u8],
    ) -> PyResult<&'static str> {
        let (headers, _) = crate::engine::header_map(headers)?;
        let operation = self.table.named(signing_name, service, operation);
        let s3 = style_of(signing_name) == Style::S3;
        let operation = operation.map(|found| &**found);
        let answer = Answer { status, headers: &headers, operation, s3, method: &Method::POST, author: Author::Aws };
        let verdict = match judge_head(&answer) {
            Verdict::ReadCode => judge_body(&answer, body),
            verdict => verdict,
        };
        Ok(match verdict {
            Verdict::Retry(RetryClass::Transient) => "transient",
            Verdict::Retry(RetryClass::Throttling) => "throttling",
            Verdict::Retry(RetryClass::Expired) => "expired",
            Verdict::Retry(RetryClass::Skew) => "clock",
            Verdict::Retry(RetryClass::Signature) => "signature",
            Verdict::Retry(RetryClass::Region) => "region",
            Verdict::Deliver | Verdict::ReadCode => "deliver",
        })
    }

    #[pyo3(signature = (host, hint = None, /))]
    #[allow(clippy::needless_pass_by_value, reason = "Python's strings are taken out as values")]
    fn recognise(&self, host: &str, hint: Option<(String, String)>) -> Option<crate::recognised::Recognised> {
        crate::recognised::recognised(&self.table, host, hint.as_ref())
    }

    fn __repr__(&self) -> String {
        format!("Knowledge({})", self.table.source)
    }
}

#[pymethods]
impl Operation {
    #[getter]
    fn service(&self) -> &str {
        &self.found.service
    }

    #[getter]
    fn name(&self) -> &str {
        &self.found.name
    }

    #[getter]
    fn unsigned(&self) -> bool {
        self.found.unsigned()
    }

    #[getter]
    fn read_only(&self) -> bool {
        self.found.read_only()
    }

    #[getter]
    fn idempotent(&self) -> bool {
        self.found.idempotent()
    }

    #[getter]
    fn streaming(&self) -> (bool, bool) {
        self.found.streaming()
    }

    #[getter]
    fn takes_token(&self) -> bool {
        self.found.takes_token()
    }

    fn __repr__(&self) -> String {
        format!("Operation({})", self.found)
    }
}

/// `asked`: an `x-amz-retry-after` header.
#[pyfunction]
#[pyo3(signature = (service, throttled, attempt, random, asked = None, /))]
fn retry_delay(service: &str, throttled: bool, attempt: u32, random: f64, asked: Option<&str>) -> f64 {
    let class = if throttled { RetryClass::Throttling } else { RetryClass::Transient };
    let mut headers = HeaderMap::new();
    if let Some(asked) = asked.and_then(|asked| HeaderValue::from_str(asked).ok()) {
        headers.insert("x-amz-retry-after", asked);
    }
    delay(&RetrySettings::default(), Some(service), class, attempt, random, asked_for(&headers, 0)).as_secs_f64()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(retry_delay, module)?)?;
    module.add_class::<Call>()?;
    module.add_class::<Knowledge>()?;
    module.add_class::<Operation>()
}
