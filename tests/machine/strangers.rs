//! Hosts that connect without pause, whether the machine is up or not, and what it answers them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::support::{CLIENT, Lab, OTHER, Over, SERVER, ip, wait_until};

/// The port that is guarded.
pub(crate) const GUARDED: u16 = 22;
/// A port on which the same service listens from the same moment on, and which nobody guards.
pub(crate) const FREE: u16 = 8022;

/// The time between two attempts at one port.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the machine may take to answer. Whoever answers later is still counted, by the kernel.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts the answers that accept a connection, by who asked and for what.
const COUNTERS: &str = "table inet answers {
    set accepted_v4 { typeof ip daddr . tcp sport; counter; flags dynamic; }
    set accepted_v6 { typeof ip6 daddr . tcp sport; counter; flags dynamic; }
    chain came {
        type filter hook prerouting priority -300;
        tcp flags & (syn | ack) == syn | ack ip saddr 192.0.2.1 add @accepted_v4 { ip daddr . tcp sport }
        tcp flags & (syn | ack) == syn | ack ip6 saddr 2001:db8::1 add @accepted_v6 { ip6 daddr . tcp sport }
    }
}";

/// Who watches from outside.
pub(crate) struct Outside<'lab> {
    lab: &'lab Lab,
    over: AtomicBool,
    /// How many attempts have begun.
    begun: AtomicU64,
}

impl<'lab> Outside<'lab> {
    /// Runs `during` while strangers connect to both ports of both addresses without pause.
    #[track_caller]
    pub(crate) fn watch<T>(lab: &'lab Lab, during: impl FnOnce(&Self) -> T) -> T {
        lab.client.nft(COUNTERS);
        let outside = Self {
            lab,
            over: AtomicBool::new(false),
            begun: AtomicU64::new(0),
        };
        thread::scope(|scope| {
            let _end = Over(|| outside.over.store(true, Ordering::Relaxed));
            scope.spawn(|| outside.connect(OTHER));
            during(&outside)
        })
    }

    fn connect(&self, sources: [&str; 2]) {
        let mut begun: VecDeque<(Instant, Socket)> = VecDeque::new();
        // The free port is there to see that the service is up: less often will do.
        let turns = [[GUARDED].as_slice(); 9].into_iter();
        let mut turns = turns.chain([[GUARDED, FREE].as_slice()]).cycle();
        while !self.over.load(Ordering::Relaxed)
            && let Some(ports) = turns.next()
        {
            for &port in ports {
                for (source, server) in sources.into_iter().zip(SERVER) {
                    let to = SocketAddr::from((ip(server), port));
                    let socket = self
                        .lab
                        .client
                        .socket(Domain::for_address(to), Type::STREAM, 0);
                    let from = SocketAddr::from((ip(source), 0));
                    // There is no such address before the wire is there.
                    if socket.bind(&from.into()).is_err() {
                        continue;
                    }
                    socket.set_nonblocking(true).expect("a socket");
                    // Ended by a reset: thousands in TIME-WAIT would use up the ports.
                    let end = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                    end.expect("a socket");
                    // It goes on by itself; what comes of it is counted by the kernel.
                    let _ = socket.connect(&to.into());
                    begun.push_back((Instant::now(), socket));
                    self.begun.fetch_add(1, Ordering::Relaxed);
                }
            }
            while begun.front().is_some_and(|(at, _)| at.elapsed() > PATIENCE) {
                begun.pop_front();
            }
            thread::sleep(PAUSE);
        }
    }

    /// How many answers have accepted a connection to this port from these sources, by family.
    #[track_caller]
    fn accepted(&self, sources: [&str; 2], port: u16) -> [u64; 2] {
        let text = self.lab.client.run("nft -j list sets table inet answers");
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let sets = all["nftables"].as_array().into_iter().flatten();
        let elements: Vec<_> = sets
            .flat_map(|set| set["set"]["elem"].as_array().into_iter().flatten())
            .collect();
        sources.map(|source| {
            let key = serde_json::json!({"concat": [source, port]});
            let found = elements.iter().find(|e| e["elem"]["val"] == key);
            found.map_or(0, |e| {
                let packets = e["elem"]["counter"]["packets"].as_u64();
                packets.expect("a counter")
            })
        })
    }

    /// How many answers have let strangers in at the guarded port.
    #[track_caller]
    pub(crate) fn let_in(&self) -> [u64; 2] {
        self.accepted(OTHER, GUARDED)
    }

    /// No stranger has been let in so far, though many have tried.
    #[track_caller]
    pub(crate) fn saw_no_opening(&self) {
        self.tries_on();
        assert_eq!(self.let_in(), [0, 0], "answers that let strangers in");
    }

    /// Waits until the service has answered strangers at the free port, by both families.
    #[track_caller]
    pub(crate) fn sees_the_service(&self) {
        let before = self.accepted(OTHER, FREE);
        wait_until("the service", || {
            let now = self.accepted(OTHER, FREE);
            now.iter().zip(before).all(|(now, before)| *now > before)
        });
    }

    /// Waits until strangers are let in at the guarded port, by both families.
    #[track_caller]
    pub(crate) fn sees_an_opening(&self) {
        let before = self.let_in();
        wait_until("an opening", || {
            let now = self.let_in();
            now.iter().zip(before).all(|(now, before)| *now > before)
        });
    }

    /// Waits until more attempts have been made.
    #[track_caller]
    fn tries_on(&self) {
        let before = self.begun.load(Ordering::Relaxed);
        wait_until("more attempts", || {
            self.begun.load(Ordering::Relaxed) > before + 20
        });
    }

    /// The owner knocks once by each family.
    #[track_caller]
    pub(crate) fn knock(&self, steps: &str) {
        for server in SERVER {
            crate::site::knock(self.lab, server, steps);
        }
    }

    /// The owner knocks by both families, again and again until he is let in.
    #[track_caller]
    pub(crate) fn knocks_until_let_in(&self, steps: &str) {
        for (own, server) in CLIENT.into_iter().zip(SERVER) {
            wait_until("the owner to be let in", || {
                crate::site::knock(self.lab, server, steps);
                self.reaches(own, server)
            });
        }
    }

    /// Whether the guarded port lets the owner in, by both families.
    pub(crate) fn owner_is_let_in(&self) -> bool {
        let mut both = CLIENT.into_iter().zip(SERVER);
        both.all(|(own, server)| self.reaches(own, server))
    }

    fn reaches(&self, own: &str, server: &str) -> bool {
        let to = (ip(server), GUARDED);
        let reach = self.lab.client.connect(ip(own), to, Duration::from_secs(3));
        matches!(reach, crate::support::Reach::Connected(_))
    }
}
