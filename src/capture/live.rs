//! Packets as they come in, by one handle on every interface.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use pcap::{Active, Capture, Linktype};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::error::{CaptureError, reason};
use super::filter::Program;
use crate::model::{Door, Frame, LinkType, PortRange, Timestamp};

/// Linux cooked v2, which names the interface; libpcap has it since 1.10.
const LINUX_SLL2: Linktype = Linktype(276);

/// Room for 20 bytes of cooked header, 40 of IPv6, 20 of TCP, and 112 of extension headers.
const SNAPLEN: i32 = 192;

/// Bytes of the ring: 10,920 frames of this snaplen, a burst of 10 ms at a million packets a
/// second. All of it is resident from the start.
const RING: i32 = 3 << 20;

/// More frames than the ring holds.
const MOST: usize = 1 << 16;

/// A capture of all interfaces, those included that come later. Nothing is read before
/// [`LiveCapture::set_filter`].
pub struct LiveCapture {
    capture: Capture<Active>,
    /// The program of the socket now.
    program: Program,
    wanted: FilterInput,
    /// The kernel's count of dropped packets as of the last reading; it wraps.
    counted: u32,
    dropped: u64,
}

/// The things the filter is made of.
#[derive(Clone)]
struct FilterInput {
    /// The program that passes packets by class, as the doors ask for it.
    class: Program,
    /// The targets of doors.
    targets: Vec<IpAddr>,
    /// This host's addresses, if the filter is to look at them.
    own: Option<Vec<IpAddr>>,
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
            program: Program::nothing(),
            wanted: FilterInput {
                class: Program::nothing(),
                targets: Vec::new(),
                own: None,
            },
            counted: 0,
            dropped: 0,
        };
        // Drop what came in before the filter was there. Such a packet may have had a VLAN's tag,
        // which a cooked frame does not show: the VLAN's own device gives it once more.
        live.attach(&Program::nothing())?;
        while live.read(Timestamp(0), MOST, |_| ())? > 0 {}
        Ok(live)
    }

    /// Makes the filter pass what these doors may take for a step or a stray, where these ports are
    /// ignored. Packets that an earlier filter has passed are still read, and none is missed in
    /// between.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the filter. The earlier one then stays.
    pub fn set_filter(&mut self, doors: &[Door], ignore: &[PortRange]) -> Result<(), CaptureError> {
        self.update(FilterInput {
            class: Program::new(doors, ignore),
            targets: doors.iter().filter_map(|door| door.target).collect(),
            own: self.wanted.own.clone(),
        })
    }

    /// Makes the filter pass only what goes to these addresses, or to the target of a door. Must be
    /// called whenever the addresses change: packets to a new address do not pass before.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the filter. The earlier one then stays.
    pub fn set_hosts(&mut self, own: Vec<IpAddr>) -> Result<(), CaptureError> {
        self.update(FilterInput {
            own: Some(own),
            ..self.wanted.clone()
        })
    }

    fn update(&mut self, wanted: FilterInput) -> Result<(), CaptureError> {
        let program = match &wanted.own {
            Some(own) => wanted.class.to(&[&own[..], &wanted.targets].concat()),
            None => wanted.class.clone(),
        };
        if program != self.program {
            self.attach(&program)?;
            self.program = program;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Attaches the program by SO_ATTACH_FILTER (socket(7)): in one step, without the reject-all
    /// that libpcap puts in between.
    fn attach(&self, program: &Program) -> Result<(), CaptureError> {
        let filters: Vec<_> = program
            .instructions()
            .iter()
            .map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k))
            .collect();
        SockRef::from(&self.capture)
            .attach_filter(&filters)
            .map_err(|source| CaptureError::Filter { source })
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
