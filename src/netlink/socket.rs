//! A netlink socket: requests and batches out, answers and notifications in. Nothing here waits:
//! when `send` returns, the kernel has done the work and queued the answer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    send, setsockopt, socket, sockopt,
};
use rustix::buffer::spare_capacity;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, recvfrom};

use super::message::{DONE, DUMP_INTERRUPTED, ERROR, Message, Messages};
use super::request::NetlinkRequest;

/// Room for one datagram: dumps come in parts of at most 32 KiB; an error repeats the refused
/// message.
const BUFFER: usize = 128 * 1024;

/// How often a request is sent if its answer is interrupted each time: without an end, somebody who
/// changes things without pause could keep us here for ever.
const TRIES: usize = 100;

/// The kernel's refusal of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetlinkRefusal {
    /// The number of the refused message; `None`: the whole batch.
    pub(crate) seq: Option<u32>,
    pub(crate) errno: Errno,
}

impl From<Errno> for NetlinkRefusal {
    fn from(errno: Errno) -> Self {
        Self { seq: None, errno }
    }
}

/// What the kernel has answered to a batch.
#[derive(Debug, Default)]
pub(super) struct BatchAnswer {
    acknowledged: bool,
    /// The first message that was refused: its number, and why.
    refused: Option<(u32, Errno)>,
}

impl BatchAnswer {
    pub(super) fn take(&mut self, m: &Message<'_>) {
        if m.kind != ERROR {
            return;
        }
        match m.errno() {
            Some(0) => self.acknowledged = true,
            errno => {
                let errno = errno.map_or(Errno::EPROTO, Errno::from_raw);
                if self.refused.is_none_or(|(seq, _)| m.seq < seq) {
                    self.refused = Some((m.seq, errno));
                }
            }
        }
    }

    /// Returns whether the batch was obeyed, once all that had come was read, or why not all was.
    pub(super) fn result(self, drained: Result<(), Errno>) -> Result<(), NetlinkRefusal> {
        // Where one message fails, all messages that build on it fail, too, and there may be more
        // answers than there is room for: the first failure is the one that counts.
        match (self.refused, drained) {
            (Some((seq, errno)), _) => Err(NetlinkRefusal {
                seq: Some(seq),
                errno,
            }),
            (None, Err(errno)) => Err(errno.into()),
            (None, Ok(())) if self.acknowledged => Ok(()),
            // The kernel always answers; if no answer came, nothing is known.
            (None, Ok(())) => Err(Errno::EPROTO.into()),
        }
    }
}

/// What the kernel has answered to a request for one thing or for a list.
#[derive(Debug)]
pub(super) struct QueryAnswer {
    seq: u32,
    is_whole: bool,
    /// The error number of the end.
    ended: Option<i32>,
}

impl QueryAnswer {
    pub(super) fn to(seq: u32) -> Self {
        Self {
            seq,
            is_whole: true,
            ended: None,
        }
    }

    /// Takes a message. Returns true if it is about what was asked for.
    pub(super) fn has(&mut self, m: &Message<'_>) -> bool {
        if m.seq != self.seq {
            return false;
        }
        self.is_whole &= m.flags & DUMP_INTERRUPTED == 0;
        match m.kind {
            DONE => self.ended = Some(m.errno().unwrap_or(0)),
            ERROR => self.ended = Some(m.errno().unwrap_or(Errno::EPROTO as i32)),
            _ => return true,
        }
        false
    }

    /// Returns `None` until the end has come; then true if nothing was left out.
    pub(super) fn result(&self) -> Option<Result<bool, Errno>> {
        self.ended.map(|errno| match errno {
            0 => Ok(self.is_whole),
            errno if errno == Errno::EINTR as i32 => Ok(false),
            errno => Err(Errno::from_raw(errno)),
        })
    }
}

/// A netlink socket, which is closed on exec: an owned nftables table is owned by a socket, and no
/// command that the daemon starts may hold on to that socket.
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    port: u32,
    /// The buffer is never zeroed: only those of its pages are resident that some answer has
    /// needed.
    buffer: Vec<u8>,
    seq: u32,
}

