//! `recognise` and `Recognised`.

use pyo3::prelude::*;
use sigward_gateway::knowledge::Knowledge;
use sigward_gateway::recognise::Hint;
use sigward_sigv4::Style;

#[pyclass(frozen, module = "sigward._core")]
pub(crate) struct Recognised {
    #[pyo3(get)]
    signing_name: String,
    #[pyo3(get)]
    region: Option<String>,
    #[pyo3(get)]
    partition: &'static str,
    #[pyo3(get)]
    style: &'static str,
    #[pyo3(get)]
    signed: bool,
    #[pyo3(get)]
    variant: &'static str,
}

#[pymethods]
impl Recognised {
    fn __repr__(&self) -> String {
        format!("Recognised({} {} {})", self.signing_name, self.region.as_deref().unwrap_or("-"), self.partition)
    }
}

#[pyfunction]
#[pyo3(signature = (host, hint = None, /))]
#[allow(clippy::needless_pass_by_value, reason = "Python's strings are taken out as values")]
fn recognise(python: Python<'_>, host: &str, hint: Option<(String, String)>) -> PyResult<Option<Recognised>> {
    let knowledge = Knowledge::shipped().map_err(|message| crate::errors::settings(python, message))?;
    Ok(recognised(&knowledge, host, hint.as_ref()))
}

pub(crate) fn recognised(knowledge: &Knowledge, host: &str, hint: Option<&(String, String)>) -> Option<Recognised> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let hint = hint.map(|(signing_name, region)| Hint { signing_name, region });
    sigward_gateway::recognise::recognise(knowledge, &host, hint).map(|found| Recognised {
        signing_name: found.signing_name.to_owned(),
        region: Some(found.region.to_owned()),
        partition: found.partition,
        style: style_name(found.style),
        signed: found.variant.signed(),
        variant: found.variant.name(),
    })
}

#[pyfunction]
fn aws_domains() -> Vec<&'static str> {
    sigward_gateway::recognise::domains().collect()
}

pub(crate) fn style_name(style: Style) -> &'static str {
    match style {
        Style::S3 => "s3",
        Style::Generic => "generic",
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Recognised>()?;
    module.add_function(wrap_pyfunction!(aws_domains, module)?)?;
    module.add_function(wrap_pyfunction!(recognise, module)?)
}
