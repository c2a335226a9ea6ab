//! Which segments pass by their flags, and which by their port.

use super::*;
use crate::model::flag::{ACK, FIN, PSH, RST, SYN, URG};

/// What packets of established sessions have (RFC 9293, 3.10.7.4).
const OF_SESSIONS: [u8; 5] = [ACK, ACK | PSH, ACK | FIN, ACK | RST, ACK | PSH | URG];

/// What a scanner sends that is no SYN: FIN, NULL and XMAS.
const SCANS: [u8; 3] = [FIN, 0, FIN | PSH | URG];

#[test]
fn segments_pass_by_the_flags_that_a_door_asks_for_and_syns_always() {
    for (flags, wanted) in [
        ("syn,!ack", vec![]),
        ("syn", vec![SYN | ACK]),
        ("syn,ack", vec![SYN | ACK]),
        ("fin,!ack", vec![FIN, FIN | PSH | URG, FIN | RST]),
        ("fin,psh,urg,!ack", vec![FIN | PSH | URG]),
        ("rst,!ack", vec![RST, FIN | RST]),
        ("!syn,!ack", vec![FIN, 0, FIN | PSH | URG, RST, FIN | RST]),
        ("!ack", vec![FIN, 0, FIN | PSH | URG, RST, FIN | RST]),
    ] {
        let program = program(&[flags_door(&["7000/tcp", "8000/udp"], flags)]);
        assert!(Program::keeps_to_ports(&[flags_door(&["7000/tcp"], flags)]));
        let others = [SYN | ACK, RST, FIN | RST];
        for sent in OF_SESSIONS.into_iter().chain(SCANS).chain(others) {
            let is_wanted = wanted.contains(&sent);
            for port in [1, 7000, 7001, 8000, 65_535] {
                let what = format!("{flags}: {port} {sent:#04x}");
                assert_eq!(takes(&program, tcp(port), sent), is_wanted, "{what}");
                // The bits that no door asks for do not matter (ECE and CWR, RFC 3168).
                assert_eq!(takes(&program, tcp(port), sent | 0xc0), is_wanted, "{what}");
            }
        }
        for syn in [SYN, SYN | URG, SYN | FIN, SYN | RST, SYN | 0xc0] {
            assert!(takes(&program, tcp(1), syn), "{flags}: {syn:#04x}");
        }
    }
}

#[test]
fn doors_of_several_flags_each_have_theirs_pass() {
    let doors = [
        syn_door(&["7000/tcp"]),
        flags_door(&["8000/tcp"], "fin,!ack"),
        flags_door(&["9000/udp"], "rst,!ack"),
    ];
    let program = program(&doors);
    for (sent, is_wanted) in [
        (SYN, true),
        (FIN, true),
        (RST, true),
        (0, false),
        (PSH, false),
        (ACK, false),
        (SYN | ACK, false),
    ] {
        for port in [1, 7000, 8000, 9000] {
            assert_eq!(
                takes(&program, tcp(port), sent),
                is_wanted,
                "{port} {sent:#04x}"
            );
        }
    }
}

#[test]
fn packets_of_sessions_pass_at_the_ports_of_doors_that_take_them() {
    let doors = [
        flags_door(&["7000/tcp", "8000/udp", "9000/tcp"], "any"),
        flags_door(&["9001/tcp"], "ack,!psh"),
        syn_door(&["10000/tcp"]),
    ];
    let program = program(&doors);
    assert!(Program::keeps_to_ports(&doors));
    for sent in OF_SESSIONS.into_iter().chain([RST, SYN | ACK]) {
        for (port, is_step) in [
            (7000, true),
            (9000, true),
            (9001, true),
            // A step of UDP, one of SYNs, and none at all.
            (8000, false),
            (10_000, false),
            (1, false),
            (6999, false),
            (7001, false),
            (9002, false),
            (65_535, false),
        ] {
            assert_eq!(
                takes(&program, tcp(port), sent),
                is_step,
                "{port} {sent:#04x}"
            );
        }
    }
    for sent in SCANS.into_iter().chain([SYN, SYN | FIN]) {
        for port in [1, 7000, 8000, 9002, 10_000, 65_535] {
            assert!(takes(&program, tcp(port), sent), "{port} {sent:#04x}");
        }
    }
}

#[test]
fn of_sessions_those_packets_pass_that_a_door_asks_for() {
    let program = program(&[flags_door(&["7000/tcp"], "psh,ack,!syn")]);
    for (sent, is_wanted) in [
        (PSH | ACK, true),
        (PSH | ACK | FIN, true),
        (ACK, false),
        (RST, false),
        (RST | ACK, false),
        (SYN | ACK | PSH, false),
    ] {
        assert_eq!(takes(&program, tcp(7000), sent), is_wanted, "{sent:#04x}");
        assert!(!takes(&program, tcp(7001), sent), "{sent:#04x}");
    }
}

