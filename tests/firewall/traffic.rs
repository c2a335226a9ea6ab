//! Which packets the guard lets through between two hosts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use knockd::firewall::Mode;
use knockd::model::{Lifetime, OnStop};

use crate::agent::{Agent, close_all, hours, list, open, reload, seconds, start, stop};
use crate::support::net::is_alive;
use crate::support::{
    CLIENT, Lab, Namespace, OTHER, Over, Reach, SERVER, SILENCE, SOON, ip, wait_for, wait_until,
};

const TOML: &str = r#"
[firewall]

[door.ssh]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp", "53/udp", "8000-8100/tcp", "60000-61000/udp"]
open_for = "30s"
"#;

/// A server with a guard, and what listens there.
fn guarded(toml: &str) -> (Lab, Agent) {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", toml);
    let agent = Agent::start(&lab.server, &path);
    (lab, agent)
}

/// An attempt of which nothing should be heard.
fn attempt(lab: &Lab, from: &str, to: &str, port: u16) -> Reach {
    lab.client.connect(ip(from), (ip(to), port), SILENCE)
}

/// An attempt that should be answered.
fn connect(lab: &Lab, from: &str, to: &str, port: u16) -> Reach {
    lab.client.connect(ip(from), (ip(to), port), SOON)
}

/// The number of a host's eth0. (/sys would show that of the machine.)
fn index(host: &Namespace) -> u32 {
    let line = host.run("ip -o link show dev eth0");
    let (number, _) = line.split_once(':').expect("number: name");
    number.parse().expect("a number")
}

/// Whether a datagram from `from` reaches a socket.
fn reaches(
    lab: &Lab,
    from: &str,
    to: SocketAddr,
    at: &std::net::UdpSocket,
    patience: Duration,
) -> bool {
    at.set_read_timeout(Some(patience)).expect("a socket");
    let sender = lab.client.udp(ip(from), 0);
    sender.set_broadcast(true).expect("a socket");
    sender.send_to(b"hello", to).expect("a way");
    at.recv(&mut [0; 16]).is_ok()
}

#[test]
fn a_port_is_closed_then_open_then_closed_again() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(TOML);
    let _echo = [
        lab.server.echo(22),
        lab.server.echo(8050),
        lab.server.echo(80),
    ];
    for family in 0..2 {
        let (from, other, to) = (CLIENT[family], OTHER[family], SERVER[family]);
        attempt(&lab, from, to, 22).expect_silence();
        attempt(&lab, from, to, 8050).expect_silence();
        assert!(
            is_alive(&connect(&lab, from, to, 80).expect_connected()),
            "not guarded"
        );

        agent.order(open("ssh", from, "22/tcp,8000-8100/tcp", seconds(5)));
        let session = connect(&lab, from, to, 22).expect_connected();
        assert!(is_alive(&session));
        assert!(is_alive(&connect(&lab, from, to, 8050).expect_connected()));
        attempt(&lab, other, to, 22).expect_silence();
        attempt(&lab, other, to, 8050).expect_silence();

        wait_for("both to run out", || {
            agent.order(list("knockd")).is_empty().then_some(())
        });
        attempt(&lab, from, to, 22).expect_silence();
        attempt(&lab, from, to, 8050).expect_silence();
        assert!(is_alive(&session), "what stands lives on");

        agent.order(open("ssh", from, "22/tcp", Lifetime::UntilClosed));
        connect(&lab, from, to, 22).expect_connected();
        agent.order(close_all(from));
        attempt(&lab, from, to, 22).expect_silence();
        assert!(is_alive(&session));
    }
}

#[test]
fn a_session_older_than_the_table_lives_through_its_installation() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let sessions: Vec<_> = CLIENT
        .iter()
        .zip(SERVER)
        .map(|(from, to)| connect(&lab, from, to, 22).expect_connected())
        .collect();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    assert!(sessions.iter().all(is_alive));
    attempt(&lab, CLIENT[0], SERVER[0], 22).expect_silence();
    agent.order(stop(OnStop::Keep));
    assert!(sessions.iter().all(is_alive));
    agent.kill();
    attempt(&lab, CLIENT[0], SERVER[0], 22).expect_silence();
}

#[test]
fn after_a_crash_the_guard_stands_and_openings_run_out() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(TOML);
    let _echo = lab.server.echo(22);
    agent.order(open("ssh", CLIENT[0], "22/tcp", seconds(3)));
    agent.kill();
    connect(&lab, CLIENT[0], SERVER[0], 22).expect_connected();
    attempt(&lab, OTHER[0], SERVER[0], 22).expect_silence();
    wait_until("it to run out", || {
        matches!(attempt(&lab, CLIENT[0], SERVER[0], 22), Reach::TimedOut)
    });
}

