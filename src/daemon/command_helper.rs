//! The daemon's side of the command helper, the process that runs commands. The daemon starts the
//! helper, sends it requests and reads its reports. A warden replaces a helper that has died: the daemon
//! has given up the right to start a program.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::action::command::{
    self, CommandTable, DRAIN_TIME, HelperBusy, HelperClient, HelperGone, HelperReport,
    HelperRequest,
};
use crate::config::Audience;
use crate::model::{Config, StartCommand};
use crate::sandbox::{self, Death};

use super::Fault;
use super::background;
use super::log::log_lines;
use super::reload::is_read_once;
use super::setup::Options;
use crate::stderr::complain;

/// The helper, if any door has a command or a stop is still pending.
#[derive(Debug)]
pub(crate) struct CommandHelper {
    client: HelperClient,
    /// The digest of the commands in the configuration that runs.
    digest: u64,
}

/// The log line if the daemon ends without a helper.
const LEFT: &str = "no command helper: pending stop commands wait for the next start";

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
        }))
    }

    /// Asks the helper to run a door's command.
    pub(crate) fn run(&mut self, command: &StartCommand) -> Result<(), HelperBusy> {
        let StartCommand { door, source } = command.clone();
        self.client.send(&HelperRequest::Start { door, source })
    }

    /// Has the helper read the configuration that now runs.
    pub(crate) fn reload(&mut self, config: &Config) {
        self.digest = CommandTable::new(config).digest();
        if let Err(error) = self.client.send(&HelperRequest::Reload) {
            tracing::error!("{error}: commands stay as they were");
        }
    }

    /// Returns the helper's socket and the events to poll it for.
    pub(crate) fn polled(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.client.as_fd(), self.wanted())
    }

    fn wanted(&self) -> PollFlags {
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, self.client.wants_write());
        wanted
    }

    /// Reads the helper's reports and writes them to the log.
    ///
    /// # Errors
    ///
    /// If the helper and its warden are dead. Then no command would ever run.
    pub(crate) fn read_reports(&mut self) -> Result<(), HelperGone> {
        for report in &self.client.read()? {
            self.compare(report);
            log_lines::log_report(report);
        }
        Ok(())
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

/// The whole life of the helper's warden (`knockd helper`, started by the daemon alone), and of the
/// helpers that it forks.
///
/// # Errors
/// It was started by somebody else.
pub fn helper(options: &Options) -> Result<(), Fault> {
    if options.detached.is_some() {
        background::let_go().map_err(|error| Fault::system("/dev/null", error))?;
    }
    let text = command::inherited_text().ok();
    let socket = command::inherited_socket()?;
    // For ps(1) only.
    let _ = nix::sys::prctl::set_name(c"knockd-commands");
    sandbox::hold_back_signals();
    sandbox::keep_alive(|death| {
        let served = socket
            .try_clone()
            .map_err(|error| Fault::system("the helper's socket", error))
            .and_then(|socket| serve(options, socket, death, text.as_deref()));
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                complain(format_args!("knockd: {fault}"));
                ExitCode::FAILURE
            }
        }
    });
    Ok(())
}

/// The whole life of a helper. The first one begins with the text that the daemon has read. Another one
/// reads the file, as at a reload: whoever has taken the daemon over must not choose what is run.
fn serve(
    options: &Options,
    socket: OwnedFd,
    death: Option<Death>,
    text: Option<&[u8]>,
) -> Result<(), Fault> {
    let (path, _) = options.config_path();
    let mut text = text.filter(|_| death.is_none() || is_read_once(&path));
    let load = || -> Result<CommandTable, String> {
        let read = match text.take() {
            Some(text) => options.take(&path, text.to_owned().into()),
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
    let death = death.map(|death| death.to_string());
    let state = options.state(&path);
    Ok(command::serve(socket, death, load, state.dir())?)
}
