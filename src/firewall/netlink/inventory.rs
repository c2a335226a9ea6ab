//! Reads the tables, chains, sets and elements that are in the kernel.
//!
//! The code reads them itself, not by rustables: rustables opens a socket for each list, knows no
//! owner, and fails as a whole on anything unknown in tables of other people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::errno::Errno;

use super::batch::{family, nft};
use super::elements::{key_of, text_of};
use super::ffi::SetShape;
use super::structure::{self, set_flag};
use crate::firewall::ruleset::{IpFamily, KeyKind, LAYOUT, Ruleset, SIGNATURE};
use crate::firewall::transaction::ElementKey;
use crate::model::SetPath;
use crate::netlink::{ACK, Attributes, DUMP, Message, NetlinkRequest, NetlinkSocket};

/// `NFT_MSG_GETFLOWTABLE`, which libc does not have.
const GET_FLOWTABLE: i32 = 23;
/// `NFPROTO_INET`.
pub(super) const INET: u8 = 1;

/// Attributes (linux/netfilter/nf_tables.h).
pub(super) mod attr {
    pub(in super::super) const TABLE_NAME: u16 = 1;
    /// The table's name, in messages about what is in a table.
    pub(in super::super) const TABLE_OF: u16 = 1;
    pub(in super::super) const TABLE_FLAGS: u16 = 2;
    pub(in super::super) const TABLE_USERDATA: u16 = 6;
    pub(in super::super) const TABLE_OWNER: u16 = 7;
    pub(in super::super) const CHAIN_NAME: u16 = 3;
    pub(in super::super) const CHAIN_HOOK: u16 = 4;
    pub(in super::super) const CHAIN_POLICY: u16 = 5;
    pub(in super::super) const CHAIN_TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUM: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
    pub(in super::super) const SET_TABLE: u16 = 1;
    pub(in super::super) const SET_NAME: u16 = 2;
    pub(in super::super) const SET_FLAGS: u16 = 3;
    pub(in super::super) const SET_KEY_TYPE: u16 = 4;
    pub(in super::super) const SET_KEY_LEN: u16 = 5;
    pub(in super::super) const SET_DESC: u16 = 9;
    pub(in super::super) const SET_TIMEOUT: u16 = 11;
    pub(in super::super) const DESC_SIZE: u16 = 1;
    pub(in super::super) const LIST_TABLE: u16 = 1;
    pub(in super::super) const LIST_SET: u16 = 2;
    pub(in super::super) const LIST_ELEMENTS: u16 = 3;
    pub(in super::super) const LIST_ELEM: u16 = 1;
    pub(in super::super) const ELEM_KEY: u16 = 1;
    pub(in super::super) const ELEM_TIMEOUT: u16 = 4;
    pub(in super::super) const ELEM_EXPIRATION: u16 = 5;
    pub(in super::super) const ELEM_USERDATA: u16 = 6;
    pub(in super::super) const DATA_VALUE: u16 = 1;
    pub(in super::super) const RULE_CHAIN: u16 = 2;
}

/// A table, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct TableInfo {
    pub(in crate::firewall) name: String,
    pub(in crate::firewall) flags: u32,
    /// The netlink port of the table's owner, if the owner lives.
    pub(in crate::firewall) owner: Option<u32>,
    pub(in crate::firewall) layout: Layout,
    /// The mark of the table's configuration (see [`Ruleset::of`]), if its comment has one.
    pub(in crate::firewall) instance: Option<u32>,
}

impl TableInfo {
    /// Returns true if the table's comment is the one that this ruleset's table has.
    pub(super) fn is_current(&self, ruleset: &Ruleset) -> bool {
        self.layout == Layout::Current && self.instance == ruleset.instance
    }
}

/// The layout of a table, which also shows whether knockd made the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) enum Layout {
    /// The table is ours, as we build it now.
    Current,
    /// The table is ours, as another version built it.
    Other(u32),
    /// The table is not ours.
    Foreign,
}

