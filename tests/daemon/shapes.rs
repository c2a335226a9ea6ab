//! SYNs in odd shapes: whatever the kernel would take for one, the guard does too.

use etherparse::{SlicedPacket, TcpHeader, TransportSlice};
use socket2::Socket;

use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::{CLIENT, Lab, SERVER, ip, wait_for};
use crate::wire::{IPV4, IPV6, frame};

/// A SYN to `port`, with data to cut it in pieces by. The number is its source port and
/// the identification of its fragments.
#[derive(Clone, Copy)]
struct Syn {
    port: u16,
    number: u16,
}

/// The frames in which a SYN may come.
type Shape = fn(Syn) -> Vec<Vec<u8>>;

/// Each is answered by Linux if nobody is in the way.
const SHAPES: [(&str, Shape); 9] = [
    ("IPv4", |syn| vec![syn.four(0, SEGMENT)]),
    ("IPv4 in fragments", |syn| {
        vec![syn.four(0, 24), syn.four(24, SEGMENT)]
    }),
    ("IPv4 in fragments, cut before the flags", |syn| {
        vec![syn.four(0, 8), syn.four(8, SEGMENT)]
    }),
    ("IPv4 in fragments, the last first", |syn| {
        vec![syn.four(8, SEGMENT), syn.four(0, 8)]
    }),
    ("IPv6", |syn| vec![syn.six(&[])]),
    ("IPv6 with extension headers", |syn| {
        vec![syn.six(&[HOP_BY_HOP, DESTINATION, DESTINATION])]
    }),
    ("IPv6 with a fragment header, whole", |syn| {
        vec![syn.six_piece(0, SEGMENT)]
    }),
    ("IPv6 in fragments", |syn| {
        vec![syn.six_piece(0, 24), syn.six_piece(24, SEGMENT)]
    }),
    ("IPv6 in fragments, the last first", |syn| {
        vec![syn.six_piece(24, SEGMENT), syn.six_piece(0, 24)]
    }),
];

/// Protocol numbers (IANA).
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The length of a SYN in TCP, its data with it.
const SEGMENT: usize = 64;

impl Syn {
    fn header(self) -> TcpHeader {
        let mut header = TcpHeader::new(self.number, self.port, 1, 1024);
        header.syn = true;
        header
    }

    fn segment(self, checksum: u16) -> Vec<u8> {
        let mut header = self.header();
        header.checksum = checksum;
        [&header.to_bytes()[..], &[0; 44]].concat()
    }

    /// The bytes from `start` to `end` of the segment in a packet of IPv4 (RFC 791, 3.1).
    fn four(self, start: usize, end: usize) -> Vec<u8> {
        let octets = |text: &str| -> [u8; 4] {
            let address: std::net::Ipv4Addr = text.parse().expect("an address");
            address.octets()
        };
        let (from, to) = (octets(CLIENT[0]), octets(SERVER[0]));
        let checksum = self.header().calc_checksum_ipv4_raw(from, to, &[0; 44]);
        let piece = &self.segment(checksum.expect("a short segment"))[start..end];
        let length = u16::try_from(piece.len()).expect("a short segment");
        let mut header =
            etherparse::Ipv4Header::new(length, 64, TCP.into(), from, to).expect("a short packet");
        header.dont_fragment = false;
        header.identification = self.number;
        header.more_fragments = end < SEGMENT;
        header.fragment_offset = u16::try_from(start / 8)
            .ok()
            .and_then(|units| units.try_into().ok())
            .expect("a short segment");
        header.header_checksum = header.calc_header_checksum();
        frame(IPV4, &[&header.to_bytes()[..], piece].concat())
    }

    fn six_segment(self) -> Vec<u8> {
        let (from, to) = six_addresses();
        let checksum = self.header().calc_checksum_ipv6_raw(from, to, &[0; 44]);
        self.segment(checksum.expect("a short segment"))
    }

    /// In a packet of IPv6 (RFC 8200) behind these extension headers, each eight bytes
    /// that say nothing.
    fn six(self, headers: &[u8]) -> Vec<u8> {
        let next = headers.iter().skip(1).chain([&TCP]);
        let headers_bytes: Vec<u8> = headers
            .iter()
            .zip(next)
            .flat_map(|(_, next)| [*next, 0, 1, 4, 0, 0, 0, 0])
            .collect();
        let first = headers.first().copied().unwrap_or(TCP);
        six_frame(first, &[headers_bytes, self.six_segment()].concat())
    }

    /// The bytes from `start` to `end` of the segment behind a fragment header.
    fn six_piece(self, start: usize, end: usize) -> Vec<u8> {
        self.fragment(TCP, &self.six_segment(), start, end)
    }

