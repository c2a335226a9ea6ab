//! Files: the only I/O of this room.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::source::Source;
use super::{Format, Host, Report, judge};

/// Where TOML lies if nobody says otherwise.
pub const DEFAULT_TOML: &str = "/etc/knockd.toml";
/// Where a knockd.conf lies if nobody says otherwise.
pub const DEFAULT_CONF: &str = "/etc/knockd.conf";

/// Bigger files are no configuration: 65,535 doors fit in it.
const SIZE_MAX: u64 = 32 << 20;

/// A file that has been read and judged.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Which one.
    pub path: PathBuf,
    /// In which format.
    pub format: Format,
    /// Its bytes, for whoever keeps the last good one.
    pub bytes: Vec<u8>,
    /// The judgement.
    pub report: Report,
}

/// Why a file could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel says why.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// More than any configuration needs.
    #[error("{} is bigger than 32 MiB: that is no configuration", .0.display())]
    TooBig(PathBuf),
}

/// Reads a file and judges it, by this host's ephemeral ports, and by who else may read it.
///
/// # Errors
///
/// If it cannot be read. What is wrong within it stands in [`Loaded::report`].
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(LoadError::TooBig(path.to_owned()));
    }
    let source = Source::from_bytes(&path.to_string_lossy(), &bytes);
    let format = Format::of(path, source.text());
    let mut report = judge(&source, format, &host());
    let secret = |config: &crate::model::Config| config.doors.iter().any(|d| d.one_time.is_none());
    if mode & 0o004 != 0 && report.config.as_ref().is_none_or(secret) {
        let message = format!(
            "every user of this host can read the sequences (mode {:04o})",
            mode & 0o7777
        );
        let mut readable = Diagnostic::whole(Severity::Warning, source.name(), message);
        readable.help = Some(format!("chmod 0600 {}", path.display()));
        report.diagnostics.insert(0, readable);
    }
    Ok(Loaded {
        path: path.to_owned(),
        format,
        bytes,
        report,
    })
}

/// This host, as far as the kernel tells.
fn host() -> Host {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let parsed = range.ok().and_then(|text| {
        let mut words = text.split_whitespace().map(str::parse);
        Some(words.next()?.ok()?..=words.next()?.ok()?)
    });
    parsed.map_or_else(Host::default, |ephemeral| Host { ephemeral })
}

/// Which file is taken when nobody names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The file.
    pub path: PathBuf,
    /// What its owner should know about the choice.
    pub note: Option<String>,
}

/// Chooses between the default files: TOML if it is there, and if both are, it says so.
#[must_use]
pub fn choose(toml: &Path, conf: &Path) -> Choice {
    let (has_toml, has_conf) = (toml.exists(), conf.exists());
    let both = || {
        format!(
            "{} is not read: there is {}",
            conf.display(),
            toml.display()
        )
    };
    Choice {
        path: if has_toml || !has_conf { toml } else { conf }.to_owned(),
        note: (has_toml && has_conf).then(both),
    }
}
