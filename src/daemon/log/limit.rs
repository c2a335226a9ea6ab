//! A flood must not fill the disk. Of each kind of line that a stranger's packet can cause, only so
//! many a second are written, then one line that says how many were not.

use std::time::Duration;

use crate::model::Timestamp;

/// How many lines of one kind are written in one window.
pub(crate) const PER_WINDOW: u32 = 20;

/// The same for openings and their ends. People cause fewer: so each of theirs is in the log, where
/// somebody will look for it.
pub(crate) const OPENINGS_PER_WINDOW: u32 = 300;

/// How long a window is.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);

/// A kind of line that a stranger's packet can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An attempt went up a stage.
    Stage,
    /// An attempt ran out of time.
    Timeout,
    /// An attempt was ended by a wrong port or for want of room.
    Reset,
    /// The kernel dropped packets before they were read.
    Drops,
    /// A door has opened, or should have: all lines about it.
    Knock,
    /// An opening has run out.
    Closed,
    /// The listener has reported something: whoever has taken it over may report without end.
    Listener,
}

const KINDS: [Kind; 7] = [
    Kind::Stage,
    Kind::Timeout,
    Kind::Reset,
    Kind::Drops,
    Kind::Knock,
    Kind::Closed,
    Kind::Listener,
];

impl Kind {
    /// Returns its name in "12345 more … not written".
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Stage => "stages",
            Self::Timeout => "sequence timeouts",
            Self::Reset => "ended attempts",
            Self::Drops => "losses of packets",
            Self::Knock => "finished knocks",
            Self::Closed => "ends of openings",
            Self::Listener => "reports of the listener",
        }
    }

    fn most(self) -> u32 {
        match self {
            Self::Stage | Self::Timeout | Self::Reset | Self::Drops | Self::Listener => PER_WINDOW,
            Self::Knock | Self::Closed => OPENINGS_PER_WINDOW,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    ends: Timestamp,
    written: u32,
    withheld: u64,
}

/// Counts lines of each kind. Costs two comparisons a line.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    windows: [Window; KINDS.len()],
}

impl Limiter {
    /// Returns whether this line is to be written. Withheld lines are counted for `due`.
    pub(crate) fn allow(&mut self, kind: Kind, now: Timestamp) -> bool {
        let window = &mut self.windows[kind as usize];
        // A window with withheld lines stays until `due` has reported them.
        if now >= window.ends && window.withheld == 0 {
            *window = Window {
                ends: now + WINDOW,
                written: 0,
                withheld: 0,
            };
        }
        if window.written < kind.most() && window.withheld == 0 {
            window.written += 1;
            true
        } else {
            window.withheld += 1;
            false
        }
    }

    /// Returns how many lines of one kind a window that is over has withheld; reports them once.
    pub(crate) fn due_of(&mut self, kind: Kind, now: Timestamp) -> Option<u64> {
        let window = &mut self.windows[kind as usize];
        let over = window.withheld > 0 && now >= window.ends;
        over.then(|| std::mem::take(window).withheld)
    }

    /// Returns when lines of a kind are to be reported as withheld, if there are any.
    pub(crate) fn ends(&self, kind: Kind) -> Option<Timestamp> {
        let window = self.windows[kind as usize];
        (window.withheld > 0).then_some(window.ends)
    }

    /// Returns how many lines of each kind the windows that are over have withheld; reports them once.
    pub(crate) fn due(&mut self, now: Timestamp) -> impl Iterator<Item = (Kind, u64)> + '_ {
        KINDS
            .into_iter()
            .filter_map(move |kind| self.due_of(kind, now).map(|count| (kind, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(5_000_000_000);

    #[test]
    fn a_flood_is_cut_and_counted_and_others_are_not() {
        let mut limiter = Limiter::default();
        let written = (0..1000).filter(|_| limiter.allow(Kind::Stage, T0)).count();
        assert_eq!(written, PER_WINDOW as usize);
        assert!(limiter.allow(Kind::Timeout, T0));
        assert_eq!(limiter.due(T0).count(), 0);
        let end = T0 + WINDOW;
        let told: Vec<_> = limiter.due(end).collect();
        assert_eq!(told, [(Kind::Stage, 1000 - u64::from(PER_WINDOW))]);
        assert_eq!(limiter.due(end).count(), 0);
        assert!(limiter.allow(Kind::Stage, end));
    }

    #[test]
    fn of_what_opens_a_door_more_is_written_and_no_more_than_people_do() {
        let mut limiter = Limiter::default();
        let written = (0..1000).filter(|_| limiter.allow(Kind::Knock, T0)).count();
        assert_eq!(written, OPENINGS_PER_WINDOW as usize);
        assert_eq!(limiter.ends(Kind::Closed), None);
        assert_eq!(limiter.ends(Kind::Knock), Some(T0 + WINDOW));
        assert_eq!(limiter.due_of(Kind::Knock, T0), None);
        let withheld = 1000 - u64::from(OPENINGS_PER_WINDOW);
        assert_eq!(limiter.due_of(Kind::Knock, T0 + WINDOW), Some(withheld));
        assert_eq!(limiter.ends(Kind::Knock), None);
    }

    #[test]
    fn a_trickle_is_written_whole() {
        let mut limiter = Limiter::default();
        for i in 0..1000 {
            assert!(limiter.allow(Kind::Reset, T0 + Duration::from_millis(100 * i)));
        }
    }
}
