//! Takes messages, and the attributes in them, apart.

/// A message: the fields of its header, and the payload that follows the header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The message type, with the subsystem in it.
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// The netlink port of the process that caused the message; 0 is the kernel.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Length of `nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Length of `nfgenmsg`.
const NFGEN: usize = 4;

/// `NLMSG_ERROR`, the answer that is also an acknowledgement.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`, the end of a dump.
pub(super) const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the things that are dumped were changed meanwhile.
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;

impl<'a> Message<'a> {
    /// Returns the protocol family of an nfnetlink message.
    pub(crate) fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Returns the attributes of an nfnetlink message.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(NFGEN..).unwrap_or_default())
    }

    /// Returns the error number of an answer: 0 is success.
    pub(super) fn errno(&self) -> Option<i32> {
        let bytes = self.payload.first_chunk()?;
        Some(i32::from_ne_bytes(*bytes).saturating_neg())
    }
}

/// The messages in a datagram, as far as they are whole.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let all = self.0;
        let header = all.get(..HEADER)?;
        let short = |at| Some(u16::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let long = |at| Some(u32::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let length = usize::try_from(long(0)?).ok()?;
        let message = Message {
            kind: short(4)?,
            flags: short(6)?,
            seq: long(8)?,
            port: long(12)?,
            payload: all.get(HEADER..length)?,
        };
        self.0 = all.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// Attributes, as far as they are whole: type (without the flags for nesting and byte order)
/// and value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Returns the value of the first attribute of this type.
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// Returns the attributes nested in the first attribute of this type.
    pub(crate) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes)
    }

    /// Returns a text, without the zero byte that ends it.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }

    /// Returns a 32-bit number in network byte order, as nftables has them.
    pub(crate) fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// Returns a 64-bit number in network byte order.
    pub(crate) fn long(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// Returns a 32-bit number in the byte order of this machine, as route netlink has them.
    pub(crate) fn native(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.get(kind)?.first_chunk()?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let all = self.0;
        let length = usize::from(u16::from_ne_bytes(*all.first_chunk()?));
        let kind = u16::from_ne_bytes(*all.get(2..)?.first_chunk()?) & 0x3fff;
        let value = all.get(4..length)?;
        self.0 = all.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::NetlinkRequest;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_built_is_read() {
        let bytes = NetlinkRequest::nfnetlink(0x0a10, 0x300, 1, 0)
            .with_text(1, "knockd")
            .with_nested(3, |r| r.with(1, &7u32.to_be_bytes()))
            .numbered(5);
        let twice = [bytes.clone(), bytes].concat();
        let all: Vec<Message<'_>> = Messages(&twice).collect();
        assert_eq!(all.len(), 2);
        for m in all {
            assert_eq!(
                (m.kind, m.flags, m.seq, m.family()),
                (0x0a10, 0x301, 5, Some(1))
            );
            assert_eq!(m.attributes().text(1), Some("knockd"));
            let inner = m.attributes().nested(3).expect("nested");
            assert_eq!(inner.number(1), Some(7));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for m in Messages(&bytes) {
                let _ = (m.errno(), m.family(), m.attributes().count());
            }
        }
    }
}
