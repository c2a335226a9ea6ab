//! What waits for somebody who may never take it: lines for a pager that is not paged on, for a
//! disk that does not answer. No packet may wait for that, so a thread of its own does; what
//! finds no room is counted, and told when there is room again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// As many bytes wait; more are lost. A line for each opening that a set holds has room: all
/// may be closed at once.
pub(crate) const WAITING: usize = 4 << 20;

/// Something that waits.
pub(crate) trait Job: Send + 'static {
    /// How many bytes it takes up; of what takes none, nothing is ever lost.
    fn weight(&self) -> usize;
}

/// What the thread is given.
#[derive(Debug)]
pub(crate) enum Work<T> {
    /// To be done.
    Job(T),
    /// So many found no room behind the last of those that waited.
    Lost(u64),
}

/// The queue before a thread that ends with the process.
#[derive(Debug)]
pub(crate) struct Spool<T>(Arc<Shared<T>>);

impl<T> Clone for Spool<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    news: Condvar,
    done: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    /// The oldest first.
    jobs: VecDeque<T>,
    /// Of those and of the one that is at work.
    bytes: usize,
    busy: bool,
    lost: u64,
}

impl<T: Job> Spool<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// None can be had (RLIMIT_NPROC, pids.max).
    pub(crate) fn start(
        name: &str,
        mut work: impl FnMut(Work<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let spool = Self::new();
        let its = spool.clone();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || its.serve(&mut work))?;
        Ok(spool)
    }

    fn new() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                bytes: 0,
                busy: false,
                lost: 0,
            }),
            news: Condvar::new(),
            done: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it done, or counts it.
    pub(crate) fn push(&self, job: T) {
        let mut queue = self.lock();
        let weight = job.weight();
        if weight > 0 && queue.bytes + weight > WAITING {
            queue.lost += 1;
        } else {
            queue.bytes += weight;
            queue.jobs.push_back(job);
            self.0.news.notify_one();
        }
    }

    /// Waits for what is not done yet, but not beyond `end`.
    pub(crate) fn flush(&self, end: Instant) {
        let undone = |queue: &mut Queue<T>| queue.busy || !queue.jobs.is_empty();
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.0.done.wait_timeout_while(self.lock(), left, undone);
        drop(waited);
    }

    /// The thread.
    fn serve(&self, work: &mut impl FnMut(Work<T>)) {
        loop {
            let job = self.next();
            let weight = job.weight();
            // Not under the lock: this is what may take for ever.
            work(Work::Job(job));
            let lost = self.done(weight);
            if lost > 0 {
                work(Work::Lost(lost));
            }
        }
    }

    fn next(&self) -> T {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.busy = true;
                return job;
            }
            let waited = self.0.news.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One is done. How many were lost behind the last of those that waited.
    fn done(&self, weight: usize) -> u64 {
        let mut queue = self.lock();
        queue.bytes -= weight;
        queue.busy = false;
        if queue.jobs.is_empty() {
            self.0.done.notify_all();
            std::mem::take(&mut queue.lost)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    impl Job for String {
        fn weight(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn jobs_wait_for_whoever_does_them_and_the_surplus_is_counted() {
        let (worker, done) = mpsc::sync_channel(0);
        let told = move |work| {
            let line = match work {
                Work::Job(line) => line,
                Work::Lost(lost) => format!("{lost} lost"),
            };
            worker.send(line).expect("somebody waits");
        };
        let spool = Spool::start("test", told).expect("a thread");
        let line = |i: usize| format!("{i:0>1024}");
        let fit = WAITING / 1024;
        for i in 0..fit + 7 {
            spool.push(line(i));
        }
        // What has no weight always finds room.
        spool.push(String::new());
        for i in 0..fit {
            assert_eq!(done.recv(), Ok(line(i)));
        }
        assert_eq!(done.recv(), Ok(String::new()));
        assert_eq!(done.recv().as_deref(), Ok("7 lost"));
        // There is room again.
        spool.push("more".to_owned());
        assert_eq!(done.recv().as_deref(), Ok("more"));
        spool.flush(Instant::now() + Duration::from_secs(60));
        assert!(spool.lock().jobs.is_empty());
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let spool = Spool::new();
        spool.push("nobody does this".to_owned());
        spool.flush(Instant::now() + Duration::from_millis(20));
        assert_eq!(spool.lock().jobs.len(), 1);
    }
}
