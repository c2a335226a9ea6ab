//! The program in user space, judged by the rules it stands for.

mod cases;
mod properties;
mod scale;

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::Program;
use super::interpret::{Packet, passes};
use crate::model::{
    Door, PortRange, Protocol, Step, TcpFlags, TripwireKey, TripwireMode, Tripwires,
};

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

fn doors(sequences: &[&[&str]]) -> Vec<Door> {
    sequences
        .iter()
        .map(|steps| {
            let steps = steps.iter().map(|s| step(s)).collect();
            door(steps, TcpFlags::SYN, Vec::new())
        })
        .collect()
}

fn program(mode: TripwireMode, doors: &[Door]) -> (Program, Tripwires) {
    let wires = Tripwires::new(mode, TripwireKey::new([0xa7; 16]), doors);
    (Program::new(doors, &wires), wires)
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
    fn new(source: &str, step_text: &str, flags: u8) -> Self {
        Self {
            source: source.parse().expect("an address"),
            step: step(step_text),
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
