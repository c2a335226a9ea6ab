#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| knockd::fuzz::one_time_file(bytes));
