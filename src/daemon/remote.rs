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
    match ask(options, &Request::Status)? {
        Answer::Given(Reply::Status(status)) => Ok(*status),
        Answer::Given(Reply::Refused(why)) | Answer::Nobody(why) => Err(Fault::Unavailable(why)),
        Answer::Given(Reply::Done(_)) => Err(Fault::Unavailable(
            "the daemon is of another version".to_owned(),
        )),
    }
}

/// `knockd open`: what a knock of `address` at `door` would do; `None` if no daemon runs.
///
/// # Errors
/// The daemon refuses.
pub fn open(
    options: &Options,
    door: &str,
    address: IpAddr,
    lifetime: Option<Duration>,
) -> Option<Result<Vec<String>, Fault>> {
    let request = Request::Open {
        door: door.to_owned(),
        address,
        for_ms: lifetime.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    };
    order(options, &request)
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
    match ask(options, request) {
        Ok(Answer::Given(reply)) => Some(done(reply)),
        Ok(Answer::Nobody(_)) => None,
        Err(fault) => Some(Err(fault)),
    }
}

/// What came of asking.
enum Answer {
    /// The daemon's.
    Given(Reply),
    /// No daemon of this configuration listens: why.
    Nobody(String),
}

/// Asks the daemon; not one that runs with another file than the one that is named.
fn ask(options: &Options, request: &Request) -> Result<Answer, Fault> {
    let path = options.control_path();
    let at = path.display();
    if let Some(named) = &options.config {
        match control::ask(&path, &Request::Status) {
            Ok(Some(Reply::Status(status)))
                if !is_same(named, Path::new(&status.configuration)) =>
            {
                return Ok(Answer::Nobody(format!(
                    "the daemon that listens at {at} runs with {}, not with {} (whose daemon \
                     needs a --run-dir of its own)",
                    status.configuration,
                    named.display()
                )));
            }
            // Too busy to say whose it is: it must not be told to do anything.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(Fault::Unavailable(format!("{at}: {error}")));
            }
            // Whatever else is wrong shows when the question itself is asked.
            Ok(_) | Err(_) => {}
        }
    }
    match control::ask(&path, request) {
        Ok(Some(reply)) => Ok(Answer::Given(reply)),
        Ok(None) => Ok(Answer::Nobody(format!("no daemon listens at {at}"))),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(
            Fault::Permission(format!("{at}: only root may control knockd")),
        ),
        Err(error) => Err(Fault::Unavailable(format!("{at}: {error}"))),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || resolved(one) == resolved(other)
}

fn done(reply: Reply) -> Result<Vec<String>, Fault> {
    match reply {
        Reply::Done(lines) => Ok(lines),
        Reply::Refused(why) => Err(Fault::Unavailable(why)),
        Reply::Status(_) => Err(Fault::Unavailable(
            "the daemon is of another version".to_owned(),
        )),
    }
}
