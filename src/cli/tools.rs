//! The subcommands of `knockd`: everything but running as the daemon.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::knockd::Command;
use crate::config::Audience;
use crate::daemon::{self, Fault, Options, remote};
use crate::firewall::{self, Opening};
use crate::stderr::complain;
use crate::tools::check::{SavedTable, saved_in};
use crate::tools::convert::{self, ConversionNote};

/// Does what the subcommand says.
pub(super) fn run(command: &Command, options: &Options) -> Result<(), Fault> {
    match command {
        Command::Check(check) => super::check::run(check, options),
        Command::Convert { file, native } => convert(file, *native),
        Command::Guard => print_all(daemon::guard(options)?.as_slice()),
        Command::List { json } => list(options, *json),
        Command::Status {
            json,
            saved_ruleset,
        } => status(options, *json, saved_ruleset),
        Command::Open {
            door,
            address,
            lifetime,
        } => open(options, door, *address, *lifetime),
        Command::Close { address, all: _ } => close(options, *address),
        Command::Clear => clear(options),
        Command::Reload => print_all(&remote::reload(options)?),
        Command::Helper => daemon::helper(options),
    }
}

pub(super) fn print(text: &str) -> Result<(), Fault> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fault::System(format!("cannot write: {error}")))
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

fn print_all(lines: &[String]) -> Result<(), Fault> {
    lines
        .iter()
        .try_for_each(|line| print(&format!("{line}\n")))
}

fn convert(file: &Path, native: bool) -> Result<(), Fault> {
    let text = std::fs::read(file).map_err(|error| Fault::Input {
        path: file.to_owned(),
        why: error.to_string(),
    })?;
    let name = file.to_string_lossy();
    let converted = convert::convert(&name, &text, native).map_err(|faults| {
        let reader = Audience::of(&io::stderr());
        let lines: Vec<_> = faults.iter().map(|one| one.shown_to(reader)).collect();
        Fault::Config(lines.join("\n"))
    })?;
    for ConversionNote { line, message } in converted.notes {
        if line == 0 {
            complain(format_args!("{name}: {message}"));
        } else {
            complain(format_args!("{name}:{line}: {message}"));
        }
    }
    print(&converted.toml)
}

fn list(options: &Options, as_json: bool) -> Result<(), Fault> {
    let table = table_name(options);
    let found = firewall::list(&table)?;
    let is_there = found.is_some();
    let openings = found.unwrap_or_default();
    if as_json {
        let all: Vec<_> = openings.iter().map(opening_json).collect();
        return print(&format!("{:#}\n", json!(all)));
    }
    if !is_there {
        return print_all(&[daemon::no_table(&table)]);
    }
    if openings.is_empty() {
        return print("nothing is open\n");
    }
    openings.iter().try_for_each(|opening| {
        let Opening {
            door,
            source,
            place,
            left,
        } = opening;
        let door = door.as_deref().unwrap_or("(by hand)");
        let left = left.map_or("until closed".to_owned(), |left| {
            format!(
                "{} left",
                daemon::duration(Duration::from_secs(left.as_secs()))
            )
        });
        print(&format!(
            "{source}\t{}\t{door}\t{left}\n",
            daemon::place_words(place)
        ))
    })
}

fn opening_json(opening: &Opening) -> serde_json::Value {
    json!({
        "source": opening.source,
        "door": opening.door.as_deref(),
        "opens": daemon::place_words(&opening.place),
        "left_ms": opening.left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    })
}

fn status(options: &Options, as_json: bool, saved_ruleset: &Path) -> Result<(), Fault> {
    let status = remote::status(options)?;
    let table = status.table.as_ref().map_or("", |table| &table.name);
    let saved = match table {
        "" => Vec::new(),
        table => saved_in(saved_ruleset, table),
    };
    if as_json {
        let mut value = json!(status);
        let saved = saved.iter().map(
            |SavedTable { file, lines }| json!({ "file": file.to_string_lossy(), "lines": lines }),
        );
        value["saved_ruleset"] = saved.collect();
        return print(&format!("{value:#}\n"));
    }
    let saved = saved.iter().map(|saved| spoils(saved, table) + "\n");
    print(&(status.to_string() + &saved.collect::<String>()))
}

/// What is said loudly of a saved ruleset that has our table in it.
pub(super) fn spoils(saved: &SavedTable, table: &str) -> String {
    format!(
        "TAKE OUT OF THE SAVED RULESET: {saved}: that is table inet {table}, which knockd makes by \
         itself. As long as it is there, `systemctl restart nftables` fails whole where the \
         running daemon owns its table, and NONE OF YOUR OWN RULES are loaded; elsewhere, and at \
         boot, an old copy comes back"
    )
}

fn open(
    options: &Options,
    door: &str,
    address: IpAddr,
    lifetime: Option<Duration>,
) -> Result<(), Fault> {
    let opened = match remote::open(options, door, address, lifetime) {
        Some(done) => done?,
        None => daemon::open(options, door, address, lifetime)?,
    };
    if opened.is_empty() {
        let nothing = "done; nothing was opened that was not open already, or for longer";
        return print(&format!("{address}: {door}: {nothing}\n"));
    }
    print_all(&opened)
}

fn close(options: &Options, address: Option<IpAddr>) -> Result<(), Fault> {
    let closed = match remote::close(options, address) {
        Some(done) => Some(done?),
        None => daemon::close(options, address)?,
    };
    match closed.as_deref() {
        Some([]) => print("nothing was open\n"),
        Some(lines) => print_all(lines),
        None => print_all(&[daemon::no_table(&table_name(options))]),
    }
}

fn clear(options: &Options) -> Result<(), Fault> {
    if let Some(done) = remote::clear(options) {
        return print_all(&done?);
    }
    let table = table_name(options);
    let line = match daemon::clear(options, &table)? {
        true => daemon::removed(&table),
        false => daemon::no_table(&table),
    };
    print_all(&[line])
}

/// The table's name: the configuration's, or where that has none or cannot be read, the
/// usual one. What an earlier configuration left behind can be seen and cleared all the same.
fn table_name(options: &Options) -> String {
    let (path, _) = options.config_path();
    let config = daemon::configuration(options, &path).ok();
    let firewall = config.and_then(|config| config.firewall);
    firewall.unwrap_or_default().table
}
