//! Compares a table with its ruleset, as far as an inventory shows it, and returns the first
//! difference in words.

use super::elements;
use super::inventory::{self, TableContent};
use super::structure;
use crate::firewall::error::FirewallError;
use crate::firewall::ruleset::{Hook, Ruleset, Set, SetContent};
use crate::model::SetPath;
use crate::netlink::NetlinkSocket;

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, and `NF_ACCEPT` (linux/netfilter.h).
const PRE_ROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
const ACCEPT: u32 = 1;

/// Compares the whole table. Sets that are leftovers may remain.
pub(in crate::firewall) fn verify(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    flags: u32,
    is_leftover: impl Fn(&str) -> bool,
) -> Result<Option<String>, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let table = &*ruleset.table;
    let Some(info) = tables.into_iter().find(|t| t.name == table) else {
        return Ok(Some(format!("there is no table inet {table}")));
    };
    if info.flags != flags || !info.is_current(ruleset) {
        return Ok(Some(format!(
            "table inet {table} has flags {:#x} and layout {:?}, not {flags:#x} and \"{}\"",
            info.flags,
            info.layout,
            ruleset.comment()
        )));
    }
    let content = inventory::content(socket, table).map_err(FirewallError::reading)?;
    if content.objects != 0 {
        return Ok(Some(format!(
            "table inet {table} has a stranger's objects in it"
        )));
    }
    if let Some(what) = sets(socket, ruleset, &content)? {
        return Ok(Some(what));
    }
    let is_ours = |name: &str| ruleset.sets.iter().any(|set| set.name == name);
    if content
        .sets
        .keys()
        .any(|name| !is_ours(name) && !is_leftover(name))
    {
        return Ok(Some(format!("table inet {table} has other sets")));
    }
    if !chains_fit(ruleset, &content) {
        return Ok(Some(format!("table inet {table} has other chains")));
    }
    for chain in &ruleset.chains {
        let there = content.rules.get(chain.name).copied().unwrap_or(0);
        if there != chain.rules.len() {
            return Ok(Some(format!(
                "chain {} has {there} rules, not {}",
                chain.name,
                chain.rules.len()
            )));
        }
    }
    Ok(None)
}

/// Returns true if the chains are the ruleset's, each on the same hook or on none. The kernel adds
/// no base chain in the transaction in which a table gets another owner (`nf_tables_addchain()`).
pub(super) fn chains_fit(ruleset: &Ruleset, content: &TableContent) -> bool {
    let same_count = content.chains.len() == ruleset.chains.len();
    same_count
        && content.chains.iter().all(|there| {
            ruleset.chains.iter().any(|wanted| {
                let base = wanted.hook.map(|hook| {
                    let number = match hook {
                        Hook::Prerouting => PRE_ROUTING,
                        Hook::Input => LOCAL_IN,
                    };
                    (number, structure::MANGLE, ACCEPT, "filter".to_owned())
                });
                there.name == wanted.name && there.base == base
            })
        })
}

/// Compares the ruleset's sets, and the elements that they have by configuration. Other sets may be
/// there.
pub(super) fn sets(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    content: &TableContent,
) -> Result<Option<String>, FirewallError> {
    for set in &ruleset.sets {
        let name = &set.name;
        let Some(shape) = content.sets.get(name) else {
            return Ok(Some(format!("set {name} is missing")));
        };
        if *shape != structure::shape(set) {
            return Ok(Some(format!("set {name} is of another type")));
        }
        if !is_filled(socket, ruleset, set)? {
            return Ok(Some(format!("set {name} has other elements")));
        }
    }
    Ok(None)
}

/// Returns true if a set that is there has the elements that it has by configuration, and no
/// others. A set that has none by configuration may have any.
pub(super) fn is_filled(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    set: &Set,
) -> Result<bool, FirewallError> {
    if set.content == SetContent::Openings {
        return Ok(true);
    }
    let path = SetPath {
        family: "inet".to_owned(),
        table: ruleset.table.to_string(),
        set: set.name.clone(),
    };
    let dumped = inventory::elements(socket, &path).map_err(FirewallError::reading)?;
    Ok(elements::is_filled(set, &inventory::keys(&dumped)))
}
