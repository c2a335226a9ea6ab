//! The laboratory of the integration tests: network namespaces of their own, made without
//! root, in which the real programs meet the real kernel.
//!
//! ```text
//!   client                                 server
//!   192.0.2.77, .78    eth0 ──veth── eth0  192.0.2.1
//!   2001:db8::77, ::78                     2001:db8::1
//! ```
//!
//! Both lie in one user namespace, in which a command started through [`Namespace`] is
//! root. Their MAC addresses are those of the captures in tests/captures, so that a frame
//! recorded there can be sent here as it is. Nothing outlives the test: the namespaces are
//! held by open files alone, each process is killed when its handle is dropped, and a
//! laboratory ends what is left in it and has its directory on the command line.
//!
//! A test says by `needs!` what it needs of the machine: see [`need`].

// Each test binary uses some part of it.
#![allow(dead_code, unused_imports, unused_macros)]

#[macro_use]
pub(crate) mod need;

pub(crate) mod ancestor;
pub(crate) mod capture;
pub(crate) mod events;
pub(crate) mod frame;
pub(crate) mod namespace;
pub(crate) mod net;
pub(crate) mod process;
mod sockets;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use namespace::Namespace;
pub(crate) use net::Reach;
pub(crate) use process::Process;

use namespace::UserNamespaces;

/// How long to wait for what must come. Generous: it is spent only by a test that fails, and
/// on a busy machine the kernel's own threads, for which every change to nftables waits, have
/// been seen to get no processor for a minute ("rcu_preempt kthread starved").
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// How long a silence must last to be taken for one.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// The server's addresses.
pub(crate) const SERVER: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The client's own addresses.
pub(crate) const CLIENT: [&str; 2] = ["192.0.2.77", "2001:db8::77"];
/// Further addresses of the client: another host, as far as the server can tell.
pub(crate) const OTHER: [&str; 2] = ["192.0.2.78", "2001:db8::78"];

/// The MAC addresses of client and server, as in tests/captures.
pub(crate) const CLIENT_MAC: &str = "1a:f7:e6:9f:e7:47";
/// The server's.
pub(crate) const SERVER_MAC: &str = "3e:7d:34:62:0f:98";

/// Two hosts and the wire between them.
pub(crate) struct Lab {
    /// Where the daemon runs.
    pub(crate) server: Namespace,
    /// Where clients and scanners run.
    pub(crate) client: Namespace,
    users: UserNamespaces,
    directory: LabDirectory,
}

impl Lab {
    /// Both hosts, up, with their addresses.
    pub(crate) fn new() -> Self {
        let users = UserNamespaces::new();
        let server = Namespace::new(&users, "server");
        let client = Namespace::new(&users, "client");
        let lab = Self {
            server,
            client,
            users,
            directory: LabDirectory(tempfile::tempdir().expect("a temporary directory")),
        };
        lab.lay_wire();
        lab
    }

    /// Lays the wire between the hosts and gives both their addresses; where there was one
    /// before, after it was taken away.
    #[track_caller]
    pub(crate) fn lay_wire(&self) {
        let Self { server, client, .. } = self;
        server.join(
            "eth0",
            client,
            "eth0",
            &[
                &format!("address {SERVER_MAC}"),
                &format!("address {CLIENT_MAC}"),
            ],
        );
        for address in SERVER {
            server.add_address("eth0", address);
        }
        self.give_client_addresses();
    }

    /// Gives the client's end of the wire its addresses.
    #[track_caller]
    pub(crate) fn give_client_addresses(&self) {
        let client = &self.client;
        for address in CLIENT.into_iter().chain(OTHER) {
            client.add_address("eth0", address);
        }
        // The own address of each family is the one chosen when none is asked for.
        let [four, six] = CLIENT;
        client.ip(&format!(
            "route replace 192.0.2.0/24 dev eth0 src {four}\n\
             route replace 2001:db8::/64 dev eth0 metric 1 src {six}"
        ));
    }

    /// A further host, with nothing but a loopback: see [`Namespace::join`].
    pub(crate) fn host(&self, name: &'static str) -> Namespace {
        Namespace::new(&self.users, name)
    }

    /// A directory of this laboratory's own.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.0.path()
    }

    /// Writes a file into the laboratory's directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory().join(name);
        std::fs::write(&path, text).expect("the laboratory's directory can be written");
        path
    }
}

/// The laboratory's directory, which is dropped last of all. By then every daemon that was started with
/// a file in it must have ended, and the daemon's helper with it.
struct LabDirectory(tempfile::TempDir);

impl Drop for LabDirectory {
    fn drop(&mut self) {
        let deadline = Instant::now() + SOON;
        let mut left = process::naming(self.0.path());
        while !left.is_empty() && Instant::now() < deadline && !std::thread::panicking() {
            std::thread::sleep(Duration::from_millis(5));
            left = process::naming(self.0.path());
        }
        for (process, _) in &left {
            // Fails only where it has ended by now.
            let _ = nix::sys::signal::kill(*process, nix::sys::signal::Signal::SIGKILL);
        }
        assert!(
            left.is_empty() || std::thread::panicking(),
            "this outlives the test: {left:?}"
        );
    }
}

/// An address out of its text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Waits until `condition` gives something; panics with `what` if it does not come [`SOON`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Does this at the end, also when the test panics: threads would go on for ever.
pub(crate) struct Over<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for Over<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
