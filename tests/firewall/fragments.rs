//! A SYN in pieces, or behind extension headers, is a SYN: none gets past the guard.
//!
//! A guard for TCP alone sees fragments as they come; one for a UDP port switches conntrack
//! on, which puts them together first. Both are tried.

use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::agent::{Agent, hours, open};
use crate::packets::{
    ACK, DESTINATION, FRAGMENT, FREE, GUARDED, HOP_BY_HOP, SYN, TCP, four, options, piece, segment,
    six,
};
use crate::support::frame::{IPV4, IPV6, frame};
use crate::support::{CLIENT, Lab, SERVER, SILENCE, SOON, ip};

/// A way to send a SYN.
struct Case {
    name: &'static str,
    /// Whether Linux takes it: where not, the guard has nothing to do.
    arrives: bool,
    /// The packets, given the source port.
    packets: fn(u16) -> Vec<Vec<u8>>,
}

const FOUR: &[Case] = &[
    Case {
        name: "whole",
        arrives: true,
        packets: |p| vec![four(p, 0, false, &segment(0, p, GUARDED, SYN))],
    },
    Case {
        name: "cut behind the ports",
        arrives: true,
        packets: |p| {
            let s = segment(0, p, GUARDED, SYN);
            vec![four(p, 0, true, &s[..8]), four(p, 8, false, &s[8..])]
        },
    },
    Case {
        name: "cut behind the flags",
        arrives: true,
        packets: |p| {
            let s = segment(0, p, GUARDED, SYN);
            vec![four(p, 0, true, &s[..16]), four(p, 16, false, &s[16..])]
        },
    },
    Case {
        name: "the last piece first",
        arrives: true,
        packets: |p| {
            let s = segment(0, p, GUARDED, SYN);
            vec![four(p, 8, false, &s[8..]), four(p, 0, true, &s[..8])]
        },
    },
    Case {
        name: "a first piece for a free port, overlapped by one for the guarded",
        arrives: false,
        packets: |p| {
            let (free, s) = (segment(0, p, FREE, SYN), segment(0, p, GUARDED, SYN));
            vec![
                four(p, 0, true, &free[..8]),
                four(p, 0, true, &s[..8]),
                four(p, 8, false, &s[8..]),
            ]
        },
    },
    Case {
        name: "flags that are overlapped by others",
        arrives: false,
        packets: |p| {
            let (ack, s) = (segment(0, p, GUARDED, ACK), segment(0, p, GUARDED, SYN));
            vec![four(p, 0, true, &ack[..16]), four(p, 8, false, &s[8..])]
        },
    },
];

const SIX: &[Case] = &[
    Case {
        name: "whole",
        arrives: true,
        packets: |p| vec![six(TCP, &segment(1, p, GUARDED, SYN))],
    },
    Case {
        name: "hop-by-hop options",
        arrives: true,
        packets: |p| {
            let s = segment(1, p, GUARDED, SYN);
            vec![six(HOP_BY_HOP, &[options(TCP, 0), s].concat())]
        },
    },
    Case {
        name: "long destination options, twice",
        arrives: true,
        packets: |p| {
            let s = segment(1, p, GUARDED, SYN);
            let headers = [options(DESTINATION, 7), options(TCP, 7)].concat();
            vec![six(DESTINATION, &[headers, s].concat())]
        },
    },
    Case {
        name: "a fragment that is the whole",
        arrives: true,
        packets: |p| {
            let s = segment(1, p, GUARDED, SYN);
            vec![six(FRAGMENT, &piece(p, TCP, 0, false, &s))]
        },
    },
    Case {
        // RFC 8200, 4.5: the first piece must hold all headers. Linux sees to it since 5.11.
        name: "cut behind the ports",
        arrives: false,
        packets: |p| {
            let s = segment(1, p, GUARDED, SYN);
            vec![
                six(FRAGMENT, &piece(p, TCP, 0, true, &s[..8])),
                six(FRAGMENT, &piece(p, TCP, 8, false, &s[8..])),
            ]
        },
    },
    Case {
        name: "cut in the options before it",
        arrives: false,
        packets: |p| {
            let all = [options(TCP, 3), segment(1, p, GUARDED, SYN)].concat();
            vec![
                six(FRAGMENT, &piece(p, DESTINATION, 0, true, &all[..16])),
                six(FRAGMENT, &piece(p, DESTINATION, 16, false, &all[16..])),
            ]
        },
    },
    Case {
        name: "cut behind the options before it",
        arrives: false,
        packets: |p| {
            let all = [options(TCP, 1), segment(1, p, GUARDED, SYN)].concat();
            vec![
                six(FRAGMENT, &piece(p, DESTINATION, 0, true, &all[..16])),
                six(FRAGMENT, &piece(p, DESTINATION, 16, false, &all[16..])),
            ]
        },
    },
    Case {
        name: "a first piece for a free port, overlapped by one for the guarded",
        arrives: false,
        packets: |p| {
            let (free, s) = (segment(1, p, FREE, SYN), segment(1, p, GUARDED, SYN));
            vec![
                six(FRAGMENT, &piece(p, TCP, 0, true, &free[..16])),
                six(FRAGMENT, &piece(p, TCP, 0, true, &s[..16])),
                six(FRAGMENT, &piece(p, TCP, 16, false, &s[16..])),
            ]
        },
    },
];

