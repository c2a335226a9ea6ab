//! The kernels that the tests run on.

/// A kernel of Debian 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Its own. It keeps no table for its owner: knockd watches.
    Linux6_1,
    /// The newer one that Debian 12 has, too. It keeps a table for its owner.
    Linux6_12,
}

impl Kernel {
    /// The name by which contrib/vm.sh knows it.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Linux6_1 => "6.1",
            Self::Linux6_12 => "6.12",
        }
    }

    /// Whether a table can be owned and outlive its owner.
    pub(crate) fn knows_persist(self) -> bool {
        match self {
            Self::Linux6_1 => false,
            Self::Linux6_12 => true,
        }
    }
}
