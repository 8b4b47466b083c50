//! `Signer`, `SigningSteps` and `Verifier`. The fastest boundary measured: a frozen class, positional arguments, the list of
//! headers walked by hand, one bytes object out.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use sigward_sigv4::verify::{Claim, Rules};
use sigward_sigv4::{Credentials, Options, Payload, QueryPlus, Request, Scope, SessionToken, Style, Variant};
use smallvec::SmallVec;

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Signer {
    credentials: Credentials,
    region: String,
    signing_name: String,
    style: Style,
    options: Options,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct SigningSteps {
    canonical_request: Vec<u8>,
    string_to_sign: String,
    signature: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    query: Option<Vec<u8>>,
}

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Verifier {
    credentials: Credentials,
    style: Style,
    normalize: bool,
    token: SessionToken,
    window: u64,
}

/// One of the words that an argument may be.
fn word<T: Copy>(argument: &str, given: &str, known: &[(&str, T)]) -> PyResult<T> {
    known.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<String> = known.iter().map(|(word, _)| format!("{word:?}")).collect();
        PyValueError::new_err(format!("{argument}: {} is expected, not {given:?}", known.join(" or ")))
    })
}

const STYLES: [(&str, Style); 2] = [("s3", Style::S3), ("generic", Style::Generic)];
const VARIANTS: [(&str, Variant); 2] = [("v4", Variant::V4), ("v4a", Variant::V4a)];
const PLUSES: [(&str, QueryPlus); 2] = [("blank", QueryPlus::Blank), ("plus", QueryPlus::Plus)];
const TOKENS: [(&str, SessionToken); 3] =
    [("signed", SessionToken::Signed), ("added-after", SessionToken::AddedAfter), ("s3express", SessionToken::S3Express)];

fn credentials(python: Python<'_>, id: &str, secret: &str, token: Option<&str>) -> PyResult<Credentials> {
    Credentials::new(id, secret, token).map_err(|error| crate::errors::signing(python, &error))
}

#[pymethods]
impl Signer {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "keywords in Python")]
    #[pyo3(signature = (
        access_key_id, secret_access_key, session_token, region, signing_name, style = "generic", *,
        variant = "v4", token = "signed", normalize = true, content_sha256 = false, query_plus = "blank"
    ))]
    fn new(
        python: Python<'_>,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
        region: &str,
        signing_name: &str,
        style: &str,
        variant: &str,
        token: &str,
        normalize: bool,
        content_sha256: bool,
        query_plus: &str,
    ) -> PyResult<Self> {
        let options = Options {
            query_plus: word("query_plus", query_plus, &PLUSES)?,
            variant: word("variant", variant, &VARIANTS)?,
            session_token: word("token", token, &TOKENS)?,
            normalize,
            content_sha256,
            ..Options::default()
        };
        Ok(Self {
            style: word("style", style, &STYLES)?,
            credentials: credentials(python, access_key_id, secret_access_key, session_token)?,
            region: region.to_owned(),
            signing_name: signing_name.to_owned(),
            options,
        })
    }

    #[allow(clippy::too_many_arguments, reason = "positional arguments cost least")]
    #[pyo3(signature = (method, path, query, headers, payload, timestamp, /))]
    fn sign<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        payload: &Bound<'py, PyAny>,
        timestamp: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let lines = with_request((method, path, query, headers, payload), |request| {
            sigward_sigv4::sign_lines(&self.credentials, &self.scope(), request, timestamp, self.options, |lines| {
                PyBytes::new(python, lines)
            })
        })?;
        lines.map_err(|error| crate::errors::signing(python, &error))
    }

    #[allow(clippy::too_many_arguments, reason = "as sign")]
    #[pyo3(signature = (method, path, query, headers, payload, timestamp, /))]
    fn steps<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        payload: &Bound<'py, PyAny>,
        timestamp: u64,
    ) -> PyResult<SigningSteps> {
        let steps = with_request((method, path, query, headers, payload), |request| {
            sigward_sigv4::steps_with(&self.credentials, &self.scope(), request, timestamp, self.options)
        })?;
        let steps = steps.map_err(|error| crate::errors::signing(python, &error))?;
        let headers = steps.signed.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Ok(SigningSteps {
            canonical_request: steps.canonical_request,
            string_to_sign: steps.string_to_sign,
            signature: steps.signature,
            headers,
            query: None,
        })
    }

    #[allow(clippy::too_many_arguments, reason = "as sign")]
    #[pyo3(signature = (method, path, query, headers, payload, expires, timestamp, /))]
    fn presign<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        payload: &Bound<'py, PyAny>,
        expires: u64,
        timestamp: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let signed = with_request((method, path, query, headers, payload), |request| {
            sigward_sigv4::presign(&self.credentials, &self.scope(), request, timestamp, expires, self.options)
        })?;
        match signed {
            Ok(signed) => Ok(PyBytes::new(python, signed.query())),
            Err(error) => Err(crate::errors::signing(python, &error)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "as sign")]
    #[pyo3(signature = (method, path, query, headers, payload, expires, timestamp, /))]
    fn presign_steps<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        payload: &Bound<'py, PyAny>,
        expires: u64,
        timestamp: u64,
    ) -> PyResult<SigningSteps> {
        let steps = with_request((method, path, query, headers, payload), |request| {
            sigward_sigv4::presign_steps(&self.credentials, &self.scope(), request, timestamp, expires, self.options)
        })?;
        let steps = steps.map_err(|error| crate::errors::signing(python, &error))?;
        Ok(SigningSteps {
            query: Some(steps.signed.query().to_vec()),
            canonical_request: steps.canonical_request,
            string_to_sign: steps.string_to_sign,
            signature: steps.signature,
            headers: Vec::new(),
        })
    }

    fn public_key<'py>(&self, python: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let point = self.credentials.public_key().map_err(|error| crate::errors::signing(python, &error))?;
        Ok(PyBytes::new(python, &point))
    }

    fn __repr__(&self) -> String {
        format!("Signer({} {} {})", self.signing_name, self.region, crate::recognised::style_name(self.style))
    }
}

