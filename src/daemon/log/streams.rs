//! stdout and stderr. Whoever reads them may stop (a pager, a program that hangs, a terminal
//! held by Ctrl-S, a journal that is busy), and then a write waits, for ever if need be. No
//! packet may wait for that, so a thread of its own writes.
//!
//! (`O_NONBLOCK` would be everybody's who shares the open file, the shell's for one, and what
//! poll(2) says of a pipe another writer can undo.)

use std::io::{self, Write as _};
use std::time::Instant;

use super::spool::{Job, Spool, Work};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// stdout.
    Out,
    /// stderr.
    Err,
}

/// Both, in one queue: their lines keep their order.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// `None`: there is no thread, and whoever has a line writes it.
    queued: Option<Spool<Line>>,
}

/// A line, its end included, and where it goes.
#[derive(Debug, PartialEq, Eq)]
struct Line(Stream, String);

impl Job for Line {
    fn weight(&self) -> usize {
        self.1.len()
    }
}

impl Streams {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// None can be had (RLIMIT_NPROC, pids.max).
    pub(crate) fn start() -> io::Result<Self> {
        let spool = Spool::start("streams", |work| match work {
            Work::Job(Line(stream, line)) => write(stream, &line),
            Work::Lost(lost) => {
                let line = format!("knockd: {lost} lines are lost: nobody read them in time\n");
                write(Stream::Err, &line);
            }
        })?;
        Ok(Self {
            queued: Some(spool),
        })
    }

    /// Without the thread: each line is written at once, and waits for its reader.
    pub(crate) fn direct() -> Self {
        Self { queued: None }
    }

    /// Has a line written, its end included; or counts it.
    pub(crate) fn write(&self, stream: Stream, line: String) {
        match &self.queued {
            Some(spool) => spool.push(Line(stream, line)),
            None => write(stream, &line),
        }
    }

    /// Waits for what is not written yet, but not beyond `end`.
    pub(crate) fn flush(&self, end: Instant) {
        if let Some(spool) = &self.queued {
            spool.flush(end);
        }
    }
}

/// What cannot be written, since nobody is there any more, is no news to anybody.
fn write(stream: Stream, line: &str) {
    let _ = match stream {
        Stream::Out => io::stdout().write_all(line.as_bytes()),
        Stream::Err => io::stderr().write_all(line.as_bytes()),
    };
}
