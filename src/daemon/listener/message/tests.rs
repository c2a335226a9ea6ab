//! Whatever knock is sent comes in as it was; whatever bytes come in are read to an end.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_knock() -> impl Strategy<Value = Knock> {
    let addresses = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ];
    let transports = prop_oneof![
        any::<(u8, u32)>().prop_map(|(flags, sequence)| Transport::Tcp { flags, sequence }),
        any::<u16>().prop_map(|identification| Transport::Udp { identification }),
    ];
    let ports = (1_u16.., any::<u16>(), proptest::option::of(1_u32..));
    (addresses, transports, ports).prop_map(|((source, destination), transport, ports)| {
        let (port, source_port, interface) = ports;
        let protocol = match transport {
            Transport::Tcp { .. } => Protocol::Tcp,
            Transport::Udp { .. } => Protocol::Udp,
        };
        Knock {
            at: Timestamp(7),
            source,
            destination,
            step: Step::new(protocol, port).expect("not zero"),
            source_port,
            transport,
            interface,
        }
    })
}

proptest! {
    #[test]
    fn a_knock_comes_in_as_it_was_sent(
        knocks in vec(any_knock(), 0..5),
        were_rare: bool,
        frames in 0..=BATCH,
        dropped: u64,
    ) {
        let head = KnocksHead { were_rare, frames, dropped };
        let mut bytes = Vec::new();
        begin(&mut bytes);
        knocks.iter().for_each(|knock| push(&mut bytes, knock));
        finish(&mut bytes, head);
        let Some(ListenerMessage::Knocks(read_head, records)) = read(&bytes) else {
            panic!("no knocks");
        };
        prop_assert_eq!(read_head, head);
        prop_assert_eq!(records.knocks(Timestamp(7)).collect::<Vec<_>>(), knocks);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in vec(any::<u8>(), 0..300)) {
        if let Some(ListenerMessage::Knocks(head, records)) = read(&bytes) {
            prop_assert!(head.frames <= BATCH);
            // Each knock that is read is one that can be sent.
            for knock in records.knocks(Timestamp(7)) {
                prop_assert_eq!(super::knock(&record(&knock), Timestamp(7)), Some(knock));
            }
        }
    }
}

#[test]
fn what_a_listener_reports_comes_in_as_it_was_sent() {
    for report in [
        ListenerReport::Opened(String::new()),
        ListenerReport::Opened("signal 11".to_owned()),
        ListenerReport::Failed(true, "no".to_owned()),
        ListenerReport::Failed(false, "no".to_owned()),
        ListenerReport::Confined(Confinement::default()),
        ListenerReport::Refused(59),
    ] {
        let bytes = report.to_bytes();
        assert_eq!(read(&bytes), Some(ListenerMessage::Report(report)));
    }
    let long = ListenerReport::Opened("x".repeat(1 << 20)).to_bytes();
    assert!(long.len() <= LONGEST);
}
