//! kill -9 of each process of the daemon, at random moments of a start, a run, a reload, a stop and an
//! upgrade. No packet sees a gap, no process of a dead daemon stays, and the next start has what was open.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clients::connect_throughout;
use crate::crash::Random;
use crate::open_both;
use crate::restarts::{KEPT, older, variants};
use crate::rounds;
use crate::site::{SSH, Site};
use crate::support::process::naming;
use crate::support::{Lab, Process, wait_until};

/// A door with commands, for which there is a helper.
const RUN: &str = "\n[door.run]\nsequence = [\"7011/tcp\", \"8112/udp\", \"9213/tcp\"]\n\
                   start_command = \"true\"\nstop_command = \"true\"\ncmd_timeout = \"1h\"\n";

/// A process of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    pid: u32,
    /// How far below the daemon it is; 0 is the daemon itself.
    depth: usize,
    name: String,
    /// It watches over others, and forks another when one dies.
    is_warden: bool,
}

impl Member {
    /// Returns whether both do the same work, whoever of a daemon they are.
    fn is_alike(&self, other: &Self) -> bool {
        (self.depth, &self.name, self.is_warden) == (other.depth, &other.name, other.is_warden)
    }
}

/// Returns the daemon and the processes below it, in the same order each time. What a command has started
/// is not among them: these run for no time.
fn members(daemon: &Process) -> Vec<Member> {
    let mut all = Vec::new();
    below(daemon.id(), 0, &mut all);
    all.sort_by(|a, b| (a.depth, &a.name, a.pid).cmp(&(b.depth, &b.name, b.pid)));
    all
}

fn below(pid: u32, depth: usize, all: &mut Vec<Member>) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let (Ok(name), Ok(stat)) = (read("comm"), read("stat")) else {
        return;
    };
    if stat.contains(") Z ") {
        return;
    }
    let children = read(&format!("task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    all.push(Member {
        pid,
        depth,
        name: name.trim_end().to_owned(),
        is_warden: depth > 0 && !children.is_empty(),
    });
    for child in children {
        below(child, depth + 1, all);
    }
}

fn end(member: &Member) {
    // It may have ended by itself this moment.
    let _ = kill(Pid::from_raw(member.pid.cast_signed()), Signal::SIGKILL);
}

/// Waits until nothing is left of a daemon, whose helpers may come last.
#[track_caller]
fn expect_nobody(site: &Site<'_>) {
    let folder = site.path("");
    let left = || naming(&folder);
    wait_until("the end of all its processes", || left().is_empty());
}

/// Starts the daemon anew. What was open is open.
#[track_caller]
fn start_again(lab: &Lab, site: &Site<'_>, words: &str) -> Process {
    expect_nobody(site);
    let daemon = site.start(words);
    assert_eq!(daemon.count(KEPT), 1, "{}", daemon.lines().join("\n"));
    let tables = lab.server.run("nft list tables");
    // And the gauge.
    assert_eq!(tables.lines().count(), 2, "{tables}");
    daemon
}

/// After the death of one that watches over others, or of the daemon itself, nobody stays. Another one is
/// replaced, and the log says so.
#[track_caller]
fn expect_care(daemon: &mut Process, killed: &Member, before: usize) {
    if killed.depth == 0 || killed.is_warden {
        let (status, said) = daemon.wait();
        assert!(!status.success(), "{killed:?}: {status}");
        let is_told = said.len() > before || killed.depth == 0;
        assert!(is_told, "{killed:?}: {said:?}");
        return;
    }
    wait_until(&format!("another in the place of {killed:?}"), || {
        assert!(!daemon.has_ended(), "{killed:?}: {:?}", daemon.lines());
        let is_new = |m: &Member| m.is_alike(killed) && m.pid != killed.pid;
        members(daemon).iter().any(is_new) && daemon.lines().len() > before
    });
}

/// Lines of `daemon` that say that something is wrong.
fn complaints(daemon: &Process) -> usize {
    daemon.count("knockd: ")
}

