//! The ring: libpcap's handle on every interface.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use pcap::{Active, Capture, Linktype};

use super::error::{CaptureError, reason};
use super::filter::Program;
use super::socket::{self, SNAPLEN};
use crate::model::{Frame, LinkType, Timestamp};

/// Linux cooked v2, which names the interface; libpcap has it since 1.10.
const LINUX_SLL2: Linktype = Linktype(276);

/// 7,280 frames of this snaplen: at 50,000 packets a second, 145 ms in which we may be
/// kept from reading. All of it is resident from the start.
const SIZE: i32 = 2 << 20;

/// More frames than the ring holds.
const MOST: usize = 1 << 16;

/// A capture of all interfaces, those included that come later. Reading costs no system
/// call a frame, and a flood has room in it. Passes nothing until it has another program.
pub(super) struct Ring {
    capture: Capture<Active>,
    /// The total as of the last reading, which wraps.
    counted: u32,
    dropped: u64,
}

impl Ring {
    /// Opens the ring. This takes one or two grace periods of the kernel's RCU, 5 to 24 ms
    /// in which nothing is computed, and seconds on a busy machine: `packet_set_ring()` of
    /// net/packet/af_packet.c waits for it, with no socket bound yet to wait for.
    pub(super) fn open() -> Result<Self, CaptureError> {
        let start = |error| CaptureError::Start {
            reason: reason(error),
        };
        let mut capture = Capture::from_device("any")
            .map_err(start)?
            .immediate_mode(true)
            .snaplen(SNAPLEN)
            .buffer_size(SIZE)
            .open()
            .map_err(start)?;
        capture.set_datalink(LINUX_SLL2).map_err(start)?;
        let mut ring = Self {
            capture: capture.setnonblock().map_err(start)?,
            counted: 0,
            dropped: 0,
        };
        // What came in before a filter was there may have had a VLAN's tag beside it,
        // which a cooked frame does not show: such packets are given again.
        ring.attach(&Program::nothing())
            .map_err(|source| CaptureError::Filter { source })?;
        while ring.read(Timestamp(0), MOST, |_| ())? > 0 {}
        Ok(ring)
    }

    pub(super) fn attach(&self, program: &Program) -> io::Result<()> {
        socket::attach(self, program)
    }

    /// Hands over at most `max` frames, all as of `now`; returns how many there were. Never
    /// waits. Costs no system call while there are frames.
    pub(super) fn read(
        &mut self,
        now: Timestamp,
        max: usize,
        mut each: impl FnMut(&Frame<'_>),
    ) -> Result<usize, CaptureError> {
        let hand_over = |packet: pcap::Packet<'_>| {
            each(&Frame {
                at: now,
                link: LinkType::LinuxCooked2,
                wire_len: packet.header.len,
                data: packet.data,
            });
        };
        self.capture
            .dispatch(Some(max.min(MOST)), hand_over)
            .map_err(|error| CaptureError::Read {
                reason: reason(error),
            })
    }

    /// How many packets that the filter passed found no room, since the start.
    pub(super) fn dropped(&mut self) -> Result<u64, CaptureError> {
        let stat = self.capture.stats().map_err(|error| CaptureError::Read {
            reason: reason(error),
        })?;
        // The kernel resets its counter at each reading; libpcap adds them up.
        self.dropped += u64::from(stat.dropped.wrapping_sub(self.counted));
        self.counted = stat.dropped;
        Ok(self.dropped)
    }
}

impl AsFd for Ring {
    /// Readable when there are frames.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }
}
