//! How messages are written: a version byte, a byte for the kind, then the fields in order.
//! Integers are big-endian; text is its length in two bytes and UTF-8; an address is 4 or 6
//! and its octets. Both ends are the same program, so nothing here needs to last.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::message::{Ending, Refusal, Report, Request};
use crate::model::Phase;

/// No message is longer; with a buffer of this size none is cut.
pub(super) const MAX_MESSAGE: usize = 16 * 1024;

/// The longest text in a message; three of them and the rest fit.
const MAX_TEXT: usize = 5 * 1024;

const VERSION: u8 = 1;

/// Bytes that are no message. They come from a daemon that was taken over or from nobody:
/// nothing is done about them but to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of version {VERSION}")]
pub(super) struct Malformed;

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn int(mut self, int: u32) -> Self {
        self.0.extend(int.to_be_bytes());
        self
    }

    fn long(mut self, long: u64) -> Self {
        self.0.extend(long.to_be_bytes());
        self
    }

    fn text(mut self, text: &str) -> Self {
        let text = cut(text);
        // `cut` leaves no more than MAX_TEXT bytes.
        let length = u16::try_from(text.len()).unwrap_or(0);
        self.0.extend(length.to_be_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn whom(self, door: &str, source: IpAddr) -> Self {
        let mut this = self.text(door);
        match source {
            IpAddr::V4(a) => {
                this.0.push(4);
                this.0.extend(a.octets());
            }
            IpAddr::V6(a) => {
                this.0.push(6);
                this.0.extend(a.octets());
            }
        }
        this
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or(text)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<(Self, u8), Malformed> {
        let mut this = Self(bytes);
        if this.byte()? != VERSION {
            return Err(Malformed);
        }
        let kind = this.byte()?;
        Ok((this, kind))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn int(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::from(self.array().map(u16::from_be_bytes)?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Malformed)
    }

    fn whom(&mut self) -> Result<(Arc<str>, IpAddr), Malformed> {
        let door = self.text()?.into();
        let source = match self.byte()? {
            4 => Ipv4Addr::from(self.array::<4>()?).into(),
            6 => Ipv6Addr::from(self.array::<16>()?).into(),
            _ => return Err(Malformed),
        };
        Ok((door, source))
    }

    fn phase(&mut self) -> Result<Phase, Malformed> {
        match self.byte()? {
            0 => Ok(Phase::Start),
            1 => Ok(Phase::Stop),
            _ => Err(Malformed),
        }
    }

    fn end<T>(self, message: T) -> Result<T, Malformed> {
        if self.0.is_empty() {
            Ok(message)
        } else {
            Err(Malformed)
        }
    }
}

fn phase_byte(phase: Phase) -> u8 {
    match phase {
        Phase::Start => 0,
        Phase::Stop => 1,
    }
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start { door, source } => Writer::new(0).whom(door, *source),
            Self::Reload => Writer::new(1),
            Self::Drain => Writer::new(2),
        }
        .0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, kind) = Reader::new(bytes)?;
        let message = match kind {
            0 => {
                let (door, source) = reader.whom()?;
                Self::Start { door, source }
            }
            1 => Self::Reload,
            2 => Self::Drain,
            _ => return Err(Malformed),
        };
        reader.end(message)
    }
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready {
                digest,
                pending,
                overdue,
            } => Writer::new(0).long(*digest).int(*pending).int(*overdue),
            Self::LoadFailed { message } => Writer::new(1).text(message),
            Self::JournalFault { message } => Writer::new(2).text(message),
            Self::Running {
                door,
                source,
                phase,
                command,
            } => Writer::new(3)
                .whom(door, *source)
                .byte(phase_byte(*phase))
                .text(command),
            Self::TimedOut { door, source } => Writer::new(4).whom(door, *source),
            Self::Extended {
                door,
                source,
                timeout,
            } => Writer::new(5)
                .whom(door, *source)
                .long(timeout.as_secs())
                .int(timeout.subsec_nanos()),
            Self::Output { door, source, line } => Writer::new(6).whom(door, *source).text(line),
            Self::OutputCut { door, source } => Writer::new(7).whom(door, *source),
            Self::Ended {
                door,
                source,
                phase,
                ending,
            } => {
                let writer = Writer::new(8).whom(door, *source).byte(phase_byte(*phase));
                match ending {
                    Ending::Code(code) => writer.byte(0).int(code.cast_unsigned()),
                    Ending::Signal(signal) => writer.byte(1).int(signal.cast_unsigned()),
                    Ending::NotStarted(why) => writer.byte(2).text(why),
                }
            }
            Self::Refused {
                door,
                source,
                refusal,
            } => Writer::new(9).whom(door, *source).byte(match refusal {
                Refusal::UnknownDoor => 0,
                Refusal::TooManyWaiting => 1,
                Refusal::TooManyPending => 2,
                Refusal::Stopping => 3,
            }),
            Self::Lost { reports } => Writer::new(10).int(*reports),
            Self::Drained => Writer::new(11),
        }
        .0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, kind) = Reader::new(bytes)?;
        let message = match kind {
            0 => Self::Ready {
                digest: reader.long()?,
                pending: reader.int()?,
                overdue: reader.int()?,
            },
            1 => Self::LoadFailed {
                message: reader.text()?.to_owned(),
            },
            2 => Self::JournalFault {
                message: reader.text()?.to_owned(),
            },
            10 => Self::Lost {
                reports: reader.int()?,
            },
            11 => Self::Drained,
            3..=9 => Self::decode_of_door(kind, &mut reader)?,
            _ => return Err(Malformed),
        };
        reader.end(message)
    }

    /// Those that begin with a door and a source.
    fn decode_of_door(kind: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (door, source) = reader.whom()?;
        Ok(match kind {
            3 => Self::Running {
                door,
                source,
                phase: reader.phase()?,
                command: reader.text()?.to_owned(),
            },
            4 => Self::TimedOut { door, source },
            5 => Self::Extended {
                door,
                source,
                timeout: {
                    let (secs, nanos) = (reader.long()?, reader.int()?);
                    if nanos >= 1_000_000_000 {
                        return Err(Malformed);
                    }
                    Duration::new(secs, nanos)
                },
            },
            6 => Self::Output {
                door,
                source,
                line: reader.text()?.to_owned(),
            },
            7 => Self::OutputCut { door, source },
            8 => Self::Ended {
                door,
                source,
                phase: reader.phase()?,
                ending: match reader.byte()? {
                    0 => Ending::Code(reader.int()?.cast_signed()),
                    1 => Ending::Signal(reader.int()?.cast_signed()),
                    2 => Ending::NotStarted(reader.text()?.to_owned()),
                    _ => return Err(Malformed),
                },
            },
            9 => Self::Refused {
                door,
                source,
                refusal: match reader.byte()? {
                    0 => Refusal::UnknownDoor,
                    1 => Refusal::TooManyWaiting,
                    2 => Refusal::TooManyPending,
                    3 => Refusal::Stopping,
                    _ => return Err(Malformed),
                },
            },
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests;
