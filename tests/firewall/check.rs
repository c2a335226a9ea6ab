//! What `knockd check` says of a live system, and whether it is true.

use crate::agent::Agent;
use crate::support::net::is_alive;
use crate::support::{CLIENT, Lab, SERVER, SILENCE, ip};

const TOML: &str = r#"
[firewall]

[door.ssh]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp"]
open_for = "30s"

[door.mosh]
sequence = ["29001/tcp", "8133/tcp", "51877/tcp"]
from     = ["192.0.2.0/24"]
open     = ["60000-61000/udp"]
open_for = "12h"
"#;

/// In the shape of ufw's: a dropping policy, and chains of its own below.
const UFW: &str = "
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        jump ufw-before-logging-input
        jump ufw-before-input
        jump ufw-after-input
    }
    chain ufw-before-logging-input {
    }
    chain ufw-before-input {
        iif lo accept
        ct state related,established accept
        ct state invalid drop
        meta l4proto { icmp, ipv6-icmp } accept
        jump ufw-user-input
    }
    chain ufw-user-input {
        tcp dport 80 accept
    }
    chain ufw-after-input {
        udp dport 137 return
    }
}
";

/// In the shape of firewalld's: zones by interface, and a reject at the end.
const FIREWALLD: &str = "
table inet firewalld {
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname lo accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT_ZONES {
        iifname eth0 goto filter_IN_public
        goto filter_IN_public
    }
    chain filter_IN_public {
        jump filter_IN_public_allow
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain filter_IN_public_allow {
        tcp dport 80 ct state new,untracked accept
    }
}
";

fn check(agent: &mut Agent, lab: &Lab) -> String {
    let path = lab.directory().join("knockd.toml");
    agent.order(&format!("check {} /nonexistent", path.display()))
}

const WORKS: &str = "ssh 22/tcp over IPv4: works|ssh 22/tcp over IPv6: works|\
                     mosh 60000-61000/udp over IPv4: works|";

#[test]
fn alone_everything_works() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::new(&lab.server);
    let said = check(&mut agent, &lab);
    let absent = "table: there is none: nothing is guarded (is knockd running?)";
    assert_eq!(said, format!("good=false|{absent}|{WORKS}"));

    agent.order(&format!("start {}", path.display()));
    agent.order("open ssh 192.0.2.77 22/tcp 1h");
    let before = lab.server.run("nft -s list ruleset");
    assert_eq!(
        check(&mut agent, &lab),
        format!("good=true|table: as configured|{WORKS}")
    );
    assert_eq!(
        lab.server.run("nft -s list ruleset"),
        before,
        "looked at, no more"
    );

    // Published by DNAT: it is let through to where it is forwarded.
    lab.server.nft(
        "table ip nat {\n chain prerouting {\n type nat hook prerouting priority dstnat\n \
         tcp dport 22 dnat to 198.18.0.2\n }\n }",
    );
    lab.server.run("sysctl -qw net.ipv4.ip_forward=1");
    let said = check(&mut agent, &lab);
    assert!(said.contains("ssh 22/tcp over IPv4: works"), "{said}");
}

#[test]
fn drift_is_shown_in_the_words_of_nft() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    Agent::watch(&lab.server, &path).kill();
    lab.server.run("nft insert rule inet knockd guard accept");
    lab.server
        .run("nft delete element inet knockd guarded { tcp . 22 }");
    let saved = lab.write("nftables.conf", &lab.server.run("nft list ruleset"));
    let order = format!("check {} {}", path.display(), saved.display());
    let said = Agent::new(&lab.server).order(&order);
    assert!(said.contains("|-\t\telements = { tcp . 22 }|"), "{said}");
    assert!(said.contains("|+\t\taccept|"), "{said}");
    assert!(
        said.contains("nftables.conf contains table inet knockd"),
        "{said}"
    );
}

/// With what is printed, a real connection goes through.
fn mended(shape: &str, chain: &str) {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let _echo = lab.server.echo(22);
    lab.server.nft(shape);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(&format!("open ssh {} 22/tcp 1h", CLIENT[0]));
    agent.order(&format!("open ssh {} 22/tcp 1h", CLIENT[1]));
    let connect = |family: usize| {
        lab.client
            .connect(ip(CLIENT[family]), (ip(SERVER[family]), 22), SILENCE)
    };
    assert!(
        !matches!(connect(0), crate::support::Reach::Connected(_)),
        "blocked"
    );

    let said = check(&mut agent, &lab);
    let blocked = format!("ssh 22/tcp over IPv4: blocked by {chain}|");
    assert!(said.contains(&blocked), "{said}");
    assert!(
        said.contains(&format!(
            "mosh 60000-61000/udp over IPv4: blocked by {chain}|"
        )),
        "{said}"
    );
    let setting = "set in [firewall]:  mark = 0x6b6e|";
    assert!(said.contains(setting), "{said}");

    let toml = TOML.replace("[firewall]", "[firewall]\nmark = 0x6b6e");
    lab.write("knockd.toml", &toml);
    agent.order(&format!("reload {}", path.display()));
    let lines: std::collections::BTreeSet<&str> = said
        .split('|')
        .filter_map(|line| line.trim().strip_prefix("run:  "))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    for line in lines {
        lab.server.run(line);
    }
    assert!(is_alive(&connect(0).expect_connected()));
    assert!(is_alive(&connect(1).expect_connected()));
    assert_eq!(
        check(&mut agent, &lab),
        format!("good=true|table: as configured|{WORKS}")
    );
}

#[test]
fn beside_ufw() {
    mended(UFW, "inet filter input");
}

#[test]
fn beside_firewalld() {
    mended(FIREWALLD, "inet firewalld filter_INPUT");
}

#[test]
fn what_drops_before_we_can_mark() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    lab.server.nft(
        "table ip raw {\n chain pre {\n type filter hook prerouting priority raw\n udp dport 60000 drop\n }\n }",
    );
    let mut agent = Agent::start(&lab.server, &path);
    let said = check(&mut agent, &lab);
    assert!(
        said.contains("mosh 60000-61000/udp over IPv4: blocked by ip raw pre; an accepted mark does not help there"),
        "{said}"
    );
    assert!(said.contains("ssh 22/tcp over IPv4: works"), "{said}");
}
