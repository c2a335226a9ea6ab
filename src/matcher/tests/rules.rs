//! Each rule of *Matching*, by name.

use super::*;

const THREE: &str = "1000/tcp 2000/udp 3000/tcp";

fn three() -> Bed {
    Bed::new(&[door("d", THREE)])
}

#[test]
fn a_whole_sequence_opens_and_nothing_is_remembered() {
    let mut bed = three();
    for _ in 0..2 {
        assert_eq!(bed.hit(ONE, "1000/tcp"), stage(0, 1));
        assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
        assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
        assert_eq!(bed.live(), 0);
        assert_eq!(bed.matcher.next_deadline(), None);
    }
    assert_eq!(bed.hit(ONE, "3000/tcp"), NOTHING);
}

#[test]
fn one_step_is_a_sequence() {
    let mut bed = Bed::new(&[door("d", "9/udp")]);
    assert_eq!(bed.hit(ONE, "9/udp"), open(0, 1));
    assert_eq!(bed.hit(ONE, "9/udp"), open(0, 1));
    assert_eq!(bed.live(), 0);
}

#[test]
fn sources_are_apart() {
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    assert_eq!(bed.hit(TWO, "2000/udp"), NOTHING);
    assert_eq!(bed.hit(TWO, "1000/tcp"), stage(0, 1));
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
    let wrapped = "::ffff:192.0.2.1";
    assert_eq!(bed.hit(wrapped, "3000/tcp"), NOTHING);
    assert_eq!(bed.hit(wrapped, "1000/tcp"), stage(0, 1));
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
}

#[test]
fn rule_0_another_destination_never_came() {
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    for port in ["2000/udp", "3000/tcp", "1000/tcp", "77/tcp"] {
        let knock = bed.packet(ONE, port);
        assert_eq!(bed.send_to(&knock, false), NOTHING, "{port}");
    }
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
}

#[test]
fn rule_0_a_door_with_a_target_looks_at_nothing_else() {
    let mut through = door("through", "1000/tcp 2000/tcp");
    through.target = Some(address("203.0.113.9"));
    let mut bed = Bed::new(&[through]);
    assert_eq!(bed.hit(ONE, "1000/tcp"), NOTHING);
    let mut knock = bed.packet(ONE, "1000/tcp");
    knock.destination = address("203.0.113.9");
    assert_eq!(bed.send_to(&knock, false), stage(0, 1));
}

#[test]
fn rule_0_other_flags_never_came() {
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    bed.hit(ONE, "2000/udp");
    for flags in [flag::SYN | flag::ACK, flag::ACK, flag::RST, 0] {
        for port in ["3000/tcp", "1000/tcp", "77/tcp"] {
            let mut knock = bed.packet(ONE, port);
            knock.transport = Transport::Tcp { flags, sequence: 9 };
            assert_eq!(bed.send(&knock), NOTHING, "{flags:#x} {port}");
        }
    }
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
}

#[test]
fn who_is_not_admitted_never_came() {
    let mut only = door("only", "1000/tcp 2000/tcp");
    only.from = ["192.0.2.1".parse().expect("a prefix")].into();
    let mut bed = Bed::new(&[only]);
    assert_eq!(bed.hit(TWO, "1000/tcp"), NOTHING);
    assert_eq!(bed.live(), 0);
    assert_eq!(bed.hit(ONE, "1000/tcp"), stage(0, 1));
}

#[test]
fn rule_1_a_retransmission_is_ignored_early_or_late() {
    let mut bed = three();
    let (first, second) = (bed.packet(ONE, "1000/tcp"), bed.packet(ONE, "2000/udp"));
    assert_eq!(bed.send(&first), stage(0, 1));
    assert_eq!(bed.send(&first), NOTHING);
    assert_eq!(bed.send(&second), stage(0, 2));
    assert_eq!(bed.send(&first), NOTHING);
    assert_eq!(bed.send(&second), NOTHING);
    // What differs in anything is no retransmission, and the wrong step.
    let another = Knock {
        source_port: 40_001,
        ..first
    };
    assert_eq!(
        bed.send(&another),
        [wrong(0, 2, "1000/tcp"), (0, Outcome::Stage(1))]
    );
}

