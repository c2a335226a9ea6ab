//! Compares the account of openings with plain expectations, and with a plain map.

use std::time::Duration;

use super::*;
use crate::model::{Config, Door, Firewall};
use proptest::prelude::*;

fn ports(text: &str) -> Vec<PortRange> {
    let ports = text.split(',').map(str::parse);
    ports.collect::<Result<_, _>>().expect("ports")
}

fn ruleset() -> Ruleset {
    let door = Door {
        open: ports("22/tcp,60000-61000/udp").into(),
        ..Door::new("ssh", Vec::new())
    };
    let config = Config {
        firewall: Some(Firewall::default()),
        doors: [door].into(),
        ..Config::default()
    };
    Ruleset::new(&config).expect("a firewall")
}

fn open(host: u8, list: &str, lifetime: Lifetime) -> Effect {
    Effect::Open {
        door: "ssh".into(),
        source: IpAddr::from([192, 0, 2, host]),
        ports: ports(list),
        lifetime,
    }
}

fn close(host: u8, ports: Ports) -> Effect {
    Effect::Close {
        door: "shut".into(),
        source: IpAddr::from([192, 0, 2, host]),
        ports,
    }
}

fn sent(book: &mut Openings, effects: &[Effect], at: u64) -> String {
    let now = Timestamp::from_epoch(Duration::from_secs(at));
    let plan = book.plan(&ruleset(), &|_| Shape::Unfit, effects, By::Knock, now);
    book.note(plan.writes);
    plan.transaction.to_string()
}

#[test]
fn what_is_there_is_refreshed_and_never_shortened() {
    let mut book = Openings::default();
    let seconds = |s| Lifetime::For(Duration::from_secs(s));
    let add = |t| {
        let key = "192.0.2.7 . tcp . 22";
        format!("add element inet knockd openings_v4 {{ {key} timeout {t} comment \"ssh\" }}\n")
    };
    let delete = "delete element inet knockd openings_v4 { 192.0.2.7 . tcp . 22 }\n";
    let first = sent(&mut book, &[open(7, "22/tcp", seconds(30))], 0);
    assert_eq!(first, add("30s"));
    let longer = sent(&mut book, &[open(7, "22/tcp", seconds(30))], 5);
    assert_eq!(longer, [&add("30s"), delete, &add("30s")].concat());
    assert_eq!(sent(&mut book, &[open(7, "22/tcp", seconds(29))], 5), "");
    assert_eq!(sent(&mut book, &[close(7, Ports::All)], 6), delete);
    assert_eq!(sent(&mut book, &[close(7, Ports::All)], 6), "");
}

#[test]
fn the_effects_of_one_knock_see_each_other() {
    let mut book = Openings::default();
    let forever = Lifetime::UntilClosed;
    sent(&mut book, &[open(7, "22/tcp,60000-61000/udp", forever)], 0);
    let both = [
        close(7, Ports::Listed(ports("60500/udp,22/tcp"))),
        open(7, "22/tcp", forever),
    ];
    assert_eq!(
        sent(&mut book, &both, 1),
        "delete element inet knockd openings_v4 { 192.0.2.7 . tcp . 22 }\n\
         delete element inet knockd udp_60000_61000_v4 { 192.0.2.7 }\n\
         add element inet knockd openings_v4 { 192.0.2.7 . tcp . 22 comment \"ssh\" }\n"
    );
}

/// Returns the ruleset of a door that opens 22/tcp and a range, to so many at once.
fn ruleset_of(max_open: u32) -> Ruleset {
    let door = |name| Door {
        open: ports("22/tcp,60000-61000/udp").into(),
        max_open,
        ..Door::new(name, Vec::new())
    };
    let config = Config {
        firewall: Some(Firewall::default()),
        doors: [door("ssh"), door("web")].into(),
        ..Config::default()
    };
    Ruleset::new(&config).expect("a firewall")
}

/// Opens 22/tcp by a door for an hour. Returns the reason if nothing was opened.
fn try_open(book: &mut Openings, most: u32, door: &str, source: IpAddr, by: By) -> Option<String> {
    let effect = Effect::Open {
        door: door.into(),
        source,
        ports: ports("22/tcp,60000-61000/udp"),
        lifetime: Lifetime::For(Duration::from_secs(3600)),
    };
    let now = Timestamp::from_epoch(Duration::from_secs(1));
    let plan = book.plan(&ruleset_of(most), &|_| Shape::Unfit, &[effect], by, now);
    book.note(plan.writes);
    let said: Vec<_> = plan
        .applied
        .notices
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(said.len() <= 1, "{said:?}");
    said.into_iter().next()
}

