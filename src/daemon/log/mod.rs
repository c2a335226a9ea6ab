//! The log. It goes to a file in knock 0.8's line format, to syslog, to stdout (events, with `-v` or
//! `-D`), and to stderr (warnings and errors), which under systemd is the journal.
//!
//! All lines come through `tracing`; this is its subscriber. A line is one write, so that lines of
//! two writers do not mix. No write waits for a reader.

mod file;
pub(crate) mod limit;
pub(crate) mod log_lines;
pub(crate) mod lookup;
mod spool;
mod streams;
mod syslog;

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use self::file::{LogFault, LogFiles};
use self::streams::{Stream, Streams};
use self::syslog::Syslog;
use crate::daemon::Fault;
use crate::model;
use crate::stderr::{as_error, is_journal};

/// The flags of the command line that concern the log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// `-v`: stdout shows events.
    pub verbose: bool,
    /// `-D`: stdout also shows the reasons for events.
    pub debug: bool,
    /// `-g`: this file takes the place of the configuration's.
    pub file: Option<PathBuf>,
}

#[derive(Debug)]
struct Sinks {
    options: LogOptions,
    /// stderr is the journal: it wants priorities and no time.
    journal: bool,
    /// The lowest level that the file and syslog take, as configured.
    kept: Level,
    /// `None` until a file is named.
    file: Option<LogFiles>,
    streams: Streams,
    syslog: Option<Syslog>,
    /// What waits for the log to begin; `None` once it has begun.
    held: Option<Held>,
}

/// What waits for the log to begin.
#[derive(Debug, Default)]
struct Held {
    /// The lines, in order.
    lines: Vec<(Level, String)>,
    /// The log as it was last configured.
    log: Option<model::Log>,
}

/// How long the daemon waits, at its end, for lines that are not written yet.
const PATIENCE: Duration = Duration::from_secs(3);

/// The handle by which the log is configured. When it is dropped, the log ends.
#[derive(Debug)]
pub(crate) struct Logger {
    sinks: Arc<Mutex<Sinks>>,
}

impl Logger {
    /// Takes lines from now on. They wait until [`begin`](Self::begin): the log needs threads, and there
    /// must be none before the daemon has given up its rights.
    pub(crate) fn start(options: LogOptions) -> Self {
        let sinks = Sinks {
            journal: is_journal(),
            options,
            kept: Level::INFO,
            file: None,
            streams: Streams::direct(),
            syslog: None,
            held: Some(Held::default()),
        };
        let sinks = Arc::new(Mutex::new(sinks));
        let lines = Lines(Arc::clone(&sinks));
        // A second start in one process (tests) keeps the first.
        let _ = tracing::subscriber::set_global_default(lines);
        Self { sinks }
    }

    /// Begins writing, to stdout and stderr alone until `configure`. The guard must stand even if the
    /// log cannot have its thread: then it does without.
    pub(crate) fn begin(&self) {
        let mut sinks = lock(&self.sinks);
        let Some(Held { lines, log }) = sinks.held.take() else {
            return;
        };
        let streams = Streams::start();
        let no_thread = streams.as_ref().err().map(ToString::to_string);
        sinks.streams = streams.unwrap_or_else(|_| Streams::direct());
        let configured = log.map_or(Ok(()), |log| sinks.open(&log));
        for (level, text) in lines {
            sinks.write(level, &text);
        }
        drop(sinks);
        if let Some(error) = no_thread {
            tracing::warn!("cannot start a thread for the log: {error}");
        }
        if let Err(fault) = configured {
            file::tell(&fault);
        }
    }

    /// Writes to stderr the reason why the program ends, as `main` does for subcommands. If nobody reads
    /// stderr, that does not keep the program from ending.
    pub(crate) fn complain(&self, fault: &Fault) {
        self.begin();
        let sinks = lock(&self.sinks);
        let lines = as_error(&format!("knockd: {fault}"), sinks.journal);
        sinks.streams.write(Stream::Err, lines);
    }

    /// Opens the file and the syslog that the configuration names, anew each time: after a rotation the
    /// old file has another name. If the new file cannot be opened, the log reports that and the old one
    /// stays in use.
    pub(crate) fn configure(&self, log: &model::Log) {
        let configured = lock(&self.sinks).configure(log);
        // tracing asks once for each place in the program whether its lines are wanted, and
        // remembers the answer. (Not under the lock, which the answer takes.)
        tracing::callsite::rebuild_interest_cache();
        if let Err(fault) = configured {
            file::tell(&fault);
        }
    }

