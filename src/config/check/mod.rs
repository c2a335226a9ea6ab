//! The one check: makes a [`Config`] of a draft of either format, or reports the faults.

mod between_doors;
mod commands;
mod door;
mod fields;
mod firewall;
mod interfaces;
mod names;
mod sequence;

pub(crate) use self::interfaces::{interface, several_or_quoted};
pub(crate) use self::names::is_set_path;

use self::fields::path;
use self::interfaces::interfaces;
use super::diagnostic::Faults;
use super::draft::{ConfigDraft, DraftDoor, DraftLog, Field};
use super::host::Host;
use super::text::Spanned;
use crate::model::{Config, Log, Protocol, Step, flag};

/// How many doors [`crate::model::DoorId`] can tell apart.
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
        sandbox: draft.sandbox.or_default(),
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

/// Returns whether a step of the door may be TCP. The steps of one-time sequences are not known here,
/// so they may be.
fn may_have_tcp(draft: &DraftDoor) -> bool {
    let of_tcp = |step: &Spanned<Step>| step.value.protocol == Protocol::Tcp;
    let steps = draft.sequence.given();
    steps.is_none_or(|steps| steps.value.iter().any(of_tcp))
}

/// Warns of TCP flags that the first packet of no connection has. It has SYN, and none of the other
/// five (RFC 9293, 3.5). (The manual of knock 0.8 has `syn,ack` in its example.)
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

/// Warns of doors whose flags fit packets of established sessions. The socket filter cannot pass all such
/// packets, so it knows the steps of these doors, and of no others. A stranger who probes with such
/// packets can tell the steps by the time that the kernel takes. And the matcher sees a scan with them at
/// the steps alone, so that a scan in order gets through steps that rise or fall.
fn doors_for_sessions(draft: &ConfigDraft, faults: &mut Faults) {
    let fits = |door: &&DraftDoor| {
        let flags = door.tcp_flags.or(draft.defaults.tcp_flags);
        // Flags that cannot be read are no missing flags.
        let is_known = !matches!(door.tcp_flags, Field::Faulty);
        is_known && may_have_tcp(door) && flags.fits_sessions()
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

/// Reports a file without doors. It was most likely cut short, by a full disk or a power failure. As a
/// configuration it would take the guard away, or leave nobody a way in.
fn some_door(draft: &ConfigDraft, faults: &mut Faults) {
    if draft.doors.is_empty() && !faults.any_error() {
        faults
            .error(&(0..0), "there is no door")
            .help("to stop guarding, stop knockd; `knockd clear` removes the table");
    }
}

fn log(draft: &DraftLog, host: &Host, faults: &mut Faults) -> Log {
    Log {
        level: draft.level.or_default(),
        file: path(&draft.file, host, faults),
        syslog: draft.syslog.or_default(),
    }
}
