//! Any two spellings of one call get one verdict; what is sent, read again, is what was decided on; nothing panics.
#![no_main]

#[path = "../../gateway/tests/spelt/mod.rs"]
mod spelt;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| spelt::check(data));
