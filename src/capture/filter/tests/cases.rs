//! What passes for a door, and what does not, rule by rule.

use super::*;
use crate::model::flag;

#[test]
fn one_door_and_what_passes_for_it() {
    let doors = doors(&[&["7000/tcp", "8000/udp", "9000/tcp"]]);
    let (off, _) = program(TripwireMode::Off, &doors);
    let (syn, both) = (flag::SYN, flag::SYN | flag::ACK);
    for source in ["192.0.2.77", "2001:db8::77"] {
        for (step, flags, is_wanted) in [
            ("7000/tcp", syn, true),
            ("7000/tcp", both, false),
            ("7000/tcp", flag::FIN, false),
            ("9000/tcp", syn | flag::URG, true),
            ("7000/udp", 0, false),
            ("8000/udp", 0, true),
            ("8000/tcp", syn, false),
            ("7001/tcp", syn, false),
            ("6999/tcp", syn, false),
            ("65535/tcp", syn, false),
            ("1/udp", 0, false),
        ] {
            let packet = Made::new(source, step, flags).packet();
            assert_eq!(passed(&off, &packet), is_wanted, "{source} {step} {flags}");
        }
    }
}

#[test]
fn what_is_not_for_this_host_or_comes_again_is_dropped() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let packet = Made::new("192.0.2.77", "7000/tcp", flag::SYN).packet();
    for packet_type in 0..=7 {
        let other = Packet {
            packet_type,
            ..packet.clone()
        };
        assert_eq!(passed(&program, &other), packet_type <= 2, "{packet_type}");
    }
    // The priority bits may be anything; VLAN 0 is none.
    for (vlan, is_wanted) in [(0, true), (0xe000, true), (1, false), (0xefff, false)] {
        let tagged = Packet {
            vlan: Some(vlan),
            ..packet.clone()
        };
        assert_eq!(passed(&program, &tagged), is_wanted, "{vlan:#x}");
    }
    // ARP, a tag within, PPPoE, and IPv6 in a frame that says IPv4.
    for protocol in [0x0806, 0x8100, 0x8864, 0x86dd] {
        let other = Packet {
            protocol,
            ..packet.clone()
        };
        assert!(!passed(&program, &other), "{protocol:#x}");
    }
}

#[test]
fn fragments_and_reports_are_dropped_and_odd_packets_passed() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let four = Made::new("192.0.2.77", "7000/tcp", flag::SYN).packet();
    for (field, is_wanted) in [([0x20, 0], false), ([0, 1], false), ([0x40, 0], true)] {
        let mut packet = four.clone();
        packet.bytes[6..8].copy_from_slice(&field);
        assert_eq!(passed(&program, &packet), is_wanted, "{field:?}");
    }
    let six = Made::new("2001:db8::77", "1/tcp", flag::SYN);
    for (header, is_wanted) in [
        (0, true),
        (43, true),
        (44, true),
        (51, true),
        (60, true),
        (58, false),
        (50, false),
        (135, false),
    ] {
        let packet = Made {
            extra: Some(header),
            ..six.clone()
        };
        assert_eq!(passed(&program, &packet.packet()), is_wanted, "{header}");
    }
    let mut report = Made {
        extra: Some(0),
        ..six.clone()
    }
    .packet();
    report.bytes[40] = 58;
    assert!(!passed(&program, &report));
    let mut fragment = Made {
        extra: Some(44),
        ..six
    }
    .packet();
    for (field, is_wanted) in [([0, 1], false), ([0, 8], false), ([0, 6], true)] {
        fragment.bytes[42..44].copy_from_slice(&field);
        assert_eq!(passed(&program, &fragment), is_wanted, "{field:?}");
    }
}

#[test]
fn a_packet_cut_before_its_flags_is_dropped() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let whole = Made::new("2001:db8::77", "7000/tcp", flag::SYN).packet();
    for length in 0..whole.bytes.len() {
        let mut cut = whole.clone();
        cut.bytes.truncate(length);
        // IPv6 takes 40 bytes, the flags are the fourteenth of TCP.
        assert_eq!(passed(&program, &cut), length >= 54, "{length}");
    }
}

#[test]
fn no_steps_nothing_passes() {
    let mut disabled = doors(&[&["7000/tcp"]]);
    disabled[0].sequence = Box::default();
    let (program, _) = program(TripwireMode::All, &disabled);
    assert_eq!(program, Program::nothing());
}

#[test]
fn tripwires_over_udp_are_for_doors_with_udp_steps() {
    let (tcp_only, _) = program(TripwireMode::All, &doors(&[&["7000/tcp", "8000/tcp"]]));
    let (mixed, _) = program(TripwireMode::All, &doors(&[&["7000/tcp", "8000/udp"]]));
    let packet = Made::new("192.0.2.77", "53/udp", 0).packet();
    assert!(!passed(&tcp_only, &packet));
    assert!(passed(&mixed, &packet));
}

#[test]
fn in_mode_all_opened_ports_are_still_left_alone() {
    let mut doors = doors(&[&["7000/tcp", "8000/udp"]]);
    doors[0].open = [
        "22/tcp".parse().expect("a port"),
        "60000-61000/udp".parse().expect("ports"),
    ]
    .into();
    let (program, _) = program(TripwireMode::All, &doors);
    for (step, is_wanted) in [
        ("22/tcp", false),
        ("23/tcp", true),
        ("60500/udp", false),
        ("61001/udp", true),
        ("60500/tcp", true),
        ("7000/tcp", true),
    ] {
        let packet = Made::new("192.0.2.77", step, flag::SYN).packet();
        assert_eq!(passed(&program, &packet), is_wanted, "{step}");
    }
}

/// One source in 64 would wake the daemon with each of its connections to a port that is open.
#[test]
fn sampled_or_not_an_opened_port_is_left_alone_for_every_source() {
    let mut doors = doors(&[&["7000/tcp", "8000/udp"]]);
    doors[0].open = ["22/tcp", "60000-61000/udp"]
        .map(|ports| ports.parse().expect("ports"))
        .into();
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let mut sampled = 0;
    for number in 0..2_000 {
        for source in [
            format!("198.18.{}.{}", number / 250, number % 250),
            format!("2001:db8::{number:x}"),
        ] {
            for opened in ["22/tcp", "60500/udp"] {
                let packet = Made::new(&source, opened, flag::SYN).packet();
                assert!(!passed(&program, &packet), "{source} {opened}");
            }
            let packet = Made::new(&source, "22/udp", 0).packet();
            sampled += usize::from(passed(&program, &packet));
        }
    }
    assert!((30..100).contains(&sampled), "{sampled} of 4,000");
}