#[test]
fn a_udp_port_is_closed_then_open_and_its_conversations_live_on() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(TOML);
    for family in 0..2 {
        let (from, to) = (CLIENT[family], ip(SERVER[family]));
        for port in [53, 60500] {
            let service = lab.server.udp(to, port);
            let at = SocketAddr::from((to, port));
            assert!(!reaches(&lab, from, at, &service, SILENCE), "{at}");
            agent.order(open("ssh", from, "53/udp,60000-61000/udp", hours(1)));
            assert!(reaches(&lab, from, at, &service, SOON), "{at}");
            assert!(!reaches(&lab, OTHER[family], at, &service, SILENCE), "{at}");
            // A conversation outlives its opening: it is in conntrack.
            let talker = lab.client.udp(ip(from), 4000);
            talker.connect(at).expect("a way");
            talker.send(b"1").expect("a way");
            service.set_read_timeout(Some(SOON)).expect("a socket");
            let (_, back) = service.recv_from(&mut [0; 9]).expect("open");
            service.send_to(b"2", back).expect("a way");
            talker.recv(&mut [0; 9]).expect("an answer");
            agent.order(close_all(from));
            talker.send(b"3").expect("a way");
            service.recv(&mut [0; 9]).expect("still in conntrack");
            assert!(
                !reaches(&lab, from, at, &service, SILENCE),
                "{at}: a new one"
            );
        }
        // The server's own question from a guarded port is answered.
        let asker = lab.server.udp(to, 60001);
        let answerer = lab.client.udp(ip(from), 5353);
        let at = answerer.local_addr().expect("a socket");
        asker.send_to(b"?", at).expect("a way");
        let (_, back) = answerer.recv_from(&mut [0; 9]).expect("a question");
        answerer.send_to(b"!", back).expect("a way");
        asker.recv(&mut [0; 9]).expect("an answer");
    }
}

#[test]
fn broadcast_and_multicast_to_a_guarded_port_are_dropped() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(TOML);
    let everywhere = ip("0.0.0.0");
    let service = lab.server.udp(everywhere, 53);
    service
        .join_multicast_v4(
            &"239.1.2.3".parse().expect("a group"),
            &SERVER[0].parse().expect("an address"),
        )
        .expect("a group");
    lab.client
        .ip("route add 239.0.0.0/8 dev eth0\nroute add 255.255.255.255 dev eth0");
    let six = lab.server.udp(ip("::"), 60001);
    let group = "ff02::1:5".parse().expect("a group");
    six.join_multicast_v6(&group, index(&lab.server))
        .expect("a group");
    let fours =
        ["192.0.2.255", "255.255.255.255", "239.1.2.3"].map(|to| SocketAddr::from((ip(to), 53)));
    let to6 = format!("[ff02::1:5%{}]:60001", index(&lab.client));
    let to6: SocketAddr = to6.parse().expect("an address");
    for at in fours {
        assert!(!reaches(&lab, CLIENT[0], at, &service, SILENCE), "{at}");
    }
    assert!(!reaches(&lab, CLIENT[1], to6, &six, SILENCE), "{to6}");
    // And they would have come, but for the guard.
    agent.order(open("ssh", CLIENT[0], "53/udp", hours(1)));
    agent.order(open("ssh", CLIENT[1], "60000-61000/udp", hours(1)));
    for at in fours {
        assert!(reaches(&lab, CLIENT[0], at, &service, SOON), "{at}");
    }
    assert!(reaches(&lab, CLIENT[1], to6, &six, SOON), "{to6}");
}

#[test]
fn link_local_addresses_are_guarded_and_opened() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(TOML);
    let _echo = lab.server.echo(22);
    let link_local = |host: &Namespace| {
        let text = wait_for("a link-local address", || {
            let text = host.run("ip -6 -o address show dev eth0 scope link -tentative");
            text.contains("fe80").then_some(text)
        });
        let word = text.split_whitespace().find(|w| w.starts_with("fe80"));
        let (address, _) = word.and_then(|w| w.split_once('/')).expect("an address");
        address.to_owned()
    };
    let (from, to) = (link_local(&lab.client), link_local(&lab.server));
    let scope = index(&lab.client);
    let connects = |patience| {
        let socket = lab
            .client
            .socket(socket2::Domain::IPV6, socket2::Type::STREAM, 0);
        let IpAddr::V6(to) = ip(&to) else {
            unreachable!("fe80 is IPv6")
        };
        let at = std::net::SocketAddrV6::new(to, 22, 0, scope);
        socket.connect_timeout(&at.into(), patience).is_ok()
    };
    assert!(!connects(SILENCE));
    agent.order(open("ssh", &from, "22/tcp", hours(1)));
    assert!(connects(SOON));
}

