//! Why knockd ends when it was not told to, and the exit code that says so (sysexits(3)).

use std::path::PathBuf;
use std::process::ExitCode;

use crate::capture::{CaptureError, LinksError};
use crate::config::LoadError;
use crate::firewall::FirewallError;

use super::state::lock::PidFileError;

/// An end before its time. Its text is the last line that the administrator reads: what
/// failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Wrong data: a capture of a kind that is not read (65, EX_DATAERR).
    #[error("{0}")]
    Data(String),
    /// A file that is not there or cannot be read (66, EX_NOINPUT).
    #[error("cannot read {}: {why}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something that is needed is not to be had: another daemon holds it, or none runs
    /// (69, EX_UNAVAILABLE).
    #[error("{0}")]
    Unavailable(String),
    /// The kernel refused (71, EX_OSERR).
    #[error("{0}")]
    System(String),
    /// A file of ours cannot be made (73, EX_CANTCREAT).
    #[error("{0}")]
    Create(String),
    /// A capability is missing (77, EX_NOPERM).
    #[error("{0}")]
    Permission(String),
    /// The configuration cannot be used; what is wrong with it has been said (78, EX_CONFIG).
    #[error("{0}")]
    Config(String),
}

impl Fault {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Data(_) => 65,
            Self::Input { .. } => 66,
            Self::Unavailable(_) => 69,
            Self::System(_) => 71,
            Self::Create(_) => 73,
            Self::Permission(_) => 77,
            Self::Config(_) => 78,
        }
    }
}

impl From<Fault> for ExitCode {
    fn from(fault: Fault) -> Self {
        Self::from(fault.code())
    }
}

impl From<FirewallError> for Fault {
    fn from(error: FirewallError) -> Self {
        let text = error.to_string();
        match error {
            FirewallError::Permission => Self::Permission(text),
            FirewallError::Owned { .. } | FirewallError::Foreign { .. } => Self::Unavailable(text),
            FirewallError::Full { .. }
            | FirewallError::Unsupported { .. }
            | FirewallError::Ownership { .. }
            | FirewallError::HalfDone { .. }
            | FirewallError::Refused { .. }
            | FirewallError::Reading { .. }
            | FirewallError::None => Self::System(text),
        }
    }
}

impl From<CaptureError> for Fault {
    fn from(error: CaptureError) -> Self {
        let text = error.to_string();
        match error {
            CaptureError::Capability { .. } => Self::Permission(text),
            CaptureError::Open { path, source } => Self::Input {
                path,
                why: source.to_string(),
            },
            CaptureError::Format { .. }
            | CaptureError::LinkType { .. }
            | CaptureError::Broken { .. } => Self::Data(text),
            CaptureError::Start { .. }
            | CaptureError::Filter { .. }
            | CaptureError::Read { .. } => Self::System(text),
        }
    }
}

impl From<LinksError> for Fault {
    fn from(error: LinksError) -> Self {
        Self::System(error.to_string())
    }
}

impl From<PidFileError> for Fault {
    fn from(error: PidFileError) -> Self {
        match error {
            PidFileError::Held { .. } => Self::Unavailable(error.to_string()),
            PidFileError::Write { .. } => Self::Create(error.to_string()),
        }
    }
}

impl From<LoadError> for Fault {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotAllowed(_) => Self::Permission(error.to_string()),
            LoadError::Read { path, source } => Self::Input {
                path,
                why: source.to_string(),
            },
            LoadError::TooBig(_) => Self::Config(error.to_string()),
        }
    }
}
