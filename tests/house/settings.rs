//! knockd.toml(5) and knockd.conf(5) know every key the parsers know, and no other.

use std::collections::BTreeSet;

use knockd::config::{self, Format, Host};

use super::manuals::page;

/// This is no key, and resembles none.
const NO_KEY: &str = "wwwwwwww";

/// The places for keys in a knockd.toml: the text before the key, the text after it.
const PLACES: [(&str, &str); 6] = [
    ("", ""),
    ("[log]\n", ""),
    ("[firewall]\n", ""),
    ("[door.a]\n", ""),
    ("[door.a]\nadd = {", "}"),
    ("[door.a]\nremove = {", "}"),
];

fn diagnostics(text: &str, format: Format) -> Vec<config::Diagnostic> {
    config::parse("FILE", text, format, &Host::default()).diagnostics
}

/// Returns the words that a help has between two `quote`s.
fn quoted(help: &str, quote: char) -> BTreeSet<String> {
    let words = help.split(quote).skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// Returns the keys that the parser offers in place of an unknown one.
fn offered(before: &str, after: &str) -> BTreeSet<String> {
    let text = format!("{before}{NO_KEY} = 1{after}");
    let found = diagnostics(&text, Format::Toml);
    let fault = found
        .iter()
        .find(|d| d.message.contains(NO_KEY))
        .unwrap_or_else(|| panic!("{text}: nobody minds the key"));
    let help = fault.help.as_deref().unwrap_or_default();
    let (_, keys) = help
        .split_once("there are")
        .unwrap_or_else(|| panic!("{text}: no keys in: {help}"));
    quoted(keys, '`')
}

/// Returns the keys that a page lists: `.It Cm start_command_6 , stop_command_6` and `.It Cm LogFile No = …`.
fn listed(page: &str) -> BTreeSet<String> {
    let items = page.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    items
        .flat_map(|item| item.split(" No ").next().unwrap_or(item).split(" , "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn knockd_toml_5_lists_every_key_and_no_other() {
    let known: BTreeSet<_> = PLACES
        .iter()
        .flat_map(|(before, after)| offered(before, after))
        .collect();
    assert!(known.contains("sequence") && known.contains("mark") && known.contains("for"));
    assert_eq!(listed(&page("knockd.toml.5")), known);
}

#[test]
fn knockd_toml_5_names_every_word_a_key_may_have() {
    let page = page("knockd.toml.5");
    let named: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with('.'))
        .flat_map(str::split_whitespace)
        .collect();
    for text in [
        "tripwires = 'wwwwwwww'",
        "log.level = 'wwwwwwww'",
        "[firewall]\nguard = 'wwwwwwww'",
        "[firewall]\non_stop = 'wwwwwwww'",
    ] {
        let found = diagnostics(text, Format::Toml);
        let words: BTreeSet<_> = found
            .iter()
            .filter(|d| d.message.starts_with("one of"))
            .flat_map(|d| quoted(&d.message, '"'))
            .collect();
        assert!(words.len() > 1, "{text}: {found:?}");
        for word in words {
            assert!(named.contains(word.as_str()), "{text}: {word} is not named");
        }
    }
}

/// Each directive of knock 0.8 with a value, from that program's manual, and `Seq_Cooldown` of a
/// patch. This list will never change.
const DIRECTIVES: [(&str, &str); 18] = [
    ("UseSyslog", ""),
    ("LogFile", "/var/log/knockd.log"),
    ("PidFile", "/run/knockd.pid"),
    ("Interface", "eth0"),
    ("Sequence", "7001,8102:udp,9203:tcp"),
    ("One_Time_Sequences", "/etc/knockd/sequences"),
    ("Seq_Timeout", "5"),
    ("Timeout", "5"),
    ("Seq_Cooldown", "5"),
    ("TCPFlags", "syn,!ack"),
    ("Target", "192.0.2.1"),
    ("Start_Command", "true"),
    ("Command", "true"),
    ("Stop_Command", "true"),
    ("Cmd_Timeout", "5"),
    ("Start_Command_6", "true"),
    ("Command_6", "true"),
    ("Stop_Command_6", "true"),
];

#[test]
fn knockd_conf_5_lists_every_directive_and_no_other() {
    let known: BTreeSet<_> = DIRECTIVES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(listed(&page("knockd.conf.5")), known);
}

#[test]
fn every_directive_of_the_ancestor_is_known() {
    for (name, value) in DIRECTIVES {
        let section = match name {
            "UseSyslog" | "LogFile" | "PidFile" | "Interface" => "options",
            _ => "door",
        };
        let text = match value {
            "" => format!("[{section}]\n{name}\n"),
            value => format!("[{section}]\n{name} = {value}\n"),
        };
        let found = diagnostics(&text, Format::Legacy);
        let unknown = |d: &config::Diagnostic| d.message.contains("unknown");
        assert!(!found.iter().any(unknown), "{text}: {found:?}");
    }
}
