//! The values of knockd.toml, each read from its TOML type or reported.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::toml::de::DeValue;

use crate::config::diagnostic::{Faults, ReportedFault};
use crate::config::draft::SpannedList;
use crate::config::services;
use crate::config::suggest::nearest;
use crate::config::text::{Span, Spanned};
use crate::model::{
    Lifetime, ParsePortError, PortRange, Prefix, Protocol, Step, TcpFlags, parse_legacy_step,
};

/// A TOML value and where it stands.
pub(super) struct TomlValue<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) span: Span,
}

impl<'a> TomlValue<'a> {
    pub(super) fn new(value: &'a ::toml::Spanned<DeValue<'_>>) -> Self {
        Self {
            value: value.get_ref(),
            span: value.span(),
        }
    }
}

/// Returns the type of a value, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn wrong<'f>(value: &TomlValue<'_>, faults: &'f mut Faults, wanted: &str) -> ReportedFault<'f> {
    let message = format!("{wanted} must stand here, not {}", kind(value.value));
    faults.error(&value.span, message)
}

/// Returns the text of a number or a word without quotes, for a help that puts it into quotes.
fn bare(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(n) => Some(n.as_str().to_owned()),
        DeValue::Float(n) => Some(n.as_str().to_owned()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Returns a string. Quotes are advised if what lacks them would be a `sound` text in them.
fn string<'a>(
    value: &TomlValue<'a>,
    faults: &mut Faults,
    wanted: &str,
    sound: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    if let DeValue::String(text) = value.value {
        return Some(text.as_ref());
    }
    let text = bare(value.value).filter(|text| sound(text));
    let help = text.map(|bare| format!("put it in quotes: \"{bare}\""));
    wrong(value, faults, wanted).help_if(help);
    None
}

/// Reads any string.
pub(super) fn text(value: TomlValue<'_>, faults: &mut Faults) -> Option<String> {
    string(&value, faults, "a string", |_| true).map(str::to_owned)
}

/// Reads the name of a file.
pub(super) fn path(value: TomlValue<'_>, faults: &mut Faults) -> Option<PathBuf> {
    string(&value, faults, "the name of a file", |_| true).map(PathBuf::from)
}

/// Reads `true` or `false`.
pub(super) fn boolean(value: TomlValue<'_>, faults: &mut Faults) -> Option<bool> {
    if let DeValue::Boolean(yes) = value.value {
        return Some(*yes);
    }
    let word = value.value.as_str().map(str::to_ascii_lowercase);
    let word = word.or_else(|| bare(value.value)).unwrap_or_default();
    let meant = match word.as_str() {
        "true" | "yes" | "on" | "1" => Some("write true"),
        "false" | "no" | "off" | "0" => Some("write false"),
        _ => None,
    };
    wrong(&value, faults, "true or false").help_if(meant.map(str::to_owned));
    None
}

/// Reads a whole number. The check judges its bounds.
pub(super) fn integer(value: TomlValue<'_>, faults: &mut Faults) -> Option<i64> {
    let DeValue::Integer(number) = value.value else {
        let text = value.value.as_str().unwrap_or_default().trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let help = is_number.then(|| format!("write {text}"));
        wrong(&value, faults, "a whole number").help_if(help);
        return None;
    };
    let read = i64::from_str_radix(number.as_str(), number.radix()).ok();
    if read.is_none() {
        faults.error(&value.span, "this number is too big");
    }
    read
}

/// Reads one of a few words.
pub(super) fn word<T: Copy>(
    value: TomlValue<'_>,
    faults: &mut Faults,
    words: &[(&str, T)],
) -> Option<T> {
    let all: Vec<_> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
    let all = all.join(", ");
    let DeValue::String(given) = value.value else {
        wrong(&value, faults, &format!("one of {all}"));
        return None;
    };
    if let Some((_, meant)) = words.iter().find(|(w, _)| w == given) {
        return Some(*meant);
    }
    let noted = faults.error(&value.span, format!("one of {all} must stand here"));
    if let Some(near) = nearest(given, words.iter().map(|(w, _)| *w)) {
        noted.help(format!("did you mean \"{near}\"?"));
    }
    None
}

/// The kind of a list's elements.
#[derive(Clone, Copy)]
pub(super) struct Items {
    /// An example of one, with its quotes.
    pub(super) example: &'static str,
    /// Rewrites an element of another spelling in the spelling of a knockd.toml.
    pub(super) spell: fn(&str) -> String,
    /// True if the elements are secret.
    pub(super) is_secret: bool,
}

/// Steps of a sequence.
pub(super) const STEPS: Items = Items {
    example: "\"17301/tcp\"",
    spell: port_here,
    is_secret: true,
};

/// Ports to be opened, closed or left alone.
pub(super) const PORTS: Items = Items {
    example: "\"22/tcp\"",
    spell: port_here,
    is_secret: false,
};

/// Sources.
pub(super) const PREFIXES: Items = Items {
    example: "\"203.0.113.0/24\"",
    spell: str::to_owned,
    is_secret: false,
};

/// Interfaces.
pub(super) const NAMES: Items = Items {
    example: "\"eth0\"",
    spell: str::to_owned,
    is_secret: false,
};

/// Returns a text such as `7000,8000:udp` as the inside of a list: `"7000/tcp", "8000/udp"`.
pub(super) fn spelled(text: &str, spell: fn(&str) -> String) -> String {
    let parts = text.split(|c: char| c == ',' || c == ';' || c.is_whitespace());
    let parts = parts.map(|part| part.trim_matches(['"', '\'', '[', ']']));
    let parts = parts.filter(|part| !part.is_empty());
    let quoted = parts.map(|part| format!("\"{}\"", spell(part).escape_debug()));
    quoted.collect::<Vec<_>>().join(", ")
}

/// Returns a port in the spelling of a knockd.toml, if it is given as knock 0.8 spells it (there a
/// bare number is TCP), or by the name of a service. Returns any other text as it is.
fn port_here(text: &str) -> String {
    if text.parse::<PortRange>().is_ok() {
        return text.to_owned();
    }
    let old = parse_legacy_step(text)
        .ok()
        .filter(|s| s.ignored.is_empty());
    match (old, meant(text)) {
        (Some(old), _) => old.step.to_string(),
        (None, Some(meant)) => meant,
        (None, None) => text.to_owned(),
    }
}

/// Reads a list, each element by `read`. Every faulty element is reported.
pub(super) fn list<'a, T>(
    value: TomlValue<'a>,
    faults: &mut Faults,
    items: Items,
    read: impl Fn(TomlValue<'a>, &mut Faults) -> Option<T>,
) -> Option<SpannedList<T>> {
    let DeValue::Array(array) = value.value else {
        let example = format!("such as [{}]", items.example);
        let one = value.value.as_str().map(str::to_owned);
        let one = one.or_else(|| bare(value.value)).unwrap_or_default();
        let inner = spelled(&one, items.spell);
        let help = match inner.as_str() {
            "" => example.clone(),
            inner => format!("put it in brackets: [{inner}]"),
        };
        let noted = wrong(&value, faults, "a list").help(help);
        if items.is_secret {
            noted.quiet_help("a list must stand here", example);
        }
        return None;
    };
    let mut all = Some(Vec::new());
    for element in array.iter() {
        match (read(TomlValue::new(element), faults), &mut all) {
            (Some(read), Some(all)) => all.push(Spanned::new(read, element.span())),
            (Some(_), None) => {}
            (None, _) => all = None,
        }
    }
    all
}

/// Reads a string by the model's own parser.
fn parsed<T>(value: TomlValue<'_>, faults: &mut Faults, wanted: &str) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    match string(&value, faults, wanted, |text| text.parse::<T>().is_ok())?.parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            faults.error(&value.span, error.to_string());
            None
        }
    }
}

