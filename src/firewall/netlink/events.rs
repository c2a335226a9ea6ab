//! The changes that others make to nftables, transaction by transaction.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::batch::{family_name, nft};
use super::inventory::{INET, attr, list};
use super::present::{opening, set_of_openings};
use crate::firewall::notice::Culprit;
use crate::firewall::opening::FoundOpening;
use crate::firewall::ruleset::KeyKind;
use crate::model::SetPath;
use crate::netlink::{Message, NetlinkSocket};

/// Attributes of a generation (linux/netfilter/nf_tables.h).
const GEN_PID: u16 = 2;
const GEN_NAME: u16 = 3;

/// One transaction of another program, as far as it concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::firewall) struct Commit {
    /// True if our table was deleted.
    pub(in crate::firewall) deleted: bool,
    /// True if something in our table other than openings was changed.
    pub(in crate::firewall) changed: bool,
    /// Openings that were added to our table.
    pub(in crate::firewall) added: Vec<FoundOpening>,
    /// Openings that were deleted from our table.
    pub(in crate::firewall) removed: Vec<FoundOpening>,
    /// Sets of other tables that came or went.
    pub(in crate::firewall) sets: BTreeSet<SetPath>,
    /// Elements that were deleted from known sets of other tables.
    pub(in crate::firewall) emptied: Vec<(SetPath, Vec<u8>)>,
    /// The process that made the transaction.
    pub(in crate::firewall) by: Option<Culprit>,
}

/// Puts notifications together into transactions. The kernel sends the parts of a transaction one
/// after the other, and behind them its number with the process that made it. A listener may run
/// between two parts (on a machine with one processor it mostly does), so the parts are kept until
/// the end of the transaction is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::firewall) struct EventReader {
    unfinished: Commit,
}

impl EventReader {
    /// Returns the transactions that have ended since the last call, and true if some were lost.
    pub(in crate::firewall) fn commits(
        &mut self,
        socket: &mut NetlinkSocket,
        table: &str,
        knows: impl Fn(&SetPath) -> bool,
        ours: u32,
    ) -> Result<(Vec<Commit>, bool), Errno> {
        let mut done = Vec::new();
        let result = socket.drain(|m| {
            if m.port != ours {
                done.extend(self.read(m, table, &knows));
            }
        });
        match result {
            Ok(()) => Ok((done, false)),
            Err(Errno::ENOBUFS) => {
                // The end of the unfinished transaction may be lost, and the next parts may be of
                // another.
                self.unfinished = Commit::default();
                Ok((done, true))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Takes a message. Returns the transaction that ends with it.
    pub(super) fn read(
        &mut self,
        m: &Message<'_>,
        table: &str,
        knows: &impl Fn(&SetPath) -> bool,
    ) -> Option<Commit> {
        if m.kind != nft(libc::NFT_MSG_NEWGEN) {
            note(&mut self.unfinished, m, table, knows);
            return None;
        }
        let a = m.attributes();
        self.unfinished.by = a.number(GEN_PID).map(|pid| Culprit {
            pid,
            name: a.text(GEN_NAME).unwrap_or("?").to_owned(),
        });
        Some(std::mem::take(&mut self.unfinished))
    }
}

fn note(commit: &mut Commit, m: &Message<'_>, table: &str, knows: &impl Fn(&SetPath) -> bool) {
    let a = m.attributes();
    // Messages of tables, chains, rules, sets and elements all have the table's name first.
    let Some(name) = a.text(attr::TABLE_NAME) else {
        return;
    };
    let ours = m.family() == Some(INET) && name == table;
    let is = |message| m.kind == nft(message);
    let new_element = is(libc::NFT_MSG_NEWSETELEM);
    if new_element || is(libc::NFT_MSG_DELSETELEM) {
        let set = a.text(attr::LIST_SET).unwrap_or_default();
        if !ours {
            if !new_element && let Some(path) = path(m, name, set).filter(|path| knows(path)) {
                let keys = list(a).map(|d| (path.clone(), d.key));
                commit.emptied.extend(keys);
            }
        } else if let Some((range, family)) = set_of_openings(set) {
            let key = match range {
                Some(_) => KeyKind::Address(family),
                None => KeyKind::AddressPort(family),
            };
            let found = list(a).filter_map(|d| opening(&d, key, range));
            if new_element {
                commit.added.extend(found);
            } else {
                commit.removed.extend(found);
            }
        } else {
            commit.changed = true;
        }
    } else if is(libc::NFT_MSG_NEWSET) || is(libc::NFT_MSG_DELSET) {
        if ours {
            commit.changed = true;
        } else if let Some(path) = path(m, name, a.text(attr::SET_NAME).unwrap_or_default()) {
            commit.sets.insert(path);
        }
    } else if ours && is(libc::NFT_MSG_DELTABLE) {
        commit.deleted = true;
    } else if ours {
        commit.changed = true;
    }
}

/// Returns the path of a set in another table, in nft's words.
fn path(m: &Message<'_>, table: &str, set: &str) -> Option<SetPath> {
    let family = family_name(m.family()?)?;
    Some(SetPath {
        family: family.to_owned(),
        table: table.to_owned(),
        set: set.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Messages, NetlinkRequest};

    fn read(events: &mut EventReader, request: NetlinkRequest) -> Vec<Commit> {
        let bytes = request.numbered(1);
        let all = Messages(&bytes).filter_map(|m| events.read(&m, "knockd", &|_| true));
        all.collect()
    }

    #[test]
    fn a_transaction_is_kept_until_its_end_is_read() {
        let mut events = EventReader::default();
        let gone = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_DELTABLE), 0, INET, 0)
            .with_text(attr::TABLE_NAME, "knockd");
        assert_eq!(read(&mut events, gone), []);
        let end = || {
            NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_NEWGEN), 0, 0, 0)
                .with(GEN_PID, &7_u32.to_be_bytes())
                .with_text(GEN_NAME, "nft")
        };
        let by = Some(Culprit {
            pid: 7,
            name: "nft".to_owned(),
        });
        let deleted = Commit {
            deleted: true,
            by: by.clone(),
            ..Commit::default()
        };
        assert_eq!(read(&mut events, end()), [deleted]);
        let nothing = Commit {
            by,
            ..Commit::default()
        };
        assert_eq!(read(&mut events, end()), [nothing], "it is told once");
    }
}
