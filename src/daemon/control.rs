//! The control socket: how `knockd open`, `close`, `clear` and `status` reach the daemon,
//! which owns the table.
//!
//! One connection, one request, one reply, each a JSON text in one SOCK_SEQPACKET message.
//! Only root and the daemon's own user are heard (SO_PEERCRED, unix(7)). Nothing here waits
//! for a client: each has a second and a place among a few, and a bad one loses its own.

use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use super::status::Status;
use crate::model::Timestamp;

/// The longest request; a longer one is cut, and so is no JSON.
const LONGEST_REQUEST: usize = 4096;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most lines of an answer: what does not fit the send buffer (212,992 bytes as the
/// kernel comes) would not be sent at all. A line has at most some 350.
const LONGEST_REPLY: usize = 500;
/// The longest refusal, in bytes: likewise.
const LONGEST_REFUSAL: usize = 64 * 1024;
/// Clients at a time; one more and the oldest goes.
const CLIENTS: usize = 8;

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
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    /// Done; lines for the user.
    Done(Vec<String>),
    /// Not done, and why.
    Refused(String),
    /// What the daemon hears and has done.
    Status(Box<Status>),
}

impl Reply {
    /// As much of it as can be sent.
    fn cut(self) -> Self {
        match self {
            Self::Done(mut lines) if lines.len() > LONGEST_REPLY => {
                let more = lines.len() - LONGEST_REPLY;
                lines.truncate(LONGEST_REPLY);
                lines.push(format!("and {more} more, all of them in the log"));
                Self::Done(lines)
            }
            Self::Refused(mut why) => {
                why.truncate(why.floor_char_boundary(LONGEST_REFUSAL));
                Self::Refused(why)
            }
            Self::Done(_) | Self::Status(_) => self,
        }
    }
}

/// The socket, listening.
#[derive(Debug)]
pub(crate) struct Control {
    socket: Socket,
    path: PathBuf,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: Socket,
    until: Timestamp,
}

impl Control {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Another daemon listens there, or the socket cannot be made.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        if connect(path)?.is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(CLIENTS as i32)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            clients: Vec::new(),
        })
    }

    /// All that is to be polled for reading.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|c| c.socket.as_fd());
        std::iter::once(self.socket.as_fd()).chain(clients)
    }

    /// When the next client has used up its time.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.clients.iter().map(|c| c.until).min()
    }

    /// Takes in who has come and answers who has asked.
    pub(crate) fn serve(&mut self, now: Timestamp, mut answer: impl FnMut(Request) -> Reply) {
        self.accept(now);
        self.clients.retain_mut(|client| {
            let mut text = [0; LONGEST_REQUEST];
            match client.socket.read(&mut text) {
                Ok(0) => false,
                Ok(length) => {
                    let reply = match serde_json::from_slice(text.get(..length).unwrap_or(&[])) {
                        Ok(request) => answer(request).cut(),
                        Err(error) => Reply::Refused(format!("not understood: {error}")),
                    };
                    send(&client.socket, &reply);
                    false
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => now < client.until,
                Err(_) => false,
            }
        });
    }

    fn accept(&mut self, now: Timestamp) {
        while let Ok((socket, _)) = self.socket.accept() {
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            if !may_control(&socket) {
                send(
                    &socket,
                    &Reply::Refused("only root may control knockd".to_owned()),
                );
                continue;
            }
            if self.clients.len() == CLIENTS {
                self.clients.remove(0);
            }
            self.clients.push(Client {
                socket,
                until: now + PATIENCE,
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A client that does not read its answer has no claim to it.
fn send(socket: &Socket, reply: &Reply) {
    if let Ok(text) = serde_json::to_vec(reply) {
        let _ = socket.send(&text);
    }
}

fn may_control(socket: &Socket) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.uid() == 0 || peer.uid() == me)
}

/// A connection to whoever listens at `path`; `None` if nobody does.
fn connect(path: &Path) -> io::Result<Option<Socket>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Asks the daemon that listens at `path`; `None` if there is none.
///
/// # Errors
/// The daemon does not answer, or the socket is not for us.
pub(crate) fn ask(path: &Path, request: &Request) -> io::Result<Option<Reply>> {
    let Some(mut socket) = connect(path)? else {
        return Ok(None);
    };
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send(&serde_json::to_vec(request)?)?;
    let mut text = vec![0; 256 * 1024];
    let length = socket.read(&mut text)?;
    if length == 0 {
        return Err(io::Error::other("the daemon hung up without an answer"));
    }
    text.truncate(length);
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1);

    fn poll(control: &Control) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds: Vec<_> = control
            .fds()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        assert!(poll(&mut fds, PollTimeout::from(5000u16)).unwrap() > 0);
    }

    fn client(path: &Path) -> Socket {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
        socket
    }

    #[test]
    fn asks_and_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        assert!(ask(&path, &Request::Status).unwrap().is_none());
        let mut control = Control::listen(&path).unwrap();
        let asked = Request::Open {
            door: "ssh".into(),
            address: IpAddr::from([192, 0, 2, 7]),
            for_ms: Some(5),
        };
        let client = std::thread::spawn({
            let (path, asked) = (path.clone(), asked.clone());
            move || ask(&path, &asked)
        });
        let mut heard = Vec::new();
        while heard.is_empty() {
            poll(&control);
            control.serve(T0, |request| {
                heard.push(request);
                Reply::Done(vec!["so it is".into()])
            });
        }
        assert_eq!(heard, [asked]);
        let reply = client.join().unwrap().unwrap();
        assert_eq!(reply, Some(Reply::Done(vec!["so it is".into()])));
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn rubbish_is_refused_and_silence_runs_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let mut control = Control::listen(&path).unwrap();
        let (mut rude, silent) = (client(&path), client(&path));
        rude.send(&[0xff; 9000]).unwrap();
        control.serve(T0, |_| unreachable!("nothing sensible was asked"));
        control.serve(T0, |_| unreachable!("nothing sensible was asked"));
        let mut text = [0; 500];
        let length = rude.read(&mut text).unwrap();
        assert!(String::from_utf8_lossy(&text[..length]).contains("refused"));
        assert_eq!(control.next_deadline(), Some(T0 + PATIENCE));
        control.serve(T0 + PATIENCE, |_| unreachable!("nothing was asked"));
        assert_eq!(control.next_deadline(), None);
        drop(silent);
        let crowd: Vec<_> = (0..50).map(|_| connect_or_not(&path)).collect();
        for _ in 0..50 {
            control.serve(T0, |_| unreachable!("nothing was asked"));
        }
        assert!(control.fds().count() <= CLIENTS + 1);
        drop(crowd);
    }

    fn connect_or_not(path: &Path) -> Socket {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&SockAddr::unix(path).unwrap());
        socket
    }
}
