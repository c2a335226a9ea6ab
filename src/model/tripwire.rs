//! Tripwires: ports that no door uses. Hits on tripwires show that a source scans and does not knock.

use super::{Door, PortRange, PortSet, Step, TripwireMode};

/// The ports that are steps, and the other ports that are tripwires. It depends on the packet, too,
/// whether a hit on a tripwire is a stray: see the matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tripwires {
    mode: TripwireMode,
    steps: PortSet,
    exempt: PortSet,
}

impl Tripwires {
    /// Returns the tripwires for these doors, where these ports are ignored.
    #[must_use]
    pub fn new(mode: TripwireMode, ignored: &[PortRange], doors: &[Door]) -> Self {
        let mut steps = PortSet::default();
        for step in doors.iter().flat_map(|door| &door.sequence) {
            steps.insert(*step);
        }
        let mut exempt = steps.clone();
        let opened = doors.iter().flat_map(|door| &door.open);
        for range in ignored.iter().chain(opened) {
            exempt.insert_range(range);
        }
        Self {
            mode,
            steps,
            exempt,
        }
    }

    /// Returns whether the port is a tripwire. Every port is one, except the steps of all doors, the
    /// ports that doors open, and ports that are ignored.
    #[must_use]
    pub fn is_tripwire(&self, port: Step) -> bool {
        self.mode == TripwireMode::On && !self.exempt.contains(port)
    }

    /// Returns the steps of all doors.
    #[must_use]
    pub fn steps(&self) -> &PortSet {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Step {
        text.parse().expect("a port")
    }

    #[test]
    fn every_port_is_a_tripwire_but_those_in_use() {
        let door = Door {
            open: ["22/tcp".parse().expect("a port")].into(),
            ..Door::new("d", vec![port("7000/tcp"), port("8000/udp")])
        };
        let ignored = ["443/tcp", "60000-60002/udp"].map(|r| r.parse().expect("a range"));
        let doors = [door];
        let wires = Tripwires::new(TripwireMode::On, &ignored, &doors);
        for used in ["7000/tcp", "8000/udp", "22/tcp", "443/tcp", "60001/udp"] {
            assert!(!wires.is_tripwire(port(used)), "{used}");
        }
        for other in ["7000/udp", "8000/tcp", "22/udp", "60003/udp", "1/tcp"] {
            assert!(wires.is_tripwire(port(other)), "{other}");
        }
        assert!(wires.steps().contains(port("8000/udp")));
        assert!(!wires.steps().contains(port("22/tcp")));
        let off = Tripwires::new(TripwireMode::Off, &ignored, &doors);
        assert!(!off.is_tripwire(port("1/tcp")) && off.steps().contains(port("7000/tcp")));
    }
}
