//! Requests, put together attribute by attribute.

use super::message::HEADER;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: the kernel also answers if all went well.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`: the answer is a list of all there is.
pub(crate) const DUMP: u16 = 0x300;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// A request, without the number by which its answer is known from others.
#[derive(Debug, Clone)]
pub(crate) struct NetlinkRequest {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl NetlinkRequest {
    /// Returns a request of this type. `header` is the header of the type's subsystem, which stands
    /// before the attributes.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        Self {
            kind,
            flags: flags | REQUEST,
            body: header.to_vec(),
        }
    }

    /// Returns a request to nfnetlink, whose header is `nfgenmsg`.
    pub(crate) fn nfnetlink(kind: u16, flags: u16, family: u8, resource: u16) -> Self {
        let [r0, r1] = resource.to_be_bytes();
        Self::new(kind, flags, &[family, 0, r0, r1])
    }

    /// Adds an attribute.
    #[must_use]
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(4);
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text, with its zero byte.
    #[must_use]
    pub(crate) fn with_text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds attributes within an attribute.
    #[must_use]
    pub(crate) fn with_nested(self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let inner = inner(Self::new(0, 0, &[]));
        self.with(kind | NESTED, &inner.body)
    }

    /// Returns the bytes of the request, with this number.
    pub(crate) fn numbered(&self, seq: u32) -> Vec<u8> {
        let length = HEADER + self.body.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        // The port of the sender: the kernel knows it by itself.
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        bytes
    }
}
