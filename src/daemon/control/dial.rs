//! The other end of the control socket: a daemon is asked. Every wait has an end, for the daemon
//! may be stopped (SIGSTOP, a debugger, a frozen container) or hang.

use std::io::{self, Read as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::socket::{LONGEST_PART, Order, Reply, is_nobody};

/// How long it is waited between two attempts to find room among a daemon's clients. There is
/// nothing to poll: unix(7) does not say when there is room.
const MOMENT: Duration = Duration::from_millis(20);

/// Asks the daemon that listens at `path`; `None` if there is none. All of it takes at most
/// `patience`.
///
/// # Errors
/// The daemon does not answer in time, or the socket is not for us.
pub(crate) fn ask(path: &Path, order: &Order, patience: Duration) -> io::Result<Option<Reply>> {
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
    // A timeout of zero would be none.
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

/// A connection, if it is to be had at once.
fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}
