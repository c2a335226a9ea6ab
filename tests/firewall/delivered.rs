//! Packets that seem to be for another host or port, and are delivered here all the same, meet the
//! guard a second time. And what a scan can find out about a guarded port.

use std::net::SocketAddr;
use std::time::Duration;

use crate::agent::{Agent, close_all, hours, open};
use crate::support::need::kernel_lacks;
use crate::support::net::is_alive;
use crate::support::{CLIENT, Lab, OTHER, Reach, SERVER, SILENCE, SOON, ip, wait_for};

const TOML: &str = r#"
[firewall]

[door.ssh]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp", "53/udp", "8000-8100/tcp", "60000-61000/udp"]
open_for = "1h"
"#;

const ALL: &str = "22/tcp,53/udp,8000-8100/tcp,60000-61000/udp";

/// Networks that are routed to the server.
const ROUTED: &str = "route add 198.51.100.0/24 via 192.0.2.1\n\
                      route add 2001:db8:5::/64 via 2001:db8::1";

struct Server {
    agent: Agent,
    lab: Lab,
}

impl Server {
    /// A guarded server to which more is routed than it has addresses.
    fn new(toml: &str) -> Self {
        let lab = Lab::new();
        let path = lab.write("knockd.toml", toml);
        let agent = Agent::start(&lab.server, &path);
        lab.client.ip(ROUTED);
        Self { lab, agent }
    }

    /// Whether a session comes about, which then carries bytes.
    fn session(&self, from: &str, (to, port): (&str, u16), patience: Duration) -> bool {
        match self.lab.client.connect(ip(from), (ip(to), port), patience) {
            Reach::Connected(session) => is_alive(&session),
            Reach::Refused | Reach::TimedOut => false,
        }
    }

    /// Whether a datagram comes to a service on the server's port.
    fn datagram(&self, from: &str, (to, port): (&str, u16), at: u16, patience: Duration) -> bool {
        let any = if ip(to).is_ipv4() { "0.0.0.0" } else { "::" };
        let service = self.lab.server.udp(ip(any), at);
        service.set_read_timeout(Some(patience)).expect("a socket");
        let sender = self.lab.client.udp(ip(from), 0);
        let to = SocketAddr::from((ip(to), port));
        sender.send_to(b"hello", to).expect("a way");
        service.recv(&mut [0; 9]).is_ok()
    }

    /// Nobody reaches it who has no opening, and everybody who has.
    #[track_caller]
    fn is_guarded(&mut self, what: &str, tcp: &[(&str, u16)], udp: &[(&str, u16, u16)]) {
        let all = |this: &Self, source: &dyn Fn(usize) -> &'static str, reached: bool| {
            let patience = if reached { SOON } else { SILENCE };
            let from = |to: &str| source(usize::from(ip(to).is_ipv6()));
            for &(to, port) in tcp {
                let found = this.session(from(to), (to, port), patience);
                assert_eq!(found, reached, "{what}: {to} {port}/tcp");
            }
            for &(to, port, at) in udp {
                let found = this.datagram(from(to), (to, port), at, patience);
                assert_eq!(found, reached, "{what}: {to} {port}/udp");
            }
        };
        all(self, &|family| CLIENT[family], false);
        for source in CLIENT {
            self.agent.order(open("ssh", source, ALL, hours(1)));
        }
        all(self, &|family| CLIENT[family], true);
        all(self, &|family| OTHER[family], false);
        for source in CLIENT {
            self.agent.order(close_all(source));
        }
    }
}

#[test]
fn what_is_translated_to_this_host_is_guarded() {
    needs!(Laboratory);
    let mut server = Server::new(TOML);
    let _echo = [server.lab.server.echo(22), server.lab.server.echo(8050)];
    server.lab.server.nft(
        "table inet nat { chain pre { type nat hook prerouting priority dstnat;
             ip daddr 198.51.100.5 dnat ip to 192.0.2.1
             ip6 daddr 2001:db8:5::5 dnat ip6 to 2001:db8::1
             ip daddr 198.51.100.6 redirect
             ip6 daddr 2001:db8:5::6 redirect
             tcp dport 2222 redirect to :22
             tcp dport 2223 redirect to :8050
             udp dport 5300 redirect to :53
             udp dport 5301 redirect to :60500
         }; }",
    );
    let [four, six] = SERVER;
    let others = [
        "198.51.100.5",
        "198.51.100.6",
        "2001:db8:5::5",
        "2001:db8:5::6",
    ];
    let tcp: Vec<_> = others
        .iter()
        .flat_map(|to| [(*to, 22), (*to, 8050)])
        .collect();
    let udp: Vec<_> = others
        .iter()
        .flat_map(|to| [(*to, 53, 53), (*to, 60500, 60500)])
        .collect();
    server.is_guarded("another address", &tcp, &udp);
    let tcp = [(four, 2222), (four, 2223), (six, 2222), (six, 2223)];
    let udp = [
        (four, 5300, 53),
        (four, 5301, 60500),
        (six, 5300, 53),
        (six, 5301, 60500),
    ];
    server.is_guarded("another port", &tcp, &udp);
}

