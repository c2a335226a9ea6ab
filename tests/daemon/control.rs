//! `list`, `status`, `open`, `close`, `clear`: with a daemon, and without.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::site::{KNOCKD, OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, OTHER, Process, SERVER, SILENCE, SOON, ip};

/// A door whose opening has no end, and with a range.
const MOSH: &str = r#"
[door.mosh]
sequence = ["7304/tcp", "8405/udp", "9506/tcp"]
open     = ["22/tcp", "50000-50100/udp"]
open_for = "until closed"
"#;

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn what_is_open_is_listed() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("{SSH}{MOSH}"));
    let mut daemon = site.start("");
    assert_eq!(site.run("list"), "nothing is open\n");
    assert_eq!(site.run("list --json"), "[]\n");
    knock(&lab, SERVER[0], OPEN_SSH);
    knock(&lab, SERVER[1], "7304 8405:udp 9506");
    daemon.wait_for_event(&opened("22/tcp").lasting("1h").at("ssh").from("192.0.2.77"));
    daemon.wait_for_event(
        &opened("50000-50100/udp")
            .lasting("until closed")
            .at("mosh")
            .from("2001:db8::77"),
    );
    let mut listed = site.openings();
    for opening in &mut listed {
        let left = opening["left_ms"].take();
        match opening["door"].as_str() {
            Some("ssh") => assert!(
                left.as_u64()
                    .is_some_and(|ms| (3_500_000..=3_600_000).contains(&ms))
            ),
            _ => assert!(left.is_null()),
        }
    }
    listed.sort_by_key(|opening| opening["source"].to_string() + &opening["opens"].to_string());
    let one = |source, door, opens| json!({ "source": source, "door": door, "opens": opens, "left_ms": null });
    assert_eq!(
        listed,
        [
            one("192.0.2.77", "ssh", "22/tcp"),
            one("2001:db8::77", "mosh", "22/tcp"),
            one("2001:db8::77", "mosh", "50000-50100/udp"),
        ]
    );
    let text = site.run("list");
    let has = |start: &str, end: &str| {
        text.lines()
            .any(|l| l.starts_with(start) && l.ends_with(end))
    };
    assert!(has("192.0.2.77\t22/tcp\tssh\t59m ", "s left"), "{text}");
    assert!(
        has("2001:db8::77\t50000-50100/udp\tmosh\t", "until closed"),
        "{text}"
    );
}

#[test]
fn the_status_tells_what_is_heard_and_done() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp"));
    let status = site.status();
    assert_eq!(status["pid"], daemon.id());
    assert_eq!(status["configuration"], site.config().display().to_string());
    assert_eq!(status["listening"], json!(["eth0"]));
    assert_eq!(status["opened"], 1);
    assert_eq!(
        status["table"],
        json!({ "name": "knockd", "owned": true, "openings": 1 })
    );
    let doors =
        json!([{ "name": "ssh", "disabled": false }, { "name": "shut", "disabled": false }]);
    assert_eq!(status["doors"], doors);
    assert!(status["packets"]["read"].as_u64() >= Some(3), "{status}");
    let text = site.run("status");
    assert!(
        text.contains(&format!(", process {}, up ", daemon.id())),
        "{text}"
    );
}