fn four(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn six(network: u16, host: u16) -> IpAddr {
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into()
}

#[test]
fn a_door_and_a_network_have_a_share_each() {
    let mut book = Openings::default();
    let mut open = |door, source, by| try_open(&mut book, 400, door, source, by);
    // All these addresses lie in one /64, which one host may have.
    for host in 0..256 {
        assert_eq!(open("ssh", six(1, host), By::Knock), None);
    }
    let said = open("ssh", six(1, 256), By::Knock).expect("no more of one network");
    assert!(
        said.contains("256 addresses of 2001:db8:0:1::/64"),
        "{said}"
    );
    // The share of another network is not full, nor that of another door. A source that is there
    // already and an order by hand are not refused.
    assert_eq!(open("ssh", six(2, 0), By::Knock), None);
    assert_eq!(open("web", six(1, 256), By::Knock), None);
    assert_eq!(open("ssh", six(1, 256), By::Hand), None);
    for number in 0..143 {
        assert_eq!(open("ssh", four(number * 256), By::Knock), None);
    }
    let said = open("ssh", four(7), By::Knock).expect("no more of this door");
    assert!(said.contains("the door is open to 400 addresses"), "{said}");
    assert_eq!(open("web", four(7), By::Knock), None);
    assert_eq!(open("ssh", four(8), By::Hand), None);
}

#[test]
fn what_goes_makes_room_and_is_counted_out() {
    let mut book = Openings::default();
    for number in 0..300 {
        try_open(&mut book, 4096, "ssh", six(1, number), By::Knock);
    }
    let refused = |book: &mut Openings| try_open(book, 4096, "ssh", six(1, 999), By::Knock);
    assert!(refused(&mut book).is_some());
    // The source keeps its place in the share until both of its openings are gone.
    let slots: Vec<OpeningSlot> = book.of(six(1, 0)).cloned().collect();
    assert_eq!(slots.len(), 2);
    book.set(slots[0].clone(), None);
    assert!(refused(&mut book).is_some());
    book.set(slots[1].clone(), None);
    assert_eq!(refused(&mut book), None);
    // Without openings nothing is counted.
    book.replace(&[], Timestamp::from_epoch(Duration::ZERO));
    assert_eq!(refused(&mut book), None);
    let slots: Vec<OpeningSlot> = book.of(six(1, 999)).cloned().collect();
    for slot in slots {
        book.set(slot, None);
    }
    assert!(book.shares.is_empty());
}

#[test]
fn knocks_leave_room_for_who_opens_by_hand() {
    let mut book = Openings::default();
    let most = crate::model::OPENINGS;
    for number in 0..most {
        let entry = OpeningEntry {
            deadline: None,
            door: "ssh".into(),
        };
        let place = OpeningPlace::Ports(ports("22/tcp")[0]);
        let source = four(number);
        book.set(OpeningSlot { source, place }, Some(entry));
    }
    let said = try_open(&mut book, most, "web", four(most), By::Knock).expect("no room");
    assert!(
        said.contains("of 65536 openings all are taken but 1024"),
        "{said}"
    );
    // The range has a set of its own.
    let places: Vec<_> = book.of(four(most)).map(|slot| slot.place.clone()).collect();
    assert_eq!(places, [OpeningPlace::Ports(ports("60000-61000/udp")[0])]);
    assert_eq!(try_open(&mut book, most, "web", six(1, 1), By::Knock), None);
    assert_eq!(try_open(&mut book, most, "web", four(most), By::Hand), None);
    assert_eq!(book.of(four(most)).count(), 2);
}

#[test]
fn a_crowded_door_is_told_once() {
    let mut book = Openings::default();
    let ruleset = ruleset_of(100);
    let mut told = Vec::new();
    let door: Arc<str> = "ssh".into();
    for number in 0..100 {
        try_open(&mut book, 100, "ssh", four(number), By::Knock);
        told.extend(book.crowded(&ruleset, &door).map(|_| number));
    }
    assert_eq!(told, [79]);
}

proptest! {
    /// Compares the openings with a plain map from each opening to its deadline.
    #[test]
    fn as_a_plain_map_would(steps in proptest::collection::vec((0..3_u8, 0..4_u8, 1..60_u64), 1..60)) {
        let mut book = Openings::default();
        let mut naive: BTreeMap<(IpAddr, PortRange), Option<Timestamp>> = BTreeMap::new();
        for (at, (host, what, time)) in (0..).zip(steps) {
            let now = Timestamp::from_epoch(Duration::from_secs(at));
            let source = IpAddr::from([192, 0, 2, host]);
            let list = ports("22/tcp,60000-61000/udp");
            let lifetime = match what {
                3 => Lifetime::UntilClosed,
                _ => Lifetime::For(Duration::from_secs(time)),
            };
            if what == 0 {
                sent(&mut book, &[close(host, Ports::All)], at);
                naive.retain(|(s, _), _| *s != source);
            } else {
                sent(&mut book, &[open(host, "22/tcp,60000-61000/udp", lifetime)], at);
                for range in list {
                    let new = match lifetime {
                        Lifetime::For(time) => Some(now + time),
                        Lifetime::UntilClosed => None,
                    };
                    let old = naive.entry((source, range)).or_insert(new);
                    *old = old.and_then(|old| new.map(|new| old.max(new)));
                }
            }
            let known: BTreeMap<_, _> = book
                .iter()
                .filter_map(|(slot, entry)| match slot.place {
                    OpeningPlace::Ports(range) => Some(((slot.source, range), entry.deadline)),
                    OpeningPlace::Set(..) => None,
                })
                .collect();
            prop_assert_eq!(&known, &naive);
            let earliest = naive.values().filter_map(|d| *d).min();
            prop_assert_eq!(book.next_deadline(), earliest);
        }
    }
}
