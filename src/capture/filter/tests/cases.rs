//! What passes for doors, and what does not, rule by rule.

use super::*;
use crate::model::flag;

fn knock_of_three() -> Program {
    program(&[syn_door(&["7000/tcp", "8000/tcp", "9000/tcp"])])
}

#[test]
fn every_port_passes_whether_it_is_a_step_or_not() {
    let program = program(&[syn_door(&["7000/tcp", "8000/udp", "9000/tcp"])]);
    for port in 1..=u16::MAX {
        let step = tcp(port);
        assert!(takes(&program, step, flag::SYN), "{step}");
        let step = Step {
            protocol: Protocol::Udp,
            ..step
        };
        assert!(takes(&program, step, 0), "{step}");
    }
}

#[test]
fn datagrams_pass_for_doors_with_udp_steps_and_syns_for_all() {
    for (sequence, has_udp) in [
        (&["7000/tcp", "8000/tcp"][..], false),
        (&["7000/tcp", "8000/udp"], true),
        (&["7000/udp", "8000/udp"], true),
    ] {
        let program = program(&[syn_door(sequence)]);
        assert_eq!(takes(&program, step("53/udp"), 0), has_udp, "{sequence:?}");
        assert!(takes(&program, tcp(53), flag::SYN), "{sequence:?}");
        assert!(!takes(&program, tcp(53), flag::ACK), "{sequence:?}");
    }
}

#[test]
fn what_is_neither_tcp_nor_udp_is_dropped() {
    let program = program(&[flags_door(&["7000/tcp", "8000/udp"], "any")]);
    for (source, place) in [("192.0.2.77", 9), ("2001:db8::77", 6)] {
        let mut packet = Made::new(source, tcp(7000), flag::SYN).packet();
        // ICMP, SCTP, UDP-Lite, ICMPv6, and what is not assigned.
        for protocol in [1, 132, 136, 58, 255] {
            packet.bytes[place] = protocol;
            assert!(!passed(&program, &packet), "{source} {protocol}");
        }
    }
}

#[test]
fn what_is_not_for_this_host_or_comes_again_is_dropped() {
    let program = knock_of_three();
    let packet = Made::new("192.0.2.77", tcp(7000), flag::SYN).packet();
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
    let program = knock_of_three();
    let four = Made::new("192.0.2.77", tcp(7000), flag::SYN).packet();
    for (field, is_wanted) in [([0x20, 0], false), ([0, 1], false), ([0x40, 0], true)] {
        let mut packet = four.clone();
        packet.bytes[6..8].copy_from_slice(&field);
        assert_eq!(passed(&program, &packet), is_wanted, "{field:?}");
    }
    let six = Made::new("2001:db8::77", tcp(1), flag::SYN);
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
    let program = knock_of_three();
    let whole = Made::new("2001:db8::77", tcp(7000), flag::SYN).packet();
    for length in 0..whole.bytes.len() {
        let mut cut = whole.clone();
        cut.bytes.truncate(length);
        // IPv6 takes 40 bytes, the flags are the fourteenth of TCP.
        assert_eq!(passed(&program, &cut), length >= 54, "{length}");
    }
}

#[test]
fn for_doors_without_steps_nothing_passes() {
    for doors in [vec![], vec![syn_door(&[]), flags_door(&[], "any")]] {
        let program = program(&doors);
        for step in steps(&["7000/tcp", "7000/udp"]) {
            assert!(!takes(&program, step, flag::SYN), "{step}");
        }
    }
}

#[test]
fn doors_of_one_time_sequences_have_both_protocols_pass_even_when_disabled() {
    let same = program(&[one_time_door(&[])]);
    for sequence in [&["7000/tcp"][..], &["7000/udp"], &["1/udp", "65535/tcp"]] {
        assert_eq!(program(&[one_time_door(sequence)]), same, "{sequence:?}");
    }
    assert!(takes(&same, tcp(1), flag::SYN));
    assert!(takes(&same, step("1/udp"), 0));
    assert!(!takes(&same, tcp(1), flag::ACK));
}

