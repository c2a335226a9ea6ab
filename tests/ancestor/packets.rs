//! Packets of any kind from any source address.
//!
//! Their checksums are left out. Capture sees them all the same, and the server's own stack drops
//! them, so that nobody answers and the wire stays quiet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::Socket;

use crate::support::frame::mac;
use crate::support::{CLIENT_MAC, Lab, SERVER_MAC};

/// TCP flags (RFC 9293, 3.1).
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const URG: u8 = 0x20;
}

/// The kind of packet that hits a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP.
    Udp,
}

/// A SYN.
pub(crate) const SYN: Kind = Kind::Tcp(flag::SYN);

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) kind: Kind,
    /// Tells it from every other: two with the same serial are retransmissions.
    pub(crate) serial: u32,
}

impl Packet {
    /// The frame that carries it to the server.
    fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(80);
        frame.extend(mac(SERVER_MAC));
        frame.extend(mac(CLIENT_MAC));
        let segment = self.segment();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.four(&mut frame, from, to, segment.len()),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.six(&mut frame, from, to, segment.len()),
            _ => panic!("of two families: {self:?}"),
        }
        frame.extend(segment);
        frame
    }

    fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp(_) => 6,
            Kind::Udp => 17,
        }
    }

    fn four(&self, frame: &mut Vec<u8>, from: Ipv4Addr, to: Ipv4Addr, length: usize) {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + length as u16).to_be_bytes());
        frame.extend((self.serial as u16).to_be_bytes());
        frame.extend([0x40, 0, 64, self.protocol(), 0, 0]);
        frame.extend(from.octets());
        frame.extend(to.octets());
    }

    fn six(&self, frame: &mut Vec<u8>, from: Ipv6Addr, to: Ipv6Addr, length: usize) {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((length as u16).to_be_bytes());
        frame.extend([self.protocol(), 64]);
        frame.extend(from.octets());
        frame.extend(to.octets());
    }

    /// The TCP or UDP header; there is nothing behind it.
    fn segment(&self) -> Vec<u8> {
        let mut segment = Vec::with_capacity(20);
        segment.extend((1024 + (self.serial % 60_000) as u16).to_be_bytes());
        segment.extend(self.port.to_be_bytes());
        match self.kind {
            Kind::Tcp(flags) => {
                segment.extend(self.serial.to_be_bytes());
                segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Kind::Udp => segment.extend([0, 8, 0, 0]),
        }
        segment
    }
}

/// Sends packets from the client's end of the wire.
pub(crate) struct Sender {
    socket: Socket,
    serial: u32,
}

impl Lab {
    /// A sender whose packets are all different.
    pub(crate) fn sender(&self) -> Sender {
        Sender {
            socket: self.client.frames("eth0"),
            serial: 0,
        }
    }
}

impl Sender {
    /// Sends a packet as it is.
    pub(crate) fn send(&self, packet: &Packet) {
        let frame = packet.frame();
        let sent = self.socket.send(&frame).expect("the interface is up");
        assert_eq!(sent, frame.len());
    }

    /// Hits a port once.
    pub(crate) fn hit(&mut self, from: IpAddr, to: IpAddr, port: u16, kind: Kind) {
        self.serial += 1;
        self.send(&Packet {
            from,
            to,
            port,
            kind,
            serial: self.serial,
        });
    }

    /// Hits ports with SYNs, in order.
    pub(crate) fn knock(&mut self, from: IpAddr, to: IpAddr, ports: &[u16]) {
        for port in ports {
            self.hit(from, to, *port, SYN);
        }
    }
}
