//! What a test needs of the machine, and what becomes of the test where that is missing.
//!
//! A test that needs something says so in its first line, `needs!(Laboratory)`. Where it is
//! missing, the test ends there and counts as passed, and a line on standard error names it, so
//! that plain `cargo test` does what can be done on this machine. With `CI=true` the test fails.
//! No test installs or downloads anything: `contrib/test.sh` does, and sets `CI`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};

use super::ancestor;

/// Something that not every machine has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// Network namespaces, made without root, and the tools to furnish them.
    Laboratory,
    /// A program in `$PATH`.
    Tool(&'static str),
    /// The programs of knock 0.8 as Debian ships them.
    Knock08,
    /// The kernels and the disk of the tests of tests/machine, and what they run under.
    Machine,
    /// An earlier knockd, with its units.
    Before,
    /// Test programs that can be run within a machine.
    TestPrograms,
}

impl Need {
    /// Returns what is missing, and `None` if the need is met.
    fn missing(self) -> Option<String> {
        match self {
            Self::Laboratory => LABORATORY.clone(),
            Self::Tool(name) => (!is_in_path(name)).then(|| format!("no {name} in $PATH")),
            Self::Knock08 if ancestor::root().is_dir() => None,
            Self::Knock08 => Some("no knock 0.8 in $KNOCK_0_8 or target/knock-0.8".to_owned()),
            Self::Machine if !machine().join("disk").exists() => {
                Some("no machine in target/machine (contrib/vm.sh makes it)".to_owned())
            }
            Self::Machine => ["qemu-system-x86_64", "cpio", "strip"]
                .into_iter()
                .find_map(|name| Self::Tool(name).missing()),
            Self::Before if before().is_dir() => None,
            Self::Before => Some("no earlier knockd in target/before (contrib/vm.sh)".to_owned()),
            Self::TestPrograms if test_programs().is_dir() => None,
            Self::TestPrograms => Some("no target/test-programs (contrib/vm.sh)".to_owned()),
        }
    }
}

/// Where contrib/vm.sh leaves the kernels and the disk.
pub(crate) fn machine() -> PathBuf {
    ancestor::target().join("machine")
}

/// Where contrib/vm.sh leaves an earlier knockd and its units.
pub(crate) fn before() -> PathBuf {
    ancestor::target().join("before")
}

/// Where contrib/vm.sh leaves the test programs, by their names.
pub(crate) fn test_programs() -> PathBuf {
    ancestor::target().join("test-programs")
}

/// What the laboratory lacks.
static LABORATORY: LazyLock<Option<String>> = LazyLock::new(|| {
    let tools = ["unshare", "nsenter", "ip", "nft", "sysctl"];
    if let Some(missing) = tools
        .into_iter()
        .find_map(|name| Need::Tool(name).missing())
    {
        return Some(missing);
    }
    let made = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    (!made).then(|| {
        "no network namespaces (kernel.unprivileged_userns_clone, user.max_user_namespaces)"
            .to_owned()
    })
});

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |directory: PathBuf| directory.join(name).is_file();
    std::env::split_paths(&path).any(is_there)
}

/// Says that the calling test is left out, since this kernel lacks what it is about: with
/// `CI=true` too, for nothing that can be installed would help. tests/machine/devices.rs runs such tests
/// on a kernel that has all, and says so by `KNOCKD_WHOLE_KERNEL`.
///
/// # Panics
///
/// With `KNOCKD_WHOLE_KERNEL`.
pub(crate) fn kernel_lacks(what: &str) {
    let whole = std::env::var_os("KNOCKD_WHOLE_KERNEL").is_some();
    assert!(!whole, "this kernel has no {what}");
    say_left_out("a test", &format!("this kernel has no {what}"));
}

/// Says that the calling test is left out, since only root may do this: with `CI=true` too, for no other
/// test needs root.
pub(crate) fn only_for_root(what: &str) {
    say_left_out("a test", &format!("only root may {what}"));
}

/// Says that the calling test could not judge what it is about, since this machine was too busy: with
/// `CI=true` too, for the same reason.
pub(crate) fn machine_is_busy(what: &str) {
    say_left_out("a test", &format!("this machine is too busy to {what}"));
}

/// Returns whether the calling test must be left out, and then says so.
///
/// # Panics
///
/// With `CI=true`, instead of leaving it out.
#[track_caller]
pub(crate) fn is_left_out(module: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find_map(|need| need.missing()) else {
        return false;
    };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{missing}, and with CI=true no test is left out: contrib/test.sh installs what is needed"
    );
    let mut remedy = "";
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if TOLD
        .lock()
        .is_ok_and(|mut told| told.insert(missing.clone()))
    {
        remedy = " (contrib/test.sh installs what is missing, and leaves out no test)";
    }
    say_left_out(module, &format!("{missing}{remedy}"));
    true
}

fn say_left_out(module: &str, why: &str) {
    let thread = std::thread::current();
    // The harness names the thread after the test, unless there is but one thread.
    let test = match thread.name() {
        Some(name) if name != "main" => name,
        _ => module,
    };
    let line = format!("left out: {test}: {why}\n");
    // Not eprint!, which the harness keeps to itself where a test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Ends the test here if the machine lacks one of these [`Need`]s.
macro_rules! needs {
    ($($need:ident $(($name:literal))?),+ $(,)?) => {
        if $crate::support::need::is_left_out(
            module_path!(),
            &[$($crate::support::need::Need::$need $(($name))?),+],
        ) {
            return;
        }
    };
}
