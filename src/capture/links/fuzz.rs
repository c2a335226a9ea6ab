//! What holds for whatever the kernel says of links and addresses: message by message, the table comes
//! to what a plain list of them comes to, and a list of nothing empties it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::message::{AddressDetails, LinkInfo, RouteDump, RouteMessage, read};
use super::table::LinkTable;
use crate::model::Pattern;
use crate::netlink::Messages;

/// The links and addresses, each as it was last told.
#[derive(Default)]
struct PlainLinks(BTreeMap<u32, (LinkInfo, BTreeMap<IpAddr, AddressDetails>)>);

impl PlainLinks {
    fn apply(&mut self, message: RouteMessage) {
        match message {
            RouteMessage::Link(link) => {
                let had = self
                    .0
                    .remove(&link.index)
                    .unwrap_or((link.clone(), BTreeMap::new()));
                self.0.insert(link.index, (link, had.1));
            }
            RouteMessage::LinkGone(index) => _ = self.0.remove(&index),
            RouteMessage::Address(index, address, details) => {
                if let Some((_, addresses)) = self.0.get_mut(&index) {
                    addresses.insert(address, details);
                }
            }
            RouteMessage::AddressGone(index, address) => {
                if let Some((_, addresses)) = self.0.get_mut(&index) {
                    addresses.remove(&address);
                }
            }
        }
    }

    fn is_loopback(&self, index: u32) -> bool {
        self.0.get(&index).is_some_and(|(link, _)| link.loopback)
    }

    fn own(&self) -> BTreeSet<IpAddr> {
        let addresses = self.0.values().flat_map(|(_, addresses)| addresses.keys());
        addresses.copied().collect()
    }

    fn is_broadcast(&self, address: IpAddr) -> bool {
        let details = self
            .0
            .values()
            .flat_map(|(_, addresses)| addresses.values());
        let mut broadcasts = details.flat_map(|details| &details.broadcasts);
        broadcasts.any(|broadcast| *broadcast == address)
    }
}

pub fn route_netlink(datagrams: &[u8]) {
    let some = ["eth0", "br*", "eth1:1"].map(Pattern::new);
    for patterns in [&[], &some[..]] {
        let messages = || Messages(datagrams).filter_map(|message| read(&message));
        let (mut table, mut plain) = (LinkTable::new(patterns), PlainLinks::default());
        for message in messages() {
            table.apply(message.clone());
            plain.apply(message);
        }
        table.settle();
        assert_eq!(table.own().1.collect::<BTreeSet<_>>(), plain.own());
        for message in messages() {
            let (index, address) = match message {
                RouteMessage::Link(LinkInfo { index, .. }) | RouteMessage::LinkGone(index) => {
                    (index, None)
                }
                RouteMessage::Address(index, address, details) => {
                    (index, details.broadcasts.first().copied().or(Some(address)))
                }
                RouteMessage::AddressGone(index, address) => (index, Some(address)),
            };
            assert_eq!(table.knows(index), plain.0.contains_key(&index));
            assert!(table.knows(index) || !table.counts(index));
            let Some(address) = address else { continue };
            let own = address.is_loopback() || plain.own().contains(&address);
            let answered = (!own || plain.is_loopback(index)) && !plain.is_broadcast(address);
            assert_eq!(table.can_answer(address, index), answered, "{address}");
            assert!(table.is_local(address, index) || !table.is_knocked_at(index, address));
        }
        let (listening, without) = (table.listening(), table.without_address());
        assert!(without.iter().all(|name| listening.contains(name)));

        let broadcasts = plain
            .0
            .values()
            .flat_map(|(_, addresses)| addresses.values());
        let broadcasts: Vec<_> = broadcasts.flat_map(|details| &details.broadcasts).collect();
        table.replace(RouteDump {
            messages: Vec::new(),
            is_whole: true,
        });
        table.settle();
        assert!(table.own().1.next().is_none() && table.listening().is_empty());
        let loopback = |address: &IpAddr| address.is_loopback();
        assert!(
            broadcasts
                .iter()
                .all(|b| loopback(b) || table.can_answer(**b, 1))
        );
    }
}
