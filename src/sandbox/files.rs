//! Landlock: which files a process can reach. See landlock(7).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
    make_bitflags, path_beneath_rules,
};

/// The newest version that this file was written for. An older kernel keeps a process from less.
const ABI: ABI = ABI::V6;

/// What the daemon reads beside what its configuration names: where the time zone is told, which ports
/// the kernel gives out, what services are called, and where to write nothing.
const READ: [&str; 5] = [
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/sys/net",
    "/etc/services",
    "/dev/urandom",
];

/// What the C library reads to look a name up: its configuration, its modules, the socket of a resolver.
const READ_FOR_NAMES: [&str; 6] = ["/etc", "/usr/lib", "/lib", "/lib64", "/run", "/usr/etc"];

/// What the daemon needs after its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonNeeds {
    /// Files and folders that it reads.
    pub read: Vec<PathBuf>,
    /// Folders in which it makes, changes and removes files.
    pub write: Vec<PathBuf>,
    /// Folders in which it removes files.
    pub remove: Vec<PathBuf>,
    /// It looks names up: the C library reads what it likes in /etc, loads modules, and asks by UDP.
    pub looks_up: bool,
    /// Its user may become `knockd`, if the files are that user's. With commands it stays root: they
    /// write to the same folders.
    pub changes_user: bool,
}

impl DaemonNeeds {
    /// Returns whether a daemon with these needs can change this file or folder.
    #[must_use]
    pub fn can_change(&self, path: &Path) -> bool {
        self.write.iter().any(|reached| path.starts_with(reached))
    }
}

/// Returns the folder that a file lies in.
#[must_use]
pub fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder.as_os_str() != OsStr::new("") => folder.to_owned(),
        _ => PathBuf::from("/"),
    }
}

/// The files and folders that stay within reach.
#[derive(Debug, Default)]
pub(super) struct Reach {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    remove: Vec<PathBuf>,
    /// Any port may be connected to.
    any_port: bool,
}

impl Reach {
    /// Returns what the daemon needs. A name may be a link: what it leads to must be reached, too.
    pub(super) fn of_daemon(needs: &DaemonNeeds) -> Self {
        let with_targets = |paths: &[PathBuf]| {
            let targets = paths.iter().filter_map(|path| path.canonicalize().ok());
            paths.iter().cloned().chain(targets).collect::<Vec<_>>()
        };
        let mut read = with_targets(&needs.read);
        read.extend(READ.map(PathBuf::from));
        if needs.looks_up {
            read.extend(READ_FOR_NAMES.map(PathBuf::from));
        }
        Self {
            read,
            write: with_targets(&needs.write),
            remove: with_targets(&needs.remove),
            any_port: needs.looks_up,
        }
    }
}

/// Shuts this thread, and those that it starts, out of all other files, and out of TCP. Returns the
/// version of Landlock that does it, and notes in `lacks` if none does.
pub(super) fn shut(reach: &Reach, lacks: &mut Vec<String>) -> Option<i32> {
    let why = match try_shut(reach) {
        Ok(Some(version)) => return Some(version),
        Ok(None) => "the kernel has no Landlock, or lsm= leaves it out".to_owned(),
        Err(error) => error.to_string(),
    };
    lacks.push(format!("its files: {why}"));
    None
}

fn try_shut(reach: &Reach) -> Result<Option<i32>, RulesetError> {
    let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write = read
        | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeDir | MakeSock | RemoveFile | RemoveDir});
    let null = make_bitflags!(AccessFs::{ReadFile | WriteFile});
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI))?
        .scope(Scope::Signal)?;
    if !reach.any_port {
        rules = rules.handle_access(AccessNet::from_all(ABI))?;
    }
    let status = rules
        .create()?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .add_rules(path_beneath_rules(&reach.remove, AccessFs::RemoveFile))?
        .add_rules(path_beneath_rules(["/dev/null"], null))?
        .restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Some(effective_abi as i32),
        (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => None,
    })
}
