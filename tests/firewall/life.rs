//! Start, stop, restart, reload, and what others do to the table meanwhile.

use crate::agent::Agent;
use crate::support::{Lab, wait_for};

/// Two doors, a range among what they open.
pub(crate) const TOML: &str = r#"
[firewall]

[door.ssh]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp"]
open_for = "30s"

[door.mosh]
sequence = ["29001/tcp", "8133/tcp", "51877/tcp"]
open     = ["60000-61000/udp", "443/tcp"]
open_for = "12h"
"#;

pub(crate) const OPENED: &str = "ssh 192.0.2.77 22/tcp 30; mosh 2001:db8::77 443/tcp 43200; \
                      mosh 2001:db8::77 60000-61000/udp 43200; ";

pub(crate) fn open_some(agent: &mut Agent) {
    agent.order("open ssh 192.0.2.77 22/tcp 30s");
    agent.order("open mosh 2001:db8::77 60000-61000/udp,443/tcp 12h");
    assert_eq!(agent.order("list knockd"), OPENED);
}

#[test]
fn a_restart_loses_no_opening() {
    for mode in ["start", "watch"] {
        let lab = Lab::new();
        let path = lab.write("knockd.toml", TOML);
        let run = format!("{mode} {}", path.display());
        let owned = mode == "start";
        let begin = |origin: &str, kept: u32| {
            let mut agent = Agent::new(&lab.server);
            let said = agent.order(&run);
            let wanted = format!("{origin} owned={owned} kept={kept} removed=0 []");
            assert_eq!(said, wanted);
            agent
        };
        let mut agent = begin("Created", 0);
        open_some(&mut agent);

        // Killed: the table stands, and is taken over as it is.
        agent.kill();
        let mut agent = begin("Adopted", 3);
        assert_eq!(agent.order("list knockd"), OPENED);

        // Stopped: an owned table is left plain, and rebuilt twice.
        agent.order("stop keep");
        assert_eq!(agent.order("list knockd"), OPENED);
        agent.kill();
        let mut agent = begin(if owned { "Rebuilt" } else { "Adopted" }, 3);
        assert_eq!(agent.order("list knockd"), OPENED);

        // Extended after a restart: what is there is known.
        let said = agent.order("open ssh 192.0.2.77 22/tcp 1h");
        assert_eq!(said, "extended 192.0.2.77 22/tcp; ");
        let said = agent.order("open ssh 192.0.2.77 22/tcp 5s");
        assert_eq!(said, "", "never shortened");
        assert!(agent.order("list knockd").contains("22/tcp 3600;"));
    }
}

#[test]
fn the_watch_and_the_owner_take_over_from_each_other() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.kill();
    let mut agent = Agent::watch(&lab.server, &path);
    assert_eq!(agent.order("list knockd"), OPENED);
    agent.kill();
    let mut agent = Agent::start(&lab.server, &path);
    assert_eq!(agent.order("list knockd"), OPENED);
}

#[test]
fn a_reload_takes_away_what_the_configuration_no_longer_has() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    // mosh opens its range no more, ssh another port beside; the table has another name.
    let changed = TOML
        .replace("\"60000-61000/udp\", ", "")
        .replace("[\"22/tcp\"]", "[\"22/tcp\", \"2222/tcp\"]")
        .replace(
            "[firewall]",
            "[firewall]\ntable = \"doors\"\nguard = \"reject\"",
        );
    let changed = lab.write("changed.toml", &changed);
    let said = agent.order(&format!("reload {}", changed.display()));
    assert_eq!(said, "Created owned=true kept=2 removed=1 []");
    let left = "ssh 192.0.2.77 22/tcp 30; mosh 2001:db8::77 443/tcp 43200; ";
    assert_eq!(agent.order("list doors"), left);
    assert_eq!(lab.server.run("nft list tables"), "table inet doors\n");

    // Back again, and one whole door gone; the same name now.
    agent.order(&format!("reload {}", path.display()));
    let (ssh, _) = TOML.split_once("[door.mosh]").expect("two doors");
    let ssh = lab.write("ssh.toml", ssh);
    let said = agent.order(&format!("reload {}", ssh.display()));
    assert_eq!(said, "Rebuilt owned=true kept=1 removed=1 []");
    let sets = lab.server.run("nft list sets inet");
    assert!(!sets.contains("60000"), "{sets}");

    // A restart under another name leaves no second guard either.
    agent.kill();
    let mut agent = Agent::start(&lab.server, &changed);
    assert_eq!(agent.order("list doors"), "ssh 192.0.2.77 22/tcp 30; ");
    assert_eq!(lab.server.run("nft list tables"), "table inet doors\n");
}

