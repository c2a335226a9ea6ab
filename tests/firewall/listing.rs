//! The text of a dry run and the messages of netlink are made from the same data. Both make the same
//! table, as nft 1.0.6 lists it.

use std::path::Path;

use knockd::config::{Format, Host, parse};
use knockd::firewall::{Mode, Ruleset, render};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use crate::agent::{Agent, CONFIGURATION, Notice, read, start};
use crate::support::{Lab, Namespace};

/// What `nft -j` says of a table, a line for each object: without handles
/// (they count what came before) and counters, and elements in order (a hash set has none).
fn listed(host: &Namespace, table: &str) -> Vec<String> {
    let text = host.run(&format!("nft -j list table inet {table}"));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let objects = value["nftables"].as_array().expect("a list").iter();
    objects
        .map(|object| {
            let mut object = object.clone();
            strip(&mut object);
            object.to_string()
        })
        .collect()
}

fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.remove("handle");
            if let Some(counter) = map.get_mut("counter") {
                *counter = serde_json::Value::Null;
            }
            if let Some(elements) = map.get_mut("elem").and_then(|e| e.as_array_mut()) {
                elements.sort_by_key(ToString::to_string);
            }
            map.values_mut().for_each(strip);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(strip),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Both back ends, in two namespaces.
fn agree(lab: &Lab, toml: &str) -> Result<(), TestCaseError> {
    // Some of those generated are refused: ports that overlap.
    let report = parse("test.toml", toml, Format::Toml, &Host::default());
    prop_assume!(report.config.is_some());
    let ruleset = Ruleset::new(&read(toml)).expect("a firewall");
    let ruleset = ruleset.of(Path::new(CONFIGURATION));
    let text = render::nft(&ruleset);
    let table = ruleset.table.to_string();
    lab.client.nft(&format!("flush ruleset\n{text}"));
    let path = lab.write("listing.toml", toml);
    // Without flags: nft 1.0.6 prints garbage for those it does not know.
    let started = Agent::new(&lab.server).order(start(Mode::Watch, &path));
    let differs = |notice: &Notice| matches!(notice, Notice::Differs(_));
    prop_assert!(!started.notices.iter().any(differs), "{started:?}\n{text}");
    let (theirs, ours) = (listed(&lab.client, &table), listed(&lab.server, &table));
    prop_assert_eq!(theirs.len(), ours.len(), "{}", text);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        prop_assert_eq!(theirs, ours, "{}", text);
    }
    lab.server.run(&format!("nft delete table inet {table}"));
    Ok(())
}

#[test]
fn text_and_netlink_make_the_same_table_of_every_example() {
    needs!(Laboratory);
    let lab = Lab::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut met = 0;
    for entry in std::fs::read_dir(examples).expect("examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        if Ruleset::new(&read(&text)).is_some() {
            met += 1;
            agree(&lab, &text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    assert!(met > 2, "few examples have a firewall: {met}");
}

fn a_port() -> impl Strategy<Value = String> {
    let protocol = prop_oneof![Just("tcp"), Just("udp")];
    (
        1..60_000_u16,
        prop_oneof![Just(0_u16), 1..5_000_u16],
        protocol,
    )
        .prop_map(|(first, more, protocol)| match more {
            0 => format!("\"{first}/{protocol}\""),
            n => format!("\"{first}-{}/{protocol}\"", first + n),
        })
}

fn a_prefix() -> impl Strategy<Value = String> {
    let four = (any::<u32>(), 0..=32_u8).prop_map(|(bits, length)| {
        let address = std::net::IpAddr::from(bits.to_be_bytes());
        knockd::model::Prefix::new(address, length)
    });
    let six = (any::<u128>(), 0..=128_u8).prop_map(|(bits, length)| {
        let address = std::net::IpAddr::from(bits.to_be_bytes());
        knockd::model::Prefix::new(address, length)
    });
    prop_oneof![3 => four, 1 => six].prop_map(|p| format!("\"{}\"", p.expect("bits enough")))
}

prop_compose! {
    /// A configuration with whatever the table can be made of.
    fn a_configuration()(
        guard in prop_oneof![Just("drop"), Just("reject"), Just("off")],
        mark in proptest::option::of(1_u32..),
        trusted in proptest::collection::vec(a_prefix(), 0..6),
        doors in proptest::collection::vec(proptest::collection::vec(a_port(), 1..5), 1..6),
    ) -> String {
        let mut toml = format!("[firewall]\nguard = \"{guard}\"\ntrusted = [{}]\n", trusted.join(", "));
        if let Some(mark) = mark {
            toml += &format!("mark = {mark}\n");
        }
        for (i, ports) in doors.iter().enumerate() {
            toml += &format!(
                "[door.d{i}]\nsequence = [\"65531/udp\", \"65500/tcp\", \"65533/udp\"]\nopen = [{}]\n",
                ports.join(", ")
            );
        }
        toml
    }
}

#[test]
fn text_and_netlink_make_the_same_table_of_any_configuration() {
    needs!(Laboratory);
    let lab = Lab::new();
    let runs = Runs {
        failure_persistence: None,
        ..Runs::with_cases(40)
    };
    TestRunner::new(runs)
        .run(&a_configuration(), |toml| agree(&lab, &toml))
        .unwrap_or_else(|e| panic!("{e}"));
}
