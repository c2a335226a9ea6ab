//! What systemd is told (sd_notify(3)), and what it asks to be told.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::model::Timestamp;

/// The service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Manager {
    watchdog: Option<Duration>,
    next_feed: Option<Timestamp>,
    status: String,
}

impl Manager {
    /// Reads what the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub(crate) fn from_env(now: Timestamp) -> Self {
        // Fed at a third of the time: two feeds may come late before we are taken for dead.
        let watchdog = sd_notify::watchdog_enabled().map(|d| d / 3);
        Self {
            watchdog,
            next_feed: watchdog.map(|_| now),
            status: String::new(),
        }
    }

    /// READY=1: the guard stands and the capture is open.
    pub(crate) fn ready(&self) {
        send(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
    }

    /// RELOADING=1, with the time it wants beside it.
    pub(crate) fn reloading(&self) {
        if let Ok(stamp) = NotifyState::monotonic_usec_now() {
            send(&[NotifyState::Reloading, stamp]);
        }
    }

    /// STOPPING=1.
    pub(crate) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// STATUS=…, if it says something new.
    pub(crate) fn status(&mut self, text: String) {
        if text != self.status {
            send(&[NotifyState::Status(&text)]);
            self.status = text;
        }
    }

    /// Feeds the watchdog if it is time.
    pub(crate) fn feed(&mut self, now: Timestamp) {
        if let (Some(every), Some(at)) = (self.watchdog, self.next_feed)
            && now >= at
        {
            send(&[NotifyState::Watchdog]);
            self.next_feed = Some(now + every);
        }
    }

    /// When the watchdog is next to be fed.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.next_feed
    }
}

/// Without a manager this does nothing; one that does not answer is not our fault.
fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
