//! What the daemon gives up once it has started, and what a reload cannot reach for that reason.

use std::path::{Path, PathBuf};

use super::reload::is_read_once;
use super::setup::Options;
use crate::action::command::CommandTable;
use crate::model::{Config, Sandbox};
use crate::sandbox::{self, Confinement, DaemonNeeds, folder_of};

/// Folders in which others have files. The daemon does not reach all of such a folder for the sake of
/// one file in it that it changes.
const SHARED: [&str; 12] = [
    "/", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var", "/var/lib",
    "/var/run",
];

/// The daemon's confinement.
pub(super) struct Cage {
    /// The confinement in force.
    pub(super) held: Confinement,
    /// What stays within reach; `None`: everything.
    needs: Option<DaemonNeeds>,
    /// True if there is a process that runs commands.
    has_helper: bool,
    sandbox: Sandbox,
}

impl Cage {
    /// Gives up what the daemon does not need with this configuration, unless it is told not to. To be
    /// called while there is one thread.
    pub(super) fn shut(options: &Options, path: &Path, config: &Config, has_helper: bool) -> Self {
        let needs =
            (config.sandbox == Sandbox::On).then(|| needs(options, path, config, has_helper));
        let held = match &needs {
            Some(needs) => sandbox::confine_daemon(needs),
            None => sandbox::unconfined(),
        };
        Self {
            held,
            needs,
            has_helper,
            sandbox: config.sandbox,
        }
    }

    /// Writes to the log what could not be given up.
    pub(super) fn log(&self) {
        let held = &self.held;
        if self.needs.is_none() {
            tracing::warn!("sandbox = false: whoever takes knockd over has all rights of its unit");
        }
        for lack in &held.lacks {
            tracing::warn!("cannot give up {lack}");
        }
        tracing::debug!("the daemon: {held}");
    }

    /// Returns why a configuration cannot be put in force by a reload: what it needs has been given up.
    pub(super) fn beyond_reach(&self, options: &Options, config: &Config) -> Vec<String> {
        let mut beyond = Vec::new();
        let is_reached = |path: &Path| {
            let needs = self.needs.as_ref();
            needs.is_none_or(|needs| needs.can_change(path))
        };
        let log = options.log.file.as_ref().or(config.log.file.as_ref());
        if let Some(log) = log.filter(|log| !is_reached(&folder_of(log))) {
            beyond.push(format!(
                "{}: knockd has shut itself out of that folder: restart it, or keep the log where it was",
                log.display()
            ));
        }
        for door in config.doors.iter() {
            let file = door.one_time.as_ref().map(|one_time| &one_time.file);
            if let Some(file) = file.filter(|file| !is_reached(file)) {
                beyond.push(format!(
                    "{}: {}: knockd has shut itself out of that folder: restart it, or keep the file \
                     in the state directory",
                    door.name,
                    file.display()
                ));
            }
        }
        // Without a sandbox a helper can be started at any time.
        if self.needs.is_some() && !self.has_helper && !CommandTable::new(config).is_empty() {
            beyond
                .push("there are commands, and knockd was started without: restart it".to_owned());
        }
        beyond
    }

    /// Returns a warning if a configuration has a word on this that counts at the next start.
    pub(super) fn later(&self, config: &Config) -> Option<String> {
        let is_other = config.sandbox != self.sandbox;
        is_other.then(|| "sandbox: it counts from the next start".to_owned())
    }
}

/// Returns what the daemon needs after its start.
fn needs(options: &Options, path: &Path, config: &Config, has_helper: bool) -> DaemonNeeds {
    let mut needs = DaemonNeeds {
        looks_up: options.lookup,
        changes_user: !has_helper,
        write: vec![options.state_dir.clone(), options.run_dir.clone()],
        ..DaemonNeeds::default()
    };
    if !is_read_once(path) {
        // The folder, not the file: an editor puts another file in its place.
        needs.read.push(folder_of(path));
        needs
            .read
            .extend(path.canonicalize().iter().map(|target| folder_of(target)));
    }
    let log = options.log.file.as_ref().or(config.log.file.as_ref());
    if let Some(log) = log {
        // The folder, for a rotation makes a new file.
        needs.write.push(log_folder(log));
    }
    let one_time = config
        .doors
        .iter()
        .filter_map(|door| door.one_time.as_ref());
    for file in one_time.map(|one_time| &one_time.file) {
        let folder = folder_of(file);
        let is_shared = SHARED.iter().any(|shared| folder == Path::new(shared));
        needs
            .write
            .push(if is_shared { file.clone() } else { folder });
    }
    if options.daemon || options.detached.is_some() {
        needs.remove.push(folder_of(options.pid_file(config)));
    }
    needs
}

/// Returns the folder of the log, made if it is ours to make: later it could not be.
fn log_folder(log: &Path) -> PathBuf {
    let folder = folder_of(log);
    if folder.ends_with("knockd") {
        let _ = std::fs::create_dir(&folder);
    }
    folder
}
