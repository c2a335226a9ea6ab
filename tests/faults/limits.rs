//! No more files, no more memory.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::libc::rlim_t;
use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::forge::{self, DOORS};
use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::opened;
use crate::support::frame::{send_datagram, source};
use crate::support::need::only_for_root;
use crate::support::process::worker;
use crate::support::{CLIENT, Lab, Process, SERVER, SOON, wait_for, wait_until};
use crate::work::{close_all, expect_at_work, expect_shut, family, processor_time};

/// Lets a process have open files below this number; returns the limit before.
#[track_caller]
pub(crate) fn allow_files(process: u32, limit: u64) -> u64 {
    limit_resource(process, "nofile", limit)
}

/// Sets the soft limit of a process that runs, by prlimit(1); returns the limit before.
#[track_caller]
fn limit_resource(process: u32, what: &str, limit: u64) -> u64 {
    let prlimit = |words: &[String]| {
        let mut command = Command::new("prlimit");
        let output = command.args(["--pid", &process.to_string()]).args(words);
        let output = output.output().expect("prlimit (package util-linux)");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let before = prlimit(&[
        format!("--{what}"),
        "--noheadings".into(),
        "--raw".into(),
        "--output=SOFT".into(),
    ]);
    prlimit(&[format!("--{what}={limit}:")]);
    before.parse().unwrap_or(rlim_t::MAX)
}

/// The number that the next file of a process gets.
#[track_caller]
pub(crate) fn lowest_free_file(process: u32) -> u64 {
    let is_open = |number: &u64| {
        let file = format!("/proc/{process}/fd/{number}");
        std::fs::symlink_metadata(file).is_ok()
    };
    (0..).find(|number| !is_open(number)).expect("one is free")
}

/// A door with a command.
const RUN: &str = "\n[door.run]\nsequence = [\"7011/tcp\", \"8112/udp\", \"9213/tcp\"]\n\
                   start_command = \"echo started for %IP%\"\n";

#[test]
fn without_a_free_descriptor_the_daemon_opens_doors_and_waits_for_one() {
    needs!(Laboratory);
    for words in ["", "--watch"] {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        let site = Site::new(&lab, &format!("{SSH}{RUN}"));
        let manager = std::os::unix::net::UnixDatagram::bind(site.path("notify"))
            .expect("the laboratory's directory");
        let mut command = site.command(&format!("-v {words}"));
        command.env("NOTIFY_SOCKET", site.path("notify"));
        command.env("WATCHDOG_USEC", "3000000");
        let mut daemon = Process::start(&mut command);
        daemon.wait_for_line("starting up, listening on");
        // All that a start begins is over.
        site.reload(&daemon);
        close_all(&site);
        let before = allow_files(daemon.id(), lowest_free_file(daemon.id()));

        // A client waits, and the loop does not run round and round.
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
                let path = site.path("run").join("knockd.sock");
                let address = SockAddr::unix(path).expect("a short path");
                socket.connect(&address).expect("room in the queue");
                socket.send(b"\"status\"").expect("room in the socket");
                socket
            })
            .collect();
        daemon.wait_for_line("no client can be taken: Too many open files");
        let worked = processor_time(daemon.id());
        for _ in 0..4 {
            // Here it has nothing to do for three tenths of a second.
            expect_shut(&lab);
        }
        let worked = processor_time(daemon.id()) - worked;
        assert!(worked < Duration::from_millis(120), "{worked:?}");

        // A reload is refused, with the reason.
        let said = site.reload(&daemon);
        let is_told = |line: &String| line.contains("Too many open files");
        assert!(said.iter().any(is_told), "{said:?}");
        assert!(
            said.iter()
                .any(|line| line.contains("the running configuration stays"))
        );
        // Another helper, and another listener, take no file of the daemon's but one.
        for (name, said) in [
            ("knockd-commands", "starting another"),
            ("knockd-listener", "another one listens"),
        ] {
            let process = wait_for(name, || worker(daemon.id(), name));
            process.signal(Signal::SIGKILL);
            daemon.wait_for_line(said);
        }
        expect_at_work(&lab, &site);
        if words == "--watch" {
            lab.server.run("nft flush ruleset");
            daemon.wait_for_line(": restored after");
            expect_shut(&lab);
            assert_eq!(site.openings().len(), 1);
        }
        // The watchdog is fed by now as ever.
        manager.set_nonblocking(true).expect("a socket");
        let received = || {
            let mut text = [0; 4096];
            let length = manager.recv(&mut text).ok()?;
            Some(String::from_utf8_lossy(&text[..length]).into_owned())
        };
        while received().is_some() {}
        wait_until("the watchdog to be fed", || {
            received().is_some_and(|text| text.contains("WATCHDOG=1"))
        });
        assert_eq!(daemon.count("no client can be taken"), 1);

        allow_files(daemon.id(), before);
        for client in clients {
            client.set_read_timeout(Some(SOON)).expect("a socket");
            let length = (&client).read(&mut [0; 16]).expect("an answer");
            assert!(length > 0, "hung up on");
        }
        close_all(&site);
        knock(&lab, SERVER[0], "7011 8112:udp 9213");
        daemon.wait_for_line("run: started for 192.0.2.77");
        let said = site.reload(&daemon);
        assert!(
            said.iter().any(|line| line.contains("is in force")),
            "{said:?}"
        );
        expect_at_work(&lab, &site);
        let (status, _) = daemon.terminate();
        assert!(status.success(), "{status}");
    }
}

