//! Hundreds of tricks to get a segment or a datagram past the guard, as an attack on it tried
//! them: flags, headers, fragments, tunnels, addresses, the link. None gets past.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::agent::{Agent, hours, open};
use crate::packets::{
    ACK, DESTINATION, FRAGMENT, FREE, GUARDED, HOP_BY_HOP, ROUTING, RST, SYN, TCP, UDP, Way, bare,
    datagram, ip_v4, ip_v6, options, piece, segment, summed, usual,
};
use crate::support::frame::{IPV4, IPV6, frame, mac};
use crate::support::{CLIENT, Lab, Namespace, SERVER, SOON, ip, wait_until};

const GUARDED_UDP: u16 = 8050;

const TOML: &str = r#"
[firewall]

[door.ssh]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp", "8050/udp"]
"#;

/// Notes the client's port of whatever has passed the guard at every hook, and of whatever is
/// answered as a SYN is. What has ACK or RST passes: it belongs to a session, or to none.
const PROBE: &str = "
table inet probe {
    set passed { type inet_service; flags dynamic; size 65535; }
    set answered { type inet_service; flags dynamic; size 65535; }
    chain in {
        type filter hook input priority 2000
        tcp dport 22 tcp flags & (rst | ack) == 0x0 add @passed { tcp sport }
        udp dport 8050 add @passed { udp sport }
    }
    chain out {
        type filter hook output priority 2000
        tcp flags & (syn | ack) == (syn | ack) add @answered { tcp dport }
    }
}";

/// The client's port in the first trick; each has the next one.
const FIRST: u16 = 20_000;

struct Trick {
    name: String,
    frames: Vec<Vec<u8>>,
}

/// An IPv4 (0) or IPv6 (1) packet in a frame.
fn framed(family: usize, packet: &[u8]) -> Vec<u8> {
    frame([IPV4, IPV6][family], packet)
}

/// A packet without anything unusual about its header.
fn packet(family: usize, way: Way, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match family {
        0 => ip_v4(way, protocol, (1, 0), &[], payload),
        _ => ip_v6(way, protocol, payload),
    }
}

/// A SYN or a datagram to a guarded port.
fn wanted(way: Way, protocol: u8, from: u16) -> Vec<u8> {
    let bytes = match protocol {
        TCP => bare(from, GUARDED, SYN),
        _ => datagram(from, GUARDED_UDP, b"hello", 0),
    };
    summed(way, protocol, bytes)
}

#[derive(Default)]
struct Tricks(Vec<Trick>);

impl Tricks {
    fn all() -> Self {
        let mut tricks = Self::default();
        tricks.flags();
        tricks.headers();
        for protocol in [TCP, UDP] {
            tricks.fragments(protocol);
            tricks.extensions(protocol);
            tricks.links(protocol);
            tricks.addresses(protocol);
            tricks.tunnels(protocol);
        }
        tricks.datagrams();
        tricks
    }

    fn add(&mut self, name: String, frames: impl FnOnce(u16) -> Vec<Vec<u8>>) {
        let from = FIRST + u16::try_from(self.0.len()).expect("some hundreds");
        let frames = frames(from);
        self.0.push(Trick { name, frames });
    }

    /// A single packet of the usual way.
    fn one(&mut self, name: String, family: usize, bytes: impl FnOnce(u16) -> (u8, Vec<u8>)) {
        self.add(name, |from| {
            let (protocol, bytes) = bytes(from);
            vec![framed(
                family,
                &packet(family, usual(family), protocol, &bytes),
            )]
        });
    }

    fn flags(&mut self) {
        for family in [0, 1] {
            for flags in 0..=u8::MAX {
                if flags & SYN != 0 || flags & (ACK | RST) == 0 {
                    self.one(format!("flags {flags:#x}, family {family}"), family, |p| {
                        (TCP, segment(family, p, GUARDED, flags))
                    });
                }
            }
            for flags in [
                0, 1, 4, 8, 0x10, 0x12, 0x18, 0x20, 0x29, 0x3f, 0x40, 0x80, 0xff,
            ] {
                self.add(
                    format!("flags {flags:#x} and a SYN, family {family}"),
                    |p| {
                        let sent = [flags, SYN, flags, SYN].map(|f| segment(family, p, GUARDED, f));
                        let sent = sent.map(|s| packet(family, usual(family), TCP, &s));
                        sent.map(|packet| framed(family, &packet)).to_vec()
                    },
                );
            }
        }
    }

