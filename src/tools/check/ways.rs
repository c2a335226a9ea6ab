//! The ways in by which a door is tried: chosen before, and put together after the trials.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::host_interfaces::HostInterface;
use super::report::{DoorVerdict, Way};
use super::trial::Trial;
use crate::firewall::ruleset::IpFamily;
use crate::model::PortRange;

/// How many addresses of one family and interface are tried: a host may have thousands.
pub(super) const ADDRESSES: usize = 8;

/// How many ports of a range are tried.
const PORTS: usize = 16;

/// Returns the ports of a range that are tried: its ends, and ports at which a ruleset with these
/// numbers in it may begin to decide otherwise.
pub(super) fn samples(ports: &PortRange, numbers: &BTreeSet<u16>) -> BTreeSet<NonZeroU16> {
    let mut samples = BTreeSet::from([ports.first, ports.last]);
    let inside = numbers.range(ports.first.get()..=ports.last.get());
    let near = inside.flat_map(|n| [Some(*n), n.checked_sub(1), n.checked_add(1)]);
    for port in near.flatten().filter_map(NonZeroU16::new) {
        if samples.len() < PORTS && (ports.first..=ports.last).contains(&port) {
            samples.insert(port);
        }
    }
    samples
}

/// Returns the ways in by one interface, each with its verdict. Ports of a range, and addresses,
/// that all have the same verdict are one way.
pub(super) fn ways(
    link: &HostInterface,
    tried: impl Iterator<Item = (Trial, DoorVerdict)>,
) -> Vec<(usize, Way, DoorVerdict)> {
    let mut groups: Vec<Vec<(Trial, DoorVerdict)>> = Vec::new();
    for (trial, verdict) in tried {
        let of = |t: &Trial| (t.door, t.ports, IpFamily::of(t.to));
        let same = |g: &&mut Vec<_>| matches!(g.first(), Some((t, _)) if of(t) == of(&trial));
        match groups.iter_mut().find(same) {
            Some(group) => group.push((trial, verdict)),
            None => groups.push(vec![(trial, verdict)]),
        }
    }
    let mut ways = Vec::new();
    for group in groups {
        let by_port = !alike(&group, |t| t.to);
        let by_address = !alike(&group, |_| ()) && (!by_port || !alike(&group, |t| t.port));
        for (trial, verdict) in group {
            let Trial {
                ports: PortRange { protocol, .. },
                port,
                ..
            } = trial;
            let single = PortRange {
                protocol,
                first: port,
                last: port,
            };
            let way = Way {
                interface: link.name.clone(),
                family: IpFamily::of(trial.to),
                ports: if by_port { single } else { trial.ports },
                address: by_address.then_some(trial.to),
            };
            let found = (trial.door, way, verdict);
            if !ways.contains(&found) {
                ways.push(found);
            }
        }
    }
    ways
}

/// Returns whether all trials with the same `key` have the same verdict.
fn alike<K: PartialEq>(group: &[(Trial, DoorVerdict)], key: impl Fn(&Trial) -> K) -> bool {
    group.iter().all(|(trial, verdict)| {
        let mut same = group.iter().filter(|(t, _)| key(t) == key(trial));
        same.all(|(_, v)| v == verdict)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(port: u16, to: &str) -> Trial {
        Trial {
            door: 0,
            ports: "60000-61000/udp".parse().expect("a range"),
            port: NonZeroU16::new(port).expect("a port"),
            source: "198.51.100.1".parse().expect("an address"),
            to: to.parse().expect("an address"),
        }
    }

    fn said(tried: &[(u16, &str, DoorVerdict)]) -> Vec<String> {
        let link = HostInterface {
            name: "eth0".to_owned(),
            ..HostInterface::default()
        };
        let tried = tried
            .iter()
            .map(|(port, to, v)| (trial(*port, to), v.clone()));
        let word = |address| match address {
            Some(address) => format!(" at {address}"),
            None => String::new(),
        };
        let all = ways(&link, tried).into_iter();
        all.map(|(_, way, v)| format!("{}{} {v:?}", way.ports, word(way.address)))
            .collect()
    }

    #[test]
    fn what_fares_alike_is_said_once() {
        use DoorVerdict::{Unguarded, Works};
        let (one, two) = ("192.0.2.1", "192.0.2.2");
        assert_eq!(
            said(&[(1, one, Works), (2, one, Works), (1, two, Works)]),
            ["60000-61000/udp Works"]
        );
        assert_eq!(
            said(&[
                (1, one, Works),
                (2, one, Works),
                (1, two, Unguarded),
                (2, two, Unguarded)
            ]),
            [
                "60000-61000/udp at 192.0.2.1 Works",
                "60000-61000/udp at 192.0.2.2 Unguarded"
            ]
        );
        assert_eq!(
            said(&[
                (1, one, Works),
                (2, one, Unguarded),
                (1, two, Works),
                (2, two, Unguarded)
            ]),
            ["1/udp Works", "2/udp Unguarded"]
        );
        assert_eq!(
            said(&[
                (1, one, Works),
                (2, one, Works),
                (1, two, Works),
                (2, two, Unguarded)
            ]),
            [
                "1/udp at 192.0.2.1 Works",
                "2/udp at 192.0.2.1 Works",
                "1/udp at 192.0.2.2 Works",
                "2/udp at 192.0.2.2 Unguarded"
            ]
        );
    }

    #[test]
    fn a_range_is_tried_where_it_may_change() {
        let ports = "60000-61000/udp".parse().expect("a range");
        let sampled = |numbers: &[u16]| -> Vec<u16> {
            let numbers = numbers.iter().copied().collect();
            samples(&ports, &numbers)
                .into_iter()
                .map(NonZeroU16::get)
                .collect()
        };
        assert_eq!(sampled(&[22, 80]), [60000, 61000]);
        assert_eq!(sampled(&[60500]), [60000, 60499, 60500, 60501, 61000]);
        assert_eq!(sampled(&[61000, 61001]), [60000, 60999, 61000]);
        let many: Vec<u16> = (60000..61000).collect();
        assert_eq!(sampled(&many).len(), PORTS);
    }
}
