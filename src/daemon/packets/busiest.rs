//! Finds the port to which most of the read packets go. The packets of a busy service had better not be
//! read at all (`ignore`).

use std::time::Duration;

use crate::model::{Step, Timestamp};

/// How long packets are counted; a window is longer if no tick ends it in time.
const WINDOW: Duration = Duration::from_secs(10);

/// Fewer packets in a window are not worth a warning: a hundred a second.
const FEW: u64 = 1000;

/// Finds a port that gets more than half of the packets, if there is one, without counting each
/// port. Packets to different ports cancel each other (Boyer and Moore, 1981). The port that is left
/// over is the suspect, and its packets are counted in the next window.
#[derive(Debug, Default)]
pub(crate) struct Busiest {
    window: Timestamp,
    packets: u64,
    left_over: Option<Step>,
    lead: u64,
    suspect: Option<Step>,
    hits: u64,
    found: Option<Step>,
}

impl Busiest {
    /// Counts a packet to this port.
    pub(crate) fn count(&mut self, port: Step) {
        self.packets += 1;
        self.hits += u64::from(self.suspect == Some(port));
        if self.lead == 0 {
            self.left_over = Some(port);
        }
        match self.left_over == Some(port) {
            true => self.lead += 1,
            false => self.lead -= 1,
        }
    }

    /// Ends the window, if it is time. Returns the port that got most of its packets, if that is
    /// another port than before.
    pub(crate) fn news(&mut self, now: Timestamp) -> Option<Step> {
        if now.since(self.window) < WINDOW {
            return None;
        }
        let is_most = self.packets >= FEW && self.hits > self.packets / 2;
        let found = self.suspect.filter(|_| is_most);
        let is_news = found != self.found;
        *self = Self {
            window: now,
            suspect: self.left_over,
            found,
            ..Self::default()
        };
        found.filter(|_| is_news)
    }

    /// Returns the port that got most packets of the last window, if that window is not long ago.
    pub(crate) fn found(&self, now: Timestamp) -> Option<Step> {
        self.found.filter(|_| now.since(self.window) < 3 * WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn port(number: u16) -> Step {
        Step::new(Protocol::Tcp, number).expect("not 0")
    }

    /// Plays a window in which each port gets so many packets; returns the news at its end.
    fn window(busiest: &mut Busiest, now: &mut Timestamp, counts: &[(u16, u64)]) -> Option<Step> {
        for round in 0..counts.iter().map(|(_, count)| *count).max().unwrap_or(0) {
            let still = counts.iter().filter(|(_, count)| round < *count);
            still.for_each(|(number, _)| busiest.count(port(*number)));
        }
        *now = *now + WINDOW;
        busiest.news(*now)
    }

    #[test]
    fn a_port_with_most_of_the_packets_is_named_once() {
        let (mut busiest, mut now) = (Busiest::default(), Timestamp(1 << 40));
        busiest.news(now);
        let much = [(443, 6_000), (22, 3_000), (80, 2_000)];
        assert_eq!(
            window(&mut busiest, &mut now, &much),
            None,
            "not counted yet"
        );
        assert_eq!(window(&mut busiest, &mut now, &much), Some(port(443)));
        assert_eq!(window(&mut busiest, &mut now, &much), None);
        assert_eq!(busiest.found(now), Some(port(443)));
        assert_eq!(busiest.found(now + 3 * WINDOW), None, "long ago");
        assert_eq!(window(&mut busiest, &mut now, &[(443, 5)]), None);
        assert_eq!(busiest.found(now), None);
    }

    #[test]
    fn nobody_is_named_without_a_majority_or_for_little() {
        let (mut busiest, mut now) = (Busiest::default(), Timestamp(1 << 40));
        busiest.news(now);
        for _ in 0..3 {
            let even = [(1, 4_000), (2, 4_000), (3, 4_000)];
            assert_eq!(window(&mut busiest, &mut now, &even), None);
        }
        for _ in 0..3 {
            assert_eq!(window(&mut busiest, &mut now, &[(443, 900)]), None);
        }
    }

    #[test]
    fn nothing_is_told_in_the_middle_of_a_window() {
        let (mut busiest, now) = (Busiest::default(), Timestamp(1 << 40));
        busiest.news(now);
        for _ in 0..5_000 {
            busiest.count(port(443));
            assert_eq!(busiest.news(now), None);
        }
    }
}
