//! `knockd check` names another table that blocks a door, and the lines that it prints as a remedy
//! work.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use crate::check::MOSH;
use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::opened;
use crate::support::net::{Reach, is_alive};
use crate::support::{CLIENT, Lab, SERVER, SILENCE, SOON, ip, wait_until};

/// In the shape of ufw's: a dropping policy, and chains of its own below.
pub(crate) const UFW: &str = "
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        jump ufw-before-input
        jump ufw-after-input
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

/// The rules that ufw gives to `iptables-restore`, with extensions that nft cannot read back.
const UFW_IPTABLES: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p PROTOCOL -j ACCEPT
-A ufw-before-input -m addrtype --dst-type LOCAL -j ufw-user-input
-A ufw-user-input -p tcp --dport 80 -m hashlimit --hashlimit-upto 5/sec --hashlimit-name web -j ACCEPT
COMMIT
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

fn connect(lab: &Lab, family: usize, patience: Duration) -> Reach {
    let (from, to) = (ip(CLIENT[family]), ip(SERVER[family]));
    lab.client.connect(from, (to, 22), patience)
}

/// Beside such a firewall both doors are blocked, and by the lines that are printed they
/// are mended, for real connections.
#[track_caller]
fn mended(lab: &Lab, by: &[&str], lines: &[&str]) {
    let doors = format!("{SSH}{MOSH}");
    let site = Site::new(lab, &doors);
    let _echo = lab.server.echo(22);
    let mut daemon = site.start("");
    for (family, server) in SERVER.into_iter().enumerate() {
        knock(lab, server, OPEN_SSH);
        daemon.wait_for_event(&opened("22/tcp").at("ssh").from(CLIENT[family]));
        let reach = connect(lab, family, SILENCE);
        assert!(!matches!(reach, Reach::Connected(_)), "{reach:?}");
    }

    let (code, said) = site.check();
    assert_eq!(code, 69, "{said:#?}");
    for by in by {
        for door in ["ssh", "mosh"] {
            let blocked = format!("{door}: BLOCKED by chain {by}");
            let told = said.iter().any(|l| l.starts_with(&blocked));
            assert!(told || door == "mosh" && by.contains("ip6"), "{said:#?}");
        }
    }
    let first = "  mend: set `mark = 0x6b6e` in [firewall] and reload knockd, then";
    assert!(said.iter().any(|l| l == first), "{said:#?}");
    let found: BTreeSet<&str> = said
        .iter()
        .filter(|line| *line != first)
        .filter_map(|line| line.strip_prefix("  mend: "))
        .collect();
    assert_eq!(found, lines.iter().copied().collect(), "{said:#?}");

    site.configure(&format!("[firewall]\nmark = 0x6b6e\n{doors}"));
    site.reload(&daemon);
    for line in found {
        lab.server.run(line);
    }
    for family in [0, 1] {
        assert!(is_alive(&connect(lab, family, SOON).expect_connected()));
    }
    let (code, said) = site.check();
    assert_eq!(code, 0, "{said:#?}");
    assert_eq!(said[1], "ssh: works (eth0, IPv4 and IPv6)");
}

#[test]
fn what_ufw_blocks_is_named_and_its_remedy_works() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.nft(UFW);
    mended(
        &lab,
        &["inet filter input (policy drop): eth0, IPv4"],
        &["nft insert rule inet filter input meta mark 0x6b6e accept"],
    );
}

#[test]
fn what_ufw_blocks_by_way_of_iptables_is_named_and_its_remedy_works() {
    needs!(Laboratory, Tool("iptables-nft-restore"));
    let lab = Lab::new();
    for program in ["iptables-nft-restore", "ip6tables-nft-restore"] {
        let rules = match program.starts_with("ip6") {
            true => UFW_IPTABLES
                .replace("ufw-", "ufw6-")
                .replace("PROTOCOL", "ipv6-icmp"),
            false => UFW_IPTABLES.replace("PROTOCOL", "icmp"),
        };
        let file = lab.write("rules", &rules);
        lab.server.run(&format!("{program} {}", file.display()));
    }
    mended(
        &lab,
        &[
            "ip filter INPUT (policy drop): ",
            "ip6 filter INPUT (policy drop): ",
        ],
        &[
            "iptables-nft -I INPUT -m mark --mark 0x6b6e -j ACCEPT",
            "ip6tables-nft -I INPUT -m mark --mark 0x6b6e -j ACCEPT",
        ],
    );
}

#[test]
fn what_firewalld_blocks_is_named_and_its_remedy_works() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.nft(FIREWALLD);
    mended(
        &lab,
        &["inet firewalld filter_INPUT (a rule): eth0, IPv4"],
        &["nft insert rule inet firewalld filter_INPUT meta mark 0x6b6e accept"],
    );
}

