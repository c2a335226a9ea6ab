//! `--native`: command strings that plainly let %IP% in at a port, or keep it out, become keys of
//! knockd's own. A command that says more is left alone: a wrong guess would open a host or shut it.

mod firewalld;
mod iptables;
mod nft;
mod parsed;
mod shell;
mod ufw;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

pub(super) use self::parsed::Tool;
use self::parsed::{AddressFamilies, ParsedCommand, RuleChange};
use crate::model::{Commands, Door, Lifetime, PortRange, Prefix, SetElement, SetPath, Step};

/// The keys and commands of a door in place of its old commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Native {
    pub(super) tool: Tool,
    pub(super) act: Act,
    /// True if the door did nothing for IPv6 sources.
    pub(super) only_v4: bool,
    /// Sets whose elements had no timeout and get one now: not each set takes that.
    pub(super) timed: Vec<SetPath>,
    /// The commands that followed the rule in the start command, and in the stop command.
    pub(super) rest: [Option<String>; 2],
    /// The time from start to stop, for the rest.
    pub(super) stops_after: Duration,
}

/// The keys that a door gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Open(Vec<PortRange>, Lifetime),
    Close(Vec<PortRange>),
    Add(Vec<SetElement>),
    Remove(Vec<SetElement>),
}

/// Returns for each door the replacement for its commands, or why they stay; `None` if it has no
/// commands.
pub(super) fn turn(doors: &[Door]) -> Vec<Option<Result<Native, String>>> {
    let steps: BTreeSet<Step> = doors.iter().flat_map(|d| d.sequence.clone()).collect();
    let one = |door: &Door| {
        let commands = door.commands.as_ref()?;
        Some(turn_one(door, commands, &steps))
    };
    let mut turned: Vec<_> = doors.iter().map(one).collect();
    // A door that opens and a door that closes the same are turned both or neither. Each door that
    // stays a command may keep others from being turned.
    while keep_openers(doors, &mut turned) | keep_closers(&mut turned) {}
    turned
}

/// Keeps the commands of doors that close a port that no `open` opens, for a command has opened it.
/// Returns whether there was such a door.
fn keep_closers(turned: &mut [Option<Result<Native, String>>]) -> bool {
    let opened = |turned: &[Option<Result<Native, String>>]| -> Vec<PortRange> {
        let lists = turned.iter().filter_map(|t| match t {
            Some(Ok(Native {
                act: Act::Open(ports, _),
                ..
            })) => Some(ports.clone()),
            Some(Ok(_) | Err(_)) | None => None,
        });
        lists.flatten().collect()
    };
    let opened = opened(turned);
    let mut any = false;
    for turned in turned {
        if let Some(Ok(Native {
            act: Act::Close(ports),
            ..
        })) = turned
            && let Some(lost) = ports.iter().find(|p| !opened.contains(p))
        {
            *turned = Some(Err(format!(
                "`{lost}` is opened by no `open` that it could close"
            )));
            any = true;
        }
    }
    any
}

/// Keeps the commands of a door if another door, whose commands stay, may close the ports that it
/// opens: a command does not close openings of knockd. Returns whether there was such a door.
fn keep_openers(doors: &[Door], turned: &mut [Option<Result<Native, String>>]) -> bool {
    let kept: Vec<&Door> = doors
        .iter()
        .zip(&*turned)
        .filter(|(_, turned)| matches!(turned, Some(Err(_))))
        .map(|(door, _)| door)
        .collect();
    let mut any = false;
    for (opener, turned) in doors.iter().zip(turned) {
        let Some(Ok(Native {
            act: Act::Open(ports, _),
            ..
        })) = turned
        else {
            continue;
        };
        if let Some(closer) = kept.iter().find(|kept| may_close(kept, ports)) {
            let (opener, closer) = (opener.name.escape_debug(), closer.name.escape_debug());
            let why =
                format!("door `{closer}` may close what `{opener}` opens, and stays a command");
            *turned = Some(Err(why));
            any = true;
        }
    }
    any
}

/// Returns whether the commands of a door may shut one of these ports to a source for which it is
/// open.
fn may_close(door: &Door, ports: &[PortRange]) -> bool {
    let Some(commands) = &door.commands else {
        return false;
    };
    // Only the start commands count: a stop command ends an opening of its own start command.
    let starts = [&commands.start, &commands.start_6].into_iter().flatten();
    let mut starts = starts.filter(|command| !command.is_empty());
    starts.any(|command| match understand(divided(command).0) {
        Ok(ParsedCommand { change, .. }) => match change {
            RuleChange::Unaccept(closed) | RuleChange::Refuse(closed) => {
                let meets = |p: &PortRange| ports.iter().any(|o| o.overlaps(p));
                closed.iter().any(meets)
            }
            // To accept closes nothing. A set of the administrator's does not matter here: the rules of
            // knockd do not look at it.
            RuleChange::Accept(_) | RuleChange::Add(..) | RuleChange::Remove(..) => false,
        },
        Err(_) => {
            // A door with a stop command ends its own openings: so its name does not make it a closer of
            // another door.
            let name = Some(&*door.name).filter(|_| commands.stop.is_none());
            looks_closing(name.unwrap_or_default(), command, ports)
        }
    })
}

