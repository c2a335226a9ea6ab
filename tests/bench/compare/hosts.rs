//! Two namespaces and the wire between them. Sockets belong to the namespace they were made
//! in, and children to that of the thread that starts them: so one process does it all.

use std::cell::Cell;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

/// Where the daemon runs.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The port that opens.
pub(crate) const SSH: u16 = 22;

/// RFC 2544: forged sources are from its lower part, people from its upper.
const FIRST: u32 = Ipv4Addr::new(198, 18, 0, 0).to_bits();
const PEOPLE: u32 = 120_000;

pub(crate) struct TwoHosts {
    client: File,
    server: File,
    /// Out of the client's end of the wire, and what comes in there.
    pub(crate) sending: Socket,
    pub(crate) hearing: Socket,
    directory: tempfile::TempDir,
    person: Cell<u32>,
    _ssh: TcpListener,
}

impl TwoHosts {
    /// In a fresh network namespace, which becomes the client's.
    pub(crate) fn new() -> Self {
        run_on(0);
        // Not to oversleep by the usual 50 µs.
        nix::sys::prctl::set_timerslack(1).expect("prctl(2)");
        let namespace = || File::open("/proc/thread-self/ns/net").expect("/proc");
        let client = namespace();
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let server = namespace();
        enter(&client);
        let macs = [CLIENT_MAC, SERVER_MAC].map(|mac| mac.map(|b| format!("{b:02x}")).join(":"));
        let mut ip = Command::new("ip");
        ip.args(["link", "add", "eth0", "address", &macs[0], "type", "veth"])
            .args(["peer", "name", "eth0", "address", &macs[1]])
            .args(["netns", "/proc/self/fd/0"])
            .stdin(server.try_clone().expect("a descriptor"));
        assert!(ip.status().expect("ip (package iproute2)").success());
        feed("ip", &["-batch", "-"], "link set lo up\nlink set eth0 up\n");
        enter(&server);
        feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\nlink set eth0 up\naddress add {SERVER}/24 dev eth0\n\
                 neighbour add 192.0.2.2 lladdr {} dev eth0\n\
                 route add default via 192.0.2.2\n",
                macs[0]
            ),
        );
        // A SYN-ACK that nobody takes is not to be sent again.
        std::fs::write("/proc/sys/net/ipv4/tcp_synack_retries", "0").expect("/proc/sys");
        let ssh = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let at = std::net::SocketAddr::from((SERVER, SSH));
        ssh.bind(&at.into()).expect("a free port");
        ssh.listen(4096).expect("a bound socket");
        enter(&client);
        // Until the kernel has taken note of the carrier what is sent is lost.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Self {
            client,
            server,
            sending: packet_socket(0),
            // ETH_P_IP, in network byte order.
            hearing: packet_socket(i32::from(0x0800_u16.to_be())),
            directory: tempfile::tempdir().expect("a temporary directory"),
            person: Cell::new(0),
            _ssh: ssh.into(),
        }
    }

    /// Does something as the server, on this processor: what is started there stays there.
    pub(crate) fn as_server<T>(&self, processor: usize, act: impl FnOnce() -> T) -> T {
        enter(&self.server);
        run_on(processor);
        let done = act();
        run_on(0);
        enter(&self.client);
        done
    }

    /// Gives the server's kernel these rules, and no others.
    pub(crate) fn nft(&self, text: &str) {
        let text = format!("flush ruleset\n{text}");
        self.as_server(1, || feed("nft", &["-f", "-"], &text));
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// An address nobody has knocked from yet.
    pub(crate) fn person(&self) -> Ipv4Addr {
        let number = self.person.get();
        self.person.set(number + 1);
        Ipv4Addr::from_bits(FIRST + PEOPLE + number)
    }
}

/// One of a hundred thousand sources that are nobody.
pub(crate) fn forged(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST + number % 100_000)
}

fn enter(namespace: &File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns(2)");
}

/// On a machine with one processor all share it.
fn run_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).expect("a small number");
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

fn packet_socket(protocol: i32) -> Socket {
    let protocol = Some(Protocol::from(protocol));
    let socket = Socket::new(Domain::PACKET, Type::RAW, protocol).expect("a packet socket");
    let link = getifaddrs()
        .expect("the interfaces")
        .filter(|entry| entry.interface_name == "eth0")
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .expect("the interface");
    nix::sys::socket::bind(socket.as_raw_fd(), &link).expect("a packet socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

fn feed(program: &str, arguments: &[&str], text: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(text.as_bytes()).expect("it reads");
    drop(pipe);
    assert!(child.wait().expect("a child").success(), "{text}");
}

/// The machine that this was measured on.
pub(crate) fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name\t: "));
    let load = read("/proc/loadavg");
    format!(
        "Linux {}, {}, {} processors, load {}.",
        read("/proc/sys/kernel/osrelease").trim(),
        model.unwrap_or("an unknown processor"),
        cpu.lines().filter(|l| l.starts_with("processor")).count(),
        load.split(' ').next().unwrap_or_default(),
    )
}
