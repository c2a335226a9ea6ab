//! iptables(8), and knock_helper_ipt.sh, which calls it.

use super::parsed::{
    AddressFamilies, ParsedCommand, RuleChange, Tool, is_source, ports, protocol, unusual, value_of,
};
use crate::model::{PortRange, Protocol};

/// Chains through which packets for this host come.
const CHAINS: [&str; 6] = [
    "INPUT",
    "ufw-before-input",
    "ufw6-before-input",
    "ufw-user-input",
    "ufw6-user-input",
    "IN_public_allow",
];

#[derive(Default)]
struct IptablesRule {
    added: Option<bool>,
    source: bool,
    protocol: Option<Protocol>,
    ports: Option<String>,
    target: Option<String>,
}

impl IptablesRule {
    fn understood(self, family: AddressFamilies) -> Result<ParsedCommand, String> {
        let protocol = self.protocol.ok_or("it names no protocol (-p)")?;
        let list = self.ports.ok_or("it is not for a port (--dport)")?;
        let ports: Vec<PortRange> = ports(&list, ':', protocol)?;
        if !self.source {
            return Err("it is not for %IP% (-s)".into());
        }
        let change = match (self.added, self.target.as_deref()) {
            (Some(true), Some("ACCEPT")) => RuleChange::Accept(ports),
            (Some(false), Some("ACCEPT")) => RuleChange::Unaccept(ports),
            (Some(true), Some("DROP" | "REJECT")) => RuleChange::Refuse(ports),
            (Some(false), Some("DROP" | "REJECT")) => {
                return Err("it takes away a rule that refuses".into());
            }
            (Some(_), Some(other)) => return Err(unusual(other)),
            (None, _) => return Err("it neither adds nor deletes a rule".into()),
            (Some(_), None) => return Err("it neither accepts nor refuses (-j)".into()),
        };
        Ok(ParsedCommand {
            tool: Tool::Iptables,
            family,
            change,
            lifetime: None,
        })
    }
}

/// The words after `iptables`.
pub(super) fn read(words: &[String], family: AddressFamilies) -> Result<ParsedCommand, String> {
    let mut rule = IptablesRule::default();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let mut value = || value_of(word, words.next());
        match word {
            "-A" | "--append" | "-I" | "--insert" | "-D" | "--delete" => {
                rule.added = Some(!matches!(word, "-D" | "--delete"));
                let chain = value()?;
                if !CHAINS.contains(&chain) {
                    return Err(unusual(chain));
                }
                // `-I INPUT 3`: where the rule stands. `-D INPUT 3` is some rule or other.
                let number = |w: &&str| w.bytes().all(|b| b.is_ascii_digit());
                if matches!(word, "-I" | "--insert") {
                    words.next_if(number);
                }
            }
            "-s" | "--source" | "--src" => {
                let source = value()?;
                if !is_source(source) {
                    return Err(unusual(source));
                }
                rule.source = true;
            }
            "-p" | "--protocol" | "--proto" => {
                let name = value()?;
                rule.protocol = Some(protocol(name).ok_or_else(|| unusual(name))?);
            }
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                let list = value()?.to_owned();
                if rule.ports.replace(list).is_some() {
                    return Err(unusual(word));
                }
            }
            "-m" | "--match" => match value()? {
                "tcp" | "udp" | "state" | "conntrack" | "multiport" | "comment" => {}
                other => return Err(unusual(other)),
            },
            "--state" | "--ctstate" => {
                let states = value()?;
                if !states.split(',').any(|s| s == "NEW") {
                    return Err(unusual(states));
                }
            }
            "--comment" | "--reject-with" => {
                value()?;
            }
            "-t" | "--table" => {
                let table = value()?;
                if table != "filter" {
                    return Err(unusual(table));
                }
            }
            "-j" | "--jump" => rule.target = Some(value()?.to_owned()),
            "-w" | "--wait" => {
                words.next_if(|w| w.bytes().all(|b| b.is_ascii_digit()));
            }
            "--syn" | "-v" | "--verbose" => {}
            other => return Err(unusual(other)),
        }
    }
    rule.understood(family)
}

/// The words after `knock_helper_ipt.sh`; TCP and the chain INPUT are its defaults.
pub(super) fn read_helper(words: &[String]) -> Result<ParsedCommand, String> {
    let mut rule = IptablesRule {
        protocol: Some(Protocol::Tcp),
        target: Some("ACCEPT".to_owned()),
        ..IptablesRule::default()
    };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || value_of(word, words.next());
        match word {
            "-a" | "--append" | "-i" | "--insert" => rule.added = Some(true),
            "-x" | "--delete" => rule.added = Some(false),
            "-f" | "--srcaddr" => rule.source = is_source(value()?),
            "-d" | "--dstport" => rule.ports = Some(value()?.to_owned()),
            "-p" | "--proto" => {
                let name = value()?;
                rule.protocol = Some(protocol(name).ok_or_else(|| unusual(name))?);
            }
            "-c" | "--chain" => {
                let chain = value()?;
                if chain != "INPUT" {
                    return Err(unusual(chain));
                }
            }
            "-v" | "--verbose" => {}
            other => return Err(unusual(other)),
        }
    }
    rule.understood(AddressFamilies::V4)
}
