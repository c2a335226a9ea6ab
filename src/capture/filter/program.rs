//! The program, block by block.

use std::num::NonZeroU16;

use super::Instruction;
use super::op::{self, Ancillary, COPY_TO_X, DROP, PASS, Test, XOR_X, branch, fork};
use super::ports::{Run, join, pass_if_in, runs, search};
use crate::model::{Door, Protocol, SHIFT, Step, TcpFlags, TripwireMode, Tripwires};

/// linux/if_ether.h.
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;

/// linux/if_packet.h: for us 0, for all 1, for many 2; above are what others get, and what
/// we send.
const LAST_FOR_US: u32 = 2;

/// Where the port is kept while the hash is made.
const PORT: u32 = 0;

/// The ports of one protocol.
#[derive(Debug, Default)]
struct Ports {
    /// Whose packets pass.
    wanted: Vec<Run>,
    /// Which are no strays, beside the steps.
    exempt: Vec<Run>,
}

/// The program, with at most `room` runs of ports.
pub(super) fn assemble(doors: &[Door], wires: &Tripwires, room: usize) -> Vec<Instruction> {
    let has = |protocol| wires.steps().ports(protocol).next().is_some();
    let has_udp = has(Protocol::Udp);
    if !has_udp && !has(Protocol::Tcp) {
        return vec![DROP];
    }
    let mut tcp = ports(wires, Protocol::Tcp);
    let mut udp = if has_udp {
        ports(wires, Protocol::Udp)
    } else {
        // Without a UDP step no datagram is a step or a stray.
        Ports::default()
    };
    // What is left out passes: of what is sampled one packet in 64.
    let most = match wires.mode() {
        TripwireMode::Off => 0,
        TripwireMode::Sampled => room / 32,
        TripwireMode::All => room / 8,
    };
    for ports in [&mut tcp, &mut udp] {
        ports.exempt.truncate(most);
    }
    let taken = tcp.exempt.len() + udp.exempt.len();
    join([&mut tcp.wanted, &mut udp.wanted], room - taken);

    let strays = wires.mode() != TripwireMode::Off;
    let common = common_flags(doors, strays);
    let tcp = tcp_block(&tcp, common, wires);
    let udp = if has_udp {
        udp_block(&udp, wires)
    } else {
        vec![DROP]
    };

    let mut program = for_this_host();
    program.push(op::load_ancillary(Ancillary::Protocol));
    program.extend(branch(Test::Equal(ETHERTYPE_IPV6), ipv6(), ipv4()));
    // A is the transport protocol, X the place of its header.
    let udp = fork(Test::Equal(17), udp, vec![DROP]);
    program.extend(fork(Test::Equal(6), tcp, udp));
    program
}

fn ports(wires: &Tripwires, protocol: Protocol) -> Ports {
    let steps = wires.steps().ports(protocol);
    let mut wanted: Vec<_> = steps.chain(wires.near(protocol)).collect();
    wanted.sort_unstable();
    let is_step = |port: &NonZeroU16| {
        let port = *port;
        wires.steps().contains(Step { protocol, port })
    };
    let exempt = wires.exempt().ports(protocol);
    Ports {
        wanted: runs(wanted),
        exempt: runs(exempt.filter(|port| !is_step(port))),
    }
}

/// The flags that every packet has which some door or tripwire wants.
fn common_flags(doors: &[Door], strays: bool) -> TcpFlags {
    doors
        .iter()
        .filter(|door| door.uses(Protocol::Tcp))
        .map(|door| door.tcp_flags)
        .chain(strays.then_some(TcpFlags::SYN))
        .reduce(|a, b| TcpFlags {
            set: a.set & b.set,
            clear: a.clear & b.clear,
        })
        .unwrap_or(TcpFlags::ANY)
}

/// Passes what is for this host.
pub(super) fn for_us() -> Vec<Instruction> {
    let mut program = for_this_host();
    program.push(PASS);
    program
}

/// Drops what is for others, and what has a VLAN's tag beside it: the VLAN's own device
/// gives that again. VLAN 0 is a priority tag (IEEE 802.1Q, 9.6), given only here.
fn for_this_host() -> Vec<Instruction> {
    let mut block = vec![op::load_ancillary(Ancillary::PacketType)];
    block.extend(Test::Above(LAST_FOR_US).drops());
    block.push(op::load_ancillary(Ancillary::VlanTagPresent));
    let mut tagged = vec![op::load_ancillary(Ancillary::VlanTag)];
    tagged.extend(Test::AnyOf(0x0fff).drops());
    block.extend(Test::Equal(0).skip(tagged.len()));
    block.extend(tagged);
    block
}

/// With the EtherType in A: drops what is no whole IPv4 packet.
fn ipv4() -> Vec<Instruction> {
    let mut block = Test::Equal(ETHERTYPE_IPV4).or_drop().to_vec();
    block.extend([op::load_byte(0), op::and(0xf0)]);
    block.extend(Test::Equal(0x40).or_drop());
    // More fragments, or an offset.
    block.push(op::load_half(6));
    block.extend(Test::AnyOf(0x3fff).drops());
    block.extend([op::set_x_to_ipv4_header(0), op::load_byte(9)]);
    block
}

