//! Requests to the daemon by `knockd open`, `close`, `reload` and the others.
//!
//! Which daemon obeys, how large an answer may be, how long it is waited for, and what happens to a
//! file that is refused.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::site::{KNOCKD, OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, SERVER, SILENCE, ip};

/// More doors than one message of a socket has room for.
const MANY: usize = 6000;

fn many_doors() -> String {
    let mut text = String::new();
    for number in 0..MANY {
        let steps = [
            20_000 + number,
            31_000 - number % 997,
            40_000 + number % 991,
        ];
        let [first, second, third] = steps;
        let _ = write!(
            text,
            "[door.of-the-flat-number-{number}]\nopen = [\"22/tcp\"]\n\
             sequence = [\"{first}/tcp\", \"{second}/udp\", \"{third}/tcp\"]\n"
        );
    }
    text
}

/// A request to a daemon with a very long answer is not answered by another daemon.
#[test]
fn of_two_daemons_the_right_one_obeys_whatever_the_other_has_to_say() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &many_doors());
    let _daemon = site.start("");
    let doors = |status: serde_json::Value| status["doors"].as_array().map(Vec::len);
    assert_eq!(doors(site.status()), Some(MANY));
    let text = site.run("status");
    assert!(text.contains("of-the-flat-number-5999\n"), "{}", text.len());

    let renamed = format!("[firewall]\ntable = \"other\"\n{SSH}");
    let file = lab.write("other.toml", &renamed);
    let other = |words: &str, run_dir: &str| {
        let mut command = lab.server.command(KNOCKD);
        command.args(words.split_whitespace()).arg("-c").arg(&file);
        command.arg("--run-dir").arg(site.path(run_dir));
        command.arg("--state-dir").arg(site.path("other"));
        command
    };
    let mut second = crate::support::Process::start(&mut other("-v", "elsewhere"));
    second.wait_for_line("starting up, listening on");
    let tables = || lab.server.run("nft list tables");
    let before = tables();
    assert_eq!(before.lines().count(), 2, "{before}");
    // The --run-dir is forgotten.
    for words in [
        "clear",
        "close --all",
        "open ssh 192.0.2.78",
        "status",
        "reload",
    ] {
        let output = other(words, "run").output().expect("nsenter");
        let (code, said) = failure(&output);
        assert_eq!(code, 69, "{words}: {said}");
        assert_eq!(tables(), before, "{words}");
    }
    // With it, and by another name of the file, it is the right one.
    let link = site.path("link.toml");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    let mut command = lab.server.command(KNOCKD);
    command.args(["clear", "-c"]).arg(&link);
    command.arg("--run-dir").arg(site.path("elsewhere"));
    let output = command.output().expect("nsenter");
    assert!(output.status.success(), "{output:?}");
    second.wait_for_line("the table is removed: NOTHING IS GUARDED");
    assert_eq!(tables(), "table inet knockd\n");
}

/// A stopped daemon takes nobody in: those who ask find room in its backlog at first, and then
/// none.
#[test]
fn a_daemon_that_is_stopped_is_not_waited_for_for_ever() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    daemon.signal(Signal::SIGSTOP);
    let path = site.path("run").join("knockd.sock");
    let crowd: Vec<_> = (0..20)
        .map(|_| {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            let _ = socket.connect(&SockAddr::unix(&path).expect("a short path"));
            socket
        })
        .collect();
    let asked = Instant::now();
    let children: Vec<_> = ["status", "clear", "close --all", "open ssh 192.0.2.77"]
        .map(|words| {
            (
                words,
                crate::support::Process::start(&mut site.command(words)),
            )
        })
        .into();
    for (words, mut child) in children {
        let (status, lines) = child.wait();
        assert_eq!(status.code(), Some(69), "{words}: {lines:?}");
        let said = lines.join("\n");
        assert!(said.contains("it is stopped or hangs"), "{words}: {said}");
    }
    assert!(asked.elapsed() < Duration::from_secs(60));
    daemon.signal(Signal::SIGCONT);
    drop(crowd);
    site.run("status");
}

#[test]
fn the_table_of_another_files_daemon_is_not_cleared() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("--watch");
    let mut command = lab.server.command(KNOCKD);
    command
        .args(["clear", "-c"])
        .arg(lab.write("other.toml", SSH));
    command.arg("--run-dir").arg(site.path("run"));
    let (code, said) = failure(&command.output().expect("nsenter"));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("runs already"), "{said}");
    assert_eq!(lab.server.run("nft list tables"), "table inet knockd\n");
    let (_, lines) = daemon.terminate();
    assert!(!lines.iter().any(|line| line.contains("deleted the table")));
}

