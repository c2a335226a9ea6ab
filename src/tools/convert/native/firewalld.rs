//! firewall-cmd(1): rich rules (firewalld.richlanguage(5)).

use std::time::Duration;

use crate::config::services;
use crate::model::Protocol;

use super::parsed::{
    AddressFamilies, ParsedCommand, RuleChange, Tool, is_source, ports, protocol, unusual, value_of,
};

/// Services of firewalld's that are one port of TCP.
const TCP_ALONE: [&str; 8] = [
    "ssh", "telnet", "smtp", "imap", "imaps", "pop3", "pop3s", "ldap",
];

/// The words after `firewall-cmd`.
pub(super) fn read(words: &[String]) -> Result<ParsedCommand, String> {
    let mut rule = None;
    let mut lifetime = None;
    let mut zone = None;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (option, given) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        let mut value = || value_of(option, given.or_else(|| words.next()));
        match option {
            "--add-rich-rule" => rule = Some((true, value()?)),
            "--remove-rich-rule" => rule = Some((false, value()?)),
            "--timeout" => lifetime = Some(duration(value()?)?),
            "--zone" => {
                let name = value()?;
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
                if name.is_empty() || !name.chars().all(plain) {
                    return Err(unusual(name));
                }
                zone = Some(name.to_owned());
            }
            "-q" | "--quiet" => {}
            other => return Err(unusual(other)),
        }
    }
    let (added, rule) = rule.ok_or("it neither adds nor removes a rich rule")?;
    let mut understood = rich(rule, added)?;
    understood.lifetime = lifetime;
    understood.tool = Tool::Firewalld(zone);
    Ok(understood)
}

/// Seconds, or with one of `s`, `m`, `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) => (digits, text.chars().last()),
        None => (text, None),
    };
    let factor = match unit {
        Some('m') => 60,
        Some('h') => 3600,
        Some(_) | None => 1,
    };
    let seconds = digits.parse().ok().filter(|n: &u32| *n > 0);
    let seconds = seconds.ok_or_else(|| unusual(text))?;
    Ok(Duration::from_secs(u64::from(seconds) * factor))
}

/// `rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept`.
fn rich(rule: &str, added: bool) -> Result<ParsedCommand, String> {
    let text = rule.replace(['"', '\''], "");
    let (mut family, mut source) = (AddressFamilies::Both, false);
    let (mut list, mut transport, mut accepts) = (None, None, None);
    for word in text.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("rule" | "source" | "port" | "service", "") => {}
            ("name", name) => match services::registered(name) {
                // The services of this name that firewalld knows are of TCP alone.
                Some(port) if TCP_ALONE.contains(&name) => {
                    list = Some(port.to_string());
                    transport = Some(Protocol::Tcp);
                }
                Some(_) | None => return Err(unusual(word)),
            },
            ("family", "ipv4") => family = AddressFamilies::V4,
            ("family", "ipv6") => family = AddressFamilies::V6,
            ("address", address) if is_source(address) => source = true,
            ("port", ports) => list = Some(ports.to_owned()),
            ("protocol", name) => transport = protocol(name),
            ("accept", "") => accepts = Some(true),
            ("drop" | "reject", "") => accepts = Some(false),
            _ => return Err(unusual(word)),
        }
    }
    let transport = transport.ok_or("it names no protocol")?;
    let ports = ports(&list.ok_or("it is not for a port")?, '-', transport)?;
    if !source {
        return Err("it is not for %IP%".into());
    }
    let change = match (accepts, added) {
        (Some(true), true) => RuleChange::Accept(ports),
        (Some(true), false) => RuleChange::Unaccept(ports),
        (Some(false), true) => RuleChange::Refuse(ports),
        (Some(false), false) => return Err("it takes away a rule that refuses".into()),
        (None, _) => return Err("it neither accepts nor refuses".into()),
    };
    Ok(ParsedCommand {
        tool: Tool::Firewalld(None),
        family,
        change,
        lifetime: None,
    })
}
