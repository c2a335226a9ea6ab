//! The surroundings of a daemon under test: a host of the laboratory, a configuration, folders.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::support::{Lab, Namespace, Process, wait_for};

/// The daemon under test.
pub(crate) const KNOCKD: &str = env!("CARGO_BIN_EXE_knockd");
/// Our client.
pub(crate) const KNOCK: &str = env!("CARGO_BIN_EXE_knock");

/// A door for SSH that stays open for long, and one that shuts it.
pub(crate) const SSH: &str = r#"
[door.ssh]
sequence = ["7001/tcp", "8102/udp", "9203/tcp"]
open     = ["22/tcp"]
open_for = "1h"

[door.shut]
sequence = ["9203/tcp", "8102/udp", "7001/tcp"]
close    = ["22/tcp"]
"#;

/// A door more, for the web.
pub(crate) const WEB: &str = r#"
[door.web]
sequence = ["7004/tcp", "8105/udp", "9206/tcp"]
open     = ["80/tcp"]
"#;

/// The knock that opens the door `ssh` of [`SSH`].
pub(crate) const OPEN_SSH: &str = "7001 8102:udp 9203";
/// The knock that closes it.
pub(crate) const SHUT_SSH: &str = "9203 8102:udp 7001";

/// A daemon's surroundings. They are there whether it runs or not.
pub(crate) struct Site<'lab> {
    host: &'lab Namespace,
    directory: tempfile::TempDir,
}

impl<'lab> Site<'lab> {
    /// On the laboratory's server.
    pub(crate) fn new(lab: &'lab Lab, configuration: &str) -> Self {
        Self::on(lab, &lab.server, configuration)
    }

    /// On another host.
    pub(crate) fn on(lab: &Lab, host: &'lab Namespace, configuration: &str) -> Self {
        let directory = tempfile::tempdir_in(lab.directory()).expect("the laboratory's directory");
        let site = Self { host, directory };
        site.configure(configuration);
        site
    }

    /// Writes the configuration anew; a running daemon learns of it by SIGHUP.
    pub(crate) fn configure(&self, text: &str) {
        let path = self.config();
        std::fs::write(&path, text).expect("the laboratory's directory");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("a file of ours");
    }

    /// A file or folder beside the configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("knockd.toml")
    }

    /// `knockd` with this site's files and these words.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = self.host.command(KNOCKD);
        self.complete(&mut command, words);
        command
    }

    /// The same, started by another program, whose words come first.
    pub(crate) fn command_by(&self, starter: &str, words: &str) -> Command {
        let mut starter = starter.split_whitespace();
        let mut command = self.host.command(starter.next().expect("a program"));
        command.args(starter).arg(KNOCKD);
        self.complete(&mut command, words);
        command
    }

    fn complete(&self, command: &mut Command, words: &str) {
        let of = |flag: &str, path: &Path| [flag.to_owned(), path.display().to_string()];
        command
            .args(words.split_whitespace())
            .args(of("-c", &self.config()))
            .args(of("--state-dir", &self.path("state")))
            .args(of("--run-dir", &self.path("run")));
    }

    /// Starts the daemon with `-v` and these words, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(&self, words: &str) -> Process {
        let mut daemon = Process::start(&mut self.command(&format!("-v {words}")));
        daemon.wait_for_line("starting up, listening on");
        daemon
    }

    /// Runs a subcommand to its end, whatever its end.
    #[track_caller]
    pub(crate) fn try_run(&self, words: &str) -> Output {
        self.command(words).output().expect("nsenter")
    }

    /// Runs a subcommand to its end, which must be good; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, words: &str) -> String {
        let output = self.try_run(words);
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has the daemon read its configuration again; what it said until it had.
    #[track_caller]
    pub(crate) fn reload(&self, daemon: &Process) -> Vec<String> {
        let before = daemon.lines().len();
        daemon.signal(Signal::SIGHUP);
        let ends = [
            "the new configuration is in force",
            "the running configuration stays",
        ];
        wait_for("the reload", || {
            let said = daemon.lines().split_off(before);
            let over = said.iter().any(|l| ends.iter().any(|end| l.contains(end)));
            over.then_some(said)
        })
    }

    /// Returns the answer of `knockd status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.run("status --json")).expect("JSON")
    }

    /// Returns the answer of `knockd list --json`.
    #[track_caller]
    pub(crate) fn openings(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.run("list --json")).expect("JSON")
    }
}

/// The exit code and what was said, for a program that should have failed.
#[track_caller]
pub(crate) fn failure(output: &Output) -> (i32, String) {
    let code = output.status.code().expect("an exit, not a signal");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (code, said)
}

/// Knocks with our client at the server, from the client's own address of that family.
#[track_caller]
pub(crate) fn knock(lab: &Lab, server: &str, steps: &str) {
    lab.client.run(&format!("{KNOCK} {server} {steps}"));
}
