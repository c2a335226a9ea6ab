//! The commands of a configuration, as the helper has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::model::{Commands, Config};

/// The commands of each door that has any, by the door's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandTable(BTreeMap<Arc<str>, Commands>);

impl CommandTable {
    /// Returns the commands of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let doors = config.doors.iter();
        Self(
            doors
                .filter_map(|d| Some((Arc::clone(&d.name), d.commands.as_deref()?.clone())))
                .collect(),
        )
    }

    /// Returns whether no door has a command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many doors have commands.
    pub(super) fn doors(&self) -> usize {
        self.0.len()
    }

    /// Returns whether some door has a stop command.
    pub(super) fn has_stops(&self) -> bool {
        let has = |s: &Option<String>| s.as_ref().is_some_and(|s| !s.is_empty());
        self.0.values().any(|c| has(&c.stop) || has(&c.stop_6))
    }

    pub(super) fn get(&self, door: &str) -> Option<&Commands> {
        self.0.get(door)
    }

    /// Returns a number that differs between different tables. The daemon compares its own with the
    /// helper's, to notice that the file has changed between the two readings.
    #[must_use]
    pub fn digest(&self) -> u64 {
        // `Debug` quotes strings, so no two tables are written alike.
        SipHasher13::new().hash(format!("{:?}", self.0).as_bytes())
    }
}

/// Returns the string with the numeric address in place of each `%IP%`. An address is digits, `a` to
/// `f`, dots and colons: nothing that means something to a shell, quoted or not.
#[must_use]
pub fn expand(command: &str, source: IpAddr) -> String {
    command.replace("%IP%", &source.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_address_stands_wherever_it_is_asked_for() {
        let four = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(
            expand("a '%IP%' \"%IP%\";\n%IP %ip% %%IP%%", four),
            "a '192.0.2.7' \"192.0.2.7\";\n%IP %ip% %192.0.2.7%"
        );
        let six = "2001:db8::7".parse().expect("an address");
        assert_eq!(expand("%IP%%IP%", six), "2001:db8::72001:db8::7");
        assert_eq!(expand("true", six), "true");
    }

    proptest! {
        #[test]
        fn no_address_means_anything_to_a_shell(octets in any::<[u8; 16]>(), four in any::<[u8; 4]>()) {
            for source in [IpAddr::from(octets), IpAddr::from(four)] {
                let text = expand("%IP%", source);
                prop_assert!(text.chars().all(|c| c.is_ascii_hexdigit() || c == '.' || c == ':'));
                prop_assert_eq!(text.parse(), Ok(source));
            }
        }
    }
}
