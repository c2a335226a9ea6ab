//! ufw(8): `allow from %IP% to any port 22 proto tcp`.

use super::parsed::{
    AddressFamilies, ParsedCommand, RuleChange, Tool, is_source, ports, protocol, unusual, value_of,
};
use crate::model::Protocol;

/// The words after `ufw`.
pub(super) fn read(words: &[String]) -> Result<ParsedCommand, String> {
    let mut words = words.iter().map(String::as_str);
    let (mut deleted, mut verdict, mut source) = (false, None, false);
    let (mut list, mut only) = (None, None);
    while let Some(word) = words.next() {
        let mut value = || value_of(word, words.next());
        match word {
            "--force" | "rule" | "prepend" | "in" => {}
            "insert" | "comment" => {
                value()?;
            }
            "delete" => deleted = true,
            "allow" | "deny" | "reject" => verdict = Some(word == "allow"),
            "from" => {
                let from = value()?;
                if !is_source(from) {
                    return Err(unusual(from));
                }
                source = true;
            }
            "to" => {
                let to = value()?;
                if to != "any" {
                    return Err(unusual(to));
                }
            }
            "port" => list = Some(value()?.to_owned()),
            "proto" => {
                let name = value()?;
                only = Some(protocol(name).ok_or_else(|| unusual(name))?);
            }
            other => return Err(unusual(other)),
        }
    }
    let list = list.ok_or("it is not for a port")?;
    // For the name of a service ufw takes the protocols that /etc/services has.
    if only.is_none() && list.contains(|c: char| c.is_ascii_alphabetic()) {
        return Err(unusual(&list));
    }
    // Without `proto` ufw means both.
    let protocols = only.map_or(vec![Protocol::Tcp, Protocol::Udp], |p| vec![p]);
    let mut all = Vec::new();
    for protocol in protocols {
        all.extend(ports(&list, ':', protocol)?);
    }
    if !source {
        return Err("it is not for %IP%".into());
    }
    let change = match (verdict, deleted) {
        (Some(true), false) => RuleChange::Accept(all),
        (Some(true), true) => RuleChange::Unaccept(all),
        (Some(false), false) => RuleChange::Refuse(all),
        (Some(false), true) => return Err("it takes away a rule that refuses".into()),
        (None, _) => return Err("it neither allows nor denies".into()),
    };
    Ok(ParsedCommand {
        tool: Tool::Ufw,
        family: AddressFamilies::Both,
        change,
        lifetime: None,
    })
}
