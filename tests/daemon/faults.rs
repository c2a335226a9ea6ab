//! Whatever keeps a daemon from starting is reported in words and by the exit code (sysexits(3)).

use crate::site::{OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, OTHER, Process, SERVER, SILENCE, SOON, ip, wait_until};

/// Faults on three lines.
const FAULTY: &str = r#"
[firewall]
gaurd = "drop"

[door.ssh]
sequence = ["7001/tcp", "0/udp", "9203/tcp"]
open     = ["22/tcp"]
open_for = "0s"
"#;

#[test]
fn a_faulty_file_is_told_whole_with_carets() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, FAULTY);
    let (code, said) = failure(&site.try_run("-v"));
    assert_eq!(code, 78, "{said}");
    let name = site.config().display().to_string();
    for place in ["3:1", "6:25", "8:12"] {
        assert!(
            said.contains(&format!("{name}:{place}: ")),
            "{place}: {said}"
        );
    }
    // Of the line with the sequence nothing is shown but where it is: others read the log.
    assert_eq!(said.matches('^').count(), 2, "{said}");
    for step in ["7001", "9203", "0/udp"] {
        assert!(!said.contains(step), "{step}: {said}");
    }
    assert!(said.contains("did you mean `guard`"), "{said}");
    assert_eq!(lab.server.run("nft list ruleset"), "");
}

#[test]
fn a_faulty_file_neither_opens_the_host_nor_locks_out_its_owner() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let (status, _) = site.start("").terminate();
    assert!(status.success());
    // The second is what a full disk or a power failure leaves of a file.
    for (text, fault) in [
        (FAULTY, ["3:1: unknown key", "^~~~"]),
        ("", ["1:1: there is no door", "help: to stop guarding"]),
    ] {
        lab.server.run("nft flush ruleset");
        site.configure(text);
        let mut daemon = site.start("");
        for words in fault {
            daemon.wait_for_line(words);
        }
        daemon.wait_for_line("CANNOT BE USED: running with the last configuration");
        let to = (ip(SERVER[0]), 22);
        lab.client
            .connect(ip(OTHER[0]), to, SILENCE)
            .expect_silence();
        knock(&lab, SERVER[0], OPEN_SSH);
        daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
        let _stream = lab
            .client
            .connect(ip(CLIENT[0]), to, SOON)
            .expect_connected();
        daemon.terminate();
    }
}

#[test]
fn a_missing_file_is_named() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    std::fs::remove_file(site.config()).expect("a file of ours");
    let (code, said) = failure(&site.try_run("-v"));
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains(&site.config().display().to_string()),
        "{said}"
    );
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn a_second_daemon_says_who_runs() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    let before = lab.server.run("nft -j list ruleset");
    let (code, said) = failure(&site.try_run("-v"));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&format!("process {}", daemon.id())), "{said}");
    assert_eq!(lab.server.run("nft -j list ruleset"), before);
    // The first is not harmed.
    site.run("status");
}

/// Neither a folder that cannot be written nor a helper that cannot be had leaves ports open.
#[test]
fn the_guard_stands_whatever_else_fails() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let stands = |daemon: Option<Process>| {
        let to = (ip(SERVER[0]), 22);
        let attempt = lab.client.connect(ip(OTHER[0]), to, SILENCE);
        attempt.expect_silence();
        drop(daemon);
        lab.server.run("nft flush ruleset");
    };
    std::fs::create_dir_all(site.path("run/knockd.lock")).expect("a folder in the way");
    let mut daemon = site.start("");
    daemon.wait_for_line("nothing keeps a second daemon away");
    stands(Some(daemon));
    // The listener is the same program, started anew. The helper is given its text in memory.
    let command = "start_command = \"true\"\nopen     =";
    let with_command = SSH.replacen("open     =", command, 1);
    for (configuration, refused, what) in [
        (
            SSH,
            "-P /proc/self/exe -e inject=execve:error=EACCES",
            "cannot start the listener",
        ),
        (
            &with_command,
            "-e inject=memfd_create:error=EMFILE",
            "cannot start the command helper",
        ),
    ] {
        site.configure(configuration);
        let refuse = format!("strace -f -qq -o /dev/null {refused}");
        let output = site.command_by(&refuse, "-v").output();
        let (code, said) = failure(&output.expect("strace"));
        assert_eq!(code, 71, "{said}");
        assert!(said.contains(what), "{said}");
        stands(None);
    }
}

