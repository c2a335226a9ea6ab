//! The control socket: how `knockd open`, `close`, `clear`, `reload` and `status` reach the daemon,
//! which owns the table.
//!
//! One connection, one request, one reply. The request is a JSON text in one SOCK_SEQPACKET
//! message; the reply is one too, in as many messages as it takes, and ends where the connection
//! does. Only root and the daemon's own user are obeyed (SO_PEERCRED, unix(7)). Nothing here waits
//! for a client: each has a second and a place among a few, and a bad one loses its own. A client
//! that has the configuration read again is answered when that is done.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, SockAddr, Socket, Type};

use super::message::{AddressedOrder, Reply};
use crate::daemon::state::lock::{Lock, LockError};
use crate::model::Timestamp;

/// The longest request; a longer one is cut, and so is no JSON. It holds the names of a file,
/// each of PATH_MAX bytes, each of which may take four.
const LONGEST_REQUEST: usize = 64 * 1024;
/// How long a client may take to send its order, and to read each part of the reply.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a client that has a reload done waits for it: less than [`client`](super::client) does,
/// so that it learns why.
const PATIENCE_FOR_A_RELOAD: Duration = Duration::from_secs(50);
/// The longest message of a reply: some of them fit a send buffer (212,992 bytes as the kernel
/// comes).
pub(crate) const LONGEST_PART: usize = 16 * 1024;
/// How long no client is taken after none could be: until then the one that waits would be heard of
/// without end.
const REST: Duration = Duration::from_secs(1);
/// How many clients there may be at a time. One more takes the place of the oldest.
const CLIENTS: usize = 8;

/// The socket, listening.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    socket: Socket,
    path: PathBuf,
    /// Held as long as the socket is: between a look at an old socket and its removal another daemon
    /// could make its own.
    lock: Option<Lock>,
    clients: Vec<ControlClient>,
    /// If no client could be taken: the time at which that is tried again.
    rest: Option<Timestamp>,
}

#[derive(Debug)]
struct ControlClient {
    socket: Socket,
    /// The time by which the client must have got further.
    until: Timestamp,
    state: ClientState,
}

#[derive(Debug)]
enum ClientState {
    /// The client has not sent its order yet.
    Asking,
    /// The client waits for the end of the reload of this number. If that takes too long, it gets the
    /// reply `late`.
    Waiting { reload: u64, late: Reply },
    /// The client reads its reply.
    Replying(PendingReply),
}

#[derive(Debug)]
struct PendingReply {
    text: Vec<u8>,
    sent: usize,
}

/// When an order is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// At once.
    Now(Reply),
    /// When the reload of this number is done: see [`ControlSocket::reloaded`].
    AfterReload {
        /// The number of the reload.
        reload: u64,
        /// The reply if the reload takes longer than the client waits.
        late: Reply,
    },
}

