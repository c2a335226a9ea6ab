//! The filter program, block by block.

use std::net::IpAddr;

use super::choice::Rows;
use super::op::{self, Ancillary, DROP, Instruction, PASS, Test, branch, fork};
use crate::model::{Door, PortRange, Protocol, TcpFlags, flag};

/// linux/if_ether.h.
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;

/// linux/if_packet.h: 0 is for us, 1 for all, 2 for many; above are packets to others and from us.
const LAST_FOR_US: u32 = 2;

/// How many rows of ignored and opened ports of one protocol the program drops. The packets to any
/// other such port pass, which costs time alone.
const QUIET_ROWS: usize = 32;

/// How many rows of ports the program may keep to where flags fit sessions.
const SESSION_ROWS: usize = 128;

/// How many different flags the program tests one by one. If there are more, it tests what they have
/// in common.
const CLASSES: usize = 16;

/// The flags of packets that belong to no session ([`crate::model::is_of_no_session`]).
const NO_SESSION: TcpFlags = TcpFlags {
    set: 0,
    clear: flag::ACK | flag::RST,
};

/// Assembles the whole program.
pub(super) fn assemble(doors: &[Door], ignore: &[PortRange]) -> Vec<Instruction> {
    let has = |protocol| doors.iter().any(|door| door.may_use(protocol));
    let block = |has: bool, block: Vec<Instruction>| match has {
        true => block,
        false => vec![DROP],
    };
    let has_udp = has(Protocol::Udp);
    // SYNs are strays at doors of UDP steps, too.
    let tcp = block(has_udp || has(Protocol::Tcp), tcp(doors, ignore));
    let udp = block(has_udp, known_ports(doors, ignore, Protocol::Udp));

    let mut program = for_this_host();
    program.push(op::load_ancillary(Ancillary::Protocol));
    program.extend(branch(Test::Equal(ETHERTYPE_IPV6), ipv6(), ipv4()));
    // Now A is the transport protocol, and X the offset of its header.
    let udp = fork(Test::Equal(17), udp, vec![DROP]);
    program.extend(fork(Test::Equal(6), tcp, udp));
    program
}

/// How many addresses of a family the program looks at. If there are more, it looks at none.
const HOSTS: usize = 24;

/// Drops packets to other addresses than these; the others go on behind the block.
pub(super) fn to(hosts: &[IpAddr]) -> Vec<Instruction> {
    let mut four = Vec::new();
    let mut six = Vec::new();
    for host in hosts {
        match host {
            IpAddr::V4(host) => four.push(host.to_bits()),
            // The last four bytes.
            IpAddr::V6(host) => six.push(host.to_bits() as u32),
        }
    }
    // RFC 1122, section 3.2.1.3 (g): all of 127.0.0.0/8.
    let mut loopback = vec![op::and(0xff00_0000)];
    loopback.extend(Test::Equal(0x7f00_0000).or_drop());
    let four = one_of(op::load_word(16), four, loopback);
    let six = one_of(op::load_word(36), six, vec![DROP]);
    let mut block = vec![op::load_ancillary(Ancillary::Protocol)];
    block.extend(branch(Test::Equal(ETHERTYPE_IPV6), six, four));
    block
}

/// Goes on behind the block if the loaded word is one of these, else with `last`.
fn one_of(load: Instruction, mut words: Vec<u32>, last: Vec<Instruction>) -> Vec<Instruction> {
    words.sort_unstable();
    words.dedup();
    if words.len() > HOSTS {
        return Vec::new();
    }
    let mut block = vec![load];
    for (place, word) in words.iter().enumerate() {
        let left = words.len() - 1 - place;
        block.extend(Test::Equal(*word).skip(left + last.len()));
    }
    block.extend(last);
    block
}

/// Drops packets to a port that everybody may know of, and passes all others.
fn known_ports(doors: &[Door], ignore: &[PortRange], protocol: Protocol) -> Vec<Instruction> {
    let opened = doors.iter().flat_map(|door| &door.open);
    let ranges = ignore
        .iter()
        .chain(opened)
        .filter(|r| r.protocol == protocol);
    let mut rows = Rows::new(ranges.map(|r| (r.first.get().into(), r.last.get().into())));
    rows.truncate(QUIET_ROWS);
    let mut block = vec![op::load_half_at_x(2)];
    block.extend(rows.choose(DROP, PASS));
    block
}

