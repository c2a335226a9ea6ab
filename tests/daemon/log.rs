//! The log: where it goes, how its lines look, and that a flood does not fill the disk.

use std::io::{self, Read as _, Write as _};
use std::time::Instant;

use etherparse::PacketBuilder;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::site::{KNOCK, OPEN_SSH, SSH, Site, knock};
use crate::support::frame::{IPV4, frame};
use crate::support::{Lab, Process, SERVER, wait_for, wait_until};

fn read(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// `[YYYY-MM-DD HH:MM] `, as knock 0.8 has it; what follows.
#[track_caller]
fn after_the_time(line: &str) -> &str {
    let (time, rest) = line.split_at_checked(19).expect("a time and more");
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "[0000-00-00 00:00] ", "{line}");
    rest
}

#[test]
fn the_file_has_the_lines_of_knock_0_8_and_is_opened_anew_at_sighup() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let (file, rotated) = (site.path("knockd.log"), site.path("knockd.log.1"));
    site.configure(&format!("log.file = \"{}\"\n{SSH}", file.display()));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_line("opened 22/tcp");
    std::fs::rename(&file, &rotated).expect("the log is there");
    site.reload(&daemon);
    knock(&lab, SERVER[1], OPEN_SSH);
    daemon.wait_for_line("2001:db8::77: ssh: opened 22/tcp");
    let (status, said) = daemon.terminate();
    assert!(status.success());
    let (old, new) = (read(&rotated), read(&file));
    // Line by line what -v printed, each with its time.
    let all: Vec<_> = old.iter().chain(&new).map(|l| after_the_time(l)).collect();
    assert_eq!(all, said);
    let re_reading = format!("re-reading config file: {}", site.config().display());
    assert!(
        old.iter().any(|line| line.ends_with(&re_reading)),
        "{old:?}"
    );
    assert!(
        old.iter()
            .any(|line| line.ends_with("192.0.2.77: ssh: Stage 1"))
    );
    assert!(
        new.iter()
            .any(|line| line.ends_with("2001:db8::77: ssh: OPEN SESAME"))
    );
    assert_eq!(new.last().map(|l| after_the_time(l)), Some("shutting down"));
}

/// By a name as containers have it, by a rule, by a path; what glibc makes of them is right.
#[test]
fn the_time_is_local_however_tz_says_it() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let zones = [
        "Asia/Kolkata",
        ":Asia/Kolkata",
        "America/New_York",
        "Europe/Berlin",
        "EST5EDT",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "/usr/share/zoneinfo/Asia/Tokyo",
        "UTC",
        "",
    ];
    let date = |zone: &str| {
        let mut date = std::process::Command::new("date");
        let output = date.arg("+[%Y-%m-%d %H:%M]").env("TZ", zone).output();
        String::from_utf8(output.expect("date").stdout).expect("text")
    };
    assert_ne!(date("Asia/Kolkata"), date("UTC"), "package tzdata");
    for zone in zones {
        let file = site.path("knockd.log");
        let before = date(zone);
        let mut command = site.command(&format!("-v -g {}", file.display()));
        let mut daemon = Process::start(command.env("TZ", zone));
        daemon.wait_for_line("starting up, listening on");
        daemon.terminate();
        let lines = read(&file);
        let written = lines[0][..18].to_owned();
        // A minute may end meanwhile.
        let right = [before.trim(), &date(zone)].map(|time| time.trim().to_owned());
        assert!(right.contains(&written), "{zone}: {written}, not {right:?}");
        std::fs::remove_file(file).expect("there");
    }
}

#[test]
fn g_beats_the_file_of_the_configuration() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let (configured, given) = (site.path("configured.log"), site.path("given.log"));
    site.configure(&format!("log.file = \"{}\"\n{SSH}", configured.display()));
    let daemon = site.start(&format!("-g {}", given.display()));
    daemon.terminate();
    assert!(!configured.exists());
    let lines = read(&given);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("starting up, listening on"))
    );
}

/// A log that cannot be written must not keep the guard from standing.
#[test]
fn without_its_file_the_daemon_says_so_and_runs() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("-g /nowhere/knockd.log");
    daemon.wait_for_line("cannot open the log /nowhere/knockd.log");
    site.run("status");
}

