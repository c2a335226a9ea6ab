//! The file of the log, in knock 0.8's line format.
//!
//! Its disk may be frozen (fsfreeze(8), a snapshot) or gone (NFS). Then opening the file, writing to
//! it and reading the time zone all wait: a thread of its own does all three.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::fcntl::OFlag;

use super::spool::{Job, Spool, Work};

/// The way to the file.
#[derive(Debug)]
pub(crate) enum LogFiles {
    /// Through the thread that opens and writes the file.
    Queued(Spool<FileTask>),
    /// There is no thread: whoever logs a line writes it at once, and waits for the disk.
    Direct(Box<LogFileWriter>),
}

/// A file that is not the log's, and why.
pub(crate) type NoLog = (PathBuf, io::Error);

impl LogFiles {
    /// Starts the thread, which ends with the process, if one can be had.
    pub(crate) fn start() -> Self {
        let mut writer = LogFileWriter::default();
        let spool = Spool::start("log", move |work| {
            if let Err(none) = writer.take(work) {
                tell(&none);
            }
        });
        match spool {
            Ok(spool) => Self::Queued(spool),
            Err(_) => Self::Direct(Box::default()),
        }
    }

    /// Has the file of this name opened, in place of the one before. With no name, that is closed.
    ///
    /// # Errors
    /// The file cannot be opened, and there is no thread that would report this. The file before stays
    /// open.
    pub(crate) fn open(&mut self, path: Option<PathBuf>) -> Result<(), NoLog> {
        self.take(path.map_or(FileTask::Close, FileTask::Open))
    }

    /// Has a line written, or counts it as lost.
    pub(crate) fn write(&mut self, text: &str) {
        let (at, text) = (Timestamp::now(), text.to_owned());
        // Only opening fails.
        let _ = self.take(FileTask::Line { at, text });
    }

    fn take(&mut self, task: FileTask) -> Result<(), NoLog> {
        match self {
            Self::Queued(spool) => {
                spool.push(task);
                Ok(())
            }
            Self::Direct(writer) => writer.take(Work::Job(task)),
        }
    }

    /// Returns the queue of lines, if there is a thread.
    pub(crate) fn queue(&self) -> Option<Spool<FileTask>> {
        match self {
            Self::Queued(spool) => Some(spool.clone()),
            Self::Direct(_) => None,
        }
    }
}

/// Writes to the log that a file cannot be opened.
pub(crate) fn tell((path, error): &NoLog) {
    tracing::error!("cannot open the log {}: {error}", path.display());
}

/// A task for the thread.
#[derive(Debug)]
pub(crate) enum FileTask {
    /// Open this one.
    Open(PathBuf),
    /// Write to none.
    Close,
    /// Write this.
    Line {
        /// The time at which the line was logged.
        at: Timestamp,
        /// The text, without the time before it and the line end.
        text: String,
    },
}

impl Job for FileTask {
    fn weight(&self) -> usize {
        match self {
            // A file is closed and opened however many lines wait.
            Self::Open(_) | Self::Close => 0,
            Self::Line { at: _, text } => size_of::<Self>() + text.len(),
        }
    }
}

/// Opens and writes the file as the tasks say.
#[derive(Debug, Default)]
pub(crate) struct LogFileWriter {
    file: Option<LogFile>,
    clock: MinuteClock,
}

impl LogFileWriter {
    fn take(&mut self, work: Work<FileTask>) -> Result<(), NoLog> {
        match work {
            // Where the new file cannot be opened the old one stays in use.
            Work::Job(FileTask::Open(path)) => match LogFile::open(&path) {
                Ok(file) => self.file = Some(file),
                Err(error) => return Err((path, error)),
            },
            Work::Job(FileTask::Close) => self.file = None,
            Work::Job(FileTask::Line { at, text }) => {
                if let Some(file) = &mut self.file {
                    file.write(self.clock.at(at), &text);
                }
            }
            Work::Lost(lost) => {
                if let Some(file) = &mut self.file {
                    file.lost += lost;
                    file.tell_lost(self.clock.at(Timestamp::now()));
                }
            }
        }
        Ok(())
    }
}

/// Local time to the minute, formatted once a minute.
#[derive(Debug, Default)]
struct MinuteClock {
    minute: i64,
    text: String,
}

impl MinuteClock {
    fn at(&mut self, at: Timestamp) -> &str {
        let minute = at.as_second().div_euclid(60);
        if minute != self.minute || self.text.is_empty() {
            self.minute = minute;
            let local = at.to_zoned(TimeZone::system());
            self.text = local.strftime("[%Y-%m-%d %H:%M] ").to_string();
        }
        &self.text
    }
}

/// The open file, and the lines that could not be written to it.
#[derive(Debug)]
struct LogFile {
    file: File,
    /// How many lines could not be written and are not reported yet.
    lost: u64,
}

impl LogFile {
    /// Opens or makes it. It may be a named pipe, or /dev/stdout that is one: nothing waits for its
    /// reader, neither here nor in a write. (`O_NONBLOCK` applies to this open file alone, and means
    /// nothing for a plain file.)
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|p| p.ends_with("knockd")) {
            // /var/log/knockd is ours to make; another folder's absence is a mistake to report.
            let _ = std::fs::create_dir(parent);
        }
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(flags.bits())
            .open(path)?;
        Ok(Self { file, lost: 0 })
    }

    /// Writes a line, `time` before it. A full disk or pipe must not stop the daemon: a line that
    /// cannot be written is counted.
    fn write(&mut self, time: &str, text: &str) {
        let lines = format!("{}{time}{text}\n", self.lost_line(time));
        match self.file.write_all(lines.as_bytes()) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }

    /// Writes how many lines are lost, if that can be written now.
    fn tell_lost(&mut self, time: &str) {
        if self.file.write_all(self.lost_line(time).as_bytes()).is_ok() {
            self.lost = 0;
        }
    }

    fn lost_line(&self, time: &str) -> String {
        match self.lost {
            0 => String::new(),
            lost => format!("{time}{lost} lines are lost: they could not be written\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_named_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let none = LogFile::open(&path).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENXIO));

        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        let mut file = LogFile::open(&path).unwrap();
        let mut tried = 0;
        while file.lost < 2 {
            file.write("[now] ", &"x".repeat(4000));
            tried += 1;
        }
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        assert_eq!(text.lines().count(), tried - 2);
        file.write("[then] ", "at last");
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        assert_eq!(
            text,
            "[then] 2 lines are lost: they could not be written\n[then] at last\n"
        );
    }

    #[test]
    fn what_found_no_room_in_the_queue_is_told_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogFileWriter::default();
        writer
            .take(Work::Job(FileTask::Open(path.clone())))
            .unwrap();
        let (at, text) = (Timestamp::now(), "one".to_owned());
        writer.take(Work::Job(FileTask::Line { at, text })).unwrap();
        writer.take(Work::Lost(3)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| &line[19..]).collect();
        assert_eq!(
            lines,
            ["one", "3 lines are lost: they could not be written"]
        );
        // A file that cannot be opened: the one before stays in use.
        let none = dir.path().join("no folder/log");
        let (named, _) = writer
            .take(Work::Job(FileTask::Open(none.clone())))
            .unwrap_err();
        assert_eq!(named, none);
        writer.take(Work::Lost(1)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
