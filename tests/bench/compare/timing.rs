//! Whether a step can be told from another port by the time that a packet to it costs the host.
//!
//! A SYN or datagram to a port, and an echo request right behind it: what the host does for the
//! first delays its answer to the second. Steps, the two ports on either side of each, and others
//! are probed in a new random order each round.

use std::io::Read as _;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::contender::{Contender, STEPS, Setting};
use crate::frame::{Frame, datagram, echo_request, is_echo_reply, syn};
use crate::hosts::TwoHosts;
use crate::table::{Table, digits};

/// How often and how fast ports are probed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How often each port.
    pub(crate) rounds: usize,
    /// How many ports of no door.
    pub(crate) others: usize,
    /// From one probe to the next.
    pub(crate) gap: Duration,
}

/// What one row of contrib/SCALE.md takes: some seconds.
pub(crate) const BRIEF: Effort = Effort {
    rounds: 400,
    others: 200,
    gap: Duration::from_micros(100),
};

/// What `contrib/bench.sh timing` takes: a minute for each contender and kind.
pub(crate) const THOROUGH: Effort = Effort {
    rounds: 2_500,
    ..BRIEF
};

/// Packets come so rarely that each is read at once.
pub(crate) const RARE: Effort = Effort {
    rounds: 1_500,
    others: 24,
    gap: Duration::from_micros(1_200),
};

/// What the tests take.
pub(crate) const TEST: Effort = Effort {
    rounds: 20_000,
    others: 60,
    gap: Duration::from_micros(50),
};

/// A step that stands out by so many standard errors is told from other ports.
pub(crate) const TOLD: f64 = 4.0;

/// No error is taken to be smaller, in nanoseconds: equal ports differ by as much, by where the
/// kernel's tables happen to lie.
const FINEST: f64 = 10.0;

const ONE_DOOR: Setting = Setting {
    doors: 1,
    seq_timeout: 15,
    is_mixed: true,
    is_on_one_processor: true,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Step,
    Neighbour,
    Other,
}

/// A port, and how long its probes took, in nanoseconds.
struct Probed {
    port: u16,
    is_udp: bool,
    kind: Kind,
    times: Vec<u32>,
}

/// How a kind of ports of one protocol differs from ports of no door.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    what: &'static str,
    is_of_steps: bool,
    /// Of the medians, in nanoseconds.
    pub(crate) median: f64,
    /// Its standard error.
    pub(crate) error: f64,
}

impl Difference {
    /// By how many errors it stands out.
    pub(crate) fn errors(&self) -> f64 {
        self.median.abs() / self.error.max(FINEST)
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            median,
            error,
            ..
        } = self;
        write!(f, "{what} {median:+.0} ns (error {error:.0})")
    }
}

/// The row of the table in contrib/SCALE.md.
pub(crate) fn row(hosts: &TwoHosts, contender: Contender, table: &mut Table) {
    let found = measure(hosts, contender, BRIEF, false);
    let cell = |d: &Difference| format!("{} ± {}", micros(d.median), micros(d.error));
    for (is_of_steps, row) in [
        (
            true,
            "a probe of a step takes longer than of another port by, µs",
        ),
        (false, "the same of a step's neighbour, µs"),
    ] {
        let cells = found.iter().filter(|d| d.is_of_steps == is_of_steps);
        let cells: Vec<_> = cells.map(cell).collect();
        table.note(contender, row, cells.join(" (tcp), ") + " (udp)");
    }
}

fn micros(nanoseconds: f64) -> String {
    let sign = if nanoseconds < 0.0 { "-" } else { "" };
    format!("{sign}{}", digits(nanoseconds.abs() / 1e3))
}

/// `contrib/bench.sh timing`.
pub(crate) fn thorough(hosts: &TwoHosts) {
    for contender in Contender::ALL {
        for (effort, name) in [(THOROUGH, "as fast as that goes"), (RARE, "each by itself")] {
            println!(
                "{}, {} probes a port, {name}:",
                contender.name(),
                effort.rounds
            );
            for difference in measure(hosts, contender, effort, false) {
                let told = match difference.errors() >= TOLD {
                    true => "stands out",
                    false => "cannot be told",
                };
                println!("  {difference}, {:.1} errors: {told}", difference.errors());
            }
        }
    }
}

