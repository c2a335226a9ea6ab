//! How reading keeps pace with what comes. A lone packet is read at once: a person waits
//! for it. When packets come thick, waking for each is most of what they cost (a bare
//! nanosleep(2) takes 7 to 47 µs of CPU, a packet half of one), so they are let gather.

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

/// So long after the bell was taken away it is not set again: to do that takes the kernel up
/// to a millisecond where there are many doors.
const REST: Duration = Duration::from_secs(1);

/// Tells how long to wait before the next look.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    window: Timestamp,
    /// Within the window: packets; looks, and how many of these found a step, or that the
    /// bell had rung.
    taken: usize,
    looks: u32,
    rings: u32,
    gather: Option<Gather>,
    no_bell_before: Timestamp,
}

impl Pace {
    /// After a look at `now` that took so many packets: how long to let the next ones
    /// gather. `rung` says whether there was a step among them, or the bell rang for what
    /// may be one.
    pub(crate) fn after(&mut self, now: Timestamp, taken: usize, rung: bool) -> Option<Gather> {
        let was_at_bell = self.is_at_bell();
        self.taken += taken;
        self.looks += 1;
        self.rings += u32::from(rung);
        let age = now.since(self.window);
        if age >= WINDOW {
            // Once they gather, they do until they are rather fewer.
            let few = if self.gather.is_some() {
                MANY / 2
            } else {
                MANY
            };
            // A window that came to its end and one long past are not the same.
            let is_thick = self.taken >= few && age < 4 * WINDOW;
            self.gather = is_thick.then(|| self.judge(now, age));
            self.window = now;
            (self.taken, self.looks, self.rings) = (0, 0, 0);
        }
        if self.is_at_bell() && self.rings >= WORTHY {
            // It rings for all; and would again, if it is not for steps that it does.
            self.gather = Some(Gather::steps(SHORTEST));
        }
        if self.gather.is_none() && self.taken >= MANY {
            // In the middle of the first window.
            self.gather = Some(self.judge(now, age));
        }
        if was_at_bell && !self.is_at_bell() {
            self.no_bell_before = now + REST;
        }
        self.gather
    }

    /// The bell could not be set at `now`: what there is instead.
    pub(crate) fn without_bell(&mut self, now: Timestamp) -> Option<Gather> {
        self.no_bell_before = now + REST;
        self.gather = self
            .gather
            .map(|gather| Gather::steps(gather.most.min(LONGEST)));
        self.gather
    }

    fn is_at_bell(&self) -> bool {
        self.gather.is_some_and(|gather| gather.ends_at_bell)
    }

