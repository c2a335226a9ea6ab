//! A soak: floods, knocks, reloads, changes of interfaces, commands and orders together, for
//! `KNOCKD_SOAK` seconds (10, if that is not set). Each knock opens, nothing else does, and at the end
//! the openings are those of a model, and memory and descriptors are as they were.
//!
//! What is done is random, and the same for the same `KNOCKD_SEED`. When it is done depends on the
//! machine.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code)]
#[path = "../daemon/site.rs"]
mod site;

mod dice;
mod figures;
mod model;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nix::sys::signal::Signal;
use socket2::Socket;

use dice::Dice;
use figures::{Figures, Usage};
use model::Model;
use site::Site;
use support::frame::{IPV4, frame, send_datagram};
use support::{Lab, OTHER, Over, Process, Reach, SERVER, ip, wait_until};

/// The steps of the doors, which are knocked at with UDP alone, so that a knock is three small frames.
const SSH: [u16; 3] = [7001, 8102, 9203];
const BRIEF: [u16; 3] = [7104, 8205, 9306];
const RUN: [u16; 3] = [7207, 8308, 9409];

fn doors(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
[door.ssh]
sequence = ["7001/udp", "8102/udp", "9203/udp"]
open     = ["22/tcp"]
open_for = "12h"
seq_timeout = "10s"

[door.brief]
sequence = ["7104/udp", "8205/udp", "9306/udp"]
open     = ["443/tcp"]
open_for = "1s"
seq_timeout = "10s"

[door.run]
sequence      = ["7207/udp", "8308/udp", "9409/udp"]
start_command = "echo %IP% >>{folder}/started"
cmd_timeout   = "1s"
stop_command  = "echo %IP% >>{folder}/stopped"
seq_timeout   = "10s"
"#
    )
}

/// Configurations that all have these doors; each reload takes the next.
fn variants(folder: &Path) -> [String; 5] {
    let doors = doors(folder);
    let web = "[door.web]\nsequence = [\"7004/tcp\", \"8105/udp\", \"9206/tcp\"]\n\
               open = [\"80/tcp\", \"60000-60100/udp\"]\nopen_for = \"1h\"\n";
    [
        doors.clone(),
        format!("{doors}{web}"),
        format!("firewall.guard = \"reject\"\n{doors}"),
        format!("firewall.trusted = [\"198.51.100.0/24\"]\nfirewall.mark = 7\n{doors}{web}"),
        format!("ignore = [\"5353/udp\"]\n{doors}"),
    ]
}

/// So many seconds are enough for memory to be what it will be.
const LONG: u64 = 120;
/// So many KiB may memory vary.
const GROWTH: u64 = 1536;

/// Orders that the daemon did not answer in time, which a busy machine may cause: each was given again.
static UNANSWERED: AtomicU64 = AtomicU64::new(0);

/// Gives an order until it is answered. What the daemon has not begun by then it does not do.
#[track_caller]
fn order(site: &Site<'_>, words: &str) -> String {
    let begun = Instant::now();
    loop {
        let output = site.try_run(words);
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let is_late = said.contains("does not answer") && begun.elapsed() < support::SOON;
        assert!(is_late, "{words}: {output:?}");
        UNANSWERED.fetch_add(1, Ordering::Relaxed);
    }
}

#[track_caller]
fn status(site: &Site<'_>) -> serde_json::Value {
    serde_json::from_str(&order(site, "status --json")).expect("JSON")
}

/// What the actors have in common.
struct Scene<'lab> {
    lab: &'lab Lab,
    site: &'lab Site<'lab>,
    daemon: &'lab Process,
    over: AtomicBool,
    packets: AtomicU64,
    reloads: AtomicU64,
    changes: AtomicU64,
}

