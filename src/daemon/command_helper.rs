//! The daemon's side of the command helper, the process that runs commands. The daemon starts the
//! helper, sends it requests, reads its reports and replaces it when it has died.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::action::command::{
    self, CommandTable, DRAIN_TIME, HelperBusy, HelperClient, HelperReport, HelperRequest,
};
use crate::config::Audience;
use crate::model::{Config, StartCommand, Timestamp};

use super::Fault;
use super::background;
use super::clock::now;
use super::log::log_lines;
use super::setup::Options;

/// The helper, if any door has a command or a stop is still pending.
#[derive(Debug)]
pub(crate) struct CommandHelper {
    client: HelperClient,
    /// The digest of the commands in the configuration that runs.
    digest: u64,
    /// When the helper was last started: a helper that dies at once is not started for ever.
    started: Timestamp,
    /// If the helper is dead: the time at which another is started.
    dead_until: Option<Timestamp>,
    /// Why no other could be started, if that was reported.
    fault: Option<String>,
}

/// The log line if the daemon ends without a helper.
const LEFT: &str = "no command helper: pending stop commands wait for the next start";

/// How long a helper must have lived to be replaced at once.
const REST: Duration = Duration::from_secs(1);

impl CommandHelper {
    /// Starts the helper where it is needed: some door has commands, or an earlier daemon has left
    /// pending stops.
    pub(crate) fn start(
        options: &Options,
        path: &Path,
        config: &Config,
        text: &[u8],
        left_stops: bool,
    ) -> Result<Option<Self>, Fault> {
        let table = CommandTable::new(config);
        if table.is_empty() && !left_stops {
            return Ok(None);
        }
        let (program, args) = (PathBuf::from("/proc/self/exe"), options.helper_args(path));
        let client = HelperClient::spawn(program, args, Some(text))?;
        Ok(Some(Self {
            client,
            digest: table.digest(),
            started: now(),
            dead_until: None,
            fault: None,
        }))
    }

    /// Asks the helper to run a door's command.
    pub(crate) fn run(&mut self, command: &StartCommand) -> Result<(), HelperBusy> {
        let StartCommand { door, source } = command.clone();
        self.client.send(&HelperRequest::Start { door, source })
    }

    /// Has the helper read the configuration that now runs.
    pub(crate) fn reload(&mut self, config: &Config, text: &[u8]) {
        if let Err(error) = self.client.set_text(text) {
            tracing::error!("{error}: another helper would have the commands of before");
        }
        self.digest = CommandTable::new(config).digest();
        if let Err(error) = self.client.send(&HelperRequest::Reload) {
            tracing::error!("{error}: commands stay as they were");
        }
    }

    /// Returns the helper's socket and the events to poll it for; `None` while the helper is dead.
    pub(crate) fn polled(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.dead_until
            .is_none()
            .then(|| (self.client.as_fd(), self.wanted()))
    }

    fn wanted(&self) -> PollFlags {
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, self.client.wants_write());
        wanted
    }

    /// Returns when a dead helper is to be replaced.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.dead_until
    }

    /// Reads the helper's reports and writes them to the log; notes if it is gone.
    pub(crate) fn read_reports(&mut self, now: Timestamp) {
        match self.client.read() {
            Ok(reports) => {
                for report in &reports {
                    self.compare(report);
                    log_lines::log_report(report);
                }
            }
            Err(gone) => {
                tracing::error!("{gone}: starting another");
                self.dead_until = Some(now.max(self.started + REST));
            }
        }
    }

    /// Replaces a dead helper once it is time.
    pub(crate) fn revive(&mut self, now: Timestamp) {
        if self.dead_until.is_some_and(|at| at <= now) {
            self.started = now;
            self.dead_until = match self.client.restart() {
                Ok(()) => {
                    self.fault = None;
                    None
                }
                // This is logged once, though it is tried every second.
                Err(error) => {
                    let fault = Some(error.to_string());
                    if self.fault != fault {
                        tracing::error!("{error}: no command will run until it can");
                        self.fault = fault;
                    }
                    Some(now + REST)
                }
            };
        }
    }

    /// Warns if the helper has other commands than the daemon: it reads the file by itself, and the file
    /// may have changed between the two readings.
    fn compare(&self, report: &HelperReport) {
        if let HelperReport::Ready { digest, .. } = report
            && *digest != self.digest
        {
            tracing::warn!(
                "the configuration changed while it was read: its commands are newer than its \
                 doors; send SIGHUP once more"
            );
        }
    }

    /// Has every pending stop run, and waits for it, so that what a command opened does not outlive the
    /// daemon.
    pub(crate) fn drain(mut self) {
        if self.dead_until.is_some() && self.client.restart().is_err() {
            tracing::error!("{LEFT}");
            return;
        }
        if self.client.send(&HelperRequest::Drain).is_err() {
            tracing::error!("{LEFT}");
            return;
        }
        let end = Instant::now() + DRAIN_TIME;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("stop commands still run; they are left to themselves");
                return;
            }
            let mut fds = [PollFd::new(self.client.as_fd(), self.wanted())];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).is_err() {
                continue;
            }
            let Ok(reports) = self.client.read() else {
                tracing::error!("{LEFT}");
                return;
            };
            reports.iter().for_each(log_lines::log_report);
            if reports.contains(&HelperReport::Drained) {
                return;
            }
        }
    }
}

impl Options {
    /// Returns the command line of the helper, which reads the same configuration as this daemon.
    fn helper_args(&self, path: &Path) -> Vec<OsString> {
        let mut args = Vec::<OsString>::new();
        // Flags of the daemon's: they must stand before the subcommand.
        for interface in &self.interfaces {
            args.extend(["--interface".into(), interface.into()]);
        }
        if let Some(answer) = self.detached {
            args.push(format!("{}={answer}", background::FLAG).into());
        }
        args.extend(["helper".into(), "--config".into(), path.into()]);
        args.extend(["--state-dir".into(), self.state_dir.clone().into()]);
        args
    }
}

/// The whole life of the helper (`knockd helper`, started by the daemon alone).
///
/// # Errors
/// It was started by somebody else, or the kernel refuses what it needs.
pub fn helper(options: &Options) -> Result<(), Fault> {
    if options.detached.is_some() {
        background::let_go().map_err(|error| Fault::system("/dev/null", error))?;
    }
    let mut text = command::inherited_text().ok();
    let socket = command::inherited_socket()?;
    let (path, _) = options.config_path();
    let load = || -> Result<CommandTable, String> {
        let read = match text.take() {
            // The text that the daemon has read.
            Some(text) => options.take(&path, text.into()),
            None => options.read(&path),
        };
        match read {
            Ok(setup) => Ok(CommandTable::new(&setup.config)),
            // At the start the daemon does the same with a faulty file.
            Err(refused) => match options.last_good(&path) {
                Some(setup) => Ok(CommandTable::new(&setup.config)),
                // The daemon writes it to the log.
                None => Err(refused.shown_to(Audience::Log).join("; ")),
            },
        }
    };
    let state = options.state(&path);
    Ok(command::serve(socket, load, state.dir())?)
}
