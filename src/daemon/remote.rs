//! The subcommands that change something: through the daemon, which owns the table; with no
//! daemon, on the table itself.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::Fault;
use super::control::{self, Reply, Request};
use super::setup::Options;
use super::status::Status;

impl Options {
    /// Where the daemon of this configuration listens for orders.
    pub(crate) fn control_path(&self) -> std::path::PathBuf {
        self.run_dir.join("knockd.sock")
    }
}

/// `knockd status`: what the daemon hears and has done.
///
/// # Errors
/// No daemon runs, or it does not answer.
pub fn status(options: &Options) -> Result<Status, Fault> {
    match ask(&options.control_path(), &Request::Status)? {
        Some(Reply::Status(status)) => Ok(*status),
        Some(Reply::Refused(why)) => Err(Fault::Unavailable(why)),
        Some(Reply::Done(_)) => Err(Fault::Unavailable(
            "the daemon is of another version".to_owned(),
        )),
        None => Err(nobody(options)),
    }
}

/// `knockd open`: what a knock of `address` at `door` would do.
///
/// # Errors
/// No daemon runs, or it refuses.
pub fn open(
    options: &Options,
    door: &str,
    address: IpAddr,
    lifetime: Option<Duration>,
) -> Result<Vec<String>, Fault> {
    let request = Request::Open {
        door: door.to_owned(),
        address,
        for_ms: lifetime.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    };
    done(ask(&options.control_path(), &request)?).unwrap_or_else(|| Err(nobody(options)))
}

/// `knockd close`; `None` if no daemon runs.
///
/// # Errors
/// The daemon refuses.
pub fn close(options: &Options, address: Option<IpAddr>) -> Option<Result<Vec<String>, Fault>> {
    order(options, &Request::Close { address })
}

/// `knockd clear`; `None` if no daemon runs.
///
/// # Errors
/// The daemon refuses.
pub fn clear(options: &Options) -> Option<Result<Vec<String>, Fault>> {
    order(options, &Request::Clear)
}

fn order(options: &Options, request: &Request) -> Option<Result<Vec<String>, Fault>> {
    match ask(&options.control_path(), request) {
        Ok(reply) => done(reply),
        Err(fault) => Some(Err(fault)),
    }
}

fn ask(path: &Path, request: &Request) -> Result<Option<Reply>, Fault> {
    control::ask(path, request).map_err(|error| {
        let path = path.display();
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            Fault::Permission(format!("{path}: only root may control knockd"))
        } else {
            Fault::Unavailable(format!("{path}: {error}"))
        }
    })
}

fn done(reply: Option<Reply>) -> Option<Result<Vec<String>, Fault>> {
    Some(match reply? {
        Reply::Done(lines) => Ok(lines),
        Reply::Refused(why) => Err(Fault::Unavailable(why)),
        Reply::Status(_) => Err(Fault::Unavailable(
            "the daemon is of another version".to_owned(),
        )),
    })
}

fn nobody(options: &Options) -> Fault {
    Fault::Unavailable(format!(
        "no daemon listens at {}",
        options.control_path().display()
    ))
}