#[test]
fn a_missing_capability_is_named() {
    needs!(Laboratory);
    let lab = Lab::new();
    for (lacking, named) in [("net_raw", "CAP_NET_RAW"), ("net_admin", "CAP_NET_ADMIN")] {
        let site = Site::new(&lab, SSH);
        let starter = format!("setpriv --bounding-set=-{lacking} --inh-caps=-{lacking}");
        let output = site.command_by(&starter, "-v").output();
        let (code, said) = failure(&output.expect("setpriv"));
        assert_eq!(code, 77, "{said}");
        assert!(said.contains(named), "{said}");
    }
}

/// Whoever does not touch the firewall needs no right to.
#[test]
fn without_a_table_cap_net_raw_is_enough() {
    needs!(Laboratory);
    let lab = Lab::new();
    let text = "[door.d]\nsequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]\n\
                start_command = \"echo it ran for %IP%\"\n";
    let site = Site::new(&lab, text);
    let starter = "setpriv --bounding-set=-all,+net_raw --inh-caps=-all";
    let mut daemon = Process::start(&mut site.command_by(starter, "-v"));
    daemon.wait_for_line("starting up");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_line("it ran for 192.0.2.77");
}

#[test]
fn what_is_not_understood_on_the_command_line_is_usage() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    for words in ["--no-such-flag", "open ssh", "close", "--read x.pcap"] {
        let (code, said) = failure(&site.try_run(words));
        assert_eq!(code, 64, "{words}: {said}");
    }
    assert!(site.run("-V").starts_with("knockd 0."));
    assert!(site.run("-h").contains("--dry-run"));
}

#[test]
fn the_exit_code_is_the_same_where_nobody_reads_what_is_wrong() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, FAULTY);
    let legacy = lab.write("knockd.conf", "[d]\nsequence = 7001,8102\ncommand = x\n");
    let convert = format!("convert --native {}", legacy.display());
    let ends_with = |words: &str, code| {
        let gone = std::fs::File::options().write(true).open("/dev/full");
        let mut command = site.command(words);
        command.stderr(gone.expect("a device of every Linux"));
        let status = command.status().expect("nsenter");
        assert_eq!(status.code(), Some(code), "{words}");
    };
    for words in ["-v", "--dry-run", "check"] {
        ends_with(words, 78);
    }
    ends_with(&convert, 0);
    // With a warning; and with a configuration that was good before.
    let published = SSH.replace(
        "7001/tcp\", \"8102/udp\", \"9203",
        "7000/tcp\", \"8000/udp\", \"9000",
    );
    site.configure(&published);
    ends_with("--dry-run", 0);
    let (status, _) = site.start("").terminate();
    assert!(status.success());
    lab.server.run("nft flush ruleset");
    site.configure(FAULTY);
    ends_with("guard", 0);
    let guard = lab.server.run("nft list ruleset");
    assert!(guard.contains("tcp . 22"), "{guard}");
}

/// systemd starts it again for ever: what it says is to come ever more rarely.
#[test]
fn a_daemon_that_cannot_start_again_and_again_takes_longer_over_it() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, FAULTY);
    let counted = site.path("run/failed-starts");
    let by_manager = |command: &mut std::process::Command| {
        Process::start(command.env("NOTIFY_SOCKET", "/nowhere"))
    };
    std::fs::create_dir(site.path("run")).expect("a folder of ours");
    for (turn, arguments, code) in [(1, "", 78), (2, "-i eth/0", 64), (3, "", 78)] {
        let (status, _) = by_manager(&mut site.command(arguments)).wait();
        assert_eq!(status.code(), Some(code), "turn {turn}");
        let text = std::fs::read_to_string(&counted).expect("counted");
        assert_eq!(text, format!("{turn}\n"));
    }
    std::fs::write(&counted, "30\n").expect("a file of ours");
    let mut failing = by_manager(&mut site.command(""));
    failing.wait_for_line("cannot be used, and there is no earlier configuration");
    std::thread::sleep(SILENCE);
    assert!(!failing.has_ended(), "it takes its time");
    // Whoever restarts it does not wait.
    let began = std::time::Instant::now();
    let (status, _) = failing.terminate();
    assert_eq!(status.code(), Some(78));
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
    assert_eq!(std::fs::read_to_string(&counted).expect("counted"), "31\n");
    // One that succeeds begins anew.
    site.configure(SSH);
    let mut daemon = by_manager(&mut site.command("-v"));
    daemon.wait_for_line("starting up, listening on");
    wait_until("a new beginning", || !counted.exists());
    // Without a manager nobody waits.
    std::fs::write(&counted, "30\n").expect("a file of ours");
    drop(daemon);
    site.configure(FAULTY);
    let _ = std::fs::remove_dir_all(site.path("state"));
    let (code, said) = failure(&site.try_run(""));
    assert_eq!(code, 78, "{said}");
}
