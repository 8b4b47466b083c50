//! `Signer` and `SigningSteps`. The fastest boundary measured: a frozen class, positional arguments, the list of headers walked
//! by hand, one bytes object out.

use std::io::Write;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use sigward_sigv4::{Credentials, Options, Payload, Request, Scope, SignError, Steps, Style};

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Signer {
    credentials: Credentials,
    region: String,
    signing_name: String,
    style: Style,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct SigningSteps {
    steps: Steps,
}

#[pymethods]
impl Signer {
    #[new]
    #[pyo3(signature = (access_key_id, secret_access_key, session_token, region, signing_name, style = "generic"))]
    fn new(
        python: Python<'_>,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
        region: &str,
        signing_name: &str,
        style: &str,
    ) -> PyResult<Self> {
        let style = match style {
            "s3" => Style::S3,
            "generic" => Style::Generic,
            other => return Err(PyValueError::new_err(format!("style: \"s3\" or \"generic\" is expected, not {other:?}"))),
        };
        let credentials = Credentials::new(access_key_id, secret_access_key, session_token);
        let credentials = credentials.map_err(|error| crate::errors::signing(python, &error))?;
        Ok(Self { credentials, region: region.to_owned(), signing_name: signing_name.to_owned(), style })
    }

    #[allow(clippy::too_many_arguments, reason = "positional arguments cost least")]
    #[pyo3(signature = (method, path, query, headers, body, timestamp, /))]
    fn sign<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        body: &[u8],
        timestamp: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let signed = Self::with_request((method, path, query, headers, body), |request| {
            sigward_sigv4::sign(&self.credentials, &self.scope(), request, timestamp)
        })?;
        let signed = signed.map_err(|error| crate::errors::signing(python, &error))?;
        let size = signed.headers().map(|(name, value)| name.len() + value.len() + 4).sum();
        PyBytes::new_with(python, size, |mut lines| {
            for (name, value) in signed.headers() {
                for part in [name, b": ", value, b"\r\n"] {
                    lines.write_all(part)?;
                }
            }
            Ok(())
        })
    }

    #[allow(clippy::too_many_arguments, reason = "as sign")]
    #[pyo3(signature = (method, path, query, headers, body, timestamp, /))]
    fn steps<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        body: &[u8],
        timestamp: u64,
    ) -> PyResult<SigningSteps> {
        let steps = Self::with_request((method, path, query, headers, body), |request| {
            sigward_sigv4::steps(&self.credentials, &self.scope(), request, timestamp)
        })?;
        Ok(SigningSteps { steps: steps.map_err(|error| crate::errors::signing(python, &error))? })
    }

    /// For the vectors of AWS's suite, which set what services leave alone.
    #[allow(clippy::too_many_arguments, reason = "as sign")]
    #[pyo3(signature = (method, path, query, headers, body, timestamp, normalize, content_sha256, /))]
    fn _steps_with<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        body: &[u8],
        timestamp: u64,
        normalize: bool,
        content_sha256: bool,
    ) -> PyResult<SigningSteps> {
        let options = Options { normalize, content_sha256, ..Options::default() };
        let steps = Self::with_request((method, path, query, headers, body), |request| {
            sigward_sigv4::steps_with(&self.credentials, &self.scope(), request, timestamp, options)
        })?;
        Ok(SigningSteps { steps: steps.map_err(|error| crate::errors::signing(python, &error))? })
    }

    fn __repr__(&self) -> String {
        format!("Signer({} {} {})", self.signing_name, self.region, crate::recognised::style_name(self.style))
    }
}

type Parts<'a, 'py> = (&'a [u8], &'a [u8], &'a [u8], &'a Bound<'py, PyList>, &'a [u8]);

impl Signer {
    fn scope(&self) -> Scope<'_> {
        Scope { region: &self.region, signing_name: &self.signing_name, style: self.style }
    }

    fn with_request<T>(
        (method, path, query, headers, body): Parts<'_, '_>,
        job: impl FnOnce(&Request<'_>) -> Result<T, SignError>,
    ) -> PyResult<Result<T, SignError>> {
        let wrong = || PyValueError::new_err("headers: a list of (bytes, bytes) is expected");
        // The tuples are kept; what is in them is borrowed.
        let mut tuples: Vec<Bound<'_, PyTuple>> = Vec::with_capacity(headers.len());
        for pair in headers.iter() {
            tuples.push(pair.cast_into_exact::<PyTuple>().map_err(|_| wrong())?);
        }
        let mut pairs: Vec<(&[u8], &[u8])> = Vec::with_capacity(tuples.len());
        for tuple in &tuples {
            let item = |at| <&[u8]>::extract(tuple.get_borrowed_item(at).ok()?).ok();
            match (tuple.len(), item(0), item(1)) {
                (2, Some(name), Some(value)) => pairs.push((name, value)),
                _ => return Err(wrong()),
            }
        }
        let method = std::str::from_utf8(method).map_err(|_| PyValueError::new_err("method: ASCII is expected"))?;
        Ok(job(&Request { method, path, query, headers: &pairs, payload: Payload::Bytes(body) }))
    }
}

#[pymethods]
impl SigningSteps {
    #[getter]
    fn canonical_request(&self) -> &[u8] {
        &self.steps.canonical_request
    }

    #[getter]
    fn string_to_sign(&self) -> &str {
        &self.steps.string_to_sign
    }

    #[getter]
    fn signature(&self) -> &str {
        &self.steps.signature
    }

    #[getter]
    fn headers<'py>(&self, python: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        self.steps.signed.headers().map(|(name, value)| (PyBytes::new(python, name), PyBytes::new(python, value))).collect()
    }

    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn __repr__(&self) -> &'static str {
        "SigningSteps(…)"
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Signer>()?;
    module.add_class::<SigningSteps>()
}
