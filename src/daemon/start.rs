//! From nothing to a daemon that hears. The capture takes the kernel longest to open: beside
//! that the guard is put in place.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::action::used_sequences::UsedSequences;
use crate::capture::{Links, LiveCapture, Program};
use crate::config::{Audience, LoadError};
use crate::firewall::{Mode, Ruleset, Table};
use crate::matcher::{Matcher, Settings};
use crate::model::{Config, Tripwires};

use super::Fault;
use super::command_helper::Commands;
use super::control::socket::{self, Control};
use super::control::status::Refused;
use super::event_loop::{Daemon, now};
use super::log::Log;
use super::log::limit;
use super::log::log_lines;
use super::log::lookup::Lookup;
use super::one_time_files::Clerk;
use super::packets::listener::Listener;
use super::packets::pacing::Pace;
use super::packets::pipeline::Line;
use super::packets::ticks::Ticks;
use super::service_manager::Manager;
use super::setup::{Options, Setup, Unusable};
use super::signals::Signals;
use super::state::dir::Keeper;
use super::state::lock::{Lock, PidFile, PidFileError};

/// What to do where two daemons are to run.
const WAY_OUT: &str = "give this one a -p of its own, or one daemon several -i";

/// Where 0.8 wrote its process number when it was told nothing else.
const PIDFILE: &str = "/var/run/knockd.pid";

