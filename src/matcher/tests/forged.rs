//! Packets forged at a user's address can end the user's knock. That takes as many ports within the
//! knock as the door forgives strays, or one step, if the attacker knows one.

use super::scan::Dice;
use super::*;

const THREE: &str = "17301/tcp 4022/udp 39855/tcp";

/// The time from one step of the user to the next, in milliseconds.
const PAUSE: u64 = 200;

/// Returns how many of a thousand knocks are ended by this many SYNs a second to random ports, at even
/// distances.
fn ended_of_a_thousand(strays: u16, a_second: u32) -> usize {
    let mut patient = door("d", THREE);
    patient.strays = strays;
    let mut bed = Bed::new(&[patient]);
    let mut dice = Dice(u64::from(a_second) + 1);
    let ended = |n: u32| {
        let source = format!("10.0.{}.{}", n >> 8, n & 0xff);
        let begin = bed.now;
        let forged_every = 1000. / f64::from(a_second);
        let mut next = dice.share() * forged_every;
        let mut is_open = false;
        for (number, port) in (0u64..).zip(THREE.split(' ')) {
            let at = number * PAUSE;
            while next < at as f64 {
                bed.now = begin + next as u64;
                let forged = 1 + dice.below(65_535);
                bed.hit(&source, &format!("{forged}/tcp"));
                next += forged_every;
            }
            bed.now = begin + at;
            is_open = bed.hit(&source, port) == open(0, 3);
        }
        bed.now += 20_000;
        !is_open
    };
    (0..1000).map(ended).filter(|ended| *ended).count()
}

#[test]
fn it_takes_hundreds_of_forged_packets_a_second_to_end_a_knock() {
    assert!(ended_of_a_thousand(128, 250) < 30);
    assert!((250..750).contains(&ended_of_a_thousand(128, 325)));
    assert!(ended_of_a_thousand(128, 400) > 970);
}

#[test]
fn with_few_strays_some_dozens_of_forged_packets_a_second_end_a_knock() {
    assert!(ended_of_a_thousand(8, 20) < 30);
    assert!(ended_of_a_thousand(8, 30) > 970);
}

#[test]
fn who_knows_a_step_ends_a_knock_by_one_forged_packet() {
    let mut bed = Bed::new(&[door("d", THREE)]);
    bed.hit(ONE, "17301/tcp");
    assert_eq!(bed.hit(ONE, "39855/tcp"), [wrong(0, 1, "39855/tcp")]);
    assert_eq!(bed.hit(ONE, "4022/udp"), NOTHING);
}
