//! A table is started, stopped, restarted and reloaded, and others change it meanwhile.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use knockd::firewall::{Mode, Origin};
use knockd::model::{Lifetime, OnStop};

use crate::agent::{
    Agent, Applied, Failure, News, Notice, Opening, Owner, Started, clear, close, close_all,
    element, expire, fill, guard, guard_for, hours, list, millis, open, opening, reload, run,
    seconds, shortest_list, start, start_for, stop,
};
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

/// An hour.
const HOUR: Duration = Duration::from_secs(3600);

/// The opening of the door `ssh` that [`open_some`] makes.
pub(crate) fn ssh_opened() -> Opening {
    opening("ssh", "192.0.2.77", "22/tcp", seconds(30))
}

/// The openings that [`open_some`] makes.
pub(crate) fn some_opened() -> [Opening; 3] {
    [
        ssh_opened(),
        opening("mosh", "2001:db8::77", "443/tcp", hours(12)),
        opening("mosh", "2001:db8::77", "60000-61000/udp", hours(12)),
    ]
}

/// Opens both doors of [`TOML`].
#[track_caller]
pub(crate) fn open_some(agent: &mut Agent) {
    agent.order(open("ssh", "192.0.2.77", "22/tcp", seconds(30)));
    agent.order(open(
        "mosh",
        "2001:db8::77",
        "60000-61000/udp,443/tcp",
        hours(12),
    ));
    assert_eq!(agent.order(list("knockd")), some_opened());
}

#[test]
fn a_restart_loses_no_opening() {
    needs!(Laboratory);
    for mode in [Mode::Auto, Mode::Watch] {
        let lab = Lab::new();
        let path = lab.write("knockd.toml", TOML);
        let owned = mode == Mode::Auto;
        let begin = |origin, kept| {
            let mut agent = Agent::new(&lab.server);
            let started = agent.order(start(mode, &path));
            assert_eq!(started, Started::quietly(origin, owned, kept));
            agent
        };
        let mut agent = begin(Origin::Created, 0);
        open_some(&mut agent);

        // Killed: the table stands, and is taken over as it is.
        agent.kill();
        let mut agent = begin(Origin::Adopted, 3);
        assert_eq!(agent.order(list("knockd")), some_opened());

        // Stopped: an owned table is left plain, and rebuilt twice.
        agent.order(stop(OnStop::Keep));
        assert_eq!(agent.order(list("knockd")), some_opened());
        agent.kill();
        let origin = if owned {
            Origin::Rebuilt
        } else {
            Origin::Adopted
        };
        let mut agent = begin(origin, 3);
        assert_eq!(agent.order(list("knockd")), some_opened());

        // Extended after a restart: what is there is known.
        let ssh = |lifetime| open("ssh", "192.0.2.77", "22/tcp", lifetime);
        let extended = Applied::extending(element("ssh", "192.0.2.77", "22/tcp"));
        assert_eq!(agent.order(ssh(hours(1))), extended);
        let shorter = agent.order(ssh(seconds(5)));
        assert_eq!(shorter, Applied::default(), "never shortened");
        let listed = agent.order(list("knockd"));
        let hour = opening("ssh", "192.0.2.77", "22/tcp", hours(1));
        assert!(listed.contains(&hour), "{listed:?}");
    }
}

#[test]
fn the_watch_and_the_owner_take_over_from_each_other() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.kill();
    let mut agent = Agent::watch(&lab.server, &path);
    assert_eq!(agent.order(list("knockd")), some_opened());
    agent.kill();
    let mut agent = Agent::start(&lab.server, &path);
    assert_eq!(agent.order(list("knockd")), some_opened());
}

#[test]
fn a_reload_takes_away_what_the_configuration_no_longer_has() {
    needs!(Laboratory);
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
    let started = agent.order(reload(&changed));
    assert_eq!(
        started,
        Started::quietly(Origin::Created, true, 2).removing(1)
    );
    let left = [
        ssh_opened(),
        opening("mosh", "2001:db8::77", "443/tcp", hours(12)),
    ];
    assert_eq!(agent.order(list("doors")), left);
    // The old table is deleted when no packet is among its rules any more.
    let tables = lab.server.run("nft list tables");
    assert_eq!(tables, "table inet knockd\ntable inet doors\n");
    assert_eq!(agent.order(run(millis(300))), News::none());
    assert_eq!(lab.server.run("nft list tables"), "table inet doors\n");

    // Back again, and one whole door gone; the same name now.
    agent.order(reload(&path));
    let (ssh, _) = TOML.split_once("[door.mosh]").expect("two doors");
    let ssh = lab.write("ssh.toml", ssh);
    let started = agent.order(reload(&ssh));
    assert_eq!(
        started,
        Started::quietly(Origin::Rebuilt, true, 1).removing(1)
    );
    assert_eq!(agent.order(run(millis(300))), News::none());
    let sets = lab.server.run("nft list sets inet");
    assert!(!sets.contains("60000"), "{sets}");

    // A restart under another name leaves no second guard either.
    agent.kill();
    let mut agent = Agent::start(&lab.server, &changed);
    assert_eq!(agent.order(list("doors")), [ssh_opened()]);
    assert_eq!(lab.server.run("nft list tables"), "table inet doors\n");
}

