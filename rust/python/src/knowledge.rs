//! `Knowledge` and `Operation`.

use std::sync::Arc;

use pyo3::prelude::*;
use sigward_gateway::knowledge::{Call, Knowledge as Table, Operation as Found};

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

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Knowledge>()?;
    module.add_class::<Operation>()
}
