//! The state before a change: our table or the obstacle to making it, tables of ours by another
//! name, and every opening in them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::ffi::SetShape;
use super::inventory::{self, Dumped, Layout, TableContent, TableInfo};
use super::structure::{self, set_flag};
use crate::firewall::error::FirewallError;
use crate::firewall::opening::{FoundOpening, OpeningPlace, OpeningSlot};
use crate::firewall::ruleset::{IpFamily, KeyKind, Ruleset, is_set_of_guarded};
use crate::firewall::transaction::{Element, ElementKey};
use crate::model::{Lifetime, PortRange, SetPath};
use crate::netlink::NetlinkSocket;

/// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: nobody but us changes the table, and it
/// outlives us. (Debian 12's headers do not have the second; Linux 6.9 does.)
pub(in crate::firewall) const OWNED: u32 = 0x2 | 0x4;
/// `NFT_TABLE_F_PERSIST` alone: the flags of an owned table whose owner has died.
pub(super) const ORPHAN: u32 = 0x4;
/// `NFT_TABLE_F_OWNER`.
pub(super) const OWNER: u32 = 0x2;

/// The state before a change.
#[derive(Debug, Clone)]
pub(in crate::firewall) struct Present {
    /// The table of the configured name.
    pub(super) table: Option<(TableInfo, TableContent)>,
    /// Names of other tables of ours: the configuration has renamed the table, or a
    /// replacement was cut short.
    pub(super) renamed: Vec<String>,
    /// Tables of ours whose configuration is not known: they stay.
    pub(in crate::firewall) strays: Vec<String>,
    /// The openings in the table and in those of other names.
    pub(in crate::firewall) openings: Vec<FoundOpening>,
    /// The slots of the openings that are in the table of the configured name.
    pub(super) slots: BTreeSet<OpeningSlot>,
    /// The names of all tables.
    names: BTreeSet<String>,
    /// When all this was read.
    at: Instant,
}

/// Which tables of other names are earlier tables of ours. They are deleted, so the guard of
/// another configuration must not be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) enum Renamed<'a> {
    /// At a start: the tables of the same configuration.
    Same,
    /// At a reload: the tables of the same configuration, and the table that was ours until now.
    Old(&'a str),
    /// No table of another name: only the configured table is meant.
    None,
}

/// How the table came to be what it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// There was no table.
    Created,
    /// The table was there and was taken over, openings and all.
    Adopted,
    /// The table was there but had to be built anew (other doors, another layout or mode, or a
    /// stranger's work in it), with its openings.
    Rebuilt,
}

/// Reads the state before a change.
pub(in crate::firewall) fn look(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    renamed: Renamed<'_>,
) -> Result<Present, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let port = socket.port();
    let taken = |t: &TableInfo| t.flags & OWNER != 0 && t.owner != Some(port);
    let mut present = Present {
        table: None,
        renamed: Vec::new(),
        strays: Vec::new(),
        openings: Vec::new(),
        slots: BTreeSet::new(),
        names: tables.iter().map(|t| t.name.clone()).collect(),
        at: Instant::now(),
    };
    for info in tables {
        let this = *info.name == *ruleset.table;
        if this && taken(&info) {
            return Err(FirewallError::Owned {
                table: info.name,
                port: info.owner,
            });
        }
        if this && info.layout == Layout::Foreign {
            return Err(FirewallError::Foreign { table: info.name });
        }
        // A table of another name counts only if it bears our signature and has no other living
        // owner.
        if !this && (info.layout == Layout::Foreign || taken(&info)) {
            continue;
        }
        let same = info.instance.is_some() && info.instance == ruleset.instance;
        let meant = match renamed {
            Renamed::Same => same,
            // A reload that failed half-way may have left another table.
            Renamed::Old(old) => same || info.name == old,
            Renamed::None => false,
        };
        let meant = meant || is_interim(&info, &ruleset.table);
        if !this && !meant {
            if renamed == Renamed::Same && info.instance.is_none() {
                present.strays.push(info.name);
            }
            continue;
        }
        let content = inventory::content(socket, &info.name).map_err(FirewallError::reading)?;
        let openings = openings(socket, &info.name, &content).map_err(FirewallError::reading)?;
        if this {
            present.slots = openings.iter().map(|f| f.slot.clone()).collect();
            present.table = Some((info, content));
        } else {
            present.renamed.push(info.name);
        }
        present.openings.extend(openings);
    }
    Ok(present)
}

/// The end of the name of a table that stands in for another; the other's name comes before it.
const INTERIM: &str = "_interim";

