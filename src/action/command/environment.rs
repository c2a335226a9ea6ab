//! The environment of commands. A command gets the variables of an allow-list, and those that the
//! administrator names in [`NAMES`]. The names stand where the variables are set: in the unit, in
//! /etc/default/knockd or in the container.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use crate::model::Config;

/// The variable with the names of those that commands get beside [`ALWAYS`], separated by blanks or
/// commas.
const NAMES: &str = "KNOCKD_COMMAND_ENV";

/// Variables that every command gets, and those whose names begin with `LC_`.
const ALWAYS: [&str; 10] = [
    "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
];

/// Variables that no command gets, whoever names them. By most of them the dynamic linker (ld.so(8)),
/// the C library or the shell loads or runs something else. The others are for the service alone: a
/// command that took them for its own could report the daemon ready or stopped (sd_notify(3),
/// sd_listen_fds(3)).
const NEVER: [&str; 16] = [
    "BASHOPTS",
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "IFS",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LOCPATH",
    "NLSPATH",
    "NOTIFY_SOCKET",
    "PS4",
    "SHELLOPTS",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Beginnings of more names that no command gets.
const NEVER_BEGINS: [&str; 2] = ["BASH_FUNC_", "LD_"];

/// The `PATH` of commands if the daemon was started without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The names that the administrator adds to the allow-list.
#[derive(Debug, Clone, Default)]
struct AddedNames(BTreeSet<String>);

impl AddedNames {
    fn new(text: &OsStr) -> Self {
        let text = text.to_string_lossy();
        let words = text.split(|c: char| c.is_ascii_whitespace() || c == ',');
        Self(words.filter(|w| !w.is_empty()).map(str::to_owned).collect())
    }

    /// Returns the names that the variables themselves add.
    fn of(variables: &[(OsString, OsString)]) -> Self {
        let names = variables.iter().find(|(name, _)| name == NAMES);
        names.map_or_else(Self::default, |(_, text)| Self::new(text))
    }

    /// Returns whether commands get the variable of this name.
    fn is_passed(&self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else {
            return false;
        };
        let always = || ALWAYS.contains(&name) || name.starts_with("LC_");
        !is_never(name) && (always() || self.0.contains(name))
    }
}

fn is_never(name: &str) -> bool {
    NEVER.contains(&name) || NEVER_BEGINS.iter().any(|begin| name.starts_with(begin))
}

/// Returns the environment of a command.
pub(super) fn of_command() -> io::Result<Vec<CString>> {
    entries(std::env::vars_os().collect(), false)
}

/// Returns the environment of the helper: that of a command, and the names by which the helper decides
/// the same.
pub(super) fn of_helper() -> io::Result<Vec<CString>> {
    entries(std::env::vars_os().collect(), true)
}

fn entries(variables: Vec<(OsString, OsString)>, with_names: bool) -> io::Result<Vec<CString>> {
    let added = AddedNames::of(&variables);
    let is_passed = |name: &OsStr| added.is_passed(name) || with_names && name == NAMES;
    let has_path = variables.iter().any(|(name, _)| name == "PATH");
    let path = (!has_path).then(|| ("PATH".into(), DEFAULT_PATH.into()));
    let passed = variables.into_iter().filter(|(name, _)| is_passed(name));
    passed.chain(path).map(entry).collect()
}

fn entry((mut name, value): (OsString, OsString)) -> io::Result<CString> {
    name.push("=");
    name.push(value);
    CString::new(name.into_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it has a zero byte in it"))
}

/// Returns warnings on the environment of this process as the configuration's commands meet it: a
/// command uses a variable that it does not get, or `KNOCKD_COMMAND_ENV` names one that no command gets. The
/// warnings name variables and doors, and quote no command.
#[must_use]
pub fn doubtful_environment(config: &Config) -> Vec<String> {
    doubts(config, &std::env::vars_os().collect::<Vec<_>>())
}

fn doubts(config: &Config, variables: &[(OsString, OsString)]) -> Vec<String> {
    let with_commands = config.doors.iter().filter_map(|door| {
        let commands = door.commands.as_deref()?;
        let texts = [
            &commands.start,
            &commands.stop,
            &commands.start_6,
            &commands.stop_6,
        ];
        let texts: Vec<&str> = texts.into_iter().flatten().map(String::as_str).collect();
        Some((&door.name, texts))
    });
    let with_commands: Vec<_> = with_commands.collect();
    if with_commands.is_empty() {
        return Vec::new();
    }
    let added = AddedNames::of(variables);
    let mut missed = BTreeMap::<&str, Vec<&Arc<str>>>::new();
    let held_back = variables.iter().filter(|(name, _)| !added.is_passed(name));
    for name in held_back.filter_map(|(name, _)| name.to_str()) {
        for (door, texts) in &with_commands {
            if texts.iter().any(|text| uses(text, name)) {
                missed.entry(name).or_default().push(door);
            }
        }
    }
    let mut doubts = Vec::new();
    for (name, doors) in missed {
        let doors: Vec<&str> = doors.into_iter().map(AsRef::as_ref).collect();
        let way_out = match is_never(name) {
            true => "no command gets it".to_owned(),
            false => format!("it gets it once {NAMES} names it (knockd(8), ENVIRONMENT)"),
        };
        doubts.push(format!(
            "{}: a command uses ${name}, which knockd has in its environment and does not pass on: \
             {way_out}",
            doors.join(", ")
        ));
    }
    for name in &added.0 {
        if is_never(name) {
            doubts.push(format!("{NAMES} names {name}: no command gets it"));
        } else if !variables.iter().any(|(known, _)| known == name.as_str()) {
            let name = name.escape_debug();
            doubts.push(format!(
                "{NAMES} names {name}, which is not in knockd's environment"
            ));
        }
    }
    doubts
}

/// Returns whether the text of a command refers to the variable (`$NAME`, `${NAME…}`) and does not set
/// it itself.
fn uses(command: &str, name: &str) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = command.as_bytes();
    let after = |at: usize| bytes.get(at + name.len());
    let before = |at: usize| at.checked_sub(1).and_then(|at| bytes.get(at));
    let mut is_used = false;
    for (at, _) in command.match_indices(name) {
        match (before(at), after(at)) {
            (Some(b'$'), after) if !after.is_some_and(is_of_name) => is_used = true,
            (Some(b'{' | b'#'), after) if !after.is_some_and(is_of_name) => {
                let start = command.get(..at).unwrap_or_default();
                is_used |= start.ends_with("${") || start.ends_with("${#");
            }
            (before, Some(b'=')) if !before.is_some_and(is_of_name) => return false,
            _ => {}
        }
    }
    is_used
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Commands, Door};

    fn variables(given: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        let own = |(name, value): &(&str, &str)| (name.into(), value.into());
        given.iter().map(own).collect()
    }

    fn passed(given: &[(&str, &str)]) -> Vec<String> {
        let entries = entries(variables(given), false).expect("no zero bytes");
        let text = |entry: CString| entry.into_string().expect("UTF-8");
        entries.into_iter().map(text).collect()
    }

    #[test]
    fn a_command_gets_what_is_on_the_list_and_what_is_named() {
        let given = [
            ("LANG", "C"),
            ("LC_TIME", "de_DE"),
            ("A", "b=c"),
            ("SMTP_HOST", "mail"),
            ("MORE", ""),
            ("PASSWORD", "x"),
            (NAMES, " SMTP_HOST,A\tMORE "),
        ];
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(
            passed(&given),
            [
                "LANG=C",
                "LC_TIME=de_DE",
                "A=b=c",
                "SMTP_HOST=mail",
                "MORE=",
                &path
            ]
        );
        assert_eq!(passed(&given[..3]), ["LANG=C", "LC_TIME=de_DE", &path]);
        assert_eq!(passed(&[("PATH", "/opt")]), ["PATH=/opt"]);
        // The helper has the names, too, and so decides alike.
        let helper = entries(variables(&given[5..]), true).expect("no zero bytes");
        let names = entry((NAMES.into(), given[6].1.into())).expect("no zero bytes");
        assert!(helper.contains(&names) && helper.len() == 2, "{helper:?}");
    }

    #[test]
    fn no_name_passes_what_loads_or_runs_something_else_or_is_the_services() {
        let never = [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "BASH_FUNC_ls%%",
            "BASH_ENV",
        ];
        let names = [&never[..], &NEVER[..]].concat();
        for name in &names {
            let given = [("PATH", "/bin"), (name, "/tmp/x"), (NAMES, name)];
            assert_eq!(passed(&given), ["PATH=/bin"], "{name}");
        }
    }

    fn config(commands: &[&str]) -> Config {
        let door = |(n, text): (usize, &&str)| Door {
            commands: Some(Box::new(Commands {
                start: Some("true".to_owned()),
                stop: Some((*text).to_owned()),
                start_6: None,
                stop_6: None,
                timeout: Duration::ZERO,
            })),
            ..Door::new(&format!("d{n}"), Vec::new())
        };
        let doors: Vec<_> = commands.iter().enumerate().map(door).collect();
        Config {
            doors: doors.into(),
            ..Config::default()
        }
    }

    #[test]
    fn a_variable_that_a_command_misses_is_named_and_no_command_is_quoted() {
        let given = variables(&[("SMTP_HOST", "mail"), ("LANG", "C"), ("LD_PRELOAD", "x")]);
        let config = config(&[
            "mail -S $SMTP_HOST secret $LANG",
            "x ${SMTP_HOST:-y}",
            "$LD_PRELOAD",
        ]);
        let said = doubts(&config, &given);
        assert_eq!(
            said,
            [
                "d2: a command uses $LD_PRELOAD, which knockd has in its environment and does not \
                 pass on: no command gets it",
                "d0, d1: a command uses $SMTP_HOST, which knockd has in its environment and does \
                 not pass on: it gets it once KNOCKD_COMMAND_ENV names it (knockd(8), ENVIRONMENT)",
            ]
        );
        let mut named = given;
        named.extend(variables(&[(NAMES, "SMTP_HOST SMTP_HSOT LD_PRELOAD")]));
        assert_eq!(
            doubts(&config, &named)[1..],
            [
                "KNOCKD_COMMAND_ENV names LD_PRELOAD: no command gets it",
                "KNOCKD_COMMAND_ENV names SMTP_HSOT, which is not in knockd's environment",
            ]
        );
        // Without commands there is nothing to say.
        assert_eq!(doubts(&Config::default(), &named), [""; 0]);
    }

    #[test]
    fn a_use_is_told_from_a_word_and_from_a_variable_of_the_commands_own() {
        for text in [
            "$A",
            "echo \"$A\"",
            "${A}",
            "${A%x}",
            "${#A}",
            "x$A$B",
            "$AB $A",
            "a=$A",
        ] {
            assert!(uses(text, "A"), "{text}");
        }
        for text in [
            "A",
            "$AB",
            "$BA",
            "{A}",
            "A=1; echo $A",
            "${AB}",
            "#A",
            "",
            "$ A",
        ] {
            assert!(!uses(text, "A"), "{text}");
        }
    }
}
