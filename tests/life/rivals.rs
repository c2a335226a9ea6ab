//! Two daemons for one table, and a table of that name which belongs to something else.

use crate::site::{OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::{closed, opened};
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ip};

#[test]
fn a_daemon_that_owns_the_table_is_named_to_a_second_and_not_harmed() {
    needs!(Laboratory);
    let lab = Lab::new();
    let first = Site::new(&lab, SSH);
    let mut daemon = first.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    let before = lab.server.run("nft -s list ruleset");
    // Another folder for locks: nothing but the kernel keeps them apart.
    let second = Site::new(&lab, &SSH.replace("[\"22/tcp\"]", "[\"23/tcp\"]"));
    for words in ["-v", "-v --watch", "clear"] {
        let (code, said) = failure(&second.try_run(words));
        assert_eq!(code, 69, "{words}: {said}");
        assert!(said.contains("inet knockd is owned by another"), "{said}");
        assert!(said.contains(&daemon.id().to_string()), "{said}");
    }
    assert_eq!(lab.server.run("nft -s list ruleset"), before);
    assert_eq!(first.openings().len(), 1);
    first.run("close --all");
    daemon.wait_for_event(&closed("22/tcp"));
}

#[test]
fn a_daemon_that_watches_the_table_is_named_to_a_second() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("--watch");
    for words in ["-v --watch", "-v"] {
        let (code, said) = failure(&site.try_run(words));
        assert_eq!(code, 69, "{words}: {said}");
        assert!(said.contains(&format!("process {}", daemon.id())), "{said}");
    }
    assert_eq!(daemon.count("restored"), 0);
    site.run("status");
}

/// Where the watch is all there is, and the folders for locks are not the same.
#[test]
fn the_watch_gives_way_to_an_owner_and_comes_back_after_it() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let first = Site::new(&lab, SSH);
    let mut watching = first.start("--watch");
    let second = Site::new(&lab, SSH);
    let mut owning = second.start("");
    watching.wait_for_line("could not be put back: table inet knockd is owned by another");
    let closed = || {
        let to = (ip(SERVER[0]), 22);
        let reach = lab.client.connect(ip(OTHER[0]), to, SILENCE);
        reach.expect_silence();
    };
    closed();
    // Both have heard it; it is open by the one that can.
    knock(&lab, SERVER[0], OPEN_SSH);
    watching.wait_for_line("192.0.2.77: ssh: not opened: table inet knockd is owned by another");
    owning.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    let to = (ip(SERVER[0]), 22);
    let reach = lab.client.connect(ip(CLIENT[0]), to, SOON);
    let _open = reach.expect_connected();
    let (status, _) = owning.terminate();
    assert!(status.success());
    watching.wait_for_line("restored after");
    closed();
    // It is not said once a second for as long as it lasts.
    assert_eq!(watching.count("could not be put back"), 1);
}

#[test]
fn a_table_that_knockd_did_not_make_is_left_alone() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    lab.server.nft(
        "table inet knockd { chain mine { type filter hook input priority 0; \
         tcp dport 23 drop; }; }",
    );
    let before = lab.server.run("nft list ruleset");
    let site = Site::new(&lab, SSH);
    for words in ["-v", "-v --watch", "guard", "clear", "close --all"] {
        let (code, said) = failure(&site.try_run(words));
        assert_ne!(code, 0, "{words}: {said}");
        assert!(said.contains("that knockd did not make"), "{words}: {said}");
        assert_eq!(lab.server.run("nft list ruleset"), before, "{words}");
    }
    // The same in a reload: the table that guards stays.
    site.configure(&format!("firewall.table = \"gate\"\n{SSH}"));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    site.configure(SSH);
    let said = site.reload(&daemon).join("\n");
    assert!(said.contains("that knockd did not make"), "{said}");
    assert!(said.contains("the running configuration stays"), "{said}");
    let reach = |own, patience| {
        let to = (ip(SERVER[0]), 22);
        lab.client.connect(ip(own), to, patience)
    };
    let _open = reach(CLIENT[0], SOON).expect_connected();
    reach(OTHER[0], SILENCE).expect_silence();
    daemon.terminate();
    assert!(lab.server.run("nft list ruleset").contains(&before));
}
