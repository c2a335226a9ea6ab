//! Advice for a firewall that drops by policy, beside knockd's own table.
//!
//! An `accept` in one nftables chain does not overrule another chain's `drop`. So packets that knockd
//! lets in must be accepted there as well: by their mark, or, if no rule can ask for a mark, by their
//! port, which knockd guards.

use std::collections::BTreeSet;

use super::native::{Act, Native, Tool};
use super::output::TomlOutput;
use crate::model::SetPath;

/// The letters `kn`.
pub(super) const MARK: &str = "0x6b6e";

/// Returns whether a rule of one of the firewalls in use can ask for a mark.
pub(super) fn needs_mark(done: &[&Native]) -> bool {
    opening(done).any(|native| match native.tool {
        Tool::Iptables | Tool::Nft(_) | Tool::Ufw => true,
        Tool::NftSet | Tool::Firewalld(_) => false,
    })
}

fn opening<'a>(done: &'a [&'a Native]) -> impl Iterator<Item = &'a Native> {
    let open = |native: &&&Native| matches!(native.act, Act::Open(..));
    done.iter().filter(open).copied()
}

/// Writes the advice at the end of the text, and notes it.
pub(super) fn advise(out: &mut TomlOutput<'_>, done: &[&Native], kept: bool) {
    sets(out, done);
    let tools: BTreeSet<&Tool> = opening(done).map(|native| &native.tool).collect();
    if tools.is_empty() {
        return;
    }
    out.gap();
    out.note(
        None,
        "if your own firewall drops by policy, it must accept what knockd lets in:".to_owned(),
    );
    for tool in tools {
        for line in lines(tool, done) {
            out.note(None, line);
        }
    }
    if kept {
        out.note(
            None,
            "doors that keep their commands: a rule of yours does not get past the guard, so at \
             the ports that other doors `open` such a command lets nobody in, and one that takes \
             a rule away closes nothing there; write close = [...] in its place"
                .to_owned(),
        );
    }
}

/// Writes the names of the administrator's sets whose elements now end by themselves.
fn sets(out: &mut TomlOutput<'_>, done: &[&Native]) {
    let all: BTreeSet<&SetPath> = done.iter().flat_map(|native| &native.timed).collect();
    if all.is_empty() {
        return;
    }
    out.gap();
    out.note(
        None,
        "elements of these sets end by themselves now, which each set must allow: without the \
         flag nobody gets in. Write the line into the set in your ruleset (such as \
         /etc/nftables.conf) and load that anew:"
            .to_owned(),
    );
    for SetPath { family, table, set } in all {
        out.note(
            None,
            format!("    table {family} {table}, set {set}: flags timeout;"),
        );
    }
}

fn lines(tool: &Tool, done: &[&Native]) -> Vec<String> {
    match tool {
        Tool::Iptables => ["iptables", "ip6tables"]
            .map(|program| format!("    {program} -I INPUT -m mark --mark {MARK} -j ACCEPT"))
            .to_vec(),
        Tool::Nft(chain) => vec![format!(
            "    nft insert rule {chain} meta mark {MARK} accept"
        )],
        Tool::Ufw => [("before.rules", "ufw"), ("before6.rules", "ufw6")]
            .map(|(file, chain)| {
                format!(
                    "    in /etc/ufw/{file}, above COMMIT: \
                     -A {chain}-before-input -m mark --mark {MARK} -j ACCEPT"
                )
            })
            .to_vec(),
        // No rule of firewalld asks for a mark. The guard stands before it.
        Tool::Firewalld(zone) => {
            let ports: BTreeSet<_> = opening(done)
                .filter(|native| native.tool == *tool)
                .filter_map(|native| match &native.act {
                    Act::Open(ports, _) => Some(ports),
                    Act::Close(_) | Act::Add(_) | Act::Remove(_) => None,
                })
                .flatten()
                .collect();
            let zone = zone
                .as_ref()
                .map_or(String::new(), |zone| format!(" --zone={zone}"));
            let one = |port| format!("    firewall-cmd --permanent{zone} --add-port={port}");
            let reload = "    firewall-cmd --reload (knockd's guard keeps out who has not knocked)";
            ports
                .into_iter()
                .map(one)
                .chain([reload.to_owned()])
                .collect()
        }
        Tool::NftSet => Vec::new(),
    }
}
