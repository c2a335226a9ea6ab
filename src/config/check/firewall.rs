//! `[firewall]`: the table, and settings that have no effect there.

use super::super::diagnostic::Faults;
use super::super::draft::{ConfigDraft, DraftClose, DraftDoor, DraftFirewall, Field, SpannedList};
use super::super::host::Host;
use super::super::text::Spanned;
use super::names;
use crate::model::{Firewall, Guard, PortRange, Prefix};

/// Returns the table that the draft asks for, by `[firewall]` or by a door with a typed action. (A door
/// that only adds to the administrator's sets opens nothing in the table and guards nothing. But such a
/// set is filled and watched through the table's netlink socket.)
pub(super) fn firewall(draft: &ConfigDraft, host: &Host, faults: &mut Faults) -> Option<Firewall> {
    let wanted = |door: &DraftDoor| {
        let DraftDoor {
            open,
            close,
            add,
            remove,
            ..
        } = door;
        !(open.is_absent() && close.is_absent() && add.is_absent() && remove.is_absent())
    };
    if draft.firewall.is_none() && !draft.doors.iter().any(wanted) {
        return None;
    }
    let firewall = match &draft.firewall {
        Some(given) => read(given, faults),
        None => Firewall::default(),
    };
    let opened: Vec<_> = opened(&draft.doors).collect();
    // If the ports are not known, a faulty `open` or an unknown key has been reported already.
    let known = |door: &DraftDoor| !door.misread && !matches!(door.open, Field::Faulty);
    let is_known = draft.doors.iter().all(known);
    match firewall.guard {
        Guard::Drop | Guard::Reject => {
            ephemeral(&opened, host, faults);
            if let (Some(given), true) = (&draft.firewall, opened.is_empty() && is_known) {
                faults
                    .warn(&given.span, "nothing is guarded: no door opens a port")
                    .help("a port is guarded by a door that names it: open = [\"22/tcp\"]");
            }
        }
        Guard::Off => {
            if let (Some(given), None, false) = (&draft.firewall, firewall.mark, opened.is_empty())
            {
                faults
                    .warn(
                        &given
                            .guard
                            .given()
                            .map_or(given.span.clone(), |g| g.span.clone()),
                        "openings have no effect: nothing is guarded, and no mark is set",
                    )
                    .help("set `mark`, and let your own firewall accept what bears it");
            }
        }
    }
    if is_known {
        closes_nothing(draft, &opened, faults);
    }
    Some(firewall)
}

fn opened(doors: &[DraftDoor]) -> impl Iterator<Item = &Spanned<PortRange>> {
    let lists = doors.iter().filter_map(|door| door.open.given());
    lists.flat_map(|list| &list.value)
}

fn read(draft: &DraftFirewall, faults: &mut Faults) -> Firewall {
    if let Some(table) = draft.table.given() {
        names::name(&table.span, &table.value, "table", faults);
    }
    let mark = draft.mark.given().and_then(|mark| {
        let read = u32::try_from(mark.value).ok().filter(|m| *m != 0);
        if read.is_none() {
            faults
                .error(&mark.span, "a mark is a number from 1 to 0xffffffff")
                .help("0 is what unmarked packets have");
        }
        read
    });
    let trusted = draft.trusted.given();
    Firewall {
        table: draft.table.or(Firewall::TABLE.to_owned()),
        guard: draft.guard.or_default(),
        on_stop: draft.on_stop.or_default(),
        trusted: trusted.map_or(Vec::new(), |t| disjoint(&t.value, faults)),
        mark,
    }
}

/// Returns the prefixes that lie in no other prefix of the list: an interval set refuses overlaps.
fn disjoint(list: &SpannedList<Prefix>, faults: &mut Faults) -> Vec<Prefix> {
    for prefix in list.iter().filter(|p| p.value.length() == 0) {
        faults.warn(&prefix.span, "everybody is trusted: nobody needs to knock");
    }
    let mut sorted: Vec<_> = list.iter().enumerate().collect();
    // A prefix comes right before all that lie in it; of two equal ones the first written.
    sorted.sort_by_key(|(i, p)| (p.value.address(), p.value.length(), *i));
    let mut kept: Vec<(usize, Prefix)> = Vec::new();
    for (i, prefix) in sorted {
        match kept.last() {
            Some((_, wide)) if wide.contains(prefix.value.address()) => {
                let message = format!("`{}` is trusted already, as part of `{wide}`", prefix.value);
                faults.warn(&prefix.span, message);
            }
            _ => kept.push((i, prefix.value)),
        }
    }
    kept.sort_by_key(|(i, _)| *i);
    kept.into_iter().map(|(_, prefix)| prefix).collect()
}

/// Warns of a guarded range from which the kernel also takes source ports.
fn ephemeral(opened: &[&Spanned<PortRange>], host: &Host, faults: &mut Faults) {
    let (low, high) = (host.ephemeral.start(), host.ephemeral.end());
    for range in opened {
        let (first, last) = (range.value.first.get(), range.value.last.get());
        if !range.value.is_single() && first >= *low && last <= *high {
            faults
                .warn(
                    &range.span,
                    format!(
                        "`{}` lies in this host's ephemeral ports ({low}-{high})",
                        range.value
                    ),
                )
                .help(
                    "programs get such ports for calls of their own and then cannot be \
                     reached there; see net.ipv4.ip_local_port_range",
                );
        }
    }
}

/// Warns of a `close` of ports that no door opens.
fn closes_nothing(draft: &ConfigDraft, opened: &[&Spanned<PortRange>], faults: &mut Faults) {
    // Ports of both protocols on one line, so that looking one up is quick.
    let mut ports = crate::model::PortSet::default();
    for range in opened {
        ports.insert_range(&range.value);
    }
    for door in &draft.doors {
        let Some(close) = door.close.given() else {
            continue;
        };
        match &close.value {
            DraftClose::All => {
                if opened.is_empty() {
                    faults.warn(&close.span, "no door opens a port that this could close");
                }
            }
            DraftClose::Ports(list) => {
                for range in list {
                    let numbers = range.value.first.get()..=range.value.last.get();
                    let step = |port| crate::model::Step::new(range.value.protocol, port);
                    if !numbers.filter_map(step).any(|s| ports.contains(s)) {
                        let message = format!("no door opens `{}`", range.value);
                        faults.warn(&range.span, message);
                    }
                }
            }
        }
    }
}
