//! `knockd check` on the live system: is the table there and as configured, and does each
//! door work beside whatever else filters here?
//!
//! An `accept` of ours does not overrule a `drop` of another table, and no reading of rules
//! tells for certain what a packet meets. So the live ruleset is copied into a throw-away
//! network namespace, each door is opened there for a probe, and a real first packet is
//! sent through. The kernel's own trace names the chain that drops it; the line that mends
//! it is tried on the copy before it is printed.

mod copy;
mod diff;
mod namespace;
mod probe;

use std::fmt;
use std::path::Path;

use super::admin;
use super::error::FirewallError;
use super::netlink::socket::Socket;
use super::render;
use super::ruleset::{Family, Ruleset};
use crate::model::{Config, PortRange};

use self::copy::Copy;
use self::probe::Laboratory;

/// The mark that is proposed where none is configured: "kn".
const MARK: u32 = 0x6b6e;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Our table.
    pub table: TableState,
    /// Each door's ports, by address family.
    pub ports: Vec<PortReport>,
    /// What else should be known.
    pub notes: Vec<String>,
}

/// The state of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableState {
    /// There is none: no daemon runs, and nothing is guarded.
    Absent,
    /// It could not be looked at.
    Unknown,
    /// It is what the configuration says.
    AsConfigured,
    /// It is not; the difference in nft's words, a line each, `-` configured, `+` found.
    Drift(String),
}

/// Whether a port of a door can be reached once the door is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    /// The door.
    pub door: String,
    /// The port, or the range of which the first was tried.
    pub ports: PortRange,
    /// Over IPv4 or IPv6.
    pub family: Family,
    /// Whether it works.
    pub verdict: Verdict,
}

/// Whether a door works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The packet arrived.
    Works,
    /// It was dropped.
    Blocked {
        /// By these chains, one behind the other.
        by: Vec<Blocker>,
        /// The mark that `[firewall]` must set for the lines to help, if it sets none.
        mark: Option<u32>,
        /// Whether with the lines the packet arrived.
        mended: bool,
    },
    /// It could not be found out.
    CannotTell {
        /// Why.
        why: String,
    },
}

/// A chain that drops, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Family, table and chain.
    pub chain: String,
    /// A command for the shell.
    pub line: String,
}

impl Report {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let works = |p: &PortReport| match &p.verdict {
            Verdict::Works => true,
            Verdict::Blocked { .. } | Verdict::CannotTell { .. } => false,
        };
        let table = match &self.table {
            TableState::AsConfigured => true,
            TableState::Absent | TableState::Unknown | TableState::Drift(_) => false,
        };
        table && self.ports.iter().all(works) && self.notes.is_empty()
    }
}

/// Looks at the live system. Needs root: CAP_NET_ADMIN to read the ruleset, CAP_SYS_ADMIN
/// for the namespace. `saved` is the ruleset that is loaded at boot, /etc/nftables.conf.
///
/// # Errors
///
/// If there is no table in the configuration, or a capability is missing.
pub fn live(config: &Config, saved: &Path) -> Result<Report, FirewallError> {
    let ruleset = Ruleset::new(config).ok_or(FirewallError::None)?;
    // Read something by ourselves first: of nft we would learn only that it failed.
    if let Err(error @ FirewallError::Permission) = super::list(&ruleset.table) {
        return Err(error);
    }
    let mut socket = Socket::open().map_err(FirewallError::reading)?;
    let sets = admin::survey(&mut socket, &ruleset)?;
    let mut notes: Vec<String> = sets.iter().map(ToString::to_string).collect();
    if let Ok(text) = std::fs::read_to_string(saved)
        && text.contains(&format!("table inet {} ", ruleset.table))
    {
        notes.push(format!(
            "{} contains table inet {}: at boot it would be loaded as it was when it was \
             saved; take it out",
            saved.display(),
            ruleset.table
        ));
    }
    let copy = match Copy::of_live(config, &ruleset.table) {
        Ok(copy) => copy,
        Err(why) => return Ok(unknown(config, notes, &why)),
    };
    // A thread of its own: it leaves this namespace and does not come back.
    let found = std::thread::scope(|scope| {
        let work = scope.spawn(|| in_laboratory(config, &ruleset, &copy));
        work.join()
            .unwrap_or_else(|_| Err("the probe failed".to_owned()))
    });
    match found {
        Ok((table, ports)) => Ok(Report {
            table,
            ports,
            notes,
        }),
        Err(why) => Ok(unknown(config, notes, &why)),
    }
}

fn in_laboratory(
    config: &Config,
    ruleset: &Ruleset,
    copy: &Copy,
) -> Result<(TableState, Vec<PortReport>), String> {
    let mut laboratory = Laboratory::new(copy)?;
    laboratory.load(&render::nft(ruleset))?;
    let table = match &copy.own {
        None => TableState::Absent,
        Some(live) => {
            let configured = laboratory.list(&ruleset.table)?;
            match diff::lines(&diff::normal(&configured), &diff::normal(live)) {
                None => TableState::AsConfigured,
                Some(text) => TableState::Drift(text),
            }
        }
    };
    let mut ports = Vec::new();
    for door in &config.doors {
        for range in &door.open {
            for family in Family::BOTH {
                if let Some(verdict) = probe::port(&mut laboratory, config, door, range, family) {
                    ports.push(PortReport {
                        door: door.name.to_string(),
                        ports: *range,
                        family,
                        verdict: verdict.unwrap_or_else(|why| Verdict::CannotTell { why }),
                    });
                }
            }
        }
    }
    Ok((table, ports))
}

fn unknown(config: &Config, notes: Vec<String>, why: &str) -> Report {
    let mut notes = notes;
    notes.push(format!("the live system could not be looked at: {why}"));
    let all = config
        .doors
        .iter()
        .flat_map(|d| d.open.iter().map(move |r| (d, r)));
    let ports = all
        .flat_map(|(door, range)| {
            Family::BOTH.map(|family| PortReport {
                door: door.name.to_string(),
                ports: *range,
                family,
                verdict: Verdict::CannotTell {
                    why: why.to_owned(),
                },
            })
        })
        .collect();
    Report {
        table: TableState::Unknown,
        ports,
        notes,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.table {
            TableState::Absent => {
                writeln!(
                    f,
                    "table: there is none: nothing is guarded (is knockd running?)"
                )?;
            }
            TableState::Unknown => writeln!(f, "table: cannot tell")?,
            TableState::AsConfigured => writeln!(f, "table: as configured")?,
            TableState::Drift(text) => {
                writeln!(
                    f,
                    "table: not as configured (- configured, + found)\n{text}"
                )?;
            }
        }
        for port in &self.ports {
            writeln!(f, "{port}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PortReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "{} {} over {family}: ", self.door, self.ports)?;
        match &self.verdict {
            Verdict::Works => f.write_str("works"),
            Verdict::CannotTell { why } => write!(f, "cannot tell: {why}"),
            Verdict::Blocked { by, mark, mended } => {
                let chains: Vec<&str> = by.iter().map(|b| b.chain.as_str()).collect();
                write!(f, "blocked by {}", chains.join(" and "))?;
                if !mended {
                    return f.write_str("; an accepted mark does not help there");
                }
                if let Some(mark) = mark {
                    write!(f, "\n    set in [firewall]:  mark = {mark:#x}")?;
                }
                for Blocker { line, .. } in by {
                    write!(f, "\n    run:  {line}")?;
                }
                Ok(())
            }
        }
    }
}
