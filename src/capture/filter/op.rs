//! The instructions of classic BPF that the program uses (linux/bpf_common.h). All jumps
//! are forward and relative, so blocks of them can be put one after another.

/// One instruction of classic BPF, as `struct sock_filter` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions to skip if the test holds.
    pub jt: u8,
    /// How many instructions to skip if the test does not hold.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Hands the packet over, whole: the ring cuts it to the snaplen.
pub(super) const PASS: Instruction = statement(0x06, 0x4_0000);

/// Drops the packet.
pub(super) const DROP: Instruction = statement(0x06, 0);

/// The kernel's knowledge of a packet beside its bytes (linux/filter.h).
#[derive(Debug, Clone, Copy)]
pub(super) enum Ancillary {
    /// The EtherType behind all tags.
    Protocol = 0,
    /// Whether the packet is for us, for all, for many, for another, or from us
    /// (linux/if_packet.h).
    PacketType = 4,
    /// The control information of the tag that was taken off.
    VlanTag = 44,
    /// Whether a tag was taken off.
    VlanTagPresent = 48,
}

const fn statement(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// `A = what`.
pub(super) const fn load_ancillary(what: Ancillary) -> Instruction {
    load_word(0xffff_f000 + what as u32)
}

/// `A = 32 bits at k`. A load past the end of the packet drops it.
pub(super) const fn load_word(k: u32) -> Instruction {
    statement(0x20, k)
}

/// `A = 16 bits at k`.
pub(super) const fn load_half(k: u32) -> Instruction {
    statement(0x28, k)
}

/// `A = 8 bits at k`.
pub(super) const fn load_byte(k: u32) -> Instruction {
    statement(0x30, k)
}

/// `A = 16 bits at X + k`.
pub(super) const fn load_half_at_x(k: u32) -> Instruction {
    statement(0x48, k)
}

/// `A = 8 bits at X + k`.
pub(super) const fn load_byte_at_x(k: u32) -> Instruction {
    statement(0x50, k)
}

/// `X = k`.
pub(super) const fn set_x(k: u32) -> Instruction {
    statement(0x01, k)
}

/// `X = the length of the IPv4 header at k`, in bytes.
pub(super) const fn set_x_to_ipv4_header(k: u32) -> Instruction {
    statement(0xb1, k)
}

/// `A &= k`.
pub(super) const fn and(k: u32) -> Instruction {
    statement(0x54, k)
}

/// Skips `count` instructions.
pub(super) fn skip(count: usize) -> Instruction {
    // This never saturates: a program has at most 4,096 instructions.
    statement(0x05, u32::try_from(count).unwrap_or(u32::MAX))
}

/// A test of A.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    /// `A == k`.
    Equal(u32),
    /// `A > k`.
    Above(u32),
    /// `A >= k`.
    AtLeast(u32),
    /// `A & k != 0`.
    AnyOf(u32),
}

impl Test {
    /// Skips `jt` instructions if the test holds, `jf` if not.
    pub(super) const fn jump(self, jt: u8, jf: u8) -> Instruction {
        let (code, k) = match self {
            Self::Equal(k) => (0x15, k),
            Self::Above(k) => (0x25, k),
            Self::AtLeast(k) => (0x35, k),
            Self::AnyOf(k) => (0x45, k),
        };
        Instruction { code, jt, jf, k }
    }

    /// Skips `count` instructions if the test holds. Takes one instruction, or two where `count`
    /// does not fit the eight bits of a conditional jump.
    pub(super) fn skip(self, count: usize) -> Vec<Instruction> {
        match u8::try_from(count) {
            Ok(near) => vec![self.jump(near, 0)],
            Err(_) => vec![self.jump(0, 1), skip(count)],
        }
    }

    /// Drops the packet if the test holds.
    pub(super) const fn drops(self) -> [Instruction; 2] {
        [self.jump(0, 1), DROP]
    }

    /// Drops the packet unless the test holds.
    pub(super) const fn or_drop(self) -> [Instruction; 2] {
        [self.jump(1, 0), DROP]
    }
}

/// Goes to `yes` if the test holds, else to `no`; each ends in a return.
pub(super) fn fork(test: Test, yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut block = test.skip(no.len());
    block.extend(no);
    block.extend(yes);
    block
}

/// Goes to `yes` if the test holds, else to `no`; both go on behind the block.
pub(super) fn branch(test: Test, yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut block = test.skip(no.len() + 1);
    let over = skip(yes.len());
    block.extend(no);
    block.push(over);
    block.extend(yes);
    block
}
