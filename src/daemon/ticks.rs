//! When that is done which packets cause and nobody waits for: log lines, the end of attempts
//! that have run out.
//!
//! Whatever takes longer than a look-up would tell a step to who measures, if it were done as
//! soon as its packet was read; and so would a wake-up that only a step causes. So there are
//! ticks of a clock of its own, whose phase nobody knows, and any packet that is read makes it
//! go for a while, whatever its port.

use std::time::Duration;

use crate::model::Timestamp;

/// The time between two ticks while packets come: so much later stands a line in the log.
const BUSY: Duration = Duration::from_millis(100);

/// The time between two ticks afterwards, or a 32nd of the longest `seq_timeout` if that is more.
const QUIET: Duration = Duration::from_secs(1);

/// The clock.
#[derive(Debug)]
pub(crate) struct Ticks {
    /// Some tick; the others are whole periods away.
    phase: Timestamp,
    /// So long after the last packet there may be something to be done.
    patience: Duration,
    last_packet: Timestamp,
    next: Option<Timestamp>,
}

impl Ticks {
    /// A clock that stands, until packets come. `random` decides its phase.
    pub(crate) fn new(random: u64, patience: Duration) -> Self {
        Self {
            // Within a minute, so that every period has every phase.
            phase: Timestamp(random % 60_000_000_000),
            patience,
            last_packet: Timestamp(0),
            next: None,
        }
    }

    /// From now on there may be something to be done for so long after a packet.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Packets were read, whatever they were.
    pub(crate) fn packets_came(&mut self, now: Timestamp) {
        self.last_packet = now;
        let soon = self.after(now, BUSY);
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Whether it is time. If `now` lies behind a tick, it is so once.
    pub(crate) fn is_due(&mut self, now: Timestamp) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let is_over = now.since(self.last_packet) > self.patience;
        let period = QUIET.max(self.patience / 32);
        self.next = (!is_over).then(|| self.after(now, period));
        true
    }

    /// There is more to be done, which was put off lest packets wait.
    pub(crate) fn go_on(&mut self, now: Timestamp) {
        self.next = Some(now);
    }

    /// The next tick; `None`: the clock stands.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.next
    }

    /// The first tick after `now`, if they come at this period.
    fn after(&self, now: Timestamp, period: Duration) -> Timestamp {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let since = now.0.wrapping_sub(self.phase.0) % period;
        Timestamp(now.0.saturating_add(period - since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1 << 40);

    /// The times of all ticks after one packet, in milliseconds since it came.
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
        let mut ticks = Ticks::new(123_456_789, Duration::from_secs(15));
        let times = ticks_after_a_packet(&mut ticks, START);
        assert!(times[0] <= BUSY.as_millis(), "{times:?}");
        assert!((16..=17).contains(&times.len()), "{times:?}");
        assert!(
            times
                .last()
                .is_some_and(|last| (15_000..16_001).contains(last))
        );
        // For an hour, every other minute.
        ticks.set_patience(Duration::from_secs(3600));
        let times = ticks_after_a_packet(&mut ticks, START);
        assert!((33..=34).contains(&times.len()), "{times:?}");
    }

    #[test]
    fn no_packet_chooses_the_moment() {
        let mut ticks = Ticks::new(77_000_000, Duration::from_secs(15));
        for number in 0..1000 {
            let came = START + Duration::from_micros(number * 997);
            ticks.packets_came(came);
            let at = ticks.next_deadline().expect("it ticks");
            assert_eq!((at.0 - 77_000_000) % 100_000_000, 0);
            assert!(came < at && at <= came + BUSY);
            assert!(ticks.is_due(at));
        }
    }

    #[test]
    fn packets_that_go_on_do_not_put_a_tick_off() {
        let mut ticks = Ticks::new(0, Duration::from_secs(15));
        let mut due = 0;
        for millisecond in 0..1000 {
            let now = START + Duration::from_millis(millisecond);
            ticks.packets_came(now);
            due += u32::from(ticks.is_due(now));
        }
        assert!((9..=10).contains(&due), "{due}");
    }
}
