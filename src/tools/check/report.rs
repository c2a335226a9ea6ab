//! The findings of `knockd check`, as types and in words.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::firewall::ruleset::IpFamily;
use crate::model::PortRange;

/// The live system, as far as it concerns the doors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The state of our own table.
    pub table: TableState,
    /// Each door, in the order of the configuration.
    pub doors: Vec<DoorReport>,
    /// The faults of the administrator's sets that doors fill, each in a sentence.
    pub remarks: Vec<String>,
}

/// The state of our table, compared with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// The table is as configured.
    AsConfigured,
    /// There is no table: nothing is guarded.
    Absent,
    /// Somebody else has made a table of that name, and knockd does not touch it.
    Foreign,
    /// The table differs. The text is a diff of nft's text, from the configured table to the table in
    /// the kernel.
    Drifted(String),
    /// The table could not be compared, for this reason.
    Unknown(String),
}

/// All that was found about one door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorReport {
    /// The door's name.
    pub door: Arc<str>,
    /// The findings: no two of them concern the same way in.
    pub findings: Vec<Finding>,
}

/// A verdict, and the ways in for which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub verdict: DoorVerdict,
    /// The ways in; none if no packet was sent.
    pub ways: Vec<Way>,
}

/// A way in: an interface, an address family and ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The name of the interface.
    pub interface: String,
    pub family: IpFamily,
    /// The ports that the door opens; one port of a range if the verdicts on its ports differ.
    pub ports: PortRange,
    /// The address of this host, if the verdicts on the interface's addresses differ.
    pub address: Option<IpAddr>,
}

/// The outcome of connecting after a knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorVerdict {
    /// The client gets in, and a client that has not knocked does not.
    Works,
    /// The client gets in, and so does everybody else.
    Unguarded,
    /// Other tables stop the client.
    Blocked {
        /// The chains that stop the client.
        by: Vec<Blocker>,
        /// A repair that was tried and lets the client pass; `None` if none was found.
        repair: Option<Repair>,
    },
    /// The outcome cannot be found out, for this reason.
    CannotTell(String),
    /// The door opens no port.
    NothingToTry,
    /// Nobody can knock at the door, for this reason.
    NobodyMay(String),
}

/// A chain that stops clients that have knocked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocker {
    /// Family, table and chain, in nft's words.
    pub chain: String,
    /// True if the policy of the chain stops the clients. False if a rule does, in the chain or in one
    /// that it calls.
    pub policy: bool,
}

/// The changes by which the administrator makes a door work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The value that `[firewall] mark` must be set to first, if it is not set.
    pub mark: Option<u32>,
    /// Command lines for root to run.
    pub lines: Vec<String>,
    /// How to keep the changes over a reboot, in sentences.
    pub keep: Vec<String>,
}

/// The advice on a daemon that hangs.
const HANGS: &str = "knockd does not answer: systemctl restart knockd";

/// What to do if it cannot be found out whether a daemon runs.
const NOT_ALLOWED: &str = "the daemon can be asked by root alone: sudo knockd check";

/// Whether a daemon runs with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonState {
    /// A daemon answers.
    Runs,
    /// A daemon is there and does not answer.
    Hangs,
    /// There is no daemon.
    Absent,
    /// The caller may not ask.
    NotAllowed,
}

impl CheckReport {
    /// Returns the problems, each in a few words and, if one command is the repair, with that command.
    /// Returns none if no problem was found. `daemon` is called only if its answer matters: it waits
    /// for a daemon that hangs.
    #[must_use]
    pub fn problems(&self, daemon: impl FnOnce() -> DaemonState) -> Vec<String> {
        let Self {
            table,
            doors,
            remarks,
        } = self;
        let problem = match table {
            TableState::AsConfigured | TableState::Unknown(_) => None,
            TableState::Foreign => Some("the table is somebody else's"),
            TableState::Absent => Some(match daemon() {
                DaemonState::Absent => "knockd is not running: systemctl start knockd",
                DaemonState::Runs => "there is no table: systemctl reload knockd",
                DaemonState::Hangs => HANGS,
                DaemonState::NotAllowed => NOT_ALLOWED,
            }),
            // A restart starts knockd where it does not run.
            TableState::Drifted(_) => Some(match daemon() {
                DaemonState::Absent => "the table is not as configured: systemctl restart knockd",
                DaemonState::Runs => "the table is not as configured: systemctl reload knockd",
                DaemonState::Hangs => HANGS,
                DaemonState::NotAllowed => NOT_ALLOWED,
            }),
        };
        let mut problems: Vec<_> = problem.into_iter().map(str::to_owned).collect();
        problems.extend(remarks.iter().cloned());
        for DoorReport { door, findings } in doors {
            let mut said: Vec<_> = findings
                .iter()
                .filter_map(|f| f.verdict.problem())
                .collect();
            said.dedup();
            problems.extend(said.iter().map(|what| format!("{door} {what}")));
        }
        problems
    }
}

