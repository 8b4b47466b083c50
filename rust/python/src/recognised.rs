//! `recognise` and `Recognised`.

use pyo3::prelude::*;
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
}

#[pymethods]
impl Recognised {
    fn __repr__(&self) -> String {
        format!("Recognised({} {} {})", self.signing_name, self.region.as_deref().unwrap_or("-"), self.partition)
    }
}

#[pyfunction]
fn recognise(host: &str) -> Option<Recognised> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    sigward_gateway::recognise::recognise(&host).map(|found| Recognised {
        signing_name: found.signing_name.to_owned(),
        region: Some(found.region.to_owned()),
        partition: found.partition,
        style: style_name(found.style),
        signed: found.signed,
    })
}

pub(crate) fn style_name(style: Style) -> &'static str {
    match style {
        Style::S3 => "s3",
        Style::Generic => "generic",
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Recognised>()?;
    module.add_function(wrap_pyfunction!(recognise, module)?)
}
