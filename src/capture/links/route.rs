//! Route netlink sockets: one that listens, and one for each time that all is asked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

use super::LinksError;
use super::news::{News, read, split};

/// The multicast groups of links and of the addresses of each family.
const GROUPS: [u32; 3] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
];

/// The kernel fills 32 KiB at most; a notice of one link takes some 1,500 bytes.
const BUFFER: usize = 64 << 10;

/// As much as the default of `net.core.rmem_max` allows: more news that may wait.
const BACKLOG: usize = 212_992;

/// How often to ask anew when something changed during the answer.
const DUMPS: usize = 16;

/// What came of listening once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something; there may be more.
    Some,
    /// Nothing is waiting.
    Nothing,
    /// News was lost (ENOBUFS).
    Overflow,
}

/// A socket in the multicast groups.
pub(super) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    pub(super) fn open() -> Result<Self, LinksError> {
        let failed = |what| move |source| LinksError { what, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("opening netlink"))?;
        socket.bind_auto().map_err(failed("binding netlink"))?;
        for group in GROUPS {
            socket
                .add_membership(group)
                .map_err(failed("joining the netlink groups"))?;
        }
        socket
            .set_non_blocking(true)
            .map_err(failed("opening netlink"))?;
        // An overflow is dealt with all the same; refused, the default stays.
        let _ = socket.set_rx_buf_sz(BACKLOG);
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Takes one datagram in and hands over what is in it.
    pub(super) fn hear(&mut self, each: impl FnMut(News)) -> Result<Heard, LinksError> {
        match receive(&self.socket, &mut self.buffer) {
            Ok(()) => {
                split(&self.buffer)
                    .filter_map(|message| read(&message))
                    .for_each(each);
                Ok(Heard::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Heard::Overflow),
            Err(source) => Err(LinksError {
                what: "reading netlink",
                source,
            }),
        }
    }

    /// Lets everything that waits go by unheard.
    pub(super) fn discard(&mut self) -> Result<(), LinksError> {
        while self.hear(|_| ())? != Heard::Nothing {}
        Ok(())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One datagram of the kernel's into the buffer; one of anybody else's is left out.
fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(BUFFER);
        match socket.recv_from(buffer, 0) {
            Ok((_, sender)) if sender.port_number() == 0 => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What there is, as of one moment; or, where something changed each time while it was
/// being told, as much of it as was.
pub(super) struct Dump {
    /// All links and then all addresses.
    pub(super) news: Vec<News>,
    /// Whether nothing is missing.
    pub(super) is_whole: bool,
}

/// All links and then all addresses there are.
pub(super) fn dump() -> Result<Dump, LinksError> {
    let failed = |source| LinksError {
        what: "listing over netlink",
        source,
    };
    // A socket of its own, so that answers and news do not mix.
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
    socket.bind_auto().map_err(failed)?;
    let (mut news, mut is_whole) = (Vec::new(), true);
    for (kind, header) in [(libc::RTM_GETLINK, 16), (libc::RTM_GETADDR, 8)] {
        let before = news.len();
        let mut is_told = false;
        for _ in 0..DUMPS {
            news.truncate(before);
            is_told = list(&socket, kind, header, &mut news).map_err(failed)?;
            if is_told {
                break;
            }
        }
        is_whole &= is_told;
    }
    Ok(Dump { news, is_whole })
}

/// Asks for all of one kind. False if something changed meanwhile, so that some may be
/// missing.
fn list(socket: &Socket, kind: u16, header: usize, news: &mut Vec<News>) -> io::Result<bool> {
    let mut request = vec![0; 16 + header];
    let length = u32::try_from(request.len()).unwrap_or(0);
    let mut message = NetlinkBuffer::new(&mut request);
    message.set_length(length);
    message.set_message_type(kind);
    message.set_flags((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::new();
    let mut is_whole = true;
    loop {
        receive(socket, &mut buffer)?;
        let mut ended = None;
        for message in split(&buffer) {
            is_whole &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
            match i32::from(message.kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => ended = Some(message.errno()),
                _ => news.extend(read(&message)),
            }
        }
        match ended {
            Some(0) => return Ok(is_whole),
            Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            None => {}
        }
    }
}
