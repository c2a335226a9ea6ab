//! What systemd is told (sd_notify(3)), and what it asks to be told.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::model::Timestamp;

/// The service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Manager {
    watchdog: Option<Duration>,
    next_feed: Option<Timestamp>,
    status: String,
}

impl Manager {
    /// Reads what the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub(crate) fn from_env(now: Timestamp) -> Self {
        // Fed at a third of the time: two feeds may come late before we are taken for dead.
        let watchdog = sd_notify::watchdog_enabled().map(|d| d / 3);
        Self {
            watchdog,
            next_feed: watchdog.map(|_| now),
            status: String::new(),
        }
    }

    /// READY=1: the guard stands and the capture is open.
    pub(crate) fn ready(&self) {
        let ready = [NotifyState::Ready, NotifyState::MainPid(std::process::id())];
        send(&ready, PATIENCE);
    }

    /// RELOADING=1, with the time it wants beside it.
    pub(crate) fn reloading(&self) {
        if let Ok(stamp) = NotifyState::monotonic_usec_now() {
            send(&[NotifyState::Reloading, stamp], PATIENCE);
        }
    }

    /// STOPPING=1.
    pub(crate) fn stopping(&self) {
        send(&[NotifyState::Stopping], PATIENCE);
    }

    /// STATUS=…, if it says something new.
    pub(crate) fn status(&mut self, text: String) {
        if text != self.status {
            send(&[NotifyState::Status(&text)], None);
            self.status = text;
        }
    }

    /// Feeds the watchdog if it is time.
    pub(crate) fn feed(&mut self, now: Timestamp) {
        if let (Some(every), Some(at)) = (self.watchdog, self.next_feed)
            && now >= at
        {
            send(&[NotifyState::Watchdog], None);
            self.next_feed = Some(now + every);
        }
    }

    /// When the watchdog is next to be fed.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.next_feed
    }
}

/// How long a manager is waited for that is busy and must not miss what it is told. A missed
/// watchdog is fed again in time, a missed status is only for the eye: they do not wait, since
/// packets would.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(1));

/// Without a manager this does nothing; one that does not listen is not our fault.
fn send(states: &[NotifyState<'_>], patience: Option<Duration>) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let _ = send_to(&path, text.as_bytes(), patience);
}

/// A name that begins with `@` is no file (sd_notify(3), unix(7)).
fn send_to(path: &OsStr, text: &[u8], patience: Option<Duration>) -> io::Result<usize> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    match patience {
        Some(_) => socket.set_write_timeout(patience)?,
        None => socket.set_nonblocking(true)?,
    }
    socket.send_to_addr(text, &address)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// systemd reloads itself for seconds; a shell may have inherited the variable.
    #[test]
    fn a_manager_that_does_not_listen_holds_up_nobody() {
        let name = format!("knockd-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let path = format!("@{name}");
        let send = |text: &str, patience| send_to(path.as_ref(), text.as_bytes(), patience);
        // net.unix.max_dgram_qlen: 10 as the kernel comes, 512 with systemd.
        let full = (0..10_000).find_map(|i| send(&format!("WATCHDOG={i}\n"), None).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        let asked = Instant::now();
        let patience = Duration::from_millis(50);
        assert!(send("READY=1\n", Some(patience)).is_err());
        assert!(asked.elapsed() >= patience);
        let mut text = [0; 64];
        let length = manager.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"WATCHDOG=0\n");
        assert!(send("READY=1\n", PATIENCE).is_ok());
    }
}
