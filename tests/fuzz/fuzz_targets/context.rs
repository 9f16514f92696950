//! Any bytes as a context.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flagcast_fuzz::context(bytes));
