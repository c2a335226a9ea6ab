//! The daemon's end of the socket pair to its listener.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::MsgFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::message::{
    self, AGAIN, CONFINE, KnocksHead, LEAVE_FREE, ListenerMessage, ListenerReport,
};
use crate::capture::{CaptureError, Program, SocketFilter};
use crate::model::{Config, Knock, Timestamp};
use crate::sandbox::{Call, Confinement};

/// The listener, and the knocks that it has sent last.
pub(crate) struct Listener {
    socket: OwnedFd,
    filter: SocketFilter,
    /// What the listener is told once it has opened its capture: [`CONFINE`] or [`LEAVE_FREE`].
    word: u8,
    confinement: Confinement,
    buffer: Box<[u8]>,
    knocks: Vec<Knock>,
    /// Packets that found no room in the rings of listeners that have died.
    dropped_before: u64,
    /// Packets that found no room since the start.
    dropped: u64,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// It cannot open the capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// It and its warden are dead.
    #[error("the processes that listen for knocks are gone: knockd ends, and the guard stands")]
    Gone,
    /// The daemon has no descriptor free for the packet socket of a new listener.
    #[error("no file can be opened for the packets of a new listener (RLIMIT_NOFILE)")]
    NoDescriptor,
    /// The kernel refuses what the daemon needs to hear it.
    #[error("cannot hear the listener: {0}")]
    Socket(std::io::Error),
}

/// What the listener has sent.
pub(crate) enum Heard<'a> {
    /// Nothing, or nothing that can be read.
    Nothing,
    /// Knocks.
    Knocks {
        /// How many frames they were in, those included that are no knocks.
        frames: usize,
        /// True if the packets were read as they came, false if they gathered.
        were_rare: bool,
        /// The knocks.
        knocks: &'a [Knock],
    },
    /// Something else.
    Report(ListenerReport),
}

impl Listener {
    /// Waits until the listener has opened its capture and given up its rights, unless it is to keep
    /// them. It hears nothing before [`set_filter`](Self::set_filter).
    ///
    /// # Errors
    ///
    /// [`ListenerError::Capture`] if it cannot open the capture; [`ListenerError::Gone`] if it has died.
    pub(crate) fn open(socket: OwnedFd, is_confined: bool) -> Result<Self, ListenerError> {
        let mut buffer = vec![0; message::LONGEST].into_boxed_slice();
        let mut word = if is_confined { CONFINE } else { LEAVE_FREE };
        let mut filter = None;
        loop {
            let (length, packets) = receive(&socket, &mut buffer, RecvFlags::empty())?;
            if let Some(packets) = packets {
                filter = Some(SocketFilter::new(packets));
                say(&socket, word);
            }
            match message::read(buffer.get(..length).unwrap_or_default()) {
                Some(ListenerMessage::Report(ListenerReport::Confined(confinement))) => {
                    if let Some(filter) = filter.take() {
                        return Ok(Self {
                            socket,
                            filter,
                            word,
                            confinement,
                            buffer,
                            knocks: Vec::with_capacity(message::BATCH),
                            dropped_before: 0,
                            dropped: 0,
                        });
                    }
                }
                Some(ListenerMessage::Report(ListenerReport::Failed(is_capability, reason))) => {
                    return Err(capture_error(is_capability, reason).into());
                }
                Some(ListenerMessage::Report(ListenerReport::Opened(_))) if filter.is_none() => {
                    return Err(ListenerError::NoDescriptor);
                }
                // Before the first packet this is no intruder, but a C library that does what it did not
                // do before. Without a listener nobody gets in.
                Some(ListenerMessage::Report(ListenerReport::Refused(call))) => {
                    word = LEAVE_FREE;
                    tracing::error!(
                        "the kernel refused the listener system call {} before the first packet: it \
                         keeps all of its system calls; report it",
                        Call(call)
                    );
                }
                // A listener that dies at once is replaced: the next one may live.
                Some(ListenerMessage::Report(ListenerReport::Opened(_)))
                | Some(ListenerMessage::Knocks(..))
                | None => {}
            }
        }
    }