    fn headers(&mut self) {
        for family in [0, 1] {
            let mut add = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
                self.one(format!("{name}, family {family}"), family, |p| {
                    let mut bytes = bare(p, GUARDED, SYN);
                    change(&mut bytes);
                    (TCP, summed(usual(family), TCP, bytes))
                });
            };
            for reserved in 1..16 {
                add(&format!("reserved bits {reserved:#x}"), &|s| {
                    s[12] |= reserved;
                });
            }
            for words in [0, 4, 6, 15] {
                add(&format!("a header of {words} words, as it says"), &|s| {
                    s[12] = words << 4;
                });
            }
            add("data", &|s| s.extend([b'x'; 100]));
            add("the longest header", &|s| {
                s[12] = 15 << 4;
                s.extend([1; 40]);
            });
            // RFC 7413: a request of a cookie, and one that is made up.
            add("fast open, first", &|s| {
                s[12] = 6 << 4;
                s.extend([34, 2, 1, 1]);
                s.extend(b"hello");
            });
            add("fast open, again", &|s| {
                s[12] = 8 << 4;
                s.extend([34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]);
                s.extend(b"hello");
            });
        }
        let IpAddr::V4(server) = ip(SERVER[0]) else {
            unreachable!("the first is IPv4");
        };
        let [a, b, c, d] = server.octets();
        // RFC 791, section 3.1.
        let mut chosen = vec![
            ("loose source route", vec![131, 7, 4, a, b, c, d, 0]),
            ("strict source route", vec![137, 7, 4, a, b, c, d, 0]),
            ("router alert", vec![148, 4, 0, 0]),
        ];
        chosen.extend((1..=10).map(|words| ("blank options", vec![1; 4 * words])));
        for (name, options) in chosen {
            self.add(format!("{name} of {} bytes", options.len()), |p| {
                let syn = segment(0, p, GUARDED, SYN);
                vec![framed(0, &ip_v4(usual(0), TCP, (1, 0), &options, &syn))]
            });
        }
        for class in [1, 2, 3, 0x10, 0xe0_u8] {
            self.add(format!("traffic class {class:#x}"), |p| {
                let mut packet = ip_v6(usual(1), TCP, &segment(1, p, GUARDED, SYN));
                packet[0] |= class >> 4;
                packet[1] |= class << 4;
                vec![framed(1, &packet)]
            });
        }
    }

    fn fragments(&mut self, protocol: u8) {
        for family in [0, 1] {
            for size in [8, 16, 24, 32] {
                for order in ["in order", "reversed", "each twice"] {
                    let name =
                        format!("pieces of {size} {order}, protocol {protocol}, family {family}");
                    self.add(name, |p| {
                        let mut bytes = match protocol {
                            TCP => bare(p, GUARDED, SYN),
                            _ => datagram(p, GUARDED_UDP, &[b'x'; 40], 0),
                        };
                        if protocol == TCP {
                            bytes.extend([b'x'; 40]);
                        }
                        let whole = summed(usual(family), protocol, bytes);
                        let mut pieces = pieces(family, protocol, (p, size), &whole);
                        match order {
                            "reversed" => pieces.reverse(),
                            "each twice" => {
                                pieces = pieces.into_iter().flat_map(|p| [p.clone(), p]).collect();
                            }
                            _ => {}
                        }
                        pieces
                    });
                }
            }
        }
    }

    fn extensions(&mut self, protocol: u8) {
        let target = match ip(SERVER[1]) {
            IpAddr::V6(address) => address.octets(),
            IpAddr::V4(_) => unreachable!("the second is IPv6"),
        };
        // The kind of each header; all but the last name the next one.
        let route = |kind: u8, left: u8, hops: u8| {
            move |next: u8| {
                let mut out = vec![next, 2 * hops, kind, left, 0, 0, 0, 0];
                (0..hops).for_each(|_| out.extend(target));
                out
            }
        };
        type Make = Box<dyn Fn(u8) -> Vec<u8>>;
        let plain = |next: u8| options(next, 0);
        let whole = |next: u8| piece(9, next, 0, false, &[]);
        let mobile = move |next: u8| {
            // RFC 6275, section 6.3: a home address, behind padding.
            let mut out = vec![next, 2, 1, 2, 0, 0, 0xc9, 16];
            out.extend(target);
            out
        };
        let authentic = |next: u8| [&[next, 4, 0, 0][..], &[0; 20]].concat();
        let alert = |next: u8| vec![next, 0, 5, 2, 0, 0, 1, 0];
        let jumbo = |next: u8| vec![next, 0, 0xc2, 4, 0, 1, 0x11, 0x70];
        let many = |n: usize| -> Vec<(u8, Make)> {
            let one = || -> (u8, Make) { (DESTINATION, Box::new(plain)) };
            std::iter::repeat_with(one).take(n).collect()
        };
        let chains: Vec<(&str, Vec<(u8, Make)>)> = vec![
            ("hop-by-hop", vec![(HOP_BY_HOP, Box::new(plain))]),
            ("router alert", vec![(HOP_BY_HOP, Box::new(alert))]),
            ("jumbo", vec![(HOP_BY_HOP, Box::new(jumbo))]),
            (
                "hop-by-hop, destination",
                vec![
                    (HOP_BY_HOP, Box::new(plain)),
                    (DESTINATION, Box::new(plain)),
                ],
            ),
            ("destination", many(1)),
            ("7 destination", many(7)),
            ("20 destination", many(20)),
            ("60 destination", many(60)),
            ("home address", vec![(DESTINATION, Box::new(mobile))]),
            ("an only piece", vec![(FRAGMENT, Box::new(whole))]),
            (
                "a piece in a piece",
                vec![(FRAGMENT, Box::new(whole)), (FRAGMENT, Box::new(whole))],
            ),
            (
                "destination around a piece",
                vec![
                    (DESTINATION, Box::new(plain)),
                    (FRAGMENT, Box::new(whole)),
                    (DESTINATION, Box::new(plain)),
                ],
            ),
            ("authentication", vec![(51, Box::new(authentic))]),
            (
                "route 0, none left",
                vec![(ROUTING, Box::new(route(0, 0, 0)))],
            ),
            (
                "route 0, one left",
                vec![(ROUTING, Box::new(route(0, 1, 1)))],
            ),
            (
                "route 2, none left",
                vec![(ROUTING, Box::new(route(2, 0, 1)))],
            ),
            (
                "route 4, none left",
                vec![(ROUTING, Box::new(route(4, 0, 1)))],
            ),
            (
                "route 4, one left",
                vec![(ROUTING, Box::new(route(4, 1, 2)))],
            ),
        ];
        for (name, chain) in chains {
            self.add(format!("{name}, protocol {protocol}"), |p| {
                let mut next = protocol;
                let mut bytes = wanted(usual(1), protocol, p);
                for (kind, make) in chain.iter().rev() {
                    bytes = [make(next), bytes].concat();
                    next = *kind;
                }
                vec![framed(1, &ip_v6(usual(1), next, &bytes))]
            });
        }
    }

    fn links(&mut self, protocol: u8) {
        for family in [0, 1] {
            let kind = [IPV4, IPV6][family];
            let packet = |p| {
                packet(
                    family,
                    usual(family),
                    protocol,
                    &wanted(usual(family), protocol, p),
                )
            };
            for (name, tags) in [
                ("VLAN 0", &[[0x81, 0, 0, 0]][..]),
                ("VLAN 0 twice", &[[0x81, 0, 0, 0]; 2]),
                ("VLAN 5", &[[0x81, 0, 0, 5]]),
                ("a stacked VLAN", &[[0x88, 0xa8, 0, 5], [0x81, 0, 0, 0]]),
            ] {
                let name = format!("{name}, protocol {protocol}, family {family}");
                self.add(name, |p| {
                    let tagged = [&tags.concat(), &kind[..], &packet(p)].concat();
                    let (outer, rest) = tagged.split_at(2);
                    vec![frame([outer[0], outer[1]], rest)]
                });
            }
            for group in [
                "ff:ff:ff:ff:ff:ff",
                "33:33:00:00:00:01",
                "01:00:5e:00:00:01",
            ] {
                let name = format!("to {group}, protocol {protocol}, family {family}");
                self.add(name, |p| {
                    let mut frame = frame(kind, &packet(p));
                    frame[..6].copy_from_slice(&mac(group));
                    vec![frame]
                });
            }
        }
    }

    fn addresses(&mut self, protocol: u8) {
        let four = [
            "127.0.0.1",
            "0.0.0.0",
            "192.0.2.0",
            "192.0.2.255",
            "255.255.255.255",
            "224.0.0.1",
            SERVER[0],
        ];
        let six = [
            "::",
            "::1",
            "ff01::1",
            "ff02::1",
            "fe80::1",
            "::192.0.2.77",
            "::ffff:127.0.0.1",
            "::ffff:192.0.2.1",
            SERVER[1],
        ];
        for (family, addresses) in [(0, &four[..]), (1, &six)] {
            let Way(client, server) = usual(family);
            for address in addresses {
                for (what, way) in [
                    ("from", Way(ip(address), server)),
                    ("to", Way(client, ip(address))),
                ] {
                    for hardware in ["the server", "all"] {
                        let name = format!("{what} {address} at {hardware}, protocol {protocol}");
                        self.add(name, |p| {
                            let bytes = wanted(way, protocol, p);
                            let mut frame = framed(family, &packet(family, way, protocol, &bytes));
                            if hardware == "all" {
                                frame[..6].copy_from_slice(&[0xff; 6]);
                            }
                            vec![frame]
                        });
                    }
                }
            }
        }
    }

    fn tunnels(&mut self, protocol: u8) {
        // IANA's protocol numbers: 4 and 41 are packets of either family, 47 is GRE.
        for (outer, carrier) in [(0, 4), (0, 41), (0, 47), (1, 4), (1, 41), (1, 47)] {
            let name = format!("in {carrier} of family {outer}, protocol {protocol}");
            self.one(name, outer, |p| {
                let family = usize::from(carrier == 41);
                let way = usual(family);
                let inner = packet(family, way, protocol, &wanted(way, protocol, p));
                match carrier {
                    47 => (47, [&[0, 0, 8, 0][..], &inner].concat()),
                    _ => (carrier, inner),
                }
            });
        }
    }

    fn datagrams(&mut self) {
        for family in [0, 1] {
            let way = usual(family);
            for (name, off) in [("short by its field", 5), ("empty by its field", 8)] {
                self.one(format!("{name}, family {family}"), family, |p| {
                    let bytes = datagram(p, GUARDED_UDP, b"hello", off);
                    (UDP, summed(way, UDP, bytes))
                });
            }
            self.one(format!("no checksum, family {family}"), family, |p| {
                (UDP, datagram(p, GUARDED_UDP, b"hello", 0))
            });
            // UDP-Lite (RFC 3828).
            self.one(format!("UDP-Lite, family {family}"), family, |p| {
                (136, summed(way, 136, datagram(p, GUARDED_UDP, b"hello", 0)))
            });
            self.add(format!("fifty times, family {family}"), |p| {
                let one = packet(family, way, UDP, &wanted(way, UDP, p));
                vec![framed(family, &one); 50]
            });
        }
    }
}

