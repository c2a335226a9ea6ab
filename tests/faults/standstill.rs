//! Others that stand still: who reads the log, who asks for something, and the daemon itself.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::mounts::Mounts;
use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, Process, SERVER, SILENCE, SOON, ip, wait_until};
use crate::work::{close_all, expect_at_work, expect_shut, family, processor_time};

/// The service manager, played by the test.
struct Manager(UnixDatagram, PathBuf);

impl Manager {
    fn new(site: &Site<'_>) -> Self {
        let path = site.path("notify");
        let socket = UnixDatagram::bind(&path).expect("the laboratory's directory");
        Self(socket, path)
    }

    fn start(&self, site: &Site<'_>, words: &str, watchdog: Duration) -> Process {
        let mut command = site.command(&format!("-v {words}"));
        command.env("NOTIFY_SOCKET", &self.1);
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let mut daemon = Process::start(&mut command);
        daemon.wait_for_line("starting up, listening on");
        daemon
    }

    /// Whether the watchdog is fed within this time.
    fn is_fed(&self, within: Duration) -> bool {
        let end = std::time::Instant::now() + within;
        let mut text = [0; 4096];
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            self.0.set_read_timeout(Some(left)).expect("a socket");
            if let Ok(length) = self.0.recv(&mut text)
                && String::from_utf8_lossy(&text[..length]).contains("WATCHDOG=1")
            {
                return true;
            }
        }
    }

    /// Takes what has come.
    fn drain(&self) {
        self.0.set_nonblocking(true).expect("a socket");
        while self.0.recv(&mut [0; 4096]).is_ok() {}
        self.0.set_nonblocking(false).expect("a socket");
    }
}

/// As systemd does it: no food within the time, then SIGABRT, then a start. The guard stands all the
/// while, and what was open runs out.
#[test]
fn past_the_watchdog_the_guard_stands_and_openings_run_out() {
    needs!(Laboratory);
    let time = Duration::from_secs(1);
    for words in ["", "--watch"] {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        let site = Site::new(&lab, &SSH.replace("1h", "2s"));
        let manager = Manager::new(&site);
        let mut daemon = manager.start(&site, words, time);
        assert!(manager.is_fed(SOON));
        expect_at_work(&lab, &site);
        let processes = family(daemon.id());
        daemon.signal(Signal::SIGSTOP);
        manager.drain();
        assert!(!manager.is_fed(time), "who stands still feeds nobody");
        expect_shut(&lab);
        wait_until("the end of the opening", || site.openings().is_empty());
        let to = (ip(SERVER[0]), 22);
        let reach = lab.client.connect(ip(CLIENT[0]), to, SILENCE);
        reach.expect_silence();
        // A knock that nobody reads opens nothing.
        knock(&lab, SERVER[0], OPEN_SSH);
        expect_shut(&lab);
        assert!(site.openings().is_empty());
        daemon.signal(Signal::SIGABRT);
        daemon.signal(Signal::SIGCONT);
        let (status, _) = daemon.wait();
        assert!(!status.success(), "{status}");
        wait_until("the end of all its processes", || {
            let is_there = |pid: &u32| PathBuf::from(format!("/proc/{pid}")).exists();
            !processes.iter().any(is_there)
        });
        expect_shut(&lab);
        let mut daemon = manager.start(&site, words, time);
        assert!(manager.is_fed(SOON));
        close_all(&site);
        expect_at_work(&lab, &site);
        // And without being killed: whoever lets it go on has a daemon that works.
        daemon.signal(Signal::SIGSTOP);
        manager.drain();
        assert!(!manager.is_fed(time));
        wait_until("the end of the opening", || site.openings().is_empty());
        daemon.signal(Signal::SIGCONT);
        assert!(manager.is_fed(SOON));
        daemon.wait_for_line("192.0.2.77: ssh: closed 22/tcp");
        expect_at_work(&lab, &site);
    }
}

/// The journal's end of a stream socket, which is full.
fn full_stream() -> (UnixStream, UnixStream) {
    let (reader, mut writer) = UnixStream::pair().expect("a socket pair");
    writer.set_nonblocking(true).expect("a socket");
    while writer.write(&[b'\n'; 1024]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    writer.set_nonblocking(false).expect("a socket");
    (reader, writer)
}

#[test]
fn a_journal_that_stands_still_holds_up_nobody_and_has_its_lines_later() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let (mut reader, writer) = full_stream();
    let mut command = site.command("-v");
    let copy = OwnedFd::from(writer.try_clone().expect("a descriptor"));
    command.stderr(Stdio::from(copy));
    command.stdout(Stdio::from(OwnedFd::from(writer)));
    let mut daemon = Process::start_uncollected(&mut command);
    drop(command);
    wait_until("the daemon", || site.try_run("status").status.success());
    let worked = processor_time(daemon.id());
    for _ in 0..10 {
        expect_at_work(&lab, &site);
        close_all(&site);
        site.run("reload");
    }
    // A knock, an order and a reload take some milliseconds; whoever spins takes seconds by now.
    let worked = processor_time(daemon.id()) - worked;
    assert!(worked < Duration::from_secs(1), "{worked:?}");
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("its words");
        text
    });
    daemon.signal(Signal::SIGTERM);
    let (status, _) = daemon.wait();
    assert!(status.success(), "{status}");
    let text = text.join().expect("a reader");
    assert_eq!(text.matches("ssh: OPEN SESAME").count(), 10, "{text}");
    assert_eq!(text.matches("is in force").count(), 10);
    assert!(text.trim_end().ends_with("shutting down"));
}

