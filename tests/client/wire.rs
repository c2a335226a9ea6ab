//! What our client sends is what the client of knock 0.8 sends for the same arguments.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::support::{Lab, OTHER, SERVER, ancestor, capture, ip, wait_for};

const OURS: &str = env!("CARGO_BIN_EXE_knock");

/// What must be equal in a packet of either client. What the kernel draws at random or
/// counts (source port, sequence number, time stamp, identification) is left out.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    destination: SocketAddr,
    hop_limit: u8,
    tcp: Option<Tcp>,
    payload: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tcp {
    flags: u8,
    window: u16,
    options: usize,
}

impl Packet {
    /// `None` for what is neither TCP nor UDP: neighbours may ask for each other any time.
    fn parse(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).expect("a whole packet");
        let (address, hop_limit): (IpAddr, u8) = match packet.net? {
            NetSlice::Ipv4(four) => {
                let header = four.header();
                (header.destination_addr().into(), header.ttl())
            }
            NetSlice::Ipv6(six) => {
                let header = six.header();
                (header.destination_addr().into(), header.hop_limit())
            }
            NetSlice::Arp(_) => return None,
        };
        let (port, tcp, payload) = match packet.transport? {
            TransportSlice::Tcp(tcp) => {
                let header = Tcp {
                    flags: tcp.slice()[13],
                    window: tcp.window_size(),
                    options: tcp.options().len(),
                };
                (tcp.destination_port(), Some(header), tcp.payload())
            }
            TransportSlice::Udp(udp) => (udp.destination_port(), None, udp.payload()),
            TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => {
                return None;
            }
        };
        Some(Self {
            destination: (address, port).into(),
            hop_limit,
            tcp,
            payload: payload.to_vec(),
        })
    }
}

/// Runs one client, and gives what it said and what it sent, and nothing after that.
fn send(lab: &Lab, program: &Path, arguments: &str) -> (Output, Vec<Packet>) {
    let seen = lab.capture(&lab.server, "eth0", "dst host 192.0.2.1 or 2001:db8::1");
    let output = lab
        .client
        .command(program)
        .args(arguments.split_whitespace())
        .output()
        .expect("the client");
    // No socket is left that could send a SYN again (02: SYN-SENT, proc_net_tcp).
    for table in ["tcp", "tcp6"] {
        let sockets = lab.client.run(&format!("cat /proc/net/{table}"));
        assert_eq!(sockets.lines().count(), 1, "{arguments}: {sockets}");
    }
    // Whatever was sent before this has been captured when this has.
    let last = lab.client.udp(ip(OTHER[0]), 0);
    last.send_to(b"the end", (SERVER[0], 1)).expect("a wire");
    let packets = wait_for("the last packet", || {
        let frames = seen.wait_for(1);
        let mut packets: Vec<_> = frames.iter().filter_map(|f| Packet::parse(f)).collect();
        let end = packets.iter().position(|p| p.payload == b"the end")?;
        packets.truncate(end);
        Some(packets)
    });
    (output, packets)
}

#[test]
fn the_packets_and_words_are_those_of_knock_0_8() {
    needs!(Laboratory, Knock08, Tool("tcpdump"));
    let lab = Lab::new();
    // One port answers, so that a connection that stands is compared too.
    let _echo = lab.server.echo(9000);
    let theirs = ancestor::knock();
    for (arguments, packets) in [
        ("-v 192.0.2.1 7000 8000:udp 7500:tcp", 3),
        ("-v -u 192.0.2.1 7001 7002:tcp 7003:udp", 3),
        ("-v 2001:db8::1 7004 7005:udp", 2),
        ("-v -4 192.0.2.1 7006 7006 7006", 3),
        ("-vu6d5 2001:db8::1 7007 7008", 2),
        ("192.0.2.1 7009 --udp 7010 --delay 5 --verb", 2),
    ] {
        let (told, sent) = send(&lab, OURS.as_ref(), arguments);
        let (their_word, their_packets) = send(&lab, &theirs, arguments);
        assert_eq!(sent, their_packets, "{arguments}");
        assert_eq!(sent.len(), packets, "{arguments}: {sent:?}");
        assert_eq!(told.stdout, their_word.stdout, "{arguments}");
        assert!(told.status.success() && their_word.status.success());
        assert_eq!(told.stderr, b"");
    }
}

/// A name whose first address is dead, as IPv6 is in many a place.
#[test]
fn every_address_of_a_name_gets_every_step_in_order() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    let hosts = lab.write(
        "hosts",
        "2001:db8::dead both\n2001:db8:1::1 both\n2001:db8::1 both\n192.0.2.1 both\n",
    );
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let steps = ["7000", "8000:UDP", "9000:tcp"];
    for (flags, reached, told) in [
        ("-v", 2, &["2001:db8::dead", "2001:db8::1", "192.0.2.1"][..]),
        ("-v6", 1, &["2001:db8::dead", "2001:db8::1"]),
        ("-v4", 1, &["192.0.2.1"]),
    ] {
        let seen = lab.capture(&lab.server, "eth0", "dst host 192.0.2.1 or 2001:db8::1");
        let mut command = lab.client.command("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&hosts);
        command.args([OURS, flags, "both"]).args(steps);
        let output = command.output().expect("unshare");
        assert!(output.status.success(), "{output:?}");
        // To 2001:db8:1::1 there is no way: it is tried once.
        let no_way = output.stderr.split(|b| *b == b'\n').count() - 1;
        assert_eq!(no_way, usize::from(flags != "-v4"), "{output:?}");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        for step in ["tcp ADDRESS:7000", "udp ADDRESS:8000", "tcp ADDRESS:9000"] {
            for address in told {
                let line = format!("hitting {}", step.replace("ADDRESS", address));
                assert!(lines.lines().any(|l| l == line), "{line}: {lines}");
            }
        }
        let packets = wait_for("the packets", || {
            let frames = seen.wait_for(3 * reached);
            let packets: Vec<_> = frames.iter().filter_map(|f| Packet::parse(f)).collect();
            (packets.len() == 3 * reached).then_some(packets)
        });
        let ports: Vec<_> = packets.iter().map(|p| p.destination.port()).collect();
        let right: Vec<_> = [7000, 8000, 9000].map(|port| vec![port; reached]).concat();
        assert_eq!(ports, right, "{packets:?}");
    }
}