/// Of a table that nobody owns it cannot be seen whether somebody needs it.
#[test]
fn the_guard_of_another_configuration_stays() {
    let lab = Lab::new();
    let one = lab.write("one.toml", TOML);
    let other = TOML.replace("[firewall]", "[firewall]\ntable = \"doors\"");
    let other = lab.write("other.toml", &other);
    let both = "table inet knockd\ntable inet doors\n";
    for order in ["guard", "watch", "start"] {
        let mut watched = Agent::watch(&lab.server, &one);
        open_some(&mut watched);
        let mut agent = Agent::new(&lab.server);
        agent.order(&format!("{order} {} of other", other.display()));
        assert_eq!(lab.server.run("nft list tables"), both, "{order}");
        assert_eq!(agent.order("list doors"), "", "{order}");
        assert_eq!(watched.order("mind 50ms"), "", "{order}");
        if order != "guard" {
            agent.order("stop keep");
        }
        assert_eq!(agent.order("list knockd"), OPENED, "{order}");
        agent.order("clear doors");
        agent.order("clear knockd");
    }

    // One that an older knockd has left does not say whose it is.
    let mut old = Agent::new(&lab.server);
    old.order(&format!("watch {} of nobody", one.display()));
    let said = old.order(&format!("guard {} of other", other.display()));
    assert!(said.contains("nft delete table inet knockd"), "{said}");
    assert_eq!(lab.server.run("nft list tables"), both);
    // Under the configured name it is taken over, and then says so.
    open_some(&mut old);
    old.kill();
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("watch {}", one.display()));
    assert_eq!(said, "Rebuilt owned=false kept=3 removed=0 []");
    let said = agent.order(&format!("guard {} of other", other.display()));
    assert_eq!(said, "");
}

#[test]
fn a_table_that_is_not_ours_is_refused() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let run = format!("start {}", path.display());
    lab.server.nft("table inet knockd {\n chain mine {\n }\n }");
    let before = lab.server.run("nft list ruleset");
    let mut agent = Agent::new(&lab.server);
    let error = agent.attempt(&run).expect_err("refused");
    assert!(error.contains("that knockd did not make"), "{error}");
    assert!(agent.attempt("clear knockd").is_err());
    assert_eq!(lab.server.run("nft list ruleset"), before);

    lab.server.run("nft flush ruleset");
    agent.order(&run);
    let error = Agent::new(&lab.server).attempt(&run).expect_err("refused");
    let owner = format!("netlink port {}", agent.id());
    assert!(error.contains(&owner), "{error}");
    let error = Agent::new(&lab.server)
        .attempt("clear knockd")
        .expect_err("owned");
    assert!(error.contains("owned by another"), "{error}");
}

#[test]
fn what_a_stranger_put_there_goes() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    open_some(&mut agent);
    agent.kill();
    lab.server.nft(
        "add element inet knockd openings_v4 { 192.0.2.99 . tcp . 22 }\n\
         add element inet knockd guarded { tcp . 99 }\n\
         delete element inet knockd guarded { tcp . 22 }\n\
         insert rule inet knockd guard accept\n\
         add set inet knockd more { type ipv4_addr; }",
    );
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("start {}", path.display()));
    assert_eq!(said, "Rebuilt owned=true kept=3 removed=1 []");
    assert_eq!(agent.order("list knockd"), OPENED);
    agent.kill();

    let mut agent = Agent::watch(&lab.server, &path);
    agent.order("stop keep");
    agent.kill();
    lab.server.nft(
        "add element inet knockd guarded { tcp . 99 }\n\
         delete element inet knockd guarded { tcp . 22 }\n\
         insert rule inet knockd guard accept\n\
         add set inet knockd more { type ipv4_addr; }",
    );
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("watch {}", path.display()));
    assert_eq!(said, "Rebuilt owned=false kept=3 removed=0 []");
}

