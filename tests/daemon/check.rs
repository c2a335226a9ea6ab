//! What `knockd check` says about the running system is true.

use nix::sys::signal::Signal;

use crate::blocked::UFW;
use crate::site::{OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::opened;
use crate::support::{Lab, OTHER, SERVER};

/// A door with a range of UDP ports beside one for SSH.
pub(crate) const MOSH: &str = r#"
[door.mosh]
sequence = ["29011/tcp", "8134/tcp", "51878/tcp"]
from     = ["192.0.2.0/24"]
open     = ["60000-61000/udp"]
"#;

impl Site<'_> {
    /// Returns what `knockd check` says about the running system, line by line, and its exit code.
    #[track_caller]
    pub(crate) fn check(&self) -> (i32, Vec<String>) {
        let output = self.try_run("check --saved-ruleset /nonexistent");
        let (code, _) = failure(&output);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = said.lines().skip_while(|l| !l.contains("no errors"));
        (code, lines.skip(1).map(str::to_owned).collect())
    }
}

#[test]
fn a_door_alone_works() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("{SSH}{MOSH}"));
    let (code, said) = site.check();
    let doors = [
        "ssh: works (eth0, IPv4 and IPv6)",
        "shut: opens no port: there is nothing to try",
        "mosh: works (eth0, IPv4)",
    ];
    assert_eq!(code, 69);
    let (_, last) = failure(&site.try_run("check --saved-ruleset /nonexistent"));
    let line = "knockd: 1 problem: knockd is not running: systemctl start knockd\n";
    assert_eq!(last, line);
    assert!(said[0].starts_with("table inet knockd: ABSENT"), "{said:?}");
    assert_eq!(said[1..], doors);

    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    // Openings are no drift, be there as many as nft breaks into lines.
    for address in [OTHER[0], "198.51.100.3"] {
        site.run(&format!("open ssh {address}"));
    }
    lab.server.nft("table inet filter { chain input { type filter hook input priority 0; iif eth0 accept; }; }");
    let before = lab.server.run("nft -s list ruleset");
    let (code, said) = site.check();
    assert_eq!(said[0], "table inet knockd: as configured");
    assert_eq!(said[1..], doors);
    assert_eq!(code, 0);
    let after = lab.server.run("nft -s list ruleset");
    assert_eq!(before, after, "looked at, never changed");
}

/// DHCP gives an address with the network's prefix, and an administrator adds it with another.
#[test]
fn an_address_with_two_prefixes_is_tried_as_one() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    lab.server
        .run(&format!("ip address add {}/25 dev eth0", SERVER[0]));
    let (_, said) = site.check();
    assert_eq!(said[1], "ssh: works (eth0, IPv4 and IPv6)", "{said:#?}");
}

#[test]
fn a_set_that_the_door_fills_may_let_it_in() {
    needs!(Laboratory);
    let lab = Lab::new();
    let filled = "open     = [\"22/tcp\"]\nadd = { table = \"inet filter\", set = \"knocked\", for = \"1h\" }";
    let doors = SSH.replacen("open     = [\"22/tcp\"]", filled, 1);
    let site = Site::new(&lab, &doors);
    let filter = |accept: &str| {
        lab.server.nft(&format!(
            "table inet filter
             delete table inet filter
             table inet filter {{
                 set knocked {{ type ipv4_addr; flags timeout; }}
                 chain input {{
                     type filter hook input priority 0; policy drop;
                     {accept}
                 }}
             }}"
        ));
    };
    filter("ip saddr @knocked tcp dport 22 accept");
    let _daemon = site.start("");
    let (_, said) = site.check();
    let works = "ssh: works (22/tcp by eth0, IPv4)".to_owned();
    assert!(said.contains(&works), "{said:#?}");
    filter("");
    let (_, said) = site.check();
    assert!(!said.contains(&works), "{said:#?}");
    // Without the set its door cannot do what it should.
    lab.server.run("nft delete table inet filter");
    let (code, said) = site.check();
    assert_eq!(code, 69);
    assert!(
        said[1].starts_with("warning: set inet filter knocked is not there yet"),
        "{said:#?}"
    );
}

