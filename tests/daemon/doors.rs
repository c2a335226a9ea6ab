//! The main job: a port is closed, opens for a source that knocks, and is closed again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::site::{KNOCK, OPEN_SSH, SHUT_SSH, SSH, Site, knock};
use crate::support::events::{closed, extended, opened, timeout};
use crate::support::net::is_alive;
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ancestor, ip, wait_until};

/// A door that is open for so long that a busy machine can connect, and no longer.
const SHORT: &str = r#"
[door.ssh]
sequence = ["7001/tcp", "8102/udp", "9203/tcp"]
open     = ["22/tcp"]
open_for = "4s"
"#;

fn opens_and_closes(client: PathBuf) {
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SHORT);
    let mut daemon = site.start("");
    let hosts = || CLIENT.into_iter().zip(OTHER).zip(SERVER);
    for ((own, _), server) in hosts() {
        let reach = lab.client.connect(ip(own), (ip(server), 22), SILENCE);
        reach.expect_silence();
    }
    let streams: Vec<_> = hosts()
        .map(|((own, other), server)| {
            let mut command = lab.client.command(&client);
            command.arg(server).args(OPEN_SSH.split(' '));
            let output = command.output().expect("the client");
            assert!(output.status.success(), "{output:?}");
            daemon.wait_for_event(&opened("22/tcp").lasting("4s").at("ssh").from(own));
            let to = (ip(server), 22);
            let stream = lab.client.connect(ip(own), to, SOON).expect_connected();
            lab.client.connect(ip(other), to, SILENCE).expect_silence();
            stream
        })
        .collect();
    for ((own, _), server) in hosts() {
        daemon.wait_for_event(&closed("22/tcp").at("ssh").from(own));
        let reach = lab.client.connect(ip(own), (ip(server), 22), SILENCE);
        reach.expect_silence();
    }
    assert!(streams.iter().all(is_alive));
    let lines = daemon.lines();
    let about = |line: &&String| line.starts_with(CLIENT[0]);
    let told: Vec<_> = lines.iter().filter(about).map(String::as_str).collect();
    assert_eq!(
        told,
        [
            "192.0.2.77: ssh: Stage 1",
            "192.0.2.77: ssh: Stage 2",
            "192.0.2.77: ssh: Stage 3",
            "192.0.2.77: ssh: OPEN SESAME",
            "192.0.2.77: ssh: opened 22/tcp for 4s",
            "192.0.2.77: ssh: closed 22/tcp",
        ]
    );
}

#[test]
fn our_client_opens_a_port_for_a_while() {
    needs!(Laboratory);
    opens_and_closes(KNOCK.into());
}

#[test]
fn the_client_of_knock_0_8_opens_a_port_for_a_while() {
    needs!(Laboratory, Knock08);
    opens_and_closes(ancestor::knock());
}

#[test]
fn a_second_knock_extends_an_opening() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    // When the opening ends, at the earliest and at the latest.
    let end = || {
        let asked = Instant::now();
        let openings = site.openings();
        let left = openings.first().and_then(|o| o["left_ms"].as_u64());
        let left = Duration::from_millis(left.expect("an opening with an end"));
        (asked + left, Instant::now() + left)
    };
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").lasting("1h"));
    let (_, first) = end();
    let before = Instant::now();
    wait_until("time to pass", || before.elapsed() > Duration::from_secs(1));
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(
        &extended("22/tcp")
            .lasting("1h")
            .at("ssh")
            .from("192.0.2.77"),
    );
    let (second, _) = end();
    assert!(second > first, "{:?} short", first - second);
    assert_eq!(site.openings().len(), 1);
}

#[test]
fn an_attempt_runs_out() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &SHORT.replace("open ", "seq_timeout = \"1s\"\nopen "));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], "7001 8102:udp");
    daemon.wait_for_event(&timeout(2).at("ssh").from("192.0.2.77"));
    knock(&lab, SERVER[0], "9203");
    // Nothing of it is left, and a new one is not hindered.
    assert!(site.openings().is_empty());
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
}

#[test]
fn a_knock_closes_what_is_open() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        let to = (ip(server), 22);
        knock(&lab, server, OPEN_SSH);
        daemon.wait_for_event(&opened("22/tcp").at("ssh").from(own));
        let stream = lab.client.connect(ip(own), to, SOON).expect_connected();
        knock(&lab, server, SHUT_SSH);
        daemon.wait_for_event(&closed("22/tcp").at("ssh").from(own));
        lab.client.connect(ip(own), to, SILENCE).expect_silence();
        assert!(is_alive(&stream));
    }
    assert!(site.openings().is_empty());
}

