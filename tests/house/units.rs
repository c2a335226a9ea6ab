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
const TYPED: &str = "typed.conf";

/// The drop-in for commands that load modules.
const IPTABLES: &str = "iptables.conf";

fn ours(file: &str) -> String {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    std::fs::read_to_string(ours.join(file)).expect("a unit")
}

/// Copies both units, and this drop-in, if any, to where systemd looks for it.
fn copy(drop_in: Option<&str>, change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let write = |file: &str, text: &str| {
        let text = text.replace("/usr/sbin/knockd", env!("CARGO_BIN_EXE_knockd"));
        std::fs::write(copy.path().join(file), change(&text)).expect("a copy");
    };
    for unit in UNITS {
        write(unit, &ours(unit));
    }
    if let Some(name) = drop_in {
        let folder = copy.path().join("knockd.service.d");
        std::fs::create_dir(&folder).expect("a directory");
        let text = ours(&format!("drop-ins/{name}"));
        write(&format!("knockd.service.d/{name}"), &text);
    }
    copy
}

#[test]
fn systemd_is_content_with_both() {
    needs!(Tool("systemd-analyze"));
    let copy = copy(None, str::to_owned);
    assert_eq!(verify(copy.path(), &UNITS), "");
}

#[test]
fn systemd_is_content_with_each_drop_in() {
    needs!(Tool("systemd-analyze"));
    for drop_in in [TYPED, IPTABLES] {
        let copy = copy(Some(drop_in), str::to_owned);
        assert_eq!(verify(copy.path(), &["knockd.service"]), "", "{drop_in}");
    }
}

/// Returns what `systemd-analyze security` makes of a unit, in tenths: 0 is the best, 100 the worst.
fn exposure(directory: &Path, unit: &str) -> u32 {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(directory.join(unit))
        .output()
        .expect("systemd-analyze (package systemd)");
    let said = String::from_utf8_lossy(&output.stdout);
    let level = said.lines().find_map(|line| {
        let (_, level) = line.split_once("Overall exposure level for ")?;
        level.split_whitespace().nth(1)
    });
    let level = level.unwrap_or_else(|| panic!("no level: {output:?}"));
    level.replace('.', "").parse().expect("a number")
}

#[test]
fn systemd_finds_little_exposed() {
    needs!(Tool("systemd-analyze"));
    for (unit, drop_in, below) in [
        ("knockd.service", None, 40),
        ("knockd.service", Some(TYPED), 20),
        ("knockd-guard.service", None, 20),
    ] {
        let found = exposure(copy(drop_in, str::to_owned).path(), unit);
        assert!(found < below, "{unit} {drop_in:?}: {found} tenths");
    }
}

/// Whoever may load a module can have the kernel do anything.
#[test]
fn modules_are_loaded_by_whoever_asks_for_it_alone() {
    let settings = |file: &str| -> Vec<String> {
        let text = ours(file);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let may = |file: &str| settings(file).iter().any(|line| line.contains("MODULE"));
    for file in [UNITS[0], UNITS[1], "drop-ins/typed.conf"] {
        assert!(!may(file), "{file}");
    }
    assert!(may("drop-ins/iptables.conf"));
}

#[test]
fn systemd_would_say_what_is_wrong() {
    needs!(Tool("systemd-analyze"));
    let broken = |text: &str| text.replace("RestrictRealtime=", "RestrictUnrealtime=");
    let copy = copy(None, broken);
    let said = verify(copy.path(), &UNITS);
    assert!(said.contains("RestrictUnrealtime"), "{said}");
}

/// A reload by `kill` would succeed even if the daemon refused the file.
#[test]
fn a_reload_is_what_the_daemon_makes_of_it() {
    let unit = ours("knockd.service");
    let reload: Vec<_> = unit
        .lines()
        .filter(|l| l.starts_with("ExecReload="))
        .collect();
    assert_eq!(reload, ["ExecReload=/usr/sbin/knockd $KNOCKD_OPTS reload"]);
}

/// A guard that comes before nftables.service is flushed away again. A guard that comes after
/// the network, or after whoever listens where the network is up already, is too late.
#[test]
fn the_guard_comes_between_the_flush_and_the_network() {
    let guard = ours("knockd-guard.service");
    for line in [
        "After=nftables.service",
        "Before=network-pre.target",
        "Before=sysinit.target",
        "Wants=network-pre.target",
        "DefaultDependencies=no",
    ] {
        assert!(guard.lines().any(|l| l == line), "{line}");
    }
}
