//! Sets of the administrator's that doors put sources into.

use crate::agent::Agent;
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

fn set(lab: &Lab) -> String {
    lab.server.run("nft list set inet filter knocked")
}

#[test]
fn elements_come_go_and_come_back() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    lab.server.nft(SET);
    for mode in ["start", "watch"] {
        let mut agent = Agent::new(&lab.server);
        let said = agent.order(&format!("{mode} {}", path.display()));
        assert!(said.ends_with("[]"), "{said}");
        let add = "add web 192.0.2.77 inet/filter/knocked  1h";
        assert_eq!(agent.order(add), "opened 192.0.2.77 knocked; ");
        let listed = set(&lab);
        assert!(
            listed.contains("192.0.2.77 timeout 1h") && listed.contains("\"web\""),
            "{listed}"
        );

        // The ruleset of the administrator's is loaded again.
        lab.server.nft(&format!("delete table inet filter\n{SET}"));
        assert!(!set(&lab).contains("192.0.2.77"));
        let said = agent.order("mind 5s");
        assert!(said.contains("knocked is there"), "{said}");
        assert!(set(&lab).contains("192.0.2.77"));

        // Taken away, and back later.
        lab.server.nft("delete table inet filter");
        let said = agent.order("mind 5s");
        assert!(said.contains("knocked is not there yet"), "{said}");
        let said = agent.order("add web 192.0.2.78 inet/filter/knocked  1h");
        assert!(said.starts_with("opened 192.0.2.78 knocked; "), "{said}");
        assert!(said.contains("Awaited"), "he is not in it yet: {said}");
        lab.server.nft(SET);
        let said = agent.order("mind 5s");
        assert!(said.contains("2 elements put in"), "{said}");
        assert!(set(&lab).contains("192.0.2.78"));

        // Known after a restart.
        agent.kill();
        let mut agent = Agent::new(&lab.server);
        agent.order(&format!("{mode} {}", path.display()));
        let remove = "remove 192.0.2.77 inet/filter/knocked ";
        assert_eq!(agent.order(remove), "closed web 192.0.2.77 knocked; ");
        assert_eq!(agent.order(remove), "", "not there is no fault");

        // What somebody else took out is not put in again; what he put in goes all the same.
        lab.server.nft("delete element inet filter knocked { 192.0.2.78 }\nadd element inet filter knocked { 192.0.2.9 }");
        assert_eq!(agent.order("mind 100ms"), "");
        agent.order("remove 192.0.2.78 inet/filter/knocked ");
        agent.order("remove 192.0.2.9 inet/filter/knocked ");
        assert!(!set(&lab).contains("192.0.2."));
        agent.order("stop remove");
    }
}

#[test]
fn a_reload_takes_out_what_a_door_that_is_gone_put_in() {
    let lab = Lab::new();
    let path = lab.write("knockd.toml", TOML);
    lab.server.nft(SET);
    let mut agent = Agent::start(&lab.server, &path);
    agent.order("add web 192.0.2.77 inet/filter/knocked  1h");
    // Another door, and the set is gone for a while: what waits for it is not forgotten.
    lab.server.nft("delete table inet filter");
    agent.order("mind 5s");
    agent.order("add web 192.0.2.78 inet/filter/knocked  1h");
    let more = TOML.replace("[\"22/tcp\"]", "[\"22/tcp\", \"80/tcp\"]");
    let more = lab.write("more.toml", &more);
    agent.order(&format!("reload {}", more.display()));
    lab.server.nft(SET);
    let said = agent.order("mind 5s");
    assert!(said.contains("2 elements put in"), "{said}");

    let gone = TOML.replace("[door.web]", "[door.other]");
    let gone = lab.write("gone.toml", &gone);
    let said = agent.order(&format!("reload {}", gone.display()));
    assert!(said.contains("removed=2"), "{said}");
    assert!(!set(&lab).contains("192.0.2."));
}

