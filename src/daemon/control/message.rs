//! The messages on the control socket: orders, and the daemon's replies.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::daemon::state::dir;

/// The most lines of a reply: nobody reads more, and all of them are in the log.
pub(super) const LONGEST_REPLY: usize = 500;

/// An order, and the daemon that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddressedOrder {
    /// The names of the daemon's file, see [`names`]. Without any, the daemon that listens obeys.
    pub(crate) of: Vec<String>,
    pub(crate) ask: Order,
}

/// An order that root may give the daemon. The command line, the socket and the daemon share this
/// type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Order {
    /// Its subcommand has flags that the daemon need not know.
    #[command(skip)]
    Status,
    /// Open a door for an address as if it had knocked.
    Open {
        /// The door.
        door: String,
        /// For whom.
        #[arg(value_parser = address)]
        address: IpAddr,
        /// For how long, in place of the door's own time.
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        #[serde(rename = "for_ms", default, with = "milliseconds")]
        lifetime: Option<Duration>,
    },
    /// Close what is open.
    #[command(group(clap::ArgGroup::new("whose").required(true).args(["address", "all"])))]
    Close {
        /// Whose openings.
        #[arg(value_parser = address)]
        address: Option<IpAddr>,
        /// Everybody's.
        #[arg(long)]
        #[serde(skip)]
        all: bool,
    },
    /// Remove the table, and with it the guard: the ports are open to all.
    Clear,
    /// Have the daemon read its configuration again, and say what becomes of it.
    Reload,
}

/// A time as a number of milliseconds, which every version of knockd understands.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        time.map(milliseconds).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let milliseconds = Option::<u64>::deserialize(from)?;
        Ok(milliseconds.map(Duration::from_millis))
    }
}

/// Parses an address as packets bear it: logs of other programs have `::ffff:192.0.2.7` for one
/// that comes by IPv4 (RFC 4291, 2.5.5.2).
fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let plain = inner.unwrap_or(text);
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Ok(address.to_canonical());
    }
    let (first, rest) = plain.split_once(['/', '%']).unwrap_or((plain, ""));
    Err(match first.parse::<IpAddr>() {
        Ok(_) if plain.contains('/') => {
            format!("one address must stand here, not a network: {first}, say, without /{rest}")
        }
        Ok(_) => format!("an address must stand here without its interface: {first}"),
        Err(_) => "this is no address: a name is not looked up, write the address".to_owned(),
    })
}

/// The daemon's reply to an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    /// Done; lines for the user.
    Done(Vec<String>),
    /// Not done, and why.
    Refused(String),
    /// Not done, since the configuration has faults: all of them.
    Faulty(Vec<String>),
    /// Not done, since the order is for the daemon of another file. The text names the file that this
    /// daemon runs with.
    Elsewhere(String),
    /// The daemon's status: the reply to [`Order::Status`].
    Status(Box<Status>),
}

impl Reply {
    /// Cuts off lines that nobody would read.
    pub(super) fn cut(self) -> Self {
        match self {
            Self::Done(mut lines) if lines.len() > LONGEST_REPLY => {
                let more = lines.len() - LONGEST_REPLY;
                lines.truncate(LONGEST_REPLY);
                lines.push(format!("and {more} more, all of them in the log"));
                Self::Done(lines)
            }
            Self::Done(_)
            | Self::Refused(_)
            | Self::Faulty(_)
            | Self::Elsewhere(_)
            | Self::Status(_) => self,
        }
    }
}

/// Returns the names by which two paths are compared: the absolute path as it was given, and the path
/// to which its symbolic links lead. Reads the disk.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let resolved = path.canonicalize().ok();
    // Escaped, since a name need not be UTF-8.
    let mut names: Vec<_> = std::iter::once(absolute)
        .chain(resolved)
        .map(|path| dir::escape(path.as_os_str().as_encoded_bytes()))
        .collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_known_by_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let same = |one: &Path, other: &Path| names(one).iter().any(|n| names(other).contains(n));
        assert!(same(&file, &link) && same(&link, &link) && same(&file, &file));
        let other = dir.path().join("c.toml");
        assert!(!same(&other, &link) && same(&other, &other));
    }

    /// During an upgrade one version asks and another answers.
    #[test]
    fn an_order_reads_on_the_wire_as_it_always_did() {
        let address = IpAddr::from([192, 0, 2, 7]);
        let (door, lifetime) = ("ssh".to_owned(), Some(Duration::from_secs(5)));
        let (all, none) = (true, false);
        for (order, text) in [
            (Order::Status, r#""status""#),
            (Order::Clear, r#""clear""#),
            (Order::Reload, r#""reload""#),
            (
                Order::Open {
                    door: door.clone(),
                    address,
                    lifetime,
                },
                r#"{"open":{"door":"ssh","address":"192.0.2.7","for_ms":5000}}"#,
            ),
            (
                Order::Open {
                    door,
                    address,
                    lifetime: None,
                },
                r#"{"open":{"door":"ssh","address":"192.0.2.7","for_ms":null}}"#,
            ),
            (
                Order::Close {
                    address: Some(address),
                    all: none,
                },
                r#"{"close":{"address":"192.0.2.7"}}"#,
            ),
            (
                Order::Close { address: None, all },
                r#"{"close":{"address":null}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&order).unwrap(), text);
            let read: Order = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }
}
