//! The one check: a draft of either format becomes a [`Config`], or the reasons why not.

mod door;
mod firewall;
mod names;
mod sequence;
mod together;

use std::path::PathBuf;
use std::time::Duration;

use super::Host;
use super::diagnostic::Faults;
use super::draft::{Draft, DraftDoor, DraftLog, Field, List};
use super::source::{Span, Spanned};
use crate::model::{Config, Log, MAX_TIME, Pattern, Protocol, SetPath, Step};

/// More doors than this cannot be told apart by [`crate::model::DoorId`].
const DOORS_MAX: usize = u16::MAX as usize;

/// Judges a draft. Warnings alone do not keep a configuration from being used.
pub(super) fn check(draft: &Draft, host: &Host, faults: &mut Faults) -> Option<Config> {
    if let Some(first_too_many) = draft.doors.get(DOORS_MAX) {
        faults.error(
            &first_too_many.name.span,
            format!(
                "{} doors: at most {DOORS_MAX} can be had",
                draft.doors.len()
            ),
        );
        return None;
    }
    let tripwires = draft.tripwires.or_default();
    let config = Config {
        interfaces: interfaces(&draft.interfaces, faults),
        ignore: door::ranges(&draft.ignore, faults),
        tripwires,
        log: log(&draft.log, faults),
        pid_file: path(&draft.pid_file, faults),
        firewall: firewall::firewall(draft, host, faults),
        doors: draft
            .doors
            .iter()
            .map(|door| door::door(door, &draft.defaults, tripwires, faults))
            .collect(),
    };
    together::together(draft, faults);
    doors_for_sessions(draft, faults);
    some_door(draft, faults);
    (!faults.any_error()).then_some(config)
}

/// The socket filter knows no step, but for doors whose flags fit packets of established
/// sessions: it cannot pass all of those. So who probes with such packets can tell the steps by
/// the time that the kernel takes; and a scan by them is seen at the steps alone, where one in order
/// goes through steps that rise or fall.
fn doors_for_sessions(draft: &Draft, faults: &mut Faults) {
    let fits = |door: &&DraftDoor| {
        let of_tcp = |step: &Spanned<Step>| step.value.protocol == Protocol::Tcp;
        let steps = door.sequence.given();
        let has_tcp = steps.is_none_or(|steps| steps.value.iter().any(of_tcp));
        let flags = door.tcp_flags.or(draft.defaults.tcp_flags);
        has_tcp && flags.fits_sessions()
    };
    let mut all = draft.doors.iter().filter(fits);
    let Some(first) = all.next() else { return };
    let flags = first.tcp_flags.given();
    let others = match all.count() {
        0 => String::new(),
        1 => ", and so can those of another door".to_owned(),
        more => format!(", and so can those of {more} other doors"),
    };
    faults
        .warn(
            flags.map_or(&first.name.span, |flags| &flags.span),
            format!(
                "the steps of this door can be found by time and by a scan of ACKs{others}: its TCP \
                 flags fit packets of established sessions"
            ),
        )
        .help("let SYNs alone count, as every client sends them: TCP flags `syn,!ack`");
}

/// A file that says nothing was cut short, by a full disk or a power failure: as a
/// configuration it would take the guard away, or leave nobody a way in.
fn some_door(draft: &Draft, faults: &mut Faults) {
    if draft.doors.is_empty() && !faults.any_error() {
        faults
            .error(&(0..0), "there is no door")
            .help("to stop guarding, stop knockd; `knockd clear` removes the table");
    }
}

/// As many bytes has an interface's name (IFNAMSIZ of linux/if.h, without the NUL).
const IFNAME_MAX: usize = 15;

fn interfaces(field: &Field<List<String>>, faults: &mut Faults) -> Vec<Pattern> {
    let Some(list) = field.given() else {
        return Vec::new();
    };
    if list.value.is_empty() {
        faults
            .error(&list.span, "no interface to listen on")
            .help("leave `interfaces` out for all but lo");
    }
    let pattern = |name: &Spanned<String>| {
        // dev_valid_name() of the kernel: no slash, no colon, no blanks.
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let text = name.value.as_str();
        if text.is_empty() || text == "." || text == ".." || text.chars().any(odd) {
            faults
                .error(&name.span, "no interface can have this name")
                .help("such as \"eth0\" or \"ppp*\"; `ip link` shows them");
        } else if text.len() > IFNAME_MAX {
            let message = format!("an interface's name has at most {IFNAME_MAX} bytes");
            faults.error(&name.span, message);
        }
        Pattern::new(text)
    };
    list.value.iter().map(pattern).collect()
}

fn log(draft: &DraftLog, faults: &mut Faults) -> Log {
    Log {
        level: draft.level.or_default(),
        file: path(&draft.file, faults),
        syslog: draft.syslog.or_default(),
    }
}

/// A file's name: the daemon's directory is `/`, whatever it was where it was started.
fn path(field: &Field<PathBuf>, faults: &mut Faults) -> Option<PathBuf> {
    let path = field.given()?;
    let text = path.value.to_string_lossy();
    if text.is_empty() {
        faults.error(&path.span, "the name of a file must not be empty");
    } else if text.contains('\0') {
        faults.error(&path.span, "the name of a file must not contain NUL");
    } else if path.value.is_relative() {
        faults
            .warn(
                &path.span,
                "a relative name depends on where knockd is started",
            )
            .help(format!("write it in full, such as /var/lib/knockd/{text}"));
    }
    Some(path.value.clone())
}

/// Reports a time of nothing or of ages. The kernel counts in milliseconds: less than
/// one would be none.
fn time(span: &Span, time: Duration, key: &str, faults: &mut Faults) {
    if time < Duration::from_millis(1) {
        faults.error(
            span,
            format!("`{key}` must not be 0 (a millisecond is the least)"),
        );
    } else if time > MAX_TIME {
        faults.error(span, format!("`{key}` must not be more than ten years"));
    }
}

/// Whether a set of the administrator's can be named so.
pub(super) fn is_set_path(path: &SetPath) -> bool {
    let mut faults = Faults::default();
    names::set_path(&(0..0), path, &mut faults);
    !faults.any_error()
}