#[test]
fn doors_are_opened_and_closed_by_hand() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &format!("{SSH}{MOSH}"));
    let mut daemon = site.start("");
    let [four, six] = CLIENT;
    let to = |server| (ip(server), 22);
    let said = site.run(&format!("open ssh {four}"));
    assert_eq!(said, format!("{four}: ssh: opened 22/tcp for 1h\n"));
    let _open = lab
        .client
        .connect(ip(four), to(SERVER[0]), SOON)
        .expect_connected();
    let said = site.run(&format!("open ssh {four} --for 2h"));
    assert_eq!(said, format!("{four}: ssh: extended 22/tcp for 2h\n"));
    let said = site.run(&format!("open ssh {four}"));
    assert_eq!(
        said,
        format!("{four}: ssh: done; nothing was opened that was not open already, or for longer\n")
    );
    let said = site.run(&format!("open mosh {six} --for 90s"));
    let told = [("22/tcp", "1m 30s"), ("50000-50100/udp", "1m 30s")];
    let told = told.map(|(port, time)| format!("{six}: mosh: opened {port} for {time}"));
    assert_eq!(lines(&said), told);
    daemon.wait_for_line(&format!("{six}: mosh: opened by hand"));

    // As others write it.
    let said = site.run(&format!("close ::ffff:{four}"));
    assert_eq!(said, format!("{four}: ssh: closed 22/tcp\n"));
    lab.client
        .connect(ip(four), to(SERVER[0]), SILENCE)
        .expect_silence();
    let said = site.run("close --all");
    let told = ["22/tcp", "50000-50100/udp"].map(|p| format!("{six}: mosh: closed {p}"));
    assert_eq!(lines(&said), told);
    assert_eq!(site.run("list"), "nothing is open\n");
    // Nothing to close is no fault.
    for whose in ["--all", OTHER[0]] {
        assert_eq!(site.run(&format!("close {whose}")), "nothing was open\n");
    }

    let refused = |words: &str, why: &str| {
        let (code, said) = failure(&site.try_run(words));
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(why), "{said}");
    };
    let why = "no door `shh`; there are: ssh, shut, mosh";
    refused(&format!("open shh {four}"), why);
    refused(&format!("open ssh {four} --for 11years"), "ten years");
    refused(&format!("open ssh {four} --for 0s"), "a time of 0");
    assert!(site.openings().is_empty());
}

#[test]
fn a_cleared_table_stays_away_until_the_reload() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let connect = |patience| {
        lab.client
            .connect(ip(CLIENT[0]), (ip(SERVER[0]), 22), patience)
    };
    connect(SILENCE).expect_silence();
    let said = site.run("clear");
    assert!(said.contains("NOTHING IS GUARDED"), "{said}");
    assert_eq!(lab.server.run("nft list ruleset"), "");
    let _open = connect(SOON).expect_connected();
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_line("the table was cleared by hand");
    // Once more is no fault, and nothing is open because everything is.
    for words in ["clear", "close --all", "list"] {
        let none = "there is no table inet knockd: nothing is guarded\n";
        assert_eq!(site.run(words), none, "{words}");
    }
    site.reload(&daemon);
    connect(SILENCE).expect_silence();
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
}

#[test]
fn without_a_daemon_its_table_is_listed_closed_and_cleared() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &format!("{SSH}{MOSH}"));
    for (words, why) in [
        ("status", "no daemon listens at"),
        ("open ssh 192.0.2.77", "there is no table inet knockd"),
    ] {
        let (code, said) = failure(&site.try_run(words));
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(
        site.run("list"),
        "there is no table inet knockd: nothing is guarded\n"
    );
    assert_eq!(site.run("list --json"), "[]\n");
    assert_eq!(
        site.run("clear"),
        "there is no table inet knockd: nothing is guarded\n"
    );
    // Closing shuts what is open, not what never was.
    site.run("close --all");
    assert_eq!(lab.server.run("nft list ruleset"), "");
    // In somebody else's table nothing of ours is open, and nothing guarded.
    lab.server.nft("table inet knockd { }");
    for words in ["list", "list --json", "close --all", "clear", "guard"] {
        let (code, said) = failure(&site.try_run(words));
        assert_eq!(code, 69, "{words}: {said}");
        assert!(said.contains("that knockd did not make"), "{words}: {said}");
    }
    lab.server.run("nft delete table inet knockd");

    // Killed or stopped: its table is an orphan, or a plain one.
    for kill in [true, false] {
        let daemon = site.start("");
        for own in CLIENT {
            site.run(&format!("open ssh {own}"));
        }
        match kill {
            true => daemon.kill(),
            false => drop(daemon.terminate()),
        }
        assert_eq!(site.openings().len(), 2);
        let said = site.run(&format!("close {}", CLIENT[0]));
        assert!(said.contains("192.0.2.77: ssh: closed 22/tcp"), "{said}");
        assert_eq!(site.openings().len(), 1);
        let to = (ip(SERVER[0]), 22);
        lab.client
            .connect(ip(CLIENT[0]), to, SILENCE)
            .expect_silence();
        site.run("close --all");
        assert_eq!(site.run("list"), "nothing is open\n");
        assert_eq!(site.run("clear"), "the table inet knockd is removed\n");
        assert_eq!(lab.server.run("nft list ruleset"), "");
        let _open = lab
            .client
            .connect(ip(CLIENT[0]), to, SOON)
            .expect_connected();
    }
}

