//! Capture files, pcap and pcapng, as libpcap reads them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap::{Capture, Linktype, Offline, Precision};

use super::error::{CaptureError, reason};
use crate::model::{Frame, LinkType, Timestamp};

/// A capture file, read from its beginning. `-` is the standard input.
pub struct CaptureFile {
    capture: Capture<Offline>,
    link: LinkType,
    path: PathBuf,
    frames: u64,
}

impl CaptureFile {
    /// Opens a file of any link type that [`LinkType`] knows.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, is no capture, or is of another link type.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let capture = Capture::from_file_with_precision(path, Precision::Nano)
            .map_err(|error| refusal(path, error))?;
        let found = capture.get_datalink();
        let link = known(found).ok_or_else(|| CaptureError::LinkType {
            path: path.to_owned(),
            name: found.get_name().unwrap_or_else(|_| found.0.to_string()),
        })?;
        Ok(Self {
            capture,
            link,
            path: path.to_owned(),
            frames: 0,
        })
    }

    /// Returns the next frame, with the time it was recorded; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the file breaks off or is broken here; nothing can be read after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        match self.capture.next_packet() {
            Ok(packet) => {
                self.frames += 1;
                let ts = packet.header.ts;
                let seconds = u64::try_from(ts.tv_sec).unwrap_or(0);
                // With Precision::Nano this field holds nanoseconds; in a broken file anything.
                let nanos = u32::try_from(ts.tv_usec).unwrap_or(0).min(999_999_999);
                Ok(Some(Frame {
                    at: Timestamp::from_epoch(Duration::new(seconds, nanos)),
                    link: self.link,
                    wire_len: packet.header.len,
                    data: packet.data,
                }))
            }
            Err(pcap::Error::NoMorePackets) => Ok(None),
            Err(error) => Err(CaptureError::Broken {
                path: self.path.clone(),
                frames: self.frames,
                reason: reason(error),
            }),
        }
    }
}

/// Tells a file that cannot be opened from one that is no capture, which libpcap does in words
/// only. The file is opened once more for that, if it is a plain file: a pipe can be opened once.
fn refusal(path: &Path, error: pcap::Error) -> CaptureError {
    let opened = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => File::open(path).map(drop),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let path = path.to_owned();
    match opened {
        Err(source) if path != Path::new("-") => CaptureError::Open { path, source },
        Err(_) | Ok(()) => CaptureError::Format {
            path,
            reason: reason(error),
        },
    }
}

/// Returns the link type by libpcap's number for it on Linux. libpcap has already turned the numbers
/// of the file (101 for raw IP) into these.
fn known(link: Linktype) -> Option<LinkType> {
    match link.0 {
        0 => Some(LinkType::Null),
        1 => Some(LinkType::Ethernet),
        9 => Some(LinkType::Ppp),
        12 | 14 | 101 => Some(LinkType::Raw),
        50 => Some(LinkType::PppHdlc),
        51 => Some(LinkType::PppEther),
        108 => Some(LinkType::Loop),
        113 => Some(LinkType::LinuxCooked),
        228 => Some(LinkType::Ipv4),
        229 => Some(LinkType::Ipv6),
        276 => Some(LinkType::LinuxCooked2),
        _ => None,
    }
}
