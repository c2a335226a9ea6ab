//! What there is in the kernel.
//!
//! Read by our own few lines, not by rustables: it opens a socket for each list, knows no
//! owner, and fails as a whole on anything it does not know in tables of other people.

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
use crate::netlink::{ACK, Attributes, DUMP, NetlinkRequest, NetlinkSocket};

/// `NFT_MSG_GETFLOWTABLE`, which libc has not.
const GET_FLOWTABLE: i32 = 23;
/// `NFPROTO_INET`.
pub(super) const INET: u8 = 1;

/// Attributes (linux/netfilter/nf_tables.h).
pub(super) mod attr {
    pub(in super::super) const TABLE_NAME: u16 = 1;
    pub(in super::super) const TABLE_FLAGS: u16 = 2;
    pub(in super::super) const TABLE_USERDATA: u16 = 6;
    pub(in super::super) const TABLE_OWNER: u16 = 7;
    pub(in super::super) const CHAIN_TABLE: u16 = 1;
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
    pub(in super::super) const RULE_TABLE: u16 = 1;
    pub(in super::super) const RULE_CHAIN: u16 = 2;
}

/// A table, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct TableInfo {
    pub(in crate::firewall) name: String,
    pub(in crate::firewall) flags: u32,
    /// The netlink port of its living owner.
    pub(in crate::firewall) owner: Option<u32>,
    /// Whose it is.
    pub(in crate::firewall) layout: Layout,
    /// Which configuration it is of, if its comment says so.
    pub(in crate::firewall) instance: Option<u32>,
}

impl TableInfo {
    /// Whether its comment is the one that this ruleset's table has.
    pub(super) fn is_current(&self, ruleset: &Ruleset) -> bool {
        self.layout == Layout::Current && self.instance == ruleset.instance
    }
}

/// Whose a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) enum Layout {
    /// Ours, as we build it now.
    Current,
    /// Ours, as another version built it.
    Other(u32),
    /// Not ours.
    Foreign,
}

impl Layout {
    /// The layout that a table's comment says, and the configuration: an older knockd did not
    /// name it.
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

/// A chain, as listed: its name, and if it is a base chain, hook, priority, policy and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct ChainInfo {
    pub(in crate::firewall) name: String,
    pub(in crate::firewall) base: Option<(u32, i32, u32, String)>,
}

/// What is in one table, but for elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::firewall) struct TableContent {
    pub(super) sets: BTreeMap<String, SetShape>,
    pub(in crate::firewall) chains: Vec<ChainInfo>,
    /// How many rules each chain has.
    pub(in crate::firewall) rules: BTreeMap<String, usize>,
    /// How many stateful objects and flowtables there are: ours has none.
    pub(in crate::firewall) objects: usize,
}

/// An element, as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct Dumped {
    pub(in crate::firewall) key: Vec<u8>,
    /// What is left of its time; `None`: it stays.
    pub(in crate::firewall) left: Option<Duration>,
    pub(in crate::firewall) comment: Option<String>,
}

/// A set of the administrator's, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) struct SetInfo {
    pub(super) shape: SetShape,
    /// How long an element stays that does not say, in milliseconds; 0: for ever.
    timeout: u64,
}

/// All tables of family `inet`.
pub(in crate::firewall) fn tables(socket: &mut NetlinkSocket) -> Result<Vec<TableInfo>, Errno> {
    let request = NetlinkRequest::nfnetlink(nft(libc::NFT_MSG_GETTABLE), DUMP, INET, 0);
    socket.query(&request, |m, found: &mut Vec<TableInfo>| {
        let a = m.attributes();
        if m.family() != Some(INET) {
            return;
        }
        if let Some(name) = a.text(attr::TABLE_NAME) {
            let (layout, instance) = Layout::of(a.get(attr::TABLE_USERDATA));
            found.push(TableInfo {
                name: name.to_owned(),
                flags: a.number(attr::TABLE_FLAGS).unwrap_or(0),
                owner: a.number(attr::TABLE_OWNER),
                layout,
                instance,
            });
        }
    })
}

/// The owner of a table of any family, if it has one.
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