/// With however few files, a daemon either starts or says that it cannot; if it made its table, the
/// guard stands. A journal that cannot be read is not taken for a damaged one.
#[test]
fn a_start_with_too_few_descriptors_says_so() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let stop = "stop_command = \"true\"\ncmd_timeout = \"1h\"\n";
    let site = Site::new(&lab, &format!("{SSH}{RUN}{stop}"));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], "7011 8112:udp 9213");
    daemon.wait_for_line("run: started for 192.0.2.77");
    daemon.kill();
    let folder = std::fs::read_dir(site.path("state")).expect("the state directory");
    let folder = folder.map(|entry| entry.expect("an entry").path()).next();
    let journal = folder.expect("our folder").join("stops.journal");
    site.run("clear");
    let (mut started, mut refused) = (0, 0);
    for limit in 4..32 {
        let starter = format!("prlimit --nofile={limit}");
        let mut daemon = Process::start(&mut site.command_by(&starter, "-v"));
        let is_up = wait_for("a start or an end", || {
            match daemon.count("starting up, listening on") {
                0 => daemon.has_ended().then_some(false),
                _ => Some(true),
            }
        });
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        assert!(text.contains("192.0.2.77"), "{limit}: {text}");
        if is_up {
            started += 1;
            expect_shut(&lab);
            knock(&lab, SERVER[0], OPEN_SSH);
            daemon.wait_for_event(&opened("22/tcp").at("ssh").from(CLIENT[0]));
            drop(daemon);
            site.run("clear");
            continue;
        }
        let (status, said) = daemon.wait();
        refused += 1;
        assert!(
            status.code().is_some_and(|code| code > 0),
            "{limit}: {status} {said:?}"
        );
        let told = said.join("\n");
        assert!(
            told.contains("Too many open files") || told.contains("error while loading shared"),
            "{limit}: {told}"
        );
        if lab.server.run("nft list tables").contains("inet knockd") {
            expect_shut(&lab);
            lab.server.run("nft flush ruleset");
        }
    }
    assert!(started > 0 && refused > 0, "{started} {refused}");
}

/// The address space that the daemon has at rest, and so much more.
#[test]
fn without_more_memory_the_guard_stands_and_a_start_works_again() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &format!("{SSH}{RUN}"));
    for (mebibytes, must_live) in [(0, false), (1, false), (4, false), (256, true)] {
        let mut daemon = site.start("");
        site.reload(&daemon);
        close_all(&site);
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()));
        let status = status.expect("a live process");
        let size = status.lines().find_map(|l| l.strip_prefix("VmSize:"));
        let size = size.and_then(|s| s.split_whitespace().next()?.parse::<u64>().ok());
        let size = (size.expect("a number of kB") << 10) + (mebibytes << 20);
        limit_resource(daemon.id(), "as", size);
        // It lives, or ends with its last words; either way nobody else gets in.
        for _ in 0..3 {
            expect_shut(&lab);
            knock(&lab, SERVER[0], OPEN_SSH);
            wait_until("the opening, or the end", || {
                daemon.has_ended() || site.openings().len() == 1
            });
            if !daemon.has_ended() {
                daemon.signal(Signal::SIGHUP);
            }
        }
        let lives = !daemon.has_ended();
        if lives {
            wait_until("the reloads, or the end", || {
                let begun = daemon.count("re-reading config file");
                let stays = daemon.count("the running configuration stays");
                begun > 1 && daemon.count("is in force") + stays == begun || daemon.has_ended()
            });
            expect_shut(&lab);
        }
        assert!(lives || !must_live, "{}", daemon.lines().join("\n"));
        println!("{mebibytes} MiB more: it lives: {lives}");
        // What opened stays open, and is known to the next.
        if !daemon.has_ended() {
            daemon.signal(Signal::SIGKILL);
        }
        let (_, said) = daemon.wait();
        let words = "memory allocation of ";
        assert!(
            lives || said.iter().any(|line| line.contains(words)),
            "{said:?}"
        );
        expect_shut(&lab);
        let daemon = site.start("");
        close_all(&site);
        expect_at_work(&lab, &site);
        close_all(&site);
        drop(daemon);
    }
}

