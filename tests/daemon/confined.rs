//! What each process of the daemon has given up, and what becomes of the others when one dies.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::site::{OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::opened;
use crate::support::process::{Descendant, descendants, worker};
use crate::support::{Lab, OTHER, SERVER, SILENCE, ip, wait_for, wait_until};

/// The same doors, one with a command.
fn with_command() -> String {
    SSH.replacen("open     =", "start_command = \"true\"\nopen     =", 1)
}

/// Returns a line of /proc/PID/status.
fn line(process: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a live process");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect(name).trim_start_matches(':').trim().to_owned()
}

/// Returns the sets of capabilities: inheritable, permitted, effective, bounding, ambient.
fn capabilities(process: u32) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|name| u64::from_str_radix(&line(process, name), 16).expect("a set"))
}

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

/// Returns what this host says of a link of a process in /proc.
fn link(lab: &Lab, process: u32, name: &str) -> String {
    let said = lab.server.run(&format!("readlink /proc/{process}/{name}"));
    said.trim().to_owned()
}

#[test]
fn each_process_has_what_it_needs_and_no_more() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &with_command());
    let daemon = site.start("");
    let all = descendants(daemon.id());
    let named = |name: &str| {
        all.iter()
            .filter(|one| one.name == name)
            .collect::<Vec<_>>()
    };
    assert_eq!(named("knockd-listener").len(), 2, "{all:?}");
    assert_eq!(named("knockd-commands").len(), 2, "{all:?}");
    assert_eq!(all.len(), 4, "{all:?}");

    // The daemon, in each of its threads.
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.id())).expect("threads") {
        let thread = thread.expect("a thread").file_name();
        let thread = thread.to_string_lossy().parse().expect("a number");
        assert_eq!(
            capabilities(thread),
            [0, NET_ADMIN, NET_ADMIN, NET_ADMIN, 0]
        );
        assert_eq!(line(thread, "NoNewPrivs"), "1");
        assert_eq!(line(thread, "Seccomp"), "2");
    }

    let listener = worker(daemon.id(), "knockd-listener").expect("a listener");
    assert_eq!(capabilities(listener.id), [0; 5]);
    assert_eq!(line(listener.id, "NoNewPrivs"), "1");
    assert_eq!(line(listener.id, "Seccomp"), "2");
    assert!(link(&lab, listener.id, "root").ends_with("(deleted)"));
    let descriptors = lab.server.run(&format!("ls -l /proc/{}/fd", listener.id));
    let descriptors: Vec<_> = descriptors.lines().filter(|l| l.contains("->")).collect();
    assert_eq!(descriptors.len(), 2, "{descriptors:?}");
    assert!(
        descriptors.iter().all(|l| l.contains("socket:")),
        "{descriptors:?}"
    );

    let warden = listener.parent;
    assert_eq!(capabilities(warden), [0, NET_RAW, NET_RAW, 0, 0]);
    assert_eq!(line(warden, "NoNewPrivs"), "1");
    assert!(link(&lab, warden, "root").ends_with("(deleted)"));

    // The helper keeps everything.
    let helper = wait_for("a helper", || worker(daemon.id(), "knockd-commands"));
    assert_eq!(line(helper.id, "NoNewPrivs"), "0");
    assert_eq!(line(helper.id, "Seccomp"), "0");
    assert_ne!(capabilities(helper.id)[2] & NET_ADMIN, 0);

    // No folder is left of the empty root.
    let run = fs::read_dir(site.path("run")).expect("a folder");
    let mut names = run.map(|entry| entry.expect("an entry").file_name());
    assert!(!names.any(|name| name.to_string_lossy().starts_with("empty")));

    // None may be read by others of its user, none leaves a core.
    for process in [daemon.id(), listener.id, warden] {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("limits");
        let core = limits.lines().find(|l| l.starts_with("Max core file size"));
        assert_eq!(core.expect("a limit").split_whitespace().nth(4), Some("0"));
    }
    let said = site.run("status");
    assert!(
        said.contains("process knockd: user 0, CAP_NET_ADMIN, Landlock"),
        "{said}"
    );
    assert!(
        said.contains("process listener: user 0, no capability, empty root, Landlock"),
        "{said}"
    );
}

/// Returns the parts of `memory` that stand for a step of [`SSH`].
fn steps_in(memory: &[u8]) -> Vec<&'static str> {
    let texts = ["7001/tcp", "8102/udp", "9203/tcp"];
    let found = |text: &&str| {
        memory
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    texts.into_iter().filter(found).collect()
}

/// Reads what a process can write to.
fn memory(lab: &Lab, process: u32) -> Vec<u8> {
    let script = format!(
        "while read range rights rest; do case $rights in rw*) \
         from=${{range%-*}}; to=${{range#*-}}; \
         dd if=/proc/{process}/mem bs=4096 skip=$((0x$from / 4096)) \
         count=$(((0x$to - 0x$from) / 4096)) 2>/dev/null;; esac; \
         done </proc/{process}/maps"
    );
    let read = lab.server.command("bash").args(["-c", &script]).output();
    read.expect("bash").stdout
}

#[test]
fn the_listener_has_no_step_in_its_memory() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &with_command());
    let daemon = site.start("");
    let listener = worker(daemon.id(), "knockd-listener").expect("a listener");
    // A knock is heard: what is heard is no sequence.
    knock(&lab, SERVER[0], OPEN_SSH);
    for process in [listener.id, listener.parent] {
        let memory = memory(&lab, process);
        assert!(
            memory.len() > 100_000,
            "it is not read: {} bytes",
            memory.len()
        );
        assert_eq!(steps_in(&memory), Vec::<&str>::new());
    }
    // They would be found: the helper and its warden have the text of the configuration.
    let helper = wait_for("a helper", || worker(daemon.id(), "knockd-commands"));
    assert_eq!(steps_in(&memory(&lab, helper.id)).len(), 3);
}

