//! The scheduler: the commands that it runs and stops, and its reports.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Commands, Config, Door};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Doors: `both` has a start and a stop, `start` and `stop` have one of them: the last does
/// nothing.
fn table() -> CommandTable {
    let door = |name: &str, start: bool, stop: bool| Door {
        commands: Some(Box::new(Commands {
            start: start.then(|| "start %IP%".to_owned()),
            stop: stop.then(|| "stop %IP%".to_owned()),
            start_6: None,
            stop_6: None,
            timeout: TIMEOUT,
        })),
        ..Door::new(name, Vec::new())
    };
    CommandTable::new(&Config {
        doors: [
            door("both", true, true),
            door("start", true, false),
            door("stop", false, true),
        ]
        .into(),
        ..Config::default()
    })
}

fn service(limits: Limits) -> Scheduler {
    let mut service = Scheduler::new(limits);
    service.set_table(table());
    service
}

/// One start and one stop run at once.
fn one_at_a_time() -> Limits {
    Limits {
        running: 1,
        ..Limits::default()
    }
}

fn key(door: &str, last: u8) -> DoorSource {
    DoorSource {
        door: door.into(),
        source: IpAddr::from([192, 0, 2, last]),
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(secs))
}

fn start(door: &str, last: u8) -> HelperRequest {
    let DoorSource { door, source } = key(door, last);
    HelperRequest::Start { door, source }
}

/// The jobs among the actions since the last time.
fn jobs(service: &mut Scheduler) -> Vec<CommandJob> {
    let actions = service.take_actions().into_iter();
    actions
        .filter_map(|a| match a {
            Action::Run(job) => Some(job),
            Action::Report(_) => None,
        })
        .collect()
}

fn refusals(service: &mut Scheduler) -> Vec<CommandRefusal> {
    let actions = service.take_actions().into_iter();
    actions
        .filter_map(|a| match a {
            Action::Report(HelperReport::Refused { refusal, .. }) => Some(refusal),
            Action::Report(_) | Action::Run(_) => None,
        })
        .collect()
}

