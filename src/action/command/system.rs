//! The helper's system calls at its start, and its clocks.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::action::journal::Clocks;
use crate::model::Timestamp;

/// Why the helper cannot work.
#[derive(Debug, thiserror::Error)]
#[error("the command helper cannot {what}: {source}")]
pub struct ServeError {
    what: &'static str,
    source: io::Error,
}

pub(super) fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ServeError {
    move |e| ServeError {
        what,
        source: e.into(),
    }
}

/// Returns the text that [`HelperClient::spawn`](super::HelperClient::spawn) has given to this
/// process. Call it before [`inherited_socket`], which closes the file.
///
/// # Errors
///
/// If there is no text.
pub fn inherited_text() -> io::Result<Vec<u8>> {
    // Opened anew, so that it is read from its beginning.
    fs::read(format!("/proc/self/fd/{}", super::spawn::TEXT))
}

/// Returns the socket that [`HelperClient::spawn`](super::HelperClient::spawn) has given to this
/// process as its standard input. Call it before anything else: all other files that were inherited
/// are closed, so that no command gets them.
///
/// # Errors
///
/// If standard input is closed or no more files can be opened.
pub fn inherited_socket() -> Result<OwnedFd, ServeError> {
    let socket = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(failed("take its socket"))?;
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .map_err(failed("list /proc/self/fd"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open {
        if fd > 2 && fd != socket.as_raw_fd() {
            // An error is for the directory just read: it is among them, and closed already.
            let _ = nix::unistd::close(fd);
        }
    }
    Ok(socket)
}

/// Returns the time on the clock of deadlines.
pub(super) fn now() -> Result<Timestamp, ServeError> {
    read_clock(ClockId::CLOCK_BOOTTIME).map(Timestamp::from_epoch)
}

/// Returns the time on both clocks.
pub(super) fn clocks() -> Result<Clocks, ServeError> {
    Ok(Clocks {
        boot: now()?,
        wall: read_clock(ClockId::CLOCK_REALTIME)?,
    })
}

fn read_clock(clock: ClockId) -> Result<Duration, ServeError> {
    let time = clock_gettime(clock).map_err(failed("read the clock"))?;
    Ok(Duration::from(time))
}