#[test]
fn an_older_layout_is_rebuilt() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    // As a layout 0 might have been: one chain on another hook, sets without a size, and
    // one that is of another type now.
    lab.server.nft(
        "table inet knockd {
            comment \"knockd layout 0\"
            set openings_v4 { type ipv4_addr . inet_proto . inet_service; flags timeout; elements = { 192.0.2.77 . tcp . 22 timeout 1h expires 30s comment \"ssh\" } }
            set openings_v6 { type ipv6_addr; flags timeout; elements = { 2001:db8::9 } }
            set udp_60000_61000_v6 { type ipv6_addr; flags timeout; elements = { 2001:db8::77 timeout 12h comment \"mosh\" } }
            chain input { type filter hook input priority 0; policy accept; tcp dport 22 ip saddr . meta l4proto . th dport != @openings_v4 drop; }
        }",
    );
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("start {}", path.display()));
    assert_eq!(said, "Rebuilt owned=true kept=2 removed=0 []");
    let left = "ssh 192.0.2.77 22/tcp 30; mosh 2001:db8::77 60000-61000/udp 43200; ";
    assert_eq!(agent.order("list knockd"), left);
    let all = lab.server.run("nft list ruleset");
    assert!(
        all.contains("knockd layout 2") && !all.contains("chain input"),
        "{all}"
    );
    agent.order("stop keep");
    let plain = lab.server.run("nft -s list ruleset");

    // Layout 1 had no second chain, and judged the first packets of TCP alone.
    let mut lines = Vec::new();
    let mut second = false;
    for line in plain.lines() {
        second = line.contains("_input {") || second && line != "}";
        if !second {
            lines.push(line.replace("knockd layout 2", "knockd layout 1"));
        }
    }
    let old = lines.join("\n");
    let old = old.replace(
        "tcp flags rst,ack",
        "tcp flags & (fin | syn | rst | ack) != syn",
    );
    let old = old.replace("meta iiftype loopback", "iifname \"lo\"");
    lab.server.nft(&format!("flush ruleset\n{old}"));
    assert_eq!(
        lab.server.run("nft list chains").matches("chain ").count(),
        2
    );
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("watch {}", path.display()));
    assert_eq!(said, "Rebuilt owned=false kept=2 removed=0 []");
    let now = lab.server.run("nft -s list ruleset");
    let chains = |text: &str| text.split_once("chain guard").map(|(_, c)| c.to_owned());
    assert_eq!(chains(&now), chains(&plain));
}

#[test]
fn closing() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    assert_eq!(agent.order("close 192.0.2.78 all"), "");
    assert_eq!(agent.order("close 192.0.2.77 23/tcp"), "");
    assert_eq!(
        agent.order("close 192.0.2.77 22/tcp"),
        "closed ssh 192.0.2.77 22/tcp; "
    );
    assert_eq!(agent.order("close 192.0.2.77 22/tcp"), "");
    // Part of a range closes the range: afterwards nothing that was named is open.
    let said = agent.order("close 2001:db8::77 60500/udp");
    assert_eq!(said, "closed mosh 2001:db8::77 60000-61000/udp; ");
    let said = agent.order("close 2001:db8::77 all");
    assert_eq!(said, "closed mosh 2001:db8::77 443/tcp; ");
    assert_eq!(agent.order("list knockd"), "");
    // Until closed.
    agent.order("open ssh 192.0.2.77 22/tcp 1h");
    agent.order("open ssh 192.0.2.77 22/tcp closed");
    assert_eq!(agent.order("open ssh 192.0.2.77 22/tcp 1h"), "");
    assert_eq!(agent.order("list knockd"), "ssh 192.0.2.77 22/tcp 0; ");
    let set = lab.server.run("nft list set inet knockd openings_v4");
    assert!(
        set.contains("192.0.2.77 . tcp . 22 comment \"ssh\""),
        "{set}"
    );
}

#[test]
fn what_runs_out_is_told_once() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order("open ssh 192.0.2.77 22/tcp 3s");
    agent.order("open mosh 2001:db8::77 60000-61000/udp 3s");
    assert_eq!(agent.order("expire"), "");
    let mut said = String::new();
    wait_for("both to run out", || {
        said += &agent.order("expire");
        (said.matches("closed").count() == 2).then_some(())
    });
    assert_eq!(
        said,
        "closed ssh 192.0.2.77 22/tcp; closed mosh 2001:db8::77 60000-61000/udp; "
    );
    assert_eq!(agent.order("list knockd"), "");
    assert_eq!(agent.order("expire"), "");
    // A close that comes when the element has just gone is no fault.
    agent.order("open ssh 192.0.2.77 22/tcp 50ms");
    wait_for("it to run out", || {
        agent.order("list knockd").is_empty().then_some(())
    });
    agent.order("close 192.0.2.77 all");
}