    /// Lets the packets pass that a configuration is for: see [`SocketFilter::set_filter`].
    pub(crate) fn set_filter(&mut self, config: &Config) -> Result<(), CaptureError> {
        self.filter.set_filter(&config.doors, &config.ignore)?;
        if !Program::keeps_to_ports(&config.doors) {
            tracing::warn!(
                "every packet of every TCP session is read: doors whose TCP flags fit them have \
                 too many steps; let SYNs alone count there (syn,!ack)"
            );
        }
        Ok(())
    }

    /// See [`SocketFilter::set_hosts`].
    pub(crate) fn set_hosts(&mut self, own: Vec<IpAddr>) -> Result<(), CaptureError> {
        self.filter.set_hosts(own)
    }

    /// Reads what the listener has sent last, as of `now`: a message, so at most
    /// [`BATCH`](message::BATCH) frames. Never waits.
    ///
    /// # Errors
    ///
    /// [`ListenerError::Gone`] if no listener will come any more. [`ListenerError::Capture`] if the
    /// kernel refuses the filter of a new listener: it is tried again at the next change of the filter.
    /// [`ListenerError::NoDescriptor`]: the listener tries again.
    pub(crate) fn read(&mut self, now: Timestamp) -> Result<Heard<'_>, ListenerError> {
        let received = receive(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT)?;
        let (length, packets) = received;
        let bytes = self.buffer.get(..length).unwrap_or_default();
        match message::read(bytes) {
            None => Ok(Heard::Nothing),
            Some(ListenerMessage::Knocks(head, records)) => {
                let KnocksHead {
                    were_rare,
                    frames,
                    dropped,
                } = head;
                self.dropped = self.dropped_before.saturating_add(dropped);
                self.knocks.clear();
                self.knocks.extend(records.knocks(now));
                Ok(Heard::Knocks {
                    frames,
                    were_rare,
                    knocks: &self.knocks,
                })
            }
            Some(ListenerMessage::Report(report)) => {
                if let ListenerReport::Confined(confinement) = &report {
                    self.confinement = confinement.clone();
                }
                if let ListenerReport::Opened(_) = &report {
                    let Some(packets) = packets else {
                        // The socket of the one that has died takes up a descriptor.
                        self.filter.release();
                        say(&self.socket, AGAIN);
                        return Err(ListenerError::NoDescriptor);
                    };
                    self.dropped_before = self.dropped;
                    say(&self.socket, self.word);
                    self.filter.move_to(packets)?;
                }
                Ok(Heard::Report(report))
            }
        }
    }

    /// Returns how many packets that passed the filter found no room in the ring since the start, as
    /// far as the listener has said.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns what the listener cannot do.
    pub(crate) fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Returns a descriptor that is readable when the listener has sent something.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn capture_error(is_capability: bool, reason: String) -> CaptureError {
    match is_capability {
        true => CaptureError::Capability {
            capability: "CAP_NET_RAW",
        },
        false => CaptureError::Start { reason },
    }
}

/// Tells a listener its word. If it has died, the next one is told its own.
fn say(socket: &OwnedFd, word: u8) {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = nix::sys::socket::send(socket.as_raw_fd(), &[word], flags);
}

/// Takes a message, and the descriptor that came with it. The length is 0 if there is none.
fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Option<OwnedFd>), ListenerError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let length = match recvmsg(socket, &mut parts, &mut control, flags) {
        // No message of a listener's is empty: both are dead.
        Ok(received) if received.bytes == 0 => return Err(ListenerError::Gone),
        Ok(received) => received.bytes,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(Errno::CONNRESET) => return Err(ListenerError::Gone),
        Err(errno) => return Err(ListenerError::Socket(errno.into())),
    };
    let mut packets = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            packets = descriptors.next();
        }
    }
    Ok((length, packets))
}
