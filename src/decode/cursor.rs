//! A position in a frame of which perhaps not all was captured.

/// The rest of a frame: the bytes that were captured, and how many there were on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// Never longer than `wire`.
    data: &'a [u8],
    wire: usize,
}

impl<'a> Cursor<'a> {
    /// Returns the cursor at the start of a frame of `wire` bytes that begins with `data`. Bytes
    /// captured beyond the wire, as a broken file may have them, are left out.
    pub(super) fn new(data: &'a [u8], wire: usize) -> Self {
        let data = data.get(..wire).unwrap_or(data);
        Self { data, wire }
    }

    /// Returns the captured bytes from here on.
    pub(super) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Returns the number of bytes from here on that were on the wire.
    pub(super) fn wire(&self) -> usize {
        self.wire
    }

    /// Takes the next `N` bytes; `None` if they were not captured.
    pub(super) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.data.split_first_chunk()?;
        self.data = rest;
        self.wire -= N;
        Some(head)
    }

    /// Skips `count` bytes; `None` if they were not captured.
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.data = self.data.get(count..)?;
        self.wire -= count;
        Some(())
    }

    /// Returns a cursor over the next `length` bytes of the wire alone; `None` if there were not so
    /// many. The bytes behind them are padding (RFC 894).
    pub(super) fn limit(self, length: usize) -> Option<Self> {
        (length <= self.wire).then(|| Self::new(self.data, length))
    }
}
