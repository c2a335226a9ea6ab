//! Netlink messages taken apart and small requests put together: headers and attributes,
//! nothing of nftables. Bytes come from the kernel, and from nobody else, but none of them
//! is trusted to be there.

/// A message: its header's fields and what follows the `nfgenmsg`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// Message type, subsystem and all.
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    /// The netlink port of whoever caused it; 0 is the kernel.
    pub(super) port: u32,
    /// All that follows the header.
    pub(super) payload: &'a [u8],
}

/// Length of `nlmsghdr`.
const HEADER: usize = 16;
/// Length of `nfgenmsg`.
const NFGEN: usize = 4;

/// `NLMSG_ERROR`, the answer that is also an acknowledgement.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`, the end of a dump.
pub(super) const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: what is dumped was changed meanwhile.
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;

impl<'a> Message<'a> {
    /// The protocol family of an nfnetlink message.
    pub(super) fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// The attributes of an nfnetlink message.
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(NFGEN..).unwrap_or_default())
    }

    /// The error number of an answer: 0 acknowledges.
    pub(super) fn errno(&self) -> Option<i32> {
        let bytes = self.payload.first_chunk()?;
        Some(i32::from_ne_bytes(*bytes).saturating_neg())
    }
}

/// The messages in what one `recv` gave.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

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

/// Attributes: type (without the flags for nesting and byte order) and value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this type.
    pub(super) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes nested in this one.
    pub(super) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes)
    }

    /// A text that ends in a zero byte.
    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }

    /// A 32-bit number in network order, as nftables has them.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// A 64-bit number in network order.
    pub(super) fn long(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(*self.get(kind)?.first_chunk()?))
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

/// A request, built up attribute by attribute.
#[derive(Debug, Clone)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A request to nfnetlink. `NLM_F_REQUEST` is added to the flags.
    pub(super) fn new(kind: u16, flags: u16, family: u8, resource: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | 1).to_ne_bytes());
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        Self(bytes)
    }

    /// Adds an attribute.
    #[must_use]
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(4);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text, with its zero byte.
    #[must_use]
    pub(super) fn with_text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds attributes within an attribute.
    #[must_use]
    pub(super) fn with_nested(self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let inner = inner(Self(Vec::new()));
        self.with(kind | 0x8000, &inner.0)
    }

    /// The bytes, numbered.
    pub(super) fn finish(mut self, seq: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_built_is_read() {
        let bytes = Request::new(0x0a10, 0x300, 1, 0)
            .with_text(1, "knockd")
            .with_nested(3, |r| r.with(1, &7u32.to_be_bytes()))
            .finish(5);
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