/// Words in a command that takes something away.
#[rustfmt::skip]
const CLOSING: [&str; 34] = [
    "-D", "--delete", "-F", "--flush", "-X", "delete", "del", "destroy", "flush", "remove",
    "close", "shut", "lock", "block", "deny", "drop", "reject", "ban", "revoke", "reset",
    "restore", "reload", "restart", "stop", "kill",
    "off", "end", "undo", "disable", "disallow", "forbid", "clear", "rm", "unset",
];

/// Returns whether a command that is not understood seems to close: by its words, by the door's name,
/// or because it names a port that is opened and does not plainly open it.
fn looks_closing(name: &str, command: &str, ports: &[PortRange]) -> bool {
    fn words(command: &str) -> impl Iterator<Item = &str> {
        command.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
    }
    let lower = command.to_ascii_lowercase();
    // Of `ssh-off` the parts, and of an option none: its letter means what its program likes.
    let plain = words(&lower).filter(|word| !word.starts_with('-'));
    let parts = plain.flat_map(|word| word.split('-'));
    if words(command)
        .chain(parts)
        .any(|word| CLOSING.contains(&word))
    {
        return true;
    }
    // Within a word: /usr/local/bin/closessh.sh, --remove-rich-rule.
    let inside = [
        "close", "shut", "remove", "delete", "flush", "lock", "deny", "restore", "disable",
    ];
    let holds = |text: &str| {
        let text = text.to_ascii_lowercase().replace("unlock", "open");
        inside.iter().any(|word| text.contains(word))
    };
    let adds = [
        "-a", "-i", "--append", "--insert", "add", "insert", "allow", "accept", "open",
    ];
    let plainly_opens = words(&lower).any(|word| adds.contains(&word));
    let number = |word: &str| word.parse().ok().and_then(std::num::NonZeroU16::new);
    let named = |port| ports.iter().any(|p| p.first <= port && port <= p.last);
    if plainly_opens {
        return false;
    }
    holds(command) || holds(name) || words(&lower).filter_map(number).any(named)
}

fn turn_one(door: &Door, commands: &Commands, steps: &BTreeSet<Step>) -> Result<Native, String> {
    let start = commands
        .start
        .as_deref()
        .ok_or("it acts for IPv6 sources alone")?;
    let (start, rest) = divided(start);
    let (stop, stop_rest) = match commands.stop.as_deref().map(divided) {
        Some((stop, rest)) => (Some(stop), rest),
        None => (None, None),
    };
    if rest.is_none() && stop_rest.is_some() {
        return Err("its stop runs a command that its start does not".into());
    }
    if rest.is_some()
        && commands
            .start_6
            .as_deref()
            .is_some_and(|six| !six.is_empty())
    {
        return Err("it runs another command as well, and another for IPv6".into());
    }
    let four = both(start, stop, commands.timeout, AddressFamilies::V6)?;
    let mut native = Native {
        tool: four.0,
        act: four.1,
        only_v4: false,
        timed: four.2,
        rest: [rest, stop_rest].map(|rest| rest.map(str::to_owned)),
        stops_after: commands.timeout,
    };
    match (commands.start_6.as_deref(), commands.stop_6.as_deref()) {
        (None, None) => {}
        (Some(""), None | Some("")) => native.only_v4 = true,
        (Some(""), Some(_)) => return Err("for IPv6 it stops what it never started".into()),
        (start_6, stop_6) => {
            let stop_6 = match stop_6 {
                Some("") => None,
                Some(six) => Some(six),
                None => stop,
            };
            let start_6 = start_6.unwrap_or(start);
            let (_, six, timed) = both(start_6, stop_6, commands.timeout, AddressFamilies::V4)?;
            native.act = merged(native.act, six)?;
            native.timed.extend(timed);
            native.timed.dedup();
        }
    }
    if let Act::Open(ports, _) = &native.act {
        if door.target.is_some() {
            return Err("the door has a target: `open` is for this host".into());
        }
        let inside = |s: &&Step| ports.iter().any(|p| p.contains(**s));
        if let Some(step) = steps.iter().find(inside) {
            return Err(format!("`{step}` is a step too, and cannot be guarded"));
        }
    }
    Ok(native)
}

/// Returns one action for both address families, if they do the same. Elements of two sets are two
/// actions, for IPv4 and IPv6 addresses lie in different sets.
fn merged(four: Act, six: Act) -> Result<Act, String> {
    match (four, six) {
        (four, six) if four == six => Ok(four),
        (Act::Add(four), Act::Add(six)) => Ok(Act::Add([four, six].concat())),
        (Act::Remove(four), Act::Remove(six)) => Ok(Act::Remove([four, six].concat())),
        (Act::Open(..) | Act::Close(_) | Act::Add(_) | Act::Remove(_), _) => {
            Err("it does one thing for IPv4 and another for IPv6".into())
        }
    }
}

