//! A packet socket without a ring. It is there at once, but takes a system call for each
//! packet and holds few.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, RxqOvfl};
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recv, recvmsg, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::error::CaptureError;
use super::filter::Program;
use super::socket::{self, SNAPLEN};
use crate::model::{Frame, LinkType, Timestamp};

/// The header of Linux cooked v2 (LINKTYPE_LINUX_SLL2 of tcpdump.org).
const HEADER: usize = 20;

/// Room for some 10,000 packets of the loopback's, fewer of a card's: the kernel takes twice
/// this, and counts them with all that it has around them.
const ROOM: usize = 4 << 20;

/// More than a bell holds.
const MOST: usize = 64;

/// A cooked packet socket on all interfaces, those included that come later. Passes nothing
/// until it has another program.
pub(super) struct Plain {
    socket: Socket,
    /// Room for what the kernel says beside a packet.
    beside: Vec<u8>,
    /// The kernel's count as of the last packet, which wraps.
    counted: u32,
    dropped: u64,
}

impl Plain {
    /// Opens the socket.
    pub(super) fn open() -> Result<Self, CaptureError> {
        let every = i32::from((nix::libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(every)));
        let mut plain = Self {
            socket: socket.map_err(refusal)?,
            beside: cmsg_space!(u32),
            counted: 0,
            dropped: 0,
        };
        // Without it losses are not told, which is no reason not to hear.
        let _ = setsockopt(&plain.socket, RxqOvfl, &1);
        plain
            .attach(&Program::nothing())
            .map_err(|source| CaptureError::Filter { source })?;
        // What had come in before may have had a VLAN's tag beside it, which is not shown.
        while plain.hush() {}
        plain.make_room(ROOM);
        Ok(plain)
    }

    /// The filter that the packets must pass from now on.
    pub(super) fn attach(&self, program: &Program) -> io::Result<()> {
        socket::attach(self, program)
    }

    /// Hands over at most `max` frames, as [`super::Live::read`] does.
    pub(super) fn read(
        &mut self,
        now: Timestamp,
        max: usize,
        mut each: impl FnMut(&Frame<'_>),
    ) -> Result<usize, CaptureError> {
        let mut taken = 0;
        let mut frame = [0; SNAPLEN as usize];
        while taken < max {
            let (header, packet) = frame.split_at_mut(HEADER);
            let room = packet.len();
            // MSG_TRUNC: the length is the packet's own (packet(7)).
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let mut into = [IoSliceMut::new(packet)];
            let control = Some(&mut self.beside[..]);
            let socket = self.socket.as_raw_fd();
            let message = match recvmsg::<LinkAddr>(socket, &mut into, control, flags) {
                Ok(message) => message,
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    return Err(CaptureError::Read {
                        reason: errno.to_string(),
                    });
                }
            };
            for said in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::RxqOvfl(dropped) = said {
                    self.dropped += u64::from(dropped.wrapping_sub(self.counted));
                    self.counted = dropped;
                }
            }
            let (length, from) = (message.bytes, message.address);
            taken += 1;
            // The kernel always says where from.
            let Some(from) = from else { continue };
            header.copy_from_slice(&cooked(&from));
            each(&Frame {
                at: now,
                link: LinkType::LinuxCooked2,
                wire_len: u32::try_from(HEADER + length).unwrap_or(u32::MAX),
                data: frame.get(..HEADER + length.min(room)).unwrap_or_default(),
            });
        }
        Ok(taken)
    }

    /// Throws away what has come in, or much of it; says whether there was anything.
    pub(super) fn hush(&mut self) -> bool {
        // In a flood they come as fast as they go.
        let socket = self.socket.as_raw_fd();
        let thrown =
            (0..MOST).take_while(|_| recv(socket, &mut [], MsgFlags::MSG_DONTWAIT).is_ok());
        thrown.count() > 0
    }

    /// How many packets found no room, as of the last that was read.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many bytes of packets it holds, within the kernel's limits.
    pub(super) fn make_room(&self, bytes: usize) {
        // Past net.core.rmem_max with CAP_NET_ADMIN only (socket(7)); less room is no fault.
        if setsockopt(&self.socket, RcvBufForce, &bytes).is_err() {
            let _ = self.socket.set_recv_buffer_size(bytes);
        }
    }
}

impl AsFd for Plain {
    /// Readable when there are frames.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What libpcap would write before the packet.
fn cooked(from: &LinkAddr) -> [u8; HEADER] {
    // The kernel has it in the network's order already.
    let [p0, p1] = from.protocol().to_ne_bytes();
    let index = u32::try_from(from.ifindex()).unwrap_or(0);
    let [i0, i1, i2, i3] = index.to_be_bytes();
    let [h0, h1] = from.hatype().to_be_bytes();
    let length = u8::try_from(from.halen()).unwrap_or(0);
    let [a0, a1, a2, a3, a4, a5] = from.addr().unwrap_or_default();
    [
        p0,
        p1,
        0,
        0,
        i0,
        i1,
        i2,
        i3,
        h0,
        h1,
        from.pkttype(),
        length,
        a0,
        a1,
        a2,
        a3,
        a4,
        a5,
        0,
        0,
    ]
}

fn refusal(error: io::Error) -> CaptureError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return CaptureError::Capability {
            capability: "CAP_NET_RAW",
        };
    }
    CaptureError::Start {
        reason: error.to_string(),
    }
}