#[test]
fn a_range_of_udp_ports_opens() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(
        &lab,
        r#"
        [door.mosh]
        sequence = ["7001/tcp", "8102/udp", "9203/tcp"]
        open     = ["60000-61000/udp"]
        open_for = "1h"
        "#,
    );
    let mut daemon = site.start("");
    let server = lab.server.udp(ip(SERVER[0]), 60001);
    let client = lab.client.udp(ip(CLIENT[0]), 0);
    let to = (SERVER[0], 60001);
    client.send_to(b"before", to).expect("a way there");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(
        &opened("60000-61000/udp")
            .lasting("1h")
            .at("mosh")
            .from("192.0.2.77"),
    );
    client.send_to(b"after", to).expect("a way there");
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..length], b"after");
    // The answer needs no opening.
    server.send_to(b"answer", from).expect("a way back");
    assert_eq!(client.recv(&mut buffer).expect("the answer"), 6);
}

/// A configuration that only fills a set of the administrator's: the one of examples/.
#[test]
fn a_door_puts_sources_into_a_set_of_the_administrators() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.run("nft add table inet filter");
    lab.server
        .run("nft add set inet filter knocked { type ipv4_addr; flags timeout; }");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/admin-set.toml");
    let site = Site::new(&lab, &std::fs::read_to_string(example).expect("an example"));
    let mut daemon = site.start("");
    let listed = || lab.server.run("nft list set inet filter knocked");
    knock(&lab, SERVER[0], "35218 12907 46550:udp");
    daemon.wait_for_event(
        &opened("inet filter knocked")
            .lasting("1h")
            .at("ssh")
            .from("192.0.2.77"),
    );
    assert!(listed().contains("192.0.2.77"), "{}", listed());
    knock(&lab, SERVER[0], "8164:udp 29473 18035");
    daemon.wait_for_event(&closed("inet filter knocked").at("ssh").from("192.0.2.77"));
    assert!(!listed().contains("192.0.2.77"), "{}", listed());
}

/// As games and most scripts have it: over IPv6 there is no identification, nor over IPv4 where the
/// kernel may not fragment.
#[test]
fn one_socket_makes_a_step_of_udp_that_comes_twice() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(
        &lab,
        "[door.ssh]\nsequence = [\"7001/udp\", \"8102/udp\", \"7001/udp\"]\nopen = [\"22/tcp\"]\n",
    );
    let mut daemon = site.start("");
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        let socket = lab.client.udp(ip(own), 40_000);
        for round in 1..=2 {
            for port in [7001, 8102, 7001] {
                socket.send_to(b"x", (ip(server), port)).expect("a wire");
            }
            let opened = format!("{own}: ssh: OPEN SESAME");
            wait_until(&opened, || daemon.count(&opened) == round);
        }
    }
    daemon.wait_for_event(&extended("22/tcp").at("ssh"));
}

/// The ports are filtered, so each SYN comes again after a second, and after two or three, when the
/// door is open.
#[test]
fn a_client_whose_syns_nobody_answers_knocks_once() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    lab.server.nft(
        "table inet filter { chain input { type filter hook input priority 0; \
         tcp dport { 7001, 8102, 9203 } drop; }; }",
    );
    let site = Site::new(&lab, "");
    let ran = site.path("ran");
    site.configure(&format!(
        "[door.run]\nsequence = [\"7001/tcp\", \"8102/tcp\", \"9203/tcp\"]\n\
         start_command = \"echo x >>{}\"\n\
         [door.one]\nsequence = [\"7001/tcp\"]\nstart_command = \"true\"\n",
        ran.display()
    ));
    let daemon = site.start("");
    let script = "for port in 7001 8102 9203; do \
                  timeout 4 bash -c \"</dev/tcp/192.0.2.1/$port\" 2>&- & sleep 0.1; done; wait";
    let counted = lab.capture(&lab.server, "eth0", "tcp dst port 7001");
    for knocks in 1..=2 {
        let mut client = lab.client.command("bash");
        assert!(client.args(["-c", script]).status().is_ok());
        let sent = counted.so_far().len();
        assert!(sent >= knocks * 2, "no SYN came again: {sent}");
        let lines = || std::fs::read_to_string(&ran).unwrap_or_default();
        wait_until("the command", || lines().lines().count() >= knocks);
        assert_eq!(lines().lines().count(), knocks);
        for door in ["run", "one"] {
            let opened = format!("{door}: OPEN SESAME");
            assert_eq!(daemon.count(&opened), knocks, "{:?}", daemon.lines());
        }
    }
}
