//! Takes from a process what it does not need: users, capabilities, files, system calls. No other room
//! names seccompiler, landlock or caps.
//!
//! What a kernel or a unit does not let us give up is no reason to leave a host without its daemon. It
//! is kept in [`Confinement::lacks`], for the log and for `status`.

mod calls;
mod files;
mod process;
mod refused;
mod rights;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

use caps::Capability;
use serde::{Deserialize, Serialize};

pub use self::files::{DaemonNeeds, folder_of};
pub use self::process::{Death, close_files_but, die_with_parent, hold_back_signals, keep_alive};
pub use self::refused::Call;

/// What a process may still do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// The number of its user.
    pub uid: u32,
    /// The capabilities that it can use.
    pub capabilities: Vec<String>,
    /// True if its root is an empty folder.
    pub root_is_empty: bool,
    /// The version of Landlock that keeps it from files; `None`: nothing does.
    pub landlock: Option<i32>,
    /// True if only some system calls are allowed to it.
    pub seccomp: bool,
    /// What could not be taken from it, and why.
    pub lacks: Vec<String>,
}

impl Confinement {
    /// Notes the outcome of one step.
    fn note(&mut self, what: &str, done: Result<(), impl fmt::Display>) {
        if let Err(error) = done {
            self.lacks.push(format!("{what}: {error}"));
        }
    }

    fn note_rights(&mut self) {
        self.uid = nix::unistd::geteuid().as_raw();
        self.capabilities = rights::capabilities();
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            uid,
            capabilities,
            root_is_empty,
            landlock,
            seccomp,
            lacks,
        } = self;
        write!(f, "user {uid}, ")?;
        match capabilities.as_slice() {
            [] => f.write_str("no capability")?,
            // Nobody reads forty names.
            [.., _, _, _, _] => write!(f, "{} capabilities", capabilities.len())?,
            few => f.write_str(&printable(few, " "))?,
        }
        if *root_is_empty {
            f.write_str(", empty root")?;
        }
        match landlock {
            Some(version) => write!(f, ", Landlock {version}")?,
            None => f.write_str(", no Landlock")?,
        }
        f.write_str(if *seccomp {
            ", seccomp"
        } else {
            ", no seccomp"
        })?;
        match lacks.as_slice() {
            [] => Ok(()),
            lacks => write!(f, " (could not: {})", printable(lacks, "; ")),
        }
    }
}

/// Joins texts that an intruder may have written.
fn printable(texts: &[String], between: &str) -> String {
    let texts: Vec<_> = texts
        .iter()
        .map(|text| text.escape_debug().to_string())
        .collect();
    texts.join(between)
}

/// The user of the listener, and the one that stands in for it.
const LISTENER_USERS: [&str; 2] = ["knockd-listener", "nobody"];

/// The daemon's own user.
const DAEMON_USER: &str = "knockd";

/// Leaves to this process, and to those that it forks, CAP_NET_RAW and nothing else: a user without
/// files, an empty folder as root. The folder is made in `run_dir`, and deleted once it is the root.
pub fn confine_listener_warden(run_dir: &Path) -> Confinement {
    let mut held = Confinement::default();
    // The list of users is out of reach later.
    let user = LISTENER_USERS.iter().find_map(|name| rights::user(name));
    let is_mapped = user.is_some_and(rights::is_mapped);
    // A unit that starts knockd as another user (contrib/systemd/drop-ins) has taken most of this away
    // already, and with it the means.
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        let root = rights::enter_empty_root(run_dir);
        held.root_is_empty = root.is_ok();
        held.note("an empty root", root);
    }
    rights::forbid_dumps();
    held.note("no new privileges", rights::forbid_new_privileges());
    let kept = [Capability::CAP_NET_RAW];
    held.note("its bounding set", rights::empty_bounding_set(&[]));
    match user {
        Some(user) if is_root && is_mapped => held.note("its user", rights::become_user(user)),
        // This namespace has nobody else, or the unit has chosen the user.
        Some(_) => {}
        None => held.note(
            "its user",
            Err("neither knockd-listener nor nobody is a user"),
        ),
    }
    held.note("its capabilities", rights::keep_capabilities(&kept));
    rights::forbid_dumps();
    held.landlock = files::shut(&files::Reach::default(), &mut held.lacks);
    held.note_rights();
    held
}

/// Takes from a listener what it needed to open its capture, and every system call that reading
/// packets does not need. If it makes another one, `head` and the number of the call are sent to
/// `socket`, and it ends. `before` is what [`confine_listener_warden`] has returned.
#[must_use]
pub fn confine_listener(before: Confinement, socket: BorrowedFd<'_>, head: [u8; 1]) -> Confinement {
    let mut held = before;
    held.note("its capabilities", rights::keep_capabilities(&[]));
    held.note_rights();
    let told = refused::tell_by_message(socket, head);
    let filtered = told.and_then(|()| calls::allow(&calls::LISTENER));
    held.seccomp = filtered.is_ok();
    held.note("its system calls", filtered);
    held
}

/// Leaves the daemon CAP_NET_ADMIN, the files that it needs, and the system calls of its work. To be
/// called while the process has one thread: rights are those of a thread.
#[must_use]
pub fn confine_daemon(needs: &DaemonNeeds) -> Confinement {
    let mut held = Confinement::default();
    rights::forbid_dumps();
    held.note("no new privileges", rights::forbid_new_privileges());
    let reach = files::Reach::of_daemon(needs);
    held.landlock = files::shut(&reach, &mut held.lacks);
    let kept = [Capability::CAP_NET_ADMIN];
    held.note("its bounding set", rights::empty_bounding_set(&kept));
    if needs.changes_user
        && let Some(user) = rights::user(DAEMON_USER)
        && let Some(user) = rights::owns(user, &needs.write, &needs.read)
    {
        held.note("its user", rights::become_user(user));
    }
    held.note("its capabilities", rights::keep_capabilities(&kept));
    rights::forbid_dumps();
    held.note_rights();
    let told = refused::tell_on_stderr();
    let filtered = told.and_then(|()| calls::allow(&calls::daemon(needs.looks_up)));
    held.seccomp = filtered.is_ok();
    held.note("its system calls", filtered);
    held
}

/// Returns what a process may do that nothing was taken from.
#[must_use]
pub fn unconfined() -> Confinement {
    let mut held = Confinement::default();
    held.note_rights();
    held
}
