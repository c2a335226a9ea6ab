//! Makes the configuration that runs, from the command line and the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::action::command;
use crate::action::one_time::{LiveSequence, SkippedLine};
use crate::action::used_sequences::UsedSequences;
use crate::config::{self, Audience, ConfigReport, Diagnostic, FileBytes, LoadError, Severity};
use crate::model::{Config, Door, DoorId, Pattern};
use crate::stderr::complain;

use super::Fault;
use super::control::status::RefusedFile;
use super::one_time_files::{FileReader, SequencesRead, file_of};
use super::state::dir::{self, StateDir};

/// The options of the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-i`: in place of the configuration's interfaces.
    pub interfaces: Vec<String>,
    /// `-c`; `None`: the usual places.
    pub config: Option<PathBuf>,
    /// `-4`: IPv6 is ignored.
    pub only_ip_v4: bool,
    /// `-l`: names in the log.
    pub lookup: bool,
    /// `-d`: in the background.
    pub daemon: bool,
    /// This process is in the background, and answers on the pipe of this number.
    pub detached: Option<i32>,
    /// `-p`.
    pub pidfile: Option<PathBuf>,
    /// `-v`, `-D`, `-g`.
    pub log: super::log::LogOptions,
    /// Watch the table, do not own it.
    pub watch: bool,
    /// The folder that knockd was started in. Relative names in the configuration begin there, also
    /// when the daemon in the background has left it.
    pub folder: PathBuf,
    /// The folder for files that must outlive a reboot.
    pub state_dir: PathBuf,
    /// The folder for files that must not outlive a reboot.
    pub run_dir: PathBuf,
}

/// The pid file of knock 0.8, if neither the command line nor the configuration names one.
const PIDFILE: &str = "/var/run/knockd.pid";

/// A configuration ready to run, and its warnings.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// The one-time sequences that its doors wait for; empty before their files are read.
    pub(crate) one_time: PendingSequences,
    /// Doors whose files are to be read again: a file did not answer in time, or its sequence has been
    /// used since.
    pub(crate) unread: Vec<(Arc<str>, PathBuf)>,
    /// The bytes of the file, to be kept once the configuration runs.
    pub(crate) bytes: FileBytes,
    /// Warnings, each with all of its lines.
    pub(crate) warnings: Vec<Remark>,
    /// Why the file is not in use, if this is another configuration.
    pub(crate) refused: Option<RefusedFile>,
}

/// A remark on a configuration. It may quote a sequence, so its reader decides how much of it is shown.
/// Displayed as for a log.
#[derive(Debug, Clone)]
pub(crate) enum Remark {
    /// On its text.
    Diagnostic(Box<Diagnostic>),
    /// On something else: in full, and without the quotation.
    Words { full: String, quiet: String },
}

impl Remark {
    fn is_warning(&self) -> bool {
        match self {
            Self::Diagnostic(diagnostic) => diagnostic.severity == Severity::Warning,
            Self::Words { .. } => true,
        }
    }

    /// Returns the remark as `reader` may see it.
    pub(crate) fn shown_to(&self, reader: Audience) -> String {
        match (self, reader) {
            (Self::Diagnostic(diagnostic), reader) => diagnostic.shown_to(reader),
            (Self::Words { full, .. }, Audience::Terminal | Audience::Pipe) => full.clone(),
            (Self::Words { quiet, .. }, Audience::Log) => quiet.clone(),
        }
    }
}

impl From<String> for Remark {
    /// A remark that quotes nothing.
    fn from(text: String) -> Self {
        let quiet = text.clone();
        Self::Words { full: text, quiet }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown_to(Audience::Log))
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// The file could not be read.
    Unread(LoadError),
    /// The file has errors. The list has its warnings, too.
    Faulty(Vec<Remark>),
}

impl Unusable {
    /// Returns each fault, as `reader` may see it.
    pub(crate) fn shown_to(&self, reader: Audience) -> Vec<String> {
        match self {
            Self::Unread(error) => vec![error.to_string()],
            Self::Faulty(all) => all.iter().map(|one| one.shown_to(reader)).collect(),
        }
    }

    /// Returns the errors alone, as a log may show them: why the file is not in use.
    pub(crate) fn errors(&self) -> Vec<String> {
        match self {
            Self::Unread(error) => vec![error.to_string()],
            Self::Faulty(all) => {
                let errors = all.iter().filter(|one| !one.is_warning());
                errors.map(|one| one.shown_to(Audience::Log)).collect()
            }
        }
    }

    /// Returns the faults as an end of the program, to be printed on stderr.
    pub(crate) fn into_fault(self) -> Fault {
        let text = self.shown_to(Audience::of(&std::io::stderr())).join("\n");
        match self {
            Self::Unread(LoadError::NotAllowed(_)) => Fault::Permission(text),
            Self::Unread(LoadError::Read { .. } | LoadError::TooBig(_)) | Self::Faulty(_) => {
                Fault::Config(text)
            }
        }
    }
}

