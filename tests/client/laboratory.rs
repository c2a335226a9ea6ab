//! What the other tests take for granted of the laboratory.

use crate::support::events::{
    Meant, closed, complete, doors, extended, opened, reset, sources, stage, timeout,
};
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

#[test]
fn a_line_of_the_log_is_read_as_an_event() {
    let lines = [
        "[2026-12-01 12:00] 192.0.2.77: ssh: Stage 2",
        "192.0.2.77: ssh: sequence reset (stage 2): wrong port",
        "192.0.2.77: ssh: sequence timeout (stage 1)",
        "2001:db8::77 (host.example): ssh: OPEN SESAME",
        "2001:db8::77: ssh: opened 22/tcp for 1h 30m",
        "192.0.2.77: web: opened inet filter knocked until closed",
        "192.0.2.77: web: extended 60000-61000/udp for 30s",
        "192.0.2.77: web: closed 22/tcp",
        "192.0.2.77: web: not opened: openings_v4 is full",
        "starting up, listening on eth0",
    ]
    .map(str::to_owned);
    let events: [(Meant, &str, &str); 8] = [
        (stage(2), "ssh", "192.0.2.77"),
        (reset(2), "ssh", "192.0.2.77"),
        (timeout(1), "ssh", "192.0.2.77"),
        (complete(), "ssh", "2001:db8::77"),
        (opened("22/tcp").lasting("1h 30m"), "ssh", "2001:db8::77"),
        (opened("inet filter knocked"), "web", "192.0.2.77"),
        (extended("60000-61000/udp"), "web", "192.0.2.77"),
        (closed("22/tcp"), "web", "192.0.2.77"),
    ];
    for (meant, door, source) in events {
        assert_eq!(doors(&lines, &meant), [door], "{meant:?}");
        assert_eq!(sources(&lines, &meant), [source], "{meant:?}");
        let no_door = meant.clone().at("mosh");
        assert_eq!(doors(&lines, &no_door), [] as [&str; 0]);
        assert_eq!(doors(&lines, &meant.from("192.0.2.1")), [] as [&str; 0]);
    }
    assert_eq!(
        doors(&lines, &opened("22/tcp").lasting("1h")),
        [] as [&str; 0]
    );
}
