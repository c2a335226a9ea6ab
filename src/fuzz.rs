//! What holds for each reader of bytes from outside, whatever the bytes: a function a reader, with
//! assertions in it. `tests/fuzz` has a fuzz target for each and a corpus, which the test below reads
//! again. The properties of a room's private readers lie in the `fuzz.rs` beside them. All of this is
//! compiled for tests and for fuzzing alone.

use std::net::IpAddr;
use std::path::Path;

pub use crate::action::fuzz::{
    helper_report, helper_request, journal, journal_0_9, one_time_file, used_sequences,
};
pub use crate::capture::fuzz::route_netlink;
pub use crate::daemon::fuzz::{control_order, control_reply, listener_message};
pub use crate::firewall::fuzz::{nft_elements, nft_events, nft_replies};

pub use crate::netlink::fuzz::netlink_answers;

use crate::config::{Audience, ConfigReport, Severity, judge_bytes};
use crate::decode::decode;
use crate::firewall::{Ruleset, fuzz};
use crate::model::{Frame, Knock, LinkType, Timestamp};
use crate::tools::convert::convert;

/// Lists the fuzz targets; the folders of the corpus have the same names. Each is a test, too.
macro_rules! targets {
    ($($name:ident)+) => {
        /// What the corpus has still holds.
        #[cfg(test)]
        mod corpus {
            $(
                #[test]
                fn $name() {
                    super::tests::holds(stringify!($name), super::$name);
                }
            )+
        }

        #[cfg(test)]
        const TARGETS: &[&str] = &[$(stringify!($name)),+];
    };
}

targets! {
    control_order
    control_reply
    frame
    helper_report
    helper_request
    journal
    journal_0_9
    knockd_conf
    knockd_toml
    listener_message
    netlink_answers
    nft_elements
    nft_events
    nft_replies
    nft_ruleset
    one_time_file
    route_netlink
    used_sequences
}

const LINKS: [LinkType; 11] = [
    LinkType::LinuxCooked2,
    LinkType::Ethernet,
    LinkType::LinuxCooked,
    LinkType::Raw,
    LinkType::Ipv4,
    LinkType::Ipv6,
    LinkType::Null,
    LinkType::Loop,
    LinkType::Ppp,
    LinkType::PppHdlc,
    LinkType::PppEther,
];

/// No knock is from nobody, and a packet is the same knock by every link. The input: a link type, how
/// many bytes of the frame were not captured, the frame.
pub fn frame(input: &[u8]) {
    let Some(([link, uncaptured], data)) = input.split_first_chunk() else {
        return;
    };
    let read = |link, data: &[u8]| {
        let wire = u32::try_from(data.len()).unwrap_or(u32::MAX);
        decode(&Frame {
            at: Timestamp(7),
            link,
            wire_len: wire.saturating_add(u32::from(*uncaptured)),
            data,
        })
    };
    let link = LINKS[usize::from(*link) % LINKS.len()];
    if let Some(knock) = read(link, data) {
        assert!(!knock.source.is_unspecified() && !knock.source.is_multicast());
        assert_eq!(knock.at, Timestamp(7));
        assert_eq!(knock.interface.is_some(), link == LinkType::LinuxCooked2);
    }
    if let Some(knock) = read(LinkType::Raw, data) {
        for (link, header) in headers(&knock, data.len() + usize::from(*uncaptured)) {
            let framed = read(link, &[&header, data].concat());
            let known = framed.map(|framed| Knock {
                interface: None,
                ..framed
            });
            assert_eq!(known, Some(knock), "{link:?}");
        }
    }
}

