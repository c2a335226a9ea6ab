//! What holds for files that this room reads, whatever stands in them.

pub use super::command::fuzz::{helper_report, helper_request};
pub use super::journal::fuzz::{journal, journal_0_9};

use super::{one_time, used_sequences as used};
use crate::model::MAX_STEPS;

/// Each sequence of a file can be used once, marking it makes the next one current, and what is said of
/// the lines between does not give their ports away.
pub fn one_time_file(text: &[u8]) {
    let mut text = text.to_vec();
    let mut last = 0;
    loop {
        let (live, skipped) = one_time::find(&text, |_| false, |_| false);
        for line in skipped {
            let said = line.why.quiet();
            let digits = said.replace("from 1 to 65535", "").replace("`0`", "");
            assert!(!digits.contains(|c: char| c.is_ascii_digit()), "{said}");
        }
        let Some(live) = live else {
            return;
        };
        assert!((1..=MAX_STEPS).contains(&live.steps.len()) && live.line > last);
        last = live.line;
        let place = one_time::place(&text, &live).expect("it has just been found");
        let byte = usize::try_from(place).ok().and_then(|at| text.get_mut(at));
        *byte.expect("a place in the file") = one_time::MARK[0];
        let again = one_time::place(&text, &live);
        assert!(again.is_none_or(|again| again > place));
    }
}

/// What is kept of a file reads the same again.
pub fn used_sequences(text: &[u8]) {
    if let Some((key, hashes)) = used::parse(&String::from_utf8_lossy(text)) {
        let kept = used::to_text(key, &hashes);
        assert_eq!(used::parse(&kept), Some((key, hashes)));
    }
}