/// Of a table that nobody owns it cannot be seen whether somebody needs it.
#[test]
fn the_guard_of_another_configuration_stays() {
    needs!(Laboratory);
    let lab = Lab::new();
    let one = lab.write("one.toml", TOML);
    let other = TOML.replace("[firewall]", "[firewall]\ntable = \"doors\"");
    let other = lab.write("other.toml", &other);
    let both = "table inet knockd\ntable inet doors\n";
    // `None`: the guard alone.
    for order in [None, Some(Mode::Watch), Some(Mode::Auto)] {
        let mut watched = Agent::watch(&lab.server, &one);
        open_some(&mut watched);
        let mut agent = Agent::new(&lab.server);
        if let Some(mode) = order {
            agent.order(start_for(Owner::Other, mode, &other));
        } else {
            agent.order(guard_for(Owner::Other, &other));
        }
        assert_eq!(lab.server.run("nft list tables"), both, "{order:?}");
        assert_eq!(agent.order(list("doors")), Opening::NONE, "{order:?}");
        assert_eq!(watched.order(run(millis(50))), News::none(), "{order:?}");
        if order.is_some() {
            agent.order(stop(OnStop::Keep));
        }
        assert_eq!(agent.order(list("knockd")), some_opened(), "{order:?}");
        agent.order(clear("doors"));
        agent.order(clear("knockd"));
    }

    // One that an older knockd has left does not say whose it is.
    let mut old = Agent::new(&lab.server);
    old.order(start_for(Owner::Unnamed, Mode::Watch, &one));
    let notices = old.order(guard_for(Owner::Other, &other));
    let table = "knockd".to_owned();
    assert_eq!(notices, [Notice::Stray { table }]);
    assert_eq!(lab.server.run("nft list tables"), both);
    // Under the configured name it is taken over, and then says so.
    open_some(&mut old);
    old.kill();
    let mut agent = Agent::new(&lab.server);
    let started = agent.order(start(Mode::Watch, &one));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, false, 3));
    let notices = agent.order(guard_for(Owner::Other, &other));
    assert!(notices.is_empty(), "{notices:?}");
}

#[test]
fn a_table_that_is_not_ours_is_refused() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    lab.server.nft("table inet knockd {\n chain mine {\n }\n }");
    let before = lab.server.run("nft list ruleset");
    let mut agent = Agent::new(&lab.server);
    let refused = agent.attempt(start(Mode::Auto, &path));
    let table = "knockd".to_owned();
    assert_eq!(refused, Err(Failure::Foreign { table }));
    assert!(agent.attempt(clear("knockd")).is_err());
    assert_eq!(lab.server.run("nft list ruleset"), before);

    lab.server.run("nft flush ruleset");
    agent.order(start(Mode::Auto, &path));
    let refused = Agent::new(&lab.server).attempt(start(Mode::Auto, &path));
    let owned = Failure::Owned {
        table: "knockd".to_owned(),
        port: Some(agent.id()),
    };
    assert_eq!(refused, Err(owned));
    let refused = Agent::new(&lab.server).attempt(clear("knockd"));
    assert!(matches!(refused, Err(Failure::Owned { .. })), "{refused:?}");
}

#[test]
fn what_a_stranger_put_there_goes() {
    needs!(Laboratory);
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
    let started = agent.order(start(Mode::Auto, &path));
    assert_eq!(
        started,
        Started::quietly(Origin::Rebuilt, true, 3).removing(1)
    );
    assert_eq!(agent.order(list("knockd")), some_opened());
    agent.kill();

    let mut agent = Agent::watch(&lab.server, &path);
    agent.order(stop(OnStop::Keep));
    agent.kill();
    lab.server.nft(
        "add element inet knockd guarded { tcp . 99 }\n\
         delete element inet knockd guarded { tcp . 22 }\n\
         insert rule inet knockd guard accept\n\
         add set inet knockd more { type ipv4_addr; }",
    );
    let mut agent = Agent::new(&lab.server);
    let started = agent.order(start(Mode::Watch, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, false, 3));
}

