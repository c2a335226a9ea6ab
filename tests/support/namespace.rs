//! Namespaces, which open files hold: the kernel removes them when the last file is closed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};

use socket2::{Domain, Socket, Type};

use super::sockets::SocketMaker;

/// Two user namespaces, one within the other: the hosts belong to the inner one, and
/// whoever enters it is root there. The outer one is for tcpdump (see
/// [`Namespace::unprivileged`]).
pub(crate) struct UserNamespaces {
    outer: File,
    inner: File,
}

impl UserNamespaces {
    pub(crate) fn new() -> Self {
        let (outer, _) =
            hold(Command::new("unshare").args(["--user", "--map-user=1000", "--map-group=1000"]));
        let mut unshare = enter(&[("user", &outer)]);
        let (inner, _) = hold(unshare.args(["unshare", "--user", "--map-root-user"]));
        Self { outer, inner }
    }
}

/// A host of the laboratory.
pub(crate) struct Namespace {
    name: &'static str,
    outer: File,
    inner: File,
    net: File,
    sockets: SocketMaker,
}

impl Namespace {
    pub(super) fn new(users: &UserNamespaces, name: &'static str) -> Self {
        let mut unshare = enter(&[("user", &users.inner)]);
        let (_, net) = hold(unshare.args(["unshare", "--net"]));
        let own = std::fs::read_link("/proc/self/ns/net").expect("/proc");
        let made = std::fs::read_link(path(&net)).expect("/proc");
        assert_ne!(own, made, "the laboratory must not be the machine itself");
        let clone = |file: &File| file.try_clone().expect("a file descriptor");
        let sockets = SocketMaker::new(enter(&[("user", &users.inner), ("net", &net)]));
        let namespace = Self {
            name,
            outer: clone(&users.outer),
            inner: clone(&users.inner),
            net,
            sockets,
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// A command that will run on this host as its root.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = enter(&[("user", &self.inner), ("net", &self.net)]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// A command that will run here with every capability over the network and yet not as
    /// user 0. tcpdump, as root, wants to become another user, and there is none in a user
    /// namespace made without privilege. It runs in the outer one instead, by whose user the
    /// inner one is owned: that gives the capabilities (user_namespaces(7)).
    pub(crate) fn unprivileged(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = enter(&[("user", &self.outer), ("net", &self.net)]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a line to its end; panics if it fails. No shell: words are split at blanks.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        assert!(
            output.status.success(),
            "{}: `{line}`: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a line to its end, whatever its end.
    #[track_caller]
    pub(crate) fn try_run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command");
        self.command(program)
            .args(words)
            .output()
            .expect("nsenter (package util-linux)")
    }

    /// Gives `text` to `nft -f -`.
    #[track_caller]
    pub(crate) fn nft(&self, text: &str) {
        feed(self.command("nft").args(["-f", "-"]), text);
    }

    /// Gives lines to `ip -batch`.
    #[track_caller]
    pub(crate) fn ip(&self, lines: &str) {
        feed(self.command("ip").args(["-batch", "-"]), lines);
    }

    /// Lays a wire from this host's `interface` to `other`'s, both up. `options` are for
    /// either end, in the words of `ip link set DEV`.
    #[track_caller]
    pub(crate) fn join(&self, interface: &str, other: &Self, remote: &str, options: &[&str]) {
        let line =
            format!("link add {interface} type veth peer name {remote} netns /proc/self/fd/0");
        let output = self
            .command("ip")
            .args(line.split(' '))
            // Within the user namespace nobody may look into this process's own files.
            .stdin(other.net.try_clone().expect("a descriptor"))
            .output()
            .expect("nsenter (package util-linux)");
        assert!(output.status.success(), "{line}: {output:?}");
        for (i, (host, name)) in [(self, interface), (other, remote)].iter().enumerate() {
            let options = options.get(i).unwrap_or(&"");
            host.ip(&format!("link set {name} {options} up"));
        }
        self.wait_for_carrier(interface);
        other.wait_for_carrier(remote);
    }

    /// Waits until an interface that was set up carries packets. Up is not enough: until the
    /// kernel has taken note of the carrier the interface throws away without a word what is
    /// sent there (net/core/link_watch.c).
    #[track_caller]
    pub(crate) fn wait_for_carrier(&self, interface: &str) {
        super::wait_until("the carrier", || {
            let link = self.try_run(&format!("ip -o link show dev {interface}"));
            let link = String::from_utf8_lossy(&link.stdout);
            // A tunnel's state is not known.
            link.contains(" state UP ")
                || link.contains(",LOWER_UP> ") && link.contains(" state UNKNOWN ")
        });
    }

    /// Moves an interface to another host.
    #[track_caller]
    pub(crate) fn give(&self, interface: &str, other: &Self) {
        let line = format!("ip link set {interface} netns /proc/self/fd/0");
        let mut words = line.split(' ');
        let mut command = self.command(words.next().unwrap_or_default());
        let theirs = other.net.try_clone().expect("a descriptor");
        let output = command.args(words).stdin(theirs).output();
        assert!(
            output.as_ref().is_ok_and(|o| o.status.success()),
            "{line}: {output:?}"
        );
    }

    /// Adds an address, on a /24 or a /64, usable at once.
    #[track_caller]
    pub(crate) fn add_address(&self, interface: &str, address: &str) {
        match super::ip(address).is_ipv4() {
            true => self.ip(&format!("address add {address}/24 dev {interface}")),
            false => {
                self.ip(&format!("address add {address}/64 dev {interface} nodad"));
                self.wait_for_address(address);
            }
        }
    }

    /// Waits until an IPv6 address that was added is one: even without a search for
    /// duplicates the kernel puts that off (addrconf_dad_work() of net/ipv6/addrconf.c).
    #[track_caller]
    pub(crate) fn wait_for_address(&self, address: &str) {
        super::wait_until("the address", || {
            let routes = self.run("ip -6 route show table local");
            routes.contains(&format!("local {address} "))
        });
    }

    /// A socket of this host's, in the hands of the test. `protocol` may be 0.
    pub(crate) fn socket(&self, domain: Domain, kind: Type, protocol: i32) -> Socket {
        self.sockets.socket(domain, kind, protocol)
    }

    /// A packet socket on an interface: what is sent there are whole frames.
    pub(crate) fn frames(&self, interface: &str) -> Socket {
        self.sockets.frames(interface)
    }
}

/// The place of an open namespace file, for other processes to open.
fn path(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// `nsenter` into these namespaces; what is to run there must be added.
fn enter(namespaces: &[(&str, &File)]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg("--preserve-credentials");
    for (kind, file) in namespaces {
        command.arg(format!("--{kind}={}", path(file)));
    }
    command
}

/// Starts an `unshare` command that lacks only the program, and opens the user and the
/// network namespace in which that program finds itself.
fn hold(unshare: &mut Command) -> (File, File) {
    let mut child = unshare
        .args(["--", "sh", "-c", "echo there; read _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare and nsenter (package util-linux)");
    let mut word = String::new();
    let told = child.stdout.take().map(BufReader::new);
    told.expect("a pipe").read_line(&mut word).expect("a pipe");
    assert_eq!(
        word, "there\n",
        "cannot make a namespace: are user namespaces allowed here? \
         (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)"
    );
    let open = |kind| {
        File::open(format!("/proc/{}/ns/{kind}", child.id())).expect("/proc shows the namespaces")
    };
    let namespaces = (open("user"), open("net"));
    // The end of its standard input ends it.
    drop(child.stdin.take());
    child.wait().expect("a child");
    namespaces
}

/// Runs a command with this on its standard input; panics if it fails.
#[track_caller]
fn feed(command: &mut Command, text: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter (package util-linux)");
    // A command that fails early reads no further; its status will tell.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes());
    let output = child.wait_with_output().expect("a child");
    assert!(
        output.status.success(),
        "{command:?}\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A descriptor for a child to inherit.
pub(super) fn stdio(end: impl Into<OwnedFd>) -> Stdio {
    Stdio::from(end.into())
}
