//! The status of the daemon: for a machine as JSON, for people line by line.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::daemon::clock::duration;
use crate::sandbox::Confinement;

/// The status of the daemon: its configuration, its interfaces, its doors, and counts since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version; the client may have another.
    pub version: String,
    /// The daemon's process number.
    pub pid: u32,
    /// The time since the start, in seconds.
    pub uptime_s: u64,
    /// The path of the daemon's configuration file.
    pub configuration: String,
    /// Present if that file was refused when it was last read, and is not what runs.
    #[serde(default)]
    pub refused: Option<RefusedFile>,
    /// The interfaces to listen to as configured, in words.
    pub interfaces: String,
    /// The names of the interfaces that are there and listened to.
    pub listening: Vec<String>,
    /// Configured names that no interface has.
    pub waiting_for: Vec<String>,
    /// Interfaces at which nobody can knock, since they have no address.
    pub without_address: Vec<String>,
    /// The doors, in the order of the file.
    pub doors: Vec<DoorStatus>,
    /// How many times a door was opened by a knock.
    pub opened: u64,
    /// The table of attempts.
    pub attempts: AttemptsStatus,
    /// The packets that passed the filter.
    pub packets: PacketsStatus,
    /// The daemon's processes, but for the one that runs commands, and what each may still do.
    #[serde(default)]
    pub processes: Vec<ProcessStatus>,
    /// The configuration has a table, and it was taken away by hand.
    #[serde(default)]
    pub cleared: bool,
    /// Absent: the configuration has none, or it was cleared.
    pub table: Option<TableStatus>,
}

/// A file that is not what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFile {
    /// The configuration that runs instead, in words.
    pub in_use: String,
    /// Why, the first line of each fault.
    pub why: Vec<String>,
}

impl RefusedFile {
    /// The text of [`in_use`](Self::in_use) after a reload that was refused.
    pub(crate) const RUNNING: &str = "the configuration that was running";
    /// The text of [`in_use`](Self::in_use) after a start with a file that was refused.
    pub(crate) const LAST_GOOD: &str = "the last configuration that was good";

    /// Keeps the first line of each fault: the others quote the file.
    pub(crate) fn new(in_use: String, why: &[String]) -> Self {
        let first = |fault: &String| fault.lines().next().unwrap_or_default().to_owned();
        Self {
            in_use,
            why: why.iter().map(first).collect(),
        }
    }
}

/// The status of one door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    pub name: String,
    /// True if the door's one-time sequences are used up.
    pub disabled: bool,
}

/// The table of attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptsStatus {
    /// How many there are.
    pub live: usize,
    /// How many there is room for.
    pub capacity: usize,
    /// How many were removed to make room.
    pub evicted: u64,
}

/// Counts of packets since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketsStatus {
    /// How many packets were read.
    pub read: u64,
    /// How many packets the kernel dropped before they were read; `None` if their number is unknown.
    pub lost: Option<u64>,
    /// The port that most of them went to lately, if there is one and it is no step.
    pub busiest: Option<String>,
}

/// One of the daemon's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// What it is.
    pub name: String,
    /// What it may still do.
    pub confinement: Confinement,
}

/// The table in nftables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    pub name: String,
    /// True if the kernel keeps others from the table. False if the table is watched.
    pub owned: bool,
    /// How many openings it holds.
    pub openings: usize,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            pid,
            uptime_s,
            configuration,
            refused,
            interfaces,
            listening,
            waiting_for,
            without_address,
            doors,
            opened,
            attempts,
            packets,
            processes,
            cleared,
            table,
        } = self;
        let up = duration(Duration::from_secs(*uptime_s));
        writeln!(f, "knockd {version}, process {pid}, up {up}")?;
        writeln!(f, "configuration: {configuration}")?;
        if let Some(refused) = refused {
            writeln!(f, "file: {refused}")?;
        }
        writeln!(f, "listening on: {} ({interfaces})", names(listening))?;
        for (what, list) in [
            ("waiting for", waiting_for),
            ("no address on", without_address),
        ] {
            if !list.is_empty() {
                writeln!(f, "{what}: {}", names(list))?;
            }
        }
        let doors: Vec<_> = doors.iter().map(ToString::to_string).collect();
        writeln!(f, "doors: {}", names(&doors))?;
        match table {
            Some(table) => writeln!(f, "table: {table}")?,
            None if *cleared => writeln!(
                f,
                "table: CLEARED, nothing is guarded until a reload or start"
            )?,
            None => writeln!(f, "table: none, nothing is guarded")?,
        }
        writeln!(f, "knocks: {opened} opened a door")?;
        writeln!(f, "attempts: {attempts}")?;
        writeln!(f, "packets: {packets}")?;
        processes.iter().try_for_each(|process| {
            writeln!(f, "process {}: {}", process.name, process.confinement)
        })
    }
}

