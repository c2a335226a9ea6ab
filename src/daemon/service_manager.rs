//! The messages to the service manager, systemd (sd_notify(3)). Its environment variables say where
//! it listens and how often it wants to be notified.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::model::Timestamp;

/// The service manager, if there is one. It may be busy for seconds (while it reloads itself), and
/// then has no room for messages: they wait, and the daemon does not.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    /// The name of the manager's socket.
    address: Option<OsString>,
    /// Our end. It is kept: when no more files may be open, the watchdog is fed all the same.
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    next_feed: Option<Timestamp>,
    status: String,
    /// Messages that the manager has had no room for, the oldest first, and whether each is a status.
    unsent: VecDeque<(String, bool)>,
    /// The time at which unsent messages are tried again.
    retry: Option<Timestamp>,
}

/// The time after which unsent messages are tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How many messages may wait. More come only from many reloads, of which the last counts.
const MOST: usize = 64;

impl ServiceManager {
    /// Reads the environment variables `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub(crate) fn from_env(now: Timestamp) -> Self {
        // The watchdog is fed at a third of its time: two feeds may come late before systemd takes us
        // for dead.
        let watchdog = sd_notify::watchdog_enabled().map(|d| d / 3);
        Self {
            address: std::env::var_os("NOTIFY_SOCKET"),
            socket: None,
            watchdog,
            next_feed: watchdog.map(|_| now),
            status: String::new(),
            unsent: VecDeque::new(),
            retry: None,
        }
    }

    /// READY=1: the guard stands and the capture is open.
    pub(crate) fn ready(&mut self, now: Timestamp) {
        let ready = [NotifyState::Ready, NotifyState::MainPid(std::process::id())];
        self.tell(&ready, now);
    }

    /// RELOADING=1, with the time that systemd wants beside it.
    pub(crate) fn reloading(&mut self, now: Timestamp) {
        if let Ok(stamp) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, stamp], now);
        }
    }

    /// STOPPING=1.
    pub(crate) fn stopping(&mut self, now: Timestamp) {
        self.tell(&[NotifyState::Stopping], now);
    }

    /// STATUS=…, if the text has changed.
    pub(crate) fn status(&mut self, text: String, now: Timestamp) {
        if text != self.status {
            // A new status replaces those that wait.
            self.unsent.retain(|(_, is_status)| !is_status);
            self.tell(&[NotifyState::Status(&text)], now);
            self.status = text;
        }
    }

    /// Sends the messages that wait, and then feeds the watchdog if it is time.
    pub(crate) fn feed(&mut self, now: Timestamp) {
        if self.retry.is_some_and(|at| at <= now) {
            self.send(now);
        }
        if let (Some(every), Some(at), None) = (self.watchdog, self.next_feed, self.retry)
            && now >= at
        {
            self.tell(&[NotifyState::Watchdog], now);
            self.next_feed = Some(now + every);
        }
    }

    /// Returns when something is next to be sent.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.retry.or(self.next_feed)
    }

    fn tell(&mut self, states: &[NotifyState<'_>], now: Timestamp) {
        let is_status = states.iter().any(|s| matches!(s, NotifyState::Status(_)));
        let text = states.iter().map(|state| format!("{state}\n")).collect();
        if self.unsent.len() >= MOST {
            self.unsent.pop_front();
        }
        self.unsent.push_back((text, is_status));
        self.send(now);
    }

    /// Sends the messages that wait, in order. Without a manager this does nothing. A manager that does
    /// not listen is no error.
    fn send(&mut self, now: Timestamp) {
        self.retry = None;
        let Some(address) = &self.address else {
            self.unsent.clear();
            return;
        };
        if self.socket.is_none() {
            self.socket = unbound().ok();
        }
        while let Some((text, _)) = self.unsent.front() {
            let sent = match &self.socket {
                Some(socket) => send_to(socket, address, text.as_bytes()),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry = Some(now + RETRY);
                    return;
                }
                Ok(_) | Err(_) => self.unsent.pop_front(),
            };
        }
    }
}

fn unbound() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A name that begins with `@` is no file (sd_notify(3), unix(7)).
fn send_to(socket: &UnixDatagram, path: &OsStr, text: &[u8]) -> io::Result<usize> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(text, &address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// systemd reloads itself for seconds; a shell may have inherited the variable.
    #[test]
    fn a_manager_that_does_not_listen_holds_up_nobody_and_is_told_later() {
        let name = format!("knockd-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let path = format!("@{name}");
        // net.unix.max_dgram_qlen: 10 as the kernel comes, 512 with systemd.
        let socket = unbound().unwrap();
        let send = |i| send_to(&socket, path.as_ref(), format!("{i}\n").as_bytes());
        let full = (0..10_000).find_map(|i| send(i).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        let start = Timestamp(1 << 40);
        let mut ours = ServiceManager {
            address: Some(path.clone().into()),
            socket: None,
            watchdog: Some(Duration::from_secs(1)),
            next_feed: Some(start),
            status: String::new(),
            unsent: VecDeque::new(),
            retry: None,
        };
        ours.reloading(start);
        ours.status("one".into(), start);
        ours.ready(start);
        ours.status("two".into(), start);
        ours.feed(start);
        let later = start + RETRY;
        assert_eq!(ours.next_deadline(), Some(later));
        // Still no room.
        ours.feed(later);
        assert_eq!(ours.next_deadline(), Some(later + RETRY));
        let received = || {
            let mut text = [0; 256];
            let mut all = Vec::new();
            while let Ok(length) = manager.recv(&mut text) {
                let text = String::from_utf8_lossy(&text[..length]).into_owned();
                all.push(text.lines().next().unwrap_or_default().to_owned());
            }
            all
        };
        received();
        ours.feed(later + RETRY);
        let told = ["RELOADING=1", "READY=1", "STATUS=two", "WATCHDOG=1"];
        assert_eq!(received(), told);
        assert_eq!(
            ours.next_deadline(),
            Some(later + RETRY + Duration::from_secs(1))
        );
        // The manager is gone: no message waits for it.
        drop(manager);
        ours.ready(later);
        assert_eq!(ours.unsent, []);
    }
}
