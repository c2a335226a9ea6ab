//! A table changes, or one takes the place of another: no packet sees half of either.

use std::collections::BTreeSet;
use std::time::Duration;

use knockd::firewall::{Mode, Origin};
use knockd::model::OnStop;

use crate::agent::{
    Agent, News, Opening, Owner, Started, clear, close_all, due, fill, guard, guard_for, list,
    millis, open, reload, run, seconds, start, stop,
};
use crate::life::{TOML, open_some, some_opened, ssh_opened};
use crate::support::{Lab, Process, wait_for};

/// Two doors as in [`TOML`], in a table of another name.
fn renamed() -> String {
    TOML.replace("[firewall]", "[firewall]\ntable = \"doors\"")
}

/// As a crash may leave it, in the middle of a replacement.
#[test]
fn what_a_crash_left_beside_the_table_goes() {
    needs!(Laboratory);
    for (is_cleared, rest) in [(true, ""), (false, "table inet knockd\n")] {
        let lab = Lab::new();
        let path = lab.write("knockd.toml", TOML);
        Agent::new(&lab.server).order(guard_for(Owner::Other, &path));
        let table = lab.server.run("nft list table inet knockd");
        lab.server
            .nft(&table.replace("inet knockd {", "inet knockd_interim {"));
        let add = "add element inet knockd_interim openings_v4";
        lab.server.nft(&format!(
            "{add} {{ 192.0.2.77 . tcp . 22 timeout 30s comment \"ssh\" }}"
        ));
        let tables = lab.server.run("nft list tables");
        assert_eq!(tables.lines().count(), 2, "{tables}");
        let mut agent = Agent::new(&lab.server);
        if is_cleared {
            assert!(agent.order(clear("knockd")));
        } else {
            agent.order(guard_for(Owner::Other, &path));
            assert_eq!(agent.order(list("knockd")), [ssh_opened()]);
        }
        assert_eq!(lab.server.run("nft list tables"), rest);
    }
}

/// As a crash leaves it after the old table was taken off its hook.
#[test]
fn a_table_that_a_crash_left_without_its_hook_is_built_anew() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    let guard = lab.server.run("nft list chain inet knockd guard");
    agent.kill();
    lab.server
        .nft("flush chain inet knockd guard\ndelete chain inet knockd guard");
    let mut agent = Agent::new(&lab.server);
    let started = agent.order(start(Mode::Auto, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 3));
    assert_eq!(agent.order(list("knockd")), some_opened());
    let again = lab.server.run("nft list chain inet knockd guard");
    assert_eq!(again, guard);
}

/// A verdict map holds on to a chain, which cannot be deleted before it.
#[test]
fn a_map_of_a_stranger_is_in_nobodys_way() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    Agent::new(&lab.server).order(guard(&path));
    lab.server.nft(
        "add chain inet knockd theirs\n\
         add map inet knockd verdicts { type inet_service : verdict; }\n\
         add element inet knockd verdicts { 80 : jump theirs }\n\
         add rule inet knockd guard tcp dport vmap @verdicts",
    );
    for mode in [Mode::Auto, Mode::Watch] {
        let mut agent = Agent::new(&lab.server);
        agent.order(start(mode, &path));
        let listed = lab.server.run("nft list ruleset");
        assert!(!listed.contains("theirs"), "{listed}");
    }
}

#[test]
fn a_table_with_the_longest_name_is_replaced_too() {
    needs!(Laboratory);
    let lab = Lab::new();
    let name = "k".repeat(255);
    let toml = TOML.replace("[firewall]", &format!("[firewall]\ntable = \"{name}\""));
    let path = lab.write("knockd.toml", &toml);
    let mut agent = Agent::new(&lab.server);
    agent.order(guard(&path));
    let started = agent.order(start(Mode::Auto, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 0));
    let tables = lab.server.run("nft list tables");
    assert_eq!(tables, format!("table inet {name}\n"));
}

/// The kernel's transactions, each as the lines of `nft monitor`, while `meanwhile` runs.
fn transactions(lab: &Lab, meanwhile: impl FnOnce()) -> Vec<Vec<String>> {
    let mut monitor = Process::start(lab.server.command("nft").arg("monitor"));
    // It says nothing when it begins to listen.
    wait_for("the monitor", || {
        lab.server.nft("add table ip begun\ndelete table ip begun");
        (monitor.count("delete table ip begun") > 0).then_some(())
    });
    meanwhile();
    lab.server.nft("add table ip over");
    monitor.wait_for_line("add table ip over");
    let mut lines = monitor.lines();
    // Its warnings of sets it has seen no beginning of are no part of a transaction.
    lines.retain(|line| !line.starts_with("W: "));
    let parts = lines.split(|line| line.starts_with("# new generation"));
    parts.map(<[String]>::to_vec).collect()
}

