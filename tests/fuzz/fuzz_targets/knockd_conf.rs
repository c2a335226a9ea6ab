//! No text makes the reader of knockd.conf panic, and what it reads converts to TOML that
//! passes the check.

#![no_main]

use knockd::config::{Format, Host, parse};
use knockd::tools::convert::convert;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let report = parse("knockd.conf", text, Format::Legacy, &Host::default());
    for native in [false, true] {
        match convert("knockd.conf", text, native) {
            Ok(made) => {
                let new = parse("knockd.toml", &made.toml, Format::Toml, &Host::default());
                assert!(new.config.is_some(), "{:?}\n{}", new.diagnostics, made.toml);
            }
            Err(_) => assert!(report.config.is_none()),
        }
    }
});
