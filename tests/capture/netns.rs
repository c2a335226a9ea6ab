//! A network of a test's own: a user and a network namespace, no root needed.

use std::process::Command;

/// Set in the process that runs within.
const WITHIN: &str = "KNOCKD_TEST_NAMESPACE";

/// Runs the body of the test called `name` (with its modules) in namespaces of its own, as
/// their root: the test's program is started once more, by unshare(1).
///
/// Where the kernel allows no such namespaces the test is skipped, with a word; under
/// CI=true that is a failure.
pub(crate) fn run(name: &str, body: impl FnOnce()) {
    run_with(&["-rn"], name, body);
}

/// As [`run`], with other flags for unshare(1).
pub(crate) fn run_with(flags: &[&str], name: &str, body: impl FnOnce()) {
    if std::env::var_os(WITHIN).is_some() {
        return body();
    }
    let probe = Command::new("unshare").args(flags).arg("true").output();
    if !probe.as_ref().is_ok_and(|out| out.status.success()) {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no namespaces: {probe:?}"
        );
        eprintln!("skipped, no namespaces: {probe:?}");
        return;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let output = Command::new("unshare")
        .args(flags)
        .arg(program)
        .args([name, "--exact", "--nocapture"])
        .env(WITHIN, "1")
        .output()
        .expect("unshare");
    let told = String::from_utf8_lossy(&output.stdout);
    let cried = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}\n{cried}"
    );
}

/// Runs ip(8) with these words.
pub(crate) fn ip(words: &str) {
    assert!(try_ip(words), "ip {words}");
}

/// Runs ip(8); whether it was content.
pub(crate) fn try_ip(words: &str) -> bool {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .expect("ip");
    if !output.status.success() {
        eprintln!("ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// The index the kernel has given to an interface.
pub(crate) fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