/// A packet that is among the rules while they change goes on with the old ones, and looks
/// into the sets as they are then. And a packet that has passed the list of hooks before another
/// table is on it meets the old table alone, which may have no rules any more.
#[test]
fn rules_and_what_they_look_into_never_change_together() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let renamed = lab.write("renamed.toml", &renamed());
    let other = lab.write("other.toml", &TOML.replace("443/tcp", "993/tcp"));
    let ranges = TOML.replace("60000-61000", "60000-61001");
    let ranges = lab.write("ranges.toml", &ranges);
    let changes = || {
        for mode in [Mode::Auto, Mode::Watch] {
            let mut agent = Agent::new(&lab.server);
            agent.order(start(mode, &path));
            open_some(&mut agent);
            for next in [&renamed, &path, &other, &other, &ranges, &path] {
                agent.order(reload(next));
                let listed = ["doors", "knockd"].map(|table| agent.order(list(table)));
                let ssh = listed.iter().any(|listed| listed.contains(&ssh_opened()));
                assert!(ssh, "{listed:?}");
                agent.order(run(millis(300)));
                let tables = lab.server.run("nft list tables");
                assert_eq!(tables.lines().count(), 1, "{tables}");
            }
            agent.order(stop(OnStop::Keep));
        }
    };
    let transactions = transactions(&lab, changes);
    let mut tables = BTreeSet::new();
    let (mut rewritten, mut deleted) = (0, 0);
    for lines in transactions {
        let begins = |with: &[&str]| {
            let begins = |line: &&String| with.iter().any(|w| line.starts_with(w));
            lines.iter().filter(begins).count()
        };
        let named = |with| {
            lines
                .iter()
                .filter_map(move |line: &String| line.strip_prefix(with))
        };
        let gone: BTreeSet<_> = named("delete table inet ").collect();
        if !gone.is_empty() {
            // As a whole, where another has guarded before.
            let others = tables
                .iter()
                .filter(|name: &&String| !gone.contains(name.as_str()));
            assert_ne!(others.count(), 0, "{}", lines.join("\n"));
            // The other one stays as it is.
            let is_gone = |line: &String| {
                let mut words = line.split(' ').skip_while(|word| *word != "inet").skip(1);
                words.next().is_some_and(|name| gone.contains(name))
            };
            let others = lines.iter().filter(|line| !is_gone(line));
            let others = others.filter(|line| !line.starts_with("add table"));
            assert_eq!(others.collect::<Vec<_>>(), [""; 0], "{}", lines.join("\n"));
            deleted += 1;
        } else if begins(&["delete rule"]) > 0 {
            // An adopted table is told as added.
            let rules = ["add table", "add rule", "delete rule"];
            assert_eq!(begins(&rules), lines.len(), "{}", lines.join("\n"));
            rewritten += 1;
        } else {
            // What goes is nothing that rules look into.
            assert_eq!(begins(&["delete chain"]), 0, "{}", lines.join("\n"));
        }
        tables.retain(|name| !gone.contains(name.as_str()));
        tables.extend(named("add table inet ").map(str::to_owned));
    }
    assert!(rewritten >= 8, "{rewritten}");
    assert!(deleted >= 6, "{deleted}");
}

/// The old table guards for a moment yet. It must not outlive its daemon, which alone knows of it.
#[test]
fn a_stop_a_moment_after_the_table_was_renamed_leaves_no_second_guard() {
    needs!(Laboratory);
    for mode in [Mode::Auto, Mode::Watch] {
        for (on_stop, rest) in [(OnStop::Keep, "table inet doors\n"), (OnStop::Remove, "")] {
            let lab = Lab::new();
            let path = lab.write("knockd.toml", TOML);
            let renamed = lab.write("renamed.toml", &renamed());
            let mut agent = Agent::new(&lab.server);
            agent.order(start(mode, &path));
            agent.order(reload(&renamed));
            agent.order(stop(on_stop));
            let tables = lab.server.run("nft list tables");
            assert_eq!(tables, rest, "{mode:?} {on_stop:?}");
        }
    }
}

/// Both tables guard then, so a knock must open both, and a closing knock close both.
#[test]
fn a_knock_a_moment_after_the_table_was_renamed_is_let_in_by_both() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let renamed = lab.write("renamed.toml", &renamed());
    for mode in [Mode::Auto, Mode::Watch] {
        let mut agent = Agent::new(&lab.server);
        agent.order(start(mode, &path));
        agent.order(reload(&renamed));
        let listed = |agent: &mut Agent| ["knockd", "doors"].map(|table| agent.order(list(table)));
        let knock = || open("ssh", "192.0.2.77", "22/tcp", seconds(30));
        agent.order(knock());
        assert_eq!(listed(&mut agent), [[ssh_opened()], [ssh_opened()]]);
        agent.order(close_all("192.0.2.77"));
        assert_eq!(listed(&mut agent), [Opening::NONE; 2]);
        // The old table lacks the set of a new range, and takes all else.
        let range = TOML.replace("60000-61000", "60000-61001");
        let range = lab.write("range.toml", &range);
        agent.order(reload(&range));
        let both = "60000-61001/udp,443/tcp";
        agent.order(open("mosh", "192.0.2.77", both, seconds(30)));
        let taken = listed(&mut agent).map(|listed| listed.len());
        assert_eq!(taken, [2, 1]);
        // The table that is ours again is no leftover any more.
        assert_eq!(agent.order(run(millis(300))), News::none());
        assert_eq!(agent.order(list("knockd")).len(), 2);
        assert_eq!(lab.server.run("nft list tables"), "table inet knockd\n");
        agent.order(stop(OnStop::Remove));
    }
}

