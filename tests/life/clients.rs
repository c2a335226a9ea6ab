//! Clients that connect without pause, to see what the guard does at every moment.

use std::collections::VecDeque;
use std::fs::File;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::gauge::Gauge;
use crate::support::{CLIENT, Lab, Namespace, Over, Reach, SERVER, SOON, ip, wait_until};

/// How long an attempt from a closed source may still be let in.
const PATIENCE: Duration = Duration::from_millis(200);

/// How all attempts to reach port 22 ended.
#[derive(Debug, Default)]
struct Tally {
    /// From the opened sources.
    connected: AtomicUsize,
    failed: AtomicUsize,
    /// From the closed ones.
    tried: AtomicUsize,
    let_in: AtomicUsize,
    over: AtomicBool,
}

/// The server's addresses on the wire to the closed sources, and theirs.
const STRANGERS: [[&str; 2]; 2] = [
    ["203.0.113.1", "203.0.113.9"],
    ["2001:db8:2::1", "2001:db8:2::9"],
];

/// A host of closed sources.
fn stranger(lab: &Lab) -> Namespace {
    let stranger = lab.host("stranger");
    lab.server.join("strangers", &stranger, "eth0", &[]);
    for [server, own] in STRANGERS {
        lab.server.add_address("strangers", server);
        stranger.add_address("eth0", own);
    }
    stranger
}

/// Has opened sources ([`CLIENT`]) and closed ones connect to port 22 without pause while
/// `meanwhile` runs; none of the former may be refused or lose a packet, none of the latter
/// be let in.
#[track_caller]
pub(crate) fn connect_throughout<T>(lab: &Lab, meanwhile: impl FnOnce() -> T) -> T {
    let tally = Tally::default();
    let _alone = alone();
    let service = service(lab);
    let stranger = stranger(lab);
    let closed = STRANGERS.map(|[_, own]| own);
    let gauge = Gauge::new(&lab.server, &[("opened", CLIENT), ("closed", closed)]);
    let result = thread::scope(|scope| {
        let _end = Over(|| {
            // shutdown(2) wakes an accept(2), though no manual promises it.
            let _ = service.shutdown(Shutdown::Both);
        });
        scope.spawn(|| while service.accept().is_ok() {});
        with_clients(lab, &stranger, &tally, meanwhile)
    });
    let [opened, closed] = ["opened", "closed"].map(|group| gauge.count(group));
    println!("{tally:?}, opened: {opened:?}, closed: {closed:?}");
    assert_eq!(tally.failed.into_inner(), 0, "refused though open");
    assert_eq!(tally.let_in.into_inner(), 0, "let in though closed");
    // To the packet: TCP would send one again that was lost.
    assert_eq!(opened.passed, opened.came, "packets of opened sources");
    assert_eq!(closed.passed, 0, "packets of closed sources");
    result
}

/// One test at a time connects without pause: two of them leave the processors to nobody
/// else. Gives what holds the others off, in whichever process they are.
fn alone() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone");
    let file = File::create(path).expect("the target directory");
    file.lock().expect("a lock");
    file
}

/// Runs `meanwhile` while the clients do; both have got through before and after.
#[track_caller]
fn with_clients<T>(
    lab: &Lab,
    stranger: &Namespace,
    tally: &Tally,
    meanwhile: impl FnOnce() -> T,
) -> T {
    let [connected, tried] = [&tally.connected, &tally.tried];
    let more = |more: usize| {
        let wanted = [connected, tried].map(|count| count.load(Ordering::Relaxed) + more);
        wait_until("the clients", || {
            let now = [connected, tried].map(|count| count.load(Ordering::Relaxed));
            now.iter().zip(&wanted).all(|(now, wanted)| now >= wanted)
        });
    };
    thread::scope(|scope| {
        let _end = Over(|| tally.over.store(true, Ordering::Relaxed));
        scope.spawn(|| opened(lab, tally));
        scope.spawn(|| closed(stranger, tally));
        more(10);
        let result = meanwhile();
        more(10);
        result
    })
}

/// A service on all addresses of the server.
fn service(lab: &Lab) -> Socket {
    let socket = lab.server.socket(Domain::IPV6, Type::STREAM, 0);
    socket.set_only_v6(false).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    let all = SocketAddr::from(([0u16; 8], 22));
    socket.bind(&all.into()).expect("a free port");
    socket.listen(4096).expect("a bound socket");
    socket
}

fn opened(lab: &Lab, tally: &Tally) {
    let mut turns = CLIENT.into_iter().zip(SERVER).cycle();
    while !tally.over.load(Ordering::Relaxed)
        && let Some((own, server)) = turns.next()
    {
        let reach = lab.client.connect(ip(own), (ip(server), 22), SOON);
        let count = match reach {
            Reach::Connected(stream) => {
                // Ended by a reset: thousands in TIME-WAIT would use up the ports.
                let end = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                end.expect("a socket");
                &tally.connected
            }
            Reach::Refused | Reach::TimedOut => &tally.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn closed(stranger: &Namespace, tally: &Tally) {
    let mut turns = STRANGERS.into_iter().cycle();
    let mut begun: VecDeque<(Instant, Socket)> = VecDeque::new();
    let judge = |socket: Socket| {
        tally.tried.fetch_add(1, Ordering::Relaxed);
        if socket.peer_addr().is_ok() {
            tally.let_in.fetch_add(1, Ordering::Relaxed);
        }
        drop(OwnedFd::from(socket));
    };
    while !tally.over.load(Ordering::Relaxed)
        && let Some([server, own]) = turns.next()
    {
        begun.push_back((Instant::now(), begin(stranger, own, server)));
        while begun.front().is_some_and(|(at, _)| at.elapsed() > PATIENCE)
            && let Some((_, socket)) = begun.pop_front()
        {
            judge(socket);
        }
        // Some hundreds a second are enough, and leave the machine to the others.
        thread::sleep(Duration::from_millis(1));
    }
    begun.into_iter().for_each(|(_, socket)| judge(socket));
}

/// An attempt to connect, under way.
fn begin(stranger: &Namespace, own: &str, server: &str) -> Socket {
    let to = SocketAddr::from((ip(server), 22));
    let socket = stranger.socket(Domain::for_address(to), Type::STREAM, 0);
    let from = SocketAddr::from((ip(own), 0));
    socket.bind(&from.into()).expect("an address of that host");
    socket.set_nonblocking(true).expect("a socket");
    // In progress, or refused at once: which, is asked later.
    let _ = socket.connect(&to.into());
    socket
}
