//! Link layers, and how each says that an IP header follows.

use etherparse::{EtherType, SingleVlanHeaderSlice, ether_type};

use super::cursor::Cursor;
use crate::model::{Frame, LinkType};

/// The header behind the link layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    Ipv4,
    Ipv6,
}

/// A frame without its link layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct StrippedFrame<'a> {
    pub(super) network: Network,
    /// From the network header on.
    pub(super) rest: Cursor<'a>,
    /// The kernel's index of the interface.
    pub(super) interface: Option<u32>,
    /// Whether the frame came by a loopback interface, or may have: there a host answers itself.
    pub(super) loopback: bool,
}

/// How many tags a frame may have before its type: QinQ has two, and a provider may add one more.
const MAX_TAGS: usize = 4;

/// EtherType of old QinQ switches, never registered.
const QINQ_OLD: EtherType = EtherType(0x9100);

/// EtherType of PPPoE in its session stage (RFC 2516, section 4).
const PPPOE_SESSION: EtherType = EtherType(0x8864);

/// linux/if_packet.h: the first type of packets that are not for us. Packets to another host (3)
/// are captured where the interface is promiscuous, packets from this one (4) always.
const PACKET_OTHERHOST: u16 = 3;

/// linux/if_arp.h: devices on which the cooked header's protocol is no EtherType
/// (LINKTYPE_LINUX_SLL of tcpdump.org): FRAD, radiotap, netlink.
const NO_ETHERTYPE: [u16; 3] = [770, 803, 824];

/// linux/if_arp.h: a loopback interface.
const ARPHRD_LOOPBACK: u16 = 772;

/// Takes the link layer off. Returns `None` if no IP header follows or the packet is not for this
/// host.
pub(super) fn strip<'a>(frame: &Frame<'a>) -> Option<StrippedFrame<'a>> {
    let wire = usize::try_from(frame.wire_len).unwrap_or(usize::MAX);
    let mut rest = Cursor::new(frame.data, wire);
    let mut interface = None;
    let mut loopback = false;
    let network = match frame.link {
        LinkType::LinuxCooked2 => {
            let [p0, p1, _, _, i0, i1, i2, i3, d0, d1, kind, ..] = *rest.take::<20>()?;
            interface = Some(u32::from_be_bytes([i0, i1, i2, i3]));
            let device = u16::from_be_bytes([d0, d1]);
            loopback = device == ARPHRD_LOOPBACK;
            cooked(u16::from(kind), device, [p0, p1], &mut rest)?
        }
        LinkType::LinuxCooked => {
            let [k0, k1, d0, d1, .., p0, p1] = *rest.take::<16>()?;
            let device = u16::from_be_bytes([d0, d1]);
            loopback = device == ARPHRD_LOOPBACK;
            cooked(u16::from_be_bytes([k0, k1]), device, [p0, p1], &mut rest)?
        }
        LinkType::Ethernet => {
            let [addresses @ .., k0, k1] = *rest.take::<14>()?;
            // Only a capture of Linux's `lo` has such addresses.
            loopback = addresses == [0; 12];
            ether(EtherType(u16::from_be_bytes([k0, k1])), &mut rest)?
        }
        LinkType::Raw => match rest.data().first()? >> 4 {
            4 => Network::Ipv4,
            6 => Network::Ipv6,
            _ => return None,
        },
        LinkType::Ipv4 => Network::Ipv4,
        LinkType::Ipv6 => Network::Ipv6,
        LinkType::Null => {
            loopback = true;
            let family = *rest.take::<4>()?;
            // Families are small numbers: only one of the two byte orders can give one.
            family_of(u32::from_be_bytes(family))
                .or_else(|| family_of(u32::from_le_bytes(family)))?
        }
        LinkType::Loop => {
            loopback = true;
            let family = u32::from_be_bytes(*rest.take::<4>()?);
            family_of(family)?
        }
        LinkType::Ppp => ppp(&mut rest)?,
        LinkType::PppHdlc => hdlc(&mut rest)?,
        LinkType::PppEther => pppoe(&mut rest)?,
    };
    Some(StrippedFrame {
        network,
        rest,
        interface,
        loopback,
    })
}

