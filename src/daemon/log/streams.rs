//! stdout and stderr. Their reader may stop reading (a pager, a program that hangs, a terminal held
//! by Ctrl-S, a busy journal), and then a write waits, perhaps for ever. No packet may wait for that,
//! so a thread of its own writes.
//!
//! (`O_NONBLOCK` would apply to every process that shares the open file, such as the shell, and
//! another writer can undo what poll(2) says of a pipe.)

use std::io::{self, Write as _};
use std::time::Instant;

use super::spool::{Job, Spool, Work};

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// stdout.
    Out,
    /// stderr.
    Err,
}

/// Both streams, in one queue: their lines keep their order.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// The queue before the thread; `None`: there is no thread, and whoever logs a line writes it at
    /// once.
    queued: Option<Spool<StreamLine>>,
}

/// A line, its end included, and where it goes.
#[derive(Debug, PartialEq, Eq)]
struct StreamLine(Stream, String);

impl Job for StreamLine {
    fn weight(&self) -> usize {
        self.1.len()
    }
}

impl Streams {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// No thread can be had (RLIMIT_NPROC, pids.max).
    pub(crate) fn start() -> io::Result<Self> {
        let spool = Spool::start("streams", |work| match work {
            Work::Job(StreamLine(stream, line)) => write(stream, &line),
            Work::Lost(lost) => {
                let line = format!("knockd: {lost} lines are lost: nobody read them in time\n");
                write(Stream::Err, &line);
            }
        })?;
        Ok(Self {
            queued: Some(spool),
        })
    }

    /// Works without the thread: each line is written at once, and waits for its reader.
    pub(crate) fn direct() -> Self {
        Self { queued: None }
    }

    /// Has a line written, its end included; or counts it as lost.
    pub(crate) fn write(&self, stream: Stream, line: String) {
        match &self.queued {
            Some(spool) => spool.push(StreamLine(stream, line)),
            None => write(stream, &line),
        }
    }

    /// Waits until the lines in the queue are written, but not beyond `end`.
    pub(crate) fn flush(&self, end: Instant) {
        if let Some(spool) = &self.queued {
            spool.flush(end);
        }
    }
}

/// Writes a line. If that fails there is no reader, and nobody to report it to.
fn write(stream: Stream, line: &str) {
    let _ = match stream {
        Stream::Out => io::stdout().write_all(line.as_bytes()),
        Stream::Err => io::stderr().write_all(line.as_bytes()),
    };
}