/// With however little memory, a daemon either starts or ends; if it made its table, the guard stands.
#[test]
fn a_start_with_too_little_memory_ends_with_words() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &format!("{SSH}{RUN}"));
    let (mut started, mut refused) = (0, 0);
    for mebibytes in (10..250).step_by(12) {
        let starter = format!("prlimit --as={}", mebibytes << 20);
        let mut daemon = Process::start(&mut site.command_by(&starter, "-v"));
        let is_up = wait_for("a start or an end", || {
            match daemon.count("starting up, listening on") {
                0 => daemon.has_ended().then_some(false),
                _ => Some(true),
            }
        });
        if is_up {
            started += 1;
            expect_shut(&lab);
            drop(daemon);
            site.run("clear");
            continue;
        }
        let (status, said) = daemon.wait();
        refused += 1;
        println!("{mebibytes} MiB: {status} {said:?}");
        assert!(!status.success(), "{mebibytes}: {status}");
        // With least of all the kernel itself cannot start the program.
        let is_told = status.signal() == Some(Signal::SIGSEGV as i32) || !said.is_empty();
        assert!(is_told, "{mebibytes}: {status}");
        if lab.server.run("nft list tables").contains("inet knockd") {
            expect_shut(&lab);
            lab.server.run("nft flush ruleset");
        }
    }
    println!("{started} started, {refused} did not");
    assert!(started > 0 && refused > 0, "{started} {refused}");
}

/// The folder of a cgroup that this test has made, and the file of its limit; `None` without root.
fn cgroup(limit: u64) -> Option<PathBuf> {
    let name = format!("knockd-test-{}", std::process::id());
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (top, files) = match unified {
        true => ("/sys/fs/cgroup", ["memory.max", "memory.swap.max"]),
        false => (
            "/sys/fs/cgroup/memory",
            ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
        ),
    };
    let folder = Path::new(top).join(name);
    std::fs::create_dir(&folder).ok()?;
    let limited = std::fs::write(folder.join(files[0]), limit.to_string());
    // A kernel without swap has no such file.
    let _ = std::fs::write(folder.join(files[1]), if unified { "0" } else { "-1" });
    if limited.is_err() {
        let _ = std::fs::remove_dir(&folder);
        return None;
    }
    Some(folder)
}

/// A full table of attempts and ten thousand openings, with reloads and commands meanwhile.
#[test]
fn root_in_a_cgroup_of_48_mib_a_flood_kills_no_process_of_the_daemon() {
    needs!(Laboratory);
    let Some(folder) = cgroup(48 << 20) else {
        return only_for_root("make a cgroup that limits memory");
    };
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let doors = DOORS.replacen("\"1h\"", "\"1h\"\nseq_timeout = \"10m\"", 1);
    let site = Site::new(&lab, &format!("{doors}{RUN}"));
    // Not before it is in the cgroup does it become the daemon.
    let script = lab.write("stopped", "kill -STOP $$\nexec \"$@\"\n");
    let starter = format!("sh {}", script.display());
    let mut daemon = Process::start(&mut site.command_by(&starter, "-v"));
    let stat = format!("/proc/{}/stat", daemon.id());
    wait_until("the start", || {
        std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T "))
    });
    std::fs::write(folder.join("cgroup.procs"), daemon.id().to_string()).expect("a cgroup of ours");
    daemon.signal(Signal::SIGCONT);
    daemon.wait_for_line("starting up, listening on");
    let processes = family(daemon.id());

    let wire = lab.client.frames("eth0");
    let attempts = || {
        let status = site.status();
        let number = |key: &str| status["attempts"][key].as_u64().unwrap_or(0);
        (number("live"), number("capacity"))
    };
    let (_, capacity) = attempts();
    let mut number = 0;
    while attempts().0 < capacity {
        for _ in 0..1000 {
            // Of all networks alike, none of which has more than its share.
            let address = source((number << 8 | number >> 16) & 0xff_ffff);
            send_datagram(&wire, address, forge::SSH[0]);
            number += 1;
        }
    }
    for number in 0..10_000 {
        forge::knock(&wire, Ipv4Addr::from(0x6440_0000 + number), forge::MORE);
        if number % 100 == 0 {
            let opened = || site.status()["opened"].as_u64();
            wait_until("the openings", || opened() > Some(u64::from(number)));
        }
    }
    for _ in 0..3 {
        site.run("reload");
        knock(&lab, SERVER[0], "7011 8112:udp 9213");
    }
    daemon.wait_for_line("run: started for 192.0.2.77");
    expect_shut(&lab);
    assert!(site.openings().len() >= 9_900, "{}", site.openings().len());
    assert_eq!(family(daemon.id()), processes, "nobody was killed");
    for peak in ["memory.peak", "memory.max_usage_in_bytes"] {
        if let Ok(bytes) = std::fs::read_to_string(folder.join(peak)) {
            println!("{peak}: {}", bytes.trim());
        }
    }
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    wait_until("the end of all", || std::fs::remove_dir(&folder).is_ok());
}
