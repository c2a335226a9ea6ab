//! Rule 1, where it is not plain: packets without a number, attempts that are over, and packets that
//! rule 3 has ignored.

use super::*;

fn three() -> Bed {
    Bed::new(&[door("d", "1000/tcp 2000/udp 3000/tcp")])
}

/// UDP over IPv6 has no identification, nor has it over IPv4 where it may not be fragmented; and a
/// client with one socket has one source port.
#[test]
fn rule_1_what_tells_nothing_is_the_step_expected() {
    for sequence in [
        "1000/udp 2000/udp 1000/udp",
        "1000/udp 1000/udp 1000/udp",
        "1000/tcp 2000/tcp 1000/tcp",
    ] {
        let mut bed = Bed::new(&[door("d", sequence)]);
        // The same holds right behind the first knock: nothing tells the two knocks apart.
        for _ in 0..2 {
            let mut told = Vec::new();
            for port in sequence.split(' ') {
                bed.serial = u32::MAX;
                let knock = Knock {
                    source: address("2001:db8::1"),
                    ..knock(bed.at().0, address(ONE), step(port), 0)
                };
                told.extend(bed.send(&knock));
            }
            let expected = [stage(0, 1), stage(0, 2), open(0, 3)].concat();
            assert_eq!(told, expected, "{sequence}");
        }
    }
    // A packet that is not expected may still be a retransmission.
    let mut bed = three();
    let first = knock(bed.at().0, address(ONE), step("1000/tcp"), 0);
    bed.send(&first);
    bed.hit(ONE, "2000/udp");
    assert_eq!(bed.send(&first), NOTHING);
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
}

/// The ports of a knock are mostly filtered, so that each of its SYNs comes again, the last ones
/// when the door is open.
#[test]
fn rule_1_retransmissions_of_a_knock_that_has_opened_make_nothing() {
    let doors = [
        door("d", "1000/tcp 2000/tcp 3000/tcp"),
        door("begins", "1000/tcp 9000/tcp"),
        door("one", "3000/tcp"),
        door("other", "5000/tcp 6000/tcp"),
    ];
    let mut bed = Bed::new(&doors);
    let ports = ["1000/tcp", "2000/tcp", "3000/tcp"];
    let mut sent: Vec<_> = ports.map(|port| bed.packet(ONE, port)).into();
    let knock = [
        vec![(0, Outcome::Stage(1)), (1, Outcome::Stage(1))],
        vec![(0, Outcome::Stage(2)), wrong(1, 1, "2000/tcp")],
        [open(0, 3), open(2, 1)].concat(),
    ];
    let told = |bed: &mut Bed, sent: &[Knock]| -> Vec<_> {
        let send = |knock| bed.send(knock);
        sent.iter().map(send).collect()
    };
    assert_eq!(told(&mut bed, &sent), knock);
    let (begin, mut last) = (bed.now, bed.now);
    for pause in [1, 3, 7, 15, 31, 63] {
        bed.now = begin + pause * 1000;
        let now = bed.at();
        let again = |knock: &mut Knock| knock.at = now;
        sent.iter_mut().for_each(again);
        // No retransmission of this knock, nor anything else that the source does in between.
        assert_eq!(bed.hit(ONE, "5000/tcp"), stage(3, 1));
        for knock in &sent {
            assert_eq!(bed.send(knock), NOTHING, "{pause}");
        }
        assert_eq!(bed.hit(ONE, "6000/tcp"), open(3, 2));
        // The packets of another source are its own.
        let mut others = sent.clone();
        others.iter_mut().for_each(|k| k.source = address(TWO));
        if pause == 1 {
            assert_eq!(told(&mut bed, &others), knock);
        }
        last = bed.now;
    }
    // Not for ever.
    bed.now = last + 300_000;
    sent.iter_mut()
        .for_each(|k| k.at = Timestamp(bed.now * 1_000_000));
    assert_eq!(told(&mut bed, &sent), knock);
}

#[test]
fn rule_1_a_new_knock_opens_while_the_last_one_is_still_known() {
    let mut bed = Bed::new(&[door("d", "1000/tcp 2000/tcp")]);
    let mut known = Vec::new();
    for _ in 0..5 {
        let (first, second) = (bed.packet(ONE, "1000/tcp"), bed.packet(ONE, "2000/tcp"));
        assert_eq!(bed.send(&first), stage(0, 1));
        // Retransmissions of all earlier knocks come in between.
        known.iter().for_each(|k| assert_eq!(bed.send(k), NOTHING));
        assert_eq!(bed.send(&second), open(0, 2));
        known.extend([first, second]);
        known.iter().for_each(|k| assert_eq!(bed.send(k), NOTHING));
        bed.now += 100;
    }
    assert_eq!(bed.live(), 0);
}

/// Browsers open a second connection after 250 ms; both are tried again.
#[test]
fn rule_1_ignores_what_rule_3_has_ignored_last() {
    let mut bed = three();
    let hit = |bed: &mut Bed, port| {
        let packets = [bed.packet(ONE, port), bed.packet(ONE, port)];
        let told = bed.send(&packets[0]);
        assert_eq!(bed.send(&packets[1]), NOTHING);
        (told, packets)
    };
    let (told, first) = hit(&mut bed, "1000/tcp");
    assert_eq!(told, stage(0, 1));
    assert_eq!(hit(&mut bed, "2000/udp").0, stage(0, 2));
    first.iter().for_each(|k| assert_eq!(bed.send(k), NOTHING));
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
    first.iter().for_each(|k| assert_eq!(bed.send(k), NOTHING));
    assert_eq!(bed.live(), 0);
}