/// Returns what stands before the IP packet of this knock, so many bytes long, by each link.
fn headers(knock: &Knock, length: usize) -> Vec<(LinkType, Vec<u8>)> {
    let (ether, ppp, family, link) = match knock.source {
        IpAddr::V4(_) => ([8, 0], 0x21, 2, LinkType::Ipv4),
        IpAddr::V6(_) => ([0x86, 0xdd], 0x57, 10, LinkType::Ipv6),
    };
    let mut headers = vec![
        (link, Vec::new()),
        (LinkType::Null, vec![family, 0, 0, 0]),
        (LinkType::Loop, vec![0, 0, 0, family]),
        (LinkType::Ppp, vec![0xff, 3, 0, ppp]),
        (LinkType::PppHdlc, [&[0x0f, 0], &ether[..]].concat()),
        (LinkType::Ethernet, [&[2; 12], &ether[..]].concat()),
        (
            LinkType::LinuxCooked,
            [&[0, 0, 0, 1][..], &[0; 10], &ether].concat(),
        ),
        (
            LinkType::LinuxCooked2,
            [&ether[..], &[0, 0, 0, 0, 0, 9, 0, 1], &[0; 10]].concat(),
        ),
    ];
    // A session's frame says how long it is, the protocol with it.
    if let Ok(length) = u16::try_from(length + 2) {
        let [high, low] = length.to_be_bytes();
        let header = vec![0x11, 0, 0, 1, high, low, 0, ppp];
        headers.push((LinkType::PppEther, header));
    }
    headers
}

/// A text without an error is a configuration, and a log is told no sequence.
pub fn knockd_toml(text: &[u8]) {
    let report = judge("knockd.toml", text);
    let errors = report
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error);
    let said: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(report.config.is_some(), errors.count() == 0, "{said:?}");
    let door = b"[door.secret]\nsequence = [\"48213/tcp\", \"51377/udp\"]\nopen = [\"22/tcp\"]\n";
    is_secret("knockd.toml", door, text);
}

/// What is read converts to TOML that passes the check, and a log is told no sequence.
pub fn knockd_conf(text: &[u8]) {
    let report = judge("knockd.conf", text);
    for native in [false, true] {
        match convert("knockd.conf", text, native) {
            Ok(made) => {
                let new = judge("knockd.toml", made.toml.as_bytes());
                assert!(new.config.is_some(), "{:?}\n{}", new.diagnostics, made.toml);
            }
            Err(_) => assert!(report.config.is_none()),
        }
    }
    let door = b"[secret]\nsequence = 48213,51377:udp\nstart_command = true\n";
    is_secret("knockd.conf", door, text);
}

/// The table of any configuration is read back as it was written.
pub fn nft_ruleset(text: &[u8]) {
    let config = judge("knockd.toml", text).config;
    if let Some(ruleset) = config.as_ref().and_then(Ruleset::new) {
        fuzz::table(&ruleset.of(Path::new("/etc/knockd.toml")));
    }
}

fn judge(name: &str, text: &[u8]) -> ConfigReport {
    judge_bytes(Path::new(name), text, Path::new("/etc"))
}

/// A door before the text, and one behind it, whose ports no log is told, whatever else is wrong.
fn is_secret(name: &str, door: &[u8], text: &[u8]) {
    for whole in [[door, text].concat(), [text, b"\n", door].concat()] {
        for told in judge(name, &whole).diagnostics {
            let told = told.shown_to(Audience::Log);
            for port in ["48213", "51377"] {
                let is_public = String::from_utf8_lossy(text).contains(port);
                assert!(is_public || !told.contains(port), "{told}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .map(|name| name.into_string().expect("a plain name"))
            .collect()
    }

    /// Gives a property each input of its corpus: what has been found by fuzzing, and what there was
    /// to begin with.
    pub(super) fn holds(target: &str, property: fn(&[u8])) {
        let corpus = folder().join("corpus").join(target);
        let files = names(&corpus);
        assert!(files.len() > 4, "{target} has {} inputs", files.len());
        for name in files {
            // If it panics, the input is the last that is named.
            println!("{target}/{name}");
            property(&fs::read(corpus.join(name)).expect("readable"));
        }
    }

    #[test]
    fn each_property_has_a_fuzz_target() {
        let known: BTreeSet<_> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&folder().join("corpus")), known);
        let files = known.iter().map(|name| format!("{name}.rs")).collect();
        assert_eq!(names(&folder().join("fuzz_targets")), files);
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("its manifest");
        for name in known {
            assert!(
                manifest.contains(&format!("\nname = \"{name}\"\n")),
                "{name}"
            );
            let file = folder().join(format!("fuzz_targets/{name}.rs"));
            let code = fs::read_to_string(file).expect("readable");
            assert!(code.contains(&format!("knockd::fuzz::{name}(")), "{name}");
        }
    }
}