/// A packet in pieces of this size.
fn pieces(family: usize, protocol: u8, (id, size): (u16, usize), whole: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (number, bytes) in whole.chunks(size).enumerate() {
        let offset = u16::try_from(number * size).expect("short");
        let more = usize::from(offset) + bytes.len() < whole.len();
        let packet = match family {
            0 => {
                let place = (offset / 8) | if more { 0x2000 } else { 0 };
                ip_v4(usual(0), protocol, (id, place), &[], bytes)
            }
            _ => ip_v6(
                usual(1),
                FRAGMENT,
                &piece(id, protocol, offset, more, bytes),
            ),
        };
        out.push(framed(family, &packet));
    }
    out
}

/// The client's ports in a set of the probe.
fn noted(host: &Namespace, set: &str) -> BTreeSet<u16> {
    let text = host.run(&format!("nft --json --numeric list set inet probe {set}"));
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sets = list["nftables"].as_array().expect("a list");
    let elements = sets.iter().filter_map(|one| one["set"]["elem"].as_array());
    let ports = elements.flatten().filter_map(serde_json::Value::as_u64);
    ports
        .map(|port| u16::try_from(port).expect("a port"))
        .collect()
}

#[test]
fn no_trick_gets_past_the_guard() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let _echo = [lab.server.echo(GUARDED), lab.server.echo(FREE)];
    let mut agent = Agent::start(&lab.server, &path);
    lab.server.nft(PROBE);
    for (client, server) in CLIENT.into_iter().zip(SERVER) {
        // Both ends know each other's hardware addresses before anything is sent.
        let session = lab.client.connect(ip(client), (ip(server), FREE), SOON);
        session.expect_connected();
    }
    let wire = lab.client.frames("eth0");
    let tricks = Tricks::all().0;
    assert!(tricks.len() > 520, "{}", tricks.len());
    // The last packet on the wire is answered last.
    let send = |last: u16| {
        for frame in tricks.iter().flat_map(|trick| &trick.frames) {
            wire.send(frame).expect("a wire");
        }
        for family in [0, 1] {
            let syn = segment(family, last, FREE, SYN);
            wire.send(&framed(family, &packet(family, usual(family), TCP, &syn)))
                .expect("a wire");
            let name = "the last SYN to be answered";
            wait_until(name, || noted(&lab.server, "answered").remove(&last));
            lab.server
                .nft(&format!("delete element inet probe answered {{ {last} }}"));
        }
    };
    let named = |ports: &BTreeSet<u16>| -> Vec<&str> {
        let of = |port: &u16| tricks.get(usize::from(port.checked_sub(FIRST)?));
        let found = ports.iter().filter_map(of);
        found.map(|trick| trick.name.as_str()).collect()
    };
    send(60_001);
    for set in ["passed", "answered"] {
        let got_past = noted(&lab.server, set);
        assert!(named(&got_past).is_empty(), "{set}: {:?}", named(&got_past));
    }
    // Most of them are good packets: with an opening they arrive.
    for client in CLIENT {
        agent.order(open("ssh", client, "22/tcp,8050/udp", hours(1)));
    }
    send(60_002);
    let passed = noted(&lab.server, "passed");
    println!("{} tricks, {} of them good", tricks.len(), passed.len());
    assert!(
        named(&passed).len() > tricks.len() / 3,
        "{:?}",
        named(&passed)
    );
}
