//! Restarts, reloads and upgrades under connections without pause: no packet sees a gap.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clients::connect_throughout;
use crate::crash::Random;
use crate::open_both;
use crate::rounds;
use crate::site::{SSH, Site};
use crate::support::{CLIENT, Lab, Process, wait_until};

/// A door more, with a range: other sets, and a rule for connections that are tracked.
const MOSH: &str = r#"
[door.mosh]
sequence = ["7004/tcp", "8105/udp", "9206/tcp"]
open     = ["60000-60010/udp", "443/tcp"]
open_for = "12h"
"#;

/// Configurations that all have the door of [`SSH`].
pub(crate) fn variants() -> [String; 6] {
    [
        SSH.to_owned(),
        format!("{SSH}{MOSH}"),
        format!("firewall.table = \"gate\"\n{SSH}"),
        format!("firewall.table = \"gate\"\nfirewall.guard = \"reject\"\n{SSH}{MOSH}"),
        format!("firewall.trusted = [\"198.51.100.0/24\"]\nfirewall.mark = 0x6b6e\n{SSH}"),
        format!("{MOSH}{SSH}"),
    ]
}

/// The line of a start or a reload after which both openings live on.
pub(crate) const KEPT: &str = "2 openings live on";

/// The test of both modes.
fn reloads_and_restarts(words: &str) {
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start(words);
    open_both(&lab, &mut daemon);
    connect_throughout(&lab, move || {
        let variants = variants();
        for text in variants.iter().skip(1).cycle().take(rounds(200)) {
            let before = daemon.count(KEPT);
            site.configure(text);
            site.reload(&daemon);
            wait_until("the reload", || daemon.count(KEPT) > before);
        }
        for (i, text) in variants.iter().cycle().take(rounds(20)).enumerate() {
            let signal = [Signal::SIGTERM, Signal::SIGKILL][i % 2];
            daemon.signal(signal);
            daemon.wait();
            // The configuration may have changed while nobody looked.
            site.configure(text);
            daemon = site.start(words);
            assert_eq!(daemon.count(KEPT), 1, "{}", daemon.lines().join("\n"));
        }
        let (status, _) = daemon.terminate();
        assert!(status.success(), "{status}");
    });
}

#[test]
fn no_packet_sees_a_reload_or_a_restart() {
    needs!(Laboratory);
    reloads_and_restarts("");
}

#[test]
fn no_packet_sees_a_reload_or_a_restart_of_the_watch() {
    needs!(Laboratory);
    reloads_and_restarts("--watch");
}

#[test]
fn no_packet_sees_a_crash_amid_a_start_a_reload_or_a_stop() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut random = Random::new();
    let mut daemon = site.start("");
    open_both(&lab, &mut daemon);
    connect_throughout(&lab, || {
        let mut interim = 0;
        // Each twice: what is there may be the very table that is wanted, or another.
        let twice = variants().into_iter().flat_map(|text| [text.clone(), text]);
        for text in twice.cycle().take(rounds(60)) {
            let mode = |random: &mut Random| ["", "--watch"][random.below(2) as usize];
            site.configure(&text);
            match random.below(3) {
                0 => daemon.signal(Signal::SIGHUP),
                1 => daemon.signal(Signal::SIGTERM),
                _ => {
                    daemon.kill();
                    daemon = Process::start(&mut site.command(mode(&mut random)));
                }
            }
            // Each takes some 40 ms, most of which the kernel is waited for.
            thread::sleep(Duration::from_micros(random.below(60_000)));
            daemon.kill();
            interim += lab
                .server
                .run("nft list tables")
                .matches("_interim")
                .count();
            daemon = site.start(mode(&mut random));
            assert_eq!(daemon.count(KEPT), 1, "{}", daemon.lines().join("\n"));
            let tables = lab.server.run("nft list tables");
            // And the gauge.
            assert_eq!(tables.lines().count(), 2, "{tables}");
        }
        println!("{interim} were killed with a table beside theirs");
    });
}

/// As a layout before the first might have been: one chain on another hook, sets without a
/// size.
pub(crate) fn older(left: &str) -> String {
    let rule = |ip: &str, set: &str| {
        format!("tcp dport 22 {ip} saddr . meta l4proto . th dport @{set} accept")
    };
    let [four, six] = CLIENT;
    format!(
        "table inet knockd {{
            comment \"knockd layout 0\"
            set openings_v4 {{
                type ipv4_addr . inet_proto . inet_service
                flags timeout
                elements = {{ {four} . tcp . 22 timeout 1h expires {left} comment \"ssh\" }}
            }}
            set openings_v6 {{
                type ipv6_addr . inet_proto . inet_service
                flags timeout
                elements = {{ {six} . tcp . 22 timeout 1h expires {left} comment \"ssh\" }}
            }}
            chain input {{
                type filter hook input priority 0; policy accept;
                {}
                {}
                tcp dport 22 tcp flags & (fin | syn | rst | ack) == syn drop
            }}
        }}",
        rule("ip", "openings_v4"),
        rule("ip6", "openings_v6"),
    )
}

#[test]
fn no_packet_sees_an_upgrade() {
    needs!(Laboratory);
    for words in ["", "--watch"] {
        let lab = Lab::new();
        let site = Site::new(&lab, SSH);
        let loaded = Instant::now();
        lab.server.nft(&older("20m"));
        connect_throughout(&lab, || {
            let daemon = site.start(words);
            let said = daemon.lines().join("\n");
            assert!(said.contains("the table is built anew"), "{said}");
            assert!(said.contains("2 openings live on"), "{said}");
            let all = lab.server.run("nft list ruleset");
            assert!(!all.contains("layout 0"), "{all}");
            assert!(!all.contains("chain input"), "{all}");
            for opening in site.openings() {
                let left = opening["left_ms"].as_u64().map(Duration::from_millis);
                let left = left.expect("an end");
                // The time that was left, not the door's own hour.
                let most = Duration::from_secs(20 * 60);
                let gone = loaded.elapsed() + Duration::from_secs(1);
                assert!(left <= most && left + gone >= most, "{opening}");
            }
            daemon.terminate();
        });
    }
}