/// Sends what a case says, and tells whether the server answers as to a SYN, in time.
fn answered(
    wire: &Socket,
    ears: &Socket,
    family: usize,
    (case, from): (&Case, u16),
    patience: Duration,
) -> bool {
    let kind = [IPV4, IPV6][family];
    for packet in (case.packets)(from) {
        wire.send(&frame(kind, &packet)).expect("a wire");
    }
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let mut ears = ears;
        let Ok(n) = std::io::Read::read(&mut ears, &mut buffer) else {
            continue;
        };
        // A raw IPv4 socket gives the IP header too, a raw IPv6 socket does not.
        let tcp = &buffer[if family == 0 { 20 } else { 0 }..n];
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        if port(2) == from && port(0) == GUARDED && tcp[13] & (SYN | ACK) == SYN | ACK {
            return true;
        }
    }
    false
}

fn no_syn_gets_past(toml: &str, ports: &str) {
    let lab = Lab::new();
    let path = lab.write(
        "knockd.toml",
        &format!(
            "[firewall]\n[door.ssh]\nsequence = [\"17301/tcp\", \"4022/udp\", \"39855/tcp\"]\nopen = {toml}\n"
        ),
    );
    let _echo = [lab.server.echo(GUARDED), lab.server.echo(FREE)];
    let mut agent = Agent::start(&lab.server, &path);
    let wire = lab.client.frames("eth0");
    let mut from = 40_000;
    for (family, domain, cases) in [(0, Domain::IPV4, FOUR), (1, Domain::IPV6, SIX)] {
        // Both ends know each other's hardware addresses before anything is sent.
        let _ = lab
            .client
            .connect(ip(CLIENT[family]), (ip(SERVER[family]), FREE), SOON);
        let ears = lab.client.socket(domain, Type::RAW, i32::from(TCP));
        ears.set_read_timeout(Some(SILENCE / 10)).expect("a socket");
        for opened in [false, true] {
            if opened {
                agent.order(open("ssh", CLIENT[family], ports, hours(1)));
            }
            for case in cases {
                from += 1;
                let patience = match (opened, case.arrives) {
                    (true, true) => SOON,
                    (false, true) => SILENCE,
                    (_, false) => SILENCE / 2,
                };
                assert_eq!(
                    answered(&wire, &ears, family, (case, from), patience),
                    opened && case.arrives,
                    "{} (family {family}, open {toml}, opened: {opened})",
                    case.name
                );
            }
        }
    }
}

#[test]
fn no_fragmented_syn_gets_past_a_guard_for_tcp_alone() {
    needs!(Laboratory);
    no_syn_gets_past("[\"22/tcp\"]", "22/tcp");
}

#[test]
fn no_fragmented_syn_gets_past_a_guard_that_uses_conntrack() {
    needs!(Laboratory);
    no_syn_gets_past("[\"22/tcp\", \"53/udp\"]", "22/tcp");
}

/// A range is guarded by a rule of its own.
#[test]
fn no_fragmented_syn_gets_past_a_guarded_range() {
    needs!(Laboratory);
    no_syn_gets_past("[\"20-30/tcp\"]", "20-30/tcp");
}