/// Reads a step: `17301/tcp`.
pub(super) fn step(value: TomlValue<'_>, faults: &mut Faults) -> Option<Step> {
    port(&value, faults, STEPS)
}

/// Reads a port or a range: `22/tcp`, `60000-61000/udp`.
pub(super) fn ports(value: TomlValue<'_>, faults: &mut Faults) -> Option<PortRange> {
    port(&value, faults, PORTS)
}

fn port<T>(value: &TomlValue<'_>, faults: &mut Faults, items: Items) -> Option<T>
where
    T: FromStr<Err = ParsePortError>,
{
    let Items {
        example, is_secret, ..
    } = items;
    let wanted = format!("a port with its protocol, such as {example},");
    let (noted, kind) = match value.value {
        DeValue::String(text) => match text.parse() {
            Ok(port) => return Some(port),
            Err(error) => (
                faults
                    .error(&value.span, error.to_string())
                    .help_if(advice::<T>(text)),
                "this is no port with its protocol",
            ),
        },
        DeValue::Integer(number) => (
            match either::<T>(number.as_str()) {
                Some(help) => wrong(value, faults, &wanted).help(help),
                None => {
                    let none = ParsePortError::Number(number.to_string());
                    faults.error(&value.span, none.to_string())
                }
            },
            "a port with its protocol must stand here, not a number",
        ),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => (
            wrong(value, faults, &wanted),
            "a port with its protocol must stand here",
        ),
    };
    if is_secret {
        noted.quiet_help(kind, format!("such as {example}"));
    }
    None
}

/// Returns the help `write "22/tcp" or "22/udp"`, if the number is a port.
fn either<T: FromStr>(number: &str) -> Option<String> {
    let number = number.trim();
    format!("{number}/tcp").parse::<T>().ok()?;
    Some(format!("write \"{number}/tcp\" or \"{number}/udp\""))
}

/// Returns the advice on a text that is no port.
fn advice<T: FromStr>(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(help) = either::<T>(text) {
        return Some(help);
    }
    if text.contains([',', ' ']) {
        let all = spelled(text, port_here);
        let mut parts = all.split(", ").map(|part| part.trim_matches('"'));
        let sound = parts.all(|part| part.parse::<T>().is_ok());
        return sound.then(|| format!("write {all}"));
    }
    let meant = meant(text).filter(|meant| meant.parse::<T>().is_ok())?;
    if text
        .split(['/', ':'])
        .any(|w| services::port(w.trim()).is_some())
    {
        return Some(format!("use the number: \"{meant}\""));
    }
    Some(format!("write \"{meant}\""))
}

/// Returns the port or range that another spelling most likely means: `22:tcp`, `tcp/22`, `ssh`,
/// `22/tcpp`, `60000:61000/udp`, `61000-60000/udp`.
fn meant(text: &str) -> Option<String> {
    let (left, right) = match text.rsplit_once(['/', ':']) {
        Some((left, right)) => (left.trim(), right.trim()),
        None => (text.trim(), "tcp"),
    };
    let protocol = |word: &str| Protocol::named(word);
    let (ports, protocol) = match (protocol(left), protocol(right)) {
        (_, Some(protocol)) => (left, protocol),
        (Some(protocol), None) => (right, protocol),
        (None, None) => {
            let slip = right.len() > 1 && !["sctp", "dccp", "icmp"].contains(&right);
            let near = nearest(right, ["tcp", "udp"]).filter(|_| slip)?;
            (left, protocol(near)?)
        }
    };
    let ports = match services::port(ports) {
        Some(port) => port.to_string(),
        None => ports.replacen(':', "-", 1),
    };
    let one = |ports: &str| format!("{ports}/{protocol}").parse::<PortRange>().ok();
    let turned = || {
        let (first, last) = ports.split_once('-')?;
        one(&format!("{last}-{first}"))
    };
    one(&ports).or_else(turned).map(|range| range.to_string())
}

/// Reads an address or a prefix: `192.0.2.0/24`, `2001:db8::1`.
pub(super) fn prefix(value: TomlValue<'_>, faults: &mut Faults) -> Option<Prefix> {
    parsed(value, faults, "an address or a prefix")
}

/// Reads TCP flags: `syn,!ack`, `any`.
pub(super) fn flags(value: TomlValue<'_>, faults: &mut Faults) -> Option<TcpFlags> {
    parsed(value, faults, "TCP flags, such as \"syn,!ack\",")
}

/// Reads an address: `192.0.2.1`.
pub(super) fn address(value: TomlValue<'_>, faults: &mut Faults) -> Option<std::net::IpAddr> {
    let text = string(&value, faults, "an address", |_| false)?;
    let address = text.parse().ok();
    if address.is_none() {
        let text = text.escape_debug();
        faults
            .error(&value.span, format!("`{text}` is no address"))
            .help("names are not looked up: write the address");
    }
    address
}

/// Reads a duration: `30s`, `1h 30m`.
pub(super) fn duration(value: TomlValue<'_>, faults: &mut Faults) -> Option<Duration> {
    time(&value, faults, "a duration, such as \"30s\" or \"1h 30m\",")
}

/// Reads a duration, or `until closed`.
pub(super) fn lifetime(value: TomlValue<'_>, faults: &mut Faults) -> Option<Lifetime> {
    let wanted = "a duration, such as \"30s\", or \"until closed\"";
    let Some(text) = value.value.as_str() else {
        return time(&value, faults, wanted).map(Lifetime::For);
    };
    if text == "until closed" {
        return Some(Lifetime::UntilClosed);
    }
    if is_for_ever(text) {
        faults
            .error(&value.span, "this is no duration")
            .help("write \"until closed\"");
        return None;
    }
    time(&value, faults, wanted).map(Lifetime::For)
}

/// Returns whether people write this text for an opening without an end.
fn is_for_ever(text: &str) -> bool {
    let words = [
        "until closed",
        "forever",
        "for ever",
        "ever",
        "never",
        "always",
        "permanent",
        "infinite",
        "infinity",
        "unlimited",
        "none",
        "no",
        "off",
    ];
    let text = text.trim().to_ascii_lowercase().replace(['_', '-'], " ");
    words.contains(&text.as_str()) || nearest(&text, words.into_iter().take(3)).is_some()
}

fn time(value: &TomlValue<'_>, faults: &mut Faults, wanted: &str) -> Option<Duration> {
    if let DeValue::Integer(number) = value.value {
        let help = format!("put it in quotes, with its unit: \"{}s\"", number.as_str());
        wrong(value, faults, wanted).help(help);
        return None;
    }
    let text = string(value, faults, wanted, |_| false)?;
    match humantime::parse_duration(text) {
        Ok(duration) => Some(duration),
        Err(error) => {
            let digits = text.trim();
            let is_bare = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let help = match is_bare {
                true => format!("write \"{digits}s\""),
                false => "such as \"30s\", \"5m\" or \"1h 30m\"".to_owned(),
            };
            faults
                .error(&value.span, format!("this is no duration: {error}"))
                .help(help);
            None
        }
    }
}
