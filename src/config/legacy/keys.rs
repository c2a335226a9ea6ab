//! The keys of a section, be it `[options]` or a door's.

use crate::config::diagnostic::Faults;
use crate::config::draft::Field;
use crate::config::keys::Key;
use crate::config::suggest::nearest;
use crate::config::text::Spanned;

/// Sets a field to the value that was read, or reports that there is none. The last of two settings
/// counts, as in 0.8, but with a warning.
pub(super) fn set<T>(
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

/// Returns whether a directive with this value looks as if it went on in the next line.
pub(super) fn goes_on(value: Option<&Spanned<&str>>) -> bool {
    value.is_some_and(|value| value.value.ends_with('\\'))
}

/// Reports a key that is unknown under `[options]`, or under the header of a door (`in_door`).
/// `after` says that the directive before the key ends in a backslash.
pub(super) fn unknown(key: &Spanned<&str>, in_door: bool, after: bool, faults: &mut Faults) {
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
            "take it out: a knockd.conf has the keys of knock 0.8 alone; `knockd convert` makes TOML \
             of the rest, which has more"
                .to_owned(),
        )
    } else {
        None
    };
    let name = key.value.escape_debug();
    let reported = faults
        .error(&key.span, format!("unknown key `{name}` in {place}"))
        .help_if(help.clone());
    // A text that is no word may be the rest of a sequence.
    let word = |c: char| c.is_ascii_alphabetic() || "_-".contains(c);
    if !key.value.chars().all(word) {
        let quiet = format!("unknown key in {place}");
        match help {
            Some(help) => reported.quiet_help(quiet, help),
            None => reported.quiet(quiet),
        };
    }
}
