//! The program in user space, judged by the rules it stands for.

mod cases;
mod flags;
mod properties;
mod scale;

use std::net::IpAddr;

use super::Program;
use super::interpret::{Packet, passes};
use crate::model::{Door, OneTime, PortRange, Protocol, Step, TcpFlags};

fn door(sequence: Vec<Step>, tcp_flags: TcpFlags, open: Vec<PortRange>) -> Door {
    Door {
        tcp_flags,
        open: open.into(),
        ..Door::new("d", sequence)
    }
}

fn step(text: &str) -> Step {
    text.parse().expect("a step")
}

fn steps(texts: &[&str]) -> Vec<Step> {
    texts.iter().map(|text| step(text)).collect()
}

fn tcp(port: u16) -> Step {
    Step::new(Protocol::Tcp, port).expect("a port")
}

fn range(text: &str) -> PortRange {
    text.parse().expect("a range")
}

/// A door of these steps that takes SYNs.
fn syn_door(sequence: &[&str]) -> Door {
    door(steps(sequence), TcpFlags::SYN, Vec::new())
}

/// A door of these steps and flags.
fn flags_door(sequence: &[&str], tcp_flags: &str) -> Door {
    let tcp_flags = tcp_flags.parse().expect("flags");
    door(steps(sequence), tcp_flags, Vec::new())
}

/// A door of one-time sequences, of which this is the next one.
fn one_time_door(sequence: &[&str]) -> Door {
    let file = "/etc/sequences".into();
    Door {
        one_time: Some(OneTime { file }),
        ..syn_door(sequence)
    }
}

/// The program where no port is ignored.
fn program(doors: &[Door]) -> Program {
    Program::new(doors, &[])
}

/// What a packet of the tests is made of.
#[derive(Debug, Clone)]
struct Made {
    source: IpAddr,
    step: Step,
    flags: u8,
    /// Words of options (IPv4) or an extension header (IPv6).
    extra: Option<u8>,
}

impl Made {
    fn new(source: &str, step: Step, flags: u8) -> Self {
        Self {
            source: source.parse().expect("an address"),
            step,
            flags,
            extra: None,
        }
    }

    fn packet(&self) -> Packet {
        let port = self.step.port.get().to_be_bytes();
        let transport = match self.step.protocol {
            Protocol::Tcp => {
                let flags = self.flags;
                let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
                [&[0x9c, 0x40, port[0], port[1]], &rest[..]].concat()
            }
            Protocol::Udp => vec![0x9c, 0x40, port[0], port[1], 0, 8, 0, 0],
        };
        let number = self.step.protocol.number();
        let (protocol, bytes) = match self.source {
            IpAddr::V4(source) => {
                let words = 5 + self.extra.unwrap_or(0) % 11;
                let options = vec![1; usize::from(words - 5) * 4];
                let length = u16::from(words) * 4 + transport.len() as u16;
                let [l0, l1] = length.to_be_bytes();
                let head = [0x40 | words, 0, l0, l1, 0, 1, 0x40, 0, 64, number, 0, 0];
                let target = [192, 0, 2, 1];
                let parts = [&head[..], &source.octets(), &target, &options, &transport];
                (0x0800, parts.concat())
            }
            IpAddr::V6(source) => {
                let (next, extension) = match self.extra {
                    None => (number, Vec::new()),
                    Some(header) => (header, vec![number, 0, 0, 0, 0, 0, 0, 0]),
                };
                let length = (extension.len() + transport.len()) as u16;
                let [l0, l1] = length.to_be_bytes();
                let head = [0x60, 0, 0, 0, l0, l1, next, 64];
                let parts = [
                    &head[..],
                    &source.octets(),
                    &[9; 16],
                    &extension,
                    &transport,
                ];
                (0x86dd, parts.concat())
            }
        };
        Packet {
            protocol,
            packet_type: 0,
            vlan: None,
            bytes,
        }
    }
}

fn passed(program: &Program, packet: &Packet) -> bool {
    passes(program.instructions(), packet)
}

/// Whether a packet to this port passes, over IPv4 and IPv6 alike.
#[track_caller]
fn takes(program: &Program, step: Step, flags: u8) -> bool {
    let [four, six] = ["192.0.2.77", "2001:db8::77"]
        .map(|source| passed(program, &Made::new(source, step, flags).packet()));
    assert_eq!(four, six, "{step} {flags:#04x}");
    four
}