impl Layout {
    /// Returns the layout that a table's comment names, and the configuration's mark. An older
    /// knockd wrote no mark.
    fn of(userdata: Option<&[u8]>) -> (Self, Option<u32>) {
        let comment = userdata.and_then(text_of);
        let Some(rest) = comment.and_then(|text| text.strip_prefix(SIGNATURE)) else {
            return (Self::Foreign, None);
        };
        let (number, instance) = rest.split_once(' ').unwrap_or((rest, ""));
        let layout = match number.parse() {
            Ok(LAYOUT) => Self::Current,
            Ok(other) => Self::Other(other),
            Err(_) => Self::Foreign,
        };
        (layout, u32::from_str_radix(instance, 16).ok())
    }
}

/// A chain, as listed: its name, and the hook, priority, policy and type of a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct ChainInfo {
    pub(in crate::firewall) name: String,
    pub(in crate::firewall) base: Option<(u32, i32, u32, String)>,
}

/// The content of one table, but for elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::firewall) struct TableContent {
    pub(super) sets: BTreeMap<String, SetShape>,
    pub(in crate::firewall) chains: Vec<ChainInfo>,
    /// The number of rules of each chain.
    pub(in crate::firewall) rules: BTreeMap<String, usize>,
    /// The number of stateful objects and flowtables: a table of ours has none.
    pub(in crate::firewall) objects: usize,
}

/// An element, as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct Dumped {
    pub(in crate::firewall) key: Vec<u8>,
    /// The time that the element has left; `None`: it stays.
    pub(in crate::firewall) left: Option<Duration>,
    pub(in crate::firewall) comment: Option<String>,
}

/// A set of the administrator's, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) struct SetInfo {
    pub(super) shape: SetShape,
    /// The timeout of an element that names none, in milliseconds; 0: the element stays for ever.
    timeout: u64,
}

/// Returns all tables of family `inet`.
pub(in crate::firewall) fn tables(socket: &mut NetlinkSocket) -> Result<Vec<TableInfo>, Errno> {
    let request = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_GETTABLE), DUMP, INET, 0);
    socket.query(&request, |m, found: &mut Vec<_>| {
        found.extend(read_table(m))
    })
}

/// Reads a message about a table of family `inet`.
pub(super) fn read_table(m: &Message<'_>) -> Option<TableInfo> {
    let a = m.attributes();
    if m.family() != Some(INET) {
        return None;
    }
    let name = a.text(attr::TABLE_NAME)?.to_owned();
    let (layout, instance) = Layout::of(a.get(attr::TABLE_USERDATA));
    Some(TableInfo {
        name,
        flags: a.number(attr::TABLE_FLAGS).unwrap_or(0),
        owner: a.number(attr::TABLE_OWNER),
        layout,
        instance,
    })
}

/// Returns the owner of a table of any family, if the table has one.
pub(in crate::firewall) fn owner(
    socket: &mut NetlinkSocket,
    path: &SetPath,
) -> Result<Option<u32>, Errno> {
    let Some(family) = family(&path.family) else {
        return Ok(None);
    };
    let request = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_GETTABLE), ACK, family as u8, 0)
        .with_text(attr::TABLE_NAME, &path.table);
    socket.query(&request, |m, found: &mut Option<u32>| {
        *found = found.or(m.attributes().number(attr::TABLE_OWNER));
    })
}

/// Returns the content of the table of that name in family `inet`.
pub(in crate::firewall) fn content(
    socket: &mut NetlinkSocket,
    table: &str,
) -> Result<TableContent, Errno> {
    let request =
        |message| NetlinkRequest::nfnetlink(nft(message), DUMP, INET, 0).with_text(1, table);
    let its = |m: &Message<'_>| m.attributes().text(attr::TABLE_OF) == Some(table);
    let sets = socket.query(
        &request(libc::NFT_MSG_GETSET),
        |m, sets: &mut BTreeMap<_, _>| sets.extend(read_set(m).filter(|_| its(m))),
    )?;
    let chains = socket.query(
        &request(libc::NFT_MSG_GETCHAIN),
        |m, chains: &mut Vec<_>| chains.extend(read_chain(m).filter(|_| its(m))),
    )?;
    let rules = socket.query(
        &request(libc::NFT_MSG_GETRULE),
        |m, rules: &mut BTreeMap<String, usize>| {
            if let Some(chain) = read_rule(m).filter(|_| its(m)) {
                *rules.entry(chain.to_owned()).or_default() += 1;
            }
        },
    )?;
    let mut objects = 0;
    for message in [libc::NFT_MSG_GETOBJ, GET_FLOWTABLE] {
        let found = socket.query(&request(message), |m, n: &mut usize| {
            *n += usize::from(its(m));
        });
        objects += match found {
            Ok(n) => n,
            // The kernel was built without flowtables.
            Err(Errno::EOPNOTSUPP) => 0,
            Err(refusal) => return Err(refusal),
        };
    }
    Ok(TableContent {
        sets,
        chains,
        rules,
        objects,
    })
}

