//! The whole of a checked configuration.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Door, Pattern, PortRange, Prefix};

/// A configuration that has passed the check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The interfaces listened to; empty: all but `lo`.
    pub interfaces: Vec<Pattern>,
    /// Ports whose packets are neither steps nor strays. (Nor are the ports that doors open, which
    /// are not listed here.)
    pub ignore: Vec<PortRange>,
    /// Decides whether ports that no door uses are tripwires.
    pub tripwires: TripwireMode,
    /// Whether the daemon's processes give up what they do not need.
    pub sandbox: Sandbox,
    /// The places to which the log goes, and how much of it.
    pub log: Log,
    /// The file for the process number of a daemon in the background (knockd.conf `PidFile`).
    pub pid_file: Option<PathBuf>,
    /// The table that guards; `None`: nftables is not touched (a knockd.conf, or TOML with
    /// neither `[firewall]` nor a door that opens, closes, adds or removes).
    pub firewall: Option<Firewall>,
    /// The doors, in the order of the file; at most 65,535. A copy of the configuration shares them,
    /// until it changes one of them.
    pub doors: Arc<[Door]>,
}

/// Decides whether ports that no door uses are tripwires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TripwireMode {
    /// Every such port is a tripwire.
    #[default]
    On,
    /// No port is a tripwire: a scan of the ports may open a door.
    Off,
}

/// Whether the daemon's processes give up what they do not need. It counts at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// They give it up.
    #[default]
    On,
    /// They keep it, but for the listener's user and capabilities.
    Off,
}

/// The places to which the log goes, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// The lowest level that is written.
    pub level: Level,
    /// A file, in knock 0.8's line format.
    pub file: Option<PathBuf>,
    /// True if the log goes to syslog as well.
    pub syslog: bool,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Faults alone.
    Error,
    /// Also doubtful things.
    Warn,
    /// Also events.
    #[default]
    Info,
    /// Also the reasons for events.
    Debug,
    /// Also everything else.
    Trace,
}

/// The table that guards this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// The name of the table; its family is `inet`.
    pub table: String,
    /// The fate of a packet to a guarded port from a source that did not knock.
    pub guard: Guard,
    /// The fate of the table when the daemon stops.
    pub on_stop: OnStop,
    /// Sources that never need to knock.
    pub trusted: Vec<Prefix>,
    /// The mark set on opened traffic; never zero.
    pub mark: Option<u32>,
}

impl Firewall {
    /// The name of the table if the configuration gives none.
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

/// The fate of a packet to a guarded port from a source that did not knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Drops the packet.
    #[default]
    Drop,
    /// Answers with a TCP reset or ICMP port unreachable.
    Reject,
    /// Does nothing: openings are kept, but nothing is guarded.
    Off,
}

/// The fate of the table when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStop {
    /// The table stays; openings run out by themselves.
    #[default]
    Keep,
    /// The table is removed, and with it the guard.
    Remove,
}