#[test]
fn ports_that_everybody_may_know_of_are_left_alone() {
    let mut doors = [
        flags_door(&["7000/tcp", "8000/udp"], "any"),
        syn_door(&["7001/tcp"]),
    ];
    doors[0].open = [range("22/tcp"), range("60000-61000/udp")].into();
    doors[1].open = [range("1/udp"), range("23/tcp")].into();
    let ignore = ["443/tcp", "443/udp", "60500-65535/tcp"].map(range);
    let program = Program::new(&doors, &ignore);
    for (port, is_wanted) in [
        ("22/tcp", false),
        ("23/tcp", false),
        ("22/udp", true),
        ("21/tcp", true),
        ("24/tcp", true),
        ("1/udp", false),
        ("2/udp", true),
        ("1/tcp", true),
        ("59999/udp", true),
        ("60000/udp", false),
        ("61000/udp", false),
        ("61001/udp", true),
        ("443/tcp", false),
        ("443/udp", false),
        ("60499/tcp", true),
        ("60500/tcp", false),
        ("65535/tcp", false),
        ("65535/udp", true),
        ("7000/tcp", true),
        ("8000/udp", true),
    ] {
        assert_eq!(takes(&program, step(port), flag::SYN), is_wanted, "{port}");
    }
    assert!(takes(&program, tcp(7000), flag::ACK));
    assert!(!takes(&program, tcp(22), flag::ACK));
    assert!(!takes(&program, tcp(443), flag::FIN));
}

/// The lowest rows of each protocol are left alone, so many as there is room for.
#[test]
fn of_very_many_ports_that_are_opened_some_pass() {
    let mut doors = [syn_door(&["7000/tcp", "8000/udp"])];
    let both = |port| [format!("{port}/tcp"), format!("{port}/udp")];
    let texts: Vec<String> = (100..).step_by(10).take(33).flat_map(both).collect();
    doors[0].open = texts.iter().map(|text| range(text)).collect();
    for (ignore, first_that_passes) in [
        (vec![], 420),
        // In front of the others, one row more.
        (vec![range("7/tcp"), range("7/udp")], 410),
        // Two rows become one.
        (vec![range("100-110/tcp"), range("100-110/udp")], u16::MAX),
    ] {
        let program = Program::new(&doors, &ignore);
        for port in &doors[0].open {
            let step = Step {
                protocol: port.protocol,
                port: port.first,
            };
            let is_wanted = port.first.get() >= first_that_passes;
            assert_eq!(takes(&program, step, flag::SYN), is_wanted, "{step}");
        }
        assert!(takes(&program, step("8000/udp"), 0));
    }
}

#[test]
fn a_router_hears_what_is_for_itself_or_a_target_and_not_what_passes_through() {
    let class = program(&[syn_door(&["7000/tcp", "8000/udp"])]);
    let own = ["192.0.2.1", "2001:db8::1"].map(|own| own.parse().expect("an address"));
    let to = |hosts: &[IpAddr], packet: &Packet| passed(&class.to(hosts), packet);
    for step in ["7000/tcp", "8000/udp", "9/tcp"].map(step) {
        // The packets of these tests go to 192.0.2.1 and 909:909:...:909.
        let four = Made::new("198.51.100.7", step, flag::SYN).packet();
        let six = Made::new("2001:db8::7", step, flag::SYN).packet();
        assert!(passed(&class, &four) && passed(&class, &six));
        assert!(to(&own, &four) && !to(&own, &six), "{step}");
        let target = [
            own[1],
            "909:909:909:909:909:909:909:909".parse().expect("one"),
        ];
        assert!(!to(&target, &four) && to(&target, &six), "{step}");
        assert!(!to(&[], &four) && !to(&[], &six));
        // Of many addresses none is looked at.
        let many: Vec<IpAddr> = (1..30_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert!(to(&many, &four) && !to(&many, &six), "{step}");
        let few = &many[..24];
        assert!(!to(few, &four) && to(&[few, &own[..1]].concat()[1..], &four));
        let mut here = four.clone();
        here.bytes[16..20].copy_from_slice(&[127, 9, 9, 9]);
        assert!(to(&own, &here), "all of 127.0.0.0/8 is this host");
    }
    let arp = Packet {
        protocol: 0x0806,
        ..Made::new("198.51.100.7", tcp(7000), flag::SYN).packet()
    };
    assert!(!to(&own, &arp));
}