#[test]
fn what_a_copy_cannot_show_is_not_told() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    lab.server.nft(
        "table ip nat { chain pre { type nat hook prerouting priority dstnat;
             tcp dport 22 dnat to 198.18.0.2; }; }",
    );
    let (code, said) = site.check();
    assert_eq!(code, 0);
    let elsewhere = "ssh: cannot tell: chain ip nat pre sends it elsewhere (to a container?), \
                     where a copy cannot follow (22/tcp by eth0, IPv4)";
    assert!(said.iter().any(|l| l == elsewhere), "{said:#?}");
    lab.server.run("nft delete table ip nat");
    lab.server
        .nft("table bridge b { chain in { type filter hook input priority 0; policy drop; }; }");
    let (_, said) = site.check();
    assert!(
        said[1].starts_with("ssh: cannot tell:") && said[1].contains("table bridge b"),
        "{said:#?}"
    );
    // Forwarded packets do not concern us.
    lab.server
        .nft("delete table bridge b\ntable bridge b { chain on { type filter hook forward priority 0; policy drop; }; }");
    let (_, said) = site.check();
    assert_eq!(said[1], "ssh: works (eth0, IPv4 and IPv6)");
    // With no address there is no way in.
    lab.server.run("ip address flush dev eth0");
    let (_, said) = site.check();
    assert!(said[1].contains("there is no way in"), "{said:#?}");
}

#[test]
fn drift_is_shown_and_a_saved_copy_is_said_loudly() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    site.run("guard");
    lab.server.run("nft insert rule inet knockd guard accept");
    lab.server
        .run("nft delete element inet knockd guarded { tcp . 22 }");
    let saved = lab.write("nftables.conf", &lab.server.run("nft list ruleset"));
    let output = site.try_run(&format!("check --saved-ruleset {}", saved.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(failure(&output).0, 69);
    for line in [
        "table inet knockd: NOT AS CONFIGURED: start or reload knockd",
        "-\t\ttcp . 22\n",
        "+\t\taccept\n",
        "TAKE OUT OF THE SAVED RULESET: ",
        "NONE OF YOUR OWN RULES are loaded",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    // The copy is as configured, so nothing is said about packets that pass without a knock.
    assert!(said.contains("ssh: works"), "{said}");
}

/// Beside an owned table, a saved ruleset with that table in it cannot be loaded at all: the
/// lines to take out are named, and without them it can.
#[test]
fn a_saved_ruleset_loads_without_the_lines_that_are_named() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    lab.server
        .nft("table inet filter { chain input { type filter hook input priority 0; tcp dport 80 counter; }; }");
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    let saved = format!("flush ruleset\n{}", lab.server.run("nft list ruleset"));
    let file = lab.write("nftables.conf", &saved);
    let load = |file: &std::path::Path| lab.server.try_run(&format!("nft -f {}", file.display()));
    assert!(!load(&file).status.success());

    let flag = format!("--saved-ruleset {}", file.display());
    let output = site.try_run(&format!("check {flag}"));
    assert_eq!(failure(&output).0, 69);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("table inet knockd: as configured"), "{said}");
    let output = site.try_run(&format!("check --file-only {flag}"));
    assert!(output.status.success(), "{output:?}");
    let status = site.run(&format!("status {flag}"));
    let json = site.run(&format!("status --json {flag}"));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let place = &json["saved_ruleset"][0];
    assert_eq!(place["file"], file.display().to_string());
    let line = |n: usize| place["lines"][0][n].as_u64().expect("a line");
    let (first, last) = (line(0), line(1));
    let loud = format!(
        "TAKE OUT OF THE SAVED RULESET: {}, lines {first} to {last}: that is table inet knockd",
        file.display()
    );
    assert!(
        said.contains(&loud) && status.contains(&loud),
        "{said}\n{status}"
    );

    let kept = (1..).zip(saved.lines());
    let kept = kept.filter(|(n, _)| !(first..=last).contains(n));
    let kept: Vec<_> = kept.map(|(_, line)| line).collect();
    let file = lab.write("nftables.conf", &(kept.join("\n") + "\n"));
    let output = load(&file);
    assert!(output.status.success(), "{output:?}");
    assert!(
        lab.server
            .run("nft list ruleset")
            .contains("tcp dport 80 counter")
    );
    assert_eq!(site.openings().len(), 1);
    let (code, _) = failure(&site.try_run(&format!("check {flag}")));
    assert_eq!(code, 0);
    assert!(!site.run(&format!("status {flag}")).contains("TAKE OUT"));
}

