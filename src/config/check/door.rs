//! The check of one door.

use super::super::diagnostic::Faults;
use super::super::draft::{Defaults, DraftClose, DraftDoor, DraftElement, Field, SpannedList};
use super::super::host::Host;
use super::super::text::Spanned;
use super::commands::commands;
use super::fields::{path, time};
use super::names;
use super::sequence::{self, TripwireSettings};
use crate::model::{
    Close, Door, Lifetime, MAX_STRAYS, OPENINGS, OneTime, PortRange, Prefix, Protocol, SetElement,
    Step, TcpFlags, TripwireMode,
};

pub(super) fn door(
    draft: &DraftDoor,
    defaults: &Defaults,
    mode: TripwireMode,
    host: &Host,
    faults: &mut Faults,
) -> Door {
    does_something(draft, faults);
    let strays = strays(&draft.strays, faults);
    let steps = steps(draft, TripwireSettings { mode, strays }, faults);
    let tcp_flags = tcp_flags(draft, &steps, defaults, faults);
    if let Some(timeout) = draft.seq_timeout.given() {
        time(&timeout.span, timeout.value, "seq_timeout", faults);
    }
    if let Some(rest) = draft.seq_cooldown.given().filter(|c| !c.value.is_zero()) {
        time(&rest.span, rest.value, "seq_cooldown", faults);
    }
    who(draft, faults);
    let open = ranges(&draft.open, faults);
    let close = close(draft, &open, faults);
    let mut element_ports = 0;
    Door {
        name: draft.name.value.as_str().into(),
        sequence: steps.into(),
        one_time: path(&draft.one_time, host, faults).map(|file| OneTime { file }),
        seq_timeout: draft.seq_timeout.or(defaults.seq_timeout),
        seq_cooldown: draft.seq_cooldown.or_default(),
        tcp_flags,
        from: values(&draft.from).into(),
        target: draft.target.given().map(|t| t.value),
        strays,
        max_open: max_open(draft, &open, faults),
        open: open.into(),
        open_for: open_for(draft, faults),
        close,
        add: elements(&draft.add, &mut element_ports, faults).into(),
        remove: removals(draft, &mut element_ports, faults).into(),
        commands: commands(draft, faults).map(Box::new),
    }
}

fn values<T: Clone>(field: &Field<SpannedList<T>>) -> Vec<T> {
    let list = field.given().map(|list| &list.value);
    list.into_iter()
        .flatten()
        .map(|one| one.value.clone())
        .collect()
}

/// Reports a door that does nothing: a slip, unless it has an empty command.
fn does_something(draft: &DraftDoor, faults: &mut Faults) {
    let typed = [
        draft.open.is_absent(),
        draft.close.is_absent(),
        draft.add.is_absent(),
        draft.remove.is_absent(),
    ];
    if typed.contains(&false) || draft.misread {
        return;
    }
    let commands = [&draft.start, &draft.stop, &draft.start_6, &draft.stop_6];
    let name = draft.name.value.escape_debug();
    if commands.iter().all(|c| c.is_absent()) {
        faults
            .error(&draft.name.span, format!("door `{name}` does nothing"))
            .help("give it an `open`, `close`, `add`, `remove` or `start_command`");
    } else if commands
        .iter()
        .all(|c| c.is_absent() || c.given().is_some_and(|c| c.value.is_empty()))
    {
        faults.warn(
            &draft.name.span,
            format!("door `{name}` does nothing but write its lines to the log"),
        );
    }
}

fn steps(draft: &DraftDoor, wires: TripwireSettings, faults: &mut Faults) -> Vec<Step> {
    match (&draft.sequence, &draft.one_time) {
        // The unknown key may be the sequence.
        (Field::Absent, Field::Absent) if draft.misread => {}
        (Field::Absent, Field::Absent) => {
            let name = draft.name.value.escape_debug();
            faults
                .error(&draft.name.span, format!("door `{name}` has no sequence"))
                .help("give it a `sequence`, or a file of `one_time_sequences`");
        }
        (Field::Given(_) | Field::Faulty, Field::Given(file)) => {
            faults
                .error(
                    &file.span,
                    "a door has a sequence or one-time sequences, not both",
                )
                .help("leave one of them out");
        }
        (Field::Absent, Field::Given(_) | Field::Faulty)
        | (Field::Given(_) | Field::Faulty, Field::Absent | Field::Faulty) => {}
    }
    let steps = draft.sequence.given();
    steps.map_or(Vec::new(), |steps| sequence::sequence(steps, wires, faults))
}

