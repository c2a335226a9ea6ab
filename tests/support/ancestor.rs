//! knock 0.8 as Debian ships it, to compare with: unpacked, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The package's files: in `$KNOCK_0_8` if that is set (contrib/test.sh sets it), else
/// fetched once and kept in the target directory.
pub(crate) fn root() -> PathBuf {
    if let Some(given) = std::env::var_os("KNOCK_0_8") {
        return given.into();
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("knock-0.8");
    if !kept.exists() {
        fetch(&kept);
    }
    kept
}

/// Tests run side by side: each that finds nothing fetches for itself, and the first to
/// be done puts its copy in place.
fn fetch(kept: &Path) {
    let parent = kept.parent().expect("a directory");
    let work = tempfile::tempdir_in(parent).expect("the target directory can be written");
    let script = "apt-get -qq download knockd && dpkg-deb -x knockd_*.deb knock-0.8";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(&work)
        .output()
        .expect("sh");
    assert!(
        output.status.success(),
        "cannot fetch Debian's package knockd; unpack it somewhere and name the place in \
         $KNOCK_0_8\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if let Err(error) = std::fs::rename(work.path().join("knock-0.8"), kept) {
        assert!(kept.exists(), "{}: {error}", kept.display());
    }
}