#[test]
fn what_bears_the_name_may_guard_nothing() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    site.run("guard");
    lab.server.nft("add table inet knockd { flags dormant; }");
    let (code, said) = site.check();
    assert_eq!(code, 69);
    assert!(
        said[0].starts_with("table inet knockd: NOT AS"),
        "{said:#?}"
    );
    assert!(said.iter().any(|l| l == "+\tflags dormant"), "{said:#?}");
    lab.server
        .nft("delete table inet knockd\ntable inet knockd { chain guard { }; }");
    let (code, said) = site.check();
    assert_eq!(code, 69);
    let foreign = "table inet knockd: NOT KNOCKD'S: somebody else has made it";
    assert!(said[0].starts_with(foreign), "{said:#?}");
    assert_eq!(said[1], "ssh: works (eth0, IPv4 and IPv6)");
}

/// A configuration is checked before it is reloaded: what goes with the reload is not in
/// the way. What another knockd guards is.
#[test]
fn the_table_by_its_old_name_does_not_block() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    let renamed = format!("[firewall]\ntable = \"other\"\n{SSH}");
    site.configure(&renamed);
    let (_, said) = site.check();
    assert!(said[0].starts_with("table inet other: ABSENT"), "{said:#?}");
    assert_eq!(said[1], "ssh: works (eth0, IPv4 and IPv6)");
    let file = lab.write("other.toml", &renamed);
    let output = site.try_run(&format!("check {}", file.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("ssh: BLOCKED by chain inet knockd guard"),
        "{said}"
    );
    assert!(said.contains("table inet knockd is a knockd's"), "{said}");
    assert!(!said.contains("mend:"), "{said}");
}

#[test]
fn without_privilege_the_file_alone_is_checked() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let unprivileged = "setpriv --bounding-set=-all --inh-caps=-all";
    let output = site
        .command_by(unprivileged, "check")
        .output()
        .expect("setpriv (package util-linux)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(failure(&output).0, 0, "{said}");
    let json = site
        .command_by(unprivileged, "check --json")
        .output()
        .expect("setpriv");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert!(json["live"].is_null());
    assert_eq!(json["not_looked_at"], "that needs root (CAP_NET_ADMIN)");
    let end = "2 doors, no errors\nthe running system was not looked at: that needs root (CAP_NET_ADMIN)\n";
    assert!(said.ends_with(end), "{said}");
    // Rules may be read, but no namespace made to try them in.
    let one = "setpriv --bounding-set=-all,+net_admin --inh-caps=-all";
    let output = site.command_by(one, "check").output().expect("setpriv");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = "ssh: cannot tell: no network namespace can be made here (CAP_SYS_ADMIN is needed)";
    assert!(said.contains(why), "{said}");
    // A file given by name is taken instead; a faulty one is 78.
    let other = lab.write("other.toml", "[door.x]\n");
    let output = site.try_run(&format!("check {}", other.display()));
    assert_eq!(failure(&output).0, 78);
}

/// A door with one-time sequences.
const ONCE: &str = "[door.once]\none_time_sequences = \"FILE\"\nopen = [\"80/tcp\"]\n";

