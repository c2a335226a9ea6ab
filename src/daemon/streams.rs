//! stdout and stderr. Whoever reads them may stop (a pager, a program that hangs, a terminal
//! held by Ctrl-S, a journal that is busy), and then a write waits, for ever if need be. No
//! packet may wait for that, so a thread of its own writes; what it cannot get rid of is
//! counted, and told when the reader is back.
//!
//! (`O_NONBLOCK` would be everybody's who shares the open file, the shell's for one, and what
//! poll(2) says of a pipe another writer can undo.)

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// As many bytes wait for a reader; more are lost. A line for each opening that a set holds
/// has room: all may be closed at once.
const WAITING: usize = 4 << 20;

/// How long the daemon waits, at its end, for what is not written yet.
const PATIENCE: Duration = Duration::from_secs(3);

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
    queued: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The oldest first; one that is being written stays in its place until it is.
    lines: VecDeque<(Stream, Arc<str>)>,
    bytes: usize,
    /// How many lines found no room.
    lost: u64,
}

impl Streams {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// None can be had (RLIMIT_NPROC, pids.max).
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let its = Arc::clone(&shared);
        thread::Builder::new()
            .name("streams".into())
            .spawn(move || its.serve(write))?;
        Ok(Self::queued(shared))
    }

    /// Without the thread: each line is written at once, and waits for its reader.
    pub(crate) fn direct() -> Self {
        Self { queued: None }
    }

    fn queued(shared: Arc<Shared>) -> Self {
        Self {
            queued: Some(shared),
        }
    }

    /// Has a line written, its end included; or counts it.
    pub(crate) fn write(&self, stream: Stream, line: String) {
        match &self.queued {
            Some(shared) => shared.push(stream, line),
            None => write(stream, &line),
        }
    }

    /// Waits for what is not written yet, but not for ever.
    pub(crate) fn flush(&self) {
        let Some(shared) = &self.queued else { return };
        let unwritten = |queue: &mut Queue| !queue.lines.is_empty();
        let waited = shared
            .written
            .wait_timeout_while(shared.lock(), PATIENCE, unwritten);
        drop(waited);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, stream: Stream, line: String) {
        let mut queue = self.lock();
        if queue.bytes + line.len() > WAITING {
            queue.lost += 1;
        } else {
            queue.bytes += line.len();
            queue.lines.push_back((stream, line.into()));
            self.news.notify_one();
        }
    }

    /// The thread.
    fn serve(&self, mut write: impl FnMut(Stream, &str)) {
        loop {
            let (stream, line) = self.next();
            // Not under the lock: this is what may take for ever.
            write(stream, &line);
            let lost = self.forget_first(line.len());
            if lost > 0 {
                let line = format!("knockd: {lost} lines are lost: nobody read them in time\n");
                write(Stream::Err, &line);
            }
        }
    }

    fn next(&self) -> (Stream, Arc<str>) {
        let mut queue = self.lock();
        loop {
            if let Some((stream, line)) = queue.lines.front() {
                return (*stream, Arc::clone(line));
            }
            queue = self
                .news
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first line is written. How many were lost behind the last of those that wait.
    fn forget_first(&self, length: usize) -> u64 {
        let mut queue = self.lock();
        queue.lines.pop_front();
        queue.bytes -= length;
        if queue.lines.is_empty() {
            self.written.notify_all();
            std::mem::take(&mut queue.lost)
        } else {
            0
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn lines_wait_for_their_reader_and_the_surplus_is_counted() {
        let shared = Arc::<Shared>::default();
        let streams = Streams::queued(Arc::clone(&shared));
        let (reader, written) = mpsc::sync_channel(0);
        let its = Arc::clone(&shared);
        thread::spawn(move || {
            its.serve(|stream, line| reader.send((stream, line.to_owned())).expect("a reader"));
        });
        let line = |i: usize| format!("{i:0>1023}\n");
        let fit = WAITING / 1024;
        for i in 0..fit + 7 {
            streams.write(Stream::Out, line(i));
        }
        for i in 0..fit {
            assert_eq!(written.recv(), Ok((Stream::Out, line(i))));
        }
        let told = "knockd: 7 lines are lost: nobody read them in time\n";
        assert_eq!(written.recv(), Ok((Stream::Err, told.to_owned())));
        // There is room again.
        streams.write(Stream::Err, "more\n".to_owned());
        assert_eq!(written.recv(), Ok((Stream::Err, "more\n".to_owned())));
        streams.flush();
        assert!(shared.lock().lines.is_empty());
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let shared = Arc::<Shared>::default();
        let streams = Streams::queued(Arc::clone(&shared));
        streams.write(Stream::Out, "nobody writes this\n".to_owned());
        streams.flush();
        assert_eq!(shared.lock().lines.len(), 1);
    }
}
