//! Real packets from outside to a port of the copy.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::copy::Copy;
use super::error::ProbeError;
use crate::model::{PortRange, Protocol};

/// How long an answer may take: until one more packet is sent, and then until none is
/// expected any more. On the wire of a copy it takes some 0.1 ms; but a machine may be busy.
const PATIENCE: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];

/// One connection to be tried.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// Which door, of those of the configuration.
    pub(super) door: usize,
    /// What it opens; the first port is tried.
    pub(super) ports: PortRange,
    pub(super) source: IpAddr,
    pub(super) to: IpAddr,
}

impl Trial {
    fn target(&self) -> (Protocol, SocketAddr) {
        let to = SocketAddr::new(self.to, self.ports.first.get());
        (self.ports.protocol, to)
    }
}

/// The services behind the ports, in the copy.
#[derive(Debug)]
pub(super) struct Services {
    /// The kernel takes their connections by itself.
    _tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Services {
    pub(super) fn new(copy: &Copy<'_>, trials: &[Trial]) -> Result<Self, ProbeError> {
        let targets: std::collections::BTreeSet<_> = trials.iter().map(Trial::target).collect();
        copy.server.within(|| {
            let (mut tcp, mut udp) = (Vec::new(), Vec::new());
            for (protocol, at) in targets {
                match protocol {
                    Protocol::Tcp => tcp.push(TcpListener::bind(at)?),
                    Protocol::Udp => {
                        let socket = UdpSocket::bind(at)?;
                        socket.set_nonblocking(true)?;
                        udp.push(socket);
                    }
                }
            }
            Ok(Self { _tcp: tcp, udp })
        })
    }

    /// By place in `trials`, whether it came through and the answer came back.
    pub(super) fn pass(&self, copy: &Copy<'_>, trials: &[&Trial]) -> Result<Vec<bool>, ProbeError> {
        let mut passed = vec![false; trials.len()];
        for patience in PATIENCE {
            let missing: Vec<_> = trials
                .iter()
                .enumerate()
                .filter(|(i, _)| !passed.get(*i).copied().unwrap_or_default())
                .collect();
            let clients = copy.client.within(|| {
                let start = |(i, trial): &(usize, &&Trial)| Ok((*i, Client::start(trial)?));
                missing.iter().map(start).collect::<Result<_, ProbeError>>()
            })?;
            for i in self.watch(clients, patience)? {
                if let Some(passed) = passed.get_mut(i) {
                    *passed = true;
                }
            }
        }
        Ok(passed)
    }

    /// Waits for what becomes of them; gives the places of those that came through.
    fn watch(
        &self,
        clients: BTreeMap<usize, Client>,
        patience: Duration,
    ) -> Result<Vec<usize>, ProbeError> {
        let deadline = Instant::now() + patience;
        let mut waiting = clients;
        let mut passed = Vec::new();
        while !waiting.is_empty() {
            let services = self.udp.iter().map(|s| (s.as_fd(), PollFlags::POLLIN));
            let clients = waiting.values().map(Client::awaits);
            let mut polled: Vec<_> = services
                .chain(clients)
                .map(|(fd, flags)| PollFd::new(fd, flags))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut polled, timeout) {
                // The time is up.
                Ok(0) => break,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            let ready = polled.iter().map(|fd| fd.any().unwrap_or(false));
            let ready: Vec<bool> = ready.skip(self.udp.len()).collect();
            drop(polled);
            self.udp.iter().for_each(answer);
            let mut ready = ready.into_iter();
            waiting.retain(|i, client| {
                if !ready.next().unwrap_or(false) {
                    return true;
                }
                if client.came_through() {
                    passed.push(*i);
                }
                false
            });
        }
        Ok(passed)
    }
}

/// Says back what has come to a UDP service.
fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 16];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        // Whether it arrives is what the client finds out.
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
    }
}

/// One attempt, under way.
#[derive(Debug)]
enum Client {
    Tcp(Socket),
    Udp(UdpSocket),
}

impl Client {
    fn start(trial: &Trial) -> io::Result<Self> {
        let from = SocketAddr::new(trial.source, 0);
        let (protocol, to) = trial.target();
        match protocol {
            Protocol::Tcp => {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.bind(&from.into())?;
                // It is under way; what becomes of it is asked for later.
                let _ = socket.connect(&to.into());
                Ok(Self::Tcp(socket))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(from)?;
                socket.set_nonblocking(true)?;
                socket.connect(to)?;
                socket.send(b"knockd check")?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn awaits(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Tcp(socket) => (socket.as_fd(), PollFlags::POLLOUT),
            Self::Udp(socket) => (socket.as_fd(), PollFlags::POLLIN),
        }
    }

    /// Once there is news.
    fn came_through(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.peer_addr().is_ok(),
            Self::Udp(socket) => socket.recv(&mut [0; 16]).is_ok(),
        }
    }
}
