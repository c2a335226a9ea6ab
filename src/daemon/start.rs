//! From nothing to a daemon that listens. The capture takes the kernel longest to open: beside
//! that the guard is put in place.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::Fault;
use super::background;
use super::clock::now;
use super::command_helper::CommandHelper;
use super::confine::Cage;
use super::control::listen::listen;
use super::control::message::names;
use super::control::status::RefusedFile;
use super::event_loop::Daemon;
use super::heap;
use super::listener;
use super::listener::handle::Listener;
use super::log::Logger;
use super::log::lookup::Lookup;
use super::one_time_files::OneTimeFiles;
use super::packets::pipeline::{Pipeline, tripwires};
use super::packets::ticks::{self, Ticks};
use super::reload::Readings;
use super::service_manager::ServiceManager;
use super::setup::{Options, Setup, Unusable};
use super::signals::Signals;
use super::state::dir::is_no_place;
use super::state::last_good::LastGoodKeeper;
use super::state::lock::{LockError, PidFile};
use super::state::start_failures;
use super::table;
use crate::action::command;
use crate::action::used_sequences::UsedSequences;
use crate::capture::Links;
use crate::config::{Audience, LoadError};
use crate::firewall::Ruleset;
use crate::matcher::{Matcher, Settings};
use crate::model::{Config, Sandbox};

/// The advice for an administrator who wants two daemons.
const WAY_OUT: &str = "give this one a -p of its own, or one daemon several -i";

/// The file that counts the starts that have failed.
fn failed_starts(run_dir: &Path) -> PathBuf {
    run_dir.join("failed-starts")
}

/// Puts off the end of a daemon whose command line is wrong: the service manager starts it again and
/// again. Waits longer after each such start, and not at all without a service manager.
pub fn put_off_end(run_dir: &Path) {
    start_failures::wait(&failed_starts(run_dir));
}

/// Runs the daemon until it is asked to stop. If this fails, the reason has been reported already.
///
/// # Errors
/// It cannot start, or the kernel took away what it needs.
pub fn run(options: &Options) -> Result<(), Fault> {
    if let Some(answer) = options.detached {
        background::detach(answer);
    }
    heap::share();
    // Signals are blocked before any thread or process is made, for it inherits the mask.
    let signals = Signals::block();
    // The listener comes before all that may be secret. Its capture is little but a wait for a grace
    // period of RCU: each start of a program and each change of rules begins such a period, too, and
    // the capture would have to wait for the end of that as well. So it begins before all else.
    let prepared = options.prepare_run_dir();
    let listener = listener::start(&options.run_dir);
    let log = Logger::start(options.log.clone());
    if let Err(error) = prepared {
        // A container without a place to write is usual, and no fault.
        tracing::debug!("cannot make {}: {error}", options.run_dir.display());
    }
    let complain = |fault: &Fault| log.complain(fault);
    let signals = signals
        .map_err(|errno| Fault::system("signalfd", errno))
        .inspect_err(complain)?;
    let failures = failed_starts(&options.run_dir);
    let mut daemon = start(options, &log, signals, listener).inspect_err(|fault| {
        complain(fault);
        log.flush();
        start_failures::wait(&failures);
    })?;
    start_failures::forget(&failures);
    let ended = daemon.serve();
    daemon.stop(ended.is_ok());
    ended.inspect_err(complain)
}