/// Reads the name of a set, and how the kernel keeps the set.
pub(super) fn read_set(m: &Message<'_>) -> Option<(String, SetShape)> {
    let a = m.attributes();
    Some((a.text(attr::SET_NAME)?.to_owned(), set_shape(a)))
}

pub(super) fn read_chain(m: &Message<'_>) -> Option<ChainInfo> {
    let a = m.attributes();
    Some(ChainInfo {
        name: a.text(attr::CHAIN_NAME)?.to_owned(),
        base: base(a),
    })
}

/// Reads the name of a rule's chain.
pub(super) fn read_rule<'a>(m: &Message<'a>) -> Option<&'a str> {
    m.attributes().text(attr::RULE_CHAIN)
}

fn base(a: Attributes<'_>) -> Option<(u32, i32, u32, String)> {
    let hook = a.nested(attr::CHAIN_HOOK)?;
    Some((
        hook.number(attr::HOOK_NUM)?,
        hook.number(attr::HOOK_PRIORITY)?.cast_signed(),
        a.number(attr::CHAIN_POLICY)?,
        a.text(attr::CHAIN_TYPE)?.to_owned(),
    ))
}

pub(super) fn set_shape(a: Attributes<'_>) -> SetShape {
    SetShape {
        key_type: a.number(attr::SET_KEY_TYPE).unwrap_or(0),
        key_len: a.number(attr::SET_KEY_LEN).unwrap_or(0),
        flags: a.number(attr::SET_FLAGS).unwrap_or(0),
        size: a
            .nested(attr::SET_DESC)
            .and_then(|d| d.number(attr::DESC_SIZE))
            .unwrap_or(0),
    }
}

/// Returns one set of any table.
pub(in crate::firewall) fn set(
    socket: &mut NetlinkSocket,
    path: &SetPath,
) -> Result<SetInfo, Errno> {
    let Some(family) = family(&path.family) else {
        return Err(Errno::EAFNOSUPPORT);
    };
    let request = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_GETSET), ACK, family as u8, 0)
        .with_text(attr::SET_TABLE, &path.table)
        .with_text(attr::SET_NAME, &path.set);
    let found = socket.query(&request, |m, found: &mut Option<SetInfo>| {
        let a = m.attributes();
        found.get_or_insert(SetInfo {
            shape: set_shape(a),
            timeout: a.long(attr::SET_TIMEOUT).unwrap_or(0),
        });
    })?;
    found.ok_or(Errno::ENOENT)
}

/// How often a set is dumped, at most, to see all of it while somebody fills it.
const DUMPS: usize = 10;

/// Returns all elements of a set, sorted by key.
///
/// A dump that takes several messages goes on in each by a count (`nft_rhash_walk()`). If the
/// kernel in between clears away elements that have run out, or makes the hash table smaller, the
/// dump leaves out as many others. Nothing reports that, for it is no new generation. So such a set
/// is dumped until a dump shows nothing new.
pub(in crate::firewall) fn elements(
    socket: &mut NetlinkSocket,
    path: &SetPath,
) -> Result<Vec<Dumped>, Errno> {
    let mut all: BTreeMap<Vec<u8>, Dumped> = BTreeMap::new();
    for _ in 0..DUMPS {
        let known = all.len();
        let (messages, dumped) = dump(socket, path)?;
        for element in dumped {
            all.entry(element.key.clone()).or_insert(element);
        }
        if messages < 2 || all.len() == known {
            break;
        }
    }
    Ok(all.into_values().collect())
}

