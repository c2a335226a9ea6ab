//! knockd.conf, as knock 0.8 reads it: its keys, that of a patch of it which is much used
//! (`Seq_Cooldown`), and no others. Where 0.8 is silent about
//! what it does not understand (`seq_timeout = 5x`, a port 0), we are not.

mod door;
mod lines;
mod values;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::lines::{ConfFile, ConfLine, ConfSection, lines};
use super::diagnostic::Faults;
use super::draft::{ConfigDraft, Defaults, DraftDoor, DraftLog, Field};
use super::keys::Key;
use super::suggest::nearest;
use super::text::{ConfigText, Spanned};
use crate::model::TcpFlags;

const DEFAULTS: Defaults = Defaults {
    seq_timeout: Duration::from_secs(25),
    tcp_flags: TcpFlags::ANY,
};

/// The one interface 0.8 listens on if neither the file nor `-i` names another.
const DEFAULT_INTERFACE: &str = "eth0";

/// Reads the text. What it says is always judged as a whole: a knockd.conf has no
/// brackets to leave open.
pub(super) fn read(source: &ConfigText, faults: &mut Faults) -> ConfigDraft {
    let file = lines(source, faults);
    let mut draft = ConfigDraft {
        is_legacy: true,
        defaults: DEFAULTS,
        interfaces: Field::Absent,
        ignore: Field::Absent,
        tripwires: Field::Absent,
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
            // Of a section without a proper header the keys are looked at and no more.
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

/// To 0.8 two sections of one name are two doors. Pending stops and attempts are kept by the
/// door's name, so that the second is called otherwise.
fn tell_apart(doors: &mut [DraftDoor], source: &ConfigText, faults: &mut Faults) {
    let mut taken: HashSet<String> = HashSet::new();
    // Where the first of each name stands.
    let mut first: HashMap<String, usize> = HashMap::new();
    let names = doors.iter().map(|door| door.name.value.clone());
    let all: HashSet<String> = names.collect();
    // Where the search for a free number goes on: a file may have thousands of one name.
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

/// Sets a field to what was read, or says what is amiss. The last of two settings counts,
/// as in 0.8, but not in silence.
fn set<T>(
    field: &mut Field<T>,
    key: &Spanned<&str>,
    read: Option<T>,
    value: &Option<Spanned<&str>>,
    faults: &mut Faults,
) {
    if !field.is_absent() {
        faults.warn(
            &key.span,
            format!("`{}` is set a second time; this one counts", key.value),
        );
    }
    *field = match (value, read) {
        (Some(value), Some(read)) => Field::Given(Spanned::new(read, value.span.clone())),
        (Some(_), None) => Field::Faulty,
        (None, _) => {
            faults
                .error(&key.span, format!("`{}` wants a value", key.value))
                .help(format!("`{} = …`", key.value));
            Field::Faulty
        }
    };
}

/// Whether the directive with this value looks as if it went on in the next line.
fn goes_on(value: Option<&Spanned<&str>>) -> bool {
    value.is_some_and(|value| value.value.ends_with('\\'))
}

/// Reports a key that is unknown under `[options]`, or under the header of a door (`in_door`).
/// `after`: the directive before it ends in a backslash.
fn unknown(key: &Spanned<&str>, in_door: bool, after: bool, faults: &mut Faults) {
    let place = if in_door { "a door" } else { "[options]" };
    let help = if after {
        Some(
            "a directive is one line, and the line before this one ends in a backslash: write \
             both as one"
                .to_owned(),
        )
    } else if let Some(known) = Key::of_conf(key.value) {
        let place = match known.is_of_door() {
            true => "it belongs under the header of a door, `[NAME]`",
            false => "it belongs under `[options]`",
        };
        Some(place.to_owned())
    } else if let Some(near) = nearest(key.value, Key::conf_names(in_door)) {
        Some(format!("did you mean `{near}`?"))
    } else if Key::of_toml(&key.value.to_ascii_lowercase()).is_some() {
        Some(
            "a knockd.conf has the keys of knock 0.8 alone; `knockd convert` makes TOML of it, \
             which has more"
                .to_owned(),
        )
    } else {
        None
    };
    let name = key.value.escape_debug();
    let reported = faults
        .error(&key.span, format!("unknown key `{name}` in {place}"))
        .help_if(help.clone());
    // What is no word may be the rest of a sequence.
    let word = |c: char| c.is_ascii_alphabetic() || "_-".contains(c);
    if !key.value.chars().all(word) {
        let quiet = format!("unknown key in {place}");
        match help {
            Some(help) => reported.quiet_help(quiet, help),
            None => reported.quiet(quiet),
        };
    }
}
