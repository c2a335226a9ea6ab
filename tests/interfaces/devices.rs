//! Devices that stand on others, such as VLANs and tunnels: the kernel gives each packet twice.
//!
//! Which types of device there are differs from kernel to kernel. Those of the first test are in every
//! kernel that the tests run on; those of the second are tried where they are.

use crate::listening::ListeningDaemon;
use crate::support::need::kernel_lacks;
use crate::support::{CLIENT, Lab, Namespace, SERVER, SERVER_MAC};

/// The addresses on the devices under test: the server's.
const INNER: [&str; 2] = ["198.51.100.1", "2001:db8:8::1"];
/// And the client's.
const OUTER: [&str; 2] = ["198.51.100.77", "2001:db8:8::77"];

/// How to make a device called `dev0`, in the words of `ip link add`; server and client
/// differ in the last.
struct Kind {
    name: &'static str,
    words: &'static str,
    ends: [&'static str; 2],
}

const EVERYWHERE: [Kind; 2] = [
    Kind {
        name: "macvlan",
        words: "link eth0 name dev0 type macvlan mode bridge",
        ends: ["", ""],
    },
    Kind {
        name: "vxlan",
        words: "name dev0 type vxlan id 7 dstport 4789 dev eth0",
        ends: ["remote 192.0.2.77", "remote 192.0.2.1"],
    },
];

const SOMEWHERE: [Kind; 4] = [
    Kind {
        name: "vlan",
        words: "link eth0 name dev0 type vlan id 7",
        ends: ["", ""],
    },
    Kind {
        name: "gre",
        words: "name dev0 type gre",
        ends: [
            "local 192.0.2.1 remote 192.0.2.77",
            "local 192.0.2.77 remote 192.0.2.1",
        ],
    },
    Kind {
        name: "ipip",
        words: "name dev0 type ipip",
        ends: [
            "local 192.0.2.1 remote 192.0.2.77",
            "local 192.0.2.77 remote 192.0.2.1",
        ],
    },
    Kind {
        name: "geneve",
        words: "name dev0 type geneve id 7",
        ends: ["remote 192.0.2.77", "remote 192.0.2.1"],
    },
];

/// `ip link add`. False if the kernel does not know the kind.
#[track_caller]
fn add(host: &Namespace, words: &str) -> bool {
    let output = host.try_run(&format!("ip link add {words}"));
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Unknown device type") {
        return false;
    }
    assert!(output.status.success(), "{words}: {said}");
    true
}

impl Kind {
    /// Makes the devices on both hosts. False if the kernel does not know the kind.
    fn make(&self, lab: &Lab) -> bool {
        let hosts = [(&lab.server, INNER), (&lab.client, OUTER)];
        for ((host, addresses), end) in hosts.into_iter().zip(self.ends) {
            if !add(host, &format!("{} {end}", self.words)) {
                return false;
            }
            host.ip("link set dev0 up");
            host.wait_for_carrier("dev0");
            for address in addresses {
                // ipip carries IPv4 alone.
                if self.name != "ipip" || address.contains('.') {
                    host.add_address("dev0", address);
                }
            }
        }
        true
    }

    /// On one interface or on all, before the device is there, with it, and without.
    fn try_on(&self, lab: &Lab) -> bool {
        // Otherwise eth0 answers for dev0's address, where both are on one wire.
        for host in [&lab.server, &lab.client] {
            host.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
        }
        let mut daemon = ListeningDaemon::open(lab, "");
        daemon.opens_at(SERVER[0]);
        if !self.make(lab) {
            return false;
        }
        let servers = || {
            INNER
                .iter()
                .filter(|s| self.name != "ipip" || s.contains('.'))
        };
        servers().for_each(|server| daemon.opens_at(server));
        daemon.opens_at(SERVER[0]);
        daemon.close();
        let mut daemon = ListeningDaemon::open(lab, "interfaces = [\"dev0\"]");
        servers().for_each(|server| daemon.opens_at(server));
        daemon.ignores(SERVER[0]);
        for host in [&lab.server, &lab.client] {
            host.ip("link del dev0");
        }
        daemon.said("interface dev0 is gone", 1);
        assert!(self.make(lab));
        servers().for_each(|server| daemon.opens_at(server));
        daemon.close();
        true
    }
}

