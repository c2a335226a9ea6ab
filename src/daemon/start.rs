//! From nothing to a daemon that hears. The kernel makes the capture's ring while the guard is
//! put in place, and for some time after that.

use std::path::Path;

use crate::capture::{Links, Live};
use crate::firewall::{Mode, Ruleset, Table};
use crate::matcher::{Matcher, Settings};
use crate::model::{Config, TripwireKey, Tripwires};

use super::commands::Commands;
use super::control::Control;
use super::line::Line;
use super::log::Log;
use super::lookup::Lookup;
use super::notify::Manager;
use super::pace::Pace;
use super::pidfile::{PidFile, PidFileError};
use super::place::Keeper;
use super::run::{self, Daemon, now};
use super::setup::{Options, Setup};
use super::signals::Signals;
use super::{Fault, deeds};

/// Where 0.8 wrote its process number when it was told nothing else.
const PIDFILE: &str = "/var/run/knockd.pid";

impl<'a> Daemon<'a> {
    /// Starts. What fails here leaves nothing behind but a guard that stands.
    pub(super) fn start(
        options: &'a Options,
        log: &'a Log,
        signals: Signals,
    ) -> Result<Self, Fault> {
        // Before all else, for the kernel needs its time to make the ring. If it failed,
        // that is told when the guard stands.
        let live = Live::open();
        let (path, note) = options.config_path();
        let setup = first_setup(options, &path, Some(log))?;
        // What was taken for the file's tree: now, for soon other things lie in it.
        super::heap::give_back();
        for line in note.iter().chain(&setup.warnings) {
            tracing::warn!("{line}");
        }
        let pidfile = take_pidfile(options, &setup.config)?;
        let state = options.state(&path);
        if let Err(error) = state.prepare() {
            // A container without a place to write is usual, and no fault.
            tracing::debug!("cannot make {}: {error}", state.dir().display());
        }
        // A second daemon goes no further than this.
        let lock = take_lock(options, &setup.config, None)?;
        // Before all that may yet fail.
        let ruleset = Ruleset::new(&setup.config).map(|ruleset| ruleset.of(&path));
        let table = ruleset.map(|ruleset| make_table(options, ruleset));
        let table = table.transpose()?;
        let commands = Commands::start(options, &path, &setup.config)?;

        let links = Links::open(&setup.config.interfaces)?;
        let key = TripwireKey::new(random()?);
        let tripwires = Tripwires::new(setup.config.tripwires, key, &setup.config.doors);
        let settings = Settings::new(random()?);
        let mut live = live?;
        run::tell_fit(live.set_filter(&setup.config.doors, &tripwires)?);
        let matcher = Matcher::new(setup.config.doors.clone(), tripwires, settings);
        let Setup {
            config,
            one_time,
            bytes,
            warnings: _,
        } = setup;
        let mut line = Line::new(config, matcher, links, table, commands);
        line.one_time = one_time;
        line.only_ip_v4 = options.only_ip_v4;
        line.names_steps = options.log.debug;
        if options.lookup {
            line.lookup = Lookup::start().ok();
        }
        let control = listen(options);
        let mut daemon = Self {
            options,
            path,
            log,
            signals,
            live,
            line,
            key,
            control,
            manager: Manager::from_env(now()),
            keeper: Keeper::default(),
            pidfile,
            lock,
            dropped: 0,
            packets: 0,
            pace: Pace::default(),
            gather: None,
            started: now(),
            stopping: false,
        };
        daemon.ready();
        daemon.keeper.keep_last_good(state, bytes);
        Ok(daemon)
    }
}

/// The configuration to start with: the file's; if that is faulty, the last one that ran.
/// A mistake in the file must neither open the host nor lock out its owner. Begins the log
/// that it names, if one is given, in which the faults are told as well.
pub(super) fn first_setup(
    options: &Options,
    path: &Path,
    log: Option<&Log>,
) -> Result<Setup, Fault> {
    let (faults, setup) = match options.read(path) {
        Ok(setup) => (Vec::new(), Some(setup)),
        Err(faults) => (faults, options.last_good(path)),
    };
    if let (Some(log), Some(setup)) = (log, &setup)
        && let Err((file, error)) = log.configure(&setup.config.log)
    {
        // A log that cannot be written must not keep the guard from standing.
        tracing::error!("cannot open the log {}: {error}", file.display());
    }
    for fault in &faults {
        tracing::error!("{fault}");
    }
    let path = path.display();
    let Some(setup) = setup else {
        return Err(Fault::Config(format!(
            "{path} cannot be used, and there is no earlier configuration to fall back to"
        )));
    };
    if !faults.is_empty() {
        tracing::error!(
            "{path} CANNOT BE USED: running with the last configuration that was good; \
             mend the file and send SIGHUP"
        );
    }
    Ok(setup)
}

fn take_pidfile(options: &Options, config: &Config) -> Result<Option<PidFile>, Fault> {
    if !options.daemon && !options.detached {
        return Ok(None);
    }
    let configured = options.pidfile.as_deref().or(config.pid_file.as_deref());
    let path = configured.unwrap_or(Path::new(PIDFILE));
    match PidFile::take(path) {
        Ok(taken) => Ok(Some(taken)),
        Err(error @ PidFileError::Held { .. }) => Err(error.into()),
        // As with 0.8: containers have nowhere to write it, and nobody who reads it.
        Err(error @ PidFileError::Write { .. }) => {
            tracing::warn!("{error}: running without a pid file");
            Ok(None)
        }
    }
}

/// One daemon a table. `None` if the configuration has no table, or `held` is its lock.
pub(super) fn take_lock(
    options: &Options,
    config: &Config,
    held: Option<&PidFile>,
) -> Result<Option<PidFile>, Fault> {
    let Some(firewall) = &config.firewall else {
        return Ok(None);
    };
    let path = options.run_dir.join(format!("{}.lock", firewall.table));
    if held.is_some_and(|held| held.path() == path) {
        return Ok(None);
    }
    // What is wrong with the folder shows when the file is made.
    let _ = std::fs::create_dir_all(&options.run_dir);
    match PidFile::take(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ PidFileError::Held { .. }) => Err(error.into()),
        // A guard that stands unlocked is better than none.
        Err(error @ PidFileError::Write { .. }) => {
            tracing::warn!("{error}: nothing keeps a second daemon away");
            Ok(None)
        }
    }
}

/// Makes the table, or takes over the one that is there.
pub(super) fn make_table(options: &Options, ruleset: Ruleset) -> Result<Table, Fault> {
    let mode = if options.watch {
        Mode::Watch
    } else {
        Mode::Auto
    };
    let (table, started) = Table::start(ruleset, mode, now())?;
    deeds::tell_started(&started);
    Ok(table)
}

/// The control socket is a convenience: the daemon guards without it. Of several daemons
/// with one folder the first has it.
fn listen(options: &Options) -> Option<Control> {
    let path = options.control_path();
    let made = std::fs::create_dir_all(&options.run_dir);
    let control = made.and_then(|()| Control::listen(&path));
    let path = path.display();
    match control {
        Ok(control) => Some(control),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(
                "no control socket at {path}: another knockd has it; give this one a --run-dir \
                 of its own"
            );
            None
        }
        // A container without a place to write is usual, and no fault.
        Err(error) => {
            tracing::debug!("no control socket at {path}: {error}");
            None
        }
    }
}

/// Sixteen bytes that nobody can guess.
fn random() -> Result<[u8; 16], Fault> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Fault::System(format!("/dev/urandom: {error}")))?;
    Ok(bytes)
}
