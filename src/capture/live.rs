//! Packets as they come in, by one handle on every interface.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pcap::{Active, Capture, Linktype};
use socket2::{Domain, Socket, Type};

use super::error::{CaptureError, reason};
use super::filter::Program;
use super::socket_filter::attach;
use crate::model::{Frame, LinkType, Timestamp};

/// Linux cooked v2, which names the interface; libpcap has it since 1.10.
const LINUX_SLL2: Linktype = Linktype(276);

/// Room for 20 bytes of cooked header, 40 of IPv6, 20 of TCP, and 112 of extension headers.
const SNAPLEN: i32 = 192;

/// Bytes of the ring: 10,920 frames of this snaplen, a burst of 10 ms at a million packets a
/// second. All of it is resident from the start.
const RING: i32 = 3 << 20;

/// More frames than the ring holds.
const MOST: usize = 1 << 16;

/// A capture of all interfaces, those included that come later. Nothing is read before a
/// [`SocketFilter`](super::SocketFilter) lets packets pass.
pub struct LiveCapture {
    capture: Capture<Active>,
    /// The kernel's count of dropped packets as of the last reading; it wraps.
    counted: u32,
    dropped: u64,
}

impl LiveCapture {
    /// Opens the capture. This takes one or two grace periods of the kernel's RCU, 5 to 20 ms of
    /// mere waiting: `packet_set_ring()` of net/packet/af_packet.c waits for them, though no socket
    /// is bound yet for which that would be needed.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Capability`] if CAP_NET_RAW is missing; [`CaptureError::Start`] if
    /// the kernel or libpcap cannot.
    pub fn open() -> Result<Self, CaptureError> {
        let start = |error| CaptureError::Start {
            reason: reason(error),
        };
        let mut capture = Capture::from_device("any")
            .map_err(start)?
            .immediate_mode(true)
            .snaplen(SNAPLEN)
            .buffer_size(RING)
            .open()
            .map_err(refusal)?;
        capture.set_datalink(LINUX_SLL2).map_err(start)?;
        let mut live = Self {
            capture: capture.setnonblock().map_err(start)?,
            counted: 0,
            dropped: 0,
        };
        // Drop what came in before the filter was there. Such a packet may have had a VLAN's tag,
        // which a cooked frame does not show: the VLAN's own device gives it once more.
        attach(live.as_fd(), &Program::nothing())?;
        while live.read(Timestamp(0), MOST, |_| ())? > 0 {}
        Ok(live)
    }

    /// Returns another descriptor of the packet socket. Whoever holds it can set the filter:
    /// [`SocketFilter::new`](super::SocketFilter::new).
    ///
    /// # Errors
    ///
    /// If no more files are allowed.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Hands over the frames that have come in, at most `max`, all as of `now`. Returns how
    /// many there were. Never waits. Costs no system call while there are frames.
    ///
    /// # Errors
    ///
    /// If libpcap cannot read from the ring.
    pub fn read(
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

    /// Returns how many packets that passed the filter found no room in the ring since the start.
    ///
    /// # Errors
    ///
    /// If the kernel gives no statistics.
    pub fn dropped(&mut self) -> Result<u64, CaptureError> {
        let stat = self.capture.stats().map_err(|error| CaptureError::Read {
            reason: reason(error),
        })?;
        // The kernel resets its counter at each reading; libpcap adds the readings up.
        self.dropped += u64::from(stat.dropped.wrapping_sub(self.counted));
        self.counted = stat.dropped;
        Ok(self.dropped)
    }
}

impl AsFd for LiveCapture {
    /// Readable when there are frames.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }
}

/// Tells a missing capability from other failures. libpcap does that in words only, and with other
/// words in each version, so this asks the kernel once more.
fn refusal(error: pcap::Error) -> CaptureError {
    match Socket::new(Domain::PACKET, Type::DGRAM, None) {
        Err(again) if again.kind() == std::io::ErrorKind::PermissionDenied => {
            CaptureError::Capability {
                capability: "CAP_NET_RAW",
            }
        }
        Ok(_) | Err(_) => CaptureError::Start {
            reason: reason(error),
        },
    }
}