#[test]
fn device_types_of_every_kernel_are_listened_on() {
    needs!(Laboratory, Knock08);
    for kind in EVERYWHERE {
        assert!(kind.try_on(&Lab::new()), "no {} here", kind.name);
    }
}

#[test]
fn device_types_of_some_kernels_are_listened_on() {
    needs!(Laboratory, Knock08);
    for kind in SOMEWHERE {
        if !kind.try_on(&Lab::new()) {
            kernel_lacks(&format!("devices of type {}", kind.name));
        }
    }
}

/// A service's address lies on a device that carries nothing.
#[test]
fn an_address_on_a_dummy_device_is_knocked_at() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    if !add(&lab.server, "dev0 type dummy") {
        kernel_lacks("dummy devices");
        return;
    }
    lab.server.ip("link set dev0 up");
    for (address, server) in INNER.into_iter().zip(SERVER) {
        lab.server.add_address("dev0", address);
        lab.client.ip(&format!("route add {address} via {server}"));
        daemon.opens_at(address);
    }
    lab.server.ip("link del dev0");
    INNER.iter().for_each(|address| daemon.ignores(address));
    daemon.close();
}

/// A packet passes a bond's port and then the bond, and counts once.
#[test]
fn a_bonded_packet_counts_once_whether_the_port_or_the_bond_is_named() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let bond = "bond0 type bond mode active-backup miimon 10";
    if !add(&lab.server, &format!("{bond} fail_over_mac none")) {
        kernel_lacks("bonds");
        return;
    }
    lab.server.ip(&format!(
        "address flush dev eth0\n\
         link set eth0 down\n\
         link set bond0 address {SERVER_MAC}\n\
         link set eth0 master bond0\n\
         link set bond0 up"
    ));
    lab.server.wait_for_carrier("bond0");
    lab.client.wait_for_carrier("eth0");
    for server in SERVER {
        lab.server.add_address("bond0", server);
    }
    ListeningDaemon::opens_with_each(
        &lab,
        &[
            "",
            "interfaces = [\"eth0\", \"bond0\"]",
            "interfaces = [\"bond0\"]",
        ],
    );
}

/// Each end knows the other by its key.
#[test]
fn a_wireguard_tunnel_is_listened_on() {
    needs!(Laboratory, Knock08, Tool("wg"));
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"dev*\"]");
    let hosts = [(&lab.server, INNER), (&lab.client, OUTER)];
    let keys = [0, 1].map(|end| {
        let private = lab.server.run("wg genkey");
        let path = lab.write(&format!("key{end}"), &private);
        let pipe = format!("wg pubkey <{}", path.display());
        let output = lab.server.command("sh").args(["-c", &pipe]).output();
        let public = String::from_utf8(output.expect("wg").stdout);
        (path, public.expect("a key"))
    });
    for (end, (host, addresses)) in hosts.iter().enumerate() {
        if !add(host, "dev0 type wireguard") {
            kernel_lacks("WireGuard");
            return;
        }
        let (own, other) = (&keys[end], &keys[1 - end]);
        let endpoint = [CLIENT[0], SERVER[0]][end];
        host.run(&format!(
            "wg set dev0 listen-port 51820 private-key {} peer {} endpoint {endpoint}:51820 \
             allowed-ips 198.51.100.0/24,2001:db8:8::/64",
            own.0.display(),
            other.1.trim(),
        ));
        host.ip("link set dev0 up");
        for address in addresses {
            host.add_address("dev0", address);
        }
    }
    INNER.iter().for_each(|server| daemon.opens_at(server));
    daemon.ignores(SERVER[0]);
    daemon.close();
}

/// Incoming traffic is shaped by sending it through an ifb device and back.
#[test]
fn a_shaped_interface_is_listened_on() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    lab.server.ip("link add ifb0 type ifb\nlink set ifb0 up");
    for line in [
        "qdisc add dev eth0 handle ffff: ingress",
        "filter add dev eth0 parent ffff: protocol all u32 match u32 0 0 \
         action mirred egress redirect dev ifb0",
    ] {
        lab.server.run(&format!("tc {line}"));
    }
    ListeningDaemon::opens_with_each(&lab, &["", "interfaces = [\"eth0\", \"ifb0\"]"]);
}