impl ControlSocket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Another daemon listens there, or the socket cannot be made.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let lock = Lock::take(&path.with_extension("sock.lock")).map_err(|error| match error {
            LockError::Held { .. } => io::ErrorKind::AddrInUse.into(),
            LockError::Write { source, .. } => source,
        })?;
        match listen(path) {
            Ok(socket) => Ok(Self {
                socket,
                path: path.to_owned(),
                lock: Some(lock),
                clients: Vec::new(),
                rest: None,
            }),
            Err(error) => {
                lock.remove();
                Err(error)
            }
        }
    }

    /// Returns all descriptors to be polled, each with the events to poll it for.
    pub(crate) fn polled(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| {
            let wanted = match client.state {
                ClientState::Asking => PollFlags::POLLIN,
                // Nothing is asked for: poll reports a client that hangs up in any case.
                ClientState::Waiting { .. } => PollFlags::empty(),
                ClientState::Replying(_) => PollFlags::POLLOUT,
            };
            (client.socket.as_fd(), wanted)
        });
        let listening = (self.socket.as_fd(), PollFlags::POLLIN);
        let listening = self.rest.is_none().then_some(listening);
        listening.into_iter().chain(clients)
    }

    /// Returns when the next client has used up its time, or clients are taken again.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let times = self.clients.iter().map(|c| c.until);
        times.chain(self.rest).min()
    }

    /// Takes in new clients, and answers clients that have sent an order.
    pub(crate) fn serve(
        &mut self,
        now: Timestamp,
        mut answer: impl FnMut(AddressedOrder) -> Answer,
    ) {
        self.accept(now);
        self.clients.retain_mut(|client| {
            let reply = match &client.state {
                ClientState::Asking => match receive(&client.socket) {
                    Ok(Some(order)) => match answer(order) {
                        Answer::Now(reply) => reply,
                        Answer::AfterReload { reload, late } => {
                            client.state = ClientState::Waiting { reload, late };
                            client.until = now + PATIENCE_FOR_A_RELOAD;
                            return true;
                        }
                    },
                    Ok(None) => return false,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return now < client.until;
                    }
                    Err(error) => Reply::Refused(format!("not understood: {error}")),
                },
                ClientState::Waiting { .. } if has_gone(&client.socket) => return false,
                ClientState::Waiting { .. } if now < client.until => return true,
                ClientState::Waiting { late, .. } => late.clone(),
                ClientState::Replying(_) => return client.go_on(now),
            };
            client.reply(reply, now)
        });
    }

    /// Answers the clients that wait for the reload of this number.
    pub(crate) fn reloaded(&mut self, number: u64, reply: &Reply, now: Timestamp) {
        self.clients.retain_mut(|client| match client.state {
            ClientState::Waiting { reload, .. } if reload <= number => {
                client.reply(reply.clone(), now)
            }
            ClientState::Asking | ClientState::Waiting { .. } | ClientState::Replying(_) => true,
        });
    }

    fn accept(&mut self, now: Timestamp) {
        if self.rest.is_some_and(|at| at > now) {
            return;
        }
        let was_faulty = self.rest.take().is_some();
        loop {
            let socket = match again(|| self.socket.accept()) {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // Mostly no more files may be open. The client waits, and so does poll.
                Err(error) => {
                    self.rest = Some(now + REST);
                    if !was_faulty {
                        tracing::error!(
                            "{}: no client can be taken: {error}: knockd status, open and the like \
                             wait until one can",
                            self.path.display()
                        );
                    }
                    return;
                }
            };
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = ControlClient {
                socket,
                until: now + PATIENCE,
                state: ClientState::Asking,
            };
            if !may_control(&client.socket) {
                let why = "only root may control knockd".to_owned();
                client.reply(Reply::Refused(why), now);
                continue;
            }
            if self.clients.len() == CLIENTS {
                self.clients.remove(0);
            }
            self.clients.push(client);
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }
}

impl ControlClient {
    /// Begins to send the reply; returns whether there is more to send.
    fn reply(&mut self, reply: Reply, now: Timestamp) -> bool {
        self.until = now + PATIENCE;
        self.state = ClientState::Replying(PendingReply {
            // Without a text there is nothing to send, and the client is hung up on.
            text: serde_json::to_vec(&reply.cut()).unwrap_or_default(),
            sent: 0,
        });
        self.go_on(now)
    }

    /// Sends as much of the reply as is taken; returns whether there is more. A client that does
    /// not read its reply has no claim to it.
    fn go_on(&mut self, now: Timestamp) -> bool {
        let ClientState::Replying(reply) = &mut self.state else {
            return true;
        };
        let rest = reply.text.get(reply.sent..).unwrap_or(&[]);
        for part in rest.chunks(LONGEST_PART) {
            match again(|| self.socket.send(part)) {
                Ok(_) => {
                    reply.sent += part.len();
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

/// Makes the socket anew. Nobody listens at one that a dead daemon has left.
fn listen(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    // A daemon that listens without the lock (an older knockd) is alive if it can be connected to, or
    // has more clients than it can take.
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

/// Returns whether a connection failed since nobody listens.
pub(crate) fn is_nobody(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound || kind == io::ErrorKind::ConnectionRefused
}

/// Receives an order; `None` if the client has hung up.
fn receive(mut socket: &Socket) -> io::Result<Option<AddressedOrder>> {
    let mut text = vec![0; LONGEST_REQUEST];
    let length = again(|| socket.read(&mut text))?;
    text.truncate(length);
    if text.is_empty() {
        return Ok(None);
    }
    // The client did not wait: perhaps this daemon was stopped for a while. The client has reported that
    // its order was not obeyed, and its user has perhaps done something else.
    if has_gone(socket) {
        return Ok(None);
    }
    read(&text).map(Some).map_err(io::Error::other)
}

/// Reads the bytes of a request.
pub(super) fn read(text: &[u8]) -> serde_json::Result<AddressedOrder> {
    if let Ok(order) = serde_json::from_slice(text) {
        return Ok(order);
    }
    // An older client names no file: its order is for the daemon that listens.
    let of = Vec::new();
    serde_json::from_slice(text).map(|ask| AddressedOrder { of, ask })
}

/// Makes a call again for as long as a signal interrupts it.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Returns whether the other end is closed.
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
