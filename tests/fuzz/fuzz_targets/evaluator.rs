//! Any bytes as a condition and what it looks at.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flagcast_fuzz::condition(bytes));