#[test]
fn a_port_published_by_dnat_is_guarded() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(TOML);
    // As Docker does: a container behind the server, its port 80 published as 22.
    let container = lab.host("container");
    lab.server.join("docker0", &container, "eth0", &[]);
    lab.server.add_address("docker0", "172.17.0.1");
    container.add_address("eth0", "172.17.0.2");
    container.ip("route add default via 172.17.0.1");
    lab.server.run("sysctl -qw net.ipv4.ip_forward=1");
    lab.server.nft(
        "table ip nat {\n chain prerouting {\n type nat hook prerouting priority dstnat\n \
         fib daddr type local tcp dport 22 dnat to 172.17.0.2:80\n }\n }",
    );
    let _echo = container.echo(80);
    attempt(&lab, CLIENT[0], SERVER[0], 22).expect_silence();
    agent.order(open("ssh", CLIENT[0], "22/tcp", hours(1)));
    assert!(is_alive(
        &connect(&lab, CLIENT[0], SERVER[0], 22).expect_connected()
    ));
    attempt(&lab, OTHER[0], SERVER[0], 22).expect_silence();
}

#[test]
fn what_is_forwarded_passes() {
    needs!(Laboratory);
    let (lab, _agent) = guarded(TOML);
    let beyond = lab.host("beyond");
    lab.server.join("lan", &beyond, "eth0", &[]);
    lab.server
        .run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    for (near, far) in [
        ("198.51.100.1", "198.51.100.2"),
        ("2001:db8:1::1", "2001:db8:1::2"),
    ] {
        lab.server.add_address("lan", near);
        beyond.add_address("eth0", far);
    }
    beyond.ip("route add default via 198.51.100.1\nroute add default via 2001:db8:1::1");
    lab.client
        .ip("route add 198.51.100.0/24 via 192.0.2.1\nroute add 2001:db8:1::/64 via 2001:db8::1");
    let _echo = beyond.echo(22);
    for (from, to) in [(CLIENT[0], "198.51.100.2"), (CLIENT[1], "2001:db8:1::2")] {
        // Routers need their link-local addresses, which are usable only after a while.
        let session = wait_for("a way through", || match attempt(&lab, from, to, 22) {
            Reach::Connected(session) => Some(session),
            Reach::Refused | Reach::TimedOut => None,
        });
        assert!(is_alive(&session));
    }
    // But this host's address on the far side is its own.
    attempt(&lab, CLIENT[0], "198.51.100.1", 22).expect_silence();
    attempt(&lab, CLIENT[1], "2001:db8:1::1", 22).expect_silence();
}