#[test]
fn one_family_or_port_alone_may_be_blocked() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.nft(
        "table ip6 filter { chain input { type filter hook input priority 0; policy drop;
             ct state established accept; }; }
         table ip raw { chain pre { type filter hook prerouting priority raw;
             udp dport 60000 drop; }; }",
    );
    let site = Site::new(&lab, &format!("[firewall]\nmark = 7\n{SSH}{MOSH}"));
    let _daemon = site.start("");
    let (code, said) = site.check();
    assert_eq!(code, 69);
    assert_eq!(
        said[1..],
        [
            "ssh: works (22/tcp by eth0, IPv4)",
            "ssh: BLOCKED by chain ip6 filter input (policy drop): 22/tcp by eth0, IPv6",
            "  mend: nft insert rule ip6 filter input meta mark 0x7 accept",
            "  to keep it, begin chain input of the saved ruleset with: meta mark 0x7 accept",
            "shut: opens no port: there is nothing to try",
            // So early no packet is marked yet.
            "mosh: BLOCKED by chain ip raw pre (a rule): 60000/udp by eth0, IPv4",
            "  mend: nft insert rule ip raw pre udp dport 60000-61000 accept",
            "  to keep it, begin chain pre of the saved ruleset with: udp dport 60000-61000 accept",
            "mosh: works (60001/udp by eth0, IPv4; 61000/udp by eth0, IPv4)",
        ]
    );
}

#[test]
fn several_chains_may_block_and_so_may_one_for_answers() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.nft(
        "table inet a { chain in { type filter hook input priority 0; policy drop; }; }
         table inet b { chain in { type filter hook input priority 5; tcp dport 22 reject; }; }
         table inet c { chain out { type filter hook output priority 0; policy drop; }; }
         table netdev d { chain out { type filter hook egress device eth0 priority 0; policy drop; }; }",
    );
    let site = Site::new(&lab, &format!("[firewall]\nmark = 7\n{SSH}"));
    let _daemon = site.start("");
    let (_, said) = site.check();
    assert_eq!(
        said[1],
        "ssh: BLOCKED by chain inet a in (policy drop) and chain inet b in (a rule) and \
         chain inet c out (policy drop) and chain netdev d out (policy drop): eth0, IPv4 and IPv6"
    );
    for line in said.iter().filter_map(|l| l.strip_prefix("  mend: ")) {
        lab.server.run(line);
    }
    let (code, said) = site.check();
    assert_eq!(code, 0, "{said:#?}");
}

/// Only the first packet of a connection bears the mark, and opens a way that is kept open
/// for SYNs alone: what follows must come through, too.
#[test]
fn a_connection_is_more_than_its_first_packet() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.nft(
        "table inet filter { chain input { type filter hook input priority 0; policy drop;
             tcp dport 22 tcp flags & (syn | ack) == syn accept; udp dport 60000 ct state new accept; }; }",
    );
    let doors = format!("[firewall]\nmark = 7\n{SSH}{MOSH}");
    let site = Site::new(&lab, &doors);
    let _echo = lab.server.echo(22);
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    let (_, said) = site.check();
    for door in ["ssh", "mosh"] {
        let blocked = format!("{door}: BLOCKED by chain inet filter input (policy drop)");
        assert!(said.iter().any(|l| l.starts_with(&blocked)), "{said:#?}");
    }
    for line in said.iter().filter_map(|l| l.strip_prefix("  mend: ")) {
        lab.server.run(line);
    }
    assert!(is_alive(&connect(&lab, 0, SOON).expect_connected()));
    let (code, said) = site.check();
    assert_eq!(code, 0, "{said:#?}");
}

#[test]
fn one_address_or_a_part_of_a_range_may_be_blocked() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.add_address("eth0", "192.0.2.2");
    lab.server.nft(
        "table inet filter { chain input { type filter hook input priority 0;
             ip daddr 192.0.2.2 tcp dport 22 drop; udp dport 60501-60502 drop; }; }",
    );
    // A name that no copy can have, as things are.
    let far = lab.host("far");
    lab.server.join("wan0", &far, "eth0", &[]);
    lab.server.add_address("wan0", "203.0.113.1");
    for change in ["wan0 down", "wan0 name wan#0", "wan#0 up"] {
        lab.server.run(&format!("ip link set {change}"));
    }
    let site = Site::new(&lab, &format!("[firewall]\nmark = 7\n{SSH}{MOSH}"));
    let (_, said) = site.check();
    assert_eq!(
        said[1..],
        [
            "ssh: works (22/tcp by eth0, IPv6; 22/tcp at 192.0.2.1 by eth0, IPv4)",
            "ssh: BLOCKED by chain inet filter input (a rule): 22/tcp at 192.0.2.2 by eth0, IPv4",
            "  mend: nft insert rule inet filter input tcp dport 22 accept",
            "  to keep it, begin chain input of the saved ruleset with: tcp dport 22 accept",
            "ssh: cannot tell: a copy cannot have an interface of the name wan#0 (22/tcp by wan#0, \
             IPv4)",
            "shut: opens no port: there is nothing to try",
            "mosh: works (60000/udp by eth0, IPv4; 60500/udp by eth0, IPv4; 60503/udp by eth0, \
             IPv4; 61000/udp by eth0, IPv4)",
            "mosh: BLOCKED by chain inet filter input (a rule): 60501/udp by eth0, IPv4; 60502/udp \
             by eth0, IPv4",
            "  mend: nft insert rule inet filter input udp dport 60000-61000 accept",
            "  to keep it, begin chain input of the saved ruleset with: udp dport 60000-61000 accept",
            "mosh: cannot tell: a copy cannot have an interface of the name wan#0 (60000-61000/udp \
             by wan#0, IPv4)",
        ]
    );
}

