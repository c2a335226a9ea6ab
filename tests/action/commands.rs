//! What a command is started with, and what is reported of its output and its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use knockd::action::command::{CommandRefusal, Ending, HelperReport, HelperRequest, Phase};
use knockd::model::Commands;
use nix::fcntl::{Flock, FlockArg};

use crate::helper::*;
use crate::support::{SOON, ip, wait_until};

const SHORT: Duration = Duration::from_millis(50);

/// Runs one command for one address: what it printed, and how it ended.
fn run(command: &str, source: &str) -> (Vec<String>, Ending) {
    let directory = Directory::new(&[door("d", command, "", SHORT)]);
    let mut daemon = directory.helper();
    daemon.start("d", source);
    let (reports, ending) = daemon.wait_end("d", Phase::Start);
    let lines = output(&reports).into_iter().map(str::to_owned).collect();
    (lines, ending)
}

#[test]
fn the_shell_is_given_the_string_with_the_address_in_it() {
    let command = "printf '<%s>\\n' %IP% \"%IP%\" '%IP%' \"$IP\" %ip%\n\
                   echo 'a  b' \"c\td\" # %IP%\necho end";
    let (lines, ending) = run(command, "192.0.2.7");
    assert_eq!(
        lines,
        [
            "<192.0.2.7>",
            "<192.0.2.7>",
            "<192.0.2.7>",
            "<>",
            "<%ip%>",
            "a  b c\td",
            "end"
        ]
    );
    assert_eq!(ending, Ending::Code(0));
    let (lines, _) = run("echo %IP%", "fe80::1");
    assert_eq!(lines, ["fe80::1"]);
}

