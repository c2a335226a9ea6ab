//! Whether what is there is what is configured, as far as an inventory shows it; the first
//! difference in words.

use super::elements;
use super::inventory::{self, Content};
use super::structure;
use crate::firewall::error::FirewallError;
use crate::firewall::ruleset::{self, Hook, Ruleset};
use crate::model::SetPath;
use crate::netlink::NetlinkSocket;

/// The whole table.
pub(in crate::firewall) fn verify(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    flags: u32,
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

/// Whether its chains are the ruleset's, each on the same hook or none. One is missing if a
/// crash came when the table was off its hook, and the kernel adds no base chain in the
/// transaction in which a table changes hands (`nf_tables_addchain()`).
pub(super) fn chains_fit(ruleset: &Ruleset, content: &Content) -> bool {
    let same_count = content.chains.len() == ruleset.chains.len();
    same_count
        && content.chains.iter().all(|there| {
            ruleset.chains.iter().any(|wanted| {
                let base = wanted.hook.map(|hook| {
                    // NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN; NF_ACCEPT.
                    let number = match hook {
                        Hook::Prerouting => 0,
                        Hook::Input => 1,
                    };
                    (number, structure::MANGLE, 1, "filter".to_owned())
                });
                there.name == wanted.name && there.base == base
            })
        })
}

/// Its sets, and what is in them by configuration.
pub(super) fn sets(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    content: &Content,
) -> Result<Option<String>, FirewallError> {
    let table = &*ruleset.table;
    if content.sets.len() != ruleset.sets.len() {
        return Ok(Some(format!("table inet {table} has other sets")));
    }
    for set in &ruleset.sets {
        let name = &set.name;
        let Some(shape) = content.sets.get(name) else {
            return Ok(Some(format!("set {name} is missing")));
        };
        if *shape != structure::shape(set) {
            return Ok(Some(format!("set {name} is of another type")));
        }
        if set.content != ruleset::Content::Openings {
            let path = SetPath {
                family: "inet".to_owned(),
                table: table.to_owned(),
                set: name.clone(),
            };
            let dumped = inventory::elements(socket, &path).map_err(FirewallError::reading)?;
            if !elements::is_filled(set, &inventory::keys(&dumped)) {
                return Ok(Some(format!("set {name} has other elements")));
            }
        }
    }
    Ok(None)
}