/// One chain marks what another one drops; a rule lets in one connection at a time.
#[test]
fn chains_may_block_together_and_rules_only_for_a_time() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server.nft(
        "table inet filter {
             chain early { type filter hook prerouting priority raw; tcp dport 22 meta mark set 0x99; }
             chain input { type filter hook input priority 0; meta mark 0x99 drop; }
             chain more { type filter hook input priority 1; policy drop; ct state established accept;
                 udp dport 60000-61000 limit rate 1/minute burst 1 packets accept; tcp dport 22 accept; }
         }",
    );
    let site = Site::new(&lab, &format!("[firewall]\nmark = 7\n{SSH}{MOSH}"));
    let (_, said) = site.check();
    assert_eq!(
        said[1..],
        [
            "ssh: BLOCKED by chain inet filter early (a rule) and chain inet filter input (a \
             rule): eth0, IPv4 and IPv6",
            "  mend: nft insert rule inet filter early tcp dport 22 accept",
            "  mend: nft insert rule inet filter input tcp dport 22 accept",
            "  to keep it, begin chain early of the saved ruleset with: tcp dport 22 accept",
            "  to keep it, begin chain input of the saved ruleset with: tcp dport 22 accept",
            "shut: opens no port: there is nothing to try",
            "mosh: works (eth0, IPv4)",
        ]
    );
}

#[test]
fn each_interface_is_tried() {
    needs!(Laboratory);
    let lab = Lab::new();
    let far = lab.host("far");
    lab.server.join("wan0", &far, "eth0", &[]);
    lab.server.add_address("wan0", "203.0.113.1");
    lab.server.nft(
        "table netdev early { chain in { type filter hook ingress device wan0 priority 0; policy drop; }; }
         table inet filter { chain in { type filter hook input priority 0; policy drop;
             iif eth0 tcp dport 22 accept; }; }",
    );
    let site = Site::new(&lab, &format!("[firewall]\nmark = 7\n{SSH}"));
    let _daemon = site.start("");
    let (_, said) = site.check();
    assert_eq!(
        said[1..6],
        [
            "ssh: works (22/tcp by eth0, IPv4 and IPv6)",
            "ssh: BLOCKED by chain netdev early in (policy drop) and chain inet filter in \
             (policy drop): 22/tcp by wan0, IPv4",
            "  mend: nft insert rule netdev early in tcp dport 22 accept",
            "  mend: nft insert rule inet filter in tcp dport 22 accept",
            "  to keep it, begin chain in of the saved ruleset with: tcp dport 22 accept",
        ]
    );
    // Where knocks are not listened for nobody gets in anyway.
    site.configure(&format!(
        "interfaces = [\"eth*\"]\n[firewall]\nmark = 7\n{SSH}"
    ));
    let (_, said) = site.check();
    assert_eq!(said[1], "ssh: works (eth0, IPv4 and IPv6)");
}

#[test]
fn an_owned_table_is_its_owners_to_mend() {
    needs!(Laboratory);
    let lab = Lab::new();
    // Owned for as long as this nft runs.
    let mut nft = lab.server.command("nft");
    let nft = nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut owner = nft.spawn().expect("nsenter");
    let mut orders = owner.stdin.take().expect("a pipe");
    let table = "add table inet firewalld { flags owner; }
        add chain inet firewalld filter_INPUT { type filter hook input priority 10; }
        add rule inet firewalld filter_INPUT ct state established,related accept
        add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited\n";
    orders.write_all(table.as_bytes()).expect("nft reads");
    wait_until("the table", || {
        lab.server
            .run("nft list ruleset")
            .contains("admin-prohibited")
    });
    let site = Site::new(&lab, &format!("[firewall]\nmark = 7\n{SSH}"));
    let (_, said) = site.check();
    let at = said
        .iter()
        .position(|l| l.contains("BLOCKED by chain inet firewalld filter_INPUT"));
    let next = &said[at.expect("blocked") + 1];
    assert!(
        next.contains("firewall-cmd --permanent --add-port=22/tcp"),
        "{said:#?}"
    );
    drop(orders);
    owner.wait().expect("nft");
}
