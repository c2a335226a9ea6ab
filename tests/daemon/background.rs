//! `-d`: the daemon in the background, and its pid file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::{CLIENT, Lab, Process, SERVER, SILENCE, ip, wait_until};

/// The daemon that a pid file names; it does not outlive the test.
struct Background(Pid);

#[track_caller]
fn read(pidfile: &Path) -> Pid {
    let text = std::fs::read_to_string(pidfile).expect("the pid file");
    let number = text.strip_suffix('\n').expect("a line");
    Pid::from_raw(number.parse().expect("a number"))
}

impl Background {
    fn runs(&self) -> bool {
        // A process that has ended and was not waited for yet (Z in proc_pid_stat(5)) does not run.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }
}

/// Whether nothing of it has an open file any more: of several threads the first may have ended
/// alone.
fn is_over(process: &Background) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.0));
    !process.runs() && threads.map_or(true, |threads| threads.count() <= 1)
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn the_foreground_ends_well_when_the_guard_stands() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let (pidfile, log) = (site.path("knockd.pid"), site.path("knockd.log"));
    let words = format!("-d -p {} -g {}", pidfile.display(), log.display());
    // Its ending closes the pipes, too: nothing in the background holds the terminal.
    let (status, lines) = Process::start(&mut site.command(&words)).wait();
    assert_eq!(status.code(), Some(0), "{lines:?}");
    assert!(lines.is_empty(), "{lines:?}");
    let daemon = Background(read(&pidfile));
    // For others to read; and whatever they hold of it keeps nobody from starting.
    let mode = std::fs::metadata(&pidfile)
        .expect("the pid file")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o644);
    let reader = std::fs::File::open(&pidfile).expect("the pid file");
    reader.lock().expect("a lock");
    let to = (ip(SERVER[0]), 22);
    lab.client
        .connect(ip(CLIENT[0]), to, SILENCE)
        .expect_silence();
    // It listens, too.
    knock(&lab, SERVER[0], OPEN_SSH);
    wait_until("the opening", || site.openings().len() == 1);

    let (status, lines) = Process::start(&mut site.command(&words)).wait();
    assert_eq!(status.code(), Some(69), "{lines:?}");
    let named = format!("process {} ", daemon.0);
    assert!(lines.iter().any(|line| line.contains(&named)), "{lines:?}");
    assert_eq!(read(&pidfile), daemon.0);

    kill(daemon.0, Signal::SIGKILL).expect("it runs");
    wait_until("its end", || is_over(&daemon));
    let (status, lines) = Process::start(&mut site.command(&words)).wait();
    assert_eq!(status.code(), Some(0), "{lines:?}");
    let daemon = Background(read(&pidfile));
    kill(daemon.0, Signal::SIGTERM).expect("it runs");
    wait_until("its end", || !daemon.runs());
    assert!(!pidfile.exists() && !site.path("knockd.pid.lock").exists());
    let log = std::fs::read_to_string(&log).expect("the log");
    assert!(log.ends_with("] shutting down\n"), "{log}");
}

#[test]
fn names_in_the_file_begin_where_it_was_started() {
    needs!(Laboratory);
    let lab = Lab::new();
    let text = "log = { file = \"rel.log\" }\n[door.once]\none_time_sequences = \"./once.seq\"\n\
                open = [\"22/tcp\"]\n";
    let site = Site::new(&lab, text);
    let file = site.path("once.seq");
    std::fs::write(&file, " 7001,8102:udp,9203\n 7002,8102:udp,9203\n").expect("a file");
    let pidfile = site.path("knockd.pid");
    let mut command = site.command(&format!("-d -p {}", pidfile.display()));
    let (status, lines) = Process::start(command.current_dir(site.path(""))).wait();
    assert_eq!(status.code(), Some(0), "{lines:?}");
    let daemon = Background(read(&pidfile));
    knock(&lab, SERVER[0], OPEN_SSH);
    wait_until("the opening", || site.openings().len() == 1);
    // Another reading, of a daemon that has long been in another folder.
    kill(daemon.0, Signal::SIGHUP).expect("it runs");
    let log = site.path("rel.log");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the reload", || {
        text().contains("the new configuration is in force")
    });
    assert!(!text().contains("disabled"), "{}", text());
    let full = format!("here it is `{}`", file.display());
    assert!(text().contains(&full), "{}", text());
    let used = std::fs::read_to_string(&file).expect("a file of ours");
    assert_eq!(used, "#7001,8102:udp,9203\n 7002,8102:udp,9203\n");
}

#[test]
fn what_keeps_it_from_starting_is_told_in_the_foreground() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, "[firewall]\ngaurd = \"drop\"\n");
    let pidfile = site.path("knockd.pid");
    let words = format!("-d -p {}", pidfile.display());
    let (status, lines) = Process::start(&mut site.command(&words)).wait();
    assert_eq!(status.code(), Some(78), "{lines:?}");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("unknown key `gaurd`")),
        "{lines:?}"
    );
    assert!(!pidfile.exists());
}

#[test]
fn without_a_pid_file_it_runs_all_the_same() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut command = site.command("-d -p /nowhere/knockd.pid");
    let (status, lines) = Process::start(&mut command).wait();
    let number = site.status()["pid"]
        .as_i64()
        .and_then(|pid| pid.try_into().ok());
    let _daemon = Background(Pid::from_raw(number.expect("a number")));
    assert_eq!(status.code(), Some(0), "{lines:?}");
    let told = |line: &String| line.contains("cannot write /nowhere/knockd.pid");
    assert!(lines.iter().any(told), "{lines:?}");
}

/// `for f in *.conf; do knockd -d -c $f; done`, as start scripts for 0.8 have it.
#[test]
fn a_second_daemon_of_another_configuration_does_without_the_default_pid_file() {
    needs!(Laboratory);
    let lab = Lab::new();
    let first = Site::new(&lab, SSH);
    let second = Site::new(&lab, &format!("firewall.table = \"second\"\n{SSH}"));
    let run = first.path("var-run");
    std::fs::create_dir(&run).expect("the laboratory's directory");
    let script = lab.write("script", "mount --bind \"$1\" /run; shift; exec \"$@\"");
    let start = |site: &Site<'_>| {
        let starter = format!("unshare --mount sh {} {}", script.display(), run.display());
        let mut command = site.command_by(&starter, "-d");
        let (status, lines) = Process::start(&mut command).wait();
        (status.code(), lines.join("\n"))
    };
    let process = |site: &Site<'_>| {
        let pid = site.status()["pid"].as_i64().expect("a number");
        Background(Pid::from_raw(pid.try_into().expect("a process")))
    };
    let (code, said) = start(&first);
    assert_eq!(code, Some(0), "{said}");
    let one = process(&first);
    assert_eq!(read(&run.join("knockd.pid")), one.0);

    let (code, said) = start(&second);
    assert_eq!(code, Some(0), "{said}");
    let _two = process(&second);
    let way_out = "give this one a -p of its own, or one daemon several -i";
    for words in [
        &format!("process {} ", one.0),
        "running without a pid file",
        way_out,
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(read(&run.join("knockd.pid")), one.0);

    // The same once more is a mistake.
    let (code, said) = start(&first);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains(way_out), "{said}");
}