/// How many characters of the other's name are taken: a name has at most 255 characters
/// (`NFT_NAME_MAXLEN`).
const STEM: usize = 240;

fn stem(table: &str) -> &str {
    table.get(..STEM).unwrap_or(table)
}

/// Returns true if a table of ours stood in for `table` and was left by a crash.
pub(super) fn is_interim(info: &TableInfo, table: &str) -> bool {
    let rest = info.name.strip_prefix(stem(table));
    let number = rest.and_then(|rest| rest.strip_prefix(INTERIM));
    info.layout != Layout::Foreign
        && number.is_some_and(|n| n.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Returns the openings in a table of ours, of whichever layout.
pub(in crate::firewall) fn openings(
    socket: &mut NetlinkSocket,
    table: &str,
    content: &TableContent,
) -> Result<Vec<FoundOpening>, Errno> {
    let mut found = Vec::new();
    for (name, shape) in &content.sets {
        let Some((range, family)) = set_of_openings(name) else {
            continue;
        };
        let key = match range {
            Some(_) => KeyKind::Address(family),
            None => KeyKind::AddressPort(family),
        };
        if (shape.key_type, shape.key_len) != structure::key(key) {
            continue;
        }
        let path = SetPath {
            family: "inet".to_owned(),
            table: table.to_owned(),
            set: name.clone(),
        };
        let dumped = inventory::elements(socket, &path)?;
        found.extend(dumped.iter().filter_map(|d| opening(d, key, range)));
    }
    Ok(found)
}

/// Returns the opening that an element of a set of openings stands for.
pub(super) fn opening(
    dumped: &Dumped,
    key: KeyKind,
    range: Option<PortRange>,
) -> Option<FoundOpening> {
    let (source, ports) = match (dumped.key(key)?, range) {
        (ElementKey::Address(source), Some(range)) => (source, range),
        (ElementKey::AddressPort(source, step), None) => (
            source,
            PortRange {
                protocol: step.protocol,
                first: step.port,
                last: step.port,
            },
        ),
        (ElementKey::Address(_), None) | (ElementKey::AddressPort(..), Some(_)) => return None,
    };
    Some(FoundOpening {
        slot: OpeningSlot {
            source,
            place: OpeningPlace::Ports(ports),
        },
        left: dumped.left,
        door: dumped.comment.as_deref().map(Arc::from),
    })
}

/// Returns the range and the family of the openings in a set of that name, or `None` if no set of
/// openings has such a name. The range is `None` for openings of single ports.
pub(super) fn set_of_openings(name: &str) -> Option<(Option<PortRange>, IpFamily)> {
    let (stem, suffix) = name.rsplit_once('_')?;
    let family = IpFamily::BOTH.into_iter().find(|f| f.suffix() == suffix)?;
    if stem == "openings" {
        return Some((None, family));
    }
    let (protocol, ports) = stem.split_once('_')?;
    let range = format!("{}/{protocol}", ports.replace('_', "-"));
    Some((Some(range.parse().ok()?), family))
}

/// Returns true if a set of a table of ours is one that knockd makes, for whatever configuration. A
/// map is not, for a map may hold on to a chain.
pub(super) fn is_ours(name: &str, shape: SetShape) -> bool {
    let named = is_set_of_guarded(name) || set_of_openings(name).is_some();
    named && shape.flags & (set_flag::MAP | set_flag::OBJECT) == 0
}

impl Present {
    /// Returns the same ruleset for a table under a name that is free.
    pub(super) fn beside(&self, ruleset: &Ruleset) -> Ruleset {
        let stem = stem(&ruleset.table);
        let mut name = format!("{stem}{INTERIM}");
        let mut number = 1;
        while self.names.contains(&name) {
            number += 1;
            name = format!("{stem}{INTERIM}{number}");
        }
        ruleset.named(&name)
    }

    /// Returns the elements of openings, with the time that each has left now. Openings that have
    /// run out are left out, and so are those that the ruleset has no set for.
    pub(super) fn again<'a>(
        &self,
        ruleset: &Ruleset,
        openings: impl IntoIterator<Item = &'a FoundOpening>,
    ) -> Vec<Element> {
        let passed = self.at.elapsed();
        let again = openings.into_iter().filter_map(|found| {
            let lifetime = match found.left {
                None => Lifetime::UntilClosed,
                // To the kernel, a timeout of zero means for ever.
                Some(left) => Lifetime::For(left.checked_sub(passed).filter(|l| !l.is_zero())?),
            };
            let door = found.door.clone().unwrap_or_else(|| "".into());
            found.slot.element(ruleset, lifetime, &door)
        });
        again.collect()
    }
}
