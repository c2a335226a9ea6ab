//! Netlink that is interrupted (EINTR) and loses messages (ENOBUFS), on each of the daemon's sockets: that
//! of interfaces and addresses, that of its table, and that of news about the tables of others.

use std::net::Ipv4Addr;
use std::thread;

use nix::sys::signal::Signal;

use crate::limits::{allow_files, lowest_free_file};
use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::{Lab, OTHER, Over, Process, SERVER, ip, wait_until};
use crate::work::{close_all, expect_at_work, expect_shut};

/// Addresses come and go, the table is changed, knocked at and reloaded, by orders and by others.
#[track_caller]
fn live_through(lab: &Lab, site: &Site<'_>, daemon: &Process, is_watched: bool) {
    for round in 0..4 {
        let said = format!("interface eth0 has the address 198.51.100.{round}");
        lab.server
            .ip(&format!("address add 198.51.100.{round}/32 dev eth0"));
        wait_until("the address", || daemon.count(&said) == 1);
        expect_at_work(lab, site);
        if is_watched {
            let restored = || daemon.count(": restored after");
            let before = restored();
            lab.server.run("nft flush ruleset");
            wait_until("the table", || restored() > before);
            expect_shut(lab);
            assert_eq!(site.openings().len(), 1);
        }
        let said = site.reload(daemon);
        let is_good = |line: &String| line.contains("the new configuration is in force");
        assert!(said.iter().any(is_good), "{said:?}");
        assert_eq!(site.openings().len(), 1);
        close_all(site);
    }
}

/// A signal interrupts a call at any time; and who stops a process and lets it go on (a debugger, a
/// freezer) interrupts its poll.
#[test]
fn calls_that_are_interrupted_are_made_again() {
    needs!(Laboratory, Tool("strace"));
    for (words, is_watched) in [("", false), ("--watch", true)] {
        for fault in [
            "recvfrom:error=EINTR:when=1+2",
            "poll:error=EINTR:when=1+2",
            "recvmsg:error=EINTR:when=1+2",
        ] {
            let lab = Lab::new();
            let _echo = lab.server.echo(22);
            let site = Site::new(&lab, SSH);
            let daemon = site.start(words);
            let strace = lab.server.inject(daemon.id(), fault);
            live_through(&lab, &site, &daemon, is_watched);
            let hit = strace.count("INJECTED");
            strace.kill();
            assert!(hit > 0 || fault.starts_with("recvmsg"), "{fault}");
            assert_eq!(daemon.count("Interrupted"), 0);
            let (status, _) = daemon.terminate();
            assert!(status.success(), "{status}");
        }
    }
}

/// Whatever answer or news is lost, the daemon finds out what is so.
#[test]
fn messages_that_are_lost_are_made_good() {
    needs!(Laboratory, Tool("strace"));
    for (words, is_watched) in [("", false), ("--watch", true)] {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        let site = Site::new(&lab, SSH);
        let daemon = site.start(words);
        let mut told = 0;
        // Each receipt in its turn is the one that is lost.
        for turn in 1..=10 {
            let fault = format!("recvfrom:error=ENOBUFS:when={turn}+10");
            let strace = lab.server.inject(daemon.id(), &fault);
            for part in [1, 2, 3] {
                let address = format!("198.51.{part}.{turn}");
                lab.server.ip(&format!("address add {address}/32 dev eth0"));
                let said = format!("interface eth0 has the address {address}");
                wait_until("the address", || daemon.count(&said) == 1);
                // Its answer may be the one that is lost: then it says so, and the next is heard.
                let refused = || daemon.count("not opened: the kernel refused");
                wait_until("the opening", || {
                    let before = refused();
                    knock(&lab, SERVER[0], OPEN_SSH);
                    wait_until("an outcome", || {
                        site.openings().len() == 1 || refused() > before
                    });
                    site.openings().len() == 1
                });
                if is_watched {
                    lab.server.run("nft flush ruleset");
                    wait_until("the table", || {
                        let table = lab.server.try_run("nft list table inet knockd");
                        table.status.success() && site.openings().len() == 1
                    });
                    expect_shut(&lab);
                }
                wait_until("an end of the opening", || {
                    site.try_run("close --all").status.success() && site.openings().is_empty()
                });
            }
            told += strace.count("INJECTED");
            strace.kill();
        }
        assert!(told > 10, "{told}");
        expect_at_work(&lab, &site);
        let (status, _) = daemon.terminate();
        assert!(status.success(), "{status}");
    }
}

/// Others change nftables without pause: the kernel interrupts every list that it gives (EINTR in words
/// of netlink, NLM_F_DUMP_INTR).
#[test]
fn lists_that_are_interrupted_are_asked_for_again() {
    needs!(Laboratory);
    for (words, is_watched) in [("", false), ("--watch", true)] {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        let site = Site::new(&lab, SSH);
        let daemon = site.start(words);
        let end = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::Relaxed;
        thread::scope(|scope| {
            let _end = Over(|| end.store(true, order));
            for name in ["one", "two"] {
                let (lab, end) = (&lab, &end);
                scope.spawn(move || {
                    while !end.load(order) {
                        lab.server.try_run(&format!("nft add table ip {name}"));
                        lab.server.try_run(&format!("nft delete table ip {name}"));
                    }
                });
            }
            for _ in 0..20 {
                site.reload(&daemon);
                knock(&lab, SERVER[0], OPEN_SSH);
                wait_until("the opening", || site.openings().len() == 1);
                close_all(&site);
            }
            live_through(&lab, &site, &daemon, is_watched);
        });
        assert_eq!(daemon.count("reading nftables failed"), 0);
        assert_eq!(daemon.count("the running configuration stays"), 0);
    }
}

/// More news of addresses than the socket holds, while no more files may be open: what is lost cannot be
/// looked up, and is once it can.
#[test]
fn news_of_addresses_that_were_lost_are_looked_up_as_soon_as_that_is_possible() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    expect_at_work(&lab, &site);
    close_all(&site);
    let before = allow_files(daemon.id(), lowest_free_file(daemon.id()));
    daemon.signal(Signal::SIGSTOP);
    let all: String = (0..3_000_u32)
        .map(|n| {
            let address = Ipv4Addr::from(0x0b00_0000 + n);
            format!("address add {address}/32 dev eth0\n")
        })
        .collect();
    lab.server.ip(&all);
    lab.server.ip("address add 192.0.2.9/24 dev eth0");
    daemon.signal(Signal::SIGCONT);
    let said = daemon.wait_for_line("cannot follow the interfaces and their addresses");
    assert!(said.contains("Too many open files"), "{said}");
    expect_shut(&lab);
    assert_eq!(daemon.count("has the address 192.0.2.9"), 0);
    // An old address is knocked at as ever.
    knock(&lab, SERVER[0], OPEN_SSH);
    wait_until("the opening", || site.openings().len() == 1);
    assert_eq!(daemon.count("cannot follow the interfaces"), 1);
    allow_files(daemon.id(), before);
    daemon.wait_for_line("interface eth0 has the address 192.0.2.9");
    close_all(&site);
    knock(&lab, "192.0.2.9", OPEN_SSH);
    wait_until("the opening", || site.openings().len() == 1);
    let other = lab
        .client
        .connect(ip(OTHER[0]), (ip("192.0.2.9"), 22), crate::support::SILENCE);
    other.expect_silence();
}
