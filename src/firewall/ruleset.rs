//! The table as data: its sets, chains and rules in their order. The text and the netlink messages
//! are made from this data and from nothing else, each by an exhaustive match, so neither can say
//! anything that the other cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::model::{Door, PortRange, Prefix, Protocol, SetElement, SetPath, Step};

/// How many elements a set of openings holds.
pub const CAPACITY: u32 = 65_536;

/// The beginning of the comment of every table of ours. The number of the layout follows, and then
/// a word for the configuration (see [`Ruleset::of`]). The comment is kept as nft keeps a table's
/// comment (in the table's userdata), so it lives on in a saved ruleset, and whoever lists the
/// table sees that knockd made it.
pub const SIGNATURE: &str = "knockd layout ";

/// The layout that this program builds. A table of another layout is rebuilt.
pub const LAYOUT: u32 = 2;

/// The name of the set of guarded single ports. The names of the sets that take its place begin
/// with the same word: see [`Ruleset::with_guarded_in`].
pub(crate) const GUARDED: &str = "guarded";

/// The whole table. Its family is always `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub table: Arc<str>,
    pub sets: Vec<Set>,
    /// The chains on hooks, and the chains that a rule goes to.
    pub chains: Vec<GuardChain>,
    /// The ports that each door opens, sorted by door. An opening that no door would make any more
    /// goes with the reload.
    pub(super) grants: Vec<(Arc<str>, PortRange)>,
    /// The number of addresses to which each door may be open at once, sorted by door.
    pub(super) shares: Vec<(Arc<str>, u32)>,
    /// The elements that doors put into sets of the administrator's, or take out.
    pub(super) wishes: Vec<Wish>,
    /// The sets for openings of single ports, IPv4 and IPv6.
    pub(super) singles: [Arc<SetPath>; 2],
    /// The sets for openings of each range, IPv4 and IPv6.
    pub(super) ranges: BTreeMap<PortRange, [Arc<SetPath>; 2]>,
    /// A hash of the configuration's path, if one was set: see [`Self::of`].
    pub(super) instance: Option<u32>,
}

/// An element that a door puts into a set of the administrator's, or takes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) door: Arc<str>,
    pub(super) element: SetElement,
    /// True if the door adds the element; false if the door removes it.
    pub(super) adds: bool,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the end of the names of this family's sets.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    /// The type of the set's elements.
    pub key: KeyKind,
    pub content: SetContent,
}

/// The type of a set's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    Address(IpFamily),
    /// An address, a protocol and a port.
    AddressPort(IpFamily),
    /// A protocol and a port.
    Port,
}

/// The purpose of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetContent {
    /// Openings: a hash set of [`CAPACITY`] elements. Each element has a timeout of its own, and
    /// comes and goes with knocks.
    Openings,
    /// Single ports, as configured: a hash set. An interval set could hold the ranges, too. But the
    /// kernel puts new elements of an interval set in place at the very end of a transaction, after
    /// it has taken a deleted chain off its hook, so a rebuild would leave the host open for as
    /// long as that takes (measured: 16 packets a rebuild at full flood with 3,000 openings; with a
    /// hash set, none). Sets of networks have the same gap.
    Ports(BTreeSet<Step>),
}

/// A chain of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardChain {
    pub name: &'static str,
    /// The hook of the chain, at the priority *mangle*; `None`: rules go to the chain.
    pub hook: Option<Hook>,
    pub rules: Vec<GuardRule>,
}

/// The point at which packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before NAT: the published port of a container is seen as the port that the client named.
    Prerouting,
    /// Where the kernel hands a packet to this host's own sockets, whatever made the packet come
    /// here: translation of its address or port, a routing table that the first look did not ask, a
    /// VRF.
    Input,
}

/// One rule. A packet that meets all of `matches` gets the rest of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRule {
    pub matches: Vec<Match>,
    /// True if the rule counts its packets.
    pub counter: bool,
    /// The mark that the rule puts on the packet.
    pub mark: Option<u32>,
    pub verdict: RuleVerdict,
}

/// One condition that a packet must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The packet came in by a loopback interface, whatever the interface is called.
    Loopback,
    /// The packet is TCP with ACK or RST. Such a packet is part of a session, or of none that
    /// anybody has (then Linux answers alike, be there a listener or not). Any other TCP packet
    /// begins a connection, or finds out whether there is a listener: a listener drops FIN, NULL
    /// and XMAS, where a closed port answers with a reset (RFC 9293, section 3.10.7).
    OfSession,
    /// The packet has this transport protocol.
    Protocol(Protocol),
    /// The protocol and destination port are in this set ([`KeyKind::Port`]).
    PortIn(String),
    /// The protocol and destination port are in this range.
    PortRange(PortRange),
    /// The destination is a unicast address of another host, as far as the routing table `local`
    /// tells. A packet that is not unicast (broadcast, multicast) is judged like one for this host.
    ForOthers,
    /// Conntrack has seen an answer to the packet's flow.
    Established,
    /// The source lies in this network. Each network has a rule of its own, for an interval set
    /// would have a gap: see [`SetContent::Ports`].
    SourceWithin(Prefix),
    /// The source is in this set ([`KeyKind::Address`]).
    SourceIn(IpFamily, String),
    /// The source, protocol and destination port are in this set ([`KeyKind::AddressPort`]).
    SourcePortIn(IpFamily, String),
}

