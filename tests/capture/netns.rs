//! A user and a network namespace for one test, made without root.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Set in the process that runs within.
const WITHIN: &str = "KNOCKD_TEST_NAMESPACE";

/// Runs the body of the test called `name` (with its modules) in namespaces of its own, as
/// their root: the test's program is started once more, by unshare(1).
///
/// Where the kernel allows no such namespaces the test is left out.
pub(crate) fn run(name: &str, body: impl FnOnce()) {
    run_with(&["-rn"], name, body);
}

/// As [`run`], with other flags for unshare(1).
pub(crate) fn run_with(flags: &[&str], name: &str, body: impl FnOnce()) {
    if std::env::var_os(WITHIN).is_some() {
        return body();
    }
    needs!(Laboratory);
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
    let mut command = Command::new("ip");
    let output = command.args(words.split_whitespace()).output();
    let output = output.expect("ip, of iproute2");
    let cried = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {cried}");
}

/// Starts ip(8) on these lines, one after another as fast as they go.
pub(crate) fn ip_batch(lines: &str) -> Child {
    let mut command = Command::new("ip");
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip, of iproute2");
    let mut input = child.stdin.take().expect("a pipe");
    // Less than a pipe holds: nobody waits.
    input.write_all(lines.as_bytes()).expect("written");
    child
}

/// The index the kernel has given to an interface.
pub(crate) fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
