//! Reloads that change guarded ports amid a flood: no packet is lost meanwhile, and every knock
//! opens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::forge::{self, DOORS};
use crate::rounds;
use crate::site::Site;
use crate::support::frame::{send_datagram, source};
use crate::support::{Lab, wait_until};

/// Packets a millisecond, attempt by attempt: a machine that has something else to do loses some
/// without any reload. The ring holds 145 ms of the first rate, so a reload that holds up the
/// loop for 0.3 s loses some at the lowest, too.
const RATES: [u32; 3] = [50, 50, 25];

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
    let mut starved = true;
    let read_all = RATES.iter().enumerate().any(|(attempt, rate)| {
        let (before, begun) = (opened(), Instant::now());
        let (sent, lost) = amid(*rate, &|| reloads(attempt));
        let took = begun.elapsed();
        println!("{rounds} reloads in {took:?} amid {sent} packets, {rate} a ms: {lost} lost");
        if lost == 0 {
            let wanted = before + u64::try_from(rounds).expect("a small number");
            wait_until("every knock to open", || opened() == wanted);
            return true;
        }
        let (_, idle) = amid(*rate, &|| thread::sleep(took));
        println!("as long without a reload: {idle} lost");
        starved &= idle > 0;
        false
    });
    assert!(read_all || starved, "packets were lost by reloads alone");

    wait_until("the sets that nothing uses to go", || {
        let listed = lab.server.run("nft list sets inet");
        listed.matches("\tset guarded").count() == 1
    });
}
