//! Ports and steps, written `22/tcp` as in /etc/services.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// The two transports that have ports a client can knock at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

impl Protocol {
    /// Returns the IP protocol number (RFC 790 and after): 6 or 17.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Returns the protocol of this name, in upper or lower case.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word.trim() {
            word if word.eq_ignore_ascii_case("tcp") => Some(Self::Tcp),
            word if word.eq_ignore_ascii_case("udp") => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One hit of a sequence: a port and its protocol. The port is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: NonZeroU16,
}

impl Step {
    /// Returns a step; `None` for port 0, which nobody can knock at.
    #[must_use]
    pub fn new(protocol: Protocol, port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(|port| Self { protocol, port })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// One port or several in a row, of one protocol: `22/tcp`, `60000-61000/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The lowest port.
    pub first: NonZeroU16,
    /// The highest port, not below `first`.
    pub last: NonZeroU16,
}

impl PortRange {
    /// Returns whether the range is a single port.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// Returns whether `step` lies within the range.
    #[must_use]
    pub fn contains(&self, step: Step) -> bool {
        self.protocol == step.protocol && self.first <= step.port && step.port <= self.last
    }

    /// Returns whether the two ranges share a port.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            write!(f, "{}/{}", self.first, self.protocol)
        } else {
            write!(f, "{}-{}/{}", self.first, self.last, self.protocol)
        }
    }
}

/// The reason why a text is no port, step or range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePortError {
    /// There is no `/tcp` or `/udp` behind the port.
    #[error("a port is written with its protocol: `{0}/tcp` or `{0}/udp`")]
    NoProtocol(String),
    /// A colon divides port and protocol, as in a knockd.conf and for the client.
    #[error("port and protocol are divided by a slash here, not by a colon")]
    Colon,
    /// The word behind the slash is neither `tcp` nor `udp`.
    #[error("unknown protocol `{0}`: `tcp` or `udp`")]
    Protocol(String),
    /// Not a number from 1 to 65535.
    #[error("`{0}` is no port: a whole number from 1 to 65535")]
    Number(String),
    /// `last` is below `first`.
    #[error("the range `{0}` runs backwards: lowest port first")]
    Backwards(String),
    /// A range where one port must stand.
    #[error("`{0}` is a range: one port must stand here")]
    Range(String),
}

fn number(text: &str) -> Result<NonZeroU16, ParsePortError> {
    // `parse` alone would take a leading `+`.
    if text.bytes().all(|b| b.is_ascii_digit())
        && let Ok(port) = text.parse()
    {
        return Ok(port);
    }
    Err(ParsePortError::Number(text.to_owned()))
}

impl FromStr for PortRange {
    type Err = ParsePortError;

    /// Upper and lower case alike; blanks around port and protocol do not matter.
    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        let text = text.trim();
        let Some((ports, protocol)) = text.split_once('/') else {
            // A name is no port, whatever follows it.
            let digit = |c: char| c.is_ascii_digit() || c == '-';
            let is_number = |text: &str| !text.is_empty() && text.chars().all(digit);
            return Err(match text.split_once(':') {
                Some((_, protocol)) if Protocol::named(protocol).is_some() => ParsePortError::Colon,
                _ if is_number(text) => ParsePortError::NoProtocol(text.to_owned()),
                _ => ParsePortError::Number(text.to_owned()),
            });
        };
        let (ports, protocol) = (ports.trim_end(), protocol.trim_start());
        let protocol = Protocol::named(protocol)
            .ok_or_else(|| ParsePortError::Protocol(protocol.to_owned()))?;
        let (first, last) = match ports.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(ports)?, number(ports)?),
        };
        if last < first {
            return Err(ParsePortError::Backwards(text.to_owned()));
        }
        Ok(Self {
            protocol,
            first,
            last,
        })
    }
}

impl FromStr for Step {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        let range: PortRange = text.parse()?;
        if !range.is_single() {
            return Err(ParsePortError::Range(text.to_owned()));
        }
        Ok(Self {
            protocol: range.protocol,
            port: range.first,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["22/tcp", "60000-61000/udp", "1-65535/tcp"] {
            assert_eq!(
                text.parse::<PortRange>().map(|r| r.to_string()).as_deref(),
                Ok(text)
            );
        }
        assert_eq!(
            "65535/udp"
                .parse::<Step>()
                .map(|s| s.to_string())
                .as_deref(),
            Ok("65535/udp")
        );
    }

    #[test]
    fn capitals_and_blanks_do_not_matter() {
        for text in ["22/TCP", " 22/tcp", "22/tcp\t", "22 / Tcp"] {
            let read = text.parse::<Step>().map(|step| step.to_string());
            assert_eq!(read.as_deref(), Ok("22/tcp"), "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_named() {
        assert_eq!(
            "22".parse::<Step>(),
            Err(ParsePortError::NoProtocol("22".into()))
        );
        assert_eq!("22:tcp".parse::<Step>(), Err(ParsePortError::Colon));
        assert_eq!(
            "ssh".parse::<Step>(),
            Err(ParsePortError::Number("ssh".into()))
        );
        for bad in ["0/tcp", "65536/tcp", "+22/tcp", "2 2/tcp", "/tcp", "-/udp"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        assert!(matches!(
            "9-8/udp".parse::<PortRange>(),
            Err(ParsePortError::Backwards(_))
        ));
        assert!(matches!(
            "8-9/udp".parse::<Step>(),
            Err(ParsePortError::Range(_))
        ));
    }
}