fn tcp_flags(
    draft: &DraftDoor,
    steps: &[Step],
    defaults: &Defaults,
    faults: &mut Faults,
) -> TcpFlags {
    if let Some(flags) = draft.tcp_flags.given()
        && !steps.is_empty()
        && steps.iter().all(|s| s.protocol == Protocol::Udp)
    {
        faults.warn(
            &flags.span,
            "TCP flags mean nothing here: every step is UDP",
        );
    }
    draft.tcp_flags.or(defaults.tcp_flags)
}

/// Checks the sources that may knock, and the address at which they knock.
fn who(draft: &DraftDoor, faults: &mut Faults) {
    let from = draft.from.given();
    if let Some(from) = from
        && from.value.is_empty()
    {
        faults
            .error(&from.span, "nobody could knock at this door")
            .help("leave `from` out for everybody");
    }
    let Some(target) = draft.target.given() else {
        return;
    };
    if target.value.is_unspecified() || target.value.is_multicast() {
        faults.error(&target.span, "nobody can be knocked at there");
    }
    if !draft.open.is_absent() {
        faults
            .error(
                &target.span,
                "a door with a `target` cannot `open`: the guard is for this host",
            )
            .help("use a command, or `add` to a set of your forward chain");
    }
    let answers = |p: &Spanned<Prefix>| p.value.address().is_ipv4() == target.value.is_ipv4();
    if let Some(from) = from
        && !from.value.is_empty()
        && !from.value.iter().any(answers)
    {
        let family = if target.value.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        faults.error(
            &from.span,
            format!("nobody here can knock at the target: it has an {family} address"),
        );
    }
}

fn strays(field: &Field<i64>, faults: &mut Faults) -> u16 {
    let Some(given) = field.given() else {
        return Door::STRAYS;
    };
    let read = u16::try_from(given.value).ok().filter(|n| *n <= MAX_STRAYS);
    if read.is_none() {
        faults.error(
            &given.span,
            format!("`strays` is a number from 0 to {MAX_STRAYS}"),
        );
    }
    read.unwrap_or(Door::STRAYS)
}

fn open_for(draft: &DraftDoor, faults: &mut Faults) -> Lifetime {
    if let Some(given) = draft.open_for.given() {
        if let Lifetime::For(duration) = given.value {
            time(&given.span, duration, "open_for", faults);
        }
        if draft.open.is_absent() {
            faults.warn(
                &given.span,
                "`open_for` means nothing here: the door opens no port",
            );
        }
    }
    draft.open_for.or(Door::OPEN_FOR)
}

/// Returns the number of addresses to which the door may be open at once. By default all of them
/// together fill no more than half of a set, however many ports there are.
fn max_open(draft: &DraftDoor, open: &[PortRange], faults: &mut Faults) -> u32 {
    let singles = open.iter().filter(|ports| ports.is_single()).count();
    let singles = u32::try_from(singles).unwrap_or(u32::MAX).max(1);
    let default = Door::MAX_OPEN.min(OPENINGS / 2 / singles).max(1);
    let Some(given) = draft.max_open.given() else {
        return default;
    };
    if draft.open.is_absent() && draft.add.is_absent() {
        faults.warn(
            &given.span,
            "`max_open` means nothing here: the door opens no port and fills no set",
        );
    }
    let read = u32::try_from(given.value).ok();
    let Some(most) = read.filter(|most| (1..=OPENINGS).contains(most)) else {
        faults.error(
            &given.span,
            format!("`max_open` is a number from 1 to {OPENINGS}"),
        );
        return default;
    };
    if u64::from(most) * u64::from(singles) > u64::from(OPENINGS) {
        faults
            .warn(
                &given.span,
                format!("{most} addresses with {singles} ports each are more than all openings"),
            )
            .help(format!(
                "knocks make at most {OPENINGS} of each family: `max_open = {}`",
                OPENINGS / singles
            ));
    }
    most
}

