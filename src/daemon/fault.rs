//! Why knockd ends without being asked to, and the exit code for that (sysexits(3)).

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::action::command::{HelperGone, ServeError, SpawnError};
use crate::capture::{CaptureError, LinksError};
use crate::config::LoadError;
use crate::firewall::FirewallError;

use super::listener::handle::ListenerError;
use super::state::lock::LockError;

/// An end of the program that was not asked for. Its text is the last line that the administrator
/// reads: what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A file that is not there or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Input { path: PathBuf, source: io::Error },
    /// Packets cannot be captured, or a capture cannot be read.
    #[error(transparent)]
    Capture(CaptureError),
    /// The table cannot be made, read or changed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Interfaces cannot be followed.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// Another daemon runs, or a file of ours cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another daemon has the pid file, and this one cannot do without.
    #[error("{source}; {way_out}")]
    PidFile {
        /// Names the daemon that has the pid file.
        source: LockError,
        /// The advice, which follows the error in the message.
        way_out: &'static str,
    },
    /// There is no listener.
    #[error(transparent)]
    Listener(ListenerError),
    /// The process that runs commands cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The process that runs commands has died, and its warden too.
    #[error(
        "the process that runs commands and its warden are gone: knockd ends, and the guard stands"
    )]
    HelperGone,
    /// The process that runs commands cannot work.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The kernel refused a call.
    #[error("{what}: {source}")]
    System {
        /// The failure in a few words, as in "cannot write".
        what: &'static str,
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something that is needed is not to be had, such as a daemon that runs.
    #[error("{0}")]
    Unavailable(String),
    /// The user lacks a permission.
    #[error("{0}")]
    Permission(String),
    /// The configuration cannot be used. The text is its faults, or it is a last line below faults that
    /// have been printed.
    #[error("{0}")]
    Config(String),
}

/// The data is wrong (EX_DATAERR).
const DATA: u8 = 65;
/// A file cannot be read (EX_NOINPUT).
const INPUT: u8 = 66;
/// Another daemon holds what is needed, or none runs (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// The kernel refused (EX_OSERR).
const SYSTEM: u8 = 71;
/// A file of ours cannot be made (EX_CANTCREAT).
const CREATE: u8 = 73;
/// A capability is missing (EX_NOPERM).
const PERMISSION: u8 = 77;
/// The configuration cannot be used (EX_CONFIG).
const CONFIG: u8 = 78;

impl Fault {
    /// A refusal by the kernel.
    pub(crate) fn system(
        what: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::System {
            what,
            source: source.into(),
        }
    }

    /// stdout cannot be written.
    pub(crate) fn output(error: io::Error) -> Self {
        Self::system("cannot write", error)
    }

    /// Returns the exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Input { .. } => INPUT,
            Self::Capture(error) => of_capture(error),
            Self::Firewall(error) => of_firewall(error),
            Self::Lock(error) | Self::PidFile { source: error, .. } => match error {
                LockError::Held { .. } => UNAVAILABLE,
                LockError::Write { .. } => CREATE,
            },
            Self::HelperGone
            | Self::Listener(_)
            | Self::Links(_)
            | Self::Spawn(_)
            | Self::Serve(_)
            | Self::System { .. } => SYSTEM,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Permission(_) => PERMISSION,
            Self::Config(_) => CONFIG,
        }
    }
}

fn of_firewall(error: &FirewallError) -> u8 {
    match error {
        FirewallError::Permission => PERMISSION,
        FirewallError::Owned { .. } | FirewallError::Foreign { .. } => UNAVAILABLE,
        FirewallError::Full { .. }
        | FirewallError::Unsupported { .. }
        | FirewallError::Ownership { .. }
        | FirewallError::HalfDone { .. }
        | FirewallError::Refused { .. }
        | FirewallError::Reading { .. }
        | FirewallError::None => SYSTEM,
    }
}

fn of_capture(error: &CaptureError) -> u8 {
    match error {
        CaptureError::Capability { .. } => PERMISSION,
        CaptureError::Open { .. } => INPUT,
        CaptureError::Format { .. }
        | CaptureError::LinkType { .. }
        | CaptureError::Broken { .. } => DATA,
        CaptureError::Start { .. } | CaptureError::Filter { .. } | CaptureError::Read { .. } => {
            SYSTEM
        }
    }
}

impl From<Fault> for ExitCode {
    fn from(fault: Fault) -> Self {
        Self::from(fault.code())
    }
}

impl From<CaptureError> for Fault {
    fn from(error: CaptureError) -> Self {
        let CaptureError::Open { path, source } = error else {
            return Self::Capture(error);
        };
        Self::Input { path, source }
    }
}

impl From<HelperGone> for Fault {
    fn from(_: HelperGone) -> Self {
        Self::HelperGone
    }
}

impl From<ListenerError> for Fault {
    fn from(error: ListenerError) -> Self {
        match error {
            ListenerError::Capture(error) => error.into(),
            ListenerError::Gone | ListenerError::NoDescriptor | ListenerError::Socket(_) => {
                Self::Listener(error)
            }
        }
    }
}

impl From<LoadError> for Fault {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotAllowed(_) => Self::Permission(error.to_string()),
            LoadError::Read { path, source } => Self::Input { path, source },
            LoadError::TooBig(_) => Self::Config(error.to_string()),
        }
    }
}
