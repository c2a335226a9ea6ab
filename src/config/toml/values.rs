//! The values of knockd.toml, each read from its TOML type or reported.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::toml::de::DeValue;

use crate::config::diagnostic::Faults;
use crate::config::draft::List;
use crate::config::source::{Span, Spanned};
use crate::config::suggest::nearest;
use crate::model::{Lifetime, PortRange, Prefix, Step, TcpFlags};

/// A TOML value and where it stands.
pub(super) struct Value<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) span: Span,
}

impl<'a> Value<'a> {
    pub(super) fn new(value: &'a ::toml::Spanned<DeValue<'_>>) -> Self {
        Self {
            value: value.get_ref(),
            span: value.span(),
        }
    }
}

/// What a value is, in words.
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

fn wrong(value: &Value<'_>, faults: &mut Faults, wanted: &str, example: Option<String>) {
    let message = format!("{wanted} must stand here, not {}", kind(value.value));
    let noted = faults.error(&value.span, message);
    if let Some(example) = example {
        noted.help(example);
    }
}

/// A number or word given bare, put into quotes for the help.
fn bare(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(n) => Some(n.as_str().to_owned()),
        DeValue::Float(n) => Some(n.as_str().to_owned()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn string<'a>(value: &Value<'a>, faults: &mut Faults, wanted: &str) -> Option<&'a str> {
    if let DeValue::String(text) = value.value {
        return Some(text.as_ref());
    }
    let help = bare(value.value).map(|bare| format!("put it in quotes: \"{bare}\""));
    wrong(value, faults, wanted, help);
    None
}

/// Any string.
pub(super) fn text(value: Value<'_>, faults: &mut Faults) -> Option<String> {
    string(&value, faults, "a string").map(str::to_owned)
}

/// A file's name.
pub(super) fn path(value: Value<'_>, faults: &mut Faults) -> Option<PathBuf> {
    string(&value, faults, "the name of a file").map(PathBuf::from)
}

/// `true` or `false`.
pub(super) fn boolean(value: Value<'_>, faults: &mut Faults) -> Option<bool> {
    if let DeValue::Boolean(yes) = value.value {
        return Some(*yes);
    }
    wrong(&value, faults, "true or false", None);
    None
}

/// A whole number; whether it is in bounds is the check's affair.
pub(super) fn integer(value: Value<'_>, faults: &mut Faults) -> Option<i64> {
    let DeValue::Integer(number) = value.value else {
        wrong(&value, faults, "a whole number", None);
        return None;
    };
    let read = i64::from_str_radix(number.as_str(), number.radix()).ok();
    if read.is_none() {
        faults.error(&value.span, "this number is too big");
    }
    read
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    value: Value<'_>,
    faults: &mut Faults,
    words: &[(&str, T)],
) -> Option<T> {
    let all: Vec<_> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
    let all = all.join(", ");
    let DeValue::String(given) = value.value else {
        wrong(&value, faults, &format!("one of {all}"), None);
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

/// A list, each element read by `read`; all that are wrong are reported.
pub(super) fn list<'a, T>(
    value: Value<'a>,
    faults: &mut Faults,
    example: &str,
    read: impl Fn(Value<'a>, &mut Faults) -> Option<T>,
) -> Option<List<T>> {
    let DeValue::Array(array) = value.value else {
        let help = if let DeValue::String(one) = value.value {
            format!("put it in brackets: [\"{}\"]", one.escape_debug())
        } else {
            format!("such as [{example}]")
        };
        wrong(&value, faults, "a list", Some(help));
        return None;
    };
    let mut all = Some(Vec::new());
    for element in array.iter() {
        match (read(Value::new(element), faults), &mut all) {
            (Some(read), Some(all)) => all.push(Spanned::new(read, element.span())),
            (Some(_), None) => {}
            (None, _) => all = None,
        }
    }
    all
}

/// A string that the model's own parser reads.
fn parsed<T>(value: Value<'_>, faults: &mut Faults, wanted: &str) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    match string(&value, faults, wanted)?.parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            faults.error(&value.span, error.to_string());
            None
        }
    }
}

/// `17301/tcp`.
pub(super) fn step(value: Value<'_>, faults: &mut Faults) -> Option<Step> {
    parsed(
        value,
        faults,
        "a port with its protocol, such as \"17301/tcp\",",
    )
}

/// `22/tcp`, `60000-61000/udp`.
pub(super) fn ports(value: Value<'_>, faults: &mut Faults) -> Option<PortRange> {
    parsed(
        value,
        faults,
        "a port with its protocol, such as \"22/tcp\",",
    )
}

/// `192.0.2.0/24`, `2001:db8::1`.
pub(super) fn prefix(value: Value<'_>, faults: &mut Faults) -> Option<Prefix> {
    parsed(value, faults, "an address or a prefix")
}

/// `syn,!ack`, `any`.
pub(super) fn flags(value: Value<'_>, faults: &mut Faults) -> Option<TcpFlags> {
    parsed(value, faults, "TCP flags, such as \"syn,!ack\",")
}

/// `192.0.2.1`.
pub(super) fn address(value: Value<'_>, faults: &mut Faults) -> Option<std::net::IpAddr> {
    let text = string(&value, faults, "an address")?;
    let address = text.parse().ok();
    if address.is_none() {
        faults.error(
            &value.span,
            format!("`{}` is no address", text.escape_debug()),
        );
    }
    address
}

/// `30s`, `1h 30m`.
pub(super) fn duration(value: Value<'_>, faults: &mut Faults) -> Option<Duration> {
    time(&value, faults, "a duration, such as \"30s\" or \"1h 30m\",")
}

/// A duration, or `until closed`.
pub(super) fn lifetime(value: Value<'_>, faults: &mut Faults) -> Option<Lifetime> {
    let wanted = "a duration, such as \"30s\", or \"until closed\"";
    if value.value.as_str() == Some("until closed") {
        return Some(Lifetime::UntilClosed);
    }
    time(&value, faults, wanted).map(Lifetime::For)
}

fn time(value: &Value<'_>, faults: &mut Faults, wanted: &str) -> Option<Duration> {
    if let DeValue::Integer(number) = value.value {
        let help = format!("put it in quotes, with its unit: \"{}s\"", number.as_str());
        wrong(value, faults, wanted, Some(help));
        return None;
    }
    match humantime::parse_duration(string(value, faults, wanted)?) {
        Ok(duration) => Some(duration),
        Err(error) => {
            faults
                .error(&value.span, format!("this is no duration: {error}"))
                .help("such as \"30s\", \"5m\" or \"1h 30m\"");
            None
        }
    }
}
