//! The errors because of which a door cannot be tried.

use std::io;

use crate::firewall::FirewallError;

/// The reason why a replica could not be made or tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("there is no {program}: install it ({package})")]
    Missing {
        program: String,
        package: &'static str,
    },
    #[error("`{line}` failed: {why}")]
    Tool { line: String, why: String },
    #[error("no network namespace can be made here (CAP_SYS_ADMIN is needed): {0}")]
    Namespace(io::Error),
    #[error("a copy cannot have an interface of the name {0}")]
    Interface(String),
    #[error("a trial connection could not be set up: {0}")]
    Socket(#[from] io::Error),
    #[error("our own table could not be copied: {0}")]
    Table(#[from] FirewallError),
    #[error("nft speaks JSON that was not expected: {0}")]
    Json(#[from] serde_json::Error),
}
