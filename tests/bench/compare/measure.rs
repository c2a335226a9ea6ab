//! What is measured, and how.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use socket2::Socket;

use crate::contender::{Contender, STEPS, Setting, start_of_a_ring};
use crate::frame::{Frame, answered, syn};
use crate::hosts::{SSH, TwoHosts, forged};
use crate::table::{Table, digits};
use crate::timing;

type Measure = fn(&TwoHosts, Contender, &mut Table);

pub(crate) const ALL: [(&str, Measure); 10] = [
    ("latency", latency),
    ("burst", burst),
    ("flood of 10,000 a second", |l, c, t| flood(l, c, t, 10_000)),
    ("flood of 50,000 a second", |l, c, t| flood(l, c, t, 50_000)),
    ("slow people", slow),
    ("attempts", attempts),
    ("noise", noise),
    ("timing", timing::row),
    ("start", start),
    ("at rest", rest),
];

const ONE_DOOR: Setting = Setting {
    doors: 1,
    seq_timeout: 15,
    is_mixed: false,
    is_on_one_processor: false,
};

/// From the last SYN of a knock until the server has answered a SYN to port 22.
fn latency(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    const KNOCKS: u32 = 40;
    let _running = contender.start(hosts, ONE_DOOR);
    let stranger = hosts.person();
    assert!(
        opens(hosts, &[stranger], Duration::from_millis(100)).is_empty(),
        "port {SSH} answers to strangers: nothing is guarded"
    );
    let mut times = Vec::new();
    for number in 0..KNOCKS {
        // At no fixed phase of a timer of 50 ms.
        sleep(Duration::from_micros(
            20_000 + u64::from(number) * 7_919 % 50_000,
        ));
        times.extend(knock(
            hosts,
            Duration::from_millis(1),
            Duration::from_secs(2),
        ));
    }
    let mut cell = spread(&mut times);
    if times.len() < KNOCKS as usize {
        cell = format!(
            "{cell}, {} of {KNOCKS} never",
            KNOCKS as usize - times.len()
        );
    }
    table.note(contender, "last knock to open port, median / max, ms", cell);
}

/// 200 people send their first SYN, then all the second, then all the third.
fn burst(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    let _running = contender.start(hosts, ONE_DOOR);
    let people: Vec<_> = (0..200).map(|_| hosts.person()).collect();
    for port in STEPS {
        for who in &people {
            send(&hosts.sending, &syn(*who, 40_000, port, 1));
        }
    }
    let opened = opens(hosts, &people, Duration::from_secs(3));
    let last = opened.iter().map(|(_, time)| *time).max();
    let cell = format!(
        "{}, the last after {}",
        opened.len(),
        millis(last.unwrap_or_default())
    );
    table.note(contender, "200 people at once: opened, ms", cell);
}

