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
    // A packet that differs in anything is no retransmission, and so the wrong step.
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
fn rule_4_a_step_of_a_door_that_the_packet_does_not_fit_ends_no_attempt() {
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

fn strays(door: u16, stage: u8, last: &str) -> Vec<(u16, Outcome)> {
    let cause = Cause::Strays(step(last));
    vec![(door, Outcome::Reset { stage, cause })]
}

/// Returns a packet not yet sent, with these flags if it is of TCP.
fn packet(bed: &mut Bed, to: &str, with: u8) -> Knock {
    let mut knock = bed.packet(ONE, to);
    if let Transport::Tcp { flags, .. } = &mut knock.transport {
        *flags = with;
    }
    knock
}

/// The count is exact where no two ports share a bit of the sketch; these do not.
#[test]
fn rule_5_more_distinct_strays_than_allowed_end_the_attempt() {
    for allowed in 0..=3 {
        let mut patient = door("d", THREE);
        patient.strays = allowed;
        let mut bed = Bed::new(&[patient]);
        // The second attempt uses the same slot: nothing is left of the first.
        for _ in 0..2 {
            bed.hit(ONE, "1000/tcp");
            for n in 0..allowed {
                let port = format!("{}/tcp", 5000 + n);
                assert_eq!(bed.hit(ONE, &port), NOTHING);
                assert_eq!(bed.hit(ONE, &port), NOTHING, "the same port again");
            }
            let ended = strays(0, 1, "5000/udp");
            assert_eq!(bed.hit(ONE, "5000/udp"), ended, "{allowed}");
        }
    }
}

#[test]
fn rule_5_many_strays_are_counted_nearly() {
    for allowed in [16, 128, crate::model::MAX_STRAYS] {
        let mut patient = door("d", THREE);
        patient.strays = allowed;
        let mut bed = Bed::new(&[patient]);
        let sources = (0..100).map(|n| format!("192.0.2.{n}"));
        let mut survived = 0;
        for source in sources {
            bed.hit(&source, "1000/tcp");
            let mut ports = (1..1000).map(|n| format!("{}/tcp", 10_000 + n));
            survived += ports
                .position(|port| !bed.hit(&source, &port).is_empty())
                .expect("an end");
        }
        let (mean, allowed) = (survived as f64 / 100., f64::from(allowed));
        assert!(
            (mean - allowed).abs() < 0.05 * allowed,
            "{mean}, not {allowed}"
        );
    }
}

#[test]
fn rule_5_ports_that_are_opened_or_ignored_never_count() {
    let mut strict = door("d", THREE);
    strict.strays = 0;
    let other = ModelDoor {
        open: ["22/tcp", "500-502/udp"]
            .map(|r| r.parse().expect("a range"))
            .into(),
        ..door("other", "4000/tcp 5000/tcp")
    };
    let doors = [strict, other];
    let ignored = ["443/tcp", "60000-61000/udp"].map(|r| r.parse().expect("a range"));
    let mut bed = Bed::wired(
        &doors,
        Tripwires::new(TripwireMode::On, &ignored, &doors),
        10,
    );
    bed.hit(ONE, "1000/tcp");
    for port in ["22/tcp", "501/udp", "443/tcp", "60000/udp", "61000/udp"] {
        assert_eq!(bed.hit(ONE, port), NOTHING, "{port}");
    }
    assert_eq!(bed.hit(ONE, "443/udp"), strays(0, 1, "443/udp"));
}

#[test]
fn rule_5_without_tripwires_nothing_counts() {
    let mut strict = door("d", THREE);
    strict.strays = 0;
    let mut bed = Bed::with(&[strict], TripwireMode::Off, 10);
    bed.hit(ONE, "1000/tcp");
    assert_eq!(bed.hit(ONE, "5000/tcp"), NOTHING);
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
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
    assert_eq!(bed.hit(ONE, "5000/udp"), strays(1, 1, "5000/udp"));
    assert_eq!(bed.hit(ONE, "2000/tcp"), open(0, 2));
}

#[test]
fn rule_5_a_syn_counts_whatever_the_door_wants() {
    for (first, flags) in [("1000/tcp", flag::FIN), ("1000/udp", 0)] {
        let mut odd = door("d", &format!("{first} 2000/tcp"));
        odd.tcp_flags = "fin".parse().expect("flags");
        odd.strays = 0;
        let mut bed = Bed::new(&[odd]);
        let begins = packet(&mut bed, first, flags);
        assert_eq!(bed.send(&begins), stage(0, 1));
        let answer = packet(&mut bed, "5000/tcp", flag::SYN | flag::ACK);
        assert_eq!(bed.send(&answer), NOTHING);
        assert_eq!(bed.hit(ONE, "5000/tcp"), strays(0, 1, "5000/tcp"));
        bed.send(&Knock {
            source_port: 1,
            ..begins
        });
        let with_rst = packet(&mut bed, "5000/tcp", flag::SYN | flag::RST);
        assert_eq!(bed.send(&with_rst), strays(0, 1, "5000/tcp"));
    }
}

/// FIN, NULL and XMAS scans count; but a packet with ACK or RST may be of a session beside the knock.
#[test]
fn rule_5_other_segments_count_if_the_door_takes_them_and_they_are_of_no_session() {
    for (sequence, wanted, counts) in [
        ("1000/tcp 2000/tcp", "any", true),
        ("1000/udp 2000/tcp", "!syn", true),
        ("1000/tcp 2000/tcp", "syn", false),
        ("1000/udp 2000/udp", "any", false),
    ] {
        let mut strict = door("d", sequence);
        strict.tcp_flags = wanted.parse().expect("flags");
        strict.strays = 0;
        let first = strict.sequence[0].to_string();
        let mut bed = Bed::new(&[strict]);
        for flags in [0, flag::FIN, flag::FIN | flag::PSH | flag::URG, flag::PSH] {
            bed.hit(ONE, &first);
            for of_session in [flag::ACK, flag::RST, flag::RST | flag::ACK] {
                let other = packet(&mut bed, "77/tcp", flags | of_session);
                assert_eq!(bed.send(&other), NOTHING, "{flags:#x} {of_session:#x}");
            }
            let scan = packet(&mut bed, "77/tcp", flags);
            let ended = match counts {
                true => strays(0, 1, "77/tcp"),
                false => NOTHING,
            };
            assert_eq!(bed.send(&scan), ended, "{sequence} {wanted} {flags:#x}");
        }
    }
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
fn rule_6_expire_ends_what_is_as_old_as_the_timeout() {
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
fn rule_6_without_expire_an_attempt_ends_with_the_next_packet_of_its_source() {
    let (mut bed, mut events) = (three(), Vec::new());
    bed.hit(ONE, "1000/tcp");
    bed.hit(TWO, "1000/tcp");
    bed.now += 15_000;
    let late = bed.packet(ONE, "2000/udp");
    bed.matcher.observe(&late, true, &mut events);
    let ended = [(0, Outcome::Timeout { stage: 1 })];
    assert_eq!((outcomes(&events), bed.live()), (ended.into(), 1));
    assert!(bed.matcher.next_deadline().is_some_and(|at| at <= bed.at()));
    events.clear();
    bed.matcher.expire(bed.at(), &mut events);
    assert_eq!((outcomes(&events), bed.live()), (ended.into(), 0));
}

#[test]
fn a_disabled_door_never_matches() {
    let mut bed = Bed::new(&[door("off", ""), door("on", "1000/tcp")]);
    assert_eq!(bed.hit(ONE, "1000/tcp"), open(1, 1));
}