#[test]
fn a_guard_may_reject_let_the_trusted_in_and_mark_what_it_opened() {
    needs!(Laboratory);
    let toml = TOML.replace(
        "[firewall]",
        "[firewall]\nguard = \"reject\"\nmark = 0x6b6e\ntrusted = [\"192.0.2.78\", \"2001:db8::78\"]",
    );
    let (lab, mut agent) = guarded(&toml);
    let _echo = [lab.server.echo(22), lab.server.echo(80)];
    // A firewall beside ours that drops what is not marked.
    lab.server.nft(
        "table inet filter {\n chain input {\n type filter hook input priority filter; policy drop;\n \
         meta l4proto { icmp, ipv6-icmp } accept\n ct state established accept\n \
         meta mark 0x6b6e accept\n }\n }",
    );
    for family in 0..2 {
        let (from, other, to) = (CLIENT[family], OTHER[family], SERVER[family]);
        connect(&lab, from, to, 22).expect_refused();
        attempt(&lab, from, to, 80).expect_silence();
        assert!(
            is_alive(&connect(&lab, other, to, 22).expect_connected()),
            "trusted"
        );
        agent.order(open("ssh", from, "22/tcp", hours(1)));
        assert!(
            is_alive(&connect(&lab, from, to, 22).expect_connected()),
            "marked"
        );
        let asker = lab.client.udp(ip(from), 0);
        asker.connect((ip(to), 53)).expect("a way");
        asker.send(b"?").expect("a way");
        let refused = asker.recv(&mut [0; 9]).expect_err("port unreachable");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn without_a_guard_nothing_is_refused() {
    needs!(Laboratory);
    let (lab, mut agent) = guarded(&TOML.replace("[firewall]", "[firewall]\nguard = \"off\""));
    let _echo = lab.server.echo(22);
    connect(&lab, CLIENT[0], SERVER[0], 22).expect_connected();
    agent.order(open("ssh", CLIENT[0], "22/tcp", hours(1)));
    connect(&lab, CLIENT[0], SERVER[0], 22).expect_connected();
    let counted = lab.server.run("nft list chain inet knockd judge");
    assert!(
        counted.contains("@openings_v4 counter packets 1 "),
        "{counted}"
    );
}

/// A client that connects without pause, from an opened and from a closed source, while the
/// table is reloaded, stopped and started: not one refused, not one let in.
#[test]
fn no_packet_sees_a_gap_while_the_table_is_replaced() {
    needs!(Laboratory);
    // One source is trusted throughout: its set is of another kind.
    let toml = TOML.replace("[firewall]", "[firewall]\ntrusted = [\"192.0.2.79\"]");
    let (lab, mut agent) = guarded(&toml);
    lab.client.add_address("eth0", "192.0.2.79");
    let path = lab.directory().join("knockd.toml");
    let other = toml
        .replace(
            "trusted = [",
            "guard = \"reject\"\ntrusted = [\"10.0.0.0/8\", ",
        )
        .replace("8000-8100", "8000-8200");
    let other = lab.write("other.toml", &other);
    let renamed = toml.replace("[firewall]", "[firewall]\ntable = \"doors\"");
    let renamed = lab.write("renamed.toml", &renamed);
    for i in 0..1000 {
        let source = std::net::Ipv4Addr::from(0x0a01_0000 + i).to_string();
        agent.order(open("ssh", &source, "22/tcp", hours(1)));
    }
    agent.order(open("ssh", CLIENT[0], "53/udp", hours(1)));
    let service = lab.server.udp(ip(SERVER[0]), 53);
    let at = SocketAddr::from((ip(SERVER[0]), 53));
    let done = std::sync::atomic::AtomicBool::new(false);
    let running = || !done.load(std::sync::atomic::Ordering::Relaxed);
    // A fresh source port each, so that none of them is in conntrack as established.
    let senders = [CLIENT[0], "192.0.2.79", OTHER[0]].map(|from| lab.client.udp(ip(from), 0));
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0_u32;
            while running() {
                for (socket, text) in senders.iter().zip([b"y", b"y", b"n"]) {
                    let _ = socket.send_to(text, at);
                }
                sent += 2;
                // As many as are read at once, so that none is lost on the way.
                if sent.is_multiple_of(50) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            sent
        });
        let reader = scope.spawn(|| {
            let mut seen = (0_u32, 0_u32);
            let mut byte = [0];
            service.set_read_timeout(Some(SILENCE)).expect("a socket");
            loop {
                match service.recv(&mut byte) {
                    Ok(_) if &byte == b"y" => seen.0 += 1,
                    Ok(_) => seen.1 += 1,
                    // The sender may be kept waiting.
                    Err(_) if running() => {}
                    Err(_) => break,
                }
            }
            seen
        });
        let over = Over(|| done.store(true, std::sync::atomic::Ordering::Relaxed));
        for i in 0..200 {
            let next = [&other, &path, &renamed, &path][i % 4];
            agent.order(reload(next));
        }
        for i in 0..20 {
            if i % 2 == 0 {
                agent.order(stop(OnStop::Keep));
            }
            drop(std::mem::replace(&mut agent, Agent::new(&lab.server)));
            agent.order(start(Mode::Auto, &path));
        }
        drop(over);
        let sent = sender.join().expect("a sender");
        let (let_in, wrongly) = reader.join().expect("a reader");
        assert_eq!(wrongly, 0, "let in of {sent} that must not");
        (sent, let_in)
    });
    println!("sent and received: {sent:?}");
    // Datagrams that the guard let in and the socket had no room for.
    let counters = lab.server.run("grep Udp: /proc/net/snmp");
    let counters = counters.lines().nth(1).expect("two lines");
    let overflown: u32 = counters
        .split(' ')
        .nth(5)
        .and_then(|n| n.parse().ok())
        .expect("RcvbufErrors");
    assert_eq!(sent.0, sent.1 + overflown, "refused that must not");
    assert!(sent.0 > 10_000, "{sent:?}");
}