/// Goes on with TCP and UDP; ends with everything else.
fn ipv6() -> Vec<Instruction> {
    let mut block = vec![op::load_byte(0), op::and(0xf0)];
    block.extend(Test::Equal(0x60).or_drop());
    block.extend([op::set_x(40), op::load_byte(6)]);
    let odd = ipv6_extensions();
    block.extend(Test::Equal(6).skip(odd.len() + 1));
    block.extend(Test::Equal(17).skip(odd.len()));
    block.extend(odd);
    block
}

/// Passes packets with extension headers, for [`crate::decode`] to walk. But for the two
/// kinds of which there are many: fragments, and multicast listener reports (ICMPv6 behind
/// hop-by-hop options, RFC 3810, section 5).
fn ipv6_extensions() -> Vec<Instruction> {
    const FRAGMENT: u32 = 44;
    const HOP_BY_HOP: u32 = 0;
    const OTHERS: [u32; 3] = [43, 51, 60];
    const ICMPV6: u32 = 58;
    // RFC 8200, section 4.5: offset and M flag, with two reserved bits between.
    let mut fragment = vec![op::load_half(42)];
    fragment.extend(Test::AnyOf(0xfff9).drops());
    fragment.push(PASS);

    let mut walked = vec![op::load_byte(40)];
    walked.extend(Test::Equal(ICMPV6).drops());
    walked.push(PASS);

    let mut others = Vec::new();
    for (i, header) in OTHERS.into_iter().enumerate() {
        others.extend(Test::Equal(header).skip(OTHERS.len() - i));
    }
    others.push(DROP);

    let mut block = Test::Equal(FRAGMENT).skip(1 + others.len() + walked.len());
    block.extend(Test::Equal(HOP_BY_HOP).skip(others.len()));
    block.extend(others);
    block.extend(walked);
    block.extend(fragment);
    block
}

fn tcp_block(ports: &Ports, common: TcpFlags, wires: &Tripwires) -> Vec<Instruction> {
    let mut block = require(common);
    block.extend([op::load_half_at_x(2), op::store(PORT)]);
    block.extend(pass_if_in(&ports.wanted));
    if common.set & TcpFlags::SYN.set == 0 || common.clear & TcpFlags::SYN.clear == 0 {
        block.extend(require(TcpFlags::SYN));
    }
    block.extend(stray_block(ports, wires));
    block
}

fn udp_block(ports: &Ports, wires: &Tripwires) -> Vec<Instruction> {
    let mut block = vec![op::load_half_at_x(2), op::store(PORT)];
    block.extend(pass_if_in(&ports.wanted));
    block.extend(stray_block(ports, wires));
    block
}

/// Drops a segment without these flags. Uses A.
fn require(flags: TcpFlags) -> Vec<Instruction> {
    if flags == TcpFlags::ANY {
        return Vec::new();
    }
    let mut block = vec![
        op::load_byte_at_x(13),
        op::and(u32::from(flags.set | flags.clear)),
    ];
    block.extend(Test::Equal(u32::from(flags.set)).or_drop());
    block
}

/// Ends with what is no step: passes a stray, drops all else. The port is in its slot.
fn stray_block(ports: &Ports, wires: &Tripwires) -> Vec<Instruction> {
    match wires.mode() {
        TripwireMode::Off => vec![DROP],
        TripwireMode::All => {
            let mut block = vec![op::load_half_at_x(2)];
            block.extend(search(&ports.exempt, DROP));
            block.push(PASS);
            block
        }
        TripwireMode::Sampled => sampled_block(ports, wires),
    }
}

/// [`crate::model::hash`], instruction by instruction; what it picks passes unless a door
/// opens it. X, the place of the transport header, is given up.
fn sampled_block(ports: &Ports, wires: &Tripwires) -> Vec<Instruction> {
    let [k0, k1, k2, k3] = wires.key().words();
    // `h = (h ^ w) * k1; h ^= h >> 15`, with the last `h` in X but for the first word.
    let mix = |place: u32, first: bool| {
        [
            op::load_word(place),
            if first { op::xor(k0) } else { XOR_X },
            op::multiply(k1),
            COPY_TO_X,
            op::shift_right(15),
            XOR_X,
        ]
    };
    let four = mix(12, true).to_vec();
    let six = [8, 12, 16, 20]
        .into_iter()
        .flat_map(|place| {
            let mut word = mix(place, place == 8).to_vec();
            if place != 20 {
                word.push(COPY_TO_X);
            }
            word
        })
        .collect();
    let mut block = vec![op::load_ancillary(Ancillary::Protocol)];
    block.extend(branch(Test::Equal(ETHERTYPE_IPV6), six, four));
    block.extend([
        op::recall_x(PORT),
        XOR_X,
        op::xor(k2),
        op::multiply(k3),
        COPY_TO_X,
        op::shift_right(16),
        XOR_X,
        op::multiply(k1),
        op::shift_right(SHIFT),
    ]);
    block.extend(Test::Equal(0).or_drop());
    block.push(op::recall(PORT));
    block.extend(search(&ports.exempt, DROP));
    block.push(PASS);
    block
}
