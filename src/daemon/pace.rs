//! How reading keeps pace with what comes. A lone packet is read at once: a person waits
//! for it. When packets come thick, waking for each is most of what they cost (a bare
//! nanosleep(2) takes 7 to 17 µs of CPU, a packet half of one), so they are let gather.

use std::time::Duration;

use crate::model::Timestamp;

/// So many packets within such a time are thick: a thousand a second. Two hundred people
/// who knock at once are, for as long as it lasts; one is not.
const MANY: usize = 16;
const WINDOW: Duration = Duration::from_millis(16);

/// For so many it is worth to wake.
const WORTHY: u32 = 8;

/// How long they gather: a knock in the middle of a flood opens so much later at most, one
/// in the middle of what tripwires let through of a flood of other ports, four times that.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(4);

/// Tells how long to wait before the next look.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    window: Timestamp,
    taken: usize,
    moment: Option<Duration>,
}

impl Pace {
    /// After a read at `now` that took so many packets: how long to let them gather.
    pub(crate) fn after(&mut self, now: Timestamp, taken: usize) -> Option<Duration> {
        let age = now.since(self.window);
        if age >= WINDOW {
            // A window that came to its end and one long past are not the same.
            let thick = self.taken >= MANY && age < 2 * WINDOW;
            self.moment = thick.then(|| moment(age, self.taken));
            self.window = now;
            self.taken = 0;
        }
        self.taken += taken;
        self.moment
            .or_else(|| (self.taken >= MANY).then_some(SHORTEST))
    }
}

/// How long it takes, at this rate, until enough have come for a look to be worth it.
fn moment(time: Duration, taken: usize) -> Duration {
    let taken = u32::try_from(taken).unwrap_or(u32::MAX).max(1);
    (time * WORTHY / taken).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads packets that come at even intervals; how many reads that took.
    fn reads(every: Duration, count: u64) -> u64 {
        let mut pace = Pace::default();
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
        assert!(flood < 100_000 / 40, "{flood} reads");
    }

    #[test]
    fn after_a_flood_a_packet_is_read_at_once() {
        let mut pace = Pace::default();
        let mut now = Timestamp(1 << 40);
        for _ in 0..100 {
            now = now + SHORTEST;
            pace.after(now, 50);
        }
        assert_eq!(pace.after(now, 1), Some(SHORTEST));
        assert_eq!(pace.after(now + 3 * WINDOW, 1), None);
    }
}