/// The end of a rule: the fate of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The packet goes on to other tables, which may still drop it.
    Accept,
    Drop,
    /// The packet is dropped, and a TCP reset goes back.
    Reset,
    /// The packet is dropped, and ICMP port unreachable goes back.
    Unreachable,
    /// The chain of this name decides.
    Goto(&'static str),
}

/// Returns the names that a set of guarded ports may have, the first choice first.
pub(super) fn names_of_guarded() -> impl Iterator<Item = String> {
    let others = (2_u32..).map(|number| format!("{GUARDED}_{number}"));
    std::iter::once(GUARDED.to_owned()).chain(others)
}

/// Returns true if a set of that name is one of guarded ports.
pub(crate) fn is_set_of_guarded(name: &str) -> bool {
    let rest = name.strip_prefix(GUARDED);
    let number = rest.map(|rest| rest.strip_prefix('_').unwrap_or(rest));
    number.is_some_and(|n| n.bytes().all(|digit| digit.is_ascii_digit()))
}

impl Ruleset {
    /// Returns the same table, marked as the table of the configuration at `path`. Several
    /// configurations may guard one host, so only a table with the same mark is taken for one that
    /// was renamed.
    #[must_use]
    pub fn of(self, path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // FNV-1a, for std's hash may be another one with the next compiler.
        let bytes = path.as_os_str().as_encoded_bytes().iter();
        let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        Self {
            instance: Some(hash),
            ..self
        }
    }

    /// Returns the same table under another name.
    pub(super) fn named(&self, table: &str) -> Self {
        let renamed = |path: &Arc<SetPath>| {
            Arc::new(SetPath {
                table: table.to_owned(),
                ..SetPath::clone(path)
            })
        };
        let ranges = self.ranges.iter();
        Self {
            table: table.into(),
            singles: self.singles.each_ref().map(renamed),
            ranges: ranges
                .map(|(ports, pair)| (*ports, pair.each_ref().map(renamed)))
                .collect(),
            ..self.clone()
        }
    }

    /// Returns the same ruleset with its set of guarded ports under another name. The ports in that
    /// set never change while rules look into it, for a packet that is among the old rules would
    /// find a port that these rules are not made for. Other ports are another set.
    pub(super) fn with_guarded_in(&self, name: &str) -> Self {
        let mut ruleset = self.clone();
        for set in &mut ruleset.sets {
            if matches!(set.content, SetContent::Ports(_)) {
                name.clone_into(&mut set.name);
            }
        }
        for rule in ruleset.chains.iter_mut().flat_map(|c| &mut c.rules) {
            for m in &mut rule.matches {
                if let Match::PortIn(set) = m {
                    name.clone_into(set);
                }
            }
        }
        ruleset
    }

    /// Returns the table's comment: see [`SIGNATURE`].
    #[must_use]
    pub fn comment(&self) -> String {
        match self.instance {
            Some(instance) => format!("{SIGNATURE}{LAYOUT} {instance:08x}"),
            None => format!("{SIGNATURE}{LAYOUT}"),
        }
    }

    /// Returns the set that holds openings of `ports` for sources of one family, or `None` if no
    /// door opens that range.
    pub(super) fn openings(&self, ports: &PortRange, family: IpFamily) -> Option<&Arc<SetPath>> {
        if ports.is_single() {
            Some(&self.singles[family.index()])
        } else {
            self.ranges.get(ports).map(|pair| &pair[family.index()])
        }
    }

    /// Returns all ports and ranges that doors open.
    pub(super) fn opened(&self) -> BTreeSet<PortRange> {
        self.grants.iter().map(|(_, ports)| *ports).collect()
    }

    /// Returns true if the door of that name opens these ports.
    #[must_use]
    pub fn grants(&self, door: &str, ports: &PortRange) -> bool {
        self.grants
            .binary_search_by(|(d, p)| (&**d, p).cmp(&(door, ports)))
            .is_ok()
    }

    /// Returns the number of addresses to which the door of that name may be open at once.
    pub(super) fn share(&self, door: &str) -> u32 {
        let found = self.shares.binary_search_by(|(name, _)| (**name).cmp(door));
        let share = found.ok().and_then(|place| self.shares.get(place));
        share.map_or(Door::MAX_OPEN, |(_, most)| *most)
    }

    /// Returns the elements that doors put into this set of the administrator's, or take out.
    pub(super) fn wishes_for(&self, path: &SetPath) -> impl Iterator<Item = &Wish> {
        self.wishes.iter().filter(move |w| w.element.path == *path)
    }

    /// Returns the name of the door, if the door of that name puts sources into that set.
    pub(super) fn wisher(&self, door: &str, path: &SetPath) -> Option<Arc<str>> {
        let mut wishes = self.wishes.iter().filter(|w| w.adds);
        let wish = wishes.find(|w| *w.door == *door && w.element.path == *path)?;
        Some(wish.door.clone())
    }
}
