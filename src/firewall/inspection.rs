//! Looks at the tables in the kernel without changing them, for `knockd check`.

use super::admin_sets;
use super::error::FirewallError;
use super::netlink::inventory::{self, Layout};
use super::netlink::socket;
use super::notice::Notice;
use super::ruleset::Ruleset;

/// The tables in the kernel that concern a ruleset, and the sets that its doors fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// The presence of a table of the ruleset's name.
    pub(crate) table: Presence,
    /// The names of tables that a daemon of this configuration makes, or deletes at its start: a
    /// table that bears the configuration's mark goes whatever its name.
    pub(crate) ours: Vec<String>,
    /// The names of tables that knockds of other configurations have made.
    pub(crate) others: Vec<String>,
    /// Notices about faults of the administrator's sets that doors fill.
    pub(crate) notices: Vec<Notice>,
}

/// The presence of a table of some name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is no such table.
    Absent,
    /// There is a table that knockd has not made.
    Foreign,
    /// There is a table that a knockd has made.
    Ours,
}

/// Returns the tables in the kernel that concern this ruleset, and faults of the sets that its
/// doors fill.
///
/// # Errors
///
/// If nftables cannot be read: mostly for want of privilege.
pub(crate) fn inspect(ruleset: &Ruleset) -> Result<Inspection, FirewallError> {
    let mut socket = socket::open().map_err(FirewallError::reading)?;
    let tables = inventory::tables(&mut socket).map_err(FirewallError::reading)?;
    let notices = admin_sets::obstacles(&mut socket, ruleset)?;
    let mut inspection = Inspection {
        table: Presence::Absent,
        ours: Vec::new(),
        others: Vec::new(),
        notices,
    };
    for table in tables {
        let is_foreign = table.layout == Layout::Foreign;
        let has_name = *table.name == *ruleset.table;
        let has_mark = table.instance.is_some() && table.instance == ruleset.instance;
        if has_name {
            inspection.table = match is_foreign {
                true => Presence::Foreign,
                false => Presence::Ours,
            };
        }
        if has_name || has_mark && !is_foreign {
            inspection.ours.push(table.name);
        } else if !is_foreign {
            inspection.others.push(table.name);
        }
    }
    Ok(inspection)
}
