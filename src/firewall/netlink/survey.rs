//! What is there before anything is changed: our table or what keeps us from it, tables of
//! ours by an older name, and every opening in them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::inventory::{self, Content, Dumped, Layout, TableInfo};
use super::retire::Old;
use super::structure;
use crate::firewall::book::{Entry, Place, Slot, element};
use crate::firewall::error::FirewallError;
use crate::firewall::ruleset::{Family, Key, Ruleset};
use crate::firewall::transaction::{Element, ElementKey};
use crate::model::{Lifetime, PortRange, SetPath, Timestamp};
use crate::netlink::NetlinkSocket;

/// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: nobody but us changes the table, and it
/// outlives us. (Debian 12's headers do not have the second; Linux 6.9 does.)
pub(in crate::firewall) const OWNED: u32 = 0x2 | 0x4;
/// `NFT_TABLE_F_PERSIST` alone: what is left of an owned table when its owner has died.
pub(super) const ORPHAN: u32 = 0x4;
/// `NFT_TABLE_F_OWNER`.
pub(super) const OWNER: u32 = 0x2;

/// An opening found in a table of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct Found {
    pub(in crate::firewall) slot: Slot,
    /// `None`: until it is closed.
    pub(in crate::firewall) left: Option<Duration>,
    /// The door that made it; `None`: somebody else's work.
    pub(in crate::firewall) door: Option<Arc<str>>,
}

/// What there is before anything is changed.
#[derive(Debug, Clone)]
pub(in crate::firewall) struct Survey {
    /// The table of the configured name.
    pub(super) table: Option<(TableInfo, Content)>,
    /// Tables of ours that go by another name: the configuration has renamed it, or a
    /// replacement was cut short.
    pub(super) renamed: Vec<Old>,
    /// Tables of ours of which it is not known whose configuration they are of: they stay.
    pub(in crate::firewall) strays: Vec<String>,
    /// What is open in any of them.
    pub(in crate::firewall) openings: Vec<Found>,
    /// What of it is open in the table of the configured name.
    pub(super) present: BTreeSet<Slot>,
    /// The names of all tables.
    names: BTreeSet<String>,
    /// When it was looked.
    at: Instant,
}

/// Which tables of other names the configuration may have renamed. They go, so whoever
/// guards by another configuration must not be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) enum Renamed<'a> {
    /// At a start: those of the same configuration.
    Same,
    /// At a reload: those, and the one that was ours until now.
    Old(&'a str),
    /// None: only the configured table is meant.
    None,
}

/// How the table came to be what it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// There was none.
    Created,
    /// It was there and was taken over, openings and all.
    Adopted,
    /// It was there but had to be built anew (other doors, another layout or mode, or a
    /// stranger's work in it), with its openings.
    Rebuilt,
}

impl Found {
    /// The note of it in a book.
    pub(in crate::firewall) fn entry(&self, now: Timestamp) -> Entry {
        Entry {
            deadline: self.left.map(|left| now + left),
            door: self.door.clone().unwrap_or_else(|| "".into()),
        }
    }
}

/// Looks at what is there.
pub(in crate::firewall) fn survey(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    renamed: Renamed<'_>,
) -> Result<Survey, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let port = socket.port();
    let taken = |t: &TableInfo| t.flags & OWNER != 0 && t.owner != Some(port);
    let mut survey = Survey {
        table: None,
        renamed: Vec::new(),
        strays: Vec::new(),
        openings: Vec::new(),
        present: BTreeSet::new(),
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
        // Of other names only what bears our signature and has no other living owner.
        if !this && (info.layout == Layout::Foreign || taken(&info)) {
            continue;
        }
        let same = info.instance.is_some() && info.instance == ruleset.instance;
        let meant = match renamed {
            Renamed::Same => same,
            // A reload that failed half-way may have left another.
            Renamed::Old(old) => same || info.name == old,
            Renamed::None => false,
        };
        let meant = meant || is_interim(&info, &ruleset.table);
        if !this && !meant {
            if renamed == Renamed::Same && info.instance.is_none() {
                survey.strays.push(info.name);
            }
            continue;
        }
        let content = inventory::content(socket, &info.name).map_err(FirewallError::reading)?;
        let openings = openings(socket, &info.name, &content).map_err(FirewallError::reading)?;
        if this {
            survey.present = openings.iter().map(|f| f.slot.clone()).collect();
            survey.table = Some((info, content));
        } else {
            survey.renamed.push(Old::new(&info, &content));
        }
        survey.openings.extend(openings);
    }
    Ok(survey)
}

/// What the name of a table that stands in for another has after that one's.
const INTERIM: &str = "_interim";

/// How much of the other's name it has: a name has at most 255 characters (`NFT_NAME_MAXLEN`).
const STEM: usize = 240;

fn stem(table: &str) -> &str {
    table.get(..STEM).unwrap_or(table)
}

/// Whether a table of ours stood in for `table` and was left by a crash.
pub(super) fn is_interim(info: &TableInfo, table: &str) -> bool {
    let rest = info.name.strip_prefix(stem(table));
    let number = rest.and_then(|rest| rest.strip_prefix(INTERIM));
    info.layout != Layout::Foreign
        && number.is_some_and(|n| n.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Everything that is open in a table of ours, of whichever layout.
pub(in crate::firewall) fn openings(
    socket: &mut NetlinkSocket,
    table: &str,
    content: &Content,
) -> Result<Vec<Found>, Errno> {
    let mut found = Vec::new();
    for (name, shape) in &content.sets {
        let Some((range, family)) = set_of_openings(name) else {
            continue;
        };
        let key = match range {
            Some(_) => Key::Address(family),
            None => Key::AddressPort(family),
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

/// What an element of a set of openings stands for.
pub(super) fn opening(dumped: &Dumped, key: Key, range: Option<PortRange>) -> Option<Found> {
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
    Some(Found {
        slot: Slot {
            source,
            place: Place::Ports(ports),
        },
        left: dumped.left,
        door: dumped.comment.as_deref().map(Arc::from),
    })
}

/// Which openings a set of that name holds: of single ports, or of which range.
pub(super) fn set_of_openings(name: &str) -> Option<(Option<PortRange>, Family)> {
    let (stem, suffix) = name.rsplit_once('_')?;
    let family = Family::BOTH.into_iter().find(|f| f.suffix() == suffix)?;
    if stem == "openings" {
        return Some((None, family));
    }
    let (protocol, ports) = stem.split_once('_')?;
    let range = format!("{}/{protocol}", ports.replace('_', "-"));
    Some((Some(range.parse().ok()?), family))
}

impl Survey {
    /// The same table under a name that nobody has.
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

    /// Openings as they are put in again, with what is left of their time now; not those that
    /// have run out, nor those that the table has no place for.
    pub(super) fn again<'a>(
        &self,
        ruleset: &Ruleset,
        openings: impl IntoIterator<Item = &'a Found>,
    ) -> Vec<Element> {
        let passed = self.at.elapsed();
        let again = openings.into_iter().filter_map(|found| {
            let lifetime = match found.left {
                None => Lifetime::UntilClosed,
                // Zero would be for ever.
                Some(left) => Lifetime::For(left.checked_sub(passed).filter(|l| !l.is_zero())?),
            };
            let door = found.door.clone().unwrap_or_else(|| "".into());
            element(ruleset, &found.slot, lifetime, &door)
        });
        again.collect()
    }
}
