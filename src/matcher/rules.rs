//! What a packet is to an attempt: rules 0 to 5, and nothing is changed here.

use super::doors::{Door, Doors, Hit};
use crate::model::{Knock, Protocol, TcpFlags, Transport, Tripwires};

/// What a packet is to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// As if it never came.
    Ignored,
    /// The step expected.
    Advances,
    /// A step, but not the one expected.
    WrongStep,
    /// A tripwire.
    Stray,
}

/// Whether a packet can be anything at all to an attempt: a step, or a stray. Most of what
/// a capture file holds is neither, and costs no look into the table.
pub(super) fn matters(knock: &Knock, tripwires: &Tripwires) -> bool {
    tripwires.steps().contains(knock.step) || is_stray(knock, tripwires)
}

/// Rule 5, but for doors without UDP. The door's own flags do not matter: a scanner chooses
/// his.
fn is_stray(knock: &Knock, tripwires: &Tripwires) -> bool {
    let counts = match knock.transport {
        Transport::Tcp { flags, sequence: _ } => TcpFlags::SYN.matches(flags),
        Transport::Udp { identification: _ } => true,
    };
    counts && tripwires.is_stray(knock.source, knock.step)
}

/// Judges a packet of the attempt's own source. `repeats`: whether it is equal to one that
/// made a step of the attempt; asked only where that decides.
pub(super) fn judge(
    hit: &Hit,
    door: &Door,
    stage: u8,
    repeats: impl FnOnce() -> bool,
    doors: &Doors,
    tripwires: &Tripwires,
) -> Verdict {
    let step = hit.knock.step;
    let stage = usize::from(stage);
    if !door.faces(hit) {
        return Verdict::Ignored;
    }
    if !tripwires.steps().contains(step) {
        let counts = match step.protocol {
            Protocol::Tcp => true,
            Protocol::Udp => door.model.has_udp(),
        };
        return if counts && is_stray(hit.knock, tripwires) {
            Verdict::Stray
        } else {
            Verdict::Ignored
        };
    }
    // Rule 0 again, then rule 1.
    if !door.counts(hit) || repeats() {
        return Verdict::Ignored;
    }
    // Rule 2.
    if door.model.sequence.get(stage) == Some(&step) {
        return Verdict::Advances;
    }
    // Rule 3.
    if door.model.sequence.get(stage.wrapping_sub(1)) == Some(&step) {
        return Verdict::Ignored;
    }
    // Rule 4.
    if door.model.sequence.contains(&step) || doors.fits_any(hit) {
        return Verdict::WrongStep;
    }
    Verdict::Ignored
}
