//! The subcommands that change something: through the daemon, which owns the table; with no
//! daemon, on the table itself.

use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::dial;
use super::socket::{self, Order, Reply, Request};
use super::status::Status;
use crate::daemon::Fault;
use crate::daemon::setup::Options;

/// How long a daemon is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reload is waited for: the file may have thousands of doors, the kernel be busy.
const PATIENCE_FOR_A_RELOAD: Duration = Duration::from_secs(60);

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
    match ask(options, Request::Status)? {
        Answer::Given(Reply::Status(status)) => Ok(*status),
        Answer::Nobody(why) => Err(Fault::Unavailable(why)),
        Answer::Given(other) => Err(done(other).err().unwrap_or_else(of_another_version)),
    }
}

/// Whether a daemon runs with the file at `path`, as far as its control socket says.
#[must_use]
pub fn runs(options: &Options, path: &Path) -> bool {
    let options = Options {
        config: Some(path.to_owned()),
        ..options.clone()
    };
    status(&options).is_ok()
}

/// `knockd reload`: the daemon reads its configuration again; what it says of it.
///
/// # Errors
/// The configuration has faults, no daemon runs, or the kernel refuses.
pub fn reload(options: &Options) -> Result<Vec<String>, Fault> {
    match ask(options, Request::Reload)? {
        Answer::Given(reply) => done(reply),
        Answer::Nobody(why) => Err(Fault::Unavailable(why)),
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
    order(options, request)
}

/// `knockd close`; `None` if no daemon runs.
///
/// # Errors
/// The daemon refuses.
pub fn close(options: &Options, address: Option<IpAddr>) -> Option<Result<Vec<String>, Fault>> {
    order(options, Request::Close { address })
}

/// `knockd clear`; `None` if no daemon runs.
///
/// # Errors
/// The daemon refuses.
pub fn clear(options: &Options) -> Option<Result<Vec<String>, Fault>> {
    order(options, Request::Clear)
}

fn order(options: &Options, request: Request) -> Option<Result<Vec<String>, Fault>> {
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

/// Asks the daemon; where a file is named, the daemon itself judges whether it is meant: a question
/// of its own before could be answered by one and the order be taken by the next.
fn ask(options: &Options, ask: Request) -> Result<Answer, Fault> {
    let path = options.control_path();
    let at = path.display();
    let patience = match ask {
        Request::Reload => PATIENCE_FOR_A_RELOAD,
        Request::Status | Request::Open { .. } | Request::Close { .. } | Request::Clear => PATIENCE,
    };
    let named = options.config.as_deref();
    let of = named.map(socket::names).unwrap_or_default();
    match dial::ask(&path, &Order { of, ask }, patience) {
        Ok(Some(Reply::Elsewhere(other))) => Ok(Answer::Nobody(format!(
            "the daemon that listens at {at} runs with {other}, not with {} (whose daemon needs a \
             --run-dir of its own)",
            named.map_or_else(String::new, |named| named.display().to_string())
        ))),
        Ok(Some(reply)) => Ok(Answer::Given(reply)),
        Ok(None) => Ok(Answer::Nobody(format!("no daemon listens at {at}"))),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(
            Fault::Permission(format!("{at}: only root may control knockd")),
        ),
        Err(error) => Err(Fault::Unavailable(format!("{at}: {error}"))),
    }
}

fn done(reply: Reply) -> Result<Vec<String>, Fault> {
    match reply {
        Reply::Done(lines) => Ok(lines),
        Reply::Refused(why) => Err(Fault::Unavailable(why)),
        Reply::Faulty(faults) => {
            // A fault shows the line that it is in, which may hold a sequence: that is for a
            // terminal.
            let whole = std::io::stderr().is_terminal();
            let shown = |fault: &String| match whole {
                true => fault.clone(),
                false => fault.lines().next().unwrap_or_default().to_owned(),
            };
            // As a unit's ExecReload= it is heard in the journal, where the daemon has said all of
            // it by then: the last line says what that comes to.
            let is_said = crate::stderr::is_journal();
            let before = if is_said {
                faults.len().saturating_sub(1)
            } else {
                0
            };
            let faults: Vec<_> = faults.iter().skip(before).map(shown).collect();
            Err(Fault::Config(faults.join("\n")))
        }
        Reply::Elsewhere(_) | Reply::Status(_) => Err(of_another_version()),
    }
}

fn of_another_version() -> Fault {
    Fault::Unavailable("the daemon is of another version".to_owned())
}