#[test]
fn a_door_without_a_sequence_left_does_not_work() {
    needs!(Laboratory);
    let lab = Lab::new();
    let file = lab.write("once", "7101,8202:udp,9303\n");
    let once = ONCE.replace("FILE", &file.display().to_string());
    let site = Site::new(&lab, &format!("{SSH}{once}"));
    let _daemon = site.start("");
    let (code, said) = site.check();
    assert_eq!(code, 0, "{said:#?}");
    assert!(
        said.contains(&"once: works (eth0, IPv4 and IPv6)".to_owned()),
        "{said:#?}"
    );
    let used_up = format!("no more one-time sequences in {}", file.display());
    for (text, why) in [
        (Some("#7101,8202:udp,9303\n"), used_up.as_str()),
        (Some(""), &used_up),
        (Some("7101,8202:udp,xyz\n"), &used_up),
        (None, "No such file"),
    ] {
        match text {
            Some(text) => std::fs::write(&file, text).expect("a file of ours"),
            None => std::fs::remove_file(&file).expect("a file of ours"),
        }
        let output = site.try_run("check --saved-ruleset /nonexistent");
        let (code, complaint) = failure(&output);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code, 69, "{said}");
        assert!(
            said.contains("once: OPENS TO NOBODY: ") && said.contains(why),
            "{said}"
        );
        assert!(!said.contains("once: works"), "{said}");
        assert_eq!(complaint, "knockd: 1 problem: once opens to nobody\n");
        let json = site.try_run("check --json").stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["open_to_nobody"][0]["door"], "once");
        let verdict = &json["live"]["doors"][2]["findings"][0]["verdict"];
        assert_eq!(verdict, "opens to nobody");
    }
    // The same where there is no table to look at.
    let legacy = lab.write(
        "once.conf",
        &format!(
            "[once]\nOne_Time_Sequences = {}\ncommand = true\n",
            file.display()
        ),
    );
    let output = site.try_run(&format!("check {}", legacy.display()));
    assert_eq!(failure(&output).0, 69);
    // The file alone is no matter of its sequences.
    assert_eq!(failure(&site.try_run("check --file-only")).0, 0);
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("interfaces = [\"eth7\"]\n{SSH}"));
    let _daemon = site.start("");
    let output = site.try_run("check --saved-ruleset /nonexistent");
    let (code, complaint) = failure(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code, 69, "{said}");
    assert!(
        said.contains("ssh: cannot tell: there is no interface eth7\n"),
        "{said}"
    );
    assert_eq!(complaint, "knockd: 1 problem: there is no interface eth7\n");
    // Beside one that is there it may come later.
    site.configure(&format!("interfaces = [\"eth7\", \"eth0\"]\n{SSH}"));
    site.run("reload");
    let said = site.run("check --saved-ruleset /nonexistent");
    assert!(
        said.contains("warning: there is no interface eth7: nobody can knock there"),
        "{said}"
    );
    assert!(said.contains("ssh: works (eth0, IPv4 and IPv6)"), "{said}");
}

#[test]
fn what_is_wrong_is_counted_and_what_to_do_is_said() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let complaint = || failure(&site.try_run("check")).1;
    let start = "knockd: 1 problem: knockd is not running: systemctl start knockd\n";
    assert_eq!(complaint(), start);
    let daemon = site.start("");
    assert_eq!(complaint(), "");
    // Not for a file that it does not run with.
    let renamed = format!("[firewall]\ntable = \"other\"\n{SSH}");
    let file = lab.write("other.toml", &renamed.replace("22/tcp", "23/tcp"));
    let said = failure(&site.try_run(&format!("check {}", file.display()))).1;
    assert_eq!(said, start);
    site.run("clear");
    let reload = "knockd: 1 problem: there is no table: systemctl reload knockd\n";
    assert_eq!(complaint(), reload);
    site.run("reload");
    site.configure(&SSH.replacen("22/tcp", "23/tcp", 1));
    let drifted = "knockd: 1 problem: the table is not as configured: systemctl reload knockd\n";
    assert_eq!(complaint(), drifted);
    daemon.signal(Signal::SIGSTOP);
    let hangs = "knockd: 1 problem: knockd does not answer: systemctl restart knockd\n";
    assert_eq!(complaint(), hangs);
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let restart = "knockd: 1 problem: the table is not as configured: systemctl restart knockd\n";
    assert_eq!(complaint(), restart);
}

/// A reload leaves the sets that the rules no longer look into for a moment.
#[test]
fn a_check_right_after_a_reload_finds_the_table_as_configured() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    let other = SSH.replacen("22/tcp", "23/tcp", 1);
    let other = other.replacen("open     = [", "open     = [\"60000-61000/udp\", ", 1);
    for file in [other.as_str(), SSH].repeat(3) {
        site.configure(file);
        site.run("reload");
        let said = site.run("check");
        assert!(!said.contains("NOT AS CONFIGURED"), "{said}");
    }
}

#[test]
fn a_check_is_printed_as_json() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    lab.server.nft(UFW);
    let output = site.try_run("check --json");
    assert_eq!(failure(&output).0, 69);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["usable"], true);
    assert_eq!(value["live"]["table"]["state"], "as configured");
    assert!(value["not_looked_at"].is_null());
    let finding = &value["live"]["doors"][0]["findings"][0];
    assert_eq!(finding["verdict"], "blocked");
    assert_eq!(finding["by"][0]["chain"], "inet filter input");
    assert_eq!(finding["ways"].as_array().map(Vec::len), Some(2));
    let line = "nft insert rule inet filter input meta mark 0x6b6e accept";
    assert_eq!(finding["mend"]["lines"][0], line);
    assert_eq!(finding["mend"]["mark"], 0x6b6e);
}