/// What is in a table of ours.
pub(in crate::firewall) fn content(
    socket: &mut NetlinkSocket,
    table: &str,
) -> Result<TableContent, Errno> {
    let request =
        |message| NetlinkRequest::nfnetlink(nft(message), DUMP, INET, 0).with_text(1, table);
    let ours = |a: Attributes<'_>, kind: u16| a.text(kind) == Some(table);
    let sets = socket.query(
        &request(libc::NFT_MSG_GETSET),
        |m, sets: &mut BTreeMap<String, SetShape>| {
            let a = m.attributes();
            if ours(a, attr::SET_TABLE)
                && let Some(name) = a.text(attr::SET_NAME)
            {
                sets.insert(name.to_owned(), set_shape(a));
            }
        },
    )?;
    let chains = socket.query(
        &request(libc::NFT_MSG_GETCHAIN),
        |m, chains: &mut Vec<ChainInfo>| {
            let a = m.attributes();
            if ours(a, attr::CHAIN_TABLE)
                && let Some(name) = a.text(attr::CHAIN_NAME)
            {
                chains.push(ChainInfo {
                    name: name.to_owned(),
                    base: base(a),
                });
            }
        },
    )?;
    let rules = socket.query(
        &request(libc::NFT_MSG_GETRULE),
        |m, rules: &mut BTreeMap<String, usize>| {
            let a = m.attributes();
            if ours(a, attr::RULE_TABLE)
                && let Some(chain) = a.text(attr::RULE_CHAIN)
            {
                *rules.entry(chain.to_owned()).or_default() += 1;
            }
        },
    )?;
    let mut objects = 0;
    for message in [libc::NFT_MSG_GETOBJ, GET_FLOWTABLE] {
        let found = socket.query(&request(message), |m, n: &mut usize| {
            if ours(m.attributes(), 1) {
                *n += 1;
            }
        });
        objects += match found {
            Ok(n) => n,
            // Kernels built without flowtables.
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

/// One set of any table.
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

/// How often a set is dumped to see all of it, somebody filling it meanwhile.
const DUMPS: usize = 10;

/// All elements of a set, sorted by key.
///
/// A dump that takes several messages goes on in each by a count (`nft_rhash_walk()`). If the
/// kernel clears away in between what has run out, or makes the hash table smaller, as many
/// others are left out, and nothing says so: it is no new generation. So such a set is dumped
/// until nothing new is seen.
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

/// What one dump shows of a set, and how many messages it took.
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

/// What is left of one element's time: `None` if it is gone, `Some(None)` if it stays.
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

/// The elements in a message.
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

/// What the key of an element stands for in a set keyed so.
pub(in crate::firewall) fn key(kind: KeyKind, bytes: &[u8]) -> Option<ElementKey> {
    key_of(kind, bytes)
}

impl Dumped {
    /// What it stands for in a set keyed so.
    pub(in crate::firewall) fn key(&self, key: KeyKind) -> Option<ElementKey> {
        key_of(key, &self.key)
    }
}

impl SetInfo {
    /// Which of our kinds of key it has.
    pub(in crate::firewall) fn key(&self) -> Option<KeyKind> {
        let keys = IpFamily::BOTH.map(|f| [KeyKind::Address(f), KeyKind::AddressPort(f)]);
        keys.into_iter()
            .flatten()
            .find(|k| structure::key(*k) == (self.shape.key_type, self.shape.key_len))
    }

    /// Whether it takes elements with a timeout.
    pub(in crate::firewall) fn has_timeouts(&self) -> bool {
        self.shape.flags & set_flag::TIMEOUT != 0
    }

    /// Whether an element that asks for no timeout has one all the same.
    pub(in crate::firewall) fn has_default_timeout(&self) -> bool {
        self.timeout != 0
    }

    /// Whether its elements are single keys that may come and go (no interval, no map, not
    /// constant).
    pub(in crate::firewall) fn is_plain(&self) -> bool {
        let unfit = set_flag::ANONYMOUS | set_flag::CONSTANT | set_flag::INTERVAL | set_flag::MAP;
        self.shape.flags & unfit == 0
    }
}

/// The keys in a set that the configuration fills.
pub(super) fn keys(dumped: &[Dumped]) -> BTreeSet<Vec<u8>> {
    dumped.iter().map(|d| d.key.clone()).collect()
}
