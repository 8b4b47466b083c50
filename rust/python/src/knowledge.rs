//! `Knowledge` and `Operation`.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use pyo3::prelude::*;
use sigward_gateway::judge::{Answer, RetryClass, Verdict, asked_for, delay, judge_body, judge_head};
use sigward_gateway::knowledge::{Call, Knowledge as Table, Operation as Found};
use sigward_gateway::recognise::style_of;
use sigward_gateway::settings::RetrySettings;
use sigward_sigv4::Style;

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Knowledge {
    table: Arc<Table>,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Operation {
    found: Arc<Found>,
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

    #[pyo3(signature = (signing_name, host, method, path, headers, form = None, /))]
    #[allow(clippy::too_many_arguments, reason = "one request")]
    fn operation(
        &self,
        signing_name: &str,
        host: &str,
        method: &str,
        path: &str,
        headers: &Bound<'_, PyAny>,
        form: Option<&[u8]>,
    ) -> PyResult<Option<Operation>> {
        let (headers, _) = crate::engine::header_map(headers)?;
        let call = Call { signing_name, host, method, path, headers: &headers, form };
        Ok(self.table.operation(&call).map(|found| Operation { found: Arc::clone(found) }))
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
        let answer = Answer { status, headers: &headers, operation: operation.map(|found| &**found), s3, method: &Method::POST };
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
    module.add_class::<Knowledge>()?;
    module.add_class::<Operation>()
}