impl DoorVerdict {
    fn problem(&self) -> Option<&'static str> {
        match self {
            Self::Works | Self::CannotTell(_) | Self::NothingToTry => None,
            Self::Unguarded => Some("is not guarded"),
            Self::Blocked { .. } => Some("is blocked"),
            Self::NobodyMay(_) => Some("opens to nobody"),
        }
    }
}

impl fmt::Display for DoorReport {
    /// Writes a line for each finding, and the repair under it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ports are named if the verdicts on them differ.
        let ports = self.findings.len() > 1;
        for Finding { verdict, ways } in &self.findings {
            let door = &self.door;
            let ways = words(ways, ports);
            match verdict {
                DoorVerdict::Works => writeln!(f, "{door}: works ({ways})")?,
                DoorVerdict::Unguarded => writeln!(
                    f,
                    "{door}: NOT GUARDED: who has not knocked gets in as well ({ways})"
                )?,
                DoorVerdict::Blocked { by, repair } => {
                    writeln!(f, "{door}: BLOCKED by {}: {ways}", list(by))?;
                    match repair {
                        Some(repair) => write!(f, "{repair}")?,
                        None => writeln!(f, "  no line that knockd knows mends it")?,
                    }
                }
                DoorVerdict::CannotTell(why) if ways.is_empty() => {
                    writeln!(f, "{door}: cannot tell: {why}")?;
                }
                DoorVerdict::CannotTell(why) => writeln!(f, "{door}: cannot tell: {why} ({ways})")?,
                DoorVerdict::NobodyMay(why) => writeln!(f, "{door}: OPENS TO NOBODY: {why}")?,
                DoorVerdict::NothingToTry => {
                    writeln!(f, "{door}: opens no port: there is nothing to try")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, lines, keep } = self;
        if let Some(mark) = mark {
            writeln!(
                f,
                "  mend: set `mark = {mark:#x}` in [firewall] and reload knockd, then"
            )?;
        }
        for line in lines {
            writeln!(f, "  mend: {line}")?;
        }
        for word in keep {
            writeln!(f, "  {word}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.policy { "policy drop" } else { "a rule" };
        write!(f, "chain {} ({how})", self.chain)
    }
}

fn list(all: &[Blocker]) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    all.join(" and ")
}

/// `eth0, IPv4 and IPv6`; with ports, `22/tcp by eth0, IPv4`; with an address, `22/tcp at
/// 192.0.2.1 by eth0, IPv4`.
fn words(ways: &[Way], with_ports: bool) -> String {
    let mut by_interface: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for way in ways {
        let ports = with_ports.then_some(way.ports);
        let family = match way.family {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        };
        let place = (ports, &way.interface, way.address);
        let families = by_interface.entry(place).or_default();
        if !families.contains(&family) {
            families.push(family);
        }
    }
    let all: Vec<_> = by_interface
        .into_iter()
        .map(|((ports, interface, address), families)| {
            let ports = ports.map_or_else(String::new, |p| format!("{p} "));
            let address = address.map_or_else(String::new, |a| format!("at {a} "));
            let by = if ports.is_empty() && address.is_empty() {
                ""
            } else {
                "by "
            };
            format!(
                "{ports}{address}{by}{interface}, {}",
                families.join(" and ")
            )
        })
        .collect();
    all.join("; ")
}
