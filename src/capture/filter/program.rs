//! The program, block by block.

use std::net::IpAddr;

use super::choice::Rows;
use super::op::{self, Ancillary, DROP, Instruction, PASS, Test, branch, fork};
use crate::model::{Door, PortRange, Protocol, TcpFlags, flag};

/// linux/if_ether.h.
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;

/// linux/if_packet.h: for us 0, for all 1, for many 2; above are what others get, and what
/// we send.
const LAST_FOR_US: u32 = 2;

/// How many rows of ports of one protocol are left alone. What is left out passes, which is a
/// matter of cost alone.
const QUIET_ROWS: usize = 32;

/// How many rows the ports may make to which the program keeps where flags fit sessions.
const SESSION_ROWS: usize = 128;

/// How many different flags are asked for one by one; if there are more, what they have in
/// common is.
const CLASSES: usize = 16;

/// What belongs to no session ([`crate::model::is_of_no_session`]).
const NO_SESSION: TcpFlags = TcpFlags {
    set: 0,
    clear: flag::ACK | flag::RST,
};

/// The program.
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
    // A is the transport protocol, X the place of its header.
    let udp = fork(Test::Equal(17), udp, vec![DROP]);
    program.extend(fork(Test::Equal(6), tcp, udp));
    program
}

/// Of more addresses of a family than these none is looked at.
const HOSTS: usize = 24;

/// Drops what goes to none of these addresses; all else goes on behind.
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

/// Goes on behind if the word is one of these, else with what ends the block.
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

/// Drops what is for a port that everybody may know of, passes everything else.
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

/// Segments pass by their flags.
fn tcp(doors: &[Door], ignore: &[PortRange]) -> Vec<Instruction> {
    let for_sessions = flags_of(doors, true);
    let mut classes = flags_of(doors, false);
    // SYNs are strays whatever flags a door asks for, and a scan by other packets that belong to
    // no session is one for who takes them.
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

/// The flags that doors ask for, each once: those that fit sessions, or the others.
fn flags_of(doors: &[Door], fit_sessions: bool) -> Vec<TcpFlags> {
    let mut all: Vec<_> = doors.iter().map(|door| door.tcp_flags).collect();
    all.retain(|flags| flags.fits_sessions() == fit_sessions);
    all.sort_unstable_by_key(|flags| (flags.set, flags.clear));
    all.dedup();
    all
}

/// The same flags, or of too many what those with SYN have in common, and what the others have:
/// what is common to all could fit sessions though none of them does.
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

/// The TCP steps of the doors whose flags fit the packets of sessions; `None` if there are too
/// many to keep to.
pub(super) fn session_ports(doors: &[Door]) -> Option<Rows> {
    let doors = doors.iter().filter(|door| door.tcp_flags.fits_sessions());
    let steps = doors.flat_map(|door| &door.sequence);
    let ports = steps.filter(|step| step.protocol == Protocol::Tcp);
    let rows = Rows::new(ports.map(|step| (step.port.get().into(), step.port.get().into())));
    (rows.len() <= SESSION_ROWS).then_some(rows)
}

/// `yes` if the segment has any of these flags, else `no`; both end in a return.
fn if_any(flags: &[TcpFlags], yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut block = no;
    let mut to_yes = block.len();
    // From behind: each test knows how far it is to the end.
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
