//! Addresses and prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network such as `192.0.2.0/24`, or one address (`/32`, `/128`). Bits below the
/// length are clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Returns the network of `length` bits that `address` lies in; `None` if an address has fewer
    /// bits.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if length <= 32 => {
                IpAddr::V4(Ipv4Addr::from(a.to_bits() & mask4(length)))
            }
            IpAddr::V6(a) if length <= 128 => {
                IpAddr::V6(Ipv6Addr::from(a.to_bits() & mask6(length)))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { address, length })
    }

    /// Returns the lowest address of the network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns how many leading bits count.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Returns the highest address of the network.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(a.to_bits() | !mask4(self.length))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(a.to_bits() | !mask6(self.length))),
        }
    }

    /// Returns whether `address` lies within the network. An address of the other family never does.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => a.to_bits() & mask4(self.length) == n.to_bits(),
            (IpAddr::V6(n), IpAddr::V6(a)) => a.to_bits() & mask6(self.length) == n.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn mask4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.length == whole {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.length)
        }
    }
}

/// The reason why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePrefixError {
    /// The text is neither an address nor a prefix.
    #[error("`{0}` is neither an address nor a prefix such as 192.0.2.0/24")]
    Syntax(String),
    /// Bits are set below the length, which is mostly a slip.
    #[error("`{given}` has bits set below its length: did you mean `{meant}`?")]
    HostBits {
        /// The prefix as written.
        given: String,
        /// The network in which the given address lies.
        meant: Prefix,
    },
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let syntax = || ParsePrefixError::Syntax(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((a, l)) if !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()) => (a, Some(l)),
            Some(_) => return Err(syntax()),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let length = match length {
            Some(l) => l.parse().map_err(|_| syntax())?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        let prefix = Self::new(address, length).ok_or_else(syntax)?;
        if prefix.address != address {
            return Err(ParsePrefixError::HostBits {
                given: text.to_owned(),
                meant: prefix,
            });
        }
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_written_as_they_are_read() {
        for text in [
            "192.0.2.0/24",
            "192.0.2.1",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/0",
            "::/0",
        ] {
            assert_eq!(
                text.parse::<Prefix>().map(|p| p.to_string()).as_deref(),
                Ok(text)
            );
        }
        for bad in [
            "",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.0/+4",
            "::/129",
            "host",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        assert!(matches!(
            "192.0.2.7/24".parse::<Prefix>(),
            Err(ParsePrefixError::HostBits { .. })
        ));
    }

    #[test]
    fn a_prefix_holds_its_first_and_last_address_and_no_other_family() {
        let p: Prefix = "192.0.2.0/24".parse().expect("a prefix");
        assert!(p.contains(p.address()) && p.contains(p.last()));
        assert!(!p.contains(IpAddr::from([192, 0, 3, 0])));
        assert!(!p.contains("::192.0.2.1".parse().expect("an address")));
        let all: Prefix = "::/0".parse().expect("a prefix");
        assert!(all.contains(all.last()));
    }
}
