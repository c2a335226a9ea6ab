//! What route netlink says, taken out of its bytes (rtnetlink(7)).
//!
//! Only the few attributes that matter are read, so that no message is lost for the sake
//! of one that is newer than we are.

use std::net::IpAddr;

use netlink_packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};
use nix::libc;

/// What the kernel says beside an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Beside {
    /// Its label, if that is not the link's name.
    pub(super) label: Option<String>,
    /// The broadcast addresses of its network.
    pub(super) broadcasts: Vec<IpAddr>,
}

/// A piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A link is there, like this.
    Link(Link),
    /// A link is there no more.
    LinkGone(u32),
    /// A link has an address, and what the kernel says beside it.
    Address(u32, IpAddr, Beside),
    /// A link has an address no more.
    AddressGone(u32, IpAddr),
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Its other names (`ip link property add … altname`).
    pub(super) alternatives: Vec<String>,
    pub(super) up: bool,
    /// Whether it is a loopback, whatever its name.
    pub(super) loopback: bool,
    /// The bridge, bond or the like that gives its frames once more. A VRF does not.
    pub(super) master: Option<u32>,
}

/// A netlink message.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    payload: &'a [u8],
}

impl Message<'_> {
    /// The number that ends an answer, negative in the message: 0 is success.
    pub(super) fn errno(&self) -> i32 {
        self.payload
            .first_chunk()
            .map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
    }
}

/// The messages of a datagram, as far as they are whole.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        // Each begins at a multiple of four bytes (netlink(7)).
        let length = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(Message {
            kind: message.message_type(),
            flags: message.flags(),
            payload: message.payload(),
        })
    })
}

/// The news in a message, if it is any.
pub(super) fn read(message: &Message<'_>) -> Option<News> {
    match message.kind {
        libc::RTM_NEWLINK => link(message.payload).map(News::Link),
        libc::RTM_DELLINK => link(message.payload).map(|link| News::LinkGone(link.index)),
        libc::RTM_NEWADDR => address(message.payload).map(|(i, a, b)| News::Address(i, a, b)),
        libc::RTM_DELADDR => address(message.payload).map(|(i, a, _)| News::AddressGone(i, a)),
        _ => None,
    }
}

/// `struct ifinfomsg`: family, padding, device type, index, flags, change mask.
fn link(payload: &[u8]) -> Option<Link> {
    let (head, attributes) = payload.split_first_chunk::<16>()?;
    let [family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *head;
    // A bridge tells of its ports in messages of family AF_BRIDGE, where "gone" is only
    // "no port any more". The link itself has one of its own.
    if i32::from(family) != libc::AF_UNSPEC {
        return None;
    }
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let mut link = Link {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        name: String::new(),
        alternatives: Vec::new(),
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        master: None,
    };
    let mut is_vrf = false;
    for attribute in attributes_of(attributes) {
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MASTER => link.master = word(value).filter(|index| *index != 0),
            // News of a radio, which leaves the rest out.
            libc::IFLA_WIRELESS => return None,
            libc::IFLA_LINKINFO => {
                is_vrf = attributes_of(value).any(|info| {
                    info.kind() == libc::IFLA_INFO_SLAVE_KIND && text(info.value()) == "vrf"
                });
            }
            libc::IFLA_PROP_LIST => {
                link.alternatives = attributes_of(value)
                    .filter(|property| property.kind() == libc::IFLA_ALT_IFNAME)
                    .map(|property| text(property.value()))
                    .collect();
            }
            _ => {}
        }
    }
    if is_vrf {
        link.master = None;
    }
    Some(link)
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index. The address itself is
/// IFA_LOCAL; where there is a peer, IFA_ADDRESS is the peer's, and so is the network. IPv4
/// addresses have a label, most often the link's name; what else it may be has a colon in it
/// (ip-address(8)).
fn address(payload: &[u8]) -> Option<(u32, IpAddr, Beside)> {
    let (head, attributes) = payload.split_first_chunk::<8>()?;
    let [_, length, _, _, i0, i1, i2, i3] = *head;
    let (mut own, mut network, mut beside) = (None, None, Beside::default());
    for attribute in attributes_of(attributes) {
        match attribute.kind() {
            libc::IFA_LOCAL => own = ip(attribute.value()).or(own),
            libc::IFA_ADDRESS => network = ip(attribute.value()),
            libc::IFA_BROADCAST => beside.broadcasts.extend(ip(attribute.value())),
            libc::IFA_LABEL => {
                beside.label = Some(text(attribute.value())).filter(|label| label.contains(':'));
            }
            _ => {}
        }
    }
    let network = network.or(own)?;
    beside.broadcasts.extend(broadcasts_of(network, length));
    beside.broadcasts.sort_unstable();
    beside.broadcasts.dedup();
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    Some((index, own.unwrap_or(network), beside))
}

/// The broadcast addresses of the network of this address: all ones behind the prefix, and, as
/// old hosts have it, all zeros (RFC 1812, section 4.2.3.1). A network of one or two addresses
/// has none (RFC 3021), nor has IPv6.
pub(super) fn broadcasts_of(address: IpAddr, length: u8) -> Vec<IpAddr> {
    let IpAddr::V4(address) = address else {
        return Vec::new();
    };
    let Some(hosts) = u32::MAX.checked_shr(length.into()).filter(|m| *m > 1) else {
        return Vec::new();
    };
    let bits = address.to_bits();
    [bits | hosts, bits & !hosts]
        .map(|bits| IpAddr::V4(bits.into()))
        .into()
}

/// Attributes as far as they are whole.
fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        Some(four.into())
    } else {
        <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
    }
}

fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// Names end in a zero, and may hold any byte but a few.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}
