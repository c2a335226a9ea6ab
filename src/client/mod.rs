//! The client `knock`: it sends one packet to each port of a sequence.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::model::{Protocol, Step};

/// A sequence to be sent to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnockRequest {
    /// A name or an address, as given.
    pub host: String,
    /// The family of the addresses that are hit.
    pub family: AddressFamily,
    /// The ports, in order.
    pub steps: Vec<Step>,
    /// The pause between one hit and the next.
    pub delay: Duration,
}

/// The IP version to knock by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFamily {
    /// Both.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
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
        /// The host as given.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// The host has no address of the family asked for.
    #[error("`{host}` has no {version} address")]
    NoAddress {
        /// The host as given.
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
        /// The kernel's error.
        source: io::Error,
    },
}

/// The progress of a knock.
#[derive(Debug)]
pub enum KnockProgress<'a> {
    /// This address and port is hit now.
    Hit(&'a SocketAddr, Protocol),
    /// Nothing can be sent to one of several addresses: it gets no further packets.
    Passed(&'a Error),
}

/// Hits each step in order, and with each step every address of the host: nobody knows which of them
/// will answer before the door is open. A name is looked up once, so that no address gets the sequence
/// in pieces.
///
/// # Errors
/// When the host has no such address, or this machine can send to none of them. An answer of the other
/// side is no error; most often it is silent.
pub fn knock(request: &KnockRequest, told: impl FnMut(KnockProgress<'_>)) -> Result<(), Error> {
    let KnockRequest {
        host,
        family,
        steps,
        delay,
    } = request;
    hit_all(resolve(host, *family)?, steps, *delay, told)
}

fn hit_all(
    mut addresses: Vec<SocketAddr>,
    steps: &[Step],
    delay: Duration,
    mut told: impl FnMut(KnockProgress<'_>),
) -> Result<(), Error> {
    for (i, step) in steps.iter().enumerate() {
        if i > 0 {
            thread::sleep(delay);
        }
        let mut failed = Vec::new();
        addresses.retain_mut(|address| {
            address.set_port(step.port.get());
            told(KnockProgress::Hit(address, step.protocol));
            let sent = hit(*address, step.protocol);
            let is_sent = sent.is_ok();
            failed.extend(sent.err().map(|source| Error::Send {
                protocol: step.protocol,
                address: *address,
                source,
            }));
            is_sent
        });
        // The failure of the last address is returned, not reported.
        let error = failed.pop_if(|_| addresses.is_empty());
        failed
            .iter()
            .for_each(|error| told(KnockProgress::Passed(error)));
        if let Some(error) = error {
            return Err(error);
        }
    }
    Ok(())
}

/// Returns the addresses of the host in this family, in the resolver's order (RFC 6724), with port 0.
fn resolve(host: &str, family: AddressFamily) -> Result<Vec<SocketAddr>, Error> {
    let version = match family {
        AddressFamily::Any | AddressFamily::V4 => "IPv4",
        AddressFamily::V6 => "IPv6",
    };
    let found = (without_brackets(host), 0)
        .to_socket_addrs()
        .map_err(|source| Error::Resolve {
            host: host.to_owned(),
            source,
        })?;
    let mut addresses = Vec::new();
    for address in found.filter(|address| family.admits(address)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(Error::NoAddress {
            host: host.to_owned(),
            version,
        });
    }
    Ok(addresses)
}

/// Returns the address in brackets, as URLs have it (RFC 3986, 3.2.2): `[2001:db8::1]`. Returns any
/// other host as it is.
fn without_brackets(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_v6 = |text: &&str| {
        let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
        address.parse::<Ipv6Addr>().is_ok()
    };
    inner.filter(is_v6).unwrap_or(host)
}

/// Returns an address as knock 0.8 prints it: no brackets, and with the name of the interface if the
/// address has a meaning on one interface alone (RFC 4007, 11).
#[must_use]
pub fn numeric(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(six) if six.scope_id() != 0 => {
            let scope = six.scope_id();
            let name = interface(scope).unwrap_or_else(|| scope.to_string());
            format!("{}%{name}", six.ip())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.ip().to_string(),
    }
}

/// Returns the name of an interface that has an IPv6 address: without one, nothing is sent there.
/// (proc_net(5) is of this network namespace; sysfs may be of another.)
fn interface(index: u32) -> Option<String> {
    let all = fs::read_to_string("/proc/net/if_inet6").ok()?;
    all.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let found = u32::from_str_radix(words.next()?, 16) == Ok(index);
        words.last().filter(|_| found).map(str::to_owned)
    })
}

/// Sends one packet. Each has a fresh socket: so each comes from a port of its own, and no answer to
/// the last hit is taken for a failure of this one.
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

    fn request(host: &str, family: AddressFamily, steps: Vec<Step>) -> KnockRequest {
        KnockRequest {
            host: host.into(),
            family,
            steps,
            delay: Duration::ZERO,
        }
    }

    #[test]
    fn the_client_hits_what_listens_and_what_refuses() {
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
            &request("127.0.0.1", AddressFamily::V4, steps.clone()),
            |news| match news {
                KnockProgress::Hit(address, protocol) => told.push(step(protocol, address.port())),
                KnockProgress::Passed(error) => panic!("{error}"),
            },
        )
        .expect("the loopback");
        assert_eq!(told, steps);
        let mut datagram = [9; 2];
        let (length, _) = udp.recv_from(&mut datagram).expect("a datagram");
        assert_eq!((length, datagram), (1, [0, 9]));
        tcp.accept().expect("a connection");
    }

    /// A link-local address that is nobody's fails here (no such interface) and is passed over.
    #[test]
    fn an_address_that_cannot_be_sent_to_spares_the_others() {
        let steps: Vec<_> = [7, 9]
            .map(|port| Step::new(Protocol::Udp, port).expect("a port"))
            .into();
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = udp.local_addr().expect("bound").port();
        let last = Step::new(Protocol::Udp, port).expect("a port");
        let addresses =
            ["[fe80::1%4294967]:0", "127.0.0.1:0"].map(|text| text.parse().expect("an address"));
        let (mut hits, mut passed) = (Vec::new(), 0);
        let steps = [&steps[..], &[last]].concat();
        hit_all(
            addresses.into(),
            &steps,
            Duration::ZERO,
            |news| match news {
                KnockProgress::Hit(address, _) => hits.push((address.is_ipv4(), address.port())),
                KnockProgress::Passed(_) => passed += 1,
            },
        )
        .expect("one of them can be sent to");
        assert_eq!(passed, 1);
        assert_eq!(hits, [(false, 7), (true, 7), (true, 9), (true, port)]);
        udp.recv(&mut [0; 2]).expect("the last hit");
        let mut passed = 0;
        let none = hit_all(vec![addresses[0]; 2], &steps, Duration::ZERO, |news| {
            passed += i32::from(matches!(news, KnockProgress::Passed(_)));
        });
        assert!(matches!(none, Err(Error::Send { .. })), "{none:?}");
        assert_eq!(passed, 1);
    }

    #[test]
    fn addresses_are_read_in_brackets_and_written_with_their_interface() {
        for (host, meant) in [
            ("[2001:db8::1]", "2001:db8::1"),
            ("[fe80::1%lo]", "fe80::1%lo"),
            ("2001:db8::1", "2001:db8::1"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[name]", "[name]"),
        ] {
            assert_eq!(without_brackets(host), meant);
        }
        let shown = |text: &str| numeric(&text.parse().expect("an address"));
        assert_eq!(shown("192.0.2.1:7"), "192.0.2.1");
        assert_eq!(shown("[2001:db8::1]:7"), "2001:db8::1");
        // The loopback is the first interface of every namespace.
        assert_eq!(shown("[fe80::1%1]:7"), "fe80::1%lo");
        assert_eq!(shown("[fe80::1%4294967]:7"), "fe80::1%4294967");
    }

    #[test]
    fn a_host_without_the_family_is_named() {
        let error =
            knock(&request("127.0.0.1", AddressFamily::V6, vec![]), |_| {}).expect_err("v6");
        assert_eq!(error.to_string(), "`127.0.0.1` has no IPv6 address");
        let error = knock(&request("host.invalid", AddressFamily::Any, vec![]), |_| {});
        assert!(matches!(error, Err(Error::Resolve { .. })), "{error:?}");
    }
}
