//! The units under contrib/systemd are what systemd understands.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Has systemd judge units in a directory of their own. Returns what it says of them: most faults
/// do not change its exit code.
fn verify(directory: &Path, units: &[&str]) -> String {
    let paths: Vec<PathBuf> = units.iter().map(|unit| directory.join(unit)).collect();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=one"])
        .args(&paths)
        .output()
        .expect("systemd-analyze (package systemd)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => said,
        false => format!("{said}{}", output.status),
    }
}

const UNITS: [&str; 2] = ["knockd.service", "knockd-guard.service"];

/// The drop-in for configurations without commands.
const DROP_IN: &str = "knockd.service.d/no-commands.conf";

fn copy(files: &[&str], change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let copy = tempfile::tempdir().expect("a directory");
    for file in files {
        let text = std::fs::read_to_string(ours.join(file)).expect("a unit");
        let to = copy.path().join(file);
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        let text = text.replace("/usr/sbin/knockd", env!("CARGO_BIN_EXE_knockd"));
        std::fs::write(to, change(&text)).expect("a copy");
    }
    copy
}

#[test]
fn systemd_is_content_with_both() {
    needs!(Tool("systemd-analyze"));
    let copy = copy(&UNITS, str::to_owned);
    assert_eq!(verify(copy.path(), &UNITS), "");
}

#[test]
fn systemd_is_content_with_the_drop_in() {
    needs!(Tool("systemd-analyze"));
    let copy = copy(&["knockd.service", DROP_IN], str::to_owned);
    assert_eq!(verify(copy.path(), &["knockd.service"]), "");
}

#[test]
fn systemd_would_say_what_is_wrong() {
    needs!(Tool("systemd-analyze"));
    let broken = |text: &str| text.replace("RestrictRealtime=", "RestrictUnrealtime=");
    let copy = copy(&UNITS, broken);
    let said = verify(copy.path(), &UNITS);
    assert!(said.contains("RestrictUnrealtime"), "{said}");
}

/// A reload by `kill` would succeed even if the daemon refused the file.
#[test]
fn a_reload_is_what_the_daemon_makes_of_it() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let unit = std::fs::read_to_string(ours.join("knockd.service")).expect("a unit");
    let reload: Vec<_> = unit
        .lines()
        .filter(|l| l.starts_with("ExecReload="))
        .collect();
    assert_eq!(reload, ["ExecReload=/usr/sbin/knockd $KNOCKD_OPTS reload"]);
}

/// A guard that comes before nftables.service is flushed away again. A guard that comes after
/// the network is too late.
#[test]
fn the_guard_comes_between_the_flush_and_the_network() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let guard = std::fs::read_to_string(ours.join("knockd-guard.service")).expect("a unit");
    for line in [
        "After=nftables.service",
        "Before=network-pre.target",
        "Wants=network-pre.target",
        "DefaultDependencies=no",
    ] {
        assert!(guard.lines().any(|l| l == line), "{line}");
    }
}
