//! Runs other programs: nft(8), which alone can write any ruleset as text and read it back, ip(8),
//! and iptables(8) for its own tables.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::thread;

use super::error::ProbeError;

/// Runs a program to its end with `input` on its standard input. Returns its standard output.
pub(super) fn run(program: &str, args: &[&str], input: &str) -> Result<String, ProbeError> {
    let missing = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return ProbeError::Missing {
                program: program.to_owned(),
                package: package(program),
            };
        }
        failed(program, args, error.to_string())
    };
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", path())
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let pipe = child.stdin.take();
    let output = thread::scope(|scope| {
        // Another thread writes: a program that writes much while it reads would wait for us, and we for
        // it.
        scope.spawn(move || {
            // A program that fails early reads no further: then its exit status is the error.
            pipe.map(|mut pipe| pipe.write_all(input.as_bytes()))
        });
        child.wait_with_output()
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // The first line says where and why; the lines below show the place.
        let mut lines = said.lines().filter(|line| !line.starts_with('#'));
        let why = lines.next().unwrap_or("it does not say why");
        return Err(failed(program, args, why.to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failed(program: &str, args: &[&str], why: String) -> ProbeError {
    let line = format!("{program} {}", args.join(" "));
    ProbeError::Tool { line, why }
}

/// Returns PATH with the directories of these programs, which Debian's root lacks after `su` without
/// `-`.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

fn package(program: &str) -> &'static str {
    match program {
        "nft" => "package nftables",
        "ip" => "package iproute2",
        _ => "package iptables",
    }
}
