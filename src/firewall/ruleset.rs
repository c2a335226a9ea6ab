//! The table as data: what there is, in which order. Text and netlink are made from this
//! and from nothing else, each by an exhaustive match, so neither can say what the other
//! cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::model::{Door, PortRange, Prefix, Protocol, SetElement, SetPath, Step};

/// How many elements a set of openings holds.
pub const CAPACITY: u32 = 65_536;

/// The comment of every table that is ours; the number of the layout follows it, and a word
/// for the configuration (see [`Ruleset::of`]). It is kept as nft keeps a table's comment (in
/// the table's userdata), so it lives on in a saved ruleset and whoever lists the table sees
/// whose it is.
pub const SIGNATURE: &str = "knockd layout ";

/// The layout that this program builds. A table of another layout is rebuilt.
pub const LAYOUT: u32 = 2;

/// The name of the set of guarded single ports, and how the names of others begin that stand in
/// its place: see [`Ruleset::with_guarded_in`].
pub(crate) const GUARDED: &str = "guarded";

/// The whole table. Its family is always `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name.
    pub table: Arc<str>,
    /// Its sets.
    pub sets: Vec<Set>,
    /// Its chains, those that a rule goes to among them.
    pub chains: Vec<GuardChain>,
    /// Which ports each door opens, sorted: an opening that no door would make any more
    /// goes with the reload.
    pub(super) grants: Vec<(Arc<str>, PortRange)>,
    /// To how many addresses each door may be open at once, sorted by name.
    pub(super) shares: Vec<(Arc<str>, u32)>,
    /// What doors put into sets of the administrator's, or take out.
    pub(super) wishes: Vec<Wish>,
    /// Where openings of single ports lie, IPv4 and IPv6.
    pub(super) singles: [Arc<SetPath>; 2],
    /// Where openings of each range lie, IPv4 and IPv6.
    pub(super) ranges: BTreeMap<PortRange, [Arc<SetPath>; 2]>,
    /// Which configuration it is of.
    pub(super) instance: Option<u32>,
}

/// What a door does with a set of the administrator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) door: Arc<str>,
    pub(super) element: SetElement,
    /// Whether it adds; if not, it removes.
    pub(super) adds: bool,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The end of the names of its sets.
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
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub key: KeyKind,
    /// What it is for.
    pub content: SetContent,
}

/// What the elements of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// An address.
    Address(IpFamily),
    /// An address, a protocol and a port.
    AddressPort(IpFamily),
    /// A protocol and a port.
    Port,
}

/// What a set is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetContent {
    /// Openings: a hash set of [`CAPACITY`], whose elements have a timeout each and come
    /// and go with knocks.
    Openings,
    /// Single ports, as configured: a hash set. Not an interval set with the ranges in it
    /// too: the kernel puts new elements of such a set in place at the very end of a
    /// transaction, after it has taken a deleted chain off its hook, and a rebuild leaves
    /// the host open for as long as that takes (measured: 16 packets a rebuild at full
    /// flood with 3,000 openings; with a hash set, none). Sets of networks have the same gap.
    Ports(BTreeSet<Step>),
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardChain {
    /// Its name.
    pub name: &'static str,
    /// The hook it is on, at the priority *mangle*; `None`: rules go to it.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<GuardRule>,
}

/// Where a packet meets a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before NAT, so that a published port of a container is seen by the port the client
    /// named.
    Prerouting,
    /// Where it is handed to this host's own sockets, whatever made it come here: translation
    /// of its address or port, a routing table that the first look did not ask, a VRF.
    Input,
}