fn cooked(kind: u16, device: u16, protocol: [u8; 2], rest: &mut Cursor<'_>) -> Option<Network> {
    if kind >= PACKET_OTHERHOST || NO_ETHERTYPE.contains(&device) {
        return None;
    }
    ether(EtherType(u16::from_be_bytes(protocol)), rest)
}

/// Returns the header that an EtherType announces. Here and below the bytes between the EtherType
/// and that header are taken off in place: a cursor handed back and forth costs more than all the
/// rest.
#[inline]
fn ether(kind: EtherType, rest: &mut Cursor<'_>) -> Option<Network> {
    match kind {
        ether_type::IPV4 => Some(Network::Ipv4),
        ether_type::IPV6 => Some(Network::Ipv6),
        _ => tagged(kind, rest),
    }
}

/// Does the same behind tags and PPPoE, which a live capture does not have.
#[inline(never)]
fn tagged(mut kind: EtherType, rest: &mut Cursor<'_>) -> Option<Network> {
    for _ in 0..=MAX_TAGS {
        match kind {
            ether_type::IPV4 => return Some(Network::Ipv4),
            ether_type::IPV6 => return Some(Network::Ipv6),
            PPPOE_SESSION => return pppoe(rest),
            ether_type::VLAN_TAGGED_FRAME | ether_type::PROVIDER_BRIDGING | QINQ_OLD => {
                let tag = SingleVlanHeaderSlice::from_slice(rest.data()).ok()?;
                rest.skip(tag.slice().len())?;
                kind = tag.ether_type();
            }
            _ => return None,
        }
    }
    None
}

/// RFC 2516, section 4: version and type 1, code 0 in a session, its number, the length of
/// the PPP frame.
fn pppoe(rest: &mut Cursor<'_>) -> Option<Network> {
    let [0x11, 0, _, _, l0, l1] = *rest.take::<6>()? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    *rest = rest.limit(length)?;
    ppp_protocol(rest)
}

/// RFC 1661. On some links the address and control bytes of RFC 1662 stand before the protocol.
fn ppp(rest: &mut Cursor<'_>) -> Option<Network> {
    if rest.data().starts_with(&[0xff, 0x03]) {
        rest.skip(2)?;
    }
    ppp_protocol(rest)
}

/// RFC 1662, or Cisco's HDLC: unicast 0f or broadcast 8f, a zero, an EtherType.
fn hdlc(rest: &mut Cursor<'_>) -> Option<Network> {
    match *rest.data() {
        [0xff, 0x03, ..] => ppp(rest),
        [0x0f | 0x8f, 0, ..] => {
            let [_, _, k0, k1] = *rest.take::<4>()?;
            ether(EtherType(u16::from_be_bytes([k0, k1])), rest)
        }
        _ => None,
    }
}

/// RFC 1661, section 2: the last byte of the protocol is odd, the first is even. The first is left
/// out where it is zero and both sides have agreed on that (section 6.5).
fn ppp_protocol(rest: &mut Cursor<'_>) -> Option<Network> {
    let protocol = match *rest.take::<1>()? {
        [0] => rest.take::<1>()?[0],
        [odd] => odd,
    };
    match protocol {
        0x21 => Some(Network::Ipv4),
        0x57 => Some(Network::Ipv6),
        _ => None,
    }
}

/// AF_INET is 2 wherever a capture may come from; AF_INET6 is 10 on Linux, 24 on NetBSD
/// and OpenBSD, 28 on FreeBSD, 30 on Darwin.
fn family_of(family: u32) -> Option<Network> {
    match family {
        2 => Some(Network::Ipv4),
        10 | 24 | 28 | 30 => Some(Network::Ipv6),
        _ => None,
    }
}
