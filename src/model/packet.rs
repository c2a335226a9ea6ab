//! Frames as they come from the wire, and knocks as they are in frames.

use std::net::IpAddr;

use super::{Step, Timestamp};

/// How a frame begins (the LINKTYPE_ registry of tcpdump.org, by number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// 0: BSD loopback, the address family in the byte order of the machine that wrote it.
    Null,
    /// 1: Ethernet, with 802.1Q, QinQ and PPPoE sessions.
    Ethernet,
    /// 9: PPP, with or without the HDLC bytes ff 03.
    Ppp,
    /// 12, 14, 101: an IP header, of either version.
    Raw,
    /// 50: PPP in HDLC-like framing, bytes ff 03 or a Cisco header first.
    PppHdlc,
    /// 51: PPPoE session, from its own header on.
    PppEther,
    /// 108: OpenBSD loopback, the address family in network byte order.
    Loop,
    /// 113: Linux cooked v1.
    LinuxCooked,
    /// 228: an IPv4 header.
    Ipv4,
    /// 229: an IPv6 header.
    Ipv6,
    /// 276: Linux cooked v2, which names the interface.
    LinuxCooked2,
}

/// A frame as captured, borrowed from the capture's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// When the frame was read (live) or recorded (a file).
    pub at: Timestamp,
    /// How `data` begins.
    pub link: LinkType,
    /// The length on the wire, in bytes; `data` may be shorter, never longer.
    pub wire_len: u32,
    /// The bytes that were captured.
    pub data: &'a [u8],
}

/// A packet that may hit a step: its headers are whole, and its source can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knock {
    /// The time of the frame.
    pub at: Timestamp,
    /// The source; over IPv6 never an address that only wraps one of IPv4.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
    /// The port that was hit, and its protocol.
    pub step: Step,
    /// The port that the packet came from.
    pub source_port: u16,
    /// The numbers by which the packet differs from others, but not from its own retransmission.
    pub transport: Transport,
    /// The kernel's index of the interface, if the link type has it (cooked v2).
    pub interface: Option<u32>,
}

/// The part of a knock that depends on its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// Byte 13 of the header.
        flags: u8,
        /// The sequence number.
        sequence: u32,
    },
    /// A UDP datagram.
    Udp {
        /// The identification in the IPv4 header; 0 over IPv6, which has none.
        identification: u16,
    },
}
