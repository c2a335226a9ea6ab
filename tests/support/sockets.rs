//! Sockets of another network namespace, in the hands of the test.
//!
//! A socket belongs to the namespace in which it was made, not to the one of whoever uses
//! it. So this very test binary is run once more in the namespace, as [`helper`], which
//! makes sockets and hands them over (SCM_RIGHTS, unix(7)): a connection from there is then
//! a `TcpStream` like any other.

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::ifaddrs::getifaddrs;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::stdio;

/// Set for the helper alone.
const MARK: &str = "KNOCKD_TEST_SOCKETS";

/// An order is 32 bytes: domain, type and protocol, and the name of an interface to bind a
/// packet socket to, filled up with zeros.
const ORDER: usize = 32;

/// Makes sockets in one namespace. The helper is started when the first is wanted.
pub(crate) struct SocketMaker(Mutex<Maker>);

struct Maker {
    enter: Command,
    running: Option<(UnixStream, Child)>,
}

impl SocketMaker {
    /// `enter` enters the namespace; the program is added here.
    pub(super) fn new(mut enter: Command) -> Self {
        enter
            .arg(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", helper_name(), "--nocapture"])
            .env(MARK, "1")
            .stdout(Stdio::null());
        Self(Mutex::new(Maker {
            enter,
            running: None,
        }))
    }

    pub(super) fn socket(&self, domain: Domain, kind: Type, protocol: i32) -> Socket {
        self.order(i32::from(domain), i32::from(kind), protocol, "")
    }

    pub(super) fn frames(&self, interface: &str) -> Socket {
        self.order(
            i32::from(Domain::PACKET),
            i32::from(Type::RAW),
            0,
            interface,
        )
    }

    fn order(&self, domain: i32, kind: i32, protocol: i32, interface: &str) -> Socket {
        let mut order = Vec::with_capacity(ORDER);
        for number in [domain, kind, protocol] {
            order.extend(number.to_ne_bytes());
        }
        order.extend(interface.bytes());
        order.resize(ORDER, 0);
        let mut maker = self.0.lock().expect("no test has died holding it");
        let channel = maker.channel();
        std::io::Write::write_all(channel, &order).expect("the helper reads");
        receive(channel).into()
    }
}

impl Maker {
    fn channel(&mut self) -> &mut UnixStream {
        let enter = &mut self.enter;
        let (channel, _) = self.running.get_or_insert_with(|| {
            let (ours, theirs) = UnixStream::pair().expect("a socket pair");
            let child = enter.stdin(stdio(theirs)).spawn().expect("nsenter");
            // The command keeps its copy of the other end, which would hide the helper's
            // death from us.
            enter.stdin(Stdio::null());
            (ours, child)
        });
        channel
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        if let Some((channel, mut child)) = self.running.take() {
            drop(channel);
            let _ = child.wait();
        }
    }
}

/// The name by which this binary's test harness knows [`helper`].
fn helper_name() -> &'static str {
    // The first segment is the crate.
    let path = concat!(module_path!(), "::helper");
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// No test of anything: what the namespace's side runs. In an ordinary run it does nothing.
#[test]
fn helper() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let channel = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("stdin");
    let mut channel = UnixStream::from(channel);
    let mut order = [0; ORDER];
    while channel.read_exact(&mut order).is_ok() {
        let number = |i: usize| {
            let bytes = order[i * 4..i * 4 + 4].try_into().expect("four bytes");
            i32::from_ne_bytes(bytes)
        };
        let protocol = match number(2) {
            0 => None,
            other => Some(Protocol::from(other)),
        };
        let socket = Socket::new(number(0).into(), number(1).into(), protocol).expect("a socket");
        let interface = String::from_utf8_lossy(&order[12..]);
        let interface = interface.trim_end_matches('\0');
        if !interface.is_empty() {
            bind_to_interface(&socket, interface);
        }
        send(&channel, &socket);
    }
}

fn bind_to_interface(socket: &Socket, interface: &str) {
    let link = getifaddrs()
        .expect("the interfaces")
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .expect("the interface");
    nix::sys::socket::bind(socket.as_raw_fd(), &link).expect("a packet socket");
}

fn send(channel: &UnixStream, socket: &Socket) {
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let byte = [IoSlice::new(&[0])];
    sendmsg(channel, &byte, &mut control, SendFlags::empty()).expect("the test reads");
}

fn receive(channel: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    recvmsg(channel, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("the helper answers");
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return descriptor;
        }
    }
    panic!("the helper could not make the socket: see its message above")
}
