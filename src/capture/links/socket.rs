//! Route netlink: a socket that follows links and addresses, and lists of all there are.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::message::{RouteDump, RouteMessage, read};
use crate::netlink::{DUMP, NetlinkRequest, NetlinkSocket};

/// The multicast groups of links and of the addresses of each family.
const GROUPS: [u32; 3] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
];

/// Room for messages that wait: as much as the default of `net.core.rmem_max` allows.
const BACKLOG: usize = 212_992;

/// How often to ask anew when something changed during the answer.
const DUMPS: usize = 16;

/// Why interfaces and addresses cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot follow the interfaces and their addresses: {what}: {source}")]
pub struct LinksError {
    /// What was being done.
    what: &'static str,
    source: io::Error,
}

impl LinksError {
    fn new(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self {
            what,
            source: errno.into(),
        }
    }
}

/// What one look at the socket has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiveOutcome {
    /// A datagram; more may wait.
    Some,
    /// Nothing waits.
    Nothing,
    /// Messages were lost (ENOBUFS).
    Overflow,
}

/// A socket in the multicast groups.
pub(super) struct RouteSocket(NetlinkSocket);

impl RouteSocket {
    pub(super) fn open() -> Result<Self, LinksError> {
        let groups = GROUPS.iter().fold(0, |all, group| all | 1 << (group - 1));
        let socket = NetlinkSocket::open(SockProtocol::NetlinkRoute, groups)
            .map_err(LinksError::new("opening netlink"))?;
        // An overflow is dealt with all the same; refused, the default stays.
        let _ = socket.set_backlog(BACKLOG);
        Ok(Self(socket))
    }

    /// Takes one datagram and hands over the messages in it.
    pub(super) fn receive(
        &mut self,
        mut each: impl FnMut(RouteMessage),
    ) -> Result<ReceiveOutcome, LinksError> {
        match self.0.receive(|m| read(m).into_iter().for_each(&mut each)) {
            Ok(true) => Ok(ReceiveOutcome::Some),
            Ok(false) => Ok(ReceiveOutcome::Nothing),
            Err(Errno::ENOBUFS) => Ok(ReceiveOutcome::Overflow),
            Err(errno) => Err(LinksError::new("reading netlink")(errno)),
        }
    }

    /// Drops everything that waits.
    pub(super) fn discard(&mut self) -> Result<(), LinksError> {
        match self.0.drain(|_| ()) {
            Ok(()) | Err(Errno::ENOBUFS) => Ok(()),
            Err(errno) => Err(LinksError::new("reading netlink")(errno)),
        }
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lists all links and then all addresses there are.
pub(super) fn dump() -> Result<RouteDump, LinksError> {
    let failed = || LinksError::new("listing over netlink");
    // A socket of its own, so that answers and notifications do not mix.
    let mut socket = NetlinkSocket::open(SockProtocol::NetlinkRoute, 0).map_err(failed())?;
    let mut dump = RouteDump {
        messages: Vec::new(),
        is_whole: true,
    };
    for (kind, header) in [
        (libc::RTM_GETLINK, &[0; 16][..]),
        (libc::RTM_GETADDR, &[0; 8]),
    ] {
        let request = NetlinkRequest::new(kind, DUMP, header);
        let (messages, is_whole) = socket
            .query_up_to(DUMPS, &request, |m, all: &mut Vec<_>| all.extend(read(m)))
            .map_err(failed())?;
        dump.messages.extend(messages);
        dump.is_whole &= is_whole;
    }
    Ok(dump)
}
