//! systemd's side of the daemon (sd_notify(3)), played by a socket of the test.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, Process, SERVER, SILENCE, SOON, ip};

/// The service manager.
struct Manager<'a> {
    socket: UnixDatagram,
    site: &'a Site<'a>,
}

impl<'a> Manager<'a> {
    fn new(site: &'a Site<'a>) -> Self {
        let socket = UnixDatagram::bind(site.path("notify")).expect("the laboratory's directory");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        Self { socket, site }
    }

    /// Starts the daemon as a service of `Type=notify`.
    fn start(&self, watchdog: Option<Duration>) -> Process {
        let mut command = self.site.command("-v");
        command.env("NOTIFY_SOCKET", self.site.path("notify"));
        if let Some(time) = watchdog {
            command.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
        Process::start(&mut command)
    }

    /// The next message, an assignment a line.
    #[track_caller]
    fn next(&self) -> Vec<String> {
        let mut text = [0; 4096];
        let length = self.socket.recv(&mut text).expect("a message");
        let text = String::from_utf8_lossy(&text[..length]);
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a message has this line, and gives the whole message. What comes before
    /// may be anything but `never`.
    #[track_caller]
    fn wait_for(&self, line: &str, never: &str) -> Vec<String> {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            let message = self.next();
            if message.iter().any(|one| one == line) {
                return message;
            }
            assert!(!message.iter().any(|one| one == never), "{message:?}");
        }
        panic!("waited in vain for {line}");
    }
}

/// A further interface of the server's, up and with an address.
#[track_caller]
fn add_interface(lab: &Lab, name: &str) {
    lab.server.ip(&format!(
        "link add {name} type veth peer name other\nlink set {name} up\nlink set other up"
    ));
    lab.server.add_address(name, "198.51.100.1");
}

fn time_now() -> u128 {
    use nix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_micros()
}

#[test]
fn ready_is_said_when_the_guard_stands_and_knocks_are_heard() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    let manager = Manager::new(&site);
    let mut daemon = manager.start(None);
    // The very first message, and nothing is waited for after it.
    let message = manager.next();
    assert!(message.contains(&"READY=1".to_owned()), "{message:?}");
    assert!(
        message.contains(&format!("MAINPID={}", daemon.id())),
        "{message:?}"
    );
    knock(&lab, SERVER[0], OPEN_SSH);
    let to = (ip(SERVER[1]), 22);
    lab.client
        .connect(ip(CLIENT[1]), to, SILENCE)
        .expect_silence();
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    manager.wait_for("STATUS=listening on eth0", "READY=1");
    // Not one more, unless it is asked to.
    daemon.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1", "READY=1");
    let (status, _) = daemon.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn knocks_are_heard_from_the_first_moment_on() {
    needs!(Laboratory);
    let lab = Lab::new();
    let door = r#"
firewall.on_stop = "remove"
[door.udp]
sequence = ["7001/udp", "8102/udp", "9203/udp"]
open     = ["22/tcp"]
"#;
    let site = Site::new(&lab, door);
    let manager = Manager::new(&site);
    // The kernel has the ring ready some 5 to 20 ms later: before that, amid, and after.
    for delay in (0..20).map(|number| Duration::from_micros(number * 500)) {
        let client = lab.client.udp(ip(CLIENT[0]), 0);
        let mut daemon = manager.start(None);
        manager.wait_for("READY=1", "RELOADING=1");
        for port in [7001, 8102, 9203] {
            client.send_to(b"", (ip(SERVER[0]), port)).expect("sent");
            std::thread::sleep(delay);
        }
        daemon.wait_for_event(&opened("22/tcp").at("udp").from("192.0.2.77"));
        daemon.terminate();
    }
}

/// systemd reloads itself: its queue is full for a while.
#[test]
fn a_manager_that_has_no_room_is_told_later_and_holds_up_nobody() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let manager = Manager::new(&site);
    let stranger = UnixDatagram::unbound().expect("a socket");
    stranger.set_nonblocking(true).expect("a socket");
    let fill = || while stranger.send_to(b"X", site.path("notify")).is_ok() {};
    fill();
    let begun = Instant::now();
    let mut daemon = manager.start(Some(Duration::from_secs(3)));
    daemon.wait_for_line("starting up, listening on");
    for server in SERVER {
        knock(&lab, server, OPEN_SSH);
    }
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("2001:db8::77"));
    site.reload(&daemon);
    // It once waited for a second at each.
    let time = begun.elapsed();
    assert!(time < Duration::from_secs(2), "{time:?}");
    // In order, and nothing that matters is missing.
    for line in ["READY=1", "RELOADING=1", "READY=1", "WATCHDOG=1"] {
        manager.wait_for(line, "STOPPING=1");
    }
}

