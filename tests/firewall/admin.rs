//! Sets of the administrator's, into which doors put sources.

use knockd::firewall::Mode;
use knockd::model::OnStop;

use crate::agent::{
    A_WHILE, Agent, Applied, News, Notice, add, element, millis, open, reload, remove, run,
    seconds, start, stop,
};
use crate::support::Lab;

const TOML: &str = r#"
[firewall]

[door.web]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp"]
open_for = "30s"
add      = { table = "inet filter", set = "knocked", for = "1h" }
"#;

const SET: &str = "table inet filter {\n set knocked {\n type ipv4_addr\n flags timeout\n }\n }";

/// The set, as `nft` lists it.
fn set(lab: &Lab) -> String {
    lab.server.run("nft list set inet filter knocked")
}

/// The set is there, and got this many elements.
fn is_back(news: &News, count: usize) -> bool {
    let back =
        |notice: &Notice| matches!(notice, Notice::Back { elements, .. } if *elements == count);
    news.notices.iter().any(back)
}

/// The set is not there yet.
fn is_awaited(notice: &Notice) -> bool {
    matches!(notice, Notice::Awaited { set } if set == "knocked")
}

/// The set cannot take what the door puts in; the reason holds `words`.
fn is_unfit(notices: &[Notice], words: &str) -> bool {
    let unfit =
        |notice: &Notice| matches!(notice, Notice::Unfit { why, .. } if why.contains(words));
    notices.iter().any(unfit)
}

#[test]
fn elements_stay_in_a_set_that_goes_and_comes_back() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    lab.server.nft(SET);
    let knocked = |source| element("web", source, "knocked");
    for mode in [Mode::Auto, Mode::Watch] {
        let mut agent = Agent::new(&lab.server);
        let started = agent.order(start(mode, &path));
        assert_eq!(started.notices, []);
        let applied = agent.order(add("web", "192.0.2.77", "inet filter knocked", ""));
        assert_eq!(applied, Applied::opening(knocked("192.0.2.77")));
        let listed = set(&lab);
        assert!(
            listed.contains("192.0.2.77 timeout 1h") && listed.contains("\"web\""),
            "{listed}"
        );

        // The ruleset of the administrator's is loaded again.
        lab.server.nft(&format!("delete table inet filter\n{SET}"));
        assert!(!set(&lab).contains("192.0.2.77"));
        let news = agent.order(run(A_WHILE));
        assert!(is_back(&news, 1), "{news:?}");
        assert!(set(&lab).contains("192.0.2.77"));

        // Taken away, and back later.
        lab.server.nft("delete table inet filter");
        let news = agent.order(run(A_WHILE));
        assert!(news.notices.iter().any(is_awaited), "{news:?}");
        let applied = agent.order(add("web", "192.0.2.78", "inet filter knocked", ""));
        assert_eq!(applied.opened, [knocked("192.0.2.78")]);
        assert!(applied.notices.iter().any(is_awaited), "{applied:?}");
        lab.server.nft(SET);
        let news = agent.order(run(A_WHILE));
        assert!(is_back(&news, 2), "{news:?}");
        assert!(set(&lab).contains("192.0.2.78"));

        // Known after a restart.
        agent.kill();
        let mut agent = Agent::new(&lab.server);
        agent.order(start(mode, &path));
        let mut take_out = || agent.order(remove("192.0.2.77", "inet filter knocked"));
        assert_eq!(take_out(), Applied::closing(knocked("192.0.2.77")));
        assert_eq!(take_out(), Applied::default(), "not there is no fault");

        // An element that somebody else removed is not added again; one that he added is removed.
        lab.server.nft("delete element inet filter knocked { 192.0.2.78 }\nadd element inet filter knocked { 192.0.2.9 }");
        assert_eq!(agent.order(run(millis(100))), News::none());
        agent.order(remove("192.0.2.78", "inet filter knocked"));
        agent.order(remove("192.0.2.9", "inet filter knocked"));
        assert!(!set(&lab).contains("192.0.2."));
        agent.order(stop(OnStop::Remove));
    }
}

#[test]
fn a_reload_takes_out_what_a_door_that_is_gone_put_in() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    lab.server.nft(SET);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(add("web", "192.0.2.77", "inet filter knocked", ""));
    // Another door, and the set is gone for a while: what waits for it is not forgotten.
    lab.server.nft("delete table inet filter");
    agent.order(run(A_WHILE));
    agent.order(add("web", "192.0.2.78", "inet filter knocked", ""));
    let more = TOML.replace("[\"22/tcp\"]", "[\"22/tcp\", \"80/tcp\"]");
    let more = lab.write("more.toml", &more);
    agent.order(reload(&more));
    lab.server.nft(SET);
    let news = agent.order(run(A_WHILE));
    assert!(is_back(&news, 2), "{news:?}");

    let gone = TOML.replace("[door.web]", "[door.other]");
    let gone = lab.write("gone.toml", &gone);
    assert_eq!(agent.order(reload(&gone)).removed, 2);
    assert!(!set(&lab).contains("192.0.2."));
}

#[test]
fn a_set_may_be_keyed_by_port() {
    needs!(Laboratory);
    let lab = Lab::new();
    let toml = TOML.replace(
        "for = \"1h\"",
        "for = \"1h\", ports = [\"80/tcp\", \"443/tcp\"]",
    );
    let path = lab.write("knockd.toml", &toml);
    lab.server.nft("table inet filter {\n set knocked {\n type ipv6_addr . inet_proto . inet_service\n flags timeout\n }\n }");
    let mut agent = Agent::start(&lab.server, &path);
    agent.order(add(
        "web",
        "2001:db8::77",
        "inet filter knocked",
        "80/tcp,443/tcp",
    ));
    let listed = set(&lab);
    assert!(
        listed.contains("2001:db8::77 . tcp . 80") && listed.contains("2001:db8::77 . tcp . 443"),
        "{listed}"
    );
    let applied = agent.order(add(
        "web",
        "192.0.2.77",
        "inet filter knocked",
        "80/tcp,443/tcp",
    ));
    assert!(
        applied.notices.contains(&Notice::OtherFamily),
        "{applied:?}"
    );
}

