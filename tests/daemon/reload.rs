//! A reload by SIGHUP, and a stop by SIGTERM.

use nix::sys::signal::Signal;

use crate::site::{KNOCK, OPEN_SSH, SSH, Site, WEB, failure, knock};
use crate::support::events::{closed, opened, stage};
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ip, wait_until};

#[test]
fn a_faulty_file_changes_nothing() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let ruleset = || lab.server.run("nft list ruleset");
    let before = ruleset();
    site.configure(&format!("{SSH}{WEB}open_fro = \"1h\"\n"));
    site.reload(&daemon);
    for words in ["`open_fro`", "^~~~", "the running configuration stays"] {
        daemon.wait_for_line(words);
    }
    // A file that an editor or a full disk has emptied changes nothing either.
    site.configure("");
    site.reload(&daemon);
    daemon.wait_for_line("1:1: there is no door");
    assert_eq!(ruleset(), before);
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    assert!(!daemon.lines().iter().any(|line| line.contains("web")));
}

/// A reload of which each step in turn is refused.
#[test]
fn a_reload_that_fails_half_way_leaves_what_was() {
    needs!(Laboratory, Tool("strace"));
    for firewall in ["guard = \"reject\"", "table = \"gate\""] {
        fail_half_way(SSH, &format!("firewall.{firewall}\n{SSH}{WEB}"), 1, 3);
    }
    // A reload cannot bring the process that runs commands.
    let command = "start_command = \"true\"\nopen     =";
    let with_command = SSH.replacen("open     =", command, 1);
    let none = "[door.run]\nsequence = [\"7004/tcp\", \"8105/udp\", \"9206/tcp\"]\n\
                start_command = \"true\"\n";
    fail_half_way(&with_command, none, 0, 2);
}

/// `tables` is how many there are when the reload has succeeded, `least` how many of its steps must
/// have been refused before.
#[track_caller]
fn fail_half_way(before: &str, changed: &str, tables: usize, least: usize) {
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, before);
    let daemon = site.start("");
    let connect = || {
        let to = (ip(SERVER[0]), 22);
        lab.client.connect(ip(CLIENT[0]), to, SOON)
    };
    for step in 1.. {
        site.configure(changed);
        let fault = format!("sendto:error=ENOMEM:when={step}");
        let strace = lab.server.inject(daemon.id(), &fault);
        let said = site.reload(&daemon);
        strace.kill();
        if said.iter().any(|line| line.contains("is in force")) {
            assert!(step > least, "{} steps were refused", step - 1);
            // What the new configuration does not have goes a moment later.
            wait_until("the tables", || {
                lab.server.run("nft list tables").lines().count() == tables
            });
            return;
        }
        wait_until("the table alone", || {
            lab.server.run("nft list tables") == "table inet knockd\n"
        });
        let deed = ["opened", "extended"][usize::from(step > 1)];
        let deed = format!("192.0.2.77: ssh: {deed} 22/tcp");
        let so_far = daemon.count(&deed);
        knock(&lab, SERVER[0], OPEN_SSH);
        wait_until("the opening", || daemon.count(&deed) > so_far);
        connect().expect_connected();
        site.configure(before);
        site.reload(&daemon);
    }
}

/// The kernel may be short of memory just then: the filter of the refused file lets no UDP pass.
/// The loop does not read the file itself: it would wait for the disk.
#[test]
fn a_reload_without_a_thread_is_refused() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let strace = lab.server.inject(daemon.id(), "clone3:error=EAGAIN");
    let (code, said) = failure(&site.try_run("reload"));
    strace.kill();
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("cannot start a thread"), "{said}");
    assert!(said.contains("the running configuration stays"), "{said}");
    daemon.wait_for_line("cannot start a thread");
    assert_eq!(site.run("reload"), "the new configuration is in force\n");
}

#[test]
fn a_filter_that_is_not_put_back_at_once_is_put_back_later() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    lab.server.nft("table inet gate { }");
    let no_udp = WEB.replace("8105/udp", "8105/tcp");
    site.configure(&format!("firewall.table = \"gate\"\n{no_udp}"));
    let refused = "setsockopt:error=ENOMEM:when=2";
    let strace = lab.server.inject(daemon.id(), refused);
    site.reload(&daemon);
    wait_until("the refusal", || {
        let is_refused = |line: &String| {
            line.contains("SO_ATTACH_FILTER")
                && line.contains("ENOMEM")
                && line.contains("INJECTED")
        };
        strace.lines().iter().any(is_refused)
    });
    strace.kill();
    wait_until("the opening", || {
        knock(&lab, SERVER[0], OPEN_SSH);
        daemon.count("192.0.2.77: ssh: opened 22/tcp") > 0
    });
}

#[test]
fn a_good_file_is_taken_and_openings_of_its_doors_live_on() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _services = [22, 80].map(|port| lab.server.echo(port));
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let connect = |own, port, patience| {
        let to = (ip(SERVER[0]), port);
        lab.client.connect(ip(own), to, patience)
    };
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    let _open = connect(OTHER[0], 80, SOON).expect_connected();
    site.configure(&format!("{SSH}{WEB}"));
    site.reload(&daemon);
    connect(OTHER[0], 80, SILENCE).expect_silence();
    connect(CLIENT[0], 80, SILENCE).expect_silence();
    let _open = connect(CLIENT[0], 22, SOON).expect_connected();
    knock(&lab, SERVER[0], "7004 8105:udp 9206");
    daemon.wait_for_event(&opened("80/tcp").at("web").from("192.0.2.77"));
    let _open = connect(CLIENT[0], 80, SOON).expect_connected();
    // The door of the first opening goes, and its guard and what it opened with it.
    site.configure(WEB);
    site.reload(&daemon);
    daemon.wait_for_event(&closed("22/tcp").at("ssh").from("192.0.2.77"));
    let _open = connect(OTHER[0], 22, SOON).expect_connected();
    // The set of the door that went goes a moment later.
    wait_until("its end", || {
        let openings = site.openings();
        openings.len() == 1 && openings.iter().all(|o| o["door"] == "web")
    });
}

