//! One record: what is written is read, and nothing else is.

use proptest::prelude::*;

use super::*;

const CLOCK: Clock = Clock {
    boot: Timestamp(1_000_000_000_000),
    wall: Duration::from_secs(1_795_357_200),
};

fn key(door: &str, last: u8) -> Key {
    Key {
        door: door.into(),
        source: IpAddr::from([192, 0, 2, last]),
    }
}

fn pending(command: &str, secs: u64) -> Pending {
    Pending {
        command: command.into(),
        timeout: Duration::from_secs(secs),
        due: CLOCK.boot + Duration::from_secs(secs),
    }
}

fn text(records: &[Record]) -> String {
    records.iter().map(|r| r.to_line(CLOCK)).collect()
}

fn later(wait: Duration) -> Clock {
    Clock {
        boot: CLOCK.boot + wait,
        wall: CLOCK.wall + wait,
    }
}

#[test]
fn a_line_is_as_the_page_above_says() {
    let line = Record::Arm(key("ssh", 7), pending("iptables -s %IP%", 10)).to_line(CLOCK);
    let (_, text) = line.split_once('\t').expect("a checksum");
    assert_eq!(
        text,
        "arm\t1795357210000\t10000\t192.0.2.7\tssh\tiptables -s %IP%\n"
    );
}

#[test]
fn later_lines_change_what_earlier_ones_said() {
    let journal = text(&[
        Record::Arm(key("a", 1), pending("one", 10)),
        Record::Arm(key("b", 1), pending("two", 10)),
        Record::Arm(key("a", 2), pending("three", 10)),
        Record::Done(key("b", 1)),
        Record::Due(key("a", 2), CLOCK.boot + Duration::from_secs(5)),
        Record::Done(key("nobody", 9)),
    ]);
    let contents = parse(journal.as_bytes(), CLOCK);
    assert_eq!(contents.damaged, 0);
    assert_eq!(
        contents.pending.keys().collect::<Vec<_>>(),
        [&key("a", 1), &key("a", 2)]
    );
    assert_eq!(contents.pending[&key("a", 1)], pending("one", 10));
    assert_eq!(
        contents.pending[&key("a", 2)].due,
        CLOCK.boot + Duration::from_secs(5)
    );
}

#[test]
fn what_is_overdue_is_due_now_and_what_is_left_is_kept() {
    let journal = text(&[Record::Arm(key("a", 1), pending("x", 10))]);
    let after = |secs| {
        let clock = later(Duration::from_secs(secs));
        let contents = parse(journal.as_bytes(), clock);
        contents.pending[&key("a", 1)].due.since(clock.boot)
    };
    assert_eq!(after(4), Duration::from_secs(6));
    assert_eq!(after(10), Duration::ZERO);
    assert_eq!(after(1_000_000), Duration::ZERO);
}

#[test]
fn a_clock_set_back_keeps_nothing_open_longer_than_the_timeout() {
    let journal = text(&[
        Record::Arm(key("a", 1), pending("x", 10)),
        Record::Arm(key("a", 2), pending("x", 10)),
        Record::Due(key("a", 2), CLOCK.boot + Duration::from_secs(9)),
    ]);
    // A machine without a battery: 1970, and it has just been switched on.
    let clock = Clock {
        boot: Timestamp(5),
        wall: Duration::from_secs(3),
    };
    let contents = parse(journal.as_bytes(), clock);
    for pending in contents.pending.values() {
        assert_eq!(pending.due, clock.boot + Duration::from_secs(10));
    }
    assert_eq!(contents.pending.len(), 2);
}

fn arms() -> impl Strategy<Value = Vec<(Key, Pending)>> {
    let source = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    let one = ("[a-z\\\\\t]{1,4}", source, "(?s).{0,12}", 1..100u64).prop_map(
        |(door, source, command, secs)| {
            (
                Key {
                    door: door.into(),
                    source,
                },
                pending(&command, secs),
            )
        },
    );
    prop::collection::vec(one, 1..6)
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(arms in arms()) {
        let journal: String = arms
            .iter()
            .map(|(k, p)| Record::Arm(k.clone(), p.clone()).to_line(CLOCK))
            .collect();
        let contents = parse(journal.as_bytes(), CLOCK);
        prop_assert_eq!(contents.damaged, 0);
        prop_assert_eq!(contents.pending, arms.into_iter().collect::<BTreeMap<_, _>>());
    }

    /// Cut anywhere, the lines before the cut are read and nothing else is.
    #[test]
    fn a_torn_journal_says_what_was_written_before_the_tear(arms in arms()) {
        let lines: Vec<String> = arms
            .iter()
            .map(|(k, p)| Record::Arm(k.clone(), p.clone()).to_line(CLOCK))
            .collect();
        let journal = lines.concat();
        for end in 0..=journal.len() {
            let contents = parse(&journal.as_bytes()[..end], CLOCK);
            let (mut whole, mut length) = (0, 0);
            while whole < lines.len() && length + lines[whole].len() <= end {
                length += lines[whole].len();
                whole += 1;
            }
            prop_assert_eq!(contents.damaged, usize::from(length < end));
            prop_assert_eq!(
                contents.pending,
                arms[..whole].iter().cloned().collect::<BTreeMap<_, _>>()
            );
        }
    }

    /// Whatever one byte is changed to, nothing is read that was not written, and all that
    /// was but for the line that was hit (two, if its end was).
    #[test]
    fn a_changed_byte_costs_its_line_and_no_other(arms in arms(), change in 1..=255u8) {
        let written: BTreeMap<_, _> = arms.into_iter().collect();
        let journal: String = written
            .iter()
            .map(|(k, p)| Record::Arm(k.clone(), p.clone()).to_line(CLOCK))
            .collect();
        for at in 0..journal.len() {
            let mut bytes = journal.clone().into_bytes();
            bytes[at] ^= change;
            let contents = parse(&bytes, CLOCK);
            prop_assert!(contents.damaged >= 1);
            prop_assert!(contents.pending.len() + 2 >= written.len());
            for (key, pending) in &contents.pending {
                prop_assert_eq!(written.get(key), Some(pending));
            }
        }
    }
}
