//! The control socket: how `knockd open`, `close`, `clear`, `reload` and `status` reach the daemon,
//! which owns the table.
//!
//! One connection, one request, one reply. The request is a JSON text in one SOCK_SEQPACKET
//! message; the reply is one too, in as many messages as it takes, and ends where the connection
//! does. Only root and the daemon's own user are heard (SO_PEERCRED, unix(7)). Nothing here waits
//! for a client: each has a second and a place among a few, and a bad one loses its own.

use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use super::status::Status;
use crate::daemon::state::dir;
use crate::daemon::state::lock::{Lock, PidFileError};
use crate::model::Timestamp;

/// The longest request; a longer one is cut, and so is no JSON. It holds the names of a file,
/// each of PATH_MAX bytes, each of which may take four.
const LONGEST_REQUEST: usize = 64 * 1024;
/// How long a client may take to say what it wants, and to take in each part of the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most lines of an answer: nobody reads more, and all of them are in the log.
const LONGEST_REPLY: usize = 500;
/// The longest message of an answer: some of them fit a send buffer (212,992 bytes as the kernel
/// comes).
pub(crate) const LONGEST_PART: usize = 16 * 1024;
/// Clients at a time; one more and the oldest goes.
const CLIENTS: usize = 8;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// The names of the file whose daemon is meant, see [`names`]; none: whoever listens.
    pub(crate) of: Vec<String>,
    /// What is asked of it.
    pub(crate) ask: Request,
}

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// What the daemon hears and has done.
    Status,
    /// Do what the door does, for an address.
    Open {
        /// The door's name.
        door: String,
        /// For whom.
        address: IpAddr,
        /// For how long, in milliseconds, in place of the door's own time.
        for_ms: Option<u64>,
    },
    /// End openings.
    Close {
        /// Whose; nobody's in particular is everybody's.
        address: Option<IpAddr>,
    },
    /// Remove the table; the daemon stays.
    Clear,
    /// Reread the configuration.
    Reload,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    /// Done; lines for the user.
    Done(Vec<String>),
    /// Not done, and why.
    Refused(String),
    /// Not done, since the configuration has faults: all of them.
    Faulty(Vec<String>),
    /// Not done, since another file's daemon was meant: the one that this one runs with.
    Elsewhere(String),
    /// What the daemon hears and has done.
    Status(Box<Status>),
}

impl Reply {
    /// As much of it as somebody reads.
    fn cut(self) -> Self {
        match self {
            Self::Done(mut lines) if lines.len() > LONGEST_REPLY => {
                let more = lines.len() - LONGEST_REPLY;
                lines.truncate(LONGEST_REPLY);
                lines.push(format!("and {more} more, all of them in the log"));
                Self::Done(lines)
            }
            Self::Done(_)
            | Self::Refused(_)
            | Self::Faulty(_)
            | Self::Elsewhere(_)
            | Self::Status(_) => self,
        }
    }
}

/// The names by which a file is known to be the same: as it was named, and where that leads.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let resolved = path.canonicalize().ok();
    // Escaped, since a name need not be UTF-8.
    let mut names: Vec<_> = std::iter::once(absolute)
        .chain(resolved)
        .map(|path| dir::escape(path.as_os_str().as_encoded_bytes()))
        .collect();
    names.dedup();
    names
}

/// The socket, listening.
#[derive(Debug)]
pub(crate) struct Control {
    socket: Socket,
    path: PathBuf,
    /// Held for as long as the socket is ours: between a look at it and its removal another daemon
    /// could make its own.
    lock: Option<Lock>,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: Socket,
    until: Timestamp,
    /// What is left of the answer; `None`: it has not asked yet.
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    text: Vec<u8>,
    sent: usize,
}

