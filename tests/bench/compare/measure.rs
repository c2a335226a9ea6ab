//! What is measured, and how.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use socket2::Socket;

use crate::contender::{Contender, STEPS, Setting};
use crate::frame::{Frame, answered, syn};
use crate::lab::{Lab, SSH, forged};
use crate::table::{Table, digits};

type Measure = fn(&Lab, Contender, &mut Table);

pub(crate) const ALL: [(&str, Measure); 8] = [
    ("latency", latency),
    ("burst", burst),
    ("flood of 10,000 a second", |l, c, t| flood(l, c, t, 10_000)),
    ("flood of 50,000 a second", |l, c, t| flood(l, c, t, 50_000)),
    ("slow people", slow),
    ("attempts", attempts),
    ("noise", noise),
    ("at rest", rest),
];

const ONE_DOOR: Setting = Setting {
    doors: 1,
    seq_timeout: 15,
};

/// From the last SYN of a knock until the server has answered a SYN to port 22.
fn latency(lab: &Lab, contender: Contender, table: &mut Table) {
    const KNOCKS: u32 = 40;
    let _running = contender.start(lab, ONE_DOOR);
    let stranger = lab.person();
    assert!(
        opens(lab, &[stranger], Duration::from_millis(100)).is_empty(),
        "port {SSH} answers to strangers: nothing is guarded"
    );
    let mut times = Vec::new();
    for number in 0..KNOCKS {
        // At no fixed phase of a timer of 50 ms.
        sleep(Duration::from_micros(
            20_000 + u64::from(number) * 7_919 % 50_000,
        ));
        times.extend(knock(lab, Duration::from_millis(1), Duration::from_secs(2)));
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let max = times.last().copied().unwrap_or_default();
    let cell = format!("{} / {}", millis(median), millis(max));
    table.note(contender, "last knock to open port, median / max, ms", cell);
}

/// 200 people send their first SYN, then all the second, then all the third.
fn burst(lab: &Lab, contender: Contender, table: &mut Table) {
    let _running = contender.start(lab, ONE_DOOR);
    let people: Vec<_> = (0..200).map(|_| lab.person()).collect();
    for port in STEPS {
        people
            .iter()
            .for_each(|who| send(&lab.sending, &syn(*who, 40_000, port, 1)));
    }
    let opened = opens(lab, &people, Duration::from_secs(3));
    let last = opened.iter().map(|(_, time)| *time).max();
    let cell = format!(
        "{}, the last after {}",
        opened.len(),
        millis(last.unwrap_or_default())
    );
    table.note(contender, "200 people at once: opened, ms", cell);
}

/// First steps of a hundred thousand forged sources, and in the midst of it three people.
fn flood(lab: &Lab, contender: Contender, table: &mut Table, rate: u32) {
    const SECONDS: u32 = 5;
    let setting = Setting {
        seq_timeout: 30,
        ..ONE_DOOR
    };
    let running = contender.start(lab, setting);
    let before = running.cpu();
    let knocks = while_flooding(lab, (rate, SECONDS), first_step, || {
        let mut times = Vec::new();
        for _ in 0..3 {
            sleep(Duration::from_secs(1));
            times.extend(knock(lab, Duration::from_millis(2), Duration::from_secs(1)));
        }
        times
    });
    running.settle();
    let sent = f64::from(rate * SECONDS);
    let rate = match rate {
        10_000 => "10k/s forged first steps",
        _ => "50k/s forged first steps",
    };
    let cell = match knocks.iter().max() {
        Some(slowest) => format!("{}, {}", knocks.len(), millis(*slowest)),
        None => "0".to_owned(),
    };
    table.note(
        contender,
        &format!("{rate}: of 3 people opened, slowest ms"),
        cell,
    );
    let (row, handled) = (
        format!("{rate}: packets lost"),
        match contender {
            Contender::Rules => return,
            // It writes a line for each.
            Contender::Ancestor => running.count(": Stage 1") as f64,
            Contender::Knockd => sent - running.lost().map_or(f64::NAN, |lost| lost as f64),
        },
    );
    let lost = ((sent - handled) / sent * 100.0).max(0.0);
    table.note(contender, &row, format!("{lost:.0} %"));
    if let (Some(before), Some(after)) = (before, running.cpu()) {
        let cell = digits((after - before).as_secs_f64() * 1e6 / handled);
        table.note(contender, &format!("{rate}: CPU a packet read, µs"), cell);
    }
    if let Some(peak) = running.status("VmHWM") {
        let cell = digits(peak / 1024.0);
        table.note(contender, &format!("{rate}: peak memory, MiB"), cell);
    }
}

/// Twenty people with two seconds from step to step, under 50,000 forged first steps a second.
fn slow(lab: &Lab, contender: Contender, table: &mut Table) {
    let _running = contender.start(lab, ONE_DOOR);
    let people: Vec<_> = (0..20).map(|_| lab.person()).collect();
    let opened = while_flooding(lab, (50_000, 7), first_step, || {
        sleep(Duration::from_secs(1));
        for (number, port) in STEPS.into_iter().enumerate() {
            if number > 0 {
                sleep(Duration::from_secs(2));
            }
            for who in &people {
                send(&lab.sending, &syn(*who, 40_000, port, 1));
                sleep(Duration::from_millis(5));
            }
        }
        opens(lab, &people, Duration::from_secs(1)).len()
    });
    let row = "the same: of 20 with 2 s between steps opened";
    table.note(contender, row, opened.to_string());
}

/// What a first step costs when so many attempts live; they come in slowly, so that none is
/// lost.
fn attempts(lab: &Lab, contender: Contender, table: &mut Table) {
    let setting = Setting {
        seq_timeout: 600,
        ..ONE_DOOR
    };
    let running = contender.start(lab, setting);
    let mut live = 0;
    for (wanted, name) in [(1_000, "1k"), (10_000, "10k"), (50_000, "50k")] {
        // knock 0.8 needs half a minute for the last.
        if contender == Contender::Rules || contender == Contender::Ancestor && wanted > 10_000 {
            return;
        }
        while live < wanted {
            let some = (wanted - live).min(2_000);
            emit(&lab.sending, (40_000, some), |n| first_step(live + n));
            running.settle();
            live += some;
        }
        let Some(before) = running.cpu() else { return };
        emit(&lab.sending, (2_000, 500), |n| first_step(live + n));
        running.settle();
        live += 500;
        let spent = running.cpu().unwrap_or_default() - before;
        let row = format!("{name} attempts live: CPU a packet at 2k/s, µs");
        table.note(contender, &row, digits(spent.as_secs_f64() * 1e6 / 500.0));
    }
}

/// SYNs to ports of no door.
fn noise(lab: &Lab, contender: Contender, table: &mut Table) {
    const RATE: u32 = 100_000;
    const SECONDS: u32 = 5;
    let running = contender.start(lab, ONE_DOOR);
    let Some(before) = running.cpu() else { return };
    let other_port = |n: u32| syn(forged(n), 40_000, 30_000 + (n % 30_000) as u16, n);
    emit(&lab.sending, (RATE, RATE * SECONDS), other_port);
    running.settle();
    let spent = running.cpu().unwrap_or_default() - before;
    let cell = digits(spent.as_secs_f64() * 1e6 / f64::from(RATE * SECONDS));
    table.note(contender, "100k/s to other ports: CPU s a million", cell);
}

/// Nothing happens.
fn rest(lab: &Lab, contender: Contender, table: &mut Table) {
    const SECONDS: u64 = 2;
    if contender == Contender::Rules {
        return;
    }
    for doors in [1, 500] {
        let setting = Setting { doors, ..ONE_DOOR };
        let running = contender.start(lab, setting);
        let plural = if doors == 1 { "one door" } else { "500 doors" };
        let mut note = |what: &str, cell| table.note(contender, &format!("{plural}: {what}"), cell);
        note("start, ms", millis(running.start));
        // Of many doors the peak: knock 0.8 needs the most while it starts.
        let (what, key) = match doors {
            1 => ("memory at rest, MiB", "VmRSS"),
            _ => ("memory, MiB", "VmHWM"),
        };
        let memory = running.status(key).unwrap_or(f64::NAN) / 1024.0;
        note(what, digits(memory));
        if doors == 1 {
            let wakes = || {
                running
                    .status("voluntary_ctxt_switches")
                    .unwrap_or(f64::NAN)
            };
            let before = wakes();
            sleep(Duration::from_secs(SECONDS));
            note(
                "wake-ups a second",
                digits_or_0((wakes() - before) / SECONDS as f64),
            );
        }
    }
}

fn digits_or_0(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else {
        digits(value)
    }
}

fn millis(time: Duration) -> String {
    digits(time.as_secs_f64() * 1e3)
}

fn first_step(number: u32) -> Frame {
    syn(
        forged(number),
        1_024 + (number % 60_000) as u16,
        STEPS[0],
        number,
    )
}

fn send(sending: &Socket, frame: &Frame) {
    // A full queue is the wire's affair: what did not leave is not sent again.
    let _ = sending.send(frame);
}

/// Sends so many frames, at so many a second.
fn emit(sending: &Socket, (rate, count): (u32, u32), frame: impl Fn(u32) -> Frame) {
    let from = Instant::now();
    for number in 0..count {
        send(sending, &frame(number));
        if number % 16 == 0 {
            let due = Duration::from_secs(1) * number / rate;
            sleep(due.saturating_sub(from.elapsed()));
        }
    }
}

/// Does something while a flood goes on.
fn while_flooding<T>(
    lab: &Lab,
    (rate, seconds): (u32, u32),
    frame: fn(u32) -> Frame,
    act: impl FnOnce() -> T,
) -> T {
    let sending = &lab.sending;
    std::thread::scope(|scope| {
        scope.spawn(move || emit(sending, (rate, rate * seconds), frame));
        act()
    })
}

/// Knocks as somebody new; how long after the last SYN the port was open.
fn knock(lab: &Lab, gap: Duration, patience: Duration) -> Option<Duration> {
    let who = lab.person();
    for (number, port) in STEPS.into_iter().enumerate() {
        if number > 0 {
            sleep(gap);
        }
        send(&lab.sending, &syn(who, 40_000, port, 1));
    }
    opens(lab, &[who], patience).first().map(|(_, time)| *time)
}

/// Sends SYNs to port 22 for each of them until it is answered; when it was, from now.
fn opens(lab: &Lab, people: &[Ipv4Addr], patience: Duration) -> Vec<(Ipv4Addr, Duration)> {
    const EVERY: Duration = Duration::from_micros(100);
    const LONGEST: Duration = Duration::from_millis(1);
    let from = Instant::now();
    let mut waiting: HashSet<_> = people.iter().copied().collect();
    let mut opened = Vec::new();
    let mut round = 0;
    let mut bytes = [0; 256];
    while !waiting.is_empty() && from.elapsed() < patience {
        round += 1;
        for who in &waiting {
            send(
                &lab.sending,
                &syn(*who, 10_000 + round as u16 % 50_000, SSH, round * 7_919),
            );
        }
        let next = Instant::now() + (EVERY * waiting.len() as u32).min(LONGEST);
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            let mut fds = [PollFd::new(lab.hearing.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut fds, Some(left.into()), None);
            while let Ok(length) = std::io::Read::read(&mut &lab.hearing, &mut bytes) {
                if let Some(who) = answered(&bytes[..length], SSH)
                    && waiting.remove(&who)
                {
                    opened.push((who, from.elapsed()));
                }
            }
            if waiting.is_empty() {
                break;
            }
        }
    }
    opened
}
