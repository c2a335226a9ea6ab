//! Other programs change the table: where the kernel forbids it, and where the watch puts it back.

use knockd::firewall::Origin;

use crate::agent::{
    A_WHILE, Agent, Applied, Damage, News, Notice, Opening, Started, close_all, element, hours,
    list, millis, open, reload, run, seconds,
};
use crate::life::{TOML, open_some, some_opened};
use crate::support::{Lab, wait_for};

/// The ruleset, but for what is left of openings.
fn ruleset(lab: &Lab) -> String {
    let text = lab.server.run("nft -s list ruleset");
    let mut words = text.split_whitespace();
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        out.push(word);
        if word == "timeout" && out.iter().rev().nth(1) != Some(&"flags") {
            words.next();
        }
    }
    out.join(" ")
}

#[test]
fn an_owned_table_is_not_flushed() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::start(&lab.server, &path);
    open_some(&mut agent);
    for _ in 0..20 {
        lab.server.run("nft flush ruleset");
    }
    let other = lab.server.try_run("nft delete table inet knockd");
    assert!(!other.status.success());
    assert_eq!(agent.order(list("knockd")), some_opened());
    assert_eq!(agent.order(run(millis(100))), News::none());
}

#[test]
fn a_watched_table_is_put_back() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    open_some(&mut agent);
    let whole = ruleset(&lab);
    assert_eq!(
        agent.order(run(millis(100))),
        News::none(),
        "our own work is no news"
    );

    lab.server.run("nft flush ruleset");
    let news = agent.order(run(A_WHILE));
    println!("{news:?}");
    let Some(Notice::Restored { damage, by, .. }) = news.notices.first() else {
        panic!("not restored: {news:?}");
    };
    assert_eq!((*damage, by.as_deref()), (Damage::Deleted, Some("nft")));
    assert_eq!(agent.order(list("knockd")), some_opened());
    assert_eq!(ruleset(&lab), whole);

    // Changed, in every way.
    for change in [
        "insert rule inet knockd guard accept",
        "flush chain inet knockd judge",
        "add element inet knockd guarded { tcp . 99 }",
        "add set inet knockd more { type ipv4_addr; }",
        "add chain inet knockd more",
    ] {
        lab.server.nft(change);
        let news = agent.order(run(A_WHILE));
        let damage = news.restored();
        assert_eq!(damage, Some(Damage::Changed), "{change}: {news:?}");
        assert_eq!(ruleset(&lab), whole, "{change}");
    }

    // Deleted and made again in one transaction, with less in it.
    lab.server
        .nft("delete table inet knockd\nadd table inet knockd { comment \"knockd layout 2\"; }");
    let news = agent.order(run(A_WHILE));
    assert!(news.restored().is_some(), "{news:?}");
    assert_eq!(ruleset(&lab), whole);

    // Other tables are left alone.
    lab.server.nft(
        "table inet filter {\n set openings_v4 {\n type ipv4_addr\n }\n }\nflush table inet filter",
    );
    assert_eq!(agent.order(run(millis(100))), News::none());
}

/// With news of more than half a receive buffer the kernel lets us run in its midst: on one
/// processor we hear of the deletion long before the transaction ends.
#[test]
fn a_deletion_is_heard_in_however_many_parts() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    open_some(&mut agent);
    let allowed = lab.server.run(&format!("taskset -p -c {}", agent.id()));
    let one = allowed.rsplit([' ', ',', '-']).next();
    let one = one.expect("a processor").trim();
    lab.server
        .run(&format!("taskset -a -p -c {one} {}", agent.id()));
    let chains: String = (0..400)
        .map(|i| format!(" chain c{i} {{ counter accept; }}\n"))
        .collect();
    for _ in 0..3 {
        lab.server.nft(&format!("table ip more {{\n{chains}}}"));
        assert_eq!(agent.order(run(millis(10))), News::none());
        let news = std::thread::scope(|scope| {
            let running = scope.spawn(|| agent.order(run(A_WHILE)));
            lab.server
                .run(&format!("taskset -c {one} nft flush ruleset"));
            running.join().expect("news")
        });
        assert_eq!(news.restored(), Some(Damage::Deleted), "{news:?}");
        assert_eq!(agent.order(list("knockd")), some_opened());
    }
}

#[test]
fn what_is_opened_and_closed_by_hand_is_known() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    open_some(&mut agent);
    lab.server.nft(
        "delete element inet knockd openings_v4 { 192.0.2.77 . tcp . 22 }\n\
         add element inet knockd openings_v4 { 192.0.2.99 . tcp . 443 timeout 1h comment \"mosh\" }",
    );
    assert_eq!(agent.order(run(millis(100))), News::none());
    // Had it not been heard of, this would close something, and the other nothing.
    assert_eq!(agent.order(close_all("192.0.2.77")), Applied::default());
    assert_eq!(
        agent.order(close_all("192.0.2.99")),
        Applied::closing(element("mosh", "192.0.2.99", "443/tcp"))
    );
}