impl Control {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Another daemon listens there, or the socket cannot be made.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let lock = Lock::take(&path.with_extension("sock.lock")).map_err(|error| match error {
            PidFileError::Held { .. } => io::ErrorKind::AddrInUse.into(),
            PidFileError::Write { source, .. } => source,
        })?;
        match listen(path) {
            Ok(socket) => Ok(Self {
                socket,
                path: path.to_owned(),
                lock: Some(lock),
                clients: Vec::new(),
            }),
            Err(error) => {
                lock.remove();
                Err(error)
            }
        }
    }

    /// All that is to be polled, and for what.
    pub(crate) fn polled(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| {
            let wanted = match client.answer {
                None => PollFlags::POLLIN,
                Some(_) => PollFlags::POLLOUT,
            };
            (client.socket.as_fd(), wanted)
        });
        std::iter::once((self.socket.as_fd(), PollFlags::POLLIN)).chain(clients)
    }

    /// When the next client has used up its time.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.clients.iter().map(|c| c.until).min()
    }

    /// Takes in who has come and answers who has asked.
    pub(crate) fn serve(&mut self, now: Timestamp, mut answer: impl FnMut(Order) -> Reply) {
        self.accept(now);
        self.clients.retain_mut(|client| {
            if client.answer.is_none() {
                match hear(&client.socket) {
                    Ok(Some(order)) => client.answer = Some(Answer::new(answer(order).cut())),
                    Ok(None) => return false,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return now < client.until;
                    }
                    Err(error) => {
                        let why = format!("not understood: {error}");
                        client.answer = Some(Answer::new(Reply::Refused(why)));
                    }
                }
            }
            client.go_on(now)
        });
    }

    fn accept(&mut self, now: Timestamp) {
        while let Ok((socket, _)) = self.socket.accept() {
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client {
                socket,
                until: now + PATIENCE,
                answer: None,
            };
            if !may_control(&client.socket) {
                let why = "only root may control knockd".to_owned();
                client.answer = Some(Answer::new(Reply::Refused(why)));
                client.go_on(now);
                continue;
            }
            if self.clients.len() == CLIENTS {
                self.clients.remove(0);
            }
            self.clients.push(client);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }
}

impl Answer {
    fn new(reply: Reply) -> Self {
        Self {
            // Without a text there is nothing to be sent, and who has asked is hung up on.
            text: serde_json::to_vec(&reply).unwrap_or_default(),
            sent: 0,
        }
    }
}

impl Client {
    /// Sends as much of the answer as is taken; whether there is more. A client that does not read
    /// its answer has no claim to it.
    fn go_on(&mut self, now: Timestamp) -> bool {
        let Some(answer) = &mut self.answer else {
            return true;
        };
        let rest = answer.text.get(answer.sent..).unwrap_or(&[]);
        for part in rest.chunks(LONGEST_PART) {
            match self.socket.send(part) {
                Ok(_) => {
                    answer.sent += part.len();
                    self.until = now + PATIENCE;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return now < self.until;
                }
                Err(_) => return false,
            }
        }
        false
    }
}

/// The socket, made anew. Where one is left of a daemon that died, nobody listens at it.
fn listen(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    // Whoever listens without the lock (an older knockd) is alive if it can be connected to, or has
    // more clients than it can take.
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Err(error) if is_nobody(&error) => {}
        Err(error) => return Err(error),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(CLIENTS as i32)?;
    Ok(socket)
}

/// Whether nobody listens where a connection failed so.
pub(crate) fn is_nobody(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound || kind == io::ErrorKind::ConnectionRefused
}

/// What a client wants; `None` if it has hung up.
fn hear(mut socket: &Socket) -> io::Result<Option<Order>> {
    let mut text = vec![0; LONGEST_REQUEST];
    let length = socket.read(&mut text)?;
    text.truncate(length);
    if text.is_empty() {
        return Ok(None);
    }
    // It was not waited for, as with a daemon that was stopped: who asked was told that nothing
    // came of it, and has perhaps done something else.
    if has_gone(socket) {
        return Ok(None);
    }
    if let Ok(order) = serde_json::from_slice(&text) {
        return Ok(Some(order));
    }
    // Of whoever listens.
    let ask = serde_json::from_slice(&text).map_err(io::Error::other)?;
    let of = Vec::new();
    Ok(Some(Order { of, ask }))
}

/// Whether nobody is at the other end any more.
fn has_gone(socket: &Socket) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let asked = poll(&mut polled, PollTimeout::ZERO);
    let [end] = polled;
    let gone = |events: PollFlags| events.contains(PollFlags::POLLHUP);
    asked.is_ok() && end.revents().is_some_and(gone)
}

fn may_control(socket: &Socket) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.uid() == 0 || peer.uid() == me)
}

#[cfg(test)]
mod tests;