#[test]
fn stdout_has_what_was_asked_for_and_stderr_what_is_wrong() {
    needs!(Laboratory);
    let lab = Lab::new();
    for (flag, happens, debugs) in [
        ("-4", false, false),
        ("-v", true, false),
        ("-D", true, true),
    ] {
        let site = Site::new(&lab, SSH);
        let errors = site.path("stderr");
        let script = site.path("script");
        let text = format!("exec \"$@\" 2>{}", errors.display());
        std::fs::write(&script, text).expect("a file of ours");
        let starter = format!("sh {}", script.display());
        let mut daemon = Process::start(&mut site.command_by(&starter, flag));
        let log = site.path("run").join("knockd.sock");
        wait_until("the daemon", || log.exists());
        knock(&lab, SERVER[0], "7001 8102:udp 7001");
        wait_until("the knock", || {
            let status: serde_json::Value =
                serde_json::from_str(&site.run("status --json")).expect("JSON");
            status["packets"]["read"].as_u64() >= Some(3)
        });
        site.configure("[firewall");
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        let faults = wait_for("the reload", || {
            let faults = read(&errors);
            let last = faults
                .iter()
                .any(|line| line.contains("the running configuration stays"));
            last.then_some(faults)
        });
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        let (_, lines) = daemon.wait();
        assert!(faults[0].starts_with("knockd: "), "{faults:?}");
        let has = |words: &str| lines.iter().any(|line| line.contains(words));
        assert_eq!(
            has("192.0.2.77: ssh: Stage 2"),
            happens,
            "{flag}: {lines:?}"
        );
        // Which port was wrong is part of somebody's sequence.
        assert_eq!(
            has("192.0.2.77: ssh: sequence reset"),
            debugs,
            "{flag}: {lines:?}"
        );
        assert!(!has("the running configuration stays"), "{flag}: {lines:?}");
        assert_eq!(lines.is_empty(), !happens, "{flag}: {lines:?}");
    }
}

/// A pipe with no room left in it, and what it holds.
fn full_pipe() -> (io::PipeReader, io::PipeWriter, usize) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let set = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("a pipe of ours");
    set(OFlag::O_NONBLOCK);
    let filled = (0..).take_while(|_| (&writer).write(b"\n").is_ok()).count();
    set(OFlag::empty());
    writer.flush().expect("nothing is kept");
    (reader, writer, filled)
}

/// A pager that is not paged on, a program that hangs: the daemon opens doors all the same.
#[test]
fn who_does_not_read_the_log_holds_up_nobody() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let file = site.path("knockd.log");
    for streams in ["stdout", "both", "log"] {
        let (mut reader, writer, filled) = full_pipe();
        let mut command = match streams {
            "log" => site.command("-v -g /dev/stdout"),
            _ => site.command(&format!("-v -g {}", file.display())),
        };
        if streams == "both" {
            command.stderr(writer.try_clone().expect("a pipe of ours"));
        }
        let mut daemon = Process::start_uncollected(command.stdout(writer));
        drop(command);
        wait_until("the daemon", || site.try_run("status").status.success());
        knock(&lab, SERVER[0], OPEN_SSH);
        wait_until("the opening", || site.openings().len() == 1);
        site.run("close --all");
        // Here is the reader again.
        let mut said = vec![0; filled];
        reader.read_exact(&mut said).expect("what was in the pipe");
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("its words");
        let (status, _) = daemon.wait();
        assert!(status.success());
        for words in ["starting up, listening on", "192.0.2.77: ssh: OPEN SESAME"] {
            assert!(said.contains(words), "{streams}: {said}");
        }
    }
}

/// Neither what it said before nor why it ends keeps it from ending.
#[test]
fn who_does_not_read_the_log_holds_up_no_end() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, "[firewall");
    let (_reader, writer, _) = full_pipe();
    let mut command = site.command("");
    command.stderr(writer);
    let (status, _) = Process::start_uncollected(&mut command).wait();
    assert_eq!(status.code(), Some(78), "{status}");
}

#[test]
fn l_writes_the_name_of_who_has_opened_a_door_and_asks_for_no_other() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("-l -i lo");
    // The one name that every host knows without asking (/etc/hosts).
    lab.server.run(&format!("{} 127.0.0.1 {OPEN_SSH}", KNOCK));
    daemon.wait_for_line("127.0.0.1: ssh: Stage 1");
    daemon.wait_for_line("127.0.0.1 (localhost): ssh: OPEN SESAME");
}