    /// What that which has come in within this time says about what will.
    fn judge(&self, now: Timestamp, age: Duration) -> Gather {
        let is_for_steps = self.rings * 2 > self.looks && !self.is_at_bell();
        if is_for_steps || now < self.no_bell_before {
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

    /// As steps do: the bell would ring for each.
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

    /// What it takes to read packets that come at even intervals.
    #[derive(Debug)]
    struct Reading {
        looks: u64,
        /// How often the bell was set or unset.
        sets: u64,
        /// How long one waited that rings, but for the first thousand packets.
        slowest: Duration,
    }

    /// Of every so many packets one rings the bell, being a step or looking like one.
    fn read(every: Duration, ringing: u64, are_steps: bool) -> Reading {
        const COUNT: u64 = 50_000;
        let mut pace = Pace::default();
        let mut gather: Option<Gather> = None;
        let (mut now, mut taken) = (Timestamp(1 << 40), 0);
        let start = now;
        let comes = |number: u64| start + every * u32::try_from(number + 1).unwrap();
        let mut reading = Reading {
            looks: 0,
            sets: 0,
            slowest: Duration::ZERO,
        };
        while taken < COUNT {
            let rings = comes(taken.next_multiple_of(ringing));
            let is_at_bell = gather.is_some_and(|gather| gather.ends_at_bell);
            now = match gather {
                None => now.max(comes(taken)),
                Some(gather) if is_at_bell => (now + gather.most).min(rings.max(now)),
                Some(gather) => now + gather.most,
            };
            let come = u64::try_from(now.since(start).as_nanos() / every.as_nanos()).unwrap();
            let has_rung = rings <= now;
            if has_rung && come > 1_000 {
                reading.slowest = reading.slowest.max(now.since(rings));
            }
            let batch = usize::try_from(come - taken).unwrap();
            taken = come;
            reading.looks += 1;
            gather = pace.after(now, batch, has_rung && (are_steps || is_at_bell));
            let is_set = gather.is_some_and(|gather| gather.ends_at_bell);
            reading.sets += u64::from(is_set != is_at_bell);
        }
        reading
    }

    const NEVER: u64 = 1 << 20;

    #[test]
    fn rare_packets_are_read_at_once_and_thick_ones_gather() {
        let rare = read(Duration::from_millis(2), 1, true);
        assert_eq!(
            (rare.looks, rare.sets, rare.slowest.as_nanos()),
            (50_000, 0, 0)
        );
        let flood = read(Duration::from_micros(20), 1, true);
        assert!(flood.looks < 50_000 / 40 && flood.sets == 0, "{flood:?}");
        assert!(flood.slowest <= SHORTEST, "{flood:?}");
        // Two hundred who knock for a while.
        let crowd = read(Duration::from_micros(640), 1, true);
        assert!(crowd.looks < 50_000 / 5 && crowd.sets == 0, "{crowd:?}");
        assert!(crowd.slowest <= LONGEST, "{crowd:?}");
    }

    #[test]
    fn strays_gather_for_long_and_no_step_among_them_waits() {
        let strays = read(Duration::from_micros(640), NEVER, true);
        assert!(strays.looks < 50_000 / 25 && strays.sets == 1, "{strays:?}");
        let mixed = read(Duration::from_micros(640), 50, true);
        assert!(mixed.looks < 50_000 / 16 && mixed.sets == 1, "{mixed:?}");
        assert_eq!(mixed.slowest, Duration::ZERO);
        let flood = read(Duration::from_micros(20), NEVER, true);
        assert!(flood.looks < 50_000 / 200 && flood.sets == 1, "{flood:?}");
    }

    #[test]
    fn nobody_makes_the_bell_come_and_go() {
        for every in [20, 50, 200, 600, 900].map(Duration::from_micros) {
            for ringing in [1, 2, 3, 10, 30, 100] {
                for are_steps in [true, false] {
                    let reading = read(every, ringing, are_steps);
                    let seconds = (every * 50_000).as_secs() + 1;
                    let what = format!("{every:?} {ringing} {are_steps}: {reading:?}");
                    assert!(reading.sets <= 4 * seconds, "{what}");
                    assert!(reading.looks <= 1_600 * seconds, "{what}");
                    assert!(reading.slowest <= LONGEST, "{what}");
                }
            }
        }
    }

    #[test]
    fn nor_does_who_stops_and_begins_again() {
        let mut pace = Pace::default();
        let (mut now, mut sets, mut is_set) = (Timestamp(1 << 40), 0, false);
        let mut look = |now, taken| {
            let gather = pace.after(now, taken, false);
            let set = gather.is_some_and(|gather| gather.ends_at_bell);
            sets += u32::from(set != is_set);
            is_set = set;
        };
        for _ in 0..100 {
            for _ in 0..20 {
                now = now + Duration::from_micros(500);
                look(now, 1);
            }
            for _ in 0..2 {
                now = now + LONGEST_STRAYS;
                look(now, 0);
            }
        }
        assert!((1..=4 * 5).contains(&sets), "{sets} in five seconds");
    }

    #[test]
    fn after_a_flood_a_packet_is_read_at_once() {
        let mut pace = Pace::default();
        let mut now = Timestamp(1 << 40);
        for _ in 0..100 {
            now = now + SHORTEST;
            pace.after(now, 50, true);
        }
        assert_eq!(pace.after(now, 1, true), Some(Gather::steps(SHORTEST)));
        assert_eq!(pace.after(now + 5 * WINDOW, 1, true), None);
    }
}