#[test]
fn what_another_routing_table_calls_local_is_guarded() {
    needs!(Laboratory);
    let mut server = Server::new(TOML);
    let host = &server.lab.server;
    let _echo = [host.echo(22), host.echo(8050)];
    // A default route, as every host has one: without it, IPv6 has no unicast answer.
    host.ip(
        "link add m0 type bridge\nlink set m0 up\naddress add 10.99.0.1/24 dev m0\n\
             address add fd99::1/64 dev m0 nodad\nroute add default via 10.99.0.2\n\
             route add default via fd99::2",
    );
    host.ip("route add local 198.51.100.0/24 dev lo table 100\n\
             rule add to 198.51.100.0/24 lookup 100\n\
             route add local 2001:db8:5::/64 dev lo table 100");
    host.run("ip -6 rule add to 2001:db8:5::/64 lookup 100");
    let [four, six] = ["198.51.100.9", "2001:db8:5::9"];
    server.is_guarded(
        "another table",
        // Linux answers no TCP from an IPv4 address that `local` does not have.
        &[(six, 22), (six, 8050)],
        &[
            (four, 53, 53),
            (four, 60500, 60500),
            (six, 53, 53),
            (six, 60500, 60500),
        ],
    );
}

#[test]
fn what_comes_by_a_vrf_is_guarded() {
    needs!(Laboratory);
    let mut server = Server::new(TOML);
    let host = &server.lab.server;
    host.run("sysctl -qw net.ipv4.tcp_l3mdev_accept=1 net.ipv4.udp_l3mdev_accept=1");
    let _echo = [host.echo(22), host.echo(8050)];
    host.ip(
        "link add m0 type bridge\nlink set m0 up\naddress add 10.99.0.1/24 dev m0\n\
             address add fd99::1/64 dev m0 nodad\nroute add default via 10.99.0.2\n\
             route add default via fd99::2",
    );
    let made = host.try_run("ip link add blue type vrf table 10");
    if made.status.success() {
        host.ip("link set blue up\nlink set eth0 master blue");
        // Changing hands, the interface loses its IPv6 addresses.
        host.ip("address replace 2001:db8::1/64 dev eth0 nodad");
        wait_for("the address in the VRF's table", || {
            let routes = host.run("ip -6 route show table 10");
            routes.contains("local 2001:db8::1 ").then_some(())
        });
    } else {
        // What the guard sees of one: own addresses are in a table of the interface's.
        println!("{made:?}: a table of its own stands for it");
        kernel_lacks("VRF");
        host.run("ip rule add iif eth0 lookup 10");
        host.run("ip -6 rule add iif eth0 lookup 10");
        for address in SERVER {
            for line in [
                format!("route del local {address} dev eth0 table local"),
                format!("route add local {address} dev eth0 table 10"),
            ] {
                host.ip(&line);
            }
        }
    }
    let [four, six] = SERVER;
    server.is_guarded(
        "a VRF",
        &[(four, 22), (four, 8050), (six, 22), (six, 8050)],
        &[
            (four, 53, 53),
            (four, 60500, 60500),
            (six, 53, 53),
            (six, 60500, 60500),
        ],
    );
}

#[test]
fn a_loopback_is_known_by_its_type() {
    needs!(Laboratory);
    let mut server = Server::new(TOML);
    let host = &server.lab.server;
    let _echo = [host.echo(22), host.echo(8050)];
    host.ip("link set lo down\nlink set lo name looped\nlink set looped up");
    host.ip(
        "link set eth0 down\nlink set eth0 name lo\nlink set lo up\n\
             address replace 2001:db8::1/64 dev lo nodad",
    );
    host.wait_for_carrier("lo");
    host.wait_for_address(SERVER[1]);
    let own = host.connect(ip("127.0.0.1"), (ip("127.0.0.1"), 22), SOON);
    assert!(is_alive(&own.expect_connected()));
    let [four, six] = SERVER;
    server.is_guarded(
        "an interface called lo",
        &[(four, 22), (four, 8050), (six, 22), (six, 8050)],
        &[(four, 53, 53), (six, 53, 53)],
    );
}

