//! Reloads that change guarded ports amid a flood: no packet is lost meanwhile, and every knock
//! opens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::forge::{self, DOORS};
use crate::rounds;
use crate::site::Site;
use crate::support::frame::{send_datagram, source};
use crate::support::need::machine_is_busy;
use crate::support::{Lab, Process, wait_until};

/// Packets a millisecond, attempt by attempt. The ring holds 145 ms of the first rate, so a reload
/// that holds up the loop for 0.3 s loses some at the lowest, too. (That it waits for nothing at all
/// is tested in tests/firewall/replace.rs.)
const RATES: [u32; 3] = [50, 50, 25];

/// How many packets the ring holds.
const RING: u64 = 7250;

/// The port of the flood, which is of no door.
const STRAY: u16 = 8080;

/// Datagrams from many addresses, until it is over.
fn flood(wire: &socket2::Socket, rate: u32, sent: &AtomicUsize, over: &AtomicBool) {
    let begun = Instant::now();
    while !over.load(Ordering::Acquire) {
        let due = begun.elapsed().as_micros() * u128::from(rate) / 1000;
        while (sent.load(Ordering::Acquire) as u128) < due {
            let number = sent.fetch_add(1, Ordering::AcqRel);
            send_datagram(wire, source(100_000 + number % 100_000), STRAY);
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// Ends a flood, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn packets(site: &Site<'_>, which: &str) -> u64 {
    let count = site.status()["packets"][which].as_u64();
    count.expect("a count of packets")
}

/// Returns how long the daemon has been ready to run and has waited for a processor, if the kernel
/// counts that (proc(5), schedstat).
fn waited(daemon: &Process) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{}/schedstat", daemon.id())).ok()?;
    let nanoseconds: Vec<u64> = text
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let [ran, waited, _] = nanoseconds[..] else {
        return None;
    };
    (ran > 0).then_some(Duration::from_nanos(waited))
}

#[test]
fn no_packet_is_lost_by_a_reload_that_changes_guarded_ports() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wires = [(); 2].map(|()| lab.client.frames("eth0"));
    let [knocks, strays] = &wires;
    let daemon = site.start("");
    // The port of the first door is guarded throughout; another comes and goes, and a range.
    let variants = [
        DOORS.replace("[\"443/tcp\"]", "[\"443/tcp\", \"993/tcp\"]"),
        DOORS.replace("[\"443/tcp\"]", "[\"443/tcp\", \"60000-61000/udp\"]"),
        DOORS.to_owned(),
    ];
    let rounds = rounds(100);
    let reloads = |attempt: usize| {
        for (round, text) in variants.iter().cycle().take(rounds).enumerate() {
            site.configure(text);
            forge::knock(knocks, source(attempt * 1000 + round), forge::SSH);
            let said = site.reload(&daemon);
            let good = said.iter().any(|line| line.contains("is in force"));
            assert!(good, "{}", said.join("\n"));
        }
    };
    // Amid a flood of this rate; returns how many packets came and how many of them were lost.
    let amid = |rate, task: &dyn Fn()| {
        let (sent, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let before = packets(&site, "lost");
        thread::scope(|scope| {
            scope.spawn(|| flood(strays, rate, &sent, &over));
            let _end = End(&over);
            task();
        });
        (sent.into_inner(), packets(&site, "lost") - before)
    };
    let opened = || site.status()["opened"].as_u64().expect("a count");
    // Attempts that lost packets, and those of them in which it was not for want of a processor.
    let (mut failed, mut by_reloads) = (0, 0);
    for (attempt, rate) in RATES.into_iter().enumerate() {
        let (before, begun, idle) = (opened(), Instant::now(), waited(&daemon));
        let (sent, lost) = amid(rate, &|| reloads(attempt));
        let took = begun.elapsed();
        let starved = waited(&daemon).zip(idle).map(|(now, before)| now - before);
        println!(
            "{rounds} reloads in {took:?} amid {sent} packets, {rate} a ms: {lost} lost, \
             {starved:?} without a processor"
        );
        if lost == 0 {
            let wanted = before + u64::try_from(rounds).expect("a small number");
            wait_until("every knock to open", || opened() == wanted);
            break;
        }
        failed += 1;
        // In this time at least nothing was read: the ring was filled, and this many came on top.
        let unread = Duration::from_millis((RING + lost) / u64::from(rate));
        if starved.is_none_or(|starved| starved < unread) {
            by_reloads += 1;
        }
    }
    // Once may be chance, of a virtual machine above all.
    assert!(by_reloads < 2, "packets were lost by reloads alone");
    if failed == RATES.len() {
        machine_is_busy("read such a flood");
    }

    wait_until("the sets that nothing uses to go", || {
        let listed = lab.server.run("nft list sets inet");
        listed.matches("\tset guarded").count() == 1
    });
}