#[test]
fn an_older_layout_is_rebuilt() {
    needs!(Laboratory);
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
    let started = agent.order(start(Mode::Auto, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 2));
    let left = [
        ssh_opened(),
        opening("mosh", "2001:db8::77", "60000-61000/udp", hours(12)),
    ];
    assert_eq!(agent.order(list("knockd")), left);
    let all = lab.server.run("nft list ruleset");
    assert!(
        all.contains("knockd layout 2") && !all.contains("chain input"),
        "{all}"
    );
    agent.order(stop(OnStop::Keep));
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
    let started = agent.order(start(Mode::Watch, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, false, 2));
    let now = lab.server.run("nft -s list ruleset");
    let chains = |text: &str| text.split_once("chain guard").map(|(_, c)| c.to_owned());
    assert_eq!(chains(&now), chains(&plain));
}

#[test]
fn only_what_is_named_is_closed_and_an_opening_without_end_stays() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    assert_eq!(agent.order(close_all("192.0.2.78")), Applied::default());
    assert_eq!(
        agent.order(close("192.0.2.77", "23/tcp")),
        Applied::default()
    );
    assert_eq!(
        agent.order(close("192.0.2.77", "22/tcp")),
        Applied::closing(element("ssh", "192.0.2.77", "22/tcp"))
    );
    assert_eq!(
        agent.order(close("192.0.2.77", "22/tcp")),
        Applied::default()
    );
    // Part of a range closes the range: afterwards nothing that was named is open.
    let closed = agent.order(close("2001:db8::77", "60500/udp"));
    assert_eq!(
        closed,
        Applied::closing(element("mosh", "2001:db8::77", "60000-61000/udp"))
    );
    let closed = agent.order(close_all("2001:db8::77"));
    assert_eq!(
        closed,
        Applied::closing(element("mosh", "2001:db8::77", "443/tcp"))
    );
    assert_eq!(agent.order(list("knockd")), Opening::NONE);
    // Until closed.
    agent.order(open("ssh", "192.0.2.77", "22/tcp", hours(1)));
    agent.order(open("ssh", "192.0.2.77", "22/tcp", Lifetime::UntilClosed));
    assert_eq!(
        agent.order(open("ssh", "192.0.2.77", "22/tcp", hours(1))),
        Applied::default()
    );
    let lasting = opening("ssh", "192.0.2.77", "22/tcp", Lifetime::UntilClosed);
    assert_eq!(agent.order(list("knockd")), [lasting]);
    let set = lab.server.run("nft list set inet knockd openings_v4");
    assert!(
        set.contains("192.0.2.77 . tcp . 22 comment \"ssh\""),
        "{set}"
    );
}

#[test]
fn what_runs_out_is_told_once() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(open("ssh", "192.0.2.77", "22/tcp", seconds(3)));
    agent.order(open("mosh", "2001:db8::77", "60000-61000/udp", seconds(3)));
    assert_eq!(agent.order(expire()), News::none());
    let mut closed = Vec::new();
    wait_for("both to run out", || {
        let news = agent.order(expire());
        assert!(news.notices.is_empty(), "{news:?}");
        closed.extend(news.closed);
        (closed.len() >= 2).then_some(())
    });
    let both = [
        element("ssh", "192.0.2.77", "22/tcp"),
        element("mosh", "2001:db8::77", "60000-61000/udp"),
    ];
    assert_eq!(closed, both);
    assert_eq!(agent.order(list("knockd")), Opening::NONE);
    assert_eq!(agent.order(expire()), News::none());
    // A close that comes when the element has just gone is no fault.
    agent.order(open(
        "ssh",
        "192.0.2.77",
        "22/tcp",
        Lifetime::For(millis(50)),
    ));
    wait_for("it to run out", || {
        agent.order(list("knockd")).is_empty().then_some(())
    });
    agent.order(close_all("192.0.2.77"));
}