/// What the first chain has let in is not refused by the second, nor counted twice.
#[test]
fn a_published_port_may_lead_to_one_of_this_host() {
    needs!(Laboratory);
    let toml = TOML.replace("\"22/tcp\", ", "\"2222/tcp\", ");
    let lab = Lab::new();
    let path = lab.write("knockd.toml", &toml);
    let mut agent = Agent::start(&lab.server, &path);
    let _echo = lab.server.echo(22);
    lab.server.nft(
        "table ip nat { chain pre { type nat hook prerouting priority dstnat;
             tcp dport 2222 redirect to :22; }; }",
    );
    let to = (ip(SERVER[0]), 2222);
    let connect = |patience| lab.client.connect(ip(CLIENT[0]), to, patience);
    connect(SILENCE).expect_silence();
    agent.order(open("ssh", CLIENT[0], "2222/tcp", hours(1)));
    assert!(is_alive(&connect(SOON).expect_connected()));
    let judged = lab.server.run("nft list chain inet knockd judge");
    let once = "@openings_v4 counter packets 1 ";
    assert!(judged.contains(once), "{judged}");
}

/// No kind of scan tells a guarded port that has a listener from one that has none.
#[test]
fn no_scan_shows_who_listens_behind_the_guard() {
    needs!(Laboratory, Tool("nmap"));
    for guard in ["drop", "reject"] {
        let toml = TOML.replace("[firewall]", &format!("[firewall]\nguard = \"{guard}\""));
        let lab = Lab::new();
        // Older than the table; it lives on.
        let _echo = [lab.server.echo(22), lab.server.echo(8001)];
        let old: Vec<_> = CLIENT
            .into_iter()
            .zip(SERVER)
            .map(|(from, to)| lab.client.connect(ip(from), (ip(to), 22), SOON))
            .map(Reach::expect_connected)
            .collect();
        let path = lab.write("knockd.toml", &toml);
        let _agent = Agent::start(&lab.server, &path);
        for (to, family) in SERVER.into_iter().zip(["-4", "-6"]) {
            for scan in ["-sS", "-sF", "-sN", "-sX", "-sM", "-sA", "-sW"] {
                let mut nmap = lab.client.command("nmap");
                nmap.args(["-n", "-Pn", "--max-retries", "1", "-oG", "-", "-p"]);
                nmap.args(["22,8000-8003", scan, to]);
                if family == "-6" {
                    nmap.arg(family);
                }
                let output = nmap.output().expect("nmap");
                assert!(output.status.success(), "{output:?}");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let states = states(&said);
                assert_eq!(states.len(), 5, "{scan} {to}: {said}");
                assert!(
                    states.iter().all(|state| *state == states[0]),
                    "{guard} {scan} {to}: {said}"
                );
                // As of a closed port (RFC 9293, section 3.10.7.1), or of none.
                let wanted = match (guard, scan) {
                    (_, "-sM") | ("reject", "-sS" | "-sF" | "-sN" | "-sX") => "closed",
                    (_, "-sA") => "unfiltered",
                    (_, "-sW") => "closed",
                    (_, "-sS") => "filtered",
                    (_, _) => "open|filtered",
                };
                assert_eq!(states[0], wanted, "{guard} {scan} {to}: {said}");
            }
        }
        assert!(old.iter().all(is_alive), "{guard}: what stands lives on");
    }
}

/// The state of each port that nmap names; those that it only counts are all of that state.
fn states(said: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in said.lines() {
        let named = line.split("Ports: ").nth(1).unwrap_or_default();
        let named = named.split('\t').next().unwrap_or_default();
        let ports = named.split(", ").filter_map(|port| port.split('/').nth(1));
        found.extend(ports.map(str::to_owned));
        if let Some((_, rest)) = line.split_once("Ignored State: ") {
            let (state, count) = rest.split_once(" (").expect("a number of them");
            let count = count.split(')').next().and_then(|n| n.parse().ok());
            found.extend(vec![state.to_owned(); count.expect("a number")]);
        }
    }
    found
}