impl Signer {
    fn scope(&self) -> Scope<'_> {
        Scope { region: &self.region, signing_name: &self.signing_name, style: self.style }
    }
}

/// Both items of a pair of bytes. A look at the type itself costs less than asking for its flags: nearly all are of no class
/// derived from it.
fn pair<'a, 'py>(tuple: &'a Bound<'py, PyTuple>) -> Option<(&'a Bound<'py, PyBytes>, &'a Bound<'py, PyBytes>)> {
    let bytes = |item: &'a Bound<'py, PyAny>| item.cast_exact::<PyBytes>().or_else(|_| item.cast::<PyBytes>()).ok();
    match tuple.as_slice() {
        [name, value] => Some((bytes(name)?, bytes(value)?)),
        _ => None,
    }
}

type Parts<'a, 'py> = (&'a [u8], &'a [u8], &'a [u8], &'a Bound<'py, PyList>, &'a Bound<'py, PyAny>);

fn with_request<T>((method, path, query, headers, payload): Parts<'_, '_>, job: impl FnOnce(&Request<'_>) -> T) -> PyResult<T> {
    let wrong = || PyValueError::new_err("headers: a list of (bytes, bytes) is expected");
    // The tuples are kept; what is in them is borrowed.
    let mut tuples: SmallVec<[Bound<'_, PyTuple>; 24]> = SmallVec::with_capacity(headers.len());
    for pair in headers.iter() {
        tuples.push(pair.cast_into_exact::<PyTuple>().map_err(|_| wrong())?);
    }
    let mut pairs: SmallVec<[(&[u8], &[u8]); 24]> = SmallVec::with_capacity(tuples.len());
    for tuple in &tuples {
        let (name, value) = pair(tuple).ok_or_else(wrong)?;
        pairs.push((name.as_bytes(), value.as_bytes()));
    }
    let method = std::str::from_utf8(method).map_err(|_| PyValueError::new_err("method: ASCII is expected"))?;
    let payload = match payload.cast_exact::<PyBytes>().or_else(|_| payload.cast::<PyBytes>()) {
        Ok(bytes) => Payload::Bytes(bytes.as_bytes()),
        Err(_) => match payload.cast::<PyString>() {
            Ok(text) => Payload::Given(text.to_str()?.as_bytes()),
            Err(_) => return Err(PyValueError::new_err("payload: bytes, or a str for x-amz-content-sha256, is expected")),
        },
    };
    Ok(job(&Request { method, path, query, headers: &pairs, payload }))
}

#[pymethods]
impl SigningSteps {
    #[getter]
    fn canonical_request(&self) -> &[u8] {
        &self.canonical_request
    }

    #[getter]
    fn string_to_sign(&self) -> &str {
        &self.string_to_sign
    }

    #[getter]
    fn signature(&self) -> &str {
        &self.signature
    }

    #[getter]
    fn headers<'py>(&self, python: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        self.headers.iter().map(|(name, value)| (PyBytes::new(python, name), PyBytes::new(python, value))).collect()
    }

    #[getter]
    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref()
    }

    #[allow(clippy::unused_self, reason = "a method for Python")]
    fn __repr__(&self) -> &'static str {
        "SigningSteps(…)"
    }
}

#[pymethods]
impl Verifier {
    #[new]
    #[pyo3(signature = (access_key_id, secret_access_key, session_token, style = "generic", *, token = "signed", normalize = true, window = 900))]
    #[allow(clippy::too_many_arguments, reason = "keywords in Python")]
    fn new(
        python: Python<'_>,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
        style: &str,
        token: &str,
        normalize: bool,
        window: u64,
    ) -> PyResult<Self> {
        Ok(Self {
            style: word("style", style, &STYLES)?,
            credentials: credentials(python, access_key_id, secret_access_key, session_token)?,
            token: word("token", token, &TOKENS)?,
            normalize,
            window,
        })
    }

    #[allow(clippy::too_many_arguments, reason = "as Signer.sign")]
    #[pyo3(signature = (method, path, query, headers, payload, timestamp, /))]
    fn verify<'py>(
        &self,
        python: Python<'py>,
        method: &[u8],
        path: &[u8],
        query: &[u8],
        headers: &Bound<'py, PyList>,
        payload: &Bound<'py, PyAny>,
        timestamp: u64,
    ) -> PyResult<()> {
        let rules =
            Rules { style: self.style, normalize: self.normalize, session_token: self.token, unix_seconds: timestamp, window: self.window };
        let verified = with_request((method, path, query, headers, payload), |request| {
            Claim::of(request).and_then(|claim| claim.verify(&self.credentials, request, &rules))
        })?;
        verified.map(|_| ()).map_err(|error| crate::errors::verification(python, &error))
    }

    fn __repr__(&self) -> String {
        format!("Verifier({})", crate::recognised::style_name(self.style))
    }
}

#[pyfunction]
fn unsigned_headers() -> Vec<(&'static str, &'static str)> {
    sigward_sigv4::UNSIGNED_HEADERS.to_vec()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(unsigned_headers, module)?)?;
    module.add_class::<Signer>()?;
    module.add_class::<SigningSteps>()?;
    module.add_class::<Verifier>()
}
