//! Conflicts between doors. Doors are sorted and looked up, not compared pair by pair: there may be
//! thousands of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::diagnostic::Faults;
use super::super::draft::{ConfigDraft, DraftDoor, SpannedList};
use super::super::text::Spanned;
use crate::model::{BEGUN_AT_ONCE, PortRange, Prefix, Step};

pub(super) fn check(draft: &ConfigDraft, faults: &mut Faults) {
    steps_that_are_not_seen(draft, faults);
    common_sequences(&draft.doors, faults);
    common_beginnings(&draft.doors, faults);
}

/// Reports steps that are ignored or opened: the socket filter drops packets to such ports. (And a step
/// must not be a guarded port: a source that cannot reach that must be able to knock.)
fn steps_that_are_not_seen(draft: &ConfigDraft, faults: &mut Faults) {
    let ConfigDraft { doors, ignore, .. } = draft;
    let mut steps: BTreeMap<Step, &str> = BTreeMap::new();
    for door in doors {
        for step in door.sequence.given().iter().flat_map(|s| &s.value) {
            steps.entry(step.value).or_insert(&door.name.value);
        }
    }
    let ignored = ignore.given().into_iter().map(|list| (list, "ignored"));
    let opened = doors.iter().filter_map(|door| door.open.given());
    let opened = opened.map(|list| (list, "opened"));
    let all = ignored.chain(opened);
    for (range, what) in all.flat_map(|(list, what)| list.value.iter().map(move |r| (r, what))) {
        let PortRange {
            protocol,
            first,
            last,
        } = range.value;
        let port = |port| Step { protocol, port };
        if let Some((step, door)) = steps.range(port(first)..=port(last)).next() {
            let help = match what {
                "opened" => "a port that is knocked at cannot be guarded: choose another step",
                _ => "nobody looks at packets to a port that is ignored: choose another step",
            };
            faults
                .error(
                    &range.span,
                    format!("`{step}` is {what} here and a step of door `{door}`"),
                )
                .help(help)
                .quiet_help("a port here is a step, too", help);
        }
    }
}

/// Warns of doors with the same sequence, and of a sequence that begins another.
fn common_sequences(doors: &[DraftDoor], faults: &mut Faults) {
    type Knocked<'a> = (Option<IpAddr>, Vec<Step>, usize, &'a DraftDoor);
    let knocked = |(i, door)| -> Option<Knocked<'_>> {
        let door: &DraftDoor = door;
        let steps = &door.sequence.given()?.value;
        let target = door.target.given().map(|t| t.value);
        (!steps.is_empty()).then(|| (target, steps.iter().map(|s| s.value).collect(), i, door))
    };
    let mut all: Vec<Knocked<'_>> = doors.iter().enumerate().filter_map(knocked).collect();
    // A sequence comes right before the sequences that begin with it.
    all.sort_by(|a, b| (&a.0, &a.1, a.2).cmp(&(&b.0, &b.1, b.2)));
    // Doors, each with a sequence that begins the sequence of the next.
    let mut open: Vec<&Knocked<'_>> = Vec::new();
    for here in &all {
        while open
            .last()
            .is_some_and(|o| o.0 != here.0 || !here.1.starts_with(&o.1))
        {
            open.pop();
        }
        let other = open.iter().rev().find(|o| share_a_source(o.3, here.3));
        if let (Some((_, steps, _, other)), Some(given)) = (other, here.3.sequence.given()) {
            let name = other.name.value.escape_debug();
            if *steps == here.1 {
                faults
                    .warn(&given.span, format!("door `{name}` has the same sequence"))
                    .help("both doors act on one knock");
            } else {
                faults
                    .warn(
                        &given.span,
                        format!("this sequence begins with that of door `{name}`"),
                    )
                    .help(format!("whoever knocks here opens `{name}` on the way"));
            }
        }
        // Compare a door only with the sequences that begin its own, and with at most OPEN_MAX of
        // them.
        if open.len() < OPEN_MAX {
            open.push(here);
        }
    }
}

/// Warns of doors that no packet begins, since too many doors before them have the same first step.
fn common_beginnings(doors: &[DraftDoor], faults: &mut Faults) {
    type Beginning = (Step, Option<IpAddr>, Vec<Prefix>);
    let mut all: BTreeMap<Beginning, Vec<&Spanned<SpannedList<Step>>>> = BTreeMap::new();
    for door in doors {
        if let Some(sequence) = door.sequence.given()
            && let Some(first) = sequence.value.first()
        {
            let from = door.from.given().map(|list| &*list.value);
            let from = from.unwrap_or_default().iter().map(|p| p.value);
            let target = door.target.given().map(|t| t.value);
            let beginning = (first.value, target, from.collect());
            all.entry(beginning).or_default().push(sequence);
        }
    }
    for ((first, ..), sequences) in &all {
        if let Some(sequence) = sequences.get(BEGUN_AT_ONCE) {
            let others = match sequences.len() - BEGUN_AT_ONCE {
                1 => String::new(),
                more => format!(", nor do {} behind it", more - 1),
            };
            faults
                .warn(
                    &sequence.span,
                    format!(
                        "this door never opens{others}: it begins with `{first}`, as do \
                         {BEGUN_AT_ONCE} doors before it, and a packet begins no more than these"
                    ),
                )
                .help("give doors first steps of their own");
        }
    }
}

/// The most doors that each door is compared with. A door that shares its sequence with more doors has
/// been named together with another door already.
const OPEN_MAX: usize = 64;

fn share_a_source(a: &DraftDoor, b: &DraftDoor) -> bool {
    let all = |list: &Spanned<SpannedList<Prefix>>| -> Vec<Prefix> {
        list.value.iter().take(OPEN_MAX).map(|p| p.value).collect()
    };
    let (Some(a), Some(b)) = (a.from.given().map(all), b.from.given().map(all)) else {
        return true;
    };
    let meet = |x: &Prefix, y: &Prefix| x.contains(y.address()) || y.contains(x.address());
    a.iter().any(|x| b.iter().any(|y| meet(x, y)))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::config::{Format, Host, parse};

    #[test]
    fn a_door_that_no_packet_begins_is_warned_of() {
        let mut text = "[firewall]\n".to_owned();
        for n in 0..68 {
            let steps = format!("\"{}/tcp\", \"{}/tcp\"", 20_000 + n * 311, 62_011 - n * 173);
            let _ = write!(
                text,
                "[door.d{n}]\nsequence = [\"17301/tcp\", {steps}]\nopen = [\"22/tcp\"]\n"
            );
        }
        // A door for other sources does not count with these: it is begun by packets of its own sources.
        text += "[door.away]\nsequence = [\"17301/tcp\", \"4022/tcp\", \"9011/tcp\"]\n\
                 from = [\"192.0.2.0/24\"]\nopen = [\"22/tcp\"]\n";
        let report = parse("k.toml", &text, Format::Toml, &Host::default());
        assert!(report.config.is_some(), "{:?}", report.diagnostics);
        let said: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
        let [only] = &said[..] else {
            panic!("{said:#?}");
        };
        let expected = "k.toml:195:12: warning: this door never opens, nor do 3 behind it: it \
                        begins with `17301/tcp`, as do 64 doors before it, and a packet begins no \
                        more than these";
        assert!(only.starts_with(expected), "{only}");
    }
}