#[test]
fn a_door_of_udp_steps_has_no_port_for_packets_of_sessions() {
    let program = program(&[flags_door(&["7000/udp"], "any")]);
    for sent in OF_SESSIONS {
        assert!(!takes(&program, tcp(7000), sent), "{sent:#04x}");
    }
}

/// Doors of one port each, no two in a row.
fn apart(count: usize, flags: &str) -> Vec<Door> {
    let ports = (1000..).step_by(2).take(count);
    ports
        .map(|port| flags_door(&[&format!("{port}/tcp")], flags))
        .collect()
}

#[test]
fn where_too_many_ports_take_packets_of_sessions_all_of_these_pass() {
    let few = apart(128, "psh,ack");
    assert!(Program::keeps_to_ports(&few));
    let program_of_few = program(&few);
    for port in 900..1_300 {
        let is_step = (1_000..1_256).contains(&port) && port % 2 == 0;
        assert_eq!(
            takes(&program_of_few, tcp(port), PSH | ACK),
            is_step,
            "{port}"
        );
    }
    let mut many = apart(129, "psh,ack");
    many[0].open = [range("22/tcp")].into();
    assert!(!Program::keeps_to_ports(&many));
    let program_of_many = program(&many);
    for port in [1, 22, 1_000, 1_001, 65_535] {
        assert!(takes(&program_of_many, tcp(port), PSH | ACK), "{port}");
        // Those with other flags do not.
        assert!(!takes(&program_of_many, tcp(port), ACK), "{port}");
        assert_eq!(
            takes(&program_of_many, tcp(port), SYN),
            port != 22,
            "{port}"
        );
    }
}

#[test]
fn ports_in_a_row_take_the_room_of_one() {
    let row: Vec<Door> = (1_000..2_000)
        .map(|port| door(vec![tcp(port)], TcpFlags::ANY, Vec::new()))
        .collect();
    assert!(Program::keeps_to_ports(&row));
    let program = program(&row);
    for (port, is_step) in [(999, false), (1_000, true), (1_999, true), (2_000, false)] {
        assert_eq!(takes(&program, tcp(port), ACK), is_step, "{port}");
    }
}

#[test]
fn steps_for_syns_do_not_count_among_the_ports_for_sessions() {
    let doors = [apart(1_000, "syn,!ack"), apart(2, "any")].concat();
    assert!(Program::keeps_to_ports(&doors));
    let program = program(&doors);
    assert!(takes(&program, tcp(1_002), ACK));
    assert!(!takes(&program, tcp(1_004), ACK));
}

/// Every way to ask for flags that is like this one.
fn all_flags(is_meant: impl Fn(TcpFlags) -> bool) -> Vec<Door> {
    let bytes = || 0..64_u8;
    bytes()
        .flat_map(|set| bytes().map(move |clear| TcpFlags { set, clear }))
        .filter(|flags| flags.set & flags.clear == 0 && is_meant(*flags))
        .map(|flags| door(steps(&["7000/tcp"]), flags, Vec::new()))
        .collect()
}

#[test]
fn of_very_many_flags_what_they_have_in_common_passes_but_no_session() {
    let doors = all_flags(|flags| !flags.fits_sessions());
    assert!(doors.len() > 300, "{}", doors.len());
    let program = program(&doors);
    for sent in 0..64 {
        for port in [1, 7000] {
            let is_wanted = sent & SYN != 0 || sent & ACK == 0;
            assert_eq!(
                takes(&program, tcp(port), sent),
                is_wanted,
                "{port} {sent:#04x}"
            );
        }
    }
}

#[test]
fn sixteen_flags_are_told_apart_and_seventeen_are_not() {
    // SYNs are one more, whether a door asks for them or not.
    let doors = all_flags(|flags| flags.set == SYN | FIN && flags.clear & ACK == 0);
    assert_eq!(doors.len(), 8);
    let others = all_flags(|flags| flags.set == SYN | PSH && flags.clear & ACK == 0);
    let fifteen = [&doors[..], &others[..7]].concat();
    let with_syn = [&fifteen[..], &[syn_door(&["7000/tcp"])]].concat();
    let sixteen = [&doors[..], &others[..]].concat();
    for (doors, is_wanted) in [(fifteen, false), (with_syn, false), (sixteen, true)] {
        assert_eq!(takes(&program(&doors), tcp(1), SYN | ACK), is_wanted);
    }
}

#[test]
fn of_very_many_flags_for_sessions_what_they_have_in_common_keeps_to_ports() {
    let doors = all_flags(|flags| flags.fits_sessions() && flags.set & PSH != 0);
    assert!(doors.len() > 30, "{}", doors.len());
    let program = program(&doors);
    assert!(takes(&program, tcp(7000), PSH | ACK));
    assert!(!takes(&program, tcp(7000), ACK));
    assert!(!takes(&program, tcp(7001), PSH | ACK));
}
