//! What an opening costs: encoding it, and the whole way into the kernel and back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use knockd::config;
use knockd::firewall::{
    Element, ElementKey, Encoder, GuardTable, Mode, Ruleset, SetChange, Transaction,
};
use knockd::model::{Effect, Lifetime, SetPath, Timestamp};
use nix::sched::{CloneFlags, unshare};

fn main() {
    // A network, and the right to its tables, of our own.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("a user namespace");
    divan::main();
}

/// A person, whose number must not come twice.
fn person(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number).into()
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let set = Arc::new(SetPath {
        family: "inet".into(),
        table: "knockd".into(),
        set: "openings_v4".into(),
    });
    let transaction = Transaction {
        changes: vec![SetChange::Add(Element {
            set,
            key: ElementKey::AddressPort(person(1), "22/tcp".parse().expect("a step")),
            timeout: Some(Duration::from_secs(30)),
            comment: "ssh".into(),
        })],
    };
    let mut encoder = Encoder::default();
    bencher.bench_local(|| encoder.encode(black_box(&transaction)).len());
}

/// Each for somebody else. The set has room for 65,536.
#[divan::bench(sample_count = 100, sample_size = 100)]
fn open(bencher: Bencher<'_, '_>) {
    let text = r#"
        [firewall]
        [door.ssh]
        sequence = ["7001/tcp", "8102/tcp", "9203/tcp"]
        open = ["22/tcp"]
        open_for = "30s"
    "#;
    let report = config::parse(
        "bench",
        text,
        config::Format::Toml,
        &config::Host::default(),
    );
    let ruleset = Ruleset::new(&report.config.expect("no fault")).expect("a table");
    let now = Timestamp(1 << 40);
    let (mut table, _) = GuardTable::start(ruleset, Mode::Watch, now).expect("a table");
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let open = Effect::Open {
            door: "ssh".into(),
            source: person(number),
            ports: vec!["22/tcp".parse().expect("a port")],
            lifetime: Lifetime::For(Duration::from_secs(30)),
        };
        table.apply(&[open], now).expect("the kernel takes it");
    });
}