/// Returns the action of a start and a stop command together. A program for the `other` family is an
/// error here.
fn both(
    start: &str,
    stop: Option<&str>,
    timeout: Duration,
    other: AddressFamilies,
) -> Result<(Tool, Act, Vec<SetPath>), String> {
    let start = understand(start)?;
    let stop = stop.map(understand).transpose()?;
    if let (Tool::Firewalld(zone), Some(Tool::Firewalld(other))) =
        (&start.tool, stop.as_ref().map(|stop| &stop.tool))
        && zone != other
    {
        return Err("it starts in one zone and stops in another".into());
    }
    if start.family == other || stop.as_ref().is_some_and(|s| s.family == other) {
        return Err("the program is for the other family of addresses".into());
    }
    let ends = |given: Option<Duration>| match (given, &stop) {
        (Some(own), Some(_)) => Lifetime::For(own.min(timeout)),
        (Some(own), None) => Lifetime::For(own),
        (None, Some(_)) => Lifetime::For(timeout),
        (None, None) => Lifetime::UntilClosed,
    };
    let lifetime = ends(start.lifetime);
    let untimed = start.lifetime.is_none();
    let element = |path, lifetime, ports| {
        vec![SetElement {
            path,
            lifetime,
            ports,
        }]
    };
    let act = match (start.change, stop.map(|s| s.change)) {
        (RuleChange::Accept(ports), None) => Act::Open(ports, lifetime),
        (RuleChange::Accept(ports), Some(RuleChange::Unaccept(stop))) if ports == stop => {
            Act::Open(ports, lifetime)
        }
        (RuleChange::Unaccept(ports) | RuleChange::Refuse(ports), None) => Act::Close(ports),
        (RuleChange::Add(path, ports), None) => Act::Add(element(path, lifetime, ports)),
        (RuleChange::Add(path, ports), Some(RuleChange::Remove(from, stop)))
            if path == from && ports == stop =>
        {
            Act::Add(element(path, lifetime, ports))
        }
        // The model's element has a lifetime, if only an `add` makes use of it.
        (RuleChange::Remove(path, ports), None) => {
            let unused = Lifetime::For(Duration::from_secs(30));
            Act::Remove(element(path, unused, ports))
        }
        (
            RuleChange::Accept(_)
            | RuleChange::Unaccept(_)
            | RuleChange::Refuse(_)
            | RuleChange::Add(..)
            | RuleChange::Remove(..),
            Some(_),
        ) => return Err("the stop does not undo the start".into()),
    };
    let timed = match &act {
        Act::Add(elements) if untimed => {
            let ends = |e: &&SetElement| matches!(e.lifetime, Lifetime::For(_));
            elements
                .iter()
                .filter(ends)
                .map(|e| e.path.clone())
                .collect()
        }
        Act::Open(..) | Act::Close(_) | Act::Add(_) | Act::Remove(_) => Vec::new(),
    };
    Ok((start.tool, act, timed))
}

/// Divides a command string at the first `&&` or `;`. Returns the first command and the rest. The
/// string stays whole if the rest may undo what the first command does, or do more of it.
fn divided(command: &str) -> (&str, Option<&str>) {
    match shell::divide(command) {
        Some((first, rest)) if understand(first).is_ok() && !may_undo(rest) => (first, Some(rest)),
        Some(_) | None => (command, None),
    }
}

/// Returns whether a command calls a firewall, waits for something, or closes by its words.
fn may_undo(rest: &str) -> bool {
    const CALLS: [&str; 9] = [
        "tables", "nft", "ufw", "firewall", "knock_", "ipset", "sleep", "at ", "batch",
    ];
    let lower = rest.to_ascii_lowercase();
    CALLS.iter().any(|word| lower.contains(word)) || looks_closing("", rest, &[])
}

fn understand(command: &str) -> Result<ParsedCommand, String> {
    let words = shell::words(command)?;
    let mut words: &[String] = &words;
    while let [first, rest @ ..] = words
        && matches!(base(first), "sudo" | "doas" | "exec")
    {
        words = rest;
        // sudo and doas ask for no password here, for nobody is there to give one.
        while let ["sudo" | "doas", "-n" | "--non-interactive" | "-E" | "--"] =
            [base(first), words.first().map_or("", String::as_str)]
        {
            words = words.get(1..).unwrap_or_default();
        }
    }
    let Some((program, words)) = words.split_first() else {
        return Err("there is no command".into());
    };
    match base(program) {
        "iptables" | "iptables-nft" | "iptables-legacy" => {
            iptables::read(words, AddressFamilies::V4)
        }
        "ip6tables" | "ip6tables-nft" | "ip6tables-legacy" => {
            iptables::read(words, AddressFamilies::V6)
        }
        "knock_helper_ipt.sh" | "knock_add" => iptables::read_helper(words),
        "nft" => nft::read(words),
        "ufw" => ufw::read(words),
        "firewall-cmd" => firewalld::read(words),
        other => Err(format!(
            "`{}` is no firewall's program",
            other.escape_debug()
        )),
    }
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Every IPv4 address: for doors that do nothing for IPv6.
pub(super) fn every_v4() -> Option<Prefix> {
    Prefix::new(IpAddr::from([0, 0, 0, 0]), 0)
}

#[cfg(test)]
mod tests;
