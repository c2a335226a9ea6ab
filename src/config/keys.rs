//! The keys of both formats, in one table. It serves the parsers, their suggestions for a mistyped key,
//! the decision who may see a line, and `knockd convert`.

use Header::{Door, Firewall, Log, Options, Top};

/// The header under which a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// At the top of a knockd.toml, and under `[options]` of a knockd.conf.
    Top,
    /// Under `[log]`, and under `[options]` of a knockd.conf.
    Log,
    /// Under `[firewall]`.
    Firewall,
    /// Under the header of a door.
    Door,
    /// Under `[options]` of a knockd.conf alone.
    Options,
}

/// A key, in one format or in both.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) header: Header,
    /// Its name in a knockd.toml.
    pub(crate) toml: Option<&'static str>,
    /// Its names in a knockd.conf, in small letters.
    conf: &'static [&'static str],
    /// True if the value is secret: it is a sequence, or a command, which may have a password in it.
    pub(crate) is_secret: bool,
}

const fn public(header: Header, toml: &'static str, conf: &'static [&'static str]) -> Key {
    Key {
        header,
        toml: Some(toml),
        conf,
        is_secret: false,
    }
}

const fn secret(toml: &'static str, conf: &'static [&'static str]) -> Key {
    Key {
        is_secret: true,
        ..public(Door, toml, conf)
    }
}

const KEYS: [Key; 33] = [
    public(Top, "interfaces", &["interface"]),
    public(Top, "ignore", &[]),
    public(Top, "sandbox", &[]),
    public(Top, "tripwires", &[]),
    public(Top, "log", &[]),
    public(Log, "level", &[]),
    public(Log, "file", &["logfile"]),
    public(Log, "syslog", &["usesyslog"]),
    Key {
        toml: None,
        ..public(Options, "", &["pidfile"])
    },
    public(Firewall, "table", &[]),
    public(Firewall, "guard", &[]),
    public(Firewall, "on_stop", &[]),
    public(Firewall, "trusted", &[]),
    public(Firewall, "mark", &[]),
    secret("sequence", &["sequence"]),
    public(Door, "one_time_sequences", &["one_time_sequences"]),
    public(Door, "seq_timeout", &["seq_timeout", "timeout"]),
    public(Door, "seq_cooldown", &["seq_cooldown"]),
    public(Door, "tcp_flags", &["tcpflags"]),
    public(Door, "from", &[]),
    public(Door, "target", &["target"]),
    public(Door, "strays", &[]),
    public(Door, "open", &[]),
    public(Door, "open_for", &[]),
    public(Door, "max_open", &[]),
    public(Door, "close", &[]),
    public(Door, "add", &[]),
    public(Door, "remove", &[]),
    secret("start_command", &["start_command", "command"]),
    secret("start_command_6", &["start_command_6", "command_6"]),
    secret("stop_command", &["stop_command"]),
    secret("stop_command_6", &["stop_command_6"]),
    public(Door, "cmd_timeout", &["cmd_timeout"]),
];

impl Key {
    /// Returns the key of this name in a knockd.toml.
    pub(crate) fn of_toml(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.toml == Some(name))
    }

    /// Returns the key of this name, in whatever case, in a knockd.conf.
    pub(crate) fn of_conf(name: &str) -> Option<&'static Self> {
        let name = name.to_ascii_lowercase();
        KEYS.iter().find(|key| key.conf.contains(&name.as_str()))
    }

    /// Returns the key of this name in either format.
    pub(crate) fn of_either(name: &str) -> Option<&'static Self> {
        Self::of_toml(name).or_else(|| Self::of_conf(name))
    }

    /// Returns the names of all keys, in both formats.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter()
            .flat_map(|key| key.toml.into_iter().chain(key.conf.iter().copied()))
    }

    /// Returns whether the key stands under the header of a door.
    pub(crate) fn is_of_door(&self) -> bool {
        self.header == Door
    }

    /// Returns the names of the keys that a knockd.conf has under `[options]`, or under the header
    /// of a door.
    pub(crate) fn conf_names(of_door: bool) -> impl Iterator<Item = &'static str> {
        let here = KEYS.iter().filter(move |key| key.is_of_door() == of_door);
        here.flat_map(|key| key.conf.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Diagnostic, Format, Host, parse};

    #[test]
    fn a_name_stands_for_one_key() {
        for name in Key::names() {
            let all = [Key::of_toml(name), Key::of_conf(name)];
            let mut found = all.into_iter().flatten();
            let first = found.next().expect("a key");
            assert!(found.all(|other| other == first), "{name}");
        }
        let conf = Key::of_conf("TimeOut").expect("a key");
        assert_eq!(conf.toml, Some("seq_timeout"));
    }

    #[test]
    fn the_table_has_every_key_that_a_knockd_toml_may_have() {
        for header in ["", "[log]\n", "[firewall]\n", "[door.a]\n"] {
            let text = format!("{header}wwwwwwww = 1\n");
            let report = parse("f", &text, Format::Toml, &Host::default());
            let unknown = |d: &&Diagnostic| d.message.contains("wwwwwwww");
            let fault = report.diagnostics.iter().find(unknown);
            let help = fault.and_then(|fault| fault.help.as_deref());
            let (_, names) = help
                .and_then(|help| help.split_once("there are "))
                .expect("the keys that there are");
            for name in names.split(", ").map(|name| name.trim_matches('`')) {
                let is_table = ["door", "firewall"].contains(&name);
                assert!(is_table || Key::of_toml(name).is_some(), "{name}");
            }
        }
    }
}
