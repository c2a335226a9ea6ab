//! What the other tests take for granted of the laboratory.

use crate::support::net::is_alive;
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ip};

#[test]
fn a_connection_is_made_refused_or_met_by_silence() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    for (from, to) in CLIENT.into_iter().chain(OTHER).zip(SERVER.iter().cycle()) {
        let (from, to) = (ip(from), ip(to));
        let stream = lab.client.connect(from, (to, 22), SOON).expect_connected();
        assert_eq!(stream.local_addr().map(|a| a.ip()).ok(), Some(from));
        assert!(is_alive(&stream));
        lab.client.connect(from, (to, 23), SOON).expect_refused();
    }
    lab.server
        .nft("table inet t { chain c { type filter hook input priority 0; tcp dport 22 drop; }; }");
    lab.client
        .connect(ip(CLIENT[0]), (ip(SERVER[0]), 22), SILENCE)
        .expect_silence();
}

#[test]
fn a_recorded_packet_arrives_as_it_was() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures/clients/knock-mixed.pcap");
    let frames = crate::support::capture::read(&file);
    let seen = lab.capture(&lab.server, "eth0", "dst host 192.0.2.1");
    lab.client.replay("eth0", &file);
    assert!(!frames.is_empty());
    assert_eq!(seen.wait_for(frames.len()), frames);
}

#[test]
fn a_third_host_is_reached_through_the_server() {
    needs!(Laboratory);
    let lab = Lab::new();
    let inner = lab.host("inner");
    lab.server.join("eth1", &inner, "eth0", &[]);
    lab.server.add_address("eth1", "198.51.100.1");
    inner.add_address("eth0", "198.51.100.7");
    inner.ip("route add default via 198.51.100.1");
    lab.client.ip("route add 198.51.100.0/24 via 192.0.2.1");
    lab.server.run("sysctl -q -w net.ipv4.ip_forward=1");
    let _echo = inner.echo(80);
    let to = (ip("198.51.100.7"), 80);
    let stream = lab
        .client
        .connect(ip(CLIENT[0]), to, SOON)
        .expect_connected();
    assert!(is_alive(&stream));
}

#[test]
fn a_process_is_heard_and_ended() {
    needs!(Laboratory);
    let lab = Lab::new();
    let mut command = lab.server.command("sh");
    command.args(["-c", "echo $$; echo said >&2; exec sleep 1000"]);
    let mut process = crate::support::Process::start(&mut command);
    process.wait_for_line("said");
    let id = process.id();
    assert!(process.lines().contains(&id.to_string()));
    let (status, _) = process.terminate();
    assert!(!status.success());
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}
