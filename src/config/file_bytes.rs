//! The bytes of a configuration file.

use std::fmt;
use std::ops::Deref;

use zeroize::Zeroize as _;

/// The bytes of a configuration file. Sequences are among them, and commands with passwords: so they are
/// overwritten when they are not needed any more, and `{:?}` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FileBytes(Vec<u8>);

impl FileBytes {
    /// Reads a whole file whose length is about `length`, and `most` bytes of it at most. With the right
    /// length no part of it is left behind in memory that was too small.
    pub(super) fn read(
        file: &mut impl std::io::Read,
        length: u64,
        most: u64,
    ) -> std::io::Result<Self> {
        use std::io::Read as _;
        // A byte more than there are, or the end would be looked for in a bigger piece of memory.
        let length = length.min(most).saturating_add(1);
        let mut bytes = Self(Vec::with_capacity(usize::try_from(length).unwrap_or(0)));
        file.take(most).read_to_end(&mut bytes.0)?;
        Ok(bytes)
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for FileBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_into_one_piece_of_memory_and_not_shown() {
        let text = "sequence = [\"17301/tcp\"]\n".repeat(1000);
        let length = text.len() as u64;
        let bytes = FileBytes::read(&mut text.as_bytes(), length, 1 << 20).expect("a text");
        assert_eq!(&*bytes, text.as_bytes());
        // It has not grown: growing leaves the old piece behind as it is.
        assert_eq!(bytes.0.capacity(), text.len() + 1);
        assert_eq!(format!("{bytes:?}"), "25000 bytes");
        let cut = FileBytes::read(&mut text.as_bytes(), 0, 10).expect("a text");
        assert_eq!(&*cut, b"sequence =");
    }
}
