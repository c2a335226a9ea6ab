//! What the kernel will not do for a while: nothing is lost by it, nothing is said for ever,
//! and what the daemon believes is what the kernel has.

use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::life::{TOML, open_some};
use crate::support::{Lab, wait_for};

#[test]
fn what_cannot_be_asked_is_asked_again_later() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order("open ssh 192.0.2.77 22/tcp 100ms");
    agent.order("privileged no");
    let (said, asked) = wait_for("its time to be up", || {
        let asked = Instant::now();
        let said = agent.order("expire");
        (!said.is_empty()).then_some((said, asked))
    });
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    let due: u64 = agent.order("due").parse().expect("it is still to be asked");
    let due = asked.elapsed() + Duration::from_millis(due);
    assert!(due > Duration::from_millis(500), "asked again in {due:?}");
    // And not said again when it fails again.
    assert_eq!(agent.order("mind 1200ms"), "");
    agent.order("privileged yes");
    let said = agent.order("mind 3s");
    assert_eq!(said, "closed ssh 192.0.2.77 22/tcp; ");
}

#[test]
fn who_cannot_listen_has_the_table_all_the_same() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::new(&lab.server);
    // Enough for the socket that makes the table, not for the one that listens.
    agent.order("files one more");
    let said = agent.order(&format!("watch {}", path.display()));
    assert!(said.starts_with("Created owned=false"), "{said}");
    assert!(said.contains("EMFILE"), "{said}");
    agent.order("open ssh 192.0.2.77 22/tcp 30s");
    lab.server.run("nft flush ruleset");
    assert_eq!(agent.order("mind 1200ms"), "", "not said again");
    agent.order("files all");
    let said = agent.order("mind 5s");
    assert!(said.contains("restored"), "{said}");
    let list = agent.order("list knockd");
    assert!(list.starts_with("ssh 192.0.2.77 22/tcp"), "{list}");
    // It listens now.
    lab.server.run("nft flush ruleset");
    let said = agent.order("mind 5s");
    assert!(said.contains("deleted the table: restored"), "{said}");
}

#[test]
fn a_table_that_could_not_be_removed_is_still_used() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order("privileged no");
    assert!(agent.attempt("stop remove").is_err());
    agent.order("privileged yes");
    open_some(&mut agent);
    agent.order("stop remove");
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

/// The kernel does it, and has no room to say so.
#[test]
fn what_was_done_unheard_is_known() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    for (order, answer, list) in [
        (
            "open ssh 192.0.2.77 22/tcp 30s",
            "opened 192.0.2.77 22/tcp; ",
            "ssh 192.0.2.77 22/tcp 30; ",
        ),
        ("close 192.0.2.77 all", "closed ssh 192.0.2.77 22/tcp; ", ""),
    ] {
        // The first answer that is read is the transaction's.
        let mut strace = lab
            .server
            .inject(agent.id(), "recvfrom:error=ENOBUFS:when=1");
        let result = agent.attempt(order);
        strace.wait_for_line("INJECTED");
        strace.kill();
        assert_eq!(result.as_deref(), Ok(answer), "{order}");
        assert_eq!(agent.order("list knockd"), list, "{order}");
    }
}

/// Another process takes a set away between our look and our transaction. That the kernel knows
/// no such rule is another thing, and must not be concluded from it.
#[test]
fn a_set_that_goes_meanwhile_is_no_want_of_support() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let start = format!("start {}", path.display());
    let mut agent = Agent::new(&lab.server);
    agent.order(&start);
    open_some(&mut agent);
    agent.kill();

    // Which of its messages is the transaction.
    let mut agent = Agent::new(&lab.server);
    let strace = lab.server.inject(agent.id(), "sendto:delay_exit=1:when=1");
    let said = agent.order(&start);
    assert_eq!(said, "Adopted owned=true kept=3 removed=0 []");
    agent.kill();
    let sent = wait_for("the transaction", || {
        let lines = strace.lines();
        let mut sent = lines.iter().filter(|line| line.contains("sendto("));
        sent.position(|line| line.contains("BATCH_BEGIN"))
    });

    let mut agent = Agent::new(&lab.server);
    let held = format!("sendto:delay_enter=5s:when={}", sent + 1);
    let _strace = lab.server.inject(agent.id(), &held);
    agent.blurt(&start);
    std::thread::sleep(Duration::from_secs(1));
    lab.server.nft(
        "flush table inet knockd\n\
         delete set inet knockd udp_60000_61000_v4",
    );
    let said = agent.answer();
    let wanted = "Rebuilt owned=true kept=3 removed=0 []";
    assert_eq!(said.as_deref(), Ok(wanted));
    assert_eq!(agent.order("list knockd"), crate::life::OPENED);
}

/// What ends together is looked for some at a time: packets are read in between.
#[test]
fn what_runs_out_together_is_told_in_parts() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order("fill 2000 22/tcp 2s");
    wait_for("the end of all", || {
        agent.order("list knockd").is_empty().then_some(())
    });
    std::thread::sleep(Duration::from_millis(100));
    let mut parts = Vec::new();
    while let Ok(0) = agent.order("due").parse::<u64>() {
        parts.push(agent.order("expire").matches("closed ssh").count());
    }
    assert!(parts.iter().all(|part| *part <= 256), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), 2000, "{parts:?}");
    assert_eq!(agent.order("due"), "", "and no more is to be done");
}
