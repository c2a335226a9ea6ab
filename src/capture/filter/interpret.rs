//! Classic BPF in user space, as the kernel runs it: what the tests judge the program by.

use super::Instruction;

/// A packet as a cooked socket sees it: from the IP header on, with what the link said.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) protocol: u16,
    pub(super) packet_type: u32,
    pub(super) vlan: Option<u16>,
    pub(super) bytes: Vec<u8>,
}

/// Whether the program passes the packet. Panics where the kernel would have refused the
/// program.
pub(super) fn passes(program: &[Instruction], packet: &Packet) -> bool {
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        let width = |bytes: usize, from: u32| load(packet, from, bytes);
        match code {
            0x06 => return k != 0,
            0x20 => match width(4, k) {
                Some(word) => a = word,
                None => return false,
            },
            0x28 => match width(2, k) {
                Some(half) => a = half,
                None => return false,
            },
            0x30 => match width(1, k) {
                Some(byte) => a = byte,
                None => return false,
            },
            0x48 => match width(2, x + k) {
                Some(half) => a = half,
                None => return false,
            },
            0x50 => match width(1, x + k) {
                Some(byte) => a = byte,
                None => return false,
            },
            0xb1 => match width(1, k) {
                Some(byte) => x = (byte & 0xf) * 4,
                None => return false,
            },
            0x01 => x = k,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn load(packet: &Packet, from: u32, bytes: usize) -> Option<u32> {
    match from {
        0xffff_f000 => Some(u32::from(packet.protocol)),
        0xffff_f004 => Some(packet.packet_type),
        0xffff_f02c => Some(u32::from(packet.vlan.unwrap_or(0))),
        0xffff_f030 => Some(u32::from(packet.vlan.is_some())),
        _ => {
            let from = from as usize;
            let slice = packet.bytes.get(from..from + bytes)?;
            Some(
                slice
                    .iter()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte)),
            )
        }
    }
}
