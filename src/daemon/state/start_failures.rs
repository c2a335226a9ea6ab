//! Counts starts that failed. systemd tries a failed start again two seconds later, and for ever, so
//! that nobody need be there when a start would succeed. Each failure writes several lines: so the end
//! of the process is put off, longer each time.
//!
//! (`RestartSteps=` would do the same; Debian 12's systemd does not know it.)

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::daemon::signals::{Asked, Signals};

/// How many failures in a row are not put off.
const FREE: u32 = 3;

/// The longest that an end is put off: systemd gives a start 90 s.
const MOST: Duration = Duration::from_secs(60);

/// Called when a start has failed and has said why: counts it, in a file, and waits. A signal ends
/// the wait, so that an administrator who has corrected the file and restarts does not wait.
pub(crate) fn wait(failures: &Path) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let before = fs::read_to_string(failures).ok();
    let before = before
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let counted = count(failures, u32::saturating_add(before, 1));
    // If failures cannot be counted, no end is put off.
    let pause = counted.map_or(Duration::ZERO, |()| pause(before));
    if let Ok(mut signals) = Signals::block() {
        let end = Instant::now() + pause;
        while !is_asked_to_go(&mut signals, end.saturating_duration_since(Instant::now())) {}
    }
}

/// Writes the number. A symbolic link is not followed: others may write in the folder.
fn count(failures: &Path, number: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(failures)?;
    writeln!(file, "{number}")
}

/// Returns whether the time is over, or a signal has come other than SIGCHLD: a helper may end as
/// late as this.
fn is_asked_to_go(signals: &mut Signals, left: Duration) -> bool {
    let Ok(timeout) = PollTimeout::try_from(left) else {
        return true;
    };
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(0) => true,
        Ok(_) => !matches!(signals.next(), Ok(Some(Asked::Reap) | None)),
        Err(_) => true,
    }
}

/// Called when a start has succeeded.
pub(crate) fn forget(failures: &Path) {
    let _ = fs::remove_file(failures);
}

/// Returns how long the end is put off if so many starts have failed before.
fn pause(before: u32) -> Duration {
    let doubled = before
        .checked_sub(FREE)
        .map(|n| 2_u64.saturating_pow(n + 1));
    doubled.map_or(Duration::ZERO, |seconds| {
        Duration::from_secs(seconds).min(MOST)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--run-dir /tmp`: a user who can put a link there does not choose which file root empties.
    #[test]
    fn a_link_in_place_of_the_count_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("failed-starts"), dir.path().join("shadow"));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(count(&path, 1).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        count(&path, 10).unwrap();
        count(&path, 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn each_failure_is_put_off_longer_up_to_a_minute() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, 7, 8, 100, u32::MAX].map(|n| pause(n).as_secs());
        assert_eq!(pauses, [0, 0, 0, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
