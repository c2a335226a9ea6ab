//! Each of the examples that administrators copy passes the check without a warning.

use std::fs;
use std::path::Path;

use knockd::config::{Format, Host, parse};

#[test]
fn every_example_passes_without_a_warning() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in fs::read_dir(examples).expect("the examples") {
        let path = entry.expect("an example").path();
        let text = fs::read_to_string(&path).expect("the example");
        let name = path.display().to_string();
        let report = parse(&name, &text, Format::of(&path, &text), &Host::default());
        let said: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
        assert!(report.config.is_some_and(|c| !c.doors.is_empty()), "{name}");
        count += 1;
    }
    assert!(count >= 6, "{count} examples");
}
