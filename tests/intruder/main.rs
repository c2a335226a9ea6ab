//! What code can do that a packet has brought into the listener: nothing, and it is seen.
//!
//! This program is the test, and knockd with an intruder in its listener: code that does what a packet
//! says that has `intrude:` and a word in it.
#![allow(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use knockd::model::Frame;

use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::opened;
use crate::support::{Lab, Process, SERVER, wait_until};

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../daemon/site.rs"]
#[allow(dead_code)]
mod site;

const TEST: &str = "an_intruder_in_the_listener_can_do_nothing_and_is_seen";

/// In the environment of this program it says that it is to be knockd.
const AS_DAEMON: &str = "KNOCKD_TEST_INTRUDER";

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    match words.as_slice() {
        [_, subcommand, _, run_dir] if subcommand == "listener" => {
            let listened = knockd::daemon::intruded_listener(Path::new(run_dir), obey);
            return ExitCode::from(u8::from(listened.is_err()));
        }
        _ if std::env::var_os(AS_DAEMON).is_some() => return knockd::cli::knockd::main(words),
        _ => {}
    }
    // As the usual harness does: words that are no flags choose tests.
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy());
    let is_meant = words.all(|word| word.starts_with('-') || TEST.contains(&*word));
    if is_meant && !std::env::args().any(|word| word == "--list") {
        an_intruder_in_the_listener_can_do_nothing_and_is_seen();
        println!("test {TEST} ... ok");
    }
    ExitCode::SUCCESS
}

/// Calls that would give it something: files, programs, processes, sockets, the filter, rights.
const REFUSED: [&str; 15] = [
    "openat",
    "execve",
    "execveat",
    "clone",
    "clone3",
    "socket",
    "connect",
    "bind",
    "setsockopt",
    "sendmsg",
    "ptrace",
    "process_vm_readv",
    "kill",
    "setresuid",
    "unshare",
];

/// Starts the daemon with the intruder.
fn start(lab: &Lab, site: &Site) -> Process {
    let mut command = lab.server.command(std::env::current_exe().expect("a name"));
    command.env(AS_DAEMON, "1");
    command.arg("-v").arg("-c").arg(site.config());
    command.arg("--state-dir").arg(site.path("state"));
    command.arg("--run-dir").arg(site.path("run"));
    let mut daemon = Process::start(&mut command);
    daemon.wait_for_line("starting up, listening on");
    daemon
}

fn say(lab: &Lab, word: &str) {
    let datagram = format!("exec 3>/dev/udp/{}/9; echo intrude:{word} >&3", SERVER[0]);
    let sent = lab.client.command("bash").args(["-c", &datagram]).status();
    assert!(sent.expect("bash").success());
}

fn an_intruder_in_the_listener_can_do_nothing_and_is_seen() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = start(&lab, &site);
    let died = |daemon: &Process| daemon.count("another one listens");
    for (turn, call) in REFUSED.into_iter().enumerate() {
        say(&lab, call);
        daemon.wait_for_line(&format!(
            "the kernel refused the listener system call {call} ("
        ));
        wait_until("another listener", || died(&daemon) > turn);
    }
    let refused = "the listener has died (the kernel refused it a system call)";
    assert_eq!(daemon.count(refused), REFUSED.len());
    // Knocks at every port, whoever they are from, are a scan and open nothing.
    say(&lab, "forge");
    daemon.wait_for_line("the listener has died (exit code 3)");
    assert!(site.openings().is_empty());
    // Those who know the sequence get in all the while.
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
}

/// The calls that it tries, by name. Their arguments are wrong; the kernel would say so after it has allowed
/// the call.
const CALLS: [(&str, i64); 16] = [
    ("openat", libc::SYS_openat),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("socket", libc::SYS_socket),
    ("connect", libc::SYS_connect),
    ("bind", libc::SYS_bind),
    ("setsockopt", libc::SYS_setsockopt),
    ("sendmsg", libc::SYS_sendmsg),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("kill", libc::SYS_kill),
    ("setresuid", libc::SYS_setresuid),
    ("unshare", libc::SYS_unshare),
    ("mprotect", libc::SYS_mprotect),
];

fn obey(frame: &Frame<'_>) {
    let text = String::from_utf8_lossy(frame.data);
    let Some((_, words)) = text.split_once("intrude:") else {
        return;
    };
    let word = words.lines().next().unwrap_or_default();
    match CALLS.iter().find(|(name, _)| *name == word) {
        // SAFETY: no pointer is given, so that a call that is allowed fails.
        Some((_, call)) => unsafe {
            libc::syscall(*call, 0, 0, 0, 0, 0);
        },
        None if word == "forge" => forge(frame),
        None => {}
    }
    std::process::exit(3);
}

/// Sends knocks at every port, up and down, as if each had come with a packet like this one.
fn forge(frame: &Frame<'_>) {
    let Some(&[a, b, c, d]) = frame.data.get(4..8) else {
        return;
    };
    let interface = u32::from_be_bytes([a, b, c, d]);
    for ports in [
        (1..=u16::MAX).collect::<Vec<_>>(),
        (1..=u16::MAX).rev().collect(),
    ] {
        for some in ports.chunks(512) {
            let mut message = vec![0; 16];
            message[4..8].copy_from_slice(&1024_u32.to_ne_bytes());
            for port in some {
                for (protocol, flags) in [(6, 2), (17, 0)] {
                    let mut record = [0; 48];
                    record[..4].copy_from_slice(&[192, 0, 2, 78]);
                    record[16..20].copy_from_slice(&[192, 0, 2, 1]);
                    record[36..40].copy_from_slice(&interface.to_ne_bytes());
                    record[40..42].copy_from_slice(&port.to_ne_bytes());
                    record[42..44].copy_from_slice(&40_000_u16.to_ne_bytes());
                    record[44..47].copy_from_slice(&[4, protocol, flags]);
                    message.extend_from_slice(&record);
                }
            }
            // One of its few descriptors is the socket to the daemon; the packet socket refuses this.
            for descriptor in 0..16 {
                // SAFETY: the bytes are ours, and there are as many.
                unsafe {
                    libc::send(
                        descriptor,
                        message.as_ptr().cast(),
                        message.len(),
                        libc::MSG_NOSIGNAL,
                    )
                };
            }
        }
    }
}
