//! The client's end of the control socket, for subcommands that ask the daemon. Every wait has an end,
//! for the daemon may be stopped (SIGSTOP, a debugger, a frozen container) or hang.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::message::{AddressedOrder, Order, Reply, names};
use super::socket::{LONGEST_PART, is_nobody};
use super::status::Status;
use crate::daemon::Fault;
use crate::daemon::setup::Options;

/// How long a client waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client waits for a reload: the file may have thousands of doors, the kernel be busy.
const PATIENCE_FOR_A_RELOAD: Duration = Duration::from_secs(60);

/// The time between two attempts to find room among a daemon's clients. There is nothing to poll:
/// unix(7) does not say when there is room.
const MOMENT: Duration = Duration::from_millis(20);

/// The result of an order.
#[derive(Debug)]
pub enum Obeyed {
    /// The daemon has done it: lines for the user.
    Done(Vec<String>),
    /// No daemon of this configuration listens, for this reason.
    Nobody(String),
}

/// Sends an order to the daemon and waits for the reply.
///
/// # Errors
/// The daemon refuses, or does not answer.
pub fn order(options: &Options, order: &Order) -> Result<Obeyed, Fault> {
    match ask_for(options, order)? {
        Ok(reply) => done(reply).map(Obeyed::Done),
        Err(why) => Ok(Obeyed::Nobody(why)),
    }
}

/// Asks the daemon for its status.
///
/// # Errors
/// No daemon runs, or it does not answer.
pub fn status(options: &Options) -> Result<Status, Fault> {
    match ask_for(options, &Order::Status)? {
        Ok(Reply::Status(status)) => Ok(*status),
        Ok(other) => Err(done(other).err().unwrap_or_else(of_another_version)),
        Err(why) => Err(Fault::Unavailable(why)),
    }
}

/// Returns whether a daemon runs with the file at `path`, as far as its control socket says.
///
/// # Errors
/// A daemon listens there and does not answer.
pub fn runs(options: &Options, path: &Path) -> Result<bool, Fault> {
    let options = Options {
        config: Some(path.to_owned()),
        ..options.clone()
    };
    Ok(ask_for(&options, &Order::Status)?.is_ok())
}

/// Asks the daemon; returns its reply, or why there is no daemon to ask. If the order names a file,
/// the daemon itself judges whether the order is for it. A question before the order would not do:
/// one daemon could answer it, and the next one obey the order.
fn ask_for(options: &Options, order: &Order) -> Result<Result<Reply, String>, Fault> {
    let path = options.control_path();
    let at = path.display();
    let patience = match order {
        Order::Reload => PATIENCE_FOR_A_RELOAD,
        Order::Status | Order::Open { .. } | Order::Close { .. } | Order::Clear => PATIENCE,
    };
    let named = options.config.as_deref();
    let order = AddressedOrder {
        of: named.map(names).unwrap_or_default(),
        ask: order.clone(),
    };
    match ask(&path, &order, patience) {
        Ok(Some(Reply::Elsewhere(other))) => Ok(Err(format!(
            "the daemon that listens at {at} runs with {other}, not with {} (whose daemon needs a \
             --run-dir of its own)",
            named.map_or_else(String::new, |named| named.display().to_string())
        ))),
        Ok(Some(reply)) => Ok(Ok(reply)),
        Ok(None) => Ok(Err(format!("no daemon listens at {at}"))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Fault::Permission(
            format!("{at}: only root may control knockd"),
        )),
        Err(error) => Err(Fault::Unavailable(format!("{at}: {error}"))),
    }
}

fn done(reply: Reply) -> Result<Vec<String>, Fault> {
    match reply {
        Reply::Done(lines) => Ok(lines),
        Reply::Refused(why) => Err(Fault::Unavailable(why)),
        Reply::Faulty(faults) => {
            // A fault shows its line of the file, which may hold a sequence. Only a terminal gets
            // such lines.
            let whole = io::stderr().is_terminal();
            let shown = |fault: &String| match whole {
                true => fault.clone(),
                false => fault.lines().next().unwrap_or_default().to_owned(),
            };
            // As a unit's ExecReload= this goes to the journal. The daemon has written all faults
            // there by now, so only the last line, which sums them up, is printed.
            let is_written = crate::stderr::is_journal();
            let before = if is_written {
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

/// Asks the daemon that listens at `path`; returns its reply, `None` if no daemon listens. This takes
/// at most `patience` in all.
///
/// # Errors
/// The daemon does not answer in time, or the socket is not for us.
pub(super) fn ask(
    path: &Path,
    order: &AddressedOrder,
    patience: Duration,
) -> io::Result<Option<Reply>> {
    let deadline = Instant::now() + patience;
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "the daemon does not answer: {} s were waited for it; it is stopped or hangs; \
                 what it has not begun it will not do",
                patience.as_secs()
            ),
        )
    };
    // A timeout of zero would mean none at all.
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left).ok_or_else(late)
    };
    let in_time = |error: io::Error| {
        let is_late = error.kind() == io::ErrorKind::WouldBlock;
        if is_late { late() } else { error }
    };
    let mut socket = loop {
        match connect(path) {
            Ok(socket) => break socket,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(left()?.min(MOMENT));
            }
            Err(error) => return Err(error),
        }
    };
    socket.set_write_timeout(Some(left()?))?;
    socket.send(&serde_json::to_vec(order)?).map_err(in_time)?;
    let mut text = Vec::new();
    let mut part = vec![0; LONGEST_PART];
    loop {
        socket.set_read_timeout(Some(left()?))?;
        match socket.read(&mut part).map_err(in_time)? {
            0 => break,
            length => text.extend_from_slice(part.get(..length).unwrap_or(&[])),
        }
    }
    if text.is_empty() {
        return Err(io::Error::other("the daemon hung up without an answer"));
    }
    let broken = |_| io::Error::other("the daemon's answer broke off");
    serde_json::from_slice(&text).map(Some).map_err(broken)
}

/// Returns a connection, if one can be made without waiting.
fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}
