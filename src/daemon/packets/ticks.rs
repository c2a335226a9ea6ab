//! Ticks: the moments for work that packets cause and nobody waits for, such as log lines and the
//! end of attempts that have run out.
//!
//! Work that takes longer than a look-up would tell an observer of a step, if it were done as soon as
//! the packet was read; a wake-up that only a step causes would, too. So it is done at ticks, whose
//! moments are drawn at random. Any packet that is read keeps the clock ticking for a while, whatever
//! its port.

use std::time::Duration;

use crate::daemon::log::limit;
use crate::model::{Config, Timestamp};

/// The mean time to the next tick while packets come. Lines of the log come late by as much.
const BUSY: Duration = Duration::from_millis(100);

/// The mean time to the next tick when no packets come; it grows with the time since the last packet.
const QUIET: Duration = Duration::from_secs(1);

/// Returns how long after a packet there may be work for a tick: an attempt that runs out, or a line
/// that says how many lines were not written.
pub(crate) fn patience(config: &Config) -> Duration {
    let timeouts = config.doors.iter().map(|door| door.seq_timeout);
    timeouts.fold(Duration::ZERO, Duration::max) + limit::WINDOW
}

/// The clock of the ticks.
#[derive(Debug)]
pub(crate) struct Ticks {
    lot: u64,
    /// How long after the last packet there may be work.
    patience: Duration,
    last_packet: Timestamp,
    next: Option<Timestamp>,
}

impl Ticks {
    /// Makes a clock that stands still until packets come. `seed` is a secret.
    pub(crate) fn new(seed: u64, patience: Duration) -> Self {
        Self {
            lot: seed | 1,
            patience,
            last_packet: Timestamp(0),
            next: None,
        }
    }

    /// Sets how long after a packet there may be work.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Notes that packets were read, whatever they were.
    pub(crate) fn packets_came(&mut self, now: Timestamp) {
        self.last_packet = now;
        // A tick that is farther away than that was drawn in a quiet time.
        if self.next.is_none_or(|next| now + 2 * BUSY < next) {
            self.next = Some(now + self.draw(BUSY));
        }
    }

    /// Returns whether a tick is due. A tick that was missed counts once.
    pub(crate) fn is_due(&mut self, now: Timestamp) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let quiet = now.since(self.last_packet);
        self.next = (quiet <= self.patience).then(|| now + self.draw(QUIET.max(quiet / 16)));
        true
    }

    /// Notes that work is left, which was put off so that packets need not wait.
    pub(crate) fn go_on(&mut self, now: Timestamp) {
        self.next = Some(now);
    }

    /// Returns the next tick; `None`: the clock stands still.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.next
    }

    /// Returns a random time between half of `mean` and half as much again, by xorshift64* (Vigna,
    /// 2016): without seeing ticks nobody can foresee the next.
    fn draw(&mut self, mean: Duration) -> Duration {
        self.lot ^= self.lot >> 12;
        self.lot ^= self.lot << 25;
        self.lot ^= self.lot >> 27;
        let drawn = self.lot.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let mean = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX);
        // `drawn` is a share of 2^32; the time never exceeds centuries.
        Duration::from_nanos(
            mean / 2 + (mean >> 32) * drawn + (((mean & 0xffff_ffff) * drawn) >> 32),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1 << 40);

    /// Returns the times of all ticks after one packet, in milliseconds since it came.
    fn ticks_after_a_packet(ticks: &mut Ticks, came: Timestamp) -> Vec<u128> {
        ticks.packets_came(came);
        std::iter::from_fn(|| {
            let at = ticks.next_deadline()?;
            assert!(ticks.is_due(at) && !ticks.is_due(at));
            Some(at.since(came).as_millis())
        })
        .collect()
    }

    #[test]
    fn a_packet_makes_it_tick_until_all_attempts_have_run_out() {
        for seed in 0..50 {
            let mut ticks = Ticks::new(seed, Duration::from_secs(15));
            let times = ticks_after_a_packet(&mut ticks, START);
            assert!((50..150).contains(&times[0]), "{times:?}");
            assert!((10..=30).contains(&times.len()), "{times:?}");
            assert!(
                times
                    .last()
                    .is_some_and(|last| (15_001..16_600).contains(last))
            );
            // The clock ticks for a day, ever more rarely.
            ticks.set_patience(Duration::from_secs(86_400));
            let times = ticks_after_a_packet(&mut ticks, START);
            assert!((100..250).contains(&times.len()), "{}", times.len());
            assert!(times.iter().filter(|time| **time < 20_000).count() >= 10);
        }
    }

    #[test]
    fn no_packet_chooses_the_moment() {
        let mut ticks = Ticks::new(77, Duration::from_secs(15));
        let mut after = Vec::new();
        for number in 0..1000 {
            let came = START + Duration::from_millis(number * 997);
            ticks.packets_came(came);
            let at = ticks.next_deadline().expect("it ticks");
            after.push(at.since(came).as_millis());
            while ticks
                .next_deadline()
                .is_some_and(|at| at < came + Duration::from_millis(900))
            {
                let at = ticks.next_deadline().expect("one more");
                assert!(ticks.is_due(at));
            }
        }
        let (early, late) = (after.iter().min(), after.iter().max());
        // A tick that was drawn in a quiet time may come sooner.
        assert!(early.is_some_and(|early| *early < 53), "{early:?}");
        assert!(
            late.is_some_and(|late| (147..201).contains(late)),
            "{late:?}"
        );
        let middle = after.iter().filter(|after| **after < 100).count();
        assert!((350..650).contains(&middle), "{middle}");
    }

    #[test]
    fn packets_that_go_on_do_not_put_a_tick_off() {
        let mut ticks = Ticks::new(0, Duration::from_secs(15));
        let mut due = 0;
        for millisecond in 0..10_000 {
            let now = START + Duration::from_millis(millisecond);
            ticks.packets_came(now);
            due += u32::from(ticks.is_due(now));
        }
        assert!((80..=120).contains(&due), "{due}");
    }
}
