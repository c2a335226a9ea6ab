//! The one check: a draft of either format becomes a [`Config`], or the reasons why not.

mod between_doors;
mod door;
mod firewall;
mod names;
mod sequence;

use std::path::PathBuf;
use std::time::Duration;

use super::Host;
use super::diagnostic::Faults;
use super::draft::{ConfigDraft, DraftDoor, DraftLog, Field, SpannedList};
use super::text::{Span, Spanned};
use crate::model::{Config, Log, MAX_TIME, Pattern, Protocol, SetPath, Step, flag};

/// More doors than this cannot be told apart by [`crate::model::DoorId`].
const DOORS_MAX: usize = u16::MAX as usize;

/// Judges a draft. Warnings alone do not keep a configuration from being used.
pub(super) fn check(draft: &ConfigDraft, host: &Host, faults: &mut Faults) -> Option<Config> {
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
        interfaces: interfaces(&draft.interfaces, draft.is_legacy, faults),
        ignore: door::ranges(&draft.ignore, faults),
        tripwires,
        log: log(&draft.log, host, faults),
        pid_file: path(&draft.pid_file, host, faults),
        firewall: firewall::firewall(draft, host, faults),
        doors: draft
            .doors
            .iter()
            .map(|door| door::door(door, &draft.defaults, tripwires, host, faults))
            .collect(),
    };
    between_doors::check(draft, faults);
    flags_of_no_client(draft, faults);
    doors_for_sessions(draft, faults);
    some_door(draft, faults);
    (!faults.any_error()).then_some(config)
}

/// Whether a step of it may be TCP: those of one-time sequences are not known here.
fn may_have_tcp(draft: &DraftDoor) -> bool {
    let of_tcp = |step: &Spanned<Step>| step.value.protocol == Protocol::Tcp;
    let steps = draft.sequence.given();
    steps.is_none_or(|steps| steps.value.iter().any(of_tcp))
}

/// TCP flags that the first packet of a connection has not. It has SYN, and nothing else of the
/// six (RFC 9293, 3.5); knock 0.8's own manual has `syn,ack` in its example.
fn flags_of_no_client(draft: &ConfigDraft, faults: &mut Faults) {
    for door in draft.doors.iter().filter(|door| may_have_tcp(door)) {
        if let Some(flags) = door.tcp_flags.given()
            && !flags.value.matches(flag::SYN)
        {
            faults
                .warn(
                    &flags.span,
                    format!(
                        "no client sends such a packet (`{}`): this door opens for nobody who \
                         knocks by connecting",
                        flags.value
                    ),
                )
                .help("knock(1) and other clients send `syn,!ack`");
        }
    }
}

/// The socket filter knows no step, but for doors whose flags fit packets of established
/// sessions: it cannot pass all of those. So who probes with such packets can tell the steps by
/// the time that the kernel takes; and a scan by them is seen at the steps alone, where one in order
/// goes through steps that rise or fall.
fn doors_for_sessions(draft: &ConfigDraft, faults: &mut Faults) {
    let fits = |door: &&DraftDoor| {
        let flags = door.tcp_flags.or(draft.defaults.tcp_flags);
        may_have_tcp(door) && flags.fits_sessions()
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
fn some_door(draft: &ConfigDraft, faults: &mut Faults) {
    if draft.doors.is_empty() && !faults.any_error() {
        faults
            .error(&(0..0), "there is no door")
            .help("to stop guarding, stop knockd; `knockd clear` removes the table");
    }
}

/// As many bytes has an interface's name (IFNAMSIZ of linux/if.h, without the NUL).
const IFNAME_MAX: usize = 15;

/// What keeps an interface from being called so: of a label, `eth0:1`, both parts.
fn no_interface(text: &str) -> Option<String> {
    // dev_valid_name() of the kernel: no slash, no colon, no blanks.
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let (device, label) = text.split_once(':').unwrap_or((text, "1"));
    let is_odd = device == "." || device == ".." || device.chars().any(odd);
    if device.is_empty() || label.is_empty() || is_odd || label.chars().any(odd) {
        Some("no interface can have this name".to_owned())
    } else if text.len() > IFNAME_MAX {
        Some(format!(
            "an interface's name has at most {IFNAME_MAX} bytes"
        ))
    } else {
        None
    }
}

/// The interface that is meant by `-i`, or why there is none: as in a file.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    match no_interface(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(why),
    }
}