/// At three in the morning it is the daemon that does not start, and its guard that stands.
#[test]
fn without_a_daemon_somebody_is_let_in_all_the_same() {
    needs!(Laboratory);
    const COMMANDS: &str = "start_command = \"true\"\n[door.run]\nsequence = \
        [\"7011/tcp\", \"8112/udp\", \"9213/tcp\"]\nstart_command = \"true\"\n[door.shut]";
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &SSH.replacen("[door.shut]", COMMANDS, 1));
    site.start("").kill();
    let [four, _] = CLIENT;
    let said = site.run(&format!("open ssh {four} --for 5m"));
    let done = [
        format!("{four}: ssh: opened 22/tcp for 5m"),
        "the command of ssh is not run: no daemon runs".to_owned(),
    ];
    assert_eq!(lines(&said), done);
    let to = (ip(SERVER[0]), 22);
    let _open = lab.client.connect(ip(four), to, SOON).expect_connected();
    lab.client
        .connect(ip(OTHER[0]), to, SILENCE)
        .expect_silence();
    for (door, why) in [("run", "no daemon runs"), ("shh", "no door `shh`")] {
        let (code, said) = failure(&site.try_run(&format!("open {door} {four}")));
        assert_eq!(code, 69);
        assert!(said.contains(why), "{said}");
    }
    // The daemon takes it over, and runs commands.
    let mut daemon = site.start("");
    assert_eq!(site.openings().len(), 1);
    let said = site.run(&format!("open run {four}"));
    assert!(said.contains("run: the command is asked for"), "{said}");
    daemon.wait_for_line("run: running command: true");
}

/// Of two daemons with one folder the first has the socket: what is meant for the other is
/// not done by it.
#[test]
fn a_daemon_of_another_file_is_not_meant() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    let renamed = format!("[firewall]\ntable = \"other\"\n{SSH}");
    let file = lab.write("other.toml", &renamed);
    let run_dir = site.path("run");
    let other = |words: &str| {
        let mut command = lab.server.command(KNOCKD);
        command.args(words.split_whitespace()).arg("-c").arg(&file);
        command.arg("--run-dir").arg(&run_dir);
        command.arg("--state-dir").arg(site.path("other"));
        command
    };
    let mut second = Process::start(&mut other("-v"));
    second.wait_for_line("another knockd has it");
    second.wait_for_line("starting up, listening on");
    site.run(&format!("open ssh {}", CLIENT[0]));
    for words in ["status", "open ssh 192.0.2.78", "close --all", "clear"] {
        let output = other(words).output().expect("nsenter");
        let (code, said) = failure(&output);
        assert_eq!(code, 69, "{words}: {said}");
    }
    let (_, said) = failure(&other("status").output().expect("nsenter"));
    let runs = format!("runs with {}, not with", site.config().display());
    assert!(said.contains(&runs), "{said}");
    assert_eq!(site.openings().len(), 1);
    // With its daemon gone, its table is an orphan like any other.
    second.terminate();
    let output = other("clear").output().expect("nsenter");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "the table inet other is removed\n");
    assert_eq!(lab.server.run("nft list tables"), "table inet knockd\n");
}

/// One of two sets may not be there: who asked is told what is done all the same.
#[test]
fn what_is_half_done_is_told() {
    needs!(Laboratory);
    let lab = Lab::new();
    let two = "add = { table = \"inet filter\", set = \"knocked\", for = \"1h\" }\n[door.shut]";
    let site = Site::new(&lab, &SSH.replacen("[door.shut]", two, 1));
    let mut daemon = site.start("");
    let (code, said) = failure(&site.try_run("open ssh 192.0.2.77"));
    assert_eq!(code, 69);
    assert!(said.contains("knocked is not there yet"), "{said}");
    let done = "but this is done: 192.0.2.77: ssh: opened 22/tcp for 1h";
    assert!(said.contains(done), "{said}");
    daemon.wait_for_line("192.0.2.77: ssh: opened by hand");
    // Without a daemon nobody waits for the set.
    daemon.kill();
    let (code, said) = failure(&site.try_run("open ssh 192.0.2.78"));
    assert_eq!(code, 69);
    let all = "set inet filter knocked is not there, and no daemon waits for it; \
               but this is done: 192.0.2.78: ssh: opened 22/tcp for 1h\n";
    assert!(said.ends_with(all), "{said}");
}

