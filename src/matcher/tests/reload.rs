//! Attempts whose doors change under them.

use super::*;

fn reload(bed: &mut Bed, doors: &[ModelDoor]) -> Vec<(u16, Outcome)> {
    let mut events = Vec::new();
    let wires = wires(TripwireMode::On, doors);
    bed.matcher
        .reload(doors.into(), wires, bed.at(), &mut events);
    outcomes(&events)
}

#[test]
fn attempts_at_a_door_that_stays_go_on_under_its_new_number() {
    let (a, b) = (
        door("a", "1000/tcp 2000/tcp"),
        door("b", "1000/tcp 3000/tcp"),
    );
    let mut bed = Bed::new(&[a.clone(), b.clone()]);
    bed.hit(ONE, "1000/tcp");
    // The actions after the knock do not concern the attempt.
    let opens = ModelDoor {
        open: ["22/tcp".parse().expect("a port")].into(),
        ..b
    };
    let mut brief = door("c", "4000/tcp");
    brief.seq_timeout = Duration::from_secs(1);
    let ended = Outcome::Reset {
        stage: 1,
        cause: Cause::Reload,
    };
    assert_eq!(reload(&mut bed, &[brief, opens]), [(0, ended)]);
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(1, 2));
}

#[test]
fn attempts_at_a_door_that_decides_otherwise_end() {
    let changes: [fn(&mut ModelDoor); 7] = [
        |d| d.name = "other".into(),
        |d| d.sequence = [step("1000/tcp"), step("2000/udp")].into(),
        |d| d.seq_timeout = Duration::from_secs(14),
        |d| d.tcp_flags = TcpFlags::ANY,
        |d| d.from = ["192.0.2.0/24".parse().expect("a prefix")].into(),
        |d| d.target = Some(address(HOST)),
        |d| d.strays = 1,
    ];
    for change in changes {
        let mut changed = door("a", "1000/tcp 2000/tcp");
        let mut bed = Bed::new(std::slice::from_ref(&changed));
        bed.hit(ONE, "1000/tcp");
        change(&mut changed);
        let ended = Outcome::Reset {
            stage: 1,
            cause: Cause::Reload,
        };
        assert_eq!(reload(&mut bed, &[changed]), [(0, ended)]);
        assert_eq!(bed.live(), 0);
        assert_eq!(bed.matcher.next_deadline(), None);
    }
}
