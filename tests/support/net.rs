//! Connections and listeners on a host of the laboratory.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Namespace, SOON};

/// How an attempt to connect ended.
#[derive(Debug)]
#[must_use]
pub(crate) enum Reach {
    /// It stands.
    Connected(TcpStream),
    /// Somebody said no (a TCP reset, or ICMP).
    Refused,
    /// Nobody answered.
    TimedOut,
}

impl Reach {
    /// The connection; panics if there is none.
    #[track_caller]
    pub(crate) fn expect_connected(self) -> TcpStream {
        match self {
            Self::Connected(stream) => stream,
            Self::Refused | Self::TimedOut => panic!("not connected: {self:?}"),
        }
    }

    /// Panics unless there was no answer at all.
    #[track_caller]
    pub(crate) fn expect_silence(self) {
        assert!(matches!(self, Self::TimedOut), "not silent: {self:?}");
    }

    /// Panics unless it was refused.
    #[track_caller]
    pub(crate) fn expect_refused(self) {
        assert!(matches!(self, Self::Refused), "not refused: {self:?}");
    }
}

impl Namespace {
    /// A TCP connection from an address of this host's, given up after `patience`.
    pub(crate) fn connect(&self, from: IpAddr, to: (IpAddr, u16), patience: Duration) -> Reach {
        let to = SocketAddr::from(to);
        let socket = self.socket(Domain::for_address(to), Type::STREAM, 0);
        let from = SocketAddr::from((from, 0));
        socket.bind(&from.into()).expect("an address of this host");
        connect(socket, to, patience)
    }

    /// The same from whichever address the kernel chooses.
    pub(crate) fn connect_from_any(&self, to: (IpAddr, u16), patience: Duration) -> Reach {
        let to = SocketAddr::from(to);
        let socket = self.socket(Domain::for_address(to), Type::STREAM, 0);
        connect(socket, to, patience)
    }

    /// A listener on this host.
    pub(crate) fn listen(&self, at: IpAddr, port: u16) -> TcpListener {
        let at = SocketAddr::from((at, port));
        let socket = self.socket(Domain::for_address(at), Type::STREAM, 0);
        socket.set_reuse_address(true).expect("a socket");
        socket.bind(&at.into()).expect("a free port");
        socket.listen(128).expect("a bound socket");
        socket.into()
    }

    /// A UDP socket on this host; reading from it gives up [`SOON`].
    pub(crate) fn udp(&self, at: IpAddr, port: u16) -> UdpSocket {
        let at = SocketAddr::from((at, port));
        let socket = self.socket(Domain::for_address(at), Type::DGRAM, 0);
        socket.bind(&at.into()).expect("a free port");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        socket.into()
    }

    /// A service that says everything back, on all addresses of both families.
    pub(crate) fn echo(&self, port: u16) -> Echo {
        let socket = self.socket(Domain::IPV6, Type::STREAM, 0);
        socket.set_only_v6(false).expect("a socket");
        socket.set_reuse_address(true).expect("a socket");
        let all = SocketAddr::from(([0u16; 8], port));
        socket.bind(&all.into()).expect("a free port");
        socket.listen(128).expect("a bound socket");
        Echo::start(socket)
    }
}

/// A running echo service; it ends when dropped, its connections when the client's end.
pub(crate) struct Echo {
    socket: Socket,
    accepting: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(socket: Socket) -> Self {
        let listener = TcpListener::from(socket.try_clone().expect("a descriptor"));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    // A connection that breaks is the client's business.
                    let _ = io::copy(&mut &stream, &mut &stream);
                });
            }
        });
        Self {
            socket,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // shutdown(2) wakes an accept(2), though no manual promises it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// Whether an established connection to [`Namespace::echo`] still carries bytes both ways.
pub(crate) fn is_alive(mut stream: &TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream.write_all(b"alive").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"alive"
}

fn connect(socket: Socket, to: SocketAddr, patience: Duration) -> Reach {
    match socket.connect_timeout(&to.into(), patience) {
        Ok(()) => Reach::Connected(socket.into()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Reach::TimedOut,
        Err(_) => Reach::Refused,
    }
}