/// One rule: all of `matches`, then what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRule {
    /// What must hold, all of it.
    pub matches: Vec<Match>,
    /// Whether packets are counted.
    pub counter: bool,
    /// The mark put on the packet.
    pub mark: Option<u32>,
    /// What becomes of it.
    pub verdict: RuleVerdict,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It came in by a loopback interface, whatever its name.
    Loopback,
    /// It is TCP with ACK or RST: part of a session, or of none that anybody has (then Linux
    /// answers it alike, be there a listener or not). Whatever else there is begins a
    /// connection, or asks for one: a listener drops FIN, NULL and XMAS, where a closed port
    /// answers with a reset (RFC 9293, section 3.10.7).
    OfSession,
    /// Its transport protocol.
    Protocol(Protocol),
    /// Protocol and destination port are in this set ([`KeyKind::Port`]).
    PortIn(String),
    /// Protocol and destination port are in this range.
    PortRange(PortRange),
    /// Its destination is one address of somebody else's, as far as the table `local` tells.
    /// What is not unicast (broadcast, multicast) is judged like what is for this host.
    ForOthers,
    /// Conntrack has seen an answer to this flow.
    Established,
    /// The source lies in this network. One rule each, no interval set: see
    /// [`SetContent::Ports`].
    SourceWithin(Prefix),
    /// The source is in this set ([`KeyKind::Address`]).
    SourceIn(IpFamily, String),
    /// Source, protocol and destination port are in this set ([`KeyKind::AddressPort`]).
    SourcePortIn(IpFamily, String),
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerdict {
    /// It goes on (to other tables: they may still drop it).
    Accept,
    /// It is gone.
    Drop,
    /// It is gone, and a TCP reset goes back.
    Reset,
    /// It is gone, and ICMP port unreachable goes back.
    Unreachable,
    /// That chain decides.
    Goto(&'static str),
}

/// The names that a set of guarded ports may have.
pub(super) fn names_of_guarded() -> impl Iterator<Item = String> {
    let others = (2_u32..).map(|number| format!("{GUARDED}_{number}"));
    std::iter::once(GUARDED.to_owned()).chain(others)
}

/// Whether a set of that name is one of guarded ports.
pub(crate) fn is_set_of_guarded(name: &str) -> bool {
    let rest = name.strip_prefix(GUARDED);
    let number = rest.map(|rest| rest.strip_prefix('_').unwrap_or(rest));
    number.is_some_and(|n| n.bytes().all(|digit| digit.is_ascii_digit()))
}

impl Ruleset {
    /// The same table, as that of the configuration at `path`. Several may guard one host:
    /// only a table of the same configuration is one that was renamed.
    #[must_use]
    pub fn of(self, path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // FNV-1a: std's hash may be another one with the next compiler.
        let bytes = path.as_os_str().as_encoded_bytes().iter();
        let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        Self {
            instance: Some(hash),
            ..self
        }
    }

    /// The same table under another name.
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

    /// Returns the same ruleset with its set of guarded ports under another name. What is in that
    /// set never changes while rules look into it: a packet that is among the old rules would
    /// find a port that they are not made for. Other ports are another set.
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

    /// The table's comment.
    #[must_use]
    pub fn comment(&self) -> String {
        match self.instance {
            Some(instance) => format!("{SIGNATURE}{LAYOUT} {instance:08x}"),
            None => format!("{SIGNATURE}{LAYOUT}"),
        }
    }

    /// The set that holds openings of `ports` for sources of one family; `None` if no door
    /// opens that range.
    pub(super) fn openings(&self, ports: &PortRange, family: IpFamily) -> Option<&Arc<SetPath>> {
        if ports.is_single() {
            Some(&self.singles[family.index()])
        } else {
            self.ranges.get(ports).map(|pair| &pair[family.index()])
        }
    }

    /// What doors open, all of them.
    pub(super) fn opened(&self) -> BTreeSet<PortRange> {
        self.grants.iter().map(|(_, ports)| *ports).collect()
    }

    /// Whether the door of that name opens these ports.
    #[must_use]
    pub fn grants(&self, door: &str, ports: &PortRange) -> bool {
        self.grants
            .binary_search_by(|(d, p)| (&**d, p).cmp(&(door, ports)))
            .is_ok()
    }

    /// To how many addresses the door of that name may be open at once.
    pub(super) fn share(&self, door: &str) -> u32 {
        let found = self.shares.binary_search_by(|(name, _)| (**name).cmp(door));
        let share = found.ok().and_then(|place| self.shares.get(place));
        share.map_or(Door::MAX_OPEN, |(_, most)| *most)
    }

    /// What doors do with a set of the administrator's.
    pub(super) fn wishes_for(&self, path: &SetPath) -> impl Iterator<Item = &Wish> {
        self.wishes.iter().filter(move |w| w.element.path == *path)
    }

    /// The door of that name, if it puts sources into that set.
    pub(super) fn wisher(&self, door: &str, path: &SetPath) -> Option<Arc<str>> {
        let mut wishes = self.wishes.iter().filter(|w| w.adds);
        let wish = wishes.find(|w| *w.door == *door && w.element.path == *path)?;
        Some(wish.door.clone())
    }
}
