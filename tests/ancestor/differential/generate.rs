//! Configurations and packets, drawn at random: many of them good knocks, many nearly so.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::packets::{Kind, Packet, SYN, flag};
use crate::support::{SERVER, ip};

/// A source of numbers, the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True so many times in a hundred.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }
}

/// A port of either protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) udp: bool,
    pub(super) number: u16,
}

impl Port {
    pub(super) fn of(packet: &Packet) -> Self {
        Self {
            udp: packet.kind == Kind::Udp,
            number: packet.port,
        }
    }
}

/// A door of a generated knockd.conf.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) name: String,
    pub(super) sequence: Vec<Port>,
    pub(super) set: u8,
    pub(super) clear: u8,
    pub(super) target: Option<IpAddr>,
    /// Whether there is a stop command.
    pub(super) stops: bool,
    /// The value of `start_command_6`, if there is one.
    six: Option<&'static str>,
}

/// The step of the door that ends a bundle of rounds.
pub(super) const END: Port = Port {
    udp: true,
    number: 61_000,
};

/// From here on to [`END`] are ports that no door uses.
const STRAYS: u16 = 40_000;

/// So many distinct ports set, of the 128 bits in which they are counted, 24 more than the strays
/// that a door forgives, which is seven standard deviations.
const MANY: u16 = 220;

/// Whom doors with a target are for.
const TARGET: &str = "198.51.100.7";

/// Whether this is an address of the server.
pub(super) fn is_own(address: IpAddr) -> bool {
    SERVER.iter().any(|own| ip(own) == address)
}

/// TCP flags as a knockd.conf has them.
const FLAGS: [(&str, u8, u8); 6] = [
    ("", 0, 0),
    ("syn", flag::SYN, 0),
    ("syn", flag::SYN, 0),
    ("syn,!ack", flag::SYN, flag::ACK),
    ("fin,!ack", flag::FIN, flag::ACK),
    ("SYN,urg,!rst", flag::SYN | flag::URG, flag::RST),
];

/// Some doors that share steps and beginnings, and the one that ends a bundle.
pub(super) fn doors(dice: &mut Dice) -> Vec<Door> {
    // Few ports, so that doors meet; all of them below [`STRAYS`].
    let mut pool = Vec::new();
    for i in 0..4 + dice.below(6) {
        pool.push(Port {
            udp: dice.percent(30),
            number: (2_000 + 700 * i + dice.below(400)) as u16,
        });
    }
    let mut doors: Vec<Door> = Vec::new();
    for i in 0..2 + dice.below(5) {
        let mut sequence: Vec<Port> = Vec::new();
        if let Some(other) = doors.get(dice.below(i + 1)) {
            sequence.extend(other.sequence.iter().take(dice.below(3)));
        }
        let length = (1 + dice.below(5)).max(sequence.len() + 1);
        while sequence.len() < length {
            match sequence.last() {
                Some(last) if dice.percent(20) => sequence.push(*last),
                _ => sequence.push(dice.pick(&pool)),
            }
        }
        let (_, set, clear) = dice.pick(&FLAGS);
        doors.push(Door {
            name: format!("d{i}"),
            sequence,
            set,
            clear,
            target: dice.percent(20).then(|| ip(TARGET)),
            stops: dice.percent(30),
            six: dice.pick(&[None, Some(""), Some("six")]),
        });
    }
    doors.push(Door {
        name: "end".to_owned(),
        sequence: vec![END],
        set: 0,
        clear: 0,
        target: None,
        stops: false,
        six: None,
    });
    doors
}

/// The knockd.conf of these doors, whose commands write into `file`.
pub(super) fn configuration(doors: &[Door], file: &Path) -> String {
    let mut text = "[options]\n".to_owned();
    let file = file.display();
    for door in doors {
        let steps: Vec<_> = door
            .sequence
            .iter()
            .map(|s| format!("{}{}", s.number, if s.udp { ":udp" } else { "" }))
            .collect();
        let name = &door.name;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{name}]\n\tsequence = {}", steps.join(","));
        let _ = writeln!(text, "\tseq_timeout = 600");
        let flags = FLAGS.iter().find(|f| (f.1, f.2) == (door.set, door.clear));
        if let Some((words, ..)) = flags.filter(|f| !f.0.is_empty()) {
            let _ = writeln!(text, "\ttcpflags = {words}");
        }
        if let Some(target) = door.target {
            let _ = writeln!(text, "\ttarget = {target}");
        }
        let _ = writeln!(text, "\tstart_command = echo {name} four %IP% >>{file}");
        match door.six {
            None => {}
            Some("") => text.push_str("\tstart_command_6 =\n"),
            Some(word) => {
                let _ = writeln!(text, "\tcommand_6 = echo {name} {word} %IP% >>{file}");
            }
        }
        if door.stops {
            let _ = writeln!(text, "\tcmd_timeout = 1");
            let _ = writeln!(text, "\tstop_command = echo {name} stop %IP% >>{file}");
        }
    }
    text
}

impl Door {
    /// What its commands write in all when it has opened once. What is not started is not
    /// stopped.
    pub(super) fn writes(&self, source: IpAddr) -> Vec<String> {
        let start = match (source, self.six) {
            (IpAddr::V4(_), _) | (IpAddr::V6(_), None) => "four",
            (IpAddr::V6(_), Some("")) => return Vec::new(),
            (IpAddr::V6(_), Some(word)) => word,
        };
        let mut lines = vec![format!("{} {start} {source}", self.name)];
        if self.stops {
            lines.push(format!("{} stop {source}", self.name));
        }
        lines
    }
}

