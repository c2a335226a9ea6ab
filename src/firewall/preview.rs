//! Plans transactions without a kernel, for a replay.

use super::opening::Shape;
use super::openings::{By, Openings, Plan};
use super::ruleset::{IpFamily, Ruleset};
use super::transaction::Transaction;
use crate::model::{Effect, Timestamp};

/// A table that is only thought of. The preview remembers the openings that the table would hold,
/// so that a second knock extends them and a closing knock finds the openings to close.
#[derive(Debug)]
pub struct Preview {
    ruleset: Ruleset,
    openings: Openings,
}

impl Preview {
    /// Returns the table as it is after a first start.
    #[must_use]
    pub fn new(ruleset: Ruleset) -> Self {
        Self {
            ruleset,
            openings: Openings::default(),
        }
    }

    /// Returns the transaction that the effects of one knock would send at `now`, and remembers its
    /// openings.
    pub fn apply(&mut self, effects: &[Effect], now: Timestamp) -> Transaction {
        for slot in self.openings.due(now, usize::MAX) {
            self.openings.set(slot, None);
        }
        // There is no kernel to ask, so a set of the administrator's is taken to be keyed as the
        // door says.
        let source = effects.iter().find_map(address);
        let shape = |path: &_| {
            let with_ports = effects.iter().any(|effect| match effect {
                Effect::Add { path: p, ports, .. } | Effect::Remove { path: p, ports, .. } => {
                    p == path && !ports.is_empty()
                }
                Effect::Open { .. } | Effect::Close { .. } => false,
            });
            match source.map(IpFamily::of) {
                Some(family) if with_ports => Shape::AddressPort(family),
                Some(family) => Shape::Address(family),
                None => Shape::Unfit,
            }
        };
        let plan = self
            .openings
            .plan(&self.ruleset, &shape, effects, By::Knock, now);
        let Plan {
            transaction,
            writes,
            applied: _,
            admitted: _,
        } = plan;
        self.openings.note(writes);
        transaction
    }
}

fn address(effect: &Effect) -> Option<std::net::IpAddr> {
    match effect {
        Effect::Add { source, .. } | Effect::Remove { source, .. } => Some(*source),
        Effect::Open { .. } | Effect::Close { .. } => None,
    }
}
