//! The keys of one door.

use super::native::{Act, Native, every_v4};
use super::output::TomlOutput;
use super::write;
use crate::config::{ConfLine, ConfSection, Key};
use crate::model::{Door, Protocol, SetElement, TcpFlags};

fn toml_key(old: &str) -> Option<&'static str> {
    let key = Key::of_conf(old).filter(|key| key.is_of_door());
    key?.toml
}

pub(super) fn write(
    out: &mut TomlOutput<'_>,
    section: &ConfSection<'_>,
    door: &Door,
    native: Option<&Native>,
) {
    let (body, _) = section.split();
    // The last setting of a key counts, and stands where it stood.
    let last = |wanted: &str| {
        let all = section.directives();
        all.filter(|(key, _)| toml_key(key.value) == Some(wanted))
            .map(|(key, _)| key.span.start)
            .last()
    };
    let mut acted = false;
    // Steps of one-time sequences are not known.
    let has_tcp = door.one_time.is_some() || door.uses(Protocol::Tcp);
    for line in body {
        let ConfLine::Directive { key, value } = line else {
            out.remark(line);
            continue;
        };
        let Some(toml) = toml_key(key.value).filter(|toml| last(toml) == Some(key.span.start))
        else {
            continue;
        };
        match (toml, native) {
            ("sequence", _) => out.set(toml, &write::list(&door.sequence)),
            ("seq_timeout", _) => out.set(toml, &write::duration(door.seq_timeout)),
            ("seq_cooldown", _) => out.set(toml, &write::duration(door.seq_cooldown)),
            // Flags would mean nothing without a TCP step, and the check reports such flags.
            ("tcp_flags", _) if !has_tcp => {}
            ("tcp_flags", _) => out.set(toml, &write::quoted(door.tcp_flags)),
            ("target", _) => {
                if let Some(target) = door.target {
                    out.set(toml, &write::quoted(target));
                }
            }
            ("one_time_sequences", _) | (_, None) => {
                let text = value.as_ref().map_or("", |v| v.value);
                out.set(toml, &raw(toml, text, door));
            }
            (_, Some(native)) => {
                if !acted {
                    act(out, native);
                    acted = true;
                }
            }
        }
    }
    if last("seq_timeout").is_none() {
        out.set("seq_timeout", &write::duration(door.seq_timeout));
    }
    if last("tcp_flags").is_none() && door.tcp_flags == TcpFlags::ANY && has_tcp {
        out.set("tcp_flags", &write::quoted(door.tcp_flags));
    }
    let commands = [
        "start_command",
        "stop_command",
        "start_command_6",
        "stop_command_6",
    ];
    if commands.iter().all(|key| last(key).is_none()) {
        out.line("# It has no command: it writes its lines to the log, and that is all.");
        out.set("start_command", &write::string(""));
    }
}

/// Returns a value that is the same in both formats, but for its quotes.
fn raw(toml: &str, text: &str, door: &Door) -> String {
    let timeout = door.commands.as_ref().map(|c| c.timeout);
    match (toml, timeout) {
        ("cmd_timeout", Some(timeout)) => write::duration(timeout),
        // Without commands the key does nothing, but it stays, as a line of the old file.
        ("cmd_timeout", None) => match digits(text).trim_start_matches('0') {
            "" => write::string("1ms"),
            seconds => write::string(&format!("{seconds}s")),
        },
        _ => write::string(text),
    }
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.get(..end.unwrap_or(text.len())).unwrap_or(text)
}

/// Writes the keys in place of commands.
fn act(out: &mut TomlOutput<'_>, native: &Native) {
    match &native.act {
        Act::Open(ports, lifetime) => {
            out.set("open", &write::list(ports));
            out.set("open_for", &write::lifetime(*lifetime));
        }
        Act::Close(ports) => out.set("close", &write::list(ports)),
        Act::Add(elements) => out.set("add", &list(elements, true)),
        Act::Remove(elements) => out.set("remove", &list(elements, false)),
    }
    let [start, stop] = &native.rest;
    if let Some(start) = start {
        out.set("start_command", &write::string(start));
    }
    if let Some(stop) = stop {
        out.set("cmd_timeout", &write::duration(native.stops_after));
        out.set("stop_command", &write::string(stop));
    }
    if native.only_v4
        && let Some(every) = every_v4()
    {
        out.line("# It did nothing for IPv6.");
        out.set("from", &write::list([every]));
    }
}

fn list(elements: &[SetElement], timed: bool) -> String {
    let one = |element: &SetElement| {
        let SetElement {
            path,
            lifetime,
            ports,
        } = element;
        let table = write::string(&format!("{} {}", path.family, path.table));
        let mut text = format!("{{ table = {table}, set = {}", write::string(&path.set));
        if timed {
            text.push_str(&format!(", for = {}", write::lifetime(*lifetime)));
        }
        if !ports.is_empty() {
            text.push_str(&format!(", ports = {}", write::list(ports)));
        }
        text + " }"
    };
    match elements {
        [only] => one(only),
        several => {
            let all: Vec<_> = several.iter().map(one).collect();
            format!("[{}]", all.join(", "))
        }
    }
}