    /// Waits until all lines are written, but not for ever.
    pub(crate) fn flush(&self) {
        self.begin();
        let end = Instant::now() + PATIENCE;
        // Not under the lock: the thread that writes the file may have a line of its own.
        let streams = lock(&self.sinks).streams.clone();
        streams.flush(end);
        let file = lock(&self.sinks).file.as_ref().and_then(LogFiles::queue);
        if let Some(file) = file {
            file.flush(end);
            streams.flush(end);
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.flush();
    }
}

fn lock(sinks: &Mutex<Sinks>) -> MutexGuard<'_, Sinks> {
    sinks.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sinks {
    fn configure(&mut self, log: &model::Log) -> Result<(), LogFault> {
        self.kept = match log.level {
            model::Level::Error => Level::ERROR,
            model::Level::Warn => Level::WARN,
            model::Level::Info => Level::INFO,
            model::Level::Debug => Level::DEBUG,
            model::Level::Trace => Level::TRACE,
        };
        match &mut self.held {
            Some(held) => {
                held.log = Some(log.clone());
                Ok(())
            }
            None => self.open(log),
        }
    }

    /// Opens what the configuration names.
    fn open(&mut self, log: &model::Log) -> Result<(), LogFault> {
        // The journal takes the lines that are sent to syslog, too: each would be there twice.
        let to_syslog = log.syslog && !self.journal;
        self.syslog = to_syslog.then(|| Syslog::new("/dev/log"));
        let path = self.options.file.as_ref().or(log.file.as_ref()).cloned();
        match (&mut self.file, path) {
            (None, None) => Ok(()),
            (file, path) => file.get_or_insert_with(LogFiles::start).open(path),
        }
    }

    /// Returns the lowest level that stdout shows: `-v` and `-D` count there whatever the file takes.
    fn shown(&self) -> Option<Level> {
        let LogOptions {
            verbose,
            debug,
            file: _,
        } = self.options;
        match (debug, verbose) {
            (true, _) => Some(Level::DEBUG),
            (false, true) => Some(Level::INFO),
            (false, false) => None,
        }
    }

    fn wants(&self, level: Level) -> bool {
        level <= self.kept || self.shown().is_some_and(|shown| level <= shown)
    }

    fn write(&mut self, level: Level, text: &str) {
        if let Some(held) = &mut self.held {
            held.lines.push((level, text.to_owned()));
            return;
        }
        for (i, line) in text.lines().enumerate() {
            self.write_line(level, line, i == 0);
        }
    }

    fn write_line(&mut self, level: Level, text: &str, first: bool) {
        let is_kept = level <= self.kept;
        let file = self.file.as_mut().filter(|_| is_kept);
        if let Some(Err(fault)) = file.map(|file| file.write(text)) {
            // Not by tracing, which would come here once more.
            let line = as_error(&format!("knockd: {fault}"), self.journal);
            self.streams.write(Stream::Err, line);
        }
        if let Some(syslog) = self.syslog.as_mut().filter(|_| is_kept) {
            syslog.send(text);
        }
        if self.journal {
            let priority = match level {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                _ => 7,
            };
            let line = format!("<{priority}>{text}\n");
            self.streams.write(Stream::Err, line);
        } else if level <= Level::WARN {
            // An administrator who pipes the output of -v away must still see why nothing works.
            // Lines after the first (a line of the file, a caret) stand below it as they are.
            let name = if first { "knockd: " } else { "" };
            let line = format!("{name}{text}\n");
            self.streams.write(Stream::Err, line);
        } else if self.shown().is_some_and(|shown| level <= shown) {
            self.streams.write(Stream::Out, format!("{text}\n"));
        }
    }
}

/// Makes lines of events. There are no spans.
struct Lines(Arc<Mutex<Sinks>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span()
            && metadata.target().starts_with("knockd")
            && lock(&self.0).wants(*metadata.level())
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = LineText::default();
        event.record(&mut line);
        lock(&self.0).write(*event.metadata().level(), &line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // No span is enabled, so that all may have one number.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct LineText(String);

impl Visit for LineText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_the_journal_nothing_is_sent_to_syslog_as_well() {
        for journal in [false, true] {
            let mut sinks = Sinks {
                options: LogOptions::default(),
                journal,
                kept: Level::INFO,
                file: None,
                streams: Streams::direct(),
                syslog: None,
                held: None,
            };
            let log = model::Log {
                syslog: true,
                ..model::Log::default()
            };
            sinks.configure(&log).expect("no file");
            assert_eq!(sinks.syslog.is_none(), journal);
        }
    }
}