#[test]
fn a_set_by_port() {
    let lab = Lab::new();
    let toml = TOML.replace(
        "for = \"1h\"",
        "for = \"1h\", ports = [\"80/tcp\", \"443/tcp\"]",
    );
    let path = lab.write("knockd.toml", &toml);
    lab.server.nft("table inet filter {\n set knocked {\n type ipv6_addr . inet_proto . inet_service\n flags timeout\n }\n }");
    let mut agent = Agent::start(&lab.server, &path);
    agent.order("add web 2001:db8::77 inet/filter/knocked 80/tcp,443/tcp 1h");
    let listed = set(&lab);
    assert!(
        listed.contains("2001:db8::77 . tcp . 80") && listed.contains("2001:db8::77 . tcp . 443"),
        "{listed}"
    );
    let said = agent.order("add web 192.0.2.77 inet/filter/knocked 80/tcp,443/tcp 1h");
    assert!(said.contains("OtherFamily"), "{said}");
}

#[test]
fn a_set_that_does_not_fit_is_named() {
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
        let said = agent.order(&format!("watch {}", path.display()));
        assert!(said.contains(why), "{kind}: {said}");
        assert!(
            said.contains("add set inet filter knocked { type ipv4_addr; flags timeout; }"),
            "{said}"
        );
        // Who knocks in vain is told why again; the door's other half works.
        let said = agent.order("add web 192.0.2.77 inet/filter/knocked  1h");
        assert!(!said.contains("opened") && said.contains(why), "{said}");
        assert_eq!(
            agent.order("open web 192.0.2.77 22/tcp 30s"),
            "opened 192.0.2.77 22/tcp; "
        );
    }
    // Who asks for no end would be given one, and be shut out for good.
    lab.server.nft(
        "flush ruleset\ntable inet filter {\n set knocked {\n type ipv4_addr\n timeout 1h\n }\n }",
    );
    let lasting = TOML.replace("\"1h\"", "\"until closed\"");
    let lasting = lab.write("lasting.toml", &lasting);
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("watch {}", lasting.display()));
    assert!(said.contains("a timeout of the set's own"), "{said}");
    // What is only taken out of a set may be there for ever.
    lab.server.nft("flush ruleset\ntable ip6 filter {\n set banned {\n type ipv6_addr\n elements = { 2001:db8::77, 2001:db8::78 }\n }\n }");
    let removes = TOML.replace(
        "add      = { table = \"inet filter\", set = \"knocked\", for = \"1h\" }",
        "remove   = { table = \"ip6 filter\", set = \"banned\" }",
    );
    let removes = lab.write("removes.toml", &removes);
    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("watch {}", removes.display()));
    assert!(said.ends_with("[]"), "{said}");
    agent.order("remove 2001:db8::77 ip6/filter/banned ");
    let left = lab.server.run("nft list set ip6 filter banned");
    assert!(left.contains("{ 2001:db8::78 }"), "{left}");
    // Full, and only that.
    lab.server.nft("flush ruleset\ntable inet filter {\n set knocked {\n type ipv4_addr\n size 1\n flags timeout\n elements = { 192.0.2.9 }\n }\n }");
    let mut agent = Agent::start(&lab.server, &path);
    let add = "add web 192.0.2.77 inet/filter/knocked  1h";
    let said = agent.order(add);
    assert!(said.contains("is full"), "{said}");
    // So may be one that has been waited for.
    lab.server.nft("delete table inet filter");
    agent.order("mind 5s");
    agent.order(add);
    lab.server.nft("table inet filter {\n set knocked {\n type ipv4_addr\n size 1\n flags timeout\n elements = { 192.0.2.9 }\n }\n }");
    let said = agent.order("mind 5s");
    assert!(
        said.contains("is full") && !said.contains("put in"),
        "{said}"
    );
}

#[test]
fn a_set_of_another_daemon_is_said_to_be_so() {
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
    let said = agent.order("add web 192.0.2.77 inet/other/openings_v4  1h");
    let whose = "table inet other is owned by another program, which lets nobody else change it";
    assert!(said.contains(whose), "{said}");
    agent.order("stop remove");

    let mut agent = Agent::new(&lab.server);
    let said = agent.order(&format!("start {}", path.display()));
    assert!(said.contains("owned by another program"), "{said}");
    owner.order("stop remove");
}
