//! The differential test: Debian's knockd 0.8 and ours on one server, with one generated
//! knockd.conf and the same packets. Who opened what, and which commands ran, is the same;
//! or else a model of both, in which each difference has a name, said so before.
//!
//! `KNOCKD_ROUNDS` asks for more rounds, `KNOCKD_SEED` for those of an earlier run.

mod generate;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use crate::daemon::Daemon;
use crate::packets::{Packet, Sender};
use crate::support::{Lab, wait_until};
use generate::{Dice, Door, Rounds};
use model::{FAULTS, Fault, Model, Opened};

/// Rounds of one bundle: sent at once, then waited for.
const BUNDLE: usize = 20;

/// Rounds with one configuration.
const WITH_ONE: usize = 40;

fn from_env(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: a number")),
        Err(_) => otherwise,
    }
}

fn random() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

#[test]
fn the_same_doors_open_and_the_same_commands_run() {
    needs!(Laboratory, Knock08);
    let rounds = from_env("KNOCKD_ROUNDS", 320) as usize;
    let seed = from_env("KNOCKD_SEED", random());
    println!("KNOCKD_SEED={seed} KNOCKD_ROUNDS={rounds}");
    let mut dice = Dice(seed);
    let mut tally = Tally::default();
    for _ in 0..rounds.div_ceil(WITH_ONE) {
        let lab = Lab::new();
        side_by_side(&lab, &mut dice, &mut tally);
    }
    println!("{tally:?}");
    // Far from what is usual (three in five; each fault in every fiftieth round at least),
    // so that no seed fails by chance.
    assert!(
        tally.alike * 4 > tally.rounds,
        "so many differences hide others: {tally:?}"
    );
    for fault in FAULTS.iter().filter(|_| tally.rounds >= 1600) {
        assert!(tally.by_fault.contains_key(fault), "{fault:?}: {tally:?}");
    }
}

/// How often the two differed, and by what.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    alike: usize,
    /// Rounds in which ours would have done otherwise, had it this fault.
    by_fault: BTreeMap<Fault, usize>,
}

/// The models of both daemons, and of ours with each single fault.
struct Oracle {
    theirs: Model,
    ours: Model,
    faulty: Vec<(Fault, Model)>,
}

impl Oracle {
    fn new(doors: &[Door]) -> Self {
        Self {
            theirs: Model::new(doors, &FAULTS),
            ours: Model::new(doors, &[]),
            faulty: FAULTS
                .iter()
                .map(|f| (*f, Model::new(doors, &[*f])))
                .collect(),
        }
    }

    fn observe(&mut self, packets: &[Packet], tally: &mut Tally) {
        let sources: BTreeSet<IpAddr> = packets.iter().map(|p| p.from).collect();
        let see = |model: &mut Model| {
            packets.iter().for_each(|p| model.observe(p));
            let opened = model.opened.iter();
            let opened: Vec<_> = opened.filter(|((s, _), _)| sources.contains(s)).collect();
            format!("{opened:?}")
        };
        let ours = see(&mut self.ours);
        tally.rounds += 1;
        tally.alike += usize::from(see(&mut self.theirs) == ours);
        for (fault, model) in &mut self.faulty {
            if see(model) != ours {
                *tally.by_fault.entry(*fault).or_default() += 1;
            }
        }
    }

    /// Whether a door with a stop command would open twice for one source: ours puts its
    /// stop off then, 0.8 starts twice and stops twice. That has a test of its own.
    fn repeats_a_stop(&self, doors: &[Door], packets: &[Packet]) -> bool {
        [&self.theirs, &self.ours].into_iter().any(|model| {
            let mut model = model.clone();
            packets.iter().for_each(|p| model.observe(p));
            let stops = |name: &str| doors.iter().any(|d| d.stops && d.name == name);
            let mut opened = model.opened.iter();
            opened.any(|((_, name), count)| *count > 1 && stops(name))
        })
    }
}

fn side_by_side(lab: &Lab, dice: &mut Dice, tally: &mut Tally) {
    let doors = generate::doors(dice);
    let write = |name: &str| {
        let text = generate::configuration(&doors, &lab.directory().join(format!("{name}.ran")));
        lab.write(&format!("{name}.conf"), &text)
    };
    let configuration = write("ours");
    let ours = lab.start_ours(&configuration);
    let theirs = lab.start_theirs(&write("theirs"));
    let sender = lab.sender();
    let mut oracle = Oracle::new(&doors);
    let mut rounds = Rounds::new();
    let mut sent = Vec::new();
    for _ in 0..WITH_ONE / BUNDLE {
        for _ in 0..BUNDLE {
            let packets = loop {
                let drawn = rounds.round(dice, &doors);
                if !oracle.repeats_a_stop(&doors, &drawn) {
                    break drawn;
                }
            };
            oracle.observe(&packets, tally);
            packets.iter().for_each(|p| sender.send(p));
            sent.extend(packets);
        }
        let end = rounds.end();
        oracle.theirs.observe(&end);
        oracle.ours.observe(&end);
        finish(&sender, end, [&ours, &theirs]);
        sent.push(end);
    }
    for (name, daemon, model) in [
        ("theirs", theirs, &oracle.theirs),
        ("ours", ours, &oracle.ours),
    ] {
        assert_opened(name, &opened(&daemon), &model.opened, &configuration, &sent);
        let mut expected = Vec::new();
        for ((source, name), count) in &model.opened {
            let door = doors.iter().find(|d| d.name == *name);
            let lines = door.map(|d| d.writes(*source)).unwrap_or_default();
            expected.extend(std::iter::repeat_n(lines, *count).flatten());
        }
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        lab.wait_for_written(&format!("{name}.ran"), &expected);
        daemon.terminate();
    }
}

/// Sends the packet that ends a bundle, and waits until both have seen it.
fn finish(sender: &Sender, end: Packet, daemons: [&Daemon; 2]) {
    sender.send(&end);
    let line = format!("{}: end: OPEN SESAME", end.from);
    for daemon in daemons {
        wait_until(&format!("the end in {}", daemon.log.display()), || {
            daemon.logged().contains(&line)
        });
    }
}

/// The events in a daemon's log.
fn opened(daemon: &Daemon) -> Opened {
    let mut opened = Opened::new();
    for line in daemon.logged() {
        if let Some(what) = line.strip_suffix(": OPEN SESAME")
            && let Some((source, door)) = what.rsplit_once(": ")
            && let Ok(source) = source.parse()
        {
            *opened.entry((source, door.to_owned())).or_default() += 1;
        }
    }
    opened
}

/// Panics at the first source for which something else happened, with all it sent.
fn assert_opened(who: &str, found: &Opened, model: &Opened, configuration: &Path, sent: &[Packet]) {
    let keys: BTreeSet<_> = found.keys().chain(model.keys()).collect();
    for key in keys {
        let (found, model) = (found.get(key), model.get(key));
        if found != model {
            let sent: Vec<_> = sent.iter().filter(|p| p.from == key.0).collect();
            let text = std::fs::read_to_string(configuration).unwrap_or_default();
            panic!("{who}: {key:?} opened {found:?} times, expected {model:?}\n{text}\n{sent:#?}");
        }
    }
}
