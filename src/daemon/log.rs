//! Where the log goes: a file in knock 0.8's line format, syslog, stdout (what happens, with
//! `-v` or `-D`), and stderr (what is wrong), which under systemd is the journal.
//!
//! Everything is said through `tracing`; this is its subscriber. A line is one write, so
//! that lines of two writers do not mix.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::syslog::Syslog;
use crate::model;

/// What the command line says of the log.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-v`: what happens goes to stdout.
    pub verbose: bool,
    /// `-D`: and why.
    pub debug: bool,
    /// `-g`: beats the configuration's file.
    pub file: Option<PathBuf>,
}

#[derive(Debug)]
struct Sinks {
    options: Options,
    /// stderr is the journal: it wants priorities and no time.
    journal: bool,
    level: Level,
    path: Option<PathBuf>,
    file: Option<File>,
    syslog: Option<Syslog>,
    clock: Clock,
}

/// The handle by which the log is told of a configuration.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Sinks>>);

impl Log {
    /// Begins logging; to stdout and stderr alone, until `configure`.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let level = if options.debug {
            Level::DEBUG
        } else {
            Level::INFO
        };
        let sinks = Sinks {
            journal: is_journal(),
            options,
            level,
            path: None,
            file: None,
            syslog: None,
            clock: Clock::default(),
        };
        let log = Self(Arc::new(Mutex::new(sinks)));
        let subscriber = tracing_subscriber::registry().with(Lines(log.clone()));
        // A second start in one process (tests) keeps the first.
        let _ = tracing::subscriber::set_global_default(subscriber);
        log
    }

    /// Opens what the configuration names, anew each time: after a rotation the old file
    /// has another name. Where the new file cannot be opened the old one stays in use.
    ///
    /// # Errors
    /// The file that could not be opened, and why.
    pub fn configure(&self, log: &model::Log) -> Result<(), (PathBuf, io::Error)> {
        let mut sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let level = match log.level {
            model::Level::Error => Level::ERROR,
            model::Level::Warn => Level::WARN,
            model::Level::Info => Level::INFO,
            model::Level::Debug => Level::DEBUG,
            model::Level::Trace => Level::TRACE,
        };
        sinks.level = if sinks.options.debug {
            level.max(Level::DEBUG)
        } else {
            level
        };
        sinks.syslog = log.syslog.then(|| Syslog::new("/dev/log"));
        let path = sinks.options.file.clone().or_else(|| log.file.clone());
        let Some(path) = path else {
            (sinks.path, sinks.file) = (None, None);
            return Ok(());
        };
        match open_log(&path) {
            Ok(file) => {
                (sinks.path, sinks.file) = (Some(path), Some(file));
                Ok(())
            }
            Err(error) => Err((path, error)),
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent().filter(|p| p.ends_with("knockd")) {
        // /var/log/knockd is ours to make; another folder's absence is a mistake to report.
        let _ = std::fs::create_dir(parent);
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// sd-daemon(3): `JOURNAL_STREAM` names device and inode of the journal's stream.
fn is_journal() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let stated = std::env::var("JOURNAL_STREAM").ok();
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    match (stated, stderr) {
        (Some(stated), Some(meta)) => stated == format!("{}:{}", meta.dev(), meta.ino()),
        _ => false,
    }
}

/// Local time to the minute, formatted once a minute.
#[derive(Debug, Default)]
struct Clock {
    minute: i64,
    text: String,
}

impl Clock {
    fn now(&mut self) -> &str {
        let now = jiff::Timestamp::now();
        let minute = now.as_second().div_euclid(60);
        if minute != self.minute || self.text.is_empty() {
            self.minute = minute;
            let local = now.to_zoned(jiff::tz::TimeZone::system());
            self.text = local.strftime("[%Y-%m-%d %H:%M] ").to_string();
        }
        &self.text
    }
}

impl Sinks {
    fn write(&mut self, level: Level, text: &str) {
        for (i, line) in text.lines().enumerate() {
            self.write_line(level, line, i == 0);
        }
    }

    fn write_line(&mut self, level: Level, text: &str, first: bool) {
        if let Some(file) = &mut self.file {
            let line = format!("{}{text}\n", self.clock.now());
            // Nobody is left to tell: a full disk must not stop the daemon.
            let _ = file.write_all(line.as_bytes());
        }
        if let Some(syslog) = &mut self.syslog {
            syslog.send(text);
        }
        let told = (level <= Level::INFO && self.options.verbose) || self.options.debug;
        if self.journal {
            let priority = match level {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                _ => 7,
            };
            let _ = io::stderr().write_all(format!("<{priority}>{text}\n").as_bytes());
        } else if level <= Level::WARN {
            // Whoever pipes the output of -v away must still see why nothing works. What
            // follows a first line (a line of the file, a caret) stands below it as it is.
            let name = if first { "knockd: " } else { "" };
            let _ = io::stderr().write_all(format!("{name}{text}\n").as_bytes());
        } else if told {
            let _ = io::stdout().write_all(format!("{text}\n").as_bytes());
        }
    }
}

struct Lines(Log);

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let sinks = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *metadata.level() <= sinks.level && metadata.target().starts_with("knockd")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut sinks = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.write(*event.metadata().level(), &line.0);
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}
