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

/// Why lines do not reach the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogFault {
    /// The file cannot be opened. The file before stays open.
    #[error("cannot open the log {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// A line cannot be written. This is reported once, until a line can be written again.
    #[error("cannot write the log {}: {source}: lines are lost until it can", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl LogFiles {
    /// Starts the thread, which ends with the process, if one can be had.
    pub(crate) fn start() -> Self {
        let mut writer = LogFileWriter::default();
        let spool = Spool::start("log", move |work| {
            if let Err(fault) = writer.take(work) {
                tell(&fault);
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
    pub(crate) fn open(&mut self, path: Option<PathBuf>) -> Result<(), LogFault> {
        self.take(path.map_or(FileTask::Close, FileTask::Open))
    }

    /// Has a line written, or counts it as lost.
    ///
    /// # Errors
    /// The line cannot be written, and there is no thread that would report this.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), LogFault> {
        let (at, text) = (Timestamp::now(), text.to_owned());
        self.take(FileTask::Line { at, text })
    }

    fn take(&mut self, task: FileTask) -> Result<(), LogFault> {
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

/// Writes to the log that its file cannot be opened or written: others than the file have the line.
pub(crate) fn tell(fault: &LogFault) {
    tracing::error!("{fault}");
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
    fn take(&mut self, work: Work<FileTask>) -> Result<(), LogFault> {
        match work {
            // Where the new file cannot be opened the old one stays in use.
            Work::Job(FileTask::Open(path)) => self.file = Some(LogFile::open(&path)?),
            Work::Job(FileTask::Close) => self.file = None,
            Work::Job(FileTask::Line { at, text }) => {
                if let Some(file) = &mut self.file {
                    file.write(self.clock.at(at), &text)?;
                }
            }
            Work::Lost(lost) => {
                if let Some(file) = &mut self.file {
                    file.lost += lost;
                    file.tell_lost(self.clock.at(Timestamp::now()))?;
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
    path: PathBuf,
    file: File,
    /// How many lines could not be written and are not reported yet.
    lost: u64,
    /// The last line ends in its midst: the disk was full.
    is_torn: bool,
    /// A line could not be written, and that was reported.
    is_faulty: bool,
}

impl LogFile {
    /// Opens or makes it. It may be a named pipe, or /dev/stdout that is one: nothing waits for its
    /// reader, neither here nor in a write. (`O_NONBLOCK` applies to this open file alone, and means
    /// nothing for a plain file.)
    fn open(path: &Path) -> Result<Self, LogFault> {
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
            .open(path);
        let path = path.to_owned();
        match file {
            Ok(file) => Ok(Self {
                path,
                file,
                lost: 0,
                is_torn: false,
                is_faulty: false,
            }),
            Err(source) => Err(LogFault::Open { path, source }),
        }
    }

    /// Writes a line, `time` before it. A full disk or pipe must not stop the daemon: a line that
    /// cannot be written is counted.
    ///
    /// # Errors
    /// The first line that cannot be written since one could.
    fn write(&mut self, time: &str, text: &str) -> Result<(), LogFault> {
        let told = self.put_lost(time);
        let written = told.and_then(|()| self.put(&format!("{time}{text}\n")));
        self.lost += u64::from(written.is_err());
        self.judge(written)
    }

    /// Writes how many lines are lost, if that can be written now.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn tell_lost(&mut self, time: &str) -> Result<(), LogFault> {
        let told = self.put_lost(time);
        self.judge(told)
    }

    fn put_lost(&mut self, time: &str) -> io::Result<()> {
        if self.lost > 0 {
            let lost = self.lost;
            self.put(&format!(
                "{time}{lost} lines are lost: they could not be written\n"
            ))?;
            self.lost = 0;
        }
        Ok(())
    }

    /// Returns the error, unless it has been reported.
    fn judge(&mut self, written: io::Result<()>) -> Result<(), LogFault> {
        let was_faulty = std::mem::replace(&mut self.is_faulty, written.is_err());
        match written {
            // A pipe whose reader stands still is told of when he reads.
            Err(source) if !was_faulty && source.kind() != io::ErrorKind::WouldBlock => {
                let path = self.path.clone();
                Err(LogFault::Write { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a whole line, its end included; after half a line, on a line of its own.
    fn put(&mut self, line: &str) -> io::Result<()> {
        let start = if self.is_torn { "\n" } else { "" };
        let line = format!("{start}{line}");
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let (written, left) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                    self.is_torn = written.last() != Some(&b'\n');
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        match LogFile::open(&path) {
            Err(LogFault::Open { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::ENXIO));
            }
            other => panic!("{other:?}"),
        }

        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        let mut file = LogFile::open(&path).unwrap();
        let mut tried = 0;
        while file.lost < 2 {
            file.write("[now] ", &"x".repeat(4000)).unwrap();
            tried += 1;
        }
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        assert_eq!(text.lines().count(), tried - 2);
        file.write("[then] ", "at last").unwrap();
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
        match writer.take(Work::Job(FileTask::Open(none.clone()))) {
            Err(LogFault::Open { path, .. }) => assert_eq!(path, none),
            other => panic!("{other:?}"),
        }
        writer.take(Work::Lost(1)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
