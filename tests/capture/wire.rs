//! A wire between `here` and `there`, two ends of a veth pair, and frames sent along it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use knockd::capture::LiveCapture;
use knockd::decode::decode;
use knockd::model::{Knock, Timestamp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pcap::{Active, Capture};

use super::netns::ip;
use crate::support::SOON;

/// The address of `here`; frames for it are *for this host*.
pub(crate) const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The socket that sends from `there` to `here`.
pub(crate) struct Wire(Capture<Active>);

impl Wire {
    /// Lays the wire.
    pub(crate) fn lay() -> Self {
        ip("link add here address 02:00:00:00:00:01 type veth peer name there");
        ip("link set here up");
        ip("link set there up");
        Self::from("there")
    }

    /// Sends out of this interface.
    pub(crate) fn from(interface: &str) -> Self {
        let capture = Capture::from_device(interface).expect("an interface");
        Self(capture.open().expect("a packet socket"))
    }

    /// Sends an Ethernet frame: destination `to`, tags and EtherType, packet.
    pub(crate) fn send(&mut self, to: [u8; 6], kind: &[u8], packet: &[u8]) {
        let frame = [&to[..], &[2, 0, 0, 0, 0, 2], kind, packet].concat();
        self.0.sendpacket(frame).expect("sent");
    }

    /// Sends an IPv4 or IPv6 packet to `here`.
    pub(crate) fn send_packet(&mut self, packet: &[u8]) {
        let kind = match packet[0] >> 4 {
            4 => [8, 0],
            _ => [0x86, 0xdd],
        };
        self.send(HERE, &kind, packet);
    }
}

/// A SYN over IPv4 or IPv6 with nothing else in it.
pub(crate) fn syn(source: std::net::IpAddr, port: u16, sequence: u32) -> Vec<u8> {
    let mut tcp = vec![0x9c, 0x40];
    tcp.extend(port.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    match source {
        std::net::IpAddr::V4(source) => {
            let head = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
            let mut head = [&head[..], &source.octets(), &[192, 0, 2, 1]].concat();
            // Bridges with br_netfilter look at it (RFC 791, section 3.1).
            let words = head
                .chunks_exact(2)
                .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
            let sum: u32 = words.sum();
            let folded = (sum & 0xffff) + (sum >> 16);
            let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
            head[10..12].copy_from_slice(&checksum.to_be_bytes());
            [head, tcp].concat()
        }
        std::net::IpAddr::V6(source) => {
            let head = [0x60, 0, 0, 0, 0, 20, 6, 64];
            [&head[..], &source.octets(), &[0x20; 16], &tcp].concat()
        }
    }
}

/// Reads until `count` knocks have come; fails if they do not.
pub(crate) fn knocks(live: &mut LiveCapture, count: usize) -> Vec<Knock> {
    let knocks = knocks_until(live, |knocks| knocks.len() >= count);
    assert_eq!(knocks.len(), count, "{knocks:?}");
    knocks
}

/// Reads until what has come is enough, and then what is there already.
pub(crate) fn knocks_until(
    live: &mut LiveCapture,
    is_enough: impl Fn(&[Knock]) -> bool,
) -> Vec<Knock> {
    let end = Instant::now() + SOON;
    let mut knocks = Vec::new();
    loop {
        let read = live
            .read(Timestamp(1), 1_000, |frame| knocks.extend(decode(frame)))
            .expect("frames");
        if read > 0 {
            continue;
        }
        let left = end.saturating_duration_since(Instant::now());
        if is_enough(&knocks) || left.is_zero() {
            return knocks;
        }
        wait(live, left);
    }
}

/// Sleeps until there is something to be read.
fn wait(live: &LiveCapture, most: Duration) {
    let mut fds = [PollFd::new(live.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(most).expect("seconds");
    poll(&mut fds, timeout).expect("poll");
}