/// Two hundred sources that knock at once, and two thousand more that only begin.
#[test]
fn a_flood_does_not_fill_the_log_and_hides_no_opening() {
    needs!(Laboratory);
    const BEGIN: u16 = 2000;
    const OPEN: u16 = 200;
    let lab = Lab::new();
    let site = Site::new(
        &lab,
        "door.d = { sequence = [\"7001/tcp\", \"9203/tcp\", \"8102/tcp\"], open = [\"22/tcp\"], open_for = \"1h\" }",
    );
    let mut daemon = site.start("");
    let socket = lab.client.frames("eth0");
    let begun = Instant::now();
    for source in 0..BEGIN + OPEN {
        let ports: &[u16] = match source < BEGIN {
            true => &[7001],
            false => &[7001, 9203, 8102],
        };
        for port in ports {
            let frame = syn(source, *port);
            socket.send(&frame).expect("the interface is up");
        }
    }
    let count = |words: &str| daemon.lines().iter().filter(|l| l.contains(words)).count();
    wait_until("each opening's lines", || {
        count(": d: OPEN SESAME") == usize::from(OPEN)
            && count(": d: opened 22/tcp") == usize::from(OPEN)
    });
    // Each stage is told: by a line, or in a count.
    let stages = usize::from(BEGIN) + 3 * usize::from(OPEN);
    wait_until("the count of what was not written", || {
        let lines = daemon.lines();
        let counts = lines
            .iter()
            .filter_map(|l| l.strip_suffix(" more stages not written"));
        let counted: usize = counts.map(|n| n.parse::<usize>().expect("a number")).sum();
        count(": d: Stage ") + counted == stages
    });
    let written = count(": d: Stage ");
    let seconds = begun.elapsed().as_secs_f64().ceil();
    assert!(written as f64 <= 40.0 * seconds, "{written} in {seconds} s");
    assert!(site.openings().len() == usize::from(OPEN));
    daemon.wait_for_line("more stages not written");
}

/// A SYN by one of many who may be forged (RFC 2544 has their network).
fn syn(source: u16, port: u16) -> Vec<u8> {
    let [high, low] = source.to_be_bytes();
    let builder = PacketBuilder::ipv4([198, 18, high, low], [192, 0, 2, 1], 64);
    let mut packet = Vec::new();
    let syn = builder.tcp(20_000, port, u32::from(source), 1024).syn();
    syn.write(&mut packet, &[]).expect("a short packet");
    frame(IPV4, &packet)
}

/// The level is the configuration's, and a reload's as well; `-v` and `-D` speak on stdout
/// whatever it is, and put nothing more into the file.
#[test]
fn the_level_is_that_of_the_configuration_that_runs() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let file = site.path("knockd.log");
    let at = |level: &str| format!("log = {{ level = \"{level}\", file = {file:?} }}\n{SSH}");
    site.configure(&at("warn"));
    let mut daemon = site.start("-D");
    let kept = |words: &str| read(&file).iter().filter(|l| l.ends_with(words)).count();
    let knock_wrong = |times: usize, kept_resets: usize, kept_stages: usize| {
        knock(&lab, SERVER[0], "7001 9203");
        let reset = "ssh: sequence reset (stage 1): wrong step 9203/tcp";
        wait_until("the line", || {
            let lines = daemon.lines();
            lines.iter().filter(|l| l.ends_with(reset)).count() == times
        });
        // The file has a thread of its own.
        wait_until("the file", || {
            kept(reset) == kept_resets && kept("ssh: Stage 1") == kept_stages
        });
        site.configure(&at(["debug", "error"][times - 1]));
        site.reload(&daemon);
    };
    knock_wrong(1, 0, 0);
    knock_wrong(2, 1, 1);
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_line("192.0.2.77: ssh: OPEN SESAME");
    // At its end the daemon writes all that the file's thread has not written yet.
    daemon.terminate();
    assert_eq!(kept("OPEN SESAME"), 0, "{:?}", read(&file));
}

/// sd-daemon(3): without a number in front, the journal takes a line for what is of no importance.
#[test]
fn the_journal_is_told_that_a_fatal_reason_is_an_error() {
    needs!(Laboratory);
    let lab = Lab::new();
    for (words, code) in [("", 78), ("guard", 78), ("-i eth/0", 64)] {
        let site = Site::new(&lab, "[firewall]\ngaurd = \"drop\"\n");
        let (file, script) = (site.path("journal"), site.path("script"));
        let text = format!(
            "exec 2>{}\nexport JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)\nexec \"$@\"",
            file.display()
        );
        std::fs::write(&script, text).expect("a file of ours");
        let starter = format!("sh {}", script.display());
        let (status, _) = Process::start(&mut site.command_by(&starter, words)).wait();
        assert_eq!(status.code(), Some(code), "{words}");
        let lines = read(&file);
        assert!(lines.len() > 1, "{lines:?}");
        let is_error = |line: &String| line.starts_with("<3>") || line.starts_with("<4>");
        assert!(lines.iter().all(is_error), "{lines:?}");
        assert!(
            lines.last().is_some_and(|l| l.starts_with("<3>")),
            "{lines:?}"
        );
    }
}

/// A start gives each warning once, though two processes read the file.
#[test]
fn a_start_tells_its_warnings_once() {
    needs!(Laboratory);
    let lab = Lab::new();
    let text = "[door.a]\nsequence = [\"7000/tcp\", \"8000/tcp\", \"9000/tcp\"]\n\
                start_command = \"true\"\n";
    let site = Site::new(&lab, text);
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], "7000 8000 9000");
    daemon.wait_for_line("running command: true");
    assert_eq!(daemon.count("warning: "), 1, "{:?}", daemon.lines());
}