    /// A part of what begins with a header of protocol `next` (RFC 8200, 4.5).
    fn fragment(self, next: u8, whole: &[u8], start: usize, end: usize) -> Vec<u8> {
        let more = u16::from(end < whole.len());
        let place = (u16::try_from(start).expect("a short segment") | more).to_be_bytes();
        let number = u32::from(self.number).to_be_bytes();
        let header = [&[next, 0][..], &place, &number].concat();
        six_frame(FRAGMENT, &[&header, &whole[start..end]].concat())
    }
}

fn six_addresses() -> ([u8; 16], [u8; 16]) {
    let octets = |text: &str| -> [u8; 16] {
        let address: std::net::Ipv6Addr = text.parse().expect("an address");
        address.octets()
    };
    (octets(CLIENT[1]), octets(SERVER[1]))
}

fn six_frame(next: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = six_addresses();
    let header = etherparse::Ipv6Header {
        payload_length: u16::try_from(payload.len()).expect("a short packet"),
        next_header: next.into(),
        hop_limit: 64,
        source,
        destination,
        ..Default::default()
    };
    frame(IPV6, &[&header.to_bytes()[..], payload].concat())
}

/// The source and the destination port of an answer.
fn ports(answer: &[u8]) -> (u16, u16) {
    let packet = SlicedPacket::from_ethernet(answer).expect("a whole packet");
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        other => panic!("no TCP: {other:?}"),
    }
}

fn send(socket: &Socket, frames: &[Vec<u8>]) {
    for frame in frames {
        let sent = socket.send(frame).expect("the interface is up");
        assert_eq!(sent, frame.len());
    }
}

/// What tcpdump is to see: the server's answers from the guarded port, and from one that
/// is not, where nobody listens.
const ANSWERS: &str = "tcp and (src port 22 or src port 23) or \
                       ip6 and tcp and (src port 22 or src port 23)";

fn no_syn_gets_past(configuration: &str) {
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, configuration);
    let mut daemon = site.start("");
    let answers = lab.capture(&lab.client, "eth0", ANSWERS);
    let socket = lab.client.frames("eth0");
    // Of each number one SYN only: what is left of a fragmented one waits for more of it.
    for (number, (name, shape)) in (10_000..).zip(SHAPES) {
        send(&socket, &shape(Syn { port: 22, number }));
        // The answer to what comes after tells that there was none to what came before.
        let number = number + 10_000;
        send(&socket, &shape(Syn { port: 23, number }));
        let seen = wait_for(&format!("an answer to {name}"), || {
            let seen: Vec<_> = answers.so_far().iter().map(|a| ports(a)).collect();
            seen.iter().any(|(_, to)| *to == number).then_some(seen)
        });
        assert!(seen.iter().all(|(from, _)| *from == 23), "{name}: {seen:?}");
    }
    // The same with the door open: it was the guard that stood in the way.
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        knock(&lab, server, OPEN_SSH);
        daemon.wait_for_line(&format!("{own}: ssh: opened 22/tcp"));
    }
    for (number, (name, shape)) in (30_000..).zip(SHAPES) {
        send(&socket, &shape(Syn { port: 22, number }));
        wait_for(&format!("an answer to {name}"), || {
            let seen = answers.so_far();
            seen.iter().any(|a| ports(a) == (22, number)).then_some(())
        });
    }
}

#[test]
fn no_shape_of_syn_gets_past() {
    no_syn_gets_past(SSH);
}

/// A guarded UDP port wants connections tracked, and then fragments are put together
/// before the guard sees them.
#[test]
fn no_shape_of_syn_gets_past_where_connections_are_tracked() {
    no_syn_gets_past(&SSH.replace("[\"22/tcp\"]", "[\"22/tcp\", \"5353/udp\"]"));
}

/// Not even the port is in the first fragment. Linux discards such by itself since 5.11
/// (RFC 8200, 4.5); the guard must not be what lets it in where Linux does not.
#[test]
fn no_syn_gets_past_behind_a_chain_of_headers_that_is_cut() {
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    let answers = lab.capture(&lab.client, "eth0", ANSWERS);
    let hidden = Syn {
        port: 22,
        number: 20_000,
    };
    let header = [TCP, 0, 1, 4, 0, 0, 0, 0];
    let whole = [&header[..], &hidden.six_segment()].concat();
    let last = Syn {
        port: 23,
        number: 20_001,
    };
    let frames = [
        hidden.fragment(DESTINATION, &whole, 0, 8),
        hidden.fragment(DESTINATION, &whole, 8, whole.len()),
        last.six(&[]),
    ];
    send(&lab.client.frames("eth0"), &frames);
    assert_eq!(ports(&answers.wait_for(1)[0]), (23, 20_001));
}

/// Fragments after the first bear no port, and pass.
#[test]
fn long_datagrams_to_other_ports_arrive() {
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