fn names(list: &[String]) -> String {
    match list {
        [] => "none".to_owned(),
        _ => list.join(", "),
    }
}

impl fmt::Display for RefusedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_use, why } = self;
        write!(f, "REFUSED, in use is {in_use}")?;
        match why.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ": {one}"),
            [first, more @ ..] => write!(f, ": {first} (and {} more)", more.len()),
        }
    }
}

impl fmt::Display for DoorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, disabled } = self;
        f.write_str(name)?;
        match disabled {
            true => f.write_str(" (disabled: no more one-time sequences)"),
            false => Ok(()),
        }
    }
}

impl fmt::Display for TableStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            owned,
            openings,
        } = self;
        let how = if *owned { "owned" } else { "watched" };
        write!(f, "inet {name}, {how}, {openings} openings")
    }
}

impl fmt::Display for AttemptsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            live,
            capacity,
            evicted,
        } = self;
        write!(f, "{live} live, room for {capacity}, {evicted} evicted")
    }
}

impl fmt::Display for PacketsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            read,
            lost,
            busiest,
        } = self;
        write!(f, "{read} read")?;
        if let Some(lost) = lost {
            write!(f, ", {lost} lost")?;
        }
        match busiest {
            Some(port) => write!(
                f,
                ", of late most to {port} (ignore = ['{port}'] in a knockd.toml?)"
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_for_people() {
        let door = |name: &str, disabled| DoorStatus {
            name: name.to_owned(),
            disabled,
        };
        let status = Status {
            version: "0.9.0".to_owned(),
            pid: 4515,
            uptime_s: 182,
            configuration: "/etc/knockd.toml".to_owned(),
            refused: None,
            interfaces: "eth0, ppp*".to_owned(),
            listening: vec!["eth0".to_owned()],
            waiting_for: vec!["ppp*".to_owned()],
            without_address: Vec::new(),
            doors: vec![door("ssh", false), door("once", true)],
            opened: 3,
            attempts: AttemptsStatus {
                live: 1,
                capacity: 262_144,
                evicted: 0,
            },
            packets: PacketsStatus {
                read: 12,
                lost: Some(0),
                busiest: Some("443/tcp".to_owned()),
            },
            processes: Vec::new(),
            cleared: false,
            table: Some(TableStatus {
                name: "knockd".to_owned(),
                owned: true,
                openings: 1,
            }),
        };
        assert_eq!(
            status.to_string(),
            "knockd 0.9.0, process 4515, up 3m 2s\n\
             configuration: /etc/knockd.toml\n\
             listening on: eth0 (eth0, ppp*)\n\
             waiting for: ppp*\n\
             doors: ssh, once (disabled: no more one-time sequences)\n\
             table: inet knockd, owned, 1 openings\n\
             knocks: 3 opened a door\n\
             attempts: 1 live, room for 262144, 0 evicted\n\
             packets: 12 read, 0 lost, of late most to 443/tcp (ignore = ['443/tcp'] in a knockd.toml?)\n"
        );
        let why = [
            "/etc/knockd.toml:3:1: error: unknown key\n  sequence = [1, 2]",
            "b",
        ];
        let why = why.map(str::to_owned);
        let status = Status {
            refused: Some(RefusedFile::new(RefusedFile::LAST_GOOD.to_owned(), &why)),
            cleared: true,
            table: None,
            ..status
        };
        let said = status.to_string();
        for line in [
            "\nfile: REFUSED, in use is the last configuration that was good: \
             /etc/knockd.toml:3:1: error: unknown key (and 1 more)\n",
            "\ntable: CLEARED, nothing is guarded until a reload or start\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
    }
}