/// The one job there is.
fn job(service: &mut Scheduler) -> CommandJob {
    let mut jobs = jobs(service);
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

fn over(service: &mut Scheduler, now: Timestamp, job: CommandJob) {
    service.ended(now, job, Finish::Over, Ending::Code(0));
}

/// A door with a start that is over and a stop that is pending.
fn arm(service: &mut Scheduler, now: Timestamp, last: u8) {
    service.request(now, start("both", last));
    let started = job(service);
    over(service, now, started);
    service.take_actions();
}

#[test]
fn a_stop_is_to_be_saved_before_its_start_runs_and_is_pending_until_it_has_run() {
    let mut s = service(Limits::default());
    s.request(at(100), start("both", 1));
    assert_eq!(s.unsaved(), Unsaved::AtOnce);
    let pending: Vec<_> = s
        .pending()
        .map(|(key, stop)| (key.clone(), stop.due))
        .collect();
    assert_eq!(pending, [(key("both", 1), at(110))]);
    s.set_unsaved(Unsaved::Nothing);
    let started = job(&mut s);
    assert_eq!(
        (&*started.command, started.phase),
        ("start %IP%", Phase::Start)
    );
    assert_eq!(s.next_deadline(), None, "the start is not over");

    over(&mut s, at(103), started);
    assert_eq!(
        (s.next_deadline(), s.unsaved()),
        (Some(at(113)), Unsaved::Change)
    );
    s.set_unsaved(Unsaved::Nothing);
    s.take_actions();
    s.expire(at(112));
    assert_eq!(s.take_actions(), []);
    s.expire(at(113));
    let actions = s.take_actions();
    let [
        Action::Report(HelperReport::TimedOut { .. }),
        Action::Run(stopping),
    ] = &actions[..]
    else {
        panic!("{actions:?}");
    };
    assert_eq!(
        (&*stopping.command, stopping.phase),
        ("stop %IP%", Phase::Stop)
    );
    over(&mut s, at(114), stopping.clone());
    assert_eq!((s.pending_count(), s.unsaved()), (0, Unsaved::Change));
}

#[test]
fn a_knock_while_a_stop_is_pending_puts_it_off_and_starts_nothing() {
    let mut s = service(Limits::default());
    s.request(at(100), start("both", 1));
    let first = job(&mut s);
    s.request(at(101), start("both", 1));
    assert_eq!(jobs(&mut s), [], "its start is still running");
    over(&mut s, at(102), first);
    s.set_unsaved(Unsaved::Nothing);
    s.request(at(108), start("both", 1));
    assert_eq!(
        (s.next_deadline(), s.unsaved()),
        (Some(at(118)), Unsaved::Change)
    );
    // A knock of another source starts a command.
    s.request(at(109), start("both", 2));
    assert_eq!(job(&mut s).key, key("both", 2));
}

#[test]
fn a_knock_while_the_stop_runs_starts_again_behind_it() {
    let mut s = service(Limits::default());
    arm(&mut s, at(100), 1);
    s.expire(at(110));
    let stopping = job(&mut s);
    s.request(at(110), start("both", 1));
    s.request(at(110), start("both", 1));
    assert_eq!(s.take_actions(), []);
    over(&mut s, at(111), stopping);
    let again = job(&mut s);
    assert_eq!(again.phase, Phase::Start);
    over(&mut s, at(112), again);
    assert_eq!(s.next_deadline(), Some(at(122)), "armed once more");
    assert_eq!(s.pending_count(), 1);
}

#[test]
fn what_is_too_much_is_refused() {
    // A quarter for each door.
    let limits = Limits {
        running: 4,
        waiting: 8,
        pending: 12,
    };
    let mut s = service(limits);
    for n in 1..=3 {
        arm(&mut s, at(0), n);
    }
    s.request(at(0), start("both", 4));
    assert_eq!(refusals(&mut s), [CommandRefusal::TooManyPending]);
    for n in 1..=3 {
        s.request(at(0), start("start", n));
    }
    assert_eq!(jobs(&mut s).len(), 1);
    s.request(at(0), start("start", 4));
    s.request(at(0), start("nowhere", 1));
    assert_eq!(
        refusals(&mut s),
        [CommandRefusal::TooManyWaiting, CommandRefusal::UnknownDoor]
    );
}

#[test]
fn a_door_with_a_slow_command_keeps_no_other_waiting() {
    let mut s = service(Limits::default());
    for n in 0..=255 {
        s.request(at(0), start("start", n));
    }
    assert_eq!(jobs(&mut s).len(), 16);
    for n in 0..=255 {
        s.request(at(0), start("start", n));
    }
    assert_eq!(refusals(&mut s).len(), 512 - 16 - 256);
    s.request(at(0), start("both", 1));
    let quick = job(&mut s);
    assert_eq!(quick.key, key("both", 1));
    over(&mut s, at(0), quick);
    // Its stop does not wait for others' either.
    for n in 2..=17 {
        arm(&mut s, at(0), n);
    }
    s.expire(at(10));
    let stops = jobs(&mut s);
    assert_eq!(stops.len(), 16, "of 17 of one door");
    over(&mut s, at(11), stops[0].clone());
    assert_eq!(job(&mut s).phase, Phase::Stop);
}

#[test]
fn stops_of_one_door_leave_room_for_others() {
    let limits = Limits {
        pending: 8,
        ..Limits::default()
    };
    let mut s = service(limits);
    arm(&mut s, at(0), 1);
    arm(&mut s, at(0), 2);
    s.request(at(0), start("both", 3));
    assert_eq!(refusals(&mut s), [CommandRefusal::TooManyPending]);
    s.expire(at(10));
    for stop in jobs(&mut s) {
        over(&mut s, at(10), stop);
    }
    arm(&mut s, at(10), 3);
}

#[test]
fn a_knock_while_a_stop_cannot_be_started_puts_it_off_and_one_while_it_drains_is_refused() {
    let mut s = service(Limits::default());
    arm(&mut s, at(0), 1);
    s.expire(at(10));
    let failed = job(&mut s);
    s.request(at(10), start("both", 1));
    let ending = Ending::NotStarted("no more processes".to_owned());
    s.ended(at(11), failed, Finish::NotStarted, ending);
    let (door, source) = (key("both", 1).door, key("both", 1).source);
    let put_off = HelperReport::Extended {
        door,
        source,
        timeout: TIMEOUT,
    };
    assert!(s.take_actions().contains(&Action::Report(put_off)));
    assert_eq!((s.next_deadline(), s.pending_count()), (Some(at(21)), 1));
    s.expire(at(21));
    job(&mut s);
    s.request(at(21), start("both", 1));
    s.request(at(21), HelperRequest::Drain);
    assert_eq!(refusals(&mut s), [CommandRefusal::Stopping]);
}

#[test]
fn what_is_not_started_is_not_stopped() {
    let mut s = service(Limits::default());
    s.request(at(0), start("stop", 1));
    assert_eq!(refusals(&mut s), [CommandRefusal::UnknownDoor]);
    assert_eq!((s.pending_count(), s.next_deadline()), (0, None));
}

#[test]
fn starts_that_hang_keep_no_stop_from_running() {
    let mut s = service(one_at_a_time());
    arm(&mut s, at(0), 1);
    s.request(at(0), start("start", 2));
    assert_eq!(job(&mut s).phase, Phase::Start);
    s.expire(at(10));
    assert_eq!(job(&mut s).phase, Phase::Stop);
}

#[test]
fn a_stop_that_cannot_be_started_is_tried_again() {
    let mut s = service(Limits::default());
    arm(&mut s, at(0), 1);
    s.expire(at(10));
    let failed = job(&mut s);
    let ending = || Ending::NotStarted("no more processes".to_owned());
    s.ended(at(10), failed, Finish::NotStarted, ending());
    assert_eq!((s.next_deadline(), s.pending_count()), (Some(at(20)), 1));
    s.expire(at(20));
    let failed = job(&mut s);
    s.request(at(20), HelperRequest::Drain);
    s.ended(at(20), failed, Finish::NotStarted, ending());
    let drained = Action::Report(HelperReport::Drained);
    assert!(s.take_actions().contains(&drained), "the daemon may go");
    assert_eq!(s.pending_count(), 1, "the next one tries");
}

#[test]
fn a_drain_runs_every_stop_and_starts_nothing() {
    let mut s = service(one_at_a_time());
    arm(&mut s, at(0), 1);
    s.request(at(0), start("both", 2));
    let running = job(&mut s);
    s.request(at(0), start("both", 3));
    s.request(at(1), HelperRequest::Drain);
    let actions = s.take_actions();
    let refused = |action: &Action| matches!(action, Action::Report(HelperReport::Refused { source, .. }) if *source == key("both", 3).source);
    assert!(actions.iter().any(refused), "{actions:?}");
    assert!(
        s.pending().all(|(pending, _)| *pending != key("both", 3)),
        "never started"
    );
    let Some(Action::Run(stopping)) = actions.last() else {
        panic!("{actions:?}");
    };
    assert_eq!(stopping.key, key("both", 1));
    s.request(at(1), start("both", 4));
    assert_eq!(refusals(&mut s), [CommandRefusal::Stopping]);
    over(&mut s, at(2), stopping.clone());
    over(&mut s, at(2), running);
    let last = job(&mut s);
    assert_eq!(
        (last.key.clone(), last.phase),
        (key("both", 2), Phase::Stop)
    );
    s.take_actions();
    s.set_unsaved(Unsaved::Nothing);
    s.ended(at(3), last, Finish::Killed, Ending::Signal(9));
    assert_eq!(s.unsaved(), Unsaved::AtOnce);
    assert!(
        s.take_actions()
            .contains(&Action::Report(HelperReport::Drained))
    );
    assert_eq!(s.pending_count(), 1, "killed: it stays in the journal");
}

#[test]
fn a_stop_keeps_its_command_when_its_door_changes_or_goes() {
    let mut s = service(Limits::default());
    arm(&mut s, at(0), 1);
    s.set_table(CommandTable::default());
    s.expire(at(10));
    assert_eq!(&*job(&mut s).command, "stop %IP%");
}

#[derive(Debug, Clone)]
enum Op {
    Start(usize, u8),
    End(usize),
    Wait(u64),
    Save,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3usize, 0..3u8).prop_map(|(d, n)| Op::Start(d, n)),
        4 => (0..8usize).prop_map(Op::End),
        2 => (0..8u64).prop_map(Op::Wait),
        2 => Just(Op::Save),
    ]
}

