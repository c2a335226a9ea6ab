//! Sources do not disturb each other, and many may knock at once.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::packets::{Kind, SYN};
use crate::support::{CLIENT, Lab, OTHER, SERVER, SOON, ip, wait_until};

/// The `n`th of many sources.
fn source(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a01_0000 + n).into()
}

#[test]
fn a_timeout_of_one_source_leaves_another_half_way() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let text = "[a]\nsequence = 3401,5520,2917\nseq_timeout = 3\n";
    let daemon = lab.start_ours(&lab.write("a.conf", text));
    let (first, second, server) = (ip(CLIENT[0]), ip(OTHER[0]), ip(SERVER[0]));
    let mut sender = lab.sender();
    sender.knock(first, server, &[3401, 5520]);
    daemon.wait_for(&format!("{first}: a: Stage 2"));
    // So that the second is half-way when the first runs out.
    std::thread::sleep(Duration::from_millis(1500));
    sender.knock(second, server, &[3401, 5520]);
    daemon.wait_for(&format!("{first}: a: sequence timeout (stage 2)"));
    sender.knock(first, server, &[2917]);
    sender.knock(second, server, &[2917]);
    daemon.wait_for(&format!("{second}: a: OPEN SESAME"));
    assert_eq!(daemon.count("OPEN SESAME"), 1);
}

#[test]
fn a_wrong_port_of_one_source_leaves_another_half_way() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let daemon = lab.start_ours(&lab.write("a.conf", "[a]\nsequence = 3401,5520,2917\n"));
    let (first, second, server) = (ip(CLIENT[0]), ip(OTHER[0]), ip(SERVER[0]));
    let mut sender = lab.sender();
    sender.knock(first, server, &[3401, 5520]);
    sender.knock(second, server, &[3401, 5520]);
    // Its own wrong port, which begins nothing.
    sender.knock(first, server, &[5520, 3401, 5520, 3401, 2917]);
    sender.knock(second, server, &[2917]);
    daemon.wait_for(&format!("{second}: a: OPEN SESAME"));
    assert_eq!(daemon.count("OPEN SESAME"), 1);
}

#[test]
fn two_hundred_clients_that_finish_together_run_two_hundred_commands() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let ran = lab.directory().join("ran");
    let text = format!(
        "[a]\nsequence = 3401,5520:udp,2917\nstart_command = echo %IP% >>{}\n",
        ran.display()
    );
    let daemon = lab.start_ours(&lab.write("a.conf", &text));
    let server = ip(SERVER[0]);
    let mut sender = lab.sender();
    for n in 0..200 {
        sender.hit(source(n), server, 3401, SYN);
        sender.hit(source(n), server, 5520, Kind::Udp);
    }
    for n in 0..200 {
        sender.hit(source(n), server, 2917, SYN);
    }
    let addresses: Vec<_> = (0..200).map(|n| source(n).to_string()).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    lab.wait_for_written("ran", &addresses);
    // A command may have done its work before the line about it is written.
    for line in ["OPEN SESAME", "running command: echo"] {
        daemon.wait_for_count(line, 200);
        assert_eq!(daemon.count(line), 200);
    }
}

/// 0.8 is handed packets up to 50 ms late, one in ten of them within 5 ms. A busy machine
/// spoils a series; it does not make ten of twenty quick by chance.
#[test]
fn a_knock_is_seen_at_once() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let daemon = lab.start_ours(&lab.write("a.conf", "[a]\nsequence = 5520:udp\n"));
    let mut sender = lab.sender();
    let mut delay = |n: u32| {
        let line = format!("{}: a: OPEN SESAME", source(n));
        let begin = Instant::now();
        sender.hit(source(n), ip(SERVER[0]), 5520, Kind::Udp);
        while daemon.count(&line) == 0 && begin.elapsed() < SOON {
            std::thread::yield_now();
        }
        begin.elapsed()
    };
    let mut seen = Vec::new();
    for series in 0..25 {
        let delays: Vec<_> = (0..20).map(|n| delay(series * 20 + n)).collect();
        let quick = delays.iter().filter(|d| **d < Duration::from_millis(5));
        if quick.count() >= 10 {
            return;
        }
        seen.push(delays);
    }
    panic!("{seen:?}");
}

/// 5,000 knocks a second for ten seconds, each third of them the last of a sequence, while
/// the configuration is reread every five milliseconds.
#[test]
fn reloading_every_five_milliseconds_loses_no_door() {
    needs!(Laboratory, Knock08);
    const RATE: u32 = 5_000;
    const SEQUENCE: [u16; 3] = [3401, 5520, 2917];
    let lab = Lab::new();
    let daemon = lab.start_ours(&lab.write("a.conf", "[a]\nsequence = 3401,5520,2917\n"));
    let server = ip(SERVER[0]);
    let mut sender = lab.sender();
    let begin = Instant::now();
    let mut hangup = begin;
    let mut hangups = 0;
    let rounds = RATE * 10 / 3;
    for n in 0..rounds {
        // Three sources are at work at any time.
        for (behind, port) in SEQUENCE.iter().enumerate() {
            if let Some(n) = n.checked_sub(behind as u32) {
                sender.hit(source(n), server, *port, SYN);
            }
        }
        let now = Instant::now();
        if now >= hangup {
            daemon.process.signal(Signal::SIGHUP);
            hangup = now + Duration::from_millis(5);
            hangups += 1;
        }
        let due = begin + Duration::from_secs(3) * n / RATE;
        std::thread::sleep(due.saturating_duration_since(now));
    }
    let sent = begin.elapsed();
    let complete = rounds as usize - 2;
    // Each is told: by a line, or in a count.
    let opened = || {
        let lines = daemon.logged();
        let counts = lines
            .iter()
            .filter_map(|line| line.strip_suffix(" more finished knocks not written"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        counts.sum::<usize>() + daemon.count("OPEN SESAME")
    };
    wait_until("each opening", || opened() >= complete);
    assert_eq!(daemon.count("packets lost"), 0);
    assert_eq!(opened(), complete);
    let reloads = daemon.count("re-reading config file");
    println!("{rounds} rounds in {sent:?}, {hangups} SIGHUPs, {reloads} reloads");
    assert!(reloads > 500, "only {reloads} of {hangups}");
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}
