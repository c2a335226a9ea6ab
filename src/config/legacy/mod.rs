//! knockd.conf, as knock 0.8 reads it. It has the keys of 0.8, the key `Seq_Cooldown` of a patch that is
//! much used, and no others. Values that 0.8 does not understand and takes in silence
//! (`seq_timeout = 5x`, a port 0) are reported.

mod door;
mod keys;
mod lines;
mod values;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use self::keys::{goes_on, set, unknown};
pub(crate) use self::lines::{ConfFile, ConfLine, ConfSection, lines};
use super::diagnostic::Faults;
use super::draft::{ConfigDraft, Defaults, DraftDoor, DraftLog, Field};
use super::text::{ConfigText, Spanned};
use crate::model::TcpFlags;

const DEFAULTS: Defaults = Defaults {
    seq_timeout: Duration::from_secs(25),
    tcp_flags: TcpFlags::ANY,
};

/// The one interface 0.8 listens on if neither the file nor `-i` names another.
const DEFAULT_INTERFACE: &str = "eth0";

/// Reads the text. Its draft is always complete: a knockd.conf has no brackets to leave open.
pub(super) fn read(source: &ConfigText, faults: &mut Faults) -> ConfigDraft {
    let file = lines(source, faults);
    let mut draft = ConfigDraft {
        is_legacy: true,
        defaults: DEFAULTS,
        interfaces: Field::Absent,
        ignore: Field::Absent,
        tripwires: Field::Absent,
        sandbox: Field::Absent,
        log: DraftLog::default(),
        pid_file: Field::Absent,
        firewall: None,
        doors: Vec::new(),
    };
    for section in &file.sections {
        if section.is_options() {
            options(section, &mut draft, faults);
        } else {
            let door = door::read(section, faults);
            // The keys of a section without a proper header are checked, and then dropped.
            if section.sound {
                draft.doors.push(door);
            }
        }
    }
    tell_apart(&mut draft.doors, source, faults);
    if draft.interfaces.is_absent() {
        let one = Spanned::new(DEFAULT_INTERFACE.to_owned(), 0..0);
        draft.interfaces = Field::Given(Spanned::new(vec![one], 0..0));
    }
    draft
}

/// Gives the second of two doors with one name another name. To 0.8 two sections of one name are two
/// doors; knockd keeps pending stops and attempts by the door's name.
fn tell_apart(doors: &mut [DraftDoor], source: &ConfigText, faults: &mut Faults) {
    let mut taken: HashSet<String> = HashSet::new();
    // The offset of the first door of each name.
    let mut first: HashMap<String, usize> = HashMap::new();
    let names = doors.iter().map(|door| door.name.value.clone());
    let all: HashSet<String> = names.collect();
    // The number at which the search for a free name goes on: a file may have thousands of doors of
    // one name.
    let mut next: HashMap<String, u32> = HashMap::new();
    for door in doors {
        let old = &door.name.value;
        if taken.insert(old.clone()) {
            first.insert(old.clone(), door.name.span.start);
            continue;
        }
        let line = first.get(old).map_or(0, |start| source.place(*start).line);
        let next = next.entry(old.clone()).or_insert(2);
        let new = loop {
            let name = format!("{old}-{next}");
            *next += 1;
            if !all.contains(&name) && !taken.contains(&name) {
                break name;
            }
        };
        let (old, shown) = (old.escape_debug(), new.escape_debug());
        faults
            .warn(
                &door.name.span,
                format!(
                    "there is a door `{old}` already (line {line}): this one is called `{shown}`"
                ),
            )
            .help("knock 0.8 has one name for both in its log: choose another");
        taken.insert(new.clone());
        door.name.value = new;
    }
}

fn options(section: &ConfSection<'_>, draft: &mut ConfigDraft, faults: &mut Faults) {
    let mut before = None;
    for (key, value) in section.directives() {
        let after = goes_on(before);
        before = value.as_ref();
        let path = || value.as_ref().map(|v| v.value);
        match key.value.to_ascii_lowercase().as_str() {
            "usesyslog" => match value {
                None => draft.log.syslog = Field::Given(Spanned::new(true, key.span.clone())),
                Some(value) => {
                    faults
                        .error(&value.span, "`UseSyslog` takes no value")
                        .help("it stands alone on its line");
                }
            },
            "logfile" => set(
                &mut draft.log.file,
                key,
                path().map(PathBuf::from),
                value,
                faults,
            ),
            "pidfile" => set(
                &mut draft.pid_file,
                key,
                path().map(PathBuf::from),
                value,
                faults,
            ),
            "interface" => {
                let list = value
                    .as_ref()
                    .map(|v| vec![Spanned::new(v.value.to_owned(), v.span.clone())]);
                set(&mut draft.interfaces, key, list, value, faults);
            }
            _ => unknown(key, false, after, faults),
        }
    }
}
