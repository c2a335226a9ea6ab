//! Sequences that are easily guessed.

use super::super::diagnostic::Faults;
use super::super::draft::SpannedList;
use super::super::text::Spanned;
use crate::model::{MAX_STEPS, Step, TripwireMode};

/// Sequences of the manuals, of Debian's knockd.conf, and of tutorials that copy them. Each is compared
/// backwards as well, and whatever the protocols.
const PUBLISHED: [&[u16]; 26] = [
    // knockd(1), knockd.conf
    &[7000, 8000, 9000],
    &[2222, 3333, 4444],
    &[12345, 54321, 24680, 13579],
    // knockd.toml(5)
    &[17301, 4022, 39855],
    &[29001, 8133, 51877],
    // tutorials
    &[1111, 2222, 3333],
    &[1111, 2222, 3333, 4444],
    &[1234, 2345, 3456],
    &[1234, 5678, 9012],
    &[1234, 5678, 9101],
    &[1000, 2000, 3000],
    &[2000, 3000, 4000],
    &[3000, 4000, 5000],
    &[5000, 6000, 7000],
    &[6000, 7000, 8000],
    &[7001, 8001, 9001],
    &[10001, 10002, 10003],
    &[10000, 20000, 30000],
    &[11111, 22222, 33333],
    &[500, 1001, 456],
    &[571, 290, 911],
    &[8881, 7777, 9991],
    &[7469, 8475, 9842],
    &[1, 2, 3],
    &[1, 2, 3, 4],
    &[100, 200, 300],
];

/// The defence against port scans: whether there are tripwires, and how many hits on them are forgiven.
#[derive(Debug, Clone, Copy)]
pub(super) struct TripwireSettings {
    pub(super) mode: TripwireMode,
    pub(super) strays: u16,
}

/// Judges the steps one by one and as a whole, and returns them.
pub(super) fn sequence(
    steps: &Spanned<SpannedList<Step>>,
    wires: TripwireSettings,
    faults: &mut Faults,
) -> Vec<Step> {
    let all: Vec<Step> = steps.value.iter().map(|s| s.value).collect();
    if all.is_empty() {
        faults.error(&steps.span, "a sequence has at least one step");
    } else if all.len() > MAX_STEPS {
        let message = format!("{} steps: a sequence has at most {MAX_STEPS}", all.len());
        let noted = faults.error(&steps.span, message);
        noted.quiet(format!("a sequence has at most {MAX_STEPS} steps"));
    } else if let Some(why) = weakness(&all, wires) {
        faults
            .warn(&steps.span, why)
            .help("choose three steps or more at random, from 1024 up")
            .quiet_help(
                "a weak sequence: `knockd check` says why",
                "choose three steps or more at random, from 1024 up",
            );
    }
    all
}

fn weakness(steps: &[Step], wires: TripwireSettings) -> Option<String> {
    let ports: Vec<u16> = steps.iter().map(|s| s.port.get()).collect();
    let is = |known: &&[u16]| *known == ports || known.iter().rev().eq(ports.iter());
    let all = |holds: fn(u16, u16) -> bool| {
        let pairs = ports.iter().zip(ports.iter().skip(1));
        ports.len() > 1 && pairs.into_iter().all(|(a, b)| holds(*a, *b))
    };
    if PUBLISHED.iter().any(is) {
        Some("this sequence is published: it is the first that anyone tries".to_owned())
    } else if all(|a, b| a == b) {
        Some("all steps are the same port: a weak sequence".to_owned())
    } else if all(|a, b| a.checked_add(1) == Some(b)) {
        Some("the ports follow each other, as in a port scan: a weak sequence".to_owned())
    } else if all(|a, b| b.checked_add(1) == Some(a)) {
        Some("the ports follow each other downwards: a weak sequence".to_owned())
    } else {
        match ports.len() {
            1 => Some("a sequence of one step: any port scan opens the door".to_owned()),
            2 => Some("a sequence of two steps is weak".to_owned()),
            _ if wires.let_pass(steps) => Some(
                "a port scan in rising or falling order opens this door: too few tripwires \
                 lie between the steps"
                    .to_owned(),
            ),
            _ => wires.close_steps(steps).map(|(a, b)| {
                let strays = wires.strays;
                format!(
                    "steps {} and {} are closer together than the {strays} strays that are \
                     forgiven: a port scan gets from one to the other",
                    a + 1,
                    b + 1
                )
            }),
        }
    }
}

