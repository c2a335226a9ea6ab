#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| knockd::fuzz::listener_message(bytes));
