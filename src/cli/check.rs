//! `knockd check`: reports the faults of the file, and whether its doors work on this host.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::output::{print, spoils};
use super::services;
use crate::action::command;
use crate::config::{self, Audience};
use crate::daemon::{self, Fault, Options, ShutDoor, remote};
use crate::firewall::{FirewallError, ruleset::IpFamily};
use crate::model::Config;
use crate::tools::check::{
    self as probe, Blocker, CheckReport, DaemonState, DoorVerdict, Finding, Repair, SavedTable,
    TableState, Way,
};

/// What is checked, and how it is said.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The file [default: as the daemon would take].
    file: Option<PathBuf>,
    /// Look at the file alone, not at the running system.
    #[arg(long)]
    file_only: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Where the ruleset that is loaded at boot is kept.
    #[arg(long, value_name = "FILE", default_value = "/etc/nftables.conf")]
    saved_ruleset: PathBuf,
}

/// The running system, as far as `knockd check` has looked at it.
enum LiveCheck {
    /// The system was not looked at, for this reason: nobody asked, or there is nothing to look for.
    Unasked(&'static str),
    /// Only root may look at the system.
    NotAllowed,
    /// The findings.
    Seen(CheckReport),
}

/// The reason why the running system is not looked at for users other than root.
const NEEDS_ROOT: &str = "that needs root (CAP_NET_ADMIN)";

pub(super) fn run(check: &Check, options: &Options) -> Result<(), Fault> {
    let path = match &check.file {
        Some(path) => path.clone(),
        None => options.config_path().0,
    };
    let loaded = config::load(&path, &options.folder).map_err(Fault::from)?;
    let reader = Audience::of(&std::io::stdout());
    let all = loaded.report.diagnostics.iter();
    let mut said: Vec<String> = all.map(|one| one.shown_to(reader)).collect();
    let Some(mut config) = loaded.report.config else {
        let fault = Fault::Config(format!("{} cannot be used", path.display()));
        match check.json {
            true => print(&file_json(
                &path,
                None,
                &said,
                &LiveCheck::Unasked("the configuration cannot be used"),
                &[],
            ))?,
            false => said.iter().try_for_each(|s| print(&format!("{s}\n")))?,
        }
        return Err(fault);
    };
    if !options.interfaces.is_empty() {
        let meant = options.interfaces.iter();
        config.interfaces = meant.map(|i| crate::model::Pattern::new(i)).collect();
    }
    let saved = saved_ruleset(&check.saved_ruleset, &config);
    let table = config.firewall.as_ref().map_or("", |f| &f.table);
    said.extend(saved.iter().map(|saved| spoils(saved, table)));
    said.extend(
        options
            .doubtful_interfaces()
            .chain(command::doubtful_environment(&config))
            .map(|text| format!("warning: {text}")),
    );
    if !check.file_only {
        said.extend(busy_services(&path, &config));
    }
    let mut live = match check.file_only {
        true => LiveCheck::Unasked("the file alone was asked for"),
        false => look(&config, &path)?,
    };
    let mut problems = Vec::new();
    if !check.file_only {
        let of = |saved: &SavedTable| format!("table inet {table} is in {}", saved.file.display());
        problems.extend(saved.iter().map(of));
    }
    let mut shut = Vec::new();
    if !check.file_only {
        let missing = missing(&path, &config);
        let all = missing.len() == config.interfaces.len();
        problems.extend(
            missing
                .iter()
                .filter(|_| all)
                .map(|(name, _)| format!("there is no interface {name}")),
        );
        said.extend(missing.into_iter().map(|(_, line)| line));
        shut = daemon::shut_doors(options, &path, &config);
    }
    match &mut live {
        LiveCheck::Seen(report) => {
            tell_shut(report, &shut);
            problems.extend(report.problems(|| match remote::runs(options, &path) {
                Ok(true) => DaemonState::Runs,
                Ok(false) => DaemonState::Absent,
                Err(Fault::Permission(_)) => DaemonState::NotAllowed,
                Err(_) => DaemonState::Hangs,
            }));
        }
        LiveCheck::Unasked(_) | LiveCheck::NotAllowed => {
            let known = shut.iter().filter(|door| door.is_certain);
            problems.extend(known.map(|door| format!("{} opens to nobody", door.name)));
        }
    }
    if check.json {
        print(&file_json(&path, Some(&config), &said, &live, &shut))?;
    } else {
        print(&text(&path, &config, &said, &live, &shut))?;
    }
    let count = match problems.len() {
        0 => return Ok(()),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    Err(Fault::Unavailable(format!(
        "{count}: {}",
        problems.join("; ")
    )))
}

/// Replaces the findings of doors at which nobody can knock by "opens to nobody". Such a door lets
/// nobody in, whatever the trials have shown.
fn tell_shut(report: &mut CheckReport, shut: &[ShutDoor]) {
    for door in &mut report.doors {
        let why = shut.iter().find(|shut| shut.name == door.door);
        if let Some(shut) = why {
            let why = shut.why.clone();
            door.findings = vec![Finding {
                verdict: match shut.is_certain {
                    true => DoorVerdict::NobodyMay(why),
                    false => DoorVerdict::CannotTell(why),
                },
                ways: Vec::new(),
            }];
        }
    }
}

/// Returns the interfaces that the configuration names and this host does not have, each with a
/// warning.
fn missing(path: &Path, config: &Config) -> Vec<(String, String)> {
    let missing = probe::missing(config);
    let line = |name: &str| {
        let path = path.display();
        let line = format!(
            "{path}: warning: there is no interface {name}: nobody can knock there until there is"
        );
        (name.to_owned(), line)
    };
    missing.into_iter().map(line).collect()
}

fn look(config: &Config, path: &Path) -> Result<LiveCheck, Fault> {
    match probe::probe(config, path) {
        Ok(report) => Ok(LiveCheck::Seen(report)),
        Err(FirewallError::None) => Ok(LiveCheck::Unasked("the configuration has no table")),
        Err(FirewallError::Permission) => Ok(LiveCheck::NotAllowed),
        Err(other) => Err(other.into()),
    }
}

/// Returns the places of the ruleset that is loaded at boot that have our table in them.
fn saved_ruleset(file: &Path, config: &Config) -> Vec<SavedTable> {
    let firewall = config.firewall.as_ref();
    firewall.map_or_else(Vec::new, |f| probe::saved_in(file, &f.table))
}

/// Returns a hint if services of this host get many packets that knockd would read for nothing.
fn busy_services(path: &Path, config: &Config) -> Option<String> {
    let ports = services::worth_ignoring(config);
    let ports: Vec<_> = ports.iter().map(|port| format!("\"{port}\"")).collect();
    (!ports.is_empty()).then(|| {
        format!(
            "{}: hint: services of this host hear much that knockd need not read: add to \
             `ignore`: [{}]",
            path.display(),
            ports.join(", ")
        )
    })
}

fn text(
    path: &Path,
    config: &Config,
    said: &[String],
    live: &LiveCheck,
    shut: &[ShutDoor],
) -> String {
    let mut text: String = said.iter().map(|s| format!("{s}\n")).collect();
    let doors = match config.doors.len() {
        1 => "1 door".to_owned(),
        many => format!("{many} doors"),
    };
    text += &format!("{}: {doors}, no errors\n", path.display());
    let report = match live {
        LiveCheck::Unasked(_) | LiveCheck::NotAllowed => {
            text.extend(shut.iter().map(
                |ShutDoor {
                     name,
                     why,
                     is_certain,
                 }| match is_certain {
                    true => format!("{name}: OPENS TO NOBODY: {why}\n"),
                    false => format!("{name}: cannot tell: {why}\n"),
                },
            ));
            if let LiveCheck::NotAllowed = live {
                text += &format!("the running system was not looked at: {NEEDS_ROOT}\n");
            }
            return text;
        }
        LiveCheck::Seen(report) => report,
    };
    let table = config.firewall.as_ref().map_or("", |f| &f.table);
    text += &match &report.table {
        TableState::AsConfigured => format!("table inet {table}: as configured\n"),
        TableState::Absent => format!(
            "table inet {table}: ABSENT: nothing is guarded; start knockd (the doors were tried \
             as if it ran)\n"
        ),
        TableState::Foreign => format!(
            "table inet {table}: NOT KNOCKD'S: somebody else has made it, and knockd does not \
             start; set another name in [firewall] table, or delete it (nft delete table inet \
             {table})\n"
        ),
        TableState::Drifted(diff) => format!(
            "table inet {table}: NOT AS CONFIGURED: start or reload knockd (the doors were tried \
             as if it were)\n{diff}"
        ),
        TableState::Unknown(why) => format!("table inet {table}: cannot tell: {why}\n"),
    };
    for remark in &report.remarks {
        text += &format!("warning: {remark}\n");
    }
    for door in &report.doors {
        text += &door.to_string();
    }
    text
}

fn file_json(
    path: &Path,
    config: Option<&Config>,
    said: &[String],
    live: &LiveCheck,
    shut: &[ShutDoor],
) -> String {
    let (live, not_looked_at) = match live {
        LiveCheck::Unasked(why) => (Value::Null, Some(*why)),
        LiveCheck::NotAllowed => (Value::Null, Some(NEEDS_ROOT)),
        LiveCheck::Seen(report) => (report_json(report), None),
    };
    let shut = shut.iter().filter(|door| door.is_certain);
    let shut: Vec<_> = shut
        .map(|door| json!({ "door": &*door.name, "why": door.why }))
        .collect();
    let value = json!({
        "file": path.to_string_lossy(),
        "open_to_nobody": shut,
        "usable": config.is_some(),
        "diagnostics": said,
        "live": live,
        "not_looked_at": not_looked_at,
    });
    format!("{value:#}\n")
}

fn report_json(report: &CheckReport) -> Value {
    let CheckReport {
        table,
        doors,
        remarks,
    } = report;
    let table = match table {
        TableState::AsConfigured => json!({ "state": "as configured" }),
        TableState::Absent => json!({ "state": "absent" }),
        TableState::Foreign => json!({ "state": "not knockd's" }),
        TableState::Drifted(diff) => json!({ "state": "not as configured", "diff": diff }),
        TableState::Unknown(why) => json!({ "state": "cannot tell", "why": why }),
    };
    let doors = doors.iter().map(|door| {
        let findings: Vec<_> = door.findings.iter().map(finding_json).collect();
        json!({ "door": &*door.door, "findings": findings })
    });
    let doors: Vec<_> = doors.collect();
    json!({ "table": table, "doors": doors, "remarks": remarks })
}

fn finding_json(finding: &Finding) -> Value {
    let Finding { verdict, ways } = finding;
    let ways: Vec<_> = ways.iter().map(way_json).collect();
    match verdict {
        DoorVerdict::Works => json!({ "verdict": "works", "ways": ways }),
        DoorVerdict::Unguarded => json!({ "verdict": "not guarded", "ways": ways }),
        DoorVerdict::Blocked { by, repair } => {
            let by = by
                .iter()
                .map(|Blocker { chain, policy }| json!({ "chain": chain, "policy": policy }));
            let mend = repair.as_ref().map(
                |Repair { mark, lines, keep }| json!({ "mark": mark, "lines": lines, "keep": keep }),
            );
            let by: Vec<_> = by.collect();
            json!({ "verdict": "blocked", "ways": ways, "by": by, "mend": mend })
        }
        DoorVerdict::CannotTell(why) => {
            json!({ "verdict": "cannot tell", "ways": ways, "why": why })
        }
        DoorVerdict::NothingToTry => json!({ "verdict": "nothing to try", "ways": ways }),
        DoorVerdict::NobodyMay(why) => {
            json!({ "verdict": "opens to nobody", "ways": ways, "why": why })
        }
    }
}

fn way_json(way: &Way) -> Value {
    let Way {
        interface,
        family,
        ports,
        address,
    } = way;
    let family = match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    };
    json!({ "interface": interface, "family": family, "ports": ports.to_string(), "address": address })
}
