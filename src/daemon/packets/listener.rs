//! What reads strangers' packets: the capture and the decoder. It knows no sequence, no door and
//! no secret; what it hands on is judged elsewhere, a batch at a time.

use std::net::IpAddr;

use crate::capture::{CaptureError, LiveCapture};
use crate::decode::decode;
use crate::model::{Door, Knock, PortRange, Timestamp};

/// Frames taken before anything else is looked at.
pub(crate) const BATCH: usize = 1024;

/// The capture, and what was in the frames read last.
pub(crate) struct Listener {
    live: LiveCapture,
    heard: Vec<Knock>,
}

impl Listener {
    /// Hears nothing until it has a filter.
    pub(crate) fn new(live: LiveCapture) -> Self {
        Self {
            live,
            heard: Vec::with_capacity(BATCH),
        }
    }

    /// See [`LiveCapture::set_filter`].
    pub(crate) fn set_filter(
        &mut self,
        doors: &[Door],
        ignore: &[PortRange],
    ) -> Result<(), CaptureError> {
        self.live.set_filter(doors, ignore)
    }

    /// See [`LiveCapture::set_hosts`].
    pub(crate) fn set_hosts(&mut self, own: Vec<IpAddr>) -> Result<(), CaptureError> {
        self.live.set_hosts(own)
    }

    /// Reads at most [`BATCH`] frames, all as of `now`: how many there were, and the knocks in
    /// them. Never waits.
    pub(crate) fn read(&mut self, now: Timestamp) -> Result<(usize, &[Knock]), CaptureError> {
        let Self { live, heard } = self;
        heard.clear();
        let taken = live.read(now, BATCH, |frame| heard.extend(decode(frame)))?;
        Ok((taken, heard))
    }

    /// See [`LiveCapture::dropped`].
    pub(crate) fn dropped(&mut self) -> Result<u64, CaptureError> {
        self.live.dropped()
    }

    /// Readable when there are frames.
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.live.as_fd()
    }
}