#[test]
fn an_address_may_stand_in_brackets_and_keeps_its_interface() {
    needs!(Laboratory, Knock08, Tool("tcpdump"));
    let lab = Lab::new();
    let theirs = ancestor::knock();
    for (ours, bare) in [
        ("-v [2001:db8::1] 7000", "-v 2001:db8::1 7000"),
        ("-v [fe80::7%eth0] 7000", "-v fe80::7%eth0 7000"),
        (
            "-v fe80::7%eth0 7000 8000:udp",
            "-v fe80::7%eth0 7000 8000:udp",
        ),
    ] {
        let (told, _) = send(&lab, OURS.as_ref(), ours);
        let (their_word, _) = send(&lab, &theirs, bare);
        assert!(told.status.success(), "{told:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&told.stdout), text(&their_word.stdout), "{ours}");
    }
}

#[test]
fn a_tcp_hit_is_one_syn_and_a_udp_hit_one_zero_byte() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    // Nobody answers: the case in which an honest connect would try again.
    lab.server
        .nft("table inet t { chain c { type filter hook prerouting priority 0; policy drop; }; }");
    lab.server
        .nft("add rule inet t c icmpv6 type nd-neighbor-solicit accept");
    for address in SERVER {
        let (output, sent) = send(&lab, OURS.as_ref(), &format!("{address} 7000 8000:udp"));
        assert!(output.status.success(), "{output:?}");
        let [tcp, udp] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!(
            tcp.tcp.as_ref().map(|tcp| tcp.flags),
            Some(0x02),
            "{sent:?}"
        );
        assert_eq!((&udp.tcp, &udp.payload[..]), (&None, &[0][..]), "{sent:?}");
    }
}

#[test]
fn a_fault_anywhere_on_the_line_and_nothing_is_sent() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    for (arguments, said) in [
        ("192.0.2.1", "Usage: knock"),
        ("", "Usage: knock"),
        ("192.0.2.1 7000 0", "`0` is no port"),
        ("192.0.2.1 7000 65536/udp", "`65536` is no port"),
        ("192.0.2.1 7000 8000:icmp", "unknown protocol `icmp`"),
        ("-6 192.0.2.1 7000", "`192.0.2.1` has no IPv6 address"),
        (
            "nobody.invalid 7000",
            "cannot find the address of `nobody.invalid`",
        ),
    ] {
        let (output, sent) = send(&lab, OURS.as_ref(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{arguments}: {stderr}");
        assert_eq!(output.stdout, b"", "{arguments}");
        assert_eq!(sent, [], "{arguments}");
    }
}

#[test]
fn what_this_machine_cannot_send_is_a_fault() {
    needs!(Laboratory);
    let lab = Lab::new();
    let knock = |address: &str| {
        let output = lab.client.command(OURS).args([address, "7000"]).output();
        let output = output.expect("the client");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = knock("203.0.113.9");
    assert!(error.starts_with("knock: cannot hit tcp 203.0.113.9:7000: Network is unreachable"));
    let error = knock("2001:db8:1::9");
    assert!(
        error.starts_with("knock: cannot hit tcp [2001:db8:1::9]:7000: "),
        "{error}"
    );
}

#[test]
fn the_delay_stands_between_hits_and_not_after_the_last() {
    needs!(Laboratory);
    let lab = Lab::new();
    let run = |ports: &[&str]| {
        let mut command = lab.client.command(OURS);
        command.args(["-d", "400", SERVER[0]]).args(ports);
        let start = Instant::now();
        assert!(command.status().expect("the client").success());
        start.elapsed()
    };
    assert!(run(&["7000"]) < Duration::from_millis(400));
    assert!(run(&["7000", "8000", "9000"]) >= Duration::from_millis(800));
}

#[test]
fn help_and_version_are_no_faults() {
    for (flag, said) in [
        ("-h", "Usage: knock"),
        ("--help", "Usage: knock"),
        ("-V", "knock "),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let output = std::process::Command::new(OURS).arg(flag).output();
        let output = output.expect("the client");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(said));
    }
}

/// The recorded packets of knock 0.8 are what the other tests' captures are made of.
#[test]
fn the_recorded_knock_is_what_is_sent_today() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/clients");
    for (file, arguments) in [
        ("knock-tcp.pcap", "192.0.2.1 7000 8000 9000"),
        ("knock-mixed.pcap", "192.0.2.1 2222:udp 3333 4444:udp"),
        ("knock-v6.pcap", "2001:db8::1 7000 8000 9000"),
    ] {
        let (_, sent) = send(&lab, OURS.as_ref(), arguments);
        let steps = |packets: &[Packet]| -> Vec<_> {
            let packets = packets.iter();
            packets.map(|p| (p.destination, p.tcp.is_some())).collect()
        };
        let frames = capture::read(&recorded.join(file));
        let recorded: Vec<_> = frames.iter().filter_map(|f| Packet::parse(f)).collect();
        assert_eq!(steps(&sent), steps(&recorded), "{file}");
    }
}
