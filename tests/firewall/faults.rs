//! The kernel refuses something for a while: nothing is lost, the log does not repeat itself, and the
//! daemon knows what the kernel has.

use std::time::{Duration, Instant};

use knockd::firewall::{Mode, Origin};
use knockd::model::{Lifetime, OnStop};

use crate::agent::{
    A_WHILE, Agent, Applied, Damage, Failure, FileLimit, News, Notice, Opening, Started, close_all,
    due, element, expire, fill, limit_files, list, millis, open, privileged, run, seconds, start,
    stop,
};
use crate::life::{TOML, open_some, some_opened, ssh_opened};
use crate::support::{Lab, wait_for};

#[test]
fn what_cannot_be_asked_is_asked_again_later() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(open(
        "ssh",
        "192.0.2.77",
        "22/tcp",
        Lifetime::For(millis(100)),
    ));
    agent.order(privileged(false));
    let (news, asked) = wait_for("its time to be up", || {
        let asked = Instant::now();
        let news = agent.order(expire());
        (news != News::none()).then_some((news, asked))
    });
    assert_eq!(news.notices, [Notice::Fault(Failure::Permission)]);
    let due = agent.order(due()).expect("it is still to be asked");
    let due = asked.elapsed() + due;
    assert!(due > Duration::from_millis(500), "asked again in {due:?}");
    // And not said again when it fails again.
    assert_eq!(agent.order(run(millis(1200))), News::none());
    agent.order(privileged(true));
    let news = agent.order(run(Duration::from_secs(3)));
    assert_eq!(news.closed, [element("ssh", "192.0.2.77", "22/tcp")]);
    assert_eq!(news.notices, []);
}

#[test]
fn who_cannot_listen_has_the_table_all_the_same() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::new(&lab.server);
    // Enough for the socket that makes the table, not for the one that listens.
    agent.order(limit_files(FileLimit::OneMore));
    let started = agent.order(start(Mode::Watch, &path));
    let too_many = Notice::Fault(Failure::Reading(nix::libc::EMFILE));
    let watched = Started {
        notices: vec![too_many],
        ..Started::quietly(Origin::Created, false, 0)
    };
    assert_eq!(started, watched);
    agent.order(open("ssh", "192.0.2.77", "22/tcp", seconds(30)));
    lab.server.run("nft flush ruleset");
    assert_eq!(
        agent.order(run(millis(1200))),
        News::none(),
        "not said again"
    );
    agent.order(limit_files(FileLimit::Most));
    let news = agent.order(run(A_WHILE));
    assert!(news.restored().is_some(), "{news:?}");
    assert_eq!(agent.order(list("knockd")), [ssh_opened()]);
    // It listens now.
    lab.server.run("nft flush ruleset");
    let news = agent.order(run(A_WHILE));
    assert_eq!(news.restored(), Some(Damage::Deleted), "{news:?}");
}

#[test]
fn a_table_that_could_not_be_removed_is_still_used() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(privileged(false));
    assert!(agent.attempt(stop(OnStop::Remove)).is_err());
    agent.order(privileged(true));
    open_some(&mut agent);
    agent.order(stop(OnStop::Remove));
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

/// The kernel does it, and has no room to say so.
#[test]
fn what_was_done_unheard_is_known() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    let ssh = element("ssh", "192.0.2.77", "22/tcp");
    let opens = open("ssh", "192.0.2.77", "22/tcp", seconds(30));
    let closes = close_all("192.0.2.77");
    for (order, done, left) in [
        (opens, Applied::opening(ssh.clone()), vec![ssh_opened()]),
        (closes, Applied::closing(ssh), vec![]),
    ] {
        // The first answer that is read is the transaction's.
        let mut strace = lab
            .server
            .inject(agent.id(), "recvfrom:error=ENOBUFS:when=1");
        let result = agent.attempt(order);
        strace.wait_for_line("INJECTED");
        strace.kill();
        assert_eq!(result, Ok(done));
        assert_eq!(agent.order(list("knockd")), left);
    }
}

/// Neither the answer to a change nor the list after it can be read: what was done is found out with the
/// next change, or by itself.
#[test]
fn what_was_done_unheard_and_cannot_be_listed_is_known_later() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    for by_itself in [false, true] {
        let mut agent = Agent::start(&lab.server, &path);
        let ssh = element("ssh", "192.0.2.77", "22/tcp");
        // Of the transaction's receipts the first, and of the list's.
        let lost = "recvfrom:error=ENOBUFS:when=1+3";
        let mut strace = lab.server.inject(agent.id(), lost);
        let result = agent.attempt(open("ssh", "192.0.2.77", "22/tcp", seconds(30)));
        assert_eq!(result, Err(Failure::Reading(nix::libc::ENOBUFS)));
        strace.wait_for_line("INJECTED");
        strace.kill();
        if by_itself {
            let is_due = agent.order(due()).expect("a reading");
            assert!(is_due <= Duration::from_secs(1), "{is_due:?}");
            agent.order(run(millis(1200)));
            // Now it is the opening's own end that is waited for.
            assert!(agent.order(due()) > Some(Duration::from_secs(5)));
        }
        let closed = agent.order(close_all("192.0.2.77"));
        assert_eq!(closed, Applied::closing(ssh));
        assert_eq!(agent.order(list("knockd")), Opening::NONE);
    }
}

/// Another process takes a set away between our look and our transaction. That the kernel knows
/// no such rule is another thing, and must not be concluded from it.
#[test]
fn a_set_that_goes_meanwhile_is_no_want_of_support() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.kill();

    // Which of its messages is the transaction.
    let mut agent = Agent::new(&lab.server);
    let strace = lab.server.inject(agent.id(), "sendto:delay_exit=1:when=1");
    let started = agent.order(start(Mode::Auto, &path));
    assert_eq!(started, Started::quietly(Origin::Adopted, true, 3));
    agent.kill();
    let sent = wait_for("the transaction", || {
        let lines = strace.lines();
        let mut sent = lines.iter().filter(|line| line.contains("sendto("));
        sent.position(|line| line.contains("BATCH_BEGIN"))
    });

    let mut agent = Agent::new(&lab.server);
    let held = format!("sendto:delay_enter=5s:when={}", sent + 1);
    let _strace = lab.server.inject(agent.id(), &held);
    let started = std::thread::scope(|scope| {
        let starting = scope.spawn(|| agent.order(start(Mode::Auto, &path)));
        std::thread::sleep(Duration::from_secs(1));
        lab.server.nft(
            "flush table inet knockd\n\
             delete set inet knockd udp_60000_61000_v4",
        );
        starting.join().expect("a start")
    });
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 3));
    assert_eq!(agent.order(list("knockd")), some_opened());
}

/// Openings that run out together are looked for some at a time: packets are read in between.
#[test]
fn what_runs_out_together_is_told_in_parts() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(fill(2000, "22/tcp", Duration::from_secs(2)));
    wait_for("the end of all", || {
        (agent.order(list("knockd")) == Opening::NONE).then_some(())
    });
    // The table looks 20 ms after the kernel. By now every deadline shall have passed, so that
    // only the number looked for at once makes more than one part.
    std::thread::sleep(Duration::from_millis(100));
    let mut parts = Vec::new();
    while agent.order(due()) == Some(Duration::ZERO) {
        parts.push(agent.order(expire()).closed.len());
    }
    assert!(parts.iter().all(|part| *part <= 256), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), 2000, "{parts:?}");
    assert_eq!(agent.order(due()), None, "and no more is to be done");
}