impl Options {
    /// Returns the path of the configuration file, and a note if two default files are there.
    #[must_use]
    pub fn config_path(&self) -> (PathBuf, Option<String>) {
        match &self.config {
            Some(path) => (path.clone(), None),
            None => {
                let choice = config::choose(
                    Path::new(config::DEFAULT_TOML),
                    Path::new(config::DEFAULT_CONF),
                );
                (choice.path, choice.note)
            }
        }
    }

    /// Returns the state directory of the daemon that runs with these options.
    pub(crate) fn state(&self, config: &Path) -> StateDir {
        StateDir::of(&self.state_dir, config, &self.interfaces)
    }

    /// Returns the pid file of a daemon in the background.
    pub(super) fn pid_file<'a>(&'a self, config: &'a Config) -> &'a Path {
        let configured = self.pidfile.as_deref().or(config.pid_file.as_deref());
        configured.unwrap_or(Path::new(PIDFILE))
    }

    /// Returns where the daemon listens for orders.
    pub(crate) fn control_path(&self) -> PathBuf {
        self.run_dir.join("knockd.sock")
    }

    /// Makes the folder for locks and the control socket.
    pub(crate) fn prepare_run_dir(&self) -> std::io::Result<()> {
        dir::prepare_run_dir(&self.run_dir)
    }

    /// Returns a warning if others use the folder for locks and the control socket.
    pub(crate) fn doubt_of_run_dir(&self) -> Option<String> {
        dir::doubt_of_run_dir(&self.run_dir)
    }

    /// Returns warnings on `-i`.
    pub(crate) fn doubtful_interfaces(&self) -> impl Iterator<Item = String> {
        let doubt = |name: &String| {
            let why = config::several_or_quoted(name)?;
            Some(format!("-i {}: {why}", name.escape_debug()))
        };
        self.interfaces.iter().filter_map(doubt)
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// It cannot be read, or has errors: all of them, each with its place.
    pub(crate) fn read(&self, path: &Path) -> Result<Setup, Unusable> {
        let loaded = config::load(path, &self.folder).map_err(Unusable::Unread)?;
        self.judge(loaded.bytes, loaded.report)
    }

    /// Checks the bytes of the file.
    ///
    /// # Errors
    /// It has errors.
    pub(crate) fn take(&self, path: &Path, bytes: FileBytes) -> Result<Setup, Unusable> {
        let report = config::judge_bytes(path, &bytes, &self.folder);
        self.judge(bytes, report)
    }

    /// Returns the last configuration that ran, where there is one and it still passes the check.
    pub(crate) fn last_good(&self, path: &Path) -> Option<Setup> {
        let bytes = self.state(path).last_good()?;
        self.take(path, bytes).ok()
    }

    fn judge(&self, bytes: FileBytes, report: ConfigReport) -> Result<Setup, Unusable> {
        let all = report.diagnostics.into_iter();
        let said: Vec<_> = all.map(|d| Remark::Diagnostic(Box::new(d))).collect();
        let Some(mut config) = report.config else {
            return Err(Unusable::Faulty(said));
        };
        if !self.interfaces.is_empty() {
            config.interfaces = self.interfaces.iter().map(|i| Pattern::new(i)).collect();
        }
        let mut warnings = said;
        warnings.extend(self.doubtful_interfaces().map(Remark::from));
        let environment = command::doubtful_environment(&config);
        warnings.extend(environment.into_iter().map(Remark::from));
        Ok(Setup {
            config,
            one_time: PendingSequences::new(),
            unread: Vec::new(),
            bytes,
            warnings,
            refused: None,
        })
    }
}

/// The one-time sequence that each such door waits for.
pub(crate) type PendingSequences = BTreeMap<DoorId, LiveSequence>;

impl Setup {
    /// Reads the files of one-time sequences, and waits for them, but not for ever. Files that are not
    /// read in time go into `unread`.
    pub(super) fn read_sequences(&mut self, used: Arc<UsedSequences>) {
        let reader = FileReader::new(used, &self.config);
        let (found, unread) = reader.read_all(&self.config);
        for found in found {
            let words = set_next_sequence(&mut self.config, &mut self.one_time, found);
            self.warnings.extend(words);
        }
        for (door, _) in &unread {
            let text = format!(
                "{door}: its one-time sequences cannot be read yet: the door is disabled until \
                 the disk answers"
            );
            self.warnings.push(text.into());
        }
        self.unread = unread;
    }