#[test]
fn a_syslogd_that_stands_still_holds_up_nobody_and_is_told_how_much_it_missed() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &format!("log.syslog = true\n{SSH}"));
    let path = site.path("log.socket");
    let syslog = UnixDatagram::bind(&path).expect("the laboratory's directory");
    syslog.set_nonblocking(true).expect("a socket");
    // A /dev with what is needed, and our socket for /dev/log.
    let dev = site.path("dev");
    let mounts = Mounts::new(&lab.server, &[(&dev, 64)]);
    let dev = dev.display();
    mounts.run(&format!(
        "set -e; cd {dev}; for f in null urandom; do touch $f; mount --bind /dev/$f $f; done; \
         ln -s {} log; mount --rbind . /dev",
        path.display()
    ));
    let mut daemon = Process::start(&mut site.command_by(&mounts.starter(), "-v"));
    daemon.wait_for_line("starting up, listening on");
    let worked = processor_time(daemon.id());
    // net.unix.max_dgram_qlen is 10, or 512.
    for _ in 0..100 {
        knock(&lab, SERVER[0], OPEN_SSH);
        wait_until("the opening", || site.openings().len() == 1);
        close_all(&site);
    }
    let worked = processor_time(daemon.id()) - worked;
    assert!(worked < Duration::from_secs(2), "{worked:?}");
    let receive = || {
        let mut buffer = [0; 2048];
        let length = syslog.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let mut lines: Vec<String> = std::iter::from_fn(receive).collect();
    expect_at_work(&lab, &site);
    let (status, said) = daemon.terminate();
    assert!(status.success(), "{status}");
    lines.extend(std::iter::from_fn(receive));
    let lost = lines.iter().find_map(|line| {
        let (line, _) = line.split_once(" lines are lost: syslogd did not take them")?;
        line.rsplit(' ').next()?.parse::<usize>().ok()
    });
    let lost = lost.expect("how many are lost");
    assert_eq!(lines.len() - 1 + lost, said.len(), "{lines:#?}");
    assert!(
        lines
            .last()
            .is_some_and(|line| line.ends_with("shutting down"))
    );
}

/// Clients that are stopped before they have their answer, as Ctrl-Z does it.
#[test]
fn control_clients_that_stand_still_hold_up_nobody() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    // So many doors that the answer to `status` is more than a socket holds.
    let many: String = (0..5_000)
        .map(|n| {
            let [one, two] = [10_000 + n, 20_000 + n];
            format!(
                "[door.a_name_that_takes_some_forty_characters_{n}]\n\
                 sequence = [\"{one}/tcp\", \"{two}/udp\", \"9204/tcp\"]\nopen = [\"22/tcp\"]\n"
            )
        })
        .collect();
    let site = Site::new(&lab, &format!("{SSH}{many}"));
    let mut daemon = site.start("");
    // The daemon stands still until all have asked and stand still as well.
    daemon.signal(Signal::SIGSTOP);
    let clients: Vec<_> = ["status", "reload", "open ssh 198.51.100.1", "close --all"]
        .into_iter()
        .cycle()
        // More would wait for a place in the queue.
        .take(8)
        .map(|words| Process::start(&mut site.command(words)))
        .collect();
    let is_asking = |client: &Process| {
        // It waits, connected to the daemon or for a place among its clients.
        let of = |file: &str| PathBuf::from(format!("/proc/{}/{file}", client.id()));
        let read = |file: &str| std::fs::read_to_string(of(file)).unwrap_or_default();
        let files = std::fs::read_dir(of("fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        read("comm").trim_end() == "knockd"
            && links.any(|link| link.to_string_lossy().starts_with("socket:"))
            && read("stat").contains(") S ")
    };
    wait_until("the clients", || clients.iter().all(is_asking));
    for client in &clients {
        client.signal(Signal::SIGSTOP);
    }
    daemon.signal(Signal::SIGCONT);
    wait_until("an answer", || site.try_run("status").status.success());
    site.run("close --all");
    let worked = processor_time(daemon.id());
    for _ in 0..5 {
        expect_at_work(&lab, &site);
        close_all(&site);
    }
    let worked = processor_time(daemon.id()) - worked;
    assert!(worked < Duration::from_secs(1), "{worked:?}");
    drop(clients);
    knock(&lab, SERVER[1], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from(CLIENT[1]));
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}
