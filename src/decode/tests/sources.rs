//! Sources that can be answered, as far as the address and the link layer tell.

use super::*;

#[test]
fn a_source_that_cannot_be_answered_does_not_knock() {
    for source in [
        [0, 0, 0, 0],
        [0, 0, 0, 5],
        [127, 0, 0, 1],
        [127, 9, 9, 9],
        [224, 0, 0, 1],
        [239, 255, 0, 1],
        [240, 1, 1, 1],
        [255, 255, 255, 255],
    ] {
        let packet = with(syn_4(), 12, &source);
        assert_eq!(read(LinkType::Raw, &packet), None, "{source:?}");
        assert_eq!(read(LinkType::LinuxCooked2, &cooked2(0, &packet)), None);
    }
    for source in [
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:198.51.100.7",
        "ff02::1",
    ] {
        let address: std::net::Ipv6Addr = source.parse().expect("an address");
        let packet = with(syn_6(), 8, &address.octets());
        assert_eq!(read(LinkType::Raw, &packet), None, "{source}");
    }
    for source in [
        [169, 254, 9, 9],
        [223, 1, 1, 1],
        [1, 0, 0, 0],
        [10, 0, 0, 255],
    ] {
        assert!(read(LinkType::Raw, &with(syn_4(), 12, &source)).is_some());
    }
    for source in [[0xfe, 0x80], [0xfd, 0], [0, 0x64]] {
        assert!(read(LinkType::Raw, &with(syn_6(), 8, &source)).is_some());
    }
}

/// By its loopback a host knocks at itself.
#[test]
fn a_loopback_carries_its_own_addresses() {
    let mut six = [0; 16];
    six[15] = 1;
    let packets = [
        (0x0800_u16, with(syn_4(), 12, &[127, 0, 0, 1])),
        (0x86dd, with(syn_6(), 8, &six)),
    ];
    for (kind, packet) in packets {
        let [high, low] = kind.to_be_bytes();
        for (device, answers) in [(772_u16, true), (1, false)] {
            let device = device.to_be_bytes();
            let mut two = vec![high, low, 0, 0, 0, 0, 0, 1, device[0], device[1]];
            two.resize(20, 0);
            two.extend(&packet);
            assert_eq!(read(LinkType::LinuxCooked2, &two).is_some(), answers);
            let mut one = vec![0, 0, device[0], device[1]];
            one.resize(14, 0);
            one.extend([high, low]);
            one.extend(&packet);
            assert_eq!(read(LinkType::LinuxCooked, &one).is_some(), answers);
        }
        for (mac, answers) in [(0, true), (2, false)] {
            let mut frame = vec![mac; 12];
            frame.extend([high, low]);
            frame.extend(&packet);
            assert_eq!(read(LinkType::Ethernet, &frame).is_some(), answers);
        }
    }
}
