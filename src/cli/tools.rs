//! The subcommands of `knockd`: everything but running as the daemon.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args::Command;
use super::output::{print, print_all, spoils};
use crate::config::Audience;
use crate::daemon::remote::{self, Obeyed};
use crate::daemon::{self, Fault, Options, Order};
use crate::firewall::{self, Opening};
use crate::stderr::complain;
use crate::tools::check::{SavedTable, saved_in};
use crate::tools::convert::{self, ConversionNote};

/// Runs the subcommand.
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
        Command::Order(order) => obey(options, order),
        Command::Listener => daemon::listener(&options.run_dir)
            .map_err(|error| Fault::system("the listener's socket", error)),
        Command::Helper => daemon::helper(options),
    }
}

fn convert(file: &Path, native: bool) -> Result<(), Fault> {
    let text = std::fs::read(file).map_err(|source| Fault::Input {
        path: file.to_owned(),
        source,
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
    let table = daemon::table_name(options);
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

/// Sends the order to the daemon. If no daemon runs, obeys as far as that is possible without one.
fn obey(options: &Options, order: &Order) -> Result<(), Fault> {
    let lines = match remote::order(options, order)? {
        Obeyed::Done(lines) => Some(lines),
        Obeyed::Nobody(why) => daemon::obey(options, order, why)?,
    };
    match (order, lines.as_deref()) {
        (Order::Open { door, address, .. }, Some([])) => {
            let nothing = "done; nothing was opened that was not open already, or for longer";
            print(&format!("{address}: {door}: {nothing}\n"))
        }
        (Order::Close { .. }, Some([])) => print("nothing was open\n"),
        (_, Some(lines)) => print_all(lines),
        (_, None) => print_all(&[daemon::no_table(&daemon::table_name(options))]),
    }
}
