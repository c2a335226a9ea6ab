//! The guard stands whatever happens to the daemon and whatever is sent to it.

use std::net::Ipv4Addr;

use crate::site::{KNOCK, OPEN_SSH, SSH, Site, knock};
use crate::support::events::{closed, complete, opened};
use crate::support::net::is_alive;
use crate::support::{CLIENT, Lab, OTHER, Process, SERVER, SILENCE, SOON, ip, wait_until};

#[test]
fn after_kill_9_the_guard_stands_and_openings_run_out() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &SSH.replace("1h", "5s"));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").lasting("5s"));
    daemon.kill();
    let to = (ip(SERVER[0]), 22);
    let stream = lab
        .client
        .connect(ip(CLIENT[0]), to, SOON)
        .expect_connected();
    lab.client
        .connect(ip(OTHER[0]), to, SILENCE)
        .expect_silence();
    // Nobody is there but the kernel; this asks it.
    wait_until("the end of the opening", || site.openings().is_empty());
    lab.client
        .connect(ip(CLIENT[0]), to, SILENCE)
        .expect_silence();
    assert!(is_alive(&stream));
}

#[test]
fn a_restart_after_kill_9_keeps_openings_and_their_times() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &SSH.replace("1h", "5s"));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").lasting("5s"));
    daemon.kill();
    let mut daemon = site.start("");
    daemon.wait_for_line("the table is taken over and owned; 1 openings live on");
    daemon.wait_for_event(&closed("22/tcp").at("ssh").from("192.0.2.77"));
    assert!(site.openings().is_empty());
}

#[test]
fn nobody_else_flushes_the_table() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    lab.server.run("nft flush ruleset");
    let to = (ip(SERVER[0]), 22);
    lab.client
        .connect(ip(OTHER[0]), to, SILENCE)
        .expect_silence();
    let stream = lab
        .client
        .connect(ip(CLIENT[0]), to, SOON)
        .expect_connected();
    assert!(is_alive(&stream));
    assert!(
        !lab.server
            .try_run("nft delete table inet knockd")
            .status
            .success()
    );
}

#[test]
fn a_session_older_than_the_table_lives_on() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let to = |server| (ip(server), 22);
    let connect = |own, server, patience| lab.client.connect(ip(own), to(server), patience);
    let streams: Vec<_> = CLIENT
        .into_iter()
        .zip(SERVER)
        .map(|(own, server)| connect(own, server, SOON).expect_connected())
        .collect();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        connect(own, server, SILENCE).expect_silence();
    }
    assert!(streams.iter().all(is_alive));
}

/// The server as a router before a third host, 198.51.100.7.
fn router(lab: &Lab) -> crate::support::Namespace {
    let inner = lab.host("inner");
    lab.server.join("eth1", &inner, "eth0", &[]);
    lab.server.add_address("eth1", "198.51.100.1");
    inner.add_address("eth0", "198.51.100.7");
    inner.ip("route add default via 198.51.100.1");
    lab.client.ip("route add 198.51.100.0/24 via 192.0.2.1");
    lab.server.run("sysctl -q -w net.ipv4.ip_forward=1");
    inner
}

#[test]
fn a_published_port_is_guarded() {
    needs!(Laboratory);
    let lab = Lab::new();
    let inner = router(&lab);
    let _echo = inner.echo(80);
    // As Docker does it.
    lab.server.nft(
        "table ip nat { chain pre { type nat hook prerouting priority dstnat; \
         fib daddr type local tcp dport 8080 dnat to 198.51.100.7:80; }; }",
    );
    let to = (ip(SERVER[0]), 8080);
    let connect = |own, patience| lab.client.connect(ip(own), to, patience);
    assert!(is_alive(&connect(CLIENT[0], SOON).expect_connected()));
    let site = Site::new(&lab, &SSH.replace("22/tcp", "8080/tcp"));
    let mut daemon = site.start("");
    connect(CLIENT[0], SILENCE).expect_silence();
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("8080/tcp"));
    assert!(is_alive(&connect(CLIENT[0], SOON).expect_connected()));
    connect(OTHER[0], SILENCE).expect_silence();
}

