//! How reading keeps pace with what comes. A lone packet is read at once: a person waits
//! for it. When packets come thick, waking for each is most of what they cost (a bare
//! nanosleep(2) takes 7 to 31 µs of CPU, a packet half of one), so they are let gather.

use std::time::Duration;

use crate::model::Timestamp;

/// So many packets within such a time are thick: a thousand a second. Two hundred people
/// who knock at once are, for as long as it lasts; one is not.
const MANY: usize = 16;
const WINDOW: Duration = Duration::from_millis(16);

/// For so many it is worth to wake: of steps, for which somebody may wait, and of what
/// tripwires let through of a flood of other ports.
const WORTHY: u32 = 8;
const WORTHY_STRAYS: u32 = 256;

/// How long they gather. A knock in the middle of a flood of steps opens so much later at
/// most: 1 ms if that is as thick as a flood is. One in the middle of strays does not wait.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(4);
const LONGEST_STRAYS: Duration = Duration::from_millis(20);

/// How long the next packets are let gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gather {
    /// Until then.
    pub(crate) most: Duration,
    /// Unless the bell rings, for a step.
    pub(crate) ends_at_bell: bool,
}

/// Tells how long to wait before the next look.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    window: Timestamp,
    /// Within the window: packets; looks at what had gathered, and how many of these found
    /// a step, or that the bell had rung.
    taken: usize,
    looks: u32,
    rings: u32,
    gather: Option<Gather>,
}

impl Pace {
    /// After a look at `now` that took so many packets: how long to let the next ones
    /// gather. `rung` says whether there was a step among them, or the bell rang for what may
    /// be one; `None` if these did not gather.
    pub(crate) fn after(
        &mut self,
        now: Timestamp,
        taken: usize,
        rung: Option<bool>,
    ) -> Option<Gather> {
        self.taken += taken;
        self.looks += u32::from(rung.is_some());
        self.rings += u32::from(rung == Some(true));
        let age = now.since(self.window);
        if age >= WINDOW {
            // A window that came to its end and one long past are not the same.
            // Once they gather, they do until they are rather fewer.
            let few = if self.gather.is_some() {
                MANY / 2
            } else {
                MANY
            };
            let is_thick = self.taken >= few && age < 4 * WINDOW;
            self.gather = is_thick.then(|| self.judge(age));
            self.window = now;
            (self.taken, self.looks, self.rings) = (0, 0, 0);
        }
        if self.rings >= WORTHY && self.gather.is_some_and(|gather| gather.ends_at_bell) {
            self.gather = Some(Gather::steps(SHORTEST));
        }
        self.gather
            .or_else(|| (self.taken >= MANY).then(|| Gather::steps(SHORTEST)))
    }

    /// What a window of this age says about the next.
    fn judge(&self, age: Duration) -> Gather {
        let rings_for_all = self.rings * 2 > self.looks;
        let is_bell_heard = self.gather.is_some_and(|gather| gather.ends_at_bell);
        if rings_for_all && !is_bell_heard {
            return Gather::steps(moment(age, self.taken, WORTHY).clamp(SHORTEST, LONGEST));
        }
        Gather {
            most: moment(age, self.taken, WORTHY_STRAYS).clamp(SHORTEST, LONGEST_STRAYS),
            ends_at_bell: true,
        }
    }
}

impl Gather {
    /// The same, but over already.
    pub(crate) fn over(self) -> Self {
        Self {
            most: Duration::ZERO,
            ..self
        }
    }

    /// As steps do: for one of them the bell would ring each time.
    fn steps(most: Duration) -> Self {
        Self {
            most,
            ends_at_bell: false,
        }
    }
}

/// How long it takes, at this rate, until so many have come.
fn moment(time: Duration, taken: usize, worthy: u32) -> Duration {
    let taken = u32::try_from(taken).unwrap_or(u32::MAX).max(1);
    time * worthy / taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads packets that come at even intervals, and of which every so many is to a step;
    /// how many looks that took, and how long a step waited at most.
    fn looks(every: Duration, steps: u64, count: u64) -> (u64, Duration) {
        let mut pace = Pace::default();
        let mut gather: Option<Gather> = None;
        let (mut now, mut taken, mut looks) = (Timestamp(1 << 40), 0, 0);
        let (start, mut slowest) = (now, Duration::ZERO);
        let comes = |number: u64| start + every * u32::try_from(number + 1).unwrap();
        while taken < count {
            let step = comes(taken.next_multiple_of(steps));
            now = match gather {
                None => now.max(comes(taken)),
                Some(gather) if gather.ends_at_bell => (now + gather.most).min(step.max(now)),
                Some(gather) => now + gather.most,
            };
            let come = u64::try_from(now.since(start).as_nanos() / every.as_nanos()).unwrap();
            let rung = step <= now;
            if rung && come > 1_000 {
                slowest = slowest.max(now.since(step));
            }
            let batch = usize::try_from(come - taken).unwrap();
            taken = come;
            looks += 1;
            gather = pace.after(now, batch, gather.map(|_| rung));
        }
        (looks, slowest)
    }

    #[test]
    fn rare_packets_are_read_at_once_and_thick_ones_gather() {
        let (rare, slowest) = looks(Duration::from_millis(2), 1, 2_000);
        assert_eq!((rare, slowest), (2_000, Duration::ZERO));
        let (flood, slowest) = looks(Duration::from_micros(20), 1, 100_000);
        assert!(flood < 100_000 / 40, "{flood} looks");
        assert!(slowest <= SHORTEST, "{slowest:?}");
        // Two hundred who knock for a while.
        let (burst, slowest) = looks(Duration::from_micros(640), 1, 10_000);
        assert!(burst < 10_000 / 2, "{burst} looks");
        assert!(slowest <= LONGEST, "{slowest:?}");
    }

    #[test]
    fn strays_gather_for_long_and_no_step_among_them_waits() {
        let (strays, _) = looks(Duration::from_micros(640), 1 << 20, 10_000);
        assert!(strays < 10_000 / 25, "{strays} looks");
        let (mixed, slowest) = looks(Duration::from_micros(640), 50, 10_000);
        assert!(mixed < 10_000 / 16, "{mixed} looks");
        assert_eq!(slowest, Duration::ZERO);
    }

    #[test]
    fn after_a_flood_a_packet_is_read_at_once() {
        let mut pace = Pace::default();
        let mut now = Timestamp(1 << 40);
        for _ in 0..100 {
            now = now + SHORTEST;
            pace.after(now, 50, Some(true));
        }
        assert_eq!(
            pace.after(now, 1, Some(true)),
            Some(Gather::steps(SHORTEST))
        );
        assert_eq!(pace.after(now + 5 * WINDOW, 1, Some(true)), None);
    }
}
