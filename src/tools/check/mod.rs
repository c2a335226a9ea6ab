//! `knockd check`: finds out whether the doors work on this machine, beside the other tables in
//! nftables.
//!
//! Rules are not read, they are tried. The live ruleset is copied into a network namespace of its own
//! that has this host's interfaces and addresses: the `replica`. Our table is put beside it. A client
//! at the other end of a wire connects, before it has knocked and after: a `trial`. A trial that is
//! stopped is repeated with the chains of others taken away and put back: the `search`. A line that
//! lets it pass is tried before it is printed. The live system is looked at, never changed.

mod drift;
mod error;
mod host_interfaces;
mod live_ruleset;
mod netns;
mod program;
mod remedy;
mod replica;
mod report;
mod saved_ruleset;
mod search;
mod trial;
mod trial_source;
mod ways;

pub use report::{
    Blocker, CheckReport, DaemonState, DoorReport, DoorVerdict, Finding, Repair, TableState, Way,
};
pub use saved_ruleset::{SavedTable, saved_in};

use std::collections::BTreeSet;
use std::path::Path;

use error::ProbeError;
use host_interfaces::HostInterface;
use live_ruleset::LiveRuleset;
use replica::Replica;
use search::Search;
use trial::Trial;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::firewall::ruleset::{IpFamily, Ruleset};
use crate::firewall::{self, FirewallError, Notice, Presence};
use crate::model::{Config, Firewall, Pattern};

/// Looks at the live system and tries every door in a replica of it. `config` is the configuration
/// of the file at `path`.
///
/// # Errors
///
/// If nftables cannot be read, mostly for want of privilege, or if the configuration has no table.
/// Everything else that fails stands in the report.
pub fn probe(config: &Config, path: &Path) -> Result<CheckReport, FirewallError> {
    let (Some(ruleset), Some(firewall)) = (Ruleset::new(config), &config.firewall) else {
        return Err(FirewallError::None);
    };
    let ruleset = ruleset.of(path);
    let inspection = firewall::inspect(&ruleset)?;
    let remarks: Vec<String> = inspection.notices.iter().map(Notice::to_string).collect();
    // The states that need no comparison.
    let plain = match inspection.table {
        Presence::Absent => Some(TableState::Absent),
        Presence::Foreign => Some(TableState::Foreign),
        Presence::Ours => None,
    };
    let unknown = |error: ProbeError| {
        let why = error.to_string();
        let table = plain.clone().unwrap_or(TableState::Unknown(why.clone()));
        (table, doors(config, &[], &why))
    };
    let (table, doors) = LiveRuleset::read(&inspection)
        .and_then(|live| look(config, firewall, &ruleset, live, &plain))
        .unwrap_or_else(unknown);
    Ok(CheckReport {
        table,
        doors,
        remarks,
    })
}

/// Returns the state of our table, and the reports of the doors.
fn look(
    config: &Config,
    firewall: &Firewall,
    ruleset: &Ruleset,
    mut live: LiveRuleset,
    plain: &Option<TableState>,
) -> Result<(TableState, Vec<DoorReport>), ProbeError> {
    // Each trial takes three files. A trial that cannot have them is reported as such.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let links = host_interfaces::all()?;
    let replica = Replica::new(&links)?;
    let table = match plain {
        Some(state) => state.clone(),
        None => match drift::drift(&replica, ruleset)? {
            None => TableState::AsConfigured,
            Some(diff) => TableState::Drifted(diff),
        },
    };
    let numbers = live.numbers();
    replica.sift(&mut live)?;
    let search = Search {
        replica: &replica,
        live: &live,
        config,
        ruleset,
        guard: firewall.guard,
    };
    let mut found = Vec::new();
    for link in links.iter().filter(|l| l.counts(&config.interfaces)) {
        let trials = trials(config, firewall, (&links, link), &numbers);
        if trials.is_empty() {
            continue;
        }
        let verdicts = match search.judge(link, &trials) {
            Ok(verdicts) => verdicts,
            Err(error) => vec![DoorVerdict::CannotTell(error.to_string()); trials.len()],
        };
        found.extend(ways::ways(link, trials.into_iter().zip(verdicts)));
    }
    let missing = missing(config);
    let why = if !missing.is_empty() && missing.len() == config.interfaces.len() {
        format!("there is no interface {}", missing.join(", nor "))
    } else if config.interfaces.is_empty() {
        "there is no way in: no interface but lo has an address, or nobody may knock who has to"
            .to_owned()
    } else {
        let names: Vec<_> = config.interfaces.iter().map(Pattern::as_str).collect();
        format!(
            "there is no way in: of the interfaces that count ({}) none has an address, or nobody \
             may knock who has to",
            names.join(", ")
        )
    };
    Ok((table, doors(config, &found, &why)))
}

/// Returns the interfaces that the configuration names and this host does not have.
#[must_use]
pub fn missing(config: &Config) -> Vec<&str> {
    let named = config.interfaces.iter().filter(|name| name.is_literal());
    let absent = |name: &&str| nix::net::if_::if_nametoindex(*name).is_err();
    named.map(Pattern::as_str).filter(absent).collect()
}

/// Returns the trials of one interface.
fn trials(
    config: &Config,
    firewall: &Firewall,
    (links, link): (&[HostInterface], &HostInterface),
    numbers: &BTreeSet<u16>,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (i, door) in config.doors.iter().enumerate() {
        for family in IpFamily::BOTH {
            let own = |address| {
                let mut all = links.iter().flat_map(|l| &l.addresses);
                all.any(|(a, _)| *a == address)
            };
            let source = trial_source::of(door, family, &firewall.trusted, own);
            let Some(source) = source else {
                continue;
            };
            for to in link.addresses(family).take(ways::ADDRESSES) {
                for ports in &door.open {
                    trials.extend(ways::samples(ports, numbers).into_iter().map(|port| Trial {
                        door: i,
                        ports: *ports,
                        port,
                        source,
                        to,
                    }));
                }
            }
        }
    }
    trials
}

/// Returns the findings by door. A door that opens ports and has no finding is reported with `why`.
fn doors(config: &Config, found: &[(usize, Way, DoorVerdict)], why: &str) -> Vec<DoorReport> {
    let each = config.doors.iter().enumerate().map(|(i, door)| {
        let mut findings: Vec<Finding> = Vec::new();
        for (_, way, verdict) in found.iter().filter(|(n, ..)| *n == i) {
            match findings.iter_mut().find(|f| f.verdict == *verdict) {
                Some(finding) => finding.ways.push(way.clone()),
                None => findings.push(Finding {
                    verdict: verdict.clone(),
                    ways: vec![way.clone()],
                }),
            }
        }
        if findings.is_empty() {
            let verdict = match door.open.is_empty() {
                true => DoorVerdict::NothingToTry,
                false => DoorVerdict::CannotTell(why.to_owned()),
            };
            let ways = Vec::new();
            findings.push(Finding { verdict, ways });
        }
        DoorReport {
            door: door.name.clone(),
            findings,
        }
    });
    each.collect()
}