#[test]
fn after_a_clean_stop_a_saved_ruleset_loads_again() {
    needs!(Laboratory);
    let lab = Lab::new();
    let toml = TOML.replace(
        "[firewall]",
        "[firewall]\nguard = \"reject\"\nmark = 27502\ntrusted = [\"198.51.100.0/24\", \"::/0\"]",
    );
    let path = lab.write("knockd.toml", &toml);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    agent.order(stop(OnStop::Keep));
    let saved = lab.server.run("nft list ruleset");
    lab.client.nft(&saved);
    let mut there = Agent::new(&lab.client);
    assert_eq!(there.order(list("knockd")), some_opened());
    // It is ours still, and is taken over.
    let started = there.order(start(Mode::Auto, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 3));

    agent.order(start(Mode::Auto, &path));
    agent.order(stop(OnStop::Remove));
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

#[test]
fn the_guard_alone_is_adopted() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    Agent::new(&lab.server).order(guard(&path));
    assert!(lab.server.run("nft list ruleset").contains("drop"));
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    let late = Agent::new(&lab.server).attempt(guard(&path));
    assert!(late.is_err(), "a daemon guards already");
    agent.kill();
    // After a crash the guard may be put up once more, and nothing is lost.
    let mut agent = Agent::new(&lab.server);
    agent.order(guard(&path));
    assert_eq!(agent.order(list("knockd")), some_opened());
    assert!(agent.order(clear("knockd")));
    assert!(!agent.order(clear("knockd")));
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

#[test]
fn ten_thousand_openings_cost_no_more_each_than_a_hundred() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    let costs = agent.order(fill(10_000, "22/tcp", HOUR));
    println!("µs an opening, the first and the last hundred of 10,000: {costs:?}");
    assert!(
        costs.last < costs.first * 3.0 + 20.0,
        "cost grows: {costs:?}"
    );
    agent.kill();
    let mut agent = Agent::start(&lab.server, &path);
    assert_eq!(agent.order(list("knockd")).len(), 10_000);
    agent.order(fill(10_000, "22/tcp", HOUR * 2));
    assert_eq!(
        agent.order(close_all("10.0.1.1")),
        Applied::closing(element("ssh", "10.0.1.1", "22/tcp"))
    );
    agent.order(stop(OnStop::Keep));
    let listed = agent.order(list("knockd"));
    assert_eq!(listed.len(), 9_999);
    let long = |opening: &&Opening| opening.left > Some(HOUR);
    assert_eq!(listed.iter().filter(long).count(), 9_999, "two hours each");
}

/// A dump goes on by a count, which is wrong once the kernel has cleared away what has run out.
#[test]
fn a_list_lacks_no_opening_while_others_run_out() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    for _ in 0..3 {
        let mut agent = Agent::start(&lab.server, &path);
        agent.order(fill(20_000, "22/tcp", HOUR));
        agent.order(open("mosh", "192.0.2.77", "443/tcp", seconds(1)));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let shortest = shortest_list("knockd", Duration::from_secs(4));
                    let shortest = Agent::new(&lab.server).order(shortest);
                    assert!(shortest >= 20_000, "{shortest}");
                });
            }
        });
        agent.order(stop(OnStop::Remove));
    }
}

#[test]
fn a_full_set_is_named_as_the_reason() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    let full = agent.attempt(fill(65_537, "22/tcp", HOUR));
    assert!(
        matches!(&full, Err(Failure::Full { set }) if set.ends_with("openings_v4")),
        "{full:?}"
    );
    // Openings that are in can still be extended, and closed to make room.
    let extended = agent.order(open("ssh", "10.0.0.1", "22/tcp", hours(2)));
    let element = element("ssh", "10.0.0.1", "22/tcp");
    assert_eq!(extended, Applied::extending(element));
    agent.order(close_all("10.0.0.2"));
    agent.order(open("ssh", "192.0.2.77", "22/tcp", hours(1)));
    // And a restart copies them all in one transaction.
    agent.order(stop(OnStop::Keep));
    let started = Agent::new(&lab.server).order(start(Mode::Auto, &path));
    assert_eq!(started, Started::quietly(Origin::Rebuilt, true, 65536));
}

/// Killed at any point of a stream of knocks, a hundred times: what was acknowledged is
/// there, and nothing that was not asked for.
#[test]
fn what_was_acknowledged_outlives_a_kill() {
    needs!(Laboratory);
    for mode in [Mode::Auto, Mode::Watch] {
        let lab = Lab::new();
        let path = lab.write("knockd.toml", TOML);
        let mut acknowledged = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut number = 0_u32;
        for round in 0..50_u64 {
            let mut agent = Agent::new(&lab.server);
            agent.order(start(mode, &path));
            let listed = agent.order(list("knockd")).into_iter();
            let listed: BTreeSet<_> = listed.map(|o| o.element.source).collect();
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
                let source = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
                let order = open("ssh", &source.to_string(), "22/tcp", hours(1));
                asked.insert(source);
                if last == round % 7 {
                    agent.send(&order);
                    // Anywhere from before it is read to after it is answered.
                    std::thread::sleep(Duration::from_micros(round * 37 % 400));
                } else {
                    agent.order(order);
                    acknowledged.insert(source);
                }
            }
            agent.kill();
        }
        println!(
            "{mode:?}: {} of {} asked for",
            acknowledged.len(),
            asked.len()
        );
    }
}
