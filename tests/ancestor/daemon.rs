//! Starts knock 0.8's daemon and ours alike on the laboratory's server.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Lab, Process, SOON, ancestor, wait_for, wait_until};

/// Our own program.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_knockd");

/// A daemon at work: both of its outputs, and its log.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) log: PathBuf,
}

impl Lab {
    /// The command line of ours with this configuration, its own files in the laboratory's
    /// directory. It runs as `-v` does, and logs to `ours.log`.
    pub(crate) fn ours(&self, configuration: &Path) -> Command {
        self.ours_by(OURS.as_ref(), configuration, |_| {})
    }

    /// As [`Self::ours`], by way of another program (`setpriv`, `unshare`) that is given
    /// these words before ours.
    pub(crate) fn ours_by(
        &self,
        program: &OsStr,
        configuration: &Path,
        words: impl FnOnce(&mut Command),
    ) -> Command {
        let mut command = self.server.command(program);
        words(&mut command);
        command
            .arg("-c")
            .arg(configuration)
            .args(["-i", "eth0", "-v"]);
        command.arg("-g").arg(self.directory().join("ours.log"));
        command
            .arg("--state-dir")
            .arg(self.directory().join("state"));
        command.arg("--run-dir").arg(self.directory().join("run"));
        command
    }

    /// Starts ours, and waits until it hears.
    #[track_caller]
    pub(crate) fn start_ours(&self, configuration: &Path) -> Daemon {
        self.start(&mut self.ours(configuration))
    }

    /// Starts a command line made by [`Self::ours`].
    #[track_caller]
    pub(crate) fn start(&self, command: &mut Command) -> Daemon {
        let log = self.directory().join("ours.log");
        Daemon::start(command, log)
    }

    /// Starts Debian's with the same flags, and waits until it hears.
    #[track_caller]
    pub(crate) fn start_theirs(&self, configuration: &Path) -> Daemon {
        let log = self.directory().join("theirs.log");
        let mut command = self.server.command(ancestor::knockd());
        command
            .arg("-c")
            .arg(configuration)
            .args(["-i", "eth0", "-v"]);
        command.arg("-g").arg(&log);
        Daemon::start(&mut command, log)
    }

    /// Knocks as `line` of Debian's client says, from the client's own address.
    #[track_caller]
    pub(crate) fn knock(&self, line: &str) {
        let knock = ancestor::knock();
        self.client.run(&format!("{} {line}", knock.display()));
    }

    /// Returns the lines that commands have written to a file of the laboratory's directory.
    pub(crate) fn written(&self, name: &str) -> Vec<String> {
        whole_lines(&self.directory().join(name))
    }

    /// Waits until commands have written exactly these lines to a file, in any order.
    #[track_caller]
    pub(crate) fn wait_for_written(&self, name: &str, lines: &[&str]) {
        let mut wanted = lines.to_vec();
        wanted.sort_unstable();
        let mut found: Vec<String> = Vec::new();
        let mut deadline = Instant::now() + SOON;
        while found.len() < wanted.len() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.written(name);
            if now.len() > found.len() {
                // However slow the machine: as long as there is progress.
                deadline = Instant::now() + SOON;
            }
            found = now;
        }
        found.sort_unstable();
        assert_eq!(found, wanted, "{name}");
    }
}

impl Daemon {
    #[track_caller]
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let mut process = Process::start(command);
        // Debian's says on stdout that it listens before it does.
        process.wait_for_line("listening on");
        let daemon = Self { process, log };
        daemon.wait_for("starting up, listening on");
        daemon
    }

    /// The lines of its log, without the time before each. (0.8 ends some of its lines
    /// twice, which leaves empty ones.)
    pub(crate) fn logged(&self) -> Vec<String> {
        let lines = whole_lines(&self.log).into_iter();
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| untimed(&line).to_owned()).collect()
    }

    /// How many lines of its log hold this.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.logged().iter().filter(|l| l.contains(text)).count()
    }

    /// Waits until a line of the log holds this, and gives it.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        wait_for(&format!("`{text}` in {}", self.log.display()), || {
            self.logged().into_iter().find(|line| line.contains(text))
        })
    }

    /// Waits until so many lines of the log hold this.
    #[track_caller]
    pub(crate) fn wait_for_count(&self, text: &str, count: usize) {
        wait_until(&format!("{count} times `{text}`"), || {
            self.count(text) >= count
        });
    }

    /// Has it reread its configuration, and waits until that is in force. It says only when
    /// it begins; so it is told twice, and the second beginning is the first one's end.
    #[track_caller]
    pub(crate) fn reload(&self) {
        for _ in 0..2 {
            let before = self.count("re-reading config file");
            self.process.signal(Signal::SIGHUP);
            self.wait_for_count("re-reading config file", before + 1);
        }
    }

    /// Ends it as SIGTERM does.
    #[track_caller]
    pub(crate) fn terminate(self) -> (ExitStatus, Vec<String>) {
        self.process.terminate()
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(self) {
        self.process.kill();
    }
}

/// The lines of a file, but for one that is still being written.
fn whole_lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

/// A line of the log file without its time. Panics if there is none, or one of another form
/// than `[2026-01-31 23:59] `.
#[track_caller]
pub(crate) fn untimed(line: &str) -> &str {
    let form: String = line
        .chars()
        .take(19)
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(form, "[0000-00-00 00:00] ", "{line}");
    line.get(19..).unwrap_or_default()
}