proptest! {
    /// Whatever happens, no two commands that belong together run at once. For every start that was run
    /// a stop is run behind it. The stop is in the journal until then, even if the journal is written
    /// as late as may be.
    #[test]
    fn every_start_is_followed_by_its_stop(ops in prop::collection::vec(op(), 0..60)) {
        const DOORS: [&str; 3] = ["both", "start", "stop"];
        let limits = Limits { running: 2, waiting: 3, pending: 4 };
        let mut s = service(limits);
        let mut now = at(0);
        let mut running: Vec<CommandJob> = Vec::new();
        let mut journal: BTreeMap<DoorSource, PendingStop> = BTreeMap::new();
        let mut owed: BTreeSet<DoorSource> = BTreeSet::new();
        let mut drained = false;
        let mut ops = ops.into_iter();
        let save = |s: &mut Scheduler| -> BTreeMap<DoorSource, PendingStop> {
            s.set_unsaved(Unsaved::Nothing);
            s.pending().map(|(key, stop)| (key.clone(), stop.clone())).collect()
        };
        while !drained {
            match ops.next() {
                Some(Op::Start(d, n)) => s.request(now, start(DOORS[d], n)),
                Some(Op::End(n)) if n < running.len() => {
                    let job = running.swap_remove(n);
                    if job.phase == Phase::Stop {
                        owed.remove(&job.key);
                    }
                    over(&mut s, now, job);
                }
                Some(Op::End(_)) => {}
                Some(Op::Wait(secs)) => now = now + Duration::from_secs(secs),
                Some(Op::Save) => journal = save(&mut s),
                None => {
                    s.request(now, HelperRequest::Drain);
                    for job in std::mem::take(&mut running) {
                        if job.phase == Phase::Stop {
                            owed.remove(&job.key);
                        }
                        over(&mut s, now, job);
                    }
                }
            }
            s.expire(now);
            if s.unsaved() == Unsaved::AtOnce {
                journal = save(&mut s);
            }
            for action in s.take_actions() {
                match action {
                    Action::Run(job) => {
                        let both = |j: &CommandJob| j.awaited && job.awaited && j.key == job.key;
                        prop_assert!(!running.iter().any(both), "{:?} {:?}", job, running);
                        if job.awaited {
                            let is_new = owed.insert(job.key.clone());
                            prop_assert_eq!(is_new, job.phase == Phase::Start);
                        }
                        running.push(job);
                    }
                    Action::Report(HelperReport::Drained) => drained = true,
                    Action::Report(_) => {}
                }
            }
            let of = |phase| running.iter().filter(|j| j.phase == phase).count();
            prop_assert!(of(Phase::Start) <= 2 && of(Phase::Stop) <= 2);
            prop_assert!(s.pending_count() <= 4);
            prop_assert!(owed.iter().all(|key| journal.contains_key(key)));
            if s.unsaved() == Unsaved::Nothing {
                prop_assert_eq!(&save(&mut s), &journal);
            }
        }
        prop_assert!(journal.is_empty() && owed.is_empty());
    }
}
