//! `knockd convert`: TOML that makes the same decisions as a knockd.conf.
//!
//! The old file is followed line by line, so that comments stay beside the lines that they explain.
//! Settings whose defaults differ in the two formats (`seq_timeout`, `tcp_flags`, the interface) are
//! written out.

mod advice;
mod door_keys;
mod names;
mod native;
mod output;
mod write;

pub use self::output::ConversionNote;

use self::native::{Act, Native};
use self::output::TomlOutput;
use crate::config::{self, ConfFile, ConfLine, ConfSection, ConfigText, Diagnostic, Spanned};
use crate::model::{Config, Door};

/// A knockd.conf as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The text of a knockd.toml.
    pub toml: String,
    /// Notes for its owner, in the order of the file.
    pub notes: Vec<ConversionNote>,
}

/// Turns a knockd.conf into TOML. With `native`, commands that plainly let `%IP%` in at a
/// port or keep it out become `open`, `close`, `add` and `remove`; without, the outcome
/// means the same as the old file.
///
/// # Errors
///
/// The faults of the file, if it cannot be used.
pub fn convert(
    name: &str,
    text: impl AsRef<[u8]>,
    native: bool,
) -> Result<Conversion, Vec<Diagnostic>> {
    let source = ConfigText::from_bytes(name, text.as_ref());
    let (file, config) = config::read_legacy(&source)?;
    let mut out = TomlOutput::new(&source);
    write_file(&mut out, &file, &config, native);
    out.notes.sort_by_key(|note| (note.line == 0, note.line));
    Ok(Conversion {
        toml: out.toml,
        notes: out.notes,
    })
}

fn write_file(out: &mut TomlOutput<'_>, file: &ConfFile<'_>, config: &Config, native: bool) {
    for line in &file.preamble {
        out.remark(line);
    }
    let (options, doors): (Vec<_>, Vec<_>) = file.sections.iter().partition(|s| s.is_options());
    write_options(out, &options, config);
    let turned = if native {
        native::turn(&config.doors)
    } else {
        config.doors.iter().map(|_| None).collect()
    };
    let done: Vec<&Native> = turned.iter().flatten().flatten().collect();
    let opens = done.iter().any(|n| matches!(n.act, Act::Open(..)));
    if opens {
        write_firewall(out, &done);
    }
    // Remarks after the options most often introduce the first door.
    for section in &options {
        out.tail(section);
    }
    let old: Vec<&str> = config.doors.iter().map(|door| &*door.name).collect();
    let names = names::words(&old);
    let all = doors.iter().zip(&names).zip(&*config.doors).zip(&turned);
    for (((section, name), door), turned) in all {
        write_door(out, section, name, door, turned.as_ref());
        out.tail(section);
    }
    let kept = turned.iter().flatten().any(Result::is_err);
    advice::advise(out, &done, kept);
}

/// `[options]`, be it one section or several: TOML has these keys at the top.
fn write_options(out: &mut TomlOutput<'_>, sections: &[&ConfSection<'_>], config: &Config) {
    let last = |wanted: &str| {
        let all = sections.iter().flat_map(|s| s.directives());
        all.filter(|(key, _)| key.value.eq_ignore_ascii_case(wanted))
            .map(|(key, _)| key.span.start)
            .last()
    };
    let interface = last("interface");
    // One `log` for two keys: it stands where the first of them stood.
    let log = [last("logfile"), last("usesyslog")]
        .into_iter()
        .flatten()
        .min();
    let pid_file = last("pidfile");
    for section in sections {
        let (body, _) = section.split();
        for line in body {
            let ConfLine::Directive { key, .. } = line else {
                out.remark(line);
                continue;
            };
            let here = Some(key.span.start);
            if here == interface {
                out.set("interfaces", &write::list(&config.interfaces));
            } else if here == log {
                write_log(out, config);
            } else if here == pid_file {
                write_pid_file(out, key, config);
            }
        }
    }
    if interface.is_none() {
        out.line("# The interface knock 0.8 takes if none is named; see also knockd -i.");
        out.set("interfaces", &write::list(&config.interfaces));
    }
}

fn write_log(out: &mut TomlOutput<'_>, config: &Config) {
    let file = config.log.file.as_ref();
    let file = file.map(|f| format!("file = {}", write::string(&f.to_string_lossy())));
    let syslog = config.log.syslog.then(|| "syslog = true".to_owned());
    let both: Vec<_> = file.into_iter().chain(syslog).collect();
    out.set("log", &format!("{{ {} }}", both.join(", ")));
}

fn write_pid_file(out: &mut TomlOutput<'_>, key: &Spanned<&str>, config: &Config) {
    if let Some(file) = &config.pid_file {
        let message = format!(
            "PidFile is no key of TOML: start knockd with -p {}",
            file.display()
        );
        out.note(Some(key.span.start), message);
    }
}

fn write_firewall(out: &mut TomlOutput<'_>, done: &[&Native]) {
    out.gap();
    out.line("[firewall]");
    out.line("# Ports that doors open are shut to everybody else from now on.");
    out.set("guard", &write::string("drop"));
    if advice::needs_mark(done) {
        out.line("# What your own firewall must accept: see the end of this file.");
        out.set("mark", advice::MARK);
    }
    out.gap();
}

fn write_door(
    out: &mut TomlOutput<'_>,
    section: &ConfSection<'_>,
    name: &str,
    door: &Door,
    turned: Option<&Result<Native, String>>,
) {
    // A remark right above the header stays right above it.
    let last = out.toml.trim_end_matches('\n').rsplit('\n').next();
    let apart = out.toml.ends_with("\n\n");
    if apart || !last.is_some_and(|line| line.starts_with('#')) {
        out.gap();
    }
    let place = Some(section.name.span.start);
    if name != section.name.value {
        let message = format!(
            "door `{}` is called `{name}` here",
            section.name.value.escape_debug()
        );
        out.note(place, message);
    }
    out.line(&format!("[door.{}]", write::key(name)));
    let native = match turned {
        Some(Ok(native)) => Some(native),
        Some(Err(why)) => {
            out.note(place, format!("door `{name}` keeps its commands: {why}"));
            None
        }
        None => None,
    };
    door_keys::write(out, section, door, native);
}
