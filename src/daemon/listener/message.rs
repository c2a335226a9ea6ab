//! What the listener says to the daemon: one message is one packet of their socket pair.
//!
//! Both ends are the same program, so the format need not last. But whoever has taken the listener
//! over can send anything. So a message that is none is dropped, and no number in one is believed
//! beyond its bounds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Knock, Protocol, Step, Timestamp, Transport};
use crate::sandbox::Confinement;

/// The most frames that one message is about.
pub(crate) const BATCH: usize = 1024;

/// The length of the record of a knock, in bytes.
const RECORD: usize = 48;

/// The length of what stands before the records, in bytes.
const HEAD: usize = 16;

/// The longest message, in bytes.
pub(super) const LONGEST: usize = HEAD + BATCH * RECORD;

/// The longest text of a message, in bytes; the rest is left out.
pub(super) const LONGEST_TEXT: usize = 16 * 1024;

/// The daemon's word that the listener is to give up system calls it does not need.
pub(super) const CONFINE: u8 = b'c';

/// The daemon's word that the packet socket has not come with its message: the daemon had no descriptor
/// free for it.
pub(super) const AGAIN: u8 = b'a';

/// The daemon's word that it is not (`sandbox = false`).
pub(super) const LEAVE_FREE: u8 = b'f';

/// A message of the listener's, but for knocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenerReport {
    /// The packet socket is open, and comes with this message. If another listener has died before:
    /// how.
    Opened(String),
    /// The capture cannot be opened: whether for want of a capability, and the reason.
    Failed(bool, String),
    /// It has given up its rights, and listens.
    Confined(Confinement),
    /// The kernel has refused it this system call. It ends.
    Refused(i32),
}

const KNOCKS: u8 = 0;
const OPENED: u8 = 1;
const FAILED: u8 = 2;
const FAILED_FOR_CAPABILITY: u8 = 3;
const CONFINED: u8 = 4;
const REFUSED: u8 = 5;

/// The message by which a listener tells that the kernel has refused it a system call: the number of
/// the call follows, in the byte order of the machine. A signal handler sends it.
pub(super) const REFUSED_HEAD: [u8; 1] = [REFUSED];

/// What stands before the records of knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnocksHead {
    /// True if the packets were read as they came, false if they gathered.
    pub(super) were_rare: bool,
    /// How many frames were read; most of them may be no knocks.
    pub(super) frames: usize,
    /// How many packets found no room in the ring since the listener began.
    pub(super) dropped: u64,
}

/// A message as it comes in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ListenerMessage<'a> {
    Knocks(KnocksHead, Records<'a>),
    Report(ListenerReport),
}

impl ListenerReport {
    /// Returns the bytes of the message.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Opened(text) => (OPENED, text.clone().into_bytes()),
            Self::Failed(true, text) => (FAILED_FOR_CAPABILITY, text.clone().into_bytes()),
            Self::Failed(false, text) => (FAILED, text.clone().into_bytes()),
            // A structure of texts and numbers can always be written.
            Self::Confined(confinement) => (
                CONFINED,
                serde_json::to_vec(confinement).unwrap_or_default(),
            ),
            Self::Refused(call) => (REFUSED, call.to_ne_bytes().to_vec()),
        };
        let text = text.into_iter().take(LONGEST_TEXT);
        std::iter::once(kind).chain(text).collect()
    }
}

/// Reads a message; `None` if it is none.
pub(super) fn read(bytes: &[u8]) -> Option<ListenerMessage<'_>> {
    let (kind, rest) = bytes.split_first()?;
    let text = || String::from_utf8_lossy(rest).into_owned();
    let report = match *kind {
        KNOCKS => {
            let (head, records) = read_knocks(rest)?;
            return Some(ListenerMessage::Knocks(head, records));
        }
        OPENED => ListenerReport::Opened(text()),
        FAILED => ListenerReport::Failed(false, text()),
        FAILED_FOR_CAPABILITY => ListenerReport::Failed(true, text()),
        CONFINED => ListenerReport::Confined(serde_json::from_slice(rest).ok()?),
        REFUSED => ListenerReport::Refused(i32::from_ne_bytes(rest.try_into().ok()?)),
        _ => return None,
    };
    Some(ListenerMessage::Report(report))
}

/// Begins a message of knocks in `buffer`, which keeps its memory. [`push`] adds to it,
/// [`finish`] ends it.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEAD, 0);
}