impl TripwireSettings {
    /// Returns the indexes of the first two steps in a row that a scan of the ports in order can make
    /// without hitting too many tripwires in between.
    fn close_steps(self, steps: &[Step]) -> Option<(usize, usize)> {
        if self.mode == TripwireMode::Off {
            return None;
        }
        let mut pairs = steps.iter().zip(steps.iter().skip(1));
        let is_close = |(a, b): (&Step, &Step)| a != b && between(a, b) <= self.forgiven();
        pairs.position(is_close).map(|first| (first, first + 1))
    }

    /// Returns whether a scan of the ports in order makes every step before it has hit too many
    /// tripwires.
    fn let_pass(self, steps: &[Step]) -> bool {
        let pairs = || steps.iter().zip(steps.iter().skip(1));
        let one_protocol = pairs().all(|(a, b)| a.protocol == b.protocol);
        let rising = pairs().all(|(a, b)| a.port < b.port);
        let falling = pairs().all(|(a, b)| a.port > b.port);
        let hit: u32 = match self.mode {
            TripwireMode::On => pairs().map(|(a, b)| between(a, b)).sum(),
            TripwireMode::Off => 0,
        };
        // Without tripwires a scan of TCP and UDP by turns makes steps of both.
        let is_one_scan = one_protocol || self.mode == TripwireMode::Off;
        is_one_scan && (rising || falling) && hit <= self.forgiven()
    }

    /// Returns how many strays an attempt may well survive. Their count is off by some 8 % (see
    /// `matcher`), and a scanner may try often.
    fn forgiven(self) -> u32 {
        u32::from(self.strays) * 5 / 4
    }
}

/// Returns how many ports lie between two steps.
fn between(a: &Step, b: &Step) -> u32 {
    u32::from(a.port.get().abs_diff(b.port.get())).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: TripwireSettings = TripwireSettings {
        mode: TripwireMode::On,
        strays: 128,
    };

    fn judged(text: &str) -> Option<String> {
        judged_by(text, DEFAULT)
    }

    fn judged_by(text: &str, wires: TripwireSettings) -> Option<String> {
        let steps = crate::model::parse_legacy_sequence(text).expect("a sequence");
        weakness(&steps, wires)
    }

    #[test]
    fn a_scan_in_order_is_stopped_by_the_tripwires_between() {
        for close in ["501,502,504", "5000,5064,5130", "5130,5064,5000"] {
            let warning = judged(close);
            assert!(
                warning.is_some_and(|w| w.contains("opens this door")),
                "{close}"
            );
        }
        for far in ["7001,8101,9202", "9202,8101:udp,7001"] {
            for (mode, strays, opens) in
                [(TripwireMode::On, 128, false), (TripwireMode::Off, 0, true)]
            {
                let found = judged_by(far, TripwireSettings { mode, strays });
                assert_eq!(found.is_some(), opens, "{far} {mode:?} {strays}");
            }
        }
    }

    #[test]
    fn steps_closer_together_than_the_strays_are_told() {
        for (close, which) in [
            ("5000,5161,40000", "steps 1 and 2"),
            ("40000,5128,5000", "steps 2 and 3"),
            ("40000,5128,5128:udp", "steps 2 and 3"),
            ("5000,5231,5229", "steps 2 and 3"),
        ] {
            let warning = judged(close);
            assert!(warning.is_some_and(|w| w.contains(which)), "{close}");
        }
        for safe in ["5000,5162,40000", "5000,5000,40000", "7001,8101,9202"] {
            assert_eq!(judged(safe), None, "{safe}");
        }
        let (mode, strays) = (TripwireMode::On, 8);
        assert_eq!(
            judged_by("5000,5012,40000", TripwireSettings { mode, strays }),
            None
        );
        assert!(judged_by("5000,5011,40000", TripwireSettings { mode, strays }).is_some());
    }

    #[test]
    fn weak_sequences_are_told_from_good_ones() {
        for published in ["7000,8000,9000", "9000,8000,7000", "2222:udp,3333,4444:udp"] {
            assert!(
                judged(published).is_some_and(|w| w.contains("published")),
                "{published}"
            );
        }
        for weak in [
            "7",
            "7,80",
            "9,9,9:udp",
            "501,502,503,504",
            "504,503,502",
            "65535",
        ] {
            assert!(
                judged(weak).is_some_and(|w| !w.contains("published")),
                "{weak}"
            );
        }
        for good in ["7000,9000,8000", "17302,4022:udp,39855"] {
            assert_eq!(judged(good), None, "{good}");
        }
    }
}
