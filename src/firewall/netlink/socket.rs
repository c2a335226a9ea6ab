//! One netlink socket: batches out, answers and dumps in. Nothing here waits: when `send`
//! returns, the kernel has done the work and queued the answer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    send, setsockopt, socket, sockopt,
};
use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, recv};

use super::batch::Batch;
use super::wire::{DONE, DUMP_INTERRUPTED, ERROR, Message, Messages, Request};

/// One datagram: dumps come in parts of at most 32 KiB; an error repeats what failed.
const BUFFER: usize = 128 * 1024;

/// The netlink group of nftables' notifications, `NFNLGRP_NFTABLES` (7).
const NFTABLES_GROUP: u32 = 1 << 6;

/// Why the kernel would not have a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) struct Refusal {
    /// Which message of the batch, from 0; `None`: the whole.
    pub(in crate::firewall) index: Option<usize>,
    /// Why.
    pub(in crate::firewall) errno: Errno,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { index: None, errno }
    }
}

/// The socket. Closed on exec: a table that is owned is owned by this socket, and no
/// command that the daemon starts may hold on to it.
pub(in crate::firewall) struct Socket {
    fd: OwnedFd,
    /// Our number on the netlink bus: what we cause bears it.
    port: u32,
    /// Room for one datagram. Never filled with zeros: of its pages only those are resident
    /// that some answer has needed.
    buffer: Vec<u8>,
    seq: u32,
}

impl Socket {
    /// A socket for requests.
    pub(in crate::firewall) fn open() -> Result<Self, Refusal> {
        Self::bound(0)
    }

    /// A socket that hears of every change to nftables.
    pub(in crate::firewall) fn listening() -> Result<Self, Refusal> {
        Self::bound(NFTABLES_GROUP)
    }

    fn bound(groups: u32) -> Result<Self, Refusal> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
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

    /// Sends a batch, in one write, and takes the answer.
    pub(in crate::firewall) fn commit(&mut self, batch: &mut Batch) -> Result<(), Refusal> {
        let bytes = batch.finish();
        if bytes.is_empty() {
            return Ok(());
        }
        match self.send(bytes) {
            Ok(()) => {}
            Err(Errno::EMSGSIZE) => {
                // Larger than the send buffer: many openings are copied. All of it must go
                // in one write, or it is not one transaction.
                let room = bytes.len() * 2;
                // In a container's user namespace there is only what the limit allows.
                if setsockopt(&self.fd, sockopt::SndBufForce, &room).is_err() {
                    setsockopt(&self.fd, sockopt::SndBuf, &room)?;
                }
                self.send(bytes)?;
            }
            Err(errno) => return Err(errno.into()),
        }
        let mut acknowledged = false;
        let mut refused: Option<(u32, Errno)> = None;
        let drained = self.drain(|m| {
            if m.kind == ERROR {
                match m.errno() {
                    Some(0) => acknowledged = true,
                    errno => {
                        let errno = Errno::from_raw(errno.unwrap_or(0));
                        if refused.is_none_or(|(seq, _)| m.seq < seq) {
                            refused = Some((m.seq, errno));
                        }
                    }
                }
            }
        });
        // Where one message fails all that build on it do, and there may be more answers
        // than there is room for: the first is the one that counts.
        match (refused, drained) {
            (Some((seq, errno)), _) => Err(Refusal {
                index: batch.index(seq),
                errno,
            }),
            (None, Err(errno)) => Err(errno.into()),
            (None, Ok(())) if acknowledged => Ok(()),
            // The kernel always answers; if not, nothing is known.
            (None, Ok(())) => Err(Errno::EPROTO.into()),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(|_| ())
    }

    /// Asks for one thing or for a list, and gives every message of the answer to `take`,
    /// with what it has found so far. An interrupted dump is asked for again, from nothing.
    pub(super) fn query<T: Default>(
        &mut self,
        request: &Request,
        mut take: impl FnMut(&Message<'_>, &mut T),
    ) -> Result<T, Refusal> {
        // Somebody who changes the ruleset without pause could keep us here for ever.
        for _ in 0..100 {
            self.seq = self.seq.wrapping_add(1);
            let seq = self.seq;
            self.send(&request.clone().finish(seq))?;
            let mut found = T::default();
            let mut interrupted = false;
            let mut failed = None;
            let mut done = false;
            while !done {
                let mut any = false;
                self.drain(|m| {
                    any = true;
                    if m.seq != seq {
                        return;
                    }
                    interrupted |= m.flags & DUMP_INTERRUPTED != 0;
                    match m.kind {
                        DONE => done = true,
                        ERROR => {
                            done = true;
                            failed = m.errno().filter(|e| *e != 0);
                        }
                        _ => take(m, &mut found),
                    }
                })?;
                if !any && !done {
                    return Err(Errno::EPROTO.into());
                }
            }
            match failed.map(Errno::from_raw) {
                Some(Errno::EINTR) => {}
                Some(errno) => return Err(errno.into()),
                None if interrupted => {}
                None => return Ok(found),
            }
        }
        Err(Errno::EBUSY.into())
    }

    /// Gives every message that waits to `take`. `ENOBUFS` comes after all that could be
    /// read has been read: something was lost.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&Message<'_>)) -> Result<(), Errno> {
        let mut lost = Ok(());
        loop {
            self.buffer.clear();
            let room = spare_capacity(&mut self.buffer);
            let received = recv(&self.fd, room, RecvFlags::DONTWAIT);
            match received.map_err(|error| Errno::from_raw(error.raw_os_error())) {
                Ok((0, _)) | Err(Errno::EAGAIN) => return lost,
                Ok(_) => {
                    for message in Messages(&self.buffer) {
                        take(&message);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => lost = Err(Errno::ENOBUFS),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Our number on the netlink bus: what we cause bears it.
    pub(in crate::firewall) fn port(&self) -> u32 {
        self.port
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