#[test]
fn rule_1_comes_before_rule_2() {
    let mut bed = Bed::new(&[door("d", "1000/tcp 1000/tcp 1000/udp 1000/udp")]);
    let tcp = bed.packet(ONE, "1000/tcp");
    assert_eq!(bed.send(&tcp), stage(0, 1));
    assert_eq!(bed.send(&tcp), NOTHING);
    assert_eq!(bed.hit(ONE, "1000/tcp"), stage(0, 2));
    let udp = bed.packet(ONE, "1000/udp");
    assert_eq!(bed.send(&udp), stage(0, 3));
    assert_eq!(bed.send(&udp), NOTHING);
    assert_eq!(bed.hit(ONE, "1000/udp"), open(0, 4));
}

#[test]
fn rule_1_knows_only_this_attempt() {
    let mut bed = Bed::new(&[door("d", "1000/tcp 2000/tcp")]);
    let (first, last) = (bed.packet(ONE, "1000/tcp"), bed.packet(ONE, "2000/tcp"));
    for _ in 0..2 {
        assert_eq!(bed.send(&first), stage(0, 1));
        assert_eq!(bed.send(&last), open(0, 2));
    }
}

#[test]
fn rule_3_the_step_just_made_may_be_hit_again() {
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    assert_eq!(bed.hit(ONE, "1000/tcp"), NOTHING);
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
    assert_eq!(bed.hit(ONE, "2000/udp"), NOTHING);
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
}

#[test]
fn rule_4_a_wrong_step_ends_the_attempt() {
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    assert_eq!(bed.hit(ONE, "3000/tcp"), [wrong(0, 1, "3000/tcp")]);
    assert_eq!(bed.live(), 0);
    assert_eq!(bed.hit(ONE, "2000/udp"), NOTHING);
}

#[test]
fn rule_4_the_first_step_begins_anew() {
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    bed.hit(ONE, "2000/udp");
    assert_eq!(
        bed.hit(ONE, "1000/tcp"),
        [wrong(0, 2, "1000/tcp"), (0, Outcome::Stage(1))]
    );
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
}

#[test]
fn rule_4_a_step_of_another_door_is_wrong_too() {
    let mut bed = Bed::new(&[
        door("a", "1000/tcp 2000/tcp"),
        door("b", "7000/tcp 8000/tcp"),
    ]);
    bed.hit(ONE, "1000/tcp");
    assert_eq!(bed.hit(ONE, "8000/tcp"), [wrong(0, 1, "8000/tcp")]);
    bed.hit(ONE, "1000/tcp");
    assert_eq!(
        bed.hit(ONE, "7000/tcp"),
        [wrong(0, 1, "7000/tcp"), (1, Outcome::Stage(1))]
    );
}

#[test]
fn rule_4_but_not_if_the_packet_does_not_fit_that_door() {
    let mut other = door("b", "7000/tcp 8000/tcp");
    other.target = Some(address("203.0.113.9"));
    let mut bed = Bed::new(&[door("a", "1000/tcp 2000/tcp"), other]);
    bed.hit(ONE, "1000/tcp");
    assert_eq!(bed.hit(ONE, "8000/tcp"), NOTHING);
    assert_eq!(bed.hit(ONE, "2000/tcp"), open(0, 2));
}

#[test]
fn doors_that_share_a_beginning_both_advance() {
    let mut bed = Bed::new(&[
        door("a", "1000/tcp 2000/tcp 3000/tcp"),
        door("b", "1000/tcp 2000/tcp 4000/tcp"),
    ]);
    assert_eq!(
        bed.hit(ONE, "1000/tcp"),
        [stage(0, 1), stage(1, 1)].concat()
    );
    assert_eq!(
        bed.hit(ONE, "2000/tcp"),
        [stage(0, 2), stage(1, 2)].concat()
    );
    assert_eq!(
        bed.hit(ONE, "4000/tcp"),
        [vec![wrong(0, 2, "4000/tcp")], open(1, 3)].concat()
    );
}

#[test]
fn rule_5_more_distinct_strays_than_allowed_end_the_attempt() {
    for allowed in 0..=crate::model::MAX_STRAYS {
        let mut patient = door("d", THREE);
        patient.strays = allowed;
        let mut bed = Bed::new(&[patient]);
        bed.hit(ONE, "1000/tcp");
        for n in 0..u16::from(allowed) {
            let port = format!("{}/tcp", 5000 + n);
            assert_eq!(bed.hit(ONE, &port), NOTHING);
            assert_eq!(bed.hit(ONE, &port), NOTHING, "the same port again");
        }
        let cause = Cause::Strays(step("5000/udp"));
        let reset = Outcome::Reset { stage: 1, cause };
        assert_eq!(bed.hit(ONE, "5000/udp"), [(0, reset)], "{allowed}");
    }
}