/// What the tests ask: no step stands out, and one would that does. Says what was measured.
pub(crate) fn test(hosts: &TwoHosts) -> Result<(), String> {
    // Beside the daemon a packet socket whose filter knows the steps, as knockd's own once did.
    for (effort, rounds) in [(TEST, 1_000), (RARE, 200)] {
        let effort = Effort { rounds, ..effort };
        let seen = measure(hosts, Contender::Knockd, effort, true);
        report("beside a filter that knows the steps", effort, &seen);
        if !told(&seen) {
            return Err("the test does not see a step that is told".to_owned());
        }
    }
    for effort in [TEST, RARE] {
        let stands_out = || {
            let found = measure(hosts, Contender::Knockd, effort, false);
            report("knockd", effort, &found);
            told(&found)
        };
        // Of very many measurements one tells what is not so, and never two in a row.
        if stands_out() && stands_out() {
            return Err("a step can be told from other ports by time".to_owned());
        }
    }
    Ok(())
}

fn report(who: &str, effort: Effort, found: &[Difference]) {
    println!("{who}, {} probes a port:", effort.rounds);
    for difference in found {
        let least = TOLD * difference.error.max(FINEST);
        println!("  {difference}; {least:.0} ns would be told");
    }
}

fn told(found: &[Difference]) -> bool {
    let mut steps = found.iter().filter(|d| d.is_of_steps);
    steps.any(|d| d.errors() >= TOLD)
}

/// Probes; the differences of steps and of neighbours, by TCP and by UDP.
fn measure(hosts: &TwoHosts, contender: Contender, effort: Effort, leak: bool) -> Vec<Difference> {
    let _running = contender.start(hosts, ONE_DOOR);
    let leak = leak.then(|| Leak::start(hosts));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut ports = ports(&mut dice, effort.others);
    let mut order: Vec<usize> = (0..ports.len()).collect();
    let source = hosts.person();
    let mut number = 0;
    let mut due = Instant::now();
    // The first rounds warm up what is there.
    for round in 0..effort.rounds + effort.rounds / 20 {
        dice.shuffle(&mut order);
        for place in &order {
            let port = &mut ports[*place];
            let salt = dice.next();
            let probe = match port.is_udp {
                true => datagram(source, 20_000 + (salt % 40_000) as u16, port.port),
                false => syn(source, 20_000 + (salt % 40_000) as u16, port.port, salt),
            };
            due += effort.gap;
            wait_until(due);
            due = due.max(Instant::now());
            number = u16::wrapping_add(number, 1);
            let echo = echo_request(source, number);
            if let Some(time) = time(hosts, &probe, &echo, number)
                && round >= effort.rounds / 20
            {
                port.times.push(time);
            }
        }
    }
    drop(leak);
    let mut found = Vec::new();
    for (is_udp, names) in [
        (false, ["tcp steps", "tcp neighbours"]),
        (true, ["udp steps", "udp neighbours"]),
    ] {
        for (kind, what) in [Kind::Step, Kind::Neighbour].into_iter().zip(names) {
            found.push(difference(&mut ports, is_udp, kind, what, &mut dice));
        }
    }
    found
}

/// Three steps, their neighbours, and others of either protocol, two of TCP to one of UDP.
fn ports(dice: &mut Dice, others: usize) -> Vec<Probed> {
    let mut all: Vec<Probed> = Vec::new();
    let mut add = |port, is_udp, kind| {
        if all.iter().all(|p| (p.port, p.is_udp) != (port, is_udp)) {
            all.push(Probed {
                port,
                is_udp,
                kind,
                times: Vec::new(),
            });
        }
    };
    for (step, is_udp) in STEPS.into_iter().zip([false, true, false]) {
        add(step, is_udp, Kind::Step);
        for beside in [step - 2, step - 1, step + 1, step + 2] {
            add(beside, is_udp, Kind::Neighbour);
        }
    }
    for number in 0..others {
        let port = 1_024 + (dice.next() % 64_000) as u16;
        add(port, number % 3 == 2, Kind::Other);
    }
    all
}

