//! The client `knock`: it sends one packet to each port of a sequence.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::model::{Protocol, Step};

/// What is to be hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A name or an address, as given.
    pub host: String,
    /// Which of its addresses will do.
    pub family: Family,
    /// The ports, in order.
    pub steps: Vec<Step>,
    /// The pause between one hit and the next.
    pub delay: Duration,
}

/// Which IP version to knock by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Whichever the resolver puts first (RFC 6724).
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Why a sequence was not sent, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resolver does not know the host, or cannot be asked.
    #[error("cannot find the address of `{host}`: {source}")]
    Resolve {
        /// As given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The host has no address of the family asked for.
    #[error("`{host}` has no {version} address")]
    Family {
        /// As given.
        host: String,
        /// `IPv4` or `IPv6`.
        version: &'static str,
    },
    /// This machine could not send the packet.
    #[error("cannot hit {protocol} {address}: {source}")]
    Send {
        /// The protocol.
        protocol: Protocol,
        /// The address and port.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Hits each step in order, all at one address: a name is looked up once, so that a host
/// with several cannot get the sequence in pieces. `before` is told of each hit.
///
/// # Errors
/// When the host has no such address, or this machine cannot send. What the other side
/// answers is no error: most often it is silence.
pub fn knock(
    request: &Request,
    mut before: impl FnMut(&SocketAddr, Protocol),
) -> Result<(), Error> {
    let Request {
        host,
        family,
        steps,
        delay,
    } = request;
    let mut address = resolve(host, *family)?;
    for (i, step) in steps.iter().enumerate() {
        if i > 0 {
            thread::sleep(*delay);
        }
        address.set_port(step.port.get());
        before(&address, step.protocol);
        hit(address, step.protocol).map_err(|source| Error::Send {
            protocol: step.protocol,
            address,
            source,
        })?;
    }
    Ok(())
}

/// The first address of the host that will do; its port is 0.
fn resolve(host: &str, family: Family) -> Result<SocketAddr, Error> {
    let version = match family {
        Family::Any | Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    (host, 0)
        .to_socket_addrs()
        .map_err(|source| Error::Resolve {
            host: host.to_owned(),
            source,
        })?
        .find(|address| family.admits(address))
        .ok_or_else(|| Error::Family {
            host: host.to_owned(),
            version,
        })
}

/// One packet. A fresh socket for each, so that each comes from a port of its own and no
/// answer to the last hit is taken for a failure of this one.
fn hit(address: SocketAddr, protocol: Protocol) -> io::Result<()> {
    let domain = Domain::for_address(address);
    match protocol {
        Protocol::Tcp => {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // connect(2) sends the SYN; closing the socket in SYN-SENT ends the attempt
            // without another packet: no retransmission, no FIN, no RST of our own.
            match socket.connect(&address.into()) {
                Err(error) if !is_sent(&error) => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        }
        Protocol::Udp => {
            let socket = Socket::new(domain, Type::DGRAM, None)?;
            socket.send_to(&[0], &address.into()).map(drop)
        }
    }
}

/// Whether a connect that failed has sent its SYN: it is under way, or already refused
/// (over the loopback the answer comes before the call returns).
fn is_sent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn request(host: &str, family: Family, steps: Vec<Step>) -> Request {
        Request {
            host: host.into(),
            family,
            steps,
            delay: Duration::ZERO,
        }
    }

    #[test]
    fn hits_what_listens_and_what_refuses() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let open = tcp.local_addr().expect("bound").port();
        let gone = {
            let closed = TcpListener::bind("127.0.0.1:0").expect("a listener");
            closed.local_addr().expect("bound").port()
        };
        let step = |protocol, port| Step::new(protocol, port).expect("a port");
        let steps = vec![
            step(Protocol::Tcp, gone),
            step(Protocol::Tcp, open),
            step(Protocol::Udp, udp.local_addr().expect("bound").port()),
        ];
        let mut told = Vec::new();
        knock(
            &request("127.0.0.1", Family::V4, steps.clone()),
            |address, protocol| told.push(step(protocol, address.port())),
        )
        .expect("the loopback");
        assert_eq!(told, steps);
        let mut datagram = [9; 2];
        let (length, _) = udp.recv_from(&mut datagram).expect("a datagram");
        assert_eq!((length, datagram), (1, [0, 9]));
        tcp.accept().expect("a connection");
    }

    #[test]
    fn a_host_without_the_family_is_named() {
        let error = knock(&request("127.0.0.1", Family::V6, vec![]), |_, _| {}).expect_err("v6");
        assert_eq!(error.to_string(), "`127.0.0.1` has no IPv6 address");
        let error = knock(&request("host.invalid", Family::Any, vec![]), |_, _| {});
        assert!(matches!(error, Err(Error::Resolve { .. })), "{error:?}");
    }
}