#[test]
fn a_reload_is_announced_and_ended() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let manager = Manager::new(&site);
    let daemon = manager.start(None);
    manager.wait_for("READY=1", "");
    // A good file and a faulty one: it is over either way.
    for text in [SSH, "faulty"] {
        site.configure(text);
        let before = time_now();
        daemon.signal(Signal::SIGHUP);
        let message = manager.wait_for("RELOADING=1", "READY=1");
        // systemd tells by it whether the reload is the one it asked for.
        let stamp = message
            .iter()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
            .expect("a time in the same message");
        let stamp: u128 = stamp.parse().expect("a number");
        assert!((before..=time_now()).contains(&stamp), "{message:?}");
        manager.wait_for("READY=1", "STOPPING=1");
    }
}

#[test]
fn a_refused_file_and_a_cleared_table_stand_in_the_status() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let manager = Manager::new(&site);
    let daemon = manager.start(None);
    let path = site.config().display().to_string();
    let refused =
        |in_use: &str| format!("STATUS={path} IS REFUSED, in use is {in_use}; listening on eth0");
    let good = "STATUS=listening on eth0";
    manager.wait_for(good, "");
    site.configure("faulty");
    daemon.signal(Signal::SIGHUP);
    manager.wait_for(&refused("the configuration that was running"), good);
    site.configure(SSH);
    daemon.signal(Signal::SIGHUP);
    manager.wait_for(good, "");
    site.run("clear");
    let cleared = "STATUS=THE TABLE IS CLEARED, nothing is guarded until a reload or start; \
                   listening on eth0";
    manager.wait_for(cleared, good);
    site.run("reload");
    manager.wait_for(good, "");
    daemon.terminate();
    manager.wait_for("STOPPING=1", "");
    site.configure("faulty");
    let _daemon = manager.start(None);
    manager.wait_for(&refused("the last configuration that was good"), good);
}

#[test]
fn a_missing_interface_delays_nothing_and_is_told() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("interfaces = [\"eth0\", \"eth7\"]\n{SSH}"));
    let manager = Manager::new(&site);
    let mut daemon = manager.start(None);
    manager.wait_for("READY=1", "");
    manager.wait_for("STATUS=listening on eth0; waiting for eth7", "READY=1");
    add_interface(&lab, "eth7");
    manager.wait_for("STATUS=listening on eth0, eth7", "READY=1");
    lab.server.ip("link delete eth7");
    manager.wait_for("STATUS=listening on eth0; waiting for eth7", "READY=1");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
}

#[test]
fn no_interface_at_all_delays_nothing_either() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("interfaces = [\"ppp*\"]\n{SSH}"));
    let manager = Manager::new(&site);
    let _daemon = manager.start(None);
    manager.wait_for("READY=1", "");
    manager.wait_for("STATUS=listening on no interface", "READY=1");
    add_interface(&lab, "ppp0");
    manager.wait_for("STATUS=listening on ppp0", "READY=1");
}

#[test]
fn the_watchdog_is_fed_in_time() {
    needs!(Laboratory);
    let time = Duration::from_secs(4);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let manager = Manager::new(&site);
    let _daemon = manager.start(Some(time));
    manager.wait_for("READY=1", "");
    manager.wait_for("WATCHDOG=1", "");
    let mut last = Instant::now();
    for _ in 0..2 {
        manager.wait_for("WATCHDOG=1", "");
        assert!(last.elapsed() < time, "{:?}", last.elapsed());
        last = Instant::now();
    }
}
