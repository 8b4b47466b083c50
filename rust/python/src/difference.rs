//! `difference`: where two canonical requests, or two strings to sign, differ first.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sigward_sigv4::difference::{self, canonical_requests, strings_to_sign};

#[pyclass(frozen, module = "sigward._core")]
struct Difference(difference::Difference);

#[pymethods]
impl Difference {
    #[getter]
    fn part(&self) -> String {
        self.0.part.to_string()
    }

    #[getter]
    fn line(&self) -> usize {
        self.0.line
    }

    #[getter]
    fn column(&self) -> usize {
        self.0.column
    }

    #[getter]
    fn ours(&self) -> Option<&[u8]> {
        self.0.ours.as_deref()
    }

    #[getter]
    fn theirs(&self) -> Option<&[u8]> {
        self.0.theirs.as_deref()
    }

    fn __repr__(&self) -> String {
        format!("Difference({} line {} column {})", self.0.part, self.0.line, self.0.column)
    }
}

#[pyfunction]
#[pyo3(name = "difference", signature = (what, ours, theirs, /))]
fn find(what: &str, ours: &[u8], theirs: &[u8]) -> PyResult<Option<Difference>> {
    let found = match what {
        "canonical-request" => canonical_requests(ours, theirs),
        "string-to-sign" => strings_to_sign(ours, theirs),
        other => {
            return Err(PyValueError::new_err(format!("what: \"canonical-request\" or \"string-to-sign\" is expected, not {other:?}")));
        }
    };
    Ok(found.map(Difference))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Difference>()?;
    module.add_function(wrap_pyfunction!(find, module)?)
}
