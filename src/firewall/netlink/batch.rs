//! One batch from both crates. Each crate writes its messages, and here they get one begin, one end
//! and consecutive numbers.
//!
//! Only the last message asks for an acknowledgement. The kernel answers every failure whether
//! asked or not. The kernel acknowledges begin and end only since 6.10, and a few hundred answers
//! overflow a receive buffer.

use std::ffi::{CStr, CString};

use nftnl::{MsgType, NlMsg, ProtoFamily, Table};

use super::ffi::{RawElement, Scratch, filled_set};
use crate::netlink::{ACK, NetlinkRequest};

/// `NFNL_MSG_BATCH_BEGIN` and `_END` (linux/netfilter/nfnetlink.h).
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`: the subsystem a batch is for.
const NFTABLES: u16 = 10;
/// `NLM_F_EXCL`: nftnl sets this flag on elements, but ours may be there already.
const EXCL: u16 = 0x200;

/// A batch in the making.
pub(in crate::firewall) struct Batch {
    bytes: Vec<u8>,
    scratch: Scratch,
    count: u32,
    last: usize,
}

impl Batch {
    /// Returns an empty batch.
    pub(in crate::firewall) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::with_capacity(4096),
            scratch: Scratch::new(),
            count: 0,
            last: 0,
        };
        batch.clear();
        batch
    }

    /// Empties the batch, and keeps its memory.
    pub(in crate::firewall) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.last = 0;
        let begin = NetlinkRequest::nfnetlink(BEGIN, 0, 0, NFTABLES).numbered(0);
        self.bytes.extend(begin);
    }

    /// Returns the number of messages.
    pub(in crate::firewall) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Returns the place in the batch of the message that the kernel means by a number.
    pub(super) fn index(&self, seq: u32) -> Option<usize> {
        usize::try_from(seq.checked_sub(1)?).ok()
    }

    /// Adds one message of nftnl's.
    pub(super) fn nftnl(&mut self, message: &impl NlMsg, kind: MsgType) {
        let mut scratch = std::mem::replace(&mut self.scratch, Scratch::empty());
        scratch.message(message, kind, |bytes| self.push(bytes));
        self.scratch = scratch;
    }

    /// Adds the messages that a batch of rustables' holds between its begin and its end.
    pub(super) fn rustables(&mut self, build: impl FnOnce(&mut rustables::Batch)) {
        let mut theirs = rustables::Batch::new();
        build(&mut theirs);
        let bytes = theirs.finalize();
        let mut rest = bytes.as_slice();
        while let Some(length) = rest.first_chunk().map(|b| u32::from_ne_bytes(*b)) {
            let length = usize::try_from(length).unwrap_or(0);
            let (Some(message), true) = (rest.get(..length), length >= 16) else {
                return;
            };
            let kind = message.get(4..).and_then(|b| b.first_chunk());
            let kind = kind.map_or(0, |b| u16::from_ne_bytes(*b));
            if kind != BEGIN && kind != END {
                self.push(message);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// Adds or deletes elements of one set, in as many messages as it takes: a list of elements is
    /// an attribute, and attributes end at 64 KiB.
    pub(super) fn elements(
        &mut self,
        (family, table, set): (ProtoFamily, &CStr, &CStr),
        elements: &[RawElement],
        kind: MsgType,
    ) {
        for some in elements.chunks(128) {
            let table = Table::new(table, family);
            let set = filled_set(&table, family, set, some);
            for message in set.elems_iter() {
                self.nftnl(&message, kind);
            }
        }
    }

    fn push(&mut self, message: &[u8]) {
        self.last = self.bytes.len();
        self.count += 1;
        self.bytes.extend(message);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let count = self.count;
        self.patch(|flags, seq| {
            *flags &= !(ACK | EXCL);
            *seq = count;
        });
    }

    /// Changes flags and number of the last message.
    fn patch(&mut self, change: impl FnOnce(&mut u16, &mut u32)) {
        let Some(header) = self.bytes.get_mut(self.last..) else {
            return;
        };
        if let Some([_, _, _, _, _, _, f0, f1, s0, s1, s2, s3, ..]) = header.first_chunk_mut::<16>()
        {
            let mut flags = u16::from_ne_bytes([*f0, *f1]);
            let mut seq = u32::from_ne_bytes([*s0, *s1, *s2, *s3]);
            change(&mut flags, &mut seq);
            [*f0, *f1] = flags.to_ne_bytes();
            [*s0, *s1, *s2, *s3] = seq.to_ne_bytes();
        }
    }

    /// Returns the whole batch, ready to be sent; empty if there is no message in it.
    pub(in crate::firewall) fn finish(&mut self) -> &[u8] {
        if self.count == 0 {
            return &[];
        }
        self.patch(|flags, _| *flags |= ACK);
        let end = NetlinkRequest::nfnetlink(END, 0, 0, NFTABLES).numbered(self.count + 1);
        self.bytes.extend(end);
        &self.bytes
    }
}

/// Returns a name as libnftnl wants it. No name has a zero byte, for the check of the configuration
/// allows none.
pub(super) fn c_name(name: &str) -> CString {
    CString::new(name.replace('\0', "")).unwrap_or_default()
}

/// Returns a family by nft's name, or `None` if there is no family of that name.
pub(super) fn family(name: &str) -> Option<ProtoFamily> {
    Some(match name {
        "ip" => ProtoFamily::Ipv4,
        "ip6" => ProtoFamily::Ipv6,
        "inet" => ProtoFamily::Inet,
        "arp" => ProtoFamily::Arp,
        "bridge" => ProtoFamily::Bridge,
        "netdev" => ProtoFamily::NetDev,
        _ => return None,
    })
}

/// Returns nft's name of a family by its number (`NFPROTO_*`, linux/netfilter.h).
pub(super) fn family_name(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    })
}

/// Returns a message type of nftables, with the subsystem in it.
pub(super) const fn nft(message: libc::c_int) -> u16 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 40"
    )]
    let message = message as u16;
    NFTABLES << 8 | message
}