fn interfaces(
    field: &Field<SpannedList<String>>,
    is_legacy: bool,
    faults: &mut Faults,
) -> Vec<Pattern> {
    let Some(list) = field.given() else {
        return Vec::new();
    };
    if list.value.is_empty() {
        faults
            .error(&list.span, "no interface to listen on")
            .help("leave `interfaces` out for all but lo");
    }
    let pattern = |name: &Spanned<String>| {
        let text = name.value.as_str();
        let several: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .collect();
        if let Some(why) = several_or_quoted(text) {
            let inner = text.trim_matches(['"', '\'']);
            let help = match (several.as_slice(), is_legacy) {
                ([_, _, ..], true) => {
                    let flags: Vec<_> = several.iter().map(|n| format!("-i {n}")).collect();
                    format!(
                        "a knockd.conf names one; start knockd with {} for all of them",
                        flags.join(" ")
                    )
                }
                ([_, _, ..], false) => {
                    let all: Vec<_> = several.iter().map(|n| format!("\"{n}\"")).collect();
                    format!("write {}", all.join(", "))
                }
                (_, true) => format!("write {inner}"),
                (_, false) => format!("write \"{inner}\""),
            };
            // The kernel takes such a name, and nobody gives one. 0.8 does not start then.
            faults.warn(&name.span, why).help(help);
        }
        if let Some(why) = no_interface(text) {
            let noted = faults.error(&name.span, why);
            if text.len() <= IFNAME_MAX {
                noted.help("such as \"eth0\" or \"ppp*\"; `ip link` shows them");
            }
        }
        Pattern::new(text)
    };
    list.value.iter().map(pattern).collect()
}

/// What is most likely meant otherwise, if it is: for `-i`, as in a file.
pub(crate) fn several_or_quoted(text: &str) -> Option<&'static str> {
    if text.contains(',') {
        Some("these are several names in one, for which knockd would wait as for one interface")
    } else if text.contains(['"', '\'']) {
        Some("the quotes would be part of the interface's name")
    } else {
        None
    }
}

fn log(draft: &DraftLog, host: &Host, faults: &mut Faults) -> Log {
    Log {
        level: draft.level.or_default(),
        file: path(&draft.file, host, faults),
        syslog: draft.syslog.or_default(),
    }
}

/// A file's name, in full: the daemon's directory is `/`, whatever it was where it was started.
fn path(field: &Field<PathBuf>, host: &Host, faults: &mut Faults) -> Option<PathBuf> {
    let path = field.given()?;
    let text = path.value.to_string_lossy();
    if text.is_empty() {
        faults.error(&path.span, "the name of a file must not be empty");
    } else if text.contains('\0') {
        faults.error(&path.span, "the name of a file must not contain NUL");
    } else if path.value.is_relative() {
        let Some(folder) = &host.folder else {
            faults
                .warn(
                    &path.span,
                    "a relative name depends on where knockd is started",
                )
                .help(format!("write it in full, such as /var/lib/knockd/{text}"));
            return Some(path.value.clone());
        };
        let full: PathBuf = folder.join(&path.value).components().collect();
        faults
            .warn(
                &path.span,
                format!(
                    "a relative name depends on where knockd is started; here it is `{}`",
                    full.display()
                ),
            )
            .help("write it in full");
        return Some(full);
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
pub(crate) fn is_set_path(path: &SetPath) -> bool {
    let mut faults = Faults::default();
    names::set_path(&(0..0), path, &mut faults);
    !faults.any_error()
}