#[test]
fn a_set_that_does_not_fit_is_named() {
    needs!(Laboratory);
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    for (kind, why) in [
        ("type ipv4_addr", "have no timeout"),
        ("type ipv4_addr\n flags interval,timeout", "interval set"),
        ("type inet_service\n flags timeout", "of another type"),
        (
            "type ipv4_addr . inet_proto . inet_service\n flags timeout",
            "of another type",
        ),
    ] {
        lab.server.nft(&format!(
            "flush ruleset\ntable inet filter {{\n set knocked {{\n {kind}\n }}\n }}"
        ));
        let mut agent = Agent::new(&lab.server);
        let started = agent.order(start(Mode::Watch, &path));
        assert!(is_unfit(&started.notices, why), "{kind}: {started:?}");
        let remedy = "add set inet filter knocked { type ipv4_addr; flags timeout; }";
        assert!(is_unfit(&started.notices, remedy), "{started:?}");
        // Each knock in vain says why again; the door's other half works.
        let applied = agent.order(add("web", "192.0.2.77", "inet filter knocked", ""));
        assert_eq!(applied.opened, []);
        assert!(is_unfit(&applied.notices, why), "{applied:?}");
        let applied = agent.order(open("web", "192.0.2.77", "22/tcp", seconds(30)));
        let ssh = element("web", "192.0.2.77", "22/tcp");
        assert_eq!(applied, Applied::opening(ssh));
    }
    // An opening without an end would get the set's own, and the source be shut out for good.
    lab.server.nft(
        "flush ruleset\ntable inet filter {\n set knocked {\n type ipv4_addr\n timeout 1h\n }\n }",
    );
    let lasting = TOML.replace("\"1h\"", "\"until closed\"");
    let lasting = lab.write("lasting.toml", &lasting);
    let mut agent = Agent::new(&lab.server);
    let started = agent.order(start(Mode::Watch, &lasting));
    let why = "a timeout of the set's own";
    assert!(is_unfit(&started.notices, why), "{started:?}");
    // A set from which a door only removes may hold elements without a timeout.
    lab.server.nft("flush ruleset\ntable ip6 filter {\n set banned {\n type ipv6_addr\n elements = { 2001:db8::77, 2001:db8::78 }\n }\n }");
    let removes = TOML.replace(
        "add      = { table = \"inet filter\", set = \"knocked\", for = \"1h\" }",
        "remove   = { table = \"ip6 filter\", set = \"banned\" }",
    );
    let removes = lab.write("removes.toml", &removes);
    let mut agent = Agent::new(&lab.server);
    let started = agent.order(start(Mode::Watch, &removes));
    assert_eq!(started.notices, []);
    agent.order(remove("2001:db8::77", "ip6 filter banned"));
    let left = lab.server.run("nft list set ip6 filter banned");
    assert!(left.contains("{ 2001:db8::78 }"), "{left}");
    // Full, and only that.
    lab.server.nft("flush ruleset\ntable inet filter {\n set knocked {\n type ipv4_addr\n size 1\n flags timeout\n elements = { 192.0.2.9 }\n }\n }");
    let mut agent = Agent::start(&lab.server, &path);
    let put_in = || add("web", "192.0.2.77", "inet filter knocked", "");
    let applied = agent.order(put_in());
    assert!(is_unfit(&applied.notices, "is full"), "{applied:?}");
    // So may be one that has been waited for.
    lab.server.nft("delete table inet filter");
    agent.order(run(A_WHILE));
    agent.order(put_in());
    lab.server.nft("table inet filter {\n set knocked {\n type ipv4_addr\n size 1\n flags timeout\n elements = { 192.0.2.9 }\n }\n }");
    let news = agent.order(run(A_WHILE));
    assert!(is_unfit(&news.notices, "is full"), "{news:?}");
    let back = |notice: &Notice| matches!(notice, Notice::Back { .. });
    assert!(!news.notices.iter().any(back), "{news:?}");
}

#[test]
fn a_set_of_another_daemon_is_named_as_such() {
    needs!(Laboratory);
    let lab = Lab::new();
    // Another owner: any table of ours will do.
    let other = lab.write(
        "other.toml",
        &TOML.replace("[firewall]", "[firewall]\ntable = \"other\""),
    );
    let toml = TOML
        .replace("inet filter", "inet other")
        .replace("\"knocked\"", "\"openings_v4\"");
    let path = lab.write("knockd.toml", &toml);
    // Before the agent hears of it, too.
    lab.server
        .nft("table inet other {\n set openings_v4 {\n type ipv4_addr\n flags timeout\n }\n }");
    let mut agent = Agent::start(&lab.server, &path);
    lab.server.nft("delete table inet other");
    let mut owner = Agent::start(&lab.server, &other);
    let applied = agent.order(add("web", "192.0.2.77", "inet other openings_v4", ""));
    let whose = "table inet other is owned by another program, which lets nobody else change it";
    assert!(is_unfit(&applied.notices, whose), "{applied:?}");
    agent.order(stop(OnStop::Remove));

    let mut agent = Agent::new(&lab.server);
    let started = agent.order(start(Mode::Auto, &path));
    let why = "owned by another program";
    assert!(is_unfit(&started.notices, why), "{started:?}");
    owner.order(stop(OnStop::Remove));
}
