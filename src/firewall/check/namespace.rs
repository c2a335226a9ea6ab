//! A network namespace for the current thread, and programs that run in it.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

/// A namespace, held by an open file.
pub(super) struct Namespace(File);

impl Namespace {
    /// A new one, with nothing in it. The thread is in it from then on.
    pub(super) fn new() -> Result<Self, String> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|e| format!("no network namespace (CAP_SYS_ADMIN): {}", e.desc()))?;
        File::open("/proc/thread-self/ns/net")
            .map(Self)
            .map_err(|e| format!("/proc/thread-self/ns/net: {e}"))
    }

    /// Puts the thread into it.
    pub(super) fn enter(&self) -> Result<(), String> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(|e| format!("setns: {}", e.desc()))
    }

    /// The file.
    pub(super) fn file(&self) -> Result<File, String> {
        self.0.try_clone().map_err(|e| e.to_string())
    }
}

/// Runs a program in the thread's namespace; gives what it said.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    feed(program, arguments, "")
}

/// Likewise, with this on its standard input.
pub(super) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    // One that fails early reads no further; its status tells. What is fed here are
    // rulesets, which the program reads whole before it writes.
    if let Some(mut pipe) = child.stdin.take() {
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("failed");
        Err(format!("{program} {}: {first}", arguments.join(" ")))
    }
}
