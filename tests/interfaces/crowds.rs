//! Much at once: interfaces by the hundred, packets by the thousand.

use std::thread;

use nix::sys::signal::Signal;

use crate::listening::ListeningDaemon;
use crate::support::frame::{send_datagram, source};
use crate::support::{Lab, SERVER};

/// Makes a hundred interfaces with an address each, and takes them away again.
fn hundred() -> String {
    let mut batch = String::new();
    for i in 0..100 {
        batch += &format!("link add x{i} type veth peer name y{i}\n");
        batch += &format!("link set x{i} up\nlink set y{i} up\n");
        batch += &format!("address add 198.51.100.{i}/32 dev x{i}\n");
    }
    for i in 0..100 {
        batch += &format!("link del x{i}\n");
    }
    batch
}

#[test]
fn a_hundred_interfaces_come_and_go_while_knocks_are_heard() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\", \"x*\"]");
    let mut rounds = 0;
    thread::scope(|scope| {
        let storm = scope.spawn(|| lab.server.ip(&hundred()));
        while !storm.is_finished() {
            daemon.opens_at(SERVER[rounds % 2]);
            rounds += 1;
        }
    });
    assert!(rounds > 0);
    daemon.said("is gone", 100);
    assert_eq!(daemon.status()["listening"].to_string(), "[\"eth0\"]");
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    daemon.close();
}

/// More news than the socket holds (ENOBUFS), and the one piece among it that matters.
#[test]
fn what_happened_while_the_daemon_stood_still_is_found_out() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    daemon.process.signal(Signal::SIGSTOP);
    lab.server.ip("link del eth0");
    lab.server.ip(&hundred());
    lab.lay_wire();
    lab.server
        .ip("address del 192.0.2.1/24 dev eth0\naddress add 192.0.2.9/24 dev eth0");
    daemon.process.signal(Signal::SIGCONT);
    // Packets to the new address do not pass the filter before the daemon knows it; and what it has
    // read it has acted on when it answers.
    daemon.said("interface eth0 has the address 192.0.2.9", 1);
    daemon.status();
    for server in ["192.0.2.9", SERVER[1]] {
        daemon.opens_at(server);
    }
    daemon.close();
}

#[test]
fn packets_lost_are_counted_and_told() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "");
    daemon.opens_at(SERVER[0]);
    assert_eq!(daemon.status()["packets"]["lost"], 0);
    let wire = lab.client.frames("eth0");
    let flood = |count| (0..count).for_each(|n| send_datagram(&wire, source(n), 8102));
    daemon.process.signal(Signal::SIGSTOP);
    flood(20_000);
    daemon.process.signal(Signal::SIGCONT);
    daemon.said(" packets lost: more came than could be read", 1);
    let lost = daemon.status()["packets"]["lost"].as_u64();
    let lines = daemon.process.lines();
    let told: u64 = lines
        .iter()
        .filter_map(|line| line.strip_suffix(" packets lost: more came than could be read"))
        .filter_map(|line| line.strip_prefix("knockd: ")?.parse::<u64>().ok())
        .sum();
    assert!(told > 5_000, "{told}");
    assert_eq!(lost, Some(told));
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    daemon.close();
}
