//! The source addresses of trials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::ruleset::IpFamily;
use crate::model::{Door, Prefix};

/// How many addresses of each network are considered.
const TRIED: u32 = 64;

/// Returns an address of a family that may knock at the door, has to knock, and is none of our own;
/// `None` if there is no such address. Where the door takes every source, it is one for documentation
/// (RFC 5737, RFC 3849), which no host has.
pub(super) fn of(
    door: &Door,
    family: IpFamily,
    trusted: &[Prefix],
    own: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let anywhere = [
        Prefix::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24),
        Prefix::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24),
        Prefix::new(
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x6b6e, 0, 0, 0, 0, 0)),
            64,
        ),
    ];
    let networks: Vec<Prefix> = match door.from.is_empty() {
        true => anywhere.into_iter().flatten().collect(),
        false => door.from.to_vec(),
    };
    networks
        .iter()
        .filter(|network| IpFamily::of(network.address()) == family)
        .flat_map(hosts)
        .find(|a| !own(*a) && !trusted.iter().any(|t| t.contains(*a)))
}

/// Returns the first addresses of a network, without the address that names the network.
fn hosts(network: &Prefix) -> impl Iterator<Item = IpAddr> {
    let (first, network) = (network.address(), *network);
    let start = u32::from(network.last() != first);
    (start..TRIED)
        .filter_map(move |n| match first {
            IpAddr::V4(a) => a.to_bits().checked_add(n).map(|b| Ipv4Addr::from(b).into()),
            IpAddr::V6(a) => (a.to_bits().checked_add(n.into())).map(|b| Ipv6Addr::from(b).into()),
        })
        .take_while(move |a| network.contains(*a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(from: &[&str]) -> Door {
        Door {
            from: from.iter().map(|p| p.parse().expect("a prefix")).collect(),
            ..Door::new("ssh", Vec::new())
        }
    }

    fn chosen(from: &[&str], family: IpFamily, trusted: &[&str]) -> Option<String> {
        let trusted: Vec<Prefix> = trusted
            .iter()
            .map(|p| p.parse().expect("a prefix"))
            .collect();
        let own = |a: IpAddr| a.to_string() == "192.0.2.1";
        of(&door(from), family, &trusted, own).map(|a| a.to_string())
    }

    #[test]
    fn the_source_that_is_tried_may_knock_and_must() {
        let four = IpFamily::V4;
        assert_eq!(chosen(&[], four, &[]).as_deref(), Some("198.51.100.1"));
        assert_eq!(
            chosen(&[], four, &["198.51.100.0/24"]).as_deref(),
            Some("203.0.113.1")
        );
        assert_eq!(
            chosen(&["192.0.2.0/24"], four, &["192.0.2.2"]).as_deref(),
            Some("192.0.2.3")
        );
        assert_eq!(
            chosen(&["192.0.2.9"], four, &[]).as_deref(),
            Some("192.0.2.9")
        );
        assert_eq!(chosen(&["192.0.2.1"], four, &[]), None);
        assert_eq!(chosen(&["192.0.2.0/24"], IpFamily::V6, &[]), None);
        assert_eq!(
            chosen(&["255.255.255.254/31"], four, &["255.255.255.254/31"]),
            None
        );
    }
}
