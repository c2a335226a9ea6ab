//! Unusual ways to start the daemon, as scripts and containers do: with a configuration that can be
//! read only once, and as process 1.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{KNOCKD, Site, knock};
use crate::support::process::{Descendant, descendants, worker};
use crate::support::{Lab, Process, SERVER, wait_for, wait_until};

/// A door with a command, and what it writes to.
fn with_command(site: &Site, command: &str) {
    site.configure(&format!(
        "[door.run]\nsequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]\n\
         start_command = \"{command}\"\n"
    ));
}

const STEPS: &str = "7001 8102:udp 9203";

/// `knockd` by a script of bash(1): `K` is it, `FILE` its configuration.
fn script(lab: &Lab, site: &Site, text: &str) -> Command {
    let program = format!(
        "{KNOCKD} --state-dir {} --run-dir {}",
        site.path("state").display(),
        site.path("run").display()
    );
    let file = site.config().display().to_string();
    let mut command = lab.server.command("bash");
    let text = text.replace("K ", &format!("{program} "));
    command.args(["-c", &text.replace("FILE", &file)]);
    command
}

fn ran(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().count()
}

/// The process that runs commands, if there is one, and the daemon and its warden have no zombie.
fn helper_of(daemon: u32) -> Option<Descendant> {
    let all = descendants(daemon);
    let has_none = all.iter().all(|one| !one.is_zombie) && all.len() == 4;
    worker(daemon, "knockd-commands").filter(|_| has_none)
}

#[test]
fn a_configuration_that_is_read_once_serves_the_helper_too() {
    needs!(Laboratory);
    let lab = Lab::new();
    for (path, text) in [
        ("/dev/stdin", "exec K -v -c /dev/stdin < <(cat FILE)"),
        ("/dev/fd/", "exec K -v -c <(cat FILE)"),
        ("/dev/fd/9", "exec 9< <(cat FILE); exec K -v -c /dev/fd/9"),
        ("/dev/stdin", "exec K -v -c /dev/stdin < FILE"),
        ("pipe", "cat FILE >FILE.pipe & exec K -v -c FILE.pipe"),
    ] {
        let site = Site::new(&lab, "");
        let file = site.path("ran");
        with_command(&site, &format!("echo %IP% >>{}", file.display()));
        let pipe = site.path("knockd.toml.pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        // Nothing of it is a TOML by name.
        let mut daemon = Process::start(&mut script(&lab, &site, text));
        daemon.wait_for_line("starting up, listening on");
        knock(&lab, SERVER[0], STEPS);
        wait_until(&format!("the command: {text}"), || ran(&file) == 1);
        // Another helper has it as well.
        let what = "one helper, and no zombie of bash's";
        let helper = wait_for(what, || helper_of(daemon.id()));
        helper.signal(Signal::SIGKILL);
        daemon.wait_for_line("starting another");
        let others = || helper_of(daemon.id()).is_some_and(|other| other != helper);
        wait_until("another helper", others);
        knock(&lab, SERVER[1], STEPS);
        wait_until(&format!("another's command: {text}"), || ran(&file) == 2);
        daemon.signal(Signal::SIGHUP);
        let said = daemon.wait_for_line("cannot be read again: the running configuration stays");
        assert!(said.contains(path), "{said}");
        knock(&lab, SERVER[0], STEPS);
        wait_until(&format!("the command after SIGHUP: {text}"), || {
            ran(&file) == 3
        });
    }
}

#[test]
fn in_the_background_its_standard_input_is_its_configuration() {
    needs!(Laboratory);
    let lab = Lab::new();
    for text in [
        "exec K -d -p FILE.pid -c /dev/stdin < <(cat FILE)",
        "cat FILE | K -d -p FILE.pid -c /dev/stdin",
        "K -d -p FILE.pid -c <(cat FILE)",
        "K -d -p FILE.pid -c /dev/stdin < FILE",
    ] {
        let site = Site::new(&lab, "");
        let file = site.path("ran");
        with_command(&site, &format!("echo %IP% >>{}", file.display()));
        let (status, lines) = Process::start(&mut script(&lab, &site, text)).wait();
        assert_eq!(status.code(), Some(0), "{text}: {lines:?}");
        let number = std::fs::read_to_string(site.path("knockd.toml.pid")).expect("a pid file");
        let pid = Pid::from_raw(number.trim().parse().expect("a number"));
        knock(&lab, SERVER[0], STEPS);
        wait_until(&format!("the command: {text}"), || ran(&file) == 1);
        kill(pid, Signal::SIGKILL).expect("it runs");
    }
}

/// What a command leaves in the background is orphaned when its shell ends, and comes to process
/// 1 of a container.
#[test]
fn as_process_1_it_leaves_no_zombies() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, "");
    let file = site.path("ran");
    let text = format!("(setsid sh -c 'sleep 0.2; echo x >>{}' &)", file.display());
    with_command(&site, &text);
    let words = "unshare -pf --mount-proc --kill-child";
    let mut starter = Process::start(&mut site.command_by(words, "-v"));
    starter.wait_for_line("starting up, listening on");
    let daemon = descendants(starter.id())[0].id;
    for turn in 1..=3 {
        knock(&lab, SERVER[0], STEPS);
        wait_until("what the command left", || ran(&file) == turn);
    }
    // Its own, too: the helper is replaced.
    let helper = wait_for("no zombies", || helper_of(daemon));
    helper.signal(Signal::SIGKILL);
    starter.wait_for_line("starting another");
    let others = || helper_of(daemon).is_some_and(|other| other != helper);
    wait_until("another helper", others);
}