/// Passes TCP segments by their flags.
fn tcp(doors: &[Door], ignore: &[PortRange]) -> Vec<Instruction> {
    let for_sessions = flags_of(doors, true);
    let mut classes = flags_of(doors, false);
    // SYNs are strays whatever flags a door asks for. Other packets that belong to no session are
    // strays at doors that take packets of sessions.
    classes.retain(|flags| *flags != TcpFlags::SYN);
    classes.insert(0, TcpFlags::SYN);
    if !for_sessions.is_empty() {
        classes.push(NO_SESSION);
    }
    let mut of_doors = vec![op::load_half_at_x(2)];
    match session_ports(doors) {
        Some(rows) => of_doors.extend(rows.choose(PASS, DROP)),
        None => of_doors = vec![PASS],
    }
    let others = if_any(&few(for_sessions), of_doors, vec![DROP]);
    if_any(
        &few(classes),
        known_ports(doors, ignore, Protocol::Tcp),
        others,
    )
}

/// Returns the flags that doors ask for, each once: those that fit sessions, or the others.
fn flags_of(doors: &[Door], fit_sessions: bool) -> Vec<TcpFlags> {
    let mut all: Vec<_> = doors.iter().map(|door| door.tcp_flags).collect();
    all.retain(|flags| flags.fits_sessions() == fit_sessions);
    all.sort_unstable_by_key(|flags| (flags.set, flags.clear));
    all.dedup();
    all
}

/// Returns the same flags, or, if they are too many, what those with SYN have in common and what the
/// others have in common. What is common to all of them could fit sessions though none of them does.
fn few(flags: Vec<TcpFlags>) -> Vec<TcpFlags> {
    if flags.len() <= CLASSES {
        return flags;
    }
    let both = |a: TcpFlags, b: TcpFlags| TcpFlags {
        set: a.set & b.set,
        clear: a.clear & b.clear,
    };
    let (with_syn, others): (Vec<_>, Vec<_>) = flags
        .into_iter()
        .partition(|flags| flags.set & flag::SYN != 0);
    let common = [with_syn, others].map(|flags| flags.into_iter().reduce(both));
    common.into_iter().flatten().collect()
}

/// Returns the TCP steps of the doors whose flags fit the packets of sessions; `None` if they are too
/// many to keep to.
pub(super) fn session_ports(doors: &[Door]) -> Option<Rows> {
    let doors = doors.iter().filter(|door| door.tcp_flags.fits_sessions());
    let steps = doors.flat_map(|door| &door.sequence);
    let ports = steps.filter(|step| step.protocol == Protocol::Tcp);
    let rows = Rows::new(ports.map(|step| (step.port.get().into(), step.port.get().into())));
    (rows.len() <= SESSION_ROWS).then_some(rows)
}

/// Goes to `yes` if any of these flags match the segment, else to `no`; both end in a return.
fn if_any(flags: &[TcpFlags], yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut block = no;
    let mut to_yes = block.len();
    // From the last to the first, since each test must know how far it is to the end.
    for flags in flags.iter().rev() {
        let mut test = vec![
            op::load_byte_at_x(13),
            op::and(u32::from(flags.set | flags.clear)),
        ];
        test.extend(Test::Equal(u32::from(flags.set)).skip(to_yes));
        test.append(&mut block);
        block = test;
        to_yes = block.len();
    }
    block.extend(yes);
    block
}

/// Drops packets for others, and packets that a VLAN's tag was taken off: the VLAN's own device gives
/// those once more. VLAN 0 is only a priority tag (IEEE 802.1Q, 9.6), and given only here.
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

/// With the EtherType in A: drops packets that are no whole IPv4 packets.
fn ipv4() -> Vec<Instruction> {
    let mut block = Test::Equal(ETHERTYPE_IPV4).or_drop().to_vec();
    block.extend([op::load_byte(0), op::and(0xf0)]);
    block.extend(Test::Equal(0x40).or_drop());
    // The bit for more fragments, or an offset.
    block.push(op::load_half(6));
    block.extend(Test::AnyOf(0x3fff).drops());
    block.extend([op::set_x_to_ipv4_header(0), op::load_byte(9)]);
    block
}

/// Goes on with TCP and UDP. With everything else it ends.
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

/// Passes packets with extension headers, for [`crate::decode`] to walk, except two kinds
/// that are frequent: fragments, and multicast listener reports (ICMPv6 behind
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
