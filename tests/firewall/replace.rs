//! A table changes, or one takes the place of another: no packet sees half of either.

use std::collections::BTreeSet;

use knockd::firewall::{Mode, Origin};
use knockd::model::OnStop;

use crate::agent::{
    Agent, Owner, Started, clear, guard, guard_for, list, millis, reload, start, stop,
};
use crate::life::{TOML, open_some, some_opened, ssh_opened};
use crate::support::{Lab, Process, wait_for};

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
    let renamed = TOML.replace("[firewall]", "[firewall]\ntable = \"doors\"");
    let renamed = lab.write("renamed.toml", &renamed);
    let other = lab.write("other.toml", &TOML.replace("443/tcp", "993/tcp"));
    let ranges = TOML.replace("60000-61000", "60000-61001");
    let ranges = lab.write("ranges.toml", &ranges);
    let run = || {
        for mode in [Mode::Auto, Mode::Watch] {
            let mut agent = Agent::new(&lab.server);
            agent.order(start(mode, &path));
            open_some(&mut agent);
            for next in [&renamed, &path, &other, &other, &ranges, &path] {
                agent.order(reload(next));
                let listed = ["doors", "knockd"].map(|table| agent.order(list(table)));
                let ssh = listed.iter().any(|listed| listed.contains(&ssh_opened()));
                assert!(ssh, "{listed:?}");
                agent.order(crate::agent::run(millis(300)));
                let tables = lab.server.run("nft list tables");
                assert_eq!(tables.lines().count(), 1, "{tables}");
            }
            agent.order(stop(OnStop::Keep));
        }
    };
    let transactions = transactions(&lab, run);
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