#[test]
fn a_listener_that_dies_is_replaced_and_hears() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    for turn in 1..=3 {
        let listener = worker(daemon.id(), "knockd-listener").expect("a listener");
        listener.signal(Signal::SIGKILL);
        wait_until("the word of it", || {
            daemon.count("the listener has died (signal SIGKILL): another one listens") == turn
        });
    }
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    // The filter of the new one is that of before, and follows a reload.
    site.configure(&SSH.replace("8102/udp", "8103/udp"));
    site.reload(&daemon);
    site.run("close --all");
    knock(&lab, SERVER[1], "7001/tcp 8103/udp 9203/tcp");
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("2001:db8::77"));
}

/// Whichever of them dies, the guard stands, and no process is left alone.
#[test]
fn a_warden_that_dies_ends_the_daemon_and_the_guard_stands() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &with_command());
    let warden = |all: &[Descendant], daemon: u32, name: &str| {
        let mut found = all
            .iter()
            .filter(|one| one.name == name && one.parent == daemon);
        found.next().expect("a warden").clone()
    };
    let is_gone = |one: &Descendant| !Path::new(&format!("/proc/{}", one.id)).exists();
    let guarded = || {
        let to = (ip(SERVER[0]), 22);
        let attempt = lab.client.connect(ip(OTHER[0]), to, SILENCE);
        attempt.expect_silence();
    };
    for (name, why) in [
        (
            "knockd-listener",
            "the processes that listen for knocks are gone: knockd ends, and the guard stands",
        ),
        (
            "knockd-commands",
            "the process that runs commands and its warden are gone: knockd ends, and the guard stands",
        ),
    ] {
        let mut daemon = site.start("");
        wait_for("a helper", || worker(daemon.id(), "knockd-commands"));
        let all = descendants(daemon.id());
        warden(&all, daemon.id(), name).signal(Signal::SIGKILL);
        let (status, said) = daemon.wait();
        assert_eq!(status.code(), Some(71), "{said:?}");
        assert!(said.iter().any(|line| line.contains(why)), "{said:?}");
        wait_until("the end of all", || all.iter().all(is_gone));
        guarded();
    }
    // The daemon takes all of them with it.
    let daemon = site.start("");
    let all = descendants(daemon.id());
    daemon.kill();
    wait_until("the end of all", || all.iter().all(is_gone));
    guarded();
}

#[test]
fn what_a_reload_cannot_reach_is_named_and_nothing_changes() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let sequences = elsewhere.path().join("sequences");
    fs::write(&sequences, "7001:tcp,8102:udp,9203:tcp\n").expect("a file");
    let one_time = format!("one_time_sequences = {sequences:?}");
    let first = "sequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]";
    let log = format!("log.file = {:?}\n", elsewhere.path().join("log"));
    for (configuration, why) in [
        (
            with_command(),
            "there are commands, and knockd was started without: restart it",
        ),
        (
            format!("{log}{SSH}"),
            "knockd has shut itself out of that folder: restart it, or keep the log",
        ),
        (
            SSH.replacen(first, &one_time, 1),
            "knockd has shut itself out of that folder: restart it, or keep the file",
        ),
    ] {
        site.configure(&configuration);
        let (code, said) = failure(&site.try_run("reload"));
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(why), "{said}");
        assert!(said.contains("the running configuration stays"), "{said}");
        daemon.wait_for_line(why);
    }
    let refused = site.status()["refused"]["why"].to_string();
    assert!(refused.contains("shut itself out"), "{refused}");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    // The advice works.
    drop(daemon);
    let mut daemon = site.start("");
    knock(&lab, SERVER[1], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("2001:db8::77"));
}

#[test]
fn without_a_sandbox_nothing_is_given_up_and_status_says_so() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("sandbox = false\n{SSH}"));
    let mut daemon = site.start("");
    daemon.wait_for_line("sandbox = false: whoever takes knockd over has all rights of its unit");
    assert_eq!(line(daemon.id(), "Seccomp"), "0");
    let listener = worker(daemon.id(), "knockd-listener").expect("a listener");
    assert_eq!(line(listener.id, "Seccomp"), "0");
    let said = site.run("status");
    assert!(said.contains("no Landlock, no seccomp"), "{said}");
    // The first command of a configuration finds its process then.
    site.configure(&format!("sandbox = false\n{}", with_command()));
    site.reload(&daemon);
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_line("ssh: running command: true");
    site.configure(&with_command());
    assert!(
        site.run("reload")
            .contains("sandbox: it counts from the next start")
    );
}

/// An older kernel, or one that is built without.
#[test]
fn a_kernel_without_landlock_or_seccomp_is_a_warning() {
    needs!(Laboratory, Tool("strace"));
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let starter = "strace -f -qq -o /dev/null -e inject=landlock_create_ruleset:error=ENOSYS \
                   -e inject=seccomp:error=ENOSYS";
    let mut daemon = crate::support::Process::start(&mut site.command_by(starter, "-v"));
    daemon.wait_for_line("cannot give up its files: the kernel has no Landlock");
    daemon.wait_for_line("cannot give up its system calls");
    daemon.wait_for_line("the listener cannot give up its files");
    daemon.wait_for_line("starting up, listening on");
    let said = site.run("status");
    assert!(
        said.contains("CAP_NET_ADMIN, no Landlock, no seccomp"),
        "{said}"
    );
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    let daemon = wait_for("the daemon", || {
        descendants(daemon.id())
            .into_iter()
            .find(|one| one.name == "knockd")
    });
    daemon.signal(Signal::SIGTERM);
}
