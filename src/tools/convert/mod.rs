//! `knockd convert`: TOML that makes the same decisions as a knockd.conf.
//!
//! The old file is followed line by line, so that comments stay beside what they explain.
//! What the two formats take differently when nothing is said (`seq_timeout`, `tcp_flags`,
//! the interface) is written out.

mod advice;
mod door;
mod names;
mod native;
mod write;

use self::native::{Act, Native};
use crate::config::{self, ConfFile, ConfLine, ConfSection, ConfigText, Diagnostic, Spanned};
use crate::model::{Config, Door};

/// A knockd.conf as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The text.
    pub toml: String,
    /// What its owner should know, in the order of the file.
    pub notes: Vec<ConversionNote>,
}

/// Something that could not be carried over as it was, or that is left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversionNote {
    /// The line of the knockd.conf, from 1; 0 if none is meant.
    pub line: usize,
    /// What.
    pub message: String,
}

/// Turns a knockd.conf into TOML. With `native`, commands that plainly let `%IP%` in at a
/// port or keep it out become `open`, `close`, `add` and `remove`; without, the outcome
/// means the same as the old file.
///
/// # Errors
///
/// What is wrong with the file, if it cannot be used.
pub fn convert(
    name: &str,
    text: impl AsRef<[u8]>,
    native: bool,
) -> Result<Conversion, Vec<Diagnostic>> {
    let source = ConfigText::from_bytes(name, text.as_ref());
    let (file, config) = config::read_legacy(&source)?;
    let mut out = Converter {
        source: &source,
        toml: String::new(),
        notes: Vec::new(),
    };
    out.file(&file, &config, native);
    out.notes.sort_by_key(|note| (note.line == 0, note.line));
    Ok(Conversion {
        toml: out.toml,
        notes: out.notes,
    })
}

/// The text as far as it has come.
struct Converter<'a> {
    source: &'a ConfigText,
    toml: String,
    notes: Vec<ConversionNote>,
}

impl Converter<'_> {
    fn line(&mut self, text: &str) {
        self.toml.push_str(text);
        self.toml.push('\n');
    }

    fn set(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }

    /// An empty line, but never two, nor one at the beginning.
    fn gap(&mut self) {
        if !self.toml.is_empty() && !self.toml.ends_with("\n\n") {
            self.toml.push('\n');
        }
    }

    /// Something the owner should know, said in the text as well.
    fn note(&mut self, place: Option<usize>, message: String) {
        self.line(&format!("# {}", write::comment(&message)));
        self.silent_note(place, message);
    }

    fn silent_note(&mut self, place: Option<usize>, message: String) {
        let line = place.map_or(0, |offset| self.source.place(offset).line);
        self.notes.push(ConversionNote { line, message });
    }

    fn remark(&mut self, line: &ConfLine<'_>) {
        match line {
            ConfLine::Blank => self.gap(),
            ConfLine::Comment(text) => self.line(&write::comment(text)),
            ConfLine::Directive { .. } => {}
        }
    }

    /// The remarks behind a section's last key: they speak of what comes next.
    fn tail(&mut self, section: &ConfSection<'_>) {
        let (_, tail) = section.split();
        if !tail.is_empty() {
            self.gap();
        }
        for line in tail {
            self.remark(line);
        }
    }

    fn file(&mut self, file: &ConfFile<'_>, config: &Config, native: bool) {
        for line in &file.preamble {
            self.remark(line);
        }
        let (options, doors): (Vec<_>, Vec<_>) = file.sections.iter().partition(|s| s.is_options());
        self.options(&options, config);
        let turned = if native {
            native::turn(&config.doors)
        } else {
            config.doors.iter().map(|_| None).collect()
        };
        let done: Vec<&Native> = turned.iter().flatten().flatten().collect();
        let opens = done.iter().any(|n| matches!(n.act, Act::Open(..)));
        if opens {
            self.firewall(&done);
        }
        // Remarks after the options most often introduce the first door.
        for section in &options {
            self.tail(section);
        }
        let old: Vec<&str> = config.doors.iter().map(|door| &*door.name).collect();
        let names = names::words(&old);
        let all = doors.iter().zip(&names).zip(&*config.doors).zip(&turned);
        for (((section, name), door), turned) in all {
            self.door(section, name, door, turned.as_ref());
            self.tail(section);
        }
        let kept = turned.iter().flatten().any(Result::is_err);
        advice::advise(self, &done, kept);
    }

    /// `[options]`, be it one section or several: TOML has these keys at the top.
    fn options(&mut self, sections: &[&ConfSection<'_>], config: &Config) {
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
                    self.remark(line);
                    continue;
                };
                let here = Some(key.span.start);
                if here == interface {
                    self.set("interfaces", &write::list(&config.interfaces));
                } else if here == log {
                    self.log(config);
                } else if here == pid_file {
                    self.pid_file(key, config);
                }
            }
        }
        if interface.is_none() {
            self.line("# The interface knock 0.8 takes if none is named; see also knockd -i.");
            self.set("interfaces", &write::list(&config.interfaces));
        }
    }

    fn log(&mut self, config: &Config) {
        let file = config.log.file.as_ref();
        let file = file.map(|f| format!("file = {}", write::string(&f.to_string_lossy())));
        let syslog = config.log.syslog.then(|| "syslog = true".to_owned());
        let both: Vec<_> = file.into_iter().chain(syslog).collect();
        self.set("log", &format!("{{ {} }}", both.join(", ")));
    }

    fn pid_file(&mut self, key: &Spanned<&str>, config: &Config) {
        if let Some(file) = &config.pid_file {
            let message = format!(
                "PidFile is no key of TOML: start knockd with -p {}",
                file.display()
            );
            self.note(Some(key.span.start), message);
        }
    }

    fn firewall(&mut self, done: &[&Native]) {
        self.gap();
        self.line("[firewall]");
        self.line("# Ports that doors open are shut to everybody else from now on.");
        self.set("guard", &write::string("drop"));
        if advice::needs_mark(done) {
            self.line("# What your own firewall must accept: see the end of this file.");
            self.set("mark", advice::MARK);
        }
        self.gap();
    }

    fn door(
        &mut self,
        section: &ConfSection<'_>,
        name: &str,
        door: &Door,
        turned: Option<&Result<Native, String>>,
    ) {
        // A remark right above the header stays right above it.
        let last = self.toml.trim_end_matches('\n').rsplit('\n').next();
        let apart = self.toml.ends_with("\n\n");
        if apart || !last.is_some_and(|line| line.starts_with('#')) {
            self.gap();
        }
        let place = Some(section.name.span.start);
        if name != section.name.value {
            let message = format!(
                "door `{}` is called `{name}` here",
                section.name.value.escape_debug()
            );
            self.note(place, message);
        }
        self.line(&format!("[door.{}]", write::key(name)));
        let native = match turned {
            Some(Ok(native)) => Some(native),
            Some(Err(why)) => {
                self.note(place, format!("door `{name}` keeps its commands: {why}"));
                None
            }
            None => None,
        };
        door::keys(self, section, door, native);
    }
}
