//! Trials: real packets from outside to a port of the replica.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::error::ProbeError;
use super::replica::Replica;
use crate::model::{PortRange, Protocol};

/// How long an answer may take: to the first attempt, and then to the second and last. On the wire
/// of a replica it takes some 0.1 ms, but a machine may be busy.
const PATIENCE: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];

/// How often a trial sends its words and gets them back. A chain may accept the first packet for
/// its mark, and drop the packets that follow without one.
const ROUNDS: usize = 2;

/// The words that a trial sends.
const WORDS: &[u8] = b"knockd check";

/// A connection to be tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Trial {
    /// The index of the door among those of the configuration.
    pub(super) door: usize,
    /// The range that the door opens.
    pub(super) ports: PortRange,
    /// The port of that range that is tried.
    pub(super) port: NonZeroU16,
    pub(super) source: IpAddr,
    pub(super) to: IpAddr,
}

impl Trial {
    fn target(&self) -> (Protocol, SocketAddr) {
        let to = SocketAddr::new(self.to, self.port.get());
        (self.ports.protocol, to)
    }
}

/// The services behind the ports, in the replica: they send back all that they get.
#[derive(Debug)]
pub(super) struct Services {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    /// The services that cannot be had, each with the reason: mostly the replica lacks the address.
    lacking: BTreeMap<(Protocol, SocketAddr), String>,
}

impl Services {
    pub(super) fn new(replica: &Replica<'_>, trials: &[Trial]) -> Result<Self, ProbeError> {
        let targets: BTreeSet<_> = trials.iter().map(Trial::target).collect();
        replica.server.within(|| {
            let mut services = Self {
                tcp: Vec::new(),
                udp: Vec::new(),
                lacking: BTreeMap::new(),
            };
            for target in targets {
                if let Err(error) = services.add(target) {
                    services.lacking.insert(target, error.to_string());
                }
            }
            Ok(services)
        })
    }

    fn add(&mut self, (protocol, at): (Protocol, SocketAddr)) -> io::Result<()> {
        match protocol {
            Protocol::Tcp => {
                let socket = TcpListener::bind(at)?;
                socket.set_nonblocking(true)?;
                self.tcp.push(socket);
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at)?;
                socket.set_nonblocking(true)?;
                self.udp.push(socket);
            }
        }
        Ok(())
    }

    /// Returns why the replica has no service for a trial, if it has none.
    pub(super) fn lack(&self, trial: &Trial) -> Option<&str> {
        self.lacking.get(&trial.target()).map(String::as_str)
    }

    /// Returns the trials that come through and get all their answers.
    pub(super) fn passing<'t>(
        &self,
        replica: &Replica<'_>,
        trials: &[&'t Trial],
    ) -> Result<BTreeSet<&'t Trial>, ProbeError> {
        let mut passed = BTreeSet::new();
        for patience in PATIENCE {
            let clients = replica.client.within(|| {
                let mut clients = BTreeMap::new();
                for trial in trials.iter().filter(|trial| !passed.contains(**trial)) {
                    if let Some(client) = TrialClient::start(trial)? {
                        clients.insert(*trial, client);
                    }
                }
                Ok(clients)
            })?;
            passed.extend(self.watch(clients, patience)?);
        }
        Ok(passed)
    }

    /// Waits for the clients to end, for as long as `patience`. Returns the trials that came
    /// through.
    fn watch<'t>(
        &self,
        clients: BTreeMap<&'t Trial, TrialClient>,
        patience: Duration,
    ) -> Result<Vec<&'t Trial>, ProbeError> {
        let deadline = Instant::now() + patience;
        let mut waiting = clients;
        let mut guests = Vec::new();
        let mut passed = Vec::new();
        while !waiting.is_empty() {
            let listeners = self.tcp.iter().map(AsFd::as_fd);
            let services = listeners.chain(self.udp.iter().map(AsFd::as_fd));
            let guests_fd = guests.iter().map(AsFd::as_fd);
            let incoming = services.chain(guests_fd).map(|fd| (fd, PollFlags::POLLIN));
            let mut polled: Vec<_> = incoming
                .chain(waiting.values().map(TrialClient::awaits))
                .map(|(fd, flags)| PollFd::new(fd, flags))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut polled, timeout) {
                // The time is up.
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            drop(polled);
            self.serve(&mut guests);
            waiting.retain(|trial, client| match client.go_on() {
                Progress::Waits => true,
                Progress::Through => {
                    passed.push(*trial);
                    false
                }
                Progress::Refused => false,
            });
        }
        Ok(passed)
    }

    /// Accepts connections, and sends back all that comes in. The client finds out whether it arrives.
    fn serve(&self, guests: &mut Vec<TcpStream>) {
        for listener in &self.tcp {
            while let Ok((guest, _)) = listener.accept() {
                if guest.set_nonblocking(true).is_ok() {
                    guests.push(guest);
                }
            }
        }
        let mut buffer = [0; 64];
        guests.retain_mut(|guest| {
            match guest.read(&mut buffer) {
                // The client has closed it.
                Ok(0) => return false,
                Ok(n) => {
                    let _ = guest.write(buffer.get(..n).unwrap_or_default());
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            true
        });
        for socket in &self.udp {
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(buffer.get(..n).unwrap_or_default(), from);
            }
        }
    }
}

/// The progress of a client's connection.
enum Progress {
    Waits,
    Through,
    Refused,
}

/// The client of a trial. Its socket is connected, or about to be.
#[derive(Debug)]
struct TrialClient {
    socket: Socket,
    /// How often the client has sent its words; 0 as long as there is no connection.
    said: usize,
}

impl TrialClient {
    /// Begins to connect; returns `None` if the connection is refused at once.
    fn start(trial: &Trial) -> io::Result<Option<Self>> {
        let from = SocketAddr::new(trial.source, 0);
        let (protocol, to) = trial.target();
        let kind = match protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
        };
        let socket = Socket::new(Domain::for_address(to), kind, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&from.into())?;
        let under_way = match socket.connect(&to.into()) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(Errno::EINPROGRESS as i32),
        };
        Ok(under_way.then_some(Self { socket, said: 0 }))
    }

    fn awaits(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = match self.said {
            0 => PollFlags::POLLOUT,
            _ => PollFlags::POLLIN,
        };
        (self.socket.as_fd(), flags)
    }

    /// Continues the trial as far as that is possible without waiting.
    fn go_on(&mut self) -> Progress {
        if self.said == 0 {
            return match self.socket.take_error() {
                Ok(None) if self.socket.peer_addr().is_err() => Progress::Waits,
                Ok(None) => self.speak(),
                Ok(Some(_)) | Err(_) => Progress::Refused,
            };
        }
        match (&self.socket).read(&mut [0; 64]) {
            Ok(n) if n == WORDS.len() && self.said == ROUNDS => Progress::Through,
            Ok(n) if n == WORDS.len() => self.speak(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Waits,
            Ok(_) | Err(_) => Progress::Refused,
        }
    }

    fn speak(&mut self) -> Progress {
        self.said += 1;
        match self.socket.send(WORDS) {
            Ok(_) => Progress::Waits,
            Err(_) => Progress::Refused,
        }
    }
}