impl NetlinkSocket {
    /// Opens a socket that gets the notifications of these multicast groups, a bit for each group.
    pub(crate) fn open(protocol: SockProtocol, groups: u32) -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Self {
            fd,
            port,
            buffer: Vec::with_capacity(BUFFER),
            seq: 0,
        })
    }

    /// Returns our number on the netlink bus: changes that we cause bear it.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Asks for this much room, in bytes, for notifications that wait.
    pub(crate) fn set_backlog(&self, bytes: usize) -> Result<(), Errno> {
        setsockopt(&self.fd, sockopt::RcvBuf, &bytes)
    }

    /// Sends a batch in one write, and takes the answer.
    pub(crate) fn commit(&mut self, batch: &[u8]) -> Result<(), NetlinkRefusal> {
        match self.send(batch) {
            Ok(()) => {}
            Err(Errno::EMSGSIZE) => {
                // The batch is larger than the send buffer: many openings are copied. All of the
                // batch must go in one write, or it is not one transaction.
                let room = batch.len() * 2;
                // In a container's user namespace there is only as much room as the limit allows.
                if setsockopt(&self.fd, sockopt::SndBufForce, &room).is_err() {
                    setsockopt(&self.fd, sockopt::SndBuf, &room)?;
                }
                self.send(batch)?;
            }
            Err(errno) => return Err(errno.into()),
        }
        let mut answer = BatchAnswer::default();
        let drained = self.drain(|m| answer.take(m));
        answer.result(drained)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    /// Sends a request for one thing or for a list, and gives every message of the answer to
    /// `take`, with the result of `take` so far. If the dump was interrupted, asks again, with an
    /// empty result.
    pub(crate) fn query<T: Default>(
        &mut self,
        request: &NetlinkRequest,
        take: impl FnMut(&Message<'_>, &mut T),
    ) -> Result<T, Errno> {
        match self.query_up_to(TRIES, request, take)? {
            (found, true) => Ok(found),
            (_, false) => Err(Errno::EBUSY),
        }
    }

    /// Does the same, at most `tries` times. Returns the last result, and true if it is complete.
    pub(crate) fn query_up_to<T: Default>(
        &mut self,
        tries: usize,
        request: &NetlinkRequest,
        mut take: impl FnMut(&Message<'_>, &mut T),
    ) -> Result<(T, bool), Errno> {
        let mut found = T::default();
        for _ in 0..tries {
            found = T::default();
            if self.ask(request, |m| take(m, &mut found))? {
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }

    /// Asks once. Returns false if the dump was interrupted: some of the answer may be missing.
    fn ask(
        &mut self,
        request: &NetlinkRequest,
        mut take: impl FnMut(&Message<'_>),
    ) -> Result<bool, Errno> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.send(&request.numbered(seq))?;
        let mut answer = QueryAnswer::to(seq);
        loop {
            let mut any = false;
            self.drain(|m| {
                any = true;
                if answer.has(m) {
                    take(m);
                }
            })?;
            match answer.result() {
                Some(result) => return result,
                None if any => {}
                // The kernel always answers.
                None => return Err(Errno::EPROTO),
            }
        }
    }

    /// Gives every message that waits to `take`. `ENOBUFS` says that something was lost, and comes
    /// after everything that could be read has been read.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&Message<'_>)) -> Result<(), Errno> {
        let mut lost = Ok(());
        loop {
            match self.receive(&mut take) {
                Ok(true) => {}
                Ok(false) => return lost,
                Err(Errno::ENOBUFS) => lost = Err(Errno::ENOBUFS),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Gives the messages of one datagram to `take`. Returns false if none waits. `ENOBUFS` says
    /// that something was lost. Datagrams from elsewhere than the kernel are passed over.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(&Message<'_>)) -> Result<bool, Errno> {
        loop {
            self.buffer.clear();
            let room = spare_capacity(&mut self.buffer);
            let received = recvfrom(&self.fd, room, RecvFlags::DONTWAIT);
            match received.map_err(|error| Errno::from_raw(error.raw_os_error())) {
                Ok((_, _, sender)) => {
                    let sender = sender.and_then(|any| SocketAddrNetlink::try_from(any).ok());
                    if sender.is_some_and(|sender| sender.pid() == 0) {
                        Messages(&self.buffer).for_each(|message| take(&message));
                        return Ok(true);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