#[test]
fn an_attempt_at_a_door_that_stays_goes_on() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(
        &lab,
        &SSH.replace("open_for", "seq_timeout = \"1m\"\nopen_for"),
    );
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], "7001 8102:udp");
    daemon.wait_for_event(&stage(2).at("ssh").from("192.0.2.77"));
    let text = std::fs::read_to_string(site.config()).expect("a file of ours");
    // Another door before it: the place of a door in the file says nothing.
    site.configure(&format!("{WEB}{text}"));
    site.reload(&daemon);
    lab.client.run(&format!("{KNOCK} {} 9203", SERVER[0]));
    daemon.wait_for_event(&opened("22/tcp").lasting("1h").at("ssh").from("192.0.2.77"));
}

#[test]
fn an_attempt_at_a_door_that_changed_is_over() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("-D");
    knock(&lab, SERVER[0], "7001 8102:udp");
    daemon.wait_for_event(&stage(2).at("ssh").from("192.0.2.77"));
    site.configure(&SSH.replace("9203/tcp\"]\nopen", "9203/tcp\", \"9300/tcp\"]\nopen"));
    site.reload(&daemon);
    daemon.wait_for_line("192.0.2.77: ssh: sequence reset (stage 2): the door was changed");
}

#[test]
fn the_table_may_change_its_name() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    site.configure(&format!("firewall.table = \"gate\"\n{SSH}"));
    site.reload(&daemon);
    // The old table goes a moment later.
    wait_until("its end", || {
        lab.server.run("nft list tables") == "table inet gate\n"
    });
    assert_eq!(site.openings().len(), 1);
    let (status, _) = daemon.terminate();
    assert!(status.success());
}

/// A second daemon could take the old table over, and lose it a moment later.
#[test]
fn the_old_table_is_locked_until_it_is_gone() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    let is_locked = |table| site.path(&format!("run/{table}.lock")).exists();
    let names = |table| lab.server.run("nft list tables").contains(table);
    let rename = |text: &str| {
        site.configure(text);
        let said = site.reload(&daemon).join("\n");
        assert!(said.contains("is in force"), "{said}");
    };
    let gate = format!("firewall.table = \"gate\"\n{SSH}");
    let mut seen = false;
    for _ in 0..10 {
        rename(&gate);
        wait_until("the old table's end", || {
            let was_locked = is_locked("knockd");
            let stands = names("inet knockd\n");
            assert!(was_locked || !stands);
            seen |= stands;
            !stands
        });
        wait_until("the lock's end", || !is_locked("knockd"));
        assert!(is_locked("gate"));
        // Renamed again and again: a lock that is still held is needed once more.
        rename(SSH);
        rename(&gate);
        rename(SSH);
        wait_until("the lock's end", || !is_locked("gate"));
        assert!(is_locked("knockd"));
        if seen {
            break;
        }
    }
    assert!(seen, "the old table was gone at once");
    let (status, _) = daemon.terminate();
    assert!(status.success());
    assert!(!is_locked("knockd"));
}

#[test]
fn the_table_may_come_and_go() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let without = SSH
        .replace(
            "open     = [\"22/tcp\"]\nopen_for = \"1h\"",
            "start_command = \"true\"",
        )
        .replace("close    = [\"22/tcp\"]", "start_command = \"true\"");
    let site = Site::new(&lab, &without);
    let mut daemon = site.start("");
    let connect = |patience| {
        let to = (ip(SERVER[0]), 22);
        lab.client.connect(ip(CLIENT[0]), to, patience)
    };
    assert_eq!(lab.server.run("nft list ruleset"), "");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_line("ssh: running command: true");
    site.configure(SSH);
    site.reload(&daemon);
    connect(SILENCE).expect_silence();
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").lasting("1h").at("ssh").from("192.0.2.77"));
    let _open = connect(SOON).expect_connected();
    site.configure(&without);
    site.reload(&daemon);
    assert_eq!(lab.server.run("nft list ruleset"), "");
    let (status, lines) = daemon.terminate();
    assert!(status.success(), "{lines:?}");
}

#[test]
fn a_clean_stop_leaves_the_guard_or_takes_it_away_as_configured() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let to = (ip(SERVER[0]), 22);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = site.start("");
        daemon.signal(signal);
        let (status, lines) = daemon.wait();
        assert_eq!(status.code(), Some(0));
        assert_eq!(lines.last().map(String::as_str), Some("shutting down"));
        lab.client
            .connect(ip(CLIENT[0]), to, SILENCE)
            .expect_silence();
        // A plain table: who saves the ruleset now can load it again.
        let listed = lab.server.run("nft list ruleset");
        assert!(!listed.contains("flags owner"), "{listed}");
        lab.server.nft(&format!("flush ruleset\n{listed}"));
    }
    site.configure(&format!("firewall.on_stop = \"remove\"\n{SSH}"));
    let (status, _) = site.start("").terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(lab.server.run("nft list ruleset"), "");
    let _open = lab
        .client
        .connect(ip(CLIENT[0]), to, SOON)
        .expect_connected();
}
