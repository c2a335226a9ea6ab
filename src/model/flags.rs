//! The TCP flags that a door asks for.

use std::fmt;
use std::str::FromStr;

/// The flag bits of the fourteenth byte of a TCP header (RFC 9293, 3.1).
pub mod flag {
    /// Finish.
    pub const FIN: u8 = 0x01;
    /// Synchronize.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledge.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
}

/// Returns whether a packet with these flag bits belongs to no session. All packets of a session have
/// ACK, or RST at its end (RFC 9293, 3.10.7). SYNs belong to no session, nor do the packets of FIN, NULL
/// and XMAS scans.
#[must_use]
pub fn is_of_no_session(flags: u8) -> bool {
    flags & (flag::ACK | flag::RST) == 0
}

const NAMES: [(&str, u8); 6] = [
    ("fin", flag::FIN),
    ("syn", flag::SYN),
    ("rst", flag::RST),
    ("psh", flag::PSH),
    ("ack", flag::ACK),
    ("urg", flag::URG),
];

/// Flags that must be set and flags that must be clear; the others do not matter. They are written
/// `syn,!ack`; `any` is every TCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Bits that must be 1.
    pub set: u8,
    /// Bits that must be 0; none is in `set` as well.
    pub clear: u8,
}

impl TcpFlags {
    /// Every TCP packet.
    pub const ANY: Self = Self { set: 0, clear: 0 };
    /// The first packet of a connection and nothing else.
    pub const SYN: Self = Self {
        set: flag::SYN,
        clear: flag::ACK,
    };

    /// Returns whether the flags match packets of established sessions, which have ACK and no SYN
    /// (RFC 9293, 3.10.7.4).
    #[must_use]
    pub fn fits_sessions(self) -> bool {
        self.clear & flag::ACK == 0 && self.set & flag::SYN == 0
    }

    /// Returns whether a packet with these flag bits matches.
    #[must_use]
    pub fn matches(self, flags: u8) -> bool {
        flags & self.set == self.set && flags & self.clear == 0
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("any");
        }
        let words = NAMES.iter().filter_map(|(name, bit)| {
            if self.set & bit != 0 {
                Some(("", name))
            } else if self.clear & bit != 0 {
                Some(("!", name))
            } else {
                None
            }
        });
        for (i, (not, name)) in words.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{not}{name}")?;
        }
        Ok(())
    }
}

/// The reason why a text names no flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFlagsError {
    /// There is no such flag.
    #[error(
        "unknown TCP flag `{0}`: fin, syn, rst, psh, ack, urg, each with `!` for clear; or any"
    )]
    Unknown(String),
    /// One flag is both set and clear.
    #[error("the TCP flag `{0}` cannot be both set and clear")]
    Both(&'static str),
}

impl FromStr for TcpFlags {
    type Err = ParseFlagsError;

    /// Case does not matter, as in knock 0.8. Blanks around each word, at which 0.8 stumbles, are
    /// ignored.
    fn from_str(text: &str) -> Result<Self, ParseFlagsError> {
        if text.trim().eq_ignore_ascii_case("any") {
            return Ok(Self::ANY);
        }
        let mut flags = Self::ANY;
        for word in text.split(',').map(str::trim) {
            let (not, name) = match word.strip_prefix('!') {
                Some(name) => (true, name.trim()),
                None => (false, word),
            };
            let &(name, bit) = NAMES
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .ok_or_else(|| ParseFlagsError::Unknown(word.to_owned()))?;
            if not {
                flags.clear |= bit;
            } else {
                flags.set |= bit;
            }
            if flags.set & flags.clear != 0 {
                return Err(ParseFlagsError::Both(name));
            }
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_they_are_read() {
        assert_eq!("syn,!ack".parse(), Ok(TcpFlags::SYN));
        assert_eq!(" SYN , ! ack ".parse(), Ok(TcpFlags::SYN));
        assert_eq!("any".parse(), Ok(TcpFlags::ANY));
        assert_eq!(TcpFlags::SYN.to_string(), "syn,!ack");
        assert_eq!(TcpFlags::ANY.to_string(), "any");
        assert_eq!(
            "syn,!syn".parse::<TcpFlags>(),
            Err(ParseFlagsError::Both("syn"))
        );
        assert!("".parse::<TcpFlags>().is_err());
        assert!("ecn".parse::<TcpFlags>().is_err());
    }

    #[test]
    fn flags_are_judged_by_the_named_bits_alone() {
        assert!(TcpFlags::SYN.matches(flag::SYN | flag::URG | 0xc0));
        assert!(!TcpFlags::SYN.matches(flag::SYN | flag::ACK));
        assert!(!TcpFlags::SYN.matches(0));
        assert!(TcpFlags::ANY.matches(0));
    }
}