/// Dumps a set once. Returns the number of messages, and the elements.
fn dump(socket: &mut NetlinkSocket, path: &SetPath) -> Result<(usize, Vec<Dumped>), Errno> {
    let family = family(&path.family).map_or(0, |f| f as u8);
    let request = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_GETSETELEM), DUMP, family, 0)
        .with_text(attr::LIST_TABLE, &path.table)
        .with_text(attr::LIST_SET, &path.set);
    socket.query(&request, |m, (messages, found): &mut (usize, Vec<_>)| {
        *messages += 1;
        found.extend(list(m.attributes()));
    })
}

/// Returns the time that one element has left: `None` if the element is gone, `Some(None)` if it
/// stays.
pub(in crate::firewall) fn element(
    socket: &mut NetlinkSocket,
    path: &SetPath,
    key: ElementKey,
) -> Result<Option<Option<Duration>>, Errno> {
    let family = family(&path.family).map_or(0, |f| f as u8);
    let key = super::elements::key_bytes(key);
    let request = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_GETSETELEM), ACK, family, 0)
        .with_text(attr::LIST_TABLE, &path.table)
        .with_text(attr::LIST_SET, &path.set)
        .with_nested(attr::LIST_ELEMENTS, |r| {
            r.with_nested(attr::LIST_ELEM, |r| {
                r.with_nested(attr::ELEM_KEY, |r| r.with(attr::DATA_VALUE, &key))
            })
        });
    let found = socket.query(&request, |m, found: &mut Option<Dumped>| {
        if let Some(element) = list(m.attributes()).next() {
            *found = Some(element);
        }
    });
    match found {
        Ok(found) => Ok(found.map(|d| d.left)),
        Err(Errno::ENOENT) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Returns the elements in a message.
pub(super) fn list<'a>(a: Attributes<'a>) -> impl Iterator<Item = Dumped> + 'a {
    let elements = a.nested(attr::LIST_ELEMENTS).unwrap_or(Attributes(&[]));
    elements.filter_map(|(_, bytes)| {
        let a = Attributes(bytes);
        let timed = a.get(attr::ELEM_TIMEOUT).is_some();
        Some(Dumped {
            key: a.nested(attr::ELEM_KEY)?.get(attr::DATA_VALUE)?.to_vec(),
            left: timed.then(|| Duration::from_millis(a.long(attr::ELEM_EXPIRATION).unwrap_or(0))),
            comment: a
                .get(attr::ELEM_USERDATA)
                .and_then(text_of)
                .map(str::to_owned),
        })
    })
}

impl Dumped {
    /// Returns the address and port that the element stands for, or `None` if its key is not of
    /// this kind.
    pub(in crate::firewall) fn key(&self, key: KeyKind) -> Option<ElementKey> {
        key_of(key, &self.key)
    }
}

impl SetInfo {
    /// Returns the kind of the set's key, if doors can add such keys.
    pub(in crate::firewall) fn key(&self) -> Option<KeyKind> {
        let keys = IpFamily::BOTH.map(|f| [KeyKind::Address(f), KeyKind::AddressPort(f)]);
        keys.into_iter()
            .flatten()
            .find(|k| structure::key(*k) == (self.shape.key_type, self.shape.key_len))
    }

    /// Returns true if the set takes elements with a timeout.
    pub(in crate::firewall) fn has_timeouts(&self) -> bool {
        self.shape.flags & set_flag::TIMEOUT != 0
    }

    /// Returns true if an element that asks for no timeout gets one all the same.
    pub(in crate::firewall) fn has_default_timeout(&self) -> bool {
        self.timeout != 0
    }

    /// Returns true if the set's elements are single keys that may come and go (no interval, no
    /// map, not constant).
    pub(in crate::firewall) fn is_plain(&self) -> bool {
        let unfit = set_flag::ANONYMOUS | set_flag::CONSTANT | set_flag::INTERVAL | set_flag::MAP;
        self.shape.flags & unfit == 0
    }
}

/// Returns the keys of the elements of a set that the configuration fills.
pub(super) fn keys(dumped: &[Dumped]) -> BTreeSet<Vec<u8>> {
    dumped.iter().map(|d| d.key.clone()).collect()
}