impl Scene<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Returns how many packets the daemon says that it has lost.
    fn lost(&self) -> u64 {
        status(self.site)["packets"]["lost"].as_u64().unwrap_or(0)
    }

    /// Strangers: first steps, tripwires, SYNs and datagrams to all ports, from all over 10.0.0.0/8.
    fn flood(&self, mut dice: Dice) {
        let wire = self.lab.client.frames("eth0");
        while self.goes_on() {
            for _ in 0..200 {
                let source = Ipv4Addr::from(0x0a00_0000 | dice.number(1 << 24));
                let port = match dice.number(4) {
                    0 => SSH[0],
                    1 => [SSH, BRIEF, RUN].concat()[dice.below(9)],
                    _ => dice.port(),
                };
                match dice.number(2) {
                    0 => send_datagram(&wire, source, port),
                    _ => send_syn(&wire, source, port),
                }
            }
            self.packets.fetch_add(200, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The administrator changes the file without pause.
    fn reload(&self, mut dice: Dice, folder: &Path) {
        let variants = variants(folder);
        while self.goes_on() {
            self.site.configure(&variants[dice.below(variants.len())]);
            match dice.number(2) {
                0 => drop(self.site.reload(self.daemon)),
                _ => drop(order(self.site, "reload")),
            }
            self.reloads.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(100 + u64::from(dice.number(200))));
        }
        // As it was, so that the last memory is that of the first configuration.
        self.site.configure(&variants[0]);
        order(self.site, "reload");
    }

    /// Interfaces and addresses come, flap and go.
    fn rewire(&self, mut dice: Dice) {
        while self.goes_on() {
            let n = dice.number(50);
            let lines = [
                format!(
                    "link add x{n} type veth peer name y{n}\nlink set x{n} up\nlink del x{n}\n"
                ),
                "link set wan0 down\nlink set wan0 up\n".repeat(5),
                format!(
                    "address add 203.0.113.{n}/32 dev wan0\naddress del 203.0.113.{n}/32 dev wan0\n"
                ),
                format!("address add 192.0.2.1{n:02}/32 dev eth0\n"),
                format!("address del 192.0.2.1{n:02}/32 dev eth0\n"),
            ];
            let file = self.lab.write("changes", &lines[dice.below(lines.len())]);
            // An address may be there already, or not.
            let force = format!("ip -force -batch {}", file.display());
            self.lab.server.try_run(&force);
            self.changes.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn send_syn(wire: &Socket, source: Ipv4Addr, port: u16) {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source.octets(), [192, 0, 2, 1], 64)
        .tcp(40_000, port, 1, 1024)
        .syn()
        .write(&mut packet, &[])
        .expect("a short packet");
    wire.send(&frame(IPV4, &packet))
        .expect("the interface is up");
}

/// A stranger who connects to port 22 is not let in: silence, or with `guard = "reject"` a no.
#[track_caller]
fn expect_shut(lab: &Lab) {
    let to = (ip(SERVER[0]), 22);
    let reach = lab.client.connect(ip(OTHER[0]), to, support::SILENCE);
    assert!(!matches!(reach, Reach::Connected(_)), "{reach:?}");
}

#[test]
fn soak() {
    needs!(Laboratory);
    let time = std::env::var("KNOCKD_SOAK").map_or(10, |text| {
        text.parse().expect("KNOCKD_SOAK is a number, of seconds")
    });
    let (seed, mut dice) = Dice::new();
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let folder = lab.directory().to_owned();
    let site = Site::new(&lab, &doors(&folder));
    let far = lab.host("far");
    lab.server.join("wan0", &far, "eth0", &[]);
    lab.server.add_address("wan0", "203.0.113.1");
    let mut daemon = Process::start(&mut site.command("-v"));
    daemon.wait_for_line("starting up, listening on");
    // All that a start begins is over.
    for text in variants(&folder).iter().chain([&doors(&folder)]) {
        site.configure(text);
        order(&site, "reload");
    }
    let before = Usage::at_rest(&daemon);
    let scene = Scene {
        lab: &lab,
        site: &site,
        daemon: &daemon,
        over: AtomicBool::new(false),
        packets: AtomicU64::new(0),
        reloads: AtomicU64::new(0),
        changes: AtomicU64::new(0),
    };
    let mut model = Model::new(&lab, &site);
    let (mut peak, mut peak_of_half) = (before.pss, before.pss);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(time);
    thread::scope(|scope| {
        let _end = Over(|| scene.over.store(true, Ordering::Relaxed));
        let [one, two, three] = [dice.fork(), dice.fork(), dice.fork()];
        let scene = &scene;
        scope.spawn(move || scene.flood(one));
        scope.spawn(move || scene.reload(two, &folder));
        scope.spawn(move || scene.rewire(three));
        let mut shown = Instant::now();
        while Instant::now() < end {
            model.step(&mut dice, || scene.lost());
            if shown.elapsed() > Duration::from_secs(1) {
                shown = Instant::now();
                expect_shut(&lab);
                peak = peak.max(Usage::of(&daemon).pss);
                if begun.elapsed().as_secs() < time / 2 {
                    peak_of_half = peak;
                }
            }
        }
    });
    // What the flood has begun runs out, and what was armed is stopped.
    let live = || status(&site)["attempts"]["live"].as_u64();
    wait_until("the end of all attempts", || live() == Some(0));
    model.expect_so();
    expect_shut(&lab);
    let packets = status(&site)["packets"].clone();
    let number = |key: &str| packets[key].as_u64().unwrap_or(0);
    let after = Usage::at_rest(&daemon);
    let figures = Figures {
        seed,
        seconds: time,
        knocks: model.knocks,
        again: model.again,
        commands: model.commands,
        orders: model.orders,
        unanswered: UNANSWERED.load(Ordering::Relaxed),
        sent: scene.packets.load(Ordering::Relaxed),
        read: number("read"),
        lost: number("lost"),
        reloads: scene.reloads.load(Ordering::Relaxed),
        changes: scene.changes.load(Ordering::Relaxed),
        openings: site.openings().len(),
        peak,
        before: before.clone(),
        after: after.clone(),
    };
    println!("{figures}");
    assert_eq!(after.files, before.files, "descriptors of each process");
    // The table of attempts stays as large as the flood has made it, which is by the first half.
    if time >= LONG {
        assert!(
            after.pss <= peak_of_half + GROWTH,
            "memory: {peak_of_half} KiB by the half"
        );
    }
    daemon.signal(Signal::SIGTERM);
    let (status, _) = daemon.wait();
    assert!(status.success(), "{status}");
}
