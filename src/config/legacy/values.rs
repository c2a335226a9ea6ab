//! The values of a knockd.conf.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::diagnostic::{Faults, ReportedFault};
use crate::config::draft::SpannedList;
use crate::config::services;
use crate::config::text::Spanned;
use crate::model::{LegacyStep, Step, TcpFlags, parse_legacy_step};

fn ignored<'f>(value: &Spanned<&str>, what: &str, faults: &'f mut Faults) -> ReportedFault<'f> {
    let what = what.escape_debug();
    faults
        .warn(
            &value.span,
            format!("`{what}` means nothing here and is ignored, as by knock 0.8"),
        )
        .help("a comment has a line of its own")
}

/// Reads a sequence: `7000,8000:udp`. Every faulty step is reported.
pub(super) fn sequence(value: &Spanned<&str>, faults: &mut Faults) -> Option<SpannedList<Step>> {
    let mut steps = Some(Vec::new());
    let mut begin = value.span.start;
    for text in value.value.split(',') {
        let inner = text.trim();
        let start = begin + (text.len() - text.trim_start().len());
        begin += text.len() + 1;
        let here = Spanned::new(inner, start..start + inner.len());
        match (parse_legacy_step(inner), &mut steps) {
            (
                Ok(LegacyStep {
                    step,
                    ignored: rest,
                }),
                all,
            ) => {
                if !rest.is_empty() {
                    ignored(&here, rest, faults).quiet_help(
                        "what stands behind a step means nothing and is ignored",
                        "a comment has a line of its own",
                    );
                }
                if let Some(all) = all {
                    all.push(Spanned::new(step, here.span));
                }
            }
            (Err(error), _) => {
                faults
                    .error(&here.span, error.to_string())
                    .help_if(advice(inner))
                    .quiet(error.quiet());
                steps = None;
            }
        }
    }
    steps
}

/// Returns the right spelling of a text that is no step: the text is spelt as in a knockd.toml, or is
/// the name of a service.
fn advice(text: &str) -> Option<String> {
    let (port, protocol) = match text.split_once(['/', ':']) {
        Some((port, protocol)) => (port.trim(), protocol.trim().to_ascii_lowercase()),
        None => (text, String::new()),
    };
    let number = services::port(port).map(|port| port.to_string());
    let meant = match protocol.as_str() {
        "" => number.clone()?,
        protocol => format!("{}:{protocol}", number.as_deref().unwrap_or(port)),
    };
    let sound = parse_legacy_step(&meant).is_ok_and(|step| step.ignored.is_empty());
    (sound && meant != text).then(|| match number {
        Some(_) => format!("use the number: {meant}"),
        None => format!("write {meant}"),
    })
}

/// Reads whole seconds.
pub(super) fn seconds(value: &Spanned<&str>, faults: &mut Faults) -> Option<Duration> {
    let end = value
        .value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.value.len());
    let (digits, rest) = value.value.split_at(end);
    let Ok(seconds) = digits.parse::<u32>() else {
        faults.error(&value.span, "whole seconds must stand here, such as 25");
        return None;
    };
    if !rest.is_empty() {
        ignored(value, rest.trim_start(), faults);
    }
    Some(Duration::from_secs(seconds.into()))
}

/// Reads TCP flags: `syn,!ack`.
pub(super) fn flags(value: &Spanned<&str>, faults: &mut Faults) -> Option<TcpFlags> {
    match value.value.parse() {
        Ok(flags) => Some(flags),
        Err(error) => {
            faults.error(&value.span, error.to_string());
            None
        }
    }
}

/// Reads an address: `192.0.2.1`. (knock 0.8 hands the word to libpcap, which would look up a name
/// once, at start. Then the name server chooses which address is watched.)
pub(super) fn address(value: &Spanned<&str>, faults: &mut Faults) -> Option<IpAddr> {
    let address = value.value.parse().ok();
    if address.is_none() {
        let text = value.value.escape_debug();
        faults
            .error(&value.span, format!("`{text}` is no address"))
            .help("names are not looked up: write the address");
    }
    address
}
