//! A reload changes which interfaces are listened on, and misses no packet on those that stay.

use std::collections::HashSet;
use std::thread;

use crate::listening::{ListeningDaemon, configuration};
use crate::site::Site;
use crate::support::frame::{send_datagram, source};
use crate::support::{Lab, SERVER, wait_until};

#[test]
fn other_interfaces_are_listened_to() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    lab.server.join("eth1", &lab.client, "eth1", &[]);
    lab.server.add_address("eth1", "198.51.100.1");
    lab.client.add_address("eth1", "198.51.100.77");
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    daemon.opens_at(SERVER[0]);
    daemon.ignores("198.51.100.1");
    daemon
        .site
        .configure(&configuration("interfaces = [\"eth1\", \"ppp0\"]"));
    daemon.site.reload(&daemon.process);
    for words in ["listening on eth1, ppp0", "waiting for interface ppp0"] {
        daemon.said(words, 1);
    }
    daemon.ignores(SERVER[0]);
    daemon.opens_at("198.51.100.1");
    daemon.site.configure(&configuration(""));
    daemon.site.reload(&daemon.process);
    daemon.said("listening on all interfaces but lo", 1);
    daemon.opens_at(SERVER[0]);
    daemon.opens_at("198.51.100.1");
    // The same again: nothing to tell.
    daemon.site.reload(&daemon.process);
    let lines = daemon.close();
    let told = lines
        .iter()
        .filter(|line| line.contains("listening on all"));
    assert_eq!(told.count(), 1, "{lines:?}");
}

/// How many may be under way: so many packets always find room in the ring.
const UNDER_WAY: usize = 1_000;

/// Thousands knock as fast as the daemon takes it, while it does nothing but reload.
#[test]
fn knocks_at_full_speed_all_open() {
    needs!(Laboratory);
    const KNOCKS: usize = 12_000;
    const MANY: &str = r#"
        [door.many]
        sequence = ["7601/udp", "7602/udp", "7603/udp"]
        open     = ["2222/tcp"]
        open_for = "1h"
        max_open = 12000
    "#;
    const MORE: &str = r#"
        [door.more]
        sequence = ["17604/udp", "7600/tcp", "7605/udp"]
        open     = ["8080/tcp"]
    "#;
    let lab = Lab::new();
    let site = Site::new(&lab, MANY);
    let daemon = site.start("");
    let texts = [
        format!("tripwires = \"off\"\n{MORE}{MANY}"),
        format!("interfaces = [\"eth0\"]\n{MANY}"),
        format!("tripwires = \"on\"\n{MANY}{MORE}"),
    ];
    let wire = lab.client.frames("eth0");
    let mut reloads = 0;
    let open = || {
        let status: serde_json::Value =
            serde_json::from_str(&site.run("status --json")).expect("JSON");
        status["opened"].as_u64().expect("a number") as usize
    };
    for port in [7601, 7602, 7603] {
        send_datagram(&wire, source(KNOCKS - 1), port);
    }
    wait_until("the first", || open() == 1);
    thread::scope(|scope| {
        let knocking = scope.spawn(|| {
            for n in 0..KNOCKS - 1 {
                for port in [7601, 7602, 7603] {
                    send_datagram(&wire, source(n), port);
                }
                if n % 100 == 99 {
                    wait_until("the daemon to keep up", || open() + UNDER_WAY > n);
                }
            }
        });
        while !knocking.is_finished() {
            site.configure(&texts[reloads % texts.len()]);
            site.reload(&daemon);
            reloads += 1;
        }
    });
    wait_until("the last", || open() >= KNOCKS);
    assert!(reloads >= 5, "{reloads}");
    let listed = site.openings();
    let listed: HashSet<_> = listed.iter().filter_map(|o| o["source"].as_str()).collect();
    let all: Vec<_> = (0..KNOCKS).map(|n| source(n).to_string()).collect();
    let lacks: Vec<_> = all
        .iter()
        .filter(|s| !listed.contains(s.as_str()))
        .collect();
    assert!(lacks.is_empty(), "not listed: {lacks:?}");
    // Each once, and not once more.
    assert_eq!(open(), KNOCKS);
    let (_, lines) = daemon.terminate();
    assert!(!lines.iter().any(|line| line.contains("packets lost")));
}