fn kill_each_at_random_moments(words: &str) {
    let lab = Lab::new();
    let texts: Vec<_> = variants().map(|text| format!("{text}{RUN}")).into();
    let site = Site::new(&lab, &format!("{SSH}{RUN}"));
    let mut random = Random::new();
    let mut daemon = site.start(words);
    open_both(&lab, &mut daemon);
    let mut killed: Vec<(Member, usize)> = Vec::new();
    connect_throughout(&lab, || {
        for round in 0..rounds(100) {
            let text = &texts[round % texts.len()];
            // Each takes some 40 ms, most of which the kernel is waited for.
            let moment = Duration::from_micros(random.below(60_000));
            // Which of its processes: each in its turn.
            let choose = |daemon: &Process| {
                let all = members(daemon);
                let of = all.len().max(1);
                all.into_iter().nth(round / 5 % of)
            };
            let phase = ["run", "reload", "stop", "start", "upgrade"][round % 5];
            match phase {
                "run" | "reload" => {
                    // What has just been forked or executed has no name of its own yet.
                    wait_until("all its processes", || {
                        let all = members(&daemon);
                        all.len() > 1 && all.iter().all(|member| member.name != "exe")
                    });
                    if phase == "reload" {
                        site.configure(text);
                        daemon.signal(Signal::SIGHUP);
                    }
                    thread::sleep(moment);
                    let before = complaints(&daemon);
                    let one = choose(&daemon).expect("a daemon that runs");
                    end(&one);
                    expect_care(&mut daemon, &one, before);
                    count(&mut killed, one);
                    if daemon.has_ended() {
                        daemon = start_again(&lab, &site, words);
                    }
                }
                "stop" => {
                    daemon.signal(Signal::SIGTERM);
                    thread::sleep(moment);
                    if let Some(one) = choose(&daemon) {
                        end(&one);
                        count(&mut killed, one);
                    }
                    daemon.wait();
                    daemon = start_again(&lab, &site, words);
                }
                _ => {
                    daemon.terminate();
                    expect_nobody(&site);
                    if phase == "upgrade" {
                        let table = lab.server.run("nft list tables");
                        let name = table.lines().find(|line| !line.ends_with(" gauge"));
                        let name = name.expect("the guard");
                        lab.server.nft(&format!("delete {name}\n{}", older("20m")));
                        site.configure(&format!("{SSH}{RUN}"));
                    } else {
                        site.configure(text);
                    }
                    daemon = Process::start(&mut site.command(&format!("-v {words}")));
                    thread::sleep(moment);
                    if let Some(one) = choose(&daemon) {
                        end(&one);
                        // A start without one of its processes may succeed or not; nobody else stays.
                        if one.depth > 0 {
                            wait_until("a start, or its end", || {
                                daemon.has_ended() || daemon.count("starting up, listening on") > 0
                            });
                        }
                        count(&mut killed, one);
                    }
                    daemon.kill();
                    daemon = start_again(&lab, &site, words);
                }
            }
        }
        daemon.terminate();
        expect_nobody(&site);
    });
    for (member, times) in &killed {
        println!("{times} times {member:?}");
    }
    let of_daemon = |(member, _): &&(Member, usize)| member.depth == 0;
    assert!(killed.iter().any(|one| of_daemon(&one)), "{killed:?}");
    assert!(!killed.iter().all(|one| of_daemon(&one)), "{killed:?}");
    assert!(!Path::new(&site.path("run/knockd.sock")).exists());
}

/// Counts those that were killed by what they do.
fn count(killed: &mut Vec<(Member, usize)>, one: Member) {
    match killed.iter_mut().find(|(member, _)| member.is_alike(&one)) {
        Some((_, times)) => *times += 1,
        None => killed.push((one, 1)),
    }
}

#[test]
fn no_packet_sees_the_death_of_any_process() {
    needs!(Laboratory);
    kill_each_at_random_moments("");
}

#[test]
fn no_packet_sees_the_death_of_any_process_of_the_watch() {
    needs!(Laboratory);
    kill_each_at_random_moments("--watch");
}