/// Draws the packets of rounds; no source is in two of them.
pub(super) struct Rounds {
    sources: u32,
    serial: u32,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            sources: 0,
            serial: 0,
        }
    }

    /// One source and what it does, or two or three whose packets are shuffled into each
    /// other.
    pub(super) fn round(&mut self, dice: &mut Dice, doors: &[Door]) -> Vec<Packet> {
        let count = dice.pick(&[1, 1, 1, 2, 3]);
        let mut lines: Vec<Vec<Packet>> = (0..count).map(|_| self.source(dice, doors)).collect();
        lines.iter_mut().for_each(|line| line.reverse());
        let mut packets = Vec::new();
        while !lines.is_empty() {
            let chosen = dice.below(lines.len());
            match lines[chosen].pop() {
                Some(packet) => packets.push(packet),
                None => drop(lines.swap_remove(chosen)),
            }
        }
        packets
    }

    /// The packet that ends a bundle, and its source.
    pub(super) fn end(&mut self) -> Packet {
        let from = self.address(false);
        self.packet(from, ip(SERVER[0]), END.number, Kind::Udp)
    }

    fn address(&mut self, six: bool) -> IpAddr {
        self.sources += 1;
        match six {
            false => Ipv4Addr::from_bits(0x0a00_0000 + self.sources).into(),
            true => {
                let prefix: Ipv6Addr = "2001:db8:a::".parse().expect("an address");
                Ipv6Addr::from_bits(prefix.to_bits() + u128::from(self.sources)).into()
            }
        }
    }

    fn packet(&mut self, from: IpAddr, to: IpAddr, port: u16, kind: Kind) -> Packet {
        self.serial += 1;
        Packet {
            from,
            to,
            port,
            kind,
            serial: self.serial,
        }
    }

    /// All that one source does: a knock or two, well or not so well.
    fn source(&mut self, dice: &mut Dice, doors: &[Door]) -> Vec<Packet> {
        let from = self.address(dice.percent(25));
        let mut packets: Vec<Packet> = Vec::new();
        for _ in 0..dice.pick(&[1, 1, 2]) {
            // The last door is no business of theirs.
            let door = dice.pick(&doors[..doors.len() - 1]);
            let clean = dice.percent(60);
            // Broken off, and begun again from the first step.
            let broken = if dice.percent(15) { dice.below(4) } else { 0 };
            for step in door.sequence.iter().take(broken).chain(&door.sequence) {
                if !clean && dice.percent(25) {
                    self.disturb(dice, doors, &door, &mut packets, from);
                }
                if clean || !dice.percent(5) {
                    let to = door.destination(from);
                    let kind = door.kind(dice, *step);
                    packets.push(self.packet(from, to, step.number, kind));
                }
            }
        }
        packets
    }

    /// One thing that goes wrong.
    fn disturb(
        &mut self,
        dice: &mut Dice,
        doors: &[Door],
        door: &Door,
        packets: &mut Vec<Packet>,
        from: IpAddr,
    ) {
        let other = dice.pick(&doors[..doors.len() - 1]);
        let step = dice.pick(&other.sequence);
        let to = door.destination(from);
        let last = packets.last().copied();
        match dice.below(6) {
            // A retransmission, of the last packet or an early one.
            0 => packets.extend(last),
            1 if !packets.is_empty() => packets.push(dice.pick(packets)),
            // The step just made, knocked once more.
            2 => {
                packets.extend(last.map(|p| self.packet(p.from, p.to, p.port, p.kind)));
            }
            // A step of this or another door.
            3 => {
                let kind = other.kind(dice, step);
                packets.push(self.packet(from, other.destination(from), step.number, kind));
            }
            // Any flags.
            4 => {
                let kind = if step.udp {
                    Kind::Udp
                } else {
                    Kind::Tcp(dice.below(64) as u8)
                };
                packets.push(self.packet(from, to, step.number, kind));
            }
            // Strays: a few, or far more than any attempt survives.
            _ => {
                let kind = match dice.percent(50) {
                    _ if step.udp => Kind::Udp,
                    true => SYN,
                    false => door.kind(dice, step),
                };
                let count = match dice.percent(50) {
                    true => MANY,
                    false => 1 + dice.below(4) as u16,
                };
                let first = STRAYS + dice.below(10_000) as u16;
                for port in first..first + count {
                    packets.push(self.packet(from, to, port, kind));
                }
            }
        }
    }
}

impl Door {
    /// Where to knock at it. (A target is of IPv4; whoever comes by IPv6 knocks in vain.)
    fn destination(&self, from: IpAddr) -> IpAddr {
        match (from, self.target) {
            (IpAddr::V4(_), Some(target)) => target,
            (IpAddr::V4(_), None) => ip(SERVER[0]),
            (IpAddr::V6(_), _) => ip(SERVER[1]),
        }
    }

    /// A packet that makes this step here.
    fn kind(&self, dice: &mut Dice, step: Port) -> Kind {
        if step.udp {
            return Kind::Udp;
        }
        let more = dice.pick(&[0, 0, flag::ACK, flag::PSH, flag::RST, flag::SYN]);
        Kind::Tcp((self.set | more) & !self.clear)
    }
}
