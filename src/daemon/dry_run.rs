//! `--dry-run` prints what the configuration would do. It changes nothing and needs no privilege. With
//! `--read` it prints what the configuration would have done with a capture.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::action;
use crate::action::command::expand;
use crate::action::used_sequences::UsedSequences;
use crate::capture::{CaptureError, CaptureFile};
use crate::config::Audience;
use crate::decode::decode;
use crate::firewall::{Preview, Ruleset, render};
use crate::matcher::{Matcher, Settings};
use crate::model::{Config, DoorId, Event, Outcome, StartCommand, Timestamp};
use crate::stderr::complain;

use super::Fault;
use super::log::log_lines;
use super::packets::cooldown::Cooldowns;
use super::packets::pipeline::tripwires;
use super::setup::{Options, Unusable};

/// The secret of keyed hashes in a replay. It is fixed, so that each replay gives the same answer.
const SECRET: [u8; 16] = *b"knockd's replay.";

/// Prints the table, the elements that each door would put into it, and the commands that it would
/// run. With a capture, it then prints the events that the packets cause.
///
/// # Errors
/// The configuration has errors, the capture cannot be read, stdout cannot be written.
pub fn dry_run(options: &Options, read: Option<&Path>) -> Result<(), Fault> {
    let (path, note) = options.config_path();
    let mut setup = options.read(&path).map_err(Unusable::into_fault)?;
    // Only root can read which sequences were used. For other users the marks in the files decide.
    setup.await_sequences(UsedSequences::load(options.state(&path).dir(), SECRET));
    if let Some(line) = &note {
        complain(format_args!("{line}"));
    }
    let reader = Audience::of(&io::stderr());
    for remark in &setup.warnings {
        complain(format_args!("{}", remark.shown_to(reader)));
    }
    // One write for many lines: a replay may print millions.
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = print(&mut out, options, setup.config, read);
    match printed.and_then(|()| out.flush().map_err(PrintError::Output)) {
        // The reader has closed the pipe, as `| head` does: that is no fault.
        Err(PrintError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(PrintError::Output(error)) => Err(Fault::output(error)),
        Err(PrintError::Fault(fault)) => Err(fault),
        Ok(()) => Ok(()),
    }
}

enum PrintError {
    Output(io::Error),
    Fault(Fault),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<CaptureError> for PrintError {
    fn from(error: CaptureError) -> Self {
        Self::Fault(error.into())
    }
}

fn print(
    out: &mut impl Write,
    options: &Options,
    config: Config,
    read: Option<&Path>,
) -> Result<(), PrintError> {
    let (path, _) = options.config_path();
    let ruleset = Ruleset::new(&config).map(|ruleset| ruleset.of(&path));
    if let Some(ruleset) = &ruleset {
        write!(out, "{}", render::nft(ruleset))?;
    }
    for door in &*config.doors {
        writeln!(out, "\n# {}: what a knock does for SOURCE", door.name)?;
        if let Some(ruleset) = &ruleset {
            for line in render::door(ruleset, door) {
                writeln!(out, "#   {line}")?;
            }
        }
        if let Some(commands) = &door.commands {
            let strings = [
                ("start_command", &commands.start),
                ("start_command_6", &commands.start_6),
                ("stop_command", &commands.stop),
                ("stop_command_6", &commands.stop_6),
            ];
            for (key, string) in strings {
                if let Some(string) = string {
                    writeln!(out, "#   {key}: {string}")?;
                }
            }
        }
    }
    match read {
        Some(file) => replay(out, options, config, ruleset.map(Preview::new), file),
        None => Ok(()),
    }
}

fn replay(
    out: &mut impl Write,
    options: &Options,
    mut config: Config,
    mut table: Option<Preview>,
    file: &Path,
) -> Result<(), PrintError> {
    let mut capture = CaptureFile::open(file)?;
    let wires = tripwires(&config);
    let mut matcher = Matcher::new(config.doors.clone(), wires, Settings::new(SECRET));
    let mut cooldowns = Cooldowns::default();
    let mut events = Vec::new();
    let mut end = Timestamp::default();
    while let Some(frame) = capture.next_frame()? {
        // By reference: to move it out of the option would copy it, for each packet.
        let Some(knock) = &decode(&frame) else {
            continue;
        };
        if options.only_ip_v4 && knock.source.is_ipv6() {
            continue;
        }
        // Time goes forward, even where the packets of a file do not.
        end = end.max(knock.at);
        matcher.expire(knock.at, &mut events);
        // Every destination counts as this host's own: the file does not say whose it was.
        matcher.observe(knock, true, &mut events);
        if events.is_empty() {
            continue;
        }
        let mut used = false;
        for event in events.drain(..) {
            if let (Outcome::Open, Some(door)) =
                (event.outcome, config.doors.get(event.door.index()))
                && cooldowns.rests(door, event.source, event.at)
            {
                continue;
            }
            tell(out, &config, table.as_mut(), &event)?;
            used |= event.outcome == Outcome::Open && use_up(&mut config, event.door);
        }
        if used {
            let wires = tripwires(&config);
            matcher.reload(config.doors.clone(), wires, knock.at, &mut events);
            // Only the door just opened has changed, and it has no attempts but strangers'.
            events.clear();
        }
    }
    while let Some(deadline) = matcher.next_deadline().filter(|d| *d <= end) {
        matcher.expire(deadline, &mut events);
        for event in events.drain(..) {
            tell(out, &config, table.as_mut(), &event)?;
        }
    }
    Ok(())
}

/// Prints one event with its time, and the effects of an event that opens a door.
fn tell(
    out: &mut impl Write,
    config: &Config,
    table: Option<&mut Preview>,
    event: &Event,
) -> io::Result<()> {
    let Some(door) = config.doors.get(event.door.index()) else {
        return Ok(());
    };
    let when = clock(event.at);
    let line = log_lines::event(event, event.source.into(), &door.name, true);
    writeln!(out, "{when} {line}")?;
    if event.outcome != Outcome::Open {
        return Ok(());
    }
    let effects = action::plan(event.door, config, event.source);
    let sent = table.map(|table| table.apply(&effects.sets, event.at).to_string());
    for line in sent.iter().flat_map(|text| text.lines()) {
        writeln!(out, "    {line}")?;
    }
    if let Some(StartCommand { source, .. }) = effects.command
        && let Some(string) = door.commands.as_ref().and_then(|c| c.start_for(source))
    {
        writeln!(out, "    run: {}", expand(string, source))?;
    }
    Ok(())
}

/// Returns the time as in RFC 3339, in UTC, to the microsecond.
fn clock(at: Timestamp) -> String {
    let nanos = i128::from(at.0);
    match jiff::Timestamp::from_nanosecond(nanos) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => format!("{nanos} ns"),
    }
}

/// Disables a door of one-time sequences that has opened: a replay leaves the file as it is, so only
/// its first sequence counts. Returns whether anything has changed.
fn use_up(config: &mut Config, id: DoorId) -> bool {
    let door = config.doors.get(id.index());
    let used = door.is_some_and(|door| door.one_time.is_some());
    if used && let Some(door) = Arc::make_mut(&mut config.doors).get_mut(id.index()) {
        door.sequence = Box::default();
    }
    used
}
