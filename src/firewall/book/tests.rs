//! The book against plain expectations, and against a plain map.

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

fn sent(book: &mut Book, effects: &[Effect], at: u64) -> String {
    let now = Timestamp::from_epoch(Duration::from_secs(at));
    let plan = book.plan(&ruleset(), &|_| Shape::Unfit, effects, now);
    book.note(plan.writes);
    plan.transaction.to_string()
}

#[test]
fn what_is_there_is_refreshed_and_never_shortened() {
    let mut book = Book::default();
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
    let mut book = Book::default();
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

proptest! {
    /// Against a plain map from what is open to its deadline.
    #[test]
    fn as_a_plain_map_would(steps in proptest::collection::vec((0..3_u8, 0..4_u8, 1..60_u64), 1..60)) {
        let mut book = Book::default();
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
                    Place::Ports(range) => Some(((slot.source, range), entry.deadline)),
                    Place::Set(..) => None,
                })
                .collect();
            prop_assert_eq!(&known, &naive);
            let earliest = naive.values().filter_map(|d| *d).min();
            prop_assert_eq!(book.next_deadline(), earliest);
        }
    }
}
