//! Reads strangers' packets: the capture and the decoder. It knows no sequence, no door and no
//! secret. It hands on knocks, a batch at a time; they are judged elsewhere.

use std::net::IpAddr;

use crate::capture::{CaptureError, LiveCapture, Program};
use crate::decode::decode;
use crate::model::{Config, Knock, Timestamp};

/// The most frames that one read takes; then the event loop looks at everything else.
pub(crate) const BATCH: usize = 1024;

/// The capture, and the knocks in the frames read last.
pub(crate) struct Listener {
    live: LiveCapture,
    knocks: Vec<Knock>,
}

impl Listener {
    /// Returns a listener that reads nothing until it has a filter.
    pub(crate) fn new(live: LiveCapture) -> Self {
        Self {
            live,
            knocks: Vec::with_capacity(BATCH),
        }
    }

    /// Lets the packets pass that a configuration is for: see [`LiveCapture::set_filter`].
    pub(crate) fn set_filter(&mut self, config: &Config) -> Result<(), CaptureError> {
        self.live.set_filter(&config.doors, &config.ignore)?;
        if !Program::keeps_to_ports(&config.doors) {
            tracing::warn!(
                "every packet of every TCP session is read: doors whose TCP flags fit them have \
                 too many steps; let SYNs alone count there (syn,!ack)"
            );
        }
        Ok(())
    }

    /// See [`LiveCapture::set_hosts`].
    pub(crate) fn set_hosts(&mut self, own: Vec<IpAddr>) -> Result<(), CaptureError> {
        self.live.set_hosts(own)
    }

    /// Reads at most [`BATCH`] frames, all as of `now`. Returns how many there were, and the knocks in
    /// them. Never waits.
    pub(crate) fn read(&mut self, now: Timestamp) -> Result<(usize, &[Knock]), CaptureError> {
        let Self { live, knocks } = self;
        knocks.clear();
        let taken = live.read(now, BATCH, |frame| knocks.extend(decode(frame)))?;
        Ok((taken, knocks))
    }

    /// See [`LiveCapture::dropped`].
    pub(crate) fn dropped(&mut self) -> Result<u64, CaptureError> {
        self.live.dropped()
    }

    /// Returns a descriptor that is readable when there are frames.
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.live.as_fd()
    }
}