#[test]
fn rule_5_udp_counts_only_where_the_door_has_udp_steps() {
    let mut strict = [
        door("tcp", "1000/tcp 2000/tcp"),
        door("both", "1000/tcp 3000/udp"),
    ];
    strict.iter_mut().for_each(|d| d.strays = 0);
    let mut bed = Bed::new(&strict);
    bed.hit(ONE, "1000/tcp");
    let cause = Cause::Strays(step("5000/udp"));
    let reset = Outcome::Reset { stage: 1, cause };
    assert_eq!(bed.hit(ONE, "5000/udp"), [(1, reset)]);
    assert_eq!(bed.hit(ONE, "2000/tcp"), open(0, 2));
}

#[test]
fn rule_5_a_syn_counts_whatever_flags_the_door_wants() {
    let mut odd = door("fin", "1000/tcp 2000/tcp");
    odd.tcp_flags = TcpFlags {
        set: flag::FIN,
        clear: 0,
    };
    odd.strays = 0;
    let mut bed = Bed::new(&[odd]);
    let mut fin = bed.packet(ONE, "1000/tcp");
    fin.transport = Transport::Tcp {
        flags: flag::FIN,
        sequence: 1,
    };
    assert_eq!(bed.send(&fin), stage(0, 1));
    fin.step = step("5000/tcp");
    assert_eq!(bed.send(&fin), NOTHING);
    assert_eq!(bed.hit(ONE, "5000/tcp").len(), 1);
}

#[test]
fn rule_5_beside_a_step_what_the_door_takes_counts_too() {
    let mut lax = door("any", "1000/tcp 2000/tcp");
    lax.tcp_flags = TcpFlags::ANY;
    lax.strays = 0;
    let mut datagrams = door("udp", "3000/udp 1000/tcp 4000/udp");
    datagrams.strays = 0;
    let mut bed = Bed::new(&[lax, datagrams]);
    bed.hit(ONE, "1000/tcp");
    bed.hit(ONE, "3000/udp");
    let mut ack = bed.packet(ONE, "77/tcp");
    ack.transport = Transport::Tcp {
        flags: flag::ACK,
        sequence: 1,
    };
    // It may belong to a connection.
    assert_eq!(bed.send(&ack), NOTHING);
    bed.hit(ONE, "1000/tcp");
    ack.step = step("1998/tcp");
    let cause = Cause::Strays(ack.step);
    let reset = Outcome::Reset { stage: 1, cause };
    // To the other door, which wants SYNs, it never came.
    assert_eq!(bed.send(&ack), [(0, reset)]);
}

#[test]
fn rule_6_as_old_as_the_timeout_is_too_old() {
    let timeout = Outcome::Timeout { stage: 1 };
    let mut bed = three();
    bed.hit(ONE, "1000/tcp");
    let deadline = bed.matcher.next_deadline().expect("an attempt");
    assert_eq!(deadline, bed.at() + Duration::from_secs(15));
    bed.now += 14_999;
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
    bed.now += 1;
    let late = Outcome::Timeout { stage: 2 };
    assert_eq!(bed.hit(ONE, "3000/tcp"), [(0, late)]);
    bed.hit(ONE, "1000/tcp");
    bed.now += 15_000;
    // A late packet first times the attempt out, then may begin another.
    assert_eq!(
        bed.hit(ONE, "1000/tcp"),
        [(0, timeout), (0, Outcome::Stage(1))]
    );
}

#[test]
fn rule_6_expire_says_when() {
    let mut brief = door("brief", "1000/tcp 2000/tcp");
    brief.seq_timeout = Duration::from_secs(1);
    let mut bed = Bed::new(&[door("d", THREE), brief]);
    bed.hit(ONE, "1000/tcp");
    let mut events = Vec::new();
    let deadline = bed.matcher.next_deadline().expect("an attempt");
    bed.matcher.expire(Timestamp(deadline.0 - 1), &mut events);
    assert_eq!(events, []);
    bed.matcher.expire(deadline, &mut events);
    let expected = Event {
        at: deadline,
        source: address(ONE),
        door: DoorId(1),
        outcome: Outcome::Timeout { stage: 1 },
    };
    assert_eq!(events, [expected]);
    assert_eq!(
        bed.matcher.next_deadline(),
        Some(bed.at() + Duration::from_secs(15))
    );
}

#[test]
fn a_disabled_door_never_matches() {
    let mut bed = Bed::new(&[door("off", ""), door("on", "1000/tcp")]);
    assert_eq!(bed.hit(ONE, "1000/tcp"), open(1, 1));
}
