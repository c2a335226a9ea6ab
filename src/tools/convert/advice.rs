//! Advice for a firewall that drops by policy, beside knockd's own table.
//!
//! An `accept` in one nftables chain does not overrule another chain's `drop`. So packets that knockd
//! lets in must be accepted there as well: by their mark, or, if no rule can ask for a mark, by their
//! port, which knockd guards.

use std::collections::BTreeSet;

use super::native::{Act, Native, Tool};
use super::output::TomlOutput;
use crate::model::{Lifetime, SetElement, SetPath};

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

/// Writes what elements of knockd's need of the administrator's sets and those of the commands did not.
fn sets(out: &mut TomlOutput<'_>, done: &[&Native]) {
    let timed: BTreeSet<&SetPath> = done.iter().flat_map(|native| &native.timed).collect();
    if !timed.is_empty() {
        out.gap();
        out.note(
            None,
            "elements of these sets end by themselves now, which each set must allow: without the \
             flag nobody gets in. Write the line into the set in your ruleset (such as \
             /etc/nftables.conf) and load that anew:"
                .to_owned(),
        );
    }
    for SetPath { family, table, set } in timed {
        out.note(
            None,
            format!("    table {family} {table}, set {set}: flags timeout;"),
        );
    }
    let stays = |e: &&SetElement| e.lifetime == Lifetime::UntilClosed;
    let lasting: BTreeSet<&SetPath> = done
        .iter()
        .filter_map(|native| match &native.act {
            Act::Add(elements) => Some(elements.iter().filter(stays).map(|e| &e.path)),
            Act::Open(..) | Act::Close(_) | Act::Remove(_) => None,
        })
        .flatten()
        .collect();
    for SetPath { family, table, set } in lasting {
        out.gap();
        out.note(
            None,
            format!(
                "if set {set} of table {family} {table} has a `timeout` of its own, write that in \
                 place of \"until closed\" (for = \"1h\"): otherwise nobody gets in"
            ),
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
