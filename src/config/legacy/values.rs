//! The values of a knockd.conf.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::diagnostic::{Faults, ReportedFault};
use crate::config::draft::SpannedList;
use crate::config::services;
use crate::config::text::Spanned;
use crate::model::{LegacyStep, Step, TcpFlags, parse_legacy_step};

const COMMENT: &str = "a comment has a line of its own";

/// Warns of the rest of a value. `meant` is the value as it would be right, for a rest that is no comment.
fn ignored<'f>(
    value: &Spanned<&str>,
    what: &str,
    meant: &str,
    faults: &'f mut Faults,
) -> ReportedFault<'f> {
    let help = match what.starts_with('#') {
        true => COMMENT.to_owned(),
        false => format!("write {meant}"),
    };
    let what = what.escape_debug();
    faults
        .warn(
            &value.span,
            format!("`{what}` means nothing here and is ignored, as by knock 0.8"),
        )
        .help(help)
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
                    let rest = rest.trim_start();
                    let quiet = match rest.starts_with('#') {
                        true => COMMENT,
                        false => "leave it out",
                    };
                    ignored(&here, rest, &instead(inner, step), faults).quiet_help(
                        "what stands behind a step means nothing and is ignored",
                        quiet,
                    );
                }
                if let Some(all) = all {
                    all.push(Spanned::new(step, here.span));
                }
            }
            (Err(error), _) => {
                faults
                    .error(&here.span, error.to_string())
                    .help_if(comment(inner).or_else(|| advice(inner)))
                    .quiet(error.quiet());
                steps = None;
            }
        }
    }
    steps
}

/// Returns the advice on a text that is a step but for a comment.
fn comment(text: &str) -> Option<String> {
    let (step, _) = text.split_once('#')?;
    parse_legacy_step(step.trim()).ok()?;
    Some(COMMENT.to_owned())
}

/// Returns what may stand instead of a step with a rest. The protocol is what was meant; without it the
/// step stays as it is.
fn instead(text: &str, step: Step) -> String {
    let as_now = step.port.to_string();
    match meant(text) {
        Some((meant, _)) if meant.ends_with(":udp") => format!("{meant} or {as_now}"),
        Some((meant, _)) => meant,
        None => as_now,
    }
}

/// Returns the advice on a text that is no step.
fn advice(text: &str) -> Option<String> {
    meant(text).map(|(meant, is_named)| match is_named {
        true => format!("use the number: {meant}"),
        false => format!("write {meant}"),
    })
}

/// Returns the right spelling of a text that is no step, and whether it names a service: the text is spelt
/// as in a knockd.toml, or has a name for the port.
fn meant(text: &str) -> Option<(String, bool)> {
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
    (sound && meant != text).then_some((meant, number.is_some()))
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
        ignored(value, rest.trim_start(), digits, faults);
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
