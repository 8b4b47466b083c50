//! Rust's errors as Python's exceptions, each with `slug`, `fault` and `hint`.

use std::borrow::Cow;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use sigward_gateway::Fault;
use sigward_gateway::slugs::ALL;

create_exception!(sigward._core, SigwardError, PyException, "Base of what the Rust module raises.");
create_exception!(sigward._core, SettingsError, SigwardError, "The settings do not hold; the message names the field.");
create_exception!(sigward._core, SigningError, SigwardError, "A request cannot be signed; the message names the part.");
create_exception!(sigward._core, VerificationError, SigwardError, "A request was not signed as it should be; `slug` says why.");

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let python = module.py();
    let base = python.get_type::<SigwardError>();
    for name in ["slug", "fault", "hint"] {
        base.setattr(name, "")?;
    }
    module.add("SigwardError", base)?;
    module.add("SettingsError", python.get_type::<SettingsError>())?;
    module.add("SigningError", python.get_type::<SigningError>())?;
    module.add("VerificationError", python.get_type::<VerificationError>())?;
    module.add_function(wrap_pyfunction!(header_text, module)?)?;
    module.add_function(wrap_pyfunction!(redact_text, module)?)?;
    module.add_function(wrap_pyfunction!(refusals, module)?)
}

#[pyfunction]
fn refusals() -> Vec<(&'static str, &'static str, Vec<u16>, &'static str, &'static str)> {
    let side = |fault| match fault {
        Fault::Client => "client",
        Fault::Sigward => "sigward",
        Fault::Upstream => "upstream",
    };
    ALL.iter().map(|known| (known.slug, side(known.fault), known.statuses.to_vec(), known.meaning, known.mend)).collect()
}

#[pyfunction]
#[pyo3(signature = (text, /))]
fn header_text(text: &str) -> String {
    sigward_gateway::refuse::header_text(text)
}

#[pyfunction]
#[pyo3(signature = (text, /))]
fn redact_text(text: &str) -> Cow<'_, str> {
    sigward_gateway::record::redact_text(text)
}

fn with(python: Python<'_>, error: PyErr, slug: &str, fault: &str, hint: &str) -> PyErr {
    let value = error.value(python);
    for (name, text) in [("slug", slug), ("fault", fault), ("hint", hint)] {
        if let Err(failed) = value.setattr(name, text) {
            return failed;
        }
    }
    error
}

pub(crate) fn settings(python: Python<'_>, message: String) -> PyErr {
    with(python, SettingsError::new_err(message), "bad-settings", "sigward", "See docs/rules.md and docs/settings.md.")
}

pub(crate) fn signing(python: Python<'_>, error: &sigward_sigv4::SignError) -> PyErr {
    with(python, SigningError::new_err(error.to_string()), error.slug(), "client", &error.hint())
}

pub(crate) fn verification(python: Python<'_>, error: &sigward_sigv4::verify::VerifyError) -> PyErr {
    with(python, VerificationError::new_err(error.to_string()), error.slug(), "client", "Compare both sides with `sigward sign`.")
}