/// An opening is in both tables then, and goes from the new one.
#[test]
fn a_door_may_go_a_moment_after_its_table_was_renamed() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let first = lab.write("renamed.toml", &renamed());
    // Its port stays guarded, by a door of another name.
    let second = renamed().replace("[door.ssh]", "[door.shell]");
    let second = lab.write("second.toml", &second);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.order(reload(&first));
    let started = agent.order(reload(&second));
    assert_eq!(
        started,
        Started::quietly(Origin::Adopted, true, 2).removing(1)
    );
    let [_, mosh @ ..] = some_opened();
    assert_eq!(agent.order(list("doors")), mosh);
}

/// Its element stays for a moment, but the log has reported it as closed.
#[test]
fn an_opening_is_not_back_with_its_port_a_moment_later() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let other = lab.write("other.toml", &TOML.replace("22/tcp", "23/tcp"));
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.order(reload(&other));
    let started = agent.order(reload(&path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 2));
    let [ssh, mosh @ ..] = some_opened();
    assert_eq!(agent.order(list("knockd")), mosh);
    // A new one there stays, and so do sets that are used again.
    agent.order(open("ssh", "192.0.2.77", "22/tcp", seconds(30)));
    assert_eq!(agent.order(run(millis(300))), News::none());
    assert!(agent.order(list("knockd")).contains(&ssh));
}

/// A port that lies in a range now is guarded on: who may not come in any more is kept out at once.
#[test]
fn an_opening_that_a_range_covers_is_closed_at_once() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let range = TOML.replace("[\"22/tcp\"]", "[\"20-30/tcp\"]");
    let range = lab.write("range.toml", &range);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.order(reload(&range));
    let [_, mosh @ ..] = some_opened();
    assert_eq!(agent.order(list("knockd")), mosh);
}

/// Each transaction is told to all who watch, the daemon among them, and there is room for some
/// hundred.
#[test]
fn a_thousand_openings_of_a_port_that_goes_are_no_news() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let other = lab.write("other.toml", &TOML.replace("22/tcp", "23/tcp"));
    let mut agent = Agent::watch(&lab.server, &path);
    agent.order(fill(2000, "22/tcp", Duration::from_secs(3600)));
    agent.order(run(millis(50)));
    let started = agent.order(reload(&other));
    assert_eq!(
        started,
        Started::quietly(Origin::Rebuilt, false, 0).removing(2000)
    );
    assert_eq!(agent.order(run(millis(500))), News::none());
    assert_eq!(agent.order(list("knockd")), Opening::NONE);
}

/// What the old rules use stays for 100 ms from the change of the rules on, however long it took
/// to read the table before.
#[test]
fn what_old_rules_use_stays_as_long_where_a_reload_takes_its_time() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let other = lab.write("other.toml", &TOML.replace("443/tcp", "993/tcp"));
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(fill(5000, "22/tcp", Duration::from_secs(3600)));
    let mut all = Vec::new();
    for next in [&other, &path].into_iter().cycle().take(10) {
        agent.order(reload(next));
        all.extend(agent.order(due()));
        agent.order(run(millis(300)));
    }
    let longest = all.iter().max().copied();
    assert!(longest > Some(millis(85)), "{all:?}");
}

/// Waiting for packets to leave the rules would hold up those that knock.
#[test]
fn a_reload_waits_for_no_packet() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let others = [
        renamed(),
        TOML.replace("443/tcp", "993/tcp"),
        TOML.replace("60000-61000", "60000-61001"),
        TOML.replace("[firewall]", "[firewall]\nguard = \"reject\""),
    ];
    let mut number = 0;
    let others = others.map(|text| {
        number += 1;
        lab.write(&format!("other{number}.toml"), &text)
    });
    let mut agent = Agent::start(&lab.server, &path);
    let mut strace = lab
        .server
        .inject(agent.id(), "membarrier:delay_exit=1:when=1+");
    for other in &others {
        for next in [other, &path] {
            agent.order(reload(next));
        }
    }
    assert_eq!(strace.count("membarrier("), 0, "{:?}", strace.lines());
    // It would have been seen.
    agent.order(stop(OnStop::Keep));
    strace.wait_for_line("membarrier(");
}
