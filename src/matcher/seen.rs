//! Packets that have done their work and may come again: those of attempts that have opened a door.
//! Their retransmissions have no effect; they make neither the same knock once more nor a wrong step
//! of the next.
//!
//! A packet is known by a hash with a secret. The memory is bounded and touched only as it fills: each
//! hash has a row of four places, and if none is free the packet goes that runs out first. So the
//! cost of a look-up does not depend on how many packets are known.

use std::time::Duration;

use crate::model::Timestamp;

/// The number of rows, a power of two: room for 5,000 knocks of three steps, in 384 KiB.
const ROWS: usize = 1 << 12;

/// How long a packet is known at least, however brief its door's `seq_timeout` is: a retransmission
/// comes after 1 s (RFC 6298, 2.1), from older systems after 3 s.
const AT_LEAST: Duration = Duration::from_secs(4);

/// How long a packet is known at most, however often it comes: a SYN is given up after 127 s (tcp(7),
/// `tcp_syn_retries`). A later one is a new knock, of a client whose packets are all alike.
const AT_MOST: Duration = Duration::from_secs(128);

/// A packet's hash, when it first came, and until when it is known, in nanoseconds. (This is no
/// struct, so that memory the kernel hands out zeroed is full of them without being touched.)
type SeenPacket = [u64; 3];

/// The packets that are known.
#[derive(Debug)]
pub(super) struct Seen {
    rows: Vec<[SeenPacket; 4]>,
    /// The time from which no packet is known any more.
    until: Timestamp,
}

impl Seen {
    /// Returns an empty memory.
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            until: Timestamp(0),
        }
    }

    /// Whether no packet is known at this time, so that no hash need be computed.
    pub(super) fn is_empty(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// Remembers the packet with this hash, of an attempt that began at `came`, for this long.
    pub(super) fn note(&mut self, hash: u64, came: Timestamp, timeout: Duration) {
        if self.rows.is_empty() {
            self.rows = vec![[SeenPacket::default(); 4]; ROWS];
        }
        let until = came + timeout.max(AT_LEAST);
        self.until = self.until.max(until);
        let row = self.row(hash);
        let place = match row.iter().position(|[known, ..]| *known == hash) {
            Some(same) => Some(same),
            None => (0..row.len()).min_by_key(|place| {
                let [_, _, until] = row[*place];
                until
            }),
        };
        if let Some(place) = place {
            row[place] = [hash, came.0, until.0];
        }
    }

    /// Whether the packet with this hash is known. If so, it stays known for twice as long as has
    /// passed since it first came, up to a limit: the pauses between retransmissions double.
    pub(super) fn knows(&mut self, hash: u64, now: Timestamp) -> bool {
        if self.rows.is_empty() {
            return false;
        }
        let known = |[known, _, until]: &&mut SeenPacket| *known == hash && *until > now.0;
        let Some([_, came, until]) = self.row(hash).iter_mut().find(known) else {
            return false;
        };
        let passed = now.0.saturating_sub(*came);
        let twice = now.0.saturating_add(passed.saturating_mul(2));
        let most = Timestamp(*came) + AT_MOST;
        *until = (*until).max(twice.min(most.0));
        let until = Timestamp(*until);
        self.until = self.until.max(until);
        true
    }

    fn row(&mut self, hash: u64) -> &mut [SeenPacket; 4] {
        // The number of rows is a power of two: the cast takes the low bits alone.
        let row = hash as usize & (ROWS - 1);
        &mut self.rows[row]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_packet_is_known_for_its_time_and_longer_if_it_comes_again() {
        let timeout = Duration::from_secs(15);
        let mut seen = Seen::new();
        assert!(seen.is_empty(at(0)));
        seen.note(5, at(100), timeout);
        seen.note(6, at(100), timeout);
        assert!(!seen.knows(7, at(101)));
        for pause in [1, 3, 7, 14, 31, 63, 127] {
            assert!(seen.knows(5, at(100 + pause)), "{pause}");
        }
        assert!(!seen.knows(6, at(115)));
        assert!(seen.is_empty(at(100 + 128)));
        seen.note(6, at(200), Duration::from_secs(1));
        assert!(seen.knows(6, at(203)));
    }

    #[test]
    fn room_is_bounded_and_what_ends_first_goes_first() {
        let mut seen = Seen::new();
        let same_row = |n: u64| 1 + n * ROWS as u64;
        for n in 0..5 {
            seen.note(same_row(n), at(100 + n), Duration::from_secs(15));
        }
        let known: Vec<_> = (0..5).map(|n| seen.knows(same_row(n), at(106))).collect();
        assert_eq!(known, [false, true, true, true, true]);
    }
}