/// The table goes, and before we hear of it a knock is completed.
#[test]
fn who_knocks_while_the_table_is_gone_is_let_in() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    agent.order(open(
        "mosh",
        "2001:db8::77",
        "60000-61000/udp,443/tcp",
        hours(12),
    ));
    lab.server.run("nft flush ruleset");
    let applied = agent.order(open("ssh", "192.0.2.77", "22/tcp", seconds(30)));
    assert_eq!(applied.opened, [element("ssh", "192.0.2.77", "22/tcp")]);
    assert_eq!(agent.order(list("knockd")), some_opened());
    // It was heard of by that.
    assert_eq!(agent.order(run(millis(100))), News::none());
}

#[test]
fn two_tools_do_not_fight_for_ever() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    open_some(&mut agent);
    let mut news = News::none();
    let mut restored = 0;
    for _ in 0..15 {
        lab.server.run("nft flush ruleset");
        news = agent.order(run(A_WHILE));
        if news.restored().is_none() {
            break;
        }
        restored += 1;
        println!("flushed: {:?}", news.notices);
    }
    assert!((10..13).contains(&restored), "{restored}");
    assert!(news.notices.contains(&Notice::Postponed), "{news:?}");
    let news = agent.order(run(A_WHILE));
    assert!(news.restored().is_some(), "{news:?}");
    let listed = agent.order(list("knockd"));
    assert!(
        listed.iter().any(|opening| opening.element.door == "mosh"),
        "{listed:?}"
    );
}

/// Somebody loads a saved ruleset again and again, our table in it as it once was.
#[test]
fn a_reload_while_the_watch_waits_loses_no_opening() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    let saved = lab.server.run("nft list ruleset");
    open_some(&mut agent);
    wait_for("it to be put off", || {
        lab.server.nft(&format!("flush ruleset\n{saved}"));
        let news = agent.order(run(A_WHILE));
        news.notices.contains(&Notice::Postponed).then_some(())
    });
    assert_eq!(agent.order(list("knockd")), Opening::NONE);
    let started = agent.order(reload(&path));
    assert_eq!(started, Started::quietly(Origin::Adopted, false, 3));
    assert_eq!(agent.order(list("knockd")), some_opened());
}

#[test]
fn a_change_among_more_news_than_can_be_read_is_put_right() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    let mut agent = Agent::watch(&lab.server, &path);
    open_some(&mut agent);
    // Each some hundreds of KiB of notifications; a receive buffer holds less than one.
    let elements: Vec<String> = (0..3_000_u32)
        .map(|i| std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string())
        .collect();
    let noise = format!(
        "table ip noise {{\n set s {{\n type ipv4_addr\n elements = {{ {} }}\n }}\n }}",
        elements.join(", ")
    );
    let make_noise = || {
        for _ in 0..5 {
            lab.server.nft(&noise);
            lab.server.nft("delete table ip noise");
        }
    };
    make_noise();
    lab.server.nft("flush ruleset");
    let news = agent.order(run(A_WHILE));
    assert!(news.notices.contains(&Notice::Missed), "{news:?}");
    assert!(news.restored().is_some(), "{news:?}");
    assert_eq!(agent.order(list("knockd")), some_opened());

    // A rule in place of another: there are as many as there were.
    make_noise();
    let whole = ruleset(&lab);
    let judge = lab.server.run("nft -a list chain inet knockd judge");
    let last = judge.lines().rfind(|line| line.contains("drop"));
    let (_, handle) = last.and_then(|l| l.rsplit_once(' ')).expect("a handle");
    lab.server.nft(&format!(
        "replace rule inet knockd judge handle {handle} counter accept"
    ));
    let news = agent.order(run(A_WHILE));
    assert!(news.notices.contains(&Notice::Missed), "{news:?}");
    assert_eq!(ruleset(&lab), whole);

    // The chain on another hook, which no packet from outside comes by.
    let guard = lab.server.run("nft list chain inet knockd guard");
    let judge = lab.server.run("nft list chain inet knockd judge");
    let off = guard.replace("hook prerouting priority mangle", "hook output priority 0");
    make_noise();
    lab.server.nft(&format!(
        "flush chain inet knockd guard\nflush chain inet knockd judge\n\
         delete chain inet knockd guard\n{judge}\n{off}"
    ));
    let news = agent.order(run(A_WHILE));
    assert!(news.notices.contains(&Notice::Missed), "{news:?}");
    assert_eq!(ruleset(&lab), whole);

    // Lost, but nothing of ours was changed except by hand.
    lab.server
        .nft("delete element inet knockd openings_v4 { 192.0.2.77 . tcp . 22 }");
    lab.server.nft(&noise.replace("noise", "more"));
    lab.server.nft(&noise.replace("noise", "still"));
    let news = agent.order(run(A_WHILE));
    assert!(news.notices.contains(&Notice::Missed), "{news:?}");
    assert_eq!(news.restored(), None, "{news:?}");
    assert_eq!(agent.order(close_all("192.0.2.77")), Applied::default());
}