#[test]
fn the_command_is_reported_as_it_is_run() {
    let directory = Directory::new(&[door("d", "true %IP%\n#\t\\n", "", SHORT)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    let running = HelperReport::Running {
        door: "d".into(),
        source: ip("192.0.2.7"),
        phase: Phase::Start,
        command: "true 192.0.2.7\\n#\t\\n".into(),
    };
    assert_eq!(reports[0], running);
}

#[test]
fn a_command_for_ipv6_is_used_for_ipv6_and_else_the_other() {
    let with = |start_6: Option<&str>, stop_6: Option<&str>| {
        let mut door = door("d", "echo four", "echo stop four", SHORT);
        let commands = door.commands.as_mut().expect("commands");
        **commands = Commands {
            start_6: start_6.map(str::to_owned),
            stop_6: stop_6.map(str::to_owned),
            ..Commands::clone(commands)
        };
        let directory = Directory::new(&[door]);
        let mut daemon = directory.helper();
        daemon.start("d", "2001:db8::7");
        let last = if stop_6 == Some("") {
            Phase::Start
        } else {
            Phase::Stop
        };
        let (reports, _) = daemon.wait_end("d", last);
        output(&reports).join(", ")
    };
    assert_eq!(with(None, None), "four, stop four");
    assert_eq!(
        with(Some("echo six"), Some("echo stop six")),
        "six, stop six"
    );
    assert_eq!(with(Some("echo six"), Some("")), "six");
}

#[test]
fn how_a_command_ended_is_told() {
    assert_eq!(run("exit 3", "192.0.2.7").1, Ending::Code(3));
    assert_eq!(run("kill -9 $$", "192.0.2.7").1, Ending::Signal(9));
    assert_eq!(run("/no/such/program", "192.0.2.7").1, Ending::Code(127));
    // execve(2): no single argument may be longer than 128 KiB.
    let long = format!(": {}", "x".repeat(200_000));
    assert!(matches!(run(&long, "192.0.2.7").1, Ending::NotStarted(_)));
}

#[test]
fn a_command_inherits_nothing_but_its_environment() {
    let command = "ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p'; \
                   grep -E 'SigBlk|SigIgn' /proc/self/status; cat; echo $PATH";
    let (lines, _) = run(command, "192.0.2.7");
    // 0, 1 and 2, and 3 by which ls reads the list.
    assert_eq!(lines.len(), 7, "{lines:?}");
    assert!(lines[0].starts_with("0 /dev/null"));
    assert!(lines[1].starts_with("1 pipe:") && lines[2].starts_with("2 pipe:"));
    assert!(lines[3].starts_with("3 /proc/"), "{lines:?}");
    assert_eq!(lines[4], "SigBlk:\t0000000000000000");
    // 32 and 33 are the C library's own: its posix_spawn leaves them ignored.
    let ignored = lines[5].strip_prefix("SigIgn:\t").expect("a line");
    let ignored = u64::from_str_radix(ignored, 16).expect("a number");
    assert_eq!(ignored & !(3 << 31), 0, "{ignored:x}");
    assert_eq!(lines[6], std::env::var("PATH").expect("a path"));
}

#[test]
fn both_of_its_outputs_are_told_and_too_much_is_cut() {
    let (lines, _) = run("echo out; echo err >&2; printf 'no end'", "192.0.2.7");
    assert_eq!(lines, ["out", "err", "no end"]);

    let directory = Directory::new(&[door("d", "yes | head -c 1000000; exit 5", "", SHORT)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    let (reports, ending) = daemon.wait_end("d", Phase::Start);
    assert_eq!(
        output(&reports).len(),
        8 * 1024,
        "16 KiB of `y` and a line end"
    );
    let cut = |r: &&HelperReport| matches!(r, HelperReport::OutputCut { .. });
    assert_eq!(reports.iter().filter(cut).count(), 1);
    assert_eq!(ending, Ending::Code(5), "it could write all it wanted");
}

#[test]
fn what_a_command_leaves_in_the_background_may_go_on_writing() {
    let directory = Directory::new(&[]);
    let go = directory.file("go");
    let command = format!(
        "(while [ -d {here} ] && [ ! -e {go} ]; do sleep 0.01; done; echo later; \
         echo done > {done}) & echo now",
        here = directory.path.display(),
        go = go.display(),
        done = directory.file("done").display()
    );
    directory.configure(&[door("d", &command, "", SHORT)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    assert_eq!(output(&reports), ["now"]);
    fs::write(&go, "").expect("written");
    let reports = daemon.wait(|r| matches!(r, HelperReport::Output { .. }));
    assert_eq!(output(&reports), ["later"]);
    wait_until("its last word", || directory.read("done") == "done\n");
}

#[test]
fn two_hundred_clients_that_finish_together_run_two_hundred_commands() {
    let directory = Directory::new(&[]);
    let ran = directory.file("ran");
    let command = format!("echo %IP% >> {}", ran.display());
    directory.configure(&[door("d", &command, "true", Duration::from_secs(3600))]);
    let mut daemon = directory.helper();
    let sources: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
    for source in &sources {
        daemon.start("d", source);
    }
    for _ in &sources {
        daemon.wait_end("d", Phase::Start);
    }
    let text = directory.read("ran");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut wanted: Vec<&str> = sources.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
    assert!(
        children(daemon.client.helper()).is_empty(),
        "none is left, not even as a zombie"
    );
}

#[test]
fn no_more_run_than_may_and_the_surplus_is_refused() {
    let directory = Directory::new(&[]);
    let gate = fs::File::create(directory.file("gate")).expect("created");
    let gate = Flock::lock(gate, FlockArg::LockExclusive).expect("locked");
    let (path, ran) = (directory.file("gate"), directory.file("ran"));
    let command = format!(
        "echo >> {}; flock -s {} true",
        ran.display(),
        path.display()
    );
    directory.configure(&[door("d", &command, "", SHORT)]);
    let mut daemon = directory.helper();
    for n in 0..64 + 1024 + 100 {
        let request = HelperRequest::Start {
            door: "d".into(),
            source: std::net::IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]),
        };
        // This side is bounded too: wait for the helper to take some.
        wait_until("room", || daemon.client.send(&request).is_ok());
    }
    let mut refused = 0;
    while refused < 100 {
        let report = daemon.next(SOON).expect("alive");
        if let HelperReport::Refused { refusal, .. } = report {
            assert_eq!(refusal, CommandRefusal::TooManyWaiting);
            refused += 1;
        }
    }
    wait_until("as many as may", || {
        directory.read("ran").lines().count() == 64
    });
    assert_eq!(children(daemon.client.helper()).len(), 64);
    drop(gate);
    let mut ended = 0;
    while ended < 64 + 1024 {
        if let Some(HelperReport::Ended { .. }) = daemon.next(SOON) {
            ended += 1;
        }
    }
    assert_eq!(directory.read("ran").lines().count(), 64 + 1024);
}

#[test]
fn a_reload_changes_what_is_run_and_a_faulty_one_does_not() {
    let directory = Directory::new(&[door("d", "echo old", "", SHORT)]);
    let mut daemon = directory.helper();
    let new = [
        door("d", "echo new", "", SHORT),
        door("e", "", "true", SHORT),
    ];
    directory.configure(&new);
    daemon.client.send(&HelperRequest::Reload).expect("sent");
    let reports = daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
    let digest = table(new.to_vec()).digest();
    assert!(
        matches!(reports[0], HelperReport::Ready { digest: d, pending: 0, overdue: 0 } if d == digest)
    );
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    assert_eq!(output(&reports), ["new"]);

    fs::remove_dir_all(directory.file("doors")).expect("removed");
    daemon.client.send(&HelperRequest::Reload).expect("sent");
    let reports = daemon.wait(|r| matches!(r, HelperReport::LoadFailed { .. }));
    assert!(format!("{reports:?}").contains("No such file"));
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    assert_eq!(output(&reports), ["new"]);
    daemon.start("nowhere", "192.0.2.7");
    daemon.wait(|r| {
        matches!(
            r,
            HelperReport::Refused {
                refusal: CommandRefusal::UnknownDoor,
                ..
            }
        )
    });
}

#[test]
fn the_journal_is_for_nobody_elses_eyes() {
    let directory = Directory::new(&[door("d", "true", "true", Duration::from_secs(3600))]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    wait_until("a journal", || directory.journal().exists());
    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode(&directory.journal()) & 0o7777, 0o600);
    assert_eq!(mode(&directory.state()) & 0o7777, 0o700);
}

#[test]
fn a_state_directory_that_cannot_be_written_stops_no_command() {
    let directory = Directory::new(&[door("d", "echo start", "echo stop", SHORT)]);
    fs::write(directory.state(), "in the way").expect("written");
    let mut daemon = directory.unready_helper();
    let reports = daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
    assert!(
        matches!(reports[0], HelperReport::JournalFault { .. }),
        "{reports:?}"
    );
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Stop);
    assert_eq!(output(&reports), ["start", "stop"]);
}
