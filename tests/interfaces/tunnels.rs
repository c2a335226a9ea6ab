//! TUN, TAP and PPP devices on both hosts, and socat(1) that carries packets between them:
//! raw IP, and Ethernet without a wire.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use crate::listening::ListeningDaemon;
use crate::support::need::kernel_lacks;
use crate::support::{Lab, Namespace, Process, wait_until};

/// The tunnel; it goes with its devices when dropped.
struct Tunnel {
    _ends: [Process; 2],
}

impl Tunnel {
    /// Lays it between devices of this name, and gives them addresses.
    fn lay(lab: &Lab, name: &str, kind: &str) -> Self {
        let (here, there) = UnixDatagram::pair().expect("a socket pair");
        let end = |host: &Namespace, socket: UnixDatagram, last: u8| {
            let mut command = host.command("socat");
            let device = format!("TUN,tun-name={name},tun-type={kind},iff-no-pi,up");
            command.args([&device, "FD:0"]).stdin(OwnedFd::from(socket));
            let process = Process::start(&mut command);
            host.wait_for_carrier(name);
            host.add_address(name, &format!("198.51.100.{last}"));
            host.add_address(name, &format!("2001:db8:6::{last}"));
            process
        };
        Self {
            _ends: [end(&lab.server, here, 1), end(&lab.client, there, 77)],
        }
    }

    /// The same with pppd(8) at both ends, which makes the devices and gives them addresses.
    fn dial(lab: &Lab) -> Self {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        let end = |host: &Namespace, socket: UnixStream, own: u8, other: u8| {
            let mut command = host.command("socat");
            let pppd = format!(
                "EXEC:pppd local noauth nodetach nolock nodefaultroute noipdefault unit 0 \
                 198.51.100.{own}\\:198.51.100.{other},pty,raw,echo=0"
            );
            command.args(["FD:0", &pppd]).stdin(OwnedFd::from(socket));
            Process::start(&mut command)
        };
        let ends = [
            end(&lab.server, here, 1, 77),
            end(&lab.client, there, 77, 1),
        ];
        for (host, last) in [(&lab.server, 1), (&lab.client, 77)] {
            host.wait_for_carrier("ppp0");
            host.add_address("ppp0", &format!("2001:db8:6::{last}"));
        }
        Self { _ends: ends }
    }
}

fn comes_and_goes(kind: &str) {
    let lab = Lab::new();
    let name = &format!("{kind}0");
    let lay = || match kind {
        "ppp" => Tunnel::dial(&lab),
        _ => Tunnel::lay(&lab, name, kind),
    };
    for keys in ["", &format!("interfaces = [\"{kind}*\"]")] {
        let mut daemon = ListeningDaemon::open(&lab, keys);
        for round in 1..=2 {
            let tunnel = lay();
            for server in ["198.51.100.1", "2001:db8:6::1"] {
                daemon.opens_at(server);
            }
            drop(tunnel);
            daemon.said(&format!("interface {name} is gone"), round);
            // Otherwise the next tunnel would find the old device.
            wait_until("the client's end to go", || {
                let there = lab.client.try_run(&format!("ip link show dev {name}"));
                !there.status.success()
            });
        }
        daemon.close();
    }
}

#[test]
fn a_raw_ip_tunnel_may_come_and_go() {
    needs!(Laboratory, Knock08, Tool("socat"));
    comes_and_goes("tun");
}

#[test]
fn an_ethernet_tunnel_may_come_and_go() {
    needs!(Laboratory, Knock08, Tool("socat"));
    comes_and_goes("tap");
}

/// Dialled late, and again, as a modem's line is.
#[test]
fn a_ppp_line_may_come_and_go() {
    needs!(Laboratory, Knock08, Tool("socat"), Tool("pppd"));
    if Path::new("/dev/ppp").exists() {
        comes_and_goes("ppp");
    } else {
        kernel_lacks("PPP");
    }
}
