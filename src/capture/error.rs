//! What can go wrong with a capture.

use std::io;
use std::path::PathBuf;

/// Why there are no frames, or no more of them.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The file is no capture, or its header is broken.
    #[error("{}: not a capture that can be read: {reason}", path.display())]
    Format {
        path: PathBuf,
        /// In libpcap's words.
        reason: String,
    },
    /// The link type of the file carries no knocks, or is unknown.
    #[error(
        "{}: link type {name} is not supported; Ethernet, raw IP, Linux cooked, \
         BSD loopback and PPP are", path.display()
    )]
    LinkType {
        path: PathBuf,
        /// The name in the registry of tcpdump.org, or the number where it has none.
        name: String,
    },
    /// The file breaks off or is broken from here on.
    #[error("{}: broken after packet {frames}: {reason}", path.display())]
    Broken {
        path: PathBuf,
        /// How many packets were read before.
        frames: u64,
        /// In libpcap's words.
        reason: String,
    },
    /// The kernel refuses a packet socket.
    #[error(
        "cannot capture packets: the capability {capability} is missing; start as root, or \
         grant it (setcap, or AmbientCapabilities= in the unit)"
    )]
    Capability {
        /// The capability that must be granted, as capabilities(7) calls it.
        capability: &'static str,
    },
    /// The capture could not be started, for another reason than a missing capability.
    #[error("cannot capture packets: {reason}")]
    Start {
        /// In libpcap's or the kernel's words.
        reason: String,
    },
    /// The kernel refused the socket filter.
    #[error("cannot put the socket filter in place: {source}")]
    Filter { source: io::Error },
    /// Reading from the ring, or its statistics, failed.
    #[error("cannot read captured packets: {reason}")]
    Read {
        /// In libpcap's words.
        reason: String,
    },
}

/// Returns the words of libpcap, without the crate's own around them.
pub(super) fn reason(error: pcap::Error) -> String {
    if let pcap::Error::PcapError(words) = error {
        words
    } else {
        error.to_string()
    }
}
