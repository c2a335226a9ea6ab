//! knock 0.8 as Debian ships it, to compare with: unpacked, never installed.

use std::path::{Path, PathBuf};

/// Debian's daemon.
pub(crate) fn knockd() -> PathBuf {
    root().join("usr/sbin/knockd")
}

/// Debian's client.
pub(crate) fn knock() -> PathBuf {
    root().join("usr/bin/knock")
}

/// The configuration that Debian installs.
pub(crate) fn configuration() -> PathBuf {
    root().join("etc/knockd.conf")
}

/// The directory that holds the package's files: `$KNOCK_0_8` if that is set, else the place
/// in the target directory where contrib/test.sh unpacks them.
pub(crate) fn root() -> PathBuf {
    if let Some(given) = std::env::var_os("KNOCK_0_8") {
        return given.into();
    }
    target().join("knock-0.8")
}

/// Cargo's target directory, where the scripts of contrib leave what tests need.
pub(crate) fn target() -> &'static Path {
    // Cargo names target/tmp.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.expect("a parent")
}