/// First steps of a hundred thousand forged sources, and in the midst of it three people.
fn flood(hosts: &TwoHosts, contender: Contender, table: &mut Table, rate: u32) {
    const SECONDS: u32 = 5;
    let setting = Setting {
        seq_timeout: 30,
        ..ONE_DOOR
    };
    let running = contender.start(hosts, setting);
    let before = running.cpu();
    let (sent, knocks) = while_flooding(hosts, (rate, SECONDS), first_step, || {
        let mut times = Vec::new();
        for _ in 0..3 {
            sleep(Duration::from_secs(1));
            times.extend(knock(
                hosts,
                Duration::from_millis(2),
                Duration::from_secs(1),
            ));
        }
        times
    });
    running.settle();
    let sent = f64::from(sent);
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
            Contender::Knockd => sent - running.packets("lost").map_or(f64::NAN, |n| n as f64),
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
fn slow(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    let _running = contender.start(hosts, ONE_DOOR);
    let people: Vec<_> = (0..20).map(|_| hosts.person()).collect();
    let (_, opened) = while_flooding(hosts, (50_000, 6), first_step, || {
        sleep(Duration::from_secs(1));
        for (number, port) in STEPS.into_iter().enumerate() {
            if number > 0 {
                sleep(Duration::from_secs(2));
            }
            for who in &people {
                send(&hosts.sending, &syn(*who, 40_000, port, 1));
                sleep(Duration::from_millis(5));
            }
        }
        opens(hosts, &people, Duration::from_secs(1)).len()
    });
    let row = "the same: of 20 with 2 s between steps opened";
    table.note(contender, row, opened.to_string());
}

/// What a first step costs when so many attempts live; they come in slowly, so that none is
/// lost.
fn attempts(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    let setting = Setting {
        seq_timeout: 600,
        ..ONE_DOOR
    };
    let running = contender.start(hosts, setting);
    let mut live = 0;
    for (wanted, name) in [(1_000, "1k"), (10_000, "10k"), (50_000, "50k")] {
        // knock 0.8 needs half a minute for the last.
        if contender == Contender::Rules || contender == Contender::Ancestor && wanted > 10_000 {
            return;
        }
        while live < wanted {
            let some = (wanted - live).min(2_000);
            emit(&hosts.sending, (40_000, some), |n| first_step(live + n));
            running.settle();
            live += some;
        }
        let Some(before) = running.cpu() else { return };
        emit(&hosts.sending, (2_000, 500), |n| first_step(live + n));
        running.settle();
        live += 500;
        let spent = running.cpu().unwrap_or_default() - before;
        let row = format!("{name} attempts live: CPU a packet at 2k/s, µs");
        table.note(contender, &row, digits(spent.as_secs_f64() * 1e6 / 500.0));
    }
}

/// SYNs to ports of no door; and, where there are many doors, to all ports alike.
fn noise(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    const RATE: u32 = 100_000;
    const SECONDS: u32 = 2;
    let other_port = |n: u32| 30_000 + n % 30_000;
    let any_port = |n: u32| n.wrapping_mul(40_503) % 65_535 + 1;
    for (doors, row) in [
        (1, "100k/s to other ports: CPU s a million"),
        (500, "500 doors, 100k/s to all ports: CPU s a million"),
    ] {
        let running = contender.start(hosts, Setting { doors, ..ONE_DOOR });
        let Some(before) = running.cpu() else { return };
        let port = |n| match doors {
            1 => other_port(n),
            _ => any_port(n),
        };
        let noise = |n: u32| syn(forged(n), 40_000, port(n) as u16, n);
        let sent = emit(&hosts.sending, (RATE, RATE * SECONDS), noise);
        running.settle();
        let spent = running.cpu().unwrap_or_default() - before;
        let mut cell = digits(spent.as_secs_f64() * 1e6 / f64::from(sent));
        if contender == Contender::Knockd {
            let read = running.packets("read").map_or(f64::NAN, |n| n as f64);
            let share = digits(read / f64::from(sent) * 100.0);
            cell = format!("{cell}, {share} % of them read");
        }
        table.note(contender, row, cell);
    }
}

/// From its start until it listens, each time after a moment of rest.
fn start(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    const STARTS: usize = 20;
    if contender == Contender::Rules {
        return;
    }
    for (doors, row) in [(1, "one door"), (500, "500 doors")] {
        // knock 0.8 needs two seconds for each of the last.
        let starts = match contender {
            Contender::Ancestor if doors > 1 => 2,
            Contender::Ancestor | Contender::Rules | Contender::Knockd => STARTS,
        };
        let setting = Setting { doors, ..ONE_DOOR };
        let (mut times, mut least) = (Vec::new(), Vec::new());
        for _ in 0..starts {
            times.push(contender.launch(hosts, setting).start);
            if contender == Contender::Knockd && doors == 1 {
                least.push(start_of_a_ring(hosts));
            }
        }
        let row = format!("{row}: start, median / max, ms");
        table.note(contender, &row, spread(&mut times));
        if !least.is_empty() {
            let row = "a bare packet socket with our ring: start, median / max, ms";
            table.note(contender, row, spread(&mut least));
        }
    }
}

/// Nothing happens.
fn rest(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    const SECONDS: u64 = 2;
    if contender == Contender::Rules {
        return;
    }
    for (doors, name) in [(1, "one door"), (500, "500 doors")] {
        let running = contender.start(hosts, Setting { doors, ..ONE_DOOR });
        let mut note = |what: &str, cell| table.note(contender, &format!("{name}: {what}"), cell);
        let memory = |kib: Option<f64>| digits(kib.unwrap_or(f64::NAN) / 1024.0);
        // knock 0.8 needs the most while it starts. (What processes share counts for each there.)
        let most = running.status("VmHWM");
        let cell = format!("{} / {}", memory(running.memory()), memory(most));
        note("memory at rest / at its start, MiB", cell);
        if doors == 1 {
            let wakes = || running.sleeps().unwrap_or(f64::NAN);
            // What it does beside its start is done, and the thread for that is gone.
            running.settle();
            let before = wakes();
            sleep(Duration::from_secs(SECONDS));
            note(
                "wake-ups a second",
                digits_or_0((wakes() - before) / SECONDS as f64),
            );
        }
    }
}

/// The median and the worst.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let max = times.last().copied().unwrap_or_default();
    format!("{} / {}", millis(median), millis(max))
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

/// Whether it left: a full queue is the wire's affair, and what did not leave is not sent
/// again.
fn send(sending: &Socket, frame: &Frame) -> bool {
    sending.send(frame).is_ok()
}

/// Sends so many frames, at so many a second; how many left. Says so if it was not fast
/// enough.
fn emit(sending: &Socket, (rate, count): (u32, u32), frame: impl Fn(u32) -> Frame) -> u32 {
    let from = Instant::now();
    let mut sent = 0;
    for number in 0..count {
        sent += u32::from(send(sending, &frame(number)));
        if number % 16 == 0 {
            let due = Duration::from_secs(1) * number / rate;
            sleep(due.saturating_sub(from.elapsed()));
        }
    }
    let reached = f64::from(sent) / from.elapsed().as_secs_f64();
    if reached < f64::from(rate) * 0.95 {
        eprintln!("the machine is busy: {reached:.0} packets a second, not {rate}");
    }
    sent
}

/// Does something while a flood goes on; how many packets that was.
fn while_flooding<T>(
    hosts: &TwoHosts,
    (rate, seconds): (u32, u32),
    frame: fn(u32) -> Frame,
    act: impl FnOnce() -> T,
) -> (u32, T) {
    let sending = &hosts.sending;
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || emit(sending, (rate, rate * seconds), frame));
        let done = act();
        (flood.join().expect("it sends"), done)
    })
}

/// Knocks as somebody new; how long after the last SYN the port was open.
fn knock(hosts: &TwoHosts, gap: Duration, patience: Duration) -> Option<Duration> {
    let who = hosts.person();
    for (number, port) in STEPS.into_iter().enumerate() {
        if number > 0 {
            sleep(gap);
        }
        send(&hosts.sending, &syn(who, 40_000, port, 1));
    }
    opens(hosts, &[who], patience)
        .first()
        .map(|(_, time)| *time)
}

/// Sends SYNs to port 22 for each of them until it is answered; when it was, from now.
fn opens(hosts: &TwoHosts, people: &[Ipv4Addr], patience: Duration) -> Vec<(Ipv4Addr, Duration)> {
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
                &hosts.sending,
                &syn(*who, 10_000 + round as u16 % 50_000, SSH, round * 7_919),
            );
        }
        let next = Instant::now() + (EVERY * waiting.len() as u32).min(LONGEST);
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            let mut fds = [PollFd::new(hosts.hearing.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut fds, Some(left.into()), None);
            while let Ok(length) = std::io::Read::read(&mut &hosts.hearing, &mut bytes) {
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
