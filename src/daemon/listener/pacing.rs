//! How long packets gather before they are read. A lone packet is read at once: a person waits for
//! it. When many packets come, a wake-up for each is most of their cost (a bare nanosleep(2) takes
//! 7 to 47 µs of CPU, a packet half of one), so they gather.

use std::time::Duration;

use crate::model::Timestamp;

/// Packets gather from this many packets within this time on, a thousand a second. Two hundred people
/// who knock at once send that many for a while; one person does not.
const MANY: usize = 16;
const WINDOW: Duration = Duration::from_millis(16);

/// The number of packets that is worth a wake-up.
const WORTHY: u32 = 8;

/// From this many packets within a window on, 75,000 a second, wake-ups cost more than reading: then
/// only `WORTHY_MASSES` packets are worth one.
const MASSES: u32 = 1200;
const WORTHY_MASSES: u32 = 300;

/// The bounds of the time that packets gather. A door that opens amid a flood opens later by at most
/// `LONGEST`.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(4);

/// Decides how long to wait before the next read, by the number of packets alone: whether a step is
/// among them must not show.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    window: Timestamp,
    taken: usize,
    moment: Option<Duration>,
}

impl Pacing {
    /// Returns how long the next packets gather, after a read at `now` that took `taken` packets;
    /// `None`: they do not gather.
    pub(crate) fn after(&mut self, now: Timestamp, taken: usize) -> Option<Duration> {
        self.taken += taken;
        let age = now.since(self.window);
        if age >= WINDOW {
            // Once packets gather, they do so until they are rather fewer.
            let few = if self.moment.is_some() {
                MANY / 2
            } else {
                MANY
            };
            // A window that has just ended counts, one long past does not.
            let is_thick = self.taken >= few && age < 4 * WINDOW;
            self.moment = is_thick.then(|| moment(age, self.taken));
            self.window = now;
            self.taken = 0;
        } else if self.moment.is_none() && self.taken >= MANY {
            // In the middle of the first window.
            self.moment = Some(moment(age, self.taken));
        }
        self.moment
    }
}

/// Returns how long it takes, at this rate, until enough packets have come for a wake-up.
fn moment(time: Duration, taken: usize) -> Duration {
    let taken = u32::try_from(taken).unwrap_or(u32::MAX).max(1);
    let (worthy, longest) = match time * MASSES < WINDOW * taken {
        true => (WORTHY_MASSES, 3 * SHORTEST),
        false => (WORTHY, LONGEST),
    };
    (time * worthy / taken).clamp(SHORTEST, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads packets that come at even intervals; returns how many reads that took.
    fn reads(every: Duration, count: u64) -> u64 {
        let mut pace = Pacing::default();
        let (mut now, mut taken, mut reads) = (Timestamp(1 << 40), 0, 0);
        let start = now;
        while taken < count {
            let next = start + every * u32::try_from(taken + 1).unwrap();
            now = now.max(next);
            let come = u64::try_from(now.since(start).as_nanos() / every.as_nanos()).unwrap();
            let batch = come - taken;
            taken = come;
            reads += 1;
            if let Some(moment) = pace.after(now, usize::try_from(batch).unwrap()) {
                now = now + moment;
            }
        }
        reads
    }

    #[test]
    fn rare_packets_are_read_at_once_and_thick_ones_gather() {
        assert_eq!(reads(Duration::from_millis(2), 1000), 1000);
        let noise = reads(Duration::from_micros(640), 10_000);
        assert!(noise < 10_000 / 5, "{noise} reads");
        let flood = reads(Duration::from_micros(20), 100_000);
        assert!(
            (100_000 / 50..100_000 / 40).contains(&flood),
            "{flood} reads"
        );
        let masses = reads(Duration::from_micros(10), 100_000);
        assert!(
            (100_000 / 300..100_000 / 270).contains(&masses),
            "{masses} reads"
        );
        let more = reads(Duration::from_micros(1), 1_000_000);
        assert!(
            (1_000_000 / 1000..1_000_000 / 900).contains(&more),
            "{more} reads"
        );
    }

    #[test]
    fn after_a_flood_a_packet_is_read_at_once() {
        let mut pace = Pacing::default();
        let mut now = Timestamp(1 << 40);
        for _ in 0..100 {
            now = now + SHORTEST;
            pace.after(now, 50);
        }
        assert_eq!(pace.after(now, 1), Some(SHORTEST));
        assert_eq!(pace.after(now + 5 * WINDOW, 1), None);
    }
}