/// It may be the journal that reads what `knockd reload` says.
#[test]
fn a_reload_tells_no_step() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let daemon = site.start("");
    let weak = "[door.weak]\nsequence = [\"7000/tcp\", \"8000/tcp\", \"9000/tcp\"]\n\
                open = [\"80/tcp\"]\n";
    site.configure(&format!("{SSH}{weak}"));
    let said = site.run("reload");
    assert!(said.lines().count() > 1, "it is warned of: {said}");
    for lines in [said.lines().map(str::to_owned).collect(), daemon.lines()] {
        let told = |line: &String| line.contains("8000");
        assert!(!lines.iter().any(told), "{lines:?}");
    }
}

#[test]
fn a_refused_file_is_told_until_a_good_one_is_read() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    assert!(site.status()["refused"].is_null());
    let said = site.run("reload");
    assert_eq!(said, "the new configuration is in force\n");

    // A warning that stands before the errors is not why the file is refused.
    let weak = "[door.weak]\nsequence = [\"7000/tcp\", \"8000/tcp\", \"9000/tcp\"]\n\
                open = [\"80/tcp\"]\n";
    let faulty = format!("{weak}{SSH}open_fro = \"1h\"\nsequnce = []\n");
    site.configure(&faulty);
    let (code, said) = failure(&site.try_run("reload"));
    assert_eq!(code, 78, "{said}");
    for words in [
        "unknown key `open_fro`",
        "unknown key `sequnce`",
        "the running configuration stays",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Not for a log: the line itself may hold a sequence.
    assert!(!said.contains("open_fro = "), "{said}");
    daemon.wait_for_line("the running configuration stays");
    let refused = |in_use: &str| {
        let status = site.status();
        let refused = &status["refused"];
        assert_eq!(refused["in_use"], in_use);
        let first = refused["why"][0].as_str().expect("a reason");
        assert!(first.contains("unknown key `open_fro`"), "{first}");
        assert_eq!(refused["why"].as_array().map(Vec::len), Some(2));
        let text = site.run("status");
        let line = format!("\nfile: REFUSED, in use is {in_use}: ");
        assert!(text.contains(&line), "{text}");
        assert!(text.contains("(and 1 more)\n"), "{text}");
    };
    refused("the configuration that was running");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    // After a start, too, and after a signal that changes nothing.
    daemon.terminate();
    daemon = site.start("");
    refused("the last configuration that was good");
    site.reload(&daemon);
    refused("the last configuration that was good");

    site.configure(SSH);
    site.run("reload");
    assert!(site.status()["refused"].is_null());
    assert!(!site.run("status").contains("REFUSED"));

    site.run("clear");
    assert_eq!(site.status()["cleared"], true);
    let text = site.run("status");
    assert!(
        text.contains("\ntable: CLEARED, nothing is guarded"),
        "{text}"
    );
    site.run("reload");
    assert_eq!(site.status()["cleared"], false);

    daemon.terminate();
    let (code, said) = failure(&site.try_run("reload"));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("no daemon listens at"), "{said}");
}

/// A reload that the kernel refuses is no success either.
#[test]
fn a_reload_that_the_kernel_refuses_fails() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let _daemon = site.start("");
    lab.server.nft("table inet gate { }");
    site.configure(&format!("firewall.table = \"gate\"\n{SSH}"));
    let (code, said) = failure(&site.try_run("reload"));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("that knockd did not make"), "{said}");
    let status = site.status();
    let why = status["refused"]["why"][0].as_str().expect("a reason");
    assert!(why.contains("that knockd did not make"), "{why}");
}

/// A file that everybody can read, everybody can lock.
#[test]
fn nobody_else_keeps_the_daemon_from_starting_nor_makes_guard_lie() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let run_dir = site.path("run");
    let lock = run_dir.join("knockd.lock");
    // As an older knockd has left them.
    std::fs::create_dir(&run_dir).expect("a folder");
    let wide = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&run_dir, wide).expect("a folder of ours");
    std::fs::write(&lock, "").expect("a file");
    let hold = || {
        let file = File::open(&lock).expect("a file");
        file.lock().expect("a lock");
        file
    };
    let held = hold();
    site.run("guard");
    lab.server.run("nft list table inet knockd");
    lab.client
        .connect(ip(CLIENT[0]), (ip(SERVER[0]), 22), SILENCE)
        .expect_silence();
    drop(held);
    // Nobody but its owner can open what the daemon makes.
    let daemon = site.start("");
    let mode = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).expect("it is there");
        meta.permissions().mode() & 0o777
    };
    for entry in std::fs::read_dir(&run_dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let held = hold();
    daemon.kill();
    let daemon = site.start("");
    drop(held);
    let said = site.run("guard");
    assert!(said.ends_with(": it guards\n"), "{said}");
    // It says so where it is so alone.
    site.run("clear");
    let (code, said) = failure(&site.try_run("guard"));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("there is NO table inet knockd"), "{said}");
    daemon.terminate();
    let left = std::fs::read_dir(&run_dir).expect("a folder").count();
    assert_eq!(left, 0);
    std::fs::remove_dir(&run_dir).expect("an empty folder");
    site.run("guard");
    assert_eq!(mode(&run_dir), 0o700);
}