/// Returns the ports, and reports ports that are named twice.
pub(super) fn ranges(field: &Field<SpannedList<PortRange>>, faults: &mut Faults) -> Vec<PortRange> {
    if let Some(list) = field.given() {
        distinct(list, faults);
    }
    values(field)
}

fn distinct(list: &Spanned<SpannedList<PortRange>>, faults: &mut Faults) {
    if list.value.is_empty() {
        faults
            .error(&list.span, "no port stands here")
            .help("name one, such as \"22/tcp\", or leave the key out");
    }
    let mut sorted: Vec<_> = list.value.iter().collect();
    sorted.sort_by_key(|r| r.value);
    let mut widest: Option<&Spanned<PortRange>> = None;
    for range in sorted {
        if let Some(other) = widest
            && other.value.overlaps(&range.value)
        {
            let (first, second) = if other.span.start < range.span.start {
                (other, range)
            } else {
                (range, other)
            };
            faults.error(
                &second.span,
                format!("`{}` overlaps `{}`", second.value, first.value),
            );
        }
        widest = match widest {
            Some(w)
                if w.value.protocol == range.value.protocol && w.value.last >= range.value.last =>
            {
                Some(w)
            }
            Some(_) | None => Some(range),
        };
    }
}

fn close(draft: &DraftDoor, open: &[PortRange], faults: &mut Faults) -> Close {
    let Some(given) = draft.close.given() else {
        return Close::Nothing;
    };
    match &given.value {
        DraftClose::All => {
            if !draft.open.is_absent() {
                faults.error(&given.span, "a door cannot open ports and close them");
            }
            Close::All
        }
        DraftClose::Ports(list) => {
            distinct(&Spanned::new(list.clone(), given.span.clone()), faults);
            for range in list {
                if open.iter().any(|o| o.overlaps(&range.value)) {
                    let message = format!("`{}` is opened and closed by one door", range.value);
                    faults.error(&range.span, message);
                }
            }
            Close::Ports(list.iter().map(|r| r.value).collect())
        }
    }
}

/// How many ports a door may put into the administrator's sets and take out of them: all 65,535 would
/// hold the daemon up for more than a second at each knock.
const ELEMENT_PORTS: usize = 1024;

/// Returns the elements; `count` is the number of the door's ports so far.
fn elements(
    field: &Field<SpannedList<DraftElement>>,
    count: &mut usize,
    faults: &mut Faults,
) -> Vec<SetElement> {
    let Some(list) = field.given() else {
        return Vec::new();
    };
    if list.value.is_empty() {
        faults.error(&list.span, "no element stands here");
    }
    let element = |element: &Spanned<DraftElement>| {
        let DraftElement {
            path,
            lifetime,
            ports,
        } = &element.value;
        names::set_path(&element.span, path, faults);
        if let Some(Spanned {
            value: Lifetime::For(duration),
            span,
        }) = lifetime.given()
        {
            time(span, *duration, "for", faults);
        }
        let listed = ranges(ports, faults);
        let size = |range: &PortRange| usize::from(range.last.get() - range.first.get()) + 1;
        let before = *count;
        *count += listed.iter().map(size).sum::<usize>();
        if let Some(given) = ports.given()
            && (before..*count).contains(&ELEMENT_PORTS)
        {
            faults
                .error(
                    &given.span,
                    format!("{count} ports of one door are more than {ELEMENT_PORTS}"),
                )
                .help("each becomes an element at every knock: let the set have addresses alone");
        }
        SetElement {
            path: path.clone(),
            lifetime: lifetime.or(Door::OPEN_FOR),
            ports: listed,
        }
    };
    list.value.iter().map(element).collect()
}

fn removals(draft: &DraftDoor, count: &mut usize, faults: &mut Faults) -> Vec<SetElement> {
    let added = values(&draft.add);
    for element in draft.remove.given().iter().flat_map(|list| &list.value) {
        if added.iter().any(|a| a.path == element.value.path) {
            faults.error(
                &element.span,
                "one door adds to this set and removes from it",
            );
        }
    }
    elements(&draft.remove, count, faults)
}