#[test]
fn after_a_clean_stop_a_saved_ruleset_loads_again() {
    let lab = Lab::new();
    let toml = TOML.replace(
        "[firewall]",
        "[firewall]\nguard = \"reject\"\nmark = 27502\ntrusted = [\"198.51.100.0/24\", \"::/0\"]",
    );
    let path = lab.write("knockd.toml", &toml);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.order("stop keep");
    let saved = lab.server.run("nft list ruleset");
    lab.client.nft(&saved);
    let mut there = Agent::new(&lab.client);
    assert_eq!(there.order("list knockd"), OPENED);
    // It is ours still, and is taken over.
    let said = there.order(&format!("start {}", path.display()));
    assert_eq!(said, "Rebuilt owned=true kept=3 removed=0 []");

    agent.order(&format!("start {}", path.display()));
    agent.order("stop remove");
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

#[test]
fn the_guard_alone_is_adopted() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    Agent::new(&lab.server).order(&format!("guard {}", path.display()));
    assert!(lab.server.run("nft list ruleset").contains("drop"));
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    let late = Agent::new(&lab.server).attempt(&format!("guard {}", path.display()));
    assert!(late.is_err(), "a daemon guards already");
    agent.kill();
    // After a crash the guard may be put up once more, and nothing is lost.
    let mut agent = Agent::new(&lab.server);
    agent.order(&format!("guard {}", path.display()));
    assert_eq!(agent.order("list knockd"), OPENED);
    assert_eq!(agent.order("clear knockd"), "true");
    assert_eq!(agent.order("clear knockd"), "false");
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

#[test]
fn ten_thousand_openings() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    let costs = agent.order("fill 10000 22/tcp 1h");
    let costs: Vec<f64> = costs
        .split(' ')
        .map(|c| c.parse().expect("a number"))
        .collect();
    println!("µs an opening, the first and the last hundred of 10,000: {costs:?}");
    assert!(costs[1] < costs[0] * 3.0 + 20.0, "cost grows: {costs:?}");
    agent.kill();
    let mut agent = Agent::start(&lab.server, &path);
    assert_eq!(
        agent.order("list knockd").matches("ssh 10.").count(),
        10_000
    );
    assert_eq!(agent.order("fill 10000 22/tcp 2h").split(' ').count(), 2);
    assert_eq!(
        agent.order("close 10.0.1.1 all"),
        "closed ssh 10.0.1.1 22/tcp; "
    );
    agent.order("stop keep");
    let list = agent.order("list knockd");
    assert_eq!(list.matches("22/tcp 7").count(), 9_999, "two hours each");
}

/// A dump goes on by a count, which is wrong once the kernel has cleared away what has run out.
#[test]
fn a_list_of_many_lacks_none() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    for _ in 0..3 {
        let mut agent = Agent::start(&lab.server, &path);
        agent.order("fill 20000 22/tcp 1h");
        agent.order("open mosh 192.0.2.77 443/tcp 1s");
        let mut others = [(); 3].map(|()| Agent::new(&lab.server));
        for other in &mut others {
            other.blurt("least knockd 4s");
        }
        for mut other in others {
            let least: usize = other.answer().expect("a list").parse().expect("a number");
            assert!(least >= 20_000, "{least}");
        }
        agent.order("stop remove");
    }
}

#[test]
fn a_full_set_is_said_in_words() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    let error = agent.attempt("fill 65537 22/tcp 1h").expect_err("full");
    assert!(
        error.contains("openings_v4 is full: none is taken until"),
        "{error}"
    );
    // What is in can still be extended, and closed to make room.
    let said = agent.order("open ssh 10.0.0.1 22/tcp 2h");
    assert_eq!(said, "extended 10.0.0.1 22/tcp; ");
    agent.order("close 10.0.0.2 all");
    assert!(agent.attempt("open ssh 192.0.2.77 22/tcp 1h").is_ok());
    // And a restart copies them all in one transaction.
    agent.order("stop keep");
    let said = Agent::new(&lab.server).order(&format!("start {}", path.display()));
    assert_eq!(said, "Rebuilt owned=true kept=65536 removed=0 []");
}

/// Killed at any point of a stream of knocks, a hundred times: what was acknowledged is
/// there, and nothing that was not asked for.
#[test]
fn what_was_acknowledged_outlives_a_kill() {
    use std::collections::BTreeSet;
    for mode in ["start", "watch"] {
        let lab = Lab::new();
        let path = lab.write("knockd.toml", TOML);
        let mut acknowledged = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut number = 0_u32;
        for round in 0..50_u64 {
            let mut agent = Agent::new(&lab.server);
            agent.order(&format!("{mode} {}", path.display()));
            let listed = agent.order("list knockd");
            let listed: BTreeSet<String> = listed
                .split_terminator("; ")
                .filter_map(|o| o.split(' ').nth(1).map(str::to_owned))
                .collect();
            assert!(
                listed.is_superset(&acknowledged),
                "round {round}: something is lost"
            );
            assert!(
                listed.is_subset(&asked),
                "round {round}: something nobody asked for"
            );
            // One that was under way has come through, then.
            acknowledged = listed;
            for last in 0..=round % 7 {
                number += 1;
                let source = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
                let order = format!("open ssh {source} 22/tcp 1h");
                asked.insert(source.clone());
                if last == round % 7 {
                    agent.blurt(&order);
                    // Anywhere from before it is read to after it is answered.
                    std::thread::sleep(std::time::Duration::from_micros(round * 37 % 400));
                } else {
                    agent.order(&order);
                    acknowledged.insert(source);
                }
            }
            agent.kill();
        }
        println!(
            "{mode}: {} of {} asked for",
            acknowledged.len(),
            asked.len()
        );
    }
}
