//! Those who know a door, and what must be open by what they and the administrator have done.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::dice::Dice;
use crate::site::Site;
use crate::support::frame::send_datagram;
use crate::support::{Lab, SOON, wait_until};
use crate::{BRIEF, RUN, SSH, order};

/// How many there are who knock.
const PEOPLE: u32 = 400;

/// How often it is asked whether packets of a knock were lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Model<'lab> {
    lab: &'lab Lab,
    site: &'lab Site<'lab>,
    wire: Socket,
    /// Who must be in at port 22.
    open: BTreeSet<Ipv4Addr>,
    /// Those whose commands ran last.
    ran: Vec<Ipv4Addr>,
    pub(crate) knocks: u64,
    /// Knocks of which the daemon has lost a packet, and said so.
    pub(crate) again: u64,
    pub(crate) commands: u64,
    pub(crate) orders: u64,
}

impl<'lab> Model<'lab> {
    pub(crate) fn new(lab: &'lab Lab, site: &'lab Site<'lab>) -> Self {
        Self {
            lab,
            site,
            wire: lab.client.frames("eth0"),
            open: BTreeSet::new(),
            ran: Vec::new(),
            knocks: 0,
            again: 0,
            commands: 0,
            orders: 0,
        }
    }

    /// Somebody does something.
    #[track_caller]
    pub(crate) fn step(&mut self, dice: &mut Dice, lost: impl Fn() -> u64) {
        let person = Ipv4Addr::from(0x6440_0000 + dice.number(PEOPLE));
        match (dice.number(10), self.open.contains(&person)) {
            (0, true) => self.order(&format!("close {person}"), |open| {
                open.remove(&person);
            }),
            (0, false) => self.order(&format!("open ssh {person}"), |open| {
                open.insert(person);
            }),
            (1, _) => self.order("status", |_| ()),
            (2, _) => self.run(lost),
            (3, _) => self.knock(person, BRIEF, "443", lost),
            _ => {
                self.knock(person, SSH, "22", lost);
                self.open.insert(person);
            }
        }
    }

    #[track_caller]
    fn order(&mut self, words: &str, then: impl FnOnce(&mut BTreeSet<Ipv4Addr>)) {
        order(self.site, words);
        then(&mut self.open);
        self.orders += 1;
    }

    /// A person knocks until the door is open, but again only if the daemon says that it has lost packets.
    #[track_caller]
    fn knock(&mut self, person: Ipv4Addr, steps: [u16; 3], port: &str, lost: impl Fn() -> u64) {
        let element = format!("{{ {person} . tcp . {port} }}");
        let get = format!("nft get element inet knockd openings_v4 {element}");
        let lab = self.lab;
        self.until(person, steps, lost, || {
            lab.server.try_run(&get).status.success()
        });
        self.knocks += 1;
    }

    /// A person knocks whose command runs; each of them once.
    #[track_caller]
    fn run(&mut self, lost: impl Fn() -> u64) {
        let count = u32::try_from(self.ran.len()).expect("few");
        let person = Ipv4Addr::from(0x6480_0000 + count);
        let started = self.file("started");
        let line = format!("{person}\n");
        self.until(person, RUN, lost, || {
            std::fs::read_to_string(&started).is_ok_and(|text| text.ends_with(&line))
        });
        self.ran.push(person);
        self.commands += 1;
    }

    fn until(
        &mut self,
        person: Ipv4Addr,
        steps: [u16; 3],
        lost: impl Fn() -> u64,
        is_done: impl Fn() -> bool,
    ) {
        let begun = Instant::now();
        let mut before = lost();
        for step in steps {
            send_datagram(&self.wire, person, step);
        }
        let mut sent = Instant::now();
        while !is_done() {
            assert!(begun.elapsed() < SOON, "{person} knocked {steps:?} in vain");
            thread::sleep(Duration::from_millis(2));
            if sent.elapsed() < PATIENCE {
                continue;
            }
            // On a busy machine it takes longer. Only who was not heard knocks again.
            let now = lost();
            if now > before {
                before = now;
                self.again += 1;
                for step in steps {
                    send_datagram(&self.wire, person, step);
                }
            }
            sent = Instant::now();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.lab.directory().join(name)
    }

    /// What is open is what must be; each command was run and stopped once.
    #[track_caller]
    pub(crate) fn expect_so(&self) {
        let of = |place: &str| {
            let openings = self.site.openings();
            let of = openings.iter().filter(|o| o["opens"] == place);
            let source = |o: &serde_json::Value| o["source"].as_str()?.parse::<Ipv4Addr>().ok();
            of.map(|o| source(o).expect("an address"))
                .collect::<BTreeSet<_>>()
        };
        wait_until("the brief openings to run out", || of("443/tcp").is_empty());
        assert_eq!(of("22/tcp"), self.open);
        assert_eq!(self.site.openings().len(), self.open.len());
        let ran = |name: &str| {
            let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
            let mut all: Vec<Ipv4Addr> = text.lines().filter_map(|l| l.parse().ok()).collect();
            all.sort_unstable();
            all
        };
        // Who has knocked again may have been heard twice.
        wait_until("the last stop", || ran("stopped") == ran("started"));
        let mut started = ran("started");
        started.dedup();
        assert_eq!(started, self.ran);
    }
}
