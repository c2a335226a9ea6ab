#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| knockd::fuzz::journal_0_9(bytes));
