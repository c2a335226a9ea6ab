//! No text makes the TOML reader or the check panic; what has no error is a configuration.
//! `tests/config/cases` and `examples` are good to begin with.

#![no_main]

use knockd::config::{Format, Host, Severity, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let report = parse("knockd.toml", text, Format::Toml, &Host::default());
    let said: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
    let errors = report.diagnostics.iter().filter(|d| d.severity == Severity::Error);
    assert_eq!(report.config.is_some(), errors.count() == 0, "{said:?}");
});
