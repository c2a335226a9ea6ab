//! The host that a configuration is judged by.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The properties of a host that a configuration is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The ports the kernel gives to outgoing connections (`ip_local_port_range`).
    pub ephemeral: RangeInclusive<u16>,
    /// The folder in which relative names in the file begin. With `None` they are left as they are.
    pub folder: Option<PathBuf>,
}

impl Default for Host {
    /// Returns a host with the kernel's defaults.
    fn default() -> Self {
        Self {
            ephemeral: 32768..=60999,
            folder: None,
        }
    }
}

impl Host {
    /// Returns this host. If the kernel does not give its range of ports, the default range is taken.
    pub(crate) fn read(folder: &Path) -> Self {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let parsed = range.ok().and_then(|text| {
            let mut words = text.split_whitespace().map(str::parse);
            Some(words.next()?.ok()?..=words.next()?.ok()?)
        });
        Self {
            ephemeral: parsed.unwrap_or(Self::default().ephemeral),
            folder: Some(folder.to_owned()),
        }
    }
}
