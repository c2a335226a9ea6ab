//! A door of a knockd.conf.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::{goes_on, set, unknown};
use super::lines::ConfSection;
use super::values::{address, flags, seconds, sequence};
use crate::config::diagnostic::Faults;
use crate::config::draft::{DraftDoor, Field};
use crate::config::keys::Key;
use crate::config::text::Spanned;

/// The `cmd_timeout` that 0 is taken for: the least that is allowed.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Warns of a time of 0: most likely a slip, but 0.8 obeys it.
fn at_once(value: &Spanned<&str>, timeout: Duration, faults: &mut Faults) -> Option<Duration> {
    if timeout.is_zero() {
        faults.warn(
            &value.span,
            "with 0 a stop command is run as soon as its start command is over",
        );
    }
    Some(timeout.max(AT_ONCE))
}

pub(super) fn read(section: &ConfSection<'_>, faults: &mut Faults) -> DraftDoor {
    let name = &section.name;
    let mut door = DraftDoor {
        name: Spanned::new(name.value.to_owned(), name.span.clone()),
        ..DraftDoor::default()
    };
    let mut before = None;
    for (key, value) in section.directives() {
        let after = goes_on(before);
        before = value.as_ref();
        let given = value.as_ref();
        let text = || given.map(|v| v.value.to_owned());
        let known = Key::of_conf(key.value).filter(|known| known.is_of_door());
        match known.and_then(|known| known.toml) {
            Some("sequence") => {
                let read = given.and_then(|v| sequence(v, faults));
                set(&mut door.sequence, key, read, value, faults);
            }
            Some("one_time_sequences") => {
                let read = given.map(|v| PathBuf::from(v.value));
                set(&mut door.one_time, key, read, value, faults);
            }
            Some("seq_timeout") => {
                let read = given.and_then(|v| seconds(v, faults));
                set(&mut door.seq_timeout, key, read, value, faults);
            }
            Some("seq_cooldown") => {
                let read = given.and_then(|v| seconds(v, faults));
                set(&mut door.seq_cooldown, key, read, value, faults);
            }
            Some("tcp_flags") => {
                let read = given.and_then(|v| flags(v, faults));
                set(&mut door.tcp_flags, key, read, value, faults);
            }
            Some("target") => {
                let read = given.and_then(|v| address(v, faults));
                set(&mut door.target, key, read, value, faults);
            }
            Some("cmd_timeout") => {
                let read = given.and_then(|v| at_once(v, seconds(v, faults)?, faults));
                set(&mut door.cmd_timeout, key, read, value, faults);
            }
            Some("start_command") => set(&mut door.start, key, text(), value, faults),
            Some("start_command_6") => set(&mut door.start_6, key, text(), value, faults),
            Some("stop_command") => set(&mut door.stop, key, text(), value, faults),
            Some("stop_command_6") => set(&mut door.stop_6, key, text(), value, faults),
            _ => {
                unknown(key, true, after, faults);
                door.misread = true;
            }
        }
    }
    // 0.8 runs a door without a command for its log line alone, and log lines are read by
    // programs. So silence counts as an empty command, which the check lets pass.
    let commands = [&door.start, &door.stop, &door.start_6, &door.stop_6];
    if commands.iter().all(|c| c.is_absent()) {
        door.start = Field::Given(Spanned::new(String::new(), name.span.clone()));
    }
    door
}
