//! The messages of route netlink (rtnetlink(7)).
//!
//! Only the few attributes that matter are read, so that no message is lost for the sake of an
//! attribute that is newer than we are.

use std::net::IpAddr;

use crate::netlink::{Attributes, Message};

/// What the kernel says beside an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AddressDetails {
    /// The label of the address, if that is not the link's name.
    pub(super) label: Option<String>,
    /// The broadcast addresses of its network.
    pub(super) broadcasts: Vec<IpAddr>,
}

/// A message about a link or an address. Links go by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteMessage {
    /// A link is there, like this.
    Link(LinkInfo),
    LinkGone(u32),
    /// A link has an address.
    Address(u32, IpAddr, AddressDetails),
    AddressGone(u32, IpAddr),
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkInfo {
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

/// A list of all links and then all addresses, as of one moment. If something changed during every
/// answer, the list has as much as the last answer.
pub(super) struct RouteDump {
    pub(super) messages: Vec<RouteMessage>,
    /// Whether nothing is missing.
    pub(super) is_whole: bool,
}

/// Reads a message, if it is about a link or an address.
pub(super) fn read(message: &Message<'_>) -> Option<RouteMessage> {
    let address = || address(message.payload);
    match message.kind {
        libc::RTM_NEWLINK => link(message.payload).map(RouteMessage::Link),
        libc::RTM_DELLINK => link(message.payload).map(|link| RouteMessage::LinkGone(link.index)),
        libc::RTM_NEWADDR => address().map(|(i, a, details)| RouteMessage::Address(i, a, details)),
        libc::RTM_DELADDR => address().map(|(i, a, _)| RouteMessage::AddressGone(i, a)),
        _ => None,
    }
}

/// `struct ifinfomsg`: family, padding, device type, index, flags, change mask.
fn link(payload: &[u8]) -> Option<LinkInfo> {
    let (header, attributes) = payload.split_first_chunk::<16>()?;
    let [family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    let attributes = Attributes(attributes);
    // A bridge tells of its ports in messages of family AF_BRIDGE, where "gone" is only "no port
    // any more"; the link has messages of its own. Messages about a radio leave the rest out.
    if i32::from(family) != libc::AF_UNSPEC || attributes.get(libc::IFLA_WIRELESS).is_some() {
        return None;
    }
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let is_vrf = attributes
        .nested(libc::IFLA_LINKINFO)
        .and_then(|info| info.text(libc::IFLA_INFO_SLAVE_KIND))
        == Some("vrf");
    let alternatives = attributes.nested(libc::IFLA_PROP_LIST);
    Some(LinkInfo {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        name: attributes
            .get(libc::IFLA_IFNAME)
            .map_or_else(String::new, name),
        alternatives: alternatives
            .into_iter()
            .flatten()
            .filter(|(kind, _)| *kind == libc::IFLA_ALT_IFNAME)
            .map(|(_, value)| name(value))
            .collect(),
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        master: attributes
            .native(libc::IFLA_MASTER)
            .filter(|index| *index != 0 && !is_vrf),
    })
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index. The address itself is
/// IFA_LOCAL; where there is a peer, IFA_ADDRESS is the peer's, and so is the network. IPv4
/// addresses have a label, most often the link's name; any other label has a colon in it
/// (ip-address(8)).
fn address(payload: &[u8]) -> Option<(u32, IpAddr, AddressDetails)> {
    let (header, attributes) = payload.split_first_chunk::<8>()?;
    let [_, length, _, _, i0, i1, i2, i3] = *header;
    let attributes = Attributes(attributes);
    let address = |kind| attributes.get(kind).and_then(ip);
    let own = address(libc::IFA_LOCAL);
    let network = address(libc::IFA_ADDRESS).or(own)?;
    let mut broadcasts = broadcasts_of(network, length);
    broadcasts.extend(address(libc::IFA_BROADCAST));
    broadcasts.sort_unstable();
    broadcasts.dedup();
    let label = attributes.get(libc::IFA_LABEL).map(name);
    let details = AddressDetails {
        label: label.filter(|label| label.contains(':')),
        broadcasts,
    };
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    Some((index, own.unwrap_or(network), details))
}

/// Returns the broadcast addresses of the network of this address: all ones behind the prefix, and,
/// as old hosts have it, all zeros (RFC 1812, section 4.2.3.1). A network of one or two addresses
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

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        Some(four.into())
    } else {
        <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
    }
}

/// Reads a name, which ends in a zero and may hold any byte but a few.
fn name(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}