impl<'a> Daemon<'a> {
    /// Starts. What fails here leaves nothing behind but a guard that stands.
    pub(super) fn start(
        options: &'a Options,
        log: &'a Log,
        signals: Signals,
    ) -> Result<Self, Fault> {
        // It does little but wait for a grace period of RCU, and needs nothing of what follows.
        // Before all else, since each start of a program and each change of rules begins such
        // a period, whose end would be waited for, too; and in a thread beside the rest, for
        // on a busy machine it takes seconds, and the guard must not wait for it. If it
        // failed, that is told when the guard stands.
        let capture = thread::Builder::new()
            .name("capture".into())
            .spawn(LiveCapture::open);
        let (path, note) = options.config_path();
        let mut setup = first_setup(options, &path, Some(log))?;
        // What was taken for the file's tree: now, for soon other things lie in it.
        super::heap::give_back();
        if let Some(line) = &note {
            tracing::warn!("{line}");
        }
        for remark in &setup.warnings {
            tracing::warn!("{remark}");
        }
        let state = options.state(&path);
        if let Err(error) = state.prepare() {
            // A container without a place to write is usual, and no fault.
            tracing::debug!("cannot make {}: {error}", state.dir().display());
        }
        let folder = state.lock();
        let pidfile = take_pidfile(options, &setup.config, folder.is_some())?;
        // A second daemon goes no further than this.
        let lock = take_lock(options, &setup.config, None)?;
        // Before all that may yet fail.
        let ruleset = Ruleset::new(&setup.config).map(|ruleset| ruleset.of(&path));
        let table = ruleset.map(|ruleset| make_table(options, ruleset));
        let table = table.transpose()?;
        let commands = Commands::start(options, &path, &setup.config, &setup.bytes)?;

        // Their disk may not answer: the guard stands by now.
        let clerk = Clerk::new(UsedSequences::load(state.dir(), random()?))?;
        let told = setup.warnings.len();
        setup.read_sequences(clerk.used(), clerk.news());
        for line in setup.warnings.iter().skip(told) {
            tracing::warn!("{line}");
        }

        let links = Links::open(&setup.config.interfaces)?;
        let tripwires = tripwires(&setup.config);
        let settings = Settings::new(random()?);
        let ticks = Ticks::new(u64::from_ne_bytes(random()?), patience(&setup.config));
        let live = match capture {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            // Nobody waits beside anything then.
            Err(_) => LiveCapture::open()?,
        };
        let mut listener = Listener::new(live);
        set_filter(&mut listener, &setup.config)?;
        let (own, addresses) = links.own();
        listener.set_hosts(addresses.collect())?;
        let matcher = Matcher::new(setup.config.doors.clone(), tripwires, settings);
        let Setup {
            config,
            one_time,
            bytes,
            warnings: _,
            refused,
        } = setup;
        let mut line = Line::new(config, matcher, links, table, commands, clerk);
        line.one_time = one_time;
        line.only_ip_v4 = options.only_ip_v4;
        line.names_steps = options.log.debug;
        if options.lookup {
            line.lookup = Lookup::start().ok();
        }
        let control = listen(options);
        let mut daemon = Self {
            options,
            names: socket::names(&path),
            path,
            log,
            signals,
            listener,
            own,
            line,
            control,
            manager: Manager::from_env(now()),
            keeper: Keeper::default(),
            pidfile,
            lock,
            _folder: folder,
            dropped: 0,
            packets: 0,
            pace: Pace::default(),
            gather: None,
            ticks,
            started: now(),
            refused,
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
    let (unusable, setup) = match options.read(path) {
        Ok(setup) => (None, Some(setup)),
        Err(unusable) => (Some(unusable), options.last_good(path)),
    };
    // The log is read by others than root.
    let faults = unusable
        .as_ref()
        .map(|unusable| unusable.shown_to(Audience::Log));
    let faults = faults.unwrap_or_default();
    if let (Some(log), Some(setup)) = (log, &setup) {
        // A log that cannot be written must not keep the guard from standing.
        log.configure(&setup.config.log);
    }
    if let (None, Some(Unusable::Unread(error @ LoadError::NotAllowed(_)))) = (&setup, &unusable) {
        return Err(Fault::Permission(error.to_string()));
    }
    for fault in &faults {
        tracing::error!("{fault}");
    }
    let path = path.display();
    let Some(mut setup) = setup else {
        return Err(Fault::Config(format!(
            "{path} cannot be used, and there is no earlier configuration to fall back to"
        )));
    };
    if !faults.is_empty() {
        tracing::error!(
            "{path} CANNOT BE USED: running with the last configuration that was good; \
             mend the file and send SIGHUP"
        );
        setup.refused = Some(Refused::new(Refused::LAST_GOOD.to_owned(), &faults));
    }
    Ok(setup)
}

/// `is_first`: no other daemon runs with this configuration and these interfaces.
fn take_pidfile(
    options: &Options,
    config: &Config,
    is_first: bool,
) -> Result<Option<PidFile>, Fault> {
    if !options.daemon && options.detached.is_none() {
        return Ok(None);
    }
    let configured = options.pidfile.as_deref().or(config.pid_file.as_deref());
    let path = configured.unwrap_or(Path::new(PIDFILE));
    match PidFile::take(path) {
        Ok(taken) => Ok(Some(taken)),
        // Start scripts for 0.8 begin one for each interface or file, and name no pid file.
        Err(error @ PidFileError::Held { .. }) if configured.is_none() && is_first => {
            tracing::warn!("{error}: running without a pid file; {WAY_OUT}");
            Ok(None)
        }
        Err(error @ PidFileError::Held { .. }) => {
            Err(Fault::Unavailable(format!("{error}; {WAY_OUT}")))
        }
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
    held: Option<&Lock>,
) -> Result<Option<Lock>, Fault> {
    match &config.firewall {
        Some(firewall) => lock_table(options, &firewall.table, held),
        None => Ok(None),
    }
}

/// The same for a table of this name.
pub(super) fn lock_table(
    options: &Options,
    table: &str,
    held: Option<&Lock>,
) -> Result<Option<Lock>, Fault> {
    let path = options.run_dir.join(format!("{table}.lock"));
    if held.is_some_and(|held| held.path() == path) {
        return Ok(None);
    }
    // What is wrong with the folder shows when the file is made.
    let _ = options.prepare_run_dir();
    match Lock::take(&path) {
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
    log_lines::tell_started(&started);
    Ok(table)
}

/// The control socket is a convenience: the daemon guards without it. Of several daemons
/// with one folder the first has it.
fn listen(options: &Options) -> Option<Control> {
    let path = options.control_path();
    let made = options.prepare_run_dir();
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

/// Lets the packets pass that a configuration is for.
pub(super) fn set_filter(listener: &mut Listener, config: &Config) -> Result<(), Fault> {
    listener.set_filter(&config.doors, &config.ignore)?;
    if !Program::keeps_to_ports(&config.doors) {
        tracing::warn!(
            "every packet of every TCP session is read: doors whose TCP flags fit them have too \
             many steps; let SYNs alone count there (syn,!ack)"
        );
    }
    Ok(())
}

/// The tripwires of a configuration.
pub(super) fn tripwires(config: &Config) -> Tripwires {
    Tripwires::new(config.tripwires, &config.ignore, &config.doors)
}

/// How long after a packet something may be left for a tick: an attempt that runs out, or a line
/// that says how many were not written.
pub(super) fn patience(config: &Config) -> Duration {
    let timeouts = config.doors.iter().map(|door| door.seq_timeout);
    timeouts.fold(Duration::ZERO, Duration::max) + limit::WINDOW
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], Fault> {
    use std::io::Read as _;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Fault::System(format!("/dev/urandom: {error}")))?;
    Ok(bytes)
}