/// `[firewall]` is gone from the file, and the table is not.
#[test]
fn a_table_of_an_earlier_file_is_not_denied() {
    needs!(Laboratory);
    const NO_TABLE: &str = "[door.run]\nsequence = [\"7011/tcp\", \"8112/udp\", \
        \"9213/tcp\"]\nstart_command = \"true\"\n";
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    site.start("").terminate();
    site.configure(NO_TABLE);
    let mut daemon = site.start("");
    let (code, said) = failure(&site.try_run("close --all"));
    assert_eq!(code, 69);
    assert!(said.contains("guards still"), "{said}");
    assert_eq!(site.run("clear"), "the table inet knockd is removed\n");
    daemon.wait_for_line("the table inet knockd is removed");
    let nothing = "there is no table inet knockd: nothing is guarded\n";
    assert_eq!(site.run("close --all"), nothing);
}

#[test]
fn the_guard_alone_is_put_in_place_and_taken_over() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    site.run("guard");
    let to = (ip(SERVER[0]), 22);
    lab.client
        .connect(ip(CLIENT[0]), to, SILENCE)
        .expect_silence();
    let mut daemon = site.start("");
    // Beside a daemon it is not needed, and changes nothing.
    let ruleset = || lab.server.run("nft -s list ruleset");
    let before = ruleset();
    site.run("guard");
    assert_eq!(ruleset(), before);
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    let _open = lab
        .client
        .connect(ip(CLIENT[0]), to, SOON)
        .expect_connected();
}

#[test]
fn bad_clients_are_refused_and_wait_for_nobody() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let path = site.path("run").join("knockd.sock");
    let mode = std::fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        let address = SockAddr::unix(&path).expect("a short path");
        socket.connect(&address).expect("the daemon listens");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        socket
    };
    let ask = |request: &[u8]| {
        let mut socket = client();
        socket.send(request).expect("the daemon listens");
        let mut answer = vec![0; 4096];
        let length = socket.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let long = vec![b'['; 100_000];
    for rubbish in [
        &b"rubbish"[..],
        b"\0",
        b"{}",
        b"\"status\" \"status\"",
        b"{\"open\":{\"door\":\"ssh\",\"address\":\"192.0.2.77\",\"for_ms\":null,\"by\":1}}",
        b"{\"open\":{\"door\":\"ssh\",\"address\":\"everybody\",\"for_ms\":null}}",
        b"{\"open\":{\"door\":\"ssh\",\"address\":\"192.0.2.77\",\"for_ms\":0}}",
        &long,
    ] {
        let answer = ask(rubbish);
        assert!(answer.starts_with("{\"refused\":"), "{answer}");
    }
    // Many that say nothing, and some that ask and do not stay for the answer.
    let _silent: Vec<_> = (0..20).map(|_| client()).collect();
    for _ in 0..20 {
        client().send(b"\"status\"").expect("the daemon listens");
    }
    assert!(site.run("status").contains("process"));
    // A client that sends nothing is cut off after its second, though no other client comes.
    let mut silent = client();
    assert_eq!(silent.read(&mut [0; 1]).expect("within a second"), 0);
    assert!(site.openings().is_empty());
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    let (status, _) = daemon.terminate();
    assert!(status.success());
    assert!(!path.exists());
}

/// Whoever is locked out mends that by `clear`, whatever has become of the file.
#[test]
fn a_table_is_cleared_though_the_file_is_faulty_or_has_none() {
    needs!(Laboratory);
    const COMMAND: &str = r#"
[door.ssh]
sequence      = ["7001/tcp", "8102/udp", "9203/tcp"]
start_command = "true"
"#;
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    for left in [COMMAND, "[firewall"] {
        site.configure(SSH);
        site.start("").terminate();
        std::fs::remove_dir_all(site.path("state")).expect("what the daemon kept");
        site.configure(left);
        assert_eq!(site.run("clear"), "the table inet knockd is removed\n");
    }
}
