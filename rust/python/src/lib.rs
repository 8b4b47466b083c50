//! `sigward._core`: the engine and the signer, as Python sees them. Thin; documented in `python/sigward/_core.pyi`.
//! The only place where a Rust error becomes a Python exception.

mod difference;
mod engine;
mod errors;
mod ini;
mod knowledge;
mod recognised;
mod rehearse;
mod signer;

use pyo3::prelude::*;

/// Requests allocate and free on engine threads at a high rate; the system's allocator keeps what it was given.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    errors::register(module)?;
    difference::register(module)?;
    signer::register(module)?;
    knowledge::register(module)?;
    recognised::register(module)?;
    rehearse::register(module)?;
    ini::register(module)?;
    engine::register(module)
}
