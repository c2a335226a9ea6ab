//! The interfaces of this host, as its replica must have them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::firewall::ruleset::IpFamily;
use crate::model::Pattern;

/// An interface of this host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostInterface {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) loopback: bool,
    /// The addresses, each with the length of its network's prefix. Link-local addresses are left
    /// out: the kernel gives them to a replica's interfaces by itself.
    pub(super) addresses: Vec<(IpAddr, u32)>,
}

impl HostInterface {
    /// Returns the addresses of a family that somebody outside may connect to.
    pub(super) fn addresses(&self, family: IpFamily) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().map(|(address, _)| *address);
        addresses.filter(move |a| IpFamily::of(*a) == family)
    }

    /// Returns whether knocks at this interface are read: it is one of the configured ones, is up, has
    /// an address and is no loopback.
    pub(super) fn counts(&self, interfaces: &[Pattern]) -> bool {
        let meant = interfaces.is_empty() || interfaces.iter().any(|p| p.matches(&self.name));
        meant && self.up && !self.loopback && !self.addresses.is_empty()
    }
}

/// Returns the interfaces of the calling thread's network namespace.
pub(super) fn all() -> io::Result<Vec<HostInterface>> {
    let mut links: BTreeMap<String, HostInterface> = BTreeMap::new();
    for entry in getifaddrs().map_err(io::Error::from)? {
        // For an address with a label the name is the label, `eth0:1` (getifaddrs(3)).
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        let name = name.to_owned();
        let link = links.entry(name.clone()).or_default();
        link.name = name;
        link.up = entry.flags.contains(InterfaceFlags::IFF_UP);
        link.loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let address = entry.address.as_ref().and_then(ip);
        let Some(address) = address.filter(|a| !is_own_making(*a)) else {
            continue;
        };
        let length = match entry.netmask.as_ref().and_then(ip) {
            Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
            Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
            None if address.is_ipv4() => 32,
            None => 128,
        };
        link.addresses.push((address, length));
    }
    Ok(links.into_values().collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    four.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

fn is_own_making(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local(),
    }
}