/// Starts the daemon. A start that fails leaves nothing behind but the guard, if it stands by then.
fn start<'a>(
    options: &'a Options,
    log: &'a Logger,
    signals: Signals,
    listener: io::Result<OwnedFd>,
) -> Result<Daemon<'a>, Fault> {
    let (path, note) = options.config_path();
    let mut setup = first_setup(options, &path, Some(log))?;
    // Trim the heap now, while the memory freed by the tree of the file is still contiguous.
    heap::give_back();
    if let Some(line) = &note {
        tracing::warn!("{line}");
    }
    for remark in &setup.warnings {
        tracing::warn!("{remark}");
    }
    let state = options.state(&path);
    if let Err(error) = state.prepare() {
        // A container without a place to write is usual, and no fault.
        let why = format!("cannot make {}: {error}", state.dir().display());
        match is_no_place(&error) {
            true => tracing::debug!("{why}"),
            false => tracing::error!(
                "{why}: pending stops and the last good configuration will not outlive us"
            ),
        }
    }
    let _ = options.prepare_run_dir();
    for doubt in state.doubt().into_iter().chain(options.doubt_of_run_dir()) {
        tracing::warn!("{doubt}");
    }
    let state_lock = state.lock();
    let pidfile = take_pidfile(options, &setup.config, state_lock.is_some())?;
    // A second daemon goes no further than this.
    let lock = table::take_lock(options, &setup.config, &[])?;
    // The guard is put in place before anything else that may fail.
    let ruleset = Ruleset::new(&setup.config).map(|ruleset| ruleset.of(&path));
    let table = ruleset.map(|ruleset| table::make(options, ruleset));
    let table = table.transpose()?;
    let left_stops = command::has_left_stops(state.dir());
    let commands = CommandHelper::start(options, &path, &setup.config, &setup.bytes, left_stops)?;
    let listener = listener.map_err(|error| Fault::system("cannot start the listener", error))?;
    let cage = Cage::shut(options, &path, &setup.config, commands.is_some());
    // From here on there may be threads.
    log.begin();
    cage.log();

    // The files of one-time sequences come after the guard, for their disk may not answer.
    let one_time_files = OneTimeFiles::new(UsedSequences::load(state.dir(), random()?))?;
    let told = setup.warnings.len();
    setup.read_sequences(one_time_files.used());
    for line in setup.warnings.iter().skip(told) {
        tracing::warn!("{line}");
    }

    let links = Links::open(&setup.config.interfaces)?;
    let tripwires = tripwires(&setup.config);
    let settings = Settings::new(random()?);
    let ticks = Ticks::new(
        u64::from_ne_bytes(random()?),
        ticks::patience(&setup.config),
    );
    let mut listener = Listener::open(listener, setup.config.sandbox == Sandbox::On)?;
    for lack in &listener.confinement().lacks {
        tracing::warn!("the listener cannot give up {lack}");
    }
    listener.set_filter(&setup.config)?;
    let (own, addresses) = links.own();
    listener.set_hosts(addresses.collect())?;
    let matcher = Matcher::new(setup.config.doors.clone(), tripwires, settings);
    let Setup {
        config,
        one_time,
        unread,
        bytes,
        warnings: _,
        refused,
    } = setup;
    let mut pipeline = Pipeline::new(config, matcher, links, table, commands, one_time_files);
    pipeline.one_time = one_time;
    pipeline.read_sequences(unread);
    pipeline.only_ip_v4 = options.only_ip_v4;
    pipeline.names_steps = options.log.debug;
    if options.lookup {
        pipeline.lookup = Lookup::start().ok();
    }
    let control = listen(options);
    let mut daemon = Daemon {
        options,
        names: names(&path),
        path,
        log,
        signals,
        listener,
        own,
        filter_rest: None,
        pipeline,
        control,
        manager: ServiceManager::from_env(now()),
        readings: Readings::new()?,
        keeper: LastGoodKeeper::default(),
        pidfile,
        locks: lock.into_iter().collect(),
        _state_lock: state_lock,
        is_deaf: false,
        cage,
        dropped: 0,
        packets: 0,
        ticks,
        started: now(),
        refused,
        stopping: false,
    };
    daemon.ready();
    daemon.keeper.keep_last_good(state, bytes);
    Ok(daemon)
}

/// Returns the configuration to start with: that of the file, or, if the file is faulty, the last one
/// that ran. A mistake in the file must neither open the host nor lock out its owner. If `log` is
/// given, it is configured first, so that the faults are in the configured log as well.
pub(super) fn first_setup(
    options: &Options,
    path: &Path,
    log: Option<&Logger>,
) -> Result<Setup, Fault> {
    let (unusable, setup) = match options.read(path) {
        Ok(setup) => (None, Some(setup)),
        Err(unusable) => (Some(unusable), options.last_good(path)),
    };
    // Others than root read the log.
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
        let why = unusable.map_or_else(Vec::new, |unusable| unusable.errors());
        setup.refused = Some(RefusedFile::new(RefusedFile::LAST_GOOD.to_owned(), &why));
    }
    Ok(setup)
}

/// Takes the pid file of a daemon in the background. With `is_first`, no other daemon runs with this
/// configuration and these interfaces.
fn take_pidfile(
    options: &Options,
    config: &Config,
    is_first: bool,
) -> Result<Option<PidFile>, Fault> {
    if !options.daemon && options.detached.is_none() {
        return Ok(None);
    }
    let configured = options.pidfile.as_deref().or(config.pid_file.as_deref());
    match PidFile::take(options.pid_file(config)) {
        Ok(taken) => Ok(Some(taken)),
        // Start scripts for 0.8 begin one for each interface or file, and name no pid file.
        Err(error @ LockError::Held { .. }) if configured.is_none() && is_first => {
            tracing::warn!("{error}: running without a pid file; {WAY_OUT}");
            Ok(None)
        }
        Err(source @ LockError::Held { .. }) => Err(Fault::PidFile {
            source,
            way_out: WAY_OUT,
        }),
        // As with 0.8: containers have nowhere to write it, and nobody who reads it.
        Err(error @ LockError::Write { .. }) => {
            tracing::warn!("{error}: running without a pid file");
            Ok(None)
        }
    }
}

/// Returns bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], Fault> {
    use std::io::Read as _;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Fault::system("/dev/urandom", error))?;
    Ok(bytes)
}