/// Adds a knock to a message.
pub(super) fn push(buffer: &mut Vec<u8>, knock: &Knock) {
    buffer.extend_from_slice(&record(knock));
}

/// Completes a message.
pub(super) fn finish(buffer: &mut [u8], head: KnocksHead) {
    let KnocksHead {
        were_rare,
        frames,
        dropped,
    } = head;
    let frames = u32::try_from(frames).unwrap_or(u32::MAX);
    if let Some(bytes) = buffer.first_chunk_mut::<HEAD>() {
        bytes[0] = KNOCKS;
        bytes[1] = u8::from(were_rare);
        bytes[4..8].copy_from_slice(&frames.to_ne_bytes());
        bytes[8..].copy_from_slice(&dropped.to_ne_bytes());
    }
}

fn read_knocks(bytes: &[u8]) -> Option<(KnocksHead, Records<'_>)> {
    let (head, records) = bytes.split_first_chunk::<{ HEAD - 1 }>()?;
    let [rare, _, _, frames @ .., _, _, _, _, _, _, _, _] = head;
    let (_, dropped) = head.split_last_chunk()?;
    let frames = u32::from_ne_bytes(*frames);
    let head = KnocksHead {
        were_rare: *rare != 0,
        // The daemon works in vain for every frame.
        frames: usize::try_from(frames).unwrap_or(BATCH).min(BATCH),
        dropped: u64::from_ne_bytes(*dropped),
    };
    Some((head, Records(records)))
}

/// The records of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Records<'a>(&'a [u8]);

impl Records<'_> {
    /// Returns the knocks, as of `at`. What is no knock is left out.
    pub(super) fn knocks(self, at: Timestamp) -> impl Iterator<Item = Knock> {
        let (records, _) = self.0.as_chunks();
        records.iter().filter_map(move |bytes| knock(bytes, at))
    }
}

/// Writes a knock as a record, but for its time: the time of a live packet is when it is judged.
fn record(knock: &Knock) -> [u8; RECORD] {
    let Knock {
        at: _,
        source,
        destination,
        step,
        source_port,
        transport,
        interface,
    } = *knock;
    let mut bytes = [0; RECORD];
    let (family, source) = octets(source);
    let (_, destination) = octets(destination);
    let (flags, number) = match transport {
        Transport::Tcp { flags, sequence } => (flags, sequence),
        Transport::Udp { identification } => (0, identification.into()),
    };
    let protocol = match step.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    bytes[..16].copy_from_slice(&source);
    bytes[16..32].copy_from_slice(&destination);
    bytes[32..36].copy_from_slice(&number.to_ne_bytes());
    // No interface has the number 0.
    bytes[36..40].copy_from_slice(&interface.unwrap_or(0).to_ne_bytes());
    bytes[40..42].copy_from_slice(&step.port.get().to_ne_bytes());
    bytes[42..44].copy_from_slice(&source_port.to_ne_bytes());
    bytes[44] = family;
    bytes[45] = protocol;
    bytes[46] = flags;
    bytes
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn octets(address: IpAddr) -> (u8, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (4, bytes)
        }
        IpAddr::V6(address) => (6, address.octets()),
    }
}

/// Reads a record; `None` if it is no knock.
fn knock(bytes: &[u8; RECORD], at: Timestamp) -> Option<Knock> {
    let (source, rest) = bytes.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (interface, rest) = rest.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let &[family, protocol, flags, _] = rest else {
        return None;
    };
    let number = u32::from_ne_bytes(*number);
    let (protocol, transport) = match protocol {
        TCP => {
            let sequence = number;
            (Protocol::Tcp, Transport::Tcp { flags, sequence })
        }
        UDP => {
            let identification = u16::try_from(number).ok()?;
            (Protocol::Udp, Transport::Udp { identification })
        }
        _ => return None,
    };
    let interface = u32::from_ne_bytes(*interface);
    Some(Knock {
        at,
        source: address(family, *source)?,
        destination: address(family, *destination)?,
        step: Step::new(protocol, u16::from_ne_bytes(*port))?,
        source_port: u16::from_ne_bytes(*source_port),
        transport,
        interface: (interface != 0).then_some(interface),
    })
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        4 => {
            let (address, _) = bytes.split_first_chunk::<4>()?;
            Some(Ipv4Addr::from(*address).into())
        }
        // An address that only wraps one of IPv4 is no source: see Knock.
        6 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