    /// Removes the sequences that have been used since they were read. Their files go into `unread`.
    pub(super) fn forget_used(&mut self, used: &UsedSequences) {
        for (id, door) in (0..).map(DoorId).zip(Arc::make_mut(&mut self.config.doors)) {
            let Some((name, file)) = file_of(door) else {
                continue;
            };
            let is_used = |live: &LiveSequence| used.has(&file, &live.steps);
            if self.one_time.get(&id).is_some_and(is_used) {
                self.one_time.remove(&id);
                self.unread.push((Arc::clone(name), file));
                door.sequence = Box::default();
            }
        }
    }

    /// Reads the files of one-time sequences, however long it takes.
    pub(super) fn await_sequences(&mut self, used: UsedSequences) {
        let reader = FileReader::new(Arc::new(used), &self.config);
        let doors = Arc::clone(&self.config.doors);
        for (door, file) in doors.iter().filter_map(file_of) {
            let found = reader.read(Arc::clone(door), file);
            let words = set_next_sequence(&mut self.config, &mut self.one_time, found);
            self.warnings.extend(words);
        }
    }
}

/// Gives a door its next one-time sequence, unless it waits for one. A door without any left is
/// disabled. Returns remarks on it.
pub(super) fn set_next_sequence(
    config: &mut Config,
    live: &mut PendingSequences,
    found: SequencesRead,
) -> Vec<Remark> {
    let SequencesRead { door, file, read } = found;
    let mut said = Vec::<Remark>::new();
    let mine = |(_, one): &(DoorId, &mut Door)| {
        one.name == door && one.one_time.as_ref().is_some_and(|o| o.file == file)
    };
    let mut doors = (0..).map(DoorId).zip(Arc::make_mut(&mut config.doors));
    let Some((id, door)) = doors.find(mine).filter(|(id, _)| !live.contains_key(id)) else {
        return said;
    };
    let (file, name) = (file.display(), &door.name);
    let mut sequence = Box::default();
    match read {
        Ok(found) => {
            if found.world_readable {
                let text = format!("{file}: every user of this host can read the sequences");
                said.push(text.into());
            }
            for SkippedLine { line, why } in found.skipped {
                said.push(Remark::Words {
                    full: format!("{file}:{line}: {why}; the line is skipped"),
                    quiet: format!("{file}:{line}: {}; the line is skipped", why.quiet()),
                });
            }
            match found.live {
                Some(next) => {
                    sequence = next.steps.as_slice().into();
                    live.insert(id, next);
                }
                None => {
                    let text = "no more one-time sequences in";
                    let text = format!("{name}: {text} {file}: the door is disabled");
                    said.push(text.into());
                }
            }
        }
        Err(error) => said.push(format!("{name}: {error}: the door is disabled").into()),
    }
    door.sequence = sequence;
    said
}

/// A door at which nobody can knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutDoor {
    pub name: Arc<str>,
    pub why: String,
    /// False if the user may not read the file: root, and so the daemon, may be able to use it.
    pub is_certain: bool,
}

/// Returns the doors whose one-time sequences are used up, or cannot be read.
#[must_use]
pub fn shut_doors(options: &Options, path: &Path, config: &Config) -> Vec<ShutDoor> {
    // Only root can read which sequences were used. For other users the marks in the files decide.
    // Nothing is written, so no key is needed.
    let used = UsedSequences::load(options.state(path).dir(), [0; 16]);
    let reader = FileReader::new(Arc::new(used), config);
    let shut = config.doors.iter().filter_map(|door| {
        let (name, file) = file_of(door)?;
        let found = reader.read(Arc::clone(name), file);
        let (file, read) = (found.file, found.read);
        let (why, is_certain) = match read {
            Ok(found) if found.live.is_some() => return None,
            Ok(_) => {
                let why = format!("no more one-time sequences in {}", file.display());
                (why, true)
            }
            Err(error) => {
                let may_not = error.is_permission() && !nix::unistd::geteuid().is_root();
                (error.to_string(), !may_not)
            }
        };
        let name = door.name.clone();
        Some(ShutDoor {
            name,
            why,
            is_certain,
        })
    });
    shut.collect()
}

/// Returns the configuration at `path`, or the last good one where that is faulty, for subcommands that
/// must work in any case. Then the faults are printed on stderr.
///
/// # Errors
/// There is neither.
pub fn configuration(options: &Options, path: &Path) -> Result<Config, Fault> {
    let refused = match options.read(path) {
        Ok(setup) => return Ok(setup.config),
        Err(refused) => refused,
    };
    match options.last_good(path) {
        Some(setup) => {
            let faults = refused
                .shown_to(Audience::of(&std::io::stderr()))
                .join("\n");
            complain(format_args!(
                "{faults}\nknockd: {} CANNOT BE USED: the last configuration that was good is \
                 taken",
                path.display()
            ));
            Ok(setup.config)
        }
        None => Err(refused.into_fault()),
    }
}
