//! Doors: the sequence that opens a door, and its actions.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Lifetime, PortRange, Prefix, Protocol, Step, TcpFlags};

/// How many steps a sequence may have, as in knock 0.8.
pub const MAX_STEPS: usize = 32;

/// How many doors that share their first step one packet may begin. This bounds the cost of a packet,
/// and how much of the table of attempts it takes.
pub const BEGUN_AT_ONCE: usize = 64;

/// How many strays a door may forgive.
pub const MAX_STRAYS: u16 = 256;

/// How many openings of a set are kept for openings by hand.
pub const BY_HAND: u32 = 1024;

/// How many openings of single ports, of each address family, knocks may make.
pub const OPENINGS: u32 = 65_536 - BY_HAND;

/// The longest time that the configuration may give. A longer one is a slip, since there is `until
/// closed`. The kernel counts up to 584 years.
pub const MAX_TIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The number of a door of the running configuration: its index in [`super::Config::doors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoorId(pub u16);

impl DoorId {
    /// Returns the index, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A door as configured. There may be thousands, and they do not grow: each list is a slice, and
/// fields that few doors have lie apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The name of the door: one word, unique among the doors.
    pub name: Arc<str>,
    /// The steps, 1 to [`MAX_STEPS`]. Without steps the door is disabled: its one-time sequences are
    /// used up, or not read yet.
    pub sequence: Box<[Step]>,
    /// The source of the steps, if each sequence is good for one use.
    pub one_time: Option<OneTime>,
    /// How long after the first step the last one may come; never zero.
    pub seq_timeout: Duration,
    /// How long the door does not open for a source again after it opened for that source. Zero: it
    /// opens at once.
    pub seq_cooldown: Duration,
    /// The TCP packets that count.
    pub tcp_flags: TcpFlags,
    /// The sources that may knock; empty: all.
    pub from: Box<[Prefix]>,
    /// The destination knocked at, in place of this host's own addresses.
    pub target: Option<IpAddr>,
    /// How many distinct strays an attempt survives; at most [`MAX_STRAYS`].
    pub strays: u16,
    /// The ports that it opens for the source.
    pub open: Box<[PortRange]>,
    /// How long they stay open.
    pub open_for: Lifetime,
    /// The number of addresses to which the door may be open at once; 1 to [`OPENINGS`].
    pub max_open: u32,
    /// The openings that the door closes for the source.
    pub close: Close,
    /// Elements that the door adds to sets of the administrator's own.
    pub add: Box<[SetElement]>,
    /// Elements that the door removes from such sets.
    pub remove: Box<[SetElement]>,
    /// Command strings that the door runs.
    pub commands: Option<Box<Commands>>,
}

impl Door {
    /// How long a sequence may take if the configuration gives no time.
    pub const SEQ_TIMEOUT: Duration = Duration::from_secs(15);
    /// How many strays are forgiven if the configuration gives no number. With so many, a scan of all
    /// ports in random order opens a door of three steps once in 500,000 times. And to end a user's
    /// knock, more packets than this number must be forged with the user's address during the knock.
    pub const STRAYS: u16 = 128;
    /// How long an opening lives if the configuration gives no time.
    pub const OPEN_FOR: Lifetime = Lifetime::For(Duration::from_secs(30));
    /// The number of addresses to which a door may be open at once if the configuration gives none.
    /// Forged knocks come at thousands a second, and a set that they have filled is closed to all.
    pub const MAX_OPEN: u32 = 4096;

    /// Returns a door with these steps and the defaults of knockd.toml(5). It does nothing yet.
    #[must_use]
    pub fn new(name: &str, sequence: Vec<Step>) -> Self {
        Self {
            name: name.into(),
            sequence: sequence.into(),
            one_time: None,
            seq_timeout: Self::SEQ_TIMEOUT,
            seq_cooldown: Duration::ZERO,
            tcp_flags: TcpFlags::SYN,
            from: Box::default(),
            target: None,
            strays: Self::STRAYS,
            open: Box::default(),
            open_for: Self::OPEN_FOR,
            max_open: Self::MAX_OPEN,
            close: Close::Nothing,
            add: Box::default(),
            remove: Box::default(),
            commands: None,
        }
    }

    /// Returns whether a step of the door is of this protocol, or may be once the next one-time
    /// sequence is expected.
    #[must_use]
    pub fn may_use(&self, protocol: Protocol) -> bool {
        self.one_time.is_some() || self.uses(protocol)
    }

    /// Returns whether a step of the door is of this protocol.
    #[must_use]
    pub fn uses(&self, protocol: Protocol) -> bool {
        self.sequence.iter().any(|s| s.protocol == protocol)
    }
}

/// A file of sequences, each good for one use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OneTime {
    /// The file, in knock 0.8's format: a sequence a line, a used one begins with `#`.
    pub file: PathBuf,
}

/// The openings that a door closes for the source that knocked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Close {
    /// Nothing.
    #[default]
    Nothing,
    /// The openings of these ports.
    Ports(Box<[PortRange]>),
    /// Every opening.
    All,
}

/// A set that the administrator owns, as nft names it: `inet filter knocked`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetPath {
    /// `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`.
    pub family: String,
    /// The name of the table.
    pub table: String,
    /// The name of the set.
    pub set: String,
}

/// The source's element in a set of the administrator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetElement {
    /// The name of the set.
    pub path: SetPath,
    /// How long the element stays there (for an `add`).
    pub lifetime: Lifetime,
    /// The ports, for a set keyed by address, protocol and port.
    pub ports: Vec<PortRange>,
}

/// Command strings for `sh -c`, in which `%IP%` stands for the source's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Run when the door opens.
    pub start: Option<String>,
    /// Run `timeout` later.
    pub stop: Option<String>,
    /// In place of `start` for an IPv6 source; `Some("")` runs nothing.
    pub start_6: Option<String>,
    /// In place of `stop` for an IPv6 source; `Some("")` runs nothing.
    pub stop_6: Option<String>,
    /// The time from start to stop.
    pub timeout: Duration,
}

impl Commands {
    /// Returns the string to run at the start for `source`, with `%IP%` still in it; `None` if
    /// there is nothing to run.
    #[must_use]
    pub fn start_for(&self, source: IpAddr) -> Option<&str> {
        pick(source, self.start.as_ref(), self.start_6.as_ref())
    }

    /// Returns the string to run at the stop for `source`, with `%IP%` still in it; `None` if
    /// there is nothing to run.
    #[must_use]
    pub fn stop_for(&self, source: IpAddr) -> Option<&str> {
        pick(source, self.stop.as_ref(), self.stop_6.as_ref())
    }
}

/// Picks the string for the source as knockd(1) of 0.8 has it: for IPv6 the IPv6 string where there is
/// one, else the other. An empty string is none.
fn pick<'a>(source: IpAddr, four: Option<&'a String>, six: Option<&'a String>) -> Option<&'a str> {
    let chosen = match source {
        IpAddr::V4(_) => four,
        IpAddr::V6(_) => six.or(four),
    };
    chosen.map(String::as_str).filter(|s| !s.is_empty())
}

impl std::fmt::Display for SetPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.set)
    }
}
