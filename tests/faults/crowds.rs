//! A thousand flaps of an interface, ten thousand addresses.

use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, SERVER, wait_until};
use crate::work::{close_all, expect_at_work, expect_shut, processor_time};

#[test]
fn a_thousand_flaps_of_an_interface_wear_nothing_out() {
    needs!(Laboratory);
    const FLAPS: usize = 1_000;
    for words in ["", "--watch"] {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        let site = Site::new(&lab, SSH);
        let mut daemon = site.start(words);
        expect_at_work(&lab, &site);
        close_all(&site);
        let folder = format!("/proc/{}/fd", daemon.id());
        let files = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
        // A second wire, which others listen to as well.
        let far = lab.host("far");
        lab.server.join("wan0", &far, "eth0", &[]);
        lab.server.add_address("wan0", "203.0.113.1");
        daemon.wait_for_line("interface wan0 has the address 203.0.113.1");
        let states = || ["up", "down"].map(|s| daemon.count(&format!("interface wan0 is {s}")));
        let [ups, downs] = states();
        let before = (files(), daemon.own_memory());
        let worked = processor_time(daemon.id());
        let flap = "link set wan0 down\nlink set wan0 up\n";
        for turn in 1..=10 {
            lab.server.ip(&flap.repeat(FLAPS / 10));
            knock(&lab, SERVER[turn % 2], OPEN_SSH);
            let from = CLIENT[turn % 2];
            wait_until("the opening", || {
                let openings = site.openings();
                openings.iter().any(|opening| opening["source"] == from)
            });
            close_all(&site);
        }
        expect_shut(&lab);
        // What became of the last flap is known; of the others only what found room was heard.
        wait_until("the last flap", || {
            let [ups_now, downs_now] = states();
            ups_now > ups && ups_now - ups == downs_now - downs
        });
        let worked = (processor_time(daemon.id()) - worked) / u32::try_from(FLAPS).expect("few");
        assert!(worked < Duration::from_millis(5), "{worked:?} a flap");
        let after = (files(), daemon.own_memory());
        assert!(after.0 <= before.0, "{before:?} {after:?}");
        assert!(after.1 <= before.1 + 1024, "{before:?} {after:?}");
        // The interface itself that is knocked at.
        lab.server
            .ip(&"link set eth0 down\nlink set eth0 up\n".repeat(20));
        lab.server.wait_for_carrier("eth0");
        // The kernel has taken the IPv6 address away with each.
        knock(&lab, SERVER[0], OPEN_SSH);
        daemon.wait_for_event(&opened("22/tcp").at("ssh").from(CLIENT[0]));
        close_all(&site);
        expect_at_work(&lab, &site);
        let (status, _) = daemon.terminate();
        assert!(status.success(), "{status}");
    }
}

/// Added while the daemon stands still, so that its socket runs over; and one more, at which somebody
/// knocks.
#[test]
fn ten_thousand_addresses_are_known_though_their_news_were_lost() {
    needs!(Laboratory);
    const ADDRESSES: u32 = 10_000;
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    expect_at_work(&lab, &site);
    close_all(&site);
    let memory = daemon.own_memory();
    let address = |n: u32| Ipv4Addr::from(0x0b00_0000 + n);
    let lines = |verb: &str| {
        let line = |n| format!("address {verb} {}/32 dev eth0\n", address(n));
        (0..ADDRESSES).map(line).collect::<String>()
    };
    lab.client
        .ip("route add 11.0.0.0/8 dev eth0 src 192.0.2.77");
    let reached = |n: u32| {
        knock(&lab, &address(n).to_string(), OPEN_SSH);
        wait_until("the opening", || site.openings().len() == 1);
        close_all(&site);
    };
    let worked = processor_time(daemon.id());
    daemon.signal(Signal::SIGSTOP);
    lab.server.ip(&lines("add"));
    daemon.signal(Signal::SIGCONT);
    let last = format!("has the address {}", address(ADDRESSES - 1));
    wait_until("the last address", || daemon.count(&last) == 1);
    // The filter is set after that; what the daemon has read it has acted on when it answers.
    site.status();
    for n in [0, 1, 777, ADDRESSES / 2, ADDRESSES - 1] {
        reached(n);
    }
    expect_at_work(&lab, &site);
    close_all(&site);
    daemon.signal(Signal::SIGSTOP);
    // The primary address of the network stays, and so do all that are not said to go.
    lab.server.ip(&lines("del"));
    daemon.signal(Signal::SIGCONT);
    let last = format!("has lost the address {}", address(ADDRESSES - 1));
    wait_until("the last address", || daemon.count(&last) == 1);
    site.status();
    expect_at_work(&lab, &site);
    close_all(&site);
    // Nobody is this host any more at that address.
    knock(&lab, &address(777).to_string(), OPEN_SSH);
    knock(&lab, SERVER[1], OPEN_SSH);
    wait_until("the opening", || !site.openings().is_empty());
    let openings = site.openings();
    assert!(
        openings
            .iter()
            .all(|opening| opening["source"] == CLIENT[1]),
        "{openings:?}"
    );
    close_all(&site);
    let worked = (processor_time(daemon.id()) - worked) / (2 * ADDRESSES);
    assert!(worked < Duration::from_millis(1), "{worked:?} an address");
    let after = daemon.own_memory();
    println!("own memory: {memory} KiB before, {after} KiB after");
    let status = site.status();
    assert_eq!(status["listening"].to_string(), "[\"eth0\"]");
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}
