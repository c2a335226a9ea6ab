//! A daemon that listens, and clients that knock again and again to see whether it still does.

use crate::site::{KNOCK, OPEN_SSH, SSH, Site};
use crate::support::events::{complete, doors};
use crate::support::{Lab, Namespace, Process, SERVER, SOON, ancestor, ip, wait_until};

/// A door of one datagram, whose command would run twice if that counted twice.
const RING: &str = r#"
[door.ring]
sequence      = ["7500/udp"]
start_command = "echo it rang"
"#;

/// The daemon, and who knocks at it.
pub(crate) struct ListeningDaemon<'lab> {
    pub(crate) site: Site<'lab>,
    pub(crate) process: Process,
    host: &'lab Namespace,
    client: &'lab Namespace,
    /// How often a door has opened, and `ring` among them.
    opened: u64,
    rang: usize,
}

/// A configuration of these top-level keys and of the doors that are knocked at.
pub(crate) fn configuration(keys: &str) -> String {
    format!("{keys}\n{SSH}{RING}")
}

impl<'lab> ListeningDaemon<'lab> {
    /// Starts the daemon on the laboratory's server, with these keys in its configuration.
    #[track_caller]
    pub(crate) fn open(lab: &'lab Lab, keys: &str) -> Self {
        Self::on(lab, &lab.server, keys, "")
    }

    /// The same on another host, with these words on the command line.
    #[track_caller]
    pub(crate) fn on(lab: &'lab Lab, host: &'lab Namespace, keys: &str, words: &str) -> Self {
        let site = Site::on(lab, host, &configuration(keys));
        let process = site.start(words);
        Self {
            site,
            process,
            host,
            client: &lab.client,
            opened: 0,
            rang: 0,
        }
    }

    /// With each of these keys a daemon opens at both addresses of the server, and ends.
    #[track_caller]
    pub(crate) fn opens_with_each(lab: &'lab Lab, configurations: &[&str]) {
        for keys in configurations {
            let mut daemon = Self::open(lab, keys);
            SERVER.iter().for_each(|server| daemon.opens_at(server));
            daemon.close();
        }
    }

    /// From now on another host knocks.
    pub(crate) fn knocked_by(&mut self, client: &'lab Namespace) {
        self.client = client;
    }

    /// Both clients knock at `ssh`, and a datagram at `ring`: each opens its door, once.
    #[track_caller]
    pub(crate) fn opens_at(&mut self, server: &str) {
        // Packets that are sent while the neighbour's address is still asked for may change their order.
        let reach = self.client.connect_from_any((ip(server), 1), SOON);
        reach.expect_refused();
        for client in [KNOCK.into(), ancestor::knock()] {
            self.send(&client.to_string_lossy(), server, OPEN_SSH);
            self.expect("ssh");
        }
        self.send(KNOCK, server, "7500:udp");
        self.expect("ring");
        self.rang += 1;
        assert_eq!(self.status()["opened"], self.opened, "{server}");
    }

    /// The packets of a knock come in, and none of them counts, be they read or not.
    #[track_caller]
    pub(crate) fn ignores(&mut self, server: &str) {
        let read = || self.status()["packets"]["read"].as_u64();
        self.send(KNOCK, server, OPEN_SSH);
        self.send(KNOCK, server, "7500:udp");
        let before = read().expect("a number");
        // Behind these four, five that are read for certain: with one of them, all that came
        // before it are.
        for _ in 0..5 {
            self.host.run(&format!("{KNOCK} 127.0.0.1 7999:udp"));
        }
        wait_until("the packets to be read", || read() >= Some(before + 5));
        assert_eq!(self.status()["opened"], self.opened, "{server}");
    }

    fn send(&self, program: &str, server: &str, steps: &str) {
        self.client.run(&format!("{program} {server} {steps}"));
    }

    #[track_caller]
    fn expect(&mut self, door: &str) {
        self.opened += 1;
        let opened = usize::try_from(self.opened).expect("a few");
        wait_until(door, || self.process.count_events(&complete()) >= opened);
        let lines = self.process.lines();
        let last = doors(&lines, &complete()).pop();
        assert_eq!(last.as_deref(), Some(door), "{lines:?}");
    }

    /// Waits until a line with this text has come `count` times.
    #[track_caller]
    pub(crate) fn said(&self, text: &str, count: usize) {
        wait_until(text, || self.process.count(text) >= count);
    }

    /// Returns the answer of `knockd status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        self.site.status()
    }

    /// Whether a list of the status names this interface.
    #[track_caller]
    pub(crate) fn status_has(&self, list: &str, interface: &str) -> bool {
        let status = self.status();
        let names = status[list].as_array().expect("a list");
        names.iter().any(|name| name == interface)
    }

    /// Ends the daemon; the command has run as often as it was rung for.
    #[track_caller]
    pub(crate) fn close(self) -> Vec<String> {
        self.said(": it rang", self.rang);
        let (status, lines) = self.process.terminate();
        assert!(status.success(), "{status}");
        let rang = lines.iter().filter(|line| line.ends_with(": it rang"));
        assert_eq!(rang.count(), self.rang);
        lines
    }
}