/// How long after the probe the echo was answered, in nanoseconds; `None` if it was lost.
fn time(hosts: &TwoHosts, probe: &Frame, echo: &Frame, number: u16) -> Option<u32> {
    let mut bytes = [0; 256];
    while (&hosts.hearing).read(&mut bytes).is_ok() {}
    let from = Instant::now();
    hosts.sending.send(probe).ok()?;
    hosts.sending.send(echo).ok()?;
    while from.elapsed() < Duration::from_millis(5) {
        if let Ok(length) = (&hosts.hearing).read(&mut bytes)
            && is_echo_reply(&bytes[..length], number)
        {
            return u32::try_from(from.elapsed().as_nanos()).ok();
        }
    }
    None
}

/// Sleeps if that is worth it, and then waits to the point.
fn wait_until(due: Instant) {
    const OVERSLEPT: Duration = Duration::from_micros(100);
    let left = due.saturating_duration_since(Instant::now());
    if left > 2 * OVERSLEPT {
        std::thread::sleep(left - OVERSLEPT);
    }
    while Instant::now() < due {}
}

fn median<T: Copy + Ord + Into<f64>>(values: &mut [T]) -> f64 {
    values.sort_unstable();
    values
        .get(values.len() / 2)
        .map_or(f64::NAN, |v| (*v).into())
}

fn difference(
    ports: &mut [Probed],
    is_udp: bool,
    kind: Kind,
    what: &'static str,
    dice: &mut Dice,
) -> Difference {
    const RESAMPLED: usize = 500;
    let mut medians = |kind| -> Vec<u32> {
        let of = ports
            .iter_mut()
            .filter(|p| p.kind == kind && p.is_udp == is_udp);
        of.map(|p| median(&mut p.times) as u32).collect()
    };
    let (mut asked, base) = (medians(kind), medians(Kind::Other));
    let mut of = |count: usize| -> f64 {
        let mut drawn: Vec<u32> = (0..count)
            .map(|_| base[dice.next() as usize % base.len()])
            .collect();
        median(&mut drawn)
    };
    // By the bootstrap: what as many ports of no door differ by.
    let drawn: Vec<f64> = (0..RESAMPLED).map(|_| of(asked.len())).collect();
    let mean = drawn.iter().sum::<f64>() / RESAMPLED as f64;
    let variance = drawn.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / RESAMPLED as f64;
    Difference {
        what,
        is_of_steps: kind == Kind::Step,
        median: median(&mut asked) - mean,
        error: variance.sqrt(),
    }
}

/// A packet socket on the server whose filter passes the steps alone, and who reads it.
struct Leak {
    socket: Socket,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Leak {
    fn start(hosts: &TwoHosts) -> Self {
        let every = i32::from(0x0003_u16.to_be());
        let socket = hosts.as_server(0, || {
            Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(every)))
        });
        let socket = socket.expect("a packet socket");
        // From the IP header on: the port if it is TCP or UDP without options, then each step.
        let load = |code, k| SockFilter::new(code, 0, 0, k);
        let mut filter = vec![load(0x28, 22)];
        filter.extend(
            STEPS
                .iter()
                .rev()
                .enumerate()
                .rev()
                .map(|(left, step)| SockFilter::new(0x15, left as u8 + 1, 0, u32::from(*step))),
        );
        filter.extend([load(0x06, 0), load(0x06, 96)]);
        SockRef::from(&socket)
            .attach_filter(&filter)
            .expect("a filter");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a socket");
        let reads = socket.try_clone().expect("a descriptor");
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 96];
            // Until nothing comes any more.
            let mut quiet = 0;
            while quiet < 5 {
                quiet = match (&reads).read(&mut bytes).unwrap_or(0) {
                    0 => quiet + 1,
                    _ => 0,
                };
            }
        });
        Self {
            socket,
            reader: Some(reader),
        }
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        let nothing = [SockFilter::new(0x06, 0, 0, 0)];
        let _ = SockRef::from(&self.socket).attach_filter(&nothing);
        let _ = self.reader.take().map(std::thread::JoinHandle::join);
    }
}

/// xorshift64* (Vigna, 2016).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.next() as usize % (i + 1));
        }
    }
}