#[test]
fn forwarded_traffic_passes() {
    needs!(Laboratory);
    let lab = Lab::new();
    let inner = router(&lab);
    let _echo = inner.echo(22);
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    let connect = |to, patience| lab.client.connect(ip(CLIENT[0]), (ip(to), 22), patience);
    connect(SERVER[0], SILENCE).expect_silence();
    assert!(is_alive(&connect("198.51.100.7", SOON).expect_connected()));
}

#[test]
fn datagrams_for_many_are_guarded_as_well() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &SSH.replace("22/tcp", "5353/udp"));
    let server = lab.server.udp(ip("0.0.0.0"), 5353);
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let own = |host: &str| host.parse().expect("an address");
    server
        .join_multicast_v4(&group, &own(SERVER[0]))
        .expect("an interface");
    let client = lab.client.udp(ip(CLIENT[0]), 0);
    client.set_broadcast(true).expect("a socket");
    socket2::SockRef::from(&client)
        .set_multicast_if_v4(&own(CLIENT[0]))
        .expect("an interface");
    let hello = || {
        for to in ["192.0.2.255", "224.0.0.251"] {
            let sent = client.send_to(to.as_bytes(), (to, 5353));
            sent.expect("a way there");
        }
    };
    let receive = || {
        let mut buffer = [0; 64];
        let length = server.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let mut daemon = site.start("");
    hello();
    server.set_read_timeout(Some(SILENCE)).expect("a socket");
    assert_eq!(receive(), None);
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("5353/udp"));
    hello();
    server.set_read_timeout(Some(SOON)).expect("a socket");
    assert_eq!(receive().as_deref(), Some("192.0.2.255"));
    assert_eq!(receive().as_deref(), Some("224.0.0.251"));
}

/// Fragments after the first bear no port, and pass.
#[test]
fn long_datagrams_to_other_ports_arrive() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &SSH.replace("22/tcp", "5353/udp"));
    let _daemon = site.start("");
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        let receiver = lab.server.udp(ip(server), 5000);
        let sender = lab.client.udp(ip(own), 0);
        let long = vec![7; 20_000];
        let sent = sender.send_to(&long, (ip(server), 5000));
        assert_eq!(sent.expect("a way there"), long.len());
        let mut buffer = vec![0; 65_536];
        let length = receiver.recv(&mut buffer).expect("the datagram");
        assert_eq!(&buffer[..length], long);
    }
}

/// Five thousand forged first steps a second.
#[test]
fn a_knock_gets_through_a_flood() {
    needs!(Laboratory, Tool("hping3"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let flood = format!("-q -i u200 --rand-source -S -p 7001 {}", SERVER[0]);
    let mut command = lab.client.command("hping3");
    let _flood = Process::start(command.args(flood.split(' ')));
    daemon.wait_for_line("stages not written");
    lab.client
        .run(&format!("{KNOCK} -d 500 {} {OPEN_SSH}", SERVER[0]));
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    assert_eq!(site.openings().len(), 1);
}

/// With as many processes as pids.max or RLIMIT_NPROC allow no thread can be had, not even
/// for the log. Here it is one whose stack would be larger than the address space.
#[test]
fn without_a_thread_the_guard_stands_and_knocks_are_heard() {
    needs!(Laboratory);
    const NO_THREAD: (&str, &str) = ("RUST_MIN_STACK", "140737488355328");
    let (key, value) = NO_THREAD;
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let output = site.command("guard").env(key, value).output();
    let output = output.expect("nsenter");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("cannot start a thread for the log"), "{said}");
    assert_eq!(site.run("list"), "nothing is open\n");
    lab.server.run("nft list table inet knockd");

    let mut daemon = Process::start(site.command("-v").env(key, value));
    daemon.wait_for_line("cannot start a thread for the log");
    daemon.wait_for_line("starting up, listening on");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&complete().at("ssh").from("192.0.2.77"));
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}
