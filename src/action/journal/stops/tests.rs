//! The text of the journal: stops that were written are read back, and nothing else is.

use proptest::prelude::*;

use super::*;

const CLOCKS: Clocks = Clocks {
    boot: Timestamp(1_000_000_000_000),
    wall: Duration::from_secs(1_795_357_200),
};

fn stop_of(door: &str, last: u8, secs: u64) -> (DoorSource, PendingStop) {
    let key = DoorSource {
        door: door.into(),
        source: IpAddr::from([192, 0, 2, last]),
    };
    (key, pending("iptables -s %IP%", secs))
}

fn pending(command: &str, secs: u64) -> PendingStop {
    PendingStop {
        command: command.into(),
        timeout: Duration::from_secs(secs),
        due: CLOCKS.boot + Duration::from_secs(secs),
    }
}

fn text(stops: &[(DoorSource, PendingStop)]) -> Vec<u8> {
    to_text(stops.iter().map(|(key, stop)| (key, stop)), CLOCKS).expect("it can be written")
}

#[test]
fn a_line_is_as_the_page_above_says() {
    assert_eq!(
        String::from_utf8_lossy(&text(&[stop_of("ssh", 7, 10)])),
        "{\"door\":\"ssh\",\"source\":\"192.0.2.7\",\"command\":\"iptables -s %IP%\",\
         \"timeout_ms\":10000,\"due_ms\":1795357210000}\n"
    );
}

#[test]
fn what_is_overdue_is_due_now_and_what_is_left_is_kept() {
    let journal = text(&[stop_of("a", 1, 10)]);
    let after = |secs| {
        let wait = Duration::from_secs(secs);
        let clocks = Clocks {
            boot: CLOCKS.boot + wait,
            wall: CLOCKS.wall + wait,
        };
        let (stops, _) = parse(&journal, clocks);
        let due = stops.values().map(|stop| stop.due.since(clocks.boot));
        due.collect::<Vec<_>>()
    };
    assert_eq!(after(4), [Duration::from_secs(6)]);
    assert_eq!(after(10), [Duration::ZERO]);
    assert_eq!(after(1_000_000), [Duration::ZERO]);
}

#[test]
fn a_clock_set_back_keeps_nothing_open_longer_than_the_timeout() {
    let mut put_off = stop_of("a", 2, 10);
    put_off.1.due = CLOCKS.boot + Duration::from_secs(9);
    let journal = text(&[stop_of("a", 1, 10), put_off]);
    // A machine without a battery: 1970, and it has just been switched on.
    let clocks = Clocks {
        boot: Timestamp(5),
        wall: Duration::from_secs(3),
    };
    let (stops, _) = parse(&journal, clocks);
    for stop in stops.values() {
        assert_eq!(stop.due, clocks.boot + Duration::from_secs(10));
    }
    assert_eq!(stops.len(), 2);
}

/// A line as version 0.9.0 wrote it is one, too: `version_0_9` reads a journal of such lines.
#[test]
fn lines_of_another_format_count_as_damaged() {
    let old = "c0ffee0123456789\tarm\t1795357210000\t10000\t192.0.2.7\tssh\ttrue\n";
    let mixed = [
        old.as_bytes(),
        &text(&[stop_of("a", 1, 10)]),
        b"{}\n",
        b"\xff",
    ]
    .concat();
    let (stops, damaged) = parse(&mixed, CLOCKS);
    assert_eq!((stops.len(), damaged), (1, 3));
}

fn stops() -> impl Strategy<Value = Vec<(DoorSource, PendingStop)>> {
    let source = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    let one = (
        "(?s)[a-z\\\\\t\n\"].{0,3}",
        source,
        "(?s).{0,12}",
        1..100u64,
    )
        .prop_map(|(door, source, command, secs)| {
            let door = door.into();
            (DoorSource { door, source }, pending(&command, secs))
        });
    prop::collection::vec(one, 1..6)
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(stops in stops()) {
        let read = parse(&text(&stops), CLOCKS);
        prop_assert_eq!(read, (stops.into_iter().collect::<BTreeMap<_, _>>(), 0));
    }

    /// Cut anywhere, the lines before the cut are read and nothing else is.
    #[test]
    fn a_torn_journal_says_what_was_written_before_the_tear(stops in stops()) {
        let journal = text(&stops);
        for end in 0..=journal.len() {
            let torn = &journal[..end];
            let (read, damaged) = parse(torn, CLOCKS);
            let lines: Vec<_> = torn.split_inclusive(|byte| *byte == b'\n').collect();
            // A line that lacks only its line end is complete.
            let is_whole = |line: &&[u8]| serde_json::from_slice::<StopLine>(line).is_ok();
            prop_assert_eq!(damaged, usize::from(!lines.last().is_none_or(is_whole)));
            let expected: BTreeMap<_, _> = stops[..lines.len() - damaged].iter().cloned().collect();
            prop_assert_eq!(read, expected);
        }
    }
}
