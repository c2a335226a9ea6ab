//! A door: the sequence that opens it, and what then happens.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Lifetime, PortRange, Prefix, Protocol, Step, TcpFlags};

/// How many steps a sequence may have, as in knock 0.8.
pub const MAX_STEPS: usize = 32;

/// How many doors one packet may begin: those that share their first step. What a packet costs,
/// and how much of the table of attempts it takes, is bounded by that.
pub const BEGUN_AT_ONCE: usize = 64;

/// How many strays a door may forgive.
pub const MAX_STRAYS: u16 = 256;

/// How many openings of a set are kept for who opens by hand.
pub const BY_HAND: u32 = 1024;

/// How many openings of single ports, of each address family, knocks may make.
pub const OPENINGS: u32 = 65_536 - BY_HAND;

/// Longer than this is no length of time but a slip; there is `until closed`. The kernel
/// counts up to 584 years.
pub const MAX_TIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Which door of the running configuration: its place in [`super::Config::doors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoorId(pub u16);

impl DoorId {
    /// The place, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A door as configured. There may be thousands, and nothing is added to them: each list is a
/// slice, and what few have lies apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Its name: one word, unique among the doors.
    pub name: Arc<str>,
    /// The steps, 1 to [`MAX_STEPS`]. Empty: the door is disabled (its one-time sequences are used
    /// up, or not read yet).
    pub sequence: Box<[Step]>,
    /// Where the steps come from, if each sequence is good for one use.
    pub one_time: Option<OneTime>,
    /// How long after the first step the last one may come; never zero.
    pub seq_timeout: Duration,
    /// How long after it opened for a source it does not open for that source again; zero: no
    /// time.
    pub seq_cooldown: Duration,
    /// Which TCP packets count.
    pub tcp_flags: TcpFlags,
    /// Who may knock; empty: everybody.
    pub from: Box<[Prefix]>,
    /// The destination knocked at, in place of this host's own addresses.
    pub target: Option<IpAddr>,
    /// How many distinct strays an attempt survives; at most [`MAX_STRAYS`].
    pub strays: u16,
    /// What it opens for the source.
    pub open: Box<[PortRange]>,
    /// For how long.
    pub open_for: Lifetime,
    /// To how many addresses it may be open at once; 1 to [`OPENINGS`].
    pub max_open: u32,
    /// What it closes for the source.
    pub close: Close,
    /// Elements it adds to sets of the administrator's own.
    pub add: Box<[SetElement]>,
    /// Elements it removes from such sets.
    pub remove: Box<[SetElement]>,
    /// Command strings it runs.
    pub commands: Option<Box<Commands>>,
}

impl Door {
    /// How long a sequence may take if nobody says.
    pub const SEQ_TIMEOUT: Duration = Duration::from_secs(15);
    /// How many strays are forgiven if nobody says: a scan of all ports in random order opens
    /// three steps once in 500,000 times, and whoever forges packets at a user's address must
    /// send so many within his knock to end it.
    pub const STRAYS: u16 = 128;
    /// How long an opening lives if nobody says.
    pub const OPEN_FOR: Lifetime = Lifetime::For(Duration::from_secs(30));
    /// To how many addresses it may be open at once if nobody says: forged knocks come at thousands
    /// a second, and what they fill is closed to all.
    pub const MAX_OPEN: u32 = 4096;

    /// A door of these steps that does nothing yet, with the defaults of knockd.toml(5).
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

    /// Whether a step of it is of this protocol, or may be once the next one-time sequence is
    /// waited for.
    #[must_use]
    pub fn may_use(&self, protocol: Protocol) -> bool {
        self.one_time.is_some() || self.uses(protocol)
    }

    /// Whether a step of it is of this protocol.
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

/// What a door closes for the source that knocked.
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
    /// The table.
    pub table: String,
    /// The set.
    pub set: String,
}

/// The source's element in a set of the administrator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetElement {
    /// The set.
    pub path: SetPath,
    /// How long it stays there (for an `add`).
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
    /// The string to run at the start for `source`, with `%IP%` still in it; `None` if
    /// there is nothing to run.
    #[must_use]
    pub fn start_for(&self, source: IpAddr) -> Option<&str> {
        pick(source, self.start.as_ref(), self.start_6.as_ref())
    }

    /// The string to run at the stop for `source`, with `%IP%` still in it; `None` if
    /// there is nothing to run.
    #[must_use]
    pub fn stop_for(&self, source: IpAddr) -> Option<&str> {
        pick(source, self.stop.as_ref(), self.stop_6.as_ref())
    }
}

/// knockd(1) of 0.8: the IPv6 string where there is one, else the other; empty is nothing.
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
