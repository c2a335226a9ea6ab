//! The whole of a checked configuration.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Door, Pattern, PortRange, Prefix};

/// A configuration that has passed the check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Interfaces listened to; empty: all but `lo`.
    pub interfaces: Vec<Pattern>,
    /// Ports whose packets nobody looks at: they are neither steps nor strays. (The ports that
    /// doors open are left alone as well, and do not stand here.)
    pub ignore: Vec<PortRange>,
    /// Whether ports that no door uses are tripwires.
    pub tripwires: TripwireMode,
    /// Where the log goes.
    pub log: Log,
    /// Where the number of a daemon in the background is written (knockd.conf `PidFile`).
    pub pid_file: Option<PathBuf>,
    /// The table that guards; `None`: nftables is not touched (a knockd.conf, or TOML with
    /// neither `[firewall]` nor a door that opens, closes, adds or removes).
    pub firewall: Option<Firewall>,
    /// The doors, in the order of the file; at most 65,535. They are shared: a copy of the
    /// configuration has the same ones, until it changes one of them.
    pub doors: Arc<[Door]>,
}

/// Whether ports that no door uses are tripwires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TripwireMode {
    /// Every one is.
    #[default]
    On,
    /// None is: a scan of the ports may open a door.
    Off,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// The least that is written.
    pub level: Level,
    /// A file, in knock 0.8's line format.
    pub file: Option<PathBuf>,
    /// To syslog as well.
    pub syslog: bool,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Faults alone.
    Error,
    /// And what is doubtful.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

/// The table that guards this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Its name; the family is `inet`.
    pub table: String,
    /// What becomes of a packet to a guarded port from somebody who did not knock.
    pub guard: Guard,
    /// What becomes of the table when the daemon stops.
    pub on_stop: OnStop,
    /// Who never needs to knock.
    pub trusted: Vec<Prefix>,
    /// The mark set on opened traffic; never zero.
    pub mark: Option<u32>,
}

impl Firewall {
    /// The name of the table, if the configuration gives it no other.
    pub const TABLE: &'static str = "knockd";
}

impl Default for Firewall {
    fn default() -> Self {
        Self {
            table: Self::TABLE.to_owned(),
            guard: Guard::default(),
            on_stop: OnStop::default(),
            trusted: Vec::new(),
            mark: None,
        }
    }
}

/// What the guard does with a packet nobody knocked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Drops it.
    #[default]
    Drop,
    /// Answers with a TCP reset or ICMP port unreachable.
    Reject,
    /// Nothing: openings are kept, nothing is guarded.
    Off,
}

/// What becomes of the table when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStop {
    /// It stands; openings run out by themselves.
    #[default]
    Keep,
    /// It goes, and with it the guard.
    Remove,
}
